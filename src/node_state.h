/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the read-only attributes user.varve.* of a node say:
 *
 *	user.varve.state	"dirty": written to, and not sealed yet; "local": sealed, but not on
 *				the server yet; "synced"
 *	user.varve.version	the content id, in hexadecimal (regular files that have content)
 *
 * Any thread.
 */
#ifndef VARVE_NODE_STATE_H
#define VARVE_NODE_STATE_H

#include "fs/file.h"

struct node_state_source {
	struct store *store;
	struct tree *tree;
	struct files *files;
};

/* For session_options.state_xattr; ctx is a struct node_state_source. */
int node_state_xattr(void *ctx, uint64_t node, struct slice name, struct buf *ret);

#endif
