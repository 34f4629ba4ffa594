// SPDX-License-Identifier: Apache-2.0
/* Push, pull and fetch between a fake tree and a fake server that misbehave as they are told. */
#include "clock.h"
#include "drive_fake.h"
#include "bounds.h"
#include "log.h"
#include "remote/sync.h"
#include "replica_fake.h"

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

static struct drive_fake *drive;
static struct tree *tree;
static struct cache *cache;
static struct sync *sync_;
static struct err err;

static void make_sync(const char *url)
{
	struct sync_options o = { .tree = tree,
		.cache = cache,
		.url = url,
		.token = "t0ken",
		.drive_id = FAKE_DRIVE_ID };

	ck_assert_int_eq(sync_new(&o, &sync_, &err), 0);
}

static void set_up(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	drive = drive_fake_new(0);
	tree = tree_fake_new();
	cache = cache_fake_new();
	tree_fake_set_cache(tree, cache);
	make_sync(drive_fake_url(drive));
}

static void tear_down(void)
{
	unsigned violations;

	sync_free(sync_);
	violations = tree_fake_violations(tree);
	tree_fake_free(tree);
	cache_fake_free(cache);
	if (drive)
		drive_fake_free(drive);
	ck_assert_uint_eq(violations, 0);
}

static void settle(void)
{
	ck_assert_int_eq(sync_wait(sync_, clock_mono_ms() + 10000), 0);
}

static void start(void)
{
	ck_assert_int_eq(sync_start(sync_, &err), 0);
}

static struct drive_counts counts(void)
{
	struct drive_counts c;

	drive_fake_counts(drive, &c);
	return c;
}

static struct sync_status status(void)
{
	struct sync_status st;

	sync_get_status(sync_, &st);
	return st;
}

static void fault(struct drive_faults faults)
{
	drive_fake_set_faults(drive, &faults);
}

/* Past the first commit, which goes out without its chunks (push.c says why). */
static void start_warm(void)
{
	start();
	tree_fake_put(tree, NULL, 0);
	settle();
}

#define EVENTUALLY(condition)                                      \
	do {                                                       \
		int64_t until_ = clock_mono_ms() + 10000;          \
		while (!(condition) && clock_mono_ms() < until_)   \
			usleep(2000);                              \
		ck_assert_msg(condition, "never: %s", #condition); \
	} while (0)

START_TEST(small_chunks_travel_in_the_commit)
{
	struct digest ids[2] = { cache_fake_add(cache, 1, 1), cache_fake_add(cache, 2, 4096) };
	struct drive_counts c;

	start();
	tree_fake_put(tree, ids, 2);
	settle();
	c = counts();
	ck_assert_uint_eq(c.head, 1);
	ck_assert_uint_eq(c.inlined, 2);
	ck_assert_uint_eq(c.missing + c.packs, 0);
	ck_assert_uint_eq(replica_cursor(tree), 1);
	ck_assert_uint_eq(status().outbox_entries, 0);
	ck_assert_int_eq(status().link, SYNC_ONLINE);
	ck_assert_uint_eq(status().chunk_bytes_sent, 0);
}
END_TEST

START_TEST(large_chunks_travel_in_packs)
{
	struct digest ids[40];
	struct drive_counts c;

	for (unsigned i = 0; i < 40; i++)
		ids[i] = cache_fake_add(cache, i, i ? 1024 * 1024 - i : 100);
	start_warm();
	tree_fake_put(tree, ids, 40);
	settle();
	c = counts();
	ck_assert_uint_eq(c.inlined, 1);
	ck_assert_uint_eq(c.in_packs, 39);
	ck_assert_uint_ge(c.packs, 4);
	ck_assert_uint_le(c.packs, 6);
	ck_assert_uint_ge(c.missing, 1);
	ck_assert_uint_eq(c.commits, 2);
	ck_assert_uint_gt(status().chunk_bytes_sent, 38 * MIB);
}
END_TEST

START_TEST(known_chunks_are_not_sent)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct digest ids[2] = { cache_fake_add(cache, 1, 70000), cache_fake_add(cache, 2, 70000) };

	fake_bytes(1, 70000, &b);
	drive_fake_add_chunk(drive, b.data, b.len);
	start_warm();
	tree_fake_put(tree, ids, 2);
	settle();
	ck_assert_uint_eq(counts().in_packs, 1);
}
END_TEST

