// SPDX-License-Identifier: Apache-2.0
/* opendir, readdir, readdirplus, releasedir, fsyncdir. */
#include "fs/reply.h"

#include <errno.h>
#include <string.h>

/*
 * Offsets that the kernel sees: 0 the start, 1 behind ".", 2 behind "..", and DIR_FIRST +
 * a place of the tree behind each name.
 *
 * A name keeps its place whatever comes and goes beside it, so nothing is remembered of who lists
 * a directory: no handle, and the kernel need not ask for one. It goes on in its own copy of a
 * listing wherever another one had come to, also in a newer copy, and asks us from a place on that
 * its copy does not have any more.
 */
#define DIR_FIRST 2

/* From then on the kernel opens directories, and keeps their listings, without a word. */
void op_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	if (session_of(req)->may_skip_opendir) {
		reply_error(req, -ENOSYS);
		return;
	}
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

void op_releasedir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	reply_error(req, 0);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi)
{
	reply_error(req, tree_sync(session_of(req)->o.tree));
}

/* An answer under way. */
struct listing {
	fuse_req_t req;
	struct session *s;
	uint64_t dir;
	uint64_t names_changed; /* the session's count before the walk began */
	char *p;
	size_t n;
	size_t size;
	bool plus;
	bool full;
};

/*
 * The node behind a name, for an answer that makes the kernel remember the name. The walk may
 * be older than the last change of names; the name is asked for again then. 0: it is gone.
 */
static int entry_node(struct listing *l, const struct tree_dirent *e, struct node *ret)
{
	struct session *s = l->s;
	int r;

	if (atomic_load(&s->names_changed) == l->names_changed)
		r = tree_get(s->o.tree, e->node, ret);
	else
		r = tree_lookup(s->o.tree, l->dir, e->name, ret);
	if (r > 0)
		node_overlay(s, ret);
	return r;
}

static void listing_put(
	struct listing *l, const char *name, const struct fuse_entry_param *e, off_t next)
{
	size_t room = l->size - l->n;
	size_t n;

	if (l->plus)
		n = fuse_add_direntry_plus(l->req, l->p + l->n, room, name, e, next);
	else
		n = fuse_add_direntry(l->req, l->p + l->n, room, name, &e->attr, next);
	if (n > room)
		l->full = true;
	else
		l->n += n;
}

/* "." and "..", which the kernel wants by number only. */
static void listing_dots(struct listing *l, off_t *offset)
{
	uint64_t parent = l->dir;
	struct fuse_entry_param e = { 0 };

	if (*offset == 0 && !l->full) {
		e.attr = (struct stat){ .st_ino = l->dir, .st_mode = S_IFDIR };
		listing_put(l, ".", &e, 1);
		*offset = 1;
	}
	if (*offset == 1 && !l->full) {
		if (tree_parent(l->s->o.tree, l->dir, &parent) < 0)
			parent = l->dir;
		e.attr = (struct stat){ .st_ino = parent, .st_mode = S_IFDIR };
		listing_put(l, "..", &e, DIR_FIRST);
		*offset = DIR_FIRST;
	}
}

static int listing_entry(struct listing *l, const struct tree_dirent *d)
{
	struct fuse_entry_param e = { .attr = { .st_ino = d->node, .st_mode = d->type } };
	char name[256];
	struct node n;
	int r;

	if (d->name.n >= sizeof name)
		return -EIO;
	memcpy(name, d->name.p, d->name.n);
	name[d->name.n] = '\0';
	if (l->plus) {
		r = entry_node(l, d, &n);
		if (r <= 0)
			return r;
		reply_entry_fill(l->s, &n, &e);
	}
	listing_put(l, name, &e, (off_t)(d->next + DIR_FIRST));
	if (l->plus && l->full)
		reply_entry_lost(l->s, &e);
	return 0;
}

static int listing_names(struct listing *l, struct tree_dir *walk)
{
	struct tree_dirent d;
	int r = 0;

	while (!l->full && (r = tree_readdir(walk, &d)) > 0) {
		r = listing_entry(l, &d);
		if (r < 0)
			break;
	}
	return r;
}

static int listing_fill(struct listing *l, off_t offset)
{
	_cleanup_(tree_closedir_p) struct tree_dir *walk = NULL;
	int r = offset < 0 ? -EINVAL : tree_opendir(l->s->o.tree, l->dir, &walk);

	/* Removed: nothing to list. */
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	listing_dots(l, &offset);
	r = tree_seekdir(walk, (uint64_t)offset - DIR_FIRST);
	if (r == 0)
		r = listing_names(l, walk);
	/* What was found before an error is an answer; the error comes with the next call. */
	return l->n > 0 ? 0 : MIN(r, 0);
}

static void list(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, bool plus)
{
	_cleanup_free_ char *p = malloc(size);
	struct session *s = session_of(req);
	struct listing l = {
		.req = req,
		.s = s,
		.dir = inodes_node(s->inodes, id),
		.names_changed = atomic_load(&s->names_changed),
		.p = p,
		.size = size,
		.plus = plus,
	};
	int r = p ? listing_fill(&l, offset) : -ENOMEM;

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_buf(req, p, l.n);
}

void op_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
	list(req, id, size, offset, false);
}

void op_readdirplus(
	fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
	list(req, id, size, offset, true);
}
