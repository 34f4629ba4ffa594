// SPDX-License-Identifier: Apache-2.0
/*
 * replica_next(): the oldest entries as a commit. A commit is as large as it can be within
 * COMMIT_CHANGES_MAX and COMMIT_BYTES_MAX, the small chunks that will travel inside it counted.
 */
#include "fault.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

/* What stands around the parts of a commit: keys, and a length before each of its items. */
#define COMMIT_ENVELOPE (64 * KIB)
/* Of a chunk inside the commit: its frame and its place in the pack. */
#define INLINE_CHUNK_OVERHEAD (FRAME_OVERHEAD_MAX + DIGEST_BYTES + 16)

struct seen {
	UT_hash_handle hh;
	struct digest id;
};

/* Slices are offsets until the buffers stop moving. */
struct builder {
	struct tree *t;
	struct outgoing *o;
	struct buf *changes;
	struct buf *contents;
	size_t change_ends[COMMIT_CHANGES_MAX];
	size_t content_ends[COMMIT_CHANGES_MAX];
	size_t n_changes;
	size_t n_contents;
	size_t chunks_cap;
	uint64_t bytes;
	uint64_t limit; /* of a commit that was handed out before: its last entry */
	bool fixed;
	struct seen *seen_chunks;
	struct seen *seen_contents;
};

void outgoing_done(struct outgoing *o)
{
	free(o->chunks);
	free(o->slices);
	for (size_t i = 0; i < ARRAY_SIZE(o->memory); i++)
		buf_done(&o->memory[i]);
	*o = (struct outgoing){ 0 };
}

static void seen_done(struct seen **set)
{
	struct seen *s, *next;

	HASH_ITER (hh, *set, s, next) {
		HASH_DEL(*set, s);
		free(s);
	}
}

static void builder_done(struct builder *b)
{
	seen_done(&b->seen_chunks);
	seen_done(&b->seen_contents);
}

/* 1 when it is new, 0, -ENOMEM. */
static int see(struct seen **set, const struct digest *id)
{
	struct seen *s;

	HASH_FIND(hh, *set, id, sizeof *id, s);
	if (s)
		return 0;
	s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->id = *id;
	HASH_ADD(hh, *set, id, sizeof s->id, s);
	return 1;
}

/* Whether the server still has to get it from us. */
static int chunk_needed(struct builder *b, const struct digest *id)
{
	struct chunk_loc loc;
	bool needed;
	int r;

	if (!b->t->cache)
		return 1;
	r = cache_locate(b->t->cache, id, &loc);
	if (r <= 0)
		return r;
	needed = !(loc.flags & CACHE_ON_SERVER);
	chunk_loc_done(&loc);
	return needed;
}

static int add_chunk(struct builder *b, const struct manifest_entry *m)
{
	struct outgoing *o = b->o;
	int r = see(&b->seen_chunks, &m->id);

	if (r > 0)
		r = chunk_needed(b, &m->id);
	if (r <= 0)
		return r;
	if (o->n_chunks == b->chunks_cap) {
		size_t cap = b->chunks_cap ? b->chunks_cap * 2 : 64;
		struct needed_chunk *list = reallocarray(o->chunks, cap, sizeof *list);

		if (!list)
			return -ENOMEM;
		o->chunks = list;
		b->chunks_cap = cap;
	}
	o->chunks[o->n_chunks++] = (struct needed_chunk){ m->id, (uint32_t)m->length };
	return 0;
}

static uint64_t inline_bytes(const struct manifest *m)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < manifest_count(m); i++) {
		const struct manifest_entry *e = manifest_at(m, i);

		if (!e->hole && e->length <= CHUNK_INLINE_MAX)
			sum += e->length + INLINE_CHUNK_OVERHEAD;
	}
	return sum;
}

static int add_content(struct builder *b, struct manifest *m)
{
	size_t n;
	const uint8_t *p = manifest_bytes(m, &n);
	int r = see(&b->seen_contents, manifest_content_id(m));

	if (r <= 0)
		return r;
	r = buf_append(b->contents, p, n);
	if (r < 0)
		return r;
	b->content_ends[b->n_contents++] = b->contents->len;
	for (size_t i = 0; i < manifest_count(m) && r >= 0; i++) {
		if (!manifest_at(m, i)->hole)
			r = add_chunk(b, manifest_at(m, i));
	}
	return r;
}

