// SPDX-License-Identifier: Apache-2.0
/*
 * Commits out, pages in. Life of the commit that is under way:
 *
 *	        replica_next(): id stored, then handed out
 *	none ──────────────────────────────────────────────► in flight ─┐ replica_next() again,
 *	 ▲                                                      │  ▲────┘ a restart: the same one
 *	 │  replica_committed(): entries leave, with the id     │
 *	 │  replica_refused(): the id goes, entries stay        │
 *	 └──────────────────────────────────────────────────────┘
 *
 * replica_apply() rewrites entries, so it is only for "none".
 */
#include "fault.h"
#include "meta/sealed.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>

static int make_simple(
	struct tree *t, struct view *v, struct page *p, struct batch *b, struct err *err)
{
	int r = page_put(p, v, err);

	if (r == 0)
		view_emit_raw(v, b);
	return r;
}

static int advance(struct tree *t, struct batch *b, uint64_t cursor)
{
	int r = sent_put(t, b, cursor, NULL);

	state_put_u64(b, STATE_CURSOR, cursor);
	if (r == 0)
		r = store_commit(t->store, b);
	if (r == 0)
		t->cursor = cursor;
	return r;
}

static void take_rebased(struct tree *t, struct rebased *rb)
{
	struct soft_times old = t->soft;

	t->tail = MAX(rb->cut ? rb->cut - 1 : t->tail, rb->last);
	t->entries = rb->entries;
	t->sent_entries = rb->sent;
	(void)!sent_set(t, t->cursor, NULL); /* shrinks: cannot fail for want of memory */
	{
		SCOPED_LOCK(&t->soft_lock);
		t->soft = rb->soft;
	}
	rb->soft = old;
	tree_set_acked(t, rb->entries ? rb->first - 1 : t->tail);
}

struct soft_events {
	struct events *ev;
	int r;
};

static void add_soft_event(void *ctx, uint64_t dir)
{
	struct soft_events *se = ctx;

	if (se->r == 0)
		se->r = events_add(se->ev, (struct tree_event){ TREE_ATTR, dir });
}

static int apply_rebase(struct tree *t, struct view *v, struct page *p, struct batch *b,
	uint64_t cursor, uint64_t cut, struct events *ev, struct err *err)
{
	struct soft_events se = { .ev = ev };
	struct rebased rb = { .cut = cut };
	uint64_t tail, acked;
	int r = rebase(t, v, p, cursor, b, &rb, err);

	tail = MAX(rb.cut ? rb.cut - 1 : t->tail, rb.last);
	acked = rb.entries ? rb.first - 1 : tail;
	if (r == 0) {
		soft_each(&t->soft, add_soft_event, &se);
		r = se.r;
	}
	if (r == 0)
		r = events_of_view(v, ev);
	if (r == 0) {
		state_put_u64(b, STATE_ACKED, acked);
		fault_instant("replica.rebase");
		r = advance(t, b, cursor);
		fault_instant("replica.rebased");
	}
	if (r == 0)
		take_rebased(t, &rb);
	soft_done(&rb.soft);
	return r;
}

static int apply_simple(struct tree *t, struct view *v, struct page *p, struct batch *b,
	uint64_t cursor, struct events *ev, struct err *err)
{
	int r = make_simple(t, v, p, b, err);

	if (r == 0)
		r = events_of_view(v, ev);
	if (r < 0)
		return r;
	fault_instant("replica.pull");
	r = advance(t, b, cursor);
	fault_instant("replica.pulled");
	return r;
}

/* One page on its way in. */
struct applying {
	struct tree *t;
	struct view *v;
	struct batch *b;
	const struct changes *c;
	struct events *ev;
	struct err *err;
};

/* `lift`: the outbox is taken off first, whether it seems to be needed or not. */
static int apply_page(const struct applying *a, bool lift)
{
	struct tree *t = a->t;
	struct page *p = NULL;
	int r;

	tree_view(t, a->v);
	r = page_open(a->v, a->c, &p, a->err);
	if (r < 0)
		return r;
	r = lift ? 0 : page_is_simple(p, a->v, t->entries == 0);
	if (r > 0)
		r = apply_simple(t, a->v, p, a->b, a->c->to, a->ev, a->err);
	else if (r == 0)
		r = apply_rebase(t, a->v, p, a->b, a->c->to, 0, a->ev, a->err);
	page_free(p);
	return r;
}

static int apply_locked(struct applying *a)
{
	_cleanup_batch_ struct batch *b = NULL;
	struct tree *t = a->t;
	bool lift;
	int r;

	SCOPED_LOCK(&t->lock);
	if (t->inflight.any)
		return err_set(a->err, EBUSY, "a commit is in flight");
	if (a->c->from != t->cursor)
		return err_set(a->err, EINVAL, "the page begins at %llu, the cursor is %llu",
			(unsigned long long)a->c->from, (unsigned long long)t->cursor);
	r = batch_new(t->store, &b);
	if (r < 0)
		return r;
	a->b = b;
	lift = sent_last(t, a->c->to);
	r = apply_page(a, lift);
	/* They took one name of a node and we the other: no row collides, and still it is ours. */
	if (r == -EBADMSG && !lift && t->entries) {
		view_done(a->v);
		r = apply_page(a, true);
	}
	return r;
}

struct drop {
	struct batch *b;
	uint64_t from;
};

static int drop_sealed(void *ctx, const struct sealed *s)
{
	struct drop *d = ctx;

	if (s->entry >= d->from)
		sealed_del(d->b, s->staging);
	return 0;
}

