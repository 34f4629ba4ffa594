// SPDX-License-Identifier: Apache-2.0
/*
 * Fills a drive with empty files, past all mounts: fillwork URL USER PASSWORD-FILE DIRS FILES
 *
 * DIRS directories in the root with FILES files each, a commit for each directory.
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

struct filler {
	struct client *client;
	struct client_drive drive;
	uint64_t node; /* the last one's number */
	uint64_t base;
};

static void die(const char *what, const struct err *err)
{
	fprintf(stderr, "fillwork: %s: %s\n", what, err->text);
	exit(1);
}

static uint64_t add(
	struct filler *f, uint64_t parent, const char *name, uint32_t mode, struct buf *to)
{
	int64_t now = clock_real_ns();
	struct change c = {
		.kind = CHANGE_CREATE,
		.node = node_id(f->drive.device_number, ++f->node),
		.parent = parent,
		.name = { (const uint8_t *)name, strlen(name) },
		.time_ns = now,
		.attr = {
			.mode = mode,
			.atime_ns = now,
			.mtime_ns = now,
			.ctime_ns = now,
			.btime_ns = now,
		},
	};

	if (change_encode(&c, to) < 0)
		abort();
	return c.node;
}

static void send(struct filler *f, struct commit *c)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	_cleanup_arena_ struct arena *arena = NULL;
	struct commit_reply reply;
	struct err err;

	c->base = f->base;
	if (getrandom(c->id, sizeof c->id, 0) != sizeof c->id || commit_encode(c, &bytes) < 0)
		abort();
	if (client_commit(f->client, f->drive.id, f->drive.device_number, bytes.data, bytes.len,
		    &reply, &arena, &err) < 0)
		die("commit", &err);
	if (reply.seq <= f->base) {
		fprintf(stderr, "fillwork: refused\n");
		exit(1);
	}
	f->base = reply.seq;
}

/* One directory and its files. */
static void fill(struct filler *f, long dir, long files)
{
	_cleanup_buf_ struct buf all = { 0 };
	_cleanup_free_ struct slice *changes = calloc((size_t)files + 1, sizeof *changes);
	_cleanup_free_ size_t *ends = calloc((size_t)files + 1, sizeof *ends);
	struct commit c = { .changes = changes, .n_changes = (size_t)files + 1 };
	uint64_t parent;
	char name[32];

	if (!changes || !ends)
		abort();
	snprintf(name, sizeof name, "dir-%05ld", dir);
	parent = add(f, NODE_ROOT, name, S_IFDIR | 0755, &all);
	ends[0] = all.len;
	for (long i = 1; i <= files; i++) {
		snprintf(name, sizeof name, "file-%05ld", i);
		add(f, parent, name, S_IFREG | 0644, &all);
		ends[i] = all.len;
	}
	for (long i = 0; i <= files; i++) {
		size_t begin = i ? ends[i - 1] : 0;

		changes[i] = (struct slice){ all.data + begin, ends[i] - begin };
	}
	send(f, &c);
}

static int take_first(void *ctx, const struct client_drive *d)
{
	*(struct client_drive *)ctx = *d;
	return 1;
}

static void enter(struct filler *f, const char *url, const char *user, const char *password_file)
{
	_cleanup_buf_ struct buf password = { 0 };
	struct client_login login;
	struct err err = { 0 };

	if (io_read_file(password_file, 4096, &password) < 0 || !buf_str(&password)) {
		fprintf(stderr, "fillwork: %s cannot be read\n", password_file);
		exit(1);
	}
	password.data[strcspn((char *)password.data, "\n")] = '\0';
	if (client_new(&(struct client_options){ .url = url }, &f->client, &err) < 0)
		die("client", &err);
	if (client_login(f->client, user, (char *)password.data, "fill", NULL, &login, &err) < 0)
		die("login", &err);
	if (client_set_token(f->client, login.token) < 0)
		abort();
	if (client_drives(f->client, take_first, &f->drive, &err) < 0)
		die("drives", &err);
	if (client_attach(f->client, f->drive.id, &f->drive, &err) < 0)
		die("attach", &err);
	f->base = f->drive.head;
}

int main(int argc, char **argv)
{
	struct filler f = { 0 };
	long dirs, files;

	if (argc != 6 || (dirs = atol(argv[4])) < 1 || (files = atol(argv[5])) < 1) {
		fprintf(stderr, "usage: fillwork URL USER PASSWORD-FILE DIRS FILES\n");
		return 2;
	}
	enter(&f, argv[1], argv[2], argv[3]);
	for (long d = 0; d < dirs; d++)
		fill(&f, d, files);
	client_free(f.client);
	return 0;
}
