// SPDX-License-Identifier: Apache-2.0
/*
 * The property that everything rests on: ingest_recut() after any edits gives the manifest that
 * cutting the whole file from its start gives. The reference here follows the words of ingest.h
 * and shares no code with ingest.c.
 */
#include "chunk/ingest.h"

#include "bytes.h"
#include "clock.h"
#include "io.h"
#include "bounds.h"

#include <check.h>
#include <errno.h>

#define FILE_MAX ((size_t)6 << 20)
#define RANGES_MAX 8

static uint64_t seed;

static uint64_t random_u64(void)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * UINT64_C(2685821657736338717);
}

static size_t below(size_t n)
{
	return n ? (size_t)((random_u64() >> 16) % n) : 0;
}

static void fill_random(uint8_t *p, size_t n)
{
	uint8_t tail[8];

	for (; n >= 8; p += 8, n -= 8)
		put_le64(p, random_u64());
	put_le64(tail, random_u64());
	memcpy(p, tail, n);
}

/* --- the reference --- */

static bool zero_block_at(const uint8_t *p, size_t n, size_t at)
{
	return at % HOLE_BLOCK == 0 && at + HOLE_BLOCK <= n && io_is_zero(p + at, HOLE_BLOCK);
}

static struct manifest *cut_whole(const uint8_t *p, size_t n)
{
	struct manifest_builder *b;
	struct manifest *m;
	size_t at = 0, run;

	ck_assert_int_eq(manifest_builder_new(&b), 0);
	while (at < n) {
		if (zero_block_at(p, n, at)) {
			ck_assert_int_eq(manifest_add_hole(b, HOLE_BLOCK), 0);
			at += HOLE_BLOCK;
			continue;
		}
		run = at - at % HOLE_BLOCK + HOLE_BLOCK;
		while (run < n && !zero_block_at(p, n, run))
			run += HOLE_BLOCK;
		run = MIN(run, n);
		while (at < run) {
			size_t cut = chunker_cut(p + at, run - at);
			struct digest id;

			digest_of(p + at, cut, &id);
			ck_assert_int_eq(manifest_add_chunk(b, &id, cut), 0);
			at += cut;
		}
	}
	ck_assert_int_eq(manifest_builder_finish(b, &m), 0);
	return m;
}

/* --- a file in memory --- */

struct content {
	uint8_t *p;
	size_t n;
	struct manifest *m; /* before the edits */
	struct range dirty[RANGES_MAX];
	size_t n_dirty;
	uint64_t bytes_read;
	struct {
		uint64_t offset;
		struct digest id;
	} chunks[4096];
	size_t n_chunks;
	bool tell_zeros;
};

static int content_read(void *ctx, uint64_t offset, void *p, size_t n)
{
	struct content *c = ctx;

	ck_assert_uint_gt(n, 0);
	ck_assert_uint_le(offset + n, c->n);
	memcpy(p, c->p + offset, n);
	c->bytes_read += n;
	return 0;
}

static uint64_t content_zeros(void *ctx, uint64_t offset)
{
	struct content *c = ctx;
	uint64_t n = 0;

	while (offset + n < c->n && c->p[offset + n] == 0)
		n++;
	return offset / HOLE_BLOCK % 3 ? n : n / 2;
}

static int content_chunk(
	void *ctx, uint64_t offset, const struct digest *id, const void *p, size_t n)
{
	struct content *c = ctx;
	struct digest d;

	ck_assert_mem_eq(p, c->p + offset, n);
	digest_of(p, n, &d);
	ck_assert(digest_eq(&d, id));
	ck_assert_uint_lt(c->n_chunks, ARRAY_SIZE(c->chunks));
	c->chunks[c->n_chunks].offset = offset;
	c->chunks[c->n_chunks++].id = *id;
	return 0;
}

/* Every chunk that the old manifest does not have at its place was reported, in order, no other. */
static void check_reported(struct content *c, struct manifest *old, struct manifest *m)
{
	size_t k = 0;

	for (size_t i = 0; i < manifest_count(m); i++) {
		const struct manifest_entry *e = manifest_at(m, i), *o = NULL;
		size_t j = manifest_find(old, e->offset);

		if (e->hole)
			continue;
		if (j < manifest_count(old))
			o = manifest_at(old, j);
		if (o && o->offset == e->offset && o->length == e->length &&
			digest_eq(&o->id, &e->id))
			continue;
		ck_assert_uint_lt(k, c->n_chunks);
		ck_assert_uint_eq(c->chunks[k].offset, e->offset);
		ck_assert(digest_eq(&c->chunks[k].id, &e->id));
		k++;
	}
	ck_assert_uint_eq(k, c->n_chunks);
}

