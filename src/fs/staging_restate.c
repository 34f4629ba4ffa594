// SPDX-License-Identifier: Apache-2.0
/*
 * The payload of a BEGIN record:
 *
 *	  0 32  content below
 *	 32  8  previous
 *	 40  8  replaces
 *	 48  4  flags: 1 = from_zero
 *	 52  4  mode
 *	 56  8  size
 *	 64  8  mtime
 *	 72  8  ctime
 *	 80  8  parent of the home name
 *	 88  4  length of the home name
 *	 92  4  length of the manifest
 *	 96  8  the tree's newest entry when the content below came from it
 *	104  8  its cursor then
 *	112     home name, manifest
 */
#include "fs/staging.h"

#include "bounds.h"
#include "bytes.h"
#include "clock.h"
#include "fault.h"
#include "io.h"

#include <errno.h>
#include <unistd.h>

#define BEGIN_BYTES 112
#define BEGIN_FROM_ZERO 1

int staging_begin_encode(const struct staging_begin *b, struct buf *ret)
{
	uint8_t h[BEGIN_BYTES];
	int r;

	memcpy(h, b->expected.b, DIGEST_BYTES);
	put_le64(h + 32, b->previous);
	put_le64(h + 40, b->replaces);
	put_le32(h + 48, b->from_zero ? BEGIN_FROM_ZERO : 0);
	put_le32(h + 52, b->mode);
	put_le64(h + 56, b->size);
	put_le64(h + 64, (uint64_t)b->mtime_ns);
	put_le64(h + 72, (uint64_t)b->ctime_ns);
	put_le64(h + 80, b->home_parent);
	put_le32(h + 88, (uint32_t)b->home_name.n);
	put_le32(h + 92, (uint32_t)b->manifest.n);
	put_le64(h + 96, b->below.entry);
	put_le64(h + 104, b->below.cursor);
	r = buf_append(ret, h, sizeof h);
	if (r == 0)
		r = buf_append(ret, b->home_name.p, b->home_name.n);
	if (r == 0)
		r = buf_append(ret, b->manifest.p, b->manifest.n);
	return r;
}

int staging_begin_decode(const struct record *r, struct staging_begin *ret)
{
	const uint8_t *h = r->payload.p;
	size_t name, manifest;

	if (r->payload.n < BEGIN_BYTES)
		return -EBADMSG;
	name = get_le32(h + 88);
	manifest = get_le32(h + 92);
	if (name > NAME_BYTES_MAX || name + manifest != r->payload.n - BEGIN_BYTES)
		return -EBADMSG;
	*ret = (struct staging_begin){
		.id = r->staging,
		.node = r->node,
		.previous = get_le64(h + 32),
		.replaces = get_le64(h + 40),
		.from_zero = get_le32(h + 48) & BEGIN_FROM_ZERO,
		.mode = get_le32(h + 52),
		.size = get_le64(h + 56),
		.mtime_ns = (int64_t)get_le64(h + 64),
		.ctime_ns = (int64_t)get_le64(h + 72),
		.home_parent = get_le64(h + 80),
		.below = { get_le64(h + 96), get_le64(h + 104) },
		.home_name = { h + BEGIN_BYTES, name },
		.manifest = { h + BEGIN_BYTES + name, manifest },
	};
	memcpy(ret->expected.b, h, DIGEST_BYTES);
	return 0;
}

static int set_extent(struct staging *s, uint64_t start, uint64_t end, enum extent_kind kind)
{
	int r = overlay_reserve(&s->map);

	if (r == 0 && start < end)
		staging_map(s, start, end, kind == EXTENT_STAGED ? start : 0, kind);
	return r;
}

