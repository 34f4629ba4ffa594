// SPDX-License-Identifier: Apache-2.0
#include "bounds.h"
#include "bytes.h"
#include "clock.h"
#include "io.h"
#include "meta/cache.h"
#include "meta/chunk_row.h"
#include "meta/segment.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BIG 10000

static char dir[64];
static char db[80];
static struct store *st;
static struct cache *c;

static void open_cache(void)
{
	struct err err = { 0 };

	ck_assert_msg(store_open(db, &st, &err) == 0, "%s", err.text);
	ck_assert_msg(cache_open(st, dir, &c, &err) == 0, "%s", err.text);
}

static void close_cache(void)
{
	cache_free(c);
	store_free(st);
	c = NULL;
	st = NULL;
}

static void setup(void)
{
	strcpy(dir, "/tmp/varve-cache-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(db, sizeof db, "%s/db", dir);
	open_cache();
}

static void teardown(void)
{
	close_cache();
	ck_assert_int_eq(io_remove_tree(dir), 0);
}

/* The n bytes that `seed` stands for, and their id. */
static void make_chunk(uint64_t seed, uint8_t *ret, size_t n, struct digest *ret_id)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		ret[i] = (uint8_t)(seed >> 56);
	}
	digest_of(ret, n, ret_id);
}

static int add(uint64_t seed, size_t n, unsigned flags, struct digest *ret_id)
{
	_cleanup_batch_ struct batch *b = NULL;
	_cleanup_free_ uint8_t *p = malloc(n);
	int r;

	make_chunk(seed, p, n, ret_id);
	ck_assert_int_eq(batch_new(st, &b), 0);
	r = cache_add(c, b, ret_id, p, n, flags);
	return r < 0 ? r : store_commit(st, b);
}

static void expect_chunk(const struct digest *id, uint64_t seed, size_t n)
{
	_cleanup_free_ uint8_t *p = malloc(n);
	_cleanup_buf_ struct buf b = { 0 };
	struct digest same;

	make_chunk(seed, p, n, &same);
	ck_assert(digest_eq(id, &same));
	ck_assert_int_eq(cache_read_chunk(c, id, &b), 1);
	ck_assert_uint_eq(b.len, n);
	ck_assert_int_eq(memcmp(b.data, p, n), 0);
}

static unsigned flags_of(const struct digest *id)
{
	_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 };

	ck_assert_int_eq(cache_locate(c, id, &loc), 1);
	return loc.flags;
}

static int locate(const struct digest *id)
{
	_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 };

	return cache_locate(c, id, &loc);
}

static uint64_t segment_bytes(void)
{
	struct cache_stats stats;

	cache_get_stats(c, &stats);
	return stats.segment_bytes;
}

/* The path of the segment that the chunk lies in, and where in it. */
static uint64_t segment_of(const struct digest *id, char *ret, size_t size)
{
	_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 };

	ck_assert_int_eq(cache_locate(c, id, &loc), 1);
	ck_assert_ptr_nonnull(loc.seg);
	snprintf(ret, size, "%s/segments/%016llx", dir, (unsigned long long)segment_id(loc.seg));
	return loc.offset;
}

static void flip_bit(const char *path, uint64_t offset)
{
	_cleanup_close_ int fd = open(path, O_RDWR);
	uint8_t b;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(io_pread_full(fd, &b, 1, offset), 0);
	b ^= 0x10;
	ck_assert_int_eq(io_pwrite_full(fd, &b, 1, offset), 0);
}

START_TEST(chunks_are_found_again)
{
	static const size_t sizes[] = { 1, CHUNK_INLINE_MAX, CHUNK_INLINE_MAX + 1, BIG, 1 << 20 };
	struct digest ids[ARRAY_SIZE(sizes)], absent;

	memset(&absent, 7, sizeof absent);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		ck_assert_int_eq(add(i, sizes[i], 0, &ids[i]), 0);
	for (int reopened = 0; reopened < 2; reopened++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
			expect_chunk(&ids[i], i, sizes[i]);
		ck_assert_int_eq(locate(&absent), 0);
		ck_assert_int_eq(cache_read_chunk(c, &absent, NULL), 0);
		close_cache();
		open_cache();
	}
}
END_TEST

