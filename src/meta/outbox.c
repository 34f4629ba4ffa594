// SPDX-License-Identifier: Apache-2.0
/*
 * The outbox: entries in CF_OUTBOX by number. An entry and what it changes are one batch.
 */
#include "bytes.h"
#include "clock.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>

int outbox_entry_encode(const struct outbox_entry *e, struct buf *ret)
{
	_cleanup_buf_ struct buf change = { 0 };
	struct outbox_rec rec = { .tag = e->tag };
	int r = change_encode(&e->change, &change);

	if (r < 0)
		return r;
	if (e->tag & (OUTBOX_MANIFEST | OUTBOX_CONTENT))
		rec.manifest = e->manifest;
	rec.change = (struct slice){ change.data, change.len };
	return outbox_encode(&rec, ret);
}

int outbox_entry_decode(
	uint64_t number, struct slice row, struct outbox_entry *ret, struct arena **ret_arena)
{
	struct outbox_rec rec;
	struct outbox_entry e = { .number = number };
	int r = outbox_decode(row, &rec);

	if (r < 0)
		return r;
	e.tag = rec.tag;
	e.manifest = rec.manifest;
	r = change_decode(rec.change.p, rec.change.n, &e.change, ret_arena, NULL);
	if (r == 0)
		*ret = e;
	return r;
}

int outbox_begin(struct outbox_writer *w, struct tree *t, struct view *v, struct batch *b)
{
	*w = (struct outbox_writer){ .tree = t, .view = v, .batch = b };
	return b ? 0 : batch_new(t->store, &w->own);
}

void outbox_writer_done(struct outbox_writer *w)
{
	free(w->list);
	batch_free(w->own);
}

static int remember(struct outbox_writer *w, const struct outbox_entry *e)
{
	if (w->n == w->cap) {
		size_t cap = w->cap ? w->cap * 2 : 4;
		struct outbox_entry *list = reallocarray(w->list, cap, sizeof *list);

		if (!list)
			return -ENOMEM;
		w->list = list;
		w->cap = cap;
	}
	w->list[w->n++] = *e;
	return 0;
}

int outbox_add(struct outbox_writer *w, struct outbox_entry *e)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct tree *t = w->tree;
	struct row_key k;
	int r;

	e->number = t->tail + (w->n + 1) * ENTRY_STRIDE;
	k = key_id(e->number);
	{
		SCOPED_LOCK(&t->soft_lock);
		r = apply_entry(w->view, &t->soft, e);
	}
	if (r == 0)
		r = outbox_entry_encode(e, &row);
	if (r == 0)
		r = remember(w, e);
	if (r == 0)
		batch_put(w->batch ? w->batch : w->own, CF_OUTBOX, k.b, k.n, row.data, row.len);
	return r;
}

/* The entries are in the store. A table that has no memory for a time costs only that time. */
static void queued(struct tree *t, const struct outbox_entry *e, size_t n)
{
	SCOPED_LOCK(&t->soft_lock);

	for (size_t i = 0; i < n; i++)
		(void)!soft_note(&t->soft, &e[i].change, e[i].number);
	t->tail += n * ENTRY_STRIDE;
	t->entries += n;
}

int outbox_end(struct outbox_writer *w)
{
	struct batch *b = w->batch ? w->batch : w->own;
	int r = view_emit(w->view, b);

	if (r == 0)
		r = store_commit(w->tree->store, b);
	if (r == 0)
		queued(w->tree, w->list, w->n);
	return r;
}

int outbox_commit(struct tree *t, struct view *v, struct outbox_entry *e, size_t n)
{
	_cleanup_outbox_writer_ struct outbox_writer w;
	int r = outbox_begin(&w, t, v, NULL);

	for (size_t i = 0; i < n && r == 0; i++)
		r = outbox_add(&w, &e[i]);
	return r < 0 ? r : outbox_end(&w);
}

void outbox_notify(struct tree *t)
{
	if (t->notify)
		t->notify(t->notify_ctx);
}

int outbox_each(
	struct tree *t, uint64_t last, int (*visit)(void *ctx, struct outbox_entry *e), void *ctx)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	/* What left the outbox is a long run of deleted entries: the walk begins behind it. */
	struct row_key first = key_id(t->acked + 1);
	int r = store_iter_new(t->store, CF_OUTBOX, NULL, 0, &it);

	if (r < 0)
		return r;
	for (store_iter_seek(it, first.b, first.n); (r = store_iter_valid(it)) > 0;
		store_iter_next(it)) {
		_cleanup_arena_ struct arena *arena = NULL;
		struct outbox_entry e;
		uint64_t number;

		r = key_id_parse(store_iter_key(it), &number);
		if (r == 0 && number > last)
			return 0;
		if (r == 0)
			r = outbox_entry_decode(number, store_iter_value(it), &e, &arena);
		if (r == 0)
			r = visit(ctx, &e);
		if (r)
			return r;
	}
	return r;
}

struct load {
	struct tree *t;
	uint64_t first;
};

static int load_entry(void *ctx, struct outbox_entry *e)
{
	struct load *l = ctx;

	if (l->t->entries == 0)
		l->first = e->number;
	l->t->entries++;
	l->t->sent_entries += e->number <= sent_last(l->t, UINT64_MAX);
	l->t->tail = e->number;
	return soft_note(&l->t->soft, &e->change, e->number);
}

int outbox_load(struct tree *t, struct err *err)
{
	struct load l = { .t = t };
	uint64_t acked = 0;
	int r = state_get_u64(t->store, STATE_ACKED, &acked);

	tree_set_acked(t, acked);
	if (r >= 0)
		r = outbox_each(t, UINT64_MAX, load_entry, &l);
	if (r < 0)
		return err_sys(err, -r, "read the outbox");
	t->tail = MAX(t->tail, acked);
	tree_set_acked(t, t->entries ? MAX(acked, l.first - 1) : t->tail);
	return 0;
}

void replica_outbox_stats(struct tree *t, struct outbox_stats *ret)
{
	SCOPED_LOCK(&t->lock);

	ret->entries = t->entries - t->sent_entries;
	ret->first = t->done + 1;
	ret->tail = t->tail;
}

void replica_on_outbox(struct tree *t, void (*notify)(void *ctx), void *ctx)
{
	SCOPED_LOCK(&t->lock);

	t->notify = notify;
	t->notify_ctx = ctx;
}

int replica_wait(struct tree *t, uint64_t number, int64_t deadline_mono_ms)
{
	struct timespec until = {
		.tv_sec = deadline_mono_ms / MS_PER_S,
		.tv_nsec = deadline_mono_ms % MS_PER_S * NS_PER_MS,
	};
	int r = 0;

	SCOPED_LOCK(&t->wait_lock);
	while (t->done < number && r == 0)
		r = pthread_cond_timedwait(&t->wait_cond, &t->wait_lock, &until);
	return t->done >= number ? 0 : -ETIMEDOUT;
}
