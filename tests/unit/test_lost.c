// SPDX-License-Identifier: Apache-2.0
/* What a power loss leaves of the tree: meta/sealed.h and tree_drop_lost(). */
#include "replica_kit.h"

#include "meta/cache.h"
#include "meta/sealed.h"

#include <check.h>
#include <string.h>
#include <sys/stat.h>

static struct world w;
static struct device a, b;

static void setup(void)
{
	world_open(&w);
	device_open(&a, &w, 1, "a");
	device_open(&b, &w, 2, "b");
}

static void teardown(void)
{
	device_close(&a);
	device_close(&b);
	world_close(&w);
}

/* As cache_open() notes it of a chunk whose bytes are gone. */
static void lose(struct device *d, const char *bytes)
{
	_cleanup_batch_ struct batch *batch = NULL;
	struct digest id;

	digest_of(bytes, strlen(bytes), &id);
	ck_assert_int_eq(batch_new(d->st, &batch), 0);
	batch_put(batch, CF_STATE, CACHE_STATE_LOST, strlen(CACHE_STATE_LOST), id.b, DIGEST_BYTES);
	ck_assert_int_eq(store_commit(d->st, batch), 0);
	device_reopen(d);
}

static uint64_t drop(struct device *d)
{
	struct err err = { 0 };
	uint64_t n = 99;

	ck_assert_msg(tree_drop_lost(d->t, &n, &err) == 0, "%s", err.text);
	return n;
}

START_TEST(changes_from_the_first_without_bytes_on_are_taken_back)
{
	uint64_t file = make_file(&a, NODE_ROOT, "kept", "the old bytes"), fresh;

	device_sync(&a);
	make(&a, NODE_ROOT, "before", S_IFDIR | 0755);
	fresh = make_file(&a, NODE_ROOT, "kept.tmp", "new bytes that the disk does not have");
	ck_assert_int_eq(move(&a, NODE_ROOT, "kept.tmp", NODE_ROOT, "kept"), 0);
	make(&a, NODE_ROOT, "behind", S_IFDIR | 0755);
	ck_assert_uint_eq(find(&a, NODE_ROOT, "kept"), fresh);
	lose(&a, "new bytes that the disk does not have");
	/* The write, the rename, the directory; the create before them stays. */
	ck_assert_uint_eq(drop(&a), 3);
	ck_assert_uint_eq(find(&a, NODE_ROOT, "kept"), file);
	ck_assert(has_bytes(&a, file, "the old bytes"));
	ck_assert(has_bytes(&a, fresh, ""));
	ck_assert_uint_ne(find(&a, NODE_ROOT, "before"), 0);
	ck_assert_uint_eq(find(&a, NODE_ROOT, "behind"), 0);
	ck_assert_uint_eq(drop(&a), 0);
	device_check(&a);
}
END_TEST

START_TEST(what_is_taken_back_goes_to_nobody)
{
	uint64_t file = make_file(&a, NODE_ROOT, "f", "one"), dir;

	device_sync(&a);
	write_file(&a, file, "two");
	write_file(&a, file, "three");
	lose(&a, "three");
	ck_assert_uint_eq(drop(&a), 1);
	/* And what comes then, comes behind what is left, also after another start. */
	dir = make(&a, NODE_ROOT, "d", S_IFDIR | 0755);
	device_reopen(&a);
	ck_assert_uint_eq(find(&a, NODE_ROOT, "d"), dir);
	device_sync(&a);
	device_sync(&b);
	ck_assert(has_bytes(&b, file, "two"));
	expect_equal(&a, &b);
	device_check(&a);
}
END_TEST

START_TEST(all_of_the_outbox_can_go)
{
	uint64_t file = make_file(&a, NODE_ROOT, "f", "one");

	device_sync(&a);
	write_file(&a, file, "two");
	lose(&a, "two");
	ck_assert_uint_eq(drop(&a), 1);
	ck_assert(has_bytes(&a, file, "one"));
	device_check(&a);
	write_file(&a, file, "three");
	device_reopen(&a);
	ck_assert(has_bytes(&a, file, "three"));
	device_sync(&a);
	device_sync(&b);
	expect_equal(&a, &b);
}
END_TEST

