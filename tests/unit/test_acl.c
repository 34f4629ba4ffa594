// SPDX-License-Identifier: Apache-2.0
#include "fs/acl.h"

#include "bytes.h"

#include <check.h>
#include <errno.h>
#include <linux/posix_acl.h>
#include <sys/stat.h>

#define NO_ID UINT32_MAX

static const struct acl_entry plain[] = {
	{ ACL_USER_OBJ, 6, NO_ID },
	{ ACL_GROUP_OBJ, 5, NO_ID },
	{ ACL_OTHER, 4, NO_ID },
};
static const struct acl_entry full[] = {
	{ ACL_USER_OBJ, 7, NO_ID },
	{ ACL_USER, 6, 1000 },
	{ ACL_USER, 1, 0 },
	{ ACL_GROUP_OBJ, 5, NO_ID },
	{ ACL_GROUP, 7, 100 },
	{ ACL_MASK, 6, NO_ID },
	{ ACL_OTHER, 3, NO_ID },
};

static struct acl acl_of(const struct acl_entry *e, size_t n)
{
	struct acl acl = { .n = n };

	memcpy(acl.entries, e, n * sizeof *e);
	return acl;
}
#define ACL_OF(a) acl_of(a, ARRAY_SIZE(a))

static int decode(const struct buf *b, struct acl *ret)
{
	return acl_decode((struct slice){ b->data, b->len }, ret);
}

static uint16_t perm_of(const struct acl *acl, uint16_t tag)
{
	for (size_t i = 0; i < acl->n; i++)
		if (acl->entries[i].tag == tag)
			return acl->entries[i].perm;
	ck_abort();
}

START_TEST(encodes_what_it_decodes)
{
	_cleanup_buf_ struct buf b = { 0 }, again = { 0 };
	struct acl acl = ACL_OF(full), found;

	ck_assert_int_eq(acl_encode(&acl, &b), 0);
	ck_assert_uint_eq(b.len, 4 + 7 * 8);
	ck_assert_uint_eq(get_le32(b.data), 2);
	ck_assert_int_eq(decode(&b, &found), 0);
	ck_assert_uint_eq(found.n, 7);
	ck_assert_int_eq(acl_encode(&found, &again), 0);
	ck_assert_mem_eq(again.data, b.data, b.len);
	b.len = 4;
	ck_assert_int_eq(decode(&b, &found), 0);
	ck_assert_uint_eq(found.n, 0);
}
END_TEST

START_TEST(refuses_what_is_none)
{
	static const struct {
		struct acl_entry e[5];
		size_t n;
	} bad[] = {
		{ { { ACL_USER_OBJ, 6, 0 }, { ACL_GROUP_OBJ, 4, 0 } }, 2 },
		{ { { ACL_USER_OBJ, 6, 0 }, { ACL_OTHER, 4, 0 } }, 2 },
		{ { { ACL_GROUP_OBJ, 4, 0 }, { ACL_OTHER, 4, 0 } }, 2 },
		{ { { ACL_GROUP_OBJ, 4, 0 }, { ACL_USER_OBJ, 6, 0 }, { ACL_OTHER, 4, 0 } }, 3 },
		{ { { ACL_USER_OBJ, 8, 0 }, { ACL_GROUP_OBJ, 4, 0 }, { ACL_OTHER, 4, 0 } }, 3 },
		{ { { ACL_USER_OBJ, 6, 0 }, { ACL_USER_OBJ, 6, 0 }, { ACL_GROUP_OBJ, 4, 0 },
			  { ACL_OTHER, 4, 0 } },
			4 },
		{ { { ACL_USER_OBJ, 6, 0 }, { 3, 6, 0 }, { ACL_GROUP_OBJ, 4, 0 },
			  { ACL_OTHER, 4, 0 } },
			4 },
		{ { { ACL_USER_OBJ, 6, 0 }, { ACL_USER, 6, 5 }, { ACL_GROUP_OBJ, 4, 0 },
			  { ACL_OTHER, 4, 0 } },
			4 },
		{ { { ACL_USER_OBJ, 6, 0 }, { ACL_USER, 6, NO_ID }, { ACL_GROUP_OBJ, 4, 0 },
			  { ACL_MASK, 4, 0 }, { ACL_OTHER, 4, 0 } },
			5 },
	};
	_cleanup_buf_ struct buf b = { 0 };
	struct acl acl, found;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		buf_clear(&b);
		acl = acl_of(bad[i].e, bad[i].n);
		ck_assert_int_eq(acl_encode(&acl, &b), 0);
		ck_assert_int_eq(decode(&b, &found), -EINVAL);
	}
	buf_clear(&b);
	acl = ACL_OF(plain);
	ck_assert_int_eq(acl_encode(&acl, &b), 0);
	for (size_t n = 0; n < b.len; n++)
		if (n != 4)
			ck_assert_int_eq(acl_decode((struct slice){ b.data, n }, &found), -EINVAL);
	b.data[0] = 3;
	ck_assert_int_eq(decode(&b, &found), -EINVAL);
}
END_TEST

