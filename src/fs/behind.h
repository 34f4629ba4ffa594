/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting behind the writer: while a large file is written from one end to the other, a thread
 * cuts and hashes what has been staged, so that the seal has only the tail left. What was cut is
 * a prefix of the new content's manifest; a write into it takes back the pieces that it reaches.
 *
 *	behind_start(s, base, start);		where the first piece begins
 *	behind_wrote(s, start, end);		on every write
 *	behind_due(s) -> behind_run(...)	on a worker
 *	behind_stop(s, ...); behind_prefix(s, &m);	on the seal
 *
 * Threads: the instance's lock is held for all but behind_run(), which takes it, and
 * behind_prefix(), for a frozen staging.
 */
#ifndef VARVE_BEHIND_H
#define VARVE_BEHIND_H

#include "chunk/ingest.h"

struct behind;
struct staging;
struct cache;

/* One a worker thread; {0} to begin with. */
struct behind_buffer {
	uint8_t *p;
};

/* The first entry of `base` that an append to it may change: where cutting has to begin. */
uint64_t behind_append_start(struct manifest *base);
/*
 * `base` (NULL when start is 0) holds what lies before `start`, and up to where the staging
 * begins. 0 or -ENOMEM.
 */
int behind_start(struct staging *s, struct manifest *base, uint64_t start) must_check;
void behind_free(struct behind *b);
void behind_wrote(struct staging *s, uint64_t start, uint64_t end);
/* Whether enough is there for a run, and none is queued or runs. Then the caller queues one. */
bool behind_due(struct staging *s);
/* The run could not be queued. */
void behind_cancel(struct staging *s);
/* Cuts until little is left or behind_stop(). Signals *changed when done. */
void behind_run(struct staging *s, struct cache *c, struct behind_buffer *buffer,
	pthread_mutex_t *lock, pthread_cond_t *changed);
/* No other run begins, and a running one ends after its round; behind_stop() waits for that. */
void behind_halt(struct staging *s);
void behind_stop(struct staging *s, pthread_mutex_t *lock, pthread_cond_t *changed);
/* Ids and places of the chunks that were cut. */
struct behind_piece {
	uint64_t offset;
	uint64_t length;
	struct digest id;
	bool hole;
};
/* 1 with a manifest of what lies before *ret_cut; 0 when nothing was cut upon this base. */
int behind_prefix(struct staging *s, struct manifest *base, struct manifest **ret,
	uint64_t *ret_cut) must_check;
const struct behind_piece *behind_pieces(const struct staging *s, size_t *ret_n);

#endif
