/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long each connection may take for what it is doing: a peer that sends or reads a byte now
 * and then would otherwise hold one for ever. A connection whose time is up is shut down; its
 * owner then sees the end of the stream. Any thread.
 */
#ifndef VARVE_PATIENCE_H
#define VARVE_PATIENCE_H

#include "cleanup.h"

#include <stdint.h>

struct patience;

/* The caller's storage, from patience_add() to patience_remove(). */
struct patience_entry {
	struct patience_entry *prev, *next;
	int fd;
	int64_t deadline_mono_ms;
};

#define PATIENCE_ENDLESS INT64_MAX

int patience_new(struct patience **ret) must_check;
/* Nothing may be in it. */
void patience_free(struct patience *p);
void patience_add(struct patience *p, struct patience_entry *e, int fd, int64_t ms);
/* From now on; PATIENCE_ENDLESS: no limit. */
void patience_set(struct patience *p, struct patience_entry *e, int64_t ms);
/* Before the descriptor is closed. */
void patience_remove(struct patience *p, struct patience_entry *e);

#endif
