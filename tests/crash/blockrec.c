// SPDX-License-Identifier: Apache-2.0
/*
 * Disks that remember in which order they were written and flushed, for tests of power loss.
 *
 *	blockrec LOG MOUNTPOINT MIB...
 *
 * A FUSE file system, in the foreground, with a file "diskN" for each size, to put loop devices
 * on, and a file "pos", whose content is the log's length in decimal digits. The loop driver's
 * flushes come as fsync. One thread serves all, so the log has one order for all disks.
 *
 * The log: records of a header and, for a write, its bytes. Integers are little-endian.
 *
 *	 0  4  kind: 1 = write, 2 = zeros, 3 = flush
 *	 4  4  disk
 *	 8  8  offset
 *	16  8  length
 *
 * What was written before a flush is on the disk when the flush is in the log; what was written
 * after the last one may be there or not, sector by sector. The bytes themselves are kept in
 * LOG.diskN, which stands for a disk that never loses power.
 */
#define FUSE_USE_VERSION 31

#include "bytes.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISKS_MAX 4
#define RECORD_BYTES 24
#define ZEROS_AT_ONCE (1 << 20)

enum record_kind { RECORD_WRITE = 1, RECORD_ZEROS = 2, RECORD_FLUSH = 3 };

static struct disk {
	int fd;
	uint64_t bytes;
} disks[DISKS_MAX];
static size_t n_disks;
static int log_fd;
static uint64_t log_end;

/* "/diskN" to its number; -1 for "/pos"; -ENOENT. */
static int parse(const char *path)
{
	unsigned n;

	if (strcmp(path, "/pos") == 0)
		return -1;
	if (sscanf(path, "/disk%u", &n) == 1 && n < n_disks)
		return (int)n;
	return -ENOENT;
}

static int put_record(enum record_kind kind, int disk, uint64_t offset, const void *p, uint64_t n)
{
	uint8_t h[RECORD_BYTES];
	int r;

	put_le32(h, kind);
	put_le32(h + 4, (uint32_t)disk);
	put_le64(h + 8, offset);
	put_le64(h + 16, n);
	r = io_pwrite_full(log_fd, h, sizeof h, log_end);
	if (r == 0 && p)
		r = io_pwrite_full(log_fd, p, n, log_end + sizeof h);
	if (r == 0)
		log_end += sizeof h + (p ? n : 0);
	return r;
}

static int do_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	int disk = strcmp(path, "/") == 0 ? -1 : parse(path);

	if (disk == -ENOENT)
		return -ENOENT;
	*st = (struct stat){ .st_mode = S_IFREG | 0600, .st_nlink = 1 };
	if (strcmp(path, "/") == 0)
		st->st_mode = S_IFDIR | 0700;
	else if (disk >= 0)
		st->st_size = (off_t)disks[disk].bytes;
	return 0;
}

static int do_open(const char *path, struct fuse_file_info *fi)
{
	int disk = parse(path);

	fi->direct_io = disk == -1;
	return disk == -ENOENT ? -ENOENT : 0;
}

static int do_read(const char *path, char *p, size_t n, off_t offset, struct fuse_file_info *fi)
{
	int disk = parse(path);
	char text[32];
	size_t len;

	if (disk >= 0) {
		ssize_t got = pread(disks[disk].fd, p, n, offset);

		return got < 0 ? -errno : (int)got;
	}
	len = (size_t)snprintf(text, sizeof text, "%llu\n", (unsigned long long)log_end);
	if ((size_t)offset >= len)
		return 0;
	n = n < len - (size_t)offset ? n : len - (size_t)offset;
	memcpy(p, text + offset, n);
	return (int)n;
}

static int do_write(
	const char *path, const char *p, size_t n, off_t offset, struct fuse_file_info *fi)
{
	int disk = parse(path), r;

	if (disk < 0 || (uint64_t)offset + n > disks[disk].bytes)
		return -EIO;
	r = put_record(RECORD_WRITE, disk, (uint64_t)offset, p, n);
	if (r == 0)
		r = io_pwrite_full(disks[disk].fd, p, n, (uint64_t)offset);
	return r < 0 ? r : (int)n;
}

static int put_zeros(int fd, uint64_t offset, uint64_t n)
{
	static const uint8_t zeros[ZEROS_AT_ONCE];
	int r = 0;

	while (n && r == 0) {
		size_t part = n < sizeof zeros ? (size_t)n : sizeof zeros;

		r = io_pwrite_full(fd, zeros, part, offset);
		offset += part;
		n -= part;
	}
	return r;
}

/* How the loop driver discards, and writes zeros. */
static int do_fallocate(
	const char *path, int mode, off_t offset, off_t n, struct fuse_file_info *fi)
{
	int disk = parse(path), r;

	if (disk < 0 || !(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
		return -EOPNOTSUPP;
	if ((uint64_t)offset + (uint64_t)n > disks[disk].bytes)
		return -EIO;
	r = put_record(RECORD_ZEROS, disk, (uint64_t)offset, NULL, (uint64_t)n);
	return r < 0 ? r : put_zeros(disks[disk].fd, (uint64_t)offset, (uint64_t)n);
}

static int do_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	int disk = parse(path);

	return disk < 0 ? -EIO : put_record(RECORD_FLUSH, disk, 0, NULL, 0);
}

static const struct fuse_operations operations = {
	.getattr = do_getattr,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.fallocate = do_fallocate,
	.fsync = do_fsync,
};

static int open_disk(const char *log, size_t n, const char *mib)
{
	char path[4096];

	snprintf(path, sizeof path, "%s.disk%zu", log, n);
	disks[n].bytes = strtoull(mib, NULL, 10) << 20;
	disks[n].fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return disks[n].fd < 0 || ftruncate(disks[n].fd, (off_t)disks[n].bytes) < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
	static char foreground[] = "-f", one_thread[] = "-s";
	char *fuse_argv[] = { argv[0], foreground, one_thread, argv[2], NULL };

	if (argc < 4 || argc > 3 + DISKS_MAX) {
		fprintf(stderr, "usage: blockrec LOG MOUNTPOINT MIB...\n");
		return 2;
	}
	log_fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (log_fd < 0) {
		perror(argv[1]);
		return 1;
	}
	for (; n_disks < (size_t)argc - 3; n_disks++) {
		if (open_disk(argv[1], n_disks, argv[3 + n_disks]) < 0) {
			perror(argv[1]);
			return 1;
		}
	}
	return fuse_main(4, fuse_argv, &operations, NULL);
}
