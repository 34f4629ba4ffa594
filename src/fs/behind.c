// SPDX-License-Identifier: Apache-2.0
#include "fs/behind.h"

#include "fs/staging.h"
#include "fs/bytes_view.h"
#include "bounds.h"
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Bytes that one round reads: many pieces, and a small part of it is read twice. */
#define ROUND_BYTES (8 * MIB)
/* A run begins when this much is there: fewer wake-ups than that cost nothing. */
#define RUN_BYTES (4 * MIB)
/* Who writes into what was cut this often does not write from one end to the other. */
#define TAKEN_BACK_MAX 32
/* Extents that a round looks at. */
#define ROUND_EXTENTS 16

struct behind {
	struct manifest *base;
	uint64_t start; /* of the first piece */
	uint64_t cut; /* behind the last piece */
	uint64_t reach; /* no piece depends on a byte from here on, nor does the running round */
	uint64_t written; /* highest end of a write */
	uint64_t generation; /* grows when pieces are taken back */
	unsigned taken_back;
	bool queued;
	bool running;
	bool stopped; /* by the seal, for good */
	bool disabled;
	struct behind_piece *pieces;
	size_t n, capacity;
};

uint64_t behind_append_start(struct manifest *base)
{
	size_t i = manifest_count(base);

	/* A piece may depend on a whole window from its begin on. */
	while (i > 0 && manifest_at(base, i - 1)->offset + INGEST_WINDOW > manifest_size(base))
		i--;
	return i < manifest_count(base) ? manifest_at(base, i)->offset : manifest_size(base);
}

int behind_start(struct staging *s, struct manifest *base, uint64_t start)
{
	struct behind *b = calloc(1, sizeof *b);

	if (!b)
		return -ENOMEM;
	b->base = base ? manifest_ref(base) : NULL;
	b->start = b->cut = b->reach = start;
	s->behind = b;
	return 0;
}

void behind_free(struct behind *b)
{
	if (!b)
		return;
	manifest_unref(b->base);
	free(b->pieces);
	free(b);
}

void behind_wrote(struct staging *s, uint64_t start, uint64_t end)
{
	struct behind *b = s->behind;

	if (!b || b->disabled)
		return;
	b->written = MAX(b->written, end);
	if (start >= b->reach)
		return;
	b->generation++;
	if (start < b->start || ++b->taken_back > TAKEN_BACK_MAX) {
		b->disabled = true;
		return;
	}
	while (b->n && b->pieces[b->n - 1].offset + INGEST_WINDOW > start)
		b->n--;
	b->cut = b->n ? b->pieces[b->n - 1].offset + b->pieces[b->n - 1].length : b->start;
	b->reach = MAX(start, b->cut);
}

bool behind_due(struct staging *s)
{
	struct behind *b = s->behind;

	if (!b || b->disabled || b->queued || b->stopped || b->written < b->cut + RUN_BYTES)
		return false;
	b->queued = true;
	return true;
}

void behind_cancel(struct staging *s)
{
	s->behind->queued = false;
}

/* What a round reads, taken under the lock. */
struct round {
	uint64_t start, end;
	uint64_t generation;
	struct extent extents[ROUND_EXTENTS];
	size_t n_extents;
};

/* Fills in as much as lies there without a gap. False when that is too little. */
static bool round_plan(struct staging *s, struct round *ret)
{
	const struct behind *b = s->behind;
	uint64_t base_size = b->base ? manifest_size(b->base) : 0;
	uint64_t at = MAX(b->cut, base_size), limit = b->cut + ROUND_BYTES;
	struct extent e;

	ret->n_extents = 0;
	while (at < limit && ret->n_extents < ROUND_EXTENTS && overlay_find(&s->map, at, &e) &&
		e.start <= at) {
		/* The seal takes long holes without looking; and one without end is no file's. */
		if (e.kind == EXTENT_ZERO && e.end - at > RUN_BYTES)
			break;
		ret->extents[ret->n_extents++] = e;
		at = e.end;
	}
	ret->start = b->cut;
	ret->end = MIN(at, limit);
	ret->generation = b->generation;
	return !b->disabled && ret->end >= ret->start + RUN_BYTES / 2;
}

static int round_read_some(struct staging *s, struct cache *c, const struct round *rd, uint64_t at,
	uint8_t *p, size_t n, size_t *ret_n)
{
	const struct extent *e = NULL;
	int r;

	for (size_t i = 0; i < rd->n_extents && !e; i++) {
		if (rd->extents[i].end > at)
			e = &rd->extents[i];
	}
	if (!e || e->start > at) {
		/* Bytes of the base are local as a rule; a wait for the network is not worth it. */
		_cleanup_bytes_view_ struct bytes_view v = { .cache = c, .base = s->behind->base };

		*ret_n = (size_t)MIN((uint64_t)n, manifest_size(v.base) - at);
		return bytes_view_read(&v, at, p, *ret_n);
	}
	*ret_n = (size_t)MIN((uint64_t)n, e->end - at);
	if (e->kind == EXTENT_ZERO) {
		memset(p, 0, *ret_n);
		return 0;
	}
	r = staging_read(s, e->pos + (at - e->start), p, *ret_n);
	return r;
}

static int round_read(
	struct staging *s, struct cache *c, const struct round *rd, uint8_t *p, uint64_t have)
{
	uint64_t at = rd->start + have;

