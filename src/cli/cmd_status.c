// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
#include "cli/locate.h"
#include "cli/output.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

struct status_args {
	const char *path;
	bool json;
};

enum { KEY_JSON = 256 };

static const struct argp_option options[] = {
	{ "json", KEY_JSON, NULL, 0, "Print JSON", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct status_args *a = state->input;

	switch (key) {
	case KEY_JSON:
		a->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->path)
			exit(cli_misuse("status", "'%s' is one argument too many", arg));
		a->path = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = { options, parse, "[DIR]",
	"Shows what the daemons of this home are doing, or the one whose mount holds DIR: whether "
	"the server is reached, and what waits to be sent or fetched.\v"
	"With --json and DIR the object of that mount is printed, without DIR an object with "
	"\"mounts\", a list of them. Either has \"synced\": true when nothing waits in either "
	"direction.",
	options_common };

/* What can be said of a daemon that says nothing. */
static int silent_status(const struct drive *d, const char *link, const char *detail, json_t **ret)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:b}", "drive", d->name, "drive_id", d->id,
		"link", link, "detail", detail, "synced", 0);

	if (o && d->dir && json_set_path(o, "mountpoint", d->dir) < 0) {
		json_decref(o);
		return -ENOMEM;
	}
	*ret = o;
	return o ? 0 : -ENOMEM;
}

static int status_of(const struct drive *d, json_t **ret)
{
	_cleanup_json_ json_t *answer = NULL;
	struct err err = { 0 };

	if (!d->running)
		return silent_status(d, "dead", "its daemon has died; mount it again", ret);
	if (drive_status(d, &answer, &err) < 0)
		return silent_status(d, "no answer", err.text, ret);
	json_object_del(answer, "v");
	json_object_del(answer, "ok");
	*ret = steal(answer);
	return 0;
}

static uint64_t number(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static const char *word(const json_t *o, const char *key)
{
	const char *text = json_text(o, key);

	return text ? text : "";
}

/* "a; b; c" of what there is to say. */
__attribute__((format(printf, 3, 4))) static void say(char *ret, size_t n, const char *format, ...)
{
	size_t used = strlen(ret);
	va_list ap;

	used += (size_t)snprintf(ret + used, n - used, "%s", used ? "; " : "");
	if (used >= n)
		return;
	va_start(ap, format);
	vsnprintf(ret + used, n - used, format, ap);
	va_end(ap);
}

/* "synced", or what is in the way, in the order in which it would have to be solved. */
static void describe(const json_t *o, char *ret, size_t n)
{
	uint64_t waiting = number(o, "outbox_entries"), dirty = number(o, "dirty_files");
	uint64_t cursor = number(o, "cursor"), head = number(o, "head");
	const char *detail = word(o, "detail");
	char text[COUNT_TEXT_MAX];

	ret[0] = '\0';
	if (json_is_true(json_object_get(o, "synced"))) {
		say(ret, n, "synced");
		return;
	}
	say(ret, n, "%s%s%s", word(o, "link"), *detail ? ": " : "", detail);
	if (waiting)
		say(ret, n, "%s to send", count_text(waiting, "change", text));
	if (dirty)
		say(ret, n, "%s being written", count_text(dirty, "file", text));
	if (head > cursor)
		say(ret, n, "%s to fetch", count_text(head - cursor, "revision", text));
}

static int print_table(json_t *const *objects, size_t n)
{
	struct table t = { .columns = 5 };
	int r;

	table_row(&t, "DRIVE", "MOUNTED AT", "SENT", "RECEIVED", "STATE");
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *dir = NULL;
		char sent[BYTES_TEXT_MAX], received[BYTES_TEXT_MAX], state[1024];

		if (json_get_path(objects[i], "mountpoint", &dir) == -ENOMEM)
			t.failed = true;
		describe(objects[i], state, sizeof state);
		table_row(&t, word(objects[i], "drive"), dir ? dir : "-",
			bytes_text(number(objects[i], "bytes_sent"), sent),
			bytes_text(number(objects[i], "bytes_received"), received), state);
	}
	r = table_print(&t, stdout);
	table_done(&t);
	return r < 0 ? cli_fail("status", "%s", strerror(-r)) : finish_output("status");
}

static int show_one(const struct drive_list *l, const struct status_args *args)
{
	_cleanup_json_ json_t *object = NULL;
	struct err err = { 0 };
	struct drive *d;

	if (locate_drive(l, args->path, &d, NULL, &err) < 0)
		return cli_fail("status", "%s", err.text);
	if (status_of(d, &object) < 0)
		return cli_fail("status", "%s", strerror(ENOMEM));
	return args->json ? print_json(object) : print_table(&object, 1);
}

static int print_objects(json_t *list, bool synced, bool json)
{
	_cleanup_free_ json_t **objects = NULL;
	_cleanup_json_ json_t *all = NULL;
	size_t n = json_array_size(list);

	if (json) {
		all = json_pack("{s:b, s:O}", "synced", synced, "mounts", list);
		return all ? print_json(all) : cli_fail("status", "%s", strerror(ENOMEM));
	}
	if (n == 0) {
		printf("Nothing is mounted; varve mount DIR mounts a drive.\n");
		return finish_output("status");
	}
	objects = calloc(n, sizeof(json_t *));
	if (!objects)
		return cli_fail("status", "%s", strerror(ENOMEM));
	for (size_t i = 0; i < n; i++)
		objects[i] = json_array_get(list, i);
	return print_table(objects, n);
}

static int show_all(const struct drive_list *l, bool json)
{
	_cleanup_json_ json_t *list = json_array();
	bool synced = true;

	for (size_t i = 0; i < l->n; i++) {
		json_t *object = NULL;

		if (!l->items[i].running && !drive_left_mount(&l->items[i]))
			continue;
		if (status_of(&l->items[i], &object) < 0 || json_array_append_new(list, object) < 0)
			return cli_fail("status", "%s", strerror(ENOMEM));
		synced = synced && json_is_true(json_object_get(object, "synced"));
	}
	return print_objects(list, synced && json_array_size(list) > 0, json);
}

int cmd_status(const struct cli_calls *calls, int argc, char **argv)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	_cleanup_home_ struct home h = { 0 };
	struct status_args args = { 0 };
	struct err err = { 0 };

	cli_parse(&argp, argc, argv, &args);
	if (home_init(&h, &err) < 0 || drive_list_load(&h, &l, &err) < 0)
		return cli_fail("status", "%s", err.text);
	return args.path ? show_one(&l, &args) : show_all(&l, args.json);
}
