// SPDX-License-Identifier: Apache-2.0
#include "chunk/digest.h"

#include <check.h>
#include <stdlib.h>

/* From BLAKE3's published test vectors: byte i of the input is i % 251. */
static const struct {
	size_t n;
	const char *hex;
} vectors[] = {
	{ 0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" },
	{ 1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213" },
	{ 1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11" },
	{ 1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7" },
	{ 1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444" },
	{ 2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a" },
	{ 31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47" },
	{ 102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085" },
};

START_TEST(published_vectors)
{
	uint8_t *p = malloc(102400);
	char hex[DIGEST_HEX_BYTES];
	struct digest d;

	for (size_t i = 0; i < 102400; i++)
		p[i] = (uint8_t)(i % 251);
	digest_of(p, vectors[_i].n, &d);
	digest_hex(&d, hex);
	ck_assert_str_eq(hex, vectors[_i].hex);
	free(p);
}
END_TEST

START_TEST(text_round_trip)
{
	struct digest d, back;
	char hex[DIGEST_HEX_BYTES + 1];

	digest_of("x", 1, &d);
	digest_hex(&d, hex);
	ck_assert(digest_parse(hex, &back));
	ck_assert(digest_eq(&d, &back));
	hex[64] = '0';
	hex[65] = '\0';
	ck_assert(!digest_parse(hex, &back));
	hex[63] = '\0';
	ck_assert(!digest_parse(hex, &back));
	hex[63] = 'g';
	hex[64] = '\0';
	ck_assert(!digest_parse(hex, &back));
	ck_assert(!digest_parse("", &back));
}
END_TEST

START_TEST(zero_is_told)
{
	struct digest d = { 0 };

	ck_assert(digest_is_zero(&d));
	d.b[31] = 1;
	ck_assert(!digest_is_zero(&d));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("digest");
	TCase *tc = tcase_create("digest");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(tc, published_vectors, 0, sizeof vectors / sizeof vectors[0]);
	tcase_add_test(tc, text_round_trip);
	tcase_add_test(tc, zero_is_told);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