START_TEST(a_write_arrives_within_milliseconds)
{
	int64_t worst = 0;

	start();
	for (unsigned i = 0; i < 20; i++) {
		struct digest id = cache_fake_add(cache, 100 + i, 4096);
		int64_t began = clock_mono_ms();

		tree_fake_put(tree, &id, 1);
		EVENTUALLY(counts().head == i + 1);
		worst = MAX(worst, counts().committed_ms - began);
		settle();
	}
	ck_assert_int_lt(worst, 1000); /* machines under load; it is 1-2 ms */
}
END_TEST

START_TEST(what_comes_while_one_is_in_flight_gathers)
{
	for (unsigned i = 0; i < 1000; i++)
		tree_fake_put(tree, NULL, 0);
	start();
	settle();
	ck_assert_uint_eq(counts().changes_applied, 1000);
	ck_assert_uint_eq(counts().commits, 10); /* the fake outbox hands out 100 at a time */
	ck_assert_uint_le(counts().changes, 8); /* own commits are not each read back */
}
END_TEST

START_TEST(lost_replies_do_not_apply_twice)
{
	fault((struct drive_faults){ .lose_replies = 3 });
	start();
	for (unsigned i = 0; i < 5; i++) {
		tree_fake_put(tree, NULL, 0);
		settle();
	}
	ck_assert_uint_eq(counts().changes_applied, 5);
	ck_assert_uint_eq(counts().head, 5);
	ck_assert_uint_ge(counts().seen_twice, 3);
}
END_TEST

START_TEST(an_unknown_fate_keeps_pages_out)
{
	/* The tree counts a violation if a page is applied while the commit may be in flight. */
	fault((struct drive_faults){ .lose_replies = 1, .fail_commits = 0 });
	start();
	tree_fake_put(tree, NULL, 0);
	EVENTUALLY(counts().head >= 1);
	drive_fake_advance(drive, 3);
	settle();
	ck_assert_uint_eq(replica_cursor(tree), 4);
	ck_assert_uint_eq(counts().changes_applied, 1);
}
END_TEST

START_TEST(failing_servers_are_tried_again)
{
	fault((struct drive_faults){ .fail_commits = 3 });
	start();
	tree_fake_put(tree, NULL, 0);
	settle();
	ck_assert_uint_eq(counts().commits, 4);
	ck_assert_uint_eq(counts().changes_applied, 1);
}
END_TEST

START_TEST(stale_commits_pull_first)
{
	drive_fake_advance(drive, 7);
	tree_fake_put(tree, NULL, 0);
	start();
	settle();
	ck_assert_uint_eq(counts().changes_applied, 1);
	ck_assert_uint_eq(counts().last_base, 7);
	ck_assert_uint_eq(replica_cursor(tree), 8);
	ck_assert_uint_le(counts().commits, 2);
}
END_TEST

START_TEST(refusals_at_the_head_are_told_and_tried_again)
{
	struct sync_status st;

	fault((struct drive_faults){ .refuse_commits = 4, .refuse_as = REFUSAL_LOOP });
	start();
	tree_fake_put(tree, NULL, 0);
	EVENTUALLY(strstr(status().detail, "refuses"));
	st = status();
	ck_assert_int_eq(st.link, SYNC_ONLINE);
	ck_assert_ptr_nonnull(strstr(st.detail, "loop: as told"));
	ck_assert_ptr_nonnull(strstr(st.detail, "setattr"));
	settle();
	ck_assert_str_eq(status().detail, "");
	ck_assert_uint_eq(tree_fake_refusals(tree), 4);
	ck_assert_uint_eq(counts().changes_applied, 1);
}
END_TEST

START_TEST(a_revoked_token_is_told)
{
	start();
	settle();
	fault((struct drive_faults){ .status = 401 });
	tree_fake_put(tree, NULL, 0);
	EVENTUALLY(status().link == SYNC_REFUSED);
	ck_assert_ptr_nonnull(strstr(status().detail, "as told"));
	usleep(300000);
	ck_assert_uint_le(counts().commits, 3); /* and not tried in a loop */
	ck_assert_uint_eq(status().outbox_entries, 1);
}
END_TEST

