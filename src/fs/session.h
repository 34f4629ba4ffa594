/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A FUSE mount: session, operations, kernel invalidation.
 *
 *	session_new(...); session_mount(s, dir, &err); session_run(s); session_free(s);
 */
#ifndef VARVE_SESSION_H
#define VARVE_SESSION_H

#include "fs/file.h"

struct session;

struct session_options {
	struct tree *tree;
	struct files *files;
	const char *fsname; /* shown in /proc/mounts: "varve#DRIVE" */
	const char *mount_options; /* -o, comma-separated; NULL for none */
	/* statfs: where the cache lies, for free space. */
	const char *cache_dir;
	/* Per-file state, shown as user.varve.*: appended; -ENODATA for an unknown name. */
	int (*state_xattr)(void *ctx, uint64_t node, struct slice name, struct buf *ret);
	void *state_ctx;
};

int session_new(const struct session_options *o, struct session **ret, struct err *err) must_check;
void session_free(struct session *s);
/*
 * Mounts. A stale mount of a dead daemon at `dir` is taken away first. Errors are for people:
 * not a directory, not permitted, fusermount3 missing, already mounted by a living daemon.
 */
int session_mount(struct session *s, const char *dir, struct err *err) must_check;
/*
 * Serves until unmounted or session_stop(). 0 or -errno. Unmounts before it returns, lazily when
 * the mount is busy.
 */
int session_run(struct session *s) must_check;
/*
 * Ends session_run(): what is written to mapped files reaches the daemon, waiting reads end with
 * EINTR, then the loop ends. Returns when it has. From any other thread than session_run()'s, not
 * from a signal handler; once it returned, session_run() does not serve again.
 */
void session_stop(struct session *s);
/* To be given to tree_set_sink(). Queues; a thread of the session invalidates. */
struct change_sink session_sink(struct session *s);

#endif
