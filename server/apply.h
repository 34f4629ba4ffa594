/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of each kind of change: what it needs of the tree, and what it makes of it. What is
 * refused leaves the history half changed; the caller then throws it away.
 */
#ifndef VARVE_APPLY_H
#define VARVE_APPLY_H

#include "contents.h"
#include "history.h"

struct apply {
	struct db *db;
	int64_t drive;
	struct history *history;
	struct prepared *prepared;
	uint64_t base; /* what the device had seen */
	uint64_t seq; /* what this commit becomes */
	uint32_t device; /* its number */
	struct verdict verdict;
};

/* 0 applied; 1 refused, with a->verdict filled but for the index; -errno. */
int apply_change(struct apply *a, const struct change *c, struct err *err) must_check;

#endif
