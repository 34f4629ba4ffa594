// SPDX-License-Identifier: Apache-2.0
/*
 * The local tree is the server's tree with the outbox on top. So what the server cannot give us
 * is named by the outbox; nodes that it names are looked at as well, in case a content came to
 * one in another way.
 */
#include "meta/unsent.h"

#include "meta/tree_internal.h"

#include <errno.h>

struct walk {
	struct tree *t;
	int (*visit)(void *ctx, const struct digest *id, uint32_t length);
	void *ctx;
	struct digest last; /* contents often come several times in a row */
};

int manifest_visit_chunks(const struct manifest *m,
	int (*visit)(void *ctx, const struct digest *id, uint32_t length), void *ctx)
{
	for (size_t i = 0; i < manifest_count(m); i++) {
		const struct manifest_entry *e = manifest_at(m, i);
		int r = e->hole ? 0 : visit(ctx, &e->id, (uint32_t)e->length);

		if (r < 0)
			return r;
	}
	return 0;
}

static int visit_bytes(struct walk *w, struct slice bytes)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	int r = manifest_decode(bytes.p, bytes.n, &m, NULL);

	if (r < 0 || digest_eq(manifest_content_id(m), &w->last))
		return r;
	w->last = *manifest_content_id(m);
	return manifest_visit_chunks(m, w->visit, w->ctx);
}

/* Manifests' rows are never taken away, so one that is missing is damage. */
static int visit_content(struct walk *w, const void *content)
{
	_cleanup_buf_ struct buf row = { 0 };
	int r;

	if (memcmp(content, w->last.b, DIGEST_BYTES) == 0)
		return 0;
	r = store_get(w->t->store, CF_MANIFEST, content, DIGEST_BYTES, &row);
	if (r <= 0)
		return r < 0 ? r : -EBADMSG;
	return visit_bytes(w, (struct slice){ row.data, row.len });
}

static int visit_node(struct walk *w, uint64_t node)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct node_rec rec;
	int r = node_read(w->t, node, &row, &rec);

	if (r <= 0)
		return r;
	if (digest_is_zero(&rec.attr.content))
		return 0;
	if (rec.tag & NODE_INLINE_MANIFEST)
		return visit_bytes(w, rec.payload);
	return visit_content(w, rec.attr.content.b);
}

static int visit_entry(void *ctx, struct outbox_entry *e)
{
	struct walk *w = ctx;
	int r = 0;

	if (e->tag & OUTBOX_MANIFEST)
		r = visit_bytes(w, e->manifest);
	else if (e->tag & OUTBOX_CONTENT)
		r = e->manifest.n == DIGEST_BYTES ? visit_content(w, e->manifest.p) : -EBADMSG;
	return r < 0 ? r : visit_node(w, e->change.node);
}

int replica_visit_unsent_chunks(struct tree *t,
	int (*visit)(void *ctx, const struct digest *id, uint32_t length), void *ctx)
{
	struct walk w = { .t = t, .visit = visit, .ctx = ctx };

	return outbox_each(t, UINT64_MAX, visit_entry, &w);
}
