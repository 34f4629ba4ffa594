// SPDX-License-Identifier: Apache-2.0
/* What the table of conflicts asks: what became of a node, where a name is, who changed what. */
#include "bytes.h"
#include "clock.h"
#include "meta/replay.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

struct replay_node *replay_node_find(struct replay *rp, uint64_t node)
{
	struct replay_node *rn;

	HASH_FIND(hh, rp->nodes, &node, sizeof node, rn);
	return rn;
}

struct replay_node *replay_node_make(struct replay *rp, uint64_t node)
{
	struct replay_node *rn = replay_node_find(rp, node);

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
uint64_t replay_merged(struct replay *rp, uint64_t node)
{
	for (struct replay_node *rn; (rn = replay_node_find(rp, node)) && rn->merged;)
		node = rn->merged;
	return node;
}

int replay_merge(struct replay *rp, uint64_t node, uint64_t into, bool settled)
{
	struct replay_node *rn = replay_node_make(rp, node);

	if (!rn)
		return -ENOMEM;
	if (replay_merged(rp, into) == node)
		return 0;
	rn->merged = into;
	rn->settled = settled;
	return 0;
}

bool replay_settled(struct replay *rp, uint64_t node)
{
	struct replay_node *rn = replay_node_find(rp, node);

	return rn && rn->settled;
}

static int emit_extra(void *ctx, struct outbox_entry *e)
{
	return replay_emit(ctx, e, false);
}

struct reviver replay_reviver(struct replay *rp)
{
	return (struct reviver){ rp->tree, rp->view, emit_extra, rp };
}

int replay_note(struct replay *rp, enum conflict_kind kind, uint64_t parent, struct slice name,
	struct slice original)
{
	struct conflict_rec rec = { kind, clock_real_ns(), parent, name, original };

	if (rp->number <= rp->sent_last)
		return 0;
	return conflict_put(rp->view, rp->tree->conflict_tail + ++rp->conflicts, &rec);
}

/* The directory to put a name into: it is back if somebody deleted it. */
int replay_dir(struct replay *rp, uint64_t dir, uint64_t *ret)
{
	struct reviver rv = replay_reviver(rp);
	uint64_t want = replay_merged(rp, dir);
	int r = revive_dir(&rv, want, clock_real_ns(), ret);

	/* Something else has its place: what we still do in it happens there. */
	return r == 0 && *ret != want ? replay_merge(rp, want, *ret, true) : r;
}

static size_t name_key(uint64_t node, uint64_t parent, struct slice name, uint8_t *ret)
{
	struct row_key k = key_name(node, parent, name);

	memcpy(ret, k.b, k.n);
	return k.n;
}

int replay_name_moved(struct replay *rp, uint64_t node, uint64_t was_parent, struct slice was_name,
	uint64_t parent, struct slice name)
{
	struct replay_name *rn = calloc(1, sizeof *rn), *old;
	int r;

	if (!rn)
		return -ENOMEM;
	rn->parent = parent;
	rn->klen = name_key(node, was_parent, was_name, rn->key);
	/* The name may lie in the entry at hand, which is gone with it. */
	r = view_copy(rp->view, name.p, name.n, &rn->name);
	if (r < 0) {
		free(rn);
		return r;
	}
	HASH_FIND(hh, rp->names, rn->key, rn->klen, old);
	if (old) {
		HASH_DEL(rp->names, old);
		free(old);
	}
	HASH_ADD_KEYPTR(hh, rp->names, rn->key, rn->klen, rn);
	return 0;
}

/* Where the name of the node that we call (parent, name) is. 1, 0: it is not there any more. */
int replay_place(struct replay *rp, uint64_t parent, struct slice name, uint64_t node,
	uint64_t *ret_parent, struct slice *ret_name)
{
	uint8_t key[16 + NAME_BYTES_MAX];
	struct replay_name *rn;
	uint64_t there = 0, dir = replay_merged(rp, parent);
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
int replay_local(struct replay *rp, uint64_t node, struct node_rec *ret)
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
int replay_sides(
	struct replay *rp, uint64_t node, struct node_rec *ret_before, struct node_rec *ret_theirs)
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
int replay_they_wrote(struct replay *rp, uint64_t node)
{
	struct replay_node *rn = replay_node_find(rp, node);
	struct node_rec before, theirs;
	int r = rn && rn->wrote ? 0 : replay_sides(rp, node, &before, &theirs);

	return r > 0 ? !digest_eq(&before.attr.content, &theirs.attr.content) : r;
}

bool replay_same_bytes(const struct node_rec *a, const struct node_rec *b)
{
	if ((a->attr.mode & S_IFMT) != (b->attr.mode & S_IFMT))
		return false;
	if (S_ISLNK(a->attr.mode))
		return slice_eq(a->payload, b->payload);
	return S_ISREG(a->attr.mode) && digest_eq(&a->attr.content, &b->attr.content);
}

/* Ours goes beside what has its name. The change's place is rewritten. */
int replay_step_aside(struct replay *rp, struct change *c, enum conflict_kind kind, bool listed)
{
	bool renames = c->kind == CHANGE_RENAME;
	uint64_t parent = renames ? c->new_parent : c->parent;
	struct slice *name = renames ? &c->new_name : &c->name, original = *name, free_name;
	int r = conflict_name_free(rp->tree, rp->view, parent, original, c->time_ns, &free_name);

	if (r < 0)
		return r;
	*name = free_name;
	return listed ? replay_note(rp, kind, parent, free_name, original) : 0;
}

int replay_emit_placed(struct replay *rp, struct outbox_entry *e, const struct change *was)
{
	const struct change *c = &e->change;
	bool renames = c->kind == CHANGE_RENAME;
	uint64_t parent = renames ? c->new_parent : c->parent;
	uint64_t was_parent = renames ? was->new_parent : was->parent;
	struct slice name = renames ? c->new_name : c->name;
	struct slice was_name = renames ? was->new_name : was->name;
	int r = 0;

	if (parent != was_parent || !slice_eq(name, was_name))
		r = replay_name_moved(rp, c->node, was_parent, was_name, parent, name);
	return r < 0 ? r : replay_emit(rp, e, true);
}
