// SPDX-License-Identifier: Apache-2.0
#include "buf.h"
#include "bytes.h"
#include "io.h"
#include "workers.h"

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>

START_TEST(hex_round_trip)
{
	uint8_t bytes[3] = { 0x00, 0xff, 0x5a }, back[3];
	char text[7];

	hex_encode(bytes, sizeof bytes, text);
	ck_assert_str_eq(text, "00ff5a");
	ck_assert(hex_decode(text, 6, back, 3));
	ck_assert_mem_eq(bytes, back, 3);
	ck_assert(!hex_decode("00ff5", 5, back, 3));
	ck_assert(!hex_decode("00ff5g", 6, back, 3));
}
END_TEST

START_TEST(utf8_is_checked)
{
	ck_assert(utf8_valid("gr\xc3\xbc\xc3\x9f", 6));
	ck_assert(utf8_valid("\xf0\x9f\x98\x80", 4));
	ck_assert(!utf8_valid("\xc0\x80", 2));
	ck_assert(!utf8_valid("\xed\xa0\x80", 3));
	ck_assert(!utf8_valid("\xf4\x90\x80\x80", 4));
	ck_assert(!utf8_valid("\xc3", 1));
	ck_assert(!utf8_valid("\x80", 1));
}
END_TEST

START_TEST(sums_do_not_wrap)
{
	uint64_t sum = 7;

	ck_assert(add_fits(1, 2, &sum));
	ck_assert_uint_eq(sum, 3);
	ck_assert(!add_fits(UINT64_MAX, 1, &sum));
	ck_assert(!mul_fits(UINT64_MAX, 2, &sum));
	ck_assert_uint_eq(sum, 3);
}
END_TEST

START_TEST(buffer_grows)
{
	_cleanup_buf_ struct buf b = { 0 };

	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(buf_printf(&b, "%03d", i), 0);
	ck_assert_uint_eq(b.len, 3000);
	ck_assert_int_eq(memcmp(b.data + 2997, "999", 3), 0);
	ck_assert_int_eq(buf_reserve(&b, SIZE_MAX), -ENOMEM);
	ck_assert_uint_eq(strlen(buf_str(&b)), 3000);
}
END_TEST

START_TEST(files_appear_whole)
{
	char dir[] = "/tmp/varve-test-XXXXXX", path[64];
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/a/b", dir);
	ck_assert_int_eq(io_mkdirs(path, 0700), 0);
	snprintf(path, sizeof path, "%s/a/b/f", dir);
	ck_assert_int_eq(io_write_file_atomic(path, "hello", 5, 0600), 0);
	ck_assert_int_eq(io_read_file(path, 5, &b), 0);
	ck_assert_uint_eq(b.len, 5);
	ck_assert_int_eq(io_read_file(path, 4, &b), -EFBIG);
	ck_assert_int_eq(io_remove_tree(dir), 0);
	ck_assert_int_eq(access(dir, F_OK), -1);
	ck_assert_int_eq(io_remove_tree(dir), 0);
}
END_TEST

START_TEST(zeros_are_seen)
{
	uint8_t b[100] = { 0 };

	ck_assert(io_is_zero(b, sizeof b));
	ck_assert(io_is_zero(b, 0));
	b[99] = 1;
	ck_assert(!io_is_zero(b, sizeof b));
	ck_assert(io_is_zero(b, 99));
}
END_TEST

static void count(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

START_TEST(workers_run_everything)
{
	struct workers *w;
	atomic_int n = 0;

	ck_assert_int_eq(workers_new(3, "test", &w), 0);
	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(workers_submit(w, count, &n), 0);
	workers_drain(w);
	ck_assert_int_eq(n, 1000);
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(workers_submit(w, count, &n), 0);
	workers_free(w);
	ck_assert_int_eq(n, 1100);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("base");
	TCase *tc = tcase_create("base");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, hex_round_trip);
	tcase_add_test(tc, utf8_is_checked);
	tcase_add_test(tc, sums_do_not_wrap);
	tcase_add_test(tc, buffer_grows);
	tcase_add_test(tc, files_appear_whole);
	tcase_add_test(tc, zeros_are_seen);
	tcase_add_test(tc, workers_run_everything);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
