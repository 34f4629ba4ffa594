// SPDX-License-Identifier: Apache-2.0
/*
 * The server has applied entries: what they changed becomes the server's side of each row.
 *
 * A row that no later entry changed is the server's as it stands (its base row goes); below one
 * that a later entry changed, the base row takes the change over. Times of directories that the
 * names in them imply come into the rows here.
 */
#include "meta/tree_internal.h"

#include <errno.h>
#include <sys/stat.h>

struct ack {
	struct view *v;
	struct batch *b;
	uint64_t last;
	uint64_t count;
	struct deaths *deaths;
};

/* One row of what the server has, below a row that a later entry changed. */
struct below {
	struct row_key key;
	struct base_rec rec;
};

/* 1: it lies below a dirty row, and takes the change; 0: there is nothing left to keep. */
static int below_get(struct ack *a, enum store_cf cf, const struct row_key *k, struct below *ret)
{
	struct slice row, base = { 0 };
	struct base_rec rec = { 0 };
	uint64_t entry = 0;
	uint8_t tag;
	int r;

	ret->key = key_base(cf, k->b, k->n);
	r = view_get(a->v, CF_BASE, &ret->key, &base);
	if (r > 0)
		r = base_decode(base, &rec);
	if (r < 0)
		return r;
	entry = rec.entry;
	r = view_get(a->v, cf, k, &row);
	if (r > 0)
		r = row_head_decode(row, &tag, &entry);
	if (r < 0)
		return r;
	ret->rec = rec;
	if (entry > a->last)
		return 1;
	return base.p ? view_del(a->v, CF_BASE, &ret->key, 0) : 0;
}

/* row.p NULL: the server has none any more. */
static int below_put(struct ack *a, struct below *bl, struct slice row)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r;

	bl->rec.present = row.p;
	bl->rec.row = row;
	r = base_encode(&bl->rec, &b);
	return r < 0 ? r : view_put(a->v, CF_BASE, &bl->key, b.data, b.len, 0);
}

static int below_put_node(struct ack *a, struct below *bl, const struct node_rec *rec)
{
	uint8_t row[NODE_ROW_MAX];
	size_t n = node_encode(rec, row);

	return below_put(a, bl, (struct slice){ row, n });
}

static int ack_link(struct ack *a, uint64_t parent, struct slice name, uint64_t node, uint32_t type)
{
	struct row_key k = key_link(parent, name);
	uint8_t row[LINK_ROW_BYTES];
	struct below bl;
	int r = below_get(a, CF_LINK, &k, &bl);

	if (r <= 0)
		return r;
	if (node == 0)
		return below_put(a, &bl, (struct slice){ 0 });
	link_encode(&(struct link_rec){ 0, node, type }, row);
	return below_put(a, &bl, (struct slice){ row, sizeof row });
}

/* The type of a node that is in the tree, or was on the server. */
static int type_of(struct ack *a, uint64_t node, uint32_t *ret)
{
	struct row_key k = key_id(node), bk = key_base(CF_NODE, k.b, k.n);
	struct node_rec rec;
	struct base_rec base = { 0 };
	struct slice row = { 0 };
	int r = view_node(a->v, node, &rec);

	if (r == 0)
		r = view_get(a->v, CF_BASE, &bk, &row);
	if (r > 0 && row.p)
		r = base_decode(row, &base);
	if (r == 0 && base.present)
		r = node_decode(base.row, &rec) < 0 ? -EBADMSG : 1;
	*ret = r > 0 ? rec.attr.mode & S_IFMT : S_IFREG;
	return MIN(r, 0);
}

static int ack_xattr(struct ack *a, uint64_t node, struct slice name, const struct slice *value)
{
	struct row_key k = key_child(node, name);
	uint8_t *row;
	struct below bl;
	int r = below_get(a, CF_XATTR, &k, &bl);

	if (r <= 0)
		return r;
	if (!value)
		return below_put(a, &bl, (struct slice){ 0 });
	row = view_alloc(a->v, ROW_HEAD + value->n);
	if (!row)
		return -ENOMEM;
	row_head_encode(0, 0, row);
	if (value->n)
		memcpy(row + ROW_HEAD, value->p, value->n);
	return below_put(a, &bl, (struct slice){ row, ROW_HEAD + value->n });
}

