// SPDX-License-Identifier: Apache-2.0
#include "replica_kit.h"

#include "bounds.h"
#include "clock.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define REG (S_IFREG | 0644)
#define DIR_MODE (S_IFDIR | 0755)

static struct world w;
static struct device d;

static void setup(void)
{
	world_open(&w);
	device_open(&d, &w, 7, "laptop");
}

static void teardown(void)
{
	device_check(&d);
	device_reopen(&d);
	device_check(&d);
	device_close(&d);
	world_close(&w);
}

static struct node get(uint64_t id)
{
	struct node n;

	ck_assert_int_eq(tree_get(d.t, id, &n), 1);
	return n;
}

static int rename_flags(
	uint64_t p, const char *a, uint64_t q, const char *b, unsigned flags, struct victim *ret)
{
	struct renamed renamed;
	int r = tree_rename(d.t, p, text(a), q, text(b), flags, &renamed);

	if (r == 0)
		*ret = renamed.victim;
	return r;
}

START_TEST(create_and_look_up)
{
	struct node_init init = { .mode = REG, .uid = 5, .gid = 6 };
	struct node n, m;
	char longer[NAME_BYTES_MAX + 2];

	ck_assert_int_eq(tree_create(d.t, NODE_ROOT, text("f"), &init, &n), 0);
	ck_assert_uint_eq(node_device(n.id), 7);
	ck_assert_uint_eq(n.nlink, 1);
	ck_assert_int_eq(tree_lookup(d.t, NODE_ROOT, text("f"), &m), 1);
	ck_assert_uint_eq(m.id, n.id);
	ck_assert_uint_eq(m.attr.uid, 5);
	ck_assert_int_eq(tree_lookup(d.t, NODE_ROOT, text("g"), &m), 0);
	ck_assert_int_eq(tree_lookup(d.t, n.id, text("g"), &m), -ENOTDIR);
	ck_assert_int_eq(tree_create(d.t, NODE_ROOT, text("f"), &init, &m), -EEXIST);
	ck_assert_int_eq(tree_create(d.t, 99, text("f"), &init, &m), -ENOENT);
	ck_assert_int_eq(tree_create(d.t, n.id, text("f"), &init, &m), -ENOTDIR);
	ck_assert_int_eq(tree_create(d.t, NODE_ROOT, text(""), &init, &m), -ENOENT);
	ck_assert_int_eq(tree_create(d.t, NODE_ROOT, text("a/b"), &init, &m), -EINVAL);
	memset(longer, 'x', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	ck_assert_int_eq(tree_create(d.t, NODE_ROOT, text(longer), &init, &m), -ENAMETOOLONG);
	longer[NAME_BYTES_MAX] = '\0';
	ck_assert_int_eq(tree_create(d.t, NODE_ROOT, text(longer), &init, &m), 0);
	init.mode = 0644;
	ck_assert_int_eq(tree_create(d.t, NODE_ROOT, text("typeless"), &init, &m), -EINVAL);
	ck_assert_int_eq(tree_lookup(d.t, NODE_ROOT, text(longer), &n), 1);
	ck_assert_uint_eq(n.id, m.id);
}
END_TEST

START_TEST(ids_are_not_used_twice)
{
	uint64_t a = make(&d, NODE_ROOT, "a", REG), b;

	device_reopen(&d);
	b = make(&d, NODE_ROOT, "b", REG);
	ck_assert_uint_gt(b, a);
	ck_assert_uint_eq(get(a).id, a);
}
END_TEST

START_TEST(symlinks_and_specials)
{
	struct node_init init = { .mode = S_IFLNK | 0777, .target = text("../x") };
	_cleanup_buf_ struct buf b = { 0 };
	struct node n;

	ck_assert_int_eq(tree_create(d.t, NODE_ROOT, text("l"), &init, &n), 0);
	ck_assert_uint_eq(n.attr.size, 4);
	ck_assert_int_eq(tree_readlink(d.t, n.id, &b), 0);
	ck_assert_str_eq(buf_str(&b), "../x");
	ck_assert_int_eq(tree_readlink(d.t, NODE_ROOT, &b), -EINVAL);
	init = (struct node_init){ .mode = S_IFCHR | 0600, .rdev = 0x501 };
	ck_assert_int_eq(tree_create(d.t, NODE_ROOT, text("c"), &init, &n), 0);
	ck_assert_uint_eq(get(n.id).attr.rdev, 0x501);
}
END_TEST

START_TEST(directories_count_and_keep_time)
{
	uint64_t a = make(&d, NODE_ROOT, "a", DIR_MODE), b = make(&d, a, "b", DIR_MODE), parent;
	struct node before = get(a);
	_cleanup_victim_ struct victim v = { 0 };

	ck_assert_uint_eq(get(a).nlink, 3);
	ck_assert_uint_eq(get(NODE_ROOT).nlink, 3);
	ck_assert_int_eq(tree_parent(d.t, b, &parent), 0);
	ck_assert_uint_eq(parent, a);
	make(&d, a, "f", REG);
	ck_assert_int_gt(get(a).attr.mtime_ns, before.attr.mtime_ns);
	before = get(a);
	device_reopen(&d);
	ck_assert_int_eq(get(a).attr.mtime_ns, before.attr.mtime_ns);
	ck_assert_int_eq(tree_rmdir(d.t, NODE_ROOT, text("a"), &v), -ENOTEMPTY);
	ck_assert_int_eq(tree_rmdir(d.t, a, text("f"), &v), -ENOTDIR);
	ck_assert_int_eq(tree_unlink(d.t, a, text("b"), &v), -EISDIR);
	ck_assert_int_eq(tree_rmdir(d.t, a, text("b"), &v), 0);
	ck_assert_uint_eq(v.node.id, b);
	ck_assert_uint_eq(v.node.nlink, 0);
	ck_assert_uint_eq(get(a).nlink, 2);
	ck_assert_int_eq(tree_rmdir(d.t, NODE_ROOT, text("a"), &v), -ENOTEMPTY);
	ck_assert_int_eq(remove_file(&d, a, "f"), 0);
	ck_assert_int_eq(tree_rmdir(d.t, NODE_ROOT, text("a"), &v), 0);
	ck_assert_int_eq(tree_rmdir(d.t, NODE_ROOT, text("a"), &v), -ENOENT);
	ck_assert_uint_eq(get(NODE_ROOT).nlink, 2);
}
END_TEST

START_TEST(explicit_times_of_directories_win)
{
	struct node_attr attr = { .mtime_ns = 12345 };
	uint64_t a = make(&d, NODE_ROOT, "a", DIR_MODE);
	int64_t soft;
	struct node n;

	make(&d, a, "f", REG);
	ck_assert_int_eq(tree_setattr(d.t, a, ATTR_MTIME, &attr, &n), 0);
	ck_assert_int_eq(n.attr.mtime_ns, 12345);
	device_reopen(&d);
	ck_assert_int_eq(get(a).attr.mtime_ns, 12345);
	make(&d, a, "g", REG);
	soft = get(a).attr.mtime_ns;
	ck_assert_int_ne(soft, 12345);
	attr.mode = 0700;
	ck_assert_int_eq(tree_setattr(d.t, a, ATTR_MODE, &attr, &n), 0);
	ck_assert_int_eq(n.attr.mtime_ns, soft);
	ck_assert_int_gt(n.attr.ctime_ns, soft);
	ck_assert_uint_eq(n.attr.mode, S_IFDIR | 0700);
}
END_TEST

START_TEST(names_that_change_set_ctime)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", DIR_MODE), a = make(&d, NODE_ROOT, "a", REG);
	uint64_t b = make(&d, NODE_ROOT, "b", REG);
	struct node was, was_b, n;
	_cleanup_victim_ struct victim v = { 0 };
	int64_t soft;

	make(&d, dir, "f", REG);
	soft = get(dir).attr.mtime_ns;
	ck_assert_int_eq(rename_flags(NODE_ROOT, "dir", NODE_ROOT, "moved", 0, &v), 0);
	ck_assert_int_eq(get(dir).attr.mtime_ns, soft);
	ck_assert_int_gt(get(dir).attr.ctime_ns, soft);
	was = get(a);
	was_b = get(b);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", dir, "f", RENAME_EXCHANGE, &v), 0);
	ck_assert_int_gt(get(a).attr.ctime_ns, was.attr.ctime_ns);
	ck_assert_int_eq(get(b).attr.ctime_ns, was_b.attr.ctime_ns);
	ck_assert_int_eq(tree_link(d.t, b, NODE_ROOT, text("b2"), &n), 0);
	was_b = get(b);
	make(&d, NODE_ROOT, "x", REG);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "x", NODE_ROOT, "b2", 0, &v), 0);
	ck_assert_int_gt(get(b).attr.ctime_ns, was_b.attr.ctime_ns);
	was = get(dir);
	device_sync(&d);
	device_check(&d);
	n = get(dir);
	ck_assert_int_eq(n.attr.mtime_ns, was.attr.mtime_ns);
	ck_assert_int_eq(n.attr.ctime_ns, was.attr.ctime_ns);
	device_reopen(&d);
	ck_assert_int_eq(get(dir).attr.ctime_ns, was.attr.ctime_ns);
}
END_TEST

