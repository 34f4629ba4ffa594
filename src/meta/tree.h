/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The drive's whole tree on this device: nodes, links, xattrs, manifests. Never waits for the
 * network. Each mutation is one batch of the store: the tree change and its outbox entry.
 *
 * Threads: any. Mutations are serialized by one lock inside; reads take none and see the state
 * between two mutations of the row they read.
 *
 * A mutation returns when its change is visible and queued, and survives the death of the
 * process; tree_sync() makes it durable against power loss.
 *
 * Names are checked by the callers of the kernel (no '/', no NUL, not "." and ".."); the tree
 * checks the length (-ENAMETOOLONG) and emptiness (-ENOENT) again.
 *
 * The file is split by story: tree.c (create, setattr), names.c (links and names of a node),
 * xattr.c, content.c (tree_put_content()), readdir.c, outbox.c. Every mutation goes through a
 * view (view.h) and apply.h. replica.h is the side towards the server.
 */
#ifndef VARVE_TREE_H
#define VARVE_TREE_H

#include "chunk/manifest.h"
#include "meta/cache.h"
#include "meta/change_sink.h"
#include "meta/store.h"
#include "meta/xattr_table.h"

struct tree;

/* The device's name goes into conflict names. Takes no ownership. */
struct tree_options {
	struct store *store;
	struct cache *cache;
	const char *device_name;
};

/*
 * Opens the tree of the store, which tree_format() has made once. Also finishes what a crash
 * left half done.
 */
int tree_open(const struct tree_options *options, struct tree **ret, struct err *err) must_check;
void tree_free(struct tree *t);
/*
 * Makes an empty store that of a drive on this device: root directory, device number, cursor 0.
 * created_ns, when the drive was made, comes from the server: it is the root's first times.
 * -EEXIST when it already is one.
 */
int tree_format(struct store *st, const char *drive_id, uint32_t device_number, int64_t created_ns,
	struct err *err) must_check;
/* The drive id that tree_format() wrote, appended to *ret; 1, 0 when not formatted. */
int tree_drive_id(struct store *st, struct buf *ret) must_check;

void tree_set_sink(struct tree *t, struct change_sink sink);
/* Tells the sink that what stat(2) shows of the node changed without anybody's doing. */
void tree_tell_attr(struct tree *t, uint64_t node);

/* A node as stat(2) shows it. */
struct node {
	uint64_t id;
	struct node_attr attr;
	uint32_t nlink; /* of a directory: 2 and its subdirectories */
	bool has_xattrs;
	bool owner_here; /* uid and gid were given on this device */
	uint64_t holes; /* bytes of the content that take no room */
};

/* 1 found, 0 absent, -errno (-ENOTDIR when parent is no directory). */
int tree_lookup(struct tree *t, uint64_t parent, struct slice name, struct node *ret) must_check;
int tree_get(struct tree *t, uint64_t node, struct node *ret) must_check;
/* With a name of it, in *ret_name; both stay as they are when it has none. */
int tree_get_named(struct tree *t, uint64_t node, struct node *ret, uint64_t *ret_parent,
	struct buf *ret_name) must_check;
/* The target, appended. -EINVAL when it is no symlink, -ENOENT. */
int tree_readlink(struct tree *t, uint64_t node, struct buf *ret) must_check;
/* The directory's parent (root: root itself). */
int tree_parent(struct tree *t, uint64_t dir, uint64_t *ret) must_check;

/*
 * Calls visit for each name of the node: (parent, name). Stops when visit returns non-zero, and
 * returns that.
 */
int tree_names(struct tree *t, uint64_t node,
	int (*visit)(void *ctx, uint64_t parent, struct slice name), void *ctx) must_check;

/* What a new node starts with. mode has the type; size, content and times are set by the tree. */
struct node_init {
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint64_t rdev;
	struct slice target; /* symlinks */
	const struct xattr *xattrs;
	size_t n_xattrs;
};

/* -EEXIST, -ENOENT (parent gone), -ENOTDIR, -ENAMETOOLONG, -ENOSPC, -EIO. */
int tree_create(struct tree *t, uint64_t parent, struct slice name, const struct node_init *init,
	struct node *ret) must_check;

/*
 * What is left of a node after a name of it went; nlink 0: the node is no more, and its xattrs are
 * here. To be given to victim_done().
 */
struct victim {
	bool any;
	struct node node; /* as it was, with nlink as it is now */
	struct xattr_table xattrs;
};
static inline void victim_done(struct victim *v)
{
	xattr_table_done(&v->xattrs);
}
#define _cleanup_victim_ _cleanup_(victim_done)

/* -ENOENT, -EISDIR. */
int tree_unlink(struct tree *t, uint64_t parent, struct slice name, struct victim *ret) must_check;
/* -ENOENT, -ENOTDIR, -ENOTEMPTY. */
int tree_rmdir(struct tree *t, uint64_t parent, struct slice name, struct victim *ret) must_check;
/* What a rename moved (id 0: both names lead to one node, nothing was done), and its victim. */
struct renamed {
	struct node node;
	struct victim victim;
};
static inline void renamed_done(struct renamed *r)
{
	victim_done(&r->victim);
}
#define _cleanup_renamed_ _cleanup_(renamed_done)
/* flags as renameat2(2): RENAME_NOREPLACE, RENAME_EXCHANGE. Errors as rename(2). */
int tree_rename(struct tree *t, uint64_t parent, struct slice name, uint64_t new_parent,
	struct slice new_name, unsigned flags, struct renamed *ret) must_check;
