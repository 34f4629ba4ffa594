// SPDX-License-Identifier: Apache-2.0
/*
 * What power loss and kill -9 leave:
 *  1. A batch that store_commit() returned for is in the write-ahead log's file: the death of the
 *     process cannot take it away. After store_sync() power loss cannot either.
 *  2. Recovery replays the log up to the first record that is not whole (point in time). After
 *     power loss the log's tail is torn as a rule, and refusing to open for that would take the
 *     user's drive away for bytes nobody was promised; what lies behind the tear is not
 *     applied, so a batch is never there without the ones before it.
 *  3. A memtable is flushed only after the logs before it are synced (RocksDB does so when there
 *     are several column families), so no family is ahead of the log.
 */
#include "meta/store_impl.h"

#include "bounds.h"
#include "fault.h"
#include "io.h"
#include "meta/room.h"
#include "meta/row_cache.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>

/* Names on disk: only append. RocksDB insists on a family called "default". */
static const char *const cf_names[CF_COUNT] = {
	[CF_STATE] = "default",
	[CF_NODE] = "node",
	[CF_LINK] = "link",
	[CF_NAMES] = "names",
	[CF_XATTR] = "xattr",
	[CF_MANIFEST] = "manifest",
	[CF_CHUNK] = "chunk",
	[CF_OUTBOX] = "outbox",
	[CF_BASE] = "base",
	[CF_CONFLICT] = "conflict",
};

/*
 * Memory: the cache (index and filter blocks are in it) plus all memtables. Few shards, or a
 * filter block would be a large part of one.
 */
#define BLOCK_CACHE_BYTES (24 * MIB)
#define BLOCK_CACHE_SHARD_BITS 2
#define MEMTABLE_BYTES_MAX (8 * MIB)
#define MEMTABLE_BYTES_MIN (256 * KIB)
/*
 * Everything that RocksDB has on the disk for a while scales with the memtable, and that with
 * the disk, so that a small cache folder has room for more than the work on it.
 */
#define DISK_PER_MEMTABLE 256
#define MEMTABLES 2 /* full ones and those being flushed, over all families */
#define ARENA_BLOCKS 64 /* a memtable */
/* Bounds how much a mount after a crash replays; in memtables. */
#define WAL_MEMTABLES 4
#define TABLE_FILE_MEMTABLES 2
/* What opening and closing write; with less, one is refused and the other does without. */
#define FLUSH_RESERVE_MEMTABLES 4
/* Less than this in the memtables is replayed from the log faster than it is worth flushing. */
#define FLUSH_AT_CLOSE_BYTES (1 * MIB)
#define BLOCK_BYTES (8 * KIB)
/* A descriptor and a little memory each; at full size this covers 2 GiB of rows. */
#define OPEN_FILES_MAX 128
/* Each family starts as many at an open; more would take longer to start than to do the work. */
#define FILE_OPENING_THREADS 1
#define BLOOM_BITS_PER_KEY 10
#define INFO_LOG_BYTES_MAX (256 * KIB)
#define INFO_LOGS_MAX 2
#define INFO_LOG_LEVEL_WARN 2
#define MANIFEST_FILE_BYTES_MAX (4 * MIB)
/* Background writes reach the disk in pieces, so that a sync does not wait for all of them. */
#define TABLE_BYTES_PER_SYNC (1 * MIB)
#define BACKGROUND_JOBS 2
#define CHECKSUM_XXH3 4 /* RocksDB's CRC is computed in software in Debian's build */

/*
 * The C API tells errors as text only. It ends with strerror()'s, or begins with the kind.
 * A file size limit and a quota are a full disk for whoever writes.
 */
