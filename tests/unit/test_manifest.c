// SPDX-License-Identifier: Apache-2.0
#include "chunk/manifest.h"

#include "bytes.h"
#include "chunk/chunker.h"
#include "bounds.h"

#include <check.h>
#include <errno.h>

static struct digest id_of(const char *text)
{
	struct digest d;

	digest_of(text, strlen(text), &d);
	return d;
}

/* chunk 100, hole 128 KiB, chunk 7 */
static struct manifest *sample(void)
{
	struct digest a = id_of("a"), b = id_of("b");
	struct manifest_builder *builder;
	struct manifest *m;

	ck_assert_int_eq(manifest_builder_new(&builder), 0);
	ck_assert_int_eq(manifest_add_chunk(builder, &a, 100), 0);
	ck_assert_int_eq(manifest_add_hole(builder, 65536), 0);
	ck_assert_int_eq(manifest_add_hole(builder, 0), 0);
	ck_assert_int_eq(manifest_add_hole(builder, 65536), 0);
	ck_assert_int_eq(manifest_add_chunk(builder, &b, 7), 0);
	ck_assert_uint_eq(manifest_builder_size(builder), 131179);
	ck_assert_int_eq(manifest_builder_finish(builder, &m), 0);
	return m;
}

START_TEST(entries_are_found)
{
	_cleanup_manifest_ struct manifest *m = sample();

	ck_assert_uint_eq(manifest_size(m), 131179);
	ck_assert_uint_eq(manifest_count(m), 3);
	ck_assert(manifest_at(m, 1)->hole);
	ck_assert_uint_eq(manifest_at(m, 1)->length, 131072);
	ck_assert(digest_is_zero(&manifest_at(m, 1)->id));
	ck_assert_uint_eq(manifest_find(m, 0), 0);
	ck_assert_uint_eq(manifest_find(m, 99), 0);
	ck_assert_uint_eq(manifest_find(m, 100), 1);
	ck_assert_uint_eq(manifest_find(m, 131171), 1);
	ck_assert_uint_eq(manifest_find(m, 131172), 2);
	ck_assert_uint_eq(manifest_find(m, 131178), 2);
	ck_assert_uint_eq(manifest_find(m, 131179), 3);
	ck_assert_uint_eq(manifest_find(m, UINT64_MAX), 3);
}
END_TEST

START_TEST(encoding_round_trip)
{
	_cleanup_manifest_ struct manifest *m = sample(), *back = NULL;
	const uint8_t *p, *q;
	size_t n, k;
	struct digest d;

	p = manifest_bytes(m, &n);
	ck_assert_int_eq(manifest_decode(p, n, &back, NULL), 0);
	ck_assert_uint_eq(manifest_holes(back), 131072);
	ck_assert_uint_eq(manifest_holes_encoded(p, n), 131072);
	q = manifest_bytes(back, &k);
	ck_assert_uint_eq(n, k);
	ck_assert_mem_eq(p, q, n);
	digest_of(p, n, &d);
	ck_assert(digest_eq(&d, manifest_content_id(m)));
	ck_assert(digest_eq(&d, manifest_content_id(back)));
	for (size_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(manifest_at(m, i)->offset, manifest_at(back, i)->offset);
		ck_assert_uint_eq(manifest_at(m, i)->length, manifest_at(back, i)->length);
		ck_assert(digest_eq(&manifest_at(m, i)->id, &manifest_at(back, i)->id));
	}
}
END_TEST

START_TEST(the_encoding_never_changes)
{
	_cleanup_manifest_ struct manifest *m = sample(), *none = manifest_empty();
	char hex[DIGEST_HEX_BYTES];

	digest_hex(manifest_content_id(m), hex);
	ck_assert_str_eq(hex, "4068f91ed1560f1065bf10401a2658a8683d7f4abb3494c3bb2ea8997e37df87");
	digest_hex(manifest_content_id(none), hex);
	ck_assert_str_eq(hex, "6fe60591f42ecd258c41954c2548653039b6e826ad00ddd620c5546f29184eee");
}
END_TEST

START_TEST(empty_file)
{
	_cleanup_manifest_ struct manifest *m = manifest_empty(), *back = NULL, *again = NULL;
	const uint8_t *p;
	size_t n;

	ck_assert_ptr_nonnull(m);
	ck_assert_uint_eq(manifest_size(m), 0);
	ck_assert_uint_eq(manifest_count(m), 0);
	ck_assert_uint_eq(manifest_find(m, 0), 0);
	p = manifest_bytes(m, &n);
	ck_assert_int_eq(manifest_decode(p, n, &back, NULL), 0);
	again = manifest_ref(back);
	ck_assert_ptr_eq(again, back);
}
END_TEST

START_TEST(huge_hole)
{
	_cleanup_manifest_ struct manifest *m = NULL, *back = NULL;
	struct manifest_builder *b;
	const uint8_t *p;
	size_t n;

	ck_assert_int_eq(manifest_builder_new(&b), 0);
	ck_assert_int_eq(manifest_add_hole(b, FILE_BYTES_MAX), 0);
	ck_assert_int_eq(manifest_add_hole(b, 1), -EFBIG);
	ck_assert_int_eq(manifest_builder_finish(b, &m), 0);
	p = manifest_bytes(m, &n);
	ck_assert_int_eq(manifest_decode(p, n, &back, NULL), 0);
	ck_assert_uint_eq(manifest_at(back, 0)->length, FILE_BYTES_MAX);
}
END_TEST

