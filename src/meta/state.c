// SPDX-License-Identifier: Apache-2.0
/*
 * Single values in CF_STATE: numbers are le64; "format" is FORMAT_VERSION; "drive" the public id;
 * "inflight": commit id (16 bytes), base, last entry (le64 each); "sent": seq and last entry
 * (le64 each) of each commit.
 */
#include "bytes.h"
#include "fault.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>

#define INFLIGHT_BYTES (COMMIT_ID_BYTES + 16)
#define SENT_BYTES 16

int state_get(struct store *st, const char *name, struct buf *ret)
{
	return store_get(st, CF_STATE, name, strlen(name), ret);
}

int state_get_u64(struct store *st, const char *name, uint64_t *ret)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = state_get(st, name, &b);

	if (r <= 0)
		return r;
	if (b.len != 8)
		return -EBADMSG;
	*ret = get_le64(b.data);
	return 1;
}

void state_put_u64(struct batch *b, const char *name, uint64_t value)
{
	uint8_t bytes[8];

	put_le64(bytes, value);
	batch_put(b, CF_STATE, name, strlen(name), bytes, sizeof bytes);
}

int inflight_load(struct tree *t)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = state_get(t->store, STATE_INFLIGHT, &b);

	if (r <= 0)
		return r;
	if (b.len != INFLIGHT_BYTES)
		return -EBADMSG;
	t->inflight.any = true;
	memcpy(t->inflight.id, b.data, COMMIT_ID_BYTES);
	t->inflight.base = get_le64(b.data + COMMIT_ID_BYTES);
	t->inflight.last_entry = get_le64(b.data + COMMIT_ID_BYTES + 8);
	return 0;
}

void inflight_put(struct batch *b, const struct inflight *in)
{
	uint8_t bytes[INFLIGHT_BYTES];

	memcpy(bytes, in->id, COMMIT_ID_BYTES);
	put_le64(bytes + COMMIT_ID_BYTES, in->base);
	put_le64(bytes + COMMIT_ID_BYTES + 8, in->last_entry);
	batch_put(b, CF_STATE, STATE_INFLIGHT, strlen(STATE_INFLIGHT), bytes, sizeof bytes);
}

void inflight_clear(struct batch *b)
{
	batch_del(b, CF_STATE, STATE_INFLIGHT, strlen(STATE_INFLIGHT));
}

static int reserve_counters(struct tree *t)
{
	_cleanup_batch_ struct batch *b = NULL;
	uint64_t end = t->counter + COUNTER_STEP;
	int r;

	if (end >> NODE_DEVICE_SHIFT)
		return -ENOSPC;
	r = batch_new(t->store, &b);
	if (r < 0)
		return r;
	state_put_u64(b, STATE_COUNTER, end);
	r = store_commit(t->store, b);
	fault_instant("tree.reserved");
	if (r == 0)
		t->counter_end = end;
	return r;
}

int node_id_next(struct tree *t, uint64_t *ret)
{
	int r = t->counter < t->counter_end ? 0 : reserve_counters(t);

	if (r == 0)
		*ret = node_id(t->device_number, t->counter++);
	return r;
}

int sent_load(struct tree *t)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = state_get(t->store, STATE_SENT, &b);

	if (r <= 0)
		return r;
	if (b.len % SENT_BYTES)
		return -EBADMSG;
	for (size_t at = 0; at < b.len && r >= 0; at += SENT_BYTES) {
		struct sent s = { get_le64(b.data + at), get_le64(b.data + at + 8) };

		r = sent_set(t, 0, &s);
	}
	return MIN(r, 0);
}

int sent_put(struct tree *t, struct batch *b, uint64_t to, const struct sent *add)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	int r = 0;

	for (size_t i = 0; i <= t->n_sent && r == 0; i++) {
		const struct sent *s = i < t->n_sent ? &t->sent[i] : add;
		uint8_t row[SENT_BYTES];

		if (!s || s->seq <= to)
			continue;
		put_le64(row, s->seq);
		put_le64(row + 8, s->last_entry);
		r = buf_append(&bytes, row, sizeof row);
	}
	if (bytes.len)
		batch_put(b, CF_STATE, STATE_SENT, strlen(STATE_SENT), bytes.data, bytes.len);
	else
		batch_del(b, CF_STATE, STATE_SENT, strlen(STATE_SENT));
	return r;
}

int sent_set(struct tree *t, uint64_t to, const struct sent *add)
{
	struct sent *list = t->sent;
	size_t n = 0;

	if (add) {
		list = reallocarray(list, t->n_sent + 1, sizeof *list);
		if (!list)
			return -ENOMEM;
		t->sent = list;
	}
	for (size_t i = 0; i < t->n_sent; i++) {
		if (list[i].seq > to)
			list[n++] = list[i];
	}
	if (add)
		list[n++] = *add;
	t->n_sent = n;
	return 0;
}

uint64_t sent_last(const struct tree *t, uint64_t to)
{
	uint64_t last = 0;

	for (size_t i = 0; i < t->n_sent; i++) {
		if (t->sent[i].seq <= to)
			last = MAX(last, t->sent[i].last_entry);
	}
	return last;
}

void tree_set_acked(struct tree *t, uint64_t acked)
{
	SCOPED_LOCK(&t->wait_lock);
	t->acked = acked;
	t->done = MAX(acked, sent_last(t, UINT64_MAX));
	pthread_cond_broadcast(&t->wait_cond);
}