START_TEST(location_is_readable_while_held)
{
	_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 }, small = { .fd = -1 };
	uint8_t expected[BIG], got[BIG];
	struct digest id, small_id;
	char path[160];

	ck_assert_int_eq(add(1, BIG, 0, &id), 0);
	ck_assert_int_eq(add(2, 100, 0, &small_id), 0);
	segment_of(&id, path, sizeof path);
	ck_assert_int_eq(cache_locate(c, &id, &loc), 1);
	ck_assert_int_eq(unlink(path), 0);
	make_chunk(1, expected, BIG, &id);
	ck_assert_uint_eq(loc.length, BIG);
	ck_assert_int_eq(io_pread_full(loc.fd, got, BIG, loc.offset), 0);
	ck_assert_int_eq(memcmp(expected, got, BIG), 0);
	ck_assert_int_eq(cache_locate(c, &small_id, &small), 1);
	ck_assert_int_eq(small.fd, -1);
	ck_assert_uint_eq(small.inlined.len, 100);
	chunk_loc_done(&loc);
}
END_TEST

START_TEST(same_chunk_is_stored_once)
{
	struct digest id, small;
	uint64_t before;

	ck_assert_int_eq(add(1, BIG, 0, &id), 0);
	ck_assert_int_eq(add(2, 50, CACHE_ON_SERVER, &small), 0);
	before = segment_bytes();
	ck_assert_uint_eq(before, BIG);
	ck_assert_int_eq(add(1, BIG, 0, &id), 0);
	ck_assert_uint_eq(flags_of(&id), 0);
	ck_assert_int_eq(add(1, BIG, CACHE_ON_SERVER, &id), 0);
	ck_assert_uint_eq(flags_of(&id), CACHE_ON_SERVER);
	ck_assert_int_eq(add(1, BIG, 0, &id), 0);
	ck_assert_uint_eq(flags_of(&id), CACHE_ON_SERVER);
	ck_assert_int_eq(add(2, 50, 0, &small), 0);
	ck_assert_uint_eq(flags_of(&small), CACHE_ON_SERVER);
	ck_assert_uint_eq(segment_bytes(), before);
	expect_chunk(&id, 1, BIG);
	expect_chunk(&small, 2, 50);
}
END_TEST

START_TEST(marks_come_and_go)
{
	_cleanup_batch_ struct batch *b = NULL;
	struct digest ids[3];

	ck_assert_int_eq(add(1, BIG, 0, &ids[0]), 0);
	ck_assert_int_eq(add(2, 50, 0, &ids[1]), 0);
	memset(&ids[2], 9, sizeof ids[2]);
	ck_assert_int_eq(batch_new(st, &b), 0);
	ck_assert_int_eq(cache_mark_on_server(c, b, ids, 3), 0);
	ck_assert_uint_eq(batch_count(b), 2);
	ck_assert_uint_eq(flags_of(&ids[0]), 0);
	ck_assert_int_eq(store_commit(st, b), 0);
	ck_assert_uint_eq(flags_of(&ids[0]), CACHE_ON_SERVER);
	ck_assert_uint_eq(flags_of(&ids[1]), CACHE_ON_SERVER);
	ck_assert_int_eq(cache_mark_on_server(c, b, ids, 3), 0);
	ck_assert_uint_eq(batch_count(b), 0);
	ck_assert_int_eq(cache_unmark(c, ids, 3), 0);
	ck_assert_uint_eq(flags_of(&ids[0]), 0);
	ck_assert_int_eq(locate(&ids[2]), 0);
	expect_chunk(&ids[0], 1, BIG);
	expect_chunk(&ids[1], 2, 50);
}
END_TEST

