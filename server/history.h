/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A drive's temporal rows (migrate.c has their rules), as one commit sees and changes them:
 *
 *	history_open(db, drive, seq, device, &h, err);
 *	history_node(h, node, &n, err); n->attr.mtime_ns = t; n->changed = true; ...
 *	history_flush(h, &affected, err); history_free(h);
 *
 * What is asked for is read once and kept; changes stay in memory until the flush, which writes
 * one row for each node and name that differs in the end. So the changes of one commit build
 * upon one another, leave one version each, and a refused commit has written nothing.
 *
 * One thread; inside the caller's transaction, which holds the drive.
 */
#ifndef VARVE_HISTORY_H
#define VARVE_HISTORY_H

#include "db.h"

#include <uthash.h>

#define SEQ_OPEN INT64_MAX

struct history;

/* A node at the head. */
struct node_head {
	uint64_t node;
	bool alive;
	bool existed; /* it has rows in this drive, open or closed */
	bool changed; /* set by who changes what stands below, links apart */
	struct node_attr attr;
	struct buf target;
	struct buf xattrs; /* xattrs.h */
	uint64_t content_seq;
	uint64_t attr_seq;
	uint32_t content_device;
	uint32_t attr_device;
	uint64_t links; /* names that lead to it; of a directory: names in it */
	uint64_t parent; /* of a directory; 0: ask history_parent() */

	/* The open row, as it is stored; history.c's own. */
	bool stored;
	uint64_t seq_from;
	uint64_t stored_links;
	UT_hash_handle hh;
};

/* A name at the head. */
struct link_head {
	uint64_t node; /* 0: the name is free */
	uint64_t seq_from; /* since when, and by which device */
	uint32_t device;

	uint64_t stored_node;
	uint64_t stored_from;
	UT_hash_handle hh;
	size_t key_len;
	uint8_t key[]; /* the parent's id and the name */
};

int history_open(struct db *db, int64_t drive, uint64_t seq, uint32_t device, struct history **ret,
	struct err *err) must_check;
void history_free(struct history *h);
static inline void history_free_p(struct history **h)
{
	history_free(*h);
}
#define _cleanup_history_ _cleanup_(history_free_p)

/* 1 alive, 0 not; *ret is there in both cases, and lives as long as h. */
int history_node(
	struct history *h, uint64_t node, struct node_head **ret, struct err *err) must_check;
/* Whether the name is taken: ret->node. */
int history_link(struct history *h, uint64_t parent, struct slice name, struct link_head **ret,
	struct err *err) must_check;
/* Lets the name lead to node (0: nowhere), by this commit. */
void history_set_link(struct history *h, struct link_head *l, uint64_t node);
/* The directory that holds this directory. */
int history_parent(
	struct history *h, struct node_head *dir, uint64_t *ret, struct err *err) must_check;

/* Writes what differs. *ret_affected: how many rows were opened and closed. */
int history_flush(struct history *h, int64_t *ret_affected, struct err *err) must_check;

/* The columns of a node's state, and how to read them from column `first` on. */
#define NODE_STATE_COLUMNS \
	"mode, uid, gid, rdev, atime, mtime, ctime, btime, size, content, target, xattrs"
#define NODE_STATE_COLUMNS_N 12
int history_read_state(struct db_stmt *s, int first, struct node_attr *ret,
	struct slice *ret_target, struct slice *ret_xattrs, struct err *err) must_check;

#endif
