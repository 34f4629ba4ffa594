// SPDX-License-Identifier: Apache-2.0
/* The outbox, acknowledgements, pages, and every row of the table of conflicts. */
#include "replica_kit.h"

#include "bounds.h"
#include "clock.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define REG (S_IFREG | 0644)
#define DIR_MODE (S_IFDIR | 0755)

static struct world w;
static struct device a, b;

static void setup(void)
{
	world_open(&w);
	device_open(&a, &w, 1, "A");
	device_open(&b, &w, 2, "B");
}

/* Everything quiet: equal, and whole. */
static void quieten(void)
{
	for (int i = 0; i < 3; i++) {
		device_sync(&a);
		device_sync(&b);
	}
	device_check(&a);
	device_check(&b);
	expect_equal(&a, &b);
	device_reopen(&a);
	expect_equal(&a, &b);
}

static void teardown(void)
{
	quieten();
	device_close(&a);
	device_close(&b);
	world_close(&w);
}

static struct node get(struct device *d, uint64_t id)
{
	struct node n;

	ck_assert_int_eq(tree_get(d->t, id, &n), 1);
	return n;
}

static bool gone(struct device *d, uint64_t id)
{
	struct node n;

	return tree_get(d->t, id, &n) == 0;
}

static uint64_t entries(struct device *d)
{
	struct outbox_stats s;

	replica_outbox_stats(d->t, &s);
	return s.entries;
}

/* The conflicted copy that `d` made of a name, today. 0 when there is none. */
static uint64_t copy_of(struct device *on, struct device *d, uint64_t parent, const char *name)
{
	_cleanup_buf_ struct buf c = { 0 };

	ck_assert_int_eq(conflict_name(text(name), d->name, clock_real_ns(), 0, &c), 0);
	return find(on, parent, buf_str(&c));
}

struct listed {
	const char *kind;
	int n;
};

static int count_kind(void *ctx, const struct conflict *c)
{
	struct listed *l = ctx;

	l->n += strcmp(c->kind, l->kind) == 0;
	return 0;
}

static int conflicts(struct device *d, const char *kind)
{
	struct listed l = { .kind = kind };

	ck_assert_int_eq(replica_conflicts(d->t, count_kind, &l), 0);
	return l.n;
}

START_TEST(changes_of_every_kind_arrive)
{
	uint64_t dir = make(&a, NODE_ROOT, "dir", DIR_MODE), f = make_file(&a, dir, "f", "one");
	struct node_attr attr = { .mode = 0600, .mtime_ns = 5, .atime_ns = 6, .uid = 7, .gid = 8 };
	struct node n;
	_cleanup_renamed_ struct renamed moved = { 0 };

	make(&a, dir, "link", S_IFLNK | 0777);
	make(&a, dir, "fifo", S_IFIFO | 0600);
	make_file(&a, dir, "gone", "x");
	ck_assert_int_eq(tree_link(a.t, f, NODE_ROOT, text("g"), &n), 0);
	ck_assert_int_eq(tree_setattr(a.t, f, ATTR_ALL & ~ATTR_CTIME, &attr, &n), 0);
	ck_assert_int_eq(tree_setxattr(a.t, f, text("user.k"), text("v"), 0), 0);
	ck_assert_int_eq(tree_setxattr(a.t, dir, text("user.k"), text("v"), 0), 0);
	quieten();
	ck_assert(has_bytes(&b, f, "one"));
	ck_assert_ptr_nonnull(strstr(buf_str(&b.events), "link"));
	ck_assert_int_eq(remove_file(&a, dir, "gone"), 0);
	ck_assert_int_eq(
		tree_rename(a.t, dir, text("fifo"), NODE_ROOT, text("g"), RENAME_EXCHANGE, &moved),
		0);
	ck_assert_int_eq(remove_file(&a, dir, "f"), 0);
	ck_assert_int_eq(tree_removexattr(a.t, f, text("user.k")), 0);
	ck_assert_int_eq(write_file(&a, f, "two"), CONTENT_PUT);
	quieten();
	ck_assert_int_eq(remove_file(&a, dir, "fifo"), 0);
	quieten();
	ck_assert(gone(&b, f));
	ck_assert_ptr_nonnull(strstr(buf_str(&b.events), "gone"));
	ck_assert_int_eq(conflicts(&a, "write/write") + conflicts(&b, "write/write"), 0);
}
END_TEST