static int make_file(const char *name, const void *p, size_t n, char *ret_path, size_t size)
{
	int fd;

	snprintf(ret_path, size, "%s/%s", dir, name);
	fd = open(ret_path, O_RDWR | O_CREAT | O_EXCL, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(io_write_full(fd, p, n), 0);
	return fd;
}

START_TEST(file_becomes_a_segment)
{
	_cleanup_batch_ struct batch *b = NULL;
	uint8_t bytes[3 * BIG];
	struct digest ids[3];
	struct segment *seg;
	char path[160];
	int fd;

	for (int i = 0; i < 3; i++)
		make_chunk((uint64_t)i, bytes + i * BIG, BIG, &ids[i]);
	fd = make_file("staged", bytes, sizeof bytes, path, sizeof path);
	ck_assert_int_eq(cache_adopt(c, "/nowhere/file", fd, &seg), -ENOENT);
	ck_assert_int_eq(cache_adopt(c, path, fd, &seg), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(batch_new(st, &b), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(cache_add_at(c, b, &ids[i], seg, (uint64_t)i * BIG, BIG, 0), 0);
	segment_unref(seg);
	ck_assert_int_eq(store_commit(st, b), 0);
	ck_assert_uint_eq(segment_bytes(), sizeof bytes);
	ck_assert_int_eq(cache_sync_all(c), 0);
	batch_free(steal(b));
	close_cache();
	open_cache();
	for (int i = 0; i < 3; i++)
		expect_chunk(&ids[i], (uint64_t)i, BIG);
	ck_assert_uint_eq(segment_bytes(), sizeof bytes);
}
END_TEST

START_TEST(flipped_bit_is_found)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct digest id, other;
	char path[160];
	uint64_t offset;
	bool on_server = _i;

	ck_assert_int_eq(add(1, BIG, on_server ? CACHE_ON_SERVER : 0, &id), 0);
	ck_assert_int_eq(add(2, BIG, 0, &other), 0);
	offset = segment_of(&id, path, sizeof path);
	flip_bit(path, offset + 77);
	ck_assert_int_eq(buf_append(&b, "x", 1), 0);
	ck_assert_int_eq(cache_read_chunk(c, &id, &b), -EBADMSG);
	ck_assert_uint_eq(b.len, 1);
	ck_assert_int_eq(locate(&id), on_server ? 0 : -EIO);
	expect_chunk(&other, 2, BIG);
	ck_assert_int_eq(add(1, BIG, 0, &id), 0);
	expect_chunk(&id, 1, BIG);
}
END_TEST

START_TEST(missing_segment_is_absence_only_where_it_may_be)
{
	struct digest there, here;
	char path[160];

	ck_assert_int_eq(add(1, BIG, CACHE_ON_SERVER, &there), 0);
	ck_assert_int_eq(add(2, BIG, 0, &here), 0);
	segment_of(&there, path, sizeof path);
	close_cache();
	if (_i == 0)
		ck_assert_int_eq(unlink(path), 0);
	else
		ck_assert_int_eq(truncate(path, BIG / 2), 0);
	open_cache();
	ck_assert_int_eq(locate(&there), 0);
	ck_assert_int_eq(store_get(st, CF_CHUNK, there.b, DIGEST_BYTES, NULL), 0);
	ck_assert_int_eq(locate(&here), -EIO);
	ck_assert_int_eq(cache_read_chunk(c, &here, NULL), -EIO);
	ck_assert_int_eq(store_get(st, CF_CHUNK, here.b, DIGEST_BYTES, NULL), 1);
	ck_assert_int_eq(add(1, BIG, 0, &there), 0);
	ck_assert_int_eq(add(2, BIG, 0, &here), 0);
	expect_chunk(&there, 1, BIG);
	expect_chunk(&here, 2, BIG);
}
END_TEST

START_TEST(bad_rows_are_no_rows)
{
	static const uint8_t values[][CHUNK_ROW_SEGMENT_BYTES] = {
		{ 1 },
		{ 9, 0, 1 },
		{ 2, 0, 1 },
		{ 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 1 },
		{ 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255 },
	};
	static const size_t sizes[] = { 1, 3, 3, 22, 22 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_batch_ struct batch *b = NULL;
		_cleanup_buf_ struct buf got = { 0 };
		uint8_t bytes[BIG];
		struct digest id;

		make_chunk(i, bytes, BIG, &id);
		ck_assert_int_eq(batch_new(st, &b), 0);
		batch_put(b, CF_CHUNK, id.b, DIGEST_BYTES, values[i], sizes[i]);
		ck_assert_int_eq(store_commit(st, b), 0);
		ck_assert_int_eq(cache_mark_on_server(c, b, &id, 1), 0);
		if (i % 2)
			ck_assert_int_eq(cache_read_chunk(c, &id, &got), -EBADMSG);
		ck_assert_int_eq(locate(&id), 0);
		ck_assert_int_eq(add(i, BIG, 0, &id), 0);
		expect_chunk(&id, i, BIG);
	}
}
END_TEST

/* Another boot, by the row that remembers it: what was not synced is looked through. */
START_TEST(power_loss_is_checked_for)
{
	struct digest ids[4];
	char path[160];
	_cleanup_batch_ struct batch *b = NULL;
	uint8_t safe[44] = { 1 };
	_cleanup_buf_ struct buf row = { 0 };

	ck_assert_int_eq(add(0, BIG, 0, &ids[0]), 0);
	ck_assert_int_eq(add(1, BIG, CACHE_ON_SERVER, &ids[1]), 0);
	ck_assert_int_eq(add(2, BIG, 0, &ids[2]), 0);
	flip_bit(path, segment_of(&ids[1], path, sizeof path));
	flip_bit(path, segment_of(&ids[2], path, sizeof path));
	if (_i) {
		ck_assert_int_eq(batch_new(st, &b), 0);
		batch_put(b, CF_STATE, "segment-safe", 12, safe, sizeof safe);
	}
	cache_free(steal(c));
	if (_i) {
		ck_assert_int_eq(store_commit(st, b), 0);
		batch_free(steal(b));
	}
	store_free(steal(st));
	open_cache();
	expect_chunk(&ids[0], 0, BIG);
	ck_assert_int_eq(locate(&ids[1]), _i ? 0 : 1);
	ck_assert_int_eq(locate(&ids[2]), _i ? -EIO : 1);
	ck_assert_int_eq(add(3, BIG, 0, &ids[3]), 0);
	ck_assert_int_eq(cache_sync(c), 0);
	ck_assert_int_eq(store_get(st, CF_STATE, "segment-safe", 12, &row), 1);
	ck_assert_uint_eq(row.len, 44);
	ck_assert_uint_gt(get_le64(row.data), 1);
}
END_TEST

START_TEST(many_segments_few_descriptors)
{
	struct digest ids[300];
	struct chunk_loc held[3];
	struct rlimit limit = { 200, 200 };

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int i = 0; i < 300; i++) {
		_cleanup_batch_ struct batch *b = NULL;
		uint8_t bytes[5000];
		struct segment *seg;
		char path[160], name[16];
		int fd;

		make_chunk((uint64_t)i, bytes, sizeof bytes, &ids[i]);
		snprintf(name, sizeof name, "f%d", i);
		fd = make_file(name, bytes, sizeof bytes, path, sizeof path);
		ck_assert_int_eq(cache_adopt(c, path, fd, &seg), 0);
		ck_assert_int_eq(batch_new(st, &b), 0);
		ck_assert_int_eq(cache_add_at(c, b, &ids[i], seg, 0, sizeof bytes, 0), 0);
		segment_unref(seg);
		ck_assert_int_eq(store_commit(st, b), 0);
		if (i < 3)
			ck_assert_int_eq(cache_locate(c, &ids[i], &held[i]), 1);
	}
	for (int i = 0; i < 300; i++)
		expect_chunk(&ids[i], (uint64_t)i, 5000);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_ge(fcntl(held[i].fd, F_GETFD), 0);
		chunk_loc_done(&held[i]);
	}
	ck_assert_int_eq(cache_sync_all(c), 0);
}
END_TEST

