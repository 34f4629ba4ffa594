// SPDX-License-Identifier: Apache-2.0
/*
 * Two devices on one drive: the real tree, cache and sync on both sides, and the real server as a
 * process that can be stopped, killed and started again. Only FUSE is not here.
 *
 * usage: test_devices VARVED
 */
#include "bounds.h"
#include "chunk/ingest.h"
#include "clock.h"
#include "io.h"
#include "log.h"
#include "meta/cache.h"
#include "remote/client.h"
#include "remote/sync.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define S(text) ((struct slice){ (const uint8_t *)(text), strlen(text) })

static const char *varved;
static char dir[64];
static char url[128];
static pid_t server;
static struct err err;

static pid_t spawn(const char *const argv[], int out)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* no server outlives a failed test */
		dup2(out, STDOUT_FILENO);
		execv(varved, (char *const *)(uintptr_t)argv); /* execv() changes none */
		_exit(127);
	}
	return pid;
}

static void run(const char *const argv[])
{
	_cleanup_close_ int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	int status;

	ck_assert_int_eq(waitpid(spawn(argv, null), &status, 0) > 0, 1);
	ck_assert_int_eq(status, 0);
}

/* The first time on any port, and then on that one again. */
static void start_server(void)
{
	char data[80], at[128] = "127.0.0.1:0", line[256] = "";
	const char *argv[] = { "varved", "serve", "--data", data, "--listen", at, "--log-level",
		"error", NULL };
	int out[2];
	FILE *f;

	snprintf(data, sizeof data, "%s/data", dir);
	if (url[0])
		snprintf(at, sizeof at, "%s", url + strlen("http://"));
	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	server = spawn(argv, out[1]);
	close(out[1]);
	f = fdopen(out[0], "r");
	ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
	fclose(f);
	ck_assert_ptr_nonnull(strstr(line, "http://"));
	line[strcspn(line, "\n")] = '\0';
	snprintf(url, sizeof url, "%s", strstr(line, "http://"));
}

static void stop_server(int sig)
{
	int status;

	kill(server, sig);
	waitpid(server, &status, 0);
	server = 0;
}

struct device {
	char dir[80];
	char token[CLIENT_TOKEN_BYTES];
	char drive[CLIENT_ID_BYTES];
	struct store *store;
	struct cache *cache;
	struct tree *tree;
	struct sync *sync;
};

static struct device a, b;

static int first_drive(void *ctx, const struct client_drive *d)
{
	memcpy(((struct device *)ctx)->drive, d->id, sizeof d->id);
	return 1;
}

static void open_local(struct device *d)
{
	struct tree_options options = { .device_name = "laptop" };
	char path[96];

	snprintf(path, sizeof path, "%s/db", d->dir);
	ck_assert_int_eq(io_mkdirs(d->dir, 0700), 0);
	ck_assert_msg(store_open(path, &d->store, &err) == 0, "%s", err.text);
	ck_assert_msg(cache_open(d->store, d->dir, &d->cache, &err) == 0, "%s", err.text);
	options.store = d->store;
	options.cache = d->cache;
	if (d->token[0])
		ck_assert_msg(tree_open(&options, &d->tree, &err) == 0, "%s", err.text);
}

static void open_remote(struct device *d)
{
	struct sync_options options = { .tree = d->tree,
		.cache = d->cache,
		.url = url,
		.token = d->token,
		.drive_id = d->drive };

	ck_assert_msg(sync_new(&options, &d->sync, &err) == 0, "%s", err.text);
	cache_set_source(d->cache, sync_chunk_source(d->sync));
	ck_assert_msg(sync_start(d->sync, &err) == 0, "%s", err.text);
}

static void register_device(struct device *d, const char *name)
{
	_cleanup_client_ struct client *c = NULL;
	struct client_drive drive;
	struct client_login login;

	*d = (struct device){ 0 };
	snprintf(d->dir, sizeof d->dir, "%s/%s", dir, name);
	ck_assert_int_eq(client_new(&(struct client_options){ .url = url }, &c, &err), 0);
	ck_assert_msg(client_login(c, "ann", "correct horse", name, NULL, &login, &err) == 0, "%s",
		err.text);
	ck_assert_int_eq(client_set_token(c, login.token), 0);
	ck_assert_msg(client_drives(c, first_drive, d, &err) == 1, "%s", err.text);
	ck_assert_msg(client_attach(c, d->drive, &drive, &err) == 0, "%s", err.text);
	open_local(d);
	ck_assert_int_eq(
		tree_format(d->store, d->drive, drive.device_number, drive.created_ns, &err), 0);
	cache_free(d->cache);
	store_free(d->store);
	memcpy(d->token, login.token, sizeof d->token);
}

