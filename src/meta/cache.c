// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants:
 *  1. A row is put into a batch only after its bytes are in a segment file. The death of the
 *     process cannot part them; after power loss cache_open() checks what was not synced.
 *  2. A row whose bytes are gone or wrong is dropped when the server has the chunk: then the
 *     chunk is absent, and is fetched. Otherwise the row stays, marked as damaged: absence would
 *     hide a loss. Either way the next cache_add() of the chunk puts a good copy in its place.
 */
#include "meta/cache_impl.h"

#include "bounds.h"
#include "chunk/chunker.h"
#include "io.h"
#include "meta/chunk_row.h"
#include "meta/segment.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

/* Each is a move of the chunk between two looks. */
#define LOCATE_TRIES 16

/* ---- rows ---- */

int cache_get_row(
	struct cache *c, const struct digest *id, struct buf *value, struct chunk_row *ret)
{
	int r;

	buf_clear(value);
	r = store_get(c->store, CF_CHUNK, id->b, DIGEST_BYTES, value);
	if (r <= 0)
		return r;
	r = chunk_row_decode(value->data, value->len, ret);
	return r < 0 ? r : 1;
}

int cache_put_row(struct batch *b, const struct digest *id, const struct chunk_row *row)
{
	_cleanup_buf_ struct buf value = { 0 };
	int r = chunk_row_encode(row, &value);

	if (r == 0)
		batch_put(b, CF_CHUNK, id->b, DIGEST_BYTES, value.data, value.len);
	return r;
}

/* The segment that holds all of the row's bytes: 1, 0 gone or too short, -errno. */
static int row_segment(struct cache *c, const struct chunk_row *row, struct segment **ret)
{
	struct segment *seg;
	int r = segments_get(c->segments, row->segment, &seg);

	if (r <= 0)
		return r;
	if (row->offset + row->length > segment_size(seg)) {
		segment_unref(seg);
		return 0;
	}
	*ret = seg;
	return 1;
}

/* Whether the row leads to bytes (it does not look at them). */
static int row_is_whole(struct cache *c, const struct chunk_row *row)
{
	_cleanup_segment_ struct segment *seg = NULL;

	if (row->flags & CHUNK_ROW_DAMAGED)
		return 0;
	return row->inlined ? 1 : row_segment(c, row, &seg);
}

static int forget_or_mark(struct cache *c, const struct digest *id, struct chunk_row *row)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r = batch_new(c->store, &b);

	if (r < 0)
		return r;
	if (row->flags & CACHE_ON_SERVER) {
		batch_del(b, CF_CHUNK, id->b, DIGEST_BYTES);
	} else {
		row->flags |= CHUNK_ROW_DAMAGED;
		r = cache_put_row(b, id, row);
	}
	if (r == 0)
		r = store_commit(c->store, b);
	cache_forget_places(c);
	return r;
}

/* Invariant 2, unless the chunk has another row by now. */
static int row_is_bad(struct cache *c, const struct digest *id, const struct buf *seen)
{
	_cleanup_buf_ struct buf value = { 0 };
	struct chunk_row row;
	SCOPED_LOCK(&c->rows);
	int r = cache_get_row(c, id, &value, &row);

	if (r == -EBADMSG) {
		row = (struct chunk_row){ .flags = CACHE_ON_SERVER }; /* not a row at all */
		r = 1;
	}
	if (r <= 0)
		return r;
	if (value.len != seen->len || memcmp(value.data, seen->data, seen->len) != 0)
		return 0;
	return row.flags & CHUNK_ROW_DAMAGED ? 0 : forget_or_mark(c, id, &row);
}

/* ---- adding ---- */

/* 1 when the chunk is here already (its flags are merged then). */
static int add_known(struct cache *c, struct batch *b, const struct digest *id, unsigned flags)
{
	_cleanup_buf_ struct buf value = { 0 };
	struct chunk_row row;
	int r = cache_get_row(c, id, &value, &row);

	if (r == -EBADMSG)
		return 0; /* replaced by a good one */
	if (r > 0)
		r = row_is_whole(c, &row);
	if (r <= 0)
		return r;
	if ((row.flags | flags) == row.flags)
		return 1;
	row.flags |= flags;
	r = cache_put_row(b, id, &row);
	return r < 0 ? r : 1;
}

