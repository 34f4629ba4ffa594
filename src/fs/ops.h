/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the families of FUSE operations share. Private to the session.
 *
 * Locks, in order; none is held while the kernel is notified, and none but open_lock while a
 * call of file.h or tree.h runs:
 *	session.open_lock	read: an open from "which instance" to "it is open"; write: the
 *				decision that a remote change makes about an open instance
 *	session.handles_lock, and the locks of invalidator, waits, seeks, inodes: leaves
 */
#ifndef VARVE_OPS_H
#define VARVE_OPS_H

#define FUSE_USE_VERSION 312

#include "fs/inodes.h"
#include "fs/session.h"

#include <fuse_lowlevel.h>
#include <stdatomic.h>

struct invalidator;
struct loop;
struct seeks;
struct waits;

/*
 * Whose the files are on this mount. A drive is one person's on each of his devices, where he has
 * another number each time: so they are the mounting user's. Root runs programs that give files
 * away and look whether it worked (tar, rsync, dpkg), so to him the owner of what was made or given
 * away on this very device shows; what comes from elsewhere is his. -o posix: as it is stored.
 */
enum owners {
	OWNERS_MINE,
	OWNERS_HERE,
	OWNERS_STORED,
};

struct session {
	struct session_options o;
	enum owners owners;
	bool acls; /* numbers in them mean something only where owners are shown */
	char *fsname;
	char *cache_dir;
	char *dir; /* where it is mounted */
	struct fuse_session *fuse;
	struct inodes *inodes;
	struct invalidator *invalidator;
	struct loop *loop;
	struct waits *waits;
	struct fsyncs *fsyncs;
	struct seeks *seeks;
	pthread_rwlock_t open_lock;
	pthread_mutex_t handles_lock;
	struct handle *handles; /* what is open; the kernel does not close it when it is gone */
	bool may_skip_opendir; /* the kernel can do without */
	_Atomic uint64_t names_changed; /* counts what may make a directory's snapshot old */
	_Atomic uint64_t remote_changes; /* counts what came from elsewhere */
	_Atomic uint64_t capabilities; /* counts xattrs security.capability that were set */
	pthread_mutex_t run_lock; /* the three below; leaf */
	pthread_cond_t run_changed;
	bool running;
	enum { STOP_NONE, STOP_UNDER_WAY, STOP_DONE } stop;
};

static inline struct session *session_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* An open regular file: fi->fh. */
struct handle {
	struct file *file;
	uint64_t id; /* the FUSE id that it was opened by */
	bool may_map; /* pages of it can be mapped and written to */
	_Atomic uint64_t no_capability; /* privileges_count() when it had none, and one */
	struct handle *prev, *next; /* session.handles */
};

static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

/*
 * The attributes of what a FUSE id means: of its retired instance, else of the live one, else of
 * the tree, else the last ones of an orphan. 0, -ESTALE when nothing is known of it, -errno.
 */
int node_by_id(struct session *s, fuse_ino_t id, struct node *ret) must_check;
/* Puts what an open or dirty file has over what the tree says of it. */
void node_overlay(struct session *s, struct node *n);
/* Tells the live instance, if there is one, what the tree says of the node now. */
void node_tell_instance(struct session *s, const struct node *n);
void node_refresh_instance(struct session *s, uint64_t node);

/*
 * What a write or a truncation takes away besides set-id bits: the file's capabilities. `h` may be
 * NULL.
 */
int drop_capability(struct session *s, fuse_ino_t id, struct handle *h) must_check;

/* setattr as FUSE says it; *ret is the node as it is then. */
int node_setattr(struct session *s, fuse_ino_t id, const struct stat *attr, int to_set,
	struct fuse_file_info *fi, struct node *ret) must_check;

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t id, uint64_t n);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_setattr(
	fuse_req_t req, fuse_ino_t id, struct stat *attr, int to_set, struct fuse_file_info *fi);
void op_readlink(fuse_req_t req, fuse_ino_t id);

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	struct fuse_file_info *fi);
void op_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t new_parent, const char *new_name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	const char *new_name, unsigned flags);

void op_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_readdir(
	fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi);
void op_readdirplus(
	fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi);

void op_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t id, const char *p, size_t size, off_t offset,
	struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t id, int mode, off_t offset, off_t length,
	struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t id, off_t offset, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t id_in, off_t offset_in,
	struct fuse_file_info *fi_in, fuse_ino_t id_out, off_t offset_out,
	struct fuse_file_info *fi_out, size_t length, int flags);
/* Opens the node for a handle: as the reply to open and create needs it. */
int handle_open(struct session *s, fuse_ino_t id, uint64_t node, struct handle **ret) must_check;
void handle_close(struct session *s, struct handle *h);
/* What open and create tell the kernel about caching. */
void file_open_flags(struct session *s, struct fuse_file_info *fi, struct handle *h);

void op_setxattr(
	fuse_req_t req, fuse_ino_t id, const char *name, const char *value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t id, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t id, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t id, const char *name);

void op_statfs(fuse_req_t req, fuse_ino_t id);
void op_ioctl(fuse_req_t req, fuse_ino_t id, unsigned cmd, void *arg, struct fuse_file_info *fi,
	unsigned flags, const void *in, size_t in_size, size_t out_size);

#endif
