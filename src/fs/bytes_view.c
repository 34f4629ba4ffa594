// SPDX-License-Identifier: Apache-2.0
#include "fs/bytes_view.h"

#include "clock.h"

#include <errno.h>
#include <string.h>

#define FETCH_TRIES 8

void bytes_view_done(struct bytes_view *v)
{
	buf_done(&v->chunk);
}

static int load_chunk(struct bytes_view *v, const struct digest *id)
{
	int r;

	if (v->chunk.len && digest_eq(&v->chunk_id, id))
		return 0;
	buf_clear(&v->chunk);
	r = cache_read_chunk(v->cache, id, &v->chunk);
	/* Again, when an eviction took it between the two. */
	for (int tries = 0; (r == 0 || r == -EBADMSG) && tries < FETCH_TRIES; tries++) {
		buf_clear(&v->chunk);
		if (v->network_timeout_ms == 0)
			return -ENOTCONN;
		r = cache_require(
			v->cache, id, 1, clock_mono_ms() + v->network_timeout_ms, NULL, NULL);
		if (r == 0)
			r = cache_read_chunk(v->cache, id, &v->chunk);
	}
	if (r == 0)
		r = -EIO;
	if (r < 0) {
		buf_clear(&v->chunk);
		return r;
	}
	v->chunk_id = *id;
	return 0;
}

/* Some bytes from the manifest: how many, or -errno. */
static ssize_t read_base(struct bytes_view *v, uint64_t offset, uint8_t *p, size_t n)
{
	uint64_t size = v->base ? manifest_size(v->base) : 0;
	const struct manifest_entry *e;
	int r;

	if (offset >= size) {
		memset(p, 0, n);
		return (ssize_t)n;
	}
	e = manifest_at(v->base, manifest_find(v->base, offset));
	n = (size_t)MIN((uint64_t)n, e->offset + e->length - offset);
	if (e->hole) {
		memset(p, 0, n);
		return (ssize_t)n;
	}
	r = load_chunk(v, &e->id);
	if (r < 0)
		return r;
	if (v->chunk.len != e->length)
		return -EIO;
	memcpy(p, v->chunk.data + (offset - e->offset), n);
	return (ssize_t)n;
}

static ssize_t read_some(struct bytes_view *v, uint64_t offset, uint8_t *p, size_t n)
{
	struct extent e;
	int r;

	if (!v->top || !overlay_find(&v->top->map, offset, &e))
		return read_base(v, offset, p, n);
	if (e.start > offset)
		return read_base(v, offset, p, (size_t)MIN((uint64_t)n, e.start - offset));
	n = (size_t)MIN((uint64_t)n, e.end - offset);
	if (e.kind == EXTENT_ZERO) {
		memset(p, 0, n);
		return (ssize_t)n;
	}
	r = staging_read(v->top, e.pos + (offset - e.start), p, n);
	return r < 0 ? r : (ssize_t)n;
}

int bytes_view_read(struct bytes_view *v, uint64_t offset, void *p, size_t n)
{
	uint8_t *b = p;

	while (n) {
		ssize_t got = read_some(v, offset, b, n);

		if (got < 0)
			return (int)got;
		offset += (uint64_t)got;
		b += got;
		n -= (size_t)got;
	}
	return 0;
}

static uint64_t base_zeros(const struct bytes_view *v, uint64_t offset, uint64_t limit)
{
	uint64_t size = v->base ? manifest_size(v->base) : 0;
	const struct manifest_entry *e;

	if (offset >= size)
		return limit - offset;
	e = manifest_at(v->base, manifest_find(v->base, offset));
	return e->hole ? MIN(e->offset + e->length, limit) - offset : 0;
}

uint64_t bytes_view_zeros(const struct bytes_view *v, uint64_t offset)
{
	uint64_t at = offset, n;
	struct extent e;

	do {
		uint64_t limit = v->size;

		if (at >= limit)
			break;
		if (v->top && overlay_find(&v->top->map, at, &e)) {
			if (e.start <= at) {
				if (e.kind != EXTENT_ZERO)
					break;
				at = MIN(e.end, limit);
				continue;
			}
			limit = MIN(limit, e.start);
		}
		n = base_zeros(v, at, limit);
		at += n;
		if (n == 0)
			break;
	} while (true);
	return at - offset;
}
