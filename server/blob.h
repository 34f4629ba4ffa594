/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blob store: immutable objects behind four calls. A driver per kind (blob_dir.c). Any
 * thread. Keys are of [a-z0-9/-], at most 128 bytes.
 */
#ifndef VARVE_BLOB_H
#define VARVE_BLOB_H

#include "buf.h"
#include "err.h"

#include <stdint.h>

struct blob;

/* "dir:PATH". */
int blob_open(const char *url, struct blob **ret, struct err *err) must_check;
void blob_free(struct blob *b);
/* Durable when it returns 0. An object that is there already is left as it is. */
int blob_put(struct blob *b, const char *key, const void *p, size_t n, struct err *err) must_check;
/* Exactly n bytes at offset, appended. -ENOENT, -EIO when the object is shorter. */
int blob_get(struct blob *b, const char *key, uint64_t offset, size_t n, struct buf *ret,
	struct err *err) must_check;
/* Absent is fine. */
int blob_delete(struct blob *b, const char *key, struct err *err) must_check;
int blob_list(struct blob *b, const char *prefix,
	int (*visit)(void *ctx, const char *key, uint64_t size), void *ctx,
	struct err *err) must_check;

#endif
