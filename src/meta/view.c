// SPDX-License-Identifier: Apache-2.0
#include "meta/view.h"

#include "bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)8 * 1024)

struct view_block {
	struct view_block *next;
	size_t used;
	size_t size;
	_Alignas(16) uint8_t data[];
};

/* Rows whose keys begin with one id: what view_each() adds to the store's own. */
struct view_group {
	UT_hash_handle hh;
	struct view_row *first;
	uint8_t key[9];
};

void view_init(struct view *v, struct store *st, uint64_t acked, struct xattr_sums *sums)
{
	*v = (struct view){ .store = st, .acked = acked, .sums = sums };
}

void view_done(struct view *v)
{
	struct view_block *next;

	HASH_CLEAR(hh, v->rows);
	HASH_CLEAR(hh, v->groups);
	for (struct view_block *b = v->blocks; b; b = next) {
		next = b->next;
		free(b);
	}
	v->blocks = NULL;
	buf_done(&v->scratch);
}

void *view_alloc(struct view *v, size_t n)
{
	struct view_block *b = v->blocks;
	void *p;

	n = (n + 15) & ~(size_t)15;
	if (!b || b->size - b->used < n) {
		size_t size = MAX(BLOCK_BYTES, n);

		b = malloc(sizeof *b + size);
		if (!b)
			return NULL;
		*b = (struct view_block){ .next = v->blocks, .size = size };
		v->blocks = b;
	}
	p = b->data + b->used;
	b->used += n;
	return p;
}

int view_copy(struct view *v, const void *p, size_t n, struct slice *ret)
{
	uint8_t *copy = view_alloc(v, n ? n : 1);

	if (!copy)
		return -ENOMEM;
	if (n)
		memcpy(copy, p, n);
	*ret = (struct slice){ copy, n };
	return 0;
}

bool view_dirty(const struct view *v, struct slice row)
{
	uint64_t entry;
	uint8_t tag;

	return row.p && row_head_decode(row, &tag, &entry) == 0 && entry > v->acked;
}

/* Families that view_each() walks. */
static bool grouped(enum store_cf cf)
{
	return cf == CF_LINK || cf == CF_NAMES || cf == CF_XATTR;
}

static int group_add(struct view *v, struct view_row *row)
{
	struct view_group *g;

	HASH_FIND(hh, v->groups, row->key, sizeof g->key, g);
	if (!g) {
		g = view_alloc(v, sizeof *g);
		if (!g)
			return -ENOMEM;
		g->first = NULL;
		memcpy(g->key, row->key, sizeof g->key);
		HASH_ADD(hh, v->groups, key, sizeof g->key, g);
	}
	row->next = g->first;
	g->first = row;
	return 0;
}

static int row_load(struct view *v, enum store_cf cf, const struct row_key *k, struct view_row *row)
{
	int r;

	buf_clear(&v->scratch);
	r = store_get(v->store, cf, k->b, k->n, &v->scratch);
	if (r > 0)
		r = view_copy(v, v->scratch.data, v->scratch.len, &row->old);
	if (r < 0)
		return r;
	row->before = row->theirs = row->now = row->old;
	return 0;
}

static int row_add(struct view *v, enum store_cf cf, const struct row_key *k, struct view_row **ret)
{
	struct view_row *row = view_alloc(v, sizeof *row + 1 + k->n);
	int r;

	if (!row)
		return -ENOMEM;
	memset(row, 0, sizeof *row);
	row->klen = (uint16_t)(1 + k->n);
	row->key[0] = (uint8_t)cf;
	memcpy(row->key + 1, k->b, k->n);
	r = row_load(v, cf, k, row);
	if (r == 0 && grouped(cf))
		r = group_add(v, row);
	if (r < 0)
		return r;
	HASH_ADD_KEYPTR(hh, v->rows, row->key, row->klen, row);
	*ret = row;
	return 0;
}

static struct view_row *row_find(struct view *v, enum store_cf cf, const void *key, size_t n)
{
	uint8_t full[1 + sizeof((struct row_key *)0)->b];
	struct view_row *row;

	full[0] = (uint8_t)cf;
	memcpy(full + 1, key, n);
	HASH_FIND(hh, v->rows, full, n + 1, row);
	return row;
}

int view_row(struct view *v, enum store_cf cf, const struct row_key *k, struct view_row **ret)
{
	struct view_row *row = row_find(v, cf, k->b, k->n);

	if (!row)
		return row_add(v, cf, k, ret);
	*ret = row;
	return 0;
}

int view_get(struct view *v, enum store_cf cf, const struct row_key *k, struct slice *ret)
{
	struct view_row *row;
	int r = view_row(v, cf, k, &row);

	if (r < 0)
		return r;
	if (!row->now.p)
		return 0;
	*ret = row->now;
	return 1;
}

int view_put(struct view *v, enum store_cf cf, const struct row_key *k, const void *p, size_t n,
	uint64_t entry)
{
	struct view_row *row;
	struct slice value;
	int r = view_row(v, cf, k, &row);

	if (r == 0)
		r = view_copy(v, p, n, &value);
	if (r < 0)
		return r;
	row->now = value;
	if (entry)
		row->entry = entry;
	return 0;
}

