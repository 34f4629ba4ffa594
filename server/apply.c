// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants that these rules keep, and rely on:
 *  1. A name stands only in a directory that is alive, and leads to a node that is alive.
 *  2. A node but the root is alive as long as a name leads to it; a directory has exactly one.
 *  3. Directories form a tree below the root.
 *  4. `links` counts what it says it counts (migrate.c).
 */
#include "apply.h"

#include "bounds.h"
#include "xattrs.h"

#include <errno.h>
#include <sys/stat.h>

/* Deeper than any path that a program can build without years of patience. */
#define DEPTH_MAX 100000

#define MODE_BITS 07777u

static int no(struct apply *a, enum refusal reason, const char *text)
{
	return refuse(&a->verdict, reason, "%s", text);
}

/* Whether somebody else changed it behind this device's back. */
static bool stale(const struct apply *a, uint64_t seq, uint32_t device)
{
	return seq > a->base && device != a->device;
}

static int need_node(struct apply *a, uint64_t node, struct node_head **ret, struct err *err)
{
	int r = history_node(a->history, node, ret, err);

	if (r < 0)
		return r;
	return r ? 0
		 : refuse(&a->verdict, REFUSAL_ABSENT, "node %llu is gone",
			   (unsigned long long)node);
}

static int need_dir(struct apply *a, uint64_t node, struct node_head **ret, struct err *err)
{
	int r = need_node(a, node, ret, err);

	if (r == 0 && !S_ISDIR((*ret)->attr.mode))
		return refuse(&a->verdict, REFUSAL_NOT_DIR, "node %llu is not a directory",
			(unsigned long long)node);
	return r;
}

static int need_free(struct apply *a, uint64_t parent, struct slice name, struct link_head **ret,
	struct err *err)
{
	int r = history_link(a->history, parent, name, ret, err);

	if (r == 0 && (*ret)->node)
		return no(a, REFUSAL_EXISTS, "the name is taken");
	return r;
}

/* A name that leads to the node that the device means, as the device saw it. */
static int need_link(struct apply *a, uint64_t parent, struct slice name, uint64_t node,
	struct link_head **ret, struct err *err)
{
	int r = history_link(a->history, parent, name, ret, err);
	const struct link_head *l = *ret;

	if (r < 0)
		return r;
	if (l->node == 0)
		return no(a, REFUSAL_ABSENT, "the name is gone");
	if (l->node != node)
		return no(a, REFUSAL_STALE, "the name leads to another node");
	if (stale(a, l->seq_from, l->device))
		return no(a, REFUSAL_STALE, "the name was changed");
	return 0;
}

/* Invariant 1 says that it is there. */
static int linked_node(struct apply *a, uint64_t node, struct node_head **ret, struct err *err)
{
	int r = history_node(a->history, node, ret, err);

	if (r == 0)
		return err_set(err, EBADMSG, "database: a name leads to node %llu, which is gone",
			(unsigned long long)node);
	return r < 0 ? r : 0;
}

static void touch_dir(struct node_head *dir, int64_t time_ns)
{
	dir->attr.mtime_ns = time_ns;
	dir->attr.ctime_ns = time_ns;
	dir->changed = true;
}

static void set_content(struct apply *a, struct node_head *n, const struct node_attr *attr)
{
	n->attr.size = attr->size;
	n->attr.content = attr->content;
	n->content_seq = a->seq;
	n->content_device = a->device;
	n->changed = true;
}

static void attr_changed(struct apply *a, struct node_head *n)
{
	n->attr_seq = a->seq;
	n->attr_device = a->device;
	n->changed = true;
}

static void set_mode_bits(struct node_head *n, uint32_t mode)
{
	n->attr.mode = (n->attr.mode & S_IFMT) | (mode & MODE_BITS);
}

/* A node id that this device may give now. */
static int check_new_node(
	struct apply *a, const struct change *c, struct node_head **ret, struct err *err)
{
	int r = history_node(a->history, c->node, ret, err);

	if (r < 0)
		return r;
	if (r > 0 || c->node == NODE_ROOT)
		return no(a, REFUSAL_EXISTS, "the node is there already");
	if (node_device(c->node) != a->device && !(*ret)->existed)
		return no(a, REFUSAL_INVALID, "a node id of another device");
	return 0;
}