START_TEST(ids_are_not_used_again)
{
	struct digest id, later;
	char first[160], second[160];

	ck_assert_int_eq(add(1, BIG, CACHE_ON_SERVER, &id), 0);
	segment_of(&id, first, sizeof first);
	close_cache();
	ck_assert_int_eq(unlink(first), 0);
	open_cache();
	ck_assert_int_eq(add(2, BIG, 0, &later), 0);
	segment_of(&later, second, sizeof second);
	ck_assert_str_ne(first, second);
	ck_assert_int_eq(locate(&id), 0);
}
END_TEST

/* ---- disk full ---- */

START_TEST(full_disk_is_enospc)
{
	_cleanup_free_ char *balloon = NULL;
	struct digest id, first;
	int r = 0, fd;
	uint64_t i;

	close_cache();
	if (mount("none", dir, "tmpfs", 0, "size=32m") < 0) {
		open_cache();
		return; /* Not root; file_size_limit_is_enospc is for that. */
	}
	open_cache();
	ck_assert_int_eq(add(0, BIG, 0, &first), 0);
	for (i = 1; r == 0 && i < 1000; i++)
		r = add(i, 1 << 20, 0, &id);
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_int_eq(locate(&id), 0);
	/* A row still has room. */
	ck_assert_int_eq(cache_unmark(c, &first, 1), 0);
	ck_assert_int_eq(add(i, 100, CACHE_ON_SERVER, &id), 0);
	ck_assert_int_gt(asprintf(&balloon, "%s/balloon", dir), 0);
	fd = open(balloon, O_RDWR | O_CREAT, 0600);
	for (off_t at = 0; posix_fallocate(fd, at, 4096) == 0;)
		at += 4096;
	close(fd);
	ck_assert_int_eq(add(i, BIG, 0, &id), -ENOSPC);
	expect_chunk(&first, 0, BIG);
	close_cache();
	ck_assert_int_eq(umount(dir), 0);
	open_cache();
}
END_TEST

