// SPDX-License-Identifier: Apache-2.0
/*
 * Which bytes of a file are holes: SEEK_DATA and SEEK_HOLE, and how many, for st_blocks. The count
 * is kept up to date range by range, since stat() may come after each write; ranges that end
 * within a block count by the byte until the seal says what became whole blocks of zeros.
 */
#include "fs/instance.h"

#include <errno.h>

/* Whether the bytes at offset are a hole, and up to where that holds. */
static bool is_hole_locked(struct file *f, uint64_t offset, uint64_t limit, uint64_t *ret_end)
{
	const struct manifest_entry *e;
	struct span span;

	file_span_locked(f, offset, limit, &span);
	*ret_end = span.end;
	if (span.kind != SPAN_BASE)
		return span.kind == SPAN_ZERO;
	e = manifest_at(f->base, manifest_find(f->base, offset));
	*ret_end = MIN(span.end, e->offset + e->length);
	return e->hole;
}

static uint64_t holes_in_locked(struct file *f, uint64_t start, uint64_t end)
{
	uint64_t sum = 0, next;

	for (; start < end; start = next) {
		if (is_hole_locked(f, start, end, &next))
			sum += next - start;
	}
	return sum;
}

void file_count_holes_locked(struct file *f)
{
	uint64_t size = f->attr.attr.size;

	if (!f->active && !f->frozen && f->base && manifest_size(f->base) == size)
		f->attr.holes = manifest_holes(f->base);
	else
		f->attr.holes = holes_in_locked(f, 0, size);
}

struct hole_count file_holes_before_locked(struct file *f, uint64_t start, uint64_t end)
{
	struct hole_count c = { .size = f->attr.attr.size, .start = start, .end = end };

	/* A file without holes has none in the range. */
	if (f->attr.holes)
		c.holes = holes_in_locked(f, start, MIN(end, c.size));
	return c;
}

void file_holes_after_locked(struct file *f, const struct hole_count *c, bool zeros)
{
	uint64_t size = f->attr.attr.size, end = MIN(c->end, size);
	uint64_t *holes = &f->attr.holes;

	*holes -= MIN(c->holes, *holes);
	if (zeros && c->start < end)
		*holes += end - c->start;
	/* What lies between the old end and the range. */
	if (c->size < MIN(c->start, size))
		*holes += MIN(c->start, size) - c->size;
}

int64_t file_seek(struct file *f, uint64_t offset, int whence)
{
	uint64_t size, end;
	int r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	SCOPED_LOCK(&f->lock);
	size = f->attr.attr.size;
	if (offset >= size)
		return -ENXIO;
	r = file_load_base_locked(f);
	if (r < 0)
		return r;
	for (; offset < size; offset = end) {
		if (is_hole_locked(f, offset, size, &end) == (whence == SEEK_HOLE))
			return (int64_t)offset;
	}
	/* Every file ends with a hole, in this sense. */
	return whence == SEEK_HOLE ? (int64_t)size : -ENXIO;
}
