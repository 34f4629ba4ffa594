// SPDX-License-Identifier: Apache-2.0
#include "server/blob.h"

#include "bytes.h"
#include "io.h"
#include "workers.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <utime.h>

static char dir[32];
static struct blob *blob;

static void open_store(void)
{
	struct err err = { 0 };
	char url[64];

	snprintf(url, sizeof url, "dir:%s", dir);
	ck_assert_msg(blob_open(url, &blob, &err) == 0, "%s", err.text);
}

static void setup(void)
{
	strcpy(dir, "/tmp/varve-blob-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	open_store();
}

static void teardown(void)
{
	blob_free(blob);
	ck_assert_int_eq(io_remove_tree(dir), 0);
}

START_TEST(bytes_come_back)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct err err;

	ck_assert_int_eq(blob_put(blob, "a/b-c", "hello world", 11, &err), 0);
	ck_assert_int_eq(blob_get(blob, "a/b-c", 6, 5, &b, &err), 0);
	ck_assert_int_eq(blob_get(blob, "a/b-c", 0, 1, &b, &err), 0);
	ck_assert_uint_eq(b.len, 6);
	ck_assert_mem_eq(b.data, "worldh", 6);
	ck_assert_int_eq(blob_put(blob, "empty", NULL, 0, &err), 0);
	ck_assert_int_eq(blob_get(blob, "empty", 0, 0, &b, &err), 0);
	blob_free(blob);
	open_store();
	ck_assert_int_eq(blob_get(blob, "a/b-c", 0, 11, &b, &err), 0);
}
END_TEST

START_TEST(what_is_absent_or_short_is_told)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct err err = { 0 };

	ck_assert_int_eq(blob_get(blob, "none", 0, 1, &b, &err), -ENOENT);
	ck_assert_int_eq(blob_put(blob, "x", "12345", 5, &err), 0);
	ck_assert_int_eq(blob_get(blob, "x", 0, 6, &b, &err), -EIO);
	ck_assert_int_eq(blob_get(blob, "x", 5, 1, &b, &err), -EIO);
	ck_assert_int_eq(blob_get(blob, "x", UINT64_MAX, 5, &b, &err), -EIO);
	ck_assert_uint_eq(b.len, 0);
	ck_assert_int_eq(blob_delete(blob, "x", &err), 0);
	ck_assert_int_eq(blob_delete(blob, "x", &err), 0);
	ck_assert_int_eq(blob_get(blob, "x", 0, 1, &b, &err), -ENOENT);
}
END_TEST

START_TEST(an_object_is_never_overwritten)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct err err;

	ck_assert_int_eq(blob_put(blob, "x", "old", 3, &err), 0);
	ck_assert_int_eq(blob_put(blob, "x", "new!", 4, &err), 0);
	ck_assert_int_eq(blob_get(blob, "x", 0, 3, &b, &err), 0);
	ck_assert_mem_eq(b.data, "old", 3);
}
END_TEST

START_TEST(keys_cannot_lead_out)
{
	static const char *const bad[] = { "", "/etc", "a/../b", "A", "a_b", "a//b", "a/", "a b",
		"..", "\xc3\xbc" };
	char longest[130];
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_int_eq(blob_put(blob, bad[i], "x", 1, &err), -EINVAL);
	memset(longest, 'k', sizeof longest - 1);
	longest[129] = '\0';
	ck_assert_int_eq(blob_put(blob, longest, "x", 1, &err), -EINVAL);
	longest[128] = '\0';
	ck_assert_int_eq(blob_put(blob, longest, "x", 1, &err), 0);
	ck_assert_int_eq(blob_open("ftp:x", &blob, &err), -EINVAL);
	ck_assert_int_eq(blob_open("dir", &blob, &err), -EINVAL);
	ck_assert_int_lt(blob_open("dir:/proc/none", &blob, &err), 0);
}
END_TEST

struct seen {
	int n;
	uint64_t bytes;
	int stop_at;
};

static int count(void *ctx, const char *key, uint64_t size)
{
	struct seen *s = ctx;

	s->bytes += size;
	return ++s->n == s->stop_at ? 7 : 0;
}

START_TEST(objects_are_listed_by_prefix)
{
	struct seen all = { 0 }, some = { 0 }, stopped = { .stop_at = 2 };
	struct err err;
	char key[32];

	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof key, "%s/%d", i % 2 ? "odd" : "even", i);
		ck_assert_int_eq(blob_put(blob, key, key, (size_t)i, &err), 0);
	}
	ck_assert_int_eq(blob_list(blob, "", count, &all, &err), 0);
	ck_assert_int_eq(all.n, 20);
	ck_assert_uint_eq(all.bytes, 190);
	ck_assert_int_eq(blob_list(blob, "odd/", count, &some, &err), 0);
	ck_assert_int_eq(some.n, 10);
	ck_assert_int_eq(blob_list(blob, "", count, &stopped, &err), 7);
	ck_assert_int_eq(stopped.n, 2);
}
END_TEST

START_TEST(what_a_crash_left_goes)
{
	struct utimbuf old = { 1, 1 };
	char fresh[80], stale[80];
	struct seen all = { 0 };
	struct err err;

	snprintf(fresh, sizeof fresh, "%s/objects/00/.new-1-1", dir);
	snprintf(stale, sizeof stale, "%s/objects/00/.new-1-2", dir);
	ck_assert_int_eq(io_write_file_atomic(fresh, "x", 1, 0600), 0);
	ck_assert_int_eq(io_write_file_atomic(stale, "x", 1, 0600), 0);
	ck_assert_int_eq(utime(stale, &old), 0);
	blob_free(blob);
	open_store();
	ck_assert_int_eq(access(fresh, F_OK), 0); /* may still be another process's */
	ck_assert_int_eq(access(stale, F_OK), -1);
	ck_assert_int_eq(blob_list(blob, "", count, &all, &err), 0);
	ck_assert_int_eq(all.n, 0);
}
END_TEST

static atomic_int failures;

static void put_same(void *arg)
{
	char bytes[1000];
	char key[16];

	memset(bytes, 'b', sizeof bytes);
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof key, "k%d", i);
		if (blob_put(blob, key, bytes, sizeof bytes, NULL) < 0)
			failures++;
	}
}

START_TEST(many_threads_put_the_same)
{
	struct workers *w;
	struct seen all = { 0 };
	struct err err;

	ck_assert_int_eq(workers_new(4, "put", &w), 0);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(workers_submit(w, put_same, NULL), 0);
	workers_free(w);
	ck_assert_int_eq(failures, 0);
	ck_assert_int_eq(blob_list(blob, "k", count, &all, &err), 0);
	ck_assert_int_eq(all.n, 20);
	ck_assert_uint_eq(all.bytes, 20000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blob");
	TCase *t = tcase_create("dir");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, bytes_come_back);
	tcase_add_test(t, what_is_absent_or_short_is_told);
	tcase_add_test(t, an_object_is_never_overwritten);
	tcase_add_test(t, keys_cannot_lead_out);
	tcase_add_test(t, objects_are_listed_by_prefix);
	tcase_add_test(t, what_a_crash_left_goes);
	tcase_add_test(t, many_threads_put_the_same);
	suite_add_tcase(s, t);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
