// SPDX-License-Identifier: Apache-2.0
#include "bounds.h"
#include "clock.h"
#include "fs/instance.h"
#include "io.h"
#include "tests/support/files_kit.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

static char dir[128];
static struct kit k;

static void setup(void)
{
	kit_make_dir(dir, sizeof dir);
	kit_open(&k, dir);
}

static void teardown(void)
{
	kit_close(&k);
	ck_assert_int_eq(io_remove_tree(dir), 0);
}

/* What a file should hold. */
struct shadow {
	uint8_t *p;
	size_t size, max;
};

static void shadow_init(struct shadow *sh, size_t max)
{
	*sh = (struct shadow){ calloc(1, max), 0, max };
}

static void check_all(struct file *f, const struct shadow *sh)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct node n;

	file_node_attr(f, &n);
	ck_assert_uint_eq(n.attr.size, sh->size);
	kit_read(f, 0, sh->size + 10, &b);
	ck_assert_uint_eq(b.len, sh->size);
	ck_assert(b.len == 0 || memcmp(b.data, sh->p, b.len) == 0);
}

static void check_sealed(uint64_t node, const struct shadow *sh)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct digest want = kit_content_id(sh->p, sh->size), is = kit_sealed_id(&k, node);

	kit_read_sealed(&k, node, &b);
	ck_assert_uint_eq(b.len, sh->size);
	ck_assert(b.len == 0 || memcmp(b.data, sh->p, b.len) == 0);
	ck_assert_msg(digest_eq(&want, &is), "the manifest is not that of a full cut");
}

static void do_write(struct file *f, struct shadow *sh, struct rng *r, size_t offset, size_t n)
{
	ck_assert_uint_le(offset + n, sh->max);
	/* A third compresses to holes: zeros are bytes, too. */
	if (rng_below(r, 3) == 0)
		memset(sh->p + offset, 0, n);
	else
		rng_fill(r, sh->p + offset, n);
	ck_assert_int_eq(file_write(f, offset, sh->p + offset, n, false), 0);
	sh->size = MAX(sh->size, offset + n);
}

static void do_truncate(struct file *f, struct shadow *sh, size_t size)
{
	ck_assert_int_eq(file_truncate(f, size), 0);
	if (size < sh->size)
		memset(sh->p + size, 0, sh->size - size);
	sh->size = size;
}

static void do_zero(struct file *f, struct shadow *sh, int mode, size_t offset, size_t n)
{
	size_t end = offset + n;

	ck_assert_int_eq(file_fallocate(f, mode, offset, n), 0);
	if (mode == FALLOC_FL_ZERO_RANGE)
		sh->size = MAX(sh->size, end);
	if (mode == 0) {
		sh->size = MAX(sh->size, end);
		return;
	}
	if (offset < sh->size)
		memset(sh->p + offset, 0, MIN(end, sh->size) - offset);
}

static void one_step(struct file *f, uint64_t node, struct shadow *sh, struct rng *r, size_t unit)
{
	size_t offset = rng_below(r, sh->max / 2), n = 1 + rng_below(r, unit);
	_cleanup_buf_ struct buf b = { 0 };

	switch (rng_below(r, 16)) {
	case 0:
		do_truncate(f, sh, rng_below(r, 4) ? rng_below(r, sh->max) : 0);
		break;
	case 1:
		do_zero(f, sh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, 10 * n);
		break;
	case 2:
		do_zero(f, sh, FALLOC_FL_ZERO_RANGE | (rng_below(r, 2) ? FALLOC_FL_KEEP_SIZE : 0),
			offset, n);
		break;
	case 3:
		do_zero(f, sh, 0, offset, n);
		break;
	case 4:
		ck_assert_int_eq(file_flush(f), 0);
		check_sealed(node, sh);
		break;
	case 5:
		ck_assert_int_eq(file_fsync(f), 0);
		break;
	case 6:
	case 7:
		n = MIN(n, sh->size - MIN(offset, sh->size));
		kit_read(f, offset, n, &b);
		ck_assert_uint_eq(b.len, n);
		ck_assert(n == 0 || memcmp(b.data, sh->p + offset, n) == 0);
		break;
	case 8:
	case 9: /* append */
		n = MIN(n, sh->max - sh->size);
		if (n)
			do_write(f, sh, r, sh->size, n);
		break;
	default:
		do_write(f, sh, r, offset, n);
	}
}

