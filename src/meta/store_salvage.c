// SPDX-License-Identifier: Apache-2.0
/*
 * What may be wrong with the log at the opening, and what is done about it.
 *
 * The death of the process leaves a log that is whole but for a last record that it was writing;
 * anything else in it is damage, and what stands behind the damage had been accepted. After power
 * loss a torn log is the usual thing (store.c). The two are told apart by the boot id of the
 * system that had the store open last, in a file beside RocksDB's.
 */
#include "meta/store_impl.h"

#include "fault.h"
#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#define BOOT_FILE "boot-id"
#define BOOT_ID_CHARS 36
#define BOOT_BYTES_MAX 64

static int read_boot_id(const char *path, char ret[BOOT_ID_CHARS])
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = io_read_file(path, BOOT_BYTES_MAX, &b);

	if (r < 0)
		return r;
	if (b.len < BOOT_ID_CHARS)
		return -EBADMSG;
	memcpy(ret, b.data, BOOT_ID_CHARS);
	return 0;
}

static int this_boot(char ret[BOOT_ID_CHARS])
{
	return read_boot_id("/proc/sys/kernel/random/boot_id", ret);
}

static char *boot_path(const char *dir)
{
	char *path;

	return asprintf(&path, "%s/" BOOT_FILE, dir) < 0 ? NULL : path;
}

static bool same_boot(const char *dir)
{
	_cleanup_free_ char *path = boot_path(dir);
	char then[BOOT_ID_CHARS], now[BOOT_ID_CHARS];

	return path && read_boot_id(path, then) == 0 && this_boot(now) == 0 &&
	       memcmp(then, now, BOOT_ID_CHARS) == 0;
}

int store_recovery_mode(const char *dir, enum store_mode mode)
{
	if (mode == STORE_SALVAGE)
		return rocksdb_skip_any_corrupted_records_recovery;
	return same_boot(dir) ? rocksdb_tolerate_corrupted_tail_records_recovery
			      : rocksdb_point_in_time_recovery;
}

/* Failing, damage to the log is taken for a torn end at the next opening. */
void store_note_boot(const char *dir)
{
	_cleanup_free_ char *path = boot_path(dir);
	char now[BOOT_ID_CHARS];

	if (!path || same_boot(dir) || this_boot(now) < 0)
		return;
	if (io_write_file_atomic(path, now, sizeof now, 0600) < 0)
		errno = 0;
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), k = strlen(suffix);

	return n > k && strcmp(name + n - k, suffix) == 0;
}

bool store_has_tables(const char *dir)
{
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		if (has_suffix(e->d_name, ".sst") || has_suffix(e->d_name, ".log"))
			return true;
	}
	return false;
}

int store_rebuild(const char *dir, struct err *err)
{
	rocksdb_cache_t *cache = store_new_block_cache();
	rocksdb_options_t *options = store_new_options(cache, UINT64_C(8) * 1024 * 1024);
	char *text = NULL;
	int r;

	rocksdb_repair_db(options, dir, &text);
	r = text ? store_error_code(text) : 0;
	if (text)
		err_set(err, r, "%s: cannot be rebuilt: %s", dir, text);
	rocksdb_free(text);
	rocksdb_options_destroy(options);
	rocksdb_cache_destroy(cache);
	return -r;
}
