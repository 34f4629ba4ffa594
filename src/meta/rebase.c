// SPDX-License-Identifier: Apache-2.0
/*
 * A rebase, in one view:
 *	(lifted) every row is what the server had at the cursor: base rows; rows that only the
 *		outbox made are gone,
 *	before	the same, and commits of ours that the page holds, too: what the changes that are
 *		still to be sent were made upon,
 *	theirs	the page's rows are put,
 *	now	the outbox is replayed on top, entry by entry.
 */
#include "meta/replay.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

static int restore_node(struct view *v, uint64_t id, struct slice base)
{
	struct node_rec rec, have = { 0 };
	int r = node_decode(base, &rec);

	if (r == 0)
		r = view_node(v, id, &have);
	if (r < 0)
		return r;
	rec.links = have.links;
	rec.subdirs = have.subdirs;
	rec.parent = have.parent;
	rec.name = have.name;
	return view_put_node(v, id, &rec, 0);
}

static int restore_link(struct view *v, struct slice key, const struct base_rec *base)
{
	struct link_rec rec = { 0 };
	struct slice name;
	uint64_t parent;
	int r = key_link_parse(key, &parent, &name);

	if (r == 0 && base->present)
		r = link_decode(base->row, &rec);
	return r < 0 ? r : view_set_link(v, parent, name, rec.node, 0);
}

static int restore_xattr(struct view *v, const struct row_key *k, const struct base_rec *base)
{
	if (base->present)
		return view_put(v, CF_XATTR, k, base->row.p, base->row.n, 0);
	return view_del(v, CF_XATTR, k, 0);
}

static int restore_row(
	struct view *v, enum store_cf cf, struct slice key, const struct base_rec *base)
{
	struct row_key k = { .n = key.n };
	uint64_t id;
	int r;

	memcpy(k.b, key.p, key.n);
	if (cf == CF_LINK)
		return restore_link(v, key, base);
	if (cf == CF_XATTR)
		return restore_xattr(v, &k, base);
	r = key_id_parse(key, &id);
	if (r < 0)
		return r;
	return base->present ? restore_node(v, id, base->row) : view_del(v, CF_NODE, &k, 0);
}

static int mark_based(struct view *v, enum store_cf cf, struct slice key)
{
	struct row_key k = { .n = key.n };
	struct view_row *row;
	int r;

	memcpy(k.b, key.p, key.n);
	r = view_row(v, cf, &k, &row);
	if (r == 0)
		row->based = true;
	return r;
}

/* Base rows of one family, present or absent ones. */
struct pass {
	enum store_cf cf;
	bool present;
};

static int restore_pass(struct view *v, struct pass pass, struct batch *b)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_iter_new(v->store, CF_BASE, NULL, 0, &it);

	if (r < 0)
		return r;
	for (store_iter_seek(it, "", 0); (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct slice full = store_iter_key(it), key;
		struct base_rec base;
		enum store_cf cf;

		r = key_of_base(full, &cf, &key);
		if (r == 0)
			r = base_decode(store_iter_value(it), &base);
		if (r == 0 && b)
			r = mark_based(v, cf, key);
		if (r == 0 && b)
			batch_del(b, CF_BASE, full.p, full.n);
		if (r == 0 && !b && cf == pass.cf && base.present == pass.present)
			r = restore_row(v, cf, key, &base);
		if (r < 0)
			return r;
	}
	return r;
}

/* A row that the outbox made, and the server knows nothing of. */
static int local_only(
	struct view *v, enum store_cf cf, const struct row_key *k, struct view_row **ret)
{
	int r = view_row(v, cf, k, ret);

	return r < 0 ? r : !(*ret)->based && view_dirty(v, (*ret)->old);
}

static int lift_link(struct view *v, uint64_t parent, struct slice name)
{
	struct row_key k = key_link(parent, name);
	struct view_row *row;
	int r = local_only(v, CF_LINK, &k, &row);

	return r > 0 ? view_set_link(v, parent, name, 0, 0) : r;
}

static int lift_names(void *ctx, struct outbox_entry *e)
{
	const struct change *c = &e->change;
	int r = 0;

	if (c->kind == CHANGE_CREATE || c->kind == CHANGE_LINK || c->kind == CHANGE_RENAME)
		r = lift_link(ctx, c->parent, c->name);
	if (r == 0 && c->kind == CHANGE_RENAME)
		r = lift_link(ctx, c->new_parent, c->new_name);
	return r;
}

static int lift_xattr(struct view *v, uint64_t node, struct slice name)
{
	struct row_key k = key_child(node, name);
	struct view_row *row;
	int r = local_only(v, CF_XATTR, &k, &row);

	return r > 0 ? view_del(v, CF_XATTR, &k, 0) : r;
}

static int lift_nodes(void *ctx, struct outbox_entry *e)
{
	const struct change *c = &e->change;
	struct view *v = ctx;
	struct view_row *row;
	int r = 0;

	for (size_t i = 0; i < c->n_xattrs && r == 0; i++)
		r = lift_xattr(v, c->node, c->xattrs[i].name);
	if (r == 0 && c->kind == CHANGE_SETXATTR)
		r = lift_xattr(v, c->node, c->xattr.name);
	if (r == 0 && c->kind == CHANGE_CREATE) {
		struct row_key k = key_id(c->node);

		r = local_only(v, CF_NODE, &k, &row);
		if (r > 0)
			r = view_del(v, CF_NODE, &k, 0);
	}
	return r;
}

