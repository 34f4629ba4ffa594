// SPDX-License-Identifier: Apache-2.0
#include "contents.h"

#include "bytes.h"

#include <errno.h>

/* From so many entries on, reading the previous manifest is cheaper than looking chunks up. */
#define PREVIOUS_WORTH 16

/* The chunks of a manifest, by id: open addressing over indices. */
struct chunk_set {
	struct manifest *manifest;
	uint32_t *slots; /* index + 1; 0: free */
	size_t mask;
};

static void chunk_set_done(struct chunk_set *s)
{
	free(s->slots);
	manifest_unref(s->manifest);
}
#define _cleanup_chunk_set_ _cleanup_(chunk_set_done)

static size_t slot_of(const struct digest *id, size_t mask)
{
	return (size_t)get_le64(id->b) & mask;
}

static int chunk_set_fill(struct chunk_set *s)
{
	size_t n = manifest_count(s->manifest), slots = 16;

	while (slots < 2 * n)
		slots *= 2;
	s->slots = calloc(slots, sizeof *s->slots);
	if (!s->slots)
		return -ENOMEM;
	s->mask = slots - 1;
	for (size_t i = 0; i < n; i++) {
		const struct manifest_entry *e = manifest_at(s->manifest, i);
		size_t at = slot_of(&e->id, s->mask);

		if (e->hole)
			continue;
		while (s->slots[at])
			at = (at + 1) & s->mask;
		s->slots[at] = (uint32_t)i + 1;
	}
	return 0;
}

/* Whether the set has the chunk; a known chunk has one length. */
static bool chunk_set_has(const struct chunk_set *s, const struct manifest_entry *wanted)
{
	if (!s->slots)
		return false;
	for (size_t at = slot_of(&wanted->id, s->mask); s->slots[at]; at = (at + 1) & s->mask) {
		const struct manifest_entry *e = manifest_at(s->manifest, s->slots[at] - 1);

		if (digest_eq(&e->id, &wanted->id))
			return e->length == wanted->length;
	}
	return false;
}

int chunk_find(struct db *db, int64_t drive, const struct digest *id, struct chunk_place *ret,
	struct err *err)
{
	int r;
	DB_STMT(s, db,
		"SELECT pack, frame_at, frame_len, plain_len FROM chunk"
		" WHERE drive = ?1 AND id = ?2",
		err);

	db_bind_int(s, 1, drive);
	db_bind_blob(s, 2, id->b, sizeof id->b);
	r = db_step(s, err);
	if (r <= 0)
		return r;
	*ret = (struct chunk_place){
		.pack = db_int(s, 0),
		.at = (uint64_t)db_int(s, 1),
		.frame_len = (uint32_t)db_int(s, 2),
		.plain_len = (uint32_t)db_int(s, 3),
	};
	return 1;
}

int chunk_insert(struct db *db, int64_t drive, const struct digest *id,
	const struct chunk_place *place, struct slice data, struct err *err)
{
	int r;
	DB_STMT(s, db,
		"INSERT INTO chunk (drive, id, plain_len, pack, frame_at, frame_len, data)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
		err);

	db_bind_int(s, 1, drive);
	db_bind_blob(s, 2, id->b, sizeof id->b);
	db_bind_int(s, 3, place->plain_len);
	db_bind_int(s, 5, (int64_t)place->at);
	db_bind_int(s, 6, place->frame_len);
	if (place->pack) {
		db_bind_int(s, 4, place->pack);
		db_bind_null(s, 7);
	} else {
		db_bind_null(s, 4);
		db_bind_blob(s, 7, data.p, data.n);
	}
	r = db_run(s, err);
	return r < 0 ? r : db_changes(db) > 0;
}

/* 1 when the id is that of the content of no bytes, which nobody uploads. Its manifest if wanted.
 */
static int get_empty(const struct digest *id, struct buf *ret)
{
	_cleanup_manifest_ struct manifest *m = manifest_empty();
	const uint8_t *bytes;
	size_t n;
	int r;

	if (!m)
		return -ENOMEM;
	if (!digest_eq(manifest_content_id(m), id))
		return 0;
	bytes = manifest_bytes(m, &n);
	r = ret ? buf_append(ret, bytes, n) : 0;
	return r < 0 ? r : 1;
}

int contents_get(
	struct db *db, int64_t drive, const struct digest *id, struct buf *ret, struct err *err)
{
	struct slice bytes;
	int r;
	DB_STMT(s, db, "SELECT manifest FROM content WHERE drive = ?1 AND id = ?2", err);

	db_bind_int(s, 1, drive);
	db_bind_blob(s, 2, id->b, sizeof id->b);
	r = db_step(s, err);
	if (r < 0)
		return r;
	if (r == 0) {
		r = get_empty(id, ret);
		return r < 0 ? err_sys(err, -r, "content") : r;
	}
	bytes = db_blob(s, 0);
	r = buf_append(ret, bytes.p, bytes.n);
	return r < 0 ? err_sys(err, -r, "content") : 1;
}

/* 1 with the size of a content that the drive has. */
static int content_size(
	struct db *db, int64_t drive, const struct digest *id, uint64_t *ret, struct err *err)
{
	int r;
	DB_STMT(s, db, "SELECT size FROM content WHERE drive = ?1 AND id = ?2", err);