static void random_run(uint64_t seed, size_t max, size_t unit, int steps)
{
	struct rng r = { seed };
	char name[32];
	uint64_t node;
	struct file *f;
	struct shadow sh;

	snprintf(name, sizeof name, "random-%d", (int)seed);
	node = kit_create(&k, name);
	f = kit_get(&k, node);
	shadow_init(&sh, max);
	file_opened(f);
	for (int i = 0; i < steps; i++) {
		one_step(f, node, &sh, &r, unit);
		if (i % 32 == 0)
			check_all(f, &sh);
	}
	check_all(f, &sh);
	file_closed(f);
	check_sealed(node, &sh);
	file_unref(f);
	/* And as the next to open it finds it. */
	f = kit_get(&k, node);
	check_all(f, &sh);
	file_unref(f);
	free(sh.p);
}

START_TEST(random_small)
{
	for (uint64_t seed = 1; seed < 6; seed++)
		random_run(seed, 40000, 3000, 300);
}
END_TEST

START_TEST(random_middle)
{
	for (uint64_t seed = 11; seed < 14; seed++)
		random_run(seed, 1500000, 90000, 200);
}
END_TEST

START_TEST(random_large)
{
	for (uint64_t seed = 21; seed < 23; seed++)
		random_run(seed, 24 * 1024 * 1024, 3 * 1024 * 1024, 80);
}
END_TEST

static void write_sequential(struct file *f, struct shadow *sh, struct rng *r, size_t n)
{
	while (n) {
		size_t part = MIN(n, (size_t)128 * 1024);

		do_write(f, sh, r, sh->size, part);
		n -= part;
	}
}

/* Until the file is cut behind the writer up to here. */
static void wait_cut(struct file *f, uint64_t offset)
{
	int64_t until = clock_mono_ms() + 30000;
	uint64_t cut = 0;

	while (cut < offset && clock_mono_ms() < until) {
		const struct behind_piece *p;
		struct timespec t = { 0, 5000000 };
		size_t n;

		nanosleep(&t, NULL);
		SCOPED_LOCK(&f->lock);
		ck_assert_ptr_nonnull(f->active);
		p = behind_pieces(f->active, &n);
		cut = n ? p[n - 1].offset + p[n - 1].length : 0;
	}
	ck_assert_uint_ge(cut, offset);
}

/* Long enough that it is cut behind the writer, and adopted. */
START_TEST(sequential_is_canonical)
{
	struct rng r = { 5 };
	uint64_t node = kit_create(&k, "seq");
	struct file *f = kit_get(&k, node);
	struct cache_stats before, after;
	struct shadow sh;

	shadow_init(&sh, 64 * MIB);
	file_opened(f);
	cache_get_stats(k.cache, &before);
	write_sequential(f, &sh, &r, 40 * MIB + 12345);
	wait_cut(f, 30 * MIB);
	/* Into what was cut already. */
	for (size_t at = 3 * MIB + 17; at < 9 * MIB; at += 3 * MIB) {
		rng_fill(&r, sh.p + at, 1000);
		ck_assert_int_eq(file_write(f, at, sh.p + at, 1000, false), 0);
		wait_cut(f, 30 * MIB);
	}
	write_sequential(f, &sh, &r, 3 * MIB);
	ck_assert_int_eq(file_flush(f), 0);
	check_sealed(node, &sh);
	check_all(f, &sh);
	cache_get_stats(k.cache, &after);
	ck_assert_uint_ge(after.segments, before.segments + 1);
	/* An append to what is sealed: cut behind from where it begins. */
	write_sequential(f, &sh, &r, 14 * MIB);
	wait_cut(f, 44 * MIB);
	check_all(f, &sh);
	file_closed(f);
	check_sealed(node, &sh);
	/* From the begin again, without cutting it down first. */
	file_opened(f);
	for (size_t at = 0; at < 20 * MIB; at += MIB)
		do_write(f, &sh, &r, at, MIB);
	file_closed(f);
	check_sealed(node, &sh);
	file_unref(f);
	free(sh.p);
}
END_TEST