static int add_inlined(
	struct batch *b, const struct digest *id, const void *p, size_t n, unsigned flags)
{
	struct chunk_row row = {
		.flags = flags,
		.inlined = true,
		.bytes = { p, n },
		.length = (uint32_t)n,
	};

	return cache_put_row(b, id, &row);
}

static int add_in_segment(struct cache *c, struct batch *b, const struct digest *id,
	struct segment *seg, uint64_t offset, size_t n, unsigned flags)
{
	struct chunk_row row = {
		.flags = flags,
		.segment = segment_id(seg),
		.offset = offset,
		.length = (uint32_t)n,
	};
	int r = cache_touch_segment(c, b, seg);

	if (r < 0)
		return r;
	cache_set_verified(c, row.segment, offset);
	return cache_put_row(b, id, &row);
}

int cache_add(struct cache *c, struct batch *b, const struct digest *id, const void *p, size_t n,
	unsigned flags)
{
	_cleanup_segment_ struct segment *seg = NULL;
	uint64_t offset;
	int r = 0;

	assert(n > 0 && n <= CHUNK_MAX);
	if (n > CHUNK_INLINE_MAX) /* smaller ones are never evicted */
		r = cache_touch(c, b, id);
	if (r == 0)
		r = add_known(c, b, id, flags);
	if (r != 0)
		return r < 0 ? r : 0;
	if (n <= CHUNK_INLINE_MAX)
		return add_inlined(b, id, p, n, flags);
	r = segments_append(c->segments, p, n, &seg, &offset);
	return r < 0 ? r : add_in_segment(c, b, id, seg, offset, n, flags);
}

int cache_adopt(struct cache *c, const char *path, int fd, struct segment **ret)
{
	return segments_adopt(c->segments, path, fd, ret);
}

int cache_add_at(struct cache *c, struct batch *b, const struct digest *id, struct segment *seg,
	uint64_t offset, size_t n, unsigned flags)
{
	int r;

	assert(n > 0 && n <= CHUNK_MAX && offset + n <= segment_size(seg));
	r = cache_touch(c, b, id);
	if (r == 0)
		r = add_known(c, b, id, flags);
	if (r != 0)
		return r < 0 ? r : 0;
	return add_in_segment(c, b, id, seg, offset, n, flags);
}

/* ---- finding ---- */

void chunk_loc_done(struct chunk_loc *loc)
{
	segment_unref(steal(loc->seg));
	buf_done(&loc->inlined);
}

static int locate_inlined(const struct chunk_row *row, struct chunk_loc *ret)
{
	struct chunk_loc loc = { .fd = -1, .length = row->length };
	int r = buf_append(&loc.inlined, row->bytes.p, row->bytes.n);

	if (r < 0)
		return r;
	loc.flags = row->flags;
	*ret = loc;
	return 1;
}

/* -ESTALE when the row has no bytes; the row's value is left in *seen. */
static int locate_once(
	struct cache *c, const struct digest *id, struct buf *seen, struct chunk_loc *ret)
{
	struct chunk_row row;
	struct segment *seg = NULL;
	int r = cache_get_row(c, id, seen, &row);

	if (r <= 0)
		return r;
	if (row.flags & CHUNK_ROW_DAMAGED)
		return -EIO;
	if (row.inlined)
		return locate_inlined(&row, ret);
	r = row_segment(c, &row, &seg);
	if (r < 0)
		return r;
	if (r == 0)
		return -ESTALE;
	*ret = (struct chunk_loc){
		.seg = seg,
		.fd = segment_fd(seg),
		.offset = row.offset,
		.length = row.length,
		.flags = row.flags,
	};
	return 1;
}

