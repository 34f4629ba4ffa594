/* SPDX-License-Identifier: Apache-2.0 */
/* Mount options, and mounts whose daemon has died. One thread. */
#ifndef VARVE_MOUNT_H
#define VARVE_MOUNT_H

#include "buf.h"
#include "err.h"

#include <stdbool.h>

/*
 * The options for libfuse, comma-separated, appended: ours, then the user's (NULL for none).
 * -EINVAL with a reason for one that is unknown, -EPERM for one that only root may give.
 * Reads change no atime here, and the mount says so; what set-id bits and device nodes of other
 * devices mean, they mean with -o posix only.
 */
int mount_options(const char *fsname, const char *user, bool root, bool allow_other,
	struct buf *ret, struct err *err) must_check;
/* Whether "posix" is among the user's options. */
bool mount_is_posix(const char *user);
/* Whether this user may let others in: root, or user_allow_other in /etc/fuse.conf. */
bool mount_may_allow_other(void);

/*
 * Sees to it that a file system can be mounted at `dir`: takes a stale mount away. Errors for
 * people: absent, not a directory, mounted already by a daemon that lives.
 */
int mount_prepare(const char *dir, struct err *err) must_check;
/* Unmounts, busy or not. */
int mount_detach(const char *dir) must_check;

/*
 * Whether the last mount at `path` (absolute, as the kernel writes it) in the text of a
 * /proc/self/mountinfo is one of ours.
 */
bool mount_is_ours(const char *mountinfo, const char *path);

#endif
