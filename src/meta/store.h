/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local store: one RocksDB with column families. The only user of RocksDB.
 *
 *	store_open(dir, &st, &err);
 *	batch_new(st, &b); batch_put(b, CF_NODE, ...); store_commit(st, b); batch_free(b);
 *
 * store_commit() returns when the batch is *visible* and survives the death of the process (it
 * is in RocksDB's write-ahead log, which is written to the file, not synced). It is *durable*
 * against power loss after a later store_sync(). Two processes cannot open one store (-EBUSY).
 *
 * Threads: a store may be used by any thread; a batch and an iterator by one at a time.
 */
#ifndef VARVE_STORE_H
#define VARVE_STORE_H

#include "buf.h"
#include "err.h"
#include "meta/room.h"
#include "wire/wire.h"

#include <stdbool.h>

enum store_cf {
	CF_STATE, /* cursor, device number, node counter, in-flight commit, format version */
	CF_NODE,
	CF_LINK, /* be64 parent, place, name: one prefix scan is a readdir */
	CF_NAMES, /* be64 node, be64 parent, name: further names of nodes that have several */
	CF_XATTR, /* be64 node, name */
	CF_MANIFEST, /* content id */
	CF_CHUNK, /* chunk id */
	CF_OUTBOX, /* be64 entry number */
	CF_BASE, /* the server's rows below rows that the outbox changes */
	CF_CONFLICT, /* conflicts until they are resolved */
	CF_COUNT,
};

struct store;
struct batch;
struct store_iter;

int store_open(const char *dir, struct store **ret, struct err *err) must_check;
/*
 * For who looks after damage. STORE_LOOK changes nothing, and needs no room. STORE_SALVAGE also
 * opens a store whose log is damaged in its middle, which store_open() refuses: what the damaged
 * blocks of the log held is not there then, what stands behind them is.
 */
enum store_mode { STORE_USE, STORE_LOOK, STORE_SALVAGE };
int store_open_as(
	const char *dir, enum store_mode mode, struct store **ret, struct err *err) must_check;
/*
 * Makes a store that store_open_as() cannot open openable again out of the table files and logs
 * that are there. Nobody has it open. What cannot be read is left out.
 */
int store_rebuild(const char *dir, struct err *err) must_check;
void store_free(struct store *st);
/* 0, or the error that ended writing to the store for good: it has to be opened anew. */
int store_broken(struct store *st) must_check;

/* Appends the value to *ret. 1 found, 0 absent, -errno. ret may be NULL to ask for presence. */
int store_get(struct store *st, enum store_cf cf, const void *key, size_t klen,
	struct buf *ret) must_check;

int batch_new(struct store *st, struct batch **ret) must_check;
void batch_free(struct batch *b);
static inline void batch_free_p(struct batch **b)
{
	batch_free(*b);
}
#define _cleanup_batch_ _cleanup_(batch_free_p)
void batch_put(struct batch *b, enum store_cf cf, const void *key, size_t klen, const void *value,
	size_t vlen);
void batch_del(struct batch *b, enum store_cf cf, const void *key, size_t klen);
/* batch_rewind() takes back what was put since the last mark; a commit forgets marks. */
void batch_mark(struct batch *b);
void batch_rewind(struct batch *b);
size_t batch_count(const struct batch *b);
/*
 * Something that has to last until the batch is committed or freed: then release(guard) is
 * called, once. At most one a batch.
 */
void batch_set_guard(struct batch *b, void (*release)(void *guard), void *guard);
void *batch_guard(const struct batch *b);

/*
 * Applies all of the batch and empties it, or nothing. -ENOSPC: refused while RocksDB still has
 * the room that it needs to go on; works again once there is more. -EIO.
 */
int store_commit(struct store *st, struct batch *b) must_check;
/* The same for what makes room: it may use some of the room that others must leave. */
int store_commit_urgent(struct store *st, struct batch *b) must_check;
/*
 * Returns when everything committed before the call is durable. Callers that come while a sync
 * runs share the next one.
 */
int store_sync(struct store *st) must_check;

/*
 * Walks a column family in key order, on a snapshot taken at store_iter_new(). With a prefix
 * the walk ends behind the last key that begins with it.
 */
int store_iter_new(struct store *st, enum store_cf cf, const void *prefix, size_t plen,
	struct store_iter **ret) must_check;
void store_iter_free(struct store_iter *it);
static inline void store_iter_free_p(struct store_iter **it)
{
	store_iter_free(*it);
}
#define _cleanup_iter_ _cleanup_(store_iter_free_p)
/* Moves to the first key >= key (which begins with the prefix). */
void store_iter_seek(struct store_iter *it, const void *key, size_t klen);
/* 1 on an entry, 0 past the end, -EIO. */
int store_iter_valid(struct store_iter *it) must_check;
void store_iter_next(struct store_iter *it);
struct slice store_iter_key(struct store_iter *it);
struct slice store_iter_value(struct store_iter *it);

/*
 * The whole store as it is at one instant, batches whole: for who compares rows. Freed before the
 * store is. The calls are those above, of that instant; they leave the caches as they are.
 */
struct store_snapshot;
int store_snapshot_new(struct store *st, struct store_snapshot **ret) must_check;
void store_snapshot_free(struct store_snapshot *sn);
static inline void store_snapshot_free_p(struct store_snapshot **sn)
{
	store_snapshot_free(*sn);
}
#define _cleanup_snapshot_ _cleanup_(store_snapshot_free_p)
int store_snapshot_get(struct store_snapshot *sn, enum store_cf cf, const void *key, size_t klen,
	struct buf *ret) must_check;
int store_snapshot_iter(
	struct store_snapshot *sn, enum store_cf cf, struct store_iter **ret) must_check;

/*
 * Whether the disk has room for n more bytes of data beside what rows need: 0, -ENOSPC. Who
 * writes bytes below the store's disk (segments, staging) asks before it accepts them: then it is
 * never a row that finds the disk full. It may wait a little for who makes room.
 */
int store_room(struct store *st, uint64_t n) must_check;
/* The same for bytes that move so that others can go; never waits. */
int store_room_to_move(struct store *st, uint64_t n) must_check;
/* Who is told when the disk runs short (room.h); NULL for nobody. */
void store_set_watch(struct store *st, const struct room_watch *watch);

struct store_disk {
	uint64_t total;
	uint64_t free;
	uint64_t refused_below; /* what store_room() leaves free */
};
int store_disk(struct store *st, struct store_disk *ret) must_check;

/* A number for people: RocksDB's estimate of keys in the family. */
uint64_t store_estimate(struct store *st, enum store_cf cf);

#endif