START_TEST(attributes_and_an_xattr_in_one)
{
	struct xattr_edit edit = { .name = text("user.acl"), .value = text("one") };
	uint64_t f = make(&d, NODE_ROOT, "f", REG);
	struct node_attr attr = { .mode = 0640 };
	_cleanup_buf_ struct buf b = { 0 };
	struct outbox_stats stats;
	struct node n;
	uint64_t entries;

	ck_assert_int_eq(tree_setattr_xattr(d.t, f, ATTR_MODE, &attr, &edit, &n), 0);
	ck_assert_uint_eq(n.attr.mode, S_IFREG | 0640);
	ck_assert(n.has_xattrs);
	ck_assert_int_eq(tree_getxattr(d.t, f, edit.name, &b), 0);
	ck_assert_str_eq(buf_str(&b), "one");
	edit.remove = true;
	ck_assert_int_eq(tree_setattr_xattr(d.t, f, 0, &attr, &edit, &n), 0);
	ck_assert(!n.has_xattrs);
	replica_outbox_stats(d.t, &stats);
	entries = stats.entries;
	/* Nothing to do is no change. */
	ck_assert_int_eq(tree_setattr_xattr(d.t, f, 0, &attr, &edit, &n), 0);
	replica_outbox_stats(d.t, &stats);
	ck_assert_uint_eq(stats.entries, entries);
	attr.mode = 0600;
	ck_assert_int_eq(tree_setattr_xattr(d.t, f, ATTR_MODE, &attr, &edit, &n), 0);
	ck_assert_uint_eq(get(f).attr.mode, S_IFREG | 0600);
	ck_assert_int_eq(tree_setattr_xattr(d.t, f + 99, 0, &attr, &edit, &n), -ENOENT);
	device_sync(&d);
	device_check(&d);
}
END_TEST

