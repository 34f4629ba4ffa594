// SPDX-License-Identifier: Apache-2.0
#include "server/request_head.h"

#include <check.h>
#include <string.h>

static void add(struct request_head *h, const char *name, const char *value)
{
	request_head_add(h, name, strlen(name), value, value ? strlen(value) : 0);
}

static const struct {
	const char *name1, *value1, *name2, *value2;
	bool good;
	uint64_t length;
} cases[] = {
	{ "X", "y", NULL, NULL, true, 0 },
	{ "Content-Length", "0", NULL, NULL, true, 0 },
	{ "content-length", "12", NULL, NULL, true, 12 },
	{ "Content-Length", "999999999999999999", NULL, NULL, true, 999999999999999999 },
	{ "Content-Length", "9999999999999999999", NULL, NULL, false, 0 },
	{ "Content-Length", "", NULL, NULL, false, 0 },
	{ "Content-Length", NULL, NULL, NULL, false, 0 },
	{ "Content-Length", "+1", NULL, NULL, false, 0 },
	{ "Content-Length", "-1", NULL, NULL, false, 0 },
	{ "Content-Length", "1 ", NULL, NULL, false, 0 },
	{ "Content-Length", "1,1", NULL, NULL, false, 0 },
	{ "Content-Length", "0x1", NULL, NULL, false, 0 },
	{ "Content-Length", "1", "Content-Length", "1", false, 0 },
	{ "Content-Length", "1", "CONTENT-LENGTH", "2", false, 0 },
	{ "Content-Length", "1", "Transfer-Encoding", "chunked", false, 0 },
	{ "Transfer-Encoding", "chunked", NULL, NULL, true, BODY_LENGTH_UNKNOWN },
	{ "transfer-encoding", "CHUNKED", NULL, NULL, true, BODY_LENGTH_UNKNOWN },
	{ "Transfer-Encoding", "chunked", "Transfer-Encoding", "chunked", false, 0 },
	{ "Transfer-Encoding", "gzip, chunked", NULL, NULL, false, 0 },
	{ "Transfer-Encoding", "identity", NULL, NULL, false, 0 },
	{ "Transfer-Encoding", "", NULL, NULL, false, 0 },
	{ "Transfer-Encoding", NULL, NULL, NULL, false, 0 },
	{ "Host", "a", "host", "b", false, 0 },
	{ "Authorization", "a", "authorization", "b", false, 0 },
	{ "Content-Length ", "5", NULL, NULL, false, 0 },
	{ "X\ty", "5", NULL, NULL, false, 0 },
	{ "", "5", NULL, NULL, false, 0 },
};

START_TEST(headers_are_judged)
{
	struct request_head h = { 0 };
	uint64_t length = 77;
	const char *why;

	add(&h, cases[_i].name1, cases[_i].value1);
	if (cases[_i].name2)
		add(&h, cases[_i].name2, cases[_i].value2);
	why = request_head_check(&h, "HTTP/1.1", &length);
	ck_assert_msg(!why == cases[_i].good, "case %d: %s", _i, why ? why : "taken");
	ck_assert_uint_eq(length, cases[_i].good ? cases[_i].length : 77);
}
END_TEST

START_TEST(old_versions_have_no_pieces)
{
	struct request_head h = { 0 };
	uint64_t length;

	add(&h, "Transfer-Encoding", "chunked");
	ck_assert_ptr_nonnull(request_head_check(&h, "HTTP/1.0", &length));
}
END_TEST

START_TEST(no_nul_inside)
{
	struct request_head h = { 0 };
	uint64_t length;

	request_head_add(&h, "X", 1, "a\0b", 3);
	ck_assert_ptr_nonnull(request_head_check(&h, "HTTP/1.1", &length));
	h = (struct request_head){ 0 };
	request_head_add(&h, "X\0Y", 3, "a", 1);
	ck_assert_ptr_nonnull(request_head_check(&h, "HTTP/1.1", &length));
}
END_TEST

START_TEST(bytes_are_counted)
{
	struct request_head h = { 0 };

	add(&h, "abc", "defg");
	add(&h, "x", NULL);
	ck_assert_uint_eq(h.bytes, 3 + 4 + 4 + 1 + 4);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("request_head");
	TCase *tc = tcase_create("request_head");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(tc, headers_are_judged, 0, ARRAY_SIZE(cases));
	tcase_add_test(tc, old_versions_have_no_pieces);
	tcase_add_test(tc, no_nul_inside);
	tcase_add_test(tc, bytes_are_counted);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