START_TEST(cut_pages_are_asked_for_again)
{
	fault((struct drive_faults){ .cut_pages = 3 });
	drive_fake_advance(drive, 2);
	start();
	settle();
	ck_assert_uint_eq(replica_cursor(tree), 2);
	ck_assert_uint_eq(tree_fake_pages(tree), 1);
}
END_TEST

START_TEST(early_answers_do_not_spin)
{
	fault((struct drive_faults){ .early_pages = 1000000 });
	start();
	usleep(500000);
	ck_assert_uint_le(counts().changes, 5);
}
END_TEST

START_TEST(others_changes_come_at_once)
{
	start();
	settle();
	for (uint64_t i = 1; i <= 20; i++) {
		int64_t began = clock_mono_ms();

		drive_fake_advance(drive, 1);
		EVENTUALLY(replica_cursor(tree) == i);
		ck_assert_int_lt(clock_mono_ms() - began, 1000);
	}
}
END_TEST

START_TEST(a_page_overtakes_a_large_upload)
{
	struct digest ids[60];

	for (unsigned i = 0; i < 60; i++)
		ids[i] = cache_fake_add(cache, i, 1024 * 1024);
	fault((struct drive_faults){ .slow_packs_ms = 150 });
	start_warm();
	tree_fake_put(tree, ids, 60);
	EVENTUALLY(counts().packs >= 1);
	drive_fake_advance(drive, 1);
	EVENTUALLY(replica_cursor(tree) == 2);
	ck_assert_uint_lt(counts().in_packs, 60);
	settle();
	ck_assert_uint_eq(counts().head, 3);
	ck_assert_uint_eq(counts().in_packs, 60); /* nothing was sent twice */
	ck_assert_uint_eq(counts().last_base, 2);
}
END_TEST

START_TEST(a_commit_from_a_former_life_goes_out_as_it_is)
{
	struct digest id = cache_fake_add(cache, 1, 100000);

	tree_fake_put(tree, &id, 1);
	tree_fake_in_flight(tree);
	start();
	settle();
	ck_assert_uint_eq(counts().missing, 0);
	ck_assert_uint_eq(counts().changes_applied, 1);
}
END_TEST

START_TEST(damaged_chunks_are_not_sent)
{
	struct digest ids[2] = { cache_fake_add(cache, 1, _i), cache_fake_add(cache, 2, _i) };
	_cleanup_buf_ struct buf b = { 0 };

	start_warm();
	cache_fake_damage(cache, &ids[1]);
	tree_fake_put(tree, ids, 2);
	EVENTUALLY(strstr(status().detail, "damaged"));
	ck_assert_ptr_nonnull(strstr(status().detail, "cannot be uploaded"));
	ck_assert_uint_eq(counts().commits, 1);
	fake_bytes(2, (size_t)_i, &b); /* another device brings it */
	drive_fake_add_chunk(drive, b.data, b.len);
	settle();
	ck_assert_uint_eq(counts().changes_applied, 2);
	ck_assert_str_eq(status().detail, "");
}
END_TEST

START_TEST(works_on_when_the_server_is_back)
{
	int port = drive_fake_port(drive);

	start();
	settle();
	drive_fake_free(drive);
	EVENTUALLY(status().link == SYNC_OFFLINE);
	tree_fake_put(tree, NULL, 0);
	ck_assert_int_eq(sync_wait(sync_, clock_mono_ms() + 200), -ETIMEDOUT);
	drive = drive_fake_new(port);
	settle();
	ck_assert_uint_eq(counts().changes_applied, 1);
	ck_assert_int_eq(status().link, SYNC_ONLINE);
}
END_TEST

START_TEST(stops_within_a_second)
{
	int64_t began;
	struct digest ids[30];

	for (unsigned i = 0; i < 30; i++)
		ids[i] = cache_fake_add(cache, i, 1024 * 1024);
	start_warm(); /* and then hangs in the feed */
	if (_i == 1) {
		fault((struct drive_faults){ .slow_packs_ms = 1200 });
		tree_fake_put(tree, ids, 30);
		EVENTUALLY(counts().packs >= 1);
	}
	if (_i == 2) {
		fault((struct drive_faults){ .status = 500 });
		tree_fake_put(tree, NULL, 0);
		EVENTUALLY(status().link == SYNC_OFFLINE);
	}
	began = clock_mono_ms();
	sync_stop(sync_);
	ck_assert_int_lt(clock_mono_ms() - began, 1000);
	tree_fake_put(tree, NULL, 0);
	ck_assert_int_eq(sync_wait(sync_, clock_mono_ms() + 1000), -EINTR);
}
END_TEST

