/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tree_put_content() notes of the stagings that it took in (content_update.stagings), for
 * recovery: the row and the content are durable together. Rows go when the staging log is known
 * to be as new. Any thread.
 */
#ifndef VARVE_SEALED_H
#define VARVE_SEALED_H

#include "chunk/digest.h"
#include "meta/store.h"

struct sealed {
	uint64_t staging; /* id */
	uint64_t entry; /* number of the outbox's newest entry with it */
	uint64_t node; /* that has it; after a conflict not the one that was written to */
	struct digest content; /* zero for no bytes */
};

void sealed_put(struct batch *b, const struct sealed *s);
void sealed_del(struct batch *b, uint64_t staging);
/* All of them, by id; below 0 ends the walk. */
int sealed_each(
	struct store *st, int (*visit)(void *ctx, const struct sealed *s), void *ctx) must_check;

#endif
