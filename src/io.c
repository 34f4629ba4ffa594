// SPDX-License-Identifier: Apache-2.0
#include "io.h"

#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int io_pread_full(int fd, void *p, size_t n, uint64_t offset)
{
	uint8_t *b = p;

	while (n) {
		ssize_t got = pread(fd, b, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -ENODATA;
		b += got;
		n -= (size_t)got;
		offset += (uint64_t)got;
	}
	return 0;
}

int io_pwrite_full(int fd, const void *p, size_t n, uint64_t offset)
{
	const uint8_t *b = p;

	while (n) {
		ssize_t put = pwrite(fd, b, n, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		b += put;
		n -= (size_t)put;
		offset += (uint64_t)put;
	}
	return 0;
}

int io_write_full(int fd, const void *p, size_t n)
{
	const uint8_t *b = p;

	while (n) {
		ssize_t put = write(fd, b, n);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		b += put;
		n -= (size_t)put;
	}
	return 0;
}

int io_read_file(const char *path, size_t max_bytes, struct buf *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t had = ret->len;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t got;
		int r = buf_reserve(ret, 4096);

		if (r < 0)
			return r;
		got = read(fd, ret->data + ret->len, ret->cap - ret->len);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return 0;
		ret->len += (size_t)got;
		if (ret->len - had > max_bytes)
			return -EFBIG;
	}
}

static int parent_of(const char *path, char **ret)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		*ret = strdup(".");
	else
		*ret = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	return *ret ? 0 : -ENOMEM;
}

int io_write_file_atomic(const char *path, const void *p, size_t n, mode_t mode)
{
	_cleanup_free_ char *tmp = NULL, *dir = NULL;
	_cleanup_close_ int fd = -1;
	int r;

	if (asprintf(&tmp, "%s.tmp", path) < 0) {
		tmp = NULL;
		return -ENOMEM;
	}
	r = parent_of(path, &dir);
	if (r < 0)
		return r;
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = io_write_full(fd, p, n);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0)
		r = fault_point("io.written");
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(tmp);
		return r;
	}
	fault_instant("io.renamed");
	return io_sync_dir(dir);
}

/* A new folder's name is durable when it returns: what is synced in it must not go with it. */
static int make_dir(const char *path, mode_t mode)
{
	_cleanup_free_ char *parent = NULL;
	int r;

	if (mkdir(path, mode) < 0)
		return errno == EEXIST ? 0 : -errno;
	r = parent_of(path, &parent);
	if (r == 0)
		r = io_sync_dir(parent);
	/* One that we may write to and not read cannot be synced. */
	return r == -EACCES ? 0 : r;
}

int io_mkdirs(const char *path, mode_t mode)
{
	_cleanup_free_ char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *s = copy + 1; *s; s++) {
		int r;

		if (*s != '/')
			continue;
		*s = '\0';
		r = make_dir(copy, mode);
		if (r < 0)
			return r;
		*s = '/';
	}
	return make_dir(copy, mode);
}

int io_sync_dir(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

int io_remove_tree(const char *path)
{
	int r = nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);

	if (r == -1)
		return errno == ENOENT ? 0 : -errno;
	return r;
}

bool io_is_zero(const void *p, size_t n)
{
	const uint8_t *b = p;

	if (n == 0)
		return true;
	return b[0] == 0 && memcmp(b, b + 1, n - 1) == 0;
}
