// SPDX-License-Identifier: Apache-2.0
/*
 * The table of conflicts (DESIGN.md, section 5), one function a kind of change. Each finds the
 * change's node and place as they are now, and emits what takes the change's place: itself,
 * something else, or nothing. What anybody wrote stays: when in doubt, ours is kept beside
 * theirs.
 */
#include "bytes.h"
#include "clock.h"
#include "meta/replay.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/*
 * A create whose name is taken by x. 1: ours is x from now on. For files only if the name is the
 * one that the file ends up with: a passing one must not carry theirs away with it.
 */
static int create_merges(struct replay *rp, const struct change *c, uint64_t x, bool *ret_stays)
{
	struct node_rec theirs, ours = { 0 };
	int r = replay_local(rp, c->node, &ours), t = view_node(rp->view, x, &theirs);

	*ret_stays = r > 0 && ours.parent == c->parent && slice_eq(ours.name, c->name);
	if (r < 0 || t <= 0 || !*ret_stays)
		return MIN(MIN(r, t), 0);
	if (S_ISDIR(ours.attr.mode) && S_ISDIR(theirs.attr.mode))
		return 1;
	return replay_same_bytes(&ours, &theirs);
}

static int resolve_create(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change, was = *c;
	struct node_rec rec;
	uint64_t taken = 0;
	bool stays = false;
	int r = view_node(rp->view, c->node, &rec);

	if (r != 0)
		return MIN(r, 0);
	r = replay_dir(rp, c->parent, &c->parent);
	if (r == 0)
		r = view_link(rp->view, c->parent, c->name, &taken);
	if (r > 0) {
		r = create_merges(rp, &was, taken, &stays);
		if (r > 0)
			return replay_merge(rp, c->node, taken, true);
		if (r == 0)
			r = replay_step_aside(rp, c, CONFLICT_NAME_TAKEN, stays);
	}
	return r < 0 ? r : replay_emit_placed(rp, e, &was);
}

static int write_emit(struct replay *rp, struct outbox_entry *e, uint64_t node)
{
	struct replay_node *rn = replay_node_make(rp, node);

	if (!rn)
		return -ENOMEM;
	rn->wrote = true;
	e->change.node = node;
	return replay_emit(rp, e, true);
}

/* Our bytes become a node of their own beside the one that they wrote. */
static int write_copy(struct replay *rp, struct outbox_entry *e, const struct node_rec *theirs)
{
	struct replay_node *rn = replay_node_make(rp, e->change.node);
	struct outbox_entry create = {
		.change = {
			.kind = CHANGE_CREATE,
			.parent = theirs->parent,
			.attr = theirs->attr,
			.time_ns = e->change.time_ns,
		},
	};
	struct change *c = &create.change;
	int r = conflict_name_free(
		rp->tree, rp->view, theirs->parent, theirs->name, e->change.time_ns, &c->name);

	if (r == 0)
		r = rn ? node_id_next(rp->tree, &c->node) : -ENOMEM;
	c->attr.size = 0;
	c->attr.content = (struct digest){ 0 };
	if (r == 0)
		r = replay_emit(rp, &create, false);
	if (r < 0)
		return r;
	rn->copy = c->node;
	r = replay_note(rp, CONFLICT_WRITE_WRITE, c->parent, c->name, theirs->name);
	return r < 0 ? r : write_emit(rp, e, c->node);
}

/* Where a deleted node comes back: where this device has it, else where it was. */
static int revive_file(struct replay *rp, uint64_t node)
{
	struct reviver rv = replay_reviver(rp);
	struct node_rec rec, home, now;
	uint64_t parent;
	int r = replay_local(rp, node, &home), dead = dead_node(rp->view, node, &rec);

	if (dead < 0 || r < 0)
		return MIN(dead, r);
	if (!dead && !r)
		rec = (struct node_rec){ .attr.mode = S_IFREG | 0600,
			.parent = NODE_ROOT,
			.name = { (const uint8_t *)"recovered", 9 } };
	else if (!dead)
		rec = home;
	if (!r || home.name.n == 0)
		home = rec;
	r = replay_dir(rp, home.parent, &parent);
	if (r == 0)
		r = revive_node(&rv, node, &rec, parent, home.name, clock_real_ns());
	if (r == 0)
		r = view_node(rp->view, node, &now);
	if (r <= 0)
		return r;
	return replay_note(rp, CONFLICT_WRITE_DELETE, now.parent, now.name, home.name);
}