START_TEST(file_size_limit_is_enospc)
{
	struct rlimit limit = { 2 << 20, RLIM_INFINITY };
	struct digest id;
	int r = 0;

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(add(0, BIG, 0, &id), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (uint64_t i = 1; r == 0 && i < 10; i++)
		r = add(i, 1 << 20, 0, &id);
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_int_eq(locate(&id), 0);
	limit.rlim_cur = RLIM_INFINITY;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(add(11, BIG, 0, &id), 0);
	expect_chunk(&id, 11, BIG);
}
END_TEST

/* ---- fetching ---- */

#define SOURCE_CHUNKS 40
#define SOURCE_BYTES 9000

/* A server that has SOURCE_CHUNKS chunks. */
struct source {
	struct digest ids[SOURCE_CHUNKS];
	atomic_int calls;
	atomic_int fetched[SOURCE_CHUNKS];
	int delay_ms;
	bool wait_for_cancel;
	bool obey_deadline;
	bool spoil;
	bool forget; /* says that all is well, and brings nothing */
	int fail_after; /* -EIO after so many; -1 never */
	atomic_int first_done; /* the first call has ended */
};

static void source_init(struct source *s)
{
	uint8_t bytes[SOURCE_BYTES];

	memset(s, 0, sizeof *s);
	s->fail_after = -1;
	for (int i = 0; i < SOURCE_CHUNKS; i++)
		make_chunk(1000 + (uint64_t)i, bytes, SOURCE_BYTES, &s->ids[i]);
}

static int number_of(struct source *s, const struct digest *id)
{
	for (int i = 0; i < SOURCE_CHUNKS; i++)
		if (digest_eq(&s->ids[i], id))
			return i;
	return -1;
}

static int bring(struct source *s, const struct digest *id,
	int (*deliver)(void *, const struct digest *, const void *, size_t), void *ctx)
{
	uint8_t bytes[SOURCE_BYTES];
	struct digest same;
	int i = number_of(s, id);

	if (i < 0)
		return -ENOENT;
	make_chunk(1000 + (uint64_t)i, bytes, SOURCE_BYTES, &same);
	atomic_fetch_add(&s->fetched[i], 1);
	if (s->spoil)
		bytes[5] ^= 1;
	return deliver(ctx, id, bytes, SOURCE_BYTES);
}

static int linger(struct source *s, int64_t deadline, const _Atomic int *cancelled)
{
	for (int waited = 0; waited < s->delay_ms; waited++) {
		usleep(1000);
		if (cancelled && atomic_load(cancelled))
			return -EINTR;
		if (clock_mono_ms() >= deadline)
			return -ETIMEDOUT;
	}
	return 0;
}

static int source_fetch(void *ctx, const struct digest *ids, size_t n, int64_t deadline,
	const _Atomic int *cancelled,
	int (*deliver)(void *, const struct digest *, const void *, size_t), void *deliver_ctx,
	struct err *err)
{
	struct source *s = ctx;
	int r;

	atomic_fetch_add(&s->calls, 1);
	r = linger(s, deadline, cancelled);
	if (r < 0)
		return err_sys(err, -r, "source");
	for (size_t i = 0; i < n && !s->forget; i++) {
		if (s->fail_after >= 0 && (int)i >= s->fail_after)
			return err_set(err, EIO, "source: broken off");
		r = bring(s, &ids[i], deliver, deliver_ctx);
		if (r < 0)
			return err_sys(err, -r, "source");
	}
	return 0;
}

static void use(struct source *s)
{
	cache_set_source(c, (struct chunk_source){ source_fetch, s });
}

static int require(const struct digest *ids, size_t n, int timeout_ms)
{
	struct err err = { 0 };
	int r = cache_require(c, ids, n, clock_mono_ms() + timeout_ms, NULL, &err);

	ck_assert_int_eq(err.code, -r);
	ck_assert_int_eq(err.text[0] != 0, r != 0);
	return r;
}

START_TEST(missing_chunks_are_fetched_in_one_go)
{
	struct source s;
	struct digest ids[6];

	source_init(&s);
	ck_assert_int_eq(require(s.ids, 1, 1000), -ENOTCONN);
	use(&s);
	ck_assert_int_eq(add(1, BIG, 0, &ids[0]), 0);
	ids[1] = ids[2] = s.ids[3];
	ids[3] = s.ids[0];
	ids[4] = ids[0];
	ids[5] = s.ids[39];
	ck_assert_int_eq(require(ids, 6, 1000), 0);
	ck_assert_int_eq(atomic_load(&s.calls), 1);
	ck_assert_int_eq(atomic_load(&s.fetched[3]), 1);
	expect_chunk(&ids[1], 1003, SOURCE_BYTES);
	expect_chunk(&ids[5], 1039, SOURCE_BYTES);
	ck_assert_uint_eq(flags_of(&ids[3]), CACHE_ON_SERVER);
	ck_assert_uint_eq(flags_of(&ids[0]), 0);
	ck_assert_int_eq(require(ids, 6, 1000), 0);
	ck_assert_int_eq(require(ids, 0, 1000), 0);
	ck_assert_int_eq(atomic_load(&s.calls), 1);
}
END_TEST

START_TEST(fetch_errors_are_handed_up)
{
	struct source s;
	struct digest absent;

	source_init(&s);
	use(&s);
	memset(&absent, 3, sizeof absent);
	ck_assert_int_eq(require(&absent, 1, 1000), -ENOENT);
	s.spoil = true;
	ck_assert_int_eq(require(s.ids, 2, 1000), -EBADMSG);
	ck_assert_int_eq(locate(&s.ids[0]), 0);
	s.spoil = false;
	s.forget = true;
	ck_assert_int_eq(require(s.ids, 2, 1000), -EIO);
	s.forget = false;
	s.fail_after = 3;
	ck_assert_int_eq(require(s.ids, 10, 1000), -EIO);
	/* What came is kept. */
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(locate(&s.ids[i]), i < 3);
	s.fail_after = -1;
	ck_assert_int_eq(require(s.ids, SOURCE_CHUNKS, 1000), 0);
	ck_assert_int_eq(atomic_load(&s.fetched[0]), 2);
	ck_assert_int_eq(atomic_load(&s.fetched[39]), 1);
}
END_TEST

START_TEST(dropped_chunk_is_fetched_anew)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct source s;
	char path[160];

	source_init(&s);
	use(&s);
	ck_assert_int_eq(require(s.ids, 2, 1000), 0);
	flip_bit(path, segment_of(&s.ids[1], path, sizeof path) + 100);
	ck_assert_int_eq(cache_read_chunk(c, &s.ids[1], &b), -EBADMSG);
	ck_assert_int_eq(require(s.ids, 2, 1000), 0);
	expect_chunk(&s.ids[1], 1001, SOURCE_BYTES);
	ck_assert_int_eq(atomic_load(&s.fetched[0]), 1);
}
END_TEST

