// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants:
 *  1. A staged byte is in the staging (or under its second name, while it is being adopted)
 *     until tree_put_content() has returned for the content that holds it.
 *  2. Chunks' bytes are in a segment before the batch that names them is committed.
 *  3. Nobody writes to a frozen staging, so what was cut stays true without a lock.
 */
#include "fs/seal.h"

#include "bounds.h"
#include "fault.h"
#include "fs/bytes_view.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/*
 * A staging file with at least this much in long runs becomes a segment. Below, a segment of its
 * own (a file, a descriptor, a row to evict it by) costs more than copying its bytes does, and
 * the copied file is mostly gone before the kernel has written it.
 */
#define ADOPT_MIN_BYTES (4 * MIB)
/* A run: so long that most of it is whole chunks. */
#define ADOPT_RUN_BYTES (2 * CHUNK_MAX)
/* Of the file's blocks, how many must be in runs: the rest is dead weight until eviction. */
#define ADOPT_SHARE_NUM 3
#define ADOPT_SHARE_DEN 4

struct place {
	uint64_t offset;
	uint32_t length;
	struct digest id;
};

struct work {
	struct seal *seal;
	struct staging *s;
	struct bytes_view view;
	bool adopt;
	struct place *places; /* chunks that stay where they are */
	size_t n_places, capacity;
	struct range *dirty;
	size_t n_dirty;
};

static void work_done(struct work *w)
{
	bytes_view_done(&w->view);
	free(w->places);
	free(w->dirty);
}

static int add_place(struct work *w, uint64_t offset, const struct digest *id, uint64_t n)
{
	if (w->n_places == w->capacity) {
		size_t capacity = w->capacity ? 2 * w->capacity : 64;
		struct place *p = realloc(w->places, capacity * sizeof *p);

		if (!p)
			return -ENOMEM;
		w->places = p;
		w->capacity = capacity;
	}
	w->places[w->n_places++] = (struct place){ offset, (uint32_t)n, *id };
	return 0;
}

static int read_bytes(void *ctx, uint64_t offset, void *p, size_t n)
{
	struct work *w = ctx;

	return bytes_view_read(&w->view, offset, p, n);
}

static uint64_t known_zeros(void *ctx, uint64_t offset)
{
	struct work *w = ctx;

	return bytes_view_zeros(&w->view, offset);
}

static int take_chunk(void *ctx, uint64_t offset, const struct digest *id, const void *p, size_t n)
{
	struct work *w = ctx;

	if (w->adopt && overlay_is_staged(&w->s->map, offset, offset + n))
		return add_place(w, offset, id, n);
	return cache_add(w->seal->fs->cache, w->seal->batch, id, p, n, 0);
}

/* Staged bytes in long runs: what would be whole chunks in a segment. */
static uint64_t bytes_in_runs(const struct staging *s)
{
	uint64_t sum = 0;
	struct extent e;

	for (uint64_t at = 0; overlay_find(&s->map, at, &e); at = e.end) {
		if (e.kind == EXTENT_STAGED && e.end - e.start >= ADOPT_RUN_BYTES)
			sum += e.end - e.start;
	}
	return sum;
}

static bool should_adopt(const struct staging *s)
{
	uint64_t runs;
	struct stat st;

	if (s->segment)
		return true;
	if (s->fd < 0 || !s->logged || s->no_adopt)
		return false;
	/* Recovery may have to write its copies to the file, and a segment's bytes never change. */
	if (s->copied)
		return false;
	runs = bytes_in_runs(s);
	return runs >= ADOPT_MIN_BYTES && fstat(s->fd, &st) == 0 &&
	       runs / ADOPT_SHARE_NUM * ADOPT_SHARE_DEN >= (uint64_t)st.st_blocks * 512;
}

/* The extents below `size`, joined where they touch. */
static int list_dirty(struct work *w)
{
	const struct staging *s = w->s;
	struct extent e;

	w->dirty = calloc(s->map.count + 1, sizeof *w->dirty);
	if (!w->dirty)
		return -ENOMEM;
	for (uint64_t at = 0; overlay_find(&s->map, at, &e) && e.start < s->size; at = e.end) {
		uint64_t end = MIN(e.end, s->size);

		if (w->n_dirty && w->dirty[w->n_dirty - 1].end == e.start)
			w->dirty[w->n_dirty - 1].end = end;
		else
			w->dirty[w->n_dirty++] = (struct range){ e.start, end };
	}
	return 0;
}

