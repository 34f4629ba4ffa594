/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One change, applied to a view: mechanically, with every side effect that the wire's contract
 * lets an applier derive, and no question asked. Who calls has checked that it can be done.
 *
 * Times of directories that a change of their names implies are not in the view: they are soft
 * (soft.h) until the change is on the server.
 */
#ifndef VARVE_APPLY_H
#define VARVE_APPLY_H

#include "meta/soft.h"
#include "meta/view.h"

/* An entry of the outbox, in memory. */
struct outbox_entry {
	uint64_t number;
	struct change change;
	uint8_t tag; /* OUTBOX_*; apply_entry() adds OUTBOX_DIED */
	struct slice manifest; /* with OUTBOX_MANIFEST; with OUTBOX_CONTENT the content id */
};

/* soft: times that an explicit change of a directory folds into its row. */
int apply_entry(struct view *v, const struct soft_times *soft, struct outbox_entry *e) must_check;

/* Fields of mask from one to the other. */
void attr_merge(struct node_attr *to, const struct node_attr *from, uint32_t mask);
/* What a WRITE does to attributes. */
void attr_write(struct node_attr *to, const struct node_attr *from);
/* A content of no bytes is told in one way: by the zero id. */
void attr_normalize(struct node_attr *attr, size_t target_len);

#endif
