// SPDX-License-Identifier: Apache-2.0
#include "wire/record.h"

#include "bytes.h"
#include "wire/cbor_read.h"

#include <errno.h>
#include <string.h>

/* What is being read, and the words for a complaint about it. */
struct reading {
	struct cbor_reader in;
	struct arena *arena;
	struct err *err;
	const struct record *rec;
	const struct field *field;
};

static int read_record(struct reading *rd, const struct record *rec, void *value);

static int bad(const struct reading *rd, const char *what)
{
	return err_set(rd->err, EBADMSG, "%s%s%s: %s", rd->rec->name, rd->field ? "." : "",
		rd->field ? rd->field->key : "", what);
}

static int next(struct reading *rd, enum token_kind kind, const char *complaint, struct token *ret)
{
	if (cbor_read_token(&rd->in, ret) < 0)
		return bad(rd, "not well-formed CBOR, or cut short");
	return ret->kind == kind ? 0 : bad(rd, complaint);
}

static int read_number(struct reading *rd, uint64_t *ret)
{
	struct token t;
	int r = next(rd, TOKEN_UINT, "must be an unsigned integer", &t);

	if (r < 0)
		return r;
	if (t.u > rd->field->max)
		return bad(rd, "too large");
	*ret = t.u;
	return 0;
}

static int read_u32(struct reading *rd, void *p)
{
	uint64_t v = 0;
	uint32_t narrow;
	int r = read_number(rd, &v);

	if (r < 0)
		return r;
	narrow = (uint32_t)v;
	memcpy(p, &narrow, sizeof narrow);
	return 0;
}

static int read_i64(struct reading *rd, int64_t *ret)
{
	struct token t;

	if (cbor_read_token(&rd->in, &t) < 0)
		return bad(rd, "not well-formed CBOR, or cut short");
	if (t.kind != TOKEN_UINT && t.kind != TOKEN_NEGINT)
		return bad(rd, "must be an integer");
	if (t.u > INT64_MAX)
		return bad(rd, "out of range");
	*ret = t.kind == TOKEN_UINT ? (int64_t)t.u : -1 - (int64_t)t.u;
	return 0;
}

static int read_bool(struct reading *rd, bool *ret)
{
	struct token t;
	int r = next(rd, TOKEN_BOOL, "must be true or false", &t);

	if (r == 0)
		*ret = t.u;
	return r;
}

static int read_bytes(struct reading *rd, size_t max, struct slice *ret)
{
	struct token t;
	int r = next(rd, TOKEN_BYTES, "must be a byte string", &t);

	if (r < 0)
		return r;
	if (t.s.n > max)
		return bad(rd, "too long");
	*ret = t.s;
	return 0;
}

static int read_text(struct reading *rd, struct slice *ret)
{
	struct token t;
	int r = next(rd, TOKEN_TEXT, "must be a text", &t);

	if (r < 0)
		return r;
	if (t.s.n > rd->field->max)
		return bad(rd, "too long");
	if (!utf8_valid(t.s.p, t.s.n))
		return bad(rd, "is not UTF-8");
	*ret = t.s;
	return 0;
}

static int read_fixed(struct reading *rd, void *p)
{
	struct slice s = { 0 };
	int r = read_bytes(rd, rd->field->max, &s);

	if (r < 0)
		return r;
	if (s.n != rd->field->max)
		return bad(rd, "too short");
	memcpy(p, s.p, s.n);
	return 0;
}

static int read_refusal(struct reading *rd, enum refusal *ret)
{
	struct slice s = { 0 };
	int r = read_text(rd, &s);

	if (r == 0)
		*ret = refusal_parse((const char *)s.p, s.n);
	return r;
}

static int read_ids(struct reading *rd, void *pointer, void *count)
{
	struct slice s = { 0 };
	size_t n;
	int r = read_bytes(rd, rd->field->max * DIGEST_BYTES, &s);

	if (r < 0)
		return r;
	if (s.n % DIGEST_BYTES)
		return bad(rd, "not a whole number of ids");
	n = s.n / DIGEST_BYTES;
	memcpy(pointer, &s.p, sizeof s.p);
	memcpy(count, &n, sizeof n);
	return 0;
}

/* Room for the list's items: bounded by the table and by what the input can hold. */
static int open_list(struct reading *rd, size_t item_size, void **ret_items, size_t *ret_n)
{
	struct token t;
	int r = next(rd, TOKEN_ARRAY, "must be an array of known length", &t);

	if (r < 0)
		return r;
	if (t.u > rd->field->count_max)
		return bad(rd, "too many items");
	if (t.u > rd->in.n - rd->in.at)
		return bad(rd, "cut short");
	*ret_items = arena_alloc(rd->arena, t.u * item_size);
	if (!*ret_items)
		return err_sys(rd->err, ENOMEM, "%s", rd->rec->name);
	*ret_n = t.u;
	return 0;
}

static int read_slices(struct reading *rd, void *pointer, void *count)
{
	void *items;
	size_t n;
	int r = open_list(rd, sizeof(struct slice), &items, &n);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = read_bytes(rd, rd->field->max, (struct slice *)items + i);
	if (r < 0)
		return r;
	memcpy(pointer, &items, sizeof items);
	memcpy(count, &n, sizeof n);
	return 0;
}

static int read_records(struct reading *rd, void *pointer, void *count)
{
	const struct record *of = rd->field->of;
	void *items;
	size_t n;
	int r = open_list(rd, of->size, &items, &n);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = read_record(rd, of, (uint8_t *)items + i * of->size);
	if (r < 0)
		return r;
	memcpy(pointer, &items, sizeof items);
	memcpy(count, &n, sizeof n);
	return 0;
}

