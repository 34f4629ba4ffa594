/* SPDX-License-Identifier: Apache-2.0 */
/* What a kind of store provides to blob.c. Its struct begins with struct blob. Calls as blob.h. */
#ifndef VARVE_BLOB_DRIVER_H
#define VARVE_BLOB_DRIVER_H

#include "blob.h"

#define BLOB_KEY_BYTES_MAX 128

struct blob_driver {
	const char *scheme;
	int (*open)(const char *where, struct blob **ret, struct err *err);
	void (*close)(struct blob *b);
	int (*put)(struct blob *b, const char *key, const void *p, size_t n, struct err *err);
	int (*get)(struct blob *b, const char *key, uint64_t offset, size_t n, struct buf *ret,
		struct err *err);
	int (*delete)(struct blob *b, const char *key, struct err *err);
	int (*list)(struct blob *b, const char *prefix,
		int (*visit)(void *ctx, const char *key, uint64_t size), void *ctx,
		struct err *err);
};

struct blob {
	const struct blob_driver *driver;
};

extern const struct blob_driver blob_dir_driver;

#endif
