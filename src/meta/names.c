// SPDX-License-Identifier: Apache-2.0
/* Looking names up, and the mutations that move or remove them. */
#include "clock.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

int name_check(struct slice name)
{
	if (name.n == 0)
		return -ENOENT;
	if (name.n > NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	return name_valid(name) ? 0 : -EINVAL;
}

void node_show(struct tree *t, uint64_t id, const struct node_rec *rec, struct node *ret)
{
	bool dir = S_ISDIR(rec->attr.mode);
	int64_t time_ns;

	*ret = (struct node){
		.id = id,
		.attr = rec->attr,
		.nlink = dir ? 2 + rec->subdirs : rec->links,
		.has_xattrs = rec->tag & NODE_HAS_XATTRS,
		.owner_here = rec->tag & NODE_OWNER_HERE,
		.holes = rec->holes,
	};
	if (!dir)
		return;
	SCOPED_LOCK(&t->soft_lock);
	if (soft_get(&t->soft, id, &time_ns))
		ret->attr.mtime_ns = ret->attr.ctime_ns = time_ns;
}

int node_read(struct tree *t, uint64_t id, struct buf *row, struct node_rec *ret)
{
	struct row_key k = key_id(id);
	int r;

	buf_clear(row);
	r = store_get(t->store, CF_NODE, k.b, k.n, row);
	if (r <= 0)
		return r;
	r = node_decode((struct slice){ row->data, row->len }, ret);
	return r < 0 ? r : 1;
}

static int read_link(struct tree *t, uint64_t parent, struct slice name, struct link_rec *ret)
{
	struct row_key k = key_link(parent, name);
	_cleanup_buf_ struct buf row = { 0 };
	int r = store_get(t->store, CF_LINK, k.b, k.n, &row);

	if (r <= 0)
		return r;
	r = link_decode((struct slice){ row.data, row.len }, ret);
	return r < 0 ? r : 1;
}

static int lookup_absent(struct tree *t, uint64_t parent)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct node_rec rec;
	int r = node_read(t, parent, &row, &rec);

	return r > 0 && !S_ISDIR(rec.attr.mode) ? -ENOTDIR : MIN(r, 0);
}

int tree_lookup(struct tree *t, uint64_t parent, struct slice name, struct node *ret)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct link_rec link;
	struct node_rec rec;
	int r = name_check(name);

	if (r < 0)
		return r;
	/* No lock: the name may be moved between the two reads. Twice in a row is no race. */
	for (int attempt = 0; attempt < 16; attempt++) {
		r = read_link(t, parent, name, &link);
		if (r == 0)
			return lookup_absent(t, parent);
		if (r > 0)
			r = node_read(t, link.node, &row, &rec);
		if (r < 0)
			return r;
		if (r > 0) {
			node_show(t, link.node, &rec, ret);
			return 1;
		}
	}
	return -EIO;
}

int tree_get(struct tree *t, uint64_t node, struct node *ret)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct node_rec rec;
	int r = node_read(t, node, &row, &rec);

	if (r > 0)
		node_show(t, node, &rec, ret);
	return r;
}

int tree_get_named(
	struct tree *t, uint64_t node, struct node *ret, uint64_t *ret_parent, struct buf *ret_name)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct node_rec rec;
	int r = node_read(t, node, &row, &rec);

	if (r <= 0)
		return r;
	node_show(t, node, &rec, ret);
	if (rec.name.n == 0)
		return 1;
	buf_clear(ret_name);
	r = buf_append(ret_name, rec.name.p, rec.name.n);
	if (r < 0)
		return r;
	*ret_parent = rec.parent;
	return 1;
}

int tree_readlink(struct tree *t, uint64_t node, struct buf *ret)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct node_rec rec;
	int r = node_read(t, node, &row, &rec);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	if (!S_ISLNK(rec.attr.mode))
		return -EINVAL;
	return buf_append(ret, rec.payload.p, rec.payload.n);
}

