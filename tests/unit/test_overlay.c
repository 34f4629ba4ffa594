// SPDX-License-Identifier: Apache-2.0
#include "fs/overlay.h"
#include "tests/support/files_kit.h"

#include <check.h>
#include <string.h>

#define SPACE 4000

/* One byte a position: 0 nothing, 1 zero, 2 staged; and where it lies. */
struct shadow {
	uint8_t kind[SPACE];
	uint64_t pos[SPACE];
};

static void set(struct overlay *o, struct shadow *sh, uint64_t start, uint64_t end, uint64_t pos,
	enum extent_kind kind)
{
	ck_assert_int_eq(overlay_reserve(o), 0);
	overlay_set(o, &(struct extent){ start, end, pos, kind });
	for (uint64_t i = start; i < end && i < SPACE; i++) {
		sh->kind[i] = kind == EXTENT_ZERO ? 1 : 2;
		sh->pos[i] = kind == EXTENT_ZERO ? 0 : pos + (i - start);
	}
}

static void compare(const struct overlay *o, const struct shadow *sh)
{
	uint64_t at = 0, staged = 0, count = 0;
	struct extent e, last = { 0 };

	while (overlay_find(o, at, &e)) {
		for (; at < e.start; at++)
			ck_assert_uint_eq(sh->kind[at], 0);
		for (; at < e.end && at < SPACE; at++) {
			ck_assert_uint_eq(sh->kind[at], e.kind == EXTENT_ZERO ? 1 : 2);
			if (e.kind == EXTENT_STAGED)
				ck_assert_uint_eq(sh->pos[at], e.pos + (at - e.start));
		}
		at = e.end;
		staged += e.kind == EXTENT_STAGED ? e.end - e.start : 0;
		/* Joined where they go on. */
		if (count && last.end == e.start && last.kind == e.kind)
			ck_assert(e.kind == EXTENT_STAGED &&
				  last.pos + (last.end - last.start) != e.pos);
		last = e;
		count++;
	}
	for (; at < SPACE; at++)
		ck_assert_uint_eq(sh->kind[at], 0);
	ck_assert_uint_eq(staged, o->staged_bytes);
	ck_assert_uint_eq(count, o->count);
}

static void random_run(uint64_t seed, uint64_t longest, unsigned steps)
{
	struct rng r = { seed };
	struct overlay o = { 0 };
	struct shadow sh = { 0 };

	for (unsigned i = 0; i < steps; i++) {
		uint64_t start = rng_below(&r, SPACE - longest);
		uint64_t end = start + 1 + rng_below(&r, longest);
		enum extent_kind kind = rng_below(&r, 3) ? EXTENT_STAGED : EXTENT_ZERO;
		/* Half lie where they are in the file, as in a staging file. */
		uint64_t pos = rng_below(&r, 2) ? start : rng_below(&r, 100000);

		set(&o, &sh, start, end, pos, kind);
		if (i % 16 == 0)
			compare(&o, &sh);
	}
	compare(&o, &sh);
	overlay_done(&o);
}

START_TEST(random_sets_match_a_shadow)
{
	random_run(1, 400, 2000);
	random_run(2, 3, 6000);
	random_run(3, 20, 4000);
}
END_TEST

START_TEST(appending_stays_one_extent)
{
	struct overlay o = { 0 };

	for (uint64_t i = 0; i < 10000; i++) {
		ck_assert_int_eq(overlay_reserve(&o), 0);
		overlay_set(&o, &(struct extent){ i * 10, i * 10 + 10, i * 10, EXTENT_STAGED });
	}
	ck_assert_uint_eq(o.count, 1);
	ck_assert_uint_eq(o.staged_bytes, 100000);
	ck_assert(overlay_is_staged(&o, 0, 100000));
	ck_assert(!overlay_is_staged(&o, 0, 100001));
	overlay_done(&o);
}
END_TEST

START_TEST(many_scattered_extents_are_quick)
{
	struct rng r = { 7 };
	struct overlay o = { 0 };
	struct extent e;
	uint64_t last = 0;

	for (int i = 0; i < 200000; i++) {
		uint64_t at = rng_below(&r, UINT64_C(1) << 40) * 2;

		ck_assert_int_eq(overlay_reserve(&o), 0);
		overlay_set(&o, &(struct extent){ at, at + 1, at, EXTENT_STAGED });
	}
	for (uint64_t at = 0; overlay_find(&o, at, &e); at = e.end) {
		ck_assert(e.start >= last);
		last = e.end;
	}
	ck_assert_uint_gt(o.count, 199000);
	overlay_done(&o);
}
END_TEST

START_TEST(an_end_without_end)
{
	struct overlay o = { 0 };
	struct extent e;

	ck_assert_int_eq(overlay_reserve(&o), 0);
	overlay_set(&o, &(struct extent){ 0, OVERLAY_END, 0, EXTENT_ZERO });
	ck_assert(overlay_covers(&o, 0, UINT64_MAX));
	ck_assert_int_eq(overlay_reserve(&o), 0);
	overlay_set(&o, &(struct extent){ 100, 200, 100, EXTENT_STAGED });
	ck_assert_uint_eq(o.count, 3);
	ck_assert(overlay_find(&o, 200, &e));
	ck_assert_uint_eq(e.end, OVERLAY_END);
	ck_assert(overlay_covers(&o, 0, UINT64_MAX));
	overlay_done(&o);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("overlay");
	TCase *tc = tcase_create("overlay");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, random_sets_match_a_shadow);
	tcase_add_test(tc, appending_stays_one_extent);
	tcase_add_test(tc, many_scattered_extents_are_quick);
	tcase_add_test(tc, an_end_without_end);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