START_TEST(changes_between_commits_keep_their_base)
{
	uint64_t dir = make(&a, NODE_ROOT, "dir", DIR_MODE), f = make_file(&a, dir, "f", "one");
	struct node_attr attr = { .mode = 0600 };
	struct outgoing o;
	struct node n;

	ck_assert_int_eq(replica_next(a.t, &o), 1);
	/* Changes while a commit is under way. */
	ck_assert_int_eq(write_file(&a, f, "two"), CONTENT_PUT);
	ck_assert_int_eq(tree_setattr(a.t, dir, ATTR_MODE, &attr, &n), 0);
	ck_assert_int_eq(tree_setxattr(a.t, f, text("user.k"), text("v"), 0), 0);
	make_file(&a, dir, "g", "three");
	ck_assert_int_eq(move(&a, dir, "f", NODE_ROOT, "f2"), 0);
	outgoing_done(&o);
	ck_assert_int_eq(device_push(&a), 1);
	ck_assert_uint_gt(entries(&a), 0);
	device_sync(&b);
	ck_assert(has_bytes(&b, f, "one"));
	ck_assert_uint_eq(find(&b, dir, "f"), f);
	/* A page comes in between, and lies under what is queued. */
	attr.mode = 0640;
	ck_assert_int_eq(tree_setattr(b.t, f, ATTR_MODE, &attr, &n), 0);
	attr.uid = 3;
	ck_assert_int_eq(tree_setattr(b.t, dir, ATTR_UID, &attr, &n), 0);
	device_sync(&b);
	quieten();
	n = get(&b, f);
	ck_assert_uint_eq(n.attr.mode & 07777, 0640);
	ck_assert(n.has_xattrs);
	ck_assert(has_bytes(&b, f, "two"));
	ck_assert_uint_eq(find(&b, NODE_ROOT, "f2"), f);
	n = get(&b, dir);
	ck_assert_uint_eq(n.attr.mode & 07777, 0600);
	ck_assert_uint_eq(n.attr.uid, 3);
}
END_TEST

START_TEST(a_commit_in_flight_survives_a_crash)
{
	struct outgoing o;
	uint8_t id[COMMIT_ID_BYTES];
	uint64_t f = make_file(&a, NODE_ROOT, "f", "one");
	struct changes page = { .from = 0, .to = 0 };
	struct err err;
	size_t n;

	ck_assert_int_eq(replica_next(a.t, &o), 1);
	memcpy(id, o.commit.id, sizeof id);
	n = o.commit.n_changes;
	ck_assert_uint_eq(o.n_chunks, 1);
	ck_assert_uint_eq(o.commit.n_contents, 1);
	outgoing_done(&o);
	make_file(&a, NODE_ROOT, "g", "two");
	ck_assert_int_eq(replica_apply(a.t, &page, &err), -EBUSY);
	device_reopen(&a);
	ck_assert_int_eq(replica_next(a.t, &o), 1);
	ck_assert_mem_eq(o.commit.id, id, sizeof id);
	ck_assert_uint_eq(o.commit.n_changes, n);
	outgoing_done(&o);
	/* The answer is lost: the retry gets it again. */
	device_push_and_die(&a);
	ck_assert_int_eq(write_file(&a, f, "three"), CONTENT_PUT);
	quieten();
	ck_assert(has_bytes(&b, f, "three"));
}
END_TEST

START_TEST(batches_are_bounded_and_chunks_are_sent_once)
{
	struct outgoing o;

	for (int i = 0; i < COMMIT_CHANGES_MAX + 10; i++) {
		char name[16];

		snprintf(name, sizeof name, "f%d", i);
		if (i % 100)
			make(&a, NODE_ROOT, name, REG);
		else
			make_file(&a, NODE_ROOT, name, "same");
	}
	ck_assert_int_eq(replica_next(a.t, &o), 1);
	ck_assert_uint_eq(o.commit.n_changes, COMMIT_CHANGES_MAX);
	ck_assert_uint_eq(o.n_chunks, 1);
	ck_assert_uint_eq(o.commit.n_contents, 1);
	outgoing_done(&o);
	ck_assert_int_eq(device_push(&a), 1);
	ck_assert_int_eq(replica_next(a.t, &o), 1);
	ck_assert_uint_eq(o.n_chunks, 0);
	outgoing_done(&o);
	ck_assert_int_eq(replica_wait(a.t, 1, clock_mono_ms()), 0);
	ck_assert_int_eq(replica_wait(a.t, UINT64_MAX, clock_mono_ms() + 1), -ETIMEDOUT);
}
END_TEST

/* The table of DESIGN.md, section 5. Each begins with a file on both sides. */
static uint64_t shared_file(const char *name, const char *bytes)
{
	uint64_t f = make_file(&a, NODE_ROOT, name, bytes);

	quieten();
	return f;
}

