// SPDX-License-Identifier: Apache-2.0
/*
 * Chunks: each row leads to bytes, and they hash to its id. Rows are in the order of ids, which
 * is no order on the disk: as many as BATCH_ROWS are collected and read by place.
 */
#include "meta/check_impl.h"

#include "bounds.h"
#include "chunk/chunker.h"
#include "io.h"
#include "meta/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

/* 64 bytes each. */
#define BATCH_ROWS ((size_t)1 << 20)
#define PROGRESS_BYTES (16 * MIB)
/* Beyond that, damage is counted, and told without names. */
#define DAMAGED_MAX 10000

struct place {
	struct digest id;
	uint64_t segment, offset;
	uint32_t length;
	unsigned flags;
};

struct chunks_check {
	struct check *c;
	int dir_fd;
	struct place *places;
	size_t n;
	struct number_list used; /* segments */
	uint8_t *bytes; /* CHUNK_MAX */
	uint64_t open_id;
	int open_fd;
	uint64_t next_progress;
};

static void chunks_check_done(struct chunks_check *cc)
{
	cleanup_close_p(&cc->dir_fd);
	cleanup_close_p(&cc->open_fd);
	free(cc->places);
	free(cc->used.items);
	free(cc->bytes);
}

/* The row as it is by now, when somebody works beside us: false when it was changed. */
static bool still_so(struct chunks_check *cc, const struct place *p)
{
	_cleanup_buf_ struct buf value = { 0 };
	struct chunk_row row;

	if (store_get(cc->c->o->store, CF_CHUNK, p->id.b, DIGEST_BYTES, &value) <= 0 ||
		chunk_row_decode(value.data, value.len, &row) < 0)
		return false;
	return row.inlined ? p->segment == 0 : row.segment == p->segment && row.offset == p->offset;
}

static int repair_row(struct chunks_check *cc, const struct place *p, bool on_server)
{
	_cleanup_batch_ struct batch *b = NULL;
	_cleanup_buf_ struct buf value = { 0 };
	struct store *st = cc->c->o->store;
	struct chunk_row row;
	int r = batch_new(st, &b);

	if (r < 0)
		return r;
	r = store_get(st, CF_CHUNK, p->id.b, DIGEST_BYTES, &value);
	if (r <= 0)
		return r;
	if (on_server || chunk_row_decode(value.data, value.len, &row) < 0) {
		batch_del(b, CF_CHUNK, p->id.b, DIGEST_BYTES);
	} else {
		row.flags |= CHUNK_ROW_DAMAGED;
		buf_clear(&value);
		r = chunk_row_encode(&row, &value);
		if (r == 0)
			batch_put(b, CF_CHUNK, p->id.b, DIGEST_BYTES, value.data, value.len);
	}
	return r < 0 ? r : store_commit(st, b);
}

/* The cache of a running daemon deals with what it finds wrong in the same way. */
static int repair(struct chunks_check *cc, const struct place *p, bool on_server)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	int r;

	if (!cc->c->o->cache)
		return repair_row(cc, p, on_server);
	r = cache_read_chunk(cc->c->o->cache, &p->id, &bytes);
	return r == -EBADMSG || r == -EIO || r >= 0 ? 0 : r;
}

static int add_damaged(struct chunks_check *cc, const struct place *p, const char *how)
{
	struct check *c = cc->c;
	bool on_server = p->flags & CACHE_ON_SERVER;
	struct check_problem problem = {
		.severity = on_server ? CHECK_PROBLEM : CHECK_LOSS,
		.what = "chunk",
		.fix = on_server ? "the server has it: it is fetched anew when it is read" : NULL,
	};
	char hex[DIGEST_HEX_BYTES];
	int r = 0;

	c->result.damaged++;
	if (c->o->repair)
		r = repair(cc, p, on_server);
	if (r < 0)
		return r;
	problem.repaired = c->o->repair && on_server;
	digest_hex(&p->id, hex);
	snprintf(problem.text, sizeof problem.text, "chunk %.16s, %u bytes%s: %s%s", hex, p->length,
		p->segment ? "" : " in the store", how,
		on_server ? "" : "; only this device had it");
	if (c->n_damaged == DAMAGED_MAX) {
		check_tell(c, &problem);
		return 0;
	}
	if (c->n_damaged == c->damaged_cap) {
		size_t cap = c->damaged_cap ? 2 * c->damaged_cap : 16;
		struct damaged_chunk *list = reallocarray(c->damaged, cap, sizeof *list);

		if (!list)
			return -ENOMEM;
		c->damaged = list;
		c->damaged_cap = cap;
	}
	c->damaged[c->n_damaged++] = (struct damaged_chunk){ p->id, on_server, problem };
	return 0;
}

