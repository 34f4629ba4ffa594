/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is mounted where, as the kernel says; and taking a mount away. Unless said otherwise,
 * nothing here enters the file system that is asked about, so that a daemon that hangs cannot
 * hang the caller. Any thread.
 */
#ifndef VARVE_CLI_MOUNTS_H
#define VARVE_CLI_MOUNTS_H

#include "cleanup.h"
#include "err.h"

#include <stdbool.h>
#include <sys/types.h>

#define MOUNT_SOURCE_PREFIX "varve#"

struct mount_entry {
	dev_t dev;
	char *dir;
	char *type;
	char *source;
};

void mount_entry_done(struct mount_entry *m);
#define _cleanup_mount_ _cleanup_(mount_entry_done)

/* A line of /proc/self/mountinfo (proc(5)), which is written to: 0, -EBADMSG, -ENOMEM. Pure. */
int mount_entry_parse(char *line, struct mount_entry *ret) must_check;
/* The topmost mount at exactly this absolute path: 1, 0, -errno. */
int mount_find_at(const char *dir, struct mount_entry *ret) must_check;
/* A mount of this device number: 1, 0, -errno. */
int mount_find_device(dev_t dev, struct mount_entry *ret) must_check;
bool mount_is_varve(const struct mount_entry *m);
/* Whether the daemon of the mount at `dir` is dead. This asks it, and so blocks where it hangs. */
bool mounts_is_dead(const char *dir);

/*
 * The absolute path of a folder, without following into it: its parent is resolved, so that the
 * mountpoint of a dead or hanging daemon can be named. To be freed.
 */
int mount_resolve(const char *dir, char **ret, struct err *err) must_check;

/*
 * Takes the topmost mount at `dir` away. Lazy: also one that is in use, whose users keep what they
 * have open. -EBUSY, -EPERM, or what umount2(2) says. Blocks while the daemon answers the kernel.
 */
int mounts_detach(const char *dir, bool lazy, struct err *err) must_check;

/*
 * A daemon that was killed can hang in the kernel for ever: a thread that is telling the kernel of
 * a change waits for the lock of a directory, whose holder waits for the daemon's answer, and as
 * long as the thread is there nobody tells the holder that there will be none.
 *
 * True when the process is dead or dying; then its mount at `dir` is told, and the rest of the
 * process goes. `dir` may be NULL.
 */
bool mounts_end_dying(pid_t pid, const char *dir);

#endif