START_TEST(who_gave_the_owner)
{
	uint64_t f = make(&d, NODE_ROOT, "f", REG);
	struct node_attr attr = { .uid = 5 };
	struct node n;

	ck_assert(get(f).owner_here);
	ck_assert_int_eq(tree_setattr(d.t, f, ATTR_UID, &attr, &n), 0);
	ck_assert(n.owner_here);
	device_sync(&d);
	device_reopen(&d);
	ck_assert(get(f).owner_here);
}
END_TEST

START_TEST(victims_keep_their_xattrs)
{
	uint64_t f = make(&d, NODE_ROOT, "f", REG);
	const struct xattr *x;
	struct node n;
	_cleanup_victim_ struct victim v = { 0 };

	ck_assert_int_eq(tree_setxattr(d.t, f, text("user.a"), text("1"), 0), 0);
	ck_assert_int_eq(tree_link(d.t, f, NODE_ROOT, text("g"), &n), 0);
	ck_assert_int_eq(tree_unlink(d.t, NODE_ROOT, text("f"), &v), 0);
	ck_assert_uint_eq(v.xattrs.n, 0);
	make(&d, NODE_ROOT, "h", REG);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "h", NODE_ROOT, "g", 0, &v), 0);
	x = xattr_table_find(&v.xattrs, text("user.a"));
	ck_assert_ptr_nonnull(x);
	ck_assert_mem_eq(x->value.p, "1", 1);
}
END_TEST

