// SPDX-License-Identifier: Apache-2.0
/*
 * Work on files with nothing between it and the system calls, for scripts/bench.
 *
 * filework create DIR DIRS FILES SIZE	FILES files of SIZE bytes, spread over DIRS directories
 * filework write FILE BYTES		sequential, 1 MiB a call, and close
 * filework read FILE			sequential, 1 MiB a call
 * filework fsync DIR WRITERS COUNT	each writer, in a file of its own: COUNT times 4 KiB and
 * fsync filework latency FROM TO COUNT	write and close FROM, wait until TO has the bytes;
 * microseconds
 *
 * Prints seconds (latency: one figure a line).
 */
#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK (1 << 20)

static uint8_t block[BLOCK];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void fill_random(void)
{
	for (size_t n = 0; n < BLOCK; n += 256) {
		if (getrandom(block + n, 256, 0) != 256)
			die("getrandom");
	}
}

/* Another MiB that shares no chunk with the last one, at the cost of a few additions. */
static void next_block(uint64_t n)
{
	uint64_t x = n * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (size_t i = 0; i < BLOCK; i += 512) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(block + i, &x, sizeof x);
	}
}

static void put(const char *path, const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, p, n) != (ssize_t)n || close(fd) < 0)
		die(path);
}

static void create(const char *dir, long dirs, long files, size_t size)
{
	char path[4096];

	if (size > BLOCK - 8)
		die("size");
	for (long d = 0; d < dirs; d++) {
		snprintf(path, sizeof path, "%s/%03ld", dir, d);
		if (mkdir(path, 0755) < 0)
			die(path);
		for (long f = 0; f < files / dirs; f++) {
			uint64_t n = (uint64_t)(d * files + f);

			snprintf(path, sizeof path, "%s/%03ld/%05ld", dir, d, f);
			memcpy(block, &n, sizeof n);
			put(path, block, size);
		}
	}
}

static void write_file(const char *path, uint64_t bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0)
		die(path);
	for (uint64_t n = 0; n < bytes; n += BLOCK) {
		next_block(n);
		if (write(fd, block, BLOCK) != BLOCK)
			die(path);
	}
	if (close(fd) < 0)
		die(path);
}

static void read_file(const char *path)
{
	int fd = open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		die(path);
	while ((n = read(fd, block, BLOCK)) > 0)
		;
	if (n < 0 || close(fd) < 0)
		die(path);
}

struct syncer {
	pthread_t thread;
	char path[4096];
	long count;
};

static void *write_and_sync(void *arg)
{
	struct syncer *s = arg;
	int fd = open(s->path, O_WRONLY | O_CREAT | O_EXCL, 0644);

	if (fd < 0)
		die(s->path);
	for (long i = 0; i < s->count; i++) {
		if (write(fd, block + i % 64 * 4096, 4096) != 4096 || fsync(fd) < 0)
			die(s->path);
	}
	if (close(fd) < 0)
		die(s->path);
	return NULL;
}

static void sync_files(const char *dir, long writers, long count)
{
	struct syncer *all = calloc((size_t)writers, sizeof *all);

	if (!all)
		die("writers");
	for (long i = 0; i < writers; i++) {
		all[i].count = count;
		snprintf(all[i].path, sizeof all[i].path, "%s/%ld", dir, i);
		if (pthread_create(&all[i].thread, NULL, write_and_sync, &all[i]) != 0)
			die("thread");
	}
	for (long i = 0; i < writers; i++)
		pthread_join(all[i].thread, NULL);
	free(all);
}

/* Whether the file at path begins with n. */
static int has(const char *path, uint64_t n)
{
	uint64_t got = 0;
	int fd = open(path, O_RDONLY);
	int same;

	if (fd < 0)
		return 0;
	same = read(fd, &got, sizeof got) == sizeof got && got == n;
	close(fd);
	return same;
}

static void latency(const char *from, const char *to, long count)
{
	for (long i = 1; i <= count; i++) {
		uint64_t n = (uint64_t)clock_real_ns();
		int64_t start;

		memcpy(block, &n, sizeof n);
		put(from, block, 4096);
		start = clock_mono_ns();
		while (!has(to, n)) {
			if (clock_mono_ns() - start > 20 * NS_PER_S) {
				fprintf(stderr, "%s: not there within 20 s\n", to);
				exit(1);
			}
			usleep(200);
		}
		printf("%.1f\n", (double)(clock_mono_ns() - start) / 1000);
		usleep(20000);
	}
}

int main(int argc, char **argv)
{
	int64_t start;

	fill_random();
	start = clock_mono_ns();
	if (argc == 6 && strcmp(argv[1], "create") == 0) {
		create(argv[2], atol(argv[3]), atol(argv[4]), (size_t)atol(argv[5]));
	} else if (argc == 4 && strcmp(argv[1], "write") == 0) {
		write_file(argv[2], strtoull(argv[3], NULL, 10));
	} else if (argc == 3 && strcmp(argv[1], "read") == 0) {
		read_file(argv[2]);
	} else if (argc == 5 && strcmp(argv[1], "fsync") == 0) {
		sync_files(argv[2], atol(argv[3]), atol(argv[4]));
	} else if (argc == 5 && strcmp(argv[1], "latency") == 0) {
		latency(argv[2], argv[3], atol(argv[4]));
		return 0;
	} else {
		fprintf(stderr, "usage: filework create|write|read|fsync|latency ...\n");
		return 2;
	}
	printf("%.6f\n", (double)(clock_mono_ns() - start) / 1e9);
	return 0;
}
