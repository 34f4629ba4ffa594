/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the cache and its eviction share, and nobody else.
 *
 * Locks, in this order, before those of the segments and the store:
 *	rows		over the read and the write of a row that is changed in place
 *	touch_lock	who relies on which chunk; also over the commit of an eviction's rows
 */
#ifndef VARVE_CACHE_IMPL_H
#define VARVE_CACHE_IMPL_H

#include "meta/cache.h"
#include "meta/chunk_row.h"
#include "meta/segment.h"

#include <pthread.h>

struct flights;
struct touched;

struct cache {
	struct store *store;
	struct segments *segments;
	struct chunk_source source; /* set before the first miss */
	struct flights *flights;
	pthread_mutex_t rows;
	pthread_mutex_t touch_lock; /* of all below */
	struct touched *touched;
	struct cache_hold *holds;
	bool evicting;
};

/* cache.c */
/* The row and the value it was decoded from. 1, 0, -errno. */
int cache_get_row(struct cache *c, const struct digest *id, struct buf *value,
	struct chunk_row *ret) must_check;
int cache_put_row(struct batch *b, const struct digest *id, const struct chunk_row *row) must_check;

/* cache_touch.c */
int cache_touch(struct cache *c, struct batch *b, const struct digest *id) must_check;
int cache_touch_segment(struct cache *c, struct batch *b, struct segment *seg) must_check;
bool cache_is_touched_locked(struct cache *c, const struct digest *id);
void cache_evict_begin(struct cache *c);
void cache_evict_end(struct cache *c);
int cache_each_held(struct cache *c, int (*visit)(void *ctx, const struct manifest *content),
	void *ctx) must_check;

/* cache_fetch.c */
int flights_new(struct flights **ret) must_check;
void flights_free(struct flights *f);

#endif