static int read_field(struct reading *rd, uint8_t *value)
{
	const struct field *f = rd->field;
	uint8_t *p = value + f->offset;

	switch (f->type) {
	case FIELD_U32:
		return read_u32(rd, p);
	case FIELD_U64:
		return read_number(rd, (uint64_t *)p);
	case FIELD_I64:
		return read_i64(rd, (int64_t *)p);
	case FIELD_BOOL:
		return read_bool(rd, (bool *)p);
	case FIELD_BYTES:
		return read_bytes(rd, f->max, (struct slice *)p);
	case FIELD_TEXT:
		return read_text(rd, (struct slice *)p);
	case FIELD_FIXED:
		return read_fixed(rd, p);
	case FIELD_REFUSAL:
		return read_refusal(rd, (enum refusal *)p);
	case FIELD_RECORD:
		return read_record(rd, f->of, p);
	case FIELD_IDS:
		return read_ids(rd, p, value + f->count_offset);
	case FIELD_SLICES:
		return read_slices(rd, p, value + f->count_offset);
	case FIELD_RECORDS:
		return read_records(rd, p, value + f->count_offset);
	}
	return bad(rd, "has no type");
}

/* Our own encoder writes in the table's order: begin to look where the last key was found. */
static const struct field *find_field(const struct record *rec, struct slice key, size_t *hint)
{
	for (size_t i = 0; i < rec->n_fields; i++) {
		size_t at = (*hint + i) % rec->n_fields;
		const struct field *f = &rec->fields[at];

		if (f->key_len == key.n && memcmp(f->key, key.p, key.n) == 0) {
			*hint = at + 1;
			return f;
		}
	}
	return NULL;
}

#define VERSION_BIT 63

static int read_version(struct reading *rd, uint64_t *seen)
{
	struct token t;

	if (*seen >> VERSION_BIT & 1)
		return bad(rd, "the key v stands twice");
	*seen |= UINT64_C(1) << VERSION_BIT;
	if (cbor_read_token(&rd->in, &t) < 0 || t.kind != TOKEN_UINT)
		return bad(rd, "v must be an unsigned integer");
	return t.u == WIRE_VERSION ? 0 : bad(rd, "a version that this program does not know");
}

static int read_pair(struct reading *rd, uint8_t *value, uint64_t *seen, size_t *hint)
{
	const struct record *rec = rd->rec;
	struct token key;
	uint64_t bit;
	int r = next(rd, TOKEN_TEXT, "every key must be a text", &key);

	if (r < 0)
		return r;
	if (rec->versioned && key.s.n == 1 && key.s.p[0] == 'v')
		return read_version(rd, seen);
	rd->field = find_field(rec, key.s, hint);
	if (!rd->field)
		return cbor_read_skip(&rd->in) < 0 ? bad(rd, "an unknown key's value is damaged")
						   : 0;
	bit = UINT64_C(1) << (rd->field - rec->fields);
	if (*seen & bit)
		return bad(rd, "stands twice");
	*seen |= bit;
	return read_field(rd, value);
}

static int read_map(struct reading *rd, const struct record *rec, void *value)
{
	uint64_t seen = 0;
	size_t hint = 0;
	struct token map;
	int r = next(rd, TOKEN_MAP, "must be a map of known length", &map);

	for (uint64_t i = 0; r == 0 && i < map.u; i++) {
		rd->rec = rec;
		rd->field = NULL;
		r = read_pair(rd, value, &seen, &hint);
	}
	if (r < 0)
		return r;
	rd->rec = rec;
	rd->field = NULL;
	if (rec->versioned && !(seen >> VERSION_BIT & 1))
		return bad(rd, "v is missing");
	return rec->check ? rec->check(value, rd->err) : 0;
}

static int read_record(struct reading *rd, const struct record *rec, void *value)
{
	const struct record *outer = rd->rec;
	const struct field *outer_field = rd->field;
	int r = read_map(rd, rec, value);

	rd->rec = outer;
	rd->field = outer_field;
	return r;
}

/* The arena's copy of the input: slices of the message point into it. */
static int start(struct reading *rd, const void *p, size_t n)
{
	int r = arena_new(&rd->arena);

	if (r == 0) {
		rd->in.p = arena_dup(rd->arena, p, n);
		rd->in.n = n;
		r = rd->in.p ? 0 : -ENOMEM;
	}
	return r < 0 ? err_sys(rd->err, ENOMEM, "%s", rd->rec->name) : 0;
}

int record_decode(const struct record *rec, const void *p, size_t n, size_t max_bytes, void *ret,
	struct arena **ret_arena, struct err *err)
{
	struct reading rd = { .err = err, .rec = rec };
	_cleanup_arena_ struct arena *arena = NULL;
	void *value;
	int r;

	if (n > max_bytes)
		return bad(&rd, "the message is too large");
	r = start(&rd, p, n);
	arena = rd.arena;
	if (r < 0)
		return r;
	value = arena_alloc(arena, rec->size);
	if (!value)
		return err_sys(err, ENOMEM, "%s", rec->name);
	r = read_record(&rd, rec, value);
	if (r < 0)
		return r;
	if (rd.in.at != n)
		return bad(&rd, "bytes are left over behind it");
	memcpy(ret, value, rec->size);
	*ret_arena = steal(arena);
	return 0;
}
