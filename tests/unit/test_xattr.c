// SPDX-License-Identifier: Apache-2.0
#include "replica_kit.h"

#include "bounds.h"
#include "clock.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#define REG (S_IFREG | 0644)

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

static void both(struct device *a, struct device *b)
{
	device_sync(a);
	device_sync(b);
	device_sync(a);
}

START_TEST(xattrs)
{
	uint64_t f = make(&d, NODE_ROOT, "f", REG);
	_cleanup_buf_ struct buf b = { 0 }, big = { 0 };

	ck_assert_int_eq(tree_getxattr(d.t, f, text("user.a"), &b), -ENODATA);
	ck_assert_int_eq(tree_setxattr(d.t, f, text("user.a"), text("1"), XATTR_REPLACE), -ENODATA);
	ck_assert_int_eq(tree_setxattr(d.t, f, text("user.a"), text("1"), XATTR_CREATE), 0);
	ck_assert_int_eq(tree_setxattr(d.t, f, text("user.a"), text("2"), XATTR_CREATE), -EEXIST);
	ck_assert_int_eq(tree_setxattr(d.t, f, text("user.b"), text(""), 0), 0);
	ck_assert_int_eq(tree_getxattr(d.t, f, text("user.a"), &b), 0);
	ck_assert_str_eq(buf_str(&b), "1");
	buf_clear(&b);
	ck_assert_int_eq(tree_listxattr(d.t, f, &b), 0);
	ck_assert_uint_eq(b.len, 14);
	ck_assert(get(f).has_xattrs);
	ck_assert_int_eq(buf_reserve(&big, XATTR_VALUE_BYTES_MAX + 1), 0);
	memset(big.data, 'x', XATTR_VALUE_BYTES_MAX + 1);
	ck_assert_int_eq(tree_setxattr(d.t, f, text("user.c"),
				 (struct slice){ big.data, XATTR_VALUE_BYTES_MAX + 1 }, 0),
		-E2BIG);
	ck_assert_int_eq(tree_setxattr(d.t, f, text("user.c"),
				 (struct slice){ big.data, XATTR_VALUE_BYTES_MAX }, 0),
		0);
	ck_assert_int_eq(tree_setxattr(d.t, f, text("user.d"),
				 (struct slice){ big.data, XATTR_VALUE_BYTES_MAX }, 0),
		-ENOSPC);
	ck_assert_int_eq(tree_removexattr(d.t, f, text("user.c")), 0);
	ck_assert_int_eq(tree_removexattr(d.t, f, text("user.b")), 0);
	ck_assert_int_eq(tree_removexattr(d.t, f, text("user.b")), -ENODATA);
	ck_assert_int_eq(tree_removexattr(d.t, f, text("user.a")), 0);
	ck_assert(!get(f).has_xattrs);
	ck_assert_int_eq(tree_setxattr(d.t, f, text("user.z"), text("1"), 0), 0);
	ck_assert_int_eq(remove_file(&d, NODE_ROOT, "f"), 0);
}
END_TEST

