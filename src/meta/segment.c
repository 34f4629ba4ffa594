// SPDX-License-Identifier: Apache-2.0
/* Segments: the table of those in use, and how new ones come. */
#include "meta/segment_impl.h"

#include "bytes.h"
#include "clock.h"
#include "fault.h"
#include "io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <utlist.h>

/* Closed beyond this; reopening one costs microseconds. */
#define IDLE_FDS_MAX 64
#define ID_STEP 1024

void segment_name(uint64_t id, char ret[SEGMENT_NAME_BYTES])
{
	snprintf(ret, SEGMENT_NAME_BYTES, "%016llx", (unsigned long long)id);
}

uint64_t segment_disk_bytes(const struct stat *st)
{
	return MIN((uint64_t)st->st_size, (uint64_t)st->st_blocks * 512);
}

/* Files and bytes in the folder, about; kept from the first question on. */
void segments_count_change(struct segments *s, int64_t files, int64_t bytes)
{
	SCOPED_LOCK(&s->stats_lock);

	s->count += (uint64_t)files;
	s->bytes += (uint64_t)bytes;
	if (s->limit_bytes && s->bytes > s->limit_bytes)
		s->grown(s->grown_ctx);
}

/* ---- the table ---- */

static int segment_new(struct segments *s, uint64_t id, int fd, struct segment **ret)
{
	struct segment *seg = calloc(1, sizeof *seg);
	struct stat st;

	if (!seg)
		return -ENOMEM;
	if (fstat(fd, &st) < 0) {
		free(seg);
		return -errno;
	}
	seg->owner = s;
	seg->id = id;
	seg->fd = fd;
	seg->refs = 1;
	seg->used_ns = clock_real_ns();
	atomic_init(&seg->size, (uint64_t)st.st_size);
	*ret = seg;
	return 0;
}

static void segment_close(struct segment *seg)
{
	close(seg->fd);
	free(seg);
}

/* A stamp that fails costs a worse choice one day. */
static void note_use_locked(struct segment *seg)
{
	static const struct timespec stamp[2] = { { .tv_nsec = UTIME_NOW },
		{ .tv_nsec = UTIME_OMIT } };

	seg->used_ns = clock_real_ns();
	if (seg->used_ns - seg->stamped_ns < USE_STAMP_NS)
		return;
	seg->stamped_ns = seg->used_ns;
	if (futimens(seg->fd, stamp) < 0)
		errno = 0;
}

static struct segment *find_locked(struct segments *s, uint64_t id)
{
	struct segment *seg;

	HASH_FIND(hh, s->table, &id, sizeof id, seg);
	if (!seg)
		return NULL;
	if (seg->refs++ == 0) {
		DL_DELETE(s->idle, seg);
		s->idle_count--;
	}
	note_use_locked(seg);
	return seg;
}

void segments_drop_idle_locked(struct segments *s)
{
	struct segment *oldest = s->idle;

	DL_DELETE(s->idle, oldest);
	s->idle_count--;
	HASH_DEL(s->table, oldest);
	segment_close(oldest);
}

/* The file is gone, or about to be. */
void segments_forget_locked(struct segments *s, struct segment *seg)
{
	HASH_DEL(s->table, seg);
	seg->removed = true;
	if (seg->refs > 0)
		return;
	DL_DELETE(s->idle, seg);
	s->idle_count--;
	segment_close(seg);
}

static void unref_locked(struct segments *s, struct segment *seg)
{
	assert(seg->refs > 0);
	if (--seg->refs > 0)
		return;
	if (seg->removed) {
		segment_close(seg);
		return;
	}
	DL_APPEND(s->idle, seg);
	if (++s->idle_count > IDLE_FDS_MAX)
		segments_drop_idle_locked(s);
}

struct segment *segment_ref(struct segment *seg)
{
	SCOPED_LOCK(&seg->owner->lock);

	seg->refs++;
	return seg;
}

void segment_unref(struct segment *seg)
{
	if (!seg)
		return;
	SCOPED_LOCK(&seg->owner->lock);

	unref_locked(seg->owner, seg);
}

uint64_t segment_id(const struct segment *seg)
{
	return seg->id;
}

int segment_fd(const struct segment *seg)
{
	return seg->fd;
}

uint64_t segment_size(const struct segment *seg)
{
	return atomic_load(&seg->size);
}

static struct segment *find(struct segments *s, uint64_t id)
{
	SCOPED_LOCK(&s->lock);

	return find_locked(s, id);
}

/* Into the table, unless another thread was faster: then that one's is taken. */
static struct segment *insert(struct segments *s, struct segment *seg)
{
	SCOPED_LOCK(&s->lock);
	struct segment *other = find_locked(s, seg->id);

	if (other) {
		segment_close(seg);
		return other;
	}
	HASH_ADD(hh, s->table, id, sizeof seg->id, seg);
	return seg;
}

