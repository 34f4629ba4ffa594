// SPDX-License-Identifier: Apache-2.0
/* lookup, forget, getattr, setattr, readlink. */
#include "fs/acl.h"
#include "fs/invalidate.h"
#include "fs/reply.h"

#include "clock.h"
#include "bounds.h"

#include <errno.h>
#include <string.h>

void node_overlay(struct session *s, struct node *n)
{
	_cleanup_file_ struct file *f = NULL;

	if (S_ISREG(n->attr.mode) && files_peek(s->o.files, n->id, &f) > 0)
		file_node_attr(f, n);
}

void node_tell_instance(struct session *s, const struct node *n)
{
	_cleanup_file_ struct file *f = NULL;

	if (S_ISREG(n->attr.mode) && files_peek(s->o.files, n->id, &f) > 0)
		file_set_node(f, n);
}

void node_refresh_instance(struct session *s, uint64_t node)
{
	_cleanup_file_ struct file *f = NULL;
	struct node n;

	if (files_peek(s->o.files, node, &f) > 0 && tree_get(s->o.tree, node, &n) > 0)
		file_set_node(f, &n);
}

/* What descriptors have that were opened before the content changed elsewhere. */
static bool node_of_retired(struct session *s, fuse_ino_t id, struct node *ret)
{
	struct file *f;

	if (!inodes_retired(s->inodes, id))
		return false;
	pthread_rwlock_rdlock(&s->open_lock);
	f = inodes_instance(s->inodes, id);
	if (f)
		file_node_attr(f, ret);
	pthread_rwlock_unlock(&s->open_lock);
	return f;
}

static bool node_of_live(struct session *s, uint64_t node, struct node *ret)
{
	_cleanup_file_ struct file *f = NULL;

	if (files_peek(s->o.files, node, &f) <= 0)
		return false;
	file_node_attr(f, ret);
	return true;
}

int node_by_id(struct session *s, fuse_ino_t id, struct node *ret)
{
	uint64_t node = inodes_node(s->inodes, id);
	int r;

	if (node_of_retired(s, id, ret) || node_of_live(s, node, ret))
		return 0;
	r = tree_get(s->o.tree, node, ret);
	if (r < 0)
		return r;
	if (r > 0 || inodes_orphan_get(s->inodes, node, ret))
		return 0;
	return -ESTALE;
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct session *s = session_of(req);
	struct slice n = { (const uint8_t *)name, strlen(name) };
	struct node node;
	int r;

	if (n.n > NAME_BYTES_MAX) {
		reply_error(req, -ENAMETOOLONG);
		return;
	}
	r = tree_lookup(s->o.tree, inodes_node(s->inodes, parent), n, &node);
	if (r < 0) {
		reply_error(req, r);
	} else if (r == 0) {
		reply_no_entry(req);
	} else {
		node_overlay(s, &node);
		reply_entry(req, &node);
	}
}

