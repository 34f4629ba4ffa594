// SPDX-License-Identifier: Apache-2.0
/* Extended attributes: the tree's, POSIX ACLs, and the read-only ones under user.varve. */
#include "fs/acl.h"
#include "fs/reply.h"

#include "bounds.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define STATE_PREFIX "user.varve."
#define TRUSTED_PREFIX "trusted."
#define ACL_PREFIX "system.posix_acl_"
#define CAPABILITY "security.capability"
/*
 * ls -l asks each file for it, every time, unless one says that there are none on this file system.
 * The kernel has no cache for the answer. (With SELinux, the question does not come here.)
 */
#define SELINUX "security.selinux"

static bool slice_is(struct slice s, const char *text)
{
	return s.n == strlen(text) && !memcmp(s.p, text, s.n);
}

static bool is_state(struct slice name)
{
	size_t n = strlen(STATE_PREFIX);

	return name.n > n && memcmp(name.p, STATE_PREFIX, n) == 0;
}

static bool is_acl(struct slice name)
{
	return slice_is(name, ACL_ACCESS) || slice_is(name, ACL_DEFAULT);
}

/* The name spaces that a node carries. */
static int name_check(const struct session *s, const char *name, struct slice *ret)
{
	static const char *const spaces[] = { "user.", TRUSTED_PREFIX, "security." };

	*ret = (struct slice){ (const uint8_t *)name, strlen(name) };
	if (ret->n > XATTR_NAME_BYTES_MAX)
		return -ERANGE;
	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++)
		if (ret->n > strlen(spaces[i]) && !strncmp(name, spaces[i], strlen(spaces[i])))
			return 0;
	return is_acl(*ret) && s->acls ? 0 : -EOPNOTSUPP;
}

/* Most nodes have none: the answer to the kernel's questions before a write is found quickly. */
static int get_of_tree(struct session *s, fuse_ino_t id, struct slice name, struct buf *ret)
{
	uint64_t node = inodes_node(s->inodes, id);
	int r = tree_getxattr(s->o.tree, node, name, ret);

	if (r == -ENOENT)
		r = inodes_orphan_getxattr(s->inodes, node, name, ret);
	/* Removed elsewhere while it is open here: nothing is known of them. */
	return r == -ESTALE ? -ENODATA : r;
}

static int get(struct session *s, fuse_ino_t id, const char *name, struct buf *ret)
{
	struct slice n;
	int r = name_check(s, name, &n);

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

	if (r == -ENODATA && !strcmp(name, SELINUX))
		r = -EOPNOTSUPP;
	if (r < 0)
		reply_error(req, r);
	else
		reply_xattr(req, size, &value);
}

static bool is_hidden(const struct session *s, uint32_t uid, const char *name)
{
	if (!strncmp(name, TRUSTED_PREFIX, strlen(TRUSTED_PREFIX)))
		return uid != 0;
	return !strncmp(name, ACL_PREFIX, strlen(ACL_PREFIX)) && !s->acls;
}

