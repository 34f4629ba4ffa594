/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eviction: the chunk cache gives disk space back, whole segments at a time, the coldest and
 * emptiest first, moving what must stay.
 *
 *	evict_start(&options, &e, &err);	a thread of its own, until
 *	evict_stop(e);
 *
 * What may go: chunks that the server has; and of the others those that nothing can come to need:
 * neither the outbox nor a hold names them, and no batch relies on them (cache_touch.c).
 *
 * The thread wakes when the disk's free space falls below a reserve, which lies above what
 * store_room() refuses at; when the segments outgrow their budget; and when store_room() has
 * refused somebody, who then waits a little for it. It gives up, with growing pauses, when nothing
 * can go.
 *
 * Threads: evict_start() and evict_stop() from one; evict_run() from any, one at a time, and not
 * beside a started thread.
 */
#ifndef VARVE_EVICT_H
#define VARVE_EVICT_H

#include "meta/tree.h"

struct evict;

struct evict_options {
	struct store *store;
	struct cache *cache;
	struct tree *tree; /* NULL: everything that the server does not have stays */
	uint64_t budget_bytes; /* of segments; 0: as much as the disk has */
};

/* To be called after recovery, when no file is half adopted any more. */
int evict_start(
	const struct evict_options *options, struct evict **ret, struct err *err) must_check;
/* NULL is fine. Nobody may be in a call that asks for room when the store is freed after it. */
void evict_stop(struct evict *e);

struct evict_result {
	uint64_t freed_bytes;
	uint64_t moved_bytes;
	uint64_t segments; /* removed */
};

/*
 * One run: removes segments that hold nothing any more, and then others until `want_bytes` are
 * free or nothing else can go. stop: ends it early when it becomes true; can be NULL.
 */
int evict_run(const struct evict_options *options, uint64_t want_bytes, const _Atomic int *stop,
	struct evict_result *ret) must_check;

#endif