void op_forget(fuse_req_t req, fuse_ino_t id, uint64_t n)
{
	inodes_forget(session_of(req)->inodes, id, n);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct inodes *t = session_of(req)->inodes;

	for (size_t i = 0; i < count; i++)
		inodes_forget(t, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

void op_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct node n;
	int r = node_by_id(session_of(req), id, &n);

	if (r < 0)
		reply_error(req, r);
	else
		reply_attr(req, &n);
}

static int64_t ns_of(struct timespec ts)
{
	int64_t ns;

	if (__builtin_mul_overflow((int64_t)ts.tv_sec, NS_PER_S, &ns) ||
		__builtin_add_overflow(ns, (int64_t)ts.tv_nsec, &ns))
		return ts.tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

/*
 * What Linux takes away with a chown, or a write of somebody without CAP_FSETID: set-user-id,
 * and set-group-id where it means that (with group execution). The kernel says when.
 */
static uint32_t mode_without_setid(uint32_t mode)
{
	mode &= ~(uint32_t)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(uint32_t)S_ISGID;
	return mode;
}

static uint32_t setattr_times(const struct stat *attr, int to_set, struct node_attr *a)
{
	int64_t now = clock_real_ns();
	uint32_t mask = 0;

	if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) {
		a->atime_ns = to_set & FUSE_SET_ATTR_ATIME_NOW ? now : ns_of(attr->st_atim);
		mask |= ATTR_ATIME;
	}
	/* A change of size comes with a new mtime of its own. */
	if (to_set & FUSE_SET_ATTR_MTIME_NOW && !(to_set & FUSE_SET_ATTR_SIZE)) {
		a->mtime_ns = now;
		mask |= ATTR_MTIME;
	} else if (to_set & FUSE_SET_ATTR_MTIME && !(to_set & FUSE_SET_ATTR_MTIME_NOW)) {
		a->mtime_ns = ns_of(attr->st_mtim);
		mask |= ATTR_MTIME;
	}
	if (to_set & FUSE_SET_ATTR_CTIME) {
		a->ctime_ns = ns_of(attr->st_ctim);
		mask |= ATTR_CTIME;
	}
	return mask;
}

/* Which fields change, and their new values over those in *a. */
static uint32_t setattr_mask(const struct stat *attr, int to_set, struct node_attr *a)
{
	uint32_t mask = setattr_times(attr, to_set, a);
	uint32_t mode = a->mode;

	if (to_set & FUSE_SET_ATTR_MODE)
		mode = (a->mode & S_IFMT) | (attr->st_mode & 07777);
	if (to_set & FUSE_SET_ATTR_KILL_SUID && !S_ISDIR(mode))
		mode = mode_without_setid(mode);
	if (to_set & FUSE_SET_ATTR_MODE || mode != a->mode)
		mask |= ATTR_MODE;
	a->mode = mode;
	if (to_set & FUSE_SET_ATTR_UID) {
		a->uid = attr->st_uid;
		mask |= ATTR_UID;
	}
	if (to_set & FUSE_SET_ATTR_GID) {
		a->gid = attr->st_gid;
		mask |= ATTR_GID;
	}
	return mask;
}

static int truncate_by_id(struct session *s, fuse_ino_t id, uint64_t size)
{
	_cleanup_file_ struct file *f = NULL;
	int r = files_get(s->o.files, inodes_node(s->inodes, id), &f);

	if (r < 0)
		return r;
	r = file_truncate(f, size);
	/* Nobody will close it: this is the moment when it becomes a version. */
	if (r == 0 && !file_is_open(f))
		r = file_flush(f);
	return r;
}

static int setattr_size(
	struct session *s, fuse_ino_t id, const struct stat *attr, struct fuse_file_info *fi)
{
	if (attr->st_size < 0)
		return -EINVAL;
	if ((uint64_t)attr->st_size > FILE_BYTES_MAX)
		return -EFBIG;
	if (fi && fi->fh)
		return file_truncate(handle_of(fi)->file, (uint64_t)attr->st_size);
	return truncate_by_id(s, id, (uint64_t)attr->st_size);
}

/*
 * The files are the mounting user's and nobody else's: to give one away does not work, as on other
 * file systems that know no owners. To "give" it to him changes nothing.
 */
static int setattr_owner_mine(
	const struct session *s, const struct node *n, const struct node_attr *a, uint32_t *mask)
{
	if ((*mask & ATTR_UID && a->uid != reply_uid(s, n)) ||
		(*mask & ATTR_GID && a->gid != reply_gid(s, n)))
		return -EPERM;
	if (*mask & (ATTR_UID | ATTR_GID))
		*mask |= ATTR_CTIME;
	*mask &= ~(uint32_t)(ATTR_UID | ATTR_GID);
	return 0;
}

/* One of the two was given: both are this device's from now on. */
static int setattr_owner(
	const struct session *s, const struct node *before, struct node *n, uint32_t *mask)
{
	if (!(*mask & (ATTR_UID | ATTR_GID)))
		return 0;
	if (s->owners == OWNERS_MINE) {
		int r = setattr_owner_mine(s, before, &n->attr, mask);

		n->attr.uid = before->attr.uid;
		n->attr.gid = before->attr.gid;
		if (*mask & ATTR_CTIME)
			n->attr.ctime_ns = clock_real_ns();
		return r;
	}
	if (!(*mask & ATTR_UID))
		n->attr.uid = reply_uid(s, before);
	if (!(*mask & ATTR_GID))
		n->attr.gid = reply_gid(s, before);
	*mask |= ATTR_UID | ATTR_GID;
	return 0;
}

/* A node without a name: the tree has nothing to change. */
static int setattr_orphan(struct session *s, struct node *n, uint32_t mask)
{
	if (!(mask & ATTR_CTIME))
		n->attr.ctime_ns = clock_real_ns();
	return inodes_orphan_put(s->inodes, n);
}

static bool same_bytes(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

/* chmod of a node with an access ACL: the two go on saying the same. 1 when there was one. */
static int setattr_acl(struct session *s, struct node *n, uint32_t mask)
{
	_cleanup_buf_ struct buf value = { 0 }, changed = { 0 };
	struct xattr_edit edit = { { (const uint8_t *)ACL_ACCESS, strlen(ACL_ACCESS) } };
	struct node_attr attr = n->attr;
	struct acl acl;
	int r = -ENODATA;

	if (mask & ATTR_MODE && n->has_xattrs)
		r = tree_getxattr(s->o.tree, n->id, edit.name, &value);
	if (r == 0 && acl_decode((struct slice){ value.data, value.len }, &acl) < 0)
		r = -ENODATA;
	if (r < 0)
		return r == -ENODATA ? 0 : r;
	if (acl.n == 0)
		return 0;
	acl_chmod(&acl, attr.mode);
	r = acl_encode(&acl, &changed);
	edit.value = (struct slice){ changed.data, changed.len };
	if (r == 0 && same_bytes(&value, &changed))
		return 0;
	if (r == 0)
		r = tree_setattr_xattr(s->o.tree, n->id, mask, &attr, &edit, n);
	return r < 0 ? r : 1;
}

static int setattr_tree(struct session *s, struct node *n, uint32_t mask)
{
	struct node_attr attr = n->attr;
	int r = setattr_acl(s, n, mask);

	return r ? MIN(r, 0) : tree_setattr(s->o.tree, n->id, mask, &attr, n);
}

static int setattr_node(struct session *s, const struct node *before, uint32_t mask)
{
	_cleanup_file_ struct file *f = NULL;
	struct node n = *before;
	int r = setattr_tree(s, &n, mask);

	if (r == -ENOENT)
		r = setattr_orphan(s, &n, mask);
	if (r < 0 || !S_ISREG(n.attr.mode) || files_peek(s->o.files, n.id, &f) <= 0)
		return r;
	file_set_node(f, &n);
	if (mask & (ATTR_ATIME | ATTR_MTIME | ATTR_CTIME))
		file_set_times(f, mask, n.attr.mtime_ns, n.attr.ctime_ns);
	return 0;
}

int node_setattr(struct session *s, fuse_ino_t id, const struct stat *attr, int to_set,
	struct fuse_file_info *fi, struct node *ret)
{
	struct node before, n;
	uint32_t mask;
	int r = 0;

	if (to_set & FUSE_SET_ATTR_SIZE)
		r = setattr_size(s, id, attr, fi);
	if (r == 0)
		r = node_by_id(s, id, &before);
	if (r < 0)
		return r;
	n = before;
	mask = setattr_mask(attr, to_set, &n.attr);
	r = setattr_owner(s, &before, &n, &mask);
	if (r == 0 && mask)
		r = setattr_node(s, &n, mask);
	if (r == 0 && to_set & (FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		r = drop_capability(s, id, NULL);
	return r < 0 ? r : node_by_id(s, id, ret);
}

/*
 * The kernel takes the attributes of this answer even when it was told since that they are old:
 * it is told again.
 */
void op_setattr(
	fuse_req_t req, fuse_ino_t id, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct session *s = session_of(req);
	uint64_t seen = atomic_load(&s->remote_changes);
	struct node n;
	int r = node_setattr(s, id, attr, to_set, fi, &n);

	if (r < 0) {
		reply_error(req, r);
		return;
	}
	reply_attr(req, &n);
	if (atomic_load(&s->remote_changes) != seen)
		invalidator_changed(
			s->invalidator, &(struct tree_event){ .kind = TREE_ATTR, .node = n.id }, 1);
}

void op_readlink(fuse_req_t req, fuse_ino_t id)
{
	_cleanup_buf_ struct buf target = { 0 };
	struct session *s = session_of(req);
	int r = tree_readlink(s->o.tree, inodes_node(s->inodes, id), &target);

	if (r < 0)
		reply_error(req, r);
	else if (!buf_str(&target))
		reply_error(req, -ENOMEM);
	else
		fuse_reply_readlink(req, (const char *)target.data);
}
