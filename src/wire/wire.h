/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What devices and the server say to each other by the thousand: changes, commits, rows of the
 * change feed. CBOR (RFC 8949) maps with short text keys; every message has "v": WIRE_VERSION.
 * The field names stand at the top of wire.c and in server/openapi.yaml.
 *
 * The outbox stores a change in the same encoding that it travels in, so uploading copies bytes.
 * Decoders bound every length and count before they allocate, refuse unknown versions and kinds
 * with -EBADMSG and a reason, and ignore unknown keys. Pure; any thread.
 *
 * Ownership: a decoded message owns one arena; pointers in it live until its _done().
 */
#ifndef VARVE_WIRE_H
#define VARVE_WIRE_H

#include "buf.h"
#include "chunk/digest.h"
#include "err.h"

#include <stdbool.h>
#include <stdint.h>

#define WIRE_VERSION 1
#define NODE_ROOT UINT64_C(1)
#define NODE_DEVICE_SHIFT 40
#define NODE_DEVICE_MAX ((UINT32_C(1) << 24) - 1)
/*
 * The largest device number that a server hands out. Half of what a node id has room for: bit 63
 * of a FUSE node id is not a node's but says that it is an alias (src/fs/inodes.h).
 */
#define NODE_DEVICE_GIVEN_MAX ((UINT32_C(1) << 23) - 1)

static inline uint64_t node_id(uint32_t device_number, uint64_t counter)
{
	return (uint64_t)device_number << NODE_DEVICE_SHIFT | counter;
}

static inline uint32_t node_device(uint64_t node)
{
	return (uint32_t)(node >> NODE_DEVICE_SHIFT);
}

/* A run of bytes that somebody else owns. Names are bytes: no encoding is assumed. */
struct slice {
	const uint8_t *p;
	size_t n;
};

struct xattr {
	struct slice name;
	struct slice value;
};

/* Which fields of struct node_attr a setattr carries. */
enum attr_mask { /* stored: only append */
	ATTR_MODE = 1 << 0, /* permission, set-id and sticky bits; the type never changes */
	ATTR_UID = 1 << 1,
	ATTR_GID = 1 << 2,
	ATTR_ATIME = 1 << 3,
	ATTR_MTIME = 1 << 4,
	ATTR_CTIME = 1 << 5,
	ATTR_ALL = (1 << 6) - 1,
};

/* Times are nanoseconds since 1970, signed. */
struct node_attr {
	uint32_t mode; /* st_mode, with the type */
	uint32_t uid;
	uint32_t gid;
	uint64_t rdev; /* of device nodes, as makedev() gives it */
	int64_t atime_ns;
	int64_t mtime_ns;
	int64_t ctime_ns;
	int64_t btime_ns;
	uint64_t size; /* of a regular file: that of its content; of a symlink: of its target */
	struct digest content; /* regular files: the content id; else all zero */
};

enum change_kind { /* stored: only append */
	CHANGE_CREATE = 1, /* node, parent, name, attr (and target of a symlink, xattrs) */
	CHANGE_WRITE =
		2, /* node, attr.size, attr.content, attr.mtime_ns, attr.ctime_ns, attr.mode */
	CHANGE_SETATTR = 3, /* node, mask, attr */
	CHANGE_LINK = 4, /* node, parent, name, attr.ctime_ns */
	CHANGE_UNLINK = 5, /* node, parent, name; also for directories */
	CHANGE_RENAME = 6, /* node, parent, name, new_parent, new_name, victim, flags */
	CHANGE_SETXATTR = 7, /* node, xattr, attr.ctime_ns */
	CHANGE_REMOVEXATTR = 8, /* node, xattr.name, attr.ctime_ns */
};
#define CHANGE_KIND_LAST CHANGE_REMOVEXATTR

#define CHANGE_FLAG_EXCHANGE 1 /* rename: the two names change places; victim is the other node */

/*
 * One tree operation. The node a name leads to is always said, so that the server can see that
 * the device meant what is there. Side effects that every applier derives for itself, and that
 * no change spells out: link counts, the death of a node with its last link, mtime and
 * ctime := time_ns of the directories whose names a change touches, and ctime := time_ns of a node
 * that a rename moved (with the exchange flag: both) or that an unlink or a rename left with
 * other names.
 */
struct change {
	enum change_kind kind;
	uint64_t node;
	uint64_t parent;
	struct slice name;
	uint64_t new_parent;
	struct slice new_name;
	uint64_t victim; /* rename: the node that new_name leads to before, 0 for none */
	uint32_t flags;
	uint32_t mask;
	struct node_attr attr;
	struct slice target;
	struct xattr xattr;
	const struct xattr *xattrs; /* create: all of them */
	size_t n_xattrs;
	int64_t time_ns; /* when the device did it; tells people, decides nothing */
};

