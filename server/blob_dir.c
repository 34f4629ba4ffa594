// SPDX-License-Identifier: Apache-2.0
/*
 * Objects in a local directory:
 *
 *	DIR/objects/HH/NAME	HH: the first byte of the key's BLAKE3; NAME: the key, '/' as '_'
 *	DIR/objects/HH/.new-*	on its way; one that a crash left behind goes at a later open
 *
 * Invariants: 1. A NAME is there only with all its bytes, synced: they are written under another
 * name first. 2. put returns when the folder that holds the name is synced too. 3. A NAME is
 * never written again.
 */
#include "blob_driver.h"

#include "bytes.h"
#include "chunk/digest.h"
#include "clock.h"
#include "fault.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#define SHARDS 256
#define NEW_PREFIX ".new-"
/* No put takes as long: such a file has no writer any more. */
#define LEFT_OVER_NS (3600 * NS_PER_S)

struct blob_dir {
	struct blob blob;
	char *objects; /* the folder */
};

static struct blob_dir *self(struct blob *b)
{
	return (struct blob_dir *)b;
}

static int shard_path(struct blob_dir *d, unsigned shard, char **ret)
{
	return asprintf(ret, "%s/%02x", d->objects, shard) < 0 ? -ENOMEM : 0;
}

/* The folder and the full path of an object. */
static int object_path(struct blob_dir *d, const char *key, char **ret_folder, char **ret_path)
{
	struct digest h;
	char *name;

	digest_of(key, strlen(key), &h);
	if (shard_path(d, h.b[0], ret_folder) < 0) {
		*ret_folder = NULL;
		return -ENOMEM;
	}
	if (asprintf(ret_path, "%s/%s", *ret_folder, key) < 0) {
		*ret_path = NULL;
		return -ENOMEM;
	}
	name = *ret_path + strlen(*ret_folder) + 1;
	for (char *s = strchr(name, '/'); s; s = strchr(s, '/'))
		*s = '_';
	return 0;
}

static void remove_left_over(int folder, const char *name)
{
	struct stat st;

	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		clock_real_ns() - st.st_mtim.tv_sec * NS_PER_S > LEFT_OVER_NS)
		unlinkat(folder, name, 0); /* one that stays is removed at a later open */
}

