// SPDX-License-Identifier: Apache-2.0
/* Batches: what they hold, and how they are committed. */
#include "meta/store_impl.h"

#include "cleanup.h"
#include "fault.h"
#include "meta/room.h"
#include "meta/row_cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct batch {
	rocksdb_writebatch_t *wb;
	struct store *store;
	struct batch_rows rows;
	void (*release)(void *guard);
	void *guard;
};

int batch_new(struct store *st, struct batch **ret)
{
	struct batch *b = calloc(1, sizeof *b);

	if (!b)
		return -ENOMEM;
	b->wb = rocksdb_writebatch_create();
	b->store = st;
	*ret = b;
	return 0;
}

void batch_set_guard(struct batch *b, void (*release)(void *guard), void *guard)
{
	assert(!b->guard);
	b->release = release;
	b->guard = guard;
}

void *batch_guard(const struct batch *b)
{
	return b->guard;
}

static void release_guard(struct batch *b)
{
	if (b->guard)
		b->release(steal(b->guard));
}

void batch_free(struct batch *b)
{
	if (!b)
		return;
	release_guard(b);
	rocksdb_writebatch_destroy(b->wb);
	batch_rows_done(&b->rows);
	free(b);
}

void batch_put(struct batch *b, enum store_cf cf, const void *key, size_t klen, const void *value,
	size_t vlen)
{
	rocksdb_writebatch_put_cf(b->wb, b->store->cf[cf], key, klen, value, vlen);
	batch_rows_add(&b->rows, cf, key, klen, value, vlen);
}

void batch_del(struct batch *b, enum store_cf cf, const void *key, size_t klen)
{
	rocksdb_writebatch_delete_cf(b->wb, b->store->cf[cf], key, klen);
	batch_rows_add(&b->rows, cf, key, klen, NULL, 0);
}

void batch_mark(struct batch *b)
{
	rocksdb_writebatch_set_save_point(b->wb);
	batch_rows_mark(&b->rows);
}

void batch_rewind(struct batch *b)
{
	char *text = NULL;

	rocksdb_writebatch_rollback_to_save_point(b->wb, &text);
	batch_rows_rewind(&b->rows);
	(void)store_take_error(text); /* there is no mark: nothing to take back */
}

size_t batch_count(const struct batch *b)
{
	return (size_t)rocksdb_writebatch_count(b->wb);
}

/*
 * Asks for each batch: now and then would do for what we write, but compaction and other
 * programs can fill the disk between two of ours.
 */
static int check_commit(struct store *st, struct batch *b, uint64_t reserve)
{
	size_t n;
	int r = atomic_load(&st->broken);

	if (r < 0)
		return r;
	rocksdb_writebatch_data(b->wb, &n);
	return room_check(&st->room, n, reserve * st->memtable_bytes);
}

static int commit(struct store *st, struct batch *b, uint64_t reserve)
{
	char *text = NULL;
	int r;

	assert(b->store == st);
	if (batch_count(b) == 0) {
		release_guard(b);
		return 0;
	}
	r = fault_point("store_commit");
	if (r == 0)
		r = check_commit(st, b, reserve);
	if (r < 0)
		return r;
	rocksdb_write(st->db, st->write_options, b->wb, &text);
	batch_rows_tell(&b->rows, st->rows, text == NULL);
	if (text)
		return store_take_write_error(st, text);
	fault_instant("store_committed");
	rocksdb_writebatch_clear(b->wb);
	release_guard(b);
	return 0;
}

int store_commit(struct store *st, struct batch *b)
{
	return commit(st, b, ROW_RESERVE_MEMTABLES);
}

int store_commit_urgent(struct store *st, struct batch *b)
{
	return commit(st, b, URGENT_RESERVE_MEMTABLES);
}