START_TEST(write_write_other_bytes)
{
	uint64_t f = shared_file("f.txt", "base"), copy;
	struct node_attr attr = { .mtime_ns = 42 };
	struct node n;

	write_file(&a, f, "from A");
	device_sync(&a);
	write_file(&b, f, "from B 1");
	write_file(&b, f, "from B");
	ck_assert_int_eq(tree_setattr(b.t, f, ATTR_MTIME, &attr, &n), 0);
	quieten();
	copy = copy_of(&a, &b, NODE_ROOT, "f.txt");
	ck_assert_uint_ne(copy, 0);
	ck_assert(has_bytes(&a, f, "from A"));
	ck_assert(has_bytes(&a, copy, "from B"));
	ck_assert_int_eq(get(&a, copy).attr.mtime_ns, 42);
	ck_assert_int_eq(conflicts(&b, "write/write"), 1);
	ck_assert_ptr_nonnull(strstr(buf_str(&b.events), "content"));
}
END_TEST

START_TEST(write_write_same_bytes)
{
	uint64_t f = shared_file("f", "base");

	write_file(&a, f, "same");
	device_sync(&a);
	write_file(&b, f, "same");
	quieten();
	ck_assert_uint_eq(copy_of(&a, &b, NODE_ROOT, "f"), 0);
	ck_assert(has_bytes(&b, f, "same"));
	ck_assert_int_eq(conflicts(&b, "write/write"), 0);
}
END_TEST

START_TEST(write_delete_brings_file_and_parents_back)
{
	uint64_t dir = make(&a, NODE_ROOT, "dir", DIR_MODE), sub = make(&a, dir, "sub", DIR_MODE);
	uint64_t f = make_file(&a, sub, "f", "base");
	_cleanup_victim_ struct victim v = { 0 };

	ck_assert_int_eq(tree_setxattr(a.t, f, text("user.k"), text("v"), 0), 0);
	quieten();
	ck_assert_int_eq(remove_file(&a, sub, "f"), 0);
	ck_assert_int_eq(tree_rmdir(a.t, dir, text("sub"), &v), 0);
	ck_assert_int_eq(tree_rmdir(a.t, NODE_ROOT, text("dir"), &v), 0);
	device_sync(&a);
	write_file(&b, f, "kept");
	quieten();
	ck_assert_uint_eq(find(&a, NODE_ROOT, "dir"), dir);
	ck_assert_uint_eq(find(&a, dir, "sub"), sub);
	ck_assert_uint_eq(find(&a, sub, "f"), f);
	ck_assert(has_bytes(&a, f, "kept"));
	ck_assert(get(&a, f).has_xattrs);
	ck_assert_int_eq(conflicts(&b, "write/delete"), 1);
}
END_TEST

START_TEST(unsealed_write_delete_brings_parents_back_too)
{
	uint64_t dir = make(&a, NODE_ROOT, "dir", DIR_MODE), f = make_file(&a, dir, "f", "base");
	struct digest base = content_of("base");
	_cleanup_victim_ struct victim v = { 0 };

	quieten();
	ck_assert_int_eq(remove_file(&a, dir, "f"), 0);
	ck_assert_int_eq(tree_rmdir(a.t, NODE_ROOT, text("dir"), &v), 0);
	quieten();
	/* What was only staged on B is sealed now. */
	device_reopen(&b);
	ck_assert_int_eq(write_upon(&b, f, &base, "kept", dir, "f", NULL), CONTENT_REVIVED);
	quieten();
	ck_assert_uint_eq(find(&a, NODE_ROOT, "dir"), dir);
	ck_assert_uint_eq(find(&a, dir, "f"), f);
	ck_assert(has_bytes(&a, f, "kept"));
}
END_TEST

