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
struct places;
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

	struct places *places;
	pthread_rwlock_t verified_lock;
	struct verified *verified;
	_Atomic uint64_t damaged, lost; /* chunks, found since the opening */
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

/* cache_verify.c */
void cache_set_verified(struct cache *c, uint64_t segment, uint64_t offset);
void cache_forget_verified(struct cache *c, uint64_t segment);
void cache_verified_done(struct cache *c);
void cache_note_damage(struct cache *c, const struct digest *id, bool on_server);

/* cache_places.c */
int places_new(struct places **ret) must_check;
void places_free(struct places *p);
/* Where the chunk was found before, and still is: 1, 0, -errno. */
int cache_find_place(struct cache *c, const struct digest *id, struct chunk_loc *ret) must_check;
/* To be taken before the row is read that cache_keep_place() is told of. */
uint64_t cache_places_epoch(struct cache *c);
void cache_keep_place(
	struct cache *c, const struct digest *id, const struct chunk_loc *loc, uint64_t epoch);
/* After rows were dropped or marked because of their bytes. */
void cache_forget_places(struct cache *c);

/* cache_fetch.c */
int flights_new(struct flights **ret) must_check;
void flights_free(struct flights *f);

#endif
