// SPDX-License-Identifier: Apache-2.0
/*
 * copy_file_range() without moving bytes: the new content is described by a manifest that is
 * right but for the seams (the target's entries, the source's entries shifted, the target's
 * entries again), and ingest_recut() mends it there. A piece depends on nothing before it, and on
 * where blocks lie: so the source's entries hold in the target when the shift is a multiple of
 * a block. With any other shift the range is cut anew, from chunks that are here already: for
 * the most part the same ones come out.
 */
#include "fs/seal.h"

#include "bounds.h"
#include "clock.h"
#include "fault.h"
#include "fs/bytes_view.h"
#include "io.h"

#include <errno.h>
#include <string.h>

/* Plain copying goes by this much. */
#define COPY_BYTES (1 * MIB)
/* One call does at most this: it bounds what has to be cut anew. The caller calls again. */
#define COPY_RANGE_MAX (1 * GIB)

struct copy {
	struct file *from, *to;
	uint64_t from_offset, to_offset, n;
	struct manifest *source, *target; /* sealed contents */
	uint64_t size; /* of the new content */
	struct bytes_view source_view, target_view;
	struct batch *batch;
};

/* The new content's bytes. */
static int read_bytes(void *ctx, uint64_t offset, void *p, size_t n)
{
	struct copy *c = ctx;
	uint64_t copied_end = c->to_offset + c->n;
	uint8_t *b = p;

	while (n) {
		struct bytes_view *v = &c->target_view;
		uint64_t at = offset, end = copied_end;
		size_t part;
		int r;

		if (offset < c->to_offset) {
			end = c->to_offset;
		} else if (offset < copied_end) {
			v = &c->source_view;
			at = offset - c->to_offset + c->from_offset;
		} else {
			end = UINT64_MAX;
		}
		part = (size_t)MIN((uint64_t)n, end - offset);
		r = bytes_view_read(v, at, b, part);
		if (r < 0)
			return r;
		offset += part;
		b += part;
		n -= part;
	}
	return 0;
}

static uint64_t known_zeros(void *ctx, uint64_t offset)
{
	struct copy *c = ctx;
	uint64_t copied_end = c->to_offset + c->n;

	if (offset < c->to_offset)
		return MIN(bytes_view_zeros(&c->target_view, offset), c->to_offset - offset);
	if (offset < copied_end)
		return MIN(
			bytes_view_zeros(&c->source_view, offset - c->to_offset + c->from_offset),
			copied_end - offset);
	return bytes_view_zeros(&c->target_view, offset);
}

static int take_chunk(void *ctx, uint64_t offset, const struct digest *id, const void *p, size_t n)
{
	struct copy *c = ctx;

	return cache_add(c->to->fs->cache, c->batch, id, p, n, 0);
}

/* What to recut from, and where it is not right. */
struct draft {
	struct manifest_builder *builder;
	struct range dirty[3];
	size_t n_dirty;
};

static void mark_dirty(struct draft *d, uint64_t start, uint64_t end)
{
	if (start >= end)
		return;
	if (d->n_dirty && d->dirty[d->n_dirty - 1].end >= start)
		d->dirty[d->n_dirty - 1].end = end;
	else
		d->dirty[d->n_dirty++] = (struct range){ start, end };
}

/*
 * From where the draft ends up to `end` nothing is known: chunks that are no file's stand there.
 * The byte before is dirty too, so that a piece that ended because of what used to follow it is
 * looked at again.
 */
