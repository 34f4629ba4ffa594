// SPDX-License-Identifier: Apache-2.0
#include "chunk/chunker.h"

#include "bytes.h"
#include "chunk/digest.h"

#include <check.h>
#include <stdlib.h>

#define N ((size_t)48 << 20)

static uint8_t *data;

/* xorshift64*: the same bytes on every machine. */
static void fill_random(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i + 8 <= n; i += 8) {
		seed ^= seed >> 12;
		seed ^= seed << 25;
		seed ^= seed >> 27;
		put_le64(p + i, seed * UINT64_C(2685821657736338717));
	}
}

static void setup(void)
{
	data = malloc(N);
	fill_random(data, N, 42);
}

static void teardown(void)
{
	free(data);
}

START_TEST(gear_table_is_as_documented)
{
	for (int i = 0; i < 256; i++) {
		uint8_t text[] = "varve-gear?";
		struct digest d;

		text[10] = (uint8_t)i;
		digest_of(text, 11, &d);
		ck_assert_uint_eq(gear_table[i], get_le64(d.b));
	}
}
END_TEST

/* The rule in words, one byte a step, every window hashed from nothing. */
static size_t slow_cut(const uint8_t *p, size_t n)
{
	size_t end = n < CHUNK_MAX ? n : CHUNK_MAX;

	for (size_t len = CHUNK_MIN; len < end; len++) {
		uint64_t hash = 0, mask = len <= 211 * 1024 ? UINT64_C(0xfffff) << 43
							    : UINT64_C(0xffff) << 47;

		for (size_t i = len - 64; i < len; i++)
			hash = (hash << 1) + gear_table[p[i]];
		if (!(hash & mask))
			return len;
	}
	return end;
}

START_TEST(cuts_follow_the_rule)
{
	size_t at = 0;

	for (int i = 0; i < 24; i++) {
		size_t cut = chunker_cut(data + at, N - at);

		ck_assert_uint_eq(cut, slow_cut(data + at, N - at));
		at += cut;
	}
}
END_TEST

/* Where data of this seed is cut is part of the format: these may never change. */
START_TEST(cuts_never_change)
{
	static const size_t expected[] = { 219449, 143491, 322796, 129938, 129579, 417116, 257279,
		221329, 334311, 277643, 279615, 221832 };
	size_t at = 0;

	for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
		size_t cut = chunker_cut(data + at, N - at);

		ck_assert_uint_eq(cut, expected[i]);
		at += cut;
	}
}
END_TEST

START_TEST(lengths_keep_their_bounds_and_average)
{
	size_t at = 0, count = 0, average;

	while (at < N) {
		size_t cut = chunker_cut(data + at, N - at);

		ck_assert_uint_gt(cut, 0);
		ck_assert_uint_le(cut, CHUNK_MAX);
		if (at + cut < N)
			ck_assert_uint_ge(cut, CHUNK_MIN);
		at += cut;
		count++;
	}
	ck_assert_uint_eq(at, N);
	average = N / count;
	ck_assert_uint_gt(average, CHUNK_AVG * 8 / 10);
	ck_assert_uint_lt(average, CHUNK_AVG * 12 / 10);
}
END_TEST

START_TEST(short_runs_are_one_chunk)
{
	ck_assert_uint_eq(chunker_cut(data, 1), 1);
	ck_assert_uint_eq(chunker_cut(data, CHUNK_MIN), CHUNK_MIN);
	ck_assert_uint_ge(chunker_cut(data, CHUNK_MIN + 1), CHUNK_MIN);
}
END_TEST

START_TEST(a_run_of_one_byte_is_cut_at_the_maximum)
{
	uint8_t *p = malloc(CHUNK_MAX + 1);

	for (int b = 0; b < 256; b++) {
		memset(p, b, CHUNK_MAX + 1);
		ck_assert_uint_eq(chunker_cut(p, CHUNK_MAX + 1), CHUNK_MAX);
	}
	free(p);
}
END_TEST

static bool is_cut_of(const uint8_t *p, size_t n, size_t at, size_t wanted)
{
	while (at < wanted)
		at += chunker_cut(p + at, n - at);
	return at == wanted;
}

START_TEST(cuts_come_back_after_an_insertion)
{
	uint8_t *edited = malloc(N + 1);
	size_t at = 0, shared = 0, total = 0;

	edited[0] = 'x';
	memcpy(edited + 1, data, N);
	while (at < N) {
		at += chunker_cut(data + at, N - at);
		shared += is_cut_of(edited, N + 1, 0, at + 1);
		total++;
	}
	ck_assert_uint_ge(shared, total - 8);
	free(edited);
}
END_TEST

START_TEST(a_cut_needs_no_byte_behind_it)
{
	size_t cut = chunker_cut(data, N);

	for (size_t n = cut; n < cut + 100; n++)
		ck_assert_uint_eq(chunker_cut(data, n), cut);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("chunker");
	TCase *tc = tcase_create("chunker");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, gear_table_is_as_documented);
	tcase_add_test(tc, cuts_follow_the_rule);
	tcase_add_test(tc, cuts_never_change);
	tcase_add_test(tc, lengths_keep_their_bounds_and_average);
	tcase_add_test(tc, short_runs_are_one_chunk);
	tcase_add_test(tc, a_run_of_one_byte_is_cut_at_the_maximum);
	tcase_add_test(tc, cuts_come_back_after_an_insertion);
	tcase_add_test(tc, a_cut_needs_no_byte_behind_it);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