/* Bytes of a file that this device deleted, at whatever stage the deletion is. */
START_TEST(what_was_deleted_here_stays_deleted)
{
	struct digest base = content_of("base");
	uint64_t f[3], other;

	for (int i = 0; i < 3; i++)
		f[i] = make_file(&a, NODE_ROOT, (char[]){ 'f', (char)('0' + i), '\0' }, "base");
	quieten();
	a.known_entry = tree_place(a.t).entry;
	ck_assert_int_eq(remove_file(&a, NODE_ROOT, "f0"), 0);
	ck_assert_int_eq(device_push(&a), 1);
	/* Acknowledged behind a commit that is not here yet. */
	make_file(&b, NODE_ROOT, "news", "x");
	device_sync(&b);
	ck_assert_int_eq(remove_file(&a, NODE_ROOT, "f1"), 0);
	ck_assert_int_eq(device_push(&a), 1);
	ck_assert_int_eq(device_pull(&a), 0);
	/* Still in the outbox, as the victim of a rename. */
	make_file(&a, NODE_ROOT, "new", "y");
	ck_assert_int_eq(move(&a, NODE_ROOT, "new", NODE_ROOT, "f2"), 0);
	device_reopen(&a);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(write_upon(&a, f[i], &base, "mine", NODE_ROOT, "f", &other),
			CONTENT_DROPPED);
	/* Brought back by another device, and deleted by it again: that is news. */
	ck_assert_int_eq(
		write_upon(&b, f[0], &base, "again", NODE_ROOT, "f0", &other), CONTENT_REVIVED);
	quieten();
	ck_assert_uint_eq(find(&a, NODE_ROOT, "f0"), f[0]);
	a.known_entry = tree_place(a.t).entry;
	base = content_of("again");
	ck_assert_int_eq(remove_file(&b, NODE_ROOT, "f0"), 0);
	quieten();
	ck_assert_int_eq(
		write_upon(&a, f[0], &base, "mine", NODE_ROOT, "f0", &other), CONTENT_REVIVED);
	quieten();
	ck_assert(has_bytes(&b, f[0], "mine"));
}
END_TEST

START_TEST(delete_write)
{
	uint64_t f = shared_file("f", "base");

	write_file(&a, f, "wins");
	device_sync(&a);
	ck_assert_int_eq(remove_file(&b, NODE_ROOT, "f"), 0);
	quieten();
	ck_assert_uint_eq(find(&b, NODE_ROOT, "f"), f);
	ck_assert(has_bytes(&b, f, "wins"));
	ck_assert_int_eq(conflicts(&b, "delete/write"), 1);
}
END_TEST

START_TEST(setattr_setattr_merges)
{
	uint64_t f = shared_file("f", "base");
	struct node_attr attr = { .mode = 0600, .uid = 1, .gid = 1, .mtime_ns = 1 };
	struct node n;

	ck_assert_int_eq(tree_setattr(a.t, f, ATTR_MODE | ATTR_UID, &attr, &n), 0);
	device_sync(&a);
	attr = (struct node_attr){ .mode = 0640, .gid = 2, .mtime_ns = 2 };
	ck_assert_int_eq(tree_setattr(b.t, f, ATTR_MODE | ATTR_GID, &attr, &n), 0);
	ck_assert_int_eq(tree_setattr(b.t, f, ATTR_MTIME, &attr, &n), 0);
	quieten();
	n = get(&a, f);
	ck_assert_uint_eq(n.attr.mode & 07777, 0600);
	ck_assert_uint_eq(n.attr.uid, 1);
	ck_assert_uint_eq(n.attr.gid, 2);
	ck_assert_int_eq(n.attr.mtime_ns, 2);
}
END_TEST

START_TEST(setattr_write)
{
	uint64_t f = shared_file("f", "base");
	struct node_attr attr = { .mode = 0600 };
	struct node n;

	write_file(&a, f, "new");
	device_sync(&a);
	ck_assert_int_eq(tree_setattr(b.t, f, ATTR_MODE, &attr, &n), 0);
	quieten();
	ck_assert_uint_eq(get(&a, f).attr.mode & 07777, 0600);
	ck_assert(has_bytes(&a, f, "new"));
	ck_assert_uint_eq(copy_of(&a, &b, NODE_ROOT, "f"), 0);
}
END_TEST

START_TEST(xattrs_merge_by_name)
{
	uint64_t f = shared_file("f", "base");
	_cleanup_buf_ struct buf v = { 0 };

	ck_assert_int_eq(tree_setxattr(a.t, f, text("user.k"), text("A"), 0), 0);
	device_sync(&a);
	ck_assert_int_eq(tree_setxattr(b.t, f, text("user.k"), text("B"), 0), 0);
	ck_assert_int_eq(tree_setxattr(b.t, f, text("user.l"), text("B"), 0), 0);
	quieten();
	ck_assert_int_eq(tree_getxattr(b.t, f, text("user.k"), &v), 0);
	ck_assert_int_eq(tree_getxattr(b.t, f, text("user.l"), &v), 0);
	ck_assert_str_eq(buf_str(&v), "AB");
}
END_TEST