static int admit(
	struct apply *a, const struct change *c, const struct node_head *n, struct err *err)
{
	return contents_admit(a->db, a->drive, a->prepared, &c->attr.content, c->attr.size,
		&n->attr.content, &a->verdict, err);
}

static int bring_to_life(
	struct apply *a, const struct change *c, struct node_head *n, struct err *err)
{
	int r;

	n->attr = c->attr;
	n->alive = true;
	n->links = S_ISDIR(c->attr.mode) ? 0 : 1;
	n->parent = c->parent;
	set_content(a, n, &c->attr);
	attr_changed(a, n);
	buf_clear(&n->target);
	buf_clear(&n->xattrs);
	r = buf_append(&n->target, c->target.p, c->target.n);
	if (r == 0)
		r = xattrs_pack(c->xattrs, c->n_xattrs, &n->xattrs);
	return r < 0 ? err_sys(err, -r, "commit") : 0;
}

static void put_name(
	struct apply *a, struct link_head *l, struct node_head *dir, uint64_t node, int64_t time_ns)
{
	history_set_link(a->history, l, node);
	dir->links++;
	touch_dir(dir, time_ns);
}

static int apply_create(struct apply *a, const struct change *c, struct err *err)
{
	struct node_head *dir, *n;
	struct link_head *l;
	int r = need_dir(a, c->parent, &dir, err);

	if (r == 0)
		r = check_new_node(a, c, &n, err);
	if (r == 0)
		r = need_free(a, c->parent, c->name, &l, err);
	if (r == 0 && S_ISREG(c->attr.mode))
		r = admit(a, c, n, err);
	if (r == 0)
		r = bring_to_life(a, c, n, err);
	if (r == 0)
		put_name(a, l, dir, c->node, c->time_ns);
	return r;
}

static int apply_write(struct apply *a, const struct change *c, struct err *err)
{
	struct node_head *n;
	int r = need_node(a, c->node, &n, err);

	if (r)
		return r;
	if (!S_ISREG(n->attr.mode))
		return no(a, REFUSAL_INVALID, "only regular files have contents");
	if (stale(a, n->content_seq, n->content_device))
		return no(a, REFUSAL_STALE, "the content was changed");
	if (c->attr.mode && stale(a, n->attr_seq, n->attr_device))
		return no(a, REFUSAL_STALE, "the attributes were changed");
	r = admit(a, c, n, err);
	if (r)
		return r;
	set_content(a, n, &c->attr);
	n->attr.mtime_ns = c->attr.mtime_ns;
	n->attr.ctime_ns = c->attr.ctime_ns;
	if (c->attr.mode) {
		set_mode_bits(n, c->attr.mode);
		attr_changed(a, n);
	}
	return 0;
}

/* A node whose attributes are as the device saw them. */
static int need_attr(struct apply *a, uint64_t node, struct node_head **ret, struct err *err)
{
	int r = need_node(a, node, ret, err);

	if (r == 0 && stale(a, (*ret)->attr_seq, (*ret)->attr_device))
		return no(a, REFUSAL_STALE, "the attributes were changed");
	return r;
}

static int apply_setattr(struct apply *a, const struct change *c, struct err *err)
{
	const struct node_attr *new = &c->attr;
	struct node_head *n;
	int r = need_attr(a, c->node, &n, err);

	if (r)
		return r;
	if (c->mask & ATTR_MODE)
		set_mode_bits(n, new->mode);
	if (c->mask & ATTR_UID)
		n->attr.uid = new->uid;
	if (c->mask & ATTR_GID)
		n->attr.gid = new->gid;
	if (c->mask & ATTR_ATIME)
		n->attr.atime_ns = new->atime_ns;
	if (c->mask & ATTR_MTIME)
		n->attr.mtime_ns = new->mtime_ns;
	n->attr.ctime_ns = new->ctime_ns;
	attr_changed(a, n);
	return 0;
}

