// SPDX-License-Identifier: Apache-2.0
#include "fs/staging_check.h"

#include "fs/staging.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <uthash.h>

struct alive {
	UT_hash_handle hh;
	uint64_t id;
	bool begun, file, ended;
};

struct look {
	int dir_fd;
	struct alive *table;
	struct staging_found *found;
	uint64_t *logs; /* numbers */
	size_t n_logs;
};

static void look_done(struct look *l)
{
	struct alive *a, *next;

	HASH_ITER (hh, l->table, a, next) {
		HASH_DEL(l->table, a);
		free(a);
	}
	free(l->logs);
}

static void forget_all(struct look *l)
{
	struct alive *a;

	for (a = l->table; a; a = a->hh.next)
		a->ended = true;
}

static struct alive *alive_of(struct look *l, uint64_t id)
{
	struct alive *a;

	HASH_FIND(hh, l->table, &id, sizeof id, a);
	if (a || !(a = calloc(1, sizeof *a)))
		return a;
	a->id = id;
	HASH_ADD(hh, l->table, id, sizeof a->id, a);
	return a;
}

static int visit(void *ctx, const struct log_header *header, const struct record *r)
{
	struct look *l = ctx;
	struct alive *a;

	if (r->kind == RECORD_DAMAGED)
		return 0;
	a = alive_of(l, r->staging);
	if (!a)
		return -ENOMEM;
	if (r->kind == RECORD_BEGIN) {
		a->begun = true;
		a->ended = a->file = false;
	}
	a->file |= r->kind == RECORD_PROMOTE;
	a->ended |= r->kind == RECORD_DROPPED || r->kind == RECORD_SEALED;
	return 0;
}

static int note_name(struct look *l, const char *name)
{
	uint64_t number, *more;

	if (!staging_log_parse_name(name, &number))
		return 0;
	more = reallocarray(l->logs, l->n_logs + 1, sizeof *more);
	if (!more)
		return -ENOMEM;
	l->logs = more;
	l->logs[l->n_logs++] = number;
	return 0;
}

static int list_logs(struct look *l, const char *path)
{
	_cleanup_closedir_ DIR *d = opendir(path);
	struct dirent *e;
	int r = d ? 0 : -errno;

	while (r == 0 && (e = readdir(d)))
		r = note_name(l, e->d_name);
	return r;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int read_logs(struct look *l)
{
	if (l->n_logs)
		qsort(l->logs, l->n_logs, sizeof *l->logs, by_number);
	for (size_t i = 0; i < l->n_logs; i++) {
		struct log_header h = { 0 };
		struct alive *before = l->table;
		int r;

		r = staging_log_read(l->dir_fd, l->logs[i], &h, visit, l);
		if (r < 0)
			return r;
		l->found->damaged_records += h.damaged;
		if (r > 0 && h.unfinished)
			return 0;
		if (r > 0 && h.supersedes && before && i) {
			/* What counts stands in this file and in those behind it. */
			forget_all(l);
			r = staging_log_read(l->dir_fd, l->logs[i], &h, visit, l);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static void count(struct look *l)
{
	for (struct alive *a = l->table; a; a = a->hh.next) {
		char name[STAGING_NAME_BYTES], second[STAGING_NAME_BYTES];

		if (a->ended || !a->begun)
			continue;
		l->found->unfinished++;
		staging_file_name(a->id, false, name);
		staging_file_name(a->id, true, second);
		if (a->file && faccessat(l->dir_fd, name, F_OK, 0) < 0 &&
			faccessat(l->dir_fd, second, F_OK, 0) < 0)
			l->found->missing++;
	}
}

int staging_check(const char *path, struct staging_found *ret)
{
	_cleanup_(look_done) struct look l = { .found = ret };
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	*ret = (struct staging_found){ 0 };
	l.dir_fd = fd;
	r = list_logs(&l, path);
	if (r == 0)
		r = read_logs(&l);
	if (r < 0)
		return r;
	count(&l);
	return 0;
}