START_TEST(nothing_is_left_in_memory_or_on_disk)
{
	uint64_t node = kit_create(&k, "gone");
	struct file *f, *g;
	struct files_stats st;
	char path[256];
	DIR *d;
	int names = 0;

	ck_assert_int_eq(files_peek(k.files, node, &g), 0);
	f = kit_get(&k, node);
	ck_assert_int_eq(files_peek(k.files, node, &g), 1);
	ck_assert_ptr_eq(f, g);
	file_unref(g);
	file_opened(f);
	ck_assert_int_eq(file_write(f, 0, "hello", 5, false), 0);
	ck_assert_int_eq(file_truncate(f, 8 * MIB), 0);
	ck_assert_int_eq(file_write(f, MIB, dir, sizeof dir, false), 0);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.dirty, 1);
	ck_assert_uint_eq(st.staged_bytes, 5 + sizeof dir);
	file_closed(f);
	file_unref(f);
	ck_assert_int_eq(files_peek(k.files, node, &g), 0);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.dirty, 0);
	ck_assert_uint_eq(st.staged_bytes, 0);
	kit_close_files(&k);
	snprintf(path, sizeof path, "%s/staging", dir);
	d = opendir(path);
	while (readdir(d))
		names++;
	closedir(d);
	ck_assert_int_eq(names, 2);
}
END_TEST