static int count_names(void *ctx, uint64_t parent, struct slice name)
{
	++*(int *)ctx;
	return 0;
}

START_TEST(hard_links)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", DIR_MODE);
	uint64_t f = make_file(&d, NODE_ROOT, "f", "bytes");
	struct node n, was = get(f);
	_cleanup_victim_ struct victim v = { 0 };
	int names = 0;

	ck_assert_int_eq(tree_link(d.t, dir, NODE_ROOT, text("x"), &n), -EPERM);
	ck_assert_int_eq(tree_link(d.t, f, NODE_ROOT, text("dir"), &n), -EEXIST);
	ck_assert_int_eq(tree_link(d.t, f, dir, text("g"), &n), 0);
	ck_assert_int_eq(tree_link(d.t, f, dir, text("h"), &n), 0);
	ck_assert_uint_eq(n.nlink, 3);
	ck_assert_int_gt(n.attr.ctime_ns, was.attr.ctime_ns);
	ck_assert_int_eq(tree_names(d.t, f, count_names, &names), 0);
	ck_assert_int_eq(names, 3);
	/* The first name goes: another takes its place. */
	was = n;
	ck_assert_int_eq(tree_unlink(d.t, NODE_ROOT, text("f"), &v), 0);
	ck_assert_uint_eq(v.node.nlink, 2);
	ck_assert_int_gt(get(f).attr.ctime_ns, was.attr.ctime_ns);
	device_check(&d);
	/* Names of the same node: rename does nothing. */
	ck_assert_int_eq(rename_flags(dir, "g", dir, "h", 0, &v), 0);
	ck_assert(!v.any);
	ck_assert_uint_eq(find(&d, dir, "g"), f);
	ck_assert_int_eq(tree_unlink(d.t, dir, text("g"), &v), 0);
	ck_assert_int_eq(tree_unlink(d.t, dir, text("h"), &v), 0);
	ck_assert_uint_eq(v.node.nlink, 0);
	ck_assert_uint_eq(v.node.attr.size, 5);
	ck_assert_int_eq(tree_get(d.t, f, &n), 0);
	ck_assert_int_eq(tree_link(d.t, f, dir, text("i"), &n), -ENOENT);
}
END_TEST

START_TEST(rename_files)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", DIR_MODE);
	uint64_t a = make_file(&d, NODE_ROOT, "a", "A"), b = make_file(&d, NODE_ROOT, "b", "B");
	_cleanup_victim_ struct victim v = { 0 };
	struct node n;

	ck_assert_int_eq(rename_flags(NODE_ROOT, "x", NODE_ROOT, "y", 0, &v), -ENOENT);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", 99, "y", 0, &v), -ENOENT);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", b, "y", 0, &v), -ENOTDIR);
	ck_assert_int_eq(
		rename_flags(NODE_ROOT, "a", NODE_ROOT, "b", RENAME_NOREPLACE, &v), -EEXIST);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", NODE_ROOT, "a", 0, &v), 0);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", NODE_ROOT, "dir", 0, &v), -EISDIR);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", dir, "a", RENAME_NOREPLACE, &v), 0);
	ck_assert(!v.any);
	ck_assert_uint_eq(find(&d, dir, "a"), a);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "a"), 0);
	ck_assert_int_eq(rename_flags(dir, "a", NODE_ROOT, "b", 0, &v), 0);
	ck_assert(v.any);
	ck_assert_uint_eq(v.node.id, b);
	ck_assert_uint_eq(v.node.nlink, 0);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "b"), a);
	ck_assert_int_eq(tree_get(d.t, b, &n), 0);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "b", NODE_ROOT, "c", 8, &v), -EINVAL);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "b", NODE_ROOT, "c",
				 RENAME_EXCHANGE | RENAME_NOREPLACE, &v),
		-EINVAL);
}
END_TEST

