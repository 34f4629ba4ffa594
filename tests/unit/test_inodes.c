// SPDX-License-Identifier: Apache-2.0
#include "fs/inodes.h"

#include <check.h>
#include <errno.h>
#include <string.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static int n_unrefs;
static void *last_unref;

static void count_unref(void *ctx, void *instance)
{
	n_unrefs++;
	last_unref = instance;
}

static struct inodes *table(void)
{
	struct inodes_options o = { .unref = count_unref };
	struct inodes *t;

	n_unrefs = 0;
	last_unref = NULL;
	ck_assert_int_eq(inodes_new(&o, &t), 0);
	return t;
}

START_TEST(ids_are_nodes)
{
	struct inodes *t = table();

	ck_assert_uint_eq(inodes_node(t, 7), 7);
	ck_assert_uint_eq(inodes_entry(t, 7), 7);
	ck_assert_uint_eq(inodes_current(t, 7), 7);
	ck_assert(!inodes_retired(t, 7));
	ck_assert_ptr_null(inodes_instance(t, 7));
	inodes_forget(t, 7, 3);
	inodes_free(t);
}
END_TEST

START_TEST(retired_id_keeps_its_instance)
{
	struct inodes *t = table();
	uint64_t old, alias;
	int instance;

	ck_assert_int_eq(inodes_retire(t, 7, &instance, &old), 0);
	ck_assert_uint_eq(old, 7);
	alias = inodes_entry(t, 7);
	ck_assert_uint_ne(alias, 7);
	ck_assert(alias & INODES_ALIAS_BIT);
	ck_assert_uint_eq(inodes_node(t, alias), 7);
	ck_assert_uint_eq(inodes_node(t, 7), 7);
	ck_assert(inodes_retired(t, 7));
	ck_assert(!inodes_retired(t, alias));
	ck_assert_ptr_eq(inodes_instance(t, 7), &instance);
	ck_assert_ptr_null(inodes_instance(t, alias));
	/* Others are not touched. */
	ck_assert_uint_eq(inodes_entry(t, 8), 8);

	inodes_forget(t, 7, 1);
	ck_assert_int_eq(n_unrefs, 1);
	ck_assert_ptr_eq(last_unref, &instance);
	ck_assert(!inodes_retired(t, 7));
	/* The kernel still knows the alias. */
	ck_assert_uint_eq(inodes_current(t, 7), alias);
	inodes_free(t);
	ck_assert_int_eq(n_unrefs, 1);
}
END_TEST

START_TEST(alias_goes_when_forgotten)
{
	struct inodes *t = table();
	uint64_t old, alias;
	int instance;

	ck_assert_int_eq(inodes_retire(t, 7, &instance, &old), 0);
	alias = inodes_entry(t, 7);
	ck_assert_uint_eq(inodes_entry(t, 7), alias);
	inodes_forget(t, 7, 1);
	inodes_forget(t, alias, 1);
	ck_assert_uint_eq(inodes_current(t, 7), alias);
	inodes_forget(t, alias, 1);
	ck_assert_uint_eq(inodes_current(t, 7), 7);
	ck_assert_uint_eq(inodes_node(t, alias), alias);
	inodes_free(t);
}
END_TEST

START_TEST(alias_outlives_while_original_is_retired)
{
	struct inodes *t = table();
	uint64_t old, alias;
	int instance;

	ck_assert_int_eq(inodes_retire(t, 7, &instance, &old), 0);
	alias = inodes_entry(t, 7);
	inodes_forget(t, alias, 1);
	/* 7 is still open somewhere: a new lookup must not find it under 7. */
	ck_assert_uint_eq(inodes_entry(t, 7), alias);
	inodes_forget(t, 7, 1);
	inodes_forget(t, alias, 1);
	ck_assert_uint_eq(inodes_entry(t, 7), 7);
	ck_assert_int_eq(n_unrefs, 1);
	inodes_free(t);
}
END_TEST

START_TEST(alias_is_retired_too)
{
	struct inodes *t = table();
	uint64_t old, first, second;
	int a, b;

	ck_assert_int_eq(inodes_retire(t, 7, &a, &old), 0);
	first = inodes_entry(t, 7);
	ck_assert_int_eq(inodes_retire(t, 7, &b, &old), 0);
	ck_assert_uint_eq(old, first);
	second = inodes_entry(t, 7);
	ck_assert_uint_ne(second, first);
	ck_assert_ptr_eq(inodes_instance(t, 7), &a);
	ck_assert_ptr_eq(inodes_instance(t, first), &b);
	ck_assert_uint_eq(inodes_node(t, first), 7);
	inodes_forget(t, first, 1);
	ck_assert_ptr_eq(last_unref, &b);
	inodes_forget(t, 7, 5);
	ck_assert_ptr_eq(last_unref, &a);
	ck_assert_int_eq(n_unrefs, 2);
	ck_assert_uint_eq(inodes_current(t, 7), second);
	inodes_free(t);
}
END_TEST

START_TEST(lost_replies_are_not_counted)
{
	struct inodes *t = table();
	uint64_t old, alias;
	int a;

	inodes_entry_lost(t, inodes_entry(t, 7));
	ck_assert_int_eq(inodes_retire(t, 7, &a, &old), 0);
	alias = inodes_entry(t, 7);
	/* A lost reply with the retired number forgets nothing. */
	inodes_entry_lost(t, 7);
	ck_assert(inodes_retired(t, 7));
	inodes_forget(t, 7, 1);
	inodes_entry_lost(t, alias);
	ck_assert_uint_eq(inodes_current(t, 7), 7);
	/* More than was given out does not wrap around. */
	inodes_forget(t, alias, 1000);
	inodes_free(t);
}
END_TEST

