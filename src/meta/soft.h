/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times of directories whose names were changed by entries that the server does not have yet.
 * A create would otherwise rewrite its directory's row; instead the row keeps the server's times
 * (and explicit ones), this table lies over them, and is rebuilt from the outbox at the start.
 *
 * Not locked here.
 */
#ifndef VARVE_SOFT_H
#define VARVE_SOFT_H

#include "cleanup.h"
#include "wire/wire.h"

struct soft_time;
struct soft_times {
	struct soft_time *rows;
};

void soft_done(struct soft_times *s);
/* An entry was queued: its directories get its time, or its explicit times end the soft ones. */
int soft_note(struct soft_times *s, const struct change *c, uint64_t entry) must_check;
/* True when the directory has one. */
bool soft_get(const struct soft_times *s, uint64_t dir, int64_t *ret_time_ns);
/* Entries up to this one are in the rows now. */
void soft_forget(struct soft_times *s, uint64_t up_to);
void soft_each(const struct soft_times *s, void (*visit)(void *ctx, uint64_t dir), void *ctx);

#endif
