// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
#include "cli/output.h"

#include <errno.h>

enum { KEY_LOCAL = 256 };

static const struct argp_option options[] = {
	{ "local", KEY_LOCAL, NULL, 0,
		"Forget the token here without telling the server, where it stays valid", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	bool *local = state->input;

	switch (key) {
	case KEY_LOCAL:
		*local = true;
		return 0;
	case ARGP_KEY_ARG:
		exit(cli_misuse("logout", "'%s' is one argument too many", arg));
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = { options, parse, "",
	"Gives this device's token back to the server and forgets it. The drives' local data stay, "
	"with all that was not sent yet; a later login of the same user makes it the same device "
	"again.",
	options_common };

static int check_nothing_mounted(const struct home *h, struct err *err)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	int r = drive_list_load(h, &l, err);

	for (size_t i = 0; r == 0 && i < l.n; i++) {
		if (l.items[i].running)
			return err_set(err, EBUSY, "'%s' is mounted; varve umount %s first",
				l.items[i].name, l.items[i].dir ? l.items[i].dir : "it");
	}
	return r;
}

static int log_out(const struct cli_calls *calls, bool local, struct home *h, struct account *a,
	struct err *err)
{
	int r = account_require(h, a, err);

	if (r == 0)
		r = check_nothing_mounted(h, err);
	if (r == 0 && !local)
		r = calls->logout(a, err);
	/* A token that the server does not know any more is as good as given back. */
	if (r == -EACCES)
		r = 0;
	return r < 0 ? r : account_log_out(h, a, err);
}

int cmd_logout(const struct cli_calls *calls, int argc, char **argv)
{
	_cleanup_account_ struct account a = { 0 };
	_cleanup_home_ struct home h = { 0 };
	struct err err = { 0 };
	bool local = false;

	cli_parse(&argp, argc, argv, &local);
	if (home_init(&h, &err) < 0 || log_out(calls, local, &h, &a, &err) < 0)
		return cli_fail("logout", "%s", err.text);
	printf("Logged out %s at %s.\n", a.user, a.url);
	return finish_output("logout");
}
