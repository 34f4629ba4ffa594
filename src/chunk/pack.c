// SPDX-License-Identifier: Apache-2.0
/*
 * A pack:
 *
 *	 0  4  magic "VRVK"
 *	 4  1  version, 1
 *	 5  3  zero
 *	 8     entries until the end of the pack, each:
 *	       32  id of the chunk
 *	           its frame (frame.c), which says its own length
 *
 * Valid when every frame's header is, and the last frame ends where the pack does. A pack may
 * hold no entry. Nothing here limits how many there are: the caller knows what it asked for.
 */
#include "chunk/pack.h"

#include <errno.h>

#define MAGIC "VRVK\1\0\0\0"
#define HEADER_BYTES 8

int pack_begin(struct buf *b)
{
	return buf_append(b, MAGIC, HEADER_BYTES);
}

int pack_add(struct buf *b, const struct digest *id, const void *plain, size_t n)
{
	size_t had = b->len;
	int r = buf_append(b, id->b, DIGEST_BYTES);

	if (r < 0)
		return r;
	r = frame_encode(plain, n, b);
	if (r < 0)
		b->len = had;
	return r;
}

int pack_add_frame(struct buf *b, const struct digest *id, const void *frame, size_t n)
{
	size_t had = b->len;
	int r = buf_append(b, id->b, DIGEST_BYTES);

	if (r < 0)
		return r;
	r = buf_append(b, frame, n);
	if (r < 0)
		b->len = had;
	return r;
}

int pack_reader_init(struct pack_reader *r, const void *p, size_t n, struct err *err)
{
	const uint8_t *b = p;

	if (n < HEADER_BYTES || memcmp(b, MAGIC, 4) != 0)
		return err_set(err, EBADMSG, "pack: not a pack");
	if (memcmp(b, MAGIC, HEADER_BYTES) != 0)
		return err_set(err, EBADMSG, "pack: version %u is not known", b[4]);
	*r = (struct pack_reader){ .p = b, .n = n, .at = HEADER_BYTES };
	return 0;
}

int pack_next(struct pack_reader *r, struct pack_entry *ret, struct err *err)
{
	size_t left = r->n - r->at;
	int got;

	if (left == 0)
		return 0;
	if (left < DIGEST_BYTES)
		return err_set(err, EBADMSG, "pack: cut short at byte %zu", r->at);
	memcpy(ret->id.b, r->p + r->at, DIGEST_BYTES);
	ret->frame_offset = r->at + DIGEST_BYTES;
	ret->frame_bytes = r->p + ret->frame_offset;
	got = frame_peek(ret->frame_bytes, left - DIGEST_BYTES, &ret->frame, err);
	if (got < 0) {
		err_prefix(err, "pack: at byte %zu", r->at);
		if (err)
			err->code = EBADMSG;
		return -EBADMSG;
	}
	r->at += DIGEST_BYTES + ret->frame.frame_len;
	return 1;
}