/* As every Linux file system: trusted names are shown to root only. */
static void hide_names(const struct session *s, uint32_t uid, struct buf *names)
{
	const char *from = (const char *)names->data;
	const char *end = from + names->len;
	size_t kept = 0;

	while (from < end) {
		size_t n = strnlen(from, (size_t)(end - from)) + 1;

		if (!is_hidden(s, uid, from)) {
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
	uint64_t node = inodes_node(s->inodes, id);
	int r = tree_listxattr(s->o.tree, node, &names);

	if (r == -ENOENT)
		r = inodes_orphan_listxattr(s->inodes, node, &names);
	if (r == 0)
		hide_names(s, fuse_req_ctx(req)->uid, &names);
	if (r < 0 && r != -ESTALE)
		reply_error(req, r);
	else
		reply_xattr(req, size, &names);
}

static int change_check(const struct session *s, const char *name, struct slice *ret)
{
	int r = name_check(s, name, ret);

	if (r < 0)
		return r;
	return is_state(*ret) ? -EPERM : 0;
}

/*
 * Linux: somebody who is neither of the file's group nor privileged does not keep its set-group-id
 * bit when he changes its ACL. Where the groups cannot be learned, the bit goes.
 */
static bool in_group(fuse_req_t req, uint32_t gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	_cleanup_free_ gid_t *groups = NULL;
	int n;

	if (ctx->uid == 0 || ctx->gid == gid)
		return true;
	n = fuse_req_getgroups(req, 0, NULL);
	groups = n > 0 ? calloc((size_t)n, sizeof *groups) : NULL;
	if (!groups)
		return false;
	n = MIN(n, fuse_req_getgroups(req, n, groups));
	for (int i = 0; i < n; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

/* Of a node without a name. */
static int orphan_acl(
	struct session *s, struct node *n, uint32_t mask, const struct xattr_edit *edit)
{
	const struct slice *value = edit->remove ? NULL : &edit->value;
	int r = inodes_orphan_setxattr(s->inodes, n->id, edit->name, value, 0);

	if (r < 0 && r != -ENODATA)
		return r;
	return mask ? inodes_orphan_put(s->inodes, n) : 0;
}

static int change_acl(
	struct session *s, struct node *n, uint32_t mask, const struct xattr_edit *edit)
{
	struct node_attr attr = n->attr;
	int r = tree_setattr_xattr(s->o.tree, n->id, mask, &attr, edit, n);

	if (r == -ENOENT)
		r = orphan_acl(s, n, mask, edit);
	if (r == 0)
		node_tell_instance(s, n);
	return r;
}

static int set_acl(fuse_req_t req, fuse_ino_t id, struct slice name, struct slice value)
{
	struct session *s = session_of(req);
	struct xattr_edit edit = { .name = name, .value = value };
	struct acl acl;
	struct node n;
	int r = node_by_id(s, id, &n);

	if (r == 0 && S_ISLNK(n.attr.mode))
		r = -EOPNOTSUPP;
	if (r == 0)
		r = acl_decode(value, &acl);
	if (r < 0)
		return r;
	edit.remove = acl.n == 0;
	if (slice_is(name, ACL_DEFAULT))
		return S_ISDIR(n.attr.mode) ? change_acl(s, &n, 0, &edit)
					    : (edit.remove ? 0 : -EACCES);
	if (edit.remove)
		return change_acl(s, &n, 0, &edit);
	edit.remove = !acl_mode(&acl, n.attr.mode, &n.attr.mode);
	if (n.attr.mode & S_ISGID && !in_group(req, reply_gid(s, &n)))
		n.attr.mode &= ~(uint32_t)S_ISGID;
	return change_acl(s, &n, ATTR_MODE, &edit);
}

static int remove_acl(struct session *s, fuse_ino_t id, struct slice name)
{
	struct xattr_edit edit = { .name = name, .remove = true };
	struct node n;
	int r = node_by_id(s, id, &n);

	return r < 0 ? r : change_acl(s, &n, 0, &edit);
}

/* value NULL removes. */
static int change(
	struct session *s, fuse_ino_t id, struct slice name, const struct slice *value, int flags)
{
	uint64_t node = inodes_node(s->inodes, id);
	int r;

	if (value)
		r = tree_setxattr(s->o.tree, node, name, *value, flags);
	else
		r = tree_removexattr(s->o.tree, node, name);
	if (r == -ENOENT)
		r = inodes_orphan_setxattr(s->inodes, node, name, value, flags);
	if (r < 0)
		return r;
	node_refresh_instance(s, node);
	if (value && slice_is(name, CAPABILITY))
		atomic_fetch_add(&s->capabilities, 1);
	return 0;
}

void op_setxattr(
	fuse_req_t req, fuse_ino_t id, const char *name, const char *value, size_t size, int flags)
{
	struct slice v = { (const uint8_t *)value, size };
	struct session *s = session_of(req);
	struct slice n;
	int r = change_check(s, name, &n);

	if (r == 0)
		r = is_acl(n) ? set_acl(req, id, n, v) : change(s, id, n, &v, flags);
	reply_error(req, r);
}

void op_removexattr(fuse_req_t req, fuse_ino_t id, const char *name)
{
	struct session *s = session_of(req);
	struct slice n;
	int r = change_check(s, name, &n);

	if (r == 0)
		r = is_acl(n) ? remove_acl(s, id, n) : change(s, id, n, NULL, 0);
	reply_error(req, r);
}

/* Grows with each event after which a file may have a capability that it had not. */
static uint64_t capabilities_count(struct session *s)
{
	return atomic_load(&s->capabilities) + atomic_load(&s->remote_changes) + 1;
}

/* A writer asks again and again: what he found is kept with his handle. */
int drop_capability(struct session *s, fuse_ino_t id, struct handle *h)
{
	struct slice name = { (const uint8_t *)CAPABILITY, strlen(CAPABILITY) };
	uint64_t count = capabilities_count(s);
	_cleanup_buf_ struct buf had = { 0 };
	int r;

	if (h && atomic_load(&h->no_capability) == count)
		return 0;
	r = get_of_tree(s, id, name, &had);
	if (r == 0)
		r = change(s, id, name, NULL, 0);
	if (r < 0 && r != -ENODATA)
		return r;
	if (h)
		atomic_store(&h->no_capability, count);
	return 0;
}
