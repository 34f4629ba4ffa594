// SPDX-License-Identifier: Apache-2.0
/* Each thing that can be wrong with a store is planted, found, and where that is said, repaired. */
#include "replica_kit.h"

#include "bounds.h"
#include "bytes.h"
#include "io.h"
#include "meta/check.h"
#include "meta/chunk_row.h"
#include "meta/rescue.h"
#include "meta/rows.h"
#include "meta/tree_internal.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static struct world w;
static struct device d;

struct seen {
	uint64_t n;
	char text[8192];
	char paths[4096];
};

static void setup(void)
{
	world_open(&w);
	device_open(&d, &w, 7, "laptop");
}

static void teardown(void)
{
	device_close(&d);
	world_close(&w);
}

static void found(void *ctx, const struct check_problem *p)
{
	struct seen *s = ctx;

	s->n += p->severity != CHECK_NOTE;
	strncat(s->text, p->text, sizeof s->text - strlen(s->text) - 1);
	strncat(s->text, "\n", sizeof s->text - strlen(s->text) - 1);
	for (size_t i = 0; i < p->n_paths; i++)
		strncat(s->paths, p->paths[i], sizeof s->paths - strlen(s->paths) - 1);
}

static struct check_result look(bool repair, struct seen *ret)
{
	struct check_options o = {
		.store = d.st,
		.dir = d.dir,
		.device_name = d.name,
		.repair = repair,
		.found = found,
		.ctx = ret,
	};
	struct check_result result;
	struct err err = { 0 };

	*ret = (struct seen){ 0 };
	ck_assert_msg(check_run(&o, &result, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(result.problems, ret->n);
	return result;
}

static void expect_clean(void)
{
	struct seen s;
	struct check_result r = look(false, &s);

	ck_assert_msg(r.problems == 0 && !r.rebuild, "%s", s.text);
}

/* The words are said; the tree needs a new one, or not. */
static void expect(const char *words, bool rebuild)
{
	struct seen s;
	struct check_result r = look(false, &s);

	ck_assert_msg(strstr(s.text, words), "\"%s\" is not in: %s", words, s.text);
	ck_assert_msg(r.rebuild == rebuild, "%s", s.text);
}

static void put(enum store_cf cf, struct row_key k, const void *p, size_t n)
{
	_cleanup_batch_ struct batch *b = NULL;

	ck_assert_int_eq(batch_new(d.st, &b), 0);
	if (p)
		batch_put(b, cf, k.b, k.n, p, n);
	else
		batch_del(b, cf, k.b, k.n);
	ck_assert_int_eq(store_commit(d.st, b), 0);
}

static void get(enum store_cf cf, struct row_key k, struct buf *ret)
{
	ck_assert_int_eq(store_get(d.st, cf, k.b, k.n, ret), 1);
}

static void change_node(uint64_t id, void (*change)(struct node_rec *rec))
{
	_cleanup_buf_ struct buf row = { 0 };
	uint8_t bytes[NODE_ROW_MAX];
	struct node_rec rec;

	get(CF_NODE, key_id(id), &row);
	ck_assert_int_eq(node_decode((struct slice){ row.data, row.len }, &rec), 0);
	change(&rec);
	put(CF_NODE, key_id(id), bytes, node_encode(&rec, bytes));
}

static void more_links(struct node_rec *rec)
{
	rec->links += 3;
}

static void no_name(struct node_rec *rec)
{
	rec->name = (struct slice){ 0 };
	rec->parent = 0;
}

static void more_subdirs(struct node_rec *rec)
{
	rec->subdirs += 2;
}

static void other_content(struct node_rec *rec)
{
	rec->attr.content.b[3] ^= 4;
}

static void later_entry(struct node_rec *rec)
{
	rec->entry += 7;
}

static void expect_derived(void)
{
	struct seen s;
	struct check_result r = look(false, &s);

	ck_assert_msg(r.problems > 0 && r.repaired == 0 && !r.rebuild, "found: %s", s.text);
	r = look(true, &s);
	ck_assert_msg(r.problems > 0 && r.repaired == r.problems, "repaired: %s", s.text);
	expect_clean();
	device_check(&d);
}

START_TEST(derived_fields_are_derived_again)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", S_IFDIR | 0755);
	uint64_t f = make_file(&d, dir, "f", "bytes");
	static const uint8_t version = ROW_VERSION;
	struct node n;

	make(&d, dir, "sub", S_IFDIR | 0755);
	ck_assert_int_eq(tree_link(d.t, f, NODE_ROOT, text("g"), &n), 0);
	ck_assert_int_eq(tree_link(d.t, f, dir, text("h"), &n), 0);
	expect_clean();
	put(CF_NAMES, key_name(f, NODE_ROOT, text("g")), NULL, 0);
	expect_derived();
	change_node(f, more_links);
	expect_derived();
	change_node(f, no_name);
	expect_derived();
	change_node(dir, more_subdirs);
	change_node(NODE_ROOT, more_subdirs);
	expect_derived();
	put(CF_NAMES, key_name(f, NODE_ROOT, text("nowhere")), &version, 1);
	expect_derived();
	put(CF_NAMES, key_name(node_id(7, 3), NODE_ROOT, text("gone")), &version, 1);
	put(CF_NAMES, key_name(node_id(9, 3), NODE_ROOT, text("gone")), &version, 1);
	expect_derived();
	device_sync(&d);
	expect_clean();
}
END_TEST

START_TEST(a_broken_tree_is_told)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", S_IFDIR | 0755);
	uint64_t sub = make(&d, dir, "sub", S_IFDIR | 0755);
	uint64_t f = make_file(&d, sub, "f", "bytes");
	_cleanup_buf_ struct buf row = { 0 }, link = { 0 };
	uint8_t value[ROW_HEAD + 1] = { ROW_VERSION }, number[8];

