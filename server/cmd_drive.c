// SPDX-License-Identifier: Apache-2.0
/* varved drive create */
#include "cmd.h"

#include "routes.h"

#include <errno.h>
#include <string.h>

#define COMMAND "varved drive create"

enum { KEY_OWNER = 512 };

struct arguments {
	struct cmd_options options;
	const char *name;
	const char *owner;
	const char *surplus;
};

static const struct argp_option options[] = {
	{ "owner", KEY_OWNER, "USER", 0, "Whose drive it is", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->options;
		return 0;
	case KEY_OWNER:
		a->owner = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (a->name)
			a->surplus = arg;
		else
			a->name = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = { { &cmd_argp, 0, NULL, 0 }, { 0 } };
static const struct argp argp = { options, parse, "NAME --owner USER",
	"Creates the drive NAME for the user USER. It can be done while the server runs.", children,
	NULL, NULL };

static int create_for(
	struct context *c, const struct arguments *a, char id[DRIVE_ID_DIGITS + 1], struct err *err)
{
	int64_t owner = 0, drive;
	int r = auth_find_user(c->db, a->owner, &owner, err);

	if (r == -ENOENT)
		return err_set(err, ENOENT, "there is no user %s; varved user add %s makes one",
			a->owner, a->owner);
	if (r < 0)
		return r;
	if (drive_id_new(id) < 0)
		return err_set(err, EIO, "no random numbers");
	r = vault_create_drive(c->vault, owner, a->name, id, &drive, err);
	if (r == -EEXIST)
		return err_set(err, EEXIST, "%s has a drive %s already; choose another name",
			a->owner, a->name);
	return r;
}

static int create(const struct arguments *a, const struct config *c, char id[DRIVE_ID_DIGITS + 1],
	struct err *err)
{
	struct context *context;
	struct blob *blob;
	int r = auth_check_label("drive's name", a->name, err);

	if (r == 0)
		r = cmd_open(c, &blob, &context, err);
	if (r < 0)
		return r;
	r = create_for(context, a, id, err);
	context_free(context);
	blob_free(blob);
	return r;
}

int cmd_drive_create(int argc, char **argv)
{
	_cleanup_config_ struct config config = { 0 };
	char id[DRIVE_ID_DIGITS + 1];
	struct arguments a = { 0 };
	struct err err = { 0 };

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (!a.name)
		return cmd_misused(COMMAND, "the drive's NAME is missing");
	if (!a.owner)
		return cmd_misused(COMMAND, "--owner USER is missing");
	if (a.surplus)
		return cmd_misused(COMMAND, "'%s' is one argument too many", a.surplus);
	if (config_load(&a.options.given, a.options.config_path, &config, &err) < 0)
		return cmd_misused(COMMAND, "%s", err.text);
	if (create(&a, &config, id, &err) < 0)
		return cmd_failed(&err);
	printf("varved: created the drive %s, %s\n", a.name, id);
	return EXIT_SUCCESS;
}