/* The manifest of the entry's content; NULL when it names none. */
static int entry_manifest(struct tree *t, const struct outbox_rec *rec, struct manifest **ret)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct slice bytes = rec->manifest;
	int r;

	*ret = NULL;
	if (!(rec->tag & (OUTBOX_MANIFEST | OUTBOX_CONTENT)))
		return 0;
	if (rec->tag & OUTBOX_CONTENT) {
		r = store_get(t->store, CF_MANIFEST, bytes.p, bytes.n, &row);
		if (r <= 0)
			return r < 0 ? r : -EBADMSG;
		bytes = (struct slice){ row.data, row.len };
	}
	return manifest_decode(bytes.p, bytes.n, ret, NULL);
}

/* 1 when it went in, 0 when the commit is full. */
static int add_entry(struct builder *b, uint64_t number, struct slice row)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	struct outbox_rec rec;
	uint64_t bytes;
	size_t n = 0;
	int r = outbox_decode(row, &rec);

	if (r == 0)
		r = entry_manifest(b->t, &rec, &m);
	if (r < 0)
		return r;
	if (m)
		manifest_bytes(m, &n);
	bytes = rec.change.n + n + (m ? inline_bytes(m) : 0);
	if (b->n_changes && !b->fixed && b->bytes + bytes > COMMIT_BYTES_MAX - COMMIT_ENVELOPE)
		return 0;
	r = m ? add_content(b, m) : 0;
	if (r >= 0)
		r = buf_append(b->changes, rec.change.p, rec.change.n);
	if (r < 0)
		return r;
	b->bytes += bytes;
	b->change_ends[b->n_changes++] = b->changes->len;
	b->o->last_entry = number;
	return 1;
}

static int collect(struct builder *b)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	struct row_key first = key_id(b->t->done + 1);
	int r = store_iter_new(b->t->store, CF_OUTBOX, NULL, 0, &it);

	if (r < 0)
		return r;
	for (store_iter_seek(it, first.b, first.n); (r = store_iter_valid(it)) > 0;
		store_iter_next(it)) {
		uint64_t number;

		r = key_id_parse(store_iter_key(it), &number);
		if (r < 0)
			return r;
		if (number > b->limit || b->n_changes == COMMIT_CHANGES_MAX)
			return 0;
		r = add_entry(b, number, store_iter_value(it));
		if (r <= 0)
			return r;
	}
	return r;
}

static void fill(struct slice *slices, const uint8_t *p, const size_t *ends, size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		slices[i] = (struct slice){ p + at, ends[i] - at };
		at = ends[i];
	}
}

static int finish(struct builder *b)
{
	struct outgoing *o = b->o;

	o->slices = calloc(b->n_changes + b->n_contents, sizeof *o->slices);
	if (!o->slices)
		return -ENOMEM;
	fill(o->slices, b->changes->data, b->change_ends, b->n_changes);
	fill(o->slices + b->n_changes, b->contents->data, b->content_ends, b->n_contents);
	o->commit.changes = o->slices;
	o->commit.n_changes = b->n_changes;
	o->commit.contents = o->slices + b->n_changes;
	o->commit.n_contents = b->n_contents;
	return 0;
}

/* Its id is in the store before anybody hears of it. */
static int start_flight(struct tree *t, const struct outgoing *o)
{
	_cleanup_batch_ struct batch *b = NULL;
	struct inflight in = { .any = true, .base = t->cursor, .last_entry = o->last_entry };
	int r = batch_new(t->store, &b);

	if (r == 0 && getrandom(in.id, sizeof in.id, 0) != sizeof in.id)
		r = -EIO;
	if (r < 0)
		return r;
	inflight_put(b, &in);
	r = store_commit(t->store, b);
	fault_instant("outbox.flight");
	if (r == 0)
		t->inflight = in;
	return r;
}

static int build_locked(struct tree *t, struct builder *b)
{
	int r;

	b->fixed = t->inflight.any;
	b->limit = b->fixed ? t->inflight.last_entry : UINT64_MAX;
	r = collect(b);
	if (r < 0 || b->n_changes == 0)
		return r;
	r = finish(b);
	if (r == 0 && !b->fixed)
		r = start_flight(t, b->o);
	if (r < 0)
		return r;
	memcpy(b->o->commit.id, t->inflight.id, COMMIT_ID_BYTES);
	b->o->commit.base = t->inflight.base;
	return 1;
}

int replica_next(struct tree *t, struct outgoing *ret)
{
	_cleanup_free_ struct builder *b = calloc(1, sizeof *b);
	struct outgoing o = { 0 };
	int r;

	if (!b)
		return -ENOMEM;
	b->t = t;
	b->o = &o;
	b->changes = &o.memory[0];
	b->contents = &o.memory[1];
	{
		SCOPED_LOCK(&t->lock);
		r = build_locked(t, b);
	}
	builder_done(b);
	if (r <= 0) {
		outgoing_done(&o);
		return r;
	}
	*ret = o;
	return 1;
}