static int rename_whiteout(
	uint64_t p, const char *a, uint64_t q, const char *b, unsigned flags, uint64_t *ret)
{
	struct node_init init = { .mode = S_IFCHR, .uid = 5, .gid = 6 };
	_cleanup_renamed_ struct renamed renamed = { 0 };
	int r = tree_rename_leaving(d.t, p, text(a), q, text(b), flags, &init, &renamed);

	if (r == 0)
		*ret = renamed.node.id;
	return r;
}

START_TEST(rename_leaves_a_whiteout)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", DIR_MODE), moved = 0;
	uint64_t a = make_file(&d, NODE_ROOT, "a", "A"), b = make_file(&d, NODE_ROOT, "b", "B");
	struct node n;

	ck_assert_int_eq(
		rename_whiteout(NODE_ROOT, "a", NODE_ROOT, "b", RENAME_NOREPLACE, &moved), -EEXIST);
	ck_assert_int_eq(
		rename_whiteout(NODE_ROOT, "a", NODE_ROOT, "b", RENAME_EXCHANGE, &moved), -EINVAL);
	ck_assert_int_eq(rename_whiteout(NODE_ROOT, "x", NODE_ROOT, "b", 0, &moved), -ENOENT);
	ck_assert_int_eq(rename_whiteout(NODE_ROOT, "a", dir, "a", RENAME_NOREPLACE, &moved), 0);
	ck_assert_uint_eq(moved, a);
	ck_assert_uint_eq(find(&d, dir, "a"), a);
	device_reopen(&d);
	n = get(find(&d, NODE_ROOT, "a"));
	ck_assert_uint_eq(n.attr.mode, S_IFCHR);
	ck_assert_uint_eq(n.attr.rdev, 0);
	ck_assert_uint_eq(n.attr.uid, 5);
	ck_assert_uint_eq(n.attr.gid, 6);
	ck_assert_uint_eq(n.nlink, 1);
	/* Over another one, and onto itself, where nothing is done. */
	ck_assert_int_eq(rename_whiteout(NODE_ROOT, "b", NODE_ROOT, "a", 0, &moved), 0);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "a"), b);
	ck_assert_uint_ne(find(&d, NODE_ROOT, "b"), n.id);
	ck_assert_int_eq(rename_whiteout(NODE_ROOT, "a", NODE_ROOT, "a", 0, &moved), 0);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "a"), b);
	ck_assert_int_eq(rename_whiteout(NODE_ROOT, "dir", NODE_ROOT, "moved", 0, &moved), 0);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "moved"), dir);
	ck_assert_uint_eq(get(NODE_ROOT).nlink, 3);
}
END_TEST

START_TEST(rename_over_one_of_two_names)
{
	uint64_t a = make_file(&d, NODE_ROOT, "a", "A"), b = make_file(&d, NODE_ROOT, "b", "B");
	_cleanup_victim_ struct victim v = { 0 };
	struct node n;

	ck_assert_int_eq(tree_link(d.t, b, NODE_ROOT, text("b2"), &n), 0);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", NODE_ROOT, "b", 0, &v), 0);
	ck_assert_uint_eq(v.node.id, b);
	ck_assert_uint_eq(v.node.nlink, 1);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "b"), a);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "b2"), b);
}
END_TEST