/* What an encoded change may take: all xattrs a node can carry, and room for the rest. */
#define CHANGE_BYTES_MAX ((size_t)1024 * 1024)

/*
 * Encoders append to *ret. -EINVAL when the message breaks a rule that its decoder checks (which
 * is the caller's mistake), -EMSGSIZE when it is too large as a whole; *ret is as it was then.
 */
int change_encode(const struct change *c, struct buf *ret) must_check;

/* One decoded message of any kind, and the memory its pointers lead to. */
struct arena;
void arena_free(struct arena *a);
static inline void arena_free_p(struct arena **a)
{
	arena_free(*a);
}
#define _cleanup_arena_ _cleanup_(arena_free_p)

/* Checks names, kinds and lengths; the change's slices live in *ret_arena. */
int change_decode(const void *p, size_t n, struct change *ret, struct arena **ret_arena,
	struct err *err) must_check;

#define COMMIT_ID_BYTES 16

/*
 * A batch of changes that the server applies in one transaction, all or none.
 * `base` is the cursor of the device: the whole outbox is meant upon the tree as of that seq.
 */
struct commit {
	uint8_t id[COMMIT_ID_BYTES]; /* random; a retry carries the same */
	uint64_t base;
	struct slice pack; /* chunks of at most CHUNK_INLINE_MAX, as a pack; may be empty */
	const struct slice *contents; /* encoded manifests that changes name and that may be new */
	size_t n_contents;
	const struct slice *changes; /* each in the encoding of change_encode() */
	size_t n_changes;
};

int commit_encode(const struct commit *c, struct buf *ret) must_check;
int commit_decode(const void *p, size_t n, struct commit *ret, struct arena **ret_arena,
	struct err *err) must_check;

/* Why a change was refused. As text on the wire. */
enum refusal { /* only append */
	REFUSAL_NONE = 0,
	REFUSAL_STALE, /* changed by another device after `base` */
	REFUSAL_EXISTS, /* the name, or the node id, is taken */
	REFUSAL_ABSENT, /* node, parent or name is not there */
	REFUSAL_NOT_EMPTY,
	REFUSAL_NOT_DIR,
	REFUSAL_LOOP, /* a directory into itself */
	REFUSAL_CHUNK, /* a chunk or manifest that this drive has not uploaded */
	REFUSAL_INVALID, /* no client of ours would send it; detail says what */
	REFUSAL_QUOTA,
};
const char *refusal_text(enum refusal r);
enum refusal refusal_parse(const char *text, size_t n); /* REFUSAL_INVALID when unknown */

struct refused_change {
	uint32_t index; /* in commit.changes */
	enum refusal reason;
	struct slice detail; /* for people */
};

/* The answer. seq > 0: applied as that revision. seq == 0: refused whole, with the reasons. */
struct commit_reply {
	uint64_t seq;
	uint64_t head; /* the drive's head when answering */
	const struct refused_change *refused;
	size_t n_refused;
};

int commit_reply_encode(const struct commit_reply *r, struct buf *ret) must_check;
int commit_reply_decode(const void *p, size_t n, struct commit_reply *ret, struct arena **ret_arena,
	struct err *err) must_check;

/* The state of a node as of changes.to. */
struct node_row {
	uint64_t node;
	bool deleted; /* nothing below is set then */
	struct node_attr attr;
	struct slice target;
	const struct xattr *xattrs;
	size_t n_xattrs;
};

/* The state of a name as of changes.to; node 0: the name is gone. */
struct link_row {
	uint64_t parent;
	struct slice name;
	uint64_t node;
};

/*
 * A page of the change feed: every node and name that changed in (from, to], each once, in its
 * state as of `to`. Applying a row twice is harmless. Directories' link counts are derived.
 */
struct changes {
	uint64_t from;
	uint64_t to;
	uint64_t head; /* to < head: ask again from `to` */
	const struct node_row *nodes;
	size_t n_nodes;
	const struct link_row *links;
	size_t n_links;
	const struct slice *contents; /* the encoded manifests that the nodes name */
	size_t n_contents;
};

int changes_encode(const struct changes *c, struct buf *ret) must_check;
int changes_decode(const void *p, size_t n, struct changes *ret, struct arena **ret_arena,
	struct err *err) must_check;

/* A list of chunk ids: the question "which are missing", its answer, and "send me these". */
struct id_list {
	const struct digest *ids;
	size_t n;
};

int id_list_encode(const struct id_list *l, struct buf *ret) must_check;
int id_list_decode(const void *p, size_t n, size_t max, struct id_list *ret,
	struct arena **ret_arena, struct err *err) must_check;

/* Whether a name may stand in a directory: 1-255 bytes, no '/', no NUL, not "." or "..". */
bool name_valid(struct slice name);

#endif
