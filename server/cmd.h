/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of varved, and what they share. One thread. */
#ifndef VARVE_CMD_H
#define VARVE_CMD_H

#include "app.h"
#include "config.h"

#include <argp.h>

#define EXIT_MISUSE 2

/* Each gets its own arguments, argv[0] being its name, and returns the exit status. */
int cmd_serve(int argc, char **argv);
int cmd_user_add(int argc, char **argv);
int cmd_drive_create(int argc, char **argv);

/* Options that every command has: an argp child, whose input is a struct cmd_options. */
struct cmd_options {
	struct config given; /* borrowed from argv */
	const char *config_path;
};
extern const struct argp cmd_argp;

/* "varved: text" to stderr; returns the exit status. */
int cmd_failed(const struct err *err);
int cmd_misused(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The folder, and the database in it, brought to this program's schema. */
int cmd_open(const struct config *c, struct blob **ret_blob, struct context **ret,
	struct err *err) must_check;
int cmd_make_data_folder(const struct config *c, struct err *err) must_check;

/* From the file (its first line), or asked for on the terminal, twice, when path is NULL. */
int cmd_read_password(
	const char *path, const char *user, struct buf *ret, struct err *err) must_check;

#endif