static int add_seam(struct draft *d, uint64_t end)
{
	static const struct digest none = { { 0xff } };
	uint64_t at = manifest_builder_size(d->builder);

	mark_dirty(d, at ? at - 1 : 0, end);
	while (at < end) {
		uint64_t n = MIN(end - at, (uint64_t)CHUNK_MAX);
		int r = manifest_add_chunk(d->builder, &none, n);

		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

/* What of the entry stands by itself in [start, end): a chunk as a whole, of a hole any blocks. */
static bool entry_within(
	const struct manifest_entry *e, uint64_t start, uint64_t end, struct range *ret)
{
	*ret = (struct range){ e->offset, e->offset + e->length };
	if (e->hole) {
		uint64_t first = MAX(ret->start, start), last = MIN(ret->end, end);

		ret->start = first + (HOLE_BLOCK - first % HOLE_BLOCK) % HOLE_BLOCK;
		ret->end = last - last % HOLE_BLOCK;
	}
	return ret->start >= start && ret->end <= end && ret->start < ret->end;
}

static int add_entry(struct draft *d, const struct manifest_entry *e, const struct range *part)
{
	return e->hole ? manifest_add_hole(d->builder, part->end - part->start)
		       : manifest_add_chunk(d->builder, &e->id, e->length);
}

/* The entries of m that lie within [start, end), moved to `to`; a seam before them. */
static int add_entries(
	struct draft *d, struct manifest *m, uint64_t start, uint64_t end, uint64_t to)
{
	size_t count = manifest_count(m);
	bool first = true;
	int r = 0;

	for (size_t i = manifest_find(m, start); i < count && r == 0; i++) {
		const struct manifest_entry *e = manifest_at(m, i);
		struct range part;

		if (e->offset >= end)
			break;
		/* Only the first and the last can lie partly outside. */
		if (!entry_within(e, start, end, &part))
			continue;
		if (first && (manifest_builder_size(d->builder) || part.start > start || to))
			r = add_seam(d, part.start - start + to);
		first = false;
		if (r == 0)
			r = add_entry(d, e, &part);
	}
	return r;
}

static bool ends_alike(const struct copy *c)
{
	return c->from_offset + c->n == manifest_size(c->source) && c->to_offset + c->n == c->size;
}

static int make_draft(const struct copy *c, struct draft *d)
{
	uint64_t copied_end = c->to_offset + c->n;
	int r = add_entries(d, c->target, 0, c->to_offset, 0);

	if (r == 0 && (c->to_offset - c->from_offset) % HOLE_BLOCK == 0)
		r = add_entries(d, c->source, c->from_offset, c->from_offset + c->n, c->to_offset);
	if (r == 0 && copied_end < manifest_size(c->target))
		r = add_entries(d, c->target, copied_end, c->size, copied_end);
	if (r == 0 && manifest_builder_size(d->builder) < c->size)
		return add_seam(d, c->size);
	/* The last piece may have ended at the end of what was copied, which is none here. */
	if (r == 0 && copied_end == c->size && !ends_alike(c))
		return add_seam(d, c->size);
	return r;
}

static int describe(struct copy *c, struct manifest **ret)
{
	struct ingest_io io = {
		.read = read_bytes,
		.zeros = known_zeros,
		.chunk = take_chunk,
		.ctx = c,
	};
	_cleanup_manifest_ struct manifest *old = NULL;
	struct draft d = { 0 };
	int r = manifest_builder_new(&d.builder);

	if (r < 0)
		return r;
	r = make_draft(c, &d);
	if (r < 0) {
		manifest_builder_free(d.builder);
		return r;
	}
	r = manifest_builder_finish(d.builder, &old);
	return r < 0 ? r : ingest_recut(old, c->size, d.dirty, d.n_dirty, &io, ret);
}

/* A target that ends before the range begins is grown first: its gap is a hole. */
static int grow_target(struct copy *c)
{
	struct ingest_io io = {
		.read = read_bytes,
		.zeros = known_zeros,
		.chunk = take_chunk,
		.ctx = c,
	};
	struct manifest *grown;
	int r;

	if (manifest_size(c->target) >= c->to_offset)
		return 0;
	r = ingest_recut(c->target, c->to_offset, NULL, 0, &io, &grown);
	if (r < 0)
		return r;
	/* The view stays on the old one, which reads the same: new chunks' rows are not there yet.
	 */
	manifest_unref(c->target);
	c->target = grown;
	return 0;
}

/* A sealed content of the instance: 1, 0 when something is staged over it. */
static int sealed_content(struct file *f, struct manifest **ret)
{
	int r;

	SCOPED_LOCK(&f->lock);
	if (f->active || f->frozen)
		return 0;
	r = file_load_base_locked(f);
	if (r < 0)
		return r;
	*ret = manifest_ref(f->base);
	return 1;
}

/*
 * The target's new content goes into the tree, unless somebody wrote to it meanwhile: 1 or 0.
 * Under the lock, so that no staging begins upon a content that is just being replaced.
 */
static int put(struct copy *c, struct manifest *before, struct manifest *content)
{
	struct file *f = c->to;
	struct content_update u = {
		.manifest = content,
		.batch = c->batch,
		.mtime_ns = clock_real_ns(),
		.must_exist = true,
	};
	enum content_result result;
	struct node node;
	int r;

	SCOPED_LOCK(&f->lock);
	if (f->active || f->frozen || f->base != before || f->unlinked)
		return 0;
	u.node = f->put_node;
	u.expected = f->base_content;
	u.ctime_ns = u.mtime_ns;
	fault_instant("copy.shared");
	r = tree_put_content(f->fs->tree, &u, &result, &node);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	f->attr.attr.size = manifest_size(content);
	f->attr.attr.mtime_ns = f->attr.attr.ctime_ns = u.mtime_ns;
	file_sealed_locked(f, content, result, &node);
	file_count_holes_locked(f);
	return 1;
}

static void copy_done(struct copy *c)
{
	manifest_unref(c->source);
	manifest_unref(c->target);
	bytes_view_done(&c->source_view);
	bytes_view_done(&c->target_view);
	batch_free(c->batch);
}

static int share_sealed(struct copy *c)
{
	_cleanup_manifest_ struct manifest *content = NULL, *before = manifest_ref(c->target);
	struct bytes_view view = {
		.cache = c->to->fs->cache,
		.size = FILE_BYTES_MAX,
		.network_timeout_ms = c->to->fs->network_timeout_ms,
	};
	int r;

	if (c->from_offset >= manifest_size(c->source))
		return 0;
	c->n = MIN(c->n, manifest_size(c->source) - c->from_offset);
	c->source_view = c->target_view = view;
	c->source_view.base = c->source;
	c->target_view.base = c->target;
	r = batch_new(c->to->fs->store, &c->batch);
	if (r == 0)
		r = grow_target(c);
	c->size = MAX(manifest_size(c->target), c->to_offset + c->n);
	if (r == 0)
		r = describe(c, &content);
	return r < 0 ? r : put(c, before, content);
}

/* 1 when it is done, 0 when plain copying has to do it. */
static int share(struct file *from, uint64_t from_offset, struct file *to, uint64_t to_offset,
	uint64_t *io_n)
{
	_cleanup_(copy_done) struct copy c = {
		.from = from,
		.to = to,
		.from_offset = from_offset,
		.to_offset = to_offset,
		.n = *io_n,
	};
	int r = file_seal(from);

	if (r == 0)
		r = file_seal(to);
	if (r == 0)
		r = sealed_content(from, &c.source);
	if (r > 0)
		r = sealed_content(to, &c.target);
	if (r > 0)
		r = share_sealed(&c);
	if (r > 0)
		*io_n = c.n;
	return r;
}

static int write_plan(struct file *to, uint64_t offset, const struct read_plan *plan)
{
	_cleanup_free_ uint8_t *bytes = malloc(plan->bytes);
	size_t at = 0;

	if (!bytes)
		return -ENOMEM;
	for (size_t i = 0; i < plan->n; i++) {
		const struct read_piece *p = &plan->pieces[i];
		int r = 0;

		if (p->fd < 0)
			memcpy(bytes + at, p->mem, p->n);
		else
			r = io_pread_full(p->fd, bytes + at, p->n, p->offset);
		if (r < 0)
			return r == -ENODATA ? -EIO : r;
		at += p->n;
	}
	return file_write(to, offset, bytes, at, false);
}

static int64_t copy_bytes(
	struct file *from, uint64_t from_offset, struct file *to, uint64_t to_offset, uint64_t n)
{
	uint64_t done = 0;

	while (done < n) {
		_cleanup_(read_plan_done) struct read_plan plan = { 0 };
		size_t part = (size_t)MIN(n - done, COPY_BYTES);
		int r = file_read_plan(from, from_offset + done, part, NULL, &plan);

		if (r == 0 && plan.bytes == 0)
			break;
		if (r == 0)
			r = write_plan(to, to_offset + done, &plan);
		if (r < 0)
			return done ? (int64_t)done : r;
		done += plan.bytes;
	}
	return (int64_t)done;
}

static uint64_t size_of(struct file *f)
{
	SCOPED_LOCK(&f->lock);
	return f->attr.attr.size;
}

int64_t file_copy_range(
	struct file *from, uint64_t from_offset, struct file *to, uint64_t to_offset, uint64_t n)
{
	uint64_t size = size_of(from);
	int r = 0;

	if (from_offset >= size)
		return 0;
	if (to_offset >= FILE_BYTES_MAX)
		return -EFBIG;
	n = MIN(MIN(n, size - from_offset), MIN(COPY_RANGE_MAX, FILE_BYTES_MAX - to_offset));
	if (from == to && from_offset < to_offset + n && to_offset < from_offset + n)
		return -EINVAL;
	if (n == 0)
		return 0;
	/* A version of its own for less than a chunk is dearer than its bytes. */
	if (n >= CHUNK_MIN)
		r = share(from, from_offset, to, to_offset, &n);
	if (r < 0)
		return r;
	return r > 0 ? (int64_t)n : copy_bytes(from, from_offset, to, to_offset, n);
}