/* Chunks that were cut behind the writer and are in the content. */
static int take_pieces(struct work *w, struct manifest *content)
{
	size_t n;
	const struct behind_piece *p = behind_pieces(w->s, &n);
	_cleanup_free_ uint8_t *bytes = NULL;

	for (size_t i = 0; i < n; i++) {
		size_t at = manifest_find(content, p[i].offset);
		const struct manifest_entry *e;
		int r;

		e = at < manifest_count(content) ? manifest_at(content, at) : NULL;
		/* The last one may have been cut anew, now that its end is known. */
		if (p[i].hole || !e || e->hole || !digest_eq(&e->id, &p[i].id))
			continue;
		if (overlay_is_staged(&w->s->map, p[i].offset, p[i].offset + p[i].length)) {
			r = add_place(w, p[i].offset, &p[i].id, p[i].length);
		} else {
			if (!bytes && !(bytes = malloc(CHUNK_MAX)))
				return -ENOMEM;
			r = read_bytes(w, p[i].offset, bytes, p[i].length);
			if (r == 0)
				r = take_chunk(w, p[i].offset, &p[i].id, bytes, p[i].length);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * What was cut behind the writer is a canonical prefix, and everything behind it new: so the
 * content is the recut of the prefix, grown to the whole size. Only where nothing of the base
 * shows behind the cut: else that would be hashed again. 1, 0 when there is no such prefix.
 */
static int recut_prefix(struct work *w, const struct ingest_io *io, struct manifest **ret)
{
	_cleanup_manifest_ struct manifest *prefix = NULL;
	struct manifest *base = w->seal->base;
	struct staging *s = w->s;
	uint64_t cut;
	int r;

	if (!w->adopt)
		return 0;
	r = behind_prefix(s, base, &prefix, &cut);
	if (r <= 0)
		return r;
	if (cut > s->size ||
		(base && manifest_size(base) > cut && !overlay_covers(&s->map, cut, s->size)))
		return 0;
	r = ingest_recut(prefix, s->size, NULL, 0, io, ret);
	if (r == 0)
		r = take_pieces(w, *ret);
	return r < 0 ? r : 1;
}

static int recut(struct work *w, struct manifest **ret)
{
	_cleanup_manifest_ struct manifest *old = NULL;
	struct ingest_io io = {
		.read = read_bytes,
		.zeros = known_zeros,
		.chunk = take_chunk,
		.ctx = w,
	};
	int r = recut_prefix(w, &io, ret);

	if (r != 0)
		return r < 0 ? r : 0;
	old = w->seal->base ? manifest_ref(w->seal->base) : manifest_empty();
	r = old ? list_dirty(w) : -ENOMEM;
	return r < 0 ? r : ingest_recut(old, w->s->size, w->dirty, w->n_dirty, &io, ret);
}

static int link_second_name(struct staging *s)
{
	char name[STAGING_NAME_BYTES], second[STAGING_NAME_BYTES];

	staging_file_name(s->id, false, name);
	staging_file_name(s->id, true, second);
	if (linkat(s->dir->fd, name, s->dir->fd, second, 0) < 0 && errno != EEXIST)
		return -errno;
	s->kept = true;
	return fault_point("seal.linked");
}

/*
 * The rename takes the file out of the staging folder before any row names its chunks: a crash
 * between the two finds it under its second name.
 */
static int adopt(struct work *w)
{
	struct staging *s = w->s;
	_cleanup_free_ char *path = NULL;
	char name[STAGING_NAME_BYTES];
	int r;

	if (s->segment)
		return 0;
	r = link_second_name(s);
	if (r < 0)
		return r;
	staging_file_name(s->id, false, name);
	if (asprintf(&path, "%s/%s", s->dir->path, name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	r = cache_adopt(w->seal->fs->cache, path, s->fd, &s->segment);
	return r < 0 ? r : fault_point("seal.adopted");
}

static int add_places(struct work *w)
{
	int r = w->n_places ? adopt(w) : 0;

	for (size_t i = 0; i < w->n_places && r == 0; i++) {
		const struct place *p = &w->places[i];

		r = cache_add_at(w->seal->fs->cache, w->seal->batch, &p->id, w->s->segment,
			p->offset, p->length, 0);
	}
	return r;
}

/*
 * A new file of less than a hole's block is one chunk: no cutting, no map. Most files are.
 * 1, 0 when it is not such a file.
 */
static int seal_small(struct work *w, struct manifest **ret)
{
	_cleanup_free_ uint8_t *copy = NULL;
	struct manifest_builder *builder;
	struct staging *s = w->s;
	const uint8_t *p;
	struct digest id;
	struct extent e;
	int r = 0;

	if (s->fd >= 0 || s->size == 0 || s->size >= HOLE_BLOCK ||
		!overlay_covers(&s->map, 0, s->size))
		return 0;
	if (overlay_find(&s->map, 0, &e) && e.kind == EXTENT_STAGED && e.end >= s->size) {
		p = s->bytes.data + e.pos;
	} else {
		p = copy = malloc(s->size);
		r = copy ? read_bytes(w, 0, copy, s->size) : -ENOMEM;
	}
	if (r < 0)
		return r;
	digest_of(p, s->size, &id);
	r = cache_add(w->seal->fs->cache, w->seal->batch, &id, p, s->size, 0);
	if (r == 0)
		r = manifest_builder_new(&builder);
	if (r < 0)
		return r;
	r = manifest_add_chunk(builder, &id, s->size);
	if (r < 0) {
		manifest_builder_free(builder);
		return r;
	}
	r = manifest_builder_finish(builder, ret);
	return r < 0 ? r : 1;
}

int seal_content(struct seal *seal, struct manifest **ret)
{
	_cleanup_manifest_ struct manifest *content = NULL;
	_cleanup_(work_done) struct work w = {
		.seal = seal,
		.s = seal->staging,
		.view = {
			.cache = seal->fs->cache,
			.top = seal->staging,
			.base = seal->base,
			.size = seal->staging->size,
			.network_timeout_ms = seal->local ? 0 : seal->fs->network_timeout_ms,
		},
	};
	int r = fault_point("seal.begin");

	if (r == 0)
		r = seal_small(&w, &content);
	if (r == 0) {
		w.adopt = should_adopt(w.s);
		r = recut(&w, &content);
		if (r == 0)
			r = add_places(&w);
	}
	if (r < 0)
		return r;
	*ret = steal(content);
	return 0;
}