/* What a fetch delivered. */
struct delivered {
	struct digest ids[512];
	size_t n;
	size_t bytes;
};

static int take(void *ctx, const struct digest *id, const void *p, size_t n)
{
	struct delivered *d = ctx;
	struct digest check;

	digest_of(p, n, &check);
	ck_assert(digest_eq(&check, id));
	for (size_t i = 0; i < d->n; i++)
		ck_assert(!digest_eq(&d->ids[i], id));
	d->ids[d->n++] = *id;
	d->bytes += n;
	return 0;
}

static struct delivered got;

static int fetch(const struct digest *ids, size_t n, int64_t timeout_ms, const _Atomic int *cancel)
{
	struct chunk_source source = sync_chunk_source(sync_);

	got.n = got.bytes = 0;
	return source.fetch(
		source.ctx, ids, n, clock_mono_ms() + timeout_ms, cancel, take, &got, &err);
}

static void serve(unsigned first_seed, size_t n, size_t bytes, struct digest *ret_ids)
{
	for (size_t i = 0; i < n; i++) {
		_cleanup_buf_ struct buf b = { 0 };

		fake_bytes(first_seed + (unsigned)i, bytes, &b);
		digest_of(b.data, b.len, &ret_ids[i]);
		drive_fake_add_chunk(drive, b.data, b.len);
	}
}

START_TEST(fetches_one_and_many)
{
	struct digest ids[300];

	serve(1, 300, 5000, ids);
	ck_assert_int_eq(fetch(ids, 1, 5000, NULL), 0);
	ck_assert_uint_eq(got.n, 1);
	ck_assert_int_eq(fetch(ids, 300, 5000, NULL), 0);
	ck_assert_uint_eq(got.n, 300);
	ck_assert_uint_eq(got.bytes, 300 * 5000);
	ck_assert_int_eq(fetch(ids, 0, 5000, NULL), 0);
}
END_TEST

START_TEST(several_requests_run_side_by_side)
{
	struct digest ids[128];
	int64_t began = clock_mono_ms();

	serve(1, 128, 100, ids);
	fault((struct drive_faults){ .slow_fetches_ms = 300 });
	ck_assert_int_eq(fetch(ids, 128, 5000, NULL), 0);
	ck_assert_int_lt(clock_mono_ms() - began, 900);
}
END_TEST

START_TEST(wrong_bytes_are_never_delivered)
{
	struct drive_faults kinds[] = { { .damage_frames = 1 }, { .swap_frames = 1 },
		{ .drop_frames = 1 } };
	struct digest ids[10];

	serve(1, 10, 5000, ids);
	fault(kinds[_i]);
	ck_assert_int_eq(fetch(ids, 10, 5000, NULL), 0);
	ck_assert_uint_eq(got.n, 10);
	ck_assert_uint_eq(counts().fetches, 2);
	kinds[_i].damage_frames *= 1000, kinds[_i].swap_frames *= 1000;
	kinds[_i].drop_frames *= 1000;
	fault(kinds[_i]);
	ck_assert_int_eq(fetch(ids, 1, 5000, NULL), -EIO);
	ck_assert_uint_eq(got.n, 0);
	ck_assert_uint_eq(counts().fetches, 4);
}
END_TEST

START_TEST(absent_chunks_do_not_hide_the_others)
{
	struct digest ids[40];

	serve(1, 40, 50, ids);
	memset(&ids[7], 0xee, sizeof ids[7]);
	ck_assert_int_eq(fetch(ids, 40, 5000, NULL), -ENOENT);
	ck_assert_uint_eq(got.n, 39);
	ck_assert_int_eq(fetch(&ids[7], 1, 5000, NULL), -ENOENT);
}
END_TEST

START_TEST(failed_fetches_are_tried_again)
{
	struct digest id;

	serve(1, 1, 50, &id);
	fault((struct drive_faults){ .fail_fetches = 2 });
	ck_assert_int_eq(fetch(&id, 1, 5000, NULL), 0);
	fault((struct drive_faults){ .fail_fetches = 1000 });
	ck_assert_int_eq(fetch(&id, 1, 5000, NULL), -EIO);
}
END_TEST