START_TEST(rename_rename)
{
	uint64_t f = shared_file("f", "base");

	ck_assert_int_eq(move(&a, NODE_ROOT, "f", NODE_ROOT, "theirs"), 0);
	device_sync(&a);
	ck_assert_int_eq(move(&b, NODE_ROOT, "f", NODE_ROOT, "ours"), 0);
	write_file(&b, f, "new");
	quieten();
	ck_assert_uint_eq(find(&b, NODE_ROOT, "theirs"), f);
	ck_assert_uint_eq(find(&b, NODE_ROOT, "ours"), 0);
	ck_assert(has_bytes(&a, f, "new"));
	ck_assert_int_eq(conflicts(&b, "rename/rename"), 1);
}
END_TEST

START_TEST(create_create_other_bytes)
{
	uint64_t x = make_file(&a, NODE_ROOT, "f.txt", "from A"), y;

	device_sync(&a);
	y = make_file(&b, NODE_ROOT, "f.txt", "from B");
	quieten();
	ck_assert_uint_eq(find(&b, NODE_ROOT, "f.txt"), x);
	ck_assert_uint_eq(copy_of(&a, &b, NODE_ROOT, "f.txt"), y);
	ck_assert(has_bytes(&a, y, "from B"));
	ck_assert_int_eq(conflicts(&b, "name taken"), 1);
}
END_TEST

START_TEST(create_create_same_bytes)
{
	uint64_t x = make_file(&a, NODE_ROOT, "f", "same"), y;

	device_sync(&a);
	y = make_file(&b, NODE_ROOT, "f", "same");
	quieten();
	ck_assert_uint_eq(find(&b, NODE_ROOT, "f"), x);
	ck_assert(gone(&b, y));
	ck_assert_uint_eq(copy_of(&a, &b, NODE_ROOT, "f"), 0);
}
END_TEST

START_TEST(directories_merge)
{
	uint64_t x = make(&a, NODE_ROOT, "d", DIR_MODE), y, sub, fa, fb;

	make(&a, x, "sub", DIR_MODE);
	fa = make_file(&a, x, "f", "from A");
	device_sync(&a);
	y = make(&b, NODE_ROOT, "d", DIR_MODE);
	sub = make(&b, y, "sub", DIR_MODE);
	make_file(&b, sub, "deep", "deep");
	fb = make_file(&b, y, "f", "from B");
	make_file(&b, y, "g", "g");
	quieten();
	ck_assert_uint_eq(find(&b, NODE_ROOT, "d"), x);
	ck_assert(gone(&b, y));
	ck_assert(gone(&b, sub));
	ck_assert_uint_eq(find(&a, x, "f"), fa);
	ck_assert_uint_eq(copy_of(&a, &b, x, "f"), fb);
	ck_assert_uint_ne(find(&a, x, "g"), 0);
	ck_assert_uint_ne(find(&a, find(&a, x, "sub"), "deep"), 0);
}
END_TEST

START_TEST(rename_onto_a_taken_name)
{
	uint64_t f = shared_file("f", "mine"), x;

	x = make_file(&a, NODE_ROOT, "g", "theirs");
	device_sync(&a);
	ck_assert_int_eq(move(&b, NODE_ROOT, "f", NODE_ROOT, "g"), 0);
	quieten();
	ck_assert_uint_eq(find(&b, NODE_ROOT, "g"), x);
	ck_assert_uint_eq(copy_of(&a, &b, NODE_ROOT, "g"), f);
	ck_assert_uint_eq(find(&a, NODE_ROOT, "f"), 0);
}
END_TEST

START_TEST(renamed_directory_merges)
{
	uint64_t d = make(&a, NODE_ROOT, "d", DIR_MODE), x, f, sub;

	f = make_file(&a, d, "f", "in d");
	sub = make(&a, d, "sub", DIR_MODE);
	make_file(&a, sub, "deep", "1");
	quieten();
	x = make(&a, NODE_ROOT, "e", DIR_MODE);
	make_file(&a, make(&a, x, "sub", DIR_MODE), "other", "2");
	device_sync(&a);
	ck_assert_int_eq(move(&b, NODE_ROOT, "d", NODE_ROOT, "e"), 0);
	write_file(&b, f, "written after the move");
	make_file(&b, d, "new", "3");
	quieten();
	ck_assert_uint_eq(find(&a, NODE_ROOT, "e"), x);
	ck_assert_uint_eq(find(&a, NODE_ROOT, "d"), 0);
	ck_assert_uint_eq(find(&a, x, "f"), f);
	ck_assert(has_bytes(&a, f, "written after the move"));
	ck_assert_uint_ne(find(&a, x, "new"), 0);
	ck_assert_uint_ne(find(&a, find(&a, x, "sub"), "deep"), 0);
	ck_assert_uint_ne(find(&a, find(&a, x, "sub"), "other"), 0);
}
END_TEST

