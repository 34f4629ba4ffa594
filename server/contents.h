/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which contents a drive may name. Invariant: a row of `content` says that this drive uploaded
 * the manifest and every chunk it names, so only new contents have their chunks looked up. One
 * thread; inside the caller's transaction.
 */
#ifndef VARVE_CONTENTS_H
#define VARVE_CONTENTS_H

#include "db.h"
#include "prepared.h"

/*
 * Whether a change may name this content: 0, or 1 refused. `previous` is the content that the
 * node has (all zero: none): chunks that are in it need no look-up, which keeps a small change
 * of a huge file cheap.
 */
int contents_admit(struct db *db, int64_t drive, struct prepared *p, const struct digest *id,
	uint64_t size, const struct digest *previous, struct verdict *v,
	struct err *err) must_check;
/* Stores the inline chunks and the admitted contents. *ret_bytes: of the frames that are new. */
int contents_flush(struct db *db, int64_t drive, const struct prepared *p, int64_t *ret_bytes,
	struct err *err) must_check;

/*
 * 1 with the encoded manifest appended, 0 when this drive has none of that id. Every drive has
 * the manifest of no bytes.
 */
int contents_get(struct db *db, int64_t drive, const struct digest *id, struct buf *ret,
	struct err *err) must_check;

/* Where the frame of a chunk lies: in a pack, or (pack 0) in the row. */
struct chunk_place {
	int64_t pack;
	uint64_t at;
	uint32_t frame_len;
	uint32_t plain_len;
};
/* 1 when this drive has uploaded the chunk, 0 not. */
int chunk_find(struct db *db, int64_t drive, const struct digest *id, struct chunk_place *ret,
	struct err *err) must_check;
/* Adds a row unless there is one: 1 added, 0 there already. data: for pack 0. */
int chunk_insert(struct db *db, int64_t drive, const struct digest *id,
	const struct chunk_place *place, struct slice data, struct err *err) must_check;

#endif