START_TEST(errors_are_answered)
{
	struct file *f;
	uint64_t node = kit_create(&k, "errors");

	ck_assert_int_eq(files_get(k.files, 999999, &f), -ENOENT);
	ck_assert_int_eq(files_get(k.files, NODE_ROOT, &f), -EISDIR);
	f = kit_get(&k, node);
	ck_assert_int_eq(file_write(f, FILE_BYTES_MAX, "x", 1, false), -EFBIG);
	ck_assert_int_eq(file_write(f, UINT64_MAX, "x", 1, false), -EFBIG);
	ck_assert_int_eq(file_truncate(f, FILE_BYTES_MAX + 1), -EFBIG);
	ck_assert_int_eq(file_fallocate(f, 0, 0, 0), -EINVAL);
	ck_assert_int_eq(file_fallocate(f, 0, FILE_BYTES_MAX, 1), -EFBIG);
	ck_assert_int_eq(file_fallocate(f, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
	ck_assert_int_eq(file_fallocate(f, FALLOC_FL_PUNCH_HOLE, 0, 4096), -EOPNOTSUPP);
	ck_assert_int_eq(file_fallocate(f, 0, 0, 4 * TIB), -ENOSPC);
	ck_assert_int_eq(file_seek(f, 0, SEEK_DATA), -ENXIO);
	ck_assert_int_eq(file_write(f, FILE_BYTES_MAX - 1, "x", 1, false), 0);
	ck_assert_int_eq(file_flush(f), 0);
	ck_assert_int_eq(file_seek(f, 0, SEEK_DATA), (int64_t)(FILE_BYTES_MAX - 65536));
	file_unref(f);
}
END_TEST

START_TEST(holes_are_found)
{
	uint64_t node = kit_create(&k, "holes");
	struct file *f = kit_get(&k, node);
	uint8_t *p = malloc(MIB);

	memset(p, 7, MIB);
	ck_assert_int_eq(file_write(f, 4 * MIB, p, MIB, false), 0);
	ck_assert_int_eq(file_truncate(f, 8 * MIB), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(file_seek(f, 0, SEEK_DATA), 4 * MIB);
		ck_assert_int_eq(file_seek(f, 0, SEEK_HOLE), 0);
		ck_assert_int_eq(file_seek(f, 4 * MIB + 5, SEEK_HOLE), 5 * MIB);
		ck_assert_int_eq(file_seek(f, 4 * MIB + 5, SEEK_DATA), 4 * MIB + 5);
		ck_assert_int_eq(file_seek(f, 5 * MIB, SEEK_DATA), -ENXIO);
		ck_assert_int_eq(file_seek(f, 8 * MIB, SEEK_HOLE), -ENXIO);
		ck_assert_int_eq(file_flush(f), 0);
	}
	file_unref(f);
	free(p);
}
END_TEST

START_TEST(times_and_modes_are_carried)
{
	uint64_t node = kit_create(&k, "times");
	struct node_attr a = { .mode = S_IFREG | 06755, .mtime_ns = 123456789, .ctime_ns = 5 };
	struct file *f = kit_get(&k, node);
	struct node n;

	ck_assert_int_eq(tree_setattr(k.tree, node, ATTR_MODE, &a, &n), 0);
	file_set_node(f, &n);
	ck_assert_int_eq(file_write(f, 0, "abc", 3, true), 0);
	file_node_attr(f, &n);
	ck_assert_uint_eq(n.attr.mode & 07777, 0755);
	/* utimens() before the seal */
	ck_assert_int_eq(tree_setattr(k.tree, node, ATTR_MTIME, &a, &n), 0);
	file_set_node(f, &n);
	file_set_times(f, ATTR_MTIME, 123456789, 0);
	ck_assert_int_eq(file_flush(f), 0);
	ck_assert_int_eq(tree_get(k.tree, node, &n), 1);
	ck_assert_int_eq(n.attr.mtime_ns, 123456789);
	ck_assert_uint_eq(n.attr.mode & 07777, 0755);
	ck_assert_uint_eq(n.attr.size, 3);
	/* a chmod after a write that stripped wins */
	ck_assert_int_eq(tree_setattr(k.tree, node, ATTR_MODE, &a, &n), 0);
	file_set_node(f, &n);
	ck_assert_int_eq(file_write(f, 0, "abd", 3, true), 0);
	a.mode = S_IFREG | 04700;
	ck_assert_int_eq(tree_setattr(k.tree, node, ATTR_MODE, &a, &n), 0);
	file_set_node(f, &n);
	ck_assert_int_eq(file_flush(f), 0);
	ck_assert_int_eq(tree_get(k.tree, node, &n), 1);
	ck_assert_uint_eq(n.attr.mode & 07777, 04700);
	file_unref(f);
}
END_TEST

/* Another device's content, put in behind the instance's back. */
static void put_elsewhere(uint64_t node, const char *bytes)
{
	struct manifest_builder *b;
	_cleanup_manifest_ struct manifest *m = NULL;
	_cleanup_batch_ struct batch *batch = NULL;
	struct content_update u = { .node = node, .mtime_ns = 1, .ctime_ns = 1 };
	enum content_result result;
	struct digest id;
	struct node n;

	digest_of(bytes, strlen(bytes), &id);
	ck_assert_int_eq(batch_new(k.store, &batch), 0);
	ck_assert_int_eq(cache_add(k.cache, batch, &id, bytes, strlen(bytes), 0), 0);
	ck_assert_int_eq(manifest_builder_new(&b), 0);
	ck_assert_int_eq(manifest_add_chunk(b, &id, strlen(bytes)), 0);
	ck_assert_int_eq(manifest_builder_finish(b, &m), 0);
	ck_assert_int_eq(tree_get(k.tree, node, &n), 1);
	u.expected = n.attr.content;
	u.manifest = m;
	u.batch = batch;
	ck_assert_int_eq(tree_put_content(k.tree, &u, &result, &n), 0);
	ck_assert_int_eq(result, CONTENT_PUT);
}

static void check_text(struct file *f, const char *want)
{
	_cleanup_buf_ struct buf b = { 0 };

	kit_read(f, 0, 100, &b);
	ck_assert_uint_eq(b.len, strlen(want));
	ck_assert_mem_eq(b.data, want, b.len);
}

START_TEST(a_detached_instance_keeps_its_bytes)
{
	uint64_t node = kit_create(&k, "detached.txt");
	struct file *f = kit_get(&k, node), *g;

	file_opened(f);
	ck_assert_int_eq(file_write(f, 0, "first", 5, false), 0);
	ck_assert_int_eq(file_flush(f), 0);
	put_elsewhere(node, "theirs, longer");
	file_detach(f);
	g = kit_get(&k, node);
	ck_assert_ptr_ne(f, g);
	check_text(g, "theirs, longer");
	check_text(f, "first");
	/* What the holder writes becomes a copy, and stays one. */
	ck_assert_int_eq(file_write(f, 0, "F", 1, false), 0);
	ck_assert_int_eq(file_flush(f), 0);
	ck_assert_int_eq(file_write(f, 1, "I", 1, false), 0);
	file_closed(f);
	check_text(f, "FIrst");
	check_text(g, "theirs, longer");
	ck_assert_uint_ne(f->put_node, node);
	ck_assert_uint_eq(file_node(f), node);
	file_unref(f);
	file_unref(g);
}
END_TEST

START_TEST(a_copied_instance_leaves_with_its_last_handle)
{
	uint64_t node = kit_create(&k, "copied.txt");
	struct file *f = kit_get(&k, node), *g;

	file_opened(f);
	ck_assert_int_eq(file_write(f, 0, "mine", 4, false), 0);
	put_elsewhere(node, "theirs");
	ck_assert_int_eq(file_flush(f), 0);
	ck_assert(f->in_table);
	file_closed(f);
	ck_assert(!f->in_table);
	g = kit_get(&k, node);
	check_text(g, "theirs");
	check_text(f, "mine");
	file_unref(f);
	file_unref(g);
}
END_TEST

START_TEST(a_conflict_without_notice_makes_a_copy)
{
	uint64_t node = kit_create(&k, "conflict.txt");
	struct file *f = kit_get(&k, node), *g;
	struct tree_dir *d;
	struct tree_dirent e;
	int names = 0;

	file_opened(f);
	ck_assert_int_eq(file_write(f, 0, "mine", 4, false), 0);
	put_elsewhere(node, "theirs");
	ck_assert(file_is_stale(f));
	ck_assert_int_eq(file_flush(f), 0);
	ck_assert_uint_ne(f->put_node, node);
	/* The kernel has one FUSE id for both until it is told: so there is one instance. */
	g = kit_get(&k, node);
	ck_assert_ptr_eq(f, g);
	file_unref(g);
	file_detach(f);
	g = kit_get(&k, node);
	ck_assert_ptr_ne(f, g);
	/* This one was made of the new content: nothing happens to it. */
	ck_assert(!file_is_stale(g));
	file_detach(g);
	ck_assert(g->in_table);
	check_text(g, "theirs");
	check_text(f, "mine");
	file_closed(f);
	file_unref(f);
	file_unref(g);
	ck_assert_int_eq(tree_opendir(k.tree, NODE_ROOT, &d), 0);
	while (tree_readdir(d, &e) > 0)
		names++;
	tree_closedir(d);
	ck_assert_int_eq(names, 2);
}
END_TEST

START_TEST(an_unlinked_file_lives_for_its_holders)
{
	static const char name[] = "unlinked";
	uint64_t node = kit_create(&k, name);
	struct file *f = kit_get(&k, node);
	_cleanup_victim_ struct victim v = { 0 };
	uint8_t *p = calloc(1, MIB);

	file_opened(f);
	ck_assert_int_eq(file_write(f, 0, "before", 6, false), 0);
	ck_assert_int_eq(
		tree_unlink(k.tree, NODE_ROOT, (struct slice){ (const uint8_t *)name, 8 }, &v), 0);
	file_set_unlinked(f);
	ck_assert_int_eq(file_write(f, 6, " after", 6, false), 0);
	check_text(f, "before after");
	ck_assert_int_eq(file_write(f, MIB, p, MIB, false), 0);
	ck_assert_int_eq(file_flush(f), 0);
	ck_assert_int_eq(file_fsync(f), 0);
	ck_assert_int_eq(file_truncate(f, 6), 0);
	check_text(f, "before");
	ck_assert_int_eq(file_truncate(f, 0), 0);
	ck_assert_int_eq(file_write(f, 0, "x", 1, false), 0);
	check_text(f, "x");
	file_closed(f);
	file_unref(f);
	ck_assert_uint_eq(kit_find(&k, name), 0);
	free(p);
}
END_TEST

static void check_copy(
	size_t size_from, size_t size_to, size_t from, size_t to, size_t n, uint64_t seed)
{
	struct rng r = { seed };
	char name[64];
	uint64_t a, b;
	struct file *f, *g;
	struct shadow sa, sb;
	int64_t done;

	snprintf(name, sizeof name, "a-%llu", (unsigned long long)seed);
	a = kit_create(&k, name);
	name[0] = 'b';
	b = kit_create(&k, name);
	f = kit_get(&k, a);
	g = kit_get(&k, b);
	shadow_init(&sa, size_from + 1);
	shadow_init(&sb, MAX(size_to, to + n) + 1);
	for (size_t at = 0; at < size_from; at += MIN(size_from - at, 300000))
		do_write(f, &sa, &r, at, MIN(size_from - at, 300000));
	for (size_t at = 0; at < size_to; at += MIN(size_to - at, 300000))
		do_write(g, &sb, &r, at, MIN(size_to - at, 300000));
	done = file_copy_range(f, from, g, to, n);
	ck_assert_int_eq(done, (int64_t)MIN(n, size_from - from));
	memcpy(sb.p + to, sa.p + from, (size_t)done);
	sb.size = MAX(sb.size, to + (size_t)done);
	check_all(g, &sb);
	ck_assert_int_eq(file_flush(g), 0);
	check_sealed(b, &sb);
	file_unref(f);
	file_unref(g);
	free(sa.p);
	free(sb.p);
}

START_TEST(copies_are_canonical)
{
	struct rng r = { 99 };
	uint64_t seed = 1000;

	check_copy(5 * MIB, 0, 0, 0, 5 * MIB, seed++);
	check_copy(5 * MIB, 0, 0, 0, 100 * MIB, seed++);
	check_copy(5 * MIB, 3 * MIB, 0, 3 * MIB, 5 * MIB, seed++);
	check_copy(5 * MIB, 3 * MIB, MIB, 9 * MIB, 2 * MIB, seed++);
	check_copy(3000, 0, 0, 0, 3000, seed++);
	check_copy(3000, 5000, 100, 4000, 2000, seed++);
	for (int i = 0; i < 25; i++) {
		size_t from_size = 1 + rng_below(&r, 6 * MIB), to_size = rng_below(&r, 6 * MIB);
		size_t from = rng_below(&r, from_size), to = rng_below(&r, 7 * MIB);

		if (i % 2) {
			from &= ~(size_t)65535;
			to &= ~(size_t)65535;
		}
		check_copy(from_size, to_size, from, to, 1 + rng_below(&r, from_size), seed++);
	}
}
END_TEST

/* A chunk that ended at a hole, which is not copied: it goes on in the target. */
START_TEST(a_copy_that_ends_at_a_hole_is_canonical)
{
	struct rng r = { 8 };
	uint64_t a = kit_create(&k, "hole-from"), b = kit_create(&k, "hole-to");
	struct file *f = kit_get(&k, a), *g = kit_get(&k, b);
	struct shadow sh;

	shadow_init(&sh, 4 * MIB);
	rng_fill(&r, sh.p, sh.max);
	sh.size = sh.max;
	ck_assert_int_eq(file_write(f, 0, sh.p, 65536, false), 0);
	ck_assert_int_eq(file_truncate(f, MIB), 0);
	/* As after the copy from the second block on; the first is other bytes. */
	ck_assert_int_eq(file_write(g, 0, sh.p, sh.size, false), 0);
	ck_assert_int_eq(file_write(g, 0, sh.p + 65536, 65536, false), 0);
	ck_assert_int_eq(file_copy_range(f, 0, g, 0, 65536), 65536);
	check_all(g, &sh);
	check_sealed(b, &sh);
	/* And in the middle, where a chunk of the target ended at a hole before. */
	memset(sh.p + MIB, 0, 65536);
	ck_assert_int_eq(file_write(g, MIB, sh.p + MIB, 65536, false), 0);
	ck_assert_int_eq(file_flush(g), 0);
	check_sealed(b, &sh);
	memcpy(sh.p + MIB, sh.p, 65536);
	ck_assert_int_eq(file_copy_range(f, 0, g, MIB, 65536), 65536);
	check_all(g, &sh);
	check_sealed(b, &sh);
	file_unref(f);
	file_unref(g);
	free(sh.p);
}
END_TEST

START_TEST(a_file_copies_within_itself)
{
	struct rng r = { 3 };
	uint64_t node = kit_create(&k, "self");
	struct file *f = kit_get(&k, node);
	struct shadow sh;

	shadow_init(&sh, 16 * MIB);
	do_write(f, &sh, &r, 0, 4 * MIB);
	ck_assert_int_eq(file_copy_range(f, 0, f, MIB, 2 * MIB), -EINVAL);
	ck_assert_int_eq(file_copy_range(f, 0, f, 4 * MIB, 4 * MIB), 4 * MIB);
	memcpy(sh.p + 4 * MIB, sh.p, 4 * MIB);
	sh.size = 8 * MIB;
	check_all(f, &sh);
	check_sealed(node, &sh);
	ck_assert_int_eq(file_copy_range(f, 9 * MIB, f, 0, 1), 0);
	ck_assert_int_eq(file_copy_range(f, 0, f, FILE_BYTES_MAX, 1), -EFBIG);
	file_unref(f);
	free(sh.p);
}
END_TEST

/* Each thread has its part of one file; seals and reads go on all the while. */
struct worker {
	struct file *f;
	struct shadow *sh;
	size_t start, end;
	uint64_t seed;
	_Atomic bool *stop;
};

static void *write_part(void *arg)
{
	struct worker *w = arg;
	struct rng r = { w->seed };

	for (int i = 0; i < 150; i++) {
		size_t at = w->start + rng_below(&r, w->end - w->start);
		size_t n = 1 + rng_below(&r, 100000);
		_cleanup_buf_ struct buf b = { 0 };

		n = MIN(n, w->end - at);
		rng_fill(&r, w->sh->p + at, n);
		if (file_write(w->f, at, w->sh->p + at, n, false) < 0)
			abort();
		kit_read(w->f, at, n, &b);
		if (b.len != n || memcmp(b.data, w->sh->p + at, n) != 0)
			abort();
	}
	return NULL;
}

static void *seal_all_the_time(void *arg)
{
	struct worker *w = arg;

	while (!*w->stop) {
		if (file_flush(w->f) < 0 || file_fsync(w->f) < 0)
			abort();
	}
	return NULL;
}

START_TEST(threads_share_a_file)
{
	uint64_t node = kit_create(&k, "threads");
	struct file *f = kit_get(&k, node);
	_Atomic bool stop = false;
	struct worker w[4];
	pthread_t t[4], sealer;
	struct shadow sh;

	shadow_init(&sh, 8 * MIB);
	sh.size = 8 * MIB;
	ck_assert_int_eq(file_truncate(f, 8 * MIB), 0);
	for (size_t i = 0; i < 4; i++) {
		w[i] = (struct worker){ f, &sh, i * 2 * MIB, (i + 1) * 2 * MIB, i + 1, &stop };
		ck_assert_int_eq(pthread_create(&t[i], NULL, write_part, &w[i]), 0);
	}
	ck_assert_int_eq(pthread_create(&sealer, NULL, seal_all_the_time, &w[0]), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	stop = true;
	pthread_join(sealer, NULL);
	check_all(f, &sh);
	ck_assert_int_eq(file_flush(f), 0);
	check_sealed(node, &sh);
	file_unref(f);
	free(sh.p);
}
END_TEST

static void *make_files(void *arg)
{
	uint64_t *nodes = arg;

	for (int i = 0; i < 200; i++) {
		struct file *f;

		if (files_get(k.files, nodes[i % 8], &f) < 0)
			abort();
		file_opened(f);
		if (file_write(f, (uint64_t)i * 100, &i, sizeof i, false) < 0)
			abort();
		file_closed(f);
		file_unref(f);
	}
	return NULL;
}

START_TEST(threads_share_the_table)
{
	uint64_t nodes[8];
	pthread_t t[4];
	struct files_stats st;

	for (int i = 0; i < 8; i++) {
		char name[16];

		snprintf(name, sizeof name, "t%d", i);
		nodes[i] = kit_create(&k, name);
	}
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, make_files, nodes), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	ck_assert_int_eq(files_seal_all(k.files), 0);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.dirty, 0);
}
END_TEST

START_TEST(what_nobody_closes_is_sealed)
{
	uint64_t node = kit_create(&k, "open");
	struct file *f = kit_get(&k, node);
	struct node n = { 0 };
	int64_t until = clock_mono_ms() + 20000;

	file_opened(f);
	ck_assert_int_eq(file_write(f, 0, "abc", 3, false), 0);
	while (n.attr.size != 3 && clock_mono_ms() < until) {
		struct timespec t = { 0, 50000000 };

		nanosleep(&t, NULL);
		ck_assert_int_eq(tree_get(k.tree, node, &n), 1);
	}
	ck_assert_uint_eq(n.attr.size, 3);
	file_closed(f);
	file_unref(f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("file");
	TCase *tc = tcase_create("file");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, random_small);
	tcase_add_test(tc, random_middle);
	tcase_add_test(tc, random_large);
	tcase_add_test(tc, sequential_is_canonical);
	tcase_add_test(tc, nothing_is_left_in_memory_or_on_disk);
	tcase_add_test(tc, errors_are_answered);
	tcase_add_test(tc, holes_are_found);
	tcase_add_test(tc, times_and_modes_are_carried);
	tcase_add_test(tc, a_detached_instance_keeps_its_bytes);
	tcase_add_test(tc, a_conflict_without_notice_makes_a_copy);
	tcase_add_test(tc, a_copied_instance_leaves_with_its_last_handle);
	tcase_add_test(tc, an_unlinked_file_lives_for_its_holders);
	tcase_add_test(tc, copies_are_canonical);
	tcase_add_test(tc, a_copy_that_ends_at_a_hole_is_canonical);
	tcase_add_test(tc, a_file_copies_within_itself);
	tcase_add_test(tc, threads_share_a_file);
	tcase_add_test(tc, threads_share_the_table);
	tcase_add_test(tc, what_nobody_closes_is_sealed);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
