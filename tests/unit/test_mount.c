// SPDX-License-Identifier: Apache-2.0
/* Mount options, mountinfo, and the queue of invalidations. */
#include "fs/inval_queue.h"
#include "fs/mount.h"

#include <check.h>
#include <errno.h>
#include <string.h>

static int options(const char *user, bool root, bool allow_other, struct buf *ret, struct err *err)
{
	return mount_options("varve#my, drive\\", user, root, allow_other, ret, err);
}

START_TEST(options_ours)
{
	_cleanup_buf_ struct buf root = { 0 }, user = { 0 };

	ck_assert_int_eq(options(NULL, true, true, &root, NULL), 0);
	ck_assert_str_eq(buf_str(&root), "subtype=varve,default_permissions,noatime,allow_other,"
					 "fsname=varve#my\\, drive\\\\");
	ck_assert_int_eq(options("", false, false, &user, NULL), 0);
	ck_assert_str_eq(buf_str(&user), "subtype=varve,default_permissions,noatime,"
					 "fsname=varve#my\\, drive\\\\");
}
END_TEST

START_TEST(options_of_user)
{
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(options("ro,,noexec,", false, false, &b, NULL), 0);
	ck_assert_ptr_nonnull(strstr(buf_str(&b), "\\\\,ro,noexec"));
}
END_TEST

START_TEST(options_posix)
{
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(options("ro,posix,noexec", true, true, &b, NULL), 0);
	ck_assert_str_eq(buf_str(&b),
		"subtype=varve,default_permissions,noatime,suid,dev,allow_other,"
		"fsname=varve#my\\, drive\\\\,ro,noexec");
	ck_assert(mount_is_posix("ro,posix"));
	ck_assert(!mount_is_posix("ro,posixy,nosuid"));
	ck_assert(!mount_is_posix(NULL));
}
END_TEST

START_TEST(options_refused)
{
	static const struct {
		const char *text;
		int error;
	} bad[] = {
		{ "r", -EINVAL },
		{ "ro,what", -EINVAL },
		{ "fsname=x", -EINVAL },
		{ "ro ", -EINVAL },
		{ "RO", -EINVAL },
		{ "suid", -EPERM },
		{ "nosuid,dev", -EPERM },
		{ "posix", -EPERM },
		{ "atime", -EINVAL },
		{ "allow_other", -EPERM },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_buf_ struct buf b = { 0 };
		struct err err = { 0 };

		ck_assert_int_eq(options(bad[i].text, false, false, &b, &err), bad[i].error);
		ck_assert_ptr_nonnull(strstr(err.text, "mount option '"));
	}
}
END_TEST

START_TEST(mountinfo)
{
	static const char text[] =
		"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
		"30 22 0:30 / /mnt/a\\040b\\134 rw - fuse.varve varve#x rw,user_id=0\n"
		"31 22 0:31 / /mnt/over rw - fuse.varve varve#x rw\n"
		"32 31 0:32 / /mnt/over rw master:1 - tmpfs tmpfs rw\n"
		"33 22 0:33 / /mnt/other rw - fuse.sshfs x rw\n"
		"damaged\n"
		"34 22 0:34 - fuse.varve\n"
		"35 22 0:35 / /mnt/end rw - fuse.varve varve#x rw";

	ck_assert(mount_is_ours(text, "/mnt/a b\\"));
	ck_assert(!mount_is_ours(text, "/mnt/a"));
	ck_assert(!mount_is_ours(text, "/mnt/over"));
	ck_assert(!mount_is_ours(text, "/mnt/other"));
	ck_assert(!mount_is_ours(text, "/"));
	ck_assert(mount_is_ours(text, "/mnt/end"));
	ck_assert(!mount_is_ours("", "/mnt/end"));
}
END_TEST

START_TEST(prepare_refuses)
{
	struct err err = { 0 };

	ck_assert_int_eq(mount_prepare("/nonexistent/x", &err), -ENOENT);
	ck_assert_int_eq(mount_prepare("/etc/passwd", &err), -ENOTDIR);
	ck_assert_ptr_nonnull(strstr(err.text, "not a directory"));
	ck_assert_int_eq(mount_prepare("/tmp", &err), 0);
	ck_assert_int_eq(mount_prepare("/", &err), 0);
	ck_assert_int_eq(mount_prepare(".", &err), 0);
}
END_TEST

static void put(struct inval_queue *q, enum tree_event_kind kind, uint64_t node, uint64_t parent,
	const char *name)
{
	struct tree_event e = { .kind = kind, .node = node, .parent = parent };

	e.name = (struct slice){ (const uint8_t *)name, name ? strlen(name) : 0 };
	ck_assert_int_eq(inval_queue_put(q, &e), 0);
}

START_TEST(queue_joins)
{
	struct inval_queue q = { 0 }, taken;
	struct inval_item *i;

	put(&q, TREE_ATTR, 5, 0, NULL);
	put(&q, TREE_LINK, 6, 5, "a");
	put(&q, TREE_LINK, 0, 5, "ab");
	put(&q, TREE_CONTENT, 5, 0, NULL);
	put(&q, TREE_LINK, 7, 5, "a");
	put(&q, TREE_LINK, 0, 6, "a");
	ck_assert_uint_eq(inval_queue_count(&q), 4);
	taken = inval_queue_take(&q);
	ck_assert_uint_eq(inval_queue_count(&q), 0);

	i = taken.items;
	ck_assert_uint_eq(i->node, 5);
	ck_assert_uint_eq(i->parent, 0);
	ck_assert(inval_item_has(i, TREE_ATTR) && inval_item_has(i, TREE_CONTENT));
	ck_assert(!inval_item_has(i, TREE_GONE) && !inval_item_has(i, TREE_LINK));
	i = i->hh.next;
	ck_assert_uint_eq(i->parent, 5);
	ck_assert_uint_eq(i->child, 7);
	ck_assert_uint_eq(inval_item_name(i).n, 1);
	i = i->hh.next;
	ck_assert_mem_eq(inval_item_name(i).p, "ab", 2);
	i = i->hh.next;
	ck_assert_uint_eq(i->parent, 6);
	ck_assert_ptr_null(i->hh.next);
	inval_queue_done(&taken);
	inval_queue_done(&q);
}
END_TEST

START_TEST(queue_of_many)
{
	struct inval_queue q = { 0 };
	char name[16];

	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 10000; i++) {
			snprintf(name, sizeof name, "n%d", i);
			put(&q, TREE_LINK, 0, 2, name);
			put(&q, TREE_ATTR, (uint64_t)i + 1, 0, NULL);
		}
	ck_assert_uint_eq(inval_queue_count(&q), 20000);
	inval_queue_done(&q);
	ck_assert_uint_eq(inval_queue_count(&q), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mount");
	TCase *c = tcase_create("mount");
	SRunner *r;
	int failed;

	tcase_add_test(c, options_ours);
	tcase_add_test(c, options_of_user);
	tcase_add_test(c, options_posix);
	tcase_add_test(c, options_refused);
	tcase_add_test(c, mountinfo);
	tcase_add_test(c, prepare_refuses);
	tcase_add_test(c, queue_joins);
	tcase_add_test(c, queue_of_many);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
