/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The outbox, replayed upon what the server has now. rebase.c drives; resolve.c knows the table
 * of conflicts and says, for one change, which changes take its place.
 */
#ifndef VARVE_REPLAY_H
#define VARVE_REPLAY_H

#include "meta/tree_internal.h"

/* What became of a node that the outbox names. */
struct replay_node {
	UT_hash_handle hh;
	uint64_t node;
	uint64_t merged; /* it is this one now: same bytes, or the same directory */
	bool settled; /* merged, and what we still do to it says nothing new */
	uint64_t copy; /* what we write goes to this conflicted copy */
	uint32_t ours; /* fields that a replayed setattr has set */
	bool wrote; /* its content is ours */
};

/* A name that we gave, and where that node is instead. */
struct replay_name {
	UT_hash_handle hh;
	uint64_t parent;
	struct slice name;
	size_t klen;
	uint8_t key[16 + NAME_BYTES_MAX]; /* node, then as we called it */
};

struct replay {
	struct tree *tree;
	struct view *view;
	struct batch *batch;
	struct rebased *out;
	uint64_t drop_last; /* entries up to here are in the page */
	uint64_t cut; /* entries from here on go; 0: none */
	uint64_t sent_last; /* up to here the server has them: no news to the user */
	uint64_t number; /* of the entry at hand */
	uint64_t prev; /* the last number given */
	uint64_t conflicts;
	struct deaths *deaths; /* that leave the outbox */
	bool kept; /* the entry at hand stays in the outbox under its number */
	struct replay_node *nodes;
	struct replay_name *names;
};

/* One change that is to be done now. `last`: it stands for the entry at hand. */
int replay_emit(struct replay *rp, struct outbox_entry *e, bool last) must_check;

/* replay.c */
struct replay_node *replay_node_find(struct replay *rp, uint64_t node);
struct replay_node *replay_node_make(struct replay *rp, uint64_t node); /* NULL: no memory */
/* The node that a node of ours is now. */
uint64_t replay_merged(struct replay *rp, uint64_t node);
int replay_merge(struct replay *rp, uint64_t node, uint64_t into, bool settled) must_check;
bool replay_settled(struct replay *rp, uint64_t node);
struct reviver replay_reviver(struct replay *rp);
/* Lists a conflict. */
int replay_note(struct replay *rp, enum conflict_kind kind, uint64_t parent, struct slice name,
	struct slice original) must_check;
/* The directory to put a name into: it is back if somebody deleted it. */
int replay_dir(struct replay *rp, uint64_t dir, uint64_t *ret) must_check;
/* What we call (was_parent, was_name) is somewhere else. */
int replay_name_moved(struct replay *rp, uint64_t node, uint64_t was_parent, struct slice was_name,
	uint64_t parent, struct slice name) must_check;
/* Where the name of the node that we call (parent, name) is. 1, 0: it is not there any more. */
int replay_place(struct replay *rp, uint64_t parent, struct slice name, uint64_t node,
	uint64_t *ret_parent, struct slice *ret_name) must_check;
/* The node in the tree as this device has it, all of the outbox applied: 1, 0. */
int replay_local(struct replay *rp, uint64_t node, struct node_rec *ret) must_check;
/* The node as the server had it, and has it. 1 when both are there. */
int replay_sides(struct replay *rp, uint64_t node, struct node_rec *ret_before,
	struct node_rec *ret_theirs) must_check;
/* Whether somebody else wrote to the node, and no write of ours came upon that. */
int replay_they_wrote(struct replay *rp, uint64_t node) must_check;
bool replay_same_bytes(const struct node_rec *a, const struct node_rec *b);
int replay_step_aside(
	struct replay *rp, struct change *c, enum conflict_kind kind, bool listed) must_check;
/* As replay_emit() with `last`, of a change that may have been given another place. */
int replay_emit_placed(
	struct replay *rp, struct outbox_entry *e, const struct change *was) must_check;

/* resolve_rename.c */
int resolve_rename(struct replay *rp, struct outbox_entry *e) must_check;

#endif
