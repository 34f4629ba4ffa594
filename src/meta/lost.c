// SPDX-License-Identifier: Apache-2.0
/*
 * After a power loss a row can be there, and the bytes of a chunk that it needs not: the kernel
 * writes back in any order, and RocksDB syncs its log when it likes. A change with such a content
 * must not stay (the file would have no bytes), nor may it go alone (a rename behind it would put
 * an empty file in the place of a whole one). So the outbox is cut before the first of them: the
 * tree is as it was at an instant before the power loss. Nothing that is promised is behind the
 * cut: tree_sync() makes chunks durable before rows. Nor was any of it sent, also of a commit that
 * was in flight: what is sent is durable before.
 */
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>

struct walk {
	struct tree *t;
	const struct buf *lost; /* ids, in order */
	uint64_t from; /* entries up to here were durable before they were sent */
	uint64_t cut; /* 0: none found */
	uint64_t dropped;
};

static int compare_digests(const void *a, const void *b)
{
	return memcmp(a, b, DIGEST_BYTES);
}

static bool is_lost(const struct walk *w, const struct digest *id)
{
	return bsearch(
		id->b, w->lost->data, w->lost->len / DIGEST_BYTES, DIGEST_BYTES, compare_digests);
}

static int manifest_of(struct tree *t, const struct outbox_entry *e, struct manifest **ret)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct slice bytes = e->manifest;
	int r;

	if (e->tag & OUTBOX_CONTENT) {
		r = store_get(t->store, CF_MANIFEST, bytes.p, bytes.n, &row);
		if (r <= 0)
			return r < 0 ? r : -EBADMSG;
		bytes = (struct slice){ row.data, row.len };
	}
	return manifest_decode(bytes.p, bytes.n, ret, NULL);
}

static int visit(void *ctx, struct outbox_entry *e)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	struct walk *w = ctx;
	int r;

	w->dropped += w->cut != 0;
	if (w->cut || e->number <= w->from || !(e->tag & (OUTBOX_MANIFEST | OUTBOX_CONTENT)))
		return 0;
	r = manifest_of(w->t, e, &m);
	if (r < 0)
		return r;
	for (size_t i = 0; i < manifest_count(m) && !w->cut; i++) {
		const struct manifest_entry *part = manifest_at(m, i);

		if (!part->hole && is_lost(w, &part->id))
			w->cut = e->number;
	}
	w->dropped += w->cut != 0;
	return 0;
}

static int forget_lost(struct tree *t)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r = batch_new(t->store, &b);

	if (r < 0)
		return r;
	batch_del(b, CF_STATE, STATE_LOST, strlen(STATE_LOST));
	return store_commit(t->store, b);
}

int tree_drop_lost(struct tree *t, uint64_t *ret_dropped, struct err *err)
{
	_cleanup_buf_ struct buf lost = { 0 };
	struct walk w = { .t = t, .lost = &lost };
	int r = state_get(t->store, STATE_LOST, &lost);

	*ret_dropped = 0;
	if (r > 0 && lost.len % DIGEST_BYTES)
		r = -EBADMSG;
	if (r > 0) {
		qsort(lost.data, lost.len / DIGEST_BYTES, DIGEST_BYTES, compare_digests);
		w.from = sent_last(t, UINT64_MAX);
		r = outbox_each(t, UINT64_MAX, visit, &w);
		r = r < 0 ? r : 1;
	}
	if (r <= 0)
		return r < 0 ? err_sys(err, -r, "read what a power loss took") : 0;
	if (w.cut) {
		r = replica_drop_from(t, w.cut, err);
		*ret_dropped = w.dropped;
	} else {
		r = forget_lost(t);
	}
	return r;
}