/* Handed out, and not durable yet: so it did not leave. */
START_TEST(a_commit_in_flight_goes_with_its_changes)
{
	uint64_t file = make_file(&a, NODE_ROOT, "f", "one");
	struct outgoing o;

	device_sync(&a);
	write_file(&a, file, "two");
	ck_assert_int_eq(replica_next(a.t, &o), 1);
	outgoing_done(&o);
	write_file(&a, file, "three");
	lose(&a, "two");
	ck_assert_uint_eq(drop(&a), 2);
	ck_assert(has_bytes(&a, file, "one"));
	device_reopen(&a);
	write_file(&a, file, "four");
	device_sync(&a);
	device_sync(&b);
	ck_assert(has_bytes(&b, file, "four"));
	expect_equal(&a, &b);
	device_check(&a);
}
END_TEST

START_TEST(a_chunk_that_no_change_needs_takes_nothing_back)
{
	make_file(&a, NODE_ROOT, "f", "one");
	lose(&a, "something else");
	ck_assert_uint_eq(drop(&a), 0);
	ck_assert_uint_ne(find(&a, NODE_ROOT, "f"), 0);
}
END_TEST

static int count(void *ctx, const struct sealed *s)
{
	struct sealed *last = ctx;

	ck_assert_uint_gt(s->staging, last->staging);
	*last = *s;
	return 0;
}

static void put_stagings(uint64_t node, struct digest expected, const char *bytes,
	const uint64_t *stagings, size_t n)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	_cleanup_batch_ struct batch *batch = NULL;
	struct manifest_builder *builder;
	struct content_update u = { .node = node, .expected = expected, .stagings = stagings };
	enum content_result result;
	struct digest id;
	struct node after;

	digest_of(bytes, strlen(bytes), &id);
	ck_assert_int_eq(manifest_builder_new(&builder), 0);
	ck_assert_int_eq(manifest_add_chunk(builder, &id, strlen(bytes)), 0);
	ck_assert_int_eq(manifest_builder_finish(builder, &m), 0);
	ck_assert_int_eq(batch_new(a.st, &batch), 0);
	ck_assert_int_eq(cache_add(a.cache, batch, &id, bytes, strlen(bytes), 0), 0);
	u.manifest = m;
	u.batch = batch;
	u.n_stagings = n;
	ck_assert_int_eq(tree_put_content(a.t, &u, &result, &after), 0);
	ck_assert_int_eq(result, CONTENT_PUT);
}

START_TEST(the_tree_says_which_stagings_it_took)
{
	static const uint64_t first[] = { 5, 6 }, second[] = { 7 };
	uint64_t file = make_file(&a, NODE_ROOT, "f", "one");
	struct digest two = content_of("two");
	struct sealed last = { 0 };

	put_stagings(file, content_of("one"), "two", first, 2);
	put_stagings(file, two, "three", second, 1);
	ck_assert_int_eq(sealed_each(a.st, count, &last), 0);
	ck_assert_uint_eq(last.staging, 7);
	ck_assert_uint_eq(last.node, file);
	/* One whose change is taken back has not been taken. */
	lose(&a, "three");
	ck_assert_uint_eq(drop(&a), 1);
	last = (struct sealed){ 0 };
	ck_assert_int_eq(sealed_each(a.st, count, &last), 0);
	ck_assert_uint_eq(last.staging, 6);
	ck_assert(digest_eq(&last.content, &two));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lost");
	TCase *t = tcase_create("lost");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, changes_from_the_first_without_bytes_on_are_taken_back);
	tcase_add_test(t, what_is_taken_back_goes_to_nobody);
	tcase_add_test(t, all_of_the_outbox_can_go);
	tcase_add_test(t, a_commit_in_flight_goes_with_its_changes);
	tcase_add_test(t, a_chunk_that_no_change_needs_takes_nothing_back);
	tcase_add_test(t, the_tree_says_which_stagings_it_took);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