int tree_parent(struct tree *t, uint64_t dir, uint64_t *ret)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct node_rec rec;
	int r = node_read(t, dir, &row, &rec);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	if (!S_ISDIR(rec.attr.mode))
		return -ENOTDIR;
	*ret = dir == NODE_ROOT ? NODE_ROOT : rec.parent;
	return 0;
}

static int visit_others(struct tree *t, uint64_t node,
	int (*visit)(void *ctx, uint64_t parent, struct slice name), void *ctx)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	struct row_key k = key_id(node);
	int r = store_iter_new(t->store, CF_NAMES, k.b, k.n, &it);

	if (r < 0)
		return r;
	for (store_iter_seek(it, k.b, k.n); (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		uint64_t parent;
		struct slice name;

		r = key_name_parse(store_iter_key(it), &parent, &name);
		if (r == 0)
			r = visit(ctx, parent, name);
		if (r)
			return r;
	}
	return r;
}

int tree_names(struct tree *t, uint64_t node,
	int (*visit)(void *ctx, uint64_t parent, struct slice name), void *ctx)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct node_rec rec;
	int r = node_read(t, node, &row, &rec);

	if (r <= 0)
		return r;
	r = rec.name.n ? visit(ctx, rec.parent, rec.name) : 0;
	return r || rec.links < 2 ? r : visit_others(t, node, visit, ctx);
}

int dir_of(struct view *v, uint64_t dir, struct node_rec *ret)
{
	int r = view_node(v, dir, ret);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	return S_ISDIR(ret->attr.mode) ? 0 : -ENOTDIR;
}

int child_of(struct view *v, uint64_t parent, struct slice name, uint64_t *ret_node,
	struct node_rec *ret)
{
	struct node_rec dir;
	int r = dir_of(v, parent, &dir);

	if (r == 0)
		r = view_link(v, parent, name, ret_node);
	if (r <= 0)
		return r;
	r = view_node(v, *ret_node, ret);
	return r == 0 ? -EIO : r;
}

static int keep_xattr(void *ctx, struct slice key, struct slice value)
{
	uint64_t id;
	struct slice name, bytes;
	int r = key_child_parse(key, &id, &name);

	if (r == 0)
		r = xattr_decode(value, &id, &bytes);
	return r < 0 ? r : xattr_table_set(ctx, name, bytes);
}

/* The xattrs of a node that dies with the name that is about to go. */
static int keep_xattrs(
	struct view *v, uint64_t node, const struct node_rec *rec, struct xattr_table *ret)
{
	if (!(rec->tag & NODE_HAS_XATTRS) || rec->links > 1)
		return 0;
	return view_each(v, CF_XATTR, node, keep_xattr, ret);
}

/* The node as it was, with the links it has left. */
static int show_victim(
	struct tree *t, struct view *v, uint64_t id, const struct node_rec *was, struct victim *ret)
{
	struct node_rec now;
	int r = view_node(v, id, &now);

	if (r < 0)
		return r;
	ret->any = true;
	node_show(t, id, r ? &now : was, &ret->node);
	if (r == 0)
		ret->node.nlink = 0;
	return 0;
}

static int removable(struct view *v, uint64_t node, const struct node_rec *rec, bool want_dir)
{
	int r;

	if (!want_dir)
		return S_ISDIR(rec->attr.mode) ? -EISDIR : 0;
	if (!S_ISDIR(rec->attr.mode))
		return -ENOTDIR;
	r = rec->subdirs ? 0 : view_dir_empty(v, node);
	return r == 0 ? -ENOTEMPTY : MIN(r, 0);
}

static int remove_locked(
	struct tree *t, uint64_t parent, struct slice name, bool want_dir, struct victim *ret)
{
	_cleanup_view_ struct view v;
	struct outbox_entry e = { .change = { .kind = CHANGE_UNLINK, .parent = parent } };
	struct change *c = &e.change;
	struct node_rec rec;
	int r;

