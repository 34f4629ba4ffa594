// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
#include "cli/json_file.h"
#include "cli/output.h"

#include <errno.h>
#include <string.h>

enum { KEY_JSON = 256 };

static const struct argp_option options[] = {
	{ "json", KEY_JSON, NULL, 0, "Print JSON", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	bool *json = state->input;

	switch (key) {
	case KEY_JSON:
		*json = true;
		return 0;
	case ARGP_KEY_ARG:
		exit(cli_misuse("drives", "'%s' is one argument too many", arg));
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = { options, parse, "",
	"Lists the drives at the server that this account can use, and where they are mounted "
	"here.",
	options_common };

/* Where the drive is mounted on this device; NULL when it is not. */
static const char *mounted_at(const struct drive_list *l, const char *id)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->items[i].running && strcmp(l->items[i].id, id) == 0)
			return l->items[i].dir;
	}
	return NULL;
}

static int print_table(const struct server_drives *drives, const struct drive_list *here)
{
	struct table t = { .columns = 5 };
	int r;

	table_row(&t, "NAME", "OWNER", "ROLE", "REVISION", "MOUNTED AT");
	for (size_t i = 0; i < drives->n; i++) {
		const struct server_drive *d = &drives->items[i];
		const char *dir = mounted_at(here, d->id);
		char head[24];

		snprintf(head, sizeof head, "%llu", (unsigned long long)d->head);
		table_row(&t, d->name, d->owner, d->role, head, dir ? dir : "-");
	}
	r = table_print(&t, stdout);
	table_done(&t);
	return r < 0 ? cli_fail("drives", "%s", strerror(-r)) : finish_output("drives");
}

static int print_list(const struct server_drives *drives, const struct drive_list *here)
{
	_cleanup_json_ json_t *all = json_pack("{s:[]}", "drives");
	json_t *list = json_object_get(all, "drives");

	for (size_t i = 0; i < drives->n; i++) {
		const struct server_drive *d = &drives->items[i];
		const char *dir = mounted_at(here, d->id);
		json_t *item = json_pack("{s:s, s:s, s:s, s:s, s:I}", "id", d->id, "name", d->name,
			"owner", d->owner, "role", d->role, "head", (json_int_t)d->head);

		if (!item || (dir && json_set_path(item, "mountpoint", dir) < 0) ||
			json_array_append_new(list, item) < 0)
			return cli_fail("drives", "%s", strerror(ENOMEM));
	}
	return print_json(all);
}

int cmd_drives(const struct cli_calls *calls, int argc, char **argv)
{
	_cleanup_server_drives_ struct server_drives drives = { 0 };
	_cleanup_drive_list_ struct drive_list here = { 0 };
	_cleanup_account_ struct account a = { 0 };
	_cleanup_home_ struct home h = { 0 };
	struct err err = { 0 };
	bool json = false;

	cli_parse(&argp, argc, argv, &json);
	if (home_init(&h, &err) < 0 || account_require(&h, &a, &err) < 0 ||
		drive_list_load(&h, &here, &err) < 0 || calls->drives(&a, &drives, &err) < 0)
		return cli_fail("drives", "%s", err.text);
	if (json)
		return print_list(&drives, &here);
	if (drives.n == 0) {
		printf("No drive yet; on the server: varved drive create NAME --owner %s\n",
			a.user);
		return finish_output("drives");
	}
	return print_table(&drives, &here);
}
