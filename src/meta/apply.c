// SPDX-License-Identifier: Apache-2.0
#include "meta/tree_internal.h"

#include <errno.h>
#include <sys/stat.h>

#define PERMISSION_BITS 07777u

void attr_merge(struct node_attr *to, const struct node_attr *from, uint32_t mask)
{
	if (mask & ATTR_MODE)
		to->mode = (to->mode & S_IFMT) | (from->mode & PERMISSION_BITS);
	if (mask & ATTR_UID)
		to->uid = from->uid;
	if (mask & ATTR_GID)
		to->gid = from->gid;
	if (mask & ATTR_ATIME)
		to->atime_ns = from->atime_ns;
	if (mask & ATTR_MTIME)
		to->mtime_ns = from->mtime_ns;
	if (mask & ATTR_CTIME)
		to->ctime_ns = from->ctime_ns;
}

void attr_write(struct node_attr *to, const struct node_attr *from)
{
	to->size = from->size;
	to->content = from->content;
	attr_merge(to, from, ATTR_MTIME | ATTR_CTIME | (from->mode ? ATTR_MODE : 0));
	attr_normalize(to, 0);
}

void attr_normalize(struct node_attr *attr, size_t target_len)
{
	if (S_ISLNK(attr->mode))
		attr->size = target_len;
	else if (!S_ISREG(attr->mode))
		attr->size = 0;
	if (attr->size == 0 || !S_ISREG(attr->mode))
		attr->content = (struct digest){ 0 };
}

/* -ENOENT: a caller of apply_entry() has not checked. */
static int node_of(struct view *v, uint64_t id, struct node_rec *ret)
{
	int r = view_node(v, id, ret);

	return r == 0 ? -ENOENT : MIN(r, 0);
}

