// SPDX-License-Identifier: Apache-2.0
/*
 * What kill -9 leaves, in the order of writing:
 *  1. Small: bytes and record are one write to the log.
 *  2. Large: bytes are in the staging file before the record that says so. A range that is
 *     staged already needs no record. Appending needs none either: one TAIL record says "from
 *     here to the end of the staging file", and the file's length grows with its bytes. It
 *     ends, with a record, before anything that would make it say too much: a gap, zeros.
 *  3. The write is answered after both.
 * Power loss can keep a record and lose bytes of the staging file. So what an fsync promised is
 * noted (SYNCED), and after a new start of the system no later range is believed. And what an
 * fsync promised stays here, sealed or not, until the tree that has it is durable.
 *
 * Who writes little between two fsyncs gets his bytes into the log as well (COPY, behind the bytes
 * in the file, as a RANGE is). As long as each write since the last sync of the staging file has
 * its copy, a sync of the log is enough: after power loss, the records behind SYNCED up to the
 * first whose bytes are in the file alone are written to the file again. A write without copy (it
 * is *bare*) ends that until the file is synced, so that an old copy never comes to lie over it.
 */
#include "fs/staging.h"

#include "bytes.h"
#include "clock.h"
#include "fault.h"
#include "fs/behind.h"
#include "io.h"
#include "bounds.h"
#include "workers.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* The disk is asked for room this often: the store keeps more than that in reserve. */
#define ROOM_CHECK_BYTES (4 * MIB)
/* A staging file of this length may take longer to close than to hand to another thread. */
#define CLOSE_BEHIND_BYTES (8 * MIB)

