/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree's side towards the server: the outbox as commits, and the merge of remote changes.
 *
 * Invariant: local tree = server's tree at `cursor` + outbox, applied in order. CF_BASE keeps
 * the server's row below each row that the outbox changes. So a remote page is merged by:
 *	1. no row of the page lies under the outbox: put the rows, advance the cursor (usual);
 *	2. otherwise rebase, as git does: take the base rows back, put the page's rows, replay the
 *	   outbox on top, each change by the table of conflicts (it stays, is rewritten, or goes).
 * Either is one batch with the cursor in it.
 *
 * One thread drives these calls (the sync thread); they lock against tree.h's mutations.
 */
#ifndef VARVE_REPLICA_H
#define VARVE_REPLICA_H

#include "meta/tree.h"

uint64_t replica_cursor(struct tree *t);
uint32_t replica_device_number(struct tree *t);

/* Called, under no lock, when an entry was put into the outbox. Must not block. */
void replica_on_outbox(struct tree *t, void (*notify)(void *ctx), void *ctx);

struct outbox_stats {
	uint64_t entries;
	uint64_t first; /* number of the oldest entry; tail + 1 when empty */
	uint64_t tail; /* number of the newest entry ever queued */
};
void replica_outbox_stats(struct tree *t, struct outbox_stats *ret);
/* Blocks until every entry up to `number` is on the server, or the deadline: 0, -ETIMEDOUT. */
int replica_wait(struct tree *t, uint64_t number, int64_t deadline_mono_ms) must_check;

/* A chunk that a commit needs on the server. */
struct needed_chunk {
	struct digest id;
	uint32_t length;
};

/*
 * The commit to send next. The same one (same id, same changes) until its fate is known, also
 * after a crash: its id is stored before it is handed out.
 */
struct outgoing {
	struct commit commit; /* commit.pack is left empty: the uploader fills it */
	struct needed_chunk *chunks; /* of all contents named, each once, those marked left out */
	size_t n_chunks;
	uint64_t last_entry;
	struct buf memory[3]; /* what the slices point into */
	struct slice *slices;
};
void outgoing_done(struct outgoing *o);

/* 1 with the next commit, 0 when the outbox is empty, -errno. */
int replica_next(struct tree *t, struct outgoing *ret) must_check;
/*
 * The server applied it as `seq`; its chunks are marked. When seq is the very next one, the cursor
 * advances, its entries leave the outbox, and base rows become what it made. Otherwise revisions
 * of others lie between: its entries count as sent, and leave with the page that holds them, so
 * the caller pulls. -EINVAL when it is not the commit in flight.
 */
int replica_committed(struct tree *t, const struct outgoing *o, uint64_t seq) must_check;
/*
 * The server refused it. Forgets the in-flight id; the caller pulls to the head and asks
 * replica_next() anew. For REFUSAL_CHUNK it takes the marks off, so that `chunks` lists all.
 */
int replica_refused(
	struct tree *t, const struct outgoing *o, const struct commit_reply *reply) must_check;

/*
 * Merges a page of the feed (page->from must be the cursor). No commit may be in flight. The
 * sink hears of what changed. -EBADMSG when the page contradicts itself or the tree; nothing is
 * applied then.
 */
int replica_apply(struct tree *t, const struct changes *page, struct err *err) must_check;

/*
 * Takes the entries from `number` on out of the outbox, and what they did out of the tree. Only
 * before anybody has seen the tree, and never entries that may have been sent: a commit in flight
 * with one of them was handed out, and did not leave.
 */
int replica_drop_from(struct tree *t, uint64_t number, struct err *err) must_check;

/* A conflict, for `varve conflicts`. */
struct conflict {
	uint64_t number;
	int64_t time_ns;
	const char *kind; /* "write/write", "name taken", ... */
	uint64_t parent;
	struct slice name; /* ours, as it is called now */
	struct slice original; /* the name it was written to */
};
int replica_conflicts(
	struct tree *t, int (*visit)(void *ctx, const struct conflict *c), void *ctx) must_check;

/*
 * "name (conflicted copy, DEVICE, YYYY-MM-DD).ext", cut so that it fits NAME_BYTES_MAX without
 * breaking a UTF-8 sequence; with try > 0 " N" goes before ")". Pure. The date is that of
 * time_ns in UTC. Appends to *ret.
 */
int conflict_name(struct slice name, const char *device, int64_t time_ns, unsigned try,
	struct buf *ret) must_check;

#endif