static void open_device(struct device *d)
{
	open_local(d);
	open_remote(d);
}

static void close_device(struct device *d)
{
	sync_free(d->sync);
	tree_free(d->tree);
	cache_free(d->cache);
	store_free(d->store);
}

static void set_up(void)
{
	char data[80], file[80];
	const char *add[] = { "varved", "user", "add", "ann", "--data", data, "--password-file",
		file, NULL };
	const char *create[] = { "varved", "drive", "create", "d", "--owner", "ann", "--data", data,
		NULL };

	log_set_level(LOG_LEVEL_ERROR);
	snprintf(dir, sizeof dir, "/tmp/varve-devices-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(data, sizeof data, "%s/data", dir);
	snprintf(file, sizeof file, "%s/password", dir);
	ck_assert_int_eq(io_write_file_atomic(file, "correct horse\n", 14, 0600), 0);
	run(add);
	run(create);
	url[0] = '\0';
	start_server();
	register_device(&a, "a");
	register_device(&b, "b");
	open_device(&a);
	open_device(&b);
}

static void tear_down(void)
{
	close_device(&a);
	close_device(&b);
	if (server)
		stop_server(SIGTERM);
	ck_assert_int_eq(io_remove_tree(dir), 0);
}

static void settle(struct device *d)
{
	struct sync_status st;
	int r = sync_wait(d->sync, clock_mono_ms() + 30000);

	sync_get_status(d->sync, &st);
	ck_assert_msg(r == 0, "%d: %s", r, st.detail);
}

static void settle_both(void)
{
	settle(&a);
	settle(&b);
	settle(&a);
}

static uint64_t make(struct device *d, uint64_t parent, const char *name, uint32_t mode)
{
	struct node_init init = { .mode = mode, .uid = 1, .gid = 2 };
	struct node n;

	if (S_ISLNK(mode))
		init.target = S("to/there");
	ck_assert_int_eq(tree_create(d->tree, parent, S(name), &init, &n), 0);
	return n.id;
}

static uint64_t look(struct device *d, uint64_t parent, const char *name)
{
	struct node n;
	int r = tree_lookup(d->tree, parent, S(name), &n);

	ck_assert_int_ge(r, 0);
	return r ? n.id : 0;
}

struct writing {
	struct device *d;
	struct batch *batch;
	const struct buf *bytes;
};

static int read_new(void *ctx, uint64_t offset, void *p, size_t n)
{
	memcpy(p, ((struct writing *)ctx)->bytes->data + offset, n);
	return 0;
}

static int add_new(void *ctx, uint64_t offset, const struct digest *id, const void *p, size_t n)
{
	struct writing *w = ctx;

	return cache_add(w->d->cache, w->batch, id, p, n, 0);
}

static void write_file(struct device *d, uint64_t node, const struct buf *bytes)
{
	_cleanup_batch_ struct batch *batch = NULL;
	_cleanup_manifest_ struct manifest *old = manifest_empty(), *m = NULL;
	struct writing w = { d, NULL, bytes };
	struct ingest_io io = { .read = read_new, .chunk = add_new, .ctx = &w };
	struct range all = { 0, bytes->len };
	struct content_update u = { .node = node };
	enum content_result result;
	struct node n;

	ck_assert_int_eq(batch_new(d->store, &batch), 0);
	w.batch = batch;
	ck_assert_int_eq(tree_get(d->tree, node, &n), 1);
	ck_assert_int_eq(ingest_recut(old, bytes->len, &all, 1, &io, &m), 0);
	u.expected = n.attr.content;
	u.manifest = m;
	u.mtime_ns = u.ctime_ns = clock_real_ns();
	u.batch = batch;
	ck_assert_int_eq(tree_put_content(d->tree, &u, &result, &n), 0);
}

static int read_file(struct device *d, uint64_t node, struct buf *ret)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	struct node n;

	ck_assert_int_eq(tree_get(d->tree, node, &n), 1);
	ck_assert_int_eq(tree_manifest(d->tree, node, &n.attr.content, &m), 0);
	for (size_t i = 0; i < manifest_count(m); i++) {
		const struct manifest_entry *e = manifest_at(m, i);
		int r = cache_require(d->cache, &e->id, 1, clock_mono_ms() + 10000, NULL, &err);

		if (r == 0)
			r = cache_read_chunk(d->cache, &e->id, ret) > 0 ? 0 : -EIO;
		if (r < 0)
			return r;
	}
	return 0;
}