static int prepare_shard(struct blob_dir *d, unsigned shard)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *e;

	if (shard_path(d, shard, &path) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (mkdir(path, 0700) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((e = readdir(dir)))
		if (strncmp(e->d_name, NEW_PREFIX, strlen(NEW_PREFIX)) == 0)
			remove_left_over(dirfd(dir), e->d_name);
	return 0;
}

static int prepare(struct blob_dir *d, const char *where)
{
	int r = io_mkdirs(d->objects, 0700);

	for (unsigned i = 0; r == 0 && i < SHARDS; i++)
		r = prepare_shard(d, i);
	if (r == 0)
		r = io_sync_dir(d->objects);
	return r < 0 ? r : io_sync_dir(where);
}

static void dir_close(struct blob *b)
{
	free(self(b)->objects);
	free(b);
}

static int dir_open(const char *where, struct blob **ret, struct err *err)
{
	struct blob_dir *d = calloc(1, sizeof *d);
	int r = -ENOMEM;

	if (d && asprintf(&d->objects, "%s/objects", where) >= 0)
		r = prepare(d, where);
	else if (d)
		d->objects = NULL;
	if (r < 0) {
		if (d)
			dir_close(&d->blob);
		return err_sys(err, -r, "blob store: %s", where);
	}
	*ret = &d->blob;
	return 0;
}

/* A new file beside the object, whose name nobody else uses. */
static int create_new(const char *folder, char **ret_path, int *ret_fd)
{
	static atomic_uint counter;
	int fd;

	if (asprintf(ret_path, "%s/" NEW_PREFIX "%d-%u", folder, (int)getpid(), counter++) < 0) {
		*ret_path = NULL;
		return -ENOMEM;
	}
	fd = open(*ret_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int write_synced(int fd, const void *p, size_t n)
{
	int r = fault_point("blob_write");

	if (r == 0)
		r = io_write_full(fd, p, n);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

static int write_object(const char *folder, const char *path, const void *p, size_t n)
{
	_cleanup_free_ char *new_path = NULL;
	_cleanup_close_ int fd = -1;
	int r = create_new(folder, &new_path, &fd);

	if (r < 0)
		return r;
	r = write_synced(fd, p, n);
	if (r == 0)
		r = fault_point("blob_rename");
	/* link(), not rename(): it never replaces. */
	if (r == 0 && link(new_path, path) < 0 && errno != EEXIST)
		r = -errno;
	fault_instant("blob_linked");
	unlink(new_path);
	return r;
}

static int dir_put(struct blob *b, const char *key, const void *p, size_t n, struct err *err)
{
	_cleanup_free_ char *folder = NULL, *path = NULL;
	int r = object_path(self(b), key, &folder, &path);

	if (r == 0 && access(path, F_OK) < 0)
		r = write_object(folder, path, p, n);
	/* Also for an object that was there: who put it may not have got so far yet. */
	if (r == 0)
		r = io_sync_dir(folder);
	return r < 0 ? err_sys(err, -r, "blob store: put %s", key) : 0;
}

static int read_range(
	int fd, const char *key, uint64_t offset, size_t n, struct buf *ret, struct err *err)
{
	struct stat st;
	uint64_t end = UINT64_MAX;
	int r;

	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "blob store: get %s", key);
	if (!add_fits(offset, n, &end) || end > (uint64_t)st.st_size)
		return err_set(err, EIO, "blob store: get %s: it has %lld bytes, not %llu", key,
			(long long)st.st_size, (unsigned long long)end);
	r = buf_reserve(ret, n);
	if (r == 0)
		r = io_pread_full(fd, ret->data + ret->len, n, offset);
	if (r < 0)
		return err_sys(err, r == -ENODATA ? EIO : -r, "blob store: get %s", key);
	ret->len += n;
	return 0;
}

static int dir_get(struct blob *b, const char *key, uint64_t offset, size_t n, struct buf *ret,
	struct err *err)
{
	_cleanup_free_ char *folder = NULL, *path = NULL;
	_cleanup_close_ int fd = -1;
	int r = object_path(self(b), key, &folder, &path);

	if (r < 0)
		return err_sys(err, -r, "blob store: get %s", key);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_sys(err, errno, "blob store: get %s", key);
	return read_range(fd, key, offset, n, ret, err);
}

static int dir_delete(struct blob *b, const char *key, struct err *err)
{
	_cleanup_free_ char *folder = NULL, *path = NULL;
	int r = object_path(self(b), key, &folder, &path);

	if (r == 0 && unlink(path) < 0 && errno != ENOENT)
		r = -errno;
	return r < 0 ? err_sys(err, -r, "blob store: delete %s", key) : 0;
}

struct listing {
	const char *prefix;
	int (*visit)(void *ctx, const char *key, uint64_t size);
	void *ctx;
};

static int visit_object(const struct listing *l, int folder, const char *name)
{
	char key[BLOB_KEY_BYTES_MAX + 1];
	struct stat st;

	if (name[0] == '.' || strlen(name) > BLOB_KEY_BYTES_MAX)
		return 0;
	strcpy(key, name);
	for (char *s = strchr(key, '_'); s; s = strchr(s, '_'))
		*s = '/';
	if (strncmp(key, l->prefix, strlen(l->prefix)) != 0)
		return 0;
	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	return l->visit(l->ctx, key, (uint64_t)st.st_size);
}

static int list_shard(struct blob_dir *d, unsigned shard, const struct listing *l)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_closedir_ DIR *dir = NULL;

	if (shard_path(d, shard, &path) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	dir = opendir(path);
	if (!dir)
		return -errno;
	for (;;) {
		struct dirent *e;
		int r;

		errno = 0;
		e = readdir(dir);
		if (!e)
			return -errno;
		r = visit_object(l, dirfd(dir), e->d_name);
		if (r)
			return r;
	}
}

static int dir_list(struct blob *b, const char *prefix,
	int (*visit)(void *ctx, const char *key, uint64_t size), void *ctx, struct err *err)
{
	const struct listing l = { prefix, visit, ctx };

	for (unsigned i = 0; i < SHARDS; i++) {
		int r = list_shard(self(b), i, &l);

		if (r < 0)
			return err_sys(err, -r, "blob store: list");
		if (r > 0)
			return r;
	}
	return 0;
}

const struct blob_driver blob_dir_driver = {
	.scheme = "dir",
	.open = dir_open,
	.close = dir_close,
	.put = dir_put,
	.get = dir_get,
	.delete = dir_delete,
	.list = dir_list,
};
