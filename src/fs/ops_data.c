// SPDX-License-Identifier: Apache-2.0
/* open, read, write, flush, release, fsync, fallocate, lseek, copy_file_range. */
#include "fs/fsyncs.h"
#include "fs/invalidate.h"
#include "fs/loop.h"
#include "fs/reply.h"
#include "fs/seeks.h"
#include "fs/waits.h"

#include "bounds.h"
#include "bytes.h"

#include <errno.h>
#include <utlist.h>

int handle_open(struct session *s, fuse_ino_t id, uint64_t node, struct handle **ret)
{
	_cleanup_free_ struct handle *h = calloc(1, sizeof *h);
	int r;

	if (!h)
		return -ENOMEM;
	h->id = id;
	/* So that a remote change sees the file as open, or comes before this open. */
	pthread_rwlock_rdlock(&s->open_lock);
	r = inodes_retired(s->inodes, id) ? -ESTALE : files_get(s->o.files, node, &h->file);
	if (r >= 0)
		file_opened(h->file);
	pthread_rwlock_unlock(&s->open_lock);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	pthread_mutex_lock(&s->handles_lock);
	DL_PREPEND(s->handles, h);
	pthread_mutex_unlock(&s->handles_lock);
	*ret = steal(h);
	return 0;
}

void handle_close(struct session *s, struct handle *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&s->handles_lock);
	DL_DELETE(s->handles, h);
	pthread_mutex_unlock(&s->handles_lock);
	if (h->may_map)
		file_add_mappers(h->file, -1);
	file_closed(h->file);
	file_unref(h->file);
	free(h);
}

static bool flags_write(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

void file_open_flags(struct session *s, struct fuse_file_info *fi, struct handle *h)
{
	fi->fh = (uintptr_t)h;
	h->may_map = (fi->flags & O_ACCMODE) == O_RDWR;
	if (h->may_map)
		file_add_mappers(h->file, 1);
	/* Pages of an old content must not mix with what this handle reads. */
	fi->keep_cache = !invalidator_contents_wait(s->invalidator);
	fi->noflush = !flags_write(fi->flags);
}

/*
 * Whether a write of the caller takes set-id bits away. CAP_FSETID is what counts; user 0 stands
 * for it. A write of mapped pages has no caller.
 */
static bool clears_suid(fuse_req_t req, const struct fuse_file_info *fi)
{
	return !fi->writepage && fuse_req_ctx(req)->uid != 0;
}

/* The bits went without the kernel having asked for it: what it remembers of the mode is old. */
static void suid_cleared(struct session *s, fuse_ino_t id, const struct node *before)
{
	struct tree_event e = { .kind = TREE_ATTR, .node = before->id };

	if (before->attr.mode & (S_ISUID | S_ISGID))
		invalidator_changed(s->invalidator, &e, 1);
}

static int open_truncate(fuse_req_t req, struct handle *h, struct fuse_file_info *fi)
{
	struct session *s = session_of(req);
	struct stat none = { 0 };
	struct node n;
	int r;

	file_node_attr(h->file, &n);
	r = drop_capability(s, h->id, h);
	if (r == 0)
		r = file_truncate(h->file, 0);
	if (r < 0 || !clears_suid(req, fi) || !(n.attr.mode & (S_ISUID | S_ISGID)))
		return r;
	r = node_setattr(s, h->id, &none, FUSE_SET_ATTR_KILL_SUID, NULL, &n);
	suid_cleared(s, h->id, &n);
	return r;
}

void op_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct session *s = session_of(req);
	struct handle *h = NULL;
	int r = handle_open(s, id, inodes_node(s->inodes, id), &h);

	if (r == 0 && fi->flags & O_TRUNC)
		r = open_truncate(req, h, fi);
	if (r < 0) {
		handle_close(s, h);
		reply_error(req, r);
		return;
	}
	file_open_flags(s, fi, h);
	if (fuse_reply_open(req, fi) < 0)
		handle_close(s, h);
}

void op_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
	if (offset < 0)
		reply_error(req, -EINVAL);
	else
		waits_read(
			session_of(req)->waits, req, handle_of(fi)->file, (uint64_t)offset, size);
}

static int write_checked(fuse_req_t req, struct handle *h, const char *p, size_t size, off_t offset,
	struct fuse_file_info *fi)
{
	bool clear = clears_suid(req, fi);
	struct node before;
	uint64_t end;
	int r;

	if (offset < 0 || !add_fits((uint64_t)offset, size, &end) || end > FILE_BYTES_MAX)
		return -EFBIG;
	if (clear)
		file_node_attr(h->file, &before);
	r = drop_capability(session_of(req), h->id, h);
	if (r < 0)
		return r;
	r = file_write(h->file, (uint64_t)offset, p, size, clear);
	if (r >= 0 && clear)
		suid_cleared(session_of(req), h->id, &before);
	return r;
}

void op_write(fuse_req_t req, fuse_ino_t id, const char *p, size_t size, off_t offset,
	struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);
	int r = write_checked(req, h, p, size, offset, fi);

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_write(req, size);
}

void op_flush(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	reply_error(req, file_flush(handle_of(fi)->file));
}

void op_release(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	handle_close(session_of(req), handle_of(fi));
	reply_error(req, 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi)
{
	struct session *s = session_of(req);
	struct file *f = handle_of(fi)->file;

	if (file_fsync_begin(f) && fsyncs_add(s->fsyncs, req))
		return;
	loop_may_wait();
	reply_error(req, file_fsync(f));
}

void op_fallocate(fuse_req_t req, fuse_ino_t id, int mode, off_t offset, off_t length,
	struct fuse_file_info *fi)
{
	uint64_t end;
	int r;

	if (offset < 0 || length <= 0)
		r = -EINVAL;
	else if (!add_fits((uint64_t)offset, (uint64_t)length, &end) || end > FILE_BYTES_MAX)
		r = -EFBIG;
	else
		r = file_fallocate(handle_of(fi)->file, mode, (uint64_t)offset, (uint64_t)length);
	reply_error(req, r);
}

void op_lseek(fuse_req_t req, fuse_ino_t id, off_t offset, int whence, struct fuse_file_info *fi)
{
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		reply_error(req, -EINVAL);
	else if (offset < 0)
		reply_error(req, -ENXIO);
	else
		seeks_ask(session_of(req)->seeks, req, handle_of(fi), (uint64_t)offset, whence);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t id_in, off_t offset_in,
	struct fuse_file_info *fi_in, fuse_ino_t id_out, off_t offset_out,
	struct fuse_file_info *fi_out, size_t length, int flags)
{
	int64_t r;

	/* The reply has 32 bits for the count. */
	length = MIN(length, (size_t)GIB);
	if (flags != 0 || offset_in < 0 || offset_out < 0)
		r = -EINVAL;
	else
		r = file_copy_range(handle_of(fi_in)->file, (uint64_t)offset_in,
			handle_of(fi_out)->file, (uint64_t)offset_out, length);
	if (r < 0)
		reply_error(req, (int)r);
	else
		fuse_reply_write(req, (size_t)r);
}
