// SPDX-License-Identifier: Apache-2.0
/*
 * Who relies on a chunk that nothing in the store names yet.
 *
 * A batch's chunks are *touched* from before cache_add() looks for the row until the batch is
 * committed or freed; while an eviction runs, until that ends. So of a chunk that is not touched
 * an eviction knows: who came before it began is in the outbox that it has read, and who comes
 * later will find the row as the eviction leaves it.
 *
 * The batch also holds the segments that its rows will name: without a row they look empty.
 */
#include "meta/cache_impl.h"

#include "chunk/manifest.h"

#include <errno.h>
#include <uthash.h>
#include <utlist.h>

struct touched {
	struct digest id;
	unsigned batches; /* that rely on it */
	UT_hash_handle hh;
};

struct batch_touches {
	struct cache *cache;
	struct digest *ids;
	size_t n, capacity;
	struct segment **segments;
	size_t n_segments, segments_capacity;
};

struct cache_hold {
	struct cache *cache;
	struct manifest *content;
	struct cache_hold *prev, *next;
};

static void untouch_locked(struct cache *c, const struct digest *id)
{
	struct touched *t;

	HASH_FIND(hh, c->touched, id, sizeof *id, t);
	if (--t->batches > 0 || c->evicting)
		return;
	HASH_DEL(c->touched, t);
	free(t);
}

static void release(void *guard)
{
	struct batch_touches *bt = guard;

	pthread_mutex_lock(&bt->cache->touch_lock);
	for (size_t i = 0; i < bt->n; i++)
		untouch_locked(bt->cache, &bt->ids[i]);
	pthread_mutex_unlock(&bt->cache->touch_lock);
	for (size_t i = 0; i < bt->n_segments; i++)
		segment_unref(bt->segments[i]);
	free(bt->ids);
	free(bt->segments);
	free(bt);
}

static int touches_of(struct cache *c, struct batch *b, struct batch_touches **ret)
{
	struct batch_touches *bt = batch_guard(b);

	if (!bt) {
		bt = calloc(1, sizeof *bt);
		if (!bt)
			return -ENOMEM;
		bt->cache = c;
		batch_set_guard(b, release, bt);
	}
	*ret = bt;
	return 0;
}

static int touch_locked(struct cache *c, const struct digest *id)
{
	struct touched *t;

	HASH_FIND(hh, c->touched, id, sizeof *id, t);
	if (!t) {
		t = calloc(1, sizeof *t);
		if (!t)
			return -ENOMEM;
		t->id = *id;
		HASH_ADD(hh, c->touched, id, sizeof t->id, t);
	}
	t->batches++;
	return 0;
}

int cache_touch(struct cache *c, struct batch *b, const struct digest *id)
{
	struct batch_touches *bt;
	int r = touches_of(c, b, &bt);

	if (r < 0)
		return r;
	if (bt->n == bt->capacity) {
		size_t capacity = bt->capacity ? 2 * bt->capacity : 4;
		struct digest *ids = reallocarray(bt->ids, capacity, sizeof *ids);

		if (!ids)
			return -ENOMEM;
		bt->ids = ids;
		bt->capacity = capacity;
	}
	SCOPED_LOCK(&c->touch_lock);
	r = touch_locked(c, id);
	if (r == 0)
		bt->ids[bt->n++] = *id;
	return r;
}

int cache_touch_segment(struct cache *c, struct batch *b, struct segment *seg)
{
	struct batch_touches *bt;
	int r = touches_of(c, b, &bt);

	if (r < 0)
		return r;
	if (bt->n_segments && bt->segments[bt->n_segments - 1] == seg)
		return 0;
	if (bt->n_segments == bt->segments_capacity) {
		size_t capacity = bt->segments_capacity ? 2 * bt->segments_capacity : 2;
		struct segment **list = reallocarray(bt->segments, capacity, sizeof *list);

		if (!list)
			return -ENOMEM;
		bt->segments = list;
		bt->segments_capacity = capacity;
	}
	bt->segments[bt->n_segments++] = segment_ref(seg);
	return 0;
}

bool cache_is_touched_locked(struct cache *c, const struct digest *id)
{
	struct touched *t;

	HASH_FIND(hh, c->touched, id, sizeof *id, t);
	return t;
}

void cache_evict_begin(struct cache *c)
{
	SCOPED_LOCK(&c->touch_lock);

	c->evicting = true;
}

void cache_evict_end(struct cache *c)
{
	struct touched *t, *next;

	SCOPED_LOCK(&c->touch_lock);
	c->evicting = false;
	HASH_ITER (hh, c->touched, t, next) {
		if (t->batches)
			continue;
		HASH_DEL(c->touched, t);
		free(t);
	}
}

/* ---- holds ---- */

int cache_hold(struct cache *c, struct manifest *content, struct cache_hold **ret)
{
	struct cache_hold *h = calloc(1, sizeof *h);

	if (!h)
		return -ENOMEM;
	h->cache = c;
	h->content = manifest_ref(content);
	SCOPED_LOCK(&c->touch_lock);
	DL_APPEND(c->holds, h);
	*ret = h;
	return 0;
}

void cache_release(struct cache_hold *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&h->cache->touch_lock);
	DL_DELETE(h->cache->holds, h);
	pthread_mutex_unlock(&h->cache->touch_lock);
	manifest_unref(h->content);
	free(h);
}

int cache_each_held(
	struct cache *c, int (*visit)(void *ctx, const struct manifest *content), void *ctx)
{
	struct cache_hold *h;

	SCOPED_LOCK(&c->touch_lock);
	DL_FOREACH (c->holds, h) {
		int r = visit(ctx, h->content);

		if (r < 0)
			return r;
	}
	return 0;
}