	db_bind_int(s, 1, drive);
	db_bind_blob(s, 2, id->b, sizeof id->b);
	r = db_step(s, err);
	if (r > 0)
		*ret = (uint64_t)db_int(s, 0);
	return r;
}

/* A previous content that cannot be had saves nothing, and harms nothing. */
static int previous_set(struct db *db, int64_t drive, const struct prepared *p,
	const struct digest *id, struct chunk_set *ret, struct err *err)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	struct new_content *c;
	int r;

	HASH_FIND(hh, p->contents, id, sizeof *id, c);
	if (c && !c->admitted)
		return 0;
	if (c) {
		ret->manifest = manifest_ref(c->manifest);
		return chunk_set_fill(ret);
	}
	r = contents_get(db, drive, id, &bytes, err);
	if (r <= 0)
		return r;
	r = manifest_decode(bytes.data, bytes.len, &ret->manifest, err);
	return r < 0 ? r : chunk_set_fill(ret);
}

/* 1 refused: the drive has not uploaded this chunk. */
static int need_chunk(struct db *db, int64_t drive, const struct prepared *p,
	const struct manifest_entry *e, struct verdict *v, struct err *err)
{
	char hex[DIGEST_HEX_BYTES];
	struct chunk_place place;
	struct inline_chunk *c;
	int r;

	HASH_FIND(hh, p->chunks, &e->id, sizeof e->id, c);
	if (c) {
		place.plain_len = c->plain_len;
	} else {
		r = chunk_find(db, drive, &e->id, &place, err);
		if (r < 0)
			return r;
		digest_hex(&e->id, hex);
		if (r == 0)
			return refuse(v, REFUSAL_CHUNK, "%s", hex);
	}
	if (place.plain_len != e->length)
		return refuse(v, REFUSAL_INVALID, "a chunk of %u bytes named with another length",
			place.plain_len);
	return 0;
}

/* 0 or 1 refused: whether every chunk that a new manifest names is there. */
static int check_chunks(struct db *db, int64_t drive, const struct prepared *p,
	const struct manifest *m, const struct digest *previous, struct verdict *v, struct err *err)
{
	_cleanup_chunk_set_ struct chunk_set known = { 0 };
	int r = 0;

	if (manifest_count(m) >= PREVIOUS_WORTH && !digest_is_zero(previous))
		r = previous_set(db, drive, p, previous, &known, err);
	for (size_t i = 0; r == 0 && i < manifest_count(m); i++) {
		const struct manifest_entry *e = manifest_at(m, i);

		if (!e->hole && !chunk_set_has(&known, e))
			r = need_chunk(db, drive, p, e, v, err);
	}
	return r;
}

static int admit_new(struct db *db, int64_t drive, struct prepared *p, struct new_content *c,
	const struct digest *previous, struct verdict *v, struct err *err)
{
	int r = check_chunks(db, drive, p, c->manifest, previous, v, err);

	c->admitted = r == 0;
	return r;
}

int contents_admit(struct db *db, int64_t drive, struct prepared *p, const struct digest *id,
	uint64_t size, const struct digest *previous, struct verdict *v, struct err *err)
{
	char hex[DIGEST_HEX_BYTES];
	struct new_content *c;
	uint64_t known = 0;
	int r = 0;

	if (size == 0 && (digest_is_zero(id) || get_empty(id, NULL) == 1))
		return 0;
	HASH_FIND(hh, p->contents, id, sizeof *id, c);
	if (c)
		known = manifest_size(c->manifest);
	if (!c || !c->admitted)
		r = content_size(db, drive, id, &known, err);
	if (r == 0 && c && !c->admitted)
		r = admit_new(db, drive, p, c, previous, v, err);
	else if (r == 0 && !c) {
		digest_hex(id, hex);
		return refuse(v, REFUSAL_CHUNK, "content %s", hex);
	} else if (r > 0) {
		r = 0;
	}
	if (r == 0 && known != size)
		return refuse(v, REFUSAL_INVALID, "size %llu of a content of %llu bytes",
			(unsigned long long)size, (unsigned long long)known);
	return r;
}

static int store_content(struct db *db, int64_t drive, const struct new_content *c, struct err *err)
{
	size_t n;
	const uint8_t *bytes = manifest_bytes(c->manifest, &n);
	DB_STMT(s, db,
		"INSERT INTO content (drive, id, size, manifest) VALUES (?1, ?2, ?3, ?4)"
		" ON CONFLICT DO NOTHING",
		err);

	db_bind_int(s, 1, drive);
	db_bind_blob(s, 2, c->id.b, sizeof c->id.b);
	db_bind_int(s, 3, (int64_t)manifest_size(c->manifest));
	db_bind_blob(s, 4, bytes, n);
	return db_run(s, err);
}

int contents_flush(
	struct db *db, int64_t drive, const struct prepared *p, int64_t *ret_bytes, struct err *err)
{
	struct inline_chunk *c, *next_chunk;
	struct new_content *n, *next_content;
	int r;

	*ret_bytes = 0;
	HASH_ITER (hh, p->chunks, c, next_chunk) {
		struct chunk_place place = { .frame_len = (uint32_t)c->frame.n,
			.plain_len = c->plain_len };

		r = chunk_insert(db, drive, &c->id, &place, c->frame, err);
		if (r < 0)
			return r;
		*ret_bytes += r ? place.frame_len : 0;
	}
	HASH_ITER (hh, p->contents, n, next_content) {
		r = n->admitted ? store_content(db, drive, n, err) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}