START_TEST(rename_directories)
{
	uint64_t a = make(&d, NODE_ROOT, "a", DIR_MODE), b = make(&d, a, "b", DIR_MODE);
	uint64_t c = make(&d, b, "c", DIR_MODE), e = make(&d, NODE_ROOT, "e", DIR_MODE), parent;
	_cleanup_victim_ struct victim v = { 0 };

	make(&d, NODE_ROOT, "f", REG);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", a, "x", 0, &v), -EINVAL);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", c, "x", 0, &v), -EINVAL);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", NODE_ROOT, "f", 0, &v), -ENOTDIR);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "e", NODE_ROOT, "a", 0, &v), -ENOTEMPTY);
	ck_assert_int_eq(rename_flags(a, "b", NODE_ROOT, "e", 0, &v), 0);
	ck_assert_uint_eq(v.node.id, e);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "e"), b);
	ck_assert_int_eq(tree_parent(d.t, b, &parent), 0);
	ck_assert_uint_eq(parent, NODE_ROOT);
	ck_assert_uint_eq(get(a).nlink, 2);
	ck_assert_uint_eq(get(NODE_ROOT).nlink, 4);
}
END_TEST

START_TEST(rename_exchange)
{
	uint64_t a = make(&d, NODE_ROOT, "a", DIR_MODE), b = make(&d, a, "b", DIR_MODE);
	uint64_t f = make_file(&d, b, "f", "F");
	_cleanup_victim_ struct victim v = { 0 };

	ck_assert_int_eq(
		rename_flags(NODE_ROOT, "a", NODE_ROOT, "x", RENAME_EXCHANGE, &v), -ENOENT);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "a", a, "b", RENAME_EXCHANGE, &v), -EINVAL);
	ck_assert_int_eq(rename_flags(a, "b", NODE_ROOT, "a", RENAME_EXCHANGE, &v), -EINVAL);
	make(&d, NODE_ROOT, "e", DIR_MODE);
	ck_assert_int_eq(rename_flags(NODE_ROOT, "e", b, "f", RENAME_EXCHANGE, &v), 0);
	ck_assert_uint_eq(v.node.id, f);
	ck_assert_uint_eq(v.node.nlink, 1);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "e"), f);
	ck_assert_uint_eq(get(NODE_ROOT).nlink, 3);
	ck_assert_uint_eq(get(b).nlink, 3);
}
END_TEST

START_TEST(readdir_walks_and_seeks)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", DIR_MODE), next[3000];
	char names[3000][8];
	struct tree_dirent e;
	struct tree_dir *td;

	for (int i = 0; i < 3000; i++) {
		char name[8];

		snprintf(name, sizeof name, "%04d", i);
		make(&d, dir, name, REG);
	}
	ck_assert_int_eq(tree_opendir(d.t, dir, &td), 0);
	ck_assert_int_eq(tree_seekdir(td, 0), 0);
	make(&d, dir, "later", REG);
	for (int i = 0; i < 3000; i++) {
		ck_assert_int_eq(tree_readdir(td, &e), 1);
		snprintf(names[i], sizeof names[i], "%.*s", (int)e.name.n, (const char *)e.name.p);
		ck_assert_uint_eq(e.type, S_IFREG);
		next[i] = e.next;
	}
	ck_assert_int_eq(tree_readdir(td, &e), 0);
	ck_assert_int_eq(remove_file(&d, dir, "later"), 0);
	for (int i = 0; i < 2999; i += 97) {
		ck_assert_int_eq(tree_seekdir(td, next[(i * 7) % 2999]), 0);
		ck_assert_int_eq(tree_readdir(td, &e), 1);
		ck_assert_mem_eq(e.name.p, names[(i * 7) % 2999 + 1], e.name.n);
	}
	ck_assert_int_eq(tree_seekdir(td, next[2999]), 0);
	ck_assert_int_eq(tree_readdir(td, &e), 0);
	ck_assert_int_eq(tree_seekdir(td, 0), 0);
	for (int i = 0; i < 3000; i++)
		ck_assert_int_eq(tree_readdir(td, &e), 1);
	ck_assert_int_eq(tree_readdir(td, &e), 0);
	tree_closedir(td);
	ck_assert_int_eq(tree_opendir(d.t, make(&d, NODE_ROOT, "f", REG), &td), -ENOTDIR);
}
END_TEST

