// SPDX-License-Identifier: Apache-2.0
/*
 * Packs and chunks. A pack is stored under the hash of its bytes, so the same pack from two
 * drives is one object; but a drive finds only what its own rows name.
 *
 * Invariant: a chunk's row is written after its pack is durable.
 */
#include "vault_internal.h"

#include "chunk/pack.h"
#include "contents.h"
#include "fault.h"
#include "bounds.h"
#include "wire/arena.h"

#include <errno.h>
#include <string.h>

/* Frames of one pack that lie so close together are read in one go, up to so much. */
#define READ_GAP_MAX (64 * KIB)
#define READ_RUN_MAX (8 * MIB)

int vault_missing(
	struct vault *v, int64_t drive, const struct id_list *ids, struct buf *ret, struct err *err)
{
	_cleanup_free_ struct digest *missing = calloc(ids->n ? ids->n : 1, sizeof *missing);
	struct id_list list = { missing, 0 };
	struct chunk_place place;
	int r;

	if (!missing)
		return err_sys(err, ENOMEM, "missing chunks");
	r = db_begin_read(v->db, err);
	for (size_t i = 0; r >= 0 && i < ids->n; i++) {
		r = chunk_find(v->db, drive, &ids->ids[i], &place, err);
		if (r == 0)
			missing[list.n++] = ids->ids[i];
	}
	db_rollback(v->db);
	if (r < 0)
		return r;
	r = id_list_encode(&list, ret);
	return r < 0 ? err_sys(err, -r, "missing chunks") : 0;
}

/* The entries of a pack, each verified. */
struct pack_contents {
	struct pack_entry *entries;
	size_t n;
};

static int verify_pack(const void *p, size_t n, struct pack_contents *ret, struct err *err)
{
	_cleanup_buf_ struct buf plain = { 0 };
	struct pack_reader reader;
	int r = pack_reader_init(&reader, p, n, err);

	while (r >= 0) {
		struct pack_entry *e = &ret->entries[ret->n];

		if (ret->n == PACK_CHUNKS_MAX)
			return reader.at == reader.n
				       ? 0
				       : err_set(err, EBADMSG, "pack: more than %d chunks",
						 PACK_CHUNKS_MAX);
		r = pack_next(&reader, e, err);
		if (r <= 0)
			return r;
		buf_clear(&plain);
		r = frame_decode(e->frame_bytes, e->frame.frame_len, &e->id, &plain, err);
		if (r < 0) {
			err_prefix(err, "pack: chunk %zu", ret->n);
			return r == -ENOMEM ? r : -EBADMSG;
		}
		ret->n++;
	}
	return r;
}

/* 1 when the drive lacks a chunk of the pack. */
static int any_new(
	struct vault *v, int64_t drive, const struct pack_contents *pack, struct err *err)
{
	struct chunk_place place;

	for (size_t i = 0; i < pack->n; i++) {
		int r = chunk_find(v->db, drive, &pack->entries[i].id, &place, err);

		if (r <= 0)
			return r < 0 ? r : 1;
	}
	return 0;
}

static int next_pack_id(struct db *db, int64_t drive, int64_t *ret, struct err *err)
{
	int r;
	DB_STMT(s, db, "SELECT id FROM pack WHERE drive = ?1 ORDER BY id DESC LIMIT 1", err);

	db_bind_int(s, 1, drive);
	r = db_step(s, err);
	*ret = r > 0 ? db_int(s, 0) + 1 : 1;
	return r < 0 ? r : 0;
}

static int insert_pack(
	struct db *db, int64_t drive, int64_t id, const char *key, size_t n, struct err *err)
{
	DB_STMT(s, db, "INSERT INTO pack (drive, id, blob_key, bytes) VALUES (?1, ?2, ?3, ?4)",
		err);

	db_bind_int(s, 1, drive);
	db_bind_int(s, 2, id);
	db_bind_text(s, 3, key);
	db_bind_int(s, 4, (int64_t)n);
	return db_run(s, err);
}

static int insert_chunks(struct db *db, int64_t drive, int64_t id, const struct pack_contents *pack,
	int64_t *ret_bytes, struct err *err)
{
	*ret_bytes = 0;
	for (size_t i = 0; i < pack->n; i++) {
		const struct pack_entry *e = &pack->entries[i];
		struct chunk_place place = { id, e->frame_offset, e->frame.frame_len,
			e->frame.plain_len };
		int r = chunk_insert(db, drive, &e->id, &place, (struct slice){ 0 }, err);

		if (r < 0)
			return r;
		*ret_bytes += r ? place.frame_len : 0;
	}
	return 0;
}