/* What the change does to the attributes that the server has of its node. */
static int node_change(struct ack *a, struct node_rec *rec, const struct outbox_entry *e)
{
	const struct change *c = &e->change;

	switch (c->kind) {
	case CHANGE_WRITE:
		attr_write(&rec->attr, &c->attr);
		return entry_get_manifest(a->v, e, rec);
	case CHANGE_SETATTR:
		attr_merge(&rec->attr, &c->attr, c->mask);
		if (c->mask & (ATTR_UID | ATTR_GID))
			rec->tag |= NODE_OWNER_HERE;
		break;
	case CHANGE_SETXATTR:
		rec->tag |= NODE_HAS_XATTRS;
		rec->attr.ctime_ns = c->attr.ctime_ns;
		break;
	case CHANGE_LINK:
	case CHANGE_REMOVEXATTR:
		rec->attr.ctime_ns = c->attr.ctime_ns;
		break;
	case CHANGE_CREATE:
	case CHANGE_UNLINK:
	case CHANGE_RENAME:
		break;
	}
	return 0;
}

static int ack_node(struct ack *a, const struct outbox_entry *e)
{
	struct row_key k = key_id(e->change.node);
	struct node_rec rec;
	struct below bl;
	int r = below_get(a, CF_NODE, &k, &bl);

	if (r <= 0 || !bl.rec.present)
		return MIN(r, 0);
	r = node_decode(bl.rec.row, &rec);
	if (r < 0)
		return r;
	r = node_change(a, &rec, e);
	return r < 0 ? r : below_put_node(a, &bl, &rec);
}

/* A node whose names changed, and that is still there. */
static int ack_touch(struct ack *a, const struct outbox_entry *e, uint64_t node)
{
	struct row_key k = key_id(node);
	struct node_rec rec;
	struct below bl;
	int r = below_get(a, CF_NODE, &k, &bl);

	if (r <= 0 || !bl.rec.present)
		return MIN(r, 0);
	r = node_decode(bl.rec.row, &rec);
	rec.attr.ctime_ns = e->change.time_ns;
	return r < 0 ? r : below_put_node(a, &bl, &rec);
}

static int ack_death(struct ack *a, uint64_t node)
{
	struct row_key k = key_id(node);
	struct below bl;
	int r = below_get(a, CF_NODE, &k, &bl);

	return r > 0 ? below_put(a, &bl, (struct slice){ 0 }) : r;
}

/* Base rows of xattrs that went with their node. */
static int ack_dead_xattrs(struct ack *a, uint64_t node)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	struct row_key k = key_id(node), prefix = key_base(CF_XATTR, k.b, k.n);
	int r = store_iter_new(a->v->store, CF_BASE, prefix.b, prefix.n, &it);

	if (r < 0)
		return r;
	for (store_iter_seek(it, prefix.b, prefix.n); (r = store_iter_valid(it)) > 0;
		store_iter_next(it)) {
		struct slice key = store_iter_key(it), name;
		uint64_t id;

		key = (struct slice){ key.p + 1, key.n - 1 };
		r = key_child_parse(key, &id, &name);
		if (r == 0)
			r = ack_xattr(a, node, name, NULL);
		if (r < 0)
			return r;
	}
	return r;
}

/* A name of the node went. */
static int ack_dropped(struct ack *a, const struct outbox_entry *e, uint64_t node)
{
	int r;

	if (!(e->tag & OUTBOX_DIED))
		return ack_touch(a, e, node);
	r = ack_death(a, node);
	return r < 0 ? r : ack_dead_xattrs(a, node);
}

static int ack_create(struct ack *a, const struct outbox_entry *e)
{
	const struct change *c = &e->change;
	struct row_key k = key_id(c->node);
	struct node_rec rec = { .attr = c->attr, .payload = c->target };
	struct below bl;
	int r = below_get(a, CF_NODE, &k, &bl);

	if (r > 0) {
		attr_normalize(&rec.attr, c->target.n);
		if (S_ISREG(rec.attr.mode))
			r = entry_get_manifest(a->v, e, &rec);
		rec.tag |= (uint8_t)(NODE_OWNER_HERE | (c->n_xattrs ? NODE_HAS_XATTRS : 0));
		if (r >= 0)
			r = below_put_node(a, &bl, &rec);
	}
	for (size_t i = 0; i < c->n_xattrs && r >= 0; i++)
		r = ack_xattr(a, c->node, c->xattrs[i].name, &c->xattrs[i].value);
	return r < 0 ? r : ack_link(a, c->parent, c->name, c->node, c->attr.mode & S_IFMT);
}