START_TEST(fetches_have_a_deadline_and_can_be_cancelled)
{
	_Atomic int cancel = 1;
	int64_t began = clock_mono_ms();
	struct digest ids[100];

	serve(1, 100, 50, ids);
	fault((struct drive_faults){ .slow_fetches_ms = 900 });
	ck_assert_int_eq(fetch(ids, 100, 100, NULL), -ETIMEDOUT);
	ck_assert_int_eq(fetch(ids, 100, 5000, &cancel), -EINTR);
	ck_assert_int_lt(clock_mono_ms() - began, 1500);
}
END_TEST

START_TEST(fetches_fail_at_once_when_nobody_is_there)
{
	struct digest id = { { 1 } };
	int64_t began = clock_mono_ms();

	drive_fake_free(drive);
	drive = NULL;
	ck_assert_int_eq(fetch(&id, 1, 60000, NULL), -ENOTCONN);
	ck_assert_int_eq(fetch(&id, 1, 60000, NULL), -ENOTCONN);
	ck_assert_int_lt(clock_mono_ms() - began, 2000);
	ck_assert_int_eq(status().link, SYNC_OFFLINE);
	sync_stop(sync_);
	ck_assert_int_eq(fetch(&id, 1, 60000, NULL), -ENOTCONN);
}
END_TEST

START_TEST(options_are_checked)
{
	struct sync_options o = {
		.tree = tree, .cache = cache, .url = "gopher://x", .drive_id = FAKE_DRIVE_ID
	};
	struct sync *s = NULL;

	ck_assert_int_eq(sync_new(&o, &s, &err), -EINVAL);
	o.url = "http://127.0.0.1:1";
	o.drive_id = "../x";
	ck_assert_int_eq(sync_new(&o, &s, &err), -EINVAL);
}
END_TEST

static TCase *push_and_pull(void)
{
	TCase *tc = tcase_create("push and pull");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, small_chunks_travel_in_the_commit);
	tcase_add_test(tc, large_chunks_travel_in_packs);
	tcase_add_test(tc, known_chunks_are_not_sent);
	tcase_add_test(tc, a_write_arrives_within_milliseconds);
	tcase_add_test(tc, what_comes_while_one_is_in_flight_gathers);
	tcase_add_test(tc, lost_replies_do_not_apply_twice);
	tcase_add_test(tc, an_unknown_fate_keeps_pages_out);
	tcase_add_test(tc, failing_servers_are_tried_again);
	tcase_add_test(tc, stale_commits_pull_first);
	tcase_add_test(tc, refusals_at_the_head_are_told_and_tried_again);
	tcase_add_test(tc, a_revoked_token_is_told);
	tcase_add_test(tc, cut_pages_are_asked_for_again);
	tcase_add_test(tc, early_answers_do_not_spin);
	tcase_add_test(tc, others_changes_come_at_once);
	tcase_add_test(tc, a_page_overtakes_a_large_upload);
	tcase_add_test(tc, a_commit_from_a_former_life_goes_out_as_it_is);
	tcase_add_loop_test(tc, damaged_chunks_are_not_sent, 100, 101);
	tcase_add_loop_test(tc, damaged_chunks_are_not_sent, 100000, 100001);
	tcase_add_test(tc, works_on_when_the_server_is_back);
	tcase_add_loop_test(tc, stops_within_a_second, 0, 3);
	tcase_add_test(tc, options_are_checked);
	return tc;
}

static TCase *fetching(void)
{
	TCase *tc = tcase_create("fetching");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, fetches_one_and_many);
	tcase_add_test(tc, several_requests_run_side_by_side);
	tcase_add_loop_test(tc, wrong_bytes_are_never_delivered, 0, 3);
	tcase_add_test(tc, absent_chunks_do_not_hide_the_others);
	tcase_add_test(tc, failed_fetches_are_tried_again);
	tcase_add_test(tc, fetches_have_a_deadline_and_can_be_cancelled);
	tcase_add_test(tc, fetches_fail_at_once_when_nobody_is_there);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("sync");
	SRunner *sr = srunner_create(s);
	int failed;

	suite_add_tcase(s, push_and_pull());
	suite_add_tcase(s, fetching());
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