int store_error_code(const char *text)
{
	static const struct {
		const char *part;
		int code;
	} known[] = {
		{ "No space left on device", ENOSPC },
		{ "Disk quota exceeded", ENOSPC },
		{ "File too large", ENOSPC },
		{ "While lock file", EBUSY },
		{ "lock hold by current process", EBUSY },
		{ "Permission denied", EACCES },
		{ "Read-only file system", EROFS },
		{ "Too many open files", EMFILE },
		{ "Cannot allocate memory", ENOMEM },
		{ "Corruption", EBADMSG },
		{ "Column families not opened", ENOTSUP },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strstr(text, known[i].part))
			return known[i].code;
	return EIO;
}

/* 0 when text is NULL; frees it. */
int store_take_error(char *text)
{
	int code;

	if (!text)
		return 0;
	code = store_error_code(text);
	rocksdb_free(text);
	return -code;
}

int store_take_write_error(struct store *st, char *text)
{
	int r = store_take_error(text);

	if (r < 0 && r != -ENOSPC)
		atomic_store(&st->broken, r);
	return r;
}

static rocksdb_block_based_table_options_t *table_options(rocksdb_cache_t *cache)
{
	rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();

	rocksdb_block_based_options_set_block_cache(t, cache);
	rocksdb_block_based_options_set_block_size(t, BLOCK_BYTES);
	rocksdb_block_based_options_set_format_version(t, 5);
	rocksdb_block_based_options_set_checksum(t, CHECKSUM_XXH3);
	rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
	rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(t, 1);
	rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
	rocksdb_block_based_options_set_data_block_index_type(
		t, rocksdb_block_based_table_data_block_index_type_binary_search_and_hash);
	/* Taken over by the table options. */
	rocksdb_block_based_options_set_filter_policy(
		t, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS_PER_KEY));
	return t;
}

static void set_size_options(rocksdb_options_t *o, uint64_t memtable_bytes)
{
	uint64_t table_file = TABLE_FILE_MEMTABLES * memtable_bytes;

	rocksdb_options_set_db_write_buffer_size(o, MEMTABLES * memtable_bytes);
	rocksdb_options_set_write_buffer_size(o, memtable_bytes);
	rocksdb_options_set_max_write_buffer_number(o, 3);
	rocksdb_options_set_arena_block_size(o, memtable_bytes / ARENA_BLOCKS);
	rocksdb_options_set_max_open_files(o, OPEN_FILES_MAX);
	rocksdb_options_set_table_cache_numshardbits(o, 2);
	rocksdb_options_set_max_file_opening_threads(o, FILE_OPENING_THREADS);
	rocksdb_options_set_max_total_wal_size(o, WAL_MEMTABLES * memtable_bytes);
	rocksdb_options_set_target_file_size_base(o, table_file);
	rocksdb_options_set_max_bytes_for_level_base(o, 4 * table_file);
	rocksdb_options_set_max_compaction_bytes(o, 4 * table_file);
	rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
	rocksdb_options_set_max_background_jobs(o, BACKGROUND_JOBS);
	rocksdb_options_set_stats_dump_period_sec(o, 0);
	rocksdb_options_set_stats_persist_period_sec(o, 0);
}

static void set_durability_options(rocksdb_options_t *o)
{
	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_options_set_create_missing_column_families(o, 1);
	rocksdb_options_set_paranoid_checks(o, 1);
	rocksdb_options_set_manual_wal_flush(o, 0);
	rocksdb_options_set_wal_recovery_mode(o, rocksdb_point_in_time_recovery);
	rocksdb_options_set_bytes_per_sync(o, TABLE_BYTES_PER_SYNC);
	rocksdb_options_set_max_manifest_file_size(o, MANIFEST_FILE_BYTES_MAX);
	rocksdb_options_set_skip_stats_update_on_db_open(o, 1);
}

static void set_log_options(rocksdb_options_t *o)
{
	rocksdb_options_set_info_log_level(o, INFO_LOG_LEVEL_WARN);
	rocksdb_options_set_max_log_file_size(o, INFO_LOG_BYTES_MAX);
	rocksdb_options_set_keep_log_file_num(o, INFO_LOGS_MAX);
}

