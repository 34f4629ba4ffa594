/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: append-only files of chunk bytes, DIR/<id, 16 hex digits>. Which chunk lies where is
 * not known here. A segment that was not made by this process is never appended to: a row that
 * power loss left behind could point past its end, and must not come to name other bytes.
 *
 * A held reference keeps the file open and readable; files that nobody holds are closed, the
 * least recently used first. Ids are never used twice.
 *
 * The file's access time says when the segment was last used, to within USE_STAMP_NS; it is set
 * by hand, because most file systems are mounted so that reading does not.
 *
 * Any thread.
 */
#ifndef VARVE_SEGMENT_H
#define VARVE_SEGMENT_H

#include "meta/store.h"

/* The largest that is appended to; on a small disk or budget less. */
#define SEGMENT_BYTES_MAX (UINT64_C(256) * 1024 * 1024)

struct segments;
struct segment;

/* What was found at the opening: rows of segments in [first, end) need a check when `any`. */
struct segment_doubt {
	bool any; /* power was lost, and these may not have been synced */
	uint64_t first;
	uint64_t end;
};

int segments_open(struct store *st, const char *dir, struct segments **ret,
	struct segment_doubt *ret_doubt, struct err *err) must_check;
/* Syncs, best effort. No reference may be left. */
void segments_free(struct segments *s);
/* What segments_open() doubted was checked; said once, before the first append. */
int segments_settle(struct segments *s) must_check;

/* Appends; the bytes are in the file (page cache) on return. *ret is a reference. */
int segments_append(struct segments *s, const void *p, size_t n, struct segment **ret,
	uint64_t *ret_offset) must_check;
/* Moves the file in; on success owns fd. *ret is a reference. */
int segments_adopt(struct segments *s, const char *path, int fd, struct segment **ret) must_check;
/* A reference to the segment: 1, 0 no such file, -errno. */
int segments_get(struct segments *s, uint64_t id, struct segment **ret) must_check;

struct segment *segment_ref(struct segment *seg);
void segment_unref(struct segment *seg);
static inline void segment_unref_p(struct segment **seg)
{
	segment_unref(*seg);
}
#define _cleanup_segment_ _cleanup_(segment_unref_p)
uint64_t segment_id(const struct segment *seg);
int segment_fd(const struct segment *seg);
/* Bytes that are there, or are being written. */
uint64_t segment_size(const struct segment *seg);

/* What was appended or adopted before the call is durable after it; callers share. */
int segments_sync(struct segments *s) must_check;
void segments_stats(struct segments *s, uint64_t *ret_segments, uint64_t *ret_bytes);

/* segment_evict.c: */

/* A segment that nobody holds or appends to: no row will come to name it that does not yet. */
struct segment_info {
	uint64_t id;
	uint64_t bytes; /* on the disk */
	int64_t used_ns;
};
/* In the order of ids, in memory to be freed. */
int segments_list(struct segments *s, struct segment_info **ret, size_t *ret_n) must_check;
/*
 * Removes the file of a segment that segments_list() gave and no row names any more. Who reads it
 * goes on.
 */
int segments_remove(struct segments *s, uint64_t id) must_check;
/* As segments_append(), with the room that is kept for it. */
int segments_append_moved(struct segments *s, const void *p, size_t n, struct segment **ret,
	uint64_t *ret_offset) must_check;
/* New segments are at most that large. */
void segments_set_max(struct segments *s, uint64_t bytes);
/* grown(ctx) is called, and must not block, when the bytes exceed the limit; 0: never. */
void segments_watch(struct segments *s, uint64_t limit_bytes, void (*grown)(void *ctx), void *ctx);

#endif