static int apply_xattr(struct apply *a, const struct change *c, struct err *err)
{
	struct node_head *n;
	int r = need_attr(a, c->node, &n, err);

	if (r)
		return r;
	if (c->xattr.name.n == 0 || c->xattr.name.n > XATTR_NAME_BYTES_MAX ||
		c->xattr.value.n > XATTR_VALUE_BYTES_MAX)
		return no(a, REFUSAL_INVALID, "not an extended attribute");
	if (c->kind == CHANGE_SETXATTR)
		r = xattrs_set(&n->xattrs, &c->xattr, err);
	else
		r = xattrs_remove(&n->xattrs, c->xattr.name, err);
	if (r == -E2BIG)
		return no(a, REFUSAL_INVALID, "more extended attributes than a node may carry");
	n->attr.ctime_ns = c->attr.ctime_ns;
	attr_changed(a, n);
	return r;
}

static int apply_link(struct apply *a, const struct change *c, struct err *err)
{
	struct node_head *dir, *n;
	struct link_head *l;
	int r = need_node(a, c->node, &n, err);

	if (r)
		return r;
	if (S_ISDIR(n->attr.mode))
		return no(a, REFUSAL_INVALID, "a directory has one name");
	if (n->links >= LINKS_MAX)
		return no(a, REFUSAL_INVALID, "more names than a node may have");
	r = need_dir(a, c->parent, &dir, err);
	if (r == 0)
		r = need_free(a, c->parent, c->name, &l, err);
	if (r)
		return r;
	put_name(a, l, dir, c->node, c->time_ns);
	n->links++;
	n->attr.ctime_ns = c->attr.ctime_ns;
	n->changed = true;
	return 0;
}

/* Whether a name of the node may go. A write that the device had not seen wins against it. */
static int check_removal(struct apply *a, const struct node_head *n)
{
	if (S_ISDIR(n->attr.mode))
		return n->links ? no(a, REFUSAL_NOT_EMPTY, "the directory is not empty") : 0;
	if (n->links > 1)
		return 0;
	if (stale(a, n->content_seq, n->content_device))
		return no(a, REFUSAL_STALE, "the content was changed");
	if (stale(a, n->attr_seq, n->attr_device))
		return no(a, REFUSAL_STALE, "the attributes were changed");
	return 0;
}

static void touch_node(struct node_head *n, int64_t time_ns)
{
	n->attr.ctime_ns = time_ns;
	n->changed = true;
}

static void lose_name(struct node_head *n, int64_t time_ns)
{
	if (S_ISDIR(n->attr.mode) || --n->links == 0)
		n->alive = false;
	else
		touch_node(n, time_ns);
}

static int apply_unlink(struct apply *a, const struct change *c, struct err *err)
{
	struct node_head *dir, *n;
	struct link_head *l;
	int r = need_dir(a, c->parent, &dir, err);

	if (r == 0)
		r = need_link(a, c->parent, c->name, c->node, &l, err);
	if (r == 0)
		r = linked_node(a, c->node, &n, err);
	if (r == 0)
		r = check_removal(a, n);
	if (r)
		return r;
	history_set_link(a->history, l, 0);
	dir->links--;
	touch_dir(dir, c->time_ns);
	lose_name(n, c->time_ns);
	return 0;
}

/* A rename, and what it found. */
struct renaming {
	const struct change *c;
	struct node_head *dir, *new_dir;
	struct node_head *node, *victim; /* victim: NULL for none */
	struct link_head *from, *to;
};

static bool same_name(const struct change *c)
{
	return c->parent == c->new_parent && c->name.n == c->new_name.n &&
	       memcmp(c->name.p, c->new_name.p, c->name.n) == 0;
}

/* Whether `dir` is `node` or below it: then node cannot move there. */
static int check_loop(
	struct apply *a, const struct node_head *node, struct node_head *dir, struct err *err)
{
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		uint64_t parent;
		int r;

		if (dir->node == node->node)
			return no(a, REFUSAL_LOOP, "a directory cannot move below itself");
		if (dir->node == NODE_ROOT)
			return 0;
		r = history_parent(a->history, dir, &parent, err);
		if (r == 0)
			r = linked_node(a, parent, &dir, err);
		if (r < 0)
			return r;
	}
	return no(a, REFUSAL_INVALID, "directories are nested too deep");
}

