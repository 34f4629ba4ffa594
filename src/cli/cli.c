// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"

#include "cli/output.h"

#include <errno.h>
#include <string.h>

#define PROGRAM_PREFIX "varve: "
#define COMMAND_BYTES_MAX 16

static int cmd_help(const struct cli_calls *calls, int argc, char **argv);
static int cmd_version(const struct cli_calls *calls, int argc, char **argv);

static const struct command commands[] = {
	{ "login", "make this machine a device of an account at a server", cmd_login },
	{ "logout", "give the device's token back", cmd_logout },
	{ "drives", "list the drives that the account can use", cmd_drives },
	{ "mount", "mount a drive at a folder", cmd_mount },
	{ "umount", "take a mount away; what is not sent yet stays safe", cmd_umount },
	{ "status", "show what is mounted, and what waits to be sent or fetched", cmd_status },
	{ "wait", "wait until everything here is on the server, and the other way", cmd_wait },
	{ "doctor", "check all that is on this device, and repair it", cmd_doctor },
	{ "version", "print the version", cmd_version },
	{ "help", "print this list, or the help of one command", cmd_help },
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

static void print_commands(FILE *out)
{
	fputs("Usage: varve COMMAND [OPTION...]\n"
	      "A drive that remembers every write: mount it, work on it, it syncs by itself.\n\n",
		out);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
	fputs("\n'varve COMMAND --help' tells the options of one.\n"
	      "VARVE_HOME=DIR holds everything of one device; without it, the XDG folders.\n",
		out);
}

static int no_such_command(const char *name)
{
	fprintf(stderr, "varve: '%.100s' is no command; see 'varve --help'\n", name);
	return EXIT_MISUSED;
}

static int print_all_help(void)
{
	print_commands(stdout);
	return finish_output("help");
}

static int cmd_help(const struct cli_calls *calls, int argc, char **argv)
{
	char *help[] = { argv[0], (char[]){ "--help" }, NULL };
	const struct command *c;

	if (argc < 2 || argv[1][0] == '-')
		return print_all_help();
	c = find_command(argv[1]);
	if (!c)
		return no_such_command(argv[1]);
	if (c->run == cmd_help)
		return print_all_help();
	help[0] = argv[1];
	return c->run(calls, 2, help);
}

static int cmd_version(const struct cli_calls *calls, int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--help") == 0)
		printf("Usage: varve version\nPrints the version.\n");
	else if (argc > 1)
		return cli_misuse("version", "'%s' is one argument too many", argv[1]);
	else
		printf("varve %s\n", VARVE_VERSION);
	return finish_output("version");
}

int cli_main(const struct cli_calls *calls, int argc, char **argv)
{
	const struct command *c;

	if (argc < 2) {
		fputs("varve: no command is given; see 'varve --help'\n", stderr);
		return EXIT_MISUSED;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return print_all_help();
	if (strcmp(argv[1], "--version") == 0)
		return cmd_version(calls, 1, argv);
	c = find_command(argv[1]);
	return c ? c->run(calls, argc - 1, argv + 1) : no_such_command(argv[1]);
}

static void server_drive_done(struct server_drive *d)
{
	free(d->id);
	free(d->name);
	free(d->owner);
	free(d->role);
	*d = (struct server_drive){ 0 };
}

void server_drives_done(struct server_drives *d)
{
	for (size_t i = 0; i < d->n; i++)
		server_drive_done(&d->items[i]);
	free(d->items);
	*d = (struct server_drives){ 0 };
}

int server_drives_add(struct server_drives *d, const struct server_drive *item)
{
	struct server_drive copy = { strdup(item->id), strdup(item->name), strdup(item->owner),
		strdup(item->role), item->head };
	struct server_drive *grown = reallocarray(d->items, d->n + 1, sizeof *grown);

	if (grown)
		d->items = grown;
	if (!grown || !copy.id || !copy.name || !copy.owner || !copy.role) {
		server_drive_done(&copy);
		return -ENOMEM;
	}
	d->items[d->n++] = copy;
	return 0;
}

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
	char name[sizeof PROGRAM_PREFIX + COMMAND_BYTES_MAX];

	if (key == ARGP_KEY_INIT)
		state->err_stream = NULL; /* argp would add lines of its own to getopt's */
	if (key != 'h')
		return key == ARGP_KEY_INIT ? 0 : ARGP_ERR_UNKNOWN;
	snprintf(name, sizeof name, "varve %s", state->argv[0] + strlen(PROGRAM_PREFIX));
	argp_help(state->root_argp, stdout, ARGP_HELP_STD_HELP & ~ARGP_HELP_EXIT_OK, name);
	exit(finish_output("help"));
}

static const struct argp_option common_options[] = {
	{ "help", 'h', NULL, 0, "Print this help", -1 },
	{ 0 },
};
static const struct argp common_argp = { common_options, parse_common, NULL, NULL };
const struct argp_child options_common[] = { { &common_argp, 0, NULL, 0 }, { 0 } };

void cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
	const char *command = argv[0];
	char name[sizeof PROGRAM_PREFIX + COMMAND_BYTES_MAX];

	/* getopt begins its messages with argv[0]. */
	snprintf(name, sizeof name, PROGRAM_PREFIX "%s", command);
	argv[0] = name;
	if (argp_parse(argp, argc, argv, ARGP_NO_HELP, NULL, input)) {
		fprintf(stderr, "see 'varve %s --help'\n", command);
		exit(EXIT_MISUSED);
	}
	argv[0] = (char *)(uintptr_t)command;
}