rocksdb_options_t *store_new_options(rocksdb_cache_t *cache, uint64_t memtable_bytes)
{
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_block_based_table_options_t *t = table_options(cache);

	set_size_options(o, memtable_bytes);
	set_durability_options(o);
	set_log_options(o);
	/* One batch writes the log while the one before goes into the memtables. */
	rocksdb_options_set_enable_pipelined_write(o, 1);
	rocksdb_options_set_block_based_table_factory(o, t);
	rocksdb_block_based_options_destroy(t);
	return o;
}

rocksdb_cache_t *store_new_block_cache(void)
{
	rocksdb_lru_cache_options_t *o = rocksdb_lru_cache_options_create();
	rocksdb_cache_t *cache;

	rocksdb_lru_cache_options_set_capacity(o, BLOCK_CACHE_BYTES);
	rocksdb_lru_cache_options_set_num_shard_bits(o, BLOCK_CACHE_SHARD_BITS);
	cache = rocksdb_cache_create_lru_opts(o);
	rocksdb_lru_cache_options_destroy(o);
	return cache;
}

static char *open_with(struct store *st, const char *dir, int compression)
{
	const rocksdb_options_t *options[CF_COUNT];
	char *text = NULL;

	rocksdb_options_set_compression(st->options, compression);
	for (size_t i = 0; i < CF_COUNT; i++)
		options[i] = st->options;
	if (st->mode == STORE_LOOK)
		st->db = rocksdb_open_for_read_only_column_families(
			st->options, dir, CF_COUNT, cf_names, options, st->cf, 0, &text);
	else
		st->db = rocksdb_open_column_families(
			st->options, dir, CF_COUNT, cf_names, options, st->cf, &text);
	return text;
}

/* A family that has a table file is known to store_rebuild(): each gets one, of no row. */
static int seed_families(struct store *st)
{
	rocksdb_flushoptions_t *o = rocksdb_flushoptions_create();
	int r = 0;

	for (int i = 0; i < CF_COUNT && r == 0; i++) {
		char *text = NULL;

		rocksdb_delete_cf(st->db, st->write_options, st->cf[i], "", 0, &text);
		if (!text)
			rocksdb_flush_cf(st->db, o, st->cf[i], &text);
		r = store_take_error(text);
	}
	rocksdb_flushoptions_destroy(o);
	return r;
}

static int open_db(struct store *st, const char *dir, struct err *err)
{
	char *text = open_with(st, dir, rocksdb_lz4_compression);
	int code;

	if (text && strstr(text, "not linked")) {
		rocksdb_free(text);
		text = open_with(st, dir, rocksdb_no_compression);
	}
	if (!text)
		return 0;
	code = store_error_code(text);
	if (code == EBUSY)
		err_set(err, code, "%s: in use by another process; stop that one first", dir);
	else if (code == ENOTSUP)
		err_set(err, code, "%s: written by a newer version; use that one", dir);
	else if (code == EBADMSG)
		err_set(err, code,
			"%s is damaged (%.150s): varve doctor --repair saves what is there", dir,
			text);
	else
		err_set(err, code, "%s: cannot open the store: %s", dir, text);
	rocksdb_free(text);
	return -code;
}

static uint64_t memtable_for(uint64_t disk_bytes)
{
	uint64_t n = disk_bytes / DISK_PER_MEMTABLE;

	return MIN(MAX(n, MEMTABLE_BYTES_MIN), MEMTABLE_BYTES_MAX);
}

