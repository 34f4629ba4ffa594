// SPDX-License-Identifier: Apache-2.0
#include "bytes.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define GRAVE "grave"
#define GRAVE_BYTES (sizeof GRAVE - 1)
/* Dead parents on the way up: more than any path that was ever made has a loop in it. */
#define CHAIN_MAX 65536

static struct row_key grave_key(uint64_t node)
{
	struct row_key k = { .n = GRAVE_BYTES + 8 };

	memcpy(k.b, GRAVE, GRAVE_BYTES);
	put_be64(k.b + GRAVE_BYTES, node);
	return k;
}

int grave_put(struct view *v, uint64_t node, struct slice row)
{
	struct row_key k = grave_key(node);

	return view_put(v, CF_STATE, &k, row.p, row.n, 0);
}

int grave_get(struct view *v, uint64_t node, struct node_rec *ret)
{
	struct row_key k = grave_key(node);
	struct slice row;
	int r = view_get(v, CF_STATE, &k, &row);

	if (r <= 0)
		return r;
	r = node_decode(row, ret);
	return r < 0 ? r : 1;
}

int dead_node(struct view *v, uint64_t node, struct node_rec *ret)
{
	struct row_key k = key_id(node);
	struct view_row *row;
	int r = view_row(v, CF_NODE, &k, &row);

	if (r < 0)
		return r;
	if (!row->before.p)
		return grave_get(v, node, ret);
	r = node_decode(row->before, ret);
	return r < 0 ? r : 1;
}

struct xattr_list {
	struct xattr *list;
	size_t n;
};

/* Those the node had when it died: view_kill_node() has loaded them all. */
static int dead_xattrs(struct view *v, uint64_t node, struct xattr_list *ret)
{
	struct row_key prefix = key_id(node);
	size_t n = 0;

	for (int pass = 0; pass < 2; pass++) {
		n = 0;
		for (struct view_row *row = v->rows; row; row = row->hh.next) {
			struct slice key = view_row_key(row);
			uint64_t entry;

			if (view_row_cf(row) != CF_XATTR || !row->before.p ||
				memcmp(key.p, prefix.b, 8) != 0)
				continue;
			if (pass && xattr_decode(row->before, &entry, &ret->list[n].value) < 0)
				return -EBADMSG;
			if (pass)
				ret->list[n].name = (struct slice){ key.p + 8, key.n - 8 };
			n++;
		}
		if (!pass && !(ret->list = view_alloc(v, (n + 1) * sizeof *ret->list)))
			return -ENOMEM;
	}
	ret->n = n;
	return 0;
}

int revive_node(const struct reviver *rv, uint64_t node, const struct node_rec *rec,
	uint64_t parent, struct slice name, int64_t time_ns)
{
	struct outbox_entry e = {
		.change = {
			.kind = CHANGE_CREATE,
			.node = node,
			.parent = parent,
			.name = name,
			.attr = rec->attr,
			.time_ns = time_ns,
		},
	};
	struct change *c = &e.change;
	struct xattr_list xattrs = { 0 };
	uint64_t taken;
	int r = view_link(rv->view, parent, name, &taken);

	if (r > 0)
		r = conflict_name_free(rv->tree, rv->view, parent, name, time_ns, &c->name);
	if (r == 0 && (rec->tag & NODE_HAS_XATTRS))
		r = dead_xattrs(rv->view, node, &xattrs);
	if (r < 0)
		return r;
	c->xattrs = xattrs.list;
	c->n_xattrs = xattrs.n;
	if (S_ISLNK(rec->attr.mode))
		c->target = rec->payload;
	if (S_ISREG(rec->attr.mode)) {
		c->attr.size = 0;
		c->attr.content = (struct digest){ 0 };
	}
	return rv->emit(rv->ctx, &e);
}

struct chain {
	uint64_t *dirs; /* the dead ones, lowest first */
	struct node_rec *recs;
	size_t n;
	uint64_t top; /* the living one above */
};

static void chain_done(struct chain *c)
{
	free(c->dirs);
	free(c->recs);
}

static int chain_add(struct chain *c, uint64_t dir, const struct node_rec *rec)
{
	uint64_t *dirs = reallocarray(c->dirs, c->n + 1, sizeof *dirs);
	struct node_rec *recs;

	if (!dirs)
		return -ENOMEM;
	c->dirs = dirs;
	recs = reallocarray(c->recs, c->n + 1, sizeof *recs);
	if (!recs)
		return -ENOMEM;
	c->recs = recs;
	c->dirs[c->n] = dir;
	c->recs[c->n++] = *rec;
	return 0;
}

static int chain_find(struct view *v, uint64_t dir, struct chain *c)
{
	while (c->n < CHAIN_MAX) {
		struct node_rec rec;
		int r = view_node(v, dir, &rec);

		if (r < 0)
			return r;
		if (r && S_ISDIR(rec.attr.mode)) {
			c->top = dir;
			return 0;
		}
		r = r ? 0 : dead_node(v, dir, &rec);
		if (r < 0)
			return r;
		if (r == 0 || !S_ISDIR(rec.attr.mode) || rec.name.n == 0)
			break;
		r = chain_add(c, dir, &rec);
		if (r < 0)
			return r;
		dir = rec.parent;
	}
	c->top = NODE_ROOT;
	return 0;
}

int revive_dir(const struct reviver *rv, uint64_t dir, int64_t time_ns, uint64_t *ret)
{
	_cleanup_(chain_done) struct chain c = { 0 };
	uint64_t parent;
	int r = chain_find(rv->view, dir, &c);

	parent = c.top;
	for (size_t i = c.n; i-- > 0 && r >= 0;) {
		struct node_rec rec = { 0 };
		uint64_t taken = 0;

		r = view_link(rv->view, parent, c.recs[i].name, &taken);
		if (r > 0)
			r = view_node(rv->view, taken, &rec);
		if (r < 0)
			break;
		if (r > 0 && S_ISDIR(rec.attr.mode)) {
			parent = taken;
			continue;
		}
		r = revive_node(rv, c.dirs[i], &c.recs[i], parent, c.recs[i].name, time_ns);
		parent = c.dirs[i];
	}
	if (r < 0)
		return r;
	*ret = parent;
	return 0;
}