int view_del(struct view *v, enum store_cf cf, const struct row_key *k, uint64_t entry)
{
	struct view_row *row;
	int r = view_row(v, cf, k, &row);

	if (r < 0)
		return r;
	row->now = (struct slice){ 0 };
	if (entry)
		row->entry = entry;
	return 0;
}

static int each_stored(struct view *v, enum store_cf cf, const struct row_key *prefix,
	int (*visit)(void *ctx, struct slice key, struct slice value), void *ctx)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_iter_new(v->store, cf, prefix->b, prefix->n, &it);

	if (r < 0)
		return r;
	for (store_iter_seek(it, prefix->b, prefix->n); (r = store_iter_valid(it)) > 0;
		store_iter_next(it)) {
		struct slice key = store_iter_key(it), value = store_iter_value(it);
		struct view_row *row;

		if (key.n > sizeof prefix->b)
			return -EBADMSG;
		row = row_find(v, cf, key.p, key.n);
		if (row && !row->now.p)
			continue;
		r = visit(ctx, key, row ? row->now : value);
		if (r)
			return r;
	}
	return r;
}

int view_each(struct view *v, enum store_cf cf, uint64_t id,
	int (*visit)(void *ctx, struct slice key, struct slice value), void *ctx)
{
	struct row_key prefix = key_id(id);
	uint8_t full[9] = { (uint8_t)cf };
	struct view_group *g;
	int r = each_stored(v, cf, &prefix, visit, ctx);

	if (r)
		return r;
	memcpy(full + 1, prefix.b, prefix.n);
	HASH_FIND(hh, v->groups, full, sizeof full, g);
	for (struct view_row *row = g ? g->first : NULL; row; row = row->next) {
		if (row->old.p || !row->now.p)
			continue;
		r = visit(ctx, view_row_key(row), row->now);
		if (r)
			return r;
	}
	return 0;
}

void view_mark_before(struct view *v)
{
	for (struct view_row *row = v->rows; row; row = row->hh.next)
		row->before = row->theirs = row->now;
}

void view_mark_theirs(struct view *v)
{
	for (struct view_row *row = v->rows; row; row = row->hh.next)
		row->theirs = row->now;
}

static bool has_base(enum store_cf cf)
{
	return cf == CF_NODE || cf == CF_LINK || cf == CF_XATTR;
}

static void forget_sum(struct view *v, const struct view_row *row)
{
	uint64_t node;
	struct slice name;

	if (view_row_cf(row) == CF_XATTR && key_child_parse(view_row_key(row), &node, &name) == 0)
		xattr_sums_forget(v->sums, node);
}

static void emit_row(struct view *v, const struct view_row *row, struct batch *b)
{
	struct slice key = view_row_key(row);

	forget_sum(v, row);
	if (!row->now.p) {
		if (row->old.p)
			batch_del(b, view_row_cf(row), key.p, key.n);
	} else if (!row->old.p || !slice_eq(row->now, row->old)) {
		batch_put(b, view_row_cf(row), key.p, key.n, row->now.p, row->now.n);
	}
}

static int put_base(struct view *v, struct batch *b, const struct view_row *row, struct slice base)
{
	struct slice key = view_row_key(row);
	struct row_key bk = key_base(view_row_cf(row), key.p, key.n);
	struct base_rec rec = { .entry = row->entry, .present = base.p != NULL, .row = base };
	int r = base_encode(&rec, &v->scratch);

	if (r == 0)
		batch_put(b, CF_BASE, bk.b, bk.n, v->scratch.data, v->scratch.len);
	return r;
}

/* A dirty row goes: what the server has stays known, with the number of this entry. */
static int keep_base(struct view *v, struct batch *b, const struct view_row *row)
{
	struct slice key = view_row_key(row);
	struct row_key bk = key_base(view_row_cf(row), key.p, key.n);
	_cleanup_buf_ struct buf old = { 0 };
	struct base_rec rec = { 0 };
	int r = store_get(v->store, CF_BASE, bk.b, bk.n, &old);

	if (r > 0)
		r = base_decode((struct slice){ old.data, old.len }, &rec);
	return r < 0 ? r : put_base(v, b, row, rec.present ? rec.row : (struct slice){ 0 });
}

static int emit_base(struct view *v, struct batch *b, const struct view_row *row)
{
	if (!row->entry || !has_base(view_row_cf(row)))
		return 0;
	if (row->old.p && !view_dirty(v, row->old))
		return put_base(v, b, row, row->old);
	return row->now.p ? 0 : keep_base(v, b, row);
}

int view_emit(struct view *v, struct batch *b)
{
	int r = 0;

	for (struct view_row *row = v->rows; row && r == 0; row = row->hh.next) {
		emit_row(v, row, b);
		r = emit_base(v, b, row);
	}
	return r;
}

int view_emit_rebased(struct view *v, struct batch *b)
{
	int r = 0;

	for (struct view_row *row = v->rows; row && r == 0; row = row->hh.next) {
		bool below = has_base(view_row_cf(row)) && row->entry;

		emit_row(v, row, b);
		if (below && (row->theirs.p || !row->now.p))
			r = put_base(v, b, row, row->theirs);
	}
	return r;
}

void view_emit_raw(struct view *v, struct batch *b)
{
	for (struct view_row *row = v->rows; row; row = row->hh.next)
		emit_row(v, row, b);
}