static void fill(struct buf *bytes, unsigned seed, size_t n)
{
	bytes->len = 0;
	ck_assert_int_eq(buf_reserve(bytes, n), 0);
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		bytes->data[bytes->len++] = (uint8_t)(seed >> 24);
	}
}

static void expect(struct device *d, uint64_t node, const struct buf *bytes)
{
	_cleanup_buf_ struct buf got = { 0 };

	ck_assert_msg(read_file(d, node, &got) == 0, "%s", err.text);
	ck_assert_uint_eq(got.len, bytes->len);
	ck_assert_int_eq(memcmp(got.data, bytes->data, got.len), 0);
}

START_TEST(a_tree_arrives)
{
	static const size_t sizes[] = { 1, 4096, 4097, 70000, 3 * 1024 * 1024 };
	uint64_t sub = make(&a, NODE_ROOT, "sub", S_IFDIR | 0755), nodes[5];
	_cleanup_buf_ struct buf bytes = { 0 };
	struct node na, nb;
	char name[16];

	make(&a, sub, "link", S_IFLNK | 0777);
	for (unsigned i = 0; i < 5; i++) {
		snprintf(name, sizeof name, "f%u", i);
		nodes[i] = make(&a, sub, name, S_IFREG | 0640);
		fill(&bytes, i, sizes[i]);
		write_file(&a, nodes[i], &bytes);
	}
	settle_both();
	ck_assert_uint_eq(look(&b, NODE_ROOT, "sub"), sub);
	ck_assert_uint_ne(look(&b, sub, "link"), 0);
	for (unsigned i = 0; i < 5; i++) {
		ck_assert_int_eq(tree_get(a.tree, nodes[i], &na), 1);
		ck_assert_int_eq(tree_get(b.tree, nodes[i], &nb), 1);
		ck_assert_uint_eq(na.attr.mode, nb.attr.mode);
		ck_assert_int_eq(na.attr.mtime_ns, nb.attr.mtime_ns);
		fill(&bytes, i, sizes[i]);
		expect(&b, nodes[i], &bytes);
	}
}
END_TEST

START_TEST(both_directions_many_times)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	uint64_t node = make(&a, NODE_ROOT, "f", S_IFREG | 0644);

	for (unsigned i = 0; i < 40; i++) {
		struct device *from = i % 2 ? &b : &a, *to = i % 2 ? &a : &b;

		fill(&bytes, i, 1 + i * 1000);
		write_file(from, node, &bytes);
		settle(from);
		settle(to);
		expect(to, node, &bytes);
	}
}
END_TEST

START_TEST(both_at_once)
{
	uint64_t dirs[2] = { make(&a, NODE_ROOT, "a", S_IFDIR | 0755),
		make(&b, NODE_ROOT, "b", S_IFDIR | 0755) };
	_cleanup_buf_ struct buf bytes = { 0 };

	for (unsigned i = 0; i < 300; i++) {
		struct device *d = i % 2 ? &b : &a;
		char name[16];
		uint64_t node;

		snprintf(name, sizeof name, "f%u", i);
		node = make(d, dirs[i % 2], name, S_IFREG | 0644);
		fill(&bytes, i, 100 + i);
		write_file(d, node, &bytes);
	}
	settle_both();
	for (unsigned i = 0; i < 300; i++) {
		char name[16];

		snprintf(name, sizeof name, "f%u", i);
		fill(&bytes, i, 100 + i);
		expect(&a, look(&a, dirs[i % 2], name), &bytes);
		expect(&b, look(&b, dirs[i % 2], name), &bytes);
	}
}
END_TEST

