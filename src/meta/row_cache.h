/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows that were read or written last, and the names that were found absent, in front of
 * RocksDB: a get of it takes some microseconds, and an operation on the tree needs several.
 *
 *	r = row_cache_get(c, cf, key, klen, &ticket, &value);
 *	if (r < 0) {
 *		... read the store ...
 *		row_cache_fill(c, cf, key, klen, ticket, value or absent);
 *	}
 *	after a commit, for every row of it (batch_rows_tell()): row_cache_note(...)
 *
 * What was read before a commit must not be filled in after it: the ticket tells. Two commits that
 * write the same row come one after the other, with what is noted of them: for the families that
 * are cached, the tree's lock sees to that. A bounded number of rows of a bounded size. Any thread.
 */
#ifndef VARVE_ROW_CACHE_H
#define VARVE_ROW_CACHE_H

#include "buf.h"
#include "meta/store.h"

struct row_cache;

int row_cache_new(struct row_cache **ret) must_check;
void row_cache_free(struct row_cache *c);
bool row_cache_has_family(enum store_cf cf);

/* 1 found: the value is appended to *ret unless NULL; 0 known to be absent; -ENOENT not known. */
int row_cache_get(struct row_cache *c, enum store_cf cf, const void *key, size_t klen,
	uint64_t *ret_ticket, struct buf *ret) must_check;
/* value.p NULL: the store has none. */
void row_cache_fill(struct row_cache *c, enum store_cf cf, const void *key, size_t klen,
	uint64_t ticket, struct slice value);
/* What a commit did. `add`: also when the row was not there before. */
void row_cache_note(struct row_cache *c, enum store_cf cf, const void *key, size_t klen,
	struct slice value, bool add);
/* Nobody knows what a commit did. */
void row_cache_drop(struct row_cache *c, enum store_cf cf, const void *key, size_t klen);
void row_cache_clear(struct row_cache *c);

/* The rows of a batch that is being made, for the cache to be told of. One thread. */
struct batch_row;
struct batch_rows {
	struct batch_row *rows;
	size_t n;
	size_t cap;
	size_t marked;
	struct buf bytes;
	bool lost; /* there was no memory for one */
};

void batch_rows_done(struct batch_rows *b);
/* value NULL: deleted. */
void batch_rows_add(struct batch_rows *b, enum store_cf cf, const void *key, size_t klen,
	const void *value, size_t vlen);
void batch_rows_mark(struct batch_rows *b);
void batch_rows_rewind(struct batch_rows *b);
/* The batch is committed, or nobody knows; empties it. */
void batch_rows_tell(struct batch_rows *b, struct row_cache *c, bool committed);

#endif
