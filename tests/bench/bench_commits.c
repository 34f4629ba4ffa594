// SPDX-License-Identifier: Apache-2.0
/*
 * Commits of one small change each, over several connections at once, each waiting for its
 * answer: bench_commits URL USER PASSWORD-FILE CONNECTIONS COMMITS
 *
 * Prints commits a second.
 */
#include "clock.h"
#include "cleanup.h"
#include "io.h"
#include "remote/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

struct writer {
	pthread_t thread;
	struct client *client;
	const char *drive;
	uint32_t device_number;
	unsigned commits;
};

static void die(const char *what, const struct err *err)
{
	fprintf(stderr, "bench_commits: %s: %s\n", what, err->text);
	exit(1);
}

static void encode_create(const struct writer *w, unsigned n, uint64_t base, struct buf *ret)
{
	char name[64];
	struct change change = {
		.kind = CHANGE_CREATE,
		.node = node_id(w->device_number, n + 1),
		.parent = NODE_ROOT,
		.attr = { .mode = S_IFDIR | 0755, .mtime_ns = clock_real_ns() },
		.time_ns = clock_real_ns(),
	};
	struct commit commit = { .base = base, .n_changes = 1 };
	_cleanup_buf_ struct buf bytes = { 0 };
	struct slice slice;

	snprintf(name, sizeof name, "bench-%u-%u", w->device_number, n);
	change.name = (struct slice){ (const uint8_t *)name, strlen(name) };
	if (getrandom(commit.id, sizeof commit.id, 0) != sizeof commit.id ||
		change_encode(&change, &bytes) < 0)
		abort();
	slice = (struct slice){ bytes.data, bytes.len };
	commit.changes = &slice;
	if (commit_encode(&commit, ret) < 0)
		abort();
}

static void *write_commits(void *arg)
{
	struct writer *w = arg;
	uint64_t base = 0;

	for (unsigned n = 0; n < w->commits; n++) {
		_cleanup_buf_ struct buf bytes = { 0 };
		_cleanup_arena_ struct arena *arena = NULL;
		struct commit_reply reply;
		struct err err;

		encode_create(w, n, base, &bytes);
		if (client_commit(w->client, w->drive, w->device_number, bytes.data, bytes.len,
			    &reply, &arena, &err) < 0)
			die("commit", &err);
		if (reply.seq <= base) {
			fprintf(stderr, "bench_commits: refused\n");
			exit(1);
		}
		base = reply.seq;
	}
	return NULL;
}

static int take_first(void *ctx, const struct client_drive *d)
{
	*(struct client_drive *)ctx = *d;
	return 1;
}

int main(int argc, char **argv)
{
	struct client_login login;
	struct client_drive drive = { 0 };
	struct writer writers[64];
	_cleanup_buf_ struct buf password = { 0 };
	struct err err = { 0 };
	int64_t start;
	int n, commits;

	if (argc != 6 || (n = atoi(argv[4])) < 1 || n > 64 || (commits = atoi(argv[5])) < n) {
		fprintf(stderr,
			"usage: bench_commits URL USER PASSWORD-FILE CONNECTIONS COMMITS\n");
		return 2;
	}
	if (io_read_file(argv[3], 4096, &password) < 0 || !buf_str(&password)) {
		fprintf(stderr, "bench_commits: %s cannot be read\n", argv[3]);
		return 1;
	}
	password.data[strcspn((char *)password.data, "\n")] = '\0';
	for (int i = 0; i < n; i++) {
		struct writer *w = &writers[i];

		*w = (struct writer){ .drive = drive.id, .commits = (unsigned)(commits / n) };
		if (client_new(&(struct client_options){ .url = argv[1] }, &w->client, &err) < 0)
			die("client", &err);
		if (i == 0 && client_login(w->client, argv[2], (char *)password.data, "bench", NULL,
				      &login, &err) < 0)
			die("login", &err);
		if (client_set_token(w->client, login.token) < 0)
			abort();
		if (i == 0 && client_drives(w->client, take_first, &drive, &err) < 0)
			die("drives", &err);
		if (client_attach(w->client, drive.id, &drive, &err) < 0)
			die("attach", &err);
		w->device_number = drive.device_number;
	}
	start = clock_mono_ns();
	for (int i = 0; i < n; i++) {
		if (pthread_create(&writers[i].thread, NULL, write_commits, &writers[i]))
			abort();
	}
	for (int i = 0; i < n; i++)
		pthread_join(writers[i].thread, NULL);
	printf("%.1f\n", (double)(commits / n * n) * 1e9 / (double)(clock_mono_ns() - start));
	for (int i = 0; i < n; i++)
		client_free(writers[i].client);
	return 0;
}
