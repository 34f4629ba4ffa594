// SPDX-License-Identifier: Apache-2.0
/*
 * Rows of CF_STATE that belong here:
 *
 *	"segment-next"	le64: ids from here on were never used. Advanced in steps, before use, so a
 *			row that names a segment is behind it in the log.
 *	"segment-safe"	le64 id, then the boot id: every segment below id is on stable storage.
 *			Rewritten after a sync, so it never promises too much.
 *
 * After a crash of the process alone the page cache still has every byte. After power loss (the
 * boot id differs) segments from "segment-safe" on are in doubt: RocksDB syncs its log when it
 * flushes, and the kernel writes back in any order, so a row can be there and its bytes not.
 */
#include "meta/segment_impl.h"

#include "bytes.h"
#include "fault.h"
#include "io.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

int segments_put_state(struct segments *s, const char *key, const void *value, size_t n)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r = batch_new(s->store, &b);

	if (r < 0)
		return r;
	batch_put(b, CF_STATE, key, strlen(key), value, n);
	return store_commit(s->store, b);
}

/* ---- sync ---- */

struct sync_round {
	uint64_t ids[DIRTY_MAX];
	size_t count;
	uint64_t first;
	bool names;
};

static void take_dirty(struct segments *s, struct sync_round *ret)
{
	SCOPED_LOCK(&s->lock);

	ret->count = s->dirty_count;
	ret->first = s->dirty_first;
	ret->names = s->names_dirty;
	memcpy(ret->ids, s->dirty, MIN(s->dirty_count, DIRTY_MAX) * sizeof s->dirty[0]);
	s->dirty_count = 0;
	s->dirty_first = UINT64_MAX;
	s->names_dirty = false;
}

static void give_back_dirty(struct segments *s, const struct sync_round *round)
{
	SCOPED_LOCK(&s->lock);

	for (size_t i = 0; i < MIN(round->count, DIRTY_MAX); i++)
		segments_mark_dirty_locked(s, round->ids[i]);
	if (round->count > DIRTY_MAX)
		s->dirty_count = round->count;
	s->dirty_first = MIN(s->dirty_first, round->first);
	s->names_dirty |= round->names;
}

/*
 * A failed sync is never made good by a later one that succeeds: the kernel may have dropped the
 * pages.
 */
static int synced(struct segments *s, int result)
{
	if (result < 0)
		s->sync_error = -errno;
	return s->sync_error;
}

static int sync_one(struct segments *s, uint64_t id)
{
	_cleanup_segment_ struct segment *seg = NULL;
	int r = segments_get(s, id, &seg);

	if (r <= 0)
		return r; /* one that is gone has nothing to lose */
	return synced(s, fdatasync(seg->fd));
}

static int sync_files(struct segments *s, const struct sync_round *round)
{
	int r;

	if (round->count > DIRTY_MAX)
		return synced(s, syncfs(s->dir_fd));
	for (size_t i = 0; i < round->count; i++) {
		r = sync_one(s, round->ids[i]);
		if (r < 0)
			return r;
	}
	return round->names ? synced(s, fsync(s->dir_fd)) : 0;
}

static int sync_dirty(struct segments *s, const struct sync_round *round)
{
	int r = fault_point("segment_sync");

	if (r == 0)
		r = s->sync_error;
	return r < 0 ? r : sync_files(s, round);
}

static int put_safe(struct segments *s, uint64_t safe)
{
	uint8_t value[8 + BOOT_ID_BYTES];

	put_le64(value, safe);
	memcpy(value + 8, s->boot_id, BOOT_ID_BYTES);
	return segments_put_state(s, KEY_SAFE, value, sizeof value);
}

/* Everything below was synced and is not written to any more. */
static uint64_t safe_locked(struct segments *s)
{
	uint64_t safe = MIN(s->dirty_first, s->next_id);

	if (s->open)
		safe = MIN(safe, s->open->id);
	for (struct segment *seg = s->table; seg; seg = seg->hh.next)
		if (seg->writers)
			safe = MIN(safe, seg->id);
	return safe;
}

static int advance_safe(struct segments *s)
{
	SCOPED_LOCK(&s->lock);
	uint64_t safe = safe_locked(s);
	int r;

	if (!s->settled || safe <= s->safe)
		return 0;
	r = put_safe(s, safe);
	if (r < 0)
		return r;
	s->safe = safe;
	return 0;
}

static int sync_round(void *ctx)
{
	struct segments *s = ctx;
	struct sync_round round;
	int r;

	take_dirty(s, &round);
	r = sync_dirty(s, &round);
	if (r < 0) {
		give_back_dirty(s, &round);
		return r;
	}
	/* The bytes are durable; without this row they are only checked needlessly one day. */
	r = advance_safe(s);
	return r == -ENOSPC ? 0 : r;
}

