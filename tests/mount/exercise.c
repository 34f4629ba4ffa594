// SPDX-License-Identifier: Apache-2.0
/*
 * Does random things to two files in a folder, and knows from a model in memory what every byte
 * must be. Whatever reads (read, O_DIRECT, a mapping, stat, SEEK_DATA) has to agree with it.
 *
 *	exercise [-b] [-n OPERATIONS] [-s SEED] [-m MAX_BYTES] [-x NAMES] DIR
 *
 * The same seed does the same operations. -x leaves out operations, by name, with commas. At the
 * first difference it tells the last operations, and exits with 1. The files stay.
 */
#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define HISTORY 40
#define HISTORY_BYTES 160
#define FILES 2

/* Descriptors of one file; each its own open file. */
enum { FD_PLAIN, FD_LINKED, FD_APPEND, FD_DIRECT, FDS };
static const int fd_flags[FDS] = { O_RDWR, O_RDWR, O_RDWR | O_APPEND, O_RDWR | O_DIRECT };

struct file {
	char path[PATH_MAX], other[PATH_MAX]; /* its two names, which it may change */
	int fds[FDS];
	uint8_t *map; /* of max_bytes, whatever the size is */
	bool map_dirty; /* written to since the last msync() */
	uint8_t *model; /* zeros from `size` on */
	size_t size;
	unsigned names; /* that it has had */
};

static struct file files[FILES];
static const char *dir;
static size_t max_bytes = 3 << 20;
static uint64_t state;
static uint64_t operation;
static uint8_t *scratch, *aligned;
static char history[HISTORY][HISTORY_BYTES];
static sigjmp_buf bus;
static bool tight_blocks;

static uint64_t random_u64(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * UINT64_C(0x2545f4914f6cdd1d);
}

static size_t below(size_t n)
{
	return n ? (size_t)(random_u64() >> 11) % n : 0;
}

