// SPDX-License-Identifier: Apache-2.0
/* varved: which command is meant. */
#include "cmd.h"

#include "log.h"

#include <string.h>
#include <sys/stat.h>

static const struct command {
	const char *first, *second; /* second: NULL when it has one word */
	int (*run)(int argc, char **argv);
	char name[32];
	const char *text;
} commands[] = {
	{ "serve", NULL, cmd_serve, "varved serve", "serve the drives in a folder" },
	{ "user", "add", cmd_user_add, "varved user add", "add a user" },
	{ "drive", "create", cmd_drive_create, "varved drive create", "create a drive for a user" },
};

static void usage(FILE *to)
{
	fputs("Usage: varved COMMAND --data DIR [OPTION...]\n"
	      "The server of Varve: a drive that remembers every write.\n\n",
		to);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(to, "  %-22s %s\n", commands[i].name, commands[i].text);
	fputs("\nEach command has --help. Settings can also come from a file (--config F) and "
	      "from\n"
	      "VARVED_* variables. Exit status: 0 done, 1 failed, 2 misused.\n",
		to);
}

/* "user" and "drive": they want a second word, or help with choosing one. */
static bool is_first_word(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (commands[i].second && strcmp(word, commands[i].first) == 0)
			return true;
	}
	return false;
}

static bool is_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int run(const struct command *c, int argc, char **argv)
{
	int words = c->second ? 2 : 1;
	char name[sizeof c->name];

	/* What argp shows as the program's name. */
	memcpy(name, c->name, sizeof name);
	argv += words;
	argc -= words;
	argv[0] = name;
	return c->run(argc, argv);
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";

	argp_program_version = "varved " VARVE_VERSION;
	argp_err_exit_status = EXIT_MISUSE;
	log_set_prefix("varved");
	umask(077);
	if (is_help(word) || strcmp(word, "help") == 0 ||
		(is_first_word(word) && argc > 2 && is_help(argv[2]))) {
		usage(stdout);
		return EXIT_SUCCESS;
	}
	if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
		puts(argp_program_version);
		return EXIT_SUCCESS;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *c = &commands[i];

		if (strcmp(word, c->first) == 0 &&
			(!c->second || (argc > 2 && strcmp(argv[2], c->second) == 0)))
			return run(c, argc, argv);
	}
	if (is_first_word(word) && argc == 2)
		return cmd_misused("varved", "'%s' is not the whole command", word);
	if (*word)
		return cmd_misused("varved", "there is no command '%s%s%s'", word,
			argc > 2 ? " " : "", argc > 2 ? argv[2] : "");
	usage(stderr);
	return EXIT_MISUSE;
}
