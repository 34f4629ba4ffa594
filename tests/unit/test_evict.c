// SPDX-License-Identifier: Apache-2.0
#include "bounds.h"
#include "clock.h"
#include "fault.h"
#include "io.h"
#include "meta/cache_impl.h"
#include "meta/evict.h"
#include "replica_kit.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Too large to lie in a row. */
#define BYTES 20000
#define FILES 12
#define ALL UINT64_MAX

static struct world w;
static struct device d;

static void setup(void)
{
	world_open(&w);
	device_open(&d, &w, 1, "a");
}

static void teardown(void)
{
	device_close(&d);
	world_close(&w);
}

/* A text of BYTES that the seed stands for. */
static void text_of(uint64_t seed, char ret[BYTES + 1])
{
	seed = seed * 2 + 1;
	for (size_t i = 0; i < BYTES; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		ret[i] = (char)('a' + (seed >> 33) % 26);
	}
	ret[BYTES] = 0;
}

static void id_of(uint64_t seed, struct digest *ret)
{
	char text_bytes[BYTES + 1];

	text_of(seed, text_bytes);
	digest_of(text_bytes, BYTES, ret);
}

/* As if the server had taken everything. */
static void send_all(void)
{
	struct outgoing o;
	int r;

	while ((r = replica_next(d.t, &o)) > 0) {
		ck_assert_int_eq(replica_committed(d.t, &o, replica_cursor(d.t) + 1), 0);
		outgoing_done(&o);
	}
	ck_assert_int_eq(r, 0);
}

static uint64_t add_file(uint64_t seed)
{
	char bytes[BYTES + 1], name[32];

	text_of(seed, bytes);
	snprintf(name, sizeof name, "file-%llu", (unsigned long long)seed);
	return make_file(&d, NODE_ROOT, name, bytes);
}

static struct manifest *manifest_of_seed(uint64_t seed)
{
	struct manifest_builder *b;
	struct manifest *m;
	struct digest id;

	id_of(seed, &id);
	ck_assert_int_eq(manifest_builder_new(&b), 0);
	ck_assert_int_eq(manifest_add_chunk(b, &id, BYTES), 0);
	ck_assert_int_eq(manifest_builder_finish(b, &m), 0);
	return m;
}

static void add_chunk(struct batch *b, uint64_t seed, unsigned flags)
{
	char bytes[BYTES + 1];
	struct digest id;

	text_of(seed, bytes);
	digest_of(bytes, BYTES, &id);
	ck_assert_int_eq(cache_add(d.cache, b, &id, bytes, BYTES, flags), 0);
}

static void put_seed(uint64_t node, uint64_t seed, struct batch *b, bool unlinked)
{
	_cleanup_manifest_ struct manifest *m = manifest_of_seed(seed);
	struct content_update u = {
		.node = node,
		.manifest = m,
		.mtime_ns = clock_real_ns(),
		.ctime_ns = clock_real_ns(),
		.batch = b,
		.home_parent = NODE_ROOT,
		.home_name = text("home"),
		.unlinked = unlinked,
	};
	enum content_result result;
	struct node n;

	ck_assert_int_eq(tree_put_content(d.t, &u, &result, &n), 0);
	ck_assert_int_eq(result, unlinked ? CONTENT_DROPPED : CONTENT_PUT);
}

/* What a seal of an unlinked file leaves: rows that nothing names. */
static void add_garbage(uint64_t seed)
{
	_cleanup_batch_ struct batch *b = NULL;

	ck_assert_int_eq(batch_new(d.st, &b), 0);
	add_chunk(b, seed, 0);
	put_seed(1000, seed, b, true);
}

/* 1 whole, 0 absent. */
static int is_here(uint64_t seed)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	char want[BYTES + 1];
	struct digest id;
	int r;

	text_of(seed, want);
	digest_of(want, BYTES, &id);
	r = cache_read_chunk(d.cache, &id, &bytes);
	ck_assert_int_ge(r, 0);
	if (r)
		ck_assert(bytes.len == BYTES && memcmp(bytes.data, want, BYTES) == 0);
	return r;
}

static int count_here(uint64_t first, uint64_t end)
{
	int n = 0;

	for (; first < end; first++)
		n += is_here(first);
	return n;
}

static struct evict_options options_here(void)
{
	return (struct evict_options){ .store = d.st, .cache = d.cache, .tree = d.t };
}

