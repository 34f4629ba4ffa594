// SPDX-License-Identifier: Apache-2.0
/* varved user add */
#include "cmd.h"

#include <string.h>

#define COMMAND "varved user add"

enum { KEY_PASSWORD = 512 };

struct arguments {
	struct cmd_options options;
	const char *name;
	const char *password_file;
	const char *surplus;
};

static const struct argp_option options[] = {
	{ "password-file", KEY_PASSWORD, "F", 0,
		"Take the first line of the file F, instead of asking on the terminal", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->options;
		return 0;
	case KEY_PASSWORD:
		a->password_file = arg;
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
static const struct argp argp = { options, parse, "NAME",
	"Adds the user NAME, who can then log in. It can be done while the server runs.", children,
	NULL, NULL };

static int add(const struct arguments *a, const struct config *c, struct err *err)
{
	_cleanup_buf_ struct buf password = { 0 };
	struct context *context;
	struct blob *blob;
	int r = auth_check_label("user's name", a->name, err);

	if (r == 0)
		r = cmd_read_password(a->password_file, a->name, &password, err);
	if (r == 0)
		r = cmd_open(c, &blob, &context, err);
	if (r < 0)
		return r;
	r = auth_add_user(context->db, a->name, (char *)password.data, err);
	explicit_bzero(password.data, password.len);
	context_free(context);
	blob_free(blob);
	return r;
}

int cmd_user_add(int argc, char **argv)
{
	_cleanup_config_ struct config config = { 0 };
	struct arguments a = { 0 };
	struct err err = { 0 };

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (!a.name)
		return cmd_misused(COMMAND, "the user's NAME is missing");
	if (a.surplus)
		return cmd_misused(COMMAND, "'%s' is one argument too many", a.surplus);
	if (config_load(&a.options.given, a.options.config_path, &config, &err) < 0)
		return cmd_misused(COMMAND, "%s", err.text);
	if (add(&a, &config, &err) < 0)
		return cmd_failed(&err);
	printf("varved: added the user %s\n", a.name);
	return EXIT_SUCCESS;
}
