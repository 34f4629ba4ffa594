/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel still has to be told, each node and each name once. The events say only *that*
 * something changed: what is true is asked of the tree when the kernel is told, so joining
 * events loses nothing. Pure; one thread.
 */
#ifndef VARVE_INVAL_QUEUE_H
#define VARVE_INVAL_QUEUE_H

#include "meta/change_sink.h"

#include <uthash.h>

/* A node (parent 0), or a name in a directory (parent set, name behind the struct). */
struct inval_item {
	uint32_t kinds; /* 1 << enum tree_event_kind */
	uint64_t child; /* of a name: the node that the event spoke of, or 0 */
	bool known; /* of a node: the kernel had it when it was told */
	struct node_attr *was; /* of a node that is gone: its last attributes; NULL: not known */
	UT_hash_handle hh;
	size_t name_len;
	uint64_t parent; /* the key begins here */
	uint64_t node; /* 0 for a name */
	uint8_t name[];
};

struct inval_queue {
	struct inval_item *items; /* in the order of their first event */
};

/* 0 or -ENOMEM. */
int inval_queue_put(struct inval_queue *q, const struct tree_event *e) must_check;
size_t inval_queue_count(const struct inval_queue *q);
/* Moves everything out; *q is empty then. */
struct inval_queue inval_queue_take(struct inval_queue *q);
void inval_queue_done(struct inval_queue *q);

static inline bool inval_item_has(const struct inval_item *i, enum tree_event_kind kind)
{
	return i->kinds & (UINT32_C(1) << kind);
}

static inline struct slice inval_item_name(const struct inval_item *i)
{
	return (struct slice){ i->name, i->name_len };
}

#endif