/*
 * To the server's state at the cursor. The order keeps what links derive right: nodes are there
 * before names lead to them, and go after the last name did.
 */
static int restore(struct tree *t, struct view *v, struct batch *b)
{
	static const struct pass passes[] = {
		{ CF_NODE, true },
		{ CF_LINK, false },
		{ CF_LINK, true },
		{ CF_XATTR, false },
		{ CF_XATTR, true },
	};
	int r = restore_pass(v, (struct pass){ 0 }, b);

	if (r == 0)
		r = restore_pass(v, passes[0], NULL);
	if (r == 0)
		r = outbox_each(t, UINT64_MAX, lift_names, v);
	for (size_t i = 1; i < ARRAY_SIZE(passes) && r == 0; i++)
		r = restore_pass(v, passes[i], NULL);
	if (r == 0)
		r = restore_pass(v, (struct pass){ CF_NODE, false }, NULL);
	return r < 0 ? r : outbox_each(t, UINT64_MAX, lift_nodes, v);
}

static int store_entry(struct replay *rp, const struct outbox_entry *e)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct row_key k = key_id(e->number);
	int r = outbox_entry_encode(e, &row);

	if (r < 0)
		return r;
	if (e->number == rp->number)
		rp->kept = true;
	return view_put(rp->view, CF_OUTBOX, &k, row.data, row.len, 0);
}

int replay_emit(struct replay *rp, struct outbox_entry *e, bool last)
{
	int r;

	e->tag &= (uint8_t)~OUTBOX_DIED;
	e->number = last ? MAX(rp->number, rp->prev + 1) : rp->prev + 1;
	r = apply_entry(rp->view, &rp->out->soft, e);
	if (r == 0)
		r = soft_note(&rp->out->soft, &e->change, e->number);
	if (r == 0)
		r = store_entry(rp, e);
	if (r < 0)
		return r;
	rp->prev = e->number;
	if (rp->out->entries++ == 0)
		rp->out->first = e->number;
	rp->out->last = e->number;
	rp->out->sent += e->number <= rp->sent_last;
	return 0;
}

static int replay_entry(void *ctx, struct outbox_entry *e)
{
	struct replay *rp = ctx;
	uint64_t number = e->number;
	struct row_key k = key_id(number);
	bool overrun = rp->prev >= number;
	int r = 0;

	if (rp->cut && number >= rp->cut)
		return view_del(rp->view, CF_OUTBOX, &k, 0);
	rp->number = number;
	rp->kept = false;
	if (number > rp->drop_last)
		r = resolve_entry(rp, e);
	/* Numbers of sent entries stay theirs alone: what is behind them has to be sent. */
	if (number <= rp->sent_last)
		rp->prev = MAX(rp->prev, number);
	if (r < 0 || rp->kept)
		return r;
	deaths_note(rp->deaths, e);
	if (overrun)
		return r;
	return view_del(rp->view, CF_OUTBOX, &k, 0);
}

static int apply_sent(void *ctx, struct outbox_entry *e)
{
	static const struct soft_times none;

	return apply_entry(ctx, &none, e);
}

/* What others changed is told against what we had sent, not against what was there before. */
static int mark_before(struct replay *rp)
{
	int r;

	view_mark_theirs(rp->view);
	if (rp->drop_last == 0) {
		view_mark_before(rp->view);
		return 0;
	}
	r = outbox_each(rp->tree, rp->drop_last, apply_sent, rp->view);
	for (struct view_row *row = rp->view->rows; row; row = row->hh.next) {
		row->before = row->now;
		row->now = row->theirs;
		row->entry = 0;
	}
	return r;
}

static void replay_done(struct replay *rp)
{
	struct replay_node *node, *next_node;
	struct replay_name *name, *next_name;

	HASH_ITER (hh, rp->nodes, node, next_node) {
		HASH_DEL(rp->nodes, node);
		free(node);
	}
	HASH_ITER (hh, rp->names, name, next_name) {
		HASH_DEL(rp->names, name);
		free(name);
	}
}

int rebase(struct tree *t, struct view *v, struct page *p, uint64_t to, struct batch *b,
	struct rebased *ret, struct err *err)
{
	_cleanup_free_ struct deaths *deaths = calloc(1, sizeof *deaths);
	_cleanup_(replay_done) struct replay rp = {
		.deaths = deaths,
		.tree = t,
		.view = v,
		.batch = b,
		.out = ret,
		.prev = t->acked,
		.cut = ret->cut,
		.drop_last = sent_last(t, to),
		.sent_last = sent_last(t, UINT64_MAX),
	};
	int r = deaths ? restore(t, v, b) : -ENOMEM;

	if (r < 0)
		return err_sys(err, -r, "lift the outbox");
	r = mark_before(&rp);
	if (r < 0)
		return err_sys(err, -r, "replay what was sent");
	r = p ? page_put(p, v, err) : 0;
	if (r < 0)
		return r;
	view_mark_theirs(v);
	r = outbox_each(t, UINT64_MAX, replay_entry, &rp);
	if (r == 0)
		r = deaths_put(t, b, deaths);
	if (r == 0)
		r = view_emit_rebased(v, b);
	if (r == 0)
		t->conflict_tail += rp.conflicts;
	return r < 0 ? err_sys(err, -r, "replay the outbox") : 0;
}