START_TEST(free_gives_instances_back)
{
	struct inodes *t = table();
	uint64_t old;
	int a, b;

	ck_assert_int_eq(inodes_retire(t, 7, &a, &old), 0);
	ck_assert_int_eq(inodes_retire(t, 8, &b, &old), 0);
	inodes_free(t);
	ck_assert_int_eq(n_unrefs, 2);
	inodes_free(NULL);
}
END_TEST

START_TEST(orphans_stay_until_forgotten)
{
	struct inodes *t = table();
	struct node n = { .id = 7, .attr.mode = S_IFDIR | 0700 };
	struct node found;

	ck_assert(!inodes_orphan_get(t, 7, &found));
	ck_assert_int_eq(inodes_orphan_put(t, &n), 0);
	n.attr.mode = S_IFDIR | 0711;
	ck_assert_int_eq(inodes_orphan_put(t, &n), 0);
	ck_assert_uint_eq(inodes_orphans(t), 1);
	ck_assert(inodes_orphan_get(t, 7, &found));
	ck_assert_uint_eq(found.attr.mode, S_IFDIR | 0711);
	inodes_forget(t, 8, 1);
	ck_assert(inodes_orphan_get(t, 7, &found));
	inodes_forget(t, 7, 1);
	ck_assert(!inodes_orphan_get(t, 7, &found));
	ck_assert_uint_eq(inodes_orphans(t), 0);
	inodes_free(t);
}
END_TEST

START_TEST(orphan_under_an_alias)
{
	struct inodes *t = table();
	struct node n = { .id = 7 }, found;
	uint64_t old, alias;
	int a;

	ck_assert_int_eq(inodes_retire(t, 7, &a, &old), 0);
	alias = inodes_entry(t, 7);
	ck_assert_int_eq(inodes_orphan_put(t, &n), 0);
	inodes_forget(t, 7, 1);
	ck_assert(inodes_orphan_get(t, 7, &found));
	inodes_forget(t, alias, 1);
	ck_assert(!inodes_orphan_get(t, 7, &found));
	inodes_free(t);
}
END_TEST

START_TEST(orphans_have_xattrs)
{
	_cleanup_(xattr_table_done) struct xattr_table l = { 0 };
	_cleanup_buf_ struct buf b = { 0 };
	struct slice a = { (const uint8_t *)"user.a", 6 }, c = { (const uint8_t *)"user.c", 6 };
	struct slice value = { (const uint8_t *)"value", 5 }, big = { calloc(1, 65536), 65536 };
	struct inodes *t = table();
	struct node n = { .id = 7, .attr.ctime_ns = 5 }, found;

	ck_assert_int_eq(xattr_table_set(&l, a, value), 0);
	inodes_orphan_give_xattrs(t, 7, &l);
	ck_assert_uint_eq(l.n, 1);
	ck_assert_int_eq(inodes_orphan_getxattr(t, 7, a, &b), -ESTALE);
	ck_assert_int_eq(inodes_orphan_put(t, &n), 0);
	ck_assert_int_eq(inodes_orphan_getxattr(t, 7, a, &b), -ENODATA);
	inodes_orphan_give_xattrs(t, 7, &l);
	ck_assert_uint_eq(l.n, 0);
	ck_assert_int_eq(inodes_orphan_getxattr(t, 7, a, &b), 0);
	ck_assert_str_eq(buf_str(&b), "value");
	ck_assert_int_eq(inodes_orphan_setxattr(t, 7, a, &value, XATTR_CREATE), -EEXIST);
	ck_assert_int_eq(inodes_orphan_setxattr(t, 7, c, &value, XATTR_REPLACE), -ENODATA);
	ck_assert_int_eq(inodes_orphan_setxattr(t, 7, c, NULL, 0), -ENODATA);
	ck_assert_int_eq(inodes_orphan_setxattr(t, 7, a, &big, 0), 0);
	ck_assert_int_eq(inodes_orphan_setxattr(t, 7, c, &big, 0), -ENOSPC);
	ck_assert_int_eq(inodes_orphan_setxattr(t, 7, c, &value, 0), 0);
	ck_assert(inodes_orphan_get(t, 7, &found));
	ck_assert_int_gt(found.attr.ctime_ns, 5);
	buf_clear(&b);
	ck_assert_int_eq(inodes_orphan_listxattr(t, 7, &b), 0);
	ck_assert_uint_eq(b.len, 14);
	ck_assert_int_eq(inodes_orphan_setxattr(t, 7, a, NULL, 0), 0);
	/* Attributes that are put again leave them alone. */
	ck_assert_int_eq(inodes_orphan_put(t, &n), 0);
	buf_clear(&b);
	ck_assert_int_eq(inodes_orphan_listxattr(t, 7, &b), 0);
	ck_assert_str_eq(buf_str(&b), "user.c");
	inodes_orphan_drop(t, 7);
	ck_assert_uint_eq(inodes_orphans(t), 0);
	free((void *)(uintptr_t)big.p);
	inodes_free(t);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("inodes");
	TCase *c = tcase_create("inodes");
	SRunner *r;
	int failed;

	tcase_add_test(c, ids_are_nodes);
	tcase_add_test(c, retired_id_keeps_its_instance);
	tcase_add_test(c, alias_goes_when_forgotten);
	tcase_add_test(c, alias_outlives_while_original_is_retired);
	tcase_add_test(c, alias_is_retired_too);
	tcase_add_test(c, lost_replies_are_not_counted);
	tcase_add_test(c, free_gives_instances_back);
	tcase_add_test(c, orphans_stay_until_forgotten);
	tcase_add_test(c, orphan_under_an_alias);
	tcase_add_test(c, orphans_have_xattrs);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
