// SPDX-License-Identifier: Apache-2.0
#include "bytes.h"
#include "io.h"
#include "meta/group_sync.h"
#include "meta/store.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];
static char db[80];

static void make_dir(void)
{
	strcpy(dir, "/tmp/varve-store-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(db, sizeof db, "%s/db", dir);
}

static void remove_dir(void)
{
	ck_assert_int_eq(io_remove_tree(dir), 0);
}

static struct store *open_store(void)
{
	struct store *st = NULL;
	struct err err = { 0 };

	ck_assert_msg(store_open(db, &st, &err) == 0, "%s", err.text);
	return st;
}

static int put_one(struct store *st, enum store_cf cf, const char *key, const char *value)
{
	_cleanup_batch_ struct batch *b = NULL;

	ck_assert_int_eq(batch_new(st, &b), 0);
	batch_put(b, cf, key, strlen(key), value, strlen(value));
	return store_commit(st, b);
}

static void expect(struct store *st, enum store_cf cf, const char *key, const char *value)
{
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(store_get(st, cf, key, strlen(key), &b), value ? 1 : 0);
	if (value)
		ck_assert_str_eq(buf_str(&b), value);
}

START_TEST(batch_is_all_or_nothing)
{
	struct store *st = open_store();
	_cleanup_batch_ struct batch *b = NULL;

	ck_assert_int_eq(batch_new(st, &b), 0);
	ck_assert_int_eq(store_commit(st, b), 0);
	batch_put(b, CF_NODE, "a", 1, "1", 1);
	batch_put(b, CF_LINK, "a", 1, "2", 1);
	batch_put(b, CF_STATE, "gone", 4, "3", 1);
	batch_del(b, CF_STATE, "gone", 4);
	ck_assert_uint_eq(batch_count(b), 4);
	expect(st, CF_NODE, "a", NULL);
	ck_assert_int_eq(store_commit(st, b), 0);
	ck_assert_uint_eq(batch_count(b), 0);
	expect(st, CF_NODE, "a", "1");
	expect(st, CF_LINK, "a", "2");
	expect(st, CF_STATE, "gone", NULL);
	ck_assert_int_eq(store_get(st, CF_NODE, "a", 1, NULL), 1);
	batch_free(steal(b));
	store_free(st);
}
END_TEST

START_TEST(get_appends)
{
	struct store *st = open_store();
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(put_one(st, CF_XATTR, "k", "world"), 0);
	ck_assert_int_eq(buf_append(&b, "hello ", 6), 0);
	ck_assert_int_eq(store_get(st, CF_XATTR, "none", 4, &b), 0);
	ck_assert_int_eq(store_get(st, CF_XATTR, "k", 1, &b), 1);
	ck_assert_str_eq(buf_str(&b), "hello world");
	store_free(st);
}
END_TEST

START_TEST(survives_reopening)
{
	struct store *st = open_store();

	for (int cf = 0; cf < CF_COUNT; cf++) {
		char value[8];

		snprintf(value, sizeof value, "v%d", cf);
		ck_assert_int_eq(put_one(st, cf, "key", value), 0);
	}
	ck_assert_int_eq(store_sync(st), 0);
	store_free(st);
	st = open_store();
	for (int cf = 0; cf < CF_COUNT; cf++) {
		char value[8];

		snprintf(value, sizeof value, "v%d", cf);
		expect(st, cf, "key", value);
		/* An estimate: a new store's own entry counts until a compaction. */
		ck_assert_uint_ge(store_estimate(st, cf), 1);
		ck_assert_uint_le(store_estimate(st, cf), 2);
	}
	store_free(st);
}
END_TEST

static size_t count(struct store *st, enum store_cf cf, const void *prefix, size_t plen)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	size_t n = 0;
	int r;

	ck_assert_int_eq(store_iter_new(st, cf, prefix, plen, &it), 0);
	while ((r = store_iter_valid(it)) > 0) {
		struct slice key = store_iter_key(it);

		ck_assert_uint_ge(key.n, plen);
		ck_assert_int_eq(memcmp(key.p, prefix, plen), 0);
		n++;
		store_iter_next(it);
	}
	ck_assert_int_eq(r, 0);
	return n;
}

