/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the tree and the replica share.
 *
 * Locks, in this order:
 *	lock	mutations: from the reads that check one to its commit. Never the network, never
 *		the sink, never a callback.
 *	soft_lock	the table of soft directory times; held for a look or an update of it.
 *	wait_lock	`acked` for replica_wait(); with the condition.
 */
#ifndef VARVE_TREE_INTERNAL_H
#define VARVE_TREE_INTERNAL_H

#include "meta/apply.h"
#include "meta/replica.h"
#include "meta/tree.h"

#include <pthread.h>
#include <stdatomic.h>

/* Entry numbers have gaps, so that a rebase can put entries between without moving others. */
#define ENTRY_STRIDE 1024
/* Node counters are reserved in steps: no put a create, and none is used twice after a crash. */
#define COUNTER_STEP 1000

#define STATE_FORMAT "format"
#define STATE_DRIVE "drive"
#define STATE_DEVICE "device"
#define STATE_CURSOR "cursor"
#define STATE_COUNTER "counter"
#define STATE_ACKED "acked"
#define STATE_INFLIGHT "inflight"
#define STATE_SENT "sent"
#define STATE_DIED "died"
#define STATE_LOST CACHE_STATE_LOST
#define FORMAT_VERSION 2

/* The commit that was handed out and whose fate is not known. */
struct inflight {
	bool any;
	uint8_t id[COMMIT_ID_BYTES];
	uint64_t base;
	uint64_t last_entry;
};

/*
 * A commit that the server put behind others that this device has not seen. Its entries stay in
 * the outbox, so that tree = server at the cursor + outbox, until a page holds both.
 */
struct sent {
	uint64_t seq;
	uint64_t last_entry;
};

struct tree {
	struct store *store;
	struct cache *cache;
	char *device_name;
	uint32_t device_number;

	pthread_mutex_t lock;
	uint64_t counter; /* the next node's */
	uint64_t counter_end; /* reserved up to here */
	_Atomic uint64_t cursor;
	_Atomic uint64_t tail;
	_Atomic uint64_t entries;
	uint64_t conflict_tail;
	struct inflight inflight;
	struct sent *sent; /* oldest first */
	size_t n_sent;
	struct xattr_sums xattr_sums;
	uint64_t sent_entries; /* of `entries` */

	pthread_mutex_t soft_lock;
	struct soft_times soft;

	pthread_mutex_t wait_lock;
	pthread_cond_t wait_cond;
	_Atomic uint64_t
		acked; /* entries up to here have left the outbox; changed under lock, too */
	_Atomic uint64_t done; /* entries up to here are on the server */

	struct change_sink sink;
	void (*notify)(void *ctx);
	void *notify_ctx;
};

/* state.c */
int state_get(struct store *st, const char *name, struct buf *ret) must_check;
int state_get_u64(struct store *st, const char *name, uint64_t *ret) must_check;
void state_put_u64(struct batch *b, const char *name, uint64_t value);
int inflight_load(struct tree *t) must_check;
void inflight_put(struct batch *b, const struct inflight *in);
void inflight_clear(struct batch *b);
/* A node id that was never used. Caller holds lock. */
int node_id_next(struct tree *t, uint64_t *ret) must_check;
void tree_set_acked(struct tree *t, uint64_t acked);
int sent_load(struct tree *t) must_check;
/* The list as it will be, put into the batch: without those up to seq `to`, with `add`. */
int sent_put(struct tree *t, struct batch *b, uint64_t to, const struct sent *add) must_check;
/* It is in the store: the list is so now. */
int sent_set(struct tree *t, uint64_t to, const struct sent *add) must_check;
/* The last entry of the commits that the list has, up to seq `to`; 0. */
uint64_t sent_last(const struct tree *t, uint64_t to);

/* outbox.c */
/* An entry of the outbox as it is stored. */
int outbox_entry_encode(const struct outbox_entry *e, struct buf *ret) must_check;
/* The entry's slices lead into row and *ret_arena. */
int outbox_entry_decode(uint64_t number, struct slice row, struct outbox_entry *ret,
	struct arena **ret_arena) must_check;
/*
 * Entries are applied to the view as they are added, and get their numbers; the end commits all
 * in one batch: b with what is in it already, or a new one when NULL. Caller holds lock, and
 * calls outbox_notify() when it holds it no more.
 */
struct outbox_writer {
	struct tree *tree;
	struct view *view;
	struct batch *batch;
	struct batch *own;
	struct outbox_entry *list;
	size_t n;
	size_t cap;
};
int outbox_begin(
	struct outbox_writer *w, struct tree *t, struct view *v, struct batch *b) must_check;
int outbox_add(struct outbox_writer *w, struct outbox_entry *e) must_check;
int outbox_end(struct outbox_writer *w) must_check;
void outbox_writer_done(struct outbox_writer *w);
#define _cleanup_outbox_writer_ _cleanup_(outbox_writer_done)
/* All of it, for n entries that are known beforehand. */
int outbox_commit(struct tree *t, struct view *v, struct outbox_entry *e, size_t n) must_check;
void outbox_notify(struct tree *t);
int outbox_load(struct tree *t, struct err *err) must_check;
/* Walks the entries up to `last`. */
int outbox_each(struct tree *t, uint64_t last, int (*visit)(void *ctx, struct outbox_entry *e),
	void *ctx) must_check;

/* tree.c */
int node_init_check(const struct node_init *init) must_check;
/* Everything but the node's id. Slices as in init. */
void create_change(
	uint64_t parent, struct slice name, const struct node_init *init, struct change *ret);