static int ack_rename(struct ack *a, const struct outbox_entry *e)
{
	const struct change *c = &e->change;
	bool exchange = c->flags & CHANGE_FLAG_EXCHANGE;
	uint32_t type, other = S_IFREG;
	int r = type_of(a, c->node, &type);

	if (r == 0 && exchange)
		r = type_of(a, c->victim, &other);
	if (r == 0)
		r = ack_link(a, c->parent, c->name, exchange ? c->victim : 0, other);
	if (r == 0)
		r = ack_link(a, c->new_parent, c->new_name, c->node, type);
	if (r == 0)
		r = ack_touch(a, e, c->node);
	if (r < 0 || !c->victim)
		return r;
	return exchange ? ack_touch(a, e, c->victim) : ack_dropped(a, e, c->victim);
}

/* mtime and ctime that the names imply. A later explicit change has them folded in already. */
static int ack_dir(struct ack *a, const struct outbox_entry *e, uint64_t dir)
{
	struct row_key k = key_id(dir);
	struct node_rec rec;
	struct below bl;
	int r = view_node(a->v, dir, &rec);

	if (r < 0)
		return r;
	if (r && rec.entry <= a->last) {
		if (rec.entry >= e->number)
			return 0;
		rec.attr.mtime_ns = rec.attr.ctime_ns = e->change.time_ns;
		return view_put_node(a->v, dir, &rec, 0);
	}
	r = below_get(a, CF_NODE, &k, &bl);
	if (r <= 0 || !bl.rec.present)
		return MIN(r, 0);
	r = node_decode(bl.rec.row, &rec);
	rec.attr.mtime_ns = rec.attr.ctime_ns = e->change.time_ns;
	return r < 0 ? r : below_put_node(a, &bl, &rec);
}

static int ack_change(struct ack *a, const struct outbox_entry *e)
{
	const struct change *c = &e->change;
	uint32_t type;
	int r;

	switch (c->kind) {
	case CHANGE_CREATE:
		return ack_create(a, e);
	case CHANGE_WRITE:
	case CHANGE_SETATTR:
		return ack_node(a, e);
	case CHANGE_LINK:
		r = type_of(a, c->node, &type);
		if (r == 0)
			r = ack_link(a, c->parent, c->name, c->node, type);
		return r < 0 ? r : ack_node(a, e);
	case CHANGE_UNLINK:
		r = ack_link(a, c->parent, c->name, 0, 0);
		return r < 0 ? r : ack_dropped(a, e, c->node);
	case CHANGE_RENAME:
		return ack_rename(a, e);
	case CHANGE_SETXATTR:
	case CHANGE_REMOVEXATTR:
		r = ack_xattr(a, c->node, c->xattr.name,
			c->kind == CHANGE_SETXATTR ? &c->xattr.value : NULL);
		return r < 0 ? r : ack_node(a, e);
	}
	return -EBADMSG;
}

static bool touches_names(const struct change *c)
{
	return c->kind == CHANGE_CREATE || c->kind == CHANGE_LINK || c->kind == CHANGE_UNLINK ||
	       c->kind == CHANGE_RENAME;
}

static int ack_entry(void *ctx, struct outbox_entry *e)
{
	struct ack *a = ctx;
	struct row_key k = key_id(e->number);
	int r = ack_change(a, e);

	if (r == 0 && touches_names(&e->change))
		r = ack_dir(a, e, e->change.parent);
	if (r == 0 && e->change.kind == CHANGE_RENAME)
		r = ack_dir(a, e, e->change.new_parent);
	batch_del(a->b, CF_OUTBOX, k.b, k.n);
	deaths_note(a->deaths, e);
	a->count++;
	return r;
}

int ack_entries(struct tree *t, struct view *v, uint64_t last, struct batch *b, uint64_t *ret_count)
{
	_cleanup_free_ struct deaths *deaths = calloc(1, sizeof *deaths);
	struct ack a = { .v = v, .b = b, .last = last, .deaths = deaths };
	int r = deaths ? outbox_each(t, last, ack_entry, &a) : -ENOMEM;

	if (r == 0)
		r = deaths_put(t, b, deaths);
	if (r == 0)
		*ret_count = a.count;
	return r;
}