static int open_folder(struct store *st, const char *dir, struct err *err)
{
	struct statvfs disk;
	int r = io_mkdirs(dir, 0700);

	if (r < 0)
		return err_sys(err, -r, "%s: cannot make the folder", dir);
	st->dir_fd = st->room.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (st->dir_fd < 0 || fstatvfs(st->dir_fd, &disk) < 0)
		return err_sys(err, errno, "%s: cannot open the folder", dir);
	st->memtable_bytes = memtable_for((uint64_t)disk.f_blocks * disk.f_frsize);
	if (st->mode == STORE_LOOK)
		return 0;
	r = room_check(&st->room, 0, FLUSH_RESERVE_MEMTABLES * st->memtable_bytes);
	if (r < 0)
		return err_set(err, -r, "%s: the disk is full; make %llu MiB free", dir,
			(unsigned long long)(ROW_RESERVE_MEMTABLES * st->memtable_bytes / MIB));
	return 0;
}

static int open_all(struct store *st, const char *dir, struct err *err)
{
	bool is_new;
	int r = open_folder(st, dir, err);

	if (r < 0)
		return r;
	is_new = faccessat(st->dir_fd, "CURRENT", F_OK, 0) < 0 && errno == ENOENT;
	if (is_new && store_has_tables(dir))
		return err_set(err, EBADMSG,
			"%s is damaged (CURRENT is missing); varve doctor --repair saves what is "
			"there",
			dir);
	st->block_cache = store_new_block_cache();
	st->options = store_new_options(st->block_cache, st->memtable_bytes);
	st->get_options = rocksdb_readoptions_create();
	st->write_options = rocksdb_writeoptions_create();
	rocksdb_options_set_wal_recovery_mode(st->options, store_recovery_mode(dir, st->mode));
	r = open_db(st, dir, err);
	fault_instant("store.opened");
	if (r == 0 && is_new && st->mode == STORE_USE) {
		r = seed_families(st);
		if (r < 0)
			return err_sys(err, -r, "%s: cannot make the store", dir);
	}
	if (r == 0 && st->mode != STORE_LOOK)
		store_note_boot(dir);
	return r;
}

int store_open(const char *dir, struct store **ret, struct err *err)
{
	return store_open_as(dir, STORE_USE, ret, err);
}

int store_open_as(const char *dir, enum store_mode mode, struct store **ret, struct err *err)
{
	struct store *st = calloc(1, sizeof *st);
	int r;

	if (!st)
		return err_sys(err, ENOMEM, "%s", dir);
	st->mode = mode;
	group_sync_init(&st->syncs);
	room_init(&st->room);
	st->dir_fd = -1;
	r = row_cache_new(&st->rows);
	if (r < 0)
		err_sys(err, -r, "%s", dir);
	else
		r = open_all(st, dir, err);
	if (r < 0) {
		store_free(st);
		return r;
	}
	*ret = st;
	return 0;
}

static uint64_t unflushed_bytes(struct store *st, enum store_cf cf)
{
	uint64_t n = 0;

	if (rocksdb_property_int_cf(st->db, st->cf[cf], "rocksdb.cur-size-active-mem-table", &n))
		return 0;
	return n;
}

static bool has_flush_room(struct store *st)
{
	return room_check(&st->room, 0, FLUSH_RESERVE_MEMTABLES * st->memtable_bytes) == 0;
}

/* So that the next open has little to replay. A failure costs only that. */
static void flush_large(struct store *st)
{
	rocksdb_flushoptions_t *o = rocksdb_flushoptions_create();

	for (int i = 0; i < CF_COUNT; i++) {
		char *text = NULL;

		if (unflushed_bytes(st, i) < FLUSH_AT_CLOSE_BYTES)
			continue;
		rocksdb_flush_cf(st->db, o, st->cf[i], &text);
		rocksdb_free(text);
	}
	rocksdb_flushoptions_destroy(o);
}

static void close_db(struct store *st)
{
	/* Best effort: who needs durability has called store_sync() and seen its result. */
	int ignored = st->mode == STORE_LOOK ? 0 : store_sync(st);

	(void)ignored;
	if (st->mode != STORE_LOOK && !atomic_load(&st->broken) && has_flush_room(st))
		flush_large(st);
	for (size_t i = 0; i < CF_COUNT; i++)
		rocksdb_column_family_handle_destroy(st->cf[i]);
	rocksdb_close(st->db);
}