int segments_get(struct segments *s, uint64_t id, struct segment **ret)
{
	struct segment *seg = find(s, id);
	_cleanup_close_ int fd = -1;
	char name[SEGMENT_NAME_BYTES];
	int r;

	if (seg) {
		*ret = seg;
		return 1;
	}
	segment_name(id, name);
	fd = openat(s->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = segment_new(s, id, fd, &seg);
	if (r < 0)
		return r;
	fd = -1;
	*ret = insert(s, seg);
	return 1;
}

/* ---- new ones ---- */

static int take_id_locked(struct segments *s, uint64_t *ret)
{
	if (s->next_id == s->ids_end) {
		uint8_t value[8];
		int r;

		put_le64(value, s->ids_end + ID_STEP);
		r = segments_put_state(s, KEY_NEXT, value, sizeof value);
		if (r < 0)
			return r;
		s->ids_end += ID_STEP;
	}
	*ret = s->next_id++;
	return 0;
}

void segments_mark_dirty_locked(struct segments *s, uint64_t id)
{
	s->dirty_first = MIN(s->dirty_first, id);
	for (size_t i = s->dirty_count; i > 0 && s->dirty_count <= DIRTY_MAX; i--)
		if (s->dirty[i - 1] == id)
			return;
	if (s->dirty_count < DIRTY_MAX)
		s->dirty[s->dirty_count] = id;
	if (s->dirty_count <= DIRTY_MAX)
		s->dirty_count++;
}

static int create_file_locked(struct segments *s, uint64_t *ret_id, int *ret_fd)
{
	char name[SEGMENT_NAME_BYTES];
	int fd, r;

	do {
		r = take_id_locked(s, ret_id);
		if (r < 0)
			return r;
		segment_name(*ret_id, name);
		fd = openat(s->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	} while (fd < 0 && errno == EEXIST); /* power loss took "segment-next" back */
	if (fd < 0)
		return -errno;
	s->names_dirty = true;
	*ret_fd = fd;
	return 0;
}

static int roll_locked(struct segments *s)
{
	struct segment *seg;
	uint64_t id;
	int fd = -1, r;

	r = create_file_locked(s, &id, &fd);
	if (r < 0)
		return r;
	fault_instant("segment.created");
	r = segment_new(s, id, fd, &seg);
	if (r < 0) {
		close(fd);
		return r;
	}
	HASH_ADD(hh, s->table, id, sizeof seg->id, seg);
	if (s->open)
		unref_locked(s, s->open);
	s->open = seg;
	segments_count_change(s, 1, 0);
	return 0;
}

static int reserve(struct segments *s, size_t n, struct segment **ret, uint64_t *ret_offset)
{
	SCOPED_LOCK(&s->lock);

	if (!s->open || segment_size(s->open) + n > s->size_max) {
		int r = roll_locked(s);

		if (r < 0)
			return r;
	}
	*ret = s->open;
	s->open->refs++;
	s->open->writers++;
	*ret_offset = atomic_fetch_add(&s->open->size, n);
	return 0;
}

static void written(struct segments *s, struct segment *seg)
{
	SCOPED_LOCK(&s->lock);

	seg->writers--;
	segments_mark_dirty_locked(s, seg->id);
}

static int append(
	struct segments *s, const void *p, size_t n, struct segment **ret, uint64_t *ret_offset)
{
	_cleanup_segment_ struct segment *seg = NULL;
	uint64_t offset;
	int r;

	assert(s->settled && n <= SEGMENT_BYTES_MAX);
	r = reserve(s, n, &seg, &offset);
	if (r < 0)
		return r;
	r = io_pwrite_full(seg->fd, p, n, offset);
	fault_instant("segment.appended");
	written(s, seg);
	/* What was reserved stays a gap: others may have written behind it. */
	if (r < 0)
		return r == -EFBIG || r == -EDQUOT ? -ENOSPC : r;
	segments_count_change(s, 0, (int64_t)n);
	*ret = steal(seg);
	*ret_offset = offset;
	return 0;
}

int segments_append(
	struct segments *s, const void *p, size_t n, struct segment **ret, uint64_t *ret_offset)
{
	int r = fault_point("segment_append");

	if (r == 0)
		r = store_room(s->store, n);
	return r < 0 ? r : append(s, p, n, ret, ret_offset);
}

int segments_append_moved(
	struct segments *s, const void *p, size_t n, struct segment **ret, uint64_t *ret_offset)
{
	int r = store_room_to_move(s->store, n);

	return r < 0 ? r : append(s, p, n, ret, ret_offset);
}

/* Never replaces a file; a file system without that flag gets a look first. */
static int move_in(struct segments *s, const char *path, const char *name)
{
	struct stat st;

	if (renameat2(AT_FDCWD, path, s->dir_fd, name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	if (fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(AT_FDCWD, path, s->dir_fd, name) < 0 ? -errno : 0;
}

static int move_in_locked(struct segments *s, const char *path, uint64_t *ret_id)
{
	char name[SEGMENT_NAME_BYTES];
	int r;

	do {
		r = take_id_locked(s, ret_id);
		if (r < 0)
			return r;
		segment_name(*ret_id, name);
		r = move_in(s, path, name);
	} while (r == -EEXIST);
	if (r < 0)
		return r;
	s->names_dirty = true;
	segments_mark_dirty_locked(s, *ret_id);
	return 0;
}

int segments_adopt(struct segments *s, const char *path, int fd, struct segment **ret)
{
	struct segment *seg;
	struct stat st;
	int r = fault_point("segment_adopt");

	assert(s->settled);
	if (r == 0 && fstat(fd, &st) < 0)
		r = -errno;
	if (r == 0)
		r = segment_new(s, 0, fd, &seg);
	if (r < 0)
		return r;
	pthread_mutex_lock(&s->lock);
	r = move_in_locked(s, path, &seg->id);
	if (r == 0)
		HASH_ADD(hh, s->table, id, sizeof seg->id, seg);
	pthread_mutex_unlock(&s->lock);
	if (r < 0) {
		free(seg);
		return r;
	}
	segments_count_change(s, 1, (int64_t)segment_disk_bytes(&st));
	*ret = seg;
	return 0;
}
