/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where one device keeps its things. VARVE_HOME=DIR holds everything:
 *
 *	DIR/config/account.json		URL, user, device, token
 *	DIR/drives/DRIVEID/		drive.json, daemon.json, lock, store/, segments/, staging/
 *	DIR/run/DRIVEID.sock		the daemon's control socket
 *	DIR/log/mount-NAME.log		what the daemon has to say
 *
 * Without it these are folders "varve" below XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_RUNTIME_DIR and
 * XDG_STATE_HOME. Plain values; one thread.
 */
#ifndef VARVE_CLI_HOME_H
#define VARVE_CLI_HOME_H

#include "cleanup.h"
#include "err.h"

struct home {
	char *config;
	char *drives;
	char *run;
	char *log;
};

/* Finds the folders out of the environment, as absolute paths; makes none. */
int home_init(struct home *ret, struct err *err) must_check;
void home_done(struct home *h);
#define _cleanup_home_ _cleanup_(home_done)

/* Makes the folder and its parents, readable by the owner only. */
int home_make_dir(const char *path, struct err *err) must_check;

/* "DIR/NAME", to be freed; NULL when out of memory. */
char *path_join(const char *dir, const char *name) must_check;
/* The folder of one drive; its control socket. */
char *home_drive_dir(const struct home *h, const char *drive_id) must_check;
char *home_socket_path(const struct home *h, const char *drive_id) must_check;
/* The log of a drive's daemon. A name is for people: what may not stand in a file name is '_'. */
char *home_log_path(const struct home *h, const char *drive_name) must_check;

#endif