int segments_sync(struct segments *s)
{
	return group_sync_run(&s->syncs, sync_round, s);
}

/* ---- opening ---- */

static int read_boot_id(char ret[BOOT_ID_BYTES])
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = io_read_file("/proc/sys/kernel/random/boot_id", 64, &b);

	if (r < 0)
		return r;
	if (b.len < BOOT_ID_BYTES)
		return -EIO;
	memcpy(ret, b.data, BOOT_ID_BYTES);
	return 0;
}

static int load_next(struct segments *s)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = store_get(s->store, CF_STATE, KEY_NEXT, strlen(KEY_NEXT), &b);

	if (r < 0)
		return r;
	if (r > 0 && b.len != 8)
		return -EBADMSG;
	s->next_id = r > 0 ? get_le64(b.data) : 1;
	s->ids_end = s->next_id;
	return 0;
}

static int load_safe(struct segments *s, struct segment_doubt *ret)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = store_get(s->store, CF_STATE, KEY_SAFE, strlen(KEY_SAFE), &b);

	if (r < 0)
		return r;
	if (r > 0 && b.len != 8 + BOOT_ID_BYTES)
		return -EBADMSG;
	s->safe = r > 0 ? get_le64(b.data) : 1;
	ret->first = s->safe;
	ret->end = s->next_id;
	/* Its process was killed: what it had not synced is ours to sync. */
	if (s->safe < s->next_id) {
		s->dirty_first = s->safe;
		s->dirty_count = DIRTY_MAX + 1;
		s->names_dirty = true;
	}
	s->doubted = r == 0 || memcmp(b.data + 8, s->boot_id, BOOT_ID_BYTES) != 0;
	ret->any = s->doubted && ret->first < ret->end;
	return 0;
}

static int open_folder(struct segments *s, const char *dir)
{
	int r = io_mkdirs(dir, 0700);

	if (r < 0)
		return r;
	s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return s->dir_fd < 0 ? -errno : 0;
}

static int load(struct segments *s, const char *dir, struct segment_doubt *ret_doubt)
{
	int r = open_folder(s, dir);

	if (r == 0)
		r = read_boot_id(s->boot_id);
	if (r == 0)
		r = load_next(s);
	if (r == 0)
		r = load_safe(s, ret_doubt);
	return r;
}

int segments_open(struct store *st, const char *dir, struct segments **ret,
	struct segment_doubt *ret_doubt, struct err *err)
{
	struct segments *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return err_sys(err, ENOMEM, "%s", dir);
	s->store = st;
	s->dir_fd = -1;
	s->dirty_first = UINT64_MAX;
	s->size_max = SEGMENT_BYTES_MAX;
	group_sync_init(&s->syncs);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->stats_lock, NULL);
	r = load(s, dir, ret_doubt);
	if (r < 0) {
		segments_free(s);
		return err_sys(err, -r, "%s: cannot open the segments", dir);
	}
	*ret = s;
	return 0;
}

int segments_settle(struct segments *s)
{
	int r = 0;

	if (s->doubted) {
		/* What was checked was read from the disk, as nothing else is left of it. */
		s->safe = s->next_id;
		s->dirty_first = UINT64_MAX;
		s->dirty_count = 0;
		s->names_dirty = false;
		r = put_safe(s, s->safe);
	}
	if (r == 0)
		s->settled = true;
	return r;
}

static void close_all(struct segments *s)
{
	/* Best effort, so that the next boot has nothing to check. */
	int ignored = segments_sync(s);

	if (s->open)
		segment_unref(steal(s->open));
	/* No more are made: the rest of the step stays unused. */
	s->next_id = s->ids_end;
	if (ignored == 0)
		ignored = advance_safe(s);
	(void)ignored;
	while (s->idle)
		segments_drop_idle_locked(s);
	assert(!s->table);
}

void segments_free(struct segments *s)
{
	if (!s)
		return;
	if (s->settled)
		close_all(s);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	group_sync_done(&s->syncs);
	pthread_mutex_destroy(&s->stats_lock);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* ---- figures ---- */

static void count_folder(struct segments *s)
{
	int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct stat st;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return;
	}
	s->count = s->bytes = 0;
	while ((e = readdir(d)))
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
			s->count++;
			s->bytes += segment_disk_bytes(&st);
		}
	s->counted = true;
}

/* The folder is read at the first question only: opening does not wait for 100,000 files. */
void segments_stats(struct segments *s, uint64_t *ret_segments, uint64_t *ret_bytes)
{
	SCOPED_LOCK(&s->stats_lock);

	if (!s->counted)
		count_folder(s);
	*ret_segments = s->count;
	*ret_bytes = s->bytes;
}