/* What lay in memory lies in the file, at the offsets it has in the file. */
static int replay_promote(struct staging *s, int fd, bool rewrite)
{
	struct overlay map = s->map;
	struct extent e;
	int r = 0;

	if (s->fd >= 0 || fd < 0)
		return -EBADMSG;
	atomic_fetch_sub(&s->dir->staged_bytes, map.staged_bytes);
	s->map = (struct overlay){ 0 };
	s->fd = fd;
	for (uint64_t at = 0; r == 0 && overlay_find(&map, at, &e); at = e.end) {
		if (rewrite && e.kind == EXTENT_STAGED)
			r = io_pwrite_full(fd, s->bytes.data + e.pos, e.end - e.start, e.start);
		if (r == 0)
			r = set_extent(s, e.start, e.end, e.kind);
	}
	overlay_done(&map);
	atomic_fetch_sub(&s->dir->memory_bytes, s->bytes.len);
	buf_done(&s->bytes);
	return r;
}

static int replay_tail(struct staging *s, uint64_t start, uint64_t end)
{
	int r = start < end ? set_extent(s, start, end, EXTENT_STAGED) : 0;

	if (start < end)
		s->size = MAX(s->size, end);
	return r;
}

static int replay_copy(struct staging *s, const struct record *r, bool rewrite)
{
	int e = 0;

	if (s->fd < 0 || r->a >= r->b || r->b > FILE_BYTES_MAX)
		return -EBADMSG;
	if (rewrite && r->payload.n != r->b - r->a)
		return -EBADMSG;
	if (rewrite)
		e = io_pwrite_full(s->fd, r->payload.p, r->payload.n, r->a);
	s->size = MAX(s->size, r->b);
	return e < 0 ? e : set_extent(s, r->a, r->b, EXTENT_STAGED);
}

static int replay_bytes(struct staging *s, const struct record *r, bool rewrite)
{
	switch (r->kind) {
	case RECORD_WRITE:
		if (s->fd >= 0 || r->payload.n == 0 || r->a > FILE_BYTES_MAX)
			return -EBADMSG;
		s->size = MAX(s->size, r->a + r->payload.n);
		return staging_put_memory(s, r->a, r->payload.p, r->payload.n);
	case RECORD_RANGE:
		if (s->fd < 0 || r->a >= r->b || r->b > FILE_BYTES_MAX)
			return -EBADMSG;
		s->size = MAX(s->size, r->b);
		return set_extent(s, r->a, r->b, EXTENT_STAGED);
	case RECORD_COPY:
		return replay_copy(s, r, rewrite);
	case RECORD_TAIL:
		if (s->fd < 0 || (r->a < r->b && r->b > FILE_BYTES_MAX))
			return -EBADMSG;
		s->tail = r->c;
		return replay_tail(s, r->a, r->b);
	case RECORD_ZERO:
		if (r->a >= r->b || r->c > FILE_BYTES_MAX)
			return -EBADMSG;
		s->size = r->c;
		return set_extent(s, r->a, r->b, EXTENT_ZERO);
	default:
		return -EBADMSG;
	}
}

static int replay_one(struct staging *s, const struct record *r, int fd, bool rewrite)
{
	if (r->time_ns && r->kind != RECORD_TIMES)
		s->mtime_ns = s->ctime_ns = r->time_ns;
	switch (r->kind) {
	case RECORD_SIZE:
		if (r->a > FILE_BYTES_MAX)
			return -EBADMSG;
		s->size = r->a;
		return 0;
	case RECORD_TIMES:
		s->mtime_ns = (int64_t)r->a;
		s->ctime_ns = (int64_t)r->b;
		return 0;
	case RECORD_MODE:
		s->mode = (uint32_t)r->a & 07777;
		return 0;
	case RECORD_PROMOTE:
		return replay_promote(s, fd, rewrite);
	default:
		return replay_bytes(s, r, rewrite);
	}
}

/* Of a record behind the last sync of the staging file: whether what it says is there. */
static bool has_bytes(const struct staging *s, const struct record *r, uint64_t end)
{
	if (r->kind == RECORD_TAIL && r->a < r->b)
		return overlay_is_staged(&s->map, MAX(r->a, MIN(end, r->b)), r->b);
	return r->kind != RECORD_RANGE;
}