START_TEST(walk_stays_in_prefix)
{
	struct store *st = open_store();
	_cleanup_batch_ struct batch *b = NULL;

	ck_assert_int_eq(batch_new(st, &b), 0);
	for (int i = 0; i < 256; i++) {
		uint8_t key[2] = { (uint8_t)i, 0 };

		batch_put(b, CF_LINK, key, 1, "x", 1);
		batch_put(b, CF_LINK, key, 2, "x", 1);
		key[1] = 0xff;
		batch_put(b, CF_LINK, key, 2, "x", 1);
	}
	ck_assert_int_eq(store_commit(st, b), 0);
	ck_assert_uint_eq(count(st, CF_LINK, "", 0), 768);
	ck_assert_uint_eq(count(st, CF_LINK, "\x10", 1), 3);
	ck_assert_uint_eq(count(st, CF_LINK, "\xff", 1), 3);
	ck_assert_uint_eq(count(st, CF_LINK, "\xff\xff", 2), 1);
	ck_assert_uint_eq(count(st, CF_LINK, "\x01\xff", 2), 1);
	ck_assert_uint_eq(count(st, CF_LINK, "\x01\x01", 2), 0);
	ck_assert_uint_eq(count(st, CF_NODE, "", 0), 0);
	batch_free(steal(b));
	store_free(st);
}
END_TEST

START_TEST(walk_sees_a_snapshot_and_seeks)
{
	struct store *st = open_store();
	struct store_iter *it;

	ck_assert_int_eq(put_one(st, CF_LINK, "d/a", "1"), 0);
	ck_assert_int_eq(put_one(st, CF_LINK, "d/c", "3"), 0);
	ck_assert_int_eq(put_one(st, CF_LINK, "e/a", "4"), 0);
	ck_assert_int_eq(store_iter_new(st, CF_LINK, "d/", 2, &it), 0);
	ck_assert_int_eq(put_one(st, CF_LINK, "d/b", "2"), 0);
	ck_assert_int_eq(store_iter_valid(it), 1);
	ck_assert_int_eq(store_iter_key(it).p[2], 'a');
	store_iter_next(it);
	ck_assert_int_eq(store_iter_key(it).p[2], 'c');
	ck_assert_int_eq(store_iter_value(it).p[0], '3');
	store_iter_next(it);
	ck_assert_int_eq(store_iter_valid(it), 0);
	store_iter_seek(it, "d/b", 3);
	ck_assert_int_eq(store_iter_valid(it), 1);
	ck_assert_int_eq(store_iter_key(it).p[2], 'c');
	store_iter_free(it);
	store_free(st);
}
END_TEST

START_TEST(second_opener_is_refused)
{
	struct store *st = open_store(), *other = NULL;
	struct err err = { 0 };
	int status;
	pid_t pid;

	ck_assert_int_eq(store_open(db, &other, &err), -EBUSY);
	ck_assert_ptr_null(other);
	ck_assert_ptr_nonnull(strstr(err.text, "in use"));
	pid = fork();
	if (pid == 0) {
		/* The lock of another process, as a second daemon meets it. */
		execl("/proc/self/exe", "test_store", "--open", db, NULL);
		_exit(1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), EBUSY);
	store_free(st);
}
END_TEST

START_TEST(bad_places_are_errors)
{
	struct store *st = NULL;
	struct err err = { 0 };

	ck_assert_int_eq(io_write_file_atomic(db, "x", 1, 0600), 0);
	ck_assert_int_lt(store_open(db, &st, &err), 0);
	ck_assert_ptr_null(st);
	ck_assert_int_ne(err.text[0], 0);
}
END_TEST

/* The newest file in the store whose name ends so. */
static void newest(const char *suffix, char *ret, size_t size)
{
	_cleanup_closedir_ DIR *d = opendir(db);
	struct dirent *e;
	char best[256] = "";

	ck_assert_ptr_nonnull(d);
	while ((e = readdir(d))) {
		size_t n = strlen(e->d_name), s = strlen(suffix);

		if (n > s && strcmp(e->d_name + n - s, suffix) == 0 && strcmp(e->d_name, best) > 0)
			snprintf(best, sizeof best, "%s", e->d_name);
	}
	ck_assert_int_ne(best[0], 0);
	ck_assert_int_lt(snprintf(ret, size, "%s/%s", db, best), (int)size);
}

/* A child writes "key N" one batch each and is killed after `n`. */
static void write_and_die(int n)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct store *st;
		struct err err;

		if (store_open(db, &st, &err) < 0)
			_exit(1);
		for (int i = 0; i < n; i++) {
			char key[16];

			snprintf(key, sizeof key, "key %d", i);
			if (put_one(st, CF_NODE, key, "value") < 0)
				_exit(1);
		}
		raise(SIGKILL);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
}