struct reader {
	struct source *source;
	size_t first, n;
	int timeout_ms;
	_Atomic int cancelled;
	int result;
	int64_t took_ms;
	pthread_t thread;
};

static void *read_in_thread(void *arg)
{
	struct reader *r = arg;
	int64_t began = clock_mono_ms();
	struct err err;

	r->result = cache_require(
		c, r->source->ids + r->first, r->n, began + r->timeout_ms, &r->cancelled, &err);
	r->took_ms = clock_mono_ms() - began;
	return NULL;
}

static void start(struct reader *r, struct source *s, size_t first, size_t n, int timeout_ms)
{
	*r = (struct reader){ .source = s, .first = first, .n = n, .timeout_ms = timeout_ms };
	ck_assert_int_eq(pthread_create(&r->thread, NULL, read_in_thread, r), 0);
}

static void wait_for_calls(struct source *s, int n)
{
	for (int i = 0; i < 5000 && atomic_load(&s->calls) < n; i++)
		usleep(1000);
	ck_assert_int_ge(atomic_load(&s->calls), n);
}

START_TEST(readers_share_a_fetch)
{
	struct reader readers[8];
	struct source s;

	source_init(&s);
	use(&s);
	s.delay_ms = 100;
	for (size_t i = 0; i < 8; i++)
		start(&readers[i], &s, 2 * i, 20, 10000);
	for (size_t i = 0; i < 8; i++) {
		pthread_join(readers[i].thread, NULL);
		ck_assert_int_eq(readers[i].result, 0);
	}
	for (size_t i = 0; i < 34; i++) {
		ck_assert_int_eq(atomic_load(&s.fetched[i]), 1);
		expect_chunk(&s.ids[i], 1000 + i, SOURCE_BYTES);
	}
	ck_assert_int_le(atomic_load(&s.calls), 8);
	ck_assert_int_eq(atomic_load(&s.fetched[34]), 0);
}
END_TEST

