/* SPDX-License-Identifier: Apache-2.0 */
/* Which chunks the server may still need from us. Any thread; takes no lock of the tree. */
#ifndef VARVE_UNSENT_H
#define VARVE_UNSENT_H

#include "meta/tree.h"

/*
 * Calls visit for every chunk of every content that the outbox names, and of the contents that
 * the nodes in it have now; chunks that several name come several times. As the outbox was at
 * some instant during the call. Stops at the first error of visit, and returns it.
 */
int replica_visit_unsent_chunks(struct tree *t,
	int (*visit)(void *ctx, const struct digest *id, uint32_t length), void *ctx) must_check;
/* The same for one manifest. */
int manifest_visit_chunks(const struct manifest *m,
	int (*visit)(void *ctx, const struct digest *id, uint32_t length), void *ctx) must_check;

#endif
