/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon of one mount: opens what is on this device, serves it through FUSE, keeps it in
 * sync, and answers the control socket.
 *
 *	STARTING -> SERVING -> STOPPING -> STOPPED
 *
 * SERVING begins when the mount is there; STOPPING when it is gone, for whatever reason (umount,
 * a signal, `varve umount`): then nothing new can come in, what is dirty is sealed, and a short
 * last attempt is made to send what waits. STOPPED: all that can be said about it is known.
 *
 * Signals: the first SIGINT or SIGTERM unmounts and goes that way; a second one drops the mount
 * and ends the process at once, which loses nothing: what was written is in the cache folder, and
 * the next mount seals and sends it.
 */
#ifndef VARVE_DAEMON_H
#define VARVE_DAEMON_H

#include "cli/cli.h"

/* Serves the plan until it is unmounted. The caller holds the drive's lock, and has one thread. */
int daemon_serve(const struct mount_plan *plan, struct err *err) must_check;

#endif