/* The caller's transaction. Locks the drive first, so that ids of packs are given in turn. */
static int record_pack(struct db *db, int64_t drive, const struct pack_contents *pack,
	const char *key, size_t n, struct err *err)
{
	int64_t id, bytes;
	int r = drive_add_bytes(db, drive, 0, err);

	if (r == 0)
		r = next_pack_id(db, drive, &id, err);
	if (r == 0)
		r = insert_pack(db, drive, id, key, n, err);
	if (r == 0)
		r = insert_chunks(db, drive, id, pack, &bytes, err);
	return r == 0 ? drive_add_bytes(db, drive, bytes, err) : r;
}

static int store_pack(struct vault *v, int64_t drive, const struct pack_contents *pack,
	const void *p, size_t n, struct err *err)
{
	char key[DIGEST_HEX_BYTES];
	struct digest h;
	int r;

	digest_of(p, n, &h);
	digest_hex(&h, key);
	r = blob_put(v->blob, key, p, n, err);
	if (r == 0)
		r = fault_point("pack.stored");
	if (r == 0)
		r = db_begin(v->db, err);
	if (r < 0)
		return r;
	r = record_pack(v->db, drive, pack, key, n, err);
	if (r < 0) {
		db_rollback(v->db);
		return r;
	}
	r = db_commit(v->db, err);
	fault_instant("pack.recorded");
	return r;
}

int vault_put_pack(struct vault *v, int64_t drive, const void *p, size_t n, struct err *err)
{
	_cleanup_free_ struct pack_entry *entries = calloc(PACK_CHUNKS_MAX + 1, sizeof *entries);
	struct pack_contents pack = { entries, 0 };
	uint64_t head;
	int r;

	if (!entries)
		return err_sys(err, ENOMEM, "pack");
	if (n > PACK_BYTES_MAX)
		return err_set(err, EBADMSG, "pack: %zu bytes are too many", n);
	r = verify_pack(p, n, &pack, err);
	if (r == 0)
		r = drive_head(v->db, drive, &head, err);
	if (r == 0)
		r = any_new(v, drive, &pack, err);
	return r > 0 ? store_pack(v, drive, &pack, p, n, err) : r;
}

/* A chunk that was asked for. */
struct wanted {
	struct digest id;
	struct chunk_place place;
};

static int by_place(const void *a, const void *b)
{
	const struct chunk_place *x = &((const struct wanted *)a)->place;
	const struct chunk_place *y = &((const struct wanted *)b)->place;

	if (x->pack != y->pack)
		return x->pack < y->pack ? -1 : 1;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return memcmp(
		&((const struct wanted *)a)->id, &((const struct wanted *)b)->id, DIGEST_BYTES);
}

/* Sorts by place, and drops what was asked for twice. */
static size_t sort_wanted(struct wanted *w, size_t n)
{
	size_t kept = 0;

	qsort(w, n, sizeof *w, by_place);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || !digest_eq(&w[kept - 1].id, &w[i].id))
			w[kept++] = w[i];
	return kept;
}

static int find_wanted(struct vault *v, int64_t drive, const struct id_list *ids,
	struct wanted *ret, struct err *err)
{
	for (size_t i = 0; i < ids->n; i++) {
		char hex[DIGEST_HEX_BYTES];
		int r = chunk_find(v->db, drive, &ids->ids[i], &ret[i].place, err);

		if (r == 0) {
			digest_hex(&ids->ids[i], hex);
			return err_set(err, ENOENT, "chunk %s is not here", hex);
		}
		if (r < 0)
			return r;
		ret[i].id = ids->ids[i];
	}
	return 0;
}

/* Checked against its id before anybody sees it. `plain` is scratch. */
static int append_frame(const struct wanted *w, struct slice frame, struct buf *plain,
	struct buf *ret, struct err *err)
{
	int r;

	buf_clear(plain);
	r = frame_decode(frame.p, frame.n, &w->id, plain, err);
	if (r < 0) {
		err_prefix(err, "stored chunk is damaged");
		return r == -ENOMEM ? r : -EBADMSG;
	}
	r = pack_add_frame(ret, &w->id, frame.p, frame.n);
	return r < 0 ? err_sys(err, -r, "fetch") : 0;
}

