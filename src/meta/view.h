/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A view: rows of the store, and changes to them in memory, that end in one batch. Every
 * mutation of the tree goes through one, from a create to a rebase of the whole outbox.
 *
 *	view_init(&v, store, acked, sums); view_node(&v, ...); op_apply(&v, ...);
 *	view_emit(&v, batch); store_commit(store, batch); view_done(&v);
 *
 * It knows, beside the raw rows, what links derive: link counts, subdirectories, the names of a
 * node. Slices that it gives live until view_done().
 *
 * `entry` in the calls is the number of the outbox entry on whose behalf a row changes; 0 for
 * what the server says and for derived fields. Rows with an entry > acked are dirty.
 *
 * One thread; the caller holds the tree's lock.
 */
#ifndef VARVE_VIEW_H
#define VARVE_VIEW_H

#include "meta/rows.h"
#include "meta/xattr_sums.h"

#include <uthash.h>

struct view_row {
	UT_hash_handle hh;
	struct view_row *next; /* in its group */
	struct slice old; /* in the store; p NULL: absent */
	struct slice before; /* rebase: the server's, as of the cursor */
	struct slice theirs; /* rebase: the server's, with the page */
	struct slice now;
	uint64_t entry; /* that changed it in this view; 0 none */
	bool based; /* rebase: a base row lies below it */
	uint16_t klen;
	uint8_t key[]; /* enum store_cf, then the key */
};

struct view_group;
struct view_block;

struct view {
	struct store *store;
	struct xattr_sums *sums;
	uint64_t keeps_xattrs; /* the node that has others when one is removed; 0: to be seen */
	uint64_t acked;
	struct view_row *rows;
	struct view_group *groups;
	struct view_block *blocks;
	struct buf scratch;
};

void view_init(struct view *v, struct store *st, uint64_t acked, struct xattr_sums *sums);
void view_done(struct view *v);
#define _cleanup_view_ _cleanup_(view_done)

/* Memory that lives as long as the view. NULL when there is none. */
void *view_alloc(struct view *v, size_t n);
int view_copy(struct view *v, const void *p, size_t n, struct slice *ret) must_check;

/* Raw rows. The row is there after view_row(), whether or not it is in the store. */
int view_row(struct view *v, enum store_cf cf, const struct row_key *k,
	struct view_row **ret) must_check;
/* 1, 0, -errno. */
int view_get(
	struct view *v, enum store_cf cf, const struct row_key *k, struct slice *ret) must_check;
/* Copies the value. */
int view_put(struct view *v, enum store_cf cf, const struct row_key *k, const void *p, size_t n,
	uint64_t entry) must_check;
int view_del(struct view *v, enum store_cf cf, const struct row_key *k, uint64_t entry) must_check;
static inline struct slice view_row_key(const struct view_row *row)
{
	return (struct slice){ row->key + 1, (size_t)row->klen - 1 };
}
static inline enum store_cf view_row_cf(const struct view_row *row)
{
	return (enum store_cf)row->key[0];
}
/* Whether the row's bytes were made by an entry that is not on the server yet. */
bool view_dirty(const struct view *v, struct slice row);

/*
 * Visits the rows of a family whose keys begin with be64 id. The visitor may change rows (what
 * it adds may or may not be visited). Stops at non-zero and returns that.
 */
int view_each(struct view *v, enum store_cf cf, uint64_t id,
	int (*visit)(void *ctx, struct slice key, struct slice value), void *ctx) must_check;

/* Typed rows. Lookups: 1, 0, -errno. */
int view_node(struct view *v, uint64_t id, struct node_rec *ret) must_check;
/* entry != 0 becomes the row's; otherwise the row keeps rec->entry. */
int view_put_node(
	struct view *v, uint64_t id, const struct node_rec *rec, uint64_t entry) must_check;
/* With its xattrs. Its links are gone already. */
int view_kill_node(struct view *v, uint64_t id, uint64_t entry) must_check;
int view_link(struct view *v, uint64_t parent, struct slice name, uint64_t *ret) must_check;
/* Makes the name lead to `node` (0: nowhere), and sees to all that derives from it. */
int view_set_link(struct view *v, uint64_t parent, struct slice name, uint64_t node,
	uint64_t entry) must_check;
int view_xattr(struct view *v, uint64_t node, struct slice name, struct slice *ret) must_check;
/* value NULL removes. The node's flag is the caller's. */
int view_set_xattr(struct view *v, uint64_t node, struct slice name, const struct slice *value,
	uint64_t entry) must_check;
/* 1 when the directory has no entry, 0, -errno. */
int view_dir_empty(struct view *v, uint64_t dir) must_check;
/* 1 when `node` is `top` or lies below it; 0; -ELOOP when the way up does not end at the root. */
int view_below(struct view *v, uint64_t node, uint64_t top) must_check;

/* Puts what differs from the store into the batch, and base rows below what became dirty. */
int view_emit(struct view *v, struct batch *b) must_check;
/* After a rebase: `theirs` is what goes below every row that an entry changed. */
int view_emit_rebased(struct view *v, struct batch *b) must_check;
/* Raw differences only, no base rows. */
void view_emit_raw(struct view *v, struct batch *b);

/* Marks what the rows are at this moment of a rebase. */
void view_mark_before(struct view *v);
void view_mark_theirs(struct view *v);

#endif
