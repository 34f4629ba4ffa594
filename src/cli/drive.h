/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of one drive on this device:
 *
 *	drive.json	what the drive is called, and whose: so that mounting needs no network
 *	lock		an open-file-description lock on it is held while a daemon lives
 *	daemon.json	pid, mountpoint and socket of the daemon that has the lock, or had it last
 *
 * Plain values; one thread.
 */
#ifndef VARVE_CLI_DRIVE_H
#define VARVE_CLI_DRIVE_H

#include "cli/home.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define DRIVE_ID_DIGITS 32

/* 32 hexadecimal digits: nothing else becomes a folder's name. */
bool drive_id_valid(const char *id);

struct drive {
	char id[DRIVE_ID_DIGITS + 1];
	char *name;
	char *url; /* the server and the user that it was attached as */
	char *user;
	char *device_id; /* the server's word for the device that it was attached as */
	bool running; /* a daemon holds the lock */
	/* Of daemon.json; NULL and 0 when no daemon ever was. */
	char *dir; /* the mountpoint, an absolute path */
	char *socket;
	pid_t pid;
};

void drive_done(struct drive *d);
#define _cleanup_drive_ _cleanup_(drive_done)

/* 1, 0 when this device has never attached to it, -errno. */
int drive_load(const struct home *h, const char *id, struct drive *ret, struct err *err) must_check;
/* Writes drive.json (id, name, url, user, device_id), durably. */
int drive_save(const struct home *h, const struct drive *d, struct err *err) must_check;

struct drive_list {
	struct drive *items;
	size_t n;
};
void drive_list_done(struct drive_list *l);
#define _cleanup_drive_list_ _cleanup_(drive_list_done)
/* All drives that have a folder here, by name. A damaged one is an error: it is not hidden. */
int drive_list_load(const struct home *h, struct drive_list *ret, struct err *err) must_check;
/* The one that is mounted at `dir` by a living daemon; NULL when there is none. */
struct drive *drive_list_at(const struct drive_list *l, const char *dir);

/*
 * Takes the lock of the drive's folder (made when it is absent); it is held until the descriptor
 * *ret_fd and what was forked with it are closed. -EBUSY: "already mounted at DIR by process N".
 */
int drive_lock(const struct home *h, const char *id, int *ret_fd, struct err *err) must_check;
/* Whether some process holds it, without disturbing one that is about to take it. */
bool drive_is_locked(const struct home *h, const char *id);
/* Writes daemon.json for this process. The caller holds the lock. */
int drive_announce(const struct home *h, const char *id, const char *dir, const char *socket,
	struct err *err) must_check;

#endif
