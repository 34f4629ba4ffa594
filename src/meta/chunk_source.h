/* SPDX-License-Identifier: Apache-2.0 */
/* "Fetch these chunks": asked by meta's cache, answered by whoever can reach the server. */
#ifndef VARVE_CHUNK_SOURCE_H
#define VARVE_CHUNK_SOURCE_H

#include "chunk/digest.h"
#include "err.h"

struct chunk_source {
	/*
	 * Fetches the chunks, hands each to `deliver` (already checked against its id) and
	 * returns when all are delivered. Blocks until then or until deadline_mono_ms. 0;
	 * -ETIMEDOUT at the deadline; -ENOTCONN when the server cannot be reached; -ENOENT when
	 * the server does not have one; -EIO else. *cancelled, when not NULL, is polled: -EINTR.
	 * Any thread.
	 */
	int (*fetch)(void *ctx, const struct digest *ids, size_t n, int64_t deadline_mono_ms,
		const _Atomic int *cancelled,
		int (*deliver)(void *deliver_ctx, const struct digest *id, const void *p, size_t n),
		void *deliver_ctx, struct err *err);
	void *ctx;
};

#endif
