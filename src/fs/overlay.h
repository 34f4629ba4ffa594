/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A map of byte ranges that lie over a lower content: staged bytes, or zeros. What no extent
 * covers is the lower content's.
 *
 *	overlay_reserve(&o) == 0 && overlay_set(&o, &extent);
 *
 * Extents are kept sorted, disjoint, and joined where they touch and go on. They lie in leaves
 * of a bounded size, so that half a million scattered small writes stay cheap. One thread.
 */
#ifndef VARVE_OVERLAY_H
#define VARVE_OVERLAY_H

#include "cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum extent_kind {
	EXTENT_STAGED,
	EXTENT_ZERO,
};

/* The end of an extent that covers everything behind its start. */
#define OVERLAY_END UINT64_MAX

struct extent {
	uint64_t start;
	uint64_t end; /* > start */
	uint64_t pos; /* EXTENT_STAGED: where in the staging its first byte lies */
	enum extent_kind kind;
};

struct overlay_leaf;
struct overlay {
	struct overlay_leaf **leaves;
	size_t n_leaves;
	size_t capacity;
	struct overlay_leaf *spare[2]; /* what one overlay_set() may need */
	size_t count; /* extents */
	uint64_t staged_bytes;
};

/* {0} is an empty overlay. */
void overlay_done(struct overlay *o);
/* Makes sure that the next overlay_set() succeeds. 0 or -ENOMEM. */
int overlay_reserve(struct overlay *o) must_check;
/* The extent replaces whatever lies in its range. */
void overlay_set(struct overlay *o, const struct extent *e);
/* The first extent that ends behind `offset`; false when there is none. */
bool overlay_find(const struct overlay *o, uint64_t offset, struct extent *ret);
/* Whether extents cover every byte of [start, end). */
bool overlay_covers(const struct overlay *o, uint64_t start, uint64_t end);
bool overlay_is_staged(const struct overlay *o, uint64_t start, uint64_t end);

#endif
