// SPDX-License-Identifier: Apache-2.0
/* Repairs of rows. Nobody else uses the store. */
#include "meta/check_impl.h"

#include "clock.h"
#include "io.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define DERIVED_FIX "they are derived again from the links"

/* ---- derived fields ---- */

struct name_of {
	uint64_t node, parent;
	struct slice name; /* owned */
};

struct derive {
	struct check *c;
	struct name_of *names; /* of the nodes at hand */
	size_t n, cap;
};

static void derive_done(struct derive *d)
{
	for (size_t i = 0; i < d->n; i++)
		free((void *)(uintptr_t)d->names[i].name.p);
	free(d->names);
}

static int collect_name(struct derive *d, uint64_t node, uint64_t parent, struct slice name)
{
	uint8_t *copy;

	if (d->n == d->cap) {
		size_t cap = d->cap ? 2 * d->cap : 64;
		struct name_of *names = reallocarray(d->names, cap, sizeof *names);

		if (!names)
			return -ENOMEM;
		d->names = names;
		d->cap = cap;
	}
	copy = malloc(name.n ? name.n : 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, name.p, name.n);
	d->names[d->n++] = (struct name_of){ node, parent, { copy, name.n } };
	return 0;
}

static int collect_names(struct derive *d)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(d->c->at, CF_LINK, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct link_rec rec;
		struct slice name;
		uint64_t parent;

		if (key_link_parse(store_iter_key(it), &parent, &name) < 0 ||
			link_decode(store_iter_value(it), &rec) < 0 ||
			!number_has(&d->c->derived, rec.node))
			continue;
		r = collect_name(d, rec.node, parent, name);
		if (r < 0)
			return r;
	}
	return r;
}

static int count_subdirs(struct check *c, uint64_t dir, uint32_t *ret)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	struct row_key k = key_id(dir);
	int r = store_iter_new(c->o->store, CF_LINK, k.b, k.n, &it);

	*ret = 0;
	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct link_rec rec;

		if (link_decode(store_iter_value(it), &rec) == 0)
			*ret += S_ISDIR(rec.type);
	}
	return r;
}

static int drop_names(struct check *c, struct batch *b, uint64_t node)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	struct row_key k = key_id(node);
	int r = store_iter_new(c->o->store, CF_NAMES, k.b, k.n, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct slice key = store_iter_key(it);

		batch_del(b, CF_NAMES, key.p, key.n);
	}
	return r;
}

/* The first name stays when it is one still. */
static size_t first_name(const struct derive *d, uint64_t node, const struct node_rec *rec)
{
	size_t first = SIZE_MAX;

	for (size_t i = 0; i < d->n; i++) {
		if (d->names[i].node != node)
			continue;
		if (first == SIZE_MAX || (d->names[i].parent == rec->parent &&
						 slice_eq(d->names[i].name, rec->name)))
			first = i;
	}
	return first;
}

static void put_names(struct derive *d, struct batch *b, uint64_t node, struct node_rec *rec)
{
	static const uint8_t version = ROW_VERSION;
	size_t first = first_name(d, node, rec);

	rec->links = 0;
	rec->parent = 0;
	rec->name = (struct slice){ 0 };
	for (size_t i = 0; i < d->n; i++) {
		struct row_key k;

		if (d->names[i].node != node)
			continue;
		rec->links++;
		if (i == first) {
			rec->parent = d->names[i].parent;
			rec->name = d->names[i].name;
			continue;
		}
		k = key_name(node, d->names[i].parent, d->names[i].name);
		batch_put(b, CF_NAMES, k.b, k.n, &version, 1);
	}
}

static int derive_row(struct derive *d, struct batch *b, uint64_t node, struct slice row)
{
	struct row_key k = key_id(node);
	uint8_t bytes[NODE_ROW_MAX];
	struct node_rec rec;
	int r = node_decode(row, &rec);

	if (r < 0)
		return 0; /* told by the check */
	put_names(d, b, node, &rec);
	r = count_subdirs(d->c, node, &rec.subdirs);
	if (r == 0)
		batch_put(b, CF_NODE, k.b, k.n, bytes, node_encode(&rec, bytes));
	return r;
}

static int derive_node(struct derive *d, uint64_t node)
{
	_cleanup_batch_ struct batch *b = NULL;
	_cleanup_buf_ struct buf row = { 0 };
	struct row_key k = key_id(node);
	struct store *st = d->c->o->store;
	int r = batch_new(st, &b), found;

	if (r == 0)
		r = drop_names(d->c, b, node);
	if (r < 0)
		return r;
	found = store_get(st, CF_NODE, k.b, k.n, &row);
	if (found < 0)
		return found;
	if (found)
		r = derive_row(d, b, node, (struct slice){ row.data, row.len });
	return r < 0 ? r : store_commit(st, b);
}

/* 1 when a name leads to it, or it is not there, and its names just go. */
static int count_named(struct derive *d, uint64_t node)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct row_key k = key_id(node);
	int r = store_snapshot_get(d->c->at, CF_NODE, k.b, k.n, &row);

	if (r <= 0 || node == NODE_ROOT)
		return r < 0 ? r : 1;
	for (size_t i = 0; i < d->n; i++)
		if (d->names[i].node == node)
			return 1;
	return 0;
}

static int derive_one(struct derive *d, uint64_t node)
{
	struct check *c = d->c;
	struct check_problem p = { .severity = CHECK_PROBLEM, .what = "names", .fix = DERIVED_FIX };
	int r = count_named(d, node);

	if (r < 0)
		return r;
	if (r == 0) {
		check_say_tree(c, "no name leads to node %llx", (unsigned long long)node);
		return 0;
	}
	snprintf(p.text, sizeof p.text, "link count or names of node %llx are wrong",
		(unsigned long long)node);
	if (c->o->repair && !c->o->cache) {
		r = derive_node(d, node);
		p.repaired = r == 0;
	}
	check_tell(c, &p);
	return r;
}

int check_repair_derived(struct check *c)
{
	_cleanup_(derive_done) struct derive d = { .c = c };
	int r;

	number_sort(&c->derived);
	r = collect_names(&d);
	for (size_t i = 0; r == 0 && i < c->derived.n; i++)
		r = derive_one(&d, c->derived.items[i]);
	return r;
}
