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
	uint64_t sent_last; /* up to here the server has them: no news to the user */
	uint64_t number; /* of the entry at hand */
	uint64_t prev; /* the last number given */
	uint64_t conflicts;
	bool kept; /* the entry at hand stays in the outbox under its number */
	struct replay_node *nodes;
	struct replay_name *names;
};

/* One change that is to be done now. `last`: it stands for the entry at hand. */
int replay_emit(struct replay *rp, struct outbox_entry *e, bool last) must_check;

#endif
