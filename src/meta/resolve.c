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

/* Directories that merge below one another; deeper ones get the conflict name. */
#define MERGE_DEPTH_MAX 128

static struct replay_node *node_find(struct replay *rp, uint64_t node)
{
	struct replay_node *rn;

	HASH_FIND(hh, rp->nodes, &node, sizeof node, rn);
	return rn;
}

static struct replay_node *node_make(struct replay *rp, uint64_t node)
{
	struct replay_node *rn = node_find(rp, node);

	if (rn)
		return rn;
	rn = calloc(1, sizeof *rn);
	if (!rn)
		return NULL;
	rn->node = node;
	HASH_ADD(hh, rp->nodes, node, sizeof rn->node, rn);
	return rn;
}

/* The node that a node of ours is now. */
static uint64_t merged(struct replay *rp, uint64_t node)
{
	for (struct replay_node *rn; (rn = node_find(rp, node)) && rn->merged;)
		node = rn->merged;
	return node;
}

static int merge_into(struct replay *rp, uint64_t node, uint64_t into, bool settled)
{
	struct replay_node *rn = node_make(rp, node);

	if (!rn)
		return -ENOMEM;
	rn->merged = into;
	rn->settled = settled;
	return 0;
}

static bool is_settled(struct replay *rp, uint64_t node)
{
	struct replay_node *rn = node_find(rp, node);

	return rn && rn->settled;
}

static int emit_extra(void *ctx, struct outbox_entry *e)
{
	return replay_emit(ctx, e, false);
}

static struct reviver reviver_of(struct replay *rp)
{
	return (struct reviver){ rp->tree, rp->view, emit_extra, rp };
}

static int note(struct replay *rp, enum conflict_kind kind, uint64_t parent, struct slice name,
	struct slice original)
{
	struct conflict_rec rec = { kind, clock_real_ns(), parent, name, original };

	if (rp->number <= rp->sent_last)
		return 0;
	return conflict_put(rp->view, rp->tree->conflict_tail + ++rp->conflicts, &rec);
}

/* The directory to put a name into: it is back if somebody deleted it. */
static int dir_for(struct replay *rp, uint64_t dir, uint64_t *ret)
{
	struct reviver rv = reviver_of(rp);

	return revive_dir(&rv, merged(rp, dir), clock_real_ns(), ret);
}

static size_t name_key(uint64_t node, uint64_t parent, struct slice name, uint8_t *ret)
{
	struct row_key k = key_name(node, parent, name);

	memcpy(ret, k.b, k.n);
	return k.n;
}

/* What we called (parent, name) is somewhere else. */
static int name_moved(struct replay *rp, const struct change *c, uint64_t parent, struct slice name)
{
	bool renames = c->kind == CHANGE_RENAME;
	struct replay_name *rn = calloc(1, sizeof *rn), *old;

	if (!rn)
		return -ENOMEM;
	rn->parent = parent;
	rn->name = name;
	rn->klen = name_key(merged(rp, c->node), renames ? c->new_parent : c->parent,
		renames ? c->new_name : c->name, rn->key);
	HASH_FIND(hh, rp->names, rn->key, rn->klen, old);
	if (old) {
		HASH_DEL(rp->names, old);
		free(old);
	}
	HASH_ADD_KEYPTR(hh, rp->names, rn->key, rn->klen, rn);
	return 0;
}

/* Where the name of the node that we call (parent, name) is. 1, 0: it is not there any more. */
static int place_of(struct replay *rp, uint64_t parent, struct slice name, uint64_t node,
	uint64_t *ret_parent, struct slice *ret_name)
{
	uint8_t key[16 + NAME_BYTES_MAX];
	struct replay_name *rn;
	uint64_t there = 0, dir = merged(rp, parent);
	int r = view_link(rp->view, dir, name, &there);

	if (r > 0 && there == node) {
		*ret_parent = dir;
		*ret_name = name;
		return 1;
	}
	HASH_FIND(hh, rp->names, key, name_key(node, parent, name, key), rn);
	if (r < 0 || !rn)
		return MIN(r, 0);
	r = view_link(rp->view, rn->parent, rn->name, &there);
	if (r <= 0 || there != node)
		return MIN(r, 0);
	*ret_parent = rn->parent;
	*ret_name = rn->name;
	return 1;
}

/* The row of a node in the tree as this device has it, all of the outbox applied. */
static int local_row(struct replay *rp, uint64_t node, struct node_rec *ret)
{
	struct row_key k = key_id(node);
	struct view_row *row;
	int r = view_row(rp->view, CF_NODE, &k, &row);

	if (r < 0 || !row->old.p)
		return r;
	r = node_decode(row->old, ret);
	return r < 0 ? r : 1;
}