	tree_view(t, &v);
	c->name = name;
	c->time_ns = clock_real_ns();
	r = child_of(&v, parent, name, &c->node, &rec);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = removable(&v, c->node, &rec, want_dir);
	if (r == 0)
		r = keep_xattrs(&v, c->node, &rec, &ret->xattrs);
	if (r < 0)
		return r;
	r = outbox_commit(t, &v, &e, 1);
	return r < 0 ? r : show_victim(t, &v, c->node, &rec, ret);
}

static int remove_name(
	struct tree *t, uint64_t parent, struct slice name, bool want_dir, struct victim *ret)
{
	_cleanup_victim_ struct victim victim = { 0 };
	int r = name_check(name);

	if (r < 0)
		return r;
	{
		SCOPED_LOCK(&t->lock);
		r = remove_locked(t, parent, name, want_dir, &victim);
	}
	if (r < 0)
		return r;
	*ret = victim;
	victim.xattrs = (struct xattr_table){ 0 };
	outbox_notify(t);
	return 0;
}

int tree_unlink(struct tree *t, uint64_t parent, struct slice name, struct victim *ret)
{
	return remove_name(t, parent, name, false, ret);
}

int tree_rmdir(struct tree *t, uint64_t parent, struct slice name, struct victim *ret)
{
	return remove_name(t, parent, name, true, ret);
}

static int link_locked(struct tree *t, struct change *c, struct node *ret)
{
	_cleanup_view_ struct view v;
	struct outbox_entry e = { .change = *c };
	struct node_rec rec, dir;
	uint64_t taken;
	int r;

	tree_view(t, &v);
	r = view_node(&v, c->node, &rec);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	if (S_ISDIR(rec.attr.mode))
		return -EPERM;
	r = dir_of(&v, c->parent, &dir);
	if (r == 0)
		r = view_link(&v, c->parent, c->name, &taken);
	if (r != 0)
		return r > 0 ? -EEXIST : r;
	if (rec.links >= LINKS_MAX)
		return -EMLINK;
	r = outbox_commit(t, &v, &e, 1);
	if (r == 0)
		r = view_node(&v, c->node, &rec);
	if (r > 0)
		node_show(t, c->node, &rec, ret);
	return MIN(r, 0);
}

int tree_link(
	struct tree *t, uint64_t node, uint64_t new_parent, struct slice new_name, struct node *ret)
{
	struct change c = {
		.kind = CHANGE_LINK,
		.node = node,
		.parent = new_parent,
		.name = new_name,
		.time_ns = clock_real_ns(),
	};
	int r = name_check(new_name);

	if (r < 0)
		return r;
	c.attr.ctime_ns = c.time_ns;
	{
		SCOPED_LOCK(&t->lock);
		r = link_locked(t, &c, ret);
	}
	if (r == 0)
		outbox_notify(t);
	return r;
}

/* Both ends of a rename. target 0: the new name is free. */
struct rename {
	struct change c;
	struct node_rec rec;
	uint64_t target;
	struct node_rec target_rec;
	unsigned flags;
	const struct node_init *leaves; /* under the old name; NULL: nothing */
};

static int rename_find(struct view *v, struct rename *rn)
{
	struct change *c = &rn->c;
	int r = child_of(v, c->parent, c->name, &c->node, &rn->rec);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = child_of(v, c->new_parent, c->new_name, &rn->target, &rn->target_rec);
	if (r < 0)
		return r;
	if (r == 0)
		rn->target = 0;
	if (r > 0 && (rn->flags & RENAME_NOREPLACE))
		return -EEXIST;
	return r == 0 && (rn->flags & RENAME_EXCHANGE) ? -ENOENT : 0;
}

/* A directory must not go below itself. */
static int rename_no_loop(
	struct view *v, uint64_t node, const struct node_rec *rec, uint64_t new_parent)
{
	int r;

	if (!S_ISDIR(rec->attr.mode))
		return 0;
	r = view_below(v, new_parent, node);
	return r > 0 ? -EINVAL : r;
}