static int64_t thread_ns(void)
{
	struct timespec t;

	ck_assert_int_eq(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* What it takes to give so many to nodes, each its part, and to take them away again. */
static int64_t xattrs_cost(const uint64_t *nodes, int n_nodes, int n)
{
	int64_t began = thread_ns();
	char name[32];

	for (int i = 0; i < n * 2; i++) {
		uint64_t node = nodes[i % n % n_nodes];
		int r;

		snprintf(name, sizeof name, "user.number_%05d", i % n);
		r = i < n ? tree_setxattr(d.t, node, text(name), text("value"), XATTR_CREATE)
			  : tree_removexattr(d.t, node, text(name));
		ck_assert_int_eq(r, 0);
	}
	for (int i = 0; i < n_nodes; i++)
		ck_assert(!get(nodes[i]).has_xattrs);
	return thread_ns() - began;
}

START_TEST(many_xattrs_cost_what_few_do)
{
	uint64_t nodes[128];
	int64_t few;

	for (int i = 0; i < 128; i++) {
		char name[8];

		snprintf(name, sizeof name, "f%d", i);
		nodes[i] = make(&d, NODE_ROOT, name, REG);
	}
	few = xattrs_cost(nodes, 128, 4096);
	ck_assert_int_lt(xattrs_cost(nodes, 1, 4096), 6 * few);
}
END_TEST

static int set_bytes(uint64_t node, const char *name, size_t n)
{
	static uint8_t bytes[XATTR_VALUE_BYTES_MAX];

	return tree_setxattr(d.t, node, text(name), (struct slice){ bytes, n - strlen(name) }, 0);
}

/* The limit is one of what is there now, however it came to be there. */
START_TEST(what_xattrs_a_node_carries)
{
	uint64_t f = make(&d, NODE_ROOT, "f", REG), g;
	struct node n;

	ck_assert_int_eq(set_bytes(f, "user.a", 60000), 0);
	ck_assert_int_eq(set_bytes(f, "user.b", 60000), 0);
	ck_assert_int_eq(set_bytes(f, "user.c", XATTR_NODE_BYTES_MAX - 120000 + 1), -ENOSPC);
	ck_assert_int_eq(set_bytes(f, "user.c", XATTR_NODE_BYTES_MAX - 120000), 0);
	ck_assert_int_eq(set_bytes(f, "user.d", 7), -ENOSPC);
	ck_assert_int_eq(set_bytes(f, "user.a", 59993), 0);
	ck_assert_int_eq(set_bytes(f, "user.d", 7), 0);
	ck_assert_int_eq(tree_removexattr(d.t, f, text("user.b")), 0);
	ck_assert_int_eq(set_bytes(f, "user.e", 60001), -ENOSPC);
	ck_assert_int_eq(set_bytes(f, "user.e", 60000), 0);
	device_reopen(&d);
	ck_assert_int_eq(set_bytes(f, "user.f", 7), -ENOSPC);
	ck_assert_int_eq(tree_removexattr(d.t, f, text("user.e")), 0);
	ck_assert_int_eq(tree_setattr_xattr(d.t, f, 0, &n.attr,
				 &(struct xattr_edit){ text("user.g"), text("0123") }, &n),
		0);
	ck_assert_int_eq(set_bytes(f, "user.h", 60000 - 10), 0);
	ck_assert_int_eq(set_bytes(f, "user.i", 7), -ENOSPC);
	ck_assert_int_eq(remove_file(&d, NODE_ROOT, "f"), 0);
	g = make(&d, NODE_ROOT, "g", REG);
	ck_assert_int_eq(set_bytes(g, "user.a", 65000), 0);
	ck_assert_int_eq(set_bytes(g, "user.b", 65000), 0);
}
END_TEST

/* What another device gave it counts, too. */
START_TEST(xattrs_from_elsewhere_count)
{
	uint64_t f = make(&d, NODE_ROOT, "f", REG);
	struct device other;

	device_open(&other, &w, 8, "desktop");
	ck_assert_int_eq(set_bytes(f, "user.a", 60000), 0);
	both(&d, &other);
	ck_assert_int_eq(tree_removexattr(other.t, f, text("user.a")), 0);
	ck_assert_int_eq(tree_setxattr(other.t, f, text("user.b"), text("four"), 0), 0);
	both(&d, &other);
	ck_assert_int_eq(set_bytes(f, "user.c", 65540), 0);
	ck_assert_int_eq(set_bytes(f, "user.d", XATTR_NODE_BYTES_MAX - 65540 - 10 + 1), -ENOSPC);
	ck_assert_int_eq(set_bytes(f, "user.e", XATTR_NODE_BYTES_MAX - 65540 - 10), 0);
	device_check(&other);
	device_close(&other);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("xattr");
	TCase *tc = tcase_create("xattr");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, xattrs);
	tcase_add_test(tc, many_xattrs_cost_what_few_do);
	tcase_add_test(tc, what_xattrs_a_node_carries);
	tcase_add_test(tc, xattrs_from_elsewhere_count);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
