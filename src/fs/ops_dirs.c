// SPDX-License-Identifier: Apache-2.0
/* opendir, readdir, readdirplus, releasedir, fsyncdir. */
#include "fs/reply.h"

#include <errno.h>
#include <string.h>
#include <utlist.h>

/*
 * Offsets that the kernel sees: 0 the start, 1 behind ".", 2 behind "..", and DIR_FIRST +
 * a place of the tree behind each name.
 */
#define DIR_FIRST 2

struct dir_handle {
	pthread_mutex_t lock;
	uint64_t node;
	struct tree_dir *walk; /* opened at the first read: listings come mostly from the kernel */
	uint64_t place; /* where the walk stands */
	uint64_t names_changed; /* the session's count when the walk looked */
	bool gone; /* removed: nothing to list */
	bool held; /* `pending` was read and did not fit into the last answer */
	struct tree_dirent pending;
	struct dir_handle *prev, *next; /* session.dir_handles */
};

static struct dir_handle *dir_handle_of(const struct fuse_file_info *fi)
{
	return (struct dir_handle *)(uintptr_t)fi->fh;
}

static void dir_handle_free(struct session *s, struct dir_handle *d)
{
	pthread_mutex_lock(&s->handles_lock);
	DL_DELETE(s->dir_handles, d);
	pthread_mutex_unlock(&s->handles_lock);
	tree_closedir(d->walk);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

void dir_handles_free(struct session *s)
{
	while (s->dir_handles)
		dir_handle_free(s, s->dir_handles);
}

void op_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct session *s = session_of(req);
	struct dir_handle *d = calloc(1, sizeof *d);

	if (!d) {
		reply_error(req, -ENOMEM);
		return;
	}
	d->node = inodes_node(s->inodes, id);
	pthread_mutex_init(&d->lock, NULL);
	pthread_mutex_lock(&s->handles_lock);
	DL_PREPEND(s->dir_handles, d);
	pthread_mutex_unlock(&s->handles_lock);
	fi->fh = (uintptr_t)d;
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	if (fuse_reply_open(req, fi) < 0)
		dir_handle_free(s, d);
}

void op_releasedir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	dir_handle_free(session_of(req), dir_handle_of(fi));
	reply_error(req, 0);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi)
{
	reply_error(req, tree_sync(session_of(req)->o.tree));
}

/* Brings the walk to `place`; at 0 it looks anew. */
static int walk_to(struct session *s, struct dir_handle *d, uint64_t place)
{
	int r = 0;

	if (d->walk && place != 0 && place == d->place)
		return 0;
	d->held = false;
	if (place == 0 || !d->walk)
		d->names_changed = atomic_load(&s->names_changed);
	if (!d->walk)
		r = tree_opendir(s->o.tree, d->node, &d->walk);
	else if (place == 0)
		r = tree_seekdir(d->walk, 0);
	d->gone = r == -ENOENT;
	if (r == 0 && place != 0)
		r = tree_seekdir(d->walk, place);
	d->place = place;
	return d->gone ? 0 : r;
}

/* An answer under way. */
struct listing {
	fuse_req_t req;
	struct session *s;
	struct dir_handle *dir;
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

	if (atomic_load(&s->names_changed) == l->dir->names_changed)
		r = tree_get(s->o.tree, e->node, ret);
	else
		r = tree_lookup(s->o.tree, l->dir->node, e->name, ret);
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
static int listing_dots(struct listing *l, off_t *offset)
{
	uint64_t parent = l->dir->node;
	struct fuse_entry_param e = { 0 };

	if (*offset == 0 && !l->full) {
		e.attr = (struct stat){ .st_ino = l->dir->node, .st_mode = S_IFDIR };
		listing_put(l, ".", &e, 1);
		*offset = 1;
	}
	if (*offset == 1 && !l->full) {
		if (tree_parent(l->s->o.tree, l->dir->node, &parent) < 0)
			parent = l->dir->node;
		e.attr = (struct stat){ .st_ino = parent, .st_mode = S_IFDIR };
		listing_put(l, "..", &e, DIR_FIRST);
		*offset = DIR_FIRST;
	}
	return 0;
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

static int listing_names(struct listing *l)
{
	struct dir_handle *d = l->dir;
	int r = 0;

	while (r == 0 && !l->full && !d->gone) {
		if (!d->held) {
			r = tree_readdir(d->walk, &d->pending);
			if (r <= 0)
				break;
		}
		d->held = true;
		r = listing_entry(l, &d->pending);
		if (r == 0 && !l->full) {
			d->place = d->pending.next;
			d->held = false;
		}
	}
	return r;
}

static int listing_fill(struct listing *l, off_t offset)
{
	uint64_t place;
	int r;

	if (offset < 0)
		return -EINVAL;
	place = offset <= DIR_FIRST ? 0 : (uint64_t)offset - DIR_FIRST;
	SCOPED_LOCK(&l->dir->lock);
	r = walk_to(l->s, l->dir, place);
	if (r < 0)
		return r;
	if (!l->dir->gone)
		listing_dots(l, &offset);
	r = listing_names(l);
	/* What was found before an error is an answer; the error comes with the next call. */
	return l->n > 0 ? 0 : r;
}

static void list(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
	_cleanup_free_ char *p = malloc(size);
	struct listing l = {
		.req = req,
		.s = session_of(req),
		.dir = dir_handle_of(fi),
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
	list(req, size, offset, fi, false);
}

void op_readdirplus(
	fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
	list(req, size, offset, fi, true);
}
