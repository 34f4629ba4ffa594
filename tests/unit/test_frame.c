// SPDX-License-Identifier: Apache-2.0
#include "chunk/frame.h"

#include "bytes.h"
#include "chunk/chunker.h"
#include "bounds.h"

#include <check.h>
#include <errno.h>

static uint8_t plain[1024 * 1024];

static void fill_random(uint8_t *p, size_t n)
{
	uint64_t seed = 99;

	for (size_t i = 0; i < n; i++) {
		seed ^= seed >> 12;
		seed ^= seed << 25;
		seed ^= seed >> 27;
		p[i] = (uint8_t)(seed * UINT64_C(2685821657736338717) >> 56);
	}
}

static void fill_text(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t) "the quick brown fox "[i % 20];
}

static void round_trip(size_t n, enum frame_codec codec)
{
	_cleanup_buf_ struct buf frame = { 0 }, back = { 0 };
	struct frame_info info;
	struct digest id;

	digest_of(plain, n, &id);
	ck_assert_int_eq(frame_encode(plain, n, &frame), 0);
	ck_assert_uint_le(frame.len, n + FRAME_OVERHEAD_MAX);
	ck_assert_int_eq(frame_peek(frame.data, frame.len, &info, NULL), 0);
	ck_assert_int_eq(info.codec, codec);
	ck_assert_uint_eq(info.plain_len, n);
	ck_assert_uint_eq(info.frame_len, frame.len);
	ck_assert_int_eq(buf_append(&back, "x", 1), 0);
	ck_assert_int_eq(frame_decode(frame.data, frame.len, &id, &back, NULL), 0);
	ck_assert_uint_eq(back.len, n + 1);
	ck_assert_mem_eq(back.data + 1, plain, n);
}

START_TEST(round_trips)
{
	static const size_t sizes[] = { 1, 2, 31, 4096, 65535, 65536, 300000, CHUNK_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		fill_random(plain, sizes[i]);
		round_trip(sizes[i], FRAME_STORED);
		fill_text(plain, sizes[i]);
		if (sizes[i] > 100)
			round_trip(sizes[i], FRAME_ZSTD);
	}
}
END_TEST

START_TEST(half_compressible_is_tried)
{
	fill_random(plain, 400000);
	fill_text(plain + 150000, 250000);
	round_trip(400000, FRAME_ZSTD);
}
END_TEST

static void sample(struct buf *frame, struct digest *id)
{
	fill_text(plain, 1000);
	digest_of(plain, 1000, id);
	ck_assert_int_eq(frame_encode(plain, 1000, frame), 0);
}

