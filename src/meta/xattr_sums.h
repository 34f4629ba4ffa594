/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many bytes of extended attributes a node carries, for the nodes that were given some last:
 * who gives a node a thousand, one after the other, would otherwise have all of them read each
 * time, to see whether one more fits.
 *
 * A view forgets the nodes whose attributes it puts into a batch; what is true afterwards is told
 * by who knows it. The caller holds the tree's lock.
 */
#ifndef VARVE_META_XATTR_SUMS_H
#define VARVE_META_XATTR_SUMS_H

#include <stdbool.h>
#include <stdint.h>

#define XATTR_SUMS 64

struct xattr_sums {
	struct {
		uint64_t node; /* 0: free */
		uint64_t bytes;
	} of[XATTR_SUMS];
};

static inline bool xattr_sums_get(const struct xattr_sums *s, uint64_t node, uint64_t *ret)
{
	if (s->of[node % XATTR_SUMS].node != node)
		return false;
	*ret = s->of[node % XATTR_SUMS].bytes;
	return true;
}

static inline void xattr_sums_set(struct xattr_sums *s, uint64_t node, uint64_t bytes)
{
	s->of[node % XATTR_SUMS].node = node;
	s->of[node % XATTR_SUMS].bytes = bytes;
}

static inline void xattr_sums_forget(struct xattr_sums *s, uint64_t node)
{
	if (s->of[node % XATTR_SUMS].node == node)
		s->of[node % XATTR_SUMS].node = 0;
}

#endif