int staging_replay(struct staging *s, const struct record *records, size_t n, int fd, uint64_t end,
	size_t rewrite)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		if (i >= rewrite && !has_bytes(s, &records[i], end))
			break;
		r = replay_one(s, &records[i], fd, i >= rewrite);
	}
	if (r == 0 && s->fd >= 0 && s->tail < MIN(end, FILE_BYTES_MAX))
		r = replay_tail(s, s->tail, MIN(end, FILE_BYTES_MAX));
	s->tail = STAGING_NO_TAIL;
	s->fd_end = end;
	s->bare = fd >= 0;
	/* On failure the descriptor stays the caller's. */
	if (r < 0)
		s->fd = -1;
	return r;
}

/* One extent, as the record that makes it. */
static struct record extent_record(const struct staging *s, const struct extent *e)
{
	struct record rec = { .node = s->node, .staging = s->id, .time_ns = s->mtime_ns };

	rec.a = e->start;
	if (e->kind == EXTENT_ZERO) {
		rec.kind = RECORD_ZERO;
		rec.b = e->end;
		rec.c = s->size;
	} else if (s->fd >= 0) {
		rec.kind = RECORD_RANGE;
		rec.b = e->end;
	} else {
		rec.kind = RECORD_WRITE;
		rec.payload = (struct slice){ s->bytes.data + e->pos, e->end - e->start };
	}
	return rec;
}

static int restate_extents(struct staging *s)
{
	struct extent e;

	for (uint64_t at = 0; overlay_find(&s->map, at, &e); at = e.end) {
		struct record rec = extent_record(s, &e);
		int r = staging_log_append(s->dir->log, &rec, 1, NULL);

		if (r < 0)
			return r;
		s->n_records++;
	}
	return 0;
}

/*
 * What an fsync promised may be durable by records that the new log does not have: by SYNCED, by
 * copies, or by what lay in memory before it went to the file.
 */
static int restate_synced(struct staging *s)
{
	struct record rec = {
		.kind = RECORD_SYNCED,
		.node = s->node,
		.staging = s->id,
		.a = s->n_records,
		.b = s->fd_end,
	};
	int r;

	if (s->fd < 0 || !s->promised)
		return 0;
	if (fdatasync(s->fd) < 0)
		return -errno;
	r = staging_log_append(s->dir->log, &rec, 1, NULL);
	if (r < 0)
		return r;
	s->synced_records = s->n_records;
	s->synced_end = s->fd_end;
	s->synced_bare = s->bare;
	return 0;
}

int staging_restate(struct staging *s, const struct staging_begin *begin)
{
	struct record last[2] = {
		{ .kind = RECORD_SIZE, .a = s->size, .time_ns = s->mtime_ns },
		{ .kind = RECORD_TIMES,
			.a = (uint64_t)s->mtime_ns,
			.b = (uint64_t)s->ctime_ns,
			.time_ns = clock_real_ns() },
	};
	struct record promoted = { .kind = RECORD_PROMOTE, .node = s->node, .staging = s->id };
	int r;

	buf_clear(&s->begin);
	r = staging_begin_encode(begin, &s->begin);
	if (r == 0)
		r = staging_commit_begin(s);
	if (r == 0)
		r = fault_point("recover.begun");
	if (r == 0 && s->fd >= 0) {
		r = staging_log_append(s->dir->log, &promoted, 1, NULL);
		s->n_records++;
	}
	if (r == 0)
		r = restate_extents(s);
	for (size_t i = 0; i < 2 && r == 0; i++) {
		last[i].node = s->node;
		last[i].staging = s->id;
		r = staging_log_append(s->dir->log, &last[i], 1, NULL);
		s->n_records++;
	}
	return r < 0 ? r : restate_synced(s);
}
