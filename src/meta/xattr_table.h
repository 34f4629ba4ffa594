/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes of one node in memory, each a copy. One thread. */
#ifndef VARVE_XATTR_TABLE_H
#define VARVE_XATTR_TABLE_H

#include "buf.h"
#include "wire/wire.h"

struct xattr_table {
	struct xattr *items;
	size_t n;
};

void xattr_table_done(struct xattr_table *l);
/* Adds or replaces. */
int xattr_table_set(struct xattr_table *l, struct slice name, struct slice value) must_check;
/* NULL: not there. */
const struct xattr *xattr_table_find(const struct xattr_table *l, struct slice name);
bool xattr_table_remove(struct xattr_table *l, struct slice name);
/* The bytes of all names and values. */
size_t xattr_table_bytes(const struct xattr_table *l);

#endif
