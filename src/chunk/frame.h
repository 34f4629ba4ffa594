/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frame: how a chunk travels and rests in a pack. The byte layout stands at the top of
 * frame.c. Pure; any thread.
 */
#ifndef VARVE_FRAME_H
#define VARVE_FRAME_H

#include "buf.h"
#include "chunk/digest.h"
#include "err.h"

#define FRAME_HEADER_BYTES 24

enum frame_codec { /* stored: only append */
	FRAME_STORED = 0,
	FRAME_ZSTD = 1,
	FRAME_ZSTD_PATCH = 2, /* against a named base chunk */
};

enum frame_cipher { /* stored: only append */
	FRAME_CIPHER_NONE = 0,
};

/* What the header says; filled by frame_peek(). */
struct frame_info {
	enum frame_codec codec;
	uint32_t plain_len;
	uint32_t frame_len; /* header and payload */
};

/* Appends the frame of p[0..n), n <= CHUNK_MAX, n > 0. zstd level 1-3 where it shrinks. */
int frame_encode(const void *p, size_t n, struct buf *ret) must_check;
/*
 * Reads and bounds the header of the frame at p[0..n). -EBADMSG with a reason when it is not a
 * frame; -ENOTSUP for a codec, cipher or version that this program does not know; -ENODATA
 * when n holds less than the frame.
 */
int frame_peek(const void *p, size_t n, struct frame_info *ret, struct err *err) must_check;
/*
 * Appends the plain bytes of the frame at p[0..n) and checks them against `id`. -EBADMSG on any
 * damage; nothing is appended then.
 */
int frame_decode(const void *p, size_t n, const struct digest *id, struct buf *ret,
	struct err *err) must_check;

#endif