	get(CF_NODE, key_id(f), &row);
	put(CF_NODE, key_id(f), NULL, 0);
	expect("leads to no node", true);
	put(CF_NODE, key_id(f), row.data, row.len);
	expect_clean();

	get(CF_LINK, key_link(sub, text("f")), &link);
	put(CF_LINK, key_link(sub, text("f")), NULL, 0);
	expect("no name leads to node", true);
	put(CF_LINK, key_link(sub, text("f")), link.data, link.len);
	expect_clean();

	put(CF_XATTR, key_child(node_id(8, 8), text("user.x")), value, sizeof value);
	expect("xattr of node", true);
	put(CF_XATTR, key_child(node_id(8, 8), text("user.x")), NULL, 0);

	change_node(f, other_content);
	expect("another content than was written", true);
	change_node(f, other_content);
	change_node(f, later_entry);
	expect("which the outbox lacks", true);
	device_reopen(&d);

	put_le64(number, 2);
	put(CF_STATE, (struct row_key){ .n = 7, .b = "counter" }, number, 8);
	expect("was never given", true);
	put(CF_STATE, (struct row_key){ .n = 6, .b = "cursor" }, "xyz", 3);
	expect("malformed", true);
}
END_TEST

static void into_itself(struct node_rec *rec)
{
	rec->parent = node_id(7, 2);
}

START_TEST(a_loop_is_told)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", S_IFDIR | 0755);
	uint64_t sub = make(&d, dir, "sub", S_IFDIR | 0755);
	_cleanup_buf_ struct buf link = { 0 };

	ck_assert_uint_eq(sub, node_id(7, 2));
	get(CF_LINK, key_link(NODE_ROOT, text("dir")), &link);
	put(CF_LINK, key_link(NODE_ROOT, text("dir")), NULL, 0);
	put(CF_LINK, key_link(sub, text("dir")), link.data, link.len);
	change_node(dir, into_itself);
	expect("does not end at the root", true);
}
END_TEST

/* A chunk of its own segment; what the row says comes back. */
static struct chunk_row add_chunk(struct digest *ret_id, unsigned flags)
{
	static uint8_t bytes[300000];
	_cleanup_batch_ struct batch *b = NULL;
	_cleanup_buf_ struct buf value = { 0 };
	struct chunk_row row;

	bytes[7]++;
	digest_of(bytes, sizeof bytes, ret_id);
	ck_assert_int_eq(batch_new(d.st, &b), 0);
	ck_assert_int_eq(cache_add(d.cache, b, ret_id, bytes, sizeof bytes, flags), 0);
	ck_assert_int_eq(store_commit(d.st, b), 0);
	ck_assert_int_eq(store_get(d.st, CF_CHUNK, ret_id->b, DIGEST_BYTES, &value), 1);
	ck_assert_int_eq(chunk_row_decode(value.data, value.len, &row), 0);
	return row;
}

