// SPDX-License-Identifier: Apache-2.0
/*
 * Which stagings have become contents: rows of CF_STATE, put in the batch of the content, so that
 * they are there exactly when it is. The staging log says so, too, but later, and after a power
 * loss the tree can be ahead of the log: then the row tells that what the log still has is old.
 *
 *	key	"sealed/", be64 staging id
 *	value	le64 number of the outbox's newest entry with it; be64 node that has the
 *		content; content id (32 bytes)
 */
#include "meta/sealed.h"

#include "bytes.h"
#include "meta/tree_internal.h"

#include <errno.h>

#define PREFIX "sealed/"
#define PREFIX_BYTES (sizeof PREFIX - 1)
#define KEY_BYTES (PREFIX_BYTES + 8)
#define VALUE_BYTES (16 + DIGEST_BYTES)

static void encode_key(uint64_t staging, uint8_t ret[KEY_BYTES])
{
	memcpy(ret, PREFIX, PREFIX_BYTES);
	put_be64(ret + PREFIX_BYTES, staging);
}

void sealed_put(struct batch *b, const struct sealed *s)
{
	uint8_t key[KEY_BYTES], value[VALUE_BYTES];

	encode_key(s->staging, key);
	put_le64(value, s->entry);
	put_be64(value + 8, s->node);
	memcpy(value + 16, s->content.b, DIGEST_BYTES);
	batch_put(b, CF_STATE, key, sizeof key, value, sizeof value);
}

static int decode(struct slice key, struct slice value, struct sealed *ret)
{
	if (key.n != KEY_BYTES || value.n != VALUE_BYTES)
		return -EBADMSG;
	*ret = (struct sealed){
		.staging = get_be64(key.p + PREFIX_BYTES),
		.entry = get_le64(value.p),
		.node = get_be64(value.p + 8),
	};
	memcpy(ret->content.b, value.p + 16, DIGEST_BYTES);
	return 0;
}

int sealed_each(struct store *st, int (*visit)(void *ctx, const struct sealed *s), void *ctx)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_iter_new(st, CF_STATE, PREFIX, PREFIX_BYTES, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct sealed s;

		r = decode(store_iter_key(it), store_iter_value(it), &s);
		if (r == 0)
			r = visit(ctx, &s);
		if (r < 0)
			return r;
	}
	return r;
}

void sealed_del(struct batch *b, uint64_t staging)
{
	uint8_t key[KEY_BYTES];

	encode_key(staging, key);
	batch_del(b, CF_STATE, key, sizeof key);
}
