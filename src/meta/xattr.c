// SPDX-License-Identifier: Apache-2.0
#include "clock.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static int xattr_name_check(struct slice name)
{
	if (name.n == 0 || name.n > XATTR_NAME_BYTES_MAX || memchr(name.p, '\0', name.n))
		return -ERANGE;
	return 0;
}

/* One row read for nodes that have none, which is what most questions are about. */
static int has_xattrs(struct tree *t, uint64_t node)
{
	struct node n;
	int r = tree_get(t, node, &n);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	return n.has_xattrs;
}

int tree_getxattr(struct tree *t, uint64_t node, struct slice name, struct buf *ret)
{
	struct row_key k;
	_cleanup_buf_ struct buf row = { 0 };
	struct slice value;
	uint64_t entry;
	int r = xattr_name_check(name);

	if (r == 0)
		r = has_xattrs(t, node);
	if (r <= 0)
		return r < 0 ? r : -ENODATA;
	k = key_child(node, name);
	r = store_get(t->store, CF_XATTR, k.b, k.n, &row);
	if (r <= 0)
		return r < 0 ? r : -ENODATA;
	r = xattr_decode((struct slice){ row.data, row.len }, &entry, &value);
	return r < 0 ? r : buf_append(ret, value.p, value.n);
}

int tree_listxattr(struct tree *t, uint64_t node, struct buf *ret)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	struct row_key k = key_id(node);
	int r = has_xattrs(t, node);

	if (r > 0)
		r = store_iter_new(t->store, CF_XATTR, k.b, k.n, &it);
	if (!it)
		return r;
	for (store_iter_seek(it, k.b, k.n); (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct slice name;
		uint64_t id;

		r = key_child_parse(store_iter_key(it), &id, &name);
		if (r == 0)
			r = buf_append(ret, name.p, name.n);
		if (r == 0)
			r = buf_append(ret, "", 1);
		if (r < 0)
			return r;
	}
	return r;
}

static int add_bytes(void *ctx, struct slice key, struct slice value)
{
	*(uint64_t *)ctx += key.n - 8 + value.n - ROW_HEAD;
	return 0;
}

/* What the node carries altogether. */
static int bytes_carried(struct view *v, uint64_t node, bool has, uint64_t *ret)
{
	uint64_t total = 0;
	int r = 0;

	if (has && !xattr_sums_get(v->sums, node, &total))
		r = view_each(v, CF_XATTR, node, add_bytes, &total);
	if (r == 0)
		*ret = total;
	return r;
}

/* Whether the change can be made, and what the node carries afterwards. */
static int set_check(
	struct view *v, const struct change *c, bool has, int flags, uint64_t *ret_bytes)
{
	uint64_t total = 0, had;
	struct slice old = { 0 };
	int r = has ? view_xattr(v, c->node, c->xattr.name, &old) : 0;

	if (r < 0)
		return r;
	if (r && (flags & XATTR_CREATE))
		return -EEXIST;
	if (!r && (flags & XATTR_REPLACE || c->kind == CHANGE_REMOVEXATTR))
		return -ENODATA;
	had = r ? c->xattr.name.n + old.n : 0;
	r = bytes_carried(v, c->node, has, &total);
	if (r < 0)
		return r;
	total -= had;
	if (c->kind == CHANGE_SETXATTR)
		total += c->xattr.name.n + c->xattr.value.n;
	*ret_bytes = total;
	v->keeps_xattrs = total ? c->node : 0;
	return c->kind == CHANGE_SETXATTR && total > XATTR_NODE_BYTES_MAX ? -ENOSPC : 0;
}

static int change_locked(struct tree *t, const struct change *c, int flags)
{
	_cleanup_view_ struct view v;
	struct outbox_entry e = { .change = *c };
	struct node_rec rec;
	uint64_t bytes;
	int r;

	tree_view(t, &v);
	r = view_node(&v, c->node, &rec);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = set_check(&v, c, rec.tag & NODE_HAS_XATTRS, flags, &bytes);
	if (r == 0)
		r = outbox_commit(t, &v, &e, 1);
	if (r == 0)
		xattr_sums_set(&t->xattr_sums, c->node, bytes);
	return r;
}

/* What is narrower comes first, in case that a commit ends between the two. */
static int edit_locked(
	struct tree *t, struct change *attr, const struct change *x, struct node *ret)
{
	_cleanup_view_ struct view v;
	struct outbox_entry e[2] = { 0 };
	struct node_rec rec;
	uint64_t bytes;
	size_t n = 0;
	int r;

	tree_view(t, &v);
	r = view_node(&v, attr->node, &rec);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	attr->attr.mode = (attr->attr.mode & ~(uint32_t)S_IFMT) | (rec.attr.mode & S_IFMT);
	r = set_check(&v, x, rec.tag & NODE_HAS_XATTRS, 0, &bytes);
	if (r < 0 && r != -ENODATA)
		return r;
	if (x->kind == CHANGE_SETXATTR)
		e[n++].change = *x;
	if (attr->mask)
		e[n++].change = *attr;
	if (x->kind == CHANGE_REMOVEXATTR && r == 0)
		e[n++].change = *x;
	r = n ? outbox_commit(t, &v, e, n) : 0;
	if (r == 0)
		r = view_node(&v, attr->node, &rec);
	if (r > 0)
		node_show(t, attr->node, &rec, ret);
	return MIN(r, 0);
}

int tree_setattr_xattr(struct tree *t, uint64_t node, uint32_t mask, const struct node_attr *attr,
	const struct xattr_edit *edit, struct node *ret)
{
	int64_t now = clock_real_ns();
	struct change c = { .kind = CHANGE_SETATTR, .node = node, .time_ns = now };
	struct change x = {
		.kind = edit->remove ? CHANGE_REMOVEXATTR : CHANGE_SETXATTR,
		.node = node,
		.xattr = { edit->name, edit->value },
		.attr.ctime_ns = now,
		.time_ns = now,
	};
	int r = xattr_name_check(edit->name);

	if (r < 0)
		return r;
	if (mask & ~(uint32_t)ATTR_ALL)
		return -EINVAL;
	attr_merge(&c.attr, attr, mask);
	if (mask)
		c.mask = mask | ATTR_CTIME;
	if (mask & ATTR_CTIME)
		x.attr.ctime_ns = attr->ctime_ns;
	else
		c.attr.ctime_ns = now;
	{
		SCOPED_LOCK(&t->lock);
		r = edit_locked(t, &c, &x, ret);
	}
	if (r == 0)
		outbox_notify(t);
	return r;
}

static int change_xattr(struct tree *t, struct change *c, int flags)
{
	int r;

	c->time_ns = clock_real_ns();
	c->attr.ctime_ns = c->time_ns;
	{
		SCOPED_LOCK(&t->lock);
		r = change_locked(t, c, flags);
	}
	if (r == 0)
		outbox_notify(t);
	return r;
}

int tree_setxattr(struct tree *t, uint64_t node, struct slice name, struct slice value, int flags)
{
	struct change c = {
		.kind = CHANGE_SETXATTR,
		.node = node,
		.xattr = { name, value },
	};
	int r = xattr_name_check(name);

	if (r < 0)
		return r;
	if (value.n > XATTR_VALUE_BYTES_MAX)
		return -E2BIG;
	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	return change_xattr(t, &c, flags);
}

int tree_removexattr(struct tree *t, uint64_t node, struct slice name)
{
	struct change c = { .kind = CHANGE_REMOVEXATTR, .node = node, .xattr.name = name };
	int r = xattr_name_check(name);

	return r < 0 ? r : change_xattr(t, &c, 0);
}
