// SPDX-License-Identifier: Apache-2.0
/*
 * What a piece depends on, and so when an old one still holds:
 *
 *  - A block of a hole: on its own bytes.
 *  - A chunk [o, e): on its bytes; on those of the blocks that begin inside it, since one that
 *    is all zeros would end it: up to e, rounded up to a block. If a hole follows, then that
 *    hole's first block may be what ended it; if the file's end follows, then that end may be.
 *
 * A recut walks the new content from boundary to boundary. Where a boundary is one of the old
 * content too, and nothing that the old piece depends on is dirty, the old piece is taken without
 * reading; otherwise the piece is cut anew. Since a piece depends on nothing before it, this
 * gives what cutting everything gives. A hole has a boundary at each of its blocks.
 */
#include "chunk/ingest.h"

#include "io.h"
#include "bounds.h"

#include <assert.h>
#include <errno.h>

/* Bytes read at once where much is dirty: several pieces, yet of a size that caches hold. */
#define BUFFER_BYTES (4 * INGEST_WINDOW)

static uint64_t block_down(uint64_t offset)
{
	return offset - offset % HOLE_BLOCK;
}

/* FILE_BYTES_MAX keeps this from wrapping. */
static uint64_t block_up(uint64_t offset)
{
	return block_down(offset + HOLE_BLOCK - 1);
}

static bool is_zero_block(const uint8_t *p, size_t n, size_t at)
{
	return at + HOLE_BLOCK <= n && io_is_zero(p + at, HOLE_BLOCK);
}

void ingest_next(const uint8_t *p, size_t n, uint64_t offset, bool at_end, struct piece *ret)
{
	size_t block = (size_t)(block_up(offset) - offset);
	size_t length = 0, cut;

	assert(n > 0 && (at_end || n >= INGEST_WINDOW));
	if (block == 0) {
		while (is_zero_block(p, n, length))
			length += HOLE_BLOCK;
		if (length) {
			*ret = (struct piece){ .length = length, .hole = true };
			return;
		}
		block = HOLE_BLOCK;
	}
	/*
	 * Finding the cut first and then the blocks before it looks at each block once. A zero
	 * block before the cut ends the chunk: no cut fell before it.
	 */
	cut = chunker_cut(p, n);
	while (block < cut && !is_zero_block(p, n, block))
		block += HOLE_BLOCK;
	*ret = (struct piece){ .length = block < cut ? block : cut };
}

struct recut {
	const struct ingest_io *io;
	struct manifest *old;
	struct manifest_builder *builder;
	uint64_t size;
	uint64_t at; /* all before it is in the builder */
	size_t old_index; /* the first entry of old that ends beyond `at` */
	const struct range *dirty; /* the first range that ends beyond `at`, */
	size_t n_dirty; /* and how many there are from there on */
	struct range resized; /* bytes that only one of the two contents has */
	uint8_t *buffer; /* holds [buffer_at, buffer_at + buffer_len) */
	uint64_t buffer_at;
	size_t buffer_len;
};

static const struct manifest_entry *old_entry(const struct recut *rc)
{
	return rc->old_index < manifest_count(rc->old) ? manifest_at(rc->old, rc->old_index) : NULL;
}

static void moved_to(struct recut *rc, uint64_t at)
{
	const struct manifest_entry *e;

	rc->at = at;
	while ((e = old_entry(rc)) && e->offset + e->length <= at)
		rc->old_index++;
	while (rc->n_dirty && rc->dirty->end <= at) {
		rc->dirty++;
		rc->n_dirty--;
	}
}

/* The first dirty range that ends beyond `at`, or one that begins after every file. */
static struct range next_dirty(const struct recut *rc)
{
	struct range none = { UINT64_MAX, UINT64_MAX };

	if (rc->resized.start < rc->resized.end)
		none = rc->resized;
	return rc->n_dirty && rc->dirty->start < none.start ? *rc->dirty : none;
}

/* How far the old chunk at rc->old_index looks. */
static uint64_t chunk_depends_until(const struct recut *rc, const struct manifest_entry *e)
{
	uint64_t end = e->offset + e->length;
	size_t next = rc->old_index + 1;

	if (next == manifest_count(rc->old) || manifest_at(rc->old, next)->hole)
		return end + HOLE_BLOCK;
	return block_up(end);
}