static bool one_in(unsigned n)
{
	return below(n) == 0;
}

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...)
{
	char *line = history[operation % HISTORY];
	int n = snprintf(line, HISTORY_BYTES, "%" PRIu64 ": ", operation);
	va_list args;

	va_start(args, format);
	vsnprintf(line + n, (size_t)(HISTORY_BYTES - n), format, args);
	va_end(args);
}

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *format, ...)
{
	uint64_t first = operation >= HISTORY ? operation - HISTORY + 1 : 0;
	va_list args;

	for (uint64_t i = first; i <= operation; i++)
		fprintf(stderr, "%s\n", history[i % HISTORY]);
	fprintf(stderr, "exercise: operation %" PRIu64 ": ", operation);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void must(bool good, const char *what)
{
	if (!good)
		fail("%s: %s", what, strerror(errno));
}

static void compare(const struct file *f, size_t offset, const uint8_t *got, size_t n)
{
	size_t i = 0, last = n;

	if (memcmp(got, f->model + offset, n) == 0)
		return;
	while (got[i] == f->model[offset + i])
		i++;
	while (got[last - 1] == f->model[offset + last - 1])
		last--;
	fail("%s: [%#zx, %#zx) differs; at the first byte 0x%02x, should be 0x%02x (size %#zx)",
		f->path, offset + i, offset + last, got[i], f->model[offset + i], f->size);
}

/* Small and large, near the edges of pages and blocks, and anywhere. */
static size_t some_length(size_t limit)
{
	static const size_t limits[] = { 16, 300, PAGE, 3 * PAGE, 70000, 300000 };
	size_t n = below(limits[below(ARRAY_SIZE(limits))]) + 1;

	if (one_in(6))
		n = (n + PAGE - 1) / PAGE * PAGE;
	return MIN(n, limit);
}

static size_t some_offset(size_t limit)
{
	size_t at = below(limit + 1);
	size_t block = one_in(2) ? PAGE : 65536;

	if (one_in(3))
		at = at / block * block;
	if (one_in(6))
		at += below(5);
	return MIN(at, limit);
}

/* A range that begins in the file or not far behind it. */
static void some_range(const struct file *f, size_t *ret_offset, size_t *ret_n)
{
	size_t limit = one_in(8) ? max_bytes : MIN(f->size + PAGE, max_bytes);

	*ret_offset = some_offset(limit - 1);
	*ret_n = some_length(max_bytes - *ret_offset);
}

/* A range inside the file; false when that is empty. */
static bool some_inside(const struct file *f, size_t *ret_offset, size_t *ret_n)
{
	if (f->size == 0)
		return false;
	*ret_offset = some_offset(f->size - 1);
	*ret_n = some_length(f->size - *ret_offset);
	return true;
}

static void fill(uint8_t *p, size_t n)
{
	uint64_t kind = below(10);

	if (kind == 0) {
		memset(p, 0, n);
	} else if (kind == 1) {
		memset(p, 'a' + (int)below(26), n);
	} else {
		for (size_t i = 0; i < n; i += 8) {
			uint64_t r = random_u64();

			memcpy(p + i, &r, MIN(n - i, sizeof r));
		}
	}
}

static int some_fd(const struct file *f)
{
	return f->fds[one_in(2) ? FD_PLAIN : FD_LINKED];
}

static struct file *some_file(void)
{
	return &files[one_in(4)];
}

static void model_write(struct file *f, size_t offset, const uint8_t *p, size_t n)
{
	memcpy(f->model + offset, p, n);
	f->size = MAX(f->size, offset + n);
}

static void model_resize(struct file *f, size_t size)
{
	if (size < f->size)
		memset(f->model + size, 0, f->size - size);
	f->size = size;
}

static void op_write(struct file *f)
{
	size_t offset, n;
	int fd = some_fd(f);

	some_range(f, &offset, &n);
	note("write %s [%#zx, %#zx)", f->path, offset, offset + n);
	fill(scratch, n);
	must(pwrite(fd, scratch, n, (off_t)offset) == (ssize_t)n, "pwrite");
	model_write(f, offset, scratch, n);
}

static void op_writev(struct file *f)
{
	struct iovec v[3];
	size_t offset, n;

	some_range(f, &offset, &n);
	note("writev %s [%#zx, %#zx)", f->path, offset, offset + n);
	fill(scratch, n);
	v[0] = (struct iovec){ scratch, n / 3 };
	v[1] = (struct iovec){ scratch + n / 3, n / 2 };
	v[2] = (struct iovec){ scratch + n / 3 + n / 2, n - n / 3 - n / 2 };
	must(pwritev(some_fd(f), v, 3, (off_t)offset) == (ssize_t)n, "pwritev");
	model_write(f, offset, scratch, n);
}

static void op_append(struct file *f)
{
	size_t n = some_length(max_bytes - f->size);

	note("append %s [%#zx, %#zx)", f->path, f->size, f->size + n);
	fill(scratch, n);
	must(write(f->fds[FD_APPEND], scratch, n) == (ssize_t)n, "append");
	model_write(f, f->size, scratch, n);
}

static void check_read(const struct file *f, int fd, uint8_t *p, size_t offset, size_t n)
{
	size_t want = offset < f->size ? MIN(n, f->size - offset) : 0;
	ssize_t got = pread(fd, p, n, (off_t)offset);

	must(got >= 0, "pread");
	if ((size_t)got != want)
		fail("%s: read %zd bytes at %#zx, not %zu", f->path, got, offset, want);
	compare(f, offset, p, want);
}

static void op_read(struct file *f)
{
	size_t offset, n;

	some_range(f, &offset, &n);
	note("read %s [%#zx, %#zx)", f->path, offset, offset + n);
	check_read(f, some_fd(f), scratch, offset, n);
}

static void whole_blocks(size_t *io_offset, size_t *io_n)
{
	*io_offset = *io_offset / PAGE * PAGE;
	*io_n = MIN((*io_n + PAGE - 1) / PAGE * PAGE, max_bytes - *io_offset);
}

static void op_direct_write(struct file *f)
{
	size_t offset, n;

	some_range(f, &offset, &n);
	whole_blocks(&offset, &n);
	note("direct write %s [%#zx, %#zx)", f->path, offset, offset + n);
	fill(aligned, n);
	must(pwrite(f->fds[FD_DIRECT], aligned, n, (off_t)offset) == (ssize_t)n, "direct pwrite");
	model_write(f, offset, aligned, n);
}

static void op_direct_read(struct file *f)
{
	size_t offset, n;

	some_range(f, &offset, &n);
	whole_blocks(&offset, &n);
	note("direct read %s [%#zx, %#zx)", f->path, offset, offset + n);
	check_read(f, f->fds[FD_DIRECT], aligned, offset, n);
}

/* What is not aligned may be refused, but not done wrong. */
static void op_direct_odd(struct file *f)
{
	size_t offset, n;
	ssize_t did;

	some_range(f, &offset, &n);
	note("odd direct write %s [%#zx, %#zx)", f->path, offset, offset + n);
	fill(scratch, n);
	did = pwrite(f->fds[FD_DIRECT], scratch, n, (off_t)offset);
	if (did < 0 && errno == EINVAL)
		return;
	must(did == (ssize_t)n, "odd direct pwrite");
	model_write(f, offset, scratch, n);
	check_read(f, f->fds[FD_DIRECT], scratch, offset, n);
}

static void op_map_write(struct file *f)
{
	size_t offset, n;

	if (!some_inside(f, &offset, &n))
		return;
	note("map write %s [%#zx, %#zx)", f->path, offset, offset + n);
	fill(scratch, n);
	memcpy(f->map + offset, scratch, n);
	f->map_dirty = true;
	model_write(f, offset, scratch, n);
}

/* With what the last page has behind the end: zeros. */
static void op_map_read(struct file *f)
{
	size_t offset, n, end;

	if (!some_inside(f, &offset, &n))
		return;
	end = offset + n == f->size ? (f->size + PAGE - 1) / PAGE * PAGE : offset + n;
	note("map read %s [%#zx, %#zx)", f->path, offset, end);
	compare(f, offset, f->map + offset, end - offset);
}

static void on_bus(int signal_number)
{
	siglongjmp(bus, signal_number);
}

static void op_map_beyond(struct file *f)
{
	size_t at = (f->size + PAGE - 1) / PAGE * PAGE + below(PAGE);
	volatile uint8_t sink = 0;

	if (at >= max_bytes)
		return;
	note("map beyond %s %#zx", f->path, at);
	if (sigsetjmp(bus, 1) == 0) {
		sink = f->map[at];
		fail("%s: byte %#zx of the mapping is %u, behind the size %#zx", f->path, at, sink,
			f->size);
	}
}

static void op_msync(struct file *f)
{
	note("msync %s", f->path);
	must(msync(f->map, max_bytes, MS_SYNC) == 0, "msync");
	f->map_dirty = false;
}

static void op_remap(struct file *f)
{
	note("remap %s", f->path);
	must(munmap(f->map, max_bytes) == 0, "munmap");
	f->map = mmap(NULL, max_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->fds[FD_PLAIN], 0);
	must(f->map != MAP_FAILED, "mmap");
	f->map_dirty = false;
}

static void op_truncate(struct file *f)
{
	size_t size = one_in(20) ? 0 : some_offset(one_in(4) ? max_bytes : f->size);

	note("truncate %s from %#zx to %#zx", f->path, f->size, size);
	if (one_in(3))
		must(truncate(f->path, (off_t)size) == 0, "truncate");
	else
		must(ftruncate(some_fd(f), (off_t)size) == 0, "ftruncate");
	model_resize(f, size);
}

static void op_fallocate(struct file *f)
{
	static const int modes[] = {
		0,
		FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	int mode = modes[below(ARRAY_SIZE(modes))];
	size_t offset, n;

	some_range(f, &offset, &n);
	note("fallocate %s mode %d [%#zx, %#zx)", f->path, mode, offset, offset + n);
	must(fallocate(some_fd(f), mode, (off_t)offset, (off_t)n) == 0, "fallocate");
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && offset < f->size)
		memset(f->model + offset, 0, MIN(n, f->size - offset));
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		f->size = MAX(f->size, offset + n);
}

static void copy_all(struct file *from, off_t in, struct file *to, off_t out, size_t n)
{
	while (n) {
		ssize_t did = copy_file_range(some_fd(from), &in, some_fd(to), &out, n, 0);

		must(did > 0, "copy_file_range");
		n -= (size_t)did;
	}
}

static void op_copy(struct file *f)
{
	struct file *to = one_in(2) ? f : &files[f == &files[0]];
	size_t offset, n, out;

	if (!some_inside(f, &offset, &n))
		return;
	if (one_in(3))
		n = MIN(n * 8, f->size - offset);
	out = some_offset(MIN(to->size + PAGE, max_bytes) - 1);
	n = MIN(n, max_bytes - out);
	note("copy %s [%#zx, %#zx) to %s %#zx", f->path, offset, offset + n, to->path, out);
	if (to == f && offset < out + n && out < offset + n) {
		loff_t in_at = (loff_t)offset, out_at = (loff_t)out;

		if (copy_file_range(some_fd(f), &in_at, some_fd(f), &out_at, n, 0) >= 0 ||
			errno != EINVAL)
			fail("ranges that overlap were copied");
		return;
	}
	copy_all(f, (off_t)offset, to, (off_t)out, n);
	memcpy(scratch, f->model + offset, n);
	model_write(to, out, scratch, n);
}

static void check_zeros(const struct file *f, size_t start, size_t end)
{
	for (size_t i = start; i < end; i++) {
		if (f->model[i])
			fail("%s: [%#zx, %#zx) is said to be a hole, but has data at %#zx", f->path,
				start, end, i);
	}
}

/* Data and holes by turns, up to the size, and what is said to be a hole is zeros. */
static void op_seek(struct file *f)
{
	size_t at = 0, end;
	int fd = some_fd(f);

	note("seek %s", f->path);
	while (at < f->size) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);

		must(data >= 0 || errno == ENXIO, "SEEK_DATA");
		end = data < 0 ? f->size : (size_t)data;
		if (end < at || end > f->size)
			fail("%s: data at %#zx, asked from %#zx on", f->path, end, at);
		check_zeros(f, at, end);
		if (data < 0)
			break;
		at = (size_t)lseek(fd, data, SEEK_HOLE);
		if (at <= end || at > f->size)
			fail("%s: hole at %#zx behind data at %#zx", f->path, at, end);
	}
	if (lseek(fd, (off_t)f->size, SEEK_DATA) >= 0 || errno != ENXIO)
		fail("%s: SEEK_DATA finds something at the end", f->path);
}

