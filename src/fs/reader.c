// SPDX-License-Identifier: Apache-2.0
/*
 * A read is planned in two steps: under the instance's lock, which layer each run of bytes
 * comes from; then, without it, where the base's chunks lie, fetching those that are not here.
 */
#include "fs/instance.h"

#include "bounds.h"
#include "clock.h"

#include <errno.h>
#include <string.h>

/* What one plan can cover; the kernel's largest request is far below. */
#define PLAN_BYTES_MAX (16 * MIB)
/*
 * Read-ahead of what is not here: enough to keep a line of 100 Mbit/s and a round trip of half a
 * second busy.
 */
#define AHEAD_BYTES (8 * MIB)
#define AHEAD_CHUNKS_MAX 256
#define LOCATE_TRIES 8

static const uint8_t zeros[1 * MIB];

static bool find_in(struct staging *s, uint64_t offset, struct span *io)
{
	struct extent e;

	if (!s || !overlay_find(&s->map, offset, &e))
		return false;
	if (e.start > offset) {
		io->end = MIN(io->end, e.start);
		return false;
	}
	io->end = MIN(io->end, e.end);
	io->kind = e.kind == EXTENT_STAGED ? SPAN_STAGED : SPAN_ZERO;
	io->staging = s;
	io->pos = e.pos + (offset - e.start);
	return true;
}

void file_span_locked(const struct file *f, uint64_t offset, uint64_t limit, struct span *ret)
{
	uint64_t base_size = f->base ? manifest_size(f->base) : 0;

	*ret = (struct span){ .start = offset, .end = limit };
	if (find_in(f->active, offset, ret) || find_in(f->frozen, offset, ret))
		return;
	ret->kind = offset < base_size ? SPAN_BASE : SPAN_ZERO;
	if (ret->kind == SPAN_BASE)
		ret->end = MIN(ret->end, base_size);
}

/* What the pieces of a plan lie in. */
struct held {
	struct staging **stagings;
	size_t n_stagings;
	struct chunk_loc *locs;
	size_t n_locs;
	struct buf copy; /* of small staged bytes; reserved at once, so that it never moves: */
	size_t copy_max;
	size_t capacity; /* of pieces */
};

void read_plan_done(struct read_plan *p)
{
	struct held *h = p->held;

	if (h) {
		for (size_t i = 0; i < h->n_stagings; i++)
			staging_unref(h->stagings[i]);
		for (size_t i = 0; i < h->n_locs; i++)
			chunk_loc_done(&h->locs[i]);
		free(h->stagings);
		free(h->locs);
		buf_done(&h->copy);
		free(h);
	}
	free(p->pieces);
	*p = (struct read_plan){ 0 };
}

static int add_piece(struct read_plan *p, const struct read_piece *piece)
{
	struct held *h = p->held;

	if (p->n == h->capacity) {
		size_t capacity = h->capacity ? 2 * h->capacity : 8;
		struct read_piece *pieces = realloc(p->pieces, capacity * sizeof *pieces);

		if (!pieces)
			return -ENOMEM;
		p->pieces = pieces;
		h->capacity = capacity;
	}
	p->pieces[p->n++] = *piece;
	p->bytes += piece->n;
	return 0;
}

static int add_zeros(struct read_plan *p, size_t n)
{
	while (n) {
		size_t part = MIN(n, sizeof zeros);
		int r = add_piece(p, &(struct read_piece){ .fd = -1, .mem = zeros, .n = part });

		if (r < 0)
			return r;
		n -= part;
	}
	return 0;
}

static int hold_staging(struct held *h, struct staging *s)
{
	struct staging **more;

	for (size_t i = 0; i < h->n_stagings; i++) {
		if (h->stagings[i] == s)
			return 0;
	}
	more = realloc(h->stagings, (h->n_stagings + 1) * sizeof *more);
	if (!more)
		return -ENOMEM;
	h->stagings = more;
	h->stagings[h->n_stagings++] = staging_ref(s);
	return 0;
}

/*
 * Bytes in memory are copied: a write may change them as soon as the lock is gone. Those in a
 * staging file stay readable while it is held, whatever becomes of its name.
 */
static int add_staged_locked(struct read_plan *p, const struct span *span)
{
	struct held *h = p->held;
	size_t n = (size_t)(span->end - span->start);
	struct read_piece piece = { .fd = span->staging->fd, .offset = span->pos, .n = n };
	int r;

	if (span->staging->fd >= 0) {
		r = hold_staging(h, span->staging);
	} else {
		r = h->copy.cap ? 0 : buf_reserve(&h->copy, h->copy_max);
		if (r == 0) {
			piece.mem = h->copy.data + h->copy.len;
			r = buf_append(&h->copy, span->staging->bytes.data + span->pos, n);
		}
	}
	return r < 0 ? r : add_piece(p, &piece);
}

