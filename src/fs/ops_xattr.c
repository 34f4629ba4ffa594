// SPDX-License-Identifier: Apache-2.0
/* Extended attributes: the tree's, and the read-only ones under user.varve. */
#include "fs/reply.h"

#include "bounds.h"

#include <errno.h>
#include <string.h>

#define STATE_PREFIX "user.varve."
#define TRUSTED_PREFIX "trusted."

static bool is_state(struct slice name)
{
	size_t n = strlen(STATE_PREFIX);

	return name.n > n && memcmp(name.p, STATE_PREFIX, n) == 0;
}

/* The name spaces that a node carries. */
static int name_check(const char *name, struct slice *ret)
{
	static const char *const spaces[] = { "user.", TRUSTED_PREFIX, "security." };

	*ret = (struct slice){ (const uint8_t *)name, strlen(name) };
	if (ret->n > XATTR_NAME_BYTES_MAX)
		return -ERANGE;
	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++)
		if (ret->n > strlen(spaces[i]) && !strncmp(name, spaces[i], strlen(spaces[i])))
			return 0;
	return -EOPNOTSUPP;
}

/* Most nodes have none: the answer to the kernel's questions before a write is found quickly. */
static int get_of_tree(struct session *s, fuse_ino_t id, struct slice name, struct buf *ret)
{
	int r = tree_getxattr(s->o.tree, inodes_node(s->inodes, id), name, ret);

	/* Without a name, without attributes: an open and unlinked file can be written to. */
	return r == -ENOENT ? -ENODATA : r;
}

static int get(struct session *s, fuse_ino_t id, const char *name, struct buf *ret)
{
	struct slice n;
	int r = name_check(name, &n);

	if (r < 0)
		return r;
	if (!is_state(n))
		return get_of_tree(s, id, n, ret);
	if (!s->o.state_xattr)
		return -ENODATA;
	return s->o.state_xattr(s->o.state_ctx, inodes_node(s->inodes, id), n, ret);
}

void op_getxattr(fuse_req_t req, fuse_ino_t id, const char *name, size_t size)
{
	_cleanup_buf_ struct buf value = { 0 };
	int r = get(session_of(req), id, name, &value);

	if (r < 0)
		reply_error(req, r);
	else
		reply_xattr(req, size, &value);
}

/* As every Linux file system: trusted names are shown to root only. */
static void hide_trusted(struct buf *names)
{
	const char *from = (const char *)names->data;
	const char *end = from + names->len;
	size_t kept = 0;

	while (from < end) {
		size_t n = strnlen(from, (size_t)(end - from)) + 1;

		if (strncmp(from, TRUSTED_PREFIX, strlen(TRUSTED_PREFIX)) != 0) {
			memmove(names->data + kept, from, n);
			kept += n;
		}
		from += n;
	}
	names->len = kept;
}

void op_listxattr(fuse_req_t req, fuse_ino_t id, size_t size)
{
	_cleanup_buf_ struct buf names = { 0 };
	struct session *s = session_of(req);
	int r = tree_listxattr(s->o.tree, inodes_node(s->inodes, id), &names);

	if (r == 0 && fuse_req_ctx(req)->uid != 0)
		hide_trusted(&names);
	if (r < 0 && r != -ENOENT)
		reply_error(req, r);
	else
		reply_xattr(req, size, &names);
}

static int change_check(const char *name, struct slice *ret)
{
	int r = name_check(name, ret);

	if (r < 0)
		return r;
	return is_state(*ret) ? -EPERM : 0;
}

void op_setxattr(
	fuse_req_t req, fuse_ino_t id, const char *name, const char *value, size_t size, int flags)
{
	struct session *s = session_of(req);
	uint64_t node = inodes_node(s->inodes, id);
	struct slice n;
	int r = change_check(name, &n);

	if (r == 0)
		r = tree_setxattr(
			s->o.tree, node, n, (struct slice){ (const uint8_t *)value, size }, flags);
	if (r == 0)
		node_refresh_instance(s, node);
	reply_error(req, r);
}

void op_removexattr(fuse_req_t req, fuse_ino_t id, const char *name)
{
	struct session *s = session_of(req);
	uint64_t node = inodes_node(s->inodes, id);
	struct slice n;
	int r = change_check(name, &n);

	if (r == 0)
		r = tree_removexattr(s->o.tree, node, n);
	if (r == 0)
		node_refresh_instance(s, node);
	reply_error(req, r);
}