/* What is there throughout is listed once, whatever comes and goes, and from anybody's place. */
START_TEST(readdir_goes_on_from_a_place)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", DIR_MODE), place = 0;
	struct tree_dirent e;
	int seen[200] = { 0 };

	for (int i = 0; i < 200; i++)
		make(&d, dir, (char[]){ (char)('a' + i / 20), (char)('a' + i % 20), '\0' }, REG);
	for (int n = 0;; n++) {
		struct tree_dir *td;
		int r, i;

		ck_assert_int_eq(tree_opendir(d.t, dir, &td), 0);
		ck_assert_int_eq(tree_seekdir(td, place), 0);
		r = tree_readdir(td, &e);
		if (r == 0) {
			tree_closedir(td);
			break;
		}
		ck_assert_int_eq(r, 1);
		ck_assert_uint_gt(e.next, place);
		place = e.next;
		if (e.name.n == 2) {
			i = (e.name.p[0] - 'a') * 20 + e.name.p[1] - 'a';
			seen[i]++;
			/* The one that it stands on goes, and another one comes. */
			if (i % 3 == 0)
				ck_assert_int_eq(remove_file(&d, dir,
							 (char[]){ (char)('a' + i / 20),
								 (char)('a' + i % 20), '\0' }),
					0);
		}
		tree_closedir(td);
		if (n < 200)
			make(&d, dir,
				(char[]){ 'n', (char)('0' + n / 26), (char)('a' + n % 26), '\0' },
				REG);
	}
	for (int i = 0; i < 200; i++)
		ck_assert_int_eq(seen[i], 1);
}
END_TEST

START_TEST(contents)
{
	uint64_t f = make(&d, NODE_ROOT, "f", REG), other = 0;
	struct digest empty = { 0 }, one = content_of("one");
	_cleanup_manifest_ struct manifest *m = NULL;
	_cleanup_victim_ struct victim v = { 0 };

	ck_assert(has_bytes(&d, f, ""));
	ck_assert_int_eq(write_file(&d, f, "one"), CONTENT_PUT);
	ck_assert(has_bytes(&d, f, "one"));
	ck_assert_int_eq(tree_manifest(d.t, f, &empty, &m), 0);
	ck_assert_uint_eq(manifest_size(m), 0);
	/* Upon something that is not there any more: beside it, unless it is the same. */
	ck_assert_int_eq(write_upon(&d, f, &empty, "one", NODE_ROOT, "f", NULL), CONTENT_PUT);
	ck_assert_int_eq(write_upon(&d, f, &empty, "two", NODE_ROOT, "f", &other), CONTENT_COPIED);
	ck_assert_uint_ne(other, f);
	ck_assert(has_bytes(&d, f, "one"));
	ck_assert(has_bytes(&d, other, "two"));
	ck_assert_ptr_nonnull(strstr(buf_str(&d.events), "link"));
	/* To nothing, and back. */
	ck_assert_int_eq(write_upon(&d, f, &one, "", NODE_ROOT, "f", NULL), CONTENT_PUT);
	ck_assert(has_bytes(&d, f, ""));
	ck_assert_int_eq(tree_unlink(d.t, NODE_ROOT, text("f"), &v), 0);
	ck_assert_int_eq(
		write_upon(&d, f, &empty, "three", NODE_ROOT, "f", &other), CONTENT_REVIVED);
	ck_assert_uint_eq(find(&d, NODE_ROOT, "f"), f);
	ck_assert(has_bytes(&d, f, "three"));
}
END_TEST