static int resolve_write(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change;
	struct replay_node *rn;
	struct node_rec rec;
	int r;

	if (replay_settled(rp, c->node))
		return 0;
	c->node = replay_merged(rp, c->node);
	rn = replay_node_find(rp, c->node);
	if (rn && rn->copy) {
		r = view_node(rp->view, rn->copy, &rec);
		return r <= 0 ? r : write_emit(rp, e, rn->copy);
	}
	r = view_node(rp->view, c->node, &rec);
	if (r == 0) {
		r = revive_file(rp, c->node);
		return r < 0 ? r : write_emit(rp, e, c->node);
	}
	if (r > 0)
		r = replay_they_wrote(rp, c->node);
	if (r <= 0)
		return r < 0 ? r : write_emit(rp, e, c->node);
	if (digest_eq(&rec.attr.content, &c->attr.content)) {
		rn = replay_node_make(rp, c->node);
		if (rn)
			rn->wrote = true;
		return rn ? 0 : -ENOMEM;
	}
	return write_copy(rp, e, &rec);
}

static uint32_t attr_diff(const struct node_attr *a, const struct node_attr *b)
{
	return (a->mode != b->mode ? ATTR_MODE : 0) | (a->uid != b->uid ? ATTR_UID : 0) |
	       (a->gid != b->gid ? ATTR_GID : 0) | (a->atime_ns != b->atime_ns ? ATTR_ATIME : 0) |
	       (a->mtime_ns != b->mtime_ns ? ATTR_MTIME : 0);
}

/* What we set on a file whose conflicted copy has our bytes is meant for those bytes, too. */
static int setattr_copy(struct replay *rp, const struct outbox_entry *e, uint64_t copy)
{
	struct outbox_entry extra = *e;
	struct node_rec rec;
	int r = view_node(rp->view, copy, &rec);

	extra.change.node = copy;
	return r <= 0 ? r : replay_emit(rp, &extra, false);
}

static int resolve_setattr(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change;
	struct replay_node *rn;
	struct node_rec before, theirs, rec;
	uint32_t lost = 0;
	int r;

	if (replay_settled(rp, c->node))
		return 0;
	c->node = replay_merged(rp, c->node);
	rn = replay_node_make(rp, c->node);
	if (!rn)
		return -ENOMEM;
	r = view_node(rp->view, c->node, &rec);
	if (r <= 0)
		return r;
	if (rn->copy) {
		r = setattr_copy(rp, e, rn->copy);
		lost = ATTR_ATIME | ATTR_MTIME;
	}
	if (r >= 0)
		r = replay_sides(rp, c->node, &before, &theirs);
	if (r > 0)
		lost |= attr_diff(&before.attr, &theirs.attr) & ~rn->ours;
	if (r < 0)
		return r;
	if ((c->mask & ~(lost | ATTR_CTIME)) == 0 && (c->mask & lost))
		return 0;
	c->mask &= ~lost;
	rn->ours |= c->mask;
	return replay_emit(rp, e, true);
}

/* A hard link that we made keeps a file that they deleted. */
static int link_dead(struct replay *rp, struct outbox_entry *e, uint64_t node)
{
	struct reviver rv = replay_reviver(rp);
	struct change *c = &e->change;
	struct outbox_entry write = { .change = { .kind = CHANGE_WRITE, .node = node } };
	struct node_rec rec;
	struct slice manifest;
	int r = dead_node(rp->view, node, &rec);

	if (r <= 0)
		return r;
	r = revive_node(&rv, node, &rec, c->parent, c->name, c->time_ns);
	if (r == 0)
		r = replay_note(rp, CONFLICT_WRITE_DELETE, c->parent, c->name, c->name);
	if (r < 0 || !S_ISREG(rec.attr.mode) || rec.attr.size == 0)
		return r;
	write.change.attr = rec.attr;
	write.change.attr.mode = 0;
	write.change.time_ns = c->time_ns;
	r = manifest_load(rp->view, &rec, &manifest);
	if (r > 0)
		r = entry_set_manifest(rp->view, &write, manifest);
	return r < 0 ? r : replay_emit(rp, &write, true);
}

