/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the store share, and nobody else: the only ones that know RocksDB. */
#ifndef VARVE_STORE_IMPL_H
#define VARVE_STORE_IMPL_H

#include "meta/group_sync.h"
#include "meta/store.h"

#include <rocksdb/c.h>
#include <stdatomic.h>

/* Space on the disk, in memtables. */
/* Kept free for the log, flushes and one compaction; data leaves more, so that a delete has room.
 */
#define ROW_RESERVE_MEMTABLES 16
#define DATA_RESERVE_MEMTABLES 24
/* What makes room may go further: moved bytes, and the rows of what goes. */
#define MOVE_RESERVE_MEMTABLES 20
#define URGENT_RESERVE_MEMTABLES 8

struct store {
	rocksdb_t *db;
	rocksdb_column_family_handle_t *cf[CF_COUNT];
	rocksdb_options_t *options;
	rocksdb_cache_t *block_cache;
	rocksdb_readoptions_t *get_options;
	rocksdb_writeoptions_t *write_options;
	struct row_cache *rows;
	struct group_sync syncs;
	struct room room;
	enum store_mode mode;
	int dir_fd;
	uint64_t memtable_bytes;
	/*
	 * The error, negative, after which the log must not be touched any more; 0. Not for a
	 * full disk: what RocksDB could not flush for that, it retries.
	 */
	atomic_int broken;
};

struct store_iter {
	rocksdb_iterator_t *it;
	rocksdb_readoptions_t *options;
	bool placed;
	size_t plen;
	uint8_t bounds[]; /* the prefix, then the first key behind it */
};

/* store.c: 0 when text is NULL; frees it. */
int store_take_error(char *text);
int store_error_code(const char *text);
/* As store_take_error(), of a write: after most the log must not be touched any more. */
int store_take_write_error(struct store *st, char *text);
rocksdb_options_t *store_new_options(rocksdb_cache_t *cache, uint64_t memtable_bytes);
rocksdb_cache_t *store_new_block_cache(void);

/* store_salvage.c */
/* Whether table files or logs lie there. */
bool store_has_tables(const char *dir);
/* How the log is to be read at the opening. */
int store_recovery_mode(const char *dir, enum store_mode mode);
/* Notes that this system opened it. */
void store_note_boot(const char *dir);

#endif