/* A span of the base becomes a piece without a place (fd -2), which the second step gives it. */
#define PIECE_BASE (-2)

static int plan_locked(struct file *f, uint64_t offset, uint64_t end, struct read_plan *ret)
{
	struct held *h = ret->held;
	struct span span;

	/* Each byte comes from one place, and two stagings can lie in memory. */
	h->copy_max = (size_t)MIN(end - offset, 2 * STAGING_SMALL_MAX);
	for (uint64_t at = offset; at < end; at = span.end) {
		size_t n;
		int r;

		file_span_locked(f, at, end, &span);
		n = (size_t)(span.end - span.start);
		if (span.kind == SPAN_ZERO)
			r = add_zeros(ret, n);
		else if (span.kind == SPAN_STAGED)
			r = add_staged_locked(ret, &span);
		else
			r = add_piece(ret, &(struct read_piece){ PIECE_BASE, at, NULL, n });
		if (r < 0)
			return r;
	}
	return 0;
}

/* Where the base's bytes are to be found, for the step without a lock. */
struct base_read {
	struct files *fs;
	struct manifest *base;
	const _Atomic int *cancelled;
	bool missed;
};

static int require(struct base_read *b, const struct digest *ids, size_t n)
{
	b->missed = true;
	return cache_require(b->fs->cache, ids, n, clock_mono_ms() + b->fs->network_timeout_ms,
		b->cancelled, NULL);
}

/* Fetches in one go the chunks of [offset, end) that are not here. */
static int require_range(struct base_read *b, uint64_t offset, uint64_t end)
{
	_cleanup_free_ struct digest *ids = NULL;
	size_t i = manifest_find(b->base, offset), n = 0, count = manifest_count(b->base);

	ids = calloc((size_t)((end - offset) / CHUNK_MIN) + 16, sizeof *ids);
	if (!ids)
		return -ENOMEM;
	for (; i < count && manifest_at(b->base, i)->offset < end; i++) {
		const struct manifest_entry *e = manifest_at(b->base, i);

		if (e->hole)
			continue;
		if (n == (size_t)((end - offset) / CHUNK_MIN) + 16) {
			int r = require(b, ids, n);

			if (r < 0)
				return r;
			n = 0;
		}
		ids[n++] = e->id;
	}
	return n ? require(b, ids, n) : 0;
}

static int hold_loc(struct held *h, const struct chunk_loc *loc)
{
	struct chunk_loc *more = realloc(h->locs, (h->n_locs + 1) * sizeof *more);

	if (!more)
		return -ENOMEM;
	h->locs = more;
	h->locs[h->n_locs++] = *loc;
	return 0;
}

/* The chunk's place, fetched first (with what follows up to `end`) when it is not here. */
static int locate(
	struct base_read *b, const struct manifest_entry *e, uint64_t end, struct chunk_loc *ret)
{
	int r = cache_locate_verified(b->fs->cache, &e->id, ret);

	/* Again, when an eviction took it between the two. */
	for (int tries = 0; r == 0 && tries < LOCATE_TRIES; tries++) {
		r = require_range(b, e->offset, MAX(end, e->offset + 1));
		if (r == 0)
			r = cache_locate_verified(b->fs->cache, &e->id, ret);
	}
	if (r == 0)
		r = -EIO;
	if (r > 0 && ret->length != e->length) {
		chunk_loc_done(ret);
		return -EIO;
	}
	return r < 0 ? r : 0;
}

static int add_chunk(struct base_read *b, struct read_plan *p, const struct manifest_entry *e,
	uint64_t offset, uint64_t end)
{
	struct chunk_loc loc = { 0 };
	uint64_t into = offset - e->offset;
	struct read_piece piece;
	int r = locate(b, e, end, &loc);

	if (r < 0)
		return r;
	r = hold_loc(p->held, &loc);
	if (r < 0) {
		chunk_loc_done(&loc);
		return r;
	}
	piece = (struct read_piece){ .fd = loc.fd, .offset = loc.offset + into };
	if (loc.fd < 0)
		piece.mem = loc.inlined.data + into;
	piece.n = (size_t)(MIN(end, e->offset + e->length) - offset);
	return add_piece(p, &piece);
}