START_TEST(save_by_rename_against_a_write)
{
	uint64_t f = shared_file("f.txt", "base"), tmp;

	write_file(&a, f, "from A");
	device_sync(&a);
	tmp = make_file(&b, NODE_ROOT, ".f.tmp", "from B 1");
	ck_assert_int_eq(move(&b, NODE_ROOT, ".f.tmp", NODE_ROOT, "f.txt"), 0);
	ck_assert(gone(&b, f));
	/* Saved once more, the same way. */
	tmp = make_file(&b, NODE_ROOT, ".f.tmp", "from B");
	ck_assert_int_eq(move(&b, NODE_ROOT, ".f.tmp", NODE_ROOT, "f.txt"), 0);
	quieten();
	ck_assert_uint_eq(find(&b, NODE_ROOT, "f.txt"), f);
	ck_assert(has_bytes(&b, f, "from A"));
	ck_assert_uint_eq(copy_of(&a, &b, NODE_ROOT, "f.txt"), tmp);
	ck_assert(has_bytes(&a, tmp, "from B"));
	ck_assert_uint_eq(find(&a, NODE_ROOT, ".f.tmp"), 0);
}
END_TEST

START_TEST(rename_loop)
{
	uint64_t x = make(&a, NODE_ROOT, "x", DIR_MODE), y = make(&a, NODE_ROOT, "y", DIR_MODE);

	quieten();
	ck_assert_int_eq(move(&a, NODE_ROOT, "y", x, "y"), 0);
	device_sync(&a);
	ck_assert_int_eq(move(&b, NODE_ROOT, "x", y, "x"), 0);
	make_file(&b, x, "f", "f");
	quieten();
	ck_assert_uint_eq(find(&b, NODE_ROOT, "x"), x);
	ck_assert_uint_eq(find(&b, x, "y"), y);
	ck_assert_uint_ne(find(&a, x, "f"), 0);
	ck_assert_int_eq(conflicts(&b, "rename loop"), 1);
}
END_TEST

START_TEST(create_in_a_deleted_directory)
{
	uint64_t dir = make(&a, NODE_ROOT, "dir", DIR_MODE), f;
	_cleanup_victim_ struct victim v = { 0 };

	quieten();
	ck_assert_int_eq(tree_rmdir(a.t, NODE_ROOT, text("dir"), &v), 0);
	device_sync(&a);
	f = make_file(&b, dir, "f", "f");
	make(&b, dir, "sub", DIR_MODE);
	quieten();
	ck_assert_uint_eq(find(&a, NODE_ROOT, "dir"), dir);
	ck_assert_uint_eq(find(&a, dir, "f"), f);
	ck_assert_uint_ne(find(&a, dir, "sub"), 0);
}
END_TEST

START_TEST(rmdir_against_a_create)
{
	uint64_t dir = make(&a, NODE_ROOT, "dir", DIR_MODE), f;
	_cleanup_victim_ struct victim v = { 0 };

	quieten();
	f = make_file(&a, dir, "f", "f");
	device_sync(&a);
	ck_assert_int_eq(tree_rmdir(b.t, NODE_ROOT, text("dir"), &v), 0);
	quieten();
	ck_assert_uint_eq(find(&b, NODE_ROOT, "dir"), dir);
	ck_assert_uint_eq(find(&b, dir, "f"), f);
}
END_TEST

START_TEST(the_same_thing_twice)
{
	uint64_t f = shared_file("f", "base"), g = shared_file("g", "base");
	struct node_attr attr = { .mode = 0600 };
	struct node n;

	for (struct device *d = &a; d; d = d == &a ? &b : NULL) {
		ck_assert_int_eq(remove_file(d, NODE_ROOT, "f"), 0);
		ck_assert_int_eq(move(d, NODE_ROOT, "g", NODE_ROOT, "h"), 0);
		ck_assert_int_eq(tree_setattr(d->t, g, ATTR_MODE, &attr, &n), 0);
		ck_assert_int_eq(tree_link(d->t, g, NODE_ROOT, text("i"), &n), 0);
		make(d, NODE_ROOT, "dir", DIR_MODE);
		make(d, NODE_ROOT, "sym", S_IFLNK | 0777);
		device_sync(&a);
	}
	quieten();
	ck_assert(gone(&b, f));
	ck_assert_uint_eq(find(&b, NODE_ROOT, "h"), g);
	ck_assert_uint_eq(get(&b, g).nlink, 2);
	ck_assert_uint_eq(get(&b, NODE_ROOT).nlink, 3);
}
END_TEST