static struct evict_result evict(uint64_t want)
{
	struct evict_options o = options_here();
	struct evict_result result;

	ck_assert_int_eq(evict_run(&o, want, NULL, &result), 0);
	return result;
}

static size_t count_segments(void)
{
	char path[128];
	DIR *dir;
	size_t n = 0;

	snprintf(path, sizeof path, "%s/segments", d.dir);
	dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	for (struct dirent *e; (e = readdir(dir));)
		n += e->d_name[0] != '.';
	closedir(dir);
	return n;
}

START_TEST(what_the_server_has_goes)
{
	for (uint64_t i = 0; i < FILES; i++)
		add_file(i);
	send_all();
	device_reopen(&d);
	ck_assert_uint_eq(evict(0).segments, 0); /* nobody wanted room */
	ck_assert_int_eq(count_here(0, FILES), FILES);
	ck_assert_uint_ge(evict(1).freed_bytes, FILES * BYTES);
	ck_assert_int_eq(count_here(0, FILES), 0);
	ck_assert_uint_eq(count_segments(), 0);
	device_check(&d);
}
END_TEST

START_TEST(the_segment_that_is_written_to_stays)
{
	add_file(1);
	send_all();
	ck_assert_uint_eq(evict(ALL).segments, 0);
	ck_assert_int_eq(is_here(1), 1);
}
END_TEST

START_TEST(what_is_unsent_stays)
{
	for (uint64_t i = 0; i < FILES; i++)
		add_file(i);
	device_reopen(&d);
	ck_assert_uint_eq(evict(ALL).segments, 0);
	/* Deleted, but the outbox still names the content: the server will ask for it. */
	ck_assert_int_eq(remove_file(&d, NODE_ROOT, "file-3"), 0);
	evict(ALL);
	ck_assert_int_eq(count_here(0, FILES), FILES);
	send_all();
	evict(ALL);
	ck_assert_int_eq(count_here(0, FILES), 0);
}
END_TEST

START_TEST(what_must_stay_moves)
{
	struct evict_result result;

	for (uint64_t i = 0; i < FILES; i++)
		add_file(i);
	send_all();
	add_file(FILES);
	device_reopen(&d);
	result = evict(ALL);
	ck_assert_uint_eq(result.moved_bytes, BYTES);
	ck_assert_uint_eq(result.segments, 1);
	ck_assert_int_eq(count_here(0, FILES), 0);
	ck_assert_int_eq(is_here(FILES), 1);
	device_reopen(&d);
	ck_assert_int_eq(is_here(FILES), 1);
	send_all();
}
END_TEST

START_TEST(a_damaged_chunk_that_must_stay_is_left_where_it_is)
{
	_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 };
	_cleanup_close_ int fd = -1;
	struct digest id;
	char path[160];

	for (uint64_t i = 0; i < FILES; i++)
		add_file(i);
	send_all();
	add_file(FILES);
	id_of(FILES, &id);
	ck_assert_int_eq(cache_locate(d.cache, &id, &loc), 1);
	snprintf(path, sizeof path, "%s/segments/%016llx", d.dir,
		(unsigned long long)segment_id(loc.seg));
	fd = open(path, O_WRONLY);
	ck_assert_int_eq(io_pwrite_full(fd, "!", 1, loc.offset + 5), 0);
	chunk_loc_done(&loc);
	device_reopen(&d);
	ck_assert_uint_eq(evict(ALL).segments, 0);
	ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

START_TEST(without_a_tree_only_what_the_server_has_goes)
{
	struct evict_options o;
	struct evict_result result;

	for (uint64_t i = 0; i < FILES; i++)
		add_file(i);
	send_all();
	add_garbage(FILES);
	device_reopen(&d);
	o = options_here();
	o.tree = NULL;
	ck_assert_int_eq(evict_run(&o, ALL, NULL, &result), 0);
	ck_assert_uint_eq(result.moved_bytes, BYTES);
	ck_assert_int_eq(is_here(FILES), 1);
}
END_TEST