static int add_base(struct base_read *b, struct read_plan *p, uint64_t offset, uint64_t end)
{
	while (offset < end) {
		const struct manifest_entry *e =
			manifest_at(b->base, manifest_find(b->base, offset));
		uint64_t until = MIN(end, e->offset + e->length);
		int r = e->hole ? add_zeros(p, (size_t)(until - offset))
				: add_chunk(b, p, e, offset, end);

		if (r < 0)
			return r;
		offset = until;
	}
	return 0;
}

/* The second step: the same plan with the base's pieces in their places. */
static int place_base(struct base_read *b, struct read_plan *p)
{
	struct read_plan placed = { .held = p->held };
	struct held *h = p->held;
	int r = 0;

	h->capacity = 0;
	for (size_t i = 0; i < p->n && r == 0; i++) {
		const struct read_piece *piece = &p->pieces[i];

		if (piece->fd == PIECE_BASE)
			r = add_base(b, &placed, piece->offset, piece->offset + piece->n);
		else
			r = add_piece(&placed, piece);
	}
	free(p->pieces);
	*p = placed;
	return r;
}

struct ahead_task {
	struct file *file;
	struct manifest *base;
	uint64_t start, end;
};

static void run_ahead(void *arg)
{
	struct ahead_task *t = arg;
	struct file *f = t->file;
	struct base_read b = { .fs = f->fs, .base = t->base };
	/* Nobody waits for this: the read that needs the bytes hears of the error itself. */
	int r = require_range(&b, t->start, t->end);

	(void)r;
	pthread_mutex_lock(&f->lock);
	f->ahead_busy = false;
	pthread_mutex_unlock(&f->lock);
	manifest_unref(t->base);
	file_unref(f);
	free(t);
}

static void queue_ahead_locked(struct file *f, struct manifest *base, uint64_t start, uint64_t end)
{
	struct ahead_task *t = malloc(sizeof *t);

	if (!t)
		return;
	*t = (struct ahead_task){ file_ref(f), manifest_ref(base), start, end };
	f->ahead_busy = true;
	f->ahead_until = end;
	if (workers_submit(f->fs->fetchers, run_ahead, t) < 0) {
		f->ahead_busy = false;
		manifest_unref(base);
		file_unref(f);
		free(t);
	}
}

/*
 * A reader who goes on where he ended, and had to wait for the network, gets the next bytes
 * fetched before he asks. Local files cost no look-ups.
 */
static void read_ahead(
	struct file *f, struct manifest *base, uint64_t offset, uint64_t end, bool missed)
{
	uint64_t size = manifest_size(base), start;
	bool sequential;

	SCOPED_LOCK(&f->lock);
	sequential = offset == f->read_next;
	f->read_next = end;
	f->missed |= missed;
	if (!sequential) {
		f->ahead_until = end;
		return;
	}
	start = MAX(end, f->ahead_until);
	/* The next one is due when half of the last is read. */
	if (!f->missed || f->ahead_busy || start >= size || start > end + AHEAD_BYTES / 2)
		return;
	queue_ahead_locked(f, base, start, MIN(size, start + AHEAD_BYTES));
}

static int plan_layers(struct file *f, uint64_t offset, size_t n, struct read_plan *ret,
	struct manifest **ret_base)
{
	uint64_t size;
	int r = 0;

	SCOPED_LOCK(&f->lock);
	size = f->attr.attr.size;
	if (offset >= size)
		return 0;
	n = (size_t)MIN(MIN((uint64_t)n, PLAN_BYTES_MAX), size - offset);
	if (!f->base && !(f->active && overlay_covers(&f->active->map, offset, offset + n)))
		r = file_load_base_locked(f);
	if (r == 0)
		r = plan_locked(f, offset, offset + n, ret);
	if (r == 0 && f->base)
		*ret_base = manifest_ref(f->base);
	return r;
}

int file_read_plan(struct file *f, uint64_t offset, size_t n, const _Atomic int *cancelled,
	struct read_plan *ret)
{
	_cleanup_manifest_ struct manifest *base = NULL;
	_cleanup_(read_plan_done) struct read_plan plan = { 0 };
	struct base_read b = { .fs = f->fs, .cancelled = cancelled };
	int r;

	plan.held = calloc(1, sizeof(struct held));
	if (!plan.held)
		return -ENOMEM;
	r = plan_layers(f, offset, n, &plan, &base);
	if (r == 0 && base) {
		b.base = base;
		r = place_base(&b, &plan);
	}
	if (r < 0)
		return r;
	if (base && plan.bytes)
		read_ahead(f, base, offset, offset + plan.bytes, b.missed);
	*ret = plan;
	plan = (struct read_plan){ 0 };
	return 0;
}
