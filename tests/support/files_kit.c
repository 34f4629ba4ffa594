// SPDX-License-Identifier: Apache-2.0
#include "tests/support/files_kit.h"

#include "chunk/ingest.h"
#include "io.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define must(cond)                                                                           \
	do {                                                                                 \
		if (!(cond)) {                                                               \
			fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #cond, \
				errno);                                                      \
			abort();                                                             \
		}                                                                            \
	} while (0)

void kit_make_dir(char *ret, size_t n)
{
	const char *base = getenv("VARVE_TEST_DIR");

	snprintf(ret, n, "%s/varve-files-XXXXXX", base ? base : "/tmp");
	must(mkdtemp(ret));
}

void kit_open_tree(struct kit *k, const char *dir)
{
	struct tree_options o = { .device_name = "here" };
	struct err err = { 0 };
	char path[192];
	int r;

	*k = (struct kit){ 0 };
	snprintf(k->dir, sizeof k->dir, "%s", dir);
	snprintf(path, sizeof path, "%s/store", dir);
	must(io_mkdirs(dir, 0700) == 0);
	if (store_open(path, &k->store, &err) < 0) {
		fprintf(stderr, "store: %s\n", err.text);
		abort();
	}
	r = tree_format(k->store, "00112233445566778899aabbccddeeff", 1, 0, &err);
	must(r == 0 || r == -EEXIST);
	must(cache_open(k->store, dir, &k->cache, &err) == 0);
	o.store = k->store;
	o.cache = k->cache;
	must(tree_open(&o, &k->tree, &err) == 0);
}

void kit_open_files(struct kit *k)
{
	struct err err = { 0 };
	struct files_options o = {
		.tree = k->tree,
		.cache = k->cache,
		.store = k->store,
		.dir = k->dir,
		.network_timeout_ms = 1000,
	};

	if (files_new(&o, &k->files, &err) < 0) {
		fprintf(stderr, "files: %s\n", err.text);
		abort();
	}
}

void kit_open(struct kit *k, const char *dir)
{
	kit_open_tree(k, dir);
	kit_open_files(k);
}

void kit_close_files(struct kit *k)
{
	files_free(k->files);
	k->files = NULL;
}

void kit_close(struct kit *k)
{
	files_free(k->files);
	tree_free(k->tree);
	cache_free(k->cache);
	store_free(k->store);
	*k = (struct kit){ 0 };
}

static struct slice text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

uint64_t kit_create(struct kit *k, const char *name)
{
	struct node_init init = { .mode = S_IFREG | 0644 };
	struct node n;

	must(tree_create(k->tree, NODE_ROOT, text(name), &init, &n) == 0);
	return n.id;
}

uint64_t kit_find(struct kit *k, const char *name)
{
	struct node n;
	int r = tree_lookup(k->tree, NODE_ROOT, text(name), &n);

	must(r >= 0);
	return r ? n.id : 0;
}

struct file *kit_get(struct kit *k, uint64_t node)
{
	struct file *f;

	must(files_get(k->files, node, &f) == 0);
	return f;
}

void kit_read(struct file *f, uint64_t offset, size_t n, struct buf *ret)
{
	size_t done = 0;

	while (done < n) {
		struct read_plan plan;

		must(file_read_plan(f, offset + done, n - done, NULL, &plan) == 0);
		must(buf_reserve(ret, plan.bytes + 1) == 0);
		for (size_t i = 0; i < plan.n; i++) {
			const struct read_piece *p = &plan.pieces[i];

			if (p->fd < 0)
				memcpy(ret->data + ret->len, p->mem, p->n);
			else
				must(io_pread_full(p->fd, ret->data + ret->len, p->n, p->offset) ==
					0);
			ret->len += p->n;
		}
		done += plan.bytes;
		n = plan.bytes ? n : done;
		read_plan_done(&plan);
	}
}

struct digest kit_sealed_id(struct kit *k, uint64_t node)
{
	struct node n;

	must(tree_get(k->tree, node, &n) == 1);
	return n.attr.content;
}

void kit_read_sealed(struct kit *k, uint64_t node, struct buf *ret)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	struct node n;

	must(tree_get(k->tree, node, &n) == 1);
	if (digest_is_zero(&n.attr.content))
		return;
	must(tree_manifest(k->tree, node, &n.attr.content, &m) == 0);
	must(manifest_size(m) == n.attr.size);
	for (size_t i = 0; i < manifest_count(m); i++) {
		const struct manifest_entry *e = manifest_at(m, i);

		must(buf_reserve(ret, e->length) == 0);
		if (e->hole) {
			memset(ret->data + ret->len, 0, e->length);
			ret->len += e->length;
		} else {
			must(cache_read_chunk(k->cache, &e->id, ret) == 1);
		}
	}
	must(ret->len == n.attr.size);
}

static int read_memory(void *ctx, uint64_t offset, void *p, size_t n)
{
	memcpy(p, (const uint8_t *)ctx + offset, n);
	return 0;
}

static int ignore_chunk(
	void *ctx, uint64_t offset, const struct digest *id, const void *p, size_t n)
{
	return 0;
}

struct digest kit_content_id(const void *p, size_t n)
{
	struct ingest_io io = { read_memory, NULL, ignore_chunk, (void *)(uintptr_t)p };
	_cleanup_manifest_ struct manifest *empty = manifest_empty(), *m = NULL;

	must(empty && ingest_recut(empty, n, NULL, 0, &io, &m) == 0);
	return n ? *manifest_content_id(m) : (struct digest){ 0 };
}

uint64_t rng_next(struct rng *r)
{
	/* splitmix64 (Steele, Lea, Flood 2014) */
	uint64_t z = r->s += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

void rng_fill(struct rng *r, void *p, size_t n)
{
	uint8_t *b = p;

	for (; n >= 8; n -= 8, b += 8) {
		uint64_t v = rng_next(r);

		memcpy(b, &v, 8);
	}
	for (; n; n--)
		*b++ = (uint8_t)rng_next(r);
}