START_TEST(refuses_too_many)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct acl acl = ACL_OF(full), found;
	static const uint8_t more[8] = { ACL_USER };

	ck_assert_int_eq(acl_encode(&acl, &b), 0);
	while (b.len < 4 + 8 * (ACL_ENTRIES_MAX + 1))
		ck_assert_int_eq(buf_append(&b, more, sizeof more), 0);
	ck_assert_int_eq(decode(&b, &found), -E2BIG);
}
END_TEST

START_TEST(modes)
{
	struct acl acl = ACL_OF(plain);
	uint32_t mode;

	ck_assert(!acl_mode(&acl, S_IFREG | 04777, &mode));
	ck_assert_uint_eq(mode, S_IFREG | 04654);
	acl = ACL_OF(full);
	ck_assert(acl_mode(&acl, S_IFDIR | 01000, &mode));
	ck_assert_uint_eq(mode, S_IFDIR | 01763);
	acl_chmod(&acl, S_IFDIR | 0412);
	ck_assert_uint_eq(perm_of(&acl, ACL_USER_OBJ), 4);
	ck_assert_uint_eq(perm_of(&acl, ACL_GROUP_OBJ), 5);
	ck_assert_uint_eq(perm_of(&acl, ACL_USER), 6);
	ck_assert_uint_eq(perm_of(&acl, ACL_MASK), 1);
	ck_assert_uint_eq(perm_of(&acl, ACL_OTHER), 2);
	acl = ACL_OF(plain);
	acl_chmod(&acl, 0721);
	ck_assert_uint_eq(perm_of(&acl, ACL_GROUP_OBJ), 2);
}
END_TEST

START_TEST(inheritance)
{
	struct acl acl = ACL_OF(full);
	uint32_t mode = S_IFREG | 02640;

	ck_assert(acl_inherit(&acl, &mode));
	ck_assert_uint_eq(mode, S_IFREG | 02640);
	ck_assert_uint_eq(perm_of(&acl, ACL_USER_OBJ), 6);
	ck_assert_uint_eq(perm_of(&acl, ACL_USER), 6);
	ck_assert_uint_eq(perm_of(&acl, ACL_GROUP_OBJ), 5);
	ck_assert_uint_eq(perm_of(&acl, ACL_MASK), 4);
	ck_assert_uint_eq(perm_of(&acl, ACL_OTHER), 0);
	acl = ACL_OF(plain);
	mode = S_IFREG | 0777;
	ck_assert(!acl_inherit(&acl, &mode));
	ck_assert_uint_eq(mode, S_IFREG | 0654);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("acl");
	TCase *c = tcase_create("acl");
	SRunner *r;
	int failed;

	tcase_add_test(c, encodes_what_it_decodes);
	tcase_add_test(c, refuses_what_is_none);
	tcase_add_test(c, refuses_too_many);
	tcase_add_test(c, modes);
	tcase_add_test(c, inheritance);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
