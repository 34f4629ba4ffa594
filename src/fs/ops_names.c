// SPDX-License-Identifier: Apache-2.0
/* create, mknod, mkdir, symlink, link, unlink, rmdir, rename. */
#include "fs/reply.h"

#include "bounds.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>

/* A name that is to be made. */
static int name_check(const char *name, struct slice *ret)
{
	*ret = (struct slice){ (const uint8_t *)name, strlen(name) };
	if (ret->n > NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	return name_valid(*ret) ? 0 : -EINVAL;
}

/*
 * Owner and group as on any Linux file system: a set-group-id directory hands down its group,
 * and to directories the bit too. The kernel has applied the umask.
 */
static int init_for(fuse_req_t req, uint64_t parent, mode_t mode, dev_t rdev, struct node_init *ret)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct node dir;
	int r = tree_get(session_of(req)->o.tree, parent, &dir);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	*ret = (struct node_init){
		.mode = mode,
		.uid = ctx->uid,
		.gid = ctx->gid,
		.rdev = rdev,
	};
	if (dir.attr.mode & S_ISGID) {
		ret->gid = dir.attr.gid;
		if (S_ISDIR(mode))
			ret->mode |= S_ISGID;
	}
	return 0;
}

static int make(fuse_req_t req, fuse_ino_t parent_id, const char *name, struct node_init *init,
	struct node *ret)
{
	struct session *s = session_of(req);
	uint64_t parent = inodes_node(s->inodes, parent_id);
	struct slice target = init->target;
	struct slice n;
	int r = name_check(name, &n);

	if (r == 0)
		r = init_for(req, parent, init->mode, init->rdev, init);
	if (r < 0)
		return r;
	init->target = target;
	r = tree_create(s->o.tree, parent, n, init, ret);
	atomic_fetch_add(&s->names_changed, 1);
	return r;
}

static void make_and_reply(
	fuse_req_t req, fuse_ino_t parent, const char *name, struct node_init *init)
{
	struct node n;
	int r = make(req, parent, name, init, &n);

	if (r < 0)
		reply_error(req, r);
	else
		reply_entry(req, &n);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct node_init init = { .mode = mode };

	if (S_ISCHR(mode) || S_ISBLK(mode))
		init.rdev = rdev;
	make_and_reply(req, parent, name, &init);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct node_init init = { .mode = S_IFDIR | (mode & 07777) };

	make_and_reply(req, parent, name, &init);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct node_init init = { .mode = S_IFLNK | 0777 };

	init.target = (struct slice){ (const uint8_t *)target, strlen(target) };
	if (init.target.n > SYMLINK_BYTES_MAX)
		reply_error(req, -ENAMETOOLONG);
	else
		make_and_reply(req, parent, name, &init);
}

/*
 * The kernel sends CREATE when it believes that the name is free. Another device may have taken
 * it: without O_EXCL that file is opened then.
 */
static int create_node(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, int flags,
	struct node *ret)
{
	struct session *s = session_of(req);
	struct node_init init = { .mode = S_IFREG | (mode & 07777) };
	struct slice n = { (const uint8_t *)name, strlen(name) };
	int r = make(req, parent, name, &init, ret);

	if (r != -EEXIST || flags & O_EXCL)
		return r;
	r = tree_lookup(s->o.tree, inodes_node(s->inodes, parent), n, ret);
	if (r <= 0)
		return r < 0 ? r : -ESTALE;
	if (!S_ISREG(ret->attr.mode))
		return -ESTALE;
	return 0;
}

void op_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct session *s = session_of(req);
	struct handle *h = NULL;
	struct fuse_entry_param e;
	struct node n;
	int r = create_node(req, parent, name, mode, fi->flags, &n);

	if (r == 0)
		r = handle_open(s, inodes_current(s->inodes, n.id), n.id, &h);
	if (r == 0 && fi->flags & O_TRUNC && n.attr.size > 0)
		r = file_truncate(h->file, 0);
	if (r < 0) {
		handle_close(s, h);
		reply_error(req, r);
		return;
	}
	node_overlay(s, &n);
	reply_entry_fill(s, &n, &e);
	/* Its content changed elsewhere just now: the handle is on the id that was retired. */
	if (e.ino != h->id) {
		reply_entry_lost(s, &e);
		handle_close(s, h);
		reply_error(req, -ESTALE);
		return;
	}
	file_open_flags(s, fi, h);
	if (fuse_reply_create(req, &e, fi) < 0) {
		reply_entry_lost(s, &e);
		handle_close(s, h);
	}
}

static int link_node(
	struct session *s, fuse_ino_t id, fuse_ino_t parent, const char *name, struct node *ret)
{
	struct slice n;
	int r = name_check(name, &n);

	if (r == 0)
		r = tree_link(s->o.tree, inodes_node(s->inodes, id), inodes_node(s->inodes, parent),
			n, ret);
	atomic_fetch_add(&s->names_changed, 1);
	return r;
}

void op_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t new_parent, const char *new_name)
{
	struct session *s = session_of(req);
	struct node n;
	int r = link_node(s, id, new_parent, new_name, &n);

	if (r < 0) {
		reply_error(req, r);
		return;
	}
	node_tell_instance(s, &n);
	node_overlay(s, &n);
	reply_entry(req, &n);
}

/*
 * A name of the node went. When it was the last, what has it open goes on with the live
 * instance, and everything else with the attributes that are kept until the kernel forgets it.
 */
static void victim_left(struct session *s, const struct victim *v)
{
	_cleanup_file_ struct file *f = NULL;
	struct node n = v->node;

	if (!v->any)
		return;
	if (S_ISREG(n.attr.mode) && files_peek(s->o.files, n.id, &f) > 0) {
		file_set_node(f, &n);
		if (n.nlink == 0)
			file_set_unlinked(f);
		file_node_attr(f, &n);
		n.nlink = v->node.nlink;
	}
	/* Without memory for it, fstat() of what is open says ESTALE. */
	if (n.nlink == 0 && inodes_orphan_put(s->inodes, &n) < 0)
		return;
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct session *s = session_of(req);
	struct slice n = { (const uint8_t *)name, strlen(name) };
	struct victim v = { 0 };
	int r = tree_unlink(s->o.tree, inodes_node(s->inodes, parent), n, &v);

	atomic_fetch_add(&s->names_changed, 1);
	if (r == 0)
		victim_left(s, &v);
	reply_error(req, r);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct session *s = session_of(req);
	struct slice n = { (const uint8_t *)name, strlen(name) };
	struct victim v = { 0 };
	int r = tree_rmdir(s->o.tree, inodes_node(s->inodes, parent), n, &v);

	atomic_fetch_add(&s->names_changed, 1);
	if (r == 0) {
		v.node.nlink = 0;
		victim_left(s, &v);
	}
	reply_error(req, r);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	const char *new_name, unsigned flags)
{
	struct session *s = session_of(req);
	struct slice from = { (const uint8_t *)name, strlen(name) };
	struct victim v = { 0 };
	struct slice to;
	int r = name_check(new_name, &to);

	if (r == 0 && (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
			      (flags & RENAME_NOREPLACE && flags & RENAME_EXCHANGE)))
		r = -EINVAL;
	if (r == 0)
		r = tree_rename(s->o.tree, inodes_node(s->inodes, parent), from,
			inodes_node(s->inodes, new_parent), to, flags, &v);
	atomic_fetch_add(&s->names_changed, 1);
	if (r == 0) {
		if (S_ISDIR(v.node.attr.mode))
			v.node.nlink = 0;
		victim_left(s, &v);
	}
	reply_error(req, r);
}
