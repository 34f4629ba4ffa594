// SPDX-License-Identifier: Apache-2.0
/* Segments: how they go. */
#include "meta/segment_impl.h"

#include "clock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

struct listing {
	struct segments *s;
	struct segment_info *list;
	size_t n, capacity;
};

static bool parse_name(const char *name, uint64_t *ret)
{
	char *end;

	if (strlen(name) != SEGMENT_NAME_BYTES - 1 || !isxdigit((unsigned char)*name))
		return false;
	*ret = strtoull(name, &end, 16);
	return *end == 0;
}

static int64_t ns_of(const struct timespec *t)
{
	return (int64_t)t->tv_sec * NS_PER_S + t->tv_nsec;
}

/*
 * Whether it is free to go, under the lock under which new files come: one that is being made
 * has its reference before anybody else gets here.
 */
static bool is_free(struct segments *s, uint64_t id, int64_t *io_used_ns)
{
	struct segment *seg;
	SCOPED_LOCK(&s->lock);

	HASH_FIND(hh, s->table, &id, sizeof id, seg);
	if (!seg)
		return true;
	*io_used_ns = MAX(*io_used_ns, seg->used_ns);
	return seg->refs == 0;
}

static int list_one(struct listing *l, int dir_fd, const char *name)
{
	struct segment_info info;
	struct stat st;

	if (!parse_name(name, &info.id))
		return 0;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return 0;
	info.bytes = segment_disk_bytes(&st);
	info.used_ns = MAX(ns_of(&st.st_atim), ns_of(&st.st_mtim));
	if (!is_free(l->s, info.id, &info.used_ns))
		return 0;
	if (l->n == l->capacity) {
		size_t capacity = l->capacity ? 2 * l->capacity : 64;
		struct segment_info *list = reallocarray(l->list, capacity, sizeof *list);

		if (!list)
			return -ENOMEM;
		l->list = list;
		l->capacity = capacity;
	}
	l->list[l->n++] = info;
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	const struct segment_info *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

int segments_list(struct segments *s, struct segment_info **ret, size_t *ret_n)
{
	int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct listing l = { .s = s };
	struct dirent *e;
	int r = 0;

	if (!d) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(d)))
		r = list_one(&l, fd, e->d_name);
	if (r < 0) {
		free(l.list);
		return r;
	}
	if (l.n)
		qsort(l.list, l.n, sizeof *l.list, compare_ids);
	*ret = l.list;
	*ret_n = l.n;
	return 0;
}

int segments_remove(struct segments *s, uint64_t id)
{
	char name[SEGMENT_NAME_BYTES];
	struct segment *seg;
	struct stat st;

	segment_name(id, name);
	if (fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (unlinkat(s->dir_fd, name, 0) < 0)
		return errno == ENOENT ? 0 : -errno;
	pthread_mutex_lock(&s->lock);
	HASH_FIND(hh, s->table, &id, sizeof id, seg);
	if (seg)
		segments_forget_locked(s, seg);
	pthread_mutex_unlock(&s->lock);
	segments_count_change(s, -1, -(int64_t)segment_disk_bytes(&st));
	return 0;
}

void segments_set_max(struct segments *s, uint64_t bytes)
{
	SCOPED_LOCK(&s->lock);

	s->size_max = MIN(bytes, SEGMENT_BYTES_MAX);
}

void segments_watch(struct segments *s, uint64_t limit_bytes, void (*grown)(void *ctx), void *ctx)
{
	SCOPED_LOCK(&s->stats_lock);

	s->limit_bytes = limit_bytes;
	s->grown = grown;
	s->grown_ctx = ctx;
}
