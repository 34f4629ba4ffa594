// SPDX-License-Identifier: Apache-2.0
/* Walks over the rows of a family whose keys begin alike. */
#include "meta/store_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The first key behind all that begin with p[0..n); 0 when there is none (all bytes 0xff). */
static size_t key_after_prefix(const uint8_t *p, size_t n, uint8_t *ret)
{
	while (n && p[n - 1] == 0xff)
		n--;
	if (n == 0)
		return 0;
	memcpy(ret, p, n);
	ret[n - 1]++;
	return n;
}

int store_iter_new(struct store *st, enum store_cf cf, const void *prefix, size_t plen,
	struct store_iter **ret)
{
	struct store_iter *it = malloc(sizeof *it + 2 * plen);
	size_t after_len;

	if (!it)
		return -ENOMEM;
	it->plen = plen;
	if (plen)
		memcpy(it->bounds, prefix, plen);
	it->options = rocksdb_readoptions_create();
	after_len = key_after_prefix(it->bounds, plen, it->bounds + plen);
	if (after_len)
		rocksdb_readoptions_set_iterate_upper_bound(
			it->options, (const char *)it->bounds + plen, after_len);
	/* A long readdir must not be the one that deletes compacted files. */
	rocksdb_readoptions_set_background_purge_on_iterator_cleanup(it->options, 1);
	it->it = rocksdb_create_iterator_cf(st->db, it->options, st->cf[cf]);
	it->placed = false;
	*ret = it;
	return 0;
}

void store_iter_free(struct store_iter *it)
{
	if (!it)
		return;
	rocksdb_iter_destroy(it->it);
	rocksdb_readoptions_destroy(it->options);
	free(it);
}

void store_iter_seek(struct store_iter *it, const void *key, size_t klen)
{
	it->placed = true;
	if (klen)
		rocksdb_iter_seek(it->it, key, klen);
	else
		rocksdb_iter_seek_to_first(it->it);
}

int store_iter_valid(struct store_iter *it)
{
	char *text = NULL;

	/* Not before: the caller may know a place that has fewer deleted entries before it. */
	if (!it->placed)
		store_iter_seek(it, it->bounds, it->plen);
	if (rocksdb_iter_valid(it->it))
		return 1;
	rocksdb_iter_get_error(it->it, &text);
	return store_take_error(text);
}

void store_iter_next(struct store_iter *it)
{
	rocksdb_iter_next(it->it);
}

struct slice store_iter_key(struct store_iter *it)
{
	struct slice s;

	s.p = (const uint8_t *)rocksdb_iter_key(it->it, &s.n);
	return s;
}

struct slice store_iter_value(struct store_iter *it)
{
	struct slice s;

	s.p = (const uint8_t *)rocksdb_iter_value(it->it, &s.n);
	return s;
}