/* As cache_locate(), with the row's value left in *seen. */
static int locate(struct cache *c, const struct digest *id, struct buf *seen, struct chunk_loc *ret)
{
	/*
	 * The row is bad, and will say so at the next look; or it was changed since we read it,
	 * because an eviction moved the chunk.
	 */
	for (int tries = 0; tries < LOCATE_TRIES; tries++) {
		int r = locate_once(c, id, seen, ret);

		if (r != -ESTALE)
			return r;
		r = row_is_bad(c, id, seen);
		if (r < 0)
			return r;
	}
	return -EIO;
}

int cache_locate(struct cache *c, const struct digest *id, struct chunk_loc *ret)
{
	_cleanup_buf_ struct buf seen = { 0 };
	int r = locate(c, id, &seen, ret);

	if (r != -EBADMSG || seen.len == 0)
		return r;
	/* A row that does not decode says nothing; what it stood for can only be fetched. */
	r = row_is_bad(c, id, &seen);
	return r < 0 ? r : 0;
}

static int read_loc(const struct chunk_loc *loc, struct buf *ret)
{
	int r;

	if (!loc->seg)
		return buf_append(ret, loc->inlined.data, loc->inlined.len);
	r = buf_reserve(ret, loc->length);
	if (r == 0)
		r = io_pread_full(loc->fd, ret->data + ret->len, loc->length, loc->offset);
	if (r == 0)
		ret->len += loc->length;
	return r;
}

/* Appends and checks: 0; -EBADMSG when the bytes are not the chunk's, or cannot be read. */
static int read_checked(const struct chunk_loc *loc, const struct digest *id, struct buf *ret)
{
	size_t had = ret->len;
	struct digest actual;
	int r = read_loc(loc, ret);

	if (r == -ENODATA || r == -EIO)
		return -EBADMSG;
	if (r < 0)
		return r;
	digest_of(ret->data + had, ret->len - had, &actual);
	if (digest_eq(&actual, id))
		return 0;
	ret->len = had;
	return -EBADMSG;
}

int cache_read_chunk(struct cache *c, const struct digest *id, struct buf *ret)
{
	_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 };
	_cleanup_buf_ struct buf seen = { 0 };
	int r = locate(c, id, &seen, &loc), bad;

	if (r == 0)
		return 0;
	if (r > 0)
		r = read_checked(&loc, id, ret);
	if (r == 0 && loc.seg)
		cache_set_verified(c, segment_id(loc.seg), loc.offset);
	if (r == 0)
		return 1;
	if (r != -EBADMSG || seen.len == 0)
		return r;
	cache_note_damage(c, id, loc.flags & CACHE_ON_SERVER);
	bad = row_is_bad(c, id, &seen);
	return bad < 0 ? bad : -EBADMSG;
}

/* ---- marks ---- */

static int set_flags(
	struct cache *c, struct batch *b, const struct digest *id, unsigned set, unsigned clear)
{
	_cleanup_buf_ struct buf value = { 0 };
	struct chunk_row row;
	unsigned flags;
	int r = cache_get_row(c, id, &value, &row);

	if (r == -EBADMSG)
		return 0; /* found, and dealt with, by who reads it */
	if (r <= 0)
		return r;
	flags = (row.flags | set) & ~clear;
	if (flags == row.flags)
		return 0;
	row.flags = flags;
	return cache_put_row(b, id, &row);
}

int cache_mark_on_server(struct cache *c, struct batch *b, const struct digest *ids, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = set_flags(c, b, &ids[i], CACHE_ON_SERVER, 0);

		if (r < 0)
			return r;
	}
	return 0;
}

int cache_unmark(struct cache *c, const struct digest *ids, size_t n)
{
	_cleanup_batch_ struct batch *b = NULL;
	SCOPED_LOCK(&c->rows);
	int r = batch_new(c->store, &b);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = set_flags(c, b, &ids[i], 0, CACHE_ON_SERVER);
	return r < 0 ? r : store_commit(c->store, b);
}

/* ---- opening and closing ---- */