START_TEST(a_link_keeps_what_they_deleted)
{
	uint64_t f = shared_file("f", "base"), sym = make(&a, NODE_ROOT, "sym", S_IFLNK | 0777);
	struct node n;

	quieten();
	ck_assert_int_eq(remove_file(&a, NODE_ROOT, "f"), 0);
	ck_assert_int_eq(remove_file(&a, NODE_ROOT, "sym"), 0);
	device_sync(&a);
	ck_assert_int_eq(tree_link(b.t, f, NODE_ROOT, text("g"), &n), 0);
	ck_assert_int_eq(tree_link(b.t, sym, NODE_ROOT, text("sym2"), &n), 0);
	quieten();
	ck_assert_uint_eq(find(&a, NODE_ROOT, "g"), f);
	ck_assert_uint_eq(find(&a, NODE_ROOT, "sym2"), sym);
	ck_assert(has_bytes(&a, f, "base"));
}
END_TEST

START_TEST(a_name_that_was_freed_is_taken_again)
{
	uint64_t f = shared_file("f", "base"), x, y;

	/* We delete and make anew what they wrote to. */
	write_file(&a, f, "theirs");
	device_sync(&a);
	ck_assert_int_eq(remove_file(&b, NODE_ROOT, "f"), 0);
	x = make_file(&b, NODE_ROOT, "f", "ours");
	y = make_file(&b, NODE_ROOT, "tmp", "passing");
	ck_assert_int_eq(remove_file(&b, NODE_ROOT, "tmp"), 0);
	quieten();
	ck_assert_uint_eq(find(&a, NODE_ROOT, "f"), f);
	ck_assert_uint_eq(copy_of(&a, &b, NODE_ROOT, "f"), x);
	ck_assert(gone(&a, y));
}
END_TEST

/* Pages that no server of ours would send. */
static void expect_bad(struct changes page)
{
	_cleanup_buf_ struct buf before = { 0 }, after = { 0 };
	struct err err = { 0 };

	page.from = replica_cursor(a.t);
	page.to = page.head = page.from + 1;
	device_dump(&a, &before);
	ck_assert_int_eq(replica_apply(a.t, &page, &err), -EBADMSG);
	ck_assert_str_ne(err.text, "");
	device_dump(&a, &after);
	ck_assert_str_eq((char *)before.data, (char *)after.data);
	ck_assert_uint_eq(replica_cursor(a.t), page.from);
}

START_TEST(bad_pages_change_nothing)
{
	uint64_t d1 = make(&a, NODE_ROOT, "d1", DIR_MODE), d2 = make(&a, d1, "d2", DIR_MODE);
	uint64_t f = make_file(&a, d1, "f", "base"), n9 = node_id(9, 9);
	struct node_row row = { .node = n9, .attr = { .mode = REG } };
	struct link_row link = { NODE_ROOT, text("new"), n9 }, links[2];
	struct node_row rows[2];
	struct slice junk = text("junk");

	quieten();
	/* A node without a name; a name without a node; a parent that is none. */
	expect_bad((struct changes){ .nodes = &row, .n_nodes = 1 });
	expect_bad((struct changes){ .links = &link, .n_links = 1 });
	link.parent = n9 + 1;
	expect_bad((struct changes){ .nodes = &row, .n_nodes = 1, .links = &link, .n_links = 1 });
	link.parent = f;
	expect_bad((struct changes){ .nodes = &row, .n_nodes = 1, .links = &link, .n_links = 1 });
	/* Bad names, the root. */
	link = (struct link_row){ NODE_ROOT, text("a/b"), n9 };
	expect_bad((struct changes){ .nodes = &row, .n_nodes = 1, .links = &link, .n_links = 1 });
	link = (struct link_row){ NODE_ROOT, text("root"), NODE_ROOT };
	expect_bad((struct changes){ .links = &link, .n_links = 1 });
	row = (struct node_row){ .node = NODE_ROOT, .deleted = true };
	expect_bad((struct changes){ .nodes = &row, .n_nodes = 1 });
	/* A directory of two names, and one below itself. */
	link = (struct link_row){ NODE_ROOT, text("again"), d2 };
	expect_bad((struct changes){ .links = &link, .n_links = 1 });
	links[0] = (struct link_row){ NODE_ROOT, text("d1"), 0 };
	links[1] = (struct link_row){ d2, text("d1"), d1 };
	expect_bad((struct changes){ .links = links, .n_links = 2 });
	/* Deleted, but named, or not empty. */
	row = (struct node_row){ .node = f, .deleted = true };
	expect_bad((struct changes){ .nodes = &row, .n_nodes = 1 });
	rows[0] = (struct node_row){ .node = d1, .deleted = true };
	expect_bad((struct changes){ .nodes = rows, .n_nodes = 1, .links = links, .n_links = 1 });
	links[0] = (struct link_row){ d1, text("f"), 0 };
	expect_bad((struct changes){ .links = links, .n_links = 1 });
	/* Another type; contents that are not there, not theirs, or none. */
	row = (struct node_row){ .node = f, .attr = { .mode = DIR_MODE } };
	expect_bad((struct changes){ .nodes = &row, .n_nodes = 1 });
	row = (struct node_row){ .node = f, .attr = { .mode = REG, .size = 5 } };
	row.attr.content = content_of("other");
	expect_bad((struct changes){ .nodes = &row, .n_nodes = 1 });
	expect_bad((struct changes){
		.nodes = &row, .n_nodes = 1, .contents = &junk, .n_contents = 1 });
	row.attr.content = content_of("base");
	expect_bad((struct changes){ .nodes = &row, .n_nodes = 1 });
	/* The same with a change of ours in the way: the outbox is lifted, and stays. */
	make(&a, d1, "pending", REG);
	links[0] = (struct link_row){ NODE_ROOT, text("d1"), 0 };
	links[1] = (struct link_row){ d2, text("d1"), d1 };
	expect_bad((struct changes){ .links = links, .n_links = 2 });
	ck_assert_uint_eq(entries(&a), 1);
}
END_TEST