/* The node as the server had it, and has it. 1 when both are there. */
static int both_sides(struct replay *rp, uint64_t node, struct node_rec *ret_before,
	struct node_rec *ret_theirs)
{
	struct row_key k = key_id(node);
	struct view_row *row;
	int r = view_row(rp->view, CF_NODE, &k, &row);

	if (r < 0 || !row->before.p || !row->theirs.p)
		return r;
	r = node_decode(row->before, ret_before);
	if (r == 0)
		r = node_decode(row->theirs, ret_theirs);
	return r < 0 ? r : 1;
}

/* Whether somebody else wrote to the node, and no write of ours came upon that. */
static int they_wrote(struct replay *rp, uint64_t node)
{
	struct replay_node *rn = node_find(rp, node);
	struct node_rec before, theirs;
	int r = rn && rn->wrote ? 0 : both_sides(rp, node, &before, &theirs);

	return r > 0 ? !digest_eq(&before.attr.content, &theirs.attr.content) : r;
}

static bool same_bytes(const struct node_rec *a, const struct node_rec *b)
{
	if ((a->attr.mode & S_IFMT) != (b->attr.mode & S_IFMT))
		return false;
	if (S_ISLNK(a->attr.mode))
		return slice_eq(a->payload, b->payload);
	return S_ISREG(a->attr.mode) && digest_eq(&a->attr.content, &b->attr.content);
}

/* Ours goes beside what has its name. The change's place is rewritten. */
static int step_aside(struct replay *rp, struct change *c, enum conflict_kind kind, bool listed)
{
	bool renames = c->kind == CHANGE_RENAME;
	struct change was = *c;
	uint64_t parent = renames ? c->new_parent : c->parent;
	struct slice *name = renames ? &c->new_name : &c->name, original = *name, free_name;
	int r = conflict_name_free(rp->tree, rp->view, parent, original, c->time_ns, &free_name);

	if (r == 0)
		r = name_moved(rp, &was, parent, free_name);
	if (r < 0)
		return r;
	*name = free_name;
	return listed ? note(rp, kind, parent, free_name, original) : 0;
}

/*
 * A create whose name is taken by x. 1: ours is x from now on. For files only if the name is the
 * one that the file ends up with: a passing one must not carry theirs away with it.
 */
static int create_merges(struct replay *rp, const struct change *c, uint64_t x, bool *ret_stays)
{
	struct node_rec theirs, ours = { 0 };
	int r = local_row(rp, c->node, &ours), t = view_node(rp->view, x, &theirs);

	*ret_stays = r > 0 && ours.parent == c->parent && slice_eq(ours.name, c->name);
	if (r < 0 || t <= 0 || !*ret_stays)
		return MIN(MIN(r, t), 0);
	if (S_ISDIR(ours.attr.mode) && S_ISDIR(theirs.attr.mode))
		return 1;
	return same_bytes(&ours, &theirs);
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
	r = dir_for(rp, c->parent, &c->parent);
	if (r == 0)
		r = view_link(rp->view, c->parent, c->name, &taken);
	if (r > 0) {
		r = create_merges(rp, &was, taken, &stays);
		if (r > 0)
			return merge_into(rp, c->node, taken, true);
		if (r == 0)
			r = step_aside(rp, c, CONFLICT_NAME_TAKEN, stays);
		if (r == 0 && c->parent != was.parent)
			r = name_moved(rp, &was, c->parent, c->name);
	}
	return r < 0 ? r : replay_emit(rp, e, true);
}

static int write_emit(struct replay *rp, struct outbox_entry *e, uint64_t node)
{
	struct replay_node *rn = node_make(rp, node);

	if (!rn)
		return -ENOMEM;
	rn->wrote = true;
	e->change.node = node;
	return replay_emit(rp, e, true);
}

/* Our bytes become a node of their own beside the one that they wrote. */
static int write_copy(struct replay *rp, struct outbox_entry *e, const struct node_rec *theirs)
{
	struct replay_node *rn = node_make(rp, e->change.node);
	struct outbox_entry create = {
		.change = {
			.kind = CHANGE_CREATE,
			.parent = theirs->parent,
			.attr = theirs->attr,
			.time_ns = e->change.time_ns,
		},
	};
	struct change *c = &create.change;
	int r = conflict_name_free(rp->tree, rp->view, theirs->parent, theirs->name,
		e->change.time_ns, &c->name);

	if (r == 0)
		r = rn ? node_id_next(rp->tree, &c->node) : -ENOMEM;
	c->attr.size = 0;
	c->attr.content = (struct digest){ 0 };
	if (r == 0)
		r = replay_emit(rp, &create, false);
	if (r < 0)
		return r;
	rn->copy = c->node;
	r = note(rp, CONFLICT_WRITE_WRITE, c->parent, c->name, theirs->name);
	return r < 0 ? r : write_emit(rp, e, c->node);
}