/* 1 when an old piece could be taken, 0 when not. */
static int take_old(struct recut *rc)
{
	const struct manifest_entry *e = old_entry(rc);
	uint64_t clean_until = next_dirty(rc).start, end;
	int r;

	if (!e)
		return 0;
	end = e->offset + e->length;
	if (e->hole) {
		end = block_down(MIN(end, clean_until));
		if (rc->at % HOLE_BLOCK || end <= rc->at)
			return 0;
		r = manifest_add_hole(rc->builder, end - rc->at);
	} else {
		if (e->offset != rc->at || chunk_depends_until(rc, e) > clean_until)
			return 0;
		r = manifest_add_chunk(rc->builder, &e->id, e->length);
	}
	if (r < 0)
		return r;
	moved_to(rc, end);
	return 1;
}

/* 1 when whole blocks from here on are known to be zeros, 0 when not. */
static int take_zeros(struct recut *rc)
{
	uint64_t n;
	int r;

	if (!rc->io->zeros || rc->at % HOLE_BLOCK)
		return 0;
	n = block_down(MIN(rc->io->zeros(rc->io->ctx, rc->at), rc->size - rc->at));
	if (n == 0)
		return 0;
	r = manifest_add_hole(rc->builder, n);
	if (r < 0)
		return r;
	moved_to(rc, rc->at + n);
	return 1;
}

/* Sees to a window of bytes at rc->at; reads ahead only as far as bytes are dirty. */
static int fill(struct recut *rc)
{
	uint64_t left = rc->size - rc->at, kept = 0, want;
	struct range dirty = next_dirty(rc);
	int r;

	if (rc->at >= rc->buffer_at && rc->at - rc->buffer_at < rc->buffer_len)
		kept = rc->buffer_at + rc->buffer_len - rc->at;
	if (kept >= MIN(INGEST_WINDOW, left))
		return 0;
	if (!rc->buffer && !(rc->buffer = malloc(MIN(BUFFER_BYTES, rc->size))))
		return -ENOMEM;
	if (kept)
		memmove(rc->buffer, rc->buffer + (rc->at - rc->buffer_at), kept);
	rc->buffer_at = rc->at;
	rc->buffer_len = kept;
	want = INGEST_WINDOW;
	if (dirty.start < rc->at + want)
		want += MIN(dirty.end, rc->size) > rc->at ? MIN(dirty.end, rc->size) - rc->at : 0;
	want = MIN(want, MIN(left, BUFFER_BYTES));
	r = rc->io->read(rc->io->ctx, rc->at + kept, rc->buffer + kept, want - kept);
	if (r < 0)
		return r;
	rc->buffer_len = want;
	return 0;
}

static int take_chunk(struct recut *rc, const uint8_t *p, size_t n)
{
	const struct manifest_entry *e = old_entry(rc);
	struct digest id;
	int r;

	digest_of(p, n, &id);
	if (!e || e->hole || e->offset != rc->at || e->length != n || !digest_eq(&e->id, &id)) {
		r = rc->io->chunk(rc->io->ctx, rc->at, &id, p, n);
		if (r < 0)
			return r;
	}
	return manifest_add_chunk(rc->builder, &id, n);
}

static int cut_new(struct recut *rc)
{
	struct piece piece;
	const uint8_t *p;
	size_t n;
	int r = fill(rc);

	if (r < 0)
		return r;
	p = rc->buffer + (rc->at - rc->buffer_at);
	n = rc->buffer_len - (size_t)(rc->at - rc->buffer_at);
	ingest_next(p, n, rc->at, rc->at + n == rc->size, &piece);
	if (piece.hole)
		r = manifest_add_hole(rc->builder, piece.length);
	else
		r = take_chunk(rc, p, piece.length);
	if (r < 0)
		return r;
	moved_to(rc, rc->at + piece.length);
	return 0;
}

static int recut_run(struct recut *rc)
{
	moved_to(rc, 0);
	while (rc->at < rc->size) {
		int r = take_old(rc);

		if (r == 0)
			r = take_zeros(rc);
		if (r == 0)
			r = cut_new(rc);
		if (r < 0)
			return r;
	}
	return 0;
}

int ingest_recut(struct manifest *old, uint64_t size, const struct range *dirty, size_t n_dirty,
	const struct ingest_io *io, struct manifest **ret)
{
	uint64_t old_size = manifest_size(old);
	struct recut rc = {
		.io = io,
		.old = old,
		.size = size,
		.dirty = dirty,
		.n_dirty = n_dirty,
		.resized = { MIN(size, old_size), MAX(size, old_size) },
	};
	int r;

	if (size > FILE_BYTES_MAX)
		return -EFBIG;
	r = manifest_builder_new(&rc.builder);
	if (r < 0)
		return r;
	r = recut_run(&rc);
	free(rc.buffer);
	if (r < 0) {
		manifest_builder_free(rc.builder);
		return r;
	}
	return manifest_builder_finish(rc.builder, ret);
}