START_TEST(large_manifests_have_a_row)
{
	uint64_t f = make(&d, NODE_ROOT, "f", REG);
	_cleanup_manifest_ struct manifest *m = NULL, *back = NULL;
	struct manifest_builder *b;
	struct content_update u = { .node = f };
	enum content_result result;
	struct digest id;
	struct node n;

	ck_assert_int_eq(manifest_builder_new(&b), 0);
	for (int i = 0; i < 100; i++) {
		digest_of(&i, sizeof i, &id);
		ck_assert_int_eq(manifest_add_chunk(b, &id, 100000), 0);
	}
	ck_assert_int_eq(manifest_builder_finish(b, &m), 0);
	u.manifest = m;
	ck_assert_int_eq(tree_put_content(d.t, &u, &result, &n), 0);
	ck_assert_uint_eq(n.attr.size, 10000000);
	ck_assert_int_eq(tree_manifest(d.t, f, &n.attr.content, &back), 0);
	ck_assert_uint_eq(manifest_count(back), 100);
}
END_TEST

START_TEST(a_store_holds_one_drive)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct err err;

	ck_assert_int_eq(tree_format(d.st, "other", 3, 0, &err), -EEXIST);
	ck_assert_int_eq(tree_drive_id(d.st, &b), 1);
	ck_assert_str_eq(buf_str(&b), "home");
	ck_assert_uint_eq(replica_device_number(d.t), 7);
	ck_assert_int_eq(tree_sync(d.t), 0);
}
END_TEST

static void *make_and_move(void *arg)
{
	uint64_t dir = *(uint64_t *)arg;

	for (int i = 0; i < 200; i++) {
		char name[16], other[16];

		snprintf(name, sizeof name, "n%d", i);
		snprintf(other, sizeof other, "m%d", i % 7);
		make_file(&d, dir, name, "bytes");
		ck_assert_int_eq(move(&d, dir, name, NODE_ROOT, other), 0);
	}
	return NULL;
}

static void *look(void *arg)
{
	for (int i = 0; i < 1000; i++) {
		struct node n;
		char name[16];

		snprintf(name, sizeof name, "m%d", i % 7);
		ck_assert_int_ge(tree_lookup(d.t, NODE_ROOT, text(name), &n), 0);
		ck_assert_int_eq(tree_get(d.t, NODE_ROOT, &n), 1);
	}
	return NULL;
}

START_TEST(threads_share_a_tree)
{
	uint64_t dirs[2] = { make(&d, NODE_ROOT, "x", DIR_MODE),
		make(&d, NODE_ROOT, "y", DIR_MODE) };
	pthread_t threads[4];

	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, i < 2 ? make_and_move : look,
					 &dirs[i % 2]),
			0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(get(dirs[0]).nlink, 2);
	ck_assert_uint_ne(find(&d, NODE_ROOT, "m0"), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tree");
	TCase *tc = tcase_create("tree");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, create_and_look_up);
	tcase_add_test(tc, names_that_change_set_ctime);
	tcase_add_test(tc, attributes_and_an_xattr_in_one);
	tcase_add_test(tc, who_gave_the_owner);
	tcase_add_test(tc, victims_keep_their_xattrs);
	tcase_add_test(tc, ids_are_not_used_twice);
	tcase_add_test(tc, symlinks_and_specials);
	tcase_add_test(tc, directories_count_and_keep_time);
	tcase_add_test(tc, explicit_times_of_directories_win);
	tcase_add_test(tc, hard_links);
	tcase_add_test(tc, rename_files);
	tcase_add_test(tc, rename_leaves_a_whiteout);
	tcase_add_test(tc, rename_over_one_of_two_names);
	tcase_add_test(tc, rename_directories);
	tcase_add_test(tc, rename_exchange);
	tcase_add_test(tc, readdir_walks_and_seeks);
	tcase_add_test(tc, readdir_goes_on_from_a_place);
	tcase_add_test(tc, contents);
	tcase_add_test(tc, large_manifests_have_a_row);
	tcase_add_test(tc, a_store_holds_one_drive);
	tcase_add_test(tc, threads_share_a_tree);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
