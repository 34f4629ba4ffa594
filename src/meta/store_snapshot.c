// SPDX-License-Identifier: Apache-2.0
/* Reading the store as it was at one instant, without making the caches cold. */
#include "meta/store_impl.h"

#include <errno.h>

struct store_snapshot {
	struct store *store;
	const rocksdb_snapshot_t *at;
	rocksdb_readoptions_t *options;
};

static rocksdb_readoptions_t *new_read_options(const struct store_snapshot *sn)
{
	rocksdb_readoptions_t *o = rocksdb_readoptions_create();

	rocksdb_readoptions_set_verify_checksums(o, 1);
	rocksdb_readoptions_set_fill_cache(o, 0);
	if (sn->at)
		rocksdb_readoptions_set_snapshot(o, sn->at);
	return o;
}

int store_snapshot_new(struct store *st, struct store_snapshot **ret)
{
	struct store_snapshot *sn = calloc(1, sizeof *sn);

	if (!sn)
		return -ENOMEM;
	sn->store = st;
	sn->at = rocksdb_create_snapshot(st->db);
	sn->options = new_read_options(sn);
	*ret = sn;
	return 0;
}

void store_snapshot_free(struct store_snapshot *sn)
{
	if (!sn)
		return;
	rocksdb_readoptions_destroy(sn->options);
	rocksdb_release_snapshot(sn->store->db, sn->at);
	free(sn);
}

int store_snapshot_get(
	struct store_snapshot *sn, enum store_cf cf, const void *key, size_t klen, struct buf *ret)
{
	char *text = NULL;
	rocksdb_pinnableslice_t *pinned = rocksdb_get_pinned_cf(
		sn->store->db, sn->options, sn->store->cf[cf], key, klen, &text);
	const char *value;
	size_t vlen;
	int r = 0;

	if (text)
		return store_take_error(text);
	if (!pinned)
		return 0;
	value = rocksdb_pinnableslice_value(pinned, &vlen);
	if (ret)
		r = buf_append(ret, value, vlen);
	rocksdb_pinnableslice_destroy(pinned);
	return r < 0 ? r : 1;
}

int store_snapshot_iter(struct store_snapshot *sn, enum store_cf cf, struct store_iter **ret)
{
	struct store_iter *it = calloc(1, sizeof *it);

	if (!it)
		return -ENOMEM;
	it->options = new_read_options(sn);
	it->it = rocksdb_create_iterator_cf(sn->store->db, it->options, sn->store->cf[cf]);
	*ret = it;
	return 0;
}