START_TEST(builder_refuses_bad_lengths)
{
	struct digest a = id_of("a");
	struct manifest_builder *b;

	ck_assert_int_eq(manifest_builder_new(&b), 0);
	ck_assert_int_eq(manifest_add_chunk(b, &a, 0), -EINVAL);
	ck_assert_int_eq(manifest_add_chunk(b, &a, CHUNK_MAX + 1), -EINVAL);
	ck_assert_uint_eq(manifest_builder_size(b), 0);
	manifest_builder_free(b);
}
END_TEST

START_TEST(too_many_entries)
{
	struct digest a = id_of("a");
	struct manifest_builder *b;
	size_t most = (MANIFEST_BYTES_MAX - 20) / 36;

	ck_assert_int_eq(manifest_builder_new(&b), 0);
	for (size_t i = 0; i < most; i++)
		ck_assert_int_eq(manifest_add_chunk(b, &a, 1), 0);
	ck_assert_int_eq(manifest_add_chunk(b, &a, 1), -EFBIG);
	manifest_builder_free(b);
}
END_TEST

/* Each case damages the sample's encoding at one place. */
static const struct {
	const char *what;
	size_t at;
	uint8_t bytes[8];
	size_t n;
} damage[] = {
	{ "magic", 0, "X", 1 },
	{ "version", 4, { 2 }, 1 },
	{ "reserved", 7, { 1 }, 1 },
	{ "size too small", 8, { 0 }, 1 },
	{ "size too large", 8, { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, 8 },
	{ "fewer entries than bytes", 16, { 2 }, 1 },
	{ "more entries than bytes", 16, { 4 }, 1 },
	{ "count beyond everything", 16, { 0xff, 0xff, 0xff, 0xff }, 4 },
	{ "chunk of no bytes", 20, { 0, 0, 0, 0 }, 4 },
	{ "chunk too long", 20, { 1, 0, 0x10, 0 }, 4 },
	{ "hole of no bytes", 56, { 0, 0, 0, 0x80, 0, 0, 0, 0 }, 8 },
	{ "hole that wraps", 56, { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, 8 },
};

START_TEST(damage_is_seen)
{
	_cleanup_manifest_ struct manifest *m = sample();
	struct manifest *back = NULL;
	uint8_t copy[200];
	struct err err = { 0 };
	const uint8_t *p;
	size_t n;

	p = manifest_bytes(m, &n);
	ck_assert_uint_le(n, sizeof copy);
	memcpy(copy, p, n);
	memcpy(copy + damage[_i].at, damage[_i].bytes, damage[_i].n);
	ck_assert_msg(manifest_decode(copy, n, &back, &err) == -EBADMSG, "%s", damage[_i].what);
	ck_assert_ptr_null(back);
	ck_assert_uint_gt(strlen(err.text), 0);
}
END_TEST

START_TEST(every_truncation_and_any_tail_is_seen)
{
	_cleanup_manifest_ struct manifest *m = sample();
	struct manifest *back = NULL;
	_cleanup_free_ uint8_t *copy = NULL;
	const uint8_t *p;
	size_t n;

	p = manifest_bytes(m, &n);
	for (size_t k = 0; k < n; k++) {
		free(copy);
		copy = malloc(k ? k : 1);
		memcpy(copy, p, k);
		ck_assert_int_eq(manifest_decode(copy, k, &back, NULL), -EBADMSG);
	}
	free(copy);
	copy = calloc(1, n + 1);
	memcpy(copy, p, n);
	ck_assert_int_eq(manifest_decode(copy, n + 1, &back, NULL), -EBADMSG);
}
END_TEST

START_TEST(two_holes_side_by_side)
{
	uint8_t p[36] = "VRVM\1";
	struct manifest *back = NULL;

	put_le64(p + 8, 2);
	put_le32(p + 16, 2);
	put_le32(p + 20, UINT32_C(0x80000000));
	put_le32(p + 24, 1);
	put_le32(p + 28, UINT32_C(0x80000000));
	put_le32(p + 32, 1);
	ck_assert_int_eq(manifest_decode(p, sizeof p, &back, NULL), -EBADMSG);
	put_le64(p + 8, 1);
	put_le32(p + 16, 1);
	ck_assert_int_eq(manifest_decode(p, sizeof p - 8, &back, NULL), 0);
	manifest_unref(back);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("manifest");
	TCase *tc = tcase_create("manifest");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, entries_are_found);
	tcase_add_test(tc, encoding_round_trip);
	tcase_add_test(tc, the_encoding_never_changes);
	tcase_add_test(tc, empty_file);
	tcase_add_test(tc, huge_hole);
	tcase_add_test(tc, builder_refuses_bad_lengths);
	tcase_add_test(tc, too_many_entries);
	tcase_add_loop_test(tc, damage_is_seen, 0, ARRAY_SIZE(damage));
	tcase_add_test(tc, every_truncation_and_any_tail_is_seen);
	tcase_add_test(tc, two_holes_side_by_side);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