/* names.c */
int name_check(struct slice name) must_check;
/* The directory's row: -ENOENT, -ENOTDIR. */
int dir_of(struct view *v, uint64_t dir, struct node_rec *ret) must_check;
int child_of(struct view *v, uint64_t parent, struct slice name, uint64_t *ret_node,
	struct node_rec *ret) must_check;
/* As stat(2) shows it. */
void node_show(struct tree *t, uint64_t id, const struct node_rec *rec, struct node *ret);
void tree_view(struct tree *t, struct view *v);

/* The row, without a lock; its slices lead into `row`. 1, 0, -errno. */
int node_read(struct tree *t, uint64_t id, struct buf *row, struct node_rec *ret) must_check;

/* content.c */
/* 1 with the manifest's bytes in v's memory, 0 when the content is of no bytes; -ENOENT. */
int manifest_load(struct view *v, const struct node_rec *rec, struct slice *ret) must_check;
/* Where a manifest goes: inline, or into a row of the view. */
int entry_set_manifest(struct view *v, struct outbox_entry *e, struct slice bytes) must_check;
/* apply.c: the row gets the manifest of the entry's content, which is rec->attr.content. */
int entry_get_manifest(
	struct view *v, const struct outbox_entry *e, struct node_rec *rec) must_check;
struct row_key key_digest(const struct digest *d);
/* A content id as the tree has it: zero for no bytes. */
struct digest content_normal(const struct digest *content);

/* revive.c: deleted nodes come back, because somebody wrote to them. */
struct reviver {
	struct tree *tree;
	struct view *view;
	int (*emit)(void *ctx, struct outbox_entry *e);
	void *ctx;
};
/* What is known of a node that is not in the view: 1, 0. */
int dead_node(struct view *v, uint64_t node, struct node_rec *ret) must_check;
/*
 * The directory to use for `dir`: itself, after it and its parents were brought back if need be;
 * what took its name, if that is a directory; the root when nothing is known of it.
 */
int revive_dir(const struct reviver *rv, uint64_t dir, int64_t time_ns, uint64_t *ret) must_check;
/* Brings a node back under a name (or its conflict name), with the attributes in rec. */
int revive_node(const struct reviver *rv, uint64_t node, const struct node_rec *rec,
	uint64_t parent, struct slice name, int64_t time_ns) must_check;

/* conflict.c */
enum conflict_kind { /* stored: only append */
	CONFLICT_WRITE_WRITE = 1,
	CONFLICT_NAME_TAKEN = 2,
	CONFLICT_WRITE_DELETE = 3,
	CONFLICT_DELETE_WRITE = 4,
	CONFLICT_RENAME_RENAME = 5,
	CONFLICT_RENAME_DELETE = 6,
	CONFLICT_LOOP = 7,
	CONFLICT_KIND_LAST = CONFLICT_LOOP,
};
int conflict_put(struct view *v, uint64_t number, const struct conflict_rec *rec) must_check;
int conflict_load(struct tree *t) must_check;
/* A conflict name that is free in the directory, in v's memory. */
int conflict_name_free(struct tree *t, struct view *v, uint64_t parent, struct slice name,
	int64_t time_ns, struct slice *ret) must_check;

/* graves.c: where deleted directories were, so that what is written below them finds back. */
int grave_put(struct view *v, uint64_t node, struct slice row) must_check;
int grave_get(struct view *v, uint64_t node, struct node_rec *ret) must_check;

/* events.c */
struct events {
	struct tree_event *list;
	size_t n;
	size_t cap;
};
void events_done(struct events *ev);
int events_add(struct events *ev, struct tree_event e) must_check;
/* What a view makes different from what was there. The events point into the view. */
int events_of_view(struct view *v, struct events *ev) must_check;
/* Caller holds no lock. */
void events_tell(struct tree *t, const struct events *ev);

/* page.c */
/* Puts the page's rows into the view and checks what comes out. */
struct page;
int page_open(
	struct view *v, const struct changes *c, struct page **ret, struct err *err) must_check;
void page_free(struct page *p);
/*
 * Whether it can be put on the tree as it is (1), or the outbox must be lifted first (0). Rows
 * that are what the server is known to have are passed over from then on.
 */
int page_is_simple(struct page *p, struct view *v, bool outbox_empty) must_check;
int page_put(struct page *p, struct view *v, struct err *err) must_check;

/* rebase.c */
/* What the outbox is after it. */
struct rebased {
	struct soft_times soft;
	uint64_t first; /* 0: empty */
	uint64_t last;
	uint64_t entries;
	uint64_t sent; /* of `entries` */
	uint64_t cut; /* set by the caller: entries from here on are dropped; 0: none */
};
/* to: the page's (NULL: nothing new). Entries of sent commits that it holds are dropped. */
int rebase(struct tree *t, struct view *v, struct page *p, uint64_t to, struct batch *b,
	struct rebased *ret, struct err *err) must_check;

/* resolve.c: the table of conflicts. */
struct replay;
int resolve_entry(struct replay *rp, struct outbox_entry *e) must_check;

/* died.c */
#define DEATHS_MAX COMMIT_CHANGES_MAX
struct death {
	uint64_t node;
	uint64_t entry;
};
struct deaths {
	size_t n;
	struct death list[DEATHS_MAX];
};
/* When the entry is the death of a node. */
void deaths_note(struct deaths *d, const struct outbox_entry *e);
/* Their entries leave the outbox with the batch. */
int deaths_put(struct tree *t, struct batch *b, const struct deaths *d) must_check;
/* Of a node that is not there: 1 when an entry behind `since` deleted it here, 0, -errno. */
int died_here(struct tree *t, uint64_t node, uint64_t since) must_check;

/* ack.c */
int ack_entries(struct tree *t, struct view *v, uint64_t last, struct batch *b,
	uint64_t *ret_count) must_check;

#endif
