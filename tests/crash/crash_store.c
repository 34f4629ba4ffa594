// SPDX-License-Identifier: Apache-2.0
/*
 * kill -9 at random instants and at every fault point of the store and the chunk cache:
 *	crash_store [ROUNDS [SEED]]
 * A child writes chunks and rows and tells through a pipe what was acknowledged. When it is dead,
 * another child opens what is left: all that was acknowledged is there and whole, each writer's
 * rows have no gap, and no row names bytes that are not its chunk's.
 */
#include "bytes.h"
#include "fault.h"
#include "io.h"
#include "meta/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WRITERS 3
#define CHUNK_BYTES_MAX 60000
#define KILL_AFTER_US_MAX 60000

static char dir[64];
static struct store *st;
static struct cache *c;
static int acks = -1;
static uint64_t next_row[WRITERS]; /* the parent's: rows below are acknowledged */

struct ack {
	uint64_t writer;
	uint64_t row;
};

static void fail(const char *what, int r)
{
	fprintf(stderr, "crash_store: %s: %s\n", what, strerror(-r));
	exit(1);
}

static void must(const char *what, int r)
{
	if (r < 0)
		fail(what, r);
}

static void open_all(void)
{
	struct err err = { 0 };
	char db[80];

	snprintf(db, sizeof db, "%s/db", dir);
	if (store_open(db, &st, &err) < 0 || cache_open(st, dir, &c, &err) < 0) {
		fprintf(stderr, "crash_store: %s\n", err.text);
		exit(1);
	}
}

/* The chunk of a row: a function of its key alone. */
static size_t make_chunk(uint64_t writer, uint64_t row, uint8_t *ret, struct digest *ret_id)
{
	uint64_t x = writer << 48 ^ row;
	size_t n = row % 4 ? 1 + row * 7919 % 4096 : 5000 + row * 104729 % (CHUNK_BYTES_MAX - 5000);

	for (size_t i = 0; i < n; i++) {
		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		ret[i] = (uint8_t)(x >> 56);
	}
	digest_of(ret, n, ret_id);
	return n;
}

static void row_key(uint64_t writer, uint64_t row, uint8_t ret[16])
{
	put_be64(ret, writer);
	put_be64(ret + 8, row);
}

static int add_adopted(
	struct batch *b, uint64_t writer, const struct digest *id, const void *p, size_t n)
{
	_cleanup_close_ int fd = -1;
	struct segment *seg;
	char path[96];
	int r;

	snprintf(path, sizeof path, "%s/staged-%d", dir, (int)writer);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return -errno;
	r = io_write_full(fd, p, n);
	if (r == 0)
		r = cache_adopt(c, path, fd, &seg);
	if (r < 0)
		return r;
	fd = -1;
	r = cache_add_at(c, b, id, seg, 0, n, 0);
	segment_unref(seg);
	return r;
}

static void write_row(uint64_t writer, uint64_t row)
{
	_cleanup_batch_ struct batch *b = NULL;
	uint8_t bytes[CHUNK_BYTES_MAX], key[16];
	struct ack ack = { writer, row };
	struct digest id;
	size_t n = make_chunk(writer, row, bytes, &id);

	must("batch", batch_new(st, &b));
	must("chunk", row % 16 == 8 ? add_adopted(b, writer, &id, bytes, n)
				    : cache_add(c, b, &id, bytes, n, 0));
	row_key(writer, row, key);
	batch_put(b, CF_NODE, key, sizeof key, id.b, DIGEST_BYTES);
	batch_put(b, CF_OUTBOX, key, sizeof key, id.b, DIGEST_BYTES);
	must("commit", store_commit(st, b));
	if (row % 50 == 0)
		must("sync", cache_sync_all(c));
	/* Shorter than PIPE_BUF: whole or not at all. */
	if (write(acks, &ack, sizeof ack) != sizeof ack)
		exit(1);
}

static void *write_rows(void *arg)
{
	uint64_t writer = *(uint64_t *)arg;

	for (uint64_t row = next_row[writer];; row++)
		write_row(writer, row);
	return NULL;
}

static void write_until_killed(void)
{
	pthread_t threads[WRITERS];
	uint64_t writers[WRITERS];

	open_all();
	for (uint64_t i = 0; i < WRITERS; i++) {
		writers[i] = i;
		pthread_create(&threads[i], NULL, write_rows, &writers[i]);
	}
	pthread_join(threads[0], NULL);
}