int staging_dir_open(struct store *store, const char *path, struct staging_dir **ret)
{
	struct staging_dir *d = calloc(1, sizeof *d);
	int r;

	if (!d)
		return -ENOMEM;
	d->store = store;
	d->fd = -1;
	d->next_id = 1;
	pthread_mutex_init(&d->over_lock, NULL);
	d->path = strdup(path);
	r = d->path ? io_mkdirs(path, 0700) : -ENOMEM;
	if (r == 0) {
		d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = d->fd < 0 ? -errno : workers_new(1, "varve-close", &d->closer);
	}
	if (r < 0) {
		staging_dir_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

void staging_dir_free(struct staging_dir *d)
{
	if (!d)
		return;
	workers_free(d->closer);
	staging_log_free(d->log);
	if (d->fd >= 0)
		close(d->fd);
	pthread_mutex_destroy(&d->over_lock);
	free(d->over);
	free(d->path);
	free(d);
}

static int ask_room(struct staging_dir *d, uint64_t n)
{
	int r;

	if (atomic_fetch_add(&d->unchecked_bytes, n) + n < ROOM_CHECK_BYTES)
		return 0;
	r = store_room(d->store, n);
	if (r == 0)
		atomic_store(&d->unchecked_bytes, 0);
	return r;
}

int staging_new(struct staging_dir *d, const struct staging_begin *begin, struct staging **ret)
{
	struct staging *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	s->refs = 1;
	s->dir = d;
	s->id = begin->id ? begin->id : atomic_fetch_add(&d->next_id, 1);
	s->node = begin->node;
	s->fd = -1;
	s->tail = STAGING_NO_TAIL;
	s->logged = true;
	r = staging_begin_encode(begin, &s->begin);
	if (r == 0 && begin->from_zero)
		r = overlay_reserve(&s->map);
	if (r < 0) {
		staging_unref(s);
		return r;
	}
	if (begin->from_zero)
		overlay_set(&s->map, &(struct extent){ 0, OVERLAY_END, 0, EXTENT_ZERO });
	*ret = s;
	return 0;
}

struct staging *staging_ref(struct staging *s)
{
	atomic_fetch_add(&s->refs, 1);
	return s;
}

static void release_memory(struct staging *s)
{
	atomic_fetch_sub(&s->dir->memory_bytes, s->bytes.len);
	buf_done(&s->bytes);
}

/* What it counts for in the folder's figures. */
static void unaccount(struct staging *s)
{
	atomic_fetch_sub(&s->dir->staged_bytes, s->map.staged_bytes);
}

static void run_close(void *fd)
{
	close((int)(intptr_t)fd);
}

/*
 * The last close of a removed file waits while the kernel writes it, which for 4 KiB here and
 * there in a large one takes seconds: whoever closed the file in the mount must not.
 */
static void close_file(struct staging *s)
{
	if (s->fd_end < CLOSE_BEHIND_BYTES ||
		workers_submit(s->dir->closer, run_close, (void *)(intptr_t)s->fd) < 0)
		close(s->fd);
}

void staging_unref(struct staging *s)
{
	if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
		return;
	if (!s->ended)
		unaccount(s);
	release_memory(s);
	behind_free(s->behind);
	/* The cache owns the descriptor of a file that it adopted. */
	if (s->segment)
		segment_unref(s->segment);
	else if (s->fd >= 0)
		close_file(s);
	overlay_done(&s->map);
	buf_done(&s->begin);
	free(s->replaced);
	free(s);
}

void staging_file_name(uint64_t id, bool kept, char ret[STAGING_NAME_BYTES])
{
	snprintf(ret, STAGING_NAME_BYTES, "%c-%016llx", kept ? 'k' : 'f', (unsigned long long)id);
}

bool staging_parse_name(const char *name, uint64_t *ret_id, bool *ret_kept)
{
	uint8_t b[8];

	if (strlen(name) != 18 || (name[0] != 'f' && name[0] != 'k') || name[1] != '-' ||
		!hex_decode(name + 2, 16, b, 8))
		return false;
	*ret_id = get_be64(b);
	*ret_kept = name[0] == 'k';
	return true;
}

/* Puts the records into the log, after the begin when that is not there yet. */
static int log_records(struct staging *s, const struct record *records, size_t n)
{
	struct record all[APPEND_RECORDS_MAX];
	size_t k = 0;
	int r;

	if (!s->logged)
		return 0;
	assert(n + 1 <= APPEND_RECORDS_MAX);
	if (!s->begun)
		all[k++] = (struct record){
			.kind = RECORD_BEGIN,
			.payload = { s->begin.data, s->begin.len },
		};
	for (size_t i = 0; i < n; i++)
		all[k++] = records[i];
	for (size_t i = 0; i < k; i++) {
		all[i].node = s->node;
		all[i].staging = s->id;
	}
	if (k == 0)
		return 0;
	r = staging_log_append(s->dir->log, all, k, s->begun ? NULL : &s->log_number);
	if (r < 0)
		return r;
	s->begun = true;
	s->n_records += n;
	buf_done(&s->begin);
	return 0;
}

int staging_commit_begin(struct staging *s)
{
	return log_records(s, NULL, 0);
}

void staging_map(
	struct staging *s, uint64_t start, uint64_t end, uint64_t pos, enum extent_kind kind)
{
	uint64_t had = s->map.staged_bytes;

	overlay_set(&s->map, &(struct extent){ start, end, pos, kind });
	atomic_fetch_add(&s->dir->staged_bytes, s->map.staged_bytes - had);
}

/* Writes over bytes that are staged already. */
static void overwrite_memory(struct staging *s, uint64_t offset, const uint8_t *p, size_t n)
{
	struct extent e;

	while (n) {
		size_t part;

		if (!overlay_find(&s->map, offset, &e))
			abort();
		part = (size_t)MIN((uint64_t)n, e.end - offset);
		memcpy(s->bytes.data + e.pos + (offset - e.start), p, part);
		offset += part;
		p += part;
		n -= part;
	}
}

static int reserve_memory(struct staging *s, bool staged, size_t n)
{
	int r = staged ? 0 : overlay_reserve(&s->map);

	return r < 0 || staged ? r : buf_reserve(&s->bytes, n);
}

static void put_memory(struct staging *s, uint64_t offset, const void *p, size_t n, bool staged)
{
	if (staged) {
		overwrite_memory(s, offset, p, n);
		return;
	}
	memcpy(s->bytes.data + s->bytes.len, p, n);
	staging_map(s, offset, offset + n, s->bytes.len, EXTENT_STAGED);
	s->bytes.len += n;
	atomic_fetch_add(&s->dir->memory_bytes, n);
}

int staging_put_memory(struct staging *s, uint64_t offset, const void *p, size_t n)
{
	bool staged = overlay_is_staged(&s->map, offset, offset + n);
	int r = reserve_memory(s, staged, n);

	if (r == 0)
		put_memory(s, offset, p, n, staged);
	return r;
}

static int write_memory(
	struct staging *s, uint64_t offset, const void *p, size_t n, int64_t time_ns)
{
	bool staged = overlay_is_staged(&s->map, offset, offset + n);
	struct record rec = {
		.kind = RECORD_WRITE,
		.a = offset,
		.time_ns = time_ns,
		.payload = { p, n },
	};
	int r = reserve_memory(s, staged, n);

	if (r == 0)
		r = log_records(s, &rec, 1);
	if (r == 0)
		put_memory(s, offset, p, n, staged);
	return r;
}

static int create_staging_file(const struct staging *s)
{
	char name[STAGING_NAME_BYTES];
	int fd;

	staging_file_name(s->id, false, name);
	if (!s->logged)
		fd = openat(s->dir->fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	else
		fd = openat(s->dir->fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

/* Copies what lies in memory to the file and makes the map that leads there. */
static int copy_to_file(const struct staging *s, int fd, struct overlay *ret_map, uint64_t *ret_end)
{
	struct extent e;

	for (uint64_t at = 0; overlay_find(&s->map, at, &e); at = e.end) {
		int r = overlay_reserve(ret_map);

		if (r == 0 && e.kind == EXTENT_STAGED)
			r = io_pwrite_full(fd, s->bytes.data + e.pos, e.end - e.start, e.start);
		if (r < 0)
			return r;
		if (e.kind == EXTENT_STAGED)
			*ret_end = e.end;
		e.pos = e.start;
		overlay_set(ret_map, &e);
	}
	return 0;
}

static int promote(struct staging *s, int64_t time_ns)
{
	_cleanup_(overlay_done) struct overlay map = { 0 };
	struct record rec = { .kind = RECORD_PROMOTE, .time_ns = time_ns };
	char name[STAGING_NAME_BYTES];
	uint64_t end = 0;
	int fd = create_staging_file(s), r;

	if (fd < 0)
		return fd;
	r = copy_to_file(s, fd, &map, &end);
	if (r == 0)
		r = fault_point("staging.before-promote");
	if (r == 0)
		r = log_records(s, &rec, 1);
	if (r < 0) {
		close(fd);
		staging_file_name(s->id, false, name);
		if (s->logged)
			unlinkat(s->dir->fd, name, 0);
		return r;
	}
	overlay_done(&s->map);
	s->map = map;
	map = (struct overlay){ 0 };
	s->fd = fd;
	s->fd_end = end;
	release_memory(s);
	return 0;
}

static struct record tail_record(const struct staging *s, uint64_t start, int64_t time_ns)
{
	bool any = s->tail != STAGING_NO_TAIL;

	return (struct record){
		.kind = RECORD_TAIL,
		.a = any ? s->tail : 0,
		.b = any ? s->fd_end : 0,
		.c = start,
		.time_ns = time_ns,
	};
}

static int write_bytes(struct staging *s, uint64_t offset, const void *p, size_t n)
{
	int r = io_pwrite_full(s->fd, p, n, offset);

	/* A tail must not come to include bytes that were not accepted. */
	if (r < 0 && offset + n > s->fd_end && ftruncate(s->fd, (off_t)s->fd_end) < 0)
		return r;
	return r;
}

/* The record that has to be there before the bytes are. */
static int log_before_bytes(struct staging *s, uint64_t offset, int64_t time_ns)
{
	struct record rec = tail_record(s, offset, time_ns);
	int r;

	if (offset < s->fd_end)
		return 0;
	if (offset == s->fd_end && s->tail != STAGING_NO_TAIL && s->tail <= s->fd_end)
		return 0;
	r = log_records(s, &rec, 1);
	if (r == 0)
		s->tail = offset;
	return r;
}

static int log_after_bytes(struct staging *s, uint64_t offset, size_t n, int64_t time_ns)
{
	struct record rec = {
		.kind = RECORD_RANGE,
		.a = offset,
		.b = offset + n,
		.time_ns = time_ns,
	};

	return offset < s->fd_end ? log_records(s, &rec, 1) : 0;
}

/* Whether the log shall have this write's bytes, too. */
static bool wants_copy(const struct staging *s, size_t n)
{
	return atomic_load(&s->promised) && s->logged && n <= STAGING_COPY_MAX &&
	       s->since_sync + n <= STAGING_COPIED_MAX && s->bare == atomic_load(&s->synced_bare);
}

/* Behind the bytes in the file. Without room for it in the log the file has to be synced. */
static bool log_copy(struct staging *s, uint64_t offset, const void *p, size_t n, int64_t time_ns)
{
	struct record rec = {
		.kind = RECORD_COPY,
		.a = offset,
		.b = offset + n,
		.time_ns = time_ns,
		.payload = { p, n },
	};

	fault_instant("staging.before-copy");
	if (log_records(s, &rec, 1) < 0)
		return false;
	s->copied = true;
	return true;
}

/* Over bytes that are staged already. */
static int write_again(struct staging *s, uint64_t offset, const void *p, size_t n, int64_t time_ns)
{
	bool copy = wants_copy(s, n);
	int r;

	/* Counted before, as a part of the bytes may get there. */
	s->bare++;
	r = write_bytes(s, offset, p, n);
	if (r == 0 && copy && log_copy(s, offset, p, n, time_ns))
		s->bare--;
	return r;
}

static int write_file(struct staging *s, uint64_t offset, const void *p, size_t n, int64_t time_ns)
{
	bool copy;
	int r;

	if (overlay_is_staged(&s->map, offset, offset + n))
		return write_again(s, offset, p, n, time_ns);
	copy = wants_copy(s, n);
	s->bare++;
	r = overlay_reserve(&s->map);
	if (r == 0)
		r = log_before_bytes(s, offset, time_ns);
	if (r == 0)
		r = write_bytes(s, offset, p, n);
	if (r == 0)
		r = fault_point("staging.after-bytes");
	if (r == 0 && copy && log_copy(s, offset, p, n, time_ns))
		s->bare--;
	else if (r == 0)
		r = log_after_bytes(s, offset, n, time_ns);
	if (r < 0)
		return r;
	staging_map(s, offset, offset + n, offset, EXTENT_STAGED);
	s->fd_end = MAX(s->fd_end, offset + n);
	return 0;
}

static bool fits_memory(const struct staging *s, size_t n)
{
	return s->bytes.len + n <= STAGING_SMALL_MAX &&
	       atomic_load(&s->dir->memory_bytes) + n <= STAGING_MEMORY_MAX;
}

int staging_write(struct staging *s, uint64_t offset, const void *p, size_t n, int64_t time_ns)
{
	int r;

	assert(n > 0 && !s->segment && !s->ended);
	r = ask_room(s->dir, n);
	if (r < 0)
		return r;
	s->since_sync += n;
	if (s->fd < 0 && fits_memory(s, n))
		return write_memory(s, offset, p, n, time_ns);
	if (s->fd < 0) {
		r = promote(s, time_ns);
		if (r < 0)
			return r;
	}
	return write_file(s, offset, p, n, time_ns);
}

/*
 * Gives the blocks back; what remains there is never looked at, so a failure is harmless. What an
 * fsync promised must outlast a power loss that takes the record of these zeros.
 */
static void punch(struct staging *s, uint64_t start, uint64_t end)
{
	if (atomic_load(&s->promised))
		return;
	end = MIN(end, s->fd_end);
	if (s->fd >= 0 && start < end &&
		fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
			(off_t)(end - start)) < 0)
		return;
}

int staging_zero(struct staging *s, uint64_t start, uint64_t end, uint64_t size, int64_t time_ns)
{
	struct record recs[2];
	size_t n = 0;
	int r = overlay_reserve(&s->map);

	if (r < 0)
		return r;
	if (s->tail != STAGING_NO_TAIL)
		recs[n++] = tail_record(s, STAGING_NO_TAIL, time_ns);
	recs[n++] = (struct record){
		.kind = RECORD_ZERO,
		.a = start,
		.b = end,
		.c = size,
		.time_ns = time_ns,
	};
	r = log_records(s, recs, n);
	if (r < 0)
		return r;
	s->tail = STAGING_NO_TAIL;
	staging_map(s, start, end, 0, EXTENT_ZERO);
	punch(s, start, end);
	return 0;
}

int staging_resize(struct staging *s, uint64_t size, int64_t time_ns)
{
	struct record rec = { .kind = RECORD_SIZE, .a = size, .time_ns = time_ns };

	return log_records(s, &rec, 1);
}

int staging_set_times(struct staging *s, int64_t mtime_ns, int64_t ctime_ns)
{
	struct record rec = {
		.kind = RECORD_TIMES,
		.a = (uint64_t)mtime_ns,
		.b = (uint64_t)ctime_ns,
		.time_ns = clock_real_ns(),
	};

	return log_records(s, &rec, 1);
}

int staging_set_mode(struct staging *s, uint32_t mode)
{
	struct record rec = { .kind = RECORD_MODE, .a = mode };

	return log_records(s, &rec, 1);
}

int staging_preallocate(struct staging *s, uint64_t start, uint64_t end)
{
	int r = store_room(s->dir->store, end - start);

	if (r == 0 && s->fd < 0)
		r = promote(s, clock_real_ns());
	if (r < 0)
		return r;
	if (fallocate(s->fd, FALLOC_FL_KEEP_SIZE, (off_t)start, (off_t)(end - start)) < 0 &&
		errno != EOPNOTSUPP)
		return -errno;
	return 0;
}

int staging_read(const struct staging *s, uint64_t pos, void *p, size_t n)
{
	int r;

	if (s->fd < 0) {
		memcpy(p, s->bytes.data + pos, n);
		return 0;
	}
	r = io_pread_full(s->fd, p, n, pos);
	return r == -ENODATA ? -EIO : r;
}