START_TEST(kill_loses_nothing)
{
	struct store *st;

	write_and_die(1000);
	st = open_store();
	ck_assert_uint_eq(count(st, CF_NODE, "", 0), 1000);
	store_free(st);
}
END_TEST

/* As power loss leaves it: the tail of the log is cut off, or is something else. */
START_TEST(torn_log_opens_with_what_is_before)
{
	struct store *st;
	struct stat before;
	char log[400];
	size_t n;
	int fd;

	write_and_die(100);
	newest(".log", log, sizeof log);
	ck_assert_int_eq(stat(log, &before), 0);
	if (_i == 0) {
		ck_assert_int_eq(truncate(log, before.st_size - 7), 0);
	} else {
		fd = open(log, O_RDWR);
		ck_assert_int_ge(fd, 0);
		ck_assert_int_eq(io_pwrite_full(fd, "garbage", 7, (uint64_t)before.st_size / 2), 0);
		close(fd);
	}
	st = open_store();
	n = count(st, CF_NODE, "", 0);
	ck_assert_uint_lt(n, 100);
	ck_assert_uint_gt(n, _i == 0 ? 98 : 30);
	for (size_t i = 0; i < n; i++) {
		char key[16];

		snprintf(key, sizeof key, "key %zu", i);
		expect(st, CF_NODE, key, "value");
	}
	ck_assert_int_eq(put_one(st, CF_NODE, "after", "x"), 0);
	store_free(st);
	st = open_store();
	expect(st, CF_NODE, "after", "x");
	store_free(st);
}
END_TEST

static void fill(struct store *st, size_t n)
{
	_cleanup_batch_ struct batch *b = NULL;
	uint8_t value[1024];

	ck_assert_int_eq(batch_new(st, &b), 0);
	for (size_t i = 0; i < n; i++) {
		uint8_t key[8];

		put_be64(key, i);
		for (size_t k = 0; k < sizeof value; k++)
			value[k] = (uint8_t)(random() >> 8);
		batch_put(b, CF_CHUNK, key, sizeof key, value, sizeof value);
		ck_assert_int_eq(store_commit(st, b), 0);
	}
}

START_TEST(flipped_bit_in_a_table_is_ebadmsg)
{
	struct store *st = open_store();
	_cleanup_buf_ struct buf b = { 0 };
	char table[400];
	uint8_t key[8], byte;
	int fd, bad = 0;

	fill(st, 2000);
	store_free(st);
	newest(".sst", table, sizeof table);
	fd = open(table, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(io_pread_full(fd, &byte, 1, 100 * 1024), 0);
	byte ^= 4;
	ck_assert_int_eq(io_pwrite_full(fd, &byte, 1, 100 * 1024), 0);
	close(fd);
	st = open_store();
	for (uint64_t i = 0; i < 2000; i++) {
		int r;

		put_be64(key, i);
		buf_clear(&b);
		r = store_get(st, CF_CHUNK, key, sizeof key, &b);
		bad += r == -EBADMSG;
		ck_assert(r == 1 || r == -EBADMSG);
	}
	ck_assert_int_gt(bad, 0);
	ck_assert_int_lt(bad, 30);
	store_free(st);
}
END_TEST

/* Takes all room that is left. */
static void inflate(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT, 0600);
	struct stat is;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &is), 0);
	for (off_t at = is.st_size; posix_fallocate(fd, at, 4096) == 0;)
		at += 4096;
}

/* A full disk refuses the batch; with room again, writing goes on by itself. */
START_TEST(full_disk_is_enospc_and_passes)
{
	_cleanup_free_ char *balloon = NULL;
	struct store *st;
	struct err err = { 0 };
	int r = 0, wrote = 0;
	char key[16];

	if (mkdir(db, 0700) < 0 || mount("none", db, "tmpfs", 0, "size=32m") < 0)
		return; /* Not root. */
	st = open_store();
	ck_assert_int_eq(put_one(st, CF_NODE, "first", "x"), 0);
	ck_assert_int_gt(asprintf(&balloon, "%s/balloon", db), 0);
	inflate(balloon);
	for (wrote = 0; r == 0 && wrote < 10000; wrote++) {
		snprintf(key, sizeof key, "key %d", wrote);
		r = put_one(st, CF_NODE, key, "value");
	}
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_int_eq(store_room(st, 0), -ENOSPC);
	expect(st, CF_NODE, "first", "x");
	expect(st, CF_NODE, key, NULL);
	ck_assert_int_eq(store_sync(st), 0);
	store_free(steal(st));
	inflate(balloon); /* closing gave back what the log had reserved */
	ck_assert_int_eq(store_open(db, &st, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.text, "free"));
	ck_assert_int_eq(unlink(balloon), 0);
	st = open_store();
	ck_assert_int_eq(put_one(st, CF_NODE, "later", "x"), 0);
	expect(st, CF_NODE, "first", "x");
	ck_assert_int_eq(store_room(st, 4096), 0);
	ck_assert_int_eq(store_room(st, 32 << 20), -ENOSPC);
	store_free(st);
	st = open_store();
	ck_assert_uint_eq(count(st, CF_NODE, "", 0), (size_t)wrote + 1);
	store_free(st);
	ck_assert_int_eq(umount(db), 0);
}
END_TEST