START_TEST(waiters_hear_of_a_failure)
{
	struct reader leader, waiter;
	struct source s;

	source_init(&s);
	use(&s);
	s.delay_ms = 150;
	s.fail_after = 1;
	start(&leader, &s, 0, 2, 10000);
	wait_for_calls(&s, 1);
	start(&waiter, &s, 1, 1, 10000);
	pthread_join(leader.thread, NULL);
	pthread_join(waiter.thread, NULL);
	ck_assert_int_eq(leader.result, -EIO);
	ck_assert_int_eq(waiter.result, -EIO);
	ck_assert_int_eq(atomic_load(&s.calls), 1);
	ck_assert_int_eq(locate(&s.ids[0]), 1);
}
END_TEST

START_TEST(waiter_takes_over_from_a_leader_who_gives_up)
{
	struct reader leader, waiter;
	struct source s;

	source_init(&s);
	use(&s);
	s.delay_ms = 200;
	start(&leader, &s, 0, 1, _i == 0 ? 10000 : 60);
	wait_for_calls(&s, 1);
	start(&waiter, &s, 0, 1, 10000);
	usleep(20000);
	if (_i == 0)
		atomic_store(&leader.cancelled, 1);
	pthread_join(leader.thread, NULL);
	pthread_join(waiter.thread, NULL);
	ck_assert_int_eq(leader.result, _i == 0 ? -EINTR : -ETIMEDOUT);
	ck_assert_int_lt(leader.took_ms, 190);
	ck_assert_int_eq(waiter.result, 0);
	ck_assert_int_eq(atomic_load(&s.calls), 2);
	expect_chunk(&s.ids[0], 1000, SOURCE_BYTES);
}
END_TEST