START_TEST(conflict_names)
{
	_cleanup_buf_ struct buf n = { 0 };
	char longer[NAME_BYTES_MAX + 1];

	ck_assert_int_eq(conflict_name(text("a.tar.gz"), "pc", 0, 0, &n), 0);
	ck_assert_str_eq(buf_str(&n), "a.tar (conflicted copy, pc, 1970-01-01).gz");
	buf_clear(&n);
	ck_assert_int_eq(conflict_name(text(".bashrc"), "a/b", -1, 3, &n), 0);
	ck_assert_str_eq(buf_str(&n), ".bashrc (conflicted copy, a-b, 1969-12-31 3)");
	buf_clear(&n);
	for (int i = 0; i < 126; i++)
		memcpy(longer + 2 * i, "\xc3\xbc", 2);
	memcpy(longer + 252, ".c", 3);
	ck_assert_int_eq(conflict_name(text(longer), "pc", 0, 0, &n), 0);
	ck_assert_uint_le(n.len, NAME_BYTES_MAX);
	ck_assert_uint_ge(n.len, NAME_BYTES_MAX - 1);
	ck_assert_int_eq(memcmp(n.data + n.len - 3, ").c", 3), 0);
	ck_assert_int_eq(
		strncmp((char *)n.data +
				(n.len - strlen(" (conflicted copy, pc, 1970-01-01).c") - 2),
			"\xc3\xbc", 2),
		0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("replica");
	TCase *tc = tcase_create("replica");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, changes_of_every_kind_arrive);
	tcase_add_test(tc, changes_between_commits_keep_their_base);
	tcase_add_test(tc, a_commit_in_flight_survives_a_crash);
	tcase_add_test(tc, batches_are_bounded_and_chunks_are_sent_once);
	tcase_add_test(tc, write_write_other_bytes);
	tcase_add_test(tc, write_write_same_bytes);
	tcase_add_test(tc, write_delete_brings_file_and_parents_back);
	tcase_add_test(tc, unsealed_write_delete_brings_parents_back_too);
	tcase_add_test(tc, what_was_deleted_here_stays_deleted);
	tcase_add_test(tc, delete_write);
	tcase_add_test(tc, setattr_setattr_merges);
	tcase_add_test(tc, setattr_write);
	tcase_add_test(tc, xattrs_merge_by_name);
	tcase_add_test(tc, rename_rename);
	tcase_add_test(tc, create_create_other_bytes);
	tcase_add_test(tc, create_create_same_bytes);
	tcase_add_test(tc, directories_merge);
	tcase_add_test(tc, rename_onto_a_taken_name);
	tcase_add_test(tc, renamed_directory_merges);
	tcase_add_test(tc, save_by_rename_against_a_write);
	tcase_add_test(tc, rename_loop);
	tcase_add_test(tc, create_in_a_deleted_directory);
	tcase_add_test(tc, rmdir_against_a_create);
	tcase_add_test(tc, the_same_thing_twice);
	tcase_add_test(tc, a_link_keeps_what_they_deleted);
	tcase_add_test(tc, a_name_that_was_freed_is_taken_again);
	tcase_add_test(tc, bad_pages_change_nothing);
	tcase_add_test(tc, conflict_names);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
