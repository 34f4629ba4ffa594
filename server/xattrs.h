/* SPDX-License-Identifier: Apache-2.0 */
/* A node's extended attributes as one value of a row. Pure; any thread. */
#ifndef VARVE_XATTRS_H
#define VARVE_XATTRS_H

#include "buf.h"
#include "err.h"
#include "wire/arena.h"

/* Appends; the same set gives the same bytes in whatever order it comes. Nothing for an empty set.
 */
int xattrs_pack(const struct xattr *x, size_t n, struct buf *ret) must_check;
/* The slices point into `packed`. -EBADMSG. */
int xattrs_unpack(struct slice packed, struct arena *a, const struct xattr **ret, size_t *ret_n,
	struct err *err) must_check;
/*
 * Replaces *packed by itself with `x` set, or with x->name removed (absent is fine). -E2BIG when
 * a node would carry too much.
 */
int xattrs_set(struct buf *packed, const struct xattr *x, struct err *err) must_check;
int xattrs_remove(struct buf *packed, struct slice name, struct err *err) must_check;

#endif