struct sync_probe {
	struct group_sync group;
	atomic_int written; /* what callers did before they asked */
	atomic_int seen; /* what the last sync that ended had seen when it began */
	atomic_int runs;
	int result;
};

static int probe_sync(void *ctx)
{
	struct sync_probe *p = ctx;
	int written = atomic_load(&p->written);

	usleep(2000);
	atomic_store(&p->seen, written);
	atomic_fetch_add(&p->runs, 1);
	return p->result;
}

#define SYNC_THREADS 8
#define SYNCS_A_THREAD 20

static void *sync_often(void *arg)
{
	struct sync_probe *p = arg;

	for (int i = 0; i < SYNCS_A_THREAD; i++) {
		int mine = atomic_fetch_add(&p->written, 1) + 1;

		ck_assert_int_eq(group_sync_run(&p->group, probe_sync, p), p->result);
		ck_assert_int_ge(atomic_load(&p->seen), mine);
	}
	return NULL;
}

START_TEST(syncs_are_shared)
{
	struct sync_probe p = { .result = _i ? -EIO : 0 };
	pthread_t threads[SYNC_THREADS];

	group_sync_init(&p.group);
	for (int i = 0; i < SYNC_THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, sync_often, &p), 0);
	for (int i = 0; i < SYNC_THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_lt(atomic_load(&p.runs), SYNC_THREADS * SYNCS_A_THREAD / 2);
	group_sync_done(&p.group);
}
END_TEST

static void *commit_often(void *arg)
{
	struct store *st = arg;
	static atomic_int next;

	for (int i = 0; i < 500; i++) {
		char key[16];

		snprintf(key, sizeof key, "key %d", atomic_fetch_add(&next, 1));
		ck_assert_int_eq(put_one(st, CF_NODE, key, "value"), 0);
		expect(st, CF_NODE, key, "value");
		if (i % 100 == 0)
			ck_assert_int_eq(store_sync(st), 0);
	}
	return NULL;
}

START_TEST(threads_share_a_store)
{
	struct store *st = open_store();
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, commit_often, st), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(count(st, CF_NODE, "key ", 4), 2000);
	store_free(st);
}
END_TEST

/* What second_opener_is_refused runs in a process of its own. */
static int open_and_tell(const char *path)
{
	struct store *st = NULL;
	int r = store_open(path, &st, NULL);

	store_free(st);
	return -r;
}

int main(int argc, char **argv)
{
	Suite *s;
	TCase *t;
	SRunner *runner;
	int failed;

	if (argc == 3 && strcmp(argv[1], "--open") == 0)
		return open_and_tell(argv[2]);
	s = suite_create("store");
	t = tcase_create("store");
	runner = srunner_create(s);
	tcase_add_checked_fixture(t, make_dir, remove_dir);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, batch_is_all_or_nothing);
	tcase_add_test(t, get_appends);
	tcase_add_test(t, survives_reopening);
	tcase_add_test(t, walk_stays_in_prefix);
	tcase_add_test(t, walk_sees_a_snapshot_and_seeks);
	tcase_add_test(t, second_opener_is_refused);
	tcase_add_test(t, bad_places_are_errors);
	tcase_add_test(t, kill_loses_nothing);
	tcase_add_loop_test(t, torn_log_opens_with_what_is_before, 0, 2);
	tcase_add_test(t, flipped_bit_in_a_table_is_ebadmsg);
	tcase_add_test(t, full_disk_is_enospc_and_passes);
	tcase_add_loop_test(t, syncs_are_shared, 0, 2);
	tcase_add_test(t, threads_share_a_store);
	suite_add_tcase(s, t);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
