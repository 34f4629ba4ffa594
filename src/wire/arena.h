/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is released all at once: what the pointers of a decoded message lead to. One
 * thread. Blocks are aligned for any type and start as zero bytes.
 */
#ifndef VARVE_ARENA_H
#define VARVE_ARENA_H

#include "wire/wire.h"

int arena_new(struct arena **ret) must_check;
/* NULL when out of memory. */
void *arena_alloc(struct arena *a, size_t n);
/* A copy of p[0..n); NULL when out of memory. n may be 0. */
void *arena_dup(struct arena *a, const void *p, size_t n);

#endif
