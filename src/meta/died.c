// SPDX-License-Identifier: Apache-2.0
/*
 * Files that were deleted on this device. Until the server has a deletion, its outbox entry says
 * so; STATE_DIED holds the last ones that have left the outbox: node and number of the entry (le64
 * each), oldest first. It is for who has bytes of a node that is not there: deleted elsewhere it
 * comes back with them, deleted here it must not. Between a deletion and the end of such bytes lies
 * a moment, or a crash in it.
 */
#include "bytes.h"
#include "meta/tree_internal.h"

#include <errno.h>

#define DEATH_BYTES 16
/* More than one commit can have: what is older was settled long ago. */
#define KEPT_MAX ((size_t)DEATHS_MAX)

static int load(struct tree *t, struct buf *ret)
{
	int r = state_get(t->store, STATE_DIED, ret);

	return r > 0 && ret->len % DEATH_BYTES ? -EBADMSG : MIN(r, 0);
}

void deaths_note(struct deaths *d, const struct outbox_entry *e)
{
	bool rename = e->change.kind == CHANGE_RENAME;

	if (e->tag & OUTBOX_DIED && d->n < DEATHS_MAX)
		d->list[d->n++] = (struct death){
			rename ? e->change.victim : e->change.node,
			e->number,
		};
}

int deaths_put(struct tree *t, struct batch *b, const struct deaths *d)
{
	_cleanup_buf_ struct buf row = { 0 };
	size_t skip;
	int r = d->n ? load(t, &row) : 0;

	for (size_t i = 0; i < d->n && r == 0; i++) {
		uint8_t bytes[DEATH_BYTES];

		put_le64(bytes, d->list[i].node);
		put_le64(bytes + 8, d->list[i].entry);
		r = buf_append(&row, bytes, sizeof bytes);
	}
	if (d->n == 0 || r < 0)
		return r;
	skip = row.len > DEATH_BYTES * KEPT_MAX ? row.len - DEATH_BYTES * KEPT_MAX : 0;
	batch_put(b, CF_STATE, STATE_DIED, strlen(STATE_DIED), row.data + skip, row.len - skip);
	return 0;
}

struct search {
	uint64_t node;
	uint64_t since;
};

static int is_death(void *ctx, struct outbox_entry *e)
{
	const struct search *s = ctx;
	struct deaths d;

	d.n = 0;
	deaths_note(&d, e);
	return d.n && d.list[0].node == s->node && e->number > s->since;
}

int died_here(struct tree *t, uint64_t node, uint64_t since)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct search s = { node, since };
	int r = outbox_each(t, UINT64_MAX, is_death, &s);

	if (r)
		return r;
	r = load(t, &row);
	for (size_t i = 0; i < row.len && r == 0; i += DEATH_BYTES)
		r = get_le64(row.data + i) == node && get_le64(row.data + i + 8) > since;
	return r;
}