static int open_segment(struct chunks_check *cc, uint64_t id)
{
	char name[32];

	if (cc->open_id == id)
		return cc->open_fd;
	cleanup_close_p(&cc->open_fd);
	snprintf(name, sizeof name, "%016llx", (unsigned long long)id);
	cc->open_id = id;
	cc->open_fd = openat(cc->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return cc->open_fd;
}

/* What is wrong with the bytes; NULL when nothing is. */
static const char *look(struct chunks_check *cc, const struct place *p)
{
	int fd = open_segment(cc, p->segment), r;
	struct digest actual;
	struct stat st;

	if (fd < 0)
		return "its segment is missing";
	if (cc->c->o->quick) {
		if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < p->offset + p->length)
			return "its segment is too short";
		return NULL;
	}
	r = io_pread_full(fd, cc->bytes, p->length, p->offset);
	if (r == -ENODATA)
		return "its segment is too short";
	if (r < 0)
		return "its bytes cannot be read from the disk";
	cc->c->result.chunk_bytes += p->length;
	digest_of(cc->bytes, p->length, &actual);
	return digest_eq(&actual, &p->id) ? NULL : "its bytes are damaged";
}

static int check_place(struct chunks_check *cc, const struct place *p)
{
	const char *wrong = p->flags & CHUNK_ROW_DAMAGED ? "its bytes are damaged" : look(cc, p);

	if (cc->c->result.chunk_bytes >= cc->next_progress) {
		cc->next_progress = cc->c->result.chunk_bytes + PROGRESS_BYTES;
		check_progress(cc->c, "bytes of chunks", cc->c->result.chunk_bytes, 0);
		if (check_stopped(cc->c) < 0)
			return -EINTR;
	}
	if (!wrong || (cc->c->o->cache && !still_so(cc, p)))
		return 0;
	return add_damaged(cc, p, wrong);
}

static int compare_places(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int check_batch(struct chunks_check *cc)
{
	int r = 0;

	if (cc->n)
		qsort(cc->places, cc->n, sizeof *cc->places, compare_places);
	for (size_t i = 0; r == 0 && i < cc->n; i++) {
		if (i == 0 || cc->places[i].segment != cc->places[i - 1].segment)
			r = number_add(&cc->used, cc->places[i].segment);
		if (r == 0)
			r = check_place(cc, &cc->places[i]);
	}
	cc->n = 0;
	return r;
}

static int check_inlined(
	struct chunks_check *cc, const struct digest *id, const struct chunk_row *row)
{
	struct place p = { .id = *id, .length = row->length, .flags = row->flags };
	struct digest actual;

	digest_of(row->bytes.p, row->bytes.n, &actual);
	cc->c->result.chunk_bytes += row->length;
	return digest_eq(&actual, id) ? 0 : add_damaged(cc, &p, "its bytes are damaged");
}

static int check_row(struct chunks_check *cc, struct slice key, struct slice value)
{
	struct chunk_row row;
	struct place p = { 0 };

	cc->c->result.chunks++;
	if (key.n != DIGEST_BYTES)
		return 0;
	memcpy(p.id.b, key.p, DIGEST_BYTES);
	if (chunk_row_decode(value.p, value.n, &row) < 0) {
		p.flags = CACHE_ON_SERVER; /* it says nothing: absent is what is left */
		return add_damaged(cc, &p, "its row is malformed");
	}
	if (row.inlined)
		return check_inlined(cc, &p.id, &row);
	p.segment = row.segment;
	p.offset = row.offset;
	p.length = row.length;
	p.flags = row.flags;
	cc->places[cc->n++] = p;
	return cc->n == BATCH_ROWS ? check_batch(cc) : 0;
}

static int check_rows(struct chunks_check *cc)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(cc->c->at, CF_CHUNK, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		r = check_row(cc, store_iter_key(it), store_iter_value(it));
		if (r < 0)
			return r;
	}
	return r < 0 ? r : check_batch(cc);
}

/* ---- the folder ---- */

static void check_file(struct chunks_check *cc, const char *name)
{
	struct check *c = cc->c;
	struct stat st;
	char *end;
	uint64_t id = strtoull(name, &end, 16);

	if (strlen(name) != 16 || *end) {
		check_say(c, CHECK_NOTE, "file", NULL, "segments/%s is no file of Varve's", name);
		return;
	}
	if (c->segment_next && id >= c->segment_next)
		check_say(c, CHECK_NOTE, "segment", NULL,
			"segment %s is newer than the store says one can be", name);
	/* Those of a running daemon may be about to be named. */
	if (c->o->cache || number_has(&cc->used, id) ||
		fstatat(cc->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	check_say(c, CHECK_NOTE, "segment", "the next eviction removes it",
		"segment %s, %llu bytes, is not used any more", name,
		(unsigned long long)st.st_size);
}

static int check_folder(struct chunks_check *cc)
{
	int fd = openat(cc->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		cleanup_close_p(&fd);
		return -errno;
	}
	number_sort(&cc->used);
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			check_file(cc, e->d_name);
	}
	return 0;
}

int check_chunks(struct check *c)
{
	_cleanup_(chunks_check_done) struct chunks_check cc = {
		.c = c, .dir_fd = -1, .open_fd = -1, .open_id = 0
	};
	_cleanup_free_ char *path = NULL;
	int r;

	if (asprintf(&path, "%s/segments", c->o->dir) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	cc.places = calloc(BATCH_ROWS, sizeof *cc.places);
	cc.bytes = malloc(CHUNK_MAX);
	if (!cc.places || !cc.bytes)
		return -ENOMEM;
	/* Without the folder each of its chunks is told to be missing. */
	cc.dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = check_rows(&cc);
	return r == 0 && cc.dir_fd >= 0 ? check_folder(&cc) : r;
}