static int check_row(struct cache *c, const struct digest *id, const struct segment_doubt *doubt,
	const struct slice value, struct buf *lost)
{
	_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 };
	_cleanup_buf_ struct buf bytes = { 0 };
	struct chunk_row row;
	int r;

	if (chunk_row_decode(value.p, value.n, &row) < 0 || row.inlined)
		return 0;
	if (row.segment < doubt->first || row.segment >= doubt->end)
		return 0;
	r = cache_read_chunk(c, id, &bytes);
	if (r != -EBADMSG && r != -EIO)
		return MIN(r, 0);
	return row.flags & CACHE_ON_SERVER ? 0 : buf_append(lost, id->b, DIGEST_BYTES);
}

/* Before the segments count as checked: who takes back what needs these chunks may be killed. */
static int note_lost(struct cache *c, struct buf *lost)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r = lost->len ? batch_new(c->store, &b) : 0;

	if (r == 0 && lost->len)
		r = store_get(c->store, CF_STATE, CACHE_STATE_LOST, strlen(CACHE_STATE_LOST), lost);
	if (r < 0 || !lost->len)
		return r;
	batch_put(b, CF_STATE, CACHE_STATE_LOST, strlen(CACHE_STATE_LOST), lost->data, lost->len);
	return store_commit(c->store, b);
}

/* After power loss: reads every chunk that may not have reached the disk. */
static int check_doubted(struct cache *c, const struct segment_doubt *doubt)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	_cleanup_buf_ struct buf lost = { 0 };
	int r = store_iter_new(c->store, CF_CHUNK, NULL, 0, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct slice key = store_iter_key(it);
		struct digest id;

		if (key.n != DIGEST_BYTES)
			continue;
		memcpy(id.b, key.p, DIGEST_BYTES);
		r = check_row(c, &id, doubt, store_iter_value(it), &lost);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : note_lost(c, &lost);
}

static int open_segments(struct cache *c, const char *dir, struct err *err)
{
	_cleanup_free_ char *path = NULL;
	struct segment_doubt doubt;
	int r;

	if (asprintf(&path, "%s/segments", dir) < 0) {
		path = NULL;
		return err_sys(err, ENOMEM, "%s", dir);
	}
	r = segments_open(c->store, path, &c->segments, &doubt, err);
	if (r < 0)
		return r;
	if (doubt.any)
		r = check_doubted(c, &doubt);
	if (r == 0)
		r = segments_settle(c->segments);
	return r < 0 ? err_sys(err, -r, "%s: cannot check the chunk cache", dir) : 0;
}

int cache_open(struct store *st, const char *dir, struct cache **ret, struct err *err)
{
	struct cache *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return err_sys(err, ENOMEM, "%s", dir);
	c->store = st;
	pthread_mutex_init(&c->rows, NULL);
	pthread_mutex_init(&c->touch_lock, NULL);
	pthread_rwlock_init(&c->verified_lock, NULL);
	r = flights_new(&c->flights);
	if (r == 0)
		r = places_new(&c->places);
	if (r < 0)
		err_sys(err, -r, "%s", dir);
	else
		r = open_segments(c, dir, err);
	if (r < 0) {
		cache_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	segments_free(c->segments);
	flights_free(c->flights);
	places_free(c->places);
	cache_verified_done(c);
	pthread_mutex_destroy(&c->touch_lock);
	pthread_mutex_destroy(&c->rows);
	free(c);
}

void cache_set_source(struct cache *c, struct chunk_source source)
{
	c->source = source;
}

int cache_sync(struct cache *c)
{
	return segments_sync(c->segments);
}

int cache_sync_all(struct cache *c)
{
	int r = cache_sync(c);

	return r < 0 ? r : store_sync(c->store);
}

void cache_get_stats(struct cache *c, struct cache_stats *ret)
{
	segments_stats(c->segments, &ret->segments, &ret->segment_bytes);
	ret->damaged = atomic_load(&c->damaged);
	ret->lost = atomic_load(&c->lost);
}
