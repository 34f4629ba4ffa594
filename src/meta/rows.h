/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The byte layouts of the tree's rows in the store. Each value begins with a version byte, a tag
 * byte, and the number of the outbox entry that last changed the row (le64):
 *
 *	0 version (ROW_VERSION)   1 tag (by kind)   2..10 entry   10.. by kind
 *
 * A row is *dirty* while its entry is not on the server yet; nothing is rewritten when it is.
 * Layouts of the kinds stand at the top of rows.c. Pure; any thread. Decoders check lengths and
 * ranges and give -EBADMSG; slices lead into the bytes that were decoded.
 */
#ifndef VARVE_ROWS_H
#define VARVE_ROWS_H

#include "bounds.h"
#include "meta/store.h"
#include "wire/wire.h"

#define ROW_VERSION 1
#define ROW_HEAD 10

/* Larger manifests have a row of their own: about four chunks, a file of 1 MiB. */
#define MANIFEST_INLINE_MAX 256

enum node_tag { /* stored: only append */
	NODE_HAS_XATTRS = 1,
	NODE_INLINE_MANIFEST = 2, /* payload is the manifest of attr.content */
	NODE_OWNER_HERE = 4, /* uid and gid were given on this device, not elsewhere */
};

/* links, subdirs, parent and name are derived from the link rows; the server has none of them. */
struct node_rec {
	uint64_t entry;
	uint8_t tag;
	struct node_attr attr;
	uint32_t links; /* names that lead here */
	uint32_t subdirs;
	uint64_t parent; /* the first name; empty when there is none. Others are in CF_NAMES */
	struct slice name;
	struct slice payload; /* of a symlink its target */
	uint64_t holes; /* bytes of a regular file's content that are in holes */
};

#define NODE_FIXED 121
#define NODE_ROW_MAX (NODE_FIXED + NAME_BYTES_MAX + SYMLINK_BYTES_MAX)
size_t node_encode(const struct node_rec *rec, uint8_t ret[NODE_ROW_MAX]);
int node_decode(struct slice row, struct node_rec *ret) must_check;

struct link_rec {
	uint64_t entry;
	uint64_t node;
	uint32_t type; /* S_IFMT bits of the node */
};

#define LINK_ROW_BYTES 18
void link_encode(const struct link_rec *rec, uint8_t ret[LINK_ROW_BYTES]);
int link_decode(struct slice row, struct link_rec *ret) must_check;

/* The head of any row; the value of an xattr is what follows it. */
void row_head_encode(uint8_t tag, uint64_t entry, uint8_t ret[ROW_HEAD]);
int row_head_decode(struct slice row, uint8_t *ret_tag, uint64_t *ret_entry) must_check;
int xattr_decode(struct slice row, uint64_t *ret_entry, struct slice *ret_value) must_check;

/*
 * CF_BASE: what the server has below a dirty row. `row` is the row of the kind (its derived
 * fields say nothing); absent: the server has none. `entry` counts when the tree has no row.
 */
struct base_rec {
	uint64_t entry;
	bool present;
	struct slice row;
};

int base_encode(const struct base_rec *rec, struct buf *ret) must_check;
int base_decode(struct slice row, struct base_rec *ret) must_check;

/* CF_OUTBOX: a change as it travels, and what only this device needs. */
enum outbox_tag { /* stored: only append */
	OUTBOX_DIED = 1, /* the node (of a rename: the victim) went with its last name */
	OUTBOX_MANIFEST = 2, /* the manifest of the content that the change names follows */
	OUTBOX_CONTENT = 4, /* its id follows; the manifest is in CF_MANIFEST */
};

struct outbox_rec {
	uint8_t tag;
	struct slice manifest; /* or the content id */
	struct slice change;
};

int outbox_encode(const struct outbox_rec *rec, struct buf *ret) must_check;
int outbox_decode(struct slice row, struct outbox_rec *ret) must_check;

/* CF_CONFLICT */
struct conflict_rec {
	uint8_t kind; /* enum conflict_kind */
	int64_t time_ns;
	uint64_t parent;
	struct slice name;
	struct slice original;
};

int conflict_encode(const struct conflict_rec *rec, struct buf *ret) must_check;
int conflict_decode(struct slice row, struct conflict_rec *ret) must_check;

/* Keys. That of a link: be64 parent, its place (be56), name: a prefix scan is a readdir. */
#define LINK_PLACE_BYTES 7
#define LINK_PLACE_BITS 54
struct row_key {
	size_t n;
	uint8_t b[1 + 16 + NAME_BYTES_MAX];
};

struct row_key key_id(uint64_t id); /* nodes, outbox entries, conflicts */
struct row_key key_child(uint64_t id, struct slice name); /* xattrs */
struct row_key key_link(uint64_t parent, struct slice name);
struct row_key key_name(uint64_t node, uint64_t parent, struct slice name); /* CF_NAMES */
/* The base row of a node, link or xattr row. */
struct row_key key_base(enum store_cf cf, const void *key, size_t klen);
/* The other way: which family's row this base row lies below. */
int key_of_base(struct slice key, enum store_cf *ret_cf, struct slice *ret_key) must_check;
int key_id_parse(struct slice key, uint64_t *ret) must_check;
int key_child_parse(struct slice key, uint64_t *ret_id, struct slice *ret_name) must_check;
int key_link_parse(struct slice key, uint64_t *ret_parent, struct slice *ret_name) must_check;
/*
 * The place of a link's key among those of its directory: the same for a name as long as there is
 * one, whatever comes and goes beside it. Names share one with a chance of 2^-54.
 */
uint64_t key_link_place(struct slice key);
/* The first key of the directory whose place is not lower. */
struct row_key key_link_at(uint64_t parent, uint64_t place);
int key_name_parse(struct slice key, uint64_t *ret_parent, struct slice *ret_name) must_check;

static inline bool slice_eq(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

#endif
