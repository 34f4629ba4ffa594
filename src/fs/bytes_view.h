/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A content to read from: a staging that nobody writes to any more, over a manifest. Chunks
 * that are not here are fetched. One thread.
 */
#ifndef VARVE_BYTES_VIEW_H
#define VARVE_BYTES_VIEW_H

#include "chunk/ingest.h"
#include "fs/staging.h"

struct bytes_view {
	struct cache *cache;
	const struct staging *top; /* NULL: none */
	struct manifest *base; /* NULL: nothing below */
	uint64_t size;
	int64_t network_timeout_ms; /* 0: -ENOTCONN at once for what is not here */
	struct buf chunk; /* the last one read: neighbours are asked for one after another */
	struct digest chunk_id;
};

void bytes_view_done(struct bytes_view *v);
#define _cleanup_bytes_view_ _cleanup_(bytes_view_done)
/* Exactly n bytes. -EIO, or as chunk_source.h when a chunk is missing. */
int bytes_view_read(struct bytes_view *v, uint64_t offset, void *p, size_t n) must_check;
/* How many bytes from offset on are zeros without looking. */
uint64_t bytes_view_zeros(const struct bytes_view *v, uint64_t offset);

#endif