	while (at < rd->end) {
		size_t n;
		int r = round_read_some(
			s, c, rd, at, p + (at - rd->start), (size_t)(rd->end - at), &n);

		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

struct cuts {
	struct behind_piece *p;
	size_t n, capacity;
};

static int cuts_add(struct cuts *cuts, const struct behind_piece *piece)
{
	if (cuts->n == cuts->capacity) {
		size_t capacity = cuts->capacity ? 2 * cuts->capacity : 64;
		struct behind_piece *p = realloc(cuts->p, capacity * sizeof *p);

		if (!p)
			return -ENOMEM;
		cuts->p = p;
		cuts->capacity = capacity;
	}
	cuts->p[cuts->n++] = *piece;
	return 0;
}

/* Cuts all pieces that do not depend on what lies behind the round. */
static int round_cut(const struct round *rd, const uint8_t *p, struct cuts *ret)
{
	uint64_t at = rd->start;

	while (rd->end - at >= INGEST_WINDOW) {
		const uint8_t *b = p + (at - rd->start);
		struct behind_piece piece = { .offset = at };
		struct piece next;
		int r;

		ingest_next(b, (size_t)(rd->end - at), at, false, &next);
		/* A hole that the round's end cuts short would be joined: its blocks are pieces,
		 * too. */
		piece.length = next.length;
		piece.hole = next.hole;
		if (!next.hole)
			digest_of(b, next.length, &piece.id);
		r = cuts_add(ret, &piece);
		if (r < 0)
			return r;
		at += next.length;
	}
	return 0;
}

static int keep_cuts(struct behind *b, const struct cuts *cuts)
{
	size_t need = b->n + cuts->n;

	if (need > b->capacity) {
		size_t capacity = MAX(need, 2 * b->capacity);
		struct behind_piece *p = realloc(b->pieces, capacity * sizeof *p);

		if (!p)
			return -ENOMEM;
		b->pieces = p;
		b->capacity = capacity;
	}
	memcpy(b->pieces + b->n, cuts->p, cuts->n * sizeof *cuts->p);
	b->n = need;
	b->cut = b->pieces[need - 1].offset + b->pieces[need - 1].length;
	return 0;
}

/* One round without the lock, which is held before and after. False ends the run. */
static bool run_round(struct staging *s, struct cache *c, struct behind_buffer *buffer,
	pthread_mutex_t *lock, struct round *rd, uint64_t have)
{
	_cleanup_(cleanup_free_p) struct behind_piece *owned = NULL;
	struct cuts cuts = { 0 };
	struct behind *b = s->behind;
	int r;

	b->reach = rd->end;
	pthread_mutex_unlock(lock);
	r = round_read(s, c, rd, buffer->p, have);
	if (r == 0)
		r = round_cut(rd, buffer->p, &cuts);
	fault_instant("behind.cut");
	owned = cuts.p;
	pthread_mutex_lock(lock);
	if (r == 0 && rd->generation == b->generation && cuts.n)
		r = keep_cuts(b, &cuts);
	if (r < 0)
		b->disabled = true;
	return r == 0 && cuts.n;
}

void behind_run(struct staging *s, struct cache *c, struct behind_buffer *buffer,
	pthread_mutex_t *lock, pthread_cond_t *changed)
{
	struct behind *b = s->behind;
	struct round rd, last = { 0 };

	SCOPED_LOCK(lock);
	b->running = true;
	if (!buffer->p)
		buffer->p = malloc(ROUND_BYTES);
	while (buffer->p && !b->stopped && round_plan(s, &rd)) {
		uint64_t have = 0;

		/* What the last round read and did not cut need not be read again. */
		if (last.end > rd.start && last.start < rd.start &&
			last.generation == rd.generation) {
			have = last.end - rd.start;
			memmove(buffer->p, buffer->p + (rd.start - last.start), have);
		}
		if (!run_round(s, c, buffer, lock, &rd, have))
			break;
		last = rd;
	}
	b->queued = b->running = false;
	pthread_cond_broadcast(changed);
}

void behind_halt(struct staging *s)
{
	if (s->behind)
		s->behind->stopped = true;
}

void behind_stop(struct staging *s, pthread_mutex_t *lock, pthread_cond_t *changed)
{
	behind_halt(s);
	while (s->behind && s->behind->running)
		pthread_cond_wait(changed, lock);
}

static int add_base(struct manifest_builder *builder, struct manifest *base, uint64_t until)
{
	int r = 0;

	for (size_t i = 0; base && i < manifest_count(base) && r == 0; i++) {
		const struct manifest_entry *e = manifest_at(base, i);

		if (e->offset >= until)
			break;
		r = e->hole ? manifest_add_hole(builder, e->length)
			    : manifest_add_chunk(builder, &e->id, e->length);
	}
	return r;
}

int behind_prefix(
	struct staging *s, struct manifest *base, struct manifest **ret, uint64_t *ret_cut)
{
	struct behind *b = s->behind;
	struct manifest_builder *builder;
	int r;

	if (!b || b->disabled || b->n == 0 || (b->start && b->base != base))
		return 0;
	r = manifest_builder_new(&builder);
	if (r < 0)
		return r;
	r = add_base(builder, b->base, b->start);
	for (size_t i = 0; i < b->n && r == 0; i++) {
		const struct behind_piece *p = &b->pieces[i];

		r = p->hole ? manifest_add_hole(builder, p->length)
			    : manifest_add_chunk(builder, &p->id, p->length);
	}
	if (r < 0) {
		manifest_builder_free(builder);
		return r;
	}
	r = manifest_builder_finish(builder, ret);
	if (r < 0)
		return r;
	*ret_cut = b->cut;
	return 1;
}

const struct behind_piece *behind_pieces(const struct staging *s, size_t *ret_n)
{
	*ret_n = s->behind ? s->behind->n : 0;
	return s->behind ? s->behind->pieces : NULL;
}