static int resolve_link(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change, was = *c;
	struct node_rec rec;
	uint64_t taken = 0;
	int r;

	c->node = replay_merged(rp, c->node);
	r = replay_dir(rp, c->parent, &c->parent);
	if (r == 0)
		r = view_node(rp->view, c->node, &rec);
	if (r <= 0)
		return r < 0 ? r : link_dead(rp, e, c->node);
	r = view_link(rp->view, c->parent, c->name, &taken);
	if (r > 0 && taken == c->node)
		return 0;
	if (r > 0)
		r = replay_step_aside(rp, c, CONFLICT_NAME_TAKEN, true);
	return r < 0 ? r : replay_emit_placed(rp, e, &was);
}

/* We deleted the file that has a conflicted copy of our own bytes: the copy goes. */
static int unlink_copy(struct replay *rp, struct replay_node *rn, int64_t time_ns)
{
	struct outbox_entry e = {
		.change = { .kind = CHANGE_UNLINK, .node = rn->copy, .time_ns = time_ns },
	};
	struct node_rec rec;
	int r = view_node(rp->view, rn->copy, &rec);

	if (r <= 0 || rec.name.n == 0)
		return MIN(r, 0);
	rn->copy = 0;
	e.change.parent = rec.parent;
	e.change.name = rec.name;
	return replay_emit(rp, &e, false);
}

/* 1: the deletion is done; 0: theirs stays. */
static int unlink_allowed(struct replay *rp, const struct change *c, const struct node_rec *rec)
{
	int r;

	if (S_ISDIR(rec->attr.mode))
		return view_dir_empty(rp->view, c->node);
	if (rec->links > 1)
		return 1;
	r = replay_they_wrote(rp, c->node);
	if (r <= 0)
		return r < 0 ? r : 1;
	return replay_note(rp, CONFLICT_DELETE_WRITE, c->parent, c->name, c->name);
}

static int resolve_unlink(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change;
	struct replay_node *rn = replay_node_find(rp, c->node);
	struct node_rec rec;
	int r;

	if (rn && rn->merged)
		return 0;
	r = replay_place(rp, c->parent, c->name, c->node, &c->parent, &c->name);
	if (r > 0)
		r = view_node(rp->view, c->node, &rec);
	if (r <= 0)
		return r;
	if (rn && rn->copy && rec.links == 1)
		r = unlink_copy(rp, rn, c->time_ns);
	if (r >= 0)
		r = unlink_allowed(rp, c, &rec);
	return r <= 0 ? r : replay_emit(rp, e, true);
}

static int resolve_xattr(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change;
	struct row_key k;
	struct view_row *row;
	struct node_rec rec;
	int r;

	if (replay_settled(rp, c->node))
		return 0;
	c->node = replay_merged(rp, c->node);
	k = key_child(c->node, c->xattr.name);
	r = view_node(rp->view, c->node, &rec);
	if (r <= 0)
		return r;
	r = view_row(rp->view, CF_XATTR, &k, &row);
	if (r < 0)
		return r;
	if (!row->entry &&
		(!row->before.p != !row->theirs.p ||
			(row->before.p && !slice_eq((struct slice){ row->before.p + ROW_HEAD,
							    row->before.n - ROW_HEAD },
						  (struct slice){ row->theirs.p + ROW_HEAD,
							  row->theirs.n - ROW_HEAD }))))
		return 0;
	if (c->kind == CHANGE_REMOVEXATTR && !row->now.p)
		return 0;
	return replay_emit(rp, e, true);
}

int resolve_entry(struct replay *rp, struct outbox_entry *e)
{
	switch (e->change.kind) {
	case CHANGE_CREATE:
		return resolve_create(rp, e);
	case CHANGE_WRITE:
		return resolve_write(rp, e);
	case CHANGE_SETATTR:
		return resolve_setattr(rp, e);
	case CHANGE_LINK:
		return resolve_link(rp, e);
	case CHANGE_UNLINK:
		return resolve_unlink(rp, e);
	case CHANGE_RENAME:
		return resolve_rename(rp, e);
	case CHANGE_SETXATTR:
	case CHANGE_REMOVEXATTR:
		return resolve_xattr(rp, e);
	}
	return -EBADMSG;
}
