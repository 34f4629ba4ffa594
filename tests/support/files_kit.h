/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A drive on this device with its real store, cache and tree, and file.h on top: no mount, no
 * server. Every failure of the kit itself aborts.
 */
#ifndef VARVE_FILES_KIT_H
#define VARVE_FILES_KIT_H

#include "fs/file.h"

struct kit {
	char dir[128];
	struct store *store;
	struct cache *cache;
	struct tree *tree;
	struct files *files;
};

/* Opens what is in dir, made when it is empty. */
void kit_open(struct kit *k, const char *dir);
/* Without the files, for what has to happen before them. */
void kit_open_tree(struct kit *k, const char *dir);
void kit_open_files(struct kit *k);
void kit_close_files(struct kit *k);
void kit_close(struct kit *k);
/* A new folder below /tmp (or VARVE_TEST_DIR). */
void kit_make_dir(char *ret, size_t n);

uint64_t kit_create(struct kit *k, const char *name);
uint64_t kit_find(struct kit *k, const char *name); /* 0: not there */
struct file *kit_get(struct kit *k, uint64_t node);
/* Everything that the instance has, appended. */
void kit_read(struct file *f, uint64_t offset, size_t n, struct buf *ret);
/* The node's content in the tree, through a manifest and the cache alone. */
void kit_read_sealed(struct kit *k, uint64_t node, struct buf *ret);
/* What cutting all of p[0..n) from the start gives. */
struct digest kit_content_id(const void *p, size_t n);
struct digest kit_sealed_id(struct kit *k, uint64_t node);

/* A small generator, so that a run can be told by its seed. */
struct rng {
	uint64_t s;
};
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n);
void rng_fill(struct rng *r, void *p, size_t n);

#endif