static int drop_locked(struct tree *t, uint64_t number, struct events *ev, struct err *err)
{
	_cleanup_batch_ struct batch *b = NULL;
	_cleanup_view_ struct view v = { 0 };
	int r = batch_new(t->store, &b);

	if (r == 0)
		r = sealed_each(t->store, drop_sealed, &(struct drop){ b, number });
	if (r < 0)
		return err_sys(err, -r, "drop changes");
	batch_del(b, CF_STATE, STATE_LOST, strlen(STATE_LOST));
	if (t->inflight.any && t->inflight.last_entry >= number)
		inflight_clear(b);
	tree_view(t, &v);
	r = apply_rebase(t, &v, NULL, b, t->cursor, number, ev, err);
	if (r == 0 && t->inflight.last_entry >= number)
		t->inflight.any = false;
	return r;
}

int replica_drop_from(struct tree *t, uint64_t number, struct err *err)
{
	struct events ev = { 0 };
	int r;

	{
		SCOPED_LOCK(&t->lock);
		r = drop_locked(t, number, &ev, err);
	}
	events_done(&ev);
	return r;
}

int replica_apply(struct tree *t, const struct changes *page, struct err *err)
{
	_cleanup_view_ struct view v = { 0 };
	struct events ev = { 0 };
	struct applying a = { .t = t, .v = &v, .c = page, .ev = &ev, .err = err };
	int r = apply_locked(&a);

	if (r == 0)
		events_tell(t, &ev);
	events_done(&ev);
	return r;
}

static int mark_chunks(struct tree *t, const struct outgoing *o, struct batch *b)
{
	_cleanup_free_ struct digest *ids = calloc(o->n_chunks + 1, sizeof *ids);

	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < o->n_chunks; i++)
		ids[i] = o->chunks[i].id;
	return t->cache ? cache_mark_on_server(t->cache, b, ids, o->n_chunks) : 0;
}

/* The very next revision: what it changed is what the server has. */
static int committed_next(struct tree *t, struct batch *b)
{
	_cleanup_view_ struct view v;
	uint64_t last = t->inflight.last_entry, count;
	int r;

	tree_view(t, &v);
	r = ack_entries(t, &v, last, b, &count);
	if (r < 0)
		return r;
	view_emit_raw(&v, b);
	state_put_u64(b, STATE_ACKED, last);
	fault_instant("replica.ack");
	r = advance(t, b, t->cursor + 1);
	fault_instant("replica.acked");
	if (r < 0)
		return r;
	t->entries -= count;
	{
		SCOPED_LOCK(&t->soft_lock);
		soft_forget(&t->soft, last);
	}
	tree_set_acked(t, last);
	return 0;
}

static int count_entry(void *ctx, struct outbox_entry *e)
{
	++*(uint64_t *)ctx;
	return 0;
}

/* Behind revisions that are not here yet: a page will bring both. */
static int committed_later(struct tree *t, struct batch *b, uint64_t seq)
{
	struct sent add = { seq, t->inflight.last_entry };
	uint64_t count = 0;
	int r = outbox_each(t, add.last_entry, count_entry, &count);

	if (r == 0)
		r = sent_put(t, b, 0, &add);
	fault_instant("replica.sent");
	if (r == 0)
		r = store_commit(t->store, b);
	if (r == 0)
		r = sent_set(t, 0, &add);
	if (r < 0)
		return r;
	t->sent_entries = count;
	tree_set_acked(t, t->acked);
	return 0;
}

int replica_committed(struct tree *t, const struct outgoing *o, uint64_t seq)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r;

	SCOPED_LOCK(&t->lock);
	if (!t->inflight.any || memcmp(t->inflight.id, o->commit.id, COMMIT_ID_BYTES) != 0)
		return -EINVAL;
	if (seq <= t->cursor)
		return -EBADMSG;
	r = batch_new(t->store, &b);
	if (r == 0)
		r = mark_chunks(t, o, b);
	if (r < 0)
		return r;
	inflight_clear(b);
	r = seq == t->cursor + 1 ? committed_next(t, b) : committed_later(t, b, seq);
	if (r == 0)
		t->inflight.any = false;
	return r;
}

static int unmark(struct tree *t, const struct slice *content)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	_cleanup_free_ struct digest *ids = NULL;
	size_t n = 0;
	int r = manifest_decode(content->p, content->n, &m, NULL);

	if (r < 0)
		return r;
	ids = calloc(manifest_count(m) + 1, sizeof *ids);
	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < manifest_count(m); i++) {
		if (!manifest_at(m, i)->hole)
			ids[n++] = manifest_at(m, i)->id;
	}
	return cache_unmark(t->cache, ids, n);
}

int replica_refused(struct tree *t, const struct outgoing *o, const struct commit_reply *reply)
{
	_cleanup_batch_ struct batch *b = NULL;
	bool chunks = false;
	int r = 0;

	for (size_t i = 0; i < reply->n_refused; i++)
		chunks = chunks || reply->refused[i].reason == REFUSAL_CHUNK;
	SCOPED_LOCK(&t->lock);
	for (size_t i = 0; i < o->commit.n_contents && chunks && t->cache && r == 0; i++)
		r = unmark(t, &o->commit.contents[i]);
	if (r == 0)
		r = batch_new(t->store, &b);
	if (r < 0)
		return r;
	inflight_clear(b);
	fault_instant("replica.refused");
	r = store_commit(t->store, b);
	if (r == 0)
		t->inflight.any = false;
	return r;
}
