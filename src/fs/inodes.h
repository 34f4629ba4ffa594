/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which node a FUSE node id means, where the two are not the same number; and what is still
 * known of nodes that have no name any more.
 *
 * A FUSE node id is the node's id. Only when a node's content changes elsewhere while it is open
 * here, the kernel must not mix the old pages with the new ones:
 *
 *	current ──inodes_retire()──► retired ──inodes_forget()──► unknown (current again)
 *
 * A retired id keeps the instance that its descriptors have open. New lookups of the node get an
 * alias: a number with INODES_ALIAS_BIT, which no node id has. An alias is retired in the same
 * way; when the kernel forgets the current alias and the original id is not retired any more,
 * the node goes by its original id again.
 *
 * An orphan is a node whose last name went while the kernel still knows it: fstat() and
 * fgetxattr() of what is open must go on. It goes when the kernel forgets the id.
 *
 * Any thread. With neither aliases nor orphans a question costs one load.
 */
#ifndef VARVE_INODES_H
#define VARVE_INODES_H

#include "meta/tree.h"

#define INODES_ALIAS_BIT (UINT64_C(1) << 63)

struct inodes;

/*
 * unref is called, under no lock of the table, with an instance that inodes_retire() was given
 * and that cannot be found any more. It must wait for those who found it before.
 */
struct inodes_options {
	void (*unref)(void *ctx, void *instance);
	void *ctx;
};

int inodes_new(const struct inodes_options *options, struct inodes **ret) must_check;
void inodes_free(struct inodes *t);

/* The node of a FUSE id, whether current or retired. */
uint64_t inodes_node(struct inodes *t, uint64_t id);
bool inodes_retired(struct inodes *t, uint64_t id);
/*
 * The instance of a retired id, NULL when the id is not retired. It lives as long as its unref is
 * made to wait.
 */
void *inodes_instance(struct inodes *t, uint64_t id);

/* The FUSE id of the node, for notifications. */
uint64_t inodes_current(struct inodes *t, uint64_t node);
/* The same for an entry reply: the kernel will forget it once more. */
uint64_t inodes_entry(struct inodes *t, uint64_t node);
/* Takes back what inodes_entry() counted: the reply did not reach the kernel. */
void inodes_entry_lost(struct inodes *t, uint64_t id);
void inodes_forget(struct inodes *t, uint64_t id, uint64_t n_lookups);

/*
 * Retires the current id of the node, and gives the node an alias for lookups to come. Takes
 * the reference to `instance` on success. *ret_id is the id that was retired.
 */
int inodes_retire(struct inodes *t, uint64_t node, void *instance, uint64_t *ret_id) must_check;

/* Keeps the last attributes of a node; replaces what is there. */
int inodes_orphan_put(struct inodes *t, const struct node *n) must_check;
bool inodes_orphan_get(struct inodes *t, uint64_t node, struct node *ret);
/* The kernel turned out not to know it. */
void inodes_orphan_drop(struct inodes *t, uint64_t node);
/* Its xattrs; what is in *l is moved. Nothing happens when the node is no orphan. */
void inodes_orphan_give_xattrs(struct inodes *t, uint64_t node, struct xattr_table *l);
/* As those of tree.h; -ESTALE when the node is no orphan. value NULL removes. */
int inodes_orphan_getxattr(
	struct inodes *t, uint64_t node, struct slice name, struct buf *ret) must_check;
int inodes_orphan_listxattr(struct inodes *t, uint64_t node, struct buf *ret) must_check;
int inodes_orphan_setxattr(struct inodes *t, uint64_t node, struct slice name,
	const struct slice *value, int flags) must_check;
size_t inodes_orphans(struct inodes *t);

#endif