START_TEST(every_flipped_bit_is_seen)
{
	_cleanup_buf_ struct buf frame = { 0 }, out = { 0 };
	struct digest id;

	sample(&frame, &id);
	for (size_t i = 0; i < frame.len * 8; i++) {
		struct err err = { 0 };
		int r;

		frame.data[i / 8] ^= (uint8_t)(1 << i % 8);
		r = frame_decode(frame.data, frame.len, &id, &out, &err);
		ck_assert_msg(r == -EBADMSG || r == -ENOTSUP, "bit %zu: %d", i, r);
		ck_assert_int_eq(err.code, -r);
		ck_assert_uint_eq(out.len, 0);
		frame.data[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	ck_assert_int_eq(frame_decode(frame.data, frame.len, &id, &out, NULL), 0);
}
END_TEST

START_TEST(every_truncation_is_seen)
{
	_cleanup_buf_ struct buf frame = { 0 }, out = { 0 };
	struct frame_info info;
	struct digest id;

	sample(&frame, &id);
	for (size_t n = 0; n < frame.len; n++) {
		_cleanup_free_ uint8_t *copy = malloc(n ? n : 1);

		memcpy(copy, frame.data, n);
		ck_assert_int_eq(frame_peek(copy, n, &info, NULL), -ENODATA);
		ck_assert_int_eq(frame_decode(copy, n, &id, &out, NULL), -EBADMSG);
	}
	ck_assert_int_eq(buf_append(&frame, "", 1), 0);
	ck_assert_int_eq(frame_peek(frame.data, frame.len, &info, NULL), 0);
	ck_assert_int_eq(frame_decode(frame.data, frame.len, &id, &out, NULL), -EBADMSG);
}
END_TEST

START_TEST(other_bytes_than_the_id_are_refused)
{
	_cleanup_buf_ struct buf frame = { 0 }, out = { 0 };
	struct digest id;

	sample(&frame, &id);
	id.b[0] ^= 1;
	ck_assert_int_eq(frame_decode(frame.data, frame.len, &id, &out, NULL), -EBADMSG);
	ck_assert_uint_eq(out.len, 0);
}
END_TEST

static const struct {
	size_t at;
	uint32_t value;
	size_t n;
	int result;
} headers[] = {
	{ 0, 'X', 1, -EBADMSG },
	{ 4, 2, 1, -ENOTSUP },
	{ 5, 3, 1, -ENOTSUP },
	{ 6, 1, 1, -ENOTSUP },
	{ 7, 1, 1, -EBADMSG },
	{ 8, 0, 4, -EBADMSG },
	{ 8, CHUNK_MAX + 1, 4, -EBADMSG },
	{ 8, UINT32_MAX, 4, -EBADMSG },
	{ 8, 1, 4, -EBADMSG },
	{ 12, 0, 4, -EBADMSG },
	{ 12, UINT32_MAX, 4, -EBADMSG },
	{ 12, UINT32_MAX - FRAME_HEADER_BYTES + 1, 4, -EBADMSG },
	{ 12, 1001, 4, -EBADMSG },
};

START_TEST(headers_are_bounded)
{
	_cleanup_buf_ struct buf frame = { 0 };
	struct frame_info info;
	struct digest id;
	uint8_t value[4];

	sample(&frame, &id);
	put_le32(value, headers[_i].value);
	memcpy(frame.data + headers[_i].at, value, headers[_i].n);
	ck_assert_int_eq(frame_peek(frame.data, frame.len, &info, NULL), headers[_i].result);
}
END_TEST

static void set_check(struct buf *frame)
{
	_cleanup_buf_ struct buf checked = { 0 };
	struct digest d;

	ck_assert_int_eq(buf_append(&checked, frame->data, 16), 0);
	ck_assert_int_eq(buf_append(&checked, frame->data + 24, frame->len - 24), 0);
	digest_of(checked.data, checked.len, &d);
	memcpy(frame->data + 16, d.b, 8);
}

START_TEST(a_patch_is_known_but_not_decoded)
{
	_cleanup_buf_ struct buf frame = { 0 }, out = { 0 };
	struct frame_info info;
	struct digest id;

	fill_random(plain, 1000);
	digest_of(plain, 1000, &id);
	ck_assert_int_eq(frame_encode(plain, 1000, &frame), 0);
	frame.data[5] = FRAME_ZSTD_PATCH;
	set_check(&frame);
	ck_assert_int_eq(frame_peek(frame.data, frame.len, &info, NULL), 0);
	ck_assert_int_eq(info.codec, FRAME_ZSTD_PATCH);
	ck_assert_int_eq(frame_decode(frame.data, frame.len, &id, &out, NULL), -ENOTSUP);
}
END_TEST

/* A payload that unpacks to more, or less, than the header says; the check is right. */
START_TEST(the_plain_length_is_a_bound)
{
	_cleanup_buf_ struct buf frame = { 0 }, out = { 0 };
	struct digest id;

	sample(&frame, &id);
	put_le32(frame.data + 8, 999);
	set_check(&frame);
	ck_assert_int_eq(frame_decode(frame.data, frame.len, &id, &out, NULL), -EBADMSG);
	put_le32(frame.data + 8, 1001);
	set_check(&frame);
	ck_assert_int_eq(frame_decode(frame.data, frame.len, &id, &out, NULL), -EBADMSG);
	ck_assert_uint_eq(out.len, 0);
	put_le32(frame.data + 8, 1000);
	set_check(&frame);
	ck_assert_int_eq(frame_decode(frame.data, frame.len, &id, &out, NULL), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("frame");
	TCase *tc = tcase_create("frame");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, round_trips);
	tcase_add_test(tc, half_compressible_is_tried);
	tcase_add_test(tc, every_flipped_bit_is_seen);
	tcase_add_test(tc, every_truncation_is_seen);
	tcase_add_test(tc, other_bytes_than_the_id_are_refused);
	tcase_add_loop_test(tc, headers_are_bounded, 0, ARRAY_SIZE(headers));
	tcase_add_test(tc, a_patch_is_known_but_not_decoded);
	tcase_add_test(tc, the_plain_length_is_a_bound);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