START_TEST(files_that_no_row_names_go)
{
	char orphan[160], foreign[160];

	snprintf(orphan, sizeof orphan, "%s/segments/00000000000000ff", d.dir);
	snprintf(foreign, sizeof foreign, "%s/segments/notes", d.dir);
	ck_assert_int_eq(io_write_file_atomic(orphan, "lost", 4, 0600), 0);
	ck_assert_int_eq(io_write_file_atomic(foreign, "mine", 4, 0600), 0);
	add_file(1);
	evict(0);
	ck_assert_int_ne(access(orphan, F_OK), 0);
	ck_assert_int_eq(access(foreign, F_OK), 0);
	ck_assert_int_eq(is_here(1), 1);
}
END_TEST

START_TEST(what_nothing_names_goes_unless_it_is_held)
{
	_cleanup_manifest_ struct manifest *m = manifest_of_seed(1);
	struct cache_hold *hold;

	add_garbage(1);
	add_garbage(2);
	device_reopen(&d);
	ck_assert_int_eq(cache_hold(d.cache, m, &hold), 0);
	evict(0);
	ck_assert_int_eq(is_here(1), 1);
	evict(ALL);
	ck_assert_int_eq(is_here(1), 1);
	ck_assert_int_eq(is_here(2), 0);
	cache_release(hold);
	device_reopen(&d); /* it was moved to the segment that is written to */
	evict(0);
	ck_assert_int_eq(is_here(1), 0);
}
END_TEST

/* A seal found the row there and wrote nothing; its outbox entry comes after the eviction. */
START_TEST(a_row_that_a_batch_relies_on_stays)
{
	_cleanup_batch_ struct batch *b = NULL;
	uint64_t node;

	add_garbage(1);
	add_garbage(2);
	device_reopen(&d);
	node = make(&d, NODE_ROOT, "f", S_IFREG | 0644);
	ck_assert_int_eq(batch_new(d.st, &b), 0);
	add_chunk(b, 1, 0);
	ck_assert_uint_eq(batch_count(b), 0);
	evict(ALL);
	ck_assert_int_eq(is_here(2), 0);
	put_seed(node, 1, b, false);
	evict(ALL);
	ck_assert_int_eq(is_here(1), 1);
	send_all();
}
END_TEST

START_TEST(a_batch_that_is_given_up_holds_nothing)
{
	struct batch *b;

	add_garbage(1);
	device_reopen(&d);
	ck_assert_int_eq(batch_new(d.st, &b), 0);
	add_chunk(b, 1, 0);
	batch_free(b);
	ck_assert_ptr_null(d.cache->touched);
	evict(0);
	ck_assert_int_eq(is_here(1), 0);
}
END_TEST

/* Segments without a row, because the rows are still in a batch. */
START_TEST(a_segment_whose_rows_are_to_come_stays)
{
	_cleanup_batch_ struct batch *b = NULL;
	uint64_t node = make(&d, NODE_ROOT, "f", S_IFREG | 0644);

	segments_set_max(d.cache->segments, BYTES);
	ck_assert_int_eq(batch_new(d.st, &b), 0);
	for (uint64_t i = 0; i < FILES; i++)
		add_chunk(b, i, 0);
	ck_assert_uint_eq(count_segments(), FILES);
	evict(ALL);
	ck_assert_uint_eq(count_segments(), FILES);
	put_seed(node, 0, b, false);
	ck_assert_int_eq(count_here(0, FILES), FILES);
	evict(ALL);
	ck_assert_int_eq(is_here(0), 1);
	/* The last one is still open; the others are named by nothing. */
	ck_assert_int_eq(count_here(0, FILES), 2);
}
END_TEST

START_TEST(an_adopted_segment_stays_while_its_file_is_held)
{
	_cleanup_batch_ struct batch *b = NULL;
	char path[160], bytes[BYTES + 1];
	struct segment *seg;
	struct digest id;
	int fd;

	text_of(1, bytes);
	digest_of(bytes, BYTES, &id);
	snprintf(path, sizeof path, "%s/staged", d.dir);
	ck_assert_int_eq(io_write_file_atomic(path, bytes, BYTES, 0600), 0);
	fd = open(path, O_RDWR);
	ck_assert_int_eq(cache_adopt(d.cache, path, fd, &seg), 0);
	evict(ALL); /* no row yet */
	ck_assert_int_eq(batch_new(d.st, &b), 0);
	ck_assert_int_eq(cache_add_at(d.cache, b, &id, seg, 0, BYTES, 0), 0);
	segment_unref(seg);
	put_seed(make(&d, NODE_ROOT, "f", S_IFREG | 0644), 1, b, false);
	evict(ALL);
	ck_assert_int_eq(is_here(1), 1);
}
END_TEST

