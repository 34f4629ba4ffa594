/* SPDX-License-Identifier: Apache-2.0 */
/* Which daemon of this home is meant by a path, and questions to it. One thread. */
#ifndef VARVE_CLI_LOCATE_H
#define VARVE_CLI_LOCATE_H

#include "cli/drive.h"
#include "cli/json_file.h"

/* What an answer that waits for nothing may take at most. */
#define DAEMON_ANSWER_MS 10000

/*
 * The drive whose daemon serves `path`; borrowed from the list. *ret_node, when not NULL, is the
 * node at the path, 0 when the path is a mountpoint. Errors are for people.
 */
int locate_drive(const struct drive_list *l, const char *path, struct drive **ret,
	uint64_t *ret_node, struct err *err) must_check;

/* Whether a daemon of this drive has died and left its mount there. */
bool drive_left_mount(const struct drive *d);

/* The daemon's status object; errors are for people. */
int drive_status(const struct drive *d, json_t **ret, struct err *err) must_check;

#endif