static int find_target(struct apply *a, struct renaming *n, struct err *err)
{
	const struct change *c = n->c;
	int r;

	if (c->victim == 0)
		return need_free(a, c->new_parent, c->new_name, &n->to, err);
	r = need_link(a, c->new_parent, c->new_name, c->victim, &n->to, err);
	if (r == 1 && a->verdict.reason == REFUSAL_ABSENT)
		return no(a, REFUSAL_STALE, "the name to replace is gone");
	return r ? r : linked_node(a, c->victim, &n->victim, err);
}

static int find_ends(struct apply *a, struct renaming *n, struct err *err)
{
	const struct change *c = n->c;
	int r = need_dir(a, c->parent, &n->dir, err);

	if (r == 0)
		r = need_dir(a, c->new_parent, &n->new_dir, err);
	if (r == 0)
		r = need_link(a, c->parent, c->name, c->node, &n->from, err);
	if (r == 0)
		r = linked_node(a, c->node, &n->node, err);
	return r ? r : find_target(a, n, err);
}

static int check_loops(struct apply *a, struct renaming *n, bool exchange, struct err *err)
{
	int r = 0;

	if (n->dir == n->new_dir)
		return 0;
	if (S_ISDIR(n->node->attr.mode))
		r = check_loop(a, n->node, n->new_dir, err);
	if (r == 0 && exchange && S_ISDIR(n->victim->attr.mode))
		r = check_loop(a, n->victim, n->dir, err);
	return r;
}

static int check_victim(struct apply *a, const struct renaming *n)
{
	if (S_ISDIR(n->node->attr.mode) && !S_ISDIR(n->victim->attr.mode))
		return no(a, REFUSAL_NOT_DIR, "a directory cannot replace what is none");
	if (!S_ISDIR(n->node->attr.mode) && S_ISDIR(n->victim->attr.mode))
		return no(a, REFUSAL_INVALID, "only a directory can replace a directory");
	return check_removal(a, n->victim);
}

static int check_rename(struct apply *a, struct renaming *n, bool exchange, struct err *err)
{
	const struct change *c = n->c;
	int r;

	if (same_name(c) || c->victim == c->node || (exchange && c->victim == 0))
		return no(a, REFUSAL_INVALID, "a rename that renames nothing");
	r = find_ends(a, n, err);
	if (r == 0)
		r = check_loops(a, n, exchange, err);
	if (r == 0 && n->victim && !exchange)
		r = check_victim(a, n);
	return r;
}

static int apply_rename(struct apply *a, const struct change *c, struct err *err)
{
	bool exchange = c->flags & CHANGE_FLAG_EXCHANGE;
	struct renaming n = { .c = c };
	int r = check_rename(a, &n, exchange, err);

	if (r)
		return r;
	history_set_link(a->history, n.to, c->node);
	history_set_link(a->history, n.from, exchange ? c->victim : 0);
	n.node->parent = c->new_parent;
	touch_node(n.node, c->time_ns);
	if (exchange) {
		n.victim->parent = c->parent;
		touch_node(n.victim, c->time_ns);
	} else {
		n.dir->links--;
		if (n.victim)
			lose_name(n.victim, c->time_ns);
		else
			n.new_dir->links++;
	}
	touch_dir(n.dir, c->time_ns);
	touch_dir(n.new_dir, c->time_ns);
	return 0;
}

int apply_change(struct apply *a, const struct change *c, struct err *err)
{
	switch (c->kind) {
	case CHANGE_CREATE:
		return apply_create(a, c, err);
	case CHANGE_WRITE:
		return apply_write(a, c, err);
	case CHANGE_SETATTR:
		return apply_setattr(a, c, err);
	case CHANGE_LINK:
		return apply_link(a, c, err);
	case CHANGE_UNLINK:
		return apply_unlink(a, c, err);
	case CHANGE_RENAME:
		return apply_rename(a, c, err);
	case CHANGE_SETXATTR:
	case CHANGE_REMOVEXATTR:
		return apply_xattr(a, c, err);
	}
	return no(a, REFUSAL_INVALID, "an unknown kind of change");
}
