// SPDX-License-Identifier: Apache-2.0
#include "remote/upload.h"

#include "chunk/pack.h"
#include "clock.h"
#include "fault.h"
#include "bounds.h"
#include "meta/cache.h"
#include "remote/fetch.h"

#include <errno.h>
#include <string.h>

/* Chunks travel in the commit up to this sum of plain bytes: a thousand of the largest small. */
#define INLINE_BYTES_MAX ((size_t)COMMIT_CHANGES_MAX * CHUNK_INLINE_MAX)
/* Below PACK_BYTES_MAX: several are in memory at once, and a lost one is sent again. */
#define PACK_TARGET_BYTES (8 * MIB)
#define ENTRY_OVERHEAD (DIGEST_BYTES + FRAME_OVERHEAD_MAX)
#define RESCUE_TIMEOUT_MS 10000

void upload_init(struct upload *u, struct sync *s)
{
	*u = (struct upload){ .sync = s };
	pthread_mutex_init(&u->lock, NULL);
}

void upload_done(struct upload *u)
{
	digest_set_done(&u->present);
	pthread_mutex_destroy(&u->lock);
}

void upload_forget(struct upload *u)
{
	digest_set_done(&u->present);
}

static int ignore_chunk(void *ctx, const struct digest *id, const void *p, size_t n)
{
	return 0;
}

/* A chunk whose bytes are lost here is no loss when the server has it. 1: it has. */
static int on_server(struct upload *u, const struct digest *id, struct err *err)
{
	int r = fetch_chunks(
		u->sync, id, 1, clock_mono_ms() + RESCUE_TIMEOUT_MS, NULL, ignore_chunk, NULL, err);

	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : 1;
}

/*
 * Appends the chunk's plain bytes: 1. 0 when they are damaged or gone here, but on the server;
 * -EBADMSG when they are nowhere.
 */
static int read_chunk(
	struct upload *u, const struct needed_chunk *c, struct buf *ret, struct err *err)
{
	size_t had = ret->len;
	char hex[DIGEST_HEX_BYTES];
	int r = cache_read_chunk(u->sync->cache, &c->id, ret);

	if (r > 0 && ret->len - had == c->length)
		return 1;
	if (r < 0 && r != -EBADMSG)
		return err_sys(err, -r, "reading a chunk to send");
	ret->len = had;
	r = on_server(u, &c->id, err);
	if (r < 0)
		return r;
	digest_hex(&c->id, hex);
	return r > 0 ? 0 : err_set(err, EBADMSG, "chunk %s is damaged on this device", hex);
}

static int add_to_pack(struct upload *u, const struct needed_chunk *c, struct buf *plain,
	struct buf *pack, struct err *err)
{
	int r;

	buf_clear(plain);
	r = read_chunk(u, c, plain, err);
	if (r <= 0)
		return r;
	r = pack_add(pack, &c->id, plain->data, plain->len);
	return r < 0 ? err_sys(err, -r, "packing a chunk") : 0;
}

/* Walks the chunks that go into the commit: how far *i is from o->n_chunks. */
static bool goes_inline(const struct needed_chunk *c, size_t *sum)
{
	if (c->length > CHUNK_INLINE_MAX || *sum + c->length > INLINE_BYTES_MAX)
		return false;
	*sum += c->length;
	return true;
}

int upload_inline(struct upload *u, const struct outgoing *o, struct buf *ret_pack,
	struct digest *ret_damaged, struct err *err)
{
	_cleanup_buf_ struct buf plain = { 0 };
	size_t sum = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < o->n_chunks; i++) {
		if (!goes_inline(&o->chunks[i], &sum))
			continue;
		if (ret_pack->len == 0 && pack_begin(ret_pack) < 0)
			return err_sys(err, ENOMEM, "packing a chunk");
		r = add_to_pack(u, &o->chunks[i], &plain, ret_pack, err);
		if (r == -EBADMSG)
			*ret_damaged = o->chunks[i].id;
	}
	return r;
}

/* One pack: made and sent on a thread of the uploaders. */
struct job {
	struct upload *upload;
	const struct needed_chunk *chunks;
	size_t n;
	struct digest *ret_damaged;
};

static int make_pack(struct job *j, struct buf *pack, struct err *err)
{
	_cleanup_buf_ struct buf plain = { 0 };
	uint64_t bytes = 0;
	int r;

	for (size_t i = 0; i < j->n; i++)
		bytes += j->chunks[i].length + ENTRY_OVERHEAD;
	r = buf_reserve(pack, bytes + ENTRY_OVERHEAD);
	if (r == 0)
		r = pack_begin(pack);
	if (r < 0)
		return err_sys(err, -r, "packing chunks");
	for (size_t i = 0; r == 0 && i < j->n; i++) {
		r = add_to_pack(j->upload, &j->chunks[i], &plain, pack, err);
		if (r == -EBADMSG) {
			SCOPED_LOCK(&j->upload->lock);
			*j->ret_damaged = j->chunks[i].id;
		}
	}
	return r;
}

