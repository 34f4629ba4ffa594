// SPDX-License-Identifier: Apache-2.0
/*
 * The messages, byte by byte: CBOR (RFC 8949) maps with text keys, definite lengths only. Every
 * message (not the records inside) has "v": 1. A field that is zero or empty is left out.
 *
 *	change (wire_change.c; at most CHANGE_BYTES_MAX)
 *	  kind     uint   1 create, 2 write, 3 setattr, 4 link, 5 unlink, 6 rename,
 *	                  7 setxattr, 8 removexattr
 *	  node     uint   never 0
 *	  dir      uint   the parent
 *	  name     bytes
 *	  dir2     uint   rename: the new parent
 *	  name2    bytes  rename: the new name
 *	  victim   uint   rename: the node that name2 leads to before
 *	  flags    uint   rename: 1 exchange
 *	  mask     uint   setattr: which of attr; enum attr_mask
 *	  attr     attr
 *	  target   bytes  create of a symlink
 *	  xattr    xattr  setxattr; removexattr (the name alone)
 *	  xattrs   array of xattr; create
 *	  time     int    nanoseconds since 1970
 *	attr
 *	  mode     uint   st_mode
 *	  uid, gid uint   32 bits
 *	  rdev     uint   64 bits
 *	  atime, mtime, ctime, btime   int, nanoseconds since 1970
 *	  size     uint   at most FILE_BYTES_MAX
 *	  content  bytes  32: the content id
 *	xattr
 *	  name     bytes  1 to XATTR_NAME_BYTES_MAX, no NUL
 *	  value    bytes  at most XATTR_VALUE_BYTES_MAX
 *	commit (wire_commit.c; at most COMMIT_BYTES_MAX)
 *	  id       bytes  16
 *	  base     uint
 *	  pack     bytes  a pack, as pack.c has it
 *	  contents array of bytes, each an encoded manifest
 *	  changes  array of bytes, each an encoded change; at most COMMIT_CHANGES_MAX
 *	commit reply (wire_commit.c)
 *	  seq      uint   0: refused
 *	  head     uint
 *	  refused  array of { index uint, reason text, detail text }
 *	changes (wire_changes.c; at most CHANGES_BYTES_MAX)
 *	  from, to, head  uint
 *	  nodes    array of { node uint, gone bool, attr, target, xattrs as above }
 *	  links    array of { dir uint, name bytes, node uint }
 *	  contents array of bytes, each an encoded manifest
 *	id list (wire_commit.c)
 *	  ids      bytes  32 for each id, one after another
 */
#include "wire/wire.h"

#include "bounds.h"

#include <string.h>

bool name_valid(struct slice name)
{
	if (name.n == 0 || name.n > NAME_BYTES_MAX)
		return false;
	if (memchr(name.p, '/', name.n) || memchr(name.p, '\0', name.n))
		return false;
	if (name.p[0] != '.')
		return true;
	return !(name.n == 1 || (name.n == 2 && name.p[1] == '.'));
}

static const char *const refusal_texts[] = {
	[REFUSAL_NONE] = "none",
	[REFUSAL_STALE] = "stale",
	[REFUSAL_EXISTS] = "exists",
	[REFUSAL_ABSENT] = "absent",
	[REFUSAL_NOT_EMPTY] = "not_empty",
	[REFUSAL_NOT_DIR] = "not_dir",
	[REFUSAL_LOOP] = "loop",
	[REFUSAL_CHUNK] = "chunk",
	[REFUSAL_INVALID] = "invalid",
	[REFUSAL_QUOTA] = "quota",
};

const char *refusal_text(enum refusal r)
{
	if ((size_t)r >= ARRAY_SIZE(refusal_texts))
		r = REFUSAL_INVALID;
	return refusal_texts[r];
}

enum refusal refusal_parse(const char *text, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(refusal_texts); i++) {
		if (strlen(refusal_texts[i]) == n && memcmp(refusal_texts[i], text, n) == 0)
			return (enum refusal)i;
	}
	return REFUSAL_INVALID;
}
