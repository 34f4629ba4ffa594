/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of meta's replica.h and cache.h that remote makes, on a tree that is a queue of
 * numbers and a cache that is a list of chunks: what is tested is remote alone. Breaking a rule
 * of replica.h is counted.
 */
#ifndef VARVE_REPLICA_FAKE_H
#define VARVE_REPLICA_FAKE_H

#include "meta/replica.h"

struct tree *tree_fake_new(void);
void tree_fake_free(struct tree *t);
/* Queues an entry that needs these chunks on the server, and wakes whoever listens. */
void tree_fake_put(struct tree *t, const struct digest *ids, size_t n);
unsigned tree_fake_violations(struct tree *t);
unsigned tree_fake_pages(struct tree *t); /* applied */
unsigned tree_fake_refusals(struct tree *t); /* with reasons */
/* Makes it as if the program had died after replica_next(). */
void tree_fake_in_flight(struct tree *t);

struct cache *cache_fake_new(void);
void cache_fake_free(struct cache *c);
/* n bytes that depend on the seed. */
struct digest cache_fake_add(struct cache *c, unsigned seed, size_t n);
void cache_fake_damage(struct cache *c, const struct digest *id);
/* The cache that tree_fake_put() asks for chunks' lengths. */
void tree_fake_set_cache(struct tree *t, struct cache *c);
/* Appends the bytes that cache_fake_add() makes. */
void fake_bytes(unsigned seed, size_t n, struct buf *ret);

#endif