int entry_get_manifest(struct view *v, const struct outbox_entry *e, struct node_rec *rec)
{
	struct slice bytes = { 0 };
	int r = 0;

	rec->tag &= (uint8_t)~NODE_INLINE_MANIFEST;
	rec->payload = (struct slice){ 0 };
	if ((e->tag & OUTBOX_MANIFEST) && rec->attr.size) {
		rec->tag |= NODE_INLINE_MANIFEST;
		rec->payload = bytes = e->manifest;
	} else if ((e->tag & OUTBOX_CONTENT) && rec->attr.size) {
		/* Gone already when a later write has replaced it. */
		r = manifest_load(v, rec, &bytes);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	rec->holes = bytes.p ? manifest_holes_encoded(bytes.p, bytes.n) : 0;
	return 0;
}

static int apply_create(struct view *v, struct outbox_entry *e)
{
	const struct change *c = &e->change;
	struct node_rec rec = { .attr = c->attr, .payload = c->target };
	int r = 0;

	attr_normalize(&rec.attr, c->target.n);
	if (S_ISREG(rec.attr.mode))
		r = entry_get_manifest(v, e, &rec);
	rec.tag |= NODE_OWNER_HERE;
	if (c->n_xattrs)
		rec.tag |= NODE_HAS_XATTRS;
	for (size_t i = 0; i < c->n_xattrs && r == 0; i++)
		r = view_set_xattr(v, c->node, c->xattrs[i].name, &c->xattrs[i].value, e->number);
	if (r == 0)
		r = view_put_node(v, c->node, &rec, e->number);
	return r < 0 ? r : view_set_link(v, c->parent, c->name, c->node, e->number);
}

static int apply_write(struct view *v, struct outbox_entry *e)
{
	struct node_rec rec;
	int r = node_of(v, e->change.node, &rec);

	if (r < 0)
		return r;
	attr_write(&rec.attr, &e->change.attr);
	r = entry_get_manifest(v, e, &rec);
	if (r < 0)
		return r;
	return view_put_node(v, e->change.node, &rec, e->number);
}

/* An explicit change makes the row of a directory ours: its soft times go in. */
static void fold_soft(const struct soft_times *soft, uint64_t node, struct node_rec *rec)
{
	int64_t time_ns;

	if (S_ISDIR(rec->attr.mode) && soft_get(soft, node, &time_ns))
		rec->attr.mtime_ns = rec->attr.ctime_ns = time_ns;
}

static int apply_setattr(struct view *v, const struct soft_times *soft, struct outbox_entry *e)
{
	struct node_rec rec;
	int r = node_of(v, e->change.node, &rec);

	if (r < 0)
		return r;
	fold_soft(soft, e->change.node, &rec);
	attr_merge(&rec.attr, &e->change.attr, e->change.mask);
	if (e->change.mask & (ATTR_UID | ATTR_GID))
		rec.tag |= NODE_OWNER_HERE;
	return view_put_node(v, e->change.node, &rec, e->number);
}

static int apply_link(struct view *v, struct outbox_entry *e)
{
	const struct change *c = &e->change;
	struct node_rec rec;
	int r = view_set_link(v, c->parent, c->name, c->node, e->number);

	if (r == 0)
		r = node_of(v, c->node, &rec);
	if (r < 0)
		return r;
	rec.attr.ctime_ns = c->attr.ctime_ns;
	return view_put_node(v, c->node, &rec, e->number);
}

/* Names of the node changed, and it is still there. */
static int touch_node(
	struct view *v, const struct soft_times *soft, uint64_t node, const struct outbox_entry *e)
{
	struct node_rec rec;
	int r = node_of(v, node, &rec);

	if (r < 0)
		return r;
	fold_soft(soft, node, &rec);
	rec.attr.ctime_ns = e->change.time_ns;
	return view_put_node(v, node, &rec, e->number);
}

/* A name was taken from the node: dies with its last. */
static int drop_name(struct view *v, const struct soft_times *soft, uint64_t parent,
	struct slice name, uint64_t node, struct outbox_entry *e)
{
	struct node_rec rec;
	int r = view_set_link(v, parent, name, 0, e->number);

	if (r == 0)
		r = node_of(v, node, &rec);
	if (r < 0)
		return r;
	if (rec.links)
		return touch_node(v, soft, node, e);
	e->tag |= OUTBOX_DIED;
	return view_kill_node(v, node, e->number);
}

static int apply_rename(struct view *v, const struct soft_times *soft, struct outbox_entry *e)
{
	const struct change *c = &e->change;
	bool exchange = c->flags & CHANGE_FLAG_EXCHANGE;
	int r = 0;

	if (c->victim && !exchange)
		r = drop_name(v, soft, c->new_parent, c->new_name, c->victim, e);
	if (r == 0)
		r = view_set_link(v, c->parent, c->name, 0, e->number);
	if (r == 0)
		r = view_set_link(v, c->new_parent, c->new_name, c->node, e->number);
	if (r == 0 && exchange)
		r = view_set_link(v, c->parent, c->name, c->victim, e->number);
	if (r == 0)
		r = touch_node(v, soft, c->node, e);
	return r == 0 && exchange ? touch_node(v, soft, c->victim, e) : r;
}

static int stop_at_first(void *ctx, struct slice key, struct slice value)
{
	return 1;
}

static int apply_xattr(struct view *v, const struct soft_times *soft, struct outbox_entry *e)
{
	const struct change *c = &e->change;
	bool removes = c->kind == CHANGE_REMOVEXATTR;
	struct node_rec rec;
	int r = view_set_xattr(
		v, c->node, c->xattr.name, removes ? NULL : &c->xattr.value, e->number);

	if (r == 0)
		r = node_of(v, c->node, &rec);
	if (r < 0)
		return r;
	fold_soft(soft, c->node, &rec);
	rec.attr.ctime_ns = c->attr.ctime_ns;
	/* Each look for one that is left walks over all that were removed before. */
	r = removes && v->keeps_xattrs != c->node
		    ? view_each(v, CF_XATTR, c->node, stop_at_first, NULL)
		    : 1;
	if (r < 0)
		return r;
	rec.tag = (uint8_t)((rec.tag & ~NODE_HAS_XATTRS) | (r ? NODE_HAS_XATTRS : 0));
	return view_put_node(v, c->node, &rec, e->number);
}

int apply_entry(struct view *v, const struct soft_times *soft, struct outbox_entry *e)
{
	const struct change *c = &e->change;

	switch (c->kind) {
	case CHANGE_CREATE:
		return apply_create(v, e);
	case CHANGE_WRITE:
		return apply_write(v, e);
	case CHANGE_SETATTR:
		return apply_setattr(v, soft, e);
	case CHANGE_LINK:
		return apply_link(v, e);
	case CHANGE_UNLINK:
		return drop_name(v, soft, c->parent, c->name, c->node, e);
	case CHANGE_RENAME:
		return apply_rename(v, soft, e);
	case CHANGE_SETXATTR:
	case CHANGE_REMOVEXATTR:
		return apply_xattr(v, soft, e);
	}
	return -EBADMSG;
}