/*
 * What holds something takes room. That a file takes no more room than its size would is asked
 * with -b: other systems count what was allocated behind the end.
 */
static void check_blocks(const struct file *f, const struct stat *st)
{
	size_t used = 0, room = (size_t)st->st_blocks * 512;

	for (size_t i = 0; i < f->size; i++)
		used += f->model[i] != 0;
	if (!f->map_dirty && room < used)
		fail("%s: st_blocks has room for %zu bytes of %zu", f->path, room, used);
	if (tight_blocks && room > (f->size + 511) / 512 * 512)
		fail("%s: st_blocks has room for %zu bytes in %zu", f->path, room, f->size);
}

static void op_stat(struct file *f)
{
	struct stat st;

	note("stat %s", f->path);
	must(one_in(2) ? stat(f->path, &st) == 0 : fstat(some_fd(f), &st) == 0, "stat");
	if ((size_t)st.st_size != f->size)
		fail("%s: size %#jx, should be %#zx", f->path, (intmax_t)st.st_size, f->size);
	check_blocks(f, &st);
}

static void op_sync(struct file *f)
{
	note("sync %s", f->path);
	must((one_in(2) ? fsync(some_fd(f)) : fdatasync(some_fd(f))) == 0, "fsync");
}

/* So that the next read asks the file system. */
static void op_forget(struct file *f)
{
	note("forget %s", f->path);
	must(posix_fadvise(some_fd(f), 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
}

static void open_one(struct file *f, int which)
{
	const char *path = which == FD_LINKED ? f->other : f->path;

	f->fds[which] = open(path, fd_flags[which]);
	must(f->fds[which] >= 0, "open");
}

static void op_reopen(struct file *f)
{
	int which = (int)below(FDS);

	note("reopen %s (%d)", f->path, which);
	must(close(f->fds[which]) == 0, "close");
	open_one(f, which);
}

static void op_reopen_all(struct file *f)
{
	note("reopen all of %s", f->path);
	for (int i = 0; i < FDS; i++)
		must(close(f->fds[i]) == 0, "close");
	for (int i = 0; i < FDS; i++)
		open_one(f, i);
}

static void op_open_truncate(struct file *f)
{
	if (!one_in(10))
		return;
	note("open with O_TRUNC %s", f->path);
	must(close(f->fds[FD_PLAIN]) == 0, "close");
	f->fds[FD_PLAIN] = open(f->path, O_RDWR | O_TRUNC);
	must(f->fds[FD_PLAIN] >= 0, "open");
	model_resize(f, 0);
}

static void next_name(struct file *f, char ret[PATH_MAX])
{
	snprintf(ret, PATH_MAX, "%s/%c-%u", dir, 'a' + (int)(f - files), f->names++);
}

static void op_rename(struct file *f)
{
	char to[PATH_MAX];

	next_name(f, to);
	note("rename %s to %s", f->path, to);
	must(rename(f->path, to) == 0, "rename");
	memcpy(f->path, to, sizeof to);
}

static void op_relink(struct file *f)
{
	char to[PATH_MAX];

	next_name(f, to);
	note("unlink %s, link %s", f->other, to);
	must(unlink(f->other) == 0, "unlink");
	must(link(f->path, to) == 0, "link");
	memcpy(f->other, to, sizeof to);
}

static void op_check_all(struct file *f)
{
	note("check %s", f->path);
	check_read(f, some_fd(f), scratch, 0, max_bytes);
	compare(f, 0, f->map, f->size);
}

static const struct op {
	const char *name;
	void (*run)(struct file *f);
	unsigned weight;
} all_ops[] = {
	{ "write", op_write, 20 },
	{ "writev", op_writev, 4 },
	{ "append", op_append, 4 },
	{ "read", op_read, 16 },
	{ "direct-write", op_direct_write, 4 },
	{ "direct-read", op_direct_read, 4 },
	{ "direct-odd", op_direct_odd, 2 },
	{ "map-write", op_map_write, 12 },
	{ "map-read", op_map_read, 8 },
	{ "map-beyond", op_map_beyond, 2 },
	{ "msync", op_msync, 2 },
	{ "remap", op_remap, 2 },
	{ "truncate", op_truncate, 5 },
	{ "fallocate", op_fallocate, 8 },
	{ "copy", op_copy, 6 },
	{ "seek", op_seek, 4 },
	{ "stat", op_stat, 6 },
	{ "sync", op_sync, 2 },
	{ "forget", op_forget, 3 },
	{ "reopen", op_reopen, 4 },
	{ "reopen-all", op_reopen_all, 2 },
	{ "open-truncate", op_open_truncate, 1 },
	{ "rename", op_rename, 2 },
	{ "relink", op_relink, 2 },
	{ "check-all", op_check_all, 1 },
};

static bool left_out(const char *name, const char *list)
{
	size_t n = strlen(name);

	for (const char *p = list; p && (p = strstr(p, name)); p += n) {
		if ((p == list || p[-1] == ',') && (p[n] == ',' || !p[n]))
			return true;
	}
	return false;
}

static void run(uint64_t n, const char *without)
{
	const struct op *table[256];
	size_t slots = 0;

	for (size_t i = 0; i < ARRAY_SIZE(all_ops); i++) {
		for (unsigned k = 0; k < all_ops[i].weight; k++) {
			if (!left_out(all_ops[i].name, without))
				table[slots++] = &all_ops[i];
		}
	}
	for (operation = 0; operation < n; operation++) {
		const struct op *op = table[below(slots)];

		note("%s", op->name);
		op->run(some_file());
	}
}

static void make_file(struct file *f)
{
	int fd;

	next_name(f, f->path);
	next_name(f, f->other);
	fd = open(f->path, O_RDWR | O_CREAT | O_EXCL, 0644);
	must(fd >= 0 && close(fd) == 0, f->path);
	must(link(f->path, f->other) == 0, "link");
	for (int i = 0; i < FDS; i++)
		open_one(f, i);
	f->model = calloc(1, max_bytes + PAGE);
	f->map = mmap(NULL, max_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->fds[FD_PLAIN], 0);
	must(f->model && f->map != MAP_FAILED, "memory");
}

/* By fresh descriptors, when nothing of it is open any more. */
static void end_file(struct file *f)
{
	int fd;

	must(munmap(f->map, max_bytes) == 0, "munmap");
	for (int i = 0; i < FDS; i++)
		must(close(f->fds[i]) == 0, "close");
	fd = open(f->other, O_RDONLY);
	must(fd >= 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0, "open");
	note("the end of %s", f->path);
	check_read(f, fd, scratch, 0, max_bytes);
	close(fd);
	free(f->model);
}

int main(int argc, char **argv)
{
	struct sigaction on = { .sa_handler = on_bus };
	uint64_t n = 10000, seed = 1;
	const char *without = NULL;
	int c;

	while ((c = getopt(argc, argv, "bn:s:m:x:")) > 0) {
		if (c == 'n')
			n = strtoull(optarg, NULL, 0);
		else if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'm')
			max_bytes = strtoull(optarg, NULL, 0) / PAGE * PAGE;
		else if (c == 'x')
			without = optarg;
		else if (c == 'b')
			tight_blocks = true;
		else
			return 2;
	}
	if (optind + 1 != argc || max_bytes < PAGE) {
		fprintf(stderr, "usage: exercise [-b] [-n N] [-s SEED] [-m BYTES] [-x OPS] DIR\n");
		return 2;
	}
	dir = argv[optind];
	state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
	scratch = malloc(max_bytes + PAGE);
	aligned = aligned_alloc(PAGE, max_bytes + PAGE);
	must(scratch && aligned, "memory");
	sigaction(SIGBUS, &on, NULL);
	for (int i = 0; i < FILES; i++)
		make_file(&files[i]);
	run(n, without);
	for (int i = 0; i < FILES; i++)
		end_file(&files[i]);
	printf("exercise: seed %" PRIu64 ": %" PRIu64 " operations, %zu and %zu bytes\n", seed, n,
		files[0].size, files[1].size);
	free(scratch);
	free(aligned);
	return 0;
}