START_TEST(who_reads_a_segment_that_goes_reads_on)
{
	_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 };
	char want[BYTES + 1], got[BYTES];
	struct digest id;

	add_file(1);
	send_all();
	device_reopen(&d);
	id_of(1, &id);
	text_of(1, want);
	ck_assert_int_eq(cache_locate(d.cache, &id, &loc), 1);
	ck_assert_int_eq(segments_remove(d.cache->segments, segment_id(loc.seg)), 0);
	ck_assert_int_eq(io_pread_full(loc.fd, got, BYTES, loc.offset), 0);
	ck_assert_int_eq(memcmp(got, want, BYTES), 0);
	ck_assert_int_eq(is_here(1), 0); /* and who comes later fetches it */
}
END_TEST

START_TEST(the_coldest_goes_first)
{
	segments_set_max(d.cache->segments, BYTES);
	for (uint64_t i = 0; i < FILES; i++)
		add_file(i);
	send_all();
	device_reopen(&d);
	usleep(20000);
	ck_assert_int_eq(count_here(0, 3), 3);
	ck_assert_uint_ge(evict((FILES - 3) * BYTES).freed_bytes, (FILES - 3) * BYTES);
	ck_assert_int_eq(count_here(0, 3), 3);
	ck_assert_int_eq(count_here(3, FILES), 0);
}
END_TEST

static const char *const faults[] = {
	"evict.moved:1:kill",
	"evict.dropped:1:kill",
	"evict.remove:1:kill",
	"evict.remove:2:kill",
	"store_commit:1:kill",
	"store_sync:1:kill",
	"segment_sync:1:5",
	"store_commit:1:28",
	"store_sync:1:5",
};

/* Sent files, and some that are not, in segments that nobody writes to any more. */
static void fill_device(void)
{
	device_open(&d, &w, 1, "a");
	segments_set_max(d.cache->segments, 8 * BYTES);
	for (uint64_t i = 0; i < FILES; i++)
		add_file(i);
	send_all();
	for (uint64_t i = FILES; i < FILES + 2; i++)
		add_file(i);
	add_file(100);
	device_reopen(&d);
}

/* 0 when the run failed. */
static int run_with_fault(const char *fault)
{
	struct evict_options o;
	struct evict_result result;

	fill_device();
	setenv("VARVE_FAULT", fault, 1);
	if (fault_init() < 0)
		return 1;
	o = options_here();
	return evict_run(&o, ALL, NULL, &result) < 0 ? 0 : 2;
}

/* A run that is killed, or fails, somewhere on its way: in a process of its own. */
static void end_a_run(const char *fault)
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(run_with_fault(fault));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (strstr(fault, "kill"))
		ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	else
		ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

START_TEST(a_run_that_ends_anywhere_loses_nothing)
{
	world_open(&w);
	end_a_run(faults[_i]);
	device_open(&d, &w, 1, "a");
	ck_assert_int_eq(count_here(FILES, FILES + 2), 2);
	ck_assert_int_eq(is_here(100), 1);
	evict(ALL);
	device_reopen(&d);
	evict(ALL);
	ck_assert_int_eq(count_here(0, FILES), 0);
	ck_assert_int_eq(count_here(FILES, FILES + 2), 2);
	ck_assert_int_eq(is_here(100), 1);
	ck_assert_uint_le(count_segments(), 3);
	send_all();
	teardown();
}
END_TEST

#define ROUNDS 150

static _Atomic int over;

static void *evict_in_a_loop(void *arg)
{
	while (!atomic_load(&over))
		evict(ALL);
	return NULL;
}

static void *read_in_a_loop(void *arg)
{
	for (uint64_t i = 0; !atomic_load(&over); i++)
		is_here(i % ROUNDS);
	return NULL;
}

/* Each content is garbage first, and then somebody's: found there, or written anew. */
static void *seal_in_a_loop(void *arg)
{
	uint64_t *nodes = arg;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		_cleanup_batch_ struct batch *b = NULL;

		add_garbage(i);
		if (i < 4)
			continue;
		ck_assert_int_eq(batch_new(d.st, &b), 0);
		add_chunk(b, i - 4, 0);
		if (i % 3 == 0)
			sched_yield();
		put_seed(nodes[i - 4], i - 4, b, false);
	}
	return NULL;
}

