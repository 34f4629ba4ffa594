// SPDX-License-Identifier: Apache-2.0
/*
 * The server's core without HTTP, on a database in a file: bench_vault [DIR]
 *
 *	commits		one-change commits of four devices, in groups as large as what waits (up to
 *4) files		10,000 creates and 10,000 writes of 4 KiB, in 20 commits of 1,000 changes
 *	large		the commit that changes one chunk of 8,192
 *	feed		all of that, from nothing, in pages of CHANGES_ROWS_MAX
 */
#include "server_kit.h"

#include "clock.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define SECONDS_EACH 3.0
#define GROUP 4

static double seconds_since(int64_t start)
{
	return (double)(clock_mono_ns() - start) / (double)NS_PER_S;
}

static void report(const char *name, double value, const char *unit)
{
	printf("%-28s %12.1f %s\n", name, value, unit);
}

/* One round of `group` commits of one change each, by as many devices. */
static void commit_round(struct kit *k, unsigned group, unsigned round)
{
	struct commit_task task[GROUP] = { { 0 } }, *tasks[GROUP];
	struct commit commits[GROUP];
	struct batch *b[GROUP];

	for (unsigned i = 0; i < group; i++) {
		char name[32];
		struct change c;

		snprintf(name, sizeof name, "d%u-%u", i + 1, round);
		c = create(node_id(i + 1, round + 2), NODE_ROOT, name, S_IFREG | 0644);
		b[i] = batch_new(0);
		batch_add(b[i], &c);
		commits[i] = batch_commit(b[i]);
		task[i] = (struct commit_task){
			.drive = k->drive, .who = { i + 1, i + 1 }, .commit = &commits[i]
		};
		tasks[i] = &task[i];
	}
	vault_commit_group(k->vault, tasks, group);
	for (unsigned i = 0; i < group; i++) {
		if (task[i].reply.seq == 0)
			abort();
		batch_free(b[i]);
	}
}

static void bench_commits(unsigned group)
{
	struct kit k;
	unsigned round = 0;
	char name[64];
	int64_t start;

	kit_open(&k, false);
	start = clock_mono_ns();
	while (seconds_since(start) < SECONDS_EACH)
		commit_round(&k, group, round++);
	snprintf(name, sizeof name, "commits, groups of %u", group);
	report(name, round * group / seconds_since(start), "commits/s");
	kit_close(&k);
}

static void file_bytes(unsigned i, char bytes[4096])
{
	uint64_t x = i * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (unsigned n = 0; n < 4096; n += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(bytes + n, &x, 8);
	}
}

/* 500 files, each created and written. */
static void file_batch(struct kit *k, unsigned first, uint64_t base)
{
	struct batch *b = batch_new(base);
	struct answer a;

	for (unsigned i = first; i < first + 500; i++) {
		char name[32], bytes[4096];
		struct change c, w = { .kind = CHANGE_WRITE, .node = node_id(1, 1000 + i) };

		snprintf(name, sizeof name, "file%05u", i);
		c = create(w.node, node_id(1, 2 + i / 100), name, S_IFREG | 0644);
		file_bytes(i, bytes);
		batch_file(b, &w.attr, bytes, sizeof bytes);
		batch_add(b, &c);
		batch_add(b, &w);
	}
	a = batch_post(k, 1, b);
	if (a.seq == 0)
		abort();
}

static void bench_feed(struct kit *k)
{
	int64_t start = clock_mono_ns();
	uint64_t from = 0, head = 1;
	size_t bytes = 0;

	while (from < head) {
		_cleanup_buf_ struct buf b = { 0 };
		_cleanup_arena_ struct arena *arena = NULL;
		struct changes page;

		if (vault_changes(k->vault, k->drive, from, CHANGES_ROWS_MAX, &b, NULL) < 0 ||
			changes_decode(b.data, b.len, &page, &arena, NULL) < 0)
			abort();
		bytes += b.len;
		head = page.head;
		from = page.to;
	}
	report("feed of 20,000 rows", seconds_since(start) * 1000, "ms");
	report("feed", (double)bytes / (double)MIB, "MiB");
}

static void bench_files(void)
{
	struct batch *b = batch_new(0);
	struct kit k;
	int64_t start;

	kit_open(&k, false);
	for (unsigned i = 0; i < 100; i++) {
		char name[32];
		struct change c;

		snprintf(name, sizeof name, "dir%u", i);
		c = create(node_id(1, 2 + i), NODE_ROOT, name, S_IFDIR | 0755);
		batch_add(b, &c);
	}
	if (batch_post(&k, 1, b).seq != 1)
		abort();
	start = clock_mono_ns();
	for (unsigned i = 0; i < 20; i++)
		file_batch(&k, i * 500, i + 1);
	report("10,000 files in 20 commits", seconds_since(start) * 1000, "ms");
	bench_feed(&k);
	kit_close(&k);
}

#define LARGE_CHUNKS 8192

/* A content of LARGE_CHUNKS chunks, one of which is `odd`'s own. All come inline. */
static void large_batch(struct kit *k, struct change *c, unsigned odd, uint64_t base)
{
	struct batch *b = batch_new(base);
	struct manifest_builder *builder;
	struct manifest *m;

	if (manifest_builder_new(&builder) < 0)
		abort();
	for (unsigned i = 0; i < LARGE_CHUNKS; i++) {
		unsigned bytes[2] = { i, i == LARGE_CHUNKS / 2 ? odd : 0 };
		struct digest id;

		digest_of(bytes, sizeof bytes, &id);
		if (base == 0 || bytes[1])
			batch_chunk(b, bytes, sizeof bytes);
		if (manifest_add_chunk(builder, &id, sizeof bytes) < 0)
			abort();
	}
	if (manifest_builder_finish(builder, &m) < 0)
		abort();
	batch_content(b, m);
	c->attr.content = *manifest_content_id(m);
	c->attr.size = manifest_size(m);
	manifest_unref(m);
	batch_add(b, c);

	int64_t start = clock_mono_ns();

	if (batch_post(k, 1, b).seq != base + 1)
		abort();
	if (base)
		report("one chunk of 8,192 changed", seconds_since(start) * 1000, "ms");
}

static void bench_large(void)
{
	struct change c = create(node_id(1, 2), NODE_ROOT, "large", S_IFREG | 0644);
	struct change w = { .kind = CHANGE_WRITE, .node = node_id(1, 2) };
	struct kit k;

	kit_open(&k, false);
	large_batch(&k, &c, 0, 0);
	for (unsigned i = 1; i <= 3; i++)
		large_batch(&k, &w, i, i);
	kit_close(&k);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		setenv("VARVE_KIT_DIR", argv[1], 1);
	bench_commits(1);
	bench_commits(4);
	bench_large();
	bench_files();
	return 0;
}