void store_free(struct store *st)
{
	if (!st)
		return;
	if (st->db)
		close_db(st);
	if (st->options) {
		rocksdb_writeoptions_destroy(st->write_options);
		rocksdb_readoptions_destroy(st->get_options);
		rocksdb_options_destroy(st->options);
		rocksdb_cache_destroy(st->block_cache);
	}
	row_cache_free(st->rows);
	group_sync_done(&st->syncs);
	room_done(&st->room);
	if (st->dir_fd >= 0)
		close(st->dir_fd);
	free(st);
}

static int get_from_db(
	struct store *st, enum store_cf cf, const void *key, size_t klen, struct buf *ret)
{
	char *text = NULL;
	rocksdb_pinnableslice_t *pinned =
		rocksdb_get_pinned_cf(st->db, st->get_options, st->cf[cf], key, klen, &text);
	const char *value;
	size_t vlen;
	int r = 0;

	if (text)
		return store_take_error(text);
	if (!pinned)
		return 0;
	value = rocksdb_pinnableslice_value(pinned, &vlen);
	if (ret)
		r = buf_append(ret, value, vlen);
	rocksdb_pinnableslice_destroy(pinned);
	return r < 0 ? r : 1;
}

/* Of a family whose rows are cached. */
static int get_through_cache(
	struct store *st, enum store_cf cf, const void *key, size_t klen, struct buf *ret)
{
	_cleanup_buf_ struct buf own = { 0 };
	struct buf *to = ret ? ret : &own;
	size_t before = to->len;
	uint64_t ticket;
	int r = row_cache_get(st->rows, cf, key, klen, &ticket, ret);

	if (r >= 0)
		return r;
	r = get_from_db(st, cf, key, klen, to);
	if (r >= 0)
		row_cache_fill(st->rows, cf, key, klen, ticket,
			r ? (struct slice){ to->data + before, to->len - before }
			  : (struct slice){ 0 });
	return r;
}

int store_get(struct store *st, enum store_cf cf, const void *key, size_t klen, struct buf *ret)
{
	return row_cache_has_family(cf) ? get_through_cache(st, cf, key, klen, ret)
					: get_from_db(st, cf, key, klen, ret);
}

int store_broken(struct store *st)
{
	return atomic_load(&st->broken);
}

int store_room(struct store *st, uint64_t n)
{
	return room_check_patiently(&st->room, n, DATA_RESERVE_MEMTABLES * st->memtable_bytes);
}

int store_room_to_move(struct store *st, uint64_t n)
{
	return room_check(&st->room, n, MOVE_RESERVE_MEMTABLES * st->memtable_bytes);
}

int store_disk(struct store *st, struct store_disk *ret)
{
	struct statvfs disk;

	if (fstatvfs(st->dir_fd, &disk) < 0)
		return -errno;
	ret->total = (uint64_t)disk.f_blocks * disk.f_frsize;
	ret->free = (uint64_t)disk.f_bavail * disk.f_frsize;
	ret->refused_below = DATA_RESERVE_MEMTABLES * st->memtable_bytes;
	return 0;
}

void store_set_watch(struct store *st, const struct room_watch *watch)
{
	room_set_watch(&st->room, watch);
}

static int sync_log(void *ctx)
{
	struct store *st = ctx;
	char *text = NULL;
	int r = atomic_load(&st->broken);

	if (r == 0)
		r = fault_point("store_sync");
	if (r < 0)
		return r;
	rocksdb_flush_wal(st->db, 1, &text);
	return store_take_write_error(st, text);
}

int store_sync(struct store *st)
{
	return group_sync_run(&st->syncs, sync_log, st);
}

uint64_t store_estimate(struct store *st, enum store_cf cf)
{
	uint64_t n = 0;

	if (rocksdb_property_int_cf(st->db, st->cf[cf], "rocksdb.estimate-num-keys", &n))
		return 0;
	return n;
}
