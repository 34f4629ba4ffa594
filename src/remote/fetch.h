/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks from the server, for readers. Every frame is checked against its id before it is handed
 * on; what is damaged or lacking in an answer is asked for once more. Private to src/remote.
 */
#ifndef VARVE_FETCH_H
#define VARVE_FETCH_H

#include "remote/sync_state.h"

/* As chunk_source.h says; ctx is the struct sync. `deliver` is called by one thread at a time. */
int fetch_chunks(void *ctx, const struct digest *ids, size_t n, int64_t deadline_mono_ms,
	const _Atomic int *cancelled,
	int (*deliver)(void *deliver_ctx, const struct digest *id, const void *p, size_t n),
	void *deliver_ctx, struct err *err) must_check;

#endif
