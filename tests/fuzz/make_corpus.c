// SPDX-License-Identifier: Apache-2.0
/*
 * Writes the seeds of frame, manifest and pack below the folder that is named: sound inputs, and
 * each of them damaged in the places where a decoder looks first. Run by hand when a format
 * changes:
 *	ninja -C build tests/fuzz/make_corpus && build/tests/fuzz/make_corpus tests/fuzz/corpus
 */
#include "bytes.h"
#include "chunk/manifest.h"
#include "chunk/pack.h"
#include "io.h"

#include <errno.h>
#include <string.h>

static const char *root;

static void check(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "make_corpus: %s: %s\n", what, strerror(-r));
	exit(EXIT_FAILURE);
}

static void seed(const char *target, const char *name, const void *p, size_t n)
{
	_cleanup_free_ char *dir = NULL, *path = NULL;

	if (asprintf(&dir, "%s/%s", root, target) < 0 || asprintf(&path, "%s/%s", dir, name) < 0)
		check(-ENOMEM, name);
	check(io_mkdirs(dir, 0777), dir);
	check(io_write_file_atomic(path, p, n, 0666), path);
}

/* The input as it is, cut short, with a byte more, and with each of its first bytes changed. */
static void seeds(const char *target, const char *name, const struct buf *b, size_t header_at)
{
	static const size_t fields[] = { 0, 4, 5, 6, 8, 12, 16 };
	_cleanup_buf_ struct buf copy = { 0 };
	char label[100];

	seed(target, name, b->data, b->len);
	snprintf(label, sizeof label, "%s-short", name);
	seed(target, label, b->data, b->len - 1);
	check(buf_append(&copy, b->data, b->len), name);
	check(buf_append(&copy, "x", 1), name);
	snprintf(label, sizeof label, "%s-long", name);
	seed(target, label, copy.data, copy.len);
	for (size_t i = 0; i < ARRAY_SIZE(fields) && header_at + fields[i] < b->len; i++) {
		copy.data[header_at + fields[i]] ^= 0xff;
		snprintf(label, sizeof label, "%s-bad-%zu", name, fields[i]);
		seed(target, label, copy.data, b->len);
		copy.data[header_at + fields[i]] ^= 0xff;
	}
}

static void text(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t) "varve remembers "[i % 16];
}

static void make_frames(void)
{
	static const size_t sizes[] = { 1, 40, 3000 };
	uint8_t plain[3000];
	char name[40];

	text(plain, sizeof plain);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_buf_ struct buf b = { 0 };
		struct digest id;

		digest_of(plain, sizes[i], &id);
		check(buf_append(&b, id.b, DIGEST_BYTES), "frame");
		check(frame_encode(plain, sizes[i], &b), "frame");
		snprintf(name, sizeof name, "plain-%zu", sizes[i]);
		seeds("frame", name, &b, DIGEST_BYTES);
	}
}

static void make_packs(void)
{
	_cleanup_buf_ struct buf b = { 0 };
	uint8_t plain[3000];

	text(plain, sizeof plain);
	check(pack_begin(&b), "pack");
	seeds("pack", "empty", &b, 0);
	for (size_t n = 1; n <= sizeof plain; n *= 7) {
		struct digest id;

		digest_of(plain, n, &id);
		check(pack_add(&b, &id, plain, n), "pack");
	}
	seeds("pack", "five", &b, 0);
	seeds("pack", "five-entry", &b, 8 + DIGEST_BYTES);
}

static void make_manifests(void)
{
	_cleanup_manifest_ struct manifest *none = manifest_empty(), *m = NULL;
	struct manifest_builder *builder;
	struct digest id = { { 1, 2, 3 } };
	struct buf b = { 0 };

	if (!none)
		check(-ENOMEM, "manifest");
	check(manifest_builder_new(&builder), "manifest");
	check(manifest_add_hole(builder, UINT64_C(5) << 32), "manifest");
	check(manifest_add_chunk(builder, &id, 70000), "manifest");
	check(manifest_add_chunk(builder, &id, 1), "manifest");
	check(manifest_add_hole(builder, 65536), "manifest");
	check(manifest_builder_finish(builder, &m), "manifest");
	b.data = (uint8_t *)(uintptr_t)manifest_bytes(none, &b.len);
	seeds("manifest", "empty", &b, 0);
	b.data = (uint8_t *)(uintptr_t)manifest_bytes(m, &b.len);
	seeds("manifest", "four", &b, 0);
	seeds("manifest", "four-entry", &b, 20);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s CORPUS-FOLDER\n", argv[0]);
		return 2;
	}
	root = argv[1];
	make_frames();
	make_packs();
	make_manifests();
	return 0;
}