static void flip(const struct chunk_row *row, uint32_t at)
{
	char path[200];
	uint8_t byte;
	int fd;

	snprintf(path, sizeof path, "%s/segments/%016llx", d.dir, (unsigned long long)row->segment);
	fd = open(path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(io_pread_full(fd, &byte, 1, row->offset + at), 0);
	byte ^= 1;
	ck_assert_int_eq(io_pwrite_full(fd, &byte, 1, row->offset + at), 0);
	close(fd);
}

START_TEST(damaged_chunks_are_found)
{
	struct digest ids[2];
	struct chunk_row ours = add_chunk(&ids[0], 0);
	struct chunk_row theirs = add_chunk(&ids[1], CACHE_ON_SERVER);
	struct chunk_loc loc;
	struct check_result r;
	struct seen s;

	expect_clean();
	flip(&ours, ours.length - 1);
	flip(&theirs, 0);
	r = look(false, &s);
	ck_assert_uint_eq(r.damaged, 2);
	ck_assert_uint_eq(r.repaired, 0);
	r = look(true, &s);
	ck_assert_uint_eq(r.repaired, 1);
	/* The server's is fetched anew; ours is not served, and not forgotten. */
	ck_assert_int_eq(cache_locate(d.cache, &ids[1], &loc), 0);
	ck_assert_int_eq(cache_locate(d.cache, &ids[0], &loc), -EIO);
	r = look(false, &s);
	ck_assert_uint_eq(r.damaged, 1);
}
END_TEST

/* Once hashed since the opening, bytes are believed; after the next opening, not. */
START_TEST(readers_get_no_damaged_bytes)
{
	struct digest ids[2];
	struct chunk_row ours = add_chunk(&ids[0], 0);
	struct chunk_row theirs = add_chunk(&ids[1], CACHE_ON_SERVER);
	struct cache_stats stats;
	struct chunk_loc loc;

	device_reopen(&d);
	flip(&ours, 5);
	flip(&theirs, 5);
	ck_assert_int_eq(cache_locate_verified(d.cache, &ids[1], &loc), 0);
	ck_assert_int_eq(cache_locate_verified(d.cache, &ids[0], &loc), -EIO);
	cache_get_stats(d.cache, &stats);
	ck_assert_uint_eq(stats.damaged, 2);
	ck_assert_uint_eq(stats.lost, 1);
	add_chunk(&ids[1], 0);
	ck_assert_int_eq(cache_locate_verified(d.cache, &ids[1], &loc), 1);
	chunk_loc_done(&loc);
}
END_TEST

START_TEST(what_is_unsent_is_rescued)
{
	uint64_t dir = make(&d, NODE_ROOT, "dir", S_IFDIR | 0755);
	_cleanup_free_ char *folder = NULL;
	_cleanup_buf_ struct buf bytes = { 0 };
	struct rescue_result r;
	struct err err = { 0 };
	uint64_t device, counter;
	char path[300];

	make_file(&d, dir, "sent", "sent bytes");
	device_sync(&d);
	make_file(&d, dir, "unsent", "unsent bytes");
	make(&d, dir, "empty", S_IFDIR | 0755);
	tree_free(d.t);
	cache_free(d.cache);
	ck_assert_msg(rescue_and_renew(d.st, d.dir, "0123456789abcdef0123456789abcdef", &folder, &r,
			      &err) == 0,
		"%s", err.text);
	d.t = NULL;
	d.cache = NULL;
	ck_assert_uint_eq(r.files, 1);
	ck_assert_uint_eq(r.lost, 0);
	snprintf(path, sizeof path, "%s/files/dir/unsent", folder);
	ck_assert_int_eq(io_read_file(path, 100, &bytes), 0);
	ck_assert_mem_eq(bytes.data, "unsent bytes", bytes.len);

	/* The new one is that of the same device, and gives no number twice. */
	snprintf(path, sizeof path, "%s/store", d.dir);
	ck_assert_int_eq(store_open(path, &d.st, &err), 0);
	ck_assert_int_eq(state_get_u64(d.st, STATE_DEVICE, &device), 1);
	ck_assert_int_eq(state_get_u64(d.st, STATE_COUNTER, &counter), 1);
	ck_assert_uint_eq(device, 7);
	ck_assert_uint_gt(counter, 4);
	expect_clean();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("check");
	TCase *tc = tcase_create("check");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, derived_fields_are_derived_again);
	tcase_add_test(tc, a_broken_tree_is_told);
	tcase_add_test(tc, a_loop_is_told);
	tcase_add_test(tc, damaged_chunks_are_found);
	tcase_add_test(tc, readers_get_no_damaged_bytes);
	tcase_add_test(tc, what_is_unsent_is_rescued);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
