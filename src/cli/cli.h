/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line. It knows paths, records and the control socket; what needs the server or the
 * drive itself is handed to it by main.c as `struct cli_calls`.
 */
#ifndef VARVE_CLI_H
#define VARVE_CLI_H

#include "cli/account.h"
#include "cli/drive.h"
#include "cli/json_file.h"

#include <argp.h>
#include <stdint.h>

struct server_drive {
	char *id;
	char *name;
	char *owner;
	char *role;
	uint64_t head;
};
struct server_drives {
	struct server_drive *items;
	size_t n;
};
void server_drives_done(struct server_drives *d);
#define _cleanup_server_drives_ _cleanup_(server_drives_done)
/* Appends a copy. -ENOMEM. */
int server_drives_add(struct server_drives *d, const struct server_drive *item) must_check;

/* What a daemon needs to know to serve one drive. All borrowed. */
struct mount_plan {
	const struct account *account;
	const struct drive *drive;
	const char *dir; /* of the drive, on this device */
	const char *socket_path;
	const char *mountpoint;
	const char *mount_options; /* NULL for none */
	uint64_t cache_bytes; /* what the chunk cache may take; 0: as much as the disk has */
	/*
	 * Asks the server for a device number, and when the drive was made: called when there is
	 * no local tree yet.
	 */
	int (*attach)(void *ctx, uint32_t *ret_number, int64_t *ret_created_ns, struct err *err);
	/* Called once, when the mount answers. */
	void (*ready)(void *ctx);
	void *ctx;
};

/* A look at what is on this device of one drive that no daemon serves. All borrowed. */
struct doctor_plan {
	const struct drive *drive;
	const struct account *account; /* NULL: not logged in */
	const char *dir; /* of the drive, on this device */
	bool quick;
	bool repair;
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
	void *ctx;
};

/* Each: 0 or -errno with words for people. */
struct cli_calls {
	/* Fills who->token and ->device_id from url, user, device, ca_file and an old device_id. */
	int (*login)(struct account *who, const char *password, struct err *err);
	int (*logout)(const struct account *who, struct err *err);
	int (*drives)(const struct account *who, struct server_drives *ret, struct err *err);
	int (*attach)(const struct account *who, const char *drive_id, uint32_t *ret_number,
		int64_t *ret_created_ns, struct err *err);
	/* Serves until it is unmounted. */
	int (*serve)(const struct mount_plan *plan, struct err *err);
	/* *ret: what was found, an object as `varve doctor --json` has it for each drive. */
	int (*doctor)(const struct doctor_plan *plan, json_t **ret, struct err *err);
};

/* Runs a command; the exit status. */
int cli_main(const struct cli_calls *calls, int argc, char **argv);

struct command {
	const char *name;
	const char *summary; /* one line */
	int (*run)(const struct cli_calls *calls, int argc, char **argv);
};
int cmd_login(const struct cli_calls *calls, int argc, char **argv);
int cmd_logout(const struct cli_calls *calls, int argc, char **argv);
int cmd_mount(const struct cli_calls *calls, int argc, char **argv);
int cmd_umount(const struct cli_calls *calls, int argc, char **argv);
int cmd_status(const struct cli_calls *calls, int argc, char **argv);
int cmd_wait(const struct cli_calls *calls, int argc, char **argv);
int cmd_drives(const struct cli_calls *calls, int argc, char **argv);
int cmd_doctor(const struct cli_calls *calls, int argc, char **argv);

/*
 * Parses the options of the command argv[0] into `input`. Exits by itself: 0 after --help, 2 on
 * misuse. Every command's argp has options_common as a child, which knows --help.
 */
void cli_parse(const struct argp *argp, int argc, char **argv, void *input);
extern const struct argp_child options_common[];

#endif
