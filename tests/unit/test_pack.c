// SPDX-License-Identifier: Apache-2.0
#include "chunk/pack.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>

#define COUNT 20

static size_t text_of(int i, char *ret, size_t room)
{
	return (size_t)snprintf(ret, room, "%d%.*s", i, i * 7,
		"................................................................................"
		"................................................................................");
}

static void sample(struct buf *b, struct digest ids[COUNT])
{
	char text[300];

	ck_assert_int_eq(pack_begin(b), 0);
	for (int i = 0; i < COUNT; i++) {
		size_t n = text_of(i, text, sizeof text);

		digest_of(text, n, &ids[i]);
		ck_assert_int_eq(pack_add(b, &ids[i], text, n), 0);
	}
}

START_TEST(round_trip)
{
	_cleanup_buf_ struct buf b = { 0 }, copy = { 0 };
	struct digest ids[COUNT];
	struct pack_reader r;
	struct pack_entry e;
	char text[300];

	sample(&b, ids);
	ck_assert_int_eq(pack_begin(&copy), 0);
	ck_assert_int_eq(pack_reader_init(&r, b.data, b.len, NULL), 0);
	for (int i = 0; i < COUNT; i++) {
		_cleanup_buf_ struct buf plain = { 0 };
		size_t n = text_of(i, text, sizeof text);

		ck_assert_int_eq(pack_next(&r, &e, NULL), 1);
		ck_assert(digest_eq(&e.id, &ids[i]));
		ck_assert_ptr_eq(e.frame_bytes, b.data + e.frame_offset);
		ck_assert_int_eq(
			frame_decode(e.frame_bytes, e.frame.frame_len, &e.id, &plain, NULL), 0);
		ck_assert_uint_eq(plain.len, n);
		ck_assert_mem_eq(plain.data, text, n);
		ck_assert_int_eq(pack_add_frame(&copy, &e.id, e.frame_bytes, e.frame.frame_len), 0);
	}
	ck_assert_int_eq(pack_next(&r, &e, NULL), 0);
	ck_assert_int_eq(pack_next(&r, &e, NULL), 0);
	ck_assert_uint_eq(copy.len, b.len);
	ck_assert_mem_eq(copy.data, b.data, b.len);
}
END_TEST

START_TEST(empty_pack)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct pack_reader r;
	struct pack_entry e;

	ck_assert_int_eq(pack_begin(&b), 0);
	ck_assert_int_eq(pack_reader_init(&r, b.data, b.len, NULL), 0);
	ck_assert_int_eq(pack_next(&r, &e, NULL), 0);
}
END_TEST

static int read_all(const void *p, size_t n, size_t *ret_count)
{
	struct pack_reader r;
	struct pack_entry e;
	int got = pack_reader_init(&r, p, n, NULL);

	*ret_count = 0;
	while (got == 0 && (got = pack_next(&r, &e, NULL)) > 0) {
		ck_assert_uint_le(e.frame_offset + e.frame.frame_len, n);
		(*ret_count)++;
		got = 0;
		if (r.at == n)
			break;
	}
	return got;
}

/* A pack that ends between two entries is a shorter pack; anywhere else it is damaged. */
START_TEST(truncation_is_seen)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct digest ids[COUNT];
	size_t count, whole = 0;

	sample(&b, ids);
	for (size_t n = 0; n <= b.len; n++) {
		_cleanup_free_ uint8_t *copy = malloc(n ? n : 1);
		int r;

		memcpy(copy, b.data, n);
		r = read_all(copy, n, &count);
		ck_assert_msg(r == 0 || r == -EBADMSG, "%zu bytes: %d", n, r);
		whole += r == 0;
	}
	ck_assert_uint_eq(whole, COUNT + 1);
}
END_TEST

START_TEST(damage_is_seen)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct digest ids[COUNT];
	struct err err = { 0 };
	struct pack_reader r;
	size_t count;

	sample(&b, ids);
	b.data[0] ^= 1;
	ck_assert_int_eq(pack_reader_init(&r, b.data, b.len, &err), -EBADMSG);
	b.data[0] ^= 1;
	b.data[4] = 2;
	ck_assert_int_eq(pack_reader_init(&r, b.data, b.len, &err), -EBADMSG);
	b.data[4] = 1;
	b.data[7] = 1;
	ck_assert_int_eq(pack_reader_init(&r, b.data, b.len, &err), -EBADMSG);
	b.data[7] = 0;
	b.data[8 + DIGEST_BYTES + 4] = 9; /* the first frame's version */
	ck_assert_int_eq(read_all(b.data, b.len, &count), -EBADMSG);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pack");
	TCase *tc = tcase_create("pack");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, round_trip);
	tcase_add_test(tc, empty_pack);
	tcase_add_test(tc, truncation_is_seen);
	tcase_add_test(tc, damage_is_seen);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
