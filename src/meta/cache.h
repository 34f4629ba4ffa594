/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chunk cache: where each chunk that is on this machine lies. Chunks of up to
 * CHUNK_INLINE_MAX live in the store; larger ones in segments, append-only files in
 * DIR/segments, of plain chunk bytes one after another.
 *
 * Order of writing (a chunk's bytes are in its segment before any row names them):
 *	cache_add(c, batch, ...)	bytes to the segment, row into the caller's batch
 *	store_commit(batch)		now the chunk is there
 * and for power loss: cache_sync() before store_sync(); cache_sync_all() does both.
 *
 * Chunks leave it too (evict.h), but never one that a batch relies on between cache_add() and
 * its end, that is named by the outbox, or that is held.
 *
 * Any thread.
 */
#ifndef VARVE_CACHE_H
#define VARVE_CACHE_H

#include "meta/chunk_source.h"
#include "meta/store.h"

struct cache;

/*
 * A row of CF_STATE: ids of chunks that the server lacks and that cache_open() found gone after a
 * power loss. tree_drop_lost() takes it from there.
 */
#define CACHE_STATE_LOST "lost"
struct manifest;
struct segment;

int cache_open(struct store *st, const char *dir, struct cache **ret, struct err *err) must_check;
void cache_free(struct cache *c);
/* Set once, before the first read that can miss. Without one a miss is -ENOTCONN. */
void cache_set_source(struct cache *c, struct chunk_source source);

enum {
	CACHE_ON_SERVER = 1, /* the server has it: it came from there, or a commit that names it */
};

/*
 * Puts a chunk in: appends its bytes to a segment (or inlines them) and adds its row to the
 * batch. Nothing happens when the cache has it (and then flags are merged). The caller has
 * computed `id` from the bytes, or checked them against it. 0, -ENOSPC, -EIO.
 */
int cache_add(struct cache *c, struct batch *b, const struct digest *id, const void *p, size_t n,
	unsigned flags) must_check;

/*
 * Makes the file at `path` (same file system; open as fd) a segment: it is renamed into the
 * segment folder and its bytes stay where they are. Nobody may write to it from now on. On
 * success the cache owns fd. *ret is a reference.
 */
int cache_adopt(struct cache *c, const char *path, int fd, struct segment **ret) must_check;
/* Adds the row of a chunk that lies in an adopted segment. */
int cache_add_at(struct cache *c, struct batch *b, const struct digest *id, struct segment *seg,
	uint64_t offset, size_t n, unsigned flags) must_check;
void segment_unref(struct segment *seg);

/*
 * While the hold lasts, chunks of the content stay, as long as the server does not have them:
 * for who has open what no name leads to any more, so that nothing in the store speaks for it.
 * To be taken before the batch with the rows is committed. Takes a reference to the manifest.
 */
struct cache_hold;
int cache_hold(struct cache *c, struct manifest *content, struct cache_hold **ret) must_check;
void cache_release(struct cache_hold *hold);

/* Where a chunk's bytes are. Release with chunk_loc_done(). */
struct chunk_loc {
	struct segment *seg; /* counted; the file stays readable while it is held */
	int fd; /* of the segment, -1 when inlined; borrowed */
	uint64_t offset;
	uint32_t length;
	struct buf inlined;
	unsigned flags;
};
void chunk_loc_done(struct chunk_loc *loc);
#define _cleanup_chunk_loc_ _cleanup_(chunk_loc_done)

/* 1 found, 0 not in the cache, -errno. What the server has can be gone at the next call. */
int cache_locate(struct cache *c, const struct digest *id, struct chunk_loc *ret) must_check;
/*
 * The same for who reads the bytes: those of a chunk that was not read since cache_open() are
 * hashed first. 0 also when they turned out wrong and the server has the chunk; -EIO when only
 * this device had it.
 */
int cache_locate_verified(
	struct cache *c, const struct digest *id, struct chunk_loc *ret) must_check;
/*
 * Makes sure that all n chunks are in the cache, fetching what is missing in one go; readers
 * that want the same chunk share one fetch. Errors as chunk_source.h has them.
 */
int cache_require(struct cache *c, const struct digest *ids, size_t n, int64_t deadline_mono_ms,
	const _Atomic int *cancelled, struct err *err) must_check;
/*
 * The whole chunk, appended to *ret, and checked against its id: 1, 0 absent, -EBADMSG when the
 * bytes on disk are damaged (the row is dropped then, so that it is fetched anew).
 */
int cache_read_chunk(struct cache *c, const struct digest *id, struct buf *ret) must_check;
/* Adds CACHE_ON_SERVER to the rows of these chunks, in the batch. Absent ones are passed over. */
int cache_mark_on_server(
	struct cache *c, struct batch *b, const struct digest *ids, size_t n) must_check;
/* Takes the mark away again (the server said that it lacks one). */
int cache_unmark(struct cache *c, const struct digest *ids, size_t n) must_check;

/* Segments' bytes written before the call are durable when it returns; callers share. */
int cache_sync(struct cache *c) must_check;
/* cache_sync(), then store_sync(): what an fsync of metadata needs. */
int cache_sync_all(struct cache *c) must_check;

struct cache_stats {
	uint64_t segment_bytes;
	uint64_t segments;
	uint64_t damaged; /* chunks whose bytes were found to be wrong since the opening, */
	uint64_t lost; /* and those of them that only this device had */
};
void cache_get_stats(struct cache *c, struct cache_stats *ret);

#endif