static int range_cmp(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static void join_dirty(struct content *c)
{
	size_t k = 0;

	qsort(c->dirty, c->n_dirty, sizeof c->dirty[0], range_cmp);
	for (size_t i = 0; i < c->n_dirty; i++) {
		if (k && c->dirty[i].start <= c->dirty[k - 1].end)
			c->dirty[k - 1].end = MAX(c->dirty[k - 1].end, c->dirty[i].end);
		else
			c->dirty[k++] = c->dirty[i];
	}
	c->n_dirty = k;
}

static void mark(struct content *c, size_t start, size_t end)
{
	if (start < end)
		c->dirty[c->n_dirty++] = (struct range){ start, end };
}

/* A position that is often on or beside a boundary of blocks, pieces or the file. */
static size_t some_place(struct content *c)
{
	size_t at = below(c->n + 1), i;

	switch (below(6)) {
	case 0:
		at -= at % HOLE_BLOCK;
		break;
	case 1:
		at = at - at % HOLE_BLOCK + 1;
		break;
	case 2:
		at = at - at % HOLE_BLOCK + HOLE_BLOCK - 1;
		break;
	case 3:
		i = manifest_find(c->m, at);
		if (i < manifest_count(c->m))
			at = manifest_at(c->m, i)->offset;
		break;
	case 4:
		i = manifest_find(c->m, at);
		if (i < manifest_count(c->m))
			at = manifest_at(c->m, i)->offset + below(3) - 1;
		break;
	}
	return MIN(at, c->n);
}

static size_t any_length(void)
{
	switch (below(5)) {
	case 0:
		return 1 + below(3);
	case 1:
		return below(HOLE_BLOCK);
	case 2:
		return HOLE_BLOCK * (1 + below(4));
	case 3:
		return below(4 * HOLE_BLOCK);
	default:
		return below(CHUNK_MAX + HOLE_BLOCK);
	}
}

static size_t some_length(size_t most)
{
	size_t n = any_length();

	return MIN(n, most);
}

static void fill_some(uint8_t *p, size_t n)
{
	switch (below(4)) {
	case 0:
	case 1:
		memset(p, 0, n);
		break;
	case 2:
		fill_random(p, n);
		break;
	default:
		memset(p, 0, n);
		if (n)
			p[below(n)] = 1;
	}
}

static void edit_overwrite(struct content *c)
{
	size_t at = some_place(c), n = some_length(c->n - at);

	fill_some(c->p + at, n);
	mark(c, at, at + n);
}

static void edit_copy(struct content *c)
{
	size_t n = some_length(c->n), from = below(c->n - n + 1), to = below(c->n - n + 1);

	memmove(c->p + to, c->p + from, n);
	mark(c, to, to + n);
}

static void edit_truncate(struct content *c)
{
	size_t at = some_place(c);

	mark(c, at, c->n);
	c->n = at;
}

static void edit_extend(struct content *c)
{
	size_t n = some_length(FILE_MAX - c->n);

	fill_some(c->p + c->n, n);
	c->n += n;
}

static void edit_insert(struct content *c)
{
	size_t at = some_place(c), n = some_length(FILE_MAX - c->n);

	memmove(c->p + at + n, c->p + at, c->n - at);
	fill_some(c->p + at, n);
	c->n += n;
	mark(c, at, c->n);
}

static void edit_delete(struct content *c)
{
	size_t at = some_place(c), n = some_length(c->n - at);

	memmove(c->p + at, c->p + at + n, c->n - at - n);
	mark(c, at, c->n);
	c->n -= n;
}

static void edit_touch(struct content *c)
{
	size_t at = some_place(c);

	mark(c, at, at + any_length());
}

static void (*const edits[])(struct content *c) = { edit_overwrite, edit_overwrite, edit_overwrite,
	edit_copy, edit_truncate, edit_extend, edit_extend, edit_insert, edit_delete, edit_touch };

static void recut_and_compare(struct content *c, const char *what, int step)
{
	struct ingest_io io = { content_read, c->tell_zeros ? content_zeros : NULL, content_chunk,
		c };
	_cleanup_manifest_ struct manifest *old = c->m;
	struct manifest *whole = cut_whole(c->p, c->n);

	join_dirty(c);
	c->n_chunks = 0;
	c->m = whole;
	{
		_cleanup_manifest_ struct manifest *m = NULL;

		ck_assert_int_eq(ingest_recut(old, c->n, c->dirty, c->n_dirty, &io, &m), 0);
		ck_assert_msg(digest_eq(manifest_content_id(m), manifest_content_id(whole)),
			"%s, step %d: recut and whole cut differ", what, step);
		check_reported(c, old, m);
	}
	c->n_dirty = 0;
}

START_TEST(recut_equals_whole_cut)
{
	_cleanup_free_ struct content *c = calloc(1, sizeof *c);

	seed = (uint64_t)_i * 7919 + 1;
	c->p = calloc(1, FILE_MAX);
	c->m = manifest_empty();
	c->tell_zeros = _i % 2;
	c->n = below(FILE_MAX);
	fill_random(c->p, c->n);
	if (_i % 3 == 0)
		memset(c->p + c->n / 3, 0, c->n / 3);
	recut_and_compare(c, "first", 0);
	for (int step = 1; step <= 60; step++) {
		for (size_t k = 1 + below(3); k; k--)
			edits[below(ARRAY_SIZE(edits))](c);
		recut_and_compare(c, "edited", step);
	}
	manifest_unref(c->m);
	free(c->p);
}
END_TEST

/* A chunk cut at the maximum, in the middle of a block that becomes all zeros behind the cut. */
START_TEST(a_block_that_turns_zero_behind_a_cut)
{
	_cleanup_free_ struct content *c = calloc(1, sizeof *c);
	size_t cut, block;

	seed = 11;
	c->n = FILE_MAX;
	c->p = malloc(c->n);
	fill_random(c->p, c->n);
	cut = chunker_cut(c->p, c->n);
	block = (cut + CHUNK_MAX) / HOLE_BLOCK * HOLE_BLOCK;
	ck_assert_uint_lt(block, cut + CHUNK_MAX);
	memset(c->p + cut, 0x55, block - cut);
	memset(c->p + block, 0, HOLE_BLOCK);
	c->p[block + HOLE_BLOCK - 1] = 1;
	c->m = cut_whole(c->p, c->n);
	ck_assert_uint_eq(manifest_at(c->m, 1)->length, CHUNK_MAX);
	c->p[block + HOLE_BLOCK - 1] = 0;
	mark(c, block + HOLE_BLOCK - 1, block + HOLE_BLOCK);
	recut_and_compare(c, "turned zero", 0);
	ck_assert(manifest_at(c->m, manifest_find(c->m, block))->hole);
	manifest_unref(c->m);
	free(c->p);
}
END_TEST

/* --- reads --- */

#define BIG ((size_t)64 << 20)

static void big_file(struct content *c)
{
	seed = 5;
	c->p = calloc(1, BIG);
	c->n = BIG;
	fill_random(c->p, BIG);
	c->m = cut_whole(c->p, BIG);
}

START_TEST(one_dirty_byte_reads_little)
{
	_cleanup_free_ struct content *c = calloc(1, sizeof *c);

	big_file(c);
	for (int i = 0; i < 20; i++) {
		size_t at = below(BIG);

		c->p[at] ^= 1;
		mark(c, at, at + 1);
		c->bytes_read = 0;
		recut_and_compare(c, "one byte", i);
		ck_assert_uint_le(c->bytes_read, 6 * MIB);
	}
	manifest_unref(c->m);
	free(c->p);
}
END_TEST

START_TEST(all_dirty_reads_each_byte_once)
{
	_cleanup_free_ struct content *c = calloc(1, sizeof *c);

	big_file(c);
	mark(c, 0, BIG);
	recut_and_compare(c, "all dirty", 0);
	ck_assert_uint_eq(c->bytes_read, BIG);
	c->bytes_read = 0;
	c->n = 0;
	recut_and_compare(c, "emptied", 0);
	c->n = BIG;
	recut_and_compare(c, "refilled", 0);
	ck_assert_uint_eq(c->bytes_read, BIG);
	manifest_unref(c->m);
	free(c->p);
}
END_TEST

START_TEST(nothing_dirty_reads_nothing)
{
	_cleanup_free_ struct content *c = calloc(1, sizeof *c);

	big_file(c);
	recut_and_compare(c, "clean", 0);
	ck_assert_uint_eq(c->bytes_read, 0);
	manifest_unref(c->m);
	free(c->p);
}
END_TEST

/* --- sparse --- */

/* A file of zeros with one byte 1 in the middle of its last block but one. */
struct sparse {
	uint64_t size;
	uint64_t one_at;
	uint64_t bytes_read;
	size_t chunks;
};

static int sparse_read(void *ctx, uint64_t offset, void *p, size_t n)
{
	struct sparse *s = ctx;

	memset(p, 0, n);
	if (s->one_at >= offset && s->one_at - offset < n)
		((uint8_t *)p)[s->one_at - offset] = 1;
	s->bytes_read += n;
	return 0;
}

static uint64_t sparse_zeros(void *ctx, uint64_t offset)
{
	struct sparse *s = ctx;

	return offset <= s->one_at ? s->one_at - offset : s->size - offset;
}

static int sparse_chunk(
	void *ctx, uint64_t offset, const struct digest *id, const void *p, size_t n)
{
	((struct sparse *)ctx)->chunks++;
	return 0;
}

START_TEST(sparse_files_are_quick)
{
	struct sparse s = { .size = FILE_BYTES_MAX, .one_at = FILE_BYTES_MAX / 2 + 5 };
	struct ingest_io io = { sparse_read, sparse_zeros, sparse_chunk, &s };
	_cleanup_manifest_ struct manifest *none = manifest_empty(), *m = NULL, *next = NULL,
					   *grown = NULL;
	struct range dirty = { s.one_at, s.one_at + 1 };
	int64_t start = clock_mono_ms();

	ck_assert_int_eq(ingest_recut(none, s.size, NULL, 0, &io, &m), 0);
	ck_assert_uint_eq(manifest_count(m), 3);
	ck_assert_uint_eq(manifest_size(m), FILE_BYTES_MAX);
	ck_assert_uint_eq(manifest_at(m, 1)->length, HOLE_BLOCK);
	ck_assert_uint_eq(s.chunks, 1);
	s.one_at = UINT64_MAX;
	ck_assert_int_eq(ingest_recut(m, s.size, &dirty, 1, &io, &next), 0);
	ck_assert_uint_eq(manifest_count(next), 1);
	ck_assert_int_eq(ingest_recut(m, s.size + 1, &dirty, 1, &io, &grown), -EFBIG);
	ck_assert_uint_le(s.bytes_read, 8 * MIB);
	ck_assert_int_lt(clock_mono_ms() - start, 500);
}
END_TEST

/* --- errors --- */

static int failing_read(void *ctx, uint64_t offset, void *p, size_t n)
{
	return -EIO;
}

static int failing_chunk(
	void *ctx, uint64_t offset, const struct digest *id, const void *p, size_t n)
{
	return -ENOSPC;
}

START_TEST(errors_end_the_recut)
{
	struct sparse s = { .size = 100, .one_at = 50 };
	struct ingest_io io = { failing_read, NULL, sparse_chunk, &s };
	_cleanup_manifest_ struct manifest *none = manifest_empty();
	struct manifest *m = NULL;

	ck_assert_int_eq(ingest_recut(none, 100, NULL, 0, &io, &m), -EIO);
	io.read = sparse_read;
	io.chunk = failing_chunk;
	ck_assert_int_eq(ingest_recut(none, 100, NULL, 0, &io, &m), -ENOSPC);
	ck_assert_ptr_null(m);
}
END_TEST

/* What came from elsewhere may be cut otherwise: no crash, the right size, the right bytes. */
START_TEST(an_old_manifest_cut_otherwise)
{
	struct sparse s = { .size = 1000000, .one_at = UINT64_MAX };
	struct ingest_io io = { sparse_read, NULL, sparse_chunk, &s };
	_cleanup_manifest_ struct manifest *old = NULL, *m = NULL;
	struct range dirty[] = { { 10, 11 }, { 70000, 70001 }, { 300000, 2000000 } };
	struct manifest_builder *b;
	struct digest id = { { 1 } };

	ck_assert_int_eq(manifest_builder_new(&b), 0);
	for (int i = 0; i < 9; i++) {
		ck_assert_int_eq(manifest_add_hole(b, 70001), 0);
		ck_assert_int_eq(manifest_add_chunk(b, &id, 3), 0);
	}
	ck_assert_int_eq(manifest_builder_finish(b, &old), 0);
	ck_assert_int_eq(ingest_recut(old, s.size, dirty, 3, &io, &m), 0);
	ck_assert_uint_eq(manifest_size(m), s.size);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ingest");
	TCase *tc = tcase_create("ingest");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 100);
	tcase_add_loop_test(tc, recut_equals_whole_cut, 0, 12);
	tcase_add_test(tc, a_block_that_turns_zero_behind_a_cut);
	tcase_add_test(tc, one_dirty_byte_reads_little);
	tcase_add_test(tc, all_dirty_reads_each_byte_once);
	tcase_add_test(tc, nothing_dirty_reads_nothing);
	tcase_add_test(tc, sparse_files_are_quick);
	tcase_add_test(tc, errors_end_the_recut);
	tcase_add_test(tc, an_old_manifest_cut_otherwise);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