static int rename_over(struct view *v, const struct rename *rn)
{
	bool dir = S_ISDIR(rn->rec.attr.mode);
	int r;

	if (!rn->target)
		return 0;
	if (dir && !S_ISDIR(rn->target_rec.attr.mode))
		return -ENOTDIR;
	if (!dir && S_ISDIR(rn->target_rec.attr.mode))
		return -EISDIR;
	r = dir ? view_dir_empty(v, rn->target) : 1;
	return r == 0 ? -ENOTEMPTY : MIN(r, 0);
}

/* 1: go on; 0: nothing to do. */
static int rename_check(struct view *v, struct rename *rn)
{
	struct change *c = &rn->c;
	int r = rename_find(v, rn);

	if (r < 0)
		return r;
	if (rn->target == c->node)
		return 0;
	r = rename_no_loop(v, c->node, &rn->rec, c->new_parent);
	if (r == 0 && (rn->flags & RENAME_EXCHANGE))
		r = rename_no_loop(v, rn->target, &rn->target_rec, c->parent);
	else if (r == 0)
		r = rename_over(v, rn);
	return r < 0 ? r : 1;
}

static int rename_commit(struct tree *t, struct view *v, const struct rename *rn)
{
	struct outbox_entry e[2] = { { .change = rn->c } };
	struct change *create = &e[1].change;
	int r = 0;

	if (rn->leaves) {
		create_change(rn->c.parent, rn->c.name, rn->leaves, create);
		r = node_id_next(t, &create->node);
	}
	return r < 0 ? r : outbox_commit(t, v, e, rn->leaves ? 2 : 1);
}

static int rename_locked(struct tree *t, struct rename *rn, struct renamed *ret)
{
	_cleanup_view_ struct view v;
	struct node_rec rec;
	int r;

	tree_view(t, &v);
	r = rename_check(&v, rn);
	if (r > 0 && rn->target && !(rn->flags & RENAME_EXCHANGE))
		r = keep_xattrs(&v, rn->target, &rn->target_rec, &ret->victim.xattrs) ?: 1;
	if (r <= 0)
		return r;
	rn->c.victim = rn->target;
	rn->c.flags = rn->flags & RENAME_EXCHANGE ? CHANGE_FLAG_EXCHANGE : 0;
	r = rename_commit(t, &v, rn);
	if (r == 0)
		r = view_node(&v, rn->c.node, &rec);
	if (r < 0)
		return r;
	node_show(t, rn->c.node, &rec, &ret->node);
	if (rn->target)
		r = show_victim(t, &v, rn->target, &rn->target_rec, &ret->victim);
	return r < 0 ? r : 1;
}

static int rename_flags_check(unsigned flags, const struct node_init *leaves)
{
	unsigned known = leaves ? RENAME_NOREPLACE : RENAME_NOREPLACE | RENAME_EXCHANGE;

	if (flags & ~known || flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	return leaves ? node_init_check(leaves) : 0;
}

int tree_rename(struct tree *t, uint64_t parent, struct slice name, uint64_t new_parent,
	struct slice new_name, unsigned flags, struct renamed *ret)
{
	return tree_rename_leaving(t, parent, name, new_parent, new_name, flags, NULL, ret);
}

int tree_rename_leaving(struct tree *t, uint64_t parent, struct slice name, uint64_t new_parent,
	struct slice new_name, unsigned flags, const struct node_init *leaves, struct renamed *ret)
{
	struct renamed renamed = { 0 };
	struct rename rn = {
		.flags = flags,
		.leaves = leaves,
		.c = {
			.kind = CHANGE_RENAME,
			.parent = parent,
			.name = name,
			.new_parent = new_parent,
			.new_name = new_name,
			.time_ns = clock_real_ns(),
		},
	};
	int r = rename_flags_check(flags, leaves);

	if (r == 0)
		r = name_check(name);
	if (r == 0)
		r = name_check(new_name);
	if (r < 0)
		return r;
	{
		SCOPED_LOCK(&t->lock);
		r = rename_locked(t, &rn, &renamed);
	}
	if (r < 0) {
		victim_done(&renamed.victim);
		return r;
	}
	*ret = renamed;
	if (r > 0)
		outbox_notify(t);
	return 0;
}
