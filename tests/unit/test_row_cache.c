// SPDX-License-Identifier: Apache-2.0
/* The cache of rows: what it says is what the store says, or that it does not know. */
#include "bytes.h"
#include "meta/row_cache.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

static struct row_cache *c;
static uint64_t ticket;

static void setup(void)
{
	ck_assert_int_eq(row_cache_new(&c), 0);
}

static void teardown(void)
{
	row_cache_free(c);
}

static struct slice text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

/* want: a value, "" for known to be absent, NULL for not known. */
static void expect(enum store_cf cf, const char *key, const char *want)
{
	_cleanup_buf_ struct buf got = { 0 };
	int r = row_cache_get(c, cf, key, strlen(key), &ticket, &got);

	ck_assert_int_eq(r, !want ? -ENOENT : *want ? 1 : 0);
	if (r > 0)
		ck_assert_str_eq(buf_str(&got), want);
}

START_TEST(what_was_read_is_known)
{
	expect(CF_NODE, "k", NULL);
	row_cache_fill(c, CF_NODE, "k", 1, ticket, text("v"));
	expect(CF_NODE, "k", "v");
	expect(CF_LINK, "k", NULL);
	row_cache_fill(c, CF_LINK, "k", 1, ticket, (struct slice){ 0 });
	expect(CF_LINK, "k", "");
	ck_assert_int_eq(row_cache_get(c, CF_NODE, "k", 1, &ticket, NULL), 1);
}
END_TEST

START_TEST(what_was_read_before_a_commit_is_not_filled_in_after_it)
{
	expect(CF_NODE, "k", NULL);
	row_cache_note(c, CF_NODE, "k", 1, text("new"), false);
	row_cache_fill(c, CF_NODE, "k", 1, ticket, text("old"));
	expect(CF_NODE, "k", NULL);
	row_cache_drop(c, CF_NODE, "k", 1);
	row_cache_fill(c, CF_NODE, "k", 1, ticket, text("old"));
	expect(CF_NODE, "k", NULL);
	row_cache_fill(c, CF_NODE, "k", 1, ticket, text("new"));
	expect(CF_NODE, "k", "new");
}
END_TEST

START_TEST(batches_tell)
{
	_cleanup_(batch_rows_done) struct batch_rows b = { 0 };

	batch_rows_add(&b, CF_NODE, "a", 1, "1", 1);
	batch_rows_add(&b, CF_OUTBOX, "o", 1, "1", 1);
	batch_rows_mark(&b);
	batch_rows_add(&b, CF_NODE, "b", 1, "1", 1);
	batch_rows_rewind(&b);
	batch_rows_add(&b, CF_LINK, "a", 1, NULL, 0);
	expect(CF_NODE, "a", NULL);
	batch_rows_tell(&b, c, true);
	expect(CF_NODE, "a", "1");
	expect(CF_NODE, "b", NULL);
	expect(CF_OUTBOX, "o", NULL);
	expect(CF_LINK, "a", "");
	batch_rows_add(&b, CF_NODE, "a", 1, "2", 1);
	batch_rows_add(&b, CF_NODE, "a", 1, "3", 1);
	batch_rows_tell(&b, c, true);
	expect(CF_NODE, "a", "3");
	batch_rows_add(&b, CF_NODE, "a", 1, "4", 1);
	batch_rows_tell(&b, c, false);
	expect(CF_NODE, "a", NULL);
}
END_TEST

START_TEST(large_rows_are_not_kept)
{
	_cleanup_(batch_rows_done) struct batch_rows b = { 0 };
	static char large[4096];

	batch_rows_add(&b, CF_NODE, "a", 1, "1", 1);
	batch_rows_tell(&b, c, true);
	batch_rows_add(&b, CF_NODE, "a", 1, large, sizeof large);
	batch_rows_tell(&b, c, true);
	expect(CF_NODE, "a", NULL);
	row_cache_fill(
		c, CF_NODE, "a", 1, ticket, (struct slice){ (const uint8_t *)large, sizeof large });
	expect(CF_NODE, "a", NULL);
}
END_TEST

/* Of many more rows than there are places, those that are known are right. */
START_TEST(old_rows_make_room)
{
	uint8_t key[8], value[8];
	unsigned known = 0;

	for (uint64_t i = 0; i < 100000; i++) {
		put_be64(key, i);
		put_be64(value, i * 3);
		row_cache_note(c, CF_NODE, key, 8, (struct slice){ value, 8 }, true);
	}
	for (uint64_t i = 0; i < 100000; i++) {
		_cleanup_buf_ struct buf got = { 0 };

		put_be64(key, i);
		if (row_cache_get(c, CF_NODE, key, 8, &ticket, &got) < 0)
			continue;
		known++;
		ck_assert_uint_eq(get_be64(got.data), i * 3);
	}
	ck_assert_uint_gt(known, 8000);
	ck_assert_uint_lt(known, 20000);
	row_cache_clear(c);
	put_be64(key, 99999);
	ck_assert_int_eq(row_cache_get(c, CF_NODE, key, 8, &ticket, NULL), -ENOENT);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("row_cache");
	TCase *tc = tcase_create("row_cache");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_was_read_is_known);
	tcase_add_test(tc, what_was_read_before_a_commit_is_not_filled_in_after_it);
	tcase_add_test(tc, batches_tell);
	tcase_add_test(tc, large_rows_are_not_kept);
	tcase_add_test(tc, old_rows_make_room);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