/* Where a deleted node comes back: where this device has it, else where it was. */
static int revive_file(struct replay *rp, uint64_t node)
{
	struct reviver rv = reviver_of(rp);
	struct node_rec rec, home, now;
	uint64_t parent;
	int r = local_row(rp, node, &home), dead = dead_node(rp->view, node, &rec);

	if (dead < 0 || r < 0)
		return MIN(dead, r);
	if (!dead && !r)
		rec = (struct node_rec){ .attr.mode = S_IFREG | 0600, .parent = NODE_ROOT,
			.name = { (const uint8_t *)"recovered", 9 } };
	else if (!dead)
		rec = home;
	if (!r || home.name.n == 0)
		home = rec;
	r = dir_for(rp, home.parent, &parent);
	if (r == 0)
		r = revive_node(&rv, node, &rec, parent, home.name, clock_real_ns());
	if (r == 0)
		r = view_node(rp->view, node, &now);
	if (r <= 0)
		return r;
	return note(rp, CONFLICT_WRITE_DELETE, now.parent, now.name, home.name);
}

static int resolve_write(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change;
	struct replay_node *rn;
	struct node_rec rec;
	int r;

	if (is_settled(rp, c->node))
		return 0;
	c->node = merged(rp, c->node);
	rn = node_find(rp, c->node);
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
		r = they_wrote(rp, c->node);
	if (r <= 0)
		return r < 0 ? r : write_emit(rp, e, c->node);
	if (digest_eq(&rec.attr.content, &c->attr.content)) {
		rn = node_make(rp, c->node);
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

	if (is_settled(rp, c->node))
		return 0;
	c->node = merged(rp, c->node);
	rn = node_make(rp, c->node);
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
		r = both_sides(rp, c->node, &before, &theirs);
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
	struct reviver rv = reviver_of(rp);
	struct change *c = &e->change;
	struct outbox_entry write = { .change = { .kind = CHANGE_WRITE, .node = node } };
	struct node_rec rec;
	struct slice manifest;
	int r = dead_node(rp->view, node, &rec);

	if (r <= 0)
		return r;
	r = revive_node(&rv, node, &rec, c->parent, c->name, c->time_ns);
	if (r == 0)
		r = note(rp, CONFLICT_WRITE_DELETE, c->parent, c->name, c->name);
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

	c->node = merged(rp, c->node);
	r = dir_for(rp, c->parent, &c->parent);
	if (r == 0)
		r = view_node(rp->view, c->node, &rec);
	if (r <= 0)
		return r < 0 ? r : link_dead(rp, e, c->node);
	r = view_link(rp->view, c->parent, c->name, &taken);
	if (r > 0 && taken == c->node)
		return 0;
	if (r > 0)
		r = step_aside(rp, c, CONFLICT_NAME_TAKEN, true);
	if (r == 0 && c->parent != was.parent)
		r = name_moved(rp, &was, c->parent, c->name);
	return r < 0 ? r : replay_emit(rp, e, true);
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
	r = they_wrote(rp, c->node);
	if (r <= 0)
		return r < 0 ? r : 1;
	return note(rp, CONFLICT_DELETE_WRITE, c->parent, c->name, c->name);
}

static int resolve_unlink(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change;
	struct replay_node *rn = node_find(rp, c->node);
	struct node_rec rec;
	int r;

	if (rn && rn->merged)
		return 0;
	r = place_of(rp, c->parent, c->name, c->node, &c->parent, &c->name);
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

struct child {
	struct child *next;
	struct slice name;
	uint64_t node;
};

struct children {
	struct view *v;
	struct child *list;
};

static int add_child(void *ctx, struct slice key, struct slice value)
{
	struct children *ch = ctx;
	struct child *c = view_alloc(ch->v, sizeof *c);
	struct link_rec rec;
	struct slice name;
	uint64_t parent;
	int r = key_child_parse(key, &parent, &name);

	if (r == 0)
		r = link_decode(value, &rec);
	if (r == 0)
		r = c ? view_copy(ch->v, name.p, name.n, &c->name) : -ENOMEM;
	if (r < 0)
		return r;
	c->node = rec.node;
	c->next = ch->list;
	ch->list = c;
	return 0;
}

static int move_child(struct replay *rp, uint64_t from, const struct child *c, uint64_t into,
	int64_t time_ns)
{
	struct outbox_entry e = {
		.change = {
			.kind = CHANGE_RENAME,
			.node = c->node,
			.parent = from,
			.name = c->name,
			.new_parent = into,
			.new_name = c->name,
			.time_ns = time_ns,
		},
	};
	uint64_t taken;
	int r = view_link(rp->view, into, c->name, &taken);

	if (r > 0)
		r = step_aside(rp, &e.change, CONFLICT_NAME_TAKEN, true);
	else if (r == 0 && into != from)
		r = name_moved(rp,
			&(struct change){ .kind = CHANGE_LINK, .node = c->node, .parent = from,
				.name = c->name },
			into, c->name);
	return r < 0 ? r : replay_emit(rp, &e, false);
}

static int drop_name(struct replay *rp, uint64_t parent, struct slice name, uint64_t node,
	int64_t time_ns)
{
	struct outbox_entry e = {
		.change = {
			.kind = CHANGE_UNLINK,
			.node = node,
			.parent = parent,
			.name = name,
			.time_ns = time_ns,
		},
	};

	return replay_emit(rp, &e, false);
}

/* 1: both are one, by content. */
static int are_one(struct replay *rp, uint64_t a, uint64_t b, bool *ret_dirs)
{
	struct node_rec x, y;
	int r = view_node(rp->view, a, &x);

	if (r > 0)
		r = view_node(rp->view, b, &y);
	if (r <= 0)
		return r;
	*ret_dirs = S_ISDIR(x.attr.mode) && S_ISDIR(y.attr.mode);
	return *ret_dirs || same_bytes(&x, &y);
}

/* The name goes, and with its last one the node: it is `x` from now on. */
static int name_merges(struct replay *rp, uint64_t parent, struct slice name, uint64_t node,
	uint64_t x, int64_t time_ns)
{
	struct node_rec rec;
	int r = view_node(rp->view, node, &rec);

	if (r > 0 && S_ISDIR(rec.attr.mode) && view_dir_empty(rp->view, node) != 1)
		return 0; /* something came into it while it was emptied: it stays */
	if (r > 0 && rec.links == 1 && node != x)
		r = merge_into(rp, node, x, S_ISDIR(rec.attr.mode));
	return r < 0 ? r : drop_name(rp, parent, name, node, time_ns);
}

static int merge_dirs(struct replay *rp, uint64_t from, uint64_t into, int64_t time_ns, int depth)
{
	struct children ch = { .v = rp->view };
	int r = view_each(rp->view, CF_LINK, from, add_child, &ch);

	for (struct child *c = ch.list; c && r >= 0; c = c->next) {
		uint64_t taken = 0;
		bool dirs = false, one;

		r = view_link(rp->view, into, c->name, &taken);
		if (r > 0)
			r = are_one(rp, c->node, taken, &dirs);
		one = r > 0 && !(dirs && depth >= MERGE_DEPTH_MAX);
		if (one && dirs)
			r = merge_dirs(rp, c->node, taken, time_ns, depth + 1);
		if (r >= 0 && one)
			r = name_merges(rp, from, c->name, c->node, taken, time_ns);
		else if (r >= 0)
			r = move_child(rp, from, c, into, time_ns);
	}
	return MIN(r, 0);
}

static int rename_merges(struct replay *rp, const struct change *c, uint64_t x, bool dirs)
{
	int r = dirs ? merge_dirs(rp, c->node, x, c->time_ns, 0) : 0;

	return r < 0 ? r : name_merges(rp, c->parent, c->name, c->node, x, c->time_ns);
}

/* 1 when going below new_parent would put a directory below itself. */
static int loops(struct replay *rp, uint64_t node, uint64_t new_parent)
{
	struct node_rec rec;
	int r = view_node(rp->view, node, &rec);

	if (r <= 0 || !S_ISDIR(rec.attr.mode))
		return MIN(r, 0);
	return view_below(rp->view, new_parent, node);
}

static int rename_exchange(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change, was = *c;
	int r;

	c->victim = merged(rp, c->victim);
	r = place_of(rp, was.new_parent, was.new_name, c->victim, &c->new_parent, &c->new_name);
	if (r <= 0 || c->victim == c->node)
		return MIN(r, 0);
	r = loops(rp, c->node, c->new_parent);
	if (r == 0)
		r = loops(rp, c->victim, c->parent);
	if (r > 0)
		return note(rp, CONFLICT_LOOP, c->parent, c->name, was.name);
	if (r == 0)
		r = name_moved(rp, &was, c->new_parent, c->new_name);
	if (r == 0)
		r = name_moved(rp,
			&(struct change){ .kind = CHANGE_LINK, .node = c->victim,
				.parent = was.parent, .name = was.name },
			c->parent, c->name);
	return r < 0 ? r : replay_emit(rp, e, true);
}

/* 1: the victim is there as we meant it, and goes. */
static int victim_goes(struct replay *rp, const struct change *c, uint64_t target, bool dirs)
{
	struct node_rec rec, ours;
	int r;

	if (target != c->victim)
		return 0;
	if (dirs)
		return view_dir_empty(rp->view, target);
	r = view_node(rp->view, target, &rec);
	if (r > 0)
		r = view_node(rp->view, c->node, &ours);
	if (r <= 0)
		return r;
	if (S_ISDIR(rec.attr.mode) || S_ISDIR(ours.attr.mode))
		return 0;
	r = rec.links > 1 ? 0 : they_wrote(rp, target);
	return r < 0 ? r : !r;
}

/* The new name leads somewhere. */
static int rename_onto(struct replay *rp, struct outbox_entry *e, uint64_t target)
{
	struct change *c = &e->change;
	bool dirs = false, meant = target == c->victim;
	struct node_rec local;
	int one, r;

	if (target == c->node)
		return 0;
	one = are_one(rp, c->node, target, &dirs);
	r = one < 0 ? one : victim_goes(rp, c, target, dirs);
	if (r > 0)
		return replay_emit(rp, e, true);
	c->victim = 0;
	if (r == 0 && one > 0)
		return rename_merges(rp, c, target, dirs);
	if (r == 0)
		r = local_row(rp, c->node, &local);
	if (r >= 0)
		r = step_aside(rp, c, meant ? CONFLICT_WRITE_WRITE : CONFLICT_NAME_TAKEN, r > 0);
	return r < 0 ? r : replay_emit(rp, e, true);
}

static int rename_plain(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change, was = *c;
	uint64_t target = 0;
	int r;

	c->victim = merged(rp, c->victim);
	r = c->victim ? place_of(rp, was.new_parent, was.new_name, c->victim, &c->new_parent,
				&c->new_name) :
			0;
	if (r == 0)
		r = dir_for(rp, was.new_parent, &c->new_parent);
	if (r >= 0)
		r = loops(rp, c->node, c->new_parent);
	if (r > 0)
		return note(rp, CONFLICT_LOOP, c->parent, c->name, was.new_name);
	if (r == 0 && (c->new_parent != was.new_parent || !slice_eq(c->new_name, was.new_name)))
		r = name_moved(rp, &was, c->new_parent, c->new_name);
	if (r == 0)
		r = view_link(rp->view, c->new_parent, c->new_name, &target);
	if (r > 0)
		return rename_onto(rp, e, target);
	c->victim = 0;
	return r < 0 ? r : replay_emit(rp, e, true);
}

static int resolve_rename(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change, was = *c;
	struct node_rec rec;
	int r;

	c->node = merged(rp, c->node);
	r = place_of(rp, was.parent, was.name, c->node, &c->parent, &c->name);
	if (r < 0)
		return r;
	if (r > 0)
		return c->flags & CHANGE_FLAG_EXCHANGE ? rename_exchange(rp, e) : rename_plain(rp, e);
	r = view_node(rp->view, c->node, &rec);
	if (r < 0)
		return r;
	if (r == 0)
		return note(rp, CONFLICT_RENAME_DELETE, was.new_parent, was.new_name, was.name);
	return note(rp, CONFLICT_RENAME_RENAME, rec.parent, rec.name, was.new_name);
}

static int resolve_xattr(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change;
	struct row_key k;
	struct view_row *row;
	struct node_rec rec;
	int r;

	if (is_settled(rp, c->node))
		return 0;
	c->node = merged(rp, c->node);
	k = key_child(c->node, c->xattr.name);
	r = view_node(rp->view, c->node, &rec);
	if (r <= 0)
		return r;
	r = view_row(rp->view, CF_XATTR, &k, &row);
	if (r < 0)
		return r;
	if (!row->entry && (!row->before.p != !row->theirs.p ||
				   (row->before.p &&
					   !slice_eq((struct slice){ row->before.p + ROW_HEAD,
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
