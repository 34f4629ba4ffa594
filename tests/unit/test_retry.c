// SPDX-License-Identifier: Apache-2.0
#include "remote/digest_set.h"
#include "remote/retry.h"

#include <check.h>
#include <stdlib.h>

START_TEST(pauses_grow_to_the_longest)
{
	struct retry r = { .min_ms = 100, .max_ms = 1000 };

	ck_assert_uint_eq(retry_pause_ms(&r, 0), 100);
	ck_assert_uint_eq(retry_pause_ms(&r, 0), 200);
	ck_assert_uint_eq(retry_pause_ms(&r, 0), 400);
	ck_assert_uint_eq(retry_pause_ms(&r, 0), 800);
	ck_assert_uint_eq(retry_pause_ms(&r, 0), 1000);
	ck_assert_uint_eq(retry_pause_ms(&r, 0), 1000);
	retry_reset(&r);
	ck_assert_uint_eq(retry_pause_ms(&r, 0), 100);
}
END_TEST

START_TEST(chance_takes_up_to_half)
{
	for (uint64_t chance = 0; chance <= UINT32_MAX; chance += UINT32_MAX / 1000) {
		struct retry r = { .min_ms = 100, .max_ms = 1000 };
		uint32_t ms = retry_pause_ms(&r, (uint32_t)chance);

		ck_assert_uint_ge(ms, 50);
		ck_assert_uint_le(ms, 100);
	}
	ck_assert_uint_eq(retry_pause_ms(&(struct retry){ 100, 1000, 0 }, UINT32_MAX), 51);
}
END_TEST

START_TEST(the_largest_pauses_do_not_wrap)
{
	struct retry r = { .min_ms = 1, .max_ms = UINT32_MAX };

	for (int i = 0; i < 40; i++)
		ck_assert_uint_ge(retry_pause_ms(&r, 0), 1);
	ck_assert_uint_eq(retry_pause_ms(&r, 0), UINT32_MAX);
}
END_TEST

static struct digest numbered(uint32_t i)
{
	struct digest d = { { 0 } };

	memcpy(d.b + (i % 2 ? 0 : 16), &i, sizeof i); /* many that begin alike */
	d.b[31] = 1;
	return d;
}

START_TEST(sets_hold_what_was_added)
{
	_cleanup_digest_set_ struct digest_set s = { 0 };
	struct digest zero = { { 0 } }, d;

	d = numbered(5);
	ck_assert(!digest_set_has(&s, &d));
	for (int round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < 3000; i++) {
			d = numbered(i);
			ck_assert_int_eq(digest_set_add(&s, &d), 0);
		}
		ck_assert_uint_eq(s.n, 3000);
	}
	for (uint32_t i = 0; i < 6000; i++) {
		d = numbered(i);
		ck_assert_int_eq(digest_set_has(&s, &d), i < 3000);
	}
	ck_assert_int_eq(digest_set_add(&s, &zero), 0);
	ck_assert(!digest_set_has(&s, &zero));
	ck_assert_uint_eq(s.n, 3000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("retry");
	TCase *tc = tcase_create("retry");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, pauses_grow_to_the_longest);
	tcase_add_test(tc, chance_takes_up_to_half);
	tcase_add_test(tc, the_largest_pauses_do_not_wrap);
	tcase_add_test(tc, sets_hold_what_was_added);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