START_TEST(the_server_goes_and_comes)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	uint64_t x = make(&a, NODE_ROOT, "x", S_IFREG | 0644), y, z;

	fill(&bytes, 1, 200000);
	write_file(&a, x, &bytes);
	settle_both();
	stop_server(_i ? SIGKILL : SIGTERM);
	y = make(&a, NODE_ROOT, "y", S_IFREG | 0644);
	write_file(&a, y, &bytes);
	z = make(&b, NODE_ROOT, "z", S_IFREG | 0644);
	fill(&bytes, 2, 300000);
	write_file(&b, z, &bytes);
	ck_assert_int_eq(read_file(&b, x, &bytes), -ENOTCONN);
	start_server();
	settle_both();
	fill(&bytes, 1, 200000);
	expect(&b, y, &bytes);
	expect(&b, x, &bytes);
	fill(&bytes, 2, 300000);
	expect(&a, z, &bytes);
}
END_TEST

START_TEST(a_device_that_was_closed_goes_on)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	uint64_t node;

	for (unsigned i = 0; i < 4; i++) {
		char name[16];

		snprintf(name, sizeof name, "n%u", i);
		node = make(&a, NODE_ROOT, name, S_IFREG | 0644);
		fill(&bytes, i, 500000);
		write_file(&a, node, &bytes);
		close_device(&a); /* wherever the upload was */
		open_device(&a);
		settle_both();
		expect(&b, node, &bytes);
	}
}
END_TEST

START_TEST(changes_are_quick)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	uint64_t node = make(&a, NODE_ROOT, "f", S_IFREG | 0644);
	int64_t took[21];

	settle_both();
	for (unsigned i = 0; i < 21; i++) {
		struct node na, nb;
		int64_t began;

		fill(&bytes, i, 4096);
		began = clock_mono_ns();
		write_file(&a, node, &bytes);
		ck_assert_int_eq(tree_get(a.tree, node, &na), 1);
		do {
			ck_assert_int_eq(tree_get(b.tree, node, &nb), 1);
			ck_assert_int_lt(clock_mono_ns() - began, 5 * NS_PER_S);
		} while (!digest_eq(&na.attr.content, &nb.attr.content));
		expect(&b, node, &bytes);
		took[i] = clock_mono_ns() - began;
		for (unsigned k = i; k && took[k] < took[k - 1]; k--) {
			int64_t t = took[k];

			took[k] = took[k - 1];
			took[k - 1] = t;
		}
	}
	printf("write on A to bytes read on B: median %.1f ms, worst %.1f ms\n",
		(double)took[10] / NS_PER_MS, (double)took[20] / NS_PER_MS);
}
END_TEST

START_TEST(a_revoked_device_is_refused)
{
	struct client_options options = { .url = url, .token = b.token };
	_cleanup_client_ struct client *c = NULL;
	int64_t until = clock_mono_ms() + 10000;
	struct sync_status st;

	settle_both();
	ck_assert_int_eq(client_new(&options, &c, &err), 0);
	ck_assert_msg(client_logout(c, &err) == 0, "%s", err.text);
	make(&b, NODE_ROOT, "x", S_IFDIR | 0755);
	do {
		usleep(5000);
		sync_get_status(b.sync, &st);
	} while (st.link != SYNC_REFUSED && clock_mono_ms() < until);
	ck_assert_int_eq(st.link, SYNC_REFUSED);
	ck_assert_uint_eq(look(&a, NODE_ROOT, "x"), 0);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("devices");
	TCase *tc = tcase_create("devices");
	SRunner *sr = srunner_create(s);
	int failed;

	if (argc != 2) {
		fprintf(stderr, "usage: %s VARVED\n", argv[0]);
		return 2;
	}
	varved = argv[1];
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, a_tree_arrives);
	tcase_add_test(tc, both_directions_many_times);
	tcase_add_test(tc, both_at_once);
	tcase_add_loop_test(tc, the_server_goes_and_comes, 0, 2);
	tcase_add_test(tc, a_device_that_was_closed_goes_on);
	tcase_add_test(tc, changes_are_quick);
	tcase_add_test(tc, a_revoked_device_is_refused);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
