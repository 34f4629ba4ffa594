// SPDX-License-Identifier: Apache-2.0
/* Renames in the table of conflicts, and directories that become one. */
#include "meta/replay.h"

#include <errno.h>
#include <sys/stat.h>

/* Directories that merge below one another; deeper ones get the conflict name. */
#define MERGE_DEPTH_MAX 128

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
	int r = key_link_parse(key, &parent, &name);

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

static int move_child(
	struct replay *rp, uint64_t from, const struct child *c, uint64_t into, int64_t time_ns)
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
		r = replay_step_aside(rp, &e.change, CONFLICT_NAME_TAKEN, true);
	if (r >= 0)
		r = replay_name_moved(rp, c->node, from, c->name, into, e.change.new_name);
	return r < 0 ? r : replay_emit(rp, &e, false);
}

static int drop_name(
	struct replay *rp, uint64_t parent, struct slice name, uint64_t node, int64_t time_ns)
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
	return *ret_dirs || replay_same_bytes(&x, &y);
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
		r = replay_merge(rp, node, x, S_ISDIR(rec.attr.mode));
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

	c->victim = replay_merged(rp, c->victim);
	r = replay_place(rp, was.new_parent, was.new_name, c->victim, &c->new_parent, &c->new_name);
	if (r <= 0 || c->victim == c->node)
		return MIN(r, 0);
	r = loops(rp, c->node, c->new_parent);
	if (r == 0)
		r = loops(rp, c->victim, c->parent);
	if (r > 0)
		return replay_note(rp, CONFLICT_LOOP, c->parent, c->name, was.name);
	if (r == 0)
		r = replay_name_moved(rp, c->victim, was.parent, was.name, c->parent, c->name);
	return r < 0 ? r : replay_emit_placed(rp, e, &was);
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
	r = rec.links > 1 ? 0 : replay_they_wrote(rp, target);
	return r < 0 ? r : !r;
}

/* The new name leads somewhere. */
static int rename_onto(
	struct replay *rp, struct outbox_entry *e, const struct change *was, uint64_t target)
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
		return replay_emit_placed(rp, e, was);
	c->victim = 0;
	if (r == 0 && one > 0)
		return rename_merges(rp, c, target, dirs);
	if (r == 0)
		r = replay_local(rp, c->node, &local);
	if (r >= 0)
		r = replay_step_aside(
			rp, c, meant ? CONFLICT_WRITE_WRITE : CONFLICT_NAME_TAKEN, r > 0);
	return r < 0 ? r : replay_emit_placed(rp, e, was);
}

static int rename_plain(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change, was = *c;
	uint64_t target = 0;
	int r;

	c->victim = replay_merged(rp, c->victim);
	r = c->victim ? replay_place(rp, was.new_parent, was.new_name, c->victim, &c->new_parent,
				&c->new_name)
		      : 0;
	if (r == 0)
		r = replay_dir(rp, was.new_parent, &c->new_parent);
	if (r >= 0)
		r = loops(rp, c->node, c->new_parent);
	if (r > 0)
		return replay_note(rp, CONFLICT_LOOP, c->parent, c->name, was.new_name);
	if (r == 0)
		r = view_link(rp->view, c->new_parent, c->new_name, &target);
	if (r > 0)
		return rename_onto(rp, e, &was, target);
	c->victim = 0;
	return r < 0 ? r : replay_emit_placed(rp, e, &was);
}

int resolve_rename(struct replay *rp, struct outbox_entry *e)
{
	struct change *c = &e->change, was = *c;
	struct node_rec rec;
	int r;

	c->node = replay_merged(rp, c->node);
	r = replay_place(rp, was.parent, was.name, c->node, &c->parent, &c->name);
	if (r < 0)
		return r;
	if (r > 0)
		return c->flags & CHANGE_FLAG_EXCHANGE ? rename_exchange(rp, e)
						       : rename_plain(rp, e);
	r = view_node(rp->view, c->node, &rec);
	if (r < 0)
		return r;
	if (r == 0)
		return replay_note(
			rp, CONFLICT_RENAME_DELETE, was.new_parent, was.new_name, was.name);
	return replay_note(rp, CONFLICT_RENAME_RENAME, rec.parent, rec.name, was.new_name);
}
