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
#include "wire/wire.h"

#include <stdbool.h>

enum store_cf {
	CF_STATE, /* cursor, device number, node counter, in-flight commit, format version */
	CF_NODE,
	CF_LINK, /* be64 parent, name: one prefix scan is a readdir */
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
void store_free(struct store *st);

/* Appends the value to *ret. 1 found, 0 absent, -errno. ret may be NULL to ask for presence. */
int store_get(struct store *st, enum store_cf cf, const void *key, size_t klen, struct buf *ret)
	must_check;

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
size_t batch_count(const struct batch *b);

/* Applies all of the batch or nothing, and empties it. -ENOSPC, -EIO. */
int store_commit(struct store *st, struct batch *b) must_check;
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

/* A number for people: RocksDB's estimate of keys in the family. */
uint64_t store_estimate(struct store *st, enum store_cf cf);

#endif
