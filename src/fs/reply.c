// SPDX-License-Identifier: Apache-2.0
#include "fs/reply.h"

#include "bounds.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <unistd.h>

/* As ext4 shows an empty directory; programs only look whether it is zero. */
#define DIR_BYTES 4096

static struct timespec timespec_of(int64_t ns)
{
	struct timespec ts = { .tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S };

	if (ts.tv_nsec < 0) {
		ts.tv_sec--;
		ts.tv_nsec += NS_PER_S;
	}
	return ts;
}

static bool shows_owner(const struct session *s, const struct node *n)
{
	return s->owners == OWNERS_STORED || (s->owners == OWNERS_HERE && n->owner_here);
}

uint32_t reply_uid(const struct session *s, const struct node *n)
{
	return shows_owner(s, n) ? n->attr.uid : geteuid();
}

uint32_t reply_gid(const struct session *s, const struct node *n)
{
	return shows_owner(s, n) ? n->attr.gid : getegid();
}

void reply_stat(struct session *s, const struct node *n, struct stat *ret)
{
	const struct node_attr *a = &n->attr;

	*ret = (struct stat){
		.st_ino = n->id,
		.st_mode = a->mode,
		.st_nlink = n->nlink,
		.st_uid = reply_uid(s, n),
		.st_gid = reply_gid(s, n),
		.st_rdev = a->rdev,
		.st_size = S_ISDIR(a->mode) ? DIR_BYTES : (off_t)a->size,
		.st_blksize = REPLY_BLOCK_BYTES,
		.st_atim = timespec_of(a->atime_ns),
		.st_mtim = timespec_of(a->mtime_ns),
		.st_ctim = timespec_of(a->ctime_ns),
	};
	if (S_ISLNK(a->mode))
		return;
	ret->st_blocks = (ret->st_size + STAT_BLOCK_BYTES - 1) / STAT_BLOCK_BYTES;
	if (S_ISREG(a->mode))
		ret->st_blocks -= (blkcnt_t)(MIN(n->holes, a->size) / STAT_BLOCK_BYTES);
}

void reply_entry_fill(struct session *s, const struct node *n, struct fuse_entry_param *ret)
{
	*ret = (struct fuse_entry_param){
		.ino = inodes_entry(s->inodes, n->id),
		.attr_timeout = REPLY_TIMEOUT_S,
		.entry_timeout = REPLY_TIMEOUT_S,
	};
	reply_stat(s, n, &ret->attr);
}

void reply_entry_lost(struct session *s, const struct fuse_entry_param *e)
{
	inodes_entry_lost(s->inodes, e->ino);
}

/* Lines of the same kind are no news. */
#define DAMAGE_LINE_MS 10000

/* Rows that cannot be read: what programs know for that is EIO. */
static int damage(void)
{
	static _Atomic int64_t next_ms;
	int64_t now = clock_mono_ms(), next = atomic_load(&next_ms);

	if (now >= next && atomic_compare_exchange_strong(&next_ms, &next, now + DAMAGE_LINE_MS))
		log_error("the local store is damaged, and cannot be read in parts; varve umount, "
			  "then varve doctor --repair");
	return -EIO;
}

void reply_error(fuse_req_t req, int error)
{
	if (error == -EBADMSG)
		error = damage();
	fuse_reply_err(req, error < 0 ? -error : 0);
}

void reply_entry(fuse_req_t req, const struct node *n)
{
	struct session *s = session_of(req);
	struct fuse_entry_param e;

	reply_entry_fill(s, n, &e);
	if (fuse_reply_entry(req, &e) < 0)
		reply_entry_lost(s, &e);
}

void reply_no_entry(fuse_req_t req)
{
	struct fuse_entry_param e = { .entry_timeout = REPLY_TIMEOUT_S };

	fuse_reply_entry(req, &e);
}

void reply_attr(fuse_req_t req, const struct node *n)
{
	struct stat st;

	reply_stat(session_of(req), n, &st);
	fuse_reply_attr(req, &st, REPLY_TIMEOUT_S);
}

void reply_xattr(fuse_req_t req, size_t size, const struct buf *value)
{
	if (size == 0)
		fuse_reply_xattr(req, value->len);
	else if (size < value->len)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, (const char *)value->data, value->len);
}