static void check_row(uint64_t writer, uint64_t row)
{
	_cleanup_buf_ struct buf value = { 0 }, got = { 0 };
	uint8_t bytes[CHUNK_BYTES_MAX], key[16];
	struct digest id;
	size_t n = make_chunk(writer, row, bytes, &id);

	row_key(writer, row, key);
	if (store_get(st, CF_NODE, key, sizeof key, &value) != 1)
		fail("a row is missing", -ENOENT);
	if (store_get(st, CF_OUTBOX, key, sizeof key, NULL) != 1)
		fail("half of a batch", -ENOENT);
	if (value.len != DIGEST_BYTES || memcmp(value.data, id.b, DIGEST_BYTES) != 0)
		fail("a row is wrong", -EBADMSG);
	if (cache_read_chunk(c, &id, &got) != 1)
		fail("a chunk is missing or damaged", -EBADMSG);
	if (got.len != n || memcmp(got.data, bytes, n) != 0)
		fail("a chunk is wrong", -EBADMSG);
}

static uint64_t count_rows(uint64_t writer)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	uint8_t prefix[8];
	uint64_t n = 0;

	put_be64(prefix, writer);
	must("iterator", store_iter_new(st, CF_NODE, prefix, sizeof prefix, &it));
	for (; store_iter_valid(it) > 0; store_iter_next(it))
		n++;
	return n;
}

/* Every row that is there, and tells how many: at least the acknowledged, one more at most. */
static void check_all(void)
{
	open_all();
	for (uint64_t writer = 0; writer < WRITERS; writer++) {
		uint64_t n = count_rows(writer);
		struct ack ack = { writer, n };

		if (n < next_row[writer] || n > next_row[writer] + 1) {
			fprintf(stderr, "crash_store: writer %llu: %llu rows, %llu acknowledged\n",
				(unsigned long long)writer, (unsigned long long)n,
				(unsigned long long)next_row[writer]);
			exit(1);
		}
		for (uint64_t row = 0; row < n; row++)
			check_row(writer, row);
		if (write(acks, &ack, sizeof ack) != sizeof ack)
			exit(1);
	}
	cache_free(c);
	store_free(st);
}

static void close_end(int fd)
{
	if (close(fd) < 0)
		fail("close", -errno);
}

/* RocksDB's threads do not live through a fork, so only children open a store. */
static pid_t run_child(void (*run)(void), const char *fault, int *ret_pipe)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		fail("pipe", -errno);
	pid = fork();
	if (pid < 0)
		fail("fork", -errno);
	if (pid == 0) {
		close_end(ends[0]);
		acks = ends[1];
		if (fault && setenv("VARVE_FAULT", fault, 1) < 0)
			exit(1);
		must("VARVE_FAULT", fault_init());
		run();
		exit(0);
	}
	close_end(ends[1]);
	*ret_pipe = ends[0];
	return pid;
}

static void read_acks(int fd, bool counts)
{
	struct ack ack;

	while (read(fd, &ack, sizeof ack) == sizeof ack)
		next_row[ack.writer] = counts ? ack.row : ack.row + 1;
	close_end(fd);
}

static void *kill_later(void *arg)
{
	pid_t pid = *(pid_t *)arg;

	usleep((useconds_t)(random() % KILL_AFTER_US_MAX));
	kill(pid, SIGKILL);
	return NULL;
}

static void write_round(const char *fault)
{
	pthread_t killer;
	int status, fd;
	pid_t pid = run_child(write_until_killed, fault, &fd);

	if (!fault)
		pthread_create(&killer, NULL, kill_later, &pid);
	read_acks(fd, false);
	if (!fault)
		pthread_join(killer, NULL);
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail("the writer ended by itself", -ECHILD);
}

static void check_round(void)
{
	int status, fd;
	pid_t pid = run_child(check_all, NULL, &fd);

	read_acks(fd, true);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		exit(1);
}

static void fault_rounds(void)
{
	static const char *const points[] = { "store_commit", "store_sync", "segment_append",
		"segment_adopt", "segment_sync" };

	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		char fault[64];

		snprintf(fault, sizeof fault, "%s:%d:kill", points[i], 1 + (int)(random() % 5));
		write_round(fault);
		check_round();
	}
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 15;
	unsigned seed = argc > 2 ? (unsigned)atoi(argv[2]) : (unsigned)getpid();
	uint64_t total = 0;

	if (rounds < 1) {
		fprintf(stderr, "usage: crash_store [ROUNDS [SEED]]\n");
		return 2;
	}
	printf("seed %u\n", seed);
	fflush(stdout);
	srandom(seed);
	strcpy(dir, "/tmp/varve-crash-XXXXXX");
	if (!mkdtemp(dir))
		fail("folder", -errno);
	for (int i = 0; i < rounds; i++) {
		write_round(NULL);
		check_round();
	}
	fault_rounds();
	for (int i = 0; i < WRITERS; i++)
		total += next_row[i];
	printf("%d kills, %llu rows, nothing lost\n", rounds + 5, (unsigned long long)total);
	must("remove", io_remove_tree(dir));
	return total == 0;
}
