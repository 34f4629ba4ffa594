// SPDX-License-Identifier: Apache-2.0
/* How fast one core cuts, hashes and frames. Input: random bytes, or the file that is named. */
#include "buf.h"
#include "bytes.h"
#include "chunk/frame.h"
#include "chunk/ingest.h"
#include "clock.h"
#include "io.h"
#include "bounds.h"

#include <errno.h>
#include <string.h>

#define ROUNDS 5
#define INPUT_MAX (512 * MIB)
#define RANDOM_BYTES (256 * MIB)

static volatile size_t sink;

static void do_cut(const uint8_t *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		at += chunker_cut(p + at, n - at);
		sink++;
	}
}

static void do_hash(const uint8_t *p, size_t n)
{
	struct digest d;

	for (size_t at = 0; at < n; at += CHUNK_AVG) {
		digest_of(p + at, MIN(CHUNK_AVG, n - at), &d);
		sink += d.b[0];
	}
}

static int read_memory(void *ctx, uint64_t offset, void *p, size_t n)
{
	memcpy(p, *(const uint8_t **)ctx + offset, n);
	return 0;
}

static int count_chunk(void *ctx, uint64_t offset, const struct digest *id, const void *p, size_t n)
{
	sink++;
	return 0;
}

static void do_recut(const uint8_t *p, size_t n)
{
	_cleanup_manifest_ struct manifest *none = manifest_empty(), *m = NULL;
	struct ingest_io io = { .read = read_memory, .chunk = count_chunk, .ctx = &p };

	if (!none || ingest_recut(none, n, NULL, 0, &io, &m) < 0)
		abort();
}

static void do_frame(const uint8_t *p, size_t n)
{
	_cleanup_buf_ struct buf b = { 0 };

	for (size_t at = 0; at < n; at += CHUNK_AVG) {
		buf_clear(&b);
		if (frame_encode(p + at, MIN(CHUNK_AVG, n - at), &b) < 0)
			abort();
		sink += b.len;
	}
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void measure(
	const char *what, void (*fn)(const uint8_t *p, size_t n), const uint8_t *p, size_t n)
{
	double mb_per_s[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		int64_t start = clock_mono_ns();

		fn(p, n);
		mb_per_s[i] = (double)n * 1000 / (double)(clock_mono_ns() - start);
	}
	qsort(mb_per_s, ROUNDS, sizeof mb_per_s[0], compare);
	printf("%-28s %8.0f MB/s\n", what, mb_per_s[ROUNDS / 2]);
}

static int random_input(struct buf *ret)
{
	uint64_t seed = 42;
	int r = buf_reserve(ret, RANDOM_BYTES);

	if (r < 0)
		return r;
	for (size_t i = 0; i < RANDOM_BYTES; i += 8) {
		seed ^= seed >> 12;
		seed ^= seed << 25;
		seed ^= seed >> 27;
		put_le64(ret->data + i, seed * UINT64_C(2685821657736338717));
	}
	ret->len = RANDOM_BYTES;
	return 0;
}

int main(int argc, char **argv)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = argc > 1 ? io_read_file(argv[1], INPUT_MAX, &b) : random_input(&b);

	if (r < 0) {
		fprintf(stderr, "bench_chunk: %s: %s\n", argc > 1 ? argv[1] : "memory",
			strerror(-r));
		return 1;
	}
	measure("cut", do_cut, b.data, b.len);
	measure("hash", do_hash, b.data, b.len);
	measure("recut (copy, cut and hash)", do_recut, b.data, b.len);
	measure("frame", do_frame, b.data, b.len);
	return 0;
}
