// SPDX-License-Identifier: Apache-2.0
/*
 * What the store costs: bench_store DIR [COUNT [THREADS]]
 * A batch is what creating a file puts: node, link, outbox entry, about 150 bytes each.
 */
#include "bytes.h"
#include "clock.h"
#include "io.h"
#include "meta/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_BYTES 150

struct bench {
	struct store *store;
	uint64_t first;
	uint64_t count;
};

static void fail(const char *what, int r)
{
	fprintf(stderr, "bench_store: %s: %s\n", what, strerror(-r));
	exit(1);
}

static void report(const char *what, uint64_t n, int64_t began_ns)
{
	double s = (double)(clock_mono_ns() - began_ns) / (double)NS_PER_S;

	printf("%-28s %10.0f /s %8.2f us\n", what, (double)n / s, s * 1e6 / (double)n);
}

/* About as compressible as rows are. */
static void make_value(uint64_t i, uint8_t ret[VALUE_BYTES])
{
	memset(ret, 0, VALUE_BYTES);
	for (size_t at = 0; at + 8 <= VALUE_BYTES; at += 24)
		put_le64(ret + at, i * UINT64_C(0x9e3779b97f4a7c15) + at);
}

static size_t link_key(uint64_t i, uint8_t ret[64])
{
	put_be64(ret, i / 1000);
	return 8 + (size_t)snprintf((char *)ret + 8, 56, "file-%08llu", (unsigned long long)i);
}

static void *put_rows(void *arg)
{
	struct bench *b = arg;
	uint8_t key[64], value[VALUE_BYTES];

	for (uint64_t i = b->first; i < b->first + b->count; i++) {
		_cleanup_batch_ struct batch *batch = NULL;
		int r = batch_new(b->store, &batch);

		if (r < 0)
			fail("batch", r);
		make_value(i, value);
		put_be64(key, i);
		batch_put(batch, CF_NODE, key, 8, value, sizeof value);
		batch_put(batch, CF_OUTBOX, key, 8, value, sizeof value);
		batch_put(batch, CF_LINK, key, link_key(i, key), value, 16);
		r = store_commit(b->store, batch);
		if (r < 0)
			fail("commit", r);
	}
	return NULL;
}

static void *get_rows(void *arg)
{
	struct bench *b = arg;
	_cleanup_buf_ struct buf value = { 0 };
	uint64_t at = b->first;
	uint8_t key[64];

	for (uint64_t i = 0; i < b->count; i++) {
		int r;

		at = (at * UINT64_C(6364136223846793005) + 1442695040888963407);
		put_be64(key, (at >> 20) % b->count);
		buf_clear(&value);
		r = store_get(b->store, CF_NODE, key, 8, &value);
		if (r != 1)
			fail("get", r);
	}
	return NULL;
}

static void *get_absent(void *arg)
{
	struct bench *b = arg;
	uint8_t key[64];

	for (uint64_t i = b->first; i < b->first + b->count; i++) {
		size_t n = link_key(i, key);

		key[n++] = 'x';
		if (store_get(b->store, CF_LINK, key, n, NULL) != 0)
			fail("get", 0);
	}
	return NULL;
}

static void in_threads(
	struct store *st, const char *what, void *(*run)(void *), uint64_t count, size_t n_threads)
{
	pthread_t threads[64];
	struct bench parts[64];
	int64_t began = clock_mono_ns();

	for (size_t i = 0; i < n_threads; i++) {
		parts[i] = (struct bench){ st, count / n_threads * i, count / n_threads };
		pthread_create(&threads[i], NULL, run, &parts[i]);
	}
	for (size_t i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	report(what, count, began);
}

static void scan(struct store *st)
{
	int64_t began = clock_mono_ns();
	_cleanup_iter_ struct store_iter *it = NULL;
	uint64_t n = 0;

	if (store_iter_new(st, CF_LINK, NULL, 0, &it) < 0)
		fail("scan", 0);
	for (; store_iter_valid(it) > 0; store_iter_next(it))
		n += store_iter_key(it).n > 8;
	report("entries scanned", n, began);
}

static void short_scans(struct store *st, uint64_t count)
{
	int64_t began = clock_mono_ns();
	uint8_t prefix[8];

	for (uint64_t i = 0; i < 20000; i++) {
		_cleanup_iter_ struct store_iter *it = NULL;

		put_be64(prefix, i % (count / 1000));
		if (store_iter_new(st, CF_LINK, prefix, 8, &it) < 0 || store_iter_valid(it) != 1)
			fail("short scan", 0);
	}
	report("scans opened, 1 entry", 20000, began);
}

static void show_memory(void)
{
	_cleanup_buf_ struct buf b = { 0 };
	const char *rss;

	if (io_read_file("/proc/self/status", 65536, &b) < 0 || !buf_str(&b))
		return;
	rss = strstr(buf_str(&b), "VmRSS:");
	if (rss)
		printf("%.*s\n", (int)strcspn(rss, "\n"), rss);
}

static struct store *open_timed(const char *dir)
{
	int64_t began = clock_mono_ns();
	struct store *st;
	struct err err;

	if (store_open(dir, &st, &err) < 0) {
		fprintf(stderr, "bench_store: %s\n", err.text);
		exit(1);
	}
	report("open", 1, began);
	return st;
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 200000;
	size_t n_threads = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
	struct store *st;
	int64_t began;

	if (argc < 2 || count < 1000 || n_threads < 1 || n_threads > 64) {
		fprintf(stderr, "usage: bench_store DIR [COUNT>=1000 [THREADS 1-64]]\n");
		return 2;
	}
	st = open_timed(argv[1]);
	in_threads(st, "batches of 3 puts", put_rows, count, n_threads);
	in_threads(st, "random gets", get_rows, count, n_threads);
	in_threads(st, "gets of absent keys", get_absent, count, n_threads);
	scan(st);
	short_scans(st, count);
	show_memory();
	began = clock_mono_ns();
	store_free(st);
	report("close", 1, began);
	st = open_timed(argv[1]);
	in_threads(st, "random gets, reopened", get_rows, count, n_threads);
	show_memory();
	store_free(st);
	return 0;
}
