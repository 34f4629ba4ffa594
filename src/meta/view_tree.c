// SPDX-License-Identifier: Apache-2.0
/* The typed half of a view: nodes, and what links derive. */
#include "meta/view.h"

#include "bytes.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* A way up that is longer has a loop in it. */
#define DEPTH_MAX 1000000

int view_node(struct view *v, uint64_t id, struct node_rec *ret)
{
	struct row_key k = key_id(id);
	struct slice row;
	int r = view_get(v, CF_NODE, &k, &row);

	if (r <= 0)
		return r;
	r = node_decode(row, ret);
	return r < 0 ? r : 1;
}

int view_put_node(struct view *v, uint64_t id, const struct node_rec *rec, uint64_t entry)
{
	struct row_key k = key_id(id);
	struct node_rec copy = *rec;
	uint8_t row[NODE_ROW_MAX];

	if (entry)
		copy.entry = entry;
	return view_put(v, CF_NODE, &k, row, node_encode(&copy, row), entry);
}

struct kill {
	struct view *v;
	uint64_t entry;
};

static int kill_xattr(void *ctx, struct slice key, struct slice value)
{
	struct kill *k = ctx;
	struct row_key copy;

	copy.n = key.n;
	memcpy(copy.b, key.p, key.n);
	return view_del(k->v, CF_XATTR, &copy, k->entry);
}

int view_kill_node(struct view *v, uint64_t id, uint64_t entry)
{
	struct row_key k = key_id(id);
	struct kill kill = { v, entry };
	struct node_rec rec;
	int r = view_node(v, id, &rec);

	if (r <= 0)
		return r;
	if (rec.tag & NODE_HAS_XATTRS)
		r = view_each(v, CF_XATTR, id, kill_xattr, &kill);
	return r < 0 ? r : view_del(v, CF_NODE, &k, entry);
}

int view_link(struct view *v, uint64_t parent, struct slice name, uint64_t *ret)
{
	struct row_key k = key_link(parent, name);
	struct link_rec rec;
	struct slice row;
	int r = view_get(v, CF_LINK, &k, &row);

	if (r <= 0)
		return r;
	r = link_decode(row, &rec);
	if (r < 0)
		return r;
	*ret = rec.node;
	return 1;
}

static int count_subdir(struct view *v, uint64_t dir, int by)
{
	struct node_rec rec;
	int r = view_node(v, dir, &rec);

	if (r <= 0)
		return r;
	if (by > 0 || rec.subdirs)
		rec.subdirs += (uint32_t)by;
	return view_put_node(v, dir, &rec, 0);
}

struct first_name {
	struct view *v;
	struct slice name;
	uint64_t parent;
};

static int take_first(void *ctx, struct slice key, struct slice value)
{
	struct first_name *f = ctx;
	struct slice name;
	int r = key_name_parse(key, &f->parent, &name);

	if (r == 0)
		r = view_copy(f->v, name.p, name.n, &f->name);
	return r < 0 ? r : 1;
}

/* The first name went: one of the others takes its place. */
static int promote_name(struct view *v, uint64_t node, struct node_rec *rec)
{
	struct first_name f = { .v = v };
	struct row_key k;
	int r = 0;

	rec->parent = 0;
	rec->name = (struct slice){ 0 };
	if (rec->links)
		r = view_each(v, CF_NAMES, node, take_first, &f);
	if (r <= 0)
		return r;
	rec->parent = f.parent;
	rec->name = f.name;
	k = key_name(node, f.parent, f.name);
	return view_del(v, CF_NAMES, &k, 0);
}

static int name_removed(struct view *v, uint64_t parent, struct slice name, uint64_t node)
{
	struct node_rec rec;
	int r = view_node(v, node, &rec);

	if (r <= 0)
		return r;
	if (rec.links)
		rec.links--;
	if (rec.parent == parent && slice_eq(rec.name, name)) {
		r = promote_name(v, node, &rec);
	} else {
		struct row_key k = key_name(node, parent, name);

		r = view_del(v, CF_NAMES, &k, 0);
	}
	if (r == 0)
		r = view_put_node(v, node, &rec, 0);
	return r == 0 && S_ISDIR(rec.attr.mode) ? count_subdir(v, parent, -1) : r;
}

static int name_added(
	struct view *v, uint64_t parent, struct slice name, uint64_t node, struct node_rec *rec)
{
	static const uint8_t version = ROW_VERSION;
	int r = 0;

	rec->links++;
	if (rec->name.n == 0) {
		rec->parent = parent;
		rec->name = name;
	} else {
		struct row_key k = key_name(node, parent, name);

		r = view_put(v, CF_NAMES, &k, &version, 1, 0);
	}
	if (r == 0)
		r = view_put_node(v, node, rec, 0);
	return r == 0 && S_ISDIR(rec->attr.mode) ? count_subdir(v, parent, 1) : r;
}

int view_set_link(struct view *v, uint64_t parent, struct slice name, uint64_t node, uint64_t entry)
{
	struct row_key k = key_link(parent, name);
	uint8_t row[LINK_ROW_BYTES];
	struct node_rec rec;
	uint64_t old;
	int r = view_link(v, parent, name, &old);

	if (r < 0 || (r == 0 && node == 0) || (r > 0 && old == node))
		return r < 0 ? r : 0;
	if (r > 0)
		r = name_removed(v, parent, name, old);
	if (r < 0)
		return r;
	if (node == 0)
		return view_del(v, CF_LINK, &k, entry);
	r = view_node(v, node, &rec);
	if (r <= 0)
		return r < 0 ? r : -EBADMSG;
	link_encode(&(struct link_rec){ entry, node, rec.attr.mode & S_IFMT }, row);
	r = view_put(v, CF_LINK, &k, row, sizeof row, entry);
	return r < 0 ? r : name_added(v, parent, name, node, &rec);
}

int view_xattr(struct view *v, uint64_t node, struct slice name, struct slice *ret)
{
	struct row_key k = key_child(node, name);
	struct slice row;
	uint64_t entry;
	int r = view_get(v, CF_XATTR, &k, &row);

	if (r <= 0)
		return r;
	r = xattr_decode(row, &entry, ret);
	return r < 0 ? r : 1;
}

int view_set_xattr(
	struct view *v, uint64_t node, struct slice name, const struct slice *value, uint64_t entry)
{
	struct row_key k = key_child(node, name);
	uint8_t *row;

	if (!value)
		return view_del(v, CF_XATTR, &k, entry);
	row = view_alloc(v, ROW_HEAD + value->n);
	if (!row)
		return -ENOMEM;
	row_head_encode(0, entry, row);
	if (value->n)
		memcpy(row + ROW_HEAD, value->p, value->n);
	return view_put(v, CF_XATTR, &k, row, ROW_HEAD + value->n, entry);
}

static int stop_at_first(void *ctx, struct slice key, struct slice value)
{
	return 1;
}

int view_dir_empty(struct view *v, uint64_t dir)
{
	int r = view_each(v, CF_LINK, dir, stop_at_first, NULL);

	return r < 0 ? r : !r;
}

int view_below(struct view *v, uint64_t node, uint64_t top)
{
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		struct node_rec rec;
		int r;

		if (node == top)
			return 1;
		if (node == NODE_ROOT)
			return 0;
		r = view_node(v, node, &rec);
		if (r < 0)
			return r;
		if (r == 0 || rec.name.n == 0)
			return -ELOOP;
		node = rec.parent;
	}
	return -ELOOP;
}
