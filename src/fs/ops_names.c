// SPDX-License-Identifier: Apache-2.0
/* create, mknod, mkdir, symlink, link, unlink, rmdir, rename. */
#include "fs/acl.h"
#include "fs/reply.h"

#include "bounds.h"
#include "fault.h"

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

/* A node to be made, and the ACLs that it starts with. */
struct making {
	struct node_init init;
	struct xattr acls[2];
	struct buf access, inherited;
};

static void making_done(struct making *m)
{
	buf_done(&m->access);
	buf_done(&m->inherited);
}

static void making_add(struct making *m, const char *name, const struct buf *value)
{
	m->acls[m->init.n_xattrs++] = (struct xattr){
		.name = { (const uint8_t *)name, strlen(name) },
		.value = { value->data, value->len },
	};
	m->init.xattrs = m->acls;
}

/* What a directory's default ACL gives. 1, 0: it has none. */
static int inherit(struct session *s, uint64_t dir, struct making *m)
{
	struct slice name = { (const uint8_t *)ACL_DEFAULT, strlen(ACL_DEFAULT) };
	struct acl acl;
	int r = tree_getxattr(s->o.tree, dir, name, &m->inherited);

	if (r < 0)
		return r == -ENODATA ? 0 : r;
	if (acl_decode((struct slice){ m->inherited.data, m->inherited.len }, &acl) < 0)
		return -EIO;
	if (acl.n == 0)
		return 0;
	if (acl_inherit(&acl, &m->init.mode)) {
		r = acl_encode(&acl, &m->access);
		making_add(m, ACL_ACCESS, &m->access);
	}
	if (S_ISDIR(m->init.mode))
		making_add(m, ACL_DEFAULT, &m->inherited);
	return r < 0 ? r : 1;
}

/* It takes the place of the umask, which the kernel leaves to us for this reason. */
static int permissions_for(fuse_req_t req, const struct node *dir, struct making *m)
{
	int r = 0;

	if (S_ISLNK(m->init.mode))
		return 0;
	if (dir->has_xattrs)
		r = inherit(session_of(req), dir->id, m);
	if (r == 0)
		m->init.mode &= ~(uint32_t)(fuse_req_ctx(req)->umask & 0777);
	return MIN(r, 0);
}

/*
 * Owner and group as on any Linux file system: a set-group-id directory hands down its group,
 * and to directories the bit too.
 */
static int init_for(fuse_req_t req, uint64_t parent, struct making *m)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct session *s = session_of(req);
	struct node dir;
	int r = tree_get(s->o.tree, parent, &dir);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	m->init.uid = ctx->uid;
	m->init.gid = ctx->gid;
	if (dir.attr.mode & S_ISGID) {
		m->init.gid = reply_gid(s, &dir);
		if (S_ISDIR(m->init.mode))
			m->init.mode |= S_ISGID;
	}
	return permissions_for(req, &dir, m);
}

static int make(fuse_req_t req, fuse_ino_t parent_id, const char *name,
	const struct node_init *init, struct node *ret)
{
	_cleanup_(making_done) struct making m = { .init = *init };
	struct session *s = session_of(req);
	uint64_t parent = inodes_node(s->inodes, parent_id);
	struct slice n;
	int r = name_check(name, &n);

	if (r == 0)
		r = init_for(req, parent, &m);
	if (r < 0)
		return r;
	r = tree_create(s->o.tree, parent, n, &m.init, ret);
	atomic_fetch_add(&s->names_changed, 1);
	return r;
}

static void make_and_reply(
	fuse_req_t req, fuse_ino_t parent, const char *name, const struct node_init *init)
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
static void victim_left(struct session *s, struct victim *v)
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
	if (n.nlink == 0 && inodes_orphan_put(s->inodes, &n) == 0)
		inodes_orphan_give_xattrs(s->inodes, n.id, &v->xattrs);
	victim_done(v);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct session *s = session_of(req);
	struct slice n = { (const uint8_t *)name, strlen(name) };
	struct victim v = { 0 };
	int r = tree_unlink(s->o.tree, inodes_node(s->inodes, parent), n, &v);

	atomic_fetch_add(&s->names_changed, 1);
	fault_instant("names.unlinked");
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
	if (r == 0)
		victim_left(s, &v);
	reply_error(req, r);
}

static void node_moved(struct session *s, const struct node *n)
{
	_cleanup_file_ struct file *f = NULL;

	if (!S_ISREG(n->attr.mode) || files_peek(s->o.files, n->id, &f) == 0)
		return;
	file_set_node(f, n);
	file_moved(f);
}

static int rename_flags_check(unsigned flags)
{
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	return flags & RENAME_EXCHANGE && flags != RENAME_EXCHANGE ? -EINVAL : 0;
}

/* As ext4 does: a device 0:0 that nobody may open, which overlayfs takes for "deleted". */
static int rename_whiteout(fuse_req_t req, uint64_t parent, struct slice from, uint64_t new_parent,
	struct slice to, unsigned flags, struct renamed *ret)
{
	_cleanup_(making_done) struct making m = { .init.mode = S_IFCHR };
	int r = init_for(req, parent, &m);

	if (r < 0)
		return r;
	return tree_rename_leaving(session_of(req)->o.tree, parent, from, new_parent, to,
		flags & ~(unsigned)RENAME_WHITEOUT, &m.init, ret);
}

static int rename_name(fuse_req_t req, fuse_ino_t parent_id, struct slice from,
	fuse_ino_t new_parent_id, struct slice to, unsigned flags, struct renamed *ret)
{
	struct session *s = session_of(req);
	uint64_t parent = inodes_node(s->inodes, parent_id);
	uint64_t new_parent = inodes_node(s->inodes, new_parent_id);

	if (flags & RENAME_WHITEOUT)
		return rename_whiteout(req, parent, from, new_parent, to, flags, ret);
	return tree_rename(s->o.tree, parent, from, new_parent, to, flags, ret);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	const char *new_name, unsigned flags)
{
	struct session *s = session_of(req);
	struct slice from = { (const uint8_t *)name, strlen(name) };
	struct renamed moved = { 0 };
	struct slice to;
	int r = name_check(new_name, &to);

	if (r == 0)
		r = rename_flags_check(flags);
	if (r == 0)
		r = rename_name(req, parent, from, new_parent, to, flags, &moved);
	atomic_fetch_add(&s->names_changed, 1);
	fault_instant("names.renamed");
	if (r == 0 && moved.node.id) {
		node_moved(s, &moved.node);
		if (flags & RENAME_EXCHANGE)
			node_moved(s, &moved.victim.node);
		else
			victim_left(s, &moved.victim);
	}
	reply_error(req, r);
}