static int send_pack(struct job *j, struct err *err)
{
	struct sync *s = j->upload->sync;
	_cleanup_buf_ struct buf pack = { 0 };
	int r = make_pack(j, &pack, err);

	if (r == 0)
		r = client_put_pack(s->client, s->drive_id, pack.data, pack.len, err);
	fault_instant("upload.packed");
	if (r == 0)
		sync_note_good(s);
	return r;
}

static int remember(struct upload *u, const struct needed_chunk *chunks, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = digest_set_add(&u->present, &chunks[i].id);
	return r;
}

/* What came before decides whether this pack is still wanted. */
static int job_wanted(struct upload *u)
{
	if (sync_stopping(u->sync))
		return -ECANCELED;
	if (merge_wanted_first(u->sync))
		return -EAGAIN;
	SCOPED_LOCK(&u->lock);
	return u->result;
}

static void run_job(void *arg)
{
	struct job *j = arg;
	struct upload *u = j->upload;
	struct err err = { 0 };
	int r = job_wanted(u);

	if (r == 0)
		r = send_pack(j, &err);
	SCOPED_LOCK(&u->lock);
	if (r == 0)
		r = remember(u, j->chunks, j->n);
	if (r < 0 && u->result == 0) {
		u->result = r;
		u->err = err;
	}
}

/* How many chunks from the first on make one pack. */
static size_t pack_count(const struct needed_chunk *chunks, size_t n)
{
	uint64_t bytes = 0;
	size_t i;

	for (i = 0; i < n && i < PACK_CHUNKS_MAX; i++) {
		bytes += chunks[i].length + ENTRY_OVERHEAD;
		if (i && bytes > PACK_TARGET_BYTES)
			break;
	}
	return i;
}

static size_t count_packs(const struct needed_chunk *chunks, size_t n)
{
	size_t packs = 0;

	for (size_t at = 0; at < n; at += pack_count(chunks + at, n - at))
		packs++;
	return packs;
}

static int send_chunks(struct upload *u, const struct needed_chunk *chunks, size_t n,
	struct digest *ret_damaged, struct err *err)
{
	_cleanup_free_ struct job *jobs = calloc(count_packs(chunks, n) + 1, sizeof *jobs);
	struct job *j = jobs;

	if (!jobs)
		return err_sys(err, ENOMEM, "uploading");
	u->result = 0;
	for (size_t at = 0; at < n; at += j->n, j++) {
		*j = (struct job){ .upload = u,
			.chunks = chunks + at,
			.n = pack_count(chunks + at, n - at),
			.ret_damaged = ret_damaged };
		if (workers_submit(u->sync->uploaders, run_job, j) < 0)
			run_job(j);
	}
	workers_drain(u->sync->uploaders);
	if (u->result < 0 && err)
		*err = u->err;
	return u->result;
}

/* Asks which of the n <= MISSING_IDS_MAX are missing, keeps those in front, counts them. */
static int keep_missing(struct upload *u, struct needed_chunk *chunks, size_t *n, struct err *err)
{
	struct sync *s = u->sync;
	_cleanup_digest_set_ struct digest_set missing = { 0 };
	_cleanup_free_ struct digest *ids = calloc(*n, sizeof *ids);
	_cleanup_arena_ struct arena *arena = NULL;
	struct id_list answer;
	size_t kept = 0;
	int r;

	if (!ids)
		return err_sys(err, ENOMEM, "uploading");
	for (size_t i = 0; i < *n; i++)
		ids[i] = chunks[i].id;
	r = client_missing(s->client, s->drive_id, ids, *n, &answer, &arena, err);
	if (r < 0)
		return r;
	sync_note_good(s);
	for (size_t i = 0; r == 0 && i < answer.n; i++)
		r = digest_set_add(&missing, &answer.ids[i]);
	for (size_t i = 0; r == 0 && i < *n; i++) {
		if (digest_set_has(&missing, &chunks[i].id))
			chunks[kept++] = chunks[i];
		else
			r = digest_set_add(&u->present, &chunks[i].id);
	}
	*n = kept;
	return r < 0 ? err_sys(err, -r, "uploading") : 0;
}

static size_t collect_unknown(struct upload *u, const struct outgoing *o, struct needed_chunk *ret)
{
	size_t n = 0, sum = 0;

	for (size_t i = 0; i < o->n_chunks; i++) {
		if (!goes_inline(&o->chunks[i], &sum) &&
			!digest_set_has(&u->present, &o->chunks[i].id))
			ret[n++] = o->chunks[i];
	}
	return n;
}

int upload_packs(
	struct upload *u, const struct outgoing *o, struct digest *ret_damaged, struct err *err)
{
	_cleanup_free_ struct needed_chunk *chunks = calloc(o->n_chunks + 1, sizeof *chunks);
	size_t total, n;
	int r = 0;

	if (!chunks)
		return err_sys(err, ENOMEM, "uploading");
	total = collect_unknown(u, o, chunks);
	for (size_t at = 0, group; r == 0 && at < total; at += group) {
		n = group = MIN(total - at, MISSING_IDS_MAX);
		r = keep_missing(u, chunks + at, &n, err);
		if (r == 0)
			r = send_chunks(u, chunks + at, n, ret_damaged, err);
	}
	return r;
}
