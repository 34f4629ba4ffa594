/* SPDX-License-Identifier: Apache-2.0 */
/* A row of CF_CHUNK: where a chunk lies. The layout stands in chunk_row.c. Pure; any thread. */
#ifndef VARVE_CHUNK_ROW_H
#define VARVE_CHUNK_ROW_H

#include "cleanup.h"
#include "wire/wire.h"

#define CHUNK_ROW_SEGMENT_BYTES 22
#define CHUNK_ROW_INLINE_HEADER 2

/* Flags of a row besides CACHE_ON_SERVER: stored, only append. */
enum {
	CHUNK_ROW_DAMAGED = 0x80, /* the only copy, and its bytes are not those of the id */
};

struct chunk_row {
	unsigned flags;
	bool inlined;
	struct slice bytes; /* when inlined; points into what was decoded */
	uint64_t segment;
	uint64_t offset;
	uint32_t length;
};

int chunk_row_decode(const void *p, size_t n, struct chunk_row *ret) must_check;
/* Appends. */
int chunk_row_encode(const struct chunk_row *row, struct buf *ret) must_check;

#endif