static int append_inline(struct vault *v, int64_t drive, const struct wanted *w, struct buf *plain,
	struct buf *ret, struct err *err)
{
	int r;
	DB_STMT(s, v->db, "SELECT data FROM chunk WHERE drive = ?1 AND id = ?2", err);

	db_bind_int(s, 1, drive);
	db_bind_blob(s, 2, w->id.b, sizeof w->id.b);
	r = db_step(s, err);
	if (r <= 0)
		return r < 0 ? r : err_set(err, ENOENT, "a chunk went away");
	return append_frame(w, db_blob(s, 0), plain, ret, err);
}

static int pack_key(
	struct vault *v, int64_t drive, int64_t pack, char ret[DIGEST_HEX_BYTES], struct err *err)
{
	int r;
	DB_STMT(s, v->db, "SELECT blob_key FROM pack WHERE drive = ?1 AND id = ?2", err);

	db_bind_int(s, 1, drive);
	db_bind_int(s, 2, pack);
	r = db_step(s, err);
	if (r < 0)
		return r;
	if (r == 0 || strlen(db_text(s, 0)) >= DIGEST_HEX_BYTES)
		return err_set(err, EBADMSG, "database: a chunk lies in a pack that is not there");
	strcpy(ret, db_text(s, 0));
	return 0;
}

/* How many of w[0..n), all sorted, to read in one go. */
static size_t run_length(const struct wanted *w, size_t n)
{
	uint64_t end = w->place.at + w->place.frame_len;
	size_t i = 1;

	while (i < n && w[i].place.pack == w->place.pack && w[i].place.at <= end + READ_GAP_MAX &&
		w[i].place.at + w[i].place.frame_len - w->place.at <= READ_RUN_MAX) {
		end = MAX(end, w[i].place.at + w[i].place.frame_len);
		i++;
	}
	return i;
}

static int append_run(struct vault *v, int64_t drive, const struct wanted *w, size_t n,
	struct buf *plain, struct buf *ret, struct err *err)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	uint64_t start = w->place.at, end = start;
	char key[DIGEST_HEX_BYTES];
	int r = pack_key(v, drive, w->place.pack, key, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		end = MAX(end, w[i].place.at + w[i].place.frame_len);
	r = blob_get(v->blob, key, start, end - start, &bytes, err);
	if (r == -ENOENT || r == -EIO)
		return -EBADMSG; /* a row names it: damage, not absence */
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct slice frame = { bytes.data + (w[i].place.at - start), w[i].place.frame_len };

		r = append_frame(&w[i], frame, plain, ret, err);
	}
	return r;
}

/* w[0..n) is sorted by place, each once. */
static int append_all(struct vault *v, int64_t drive, const struct wanted *w, size_t n,
	struct buf *ret, struct err *err)
{
	_cleanup_buf_ struct buf plain = { 0 };
	int r = pack_begin(ret);

	if (r < 0)
		return err_sys(err, -r, "fetch");
	for (size_t i = 0; r == 0 && i < n;) {
		size_t run = w[i].place.pack ? run_length(w + i, n - i) : 1;

		if (w[i].place.pack)
			r = append_run(v, drive, w + i, run, &plain, ret, err);
		else
			r = append_inline(v, drive, w + i, &plain, ret, err);
		i += run;
	}
	return r;
}

int vault_fetch(
	struct vault *v, int64_t drive, const struct id_list *ids, struct buf *ret, struct err *err)
{
	_cleanup_free_ struct wanted *wanted = calloc(ids->n ? ids->n : 1, sizeof *wanted);
	size_t had = ret->len, n;
	int r;

	if (!wanted)
		return err_sys(err, ENOMEM, "fetch");
	if (ids->n > FETCH_IDS_MAX)
		return err_set(err, EINVAL, "fetch: more than %d chunks at once", FETCH_IDS_MAX);
	r = db_begin_read(v->db, err);
	if (r < 0)
		return r;
	r = find_wanted(v, drive, ids, wanted, err);
	if (r == 0) {
		n = sort_wanted(wanted, ids->n);
		r = append_all(v, drive, wanted, n, ret, err);
	}
	db_rollback(v->db);
	if (r < 0)
		ret->len = had;
	return r;
}

int vault_content(
	struct vault *v, int64_t drive, const struct digest *id, struct buf *ret, struct err *err)
{
	int r = contents_get(v->db, drive, id, ret, err);

	return r == 0 ? err_set(err, ENOENT, "no such content") : r < 0 ? r : 0;
}