START_TEST(nothing_is_lost_beside_a_running_eviction)
{
	pthread_t evictor, reader, sealer;
	uint64_t nodes[ROUNDS];
	char name[32];

	segments_set_max(d.cache->segments, 2 * BYTES);
	for (size_t i = 0; i < ROUNDS; i++) {
		snprintf(name, sizeof name, "n-%zu", i);
		nodes[i] = make(&d, NODE_ROOT, name, S_IFREG | 0644);
	}
	atomic_store(&over, 0);
	ck_assert_int_eq(pthread_create(&evictor, NULL, evict_in_a_loop, NULL), 0);
	ck_assert_int_eq(pthread_create(&reader, NULL, read_in_a_loop, NULL), 0);
	ck_assert_int_eq(pthread_create(&sealer, NULL, seal_in_a_loop, nodes), 0);
	pthread_join(sealer, NULL);
	atomic_store(&over, 1);
	pthread_join(evictor, NULL);
	pthread_join(reader, NULL);
	ck_assert_int_eq(count_here(0, ROUNDS - 4), ROUNDS - 4);
	ck_assert_ptr_null(d.cache->touched);
	evict(ALL);
	device_reopen(&d);
	ck_assert_int_eq(count_here(0, ROUNDS - 4), ROUNDS - 4);
}
END_TEST

static uint64_t segment_bytes(void)
{
	struct cache_stats stats;

	cache_get_stats(d.cache, &stats);
	return stats.segment_bytes;
}

/* Until the segments' bytes are at most that. */
static void wait_for_bytes(uint64_t most)
{
	int64_t deadline = clock_mono_ms() + 20000;

	while (segment_bytes() > most) {
		ck_assert_int_lt(clock_mono_ms(), deadline);
		usleep(5000);
	}
}

#define BUDGET (8 * MIB)

START_TEST(the_budget_holds)
{
	struct evict_options o = options_here();
	struct err err = { 0 };
	struct evict *e;

	o.budget_bytes = BUDGET;
	ck_assert_int_eq(evict_start(&o, &e, &err), 0);
	add_file(1);
	for (uint64_t i = 100; i < 100 + 4 * BUDGET / BYTES; i++) {
		_cleanup_batch_ struct batch *b = NULL;

		ck_assert_int_eq(batch_new(d.st, &b), 0);
		add_chunk(b, i, CACHE_ON_SERVER);
		ck_assert_int_eq(store_commit(d.st, b), 0);
	}
	wait_for_bytes(BUDGET);
	evict_stop(e);
	ck_assert_int_eq(is_here(1), 1);
	ck_assert_uint_gt(segment_bytes(), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("evict");
	TCase *tc = tcase_create("runs");
	TCase *ends = tcase_create("ends");
	TCase *threads = tcase_create("threads");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, what_the_server_has_goes);
	tcase_add_test(tc, the_segment_that_is_written_to_stays);
	tcase_add_test(tc, what_is_unsent_stays);
	tcase_add_test(tc, what_must_stay_moves);
	tcase_add_test(tc, a_damaged_chunk_that_must_stay_is_left_where_it_is);
	tcase_add_test(tc, without_a_tree_only_what_the_server_has_goes);
	tcase_add_test(tc, files_that_no_row_names_go);
	tcase_add_test(tc, what_nothing_names_goes_unless_it_is_held);
	tcase_add_test(tc, a_row_that_a_batch_relies_on_stays);
	tcase_add_test(tc, a_batch_that_is_given_up_holds_nothing);
	tcase_add_test(tc, a_segment_whose_rows_are_to_come_stays);
	tcase_add_test(tc, an_adopted_segment_stays_while_its_file_is_held);
	tcase_add_test(tc, who_reads_a_segment_that_goes_reads_on);
	tcase_add_test(tc, the_coldest_goes_first);
	suite_add_tcase(s, tc);
	/* The device is opened after the fork: threads do not come along. */
	tcase_set_timeout(ends, 60);
	tcase_add_loop_test(ends, a_run_that_ends_anywhere_loses_nothing, 0, ARRAY_SIZE(faults));
	suite_add_tcase(s, ends);
	tcase_add_checked_fixture(threads, setup, teardown);
	tcase_set_timeout(threads, 100);
	tcase_add_test(threads, nothing_is_lost_beside_a_running_eviction);
	tcase_add_test(threads, the_budget_holds);
	suite_add_tcase(s, threads);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
