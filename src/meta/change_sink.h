/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "These nodes and links changed", told by meta to whoever caches them (the FUSE side).
 * Only changes that did not come in through the mount are told: remote ones, and conflict
 * copies. The sink is called after the batch is visible, on the thread that committed it, with
 * no lock of meta held; it must return quickly and must not call back into the tree.
 */
#ifndef VARVE_CHANGE_SINK_H
#define VARVE_CHANGE_SINK_H

#include "wire/wire.h"

enum tree_event_kind {
	TREE_ATTR, /* node: attributes or xattrs */
	TREE_CONTENT, /* node: bytes of a regular file */
	TREE_LINK, /* parent, name: leads elsewhere, nowhere, or newly somewhere */
	TREE_GONE, /* node: has no name left */
};

struct tree_event {
	enum tree_event_kind kind;
	uint64_t node;
	uint64_t parent;
	struct slice name;
	struct node_attr was; /* TREE_GONE: the last attributes */
};

struct change_sink {
	void (*changed)(void *ctx, const struct tree_event *events, size_t n);
	void *ctx;
};

#endif