START_TEST(waiter_has_patience_of_its_own)
{
	struct reader leader, waiter;
	struct source s;

	source_init(&s);
	use(&s);
	s.delay_ms = 400;
	start(&leader, &s, 0, 1, 10000);
	wait_for_calls(&s, 1);
	start(&waiter, &s, 0, 1, _i == 0 ? 10000 : 60);
	usleep(20000);
	if (_i == 0)
		atomic_store(&waiter.cancelled, 1);
	pthread_join(waiter.thread, NULL);
	ck_assert_int_eq(waiter.result, _i == 0 ? -EINTR : -ETIMEDOUT);
	ck_assert_int_lt(waiter.took_ms, 300);
	pthread_join(leader.thread, NULL);
	ck_assert_int_eq(leader.result, 0);
	ck_assert_int_eq(atomic_load(&s.calls), 1);
}
END_TEST

START_TEST(no_patience_no_fetch)
{
	_Atomic int cancelled = 1;
	struct source s;

	source_init(&s);
	use(&s);
	ck_assert_int_eq(require(s.ids, 1, -1), -ETIMEDOUT);
	ck_assert_int_eq(
		cache_require(c, s.ids, 1, clock_mono_ms() + 1000, &cancelled, NULL), -EINTR);
	ck_assert_int_eq(atomic_load(&s.calls), 0);
	ck_assert_int_eq(require(s.ids, 1, 1000), 0);
	/* What is here needs none. */
	ck_assert_int_eq(require(s.ids, 1, -1), 0);
}
END_TEST

/* ---- threads ---- */

static void *add_and_read(void *arg)
{
	uint64_t base = *(uint64_t *)arg;
	struct digest id;

	for (uint64_t i = 0; i < 60; i++) {
		/* Half of them are everybody's. */
		uint64_t seed = i % 2 ? i : base * 1000 + i;

		ck_assert_int_eq(add(seed, i % 3 ? 30000 : 500, 0, &id), 0);
		expect_chunk(&id, seed, i % 3 ? 30000 : 500);
		if (i % 20 == 0)
			ck_assert_int_eq(cache_sync_all(c), 0);
	}
	return NULL;
}

START_TEST(threads_share_a_cache)
{
	pthread_t threads[4];
	uint64_t bases[4];
	struct digest id;

	for (uint64_t i = 0; i < 4; i++) {
		bases[i] = i + 1;
		pthread_create(&threads[i], NULL, add_and_read, &bases[i]);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	close_cache();
	open_cache();
	for (uint64_t base = 1; base <= 4; base++)
		for (uint64_t i = 0; i < 60; i += 2) {
			_cleanup_free_ uint8_t *p = malloc(30000);

			make_chunk(base * 1000 + i, p, i % 3 ? 30000 : 500, &id);
			expect_chunk(&id, base * 1000 + i, i % 3 ? 30000 : 500);
		}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cache");
	TCase *t = tcase_create("cache");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, chunks_are_found_again);
	tcase_add_test(t, location_is_readable_while_held);
	tcase_add_test(t, same_chunk_is_stored_once);
	tcase_add_test(t, marks_come_and_go);
	tcase_add_test(t, file_becomes_a_segment);
	tcase_add_loop_test(t, flipped_bit_is_found, 0, 2);
	tcase_add_loop_test(t, missing_segment_is_absence_only_where_it_may_be, 0, 2);
	tcase_add_test(t, bad_rows_are_no_rows);
	tcase_add_loop_test(t, power_loss_is_checked_for, 0, 2);
	tcase_add_test(t, many_segments_few_descriptors);
	tcase_add_test(t, ids_are_not_used_again);
	tcase_add_test(t, full_disk_is_enospc);
	tcase_add_test(t, file_size_limit_is_enospc);
	tcase_add_test(t, missing_chunks_are_fetched_in_one_go);
	tcase_add_test(t, fetch_errors_are_handed_up);
	tcase_add_test(t, dropped_chunk_is_fetched_anew);
	tcase_add_test(t, readers_share_a_fetch);
	tcase_add_test(t, waiters_hear_of_a_failure);
	tcase_add_loop_test(t, waiter_takes_over_from_a_leader_who_gives_up, 0, 2);
	tcase_add_loop_test(t, waiter_has_patience_of_its_own, 0, 2);
	tcase_add_test(t, no_patience_no_fetch);
	tcase_add_test(t, threads_share_a_cache);
	suite_add_tcase(s, t);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