/* And in the same instant a new node takes the old name. Without RENAME_EXCHANGE. */
int tree_rename_leaving(struct tree *t, uint64_t parent, struct slice name, uint64_t new_parent,
	struct slice new_name, unsigned flags, const struct node_init *leaves,
	struct renamed *ret) must_check;
/* -EPERM for a directory, -EEXIST, -EMLINK. */
int tree_link(struct tree *t, uint64_t node, uint64_t new_parent, struct slice new_name,
	struct node *ret) must_check;
/* mask: enum attr_mask. ctime is set to now unless the mask has it. */
int tree_setattr(struct tree *t, uint64_t node, uint32_t mask, const struct node_attr *attr,
	struct node *ret) must_check;

/* One xattr, to be set, or removed if it is there. */
struct xattr_edit {
	struct slice name;
	struct slice value;
	bool remove;
};
/*
 * tree_setattr() and an xattr that belongs to the attributes, as one mutation. mask may be 0.
 */
int tree_setattr_xattr(struct tree *t, uint64_t node, uint32_t mask, const struct node_attr *attr,
	const struct xattr_edit *edit, struct node *ret) must_check;

/* Value appended. -ENODATA when absent. */
int tree_getxattr(struct tree *t, uint64_t node, struct slice name, struct buf *ret) must_check;
/* flags: XATTR_CREATE, XATTR_REPLACE. -EEXIST, -ENODATA, -ERANGE, -E2BIG, -ENOSPC. */
int tree_setxattr(
	struct tree *t, uint64_t node, struct slice name, struct slice value, int flags) must_check;
int tree_removexattr(struct tree *t, uint64_t node, struct slice name) must_check;
/* Names, each with a NUL behind, appended. */
int tree_listxattr(struct tree *t, uint64_t node, struct buf *ret) must_check;

/*
 * A walk over a directory's names as they were at the last tree_seekdir(), or the first
 * tree_readdir(), in an order of its own. One thread at a time. "." and ".." are not among them.
 */
struct tree_dir;
struct tree_dirent {
	struct slice name; /* valid until the next call */
	uint64_t node;
	uint32_t type; /* S_IFMT bits */
	uint64_t
		next; /* its place, below 2^62, never 0; seek to it for the entry behind this one */
};
int tree_opendir(struct tree *t, uint64_t dir, struct tree_dir **ret) must_check;
void tree_closedir(struct tree_dir *d);
static inline void tree_closedir_p(struct tree_dir **d)
{
	tree_closedir(*d);
}
/*
 * Looks anew, from behind a place on; 0: from the start. A name has its place for as long as it is
 * there, in each walk; the place of one that is gone by now is as good.
 */
int tree_seekdir(struct tree_dir *d, uint64_t place) must_check;
/* 1, 0 at the end, -errno. */
int tree_readdir(struct tree_dir *d, struct tree_dirent *ret) must_check;

/*
 * The manifest of a content that `node` has (node_attr.content); a new reference. Small manifests
 * lie in the node's row alone, so -ENOENT when the node has another content by now: tree_get()
 * and ask again.
 */
int tree_manifest(struct tree *t, uint64_t node, const struct digest *content,
	struct manifest **ret) must_check;

/* A sealed content on its way into the tree. */
struct content_update {
	uint64_t node;
	struct digest expected; /* the content that this one was made upon */
	struct manifest *manifest;
	int64_t mtime_ns;
	int64_t ctime_ns;
	uint32_t mode; /* permission bits to set (a write takes set-id bits away); 0: leave */
	struct batch *batch; /* rows of the new chunks; committed with it, emptied, not freed */
	uint64_t home_parent; /* a name of the node, to bring it back to if it was deleted */
	struct slice home_name;
	bool unlinked; /* deleted on this device: there is nothing to bring back */
	uint64_t known_entry; /* tree_place().entry when the node was known to be there */
	const uint64_t *stagings; /* ids of what was sealed, and of what that replaced: sealed.h */
	size_t n_stagings;
	bool must_exist; /* -ENOENT, and nothing done, rather than bring back a deleted node */
};

enum content_result {
	CONTENT_PUT, /* the node has the content now */
	CONTENT_COPIED, /* somebody else's came first: ours is a conflicted copy beside it */
	CONTENT_REVIVED, /* the node had been deleted elsewhere: it is back, with this content */
	CONTENT_DROPPED, /* deleted on this device: only the batch was committed */
};

/*
 * Gives the node a new version. `expected` differs from what the node has when a remote change
 * came in between: then the table of conflicts decides (same bytes: nothing to do). *ret_node is
 * the node that carries the content in the end (another one after CONTENT_COPIED). On failure
 * the batch is as it was given.
 */
int tree_put_content(struct tree *t, const struct content_update *update,
	enum content_result *ret_result, struct node *ret_node) must_check;

/*
 * After a power loss, to be called once before anything else looks at the tree: takes back the
 * changes from the first on whose bytes did not reach the disk (none that tree_sync() promised).
 * *ret_dropped: how many.
 */
int tree_drop_lost(struct tree *t, uint64_t *ret_dropped, struct err *err) must_check;

/*
 * How far the tree is. Neither part goes back but by a power loss, and then not behind what it was
 * at the last tree_sync(). Any thread, no lock.
 */
struct tree_place {
	uint64_t entry; /* the newest of the outbox */
	uint64_t cursor;
};
struct tree_place tree_place(struct tree *t);

/* Everything that returned before is durable after it: chunks first, then the rows. */
int tree_sync(struct tree *t) must_check;

struct tree_usage {
	uint64_t files; /* links, about */
};
void tree_get_usage(struct tree *t, struct tree_usage *ret);

#endif
