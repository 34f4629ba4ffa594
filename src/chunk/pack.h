/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pack: many chunks in one run of bytes. It is the body of an upload, the object in the blob
 * store, and the body of an answer that carries several chunks. The byte layout stands at the
 * top of pack.c. Pure; one thread per object.
 *
 *	struct buf b = {0}; pack_begin(&b); pack_add(&b, &id, bytes, n); ...   // a whole pack
 *	struct pack_reader r; pack_reader_init(&r, p, n, &err);
 *	while ((k = pack_next(&r, &entry, &err)) > 0) ...
 */
#ifndef VARVE_PACK_H
#define VARVE_PACK_H

#include "chunk/frame.h"

struct pack_entry {
	struct digest id;
	uint64_t frame_offset; /* of the frame, in the pack */
	struct frame_info frame;
	const uint8_t *frame_bytes;
};

struct pack_reader {
	const uint8_t *p;
	size_t n;
	size_t at;
};

int pack_begin(struct buf *b) must_check;
/* Encodes the plain bytes into a frame and adds it. */
int pack_add(struct buf *b, const struct digest *id, const void *plain, size_t n) must_check;
/* Adds a frame that is there already. */
int pack_add_frame(struct buf *b, const struct digest *id, const void *frame, size_t n) must_check;

int pack_reader_init(struct pack_reader *r, const void *p, size_t n, struct err *err) must_check;
/* 1 with the next entry, 0 at the end, -EBADMSG when the bytes are not a pack. */
int pack_next(struct pack_reader *r, struct pack_entry *ret, struct err *err) must_check;

#endif
