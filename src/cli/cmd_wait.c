// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
#include "cli/control_proto.h"
#include "cli/locate.h"
#include "cli/output.h"

#include "clock.h"

#include <errno.h>
#include <string.h>

/* The daemon ends the wait itself; this is for its answer to arrive. */
#define ANSWER_MARGIN_MS 15000
/* A year and more: what a longer time-out would mean. */
#define TIMEOUT_SECONDS_MAX 1e8

struct wait_args {
	const char *path;
	int64_t timeout_ms; /* -1: without end */
};

enum { KEY_TIMEOUT = 256 };

static const struct argp_option options[] = {
	{ "timeout", KEY_TIMEOUT, "SECONDS", 0, "Give up after that long, with status 1", 0 },
	{ 0 },
};

static int64_t parse_seconds(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);

	/* Written so that NaN is refused, too. */
	if (end == text || *end || !(seconds >= 0 && seconds <= TIMEOUT_SECONDS_MAX))
		exit(cli_misuse("wait", "'%s' is no number of seconds", text));
	return (int64_t)(seconds * MS_PER_S);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct wait_args *a = state->input;

	switch (key) {
	case KEY_TIMEOUT:
		a->timeout_ms = parse_seconds(arg);
		return 0;
	case ARGP_KEY_ARG:
		if (a->path)
			exit(cli_misuse("wait", "'%s' is one argument too many", arg));
		a->path = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = { options, parse, "[PATH]",
	"Waits until what is at PATH now (without PATH: in all mounts of this home) is on the "
	"server, and what the server has is here. Exits with 0 then, with 1 on time-out.",
	options_common };

static void show_progress(void *ctx)
{
	const struct drive *d = ctx;
	_cleanup_json_ json_t *o = NULL;
	char changes[COUNT_TEXT_MAX], sent[BYTES_TEXT_MAX];
	const char *link;

	if (drive_status(d, &o, NULL) < 0)
		return;
	link = json_text(o, "link");
	progress_show("%s: %s, %s to send, %s sent", d->name, link ? link : "?",
		count_text((uint64_t)json_integer_value(json_object_get(o, "outbox_entries")),
			"change", changes),
		bytes_text((uint64_t)json_integer_value(json_object_get(o, "bytes_sent")), sent));
}

static int wait_for_drive(struct drive *d, uint64_t node, int64_t deadline_mono_ms, struct err *err)
{
	int64_t left = deadline_mono_ms < 0 ? -1 : MAX(deadline_mono_ms - clock_mono_ms(), 0);
	_cleanup_json_ json_t *answer = NULL;
	struct control_call call = {
		.socket_path = d->socket,
		.timeout_ms = left < 0 ? -1 : left + ANSWER_MARGIN_MS,
		.tick = isatty(STDERR_FILENO) ? show_progress : NULL,
		.tick_ctx = d,
	};
	int r;

	if (!d->socket)
		return err_set(err, ENOENT, "the daemon of '%s' is just starting", d->name);
	call.request = json_pack("{s:s}", "op", "wait");
	if (call.request && left >= 0)
		json_object_set_new(call.request, "timeout_ms", json_integer(left));
	if (call.request && node)
		json_object_set_new(call.request, "node", json_integer((json_int_t)node));
	r = control_ask(&call, &answer, NULL, err);
	progress_clear();
	if (r < 0)
		err_prefix(err, "drive '%s'", d->name);
	return r;
}

static int wait_for_all(const struct drive_list *l, int64_t deadline_mono_ms, struct err *err)
{
	size_t mounted = 0;

	for (size_t i = 0; i < l->n; i++) {
		int r = 0;

		mounted += l->items[i].running;
		if (l->items[i].running)
			r = wait_for_drive(&l->items[i], 0, deadline_mono_ms, err);
		if (r < 0)
			return r;
	}
	if (mounted == 0)
		return err_set(err, ENOENT, "nothing is mounted; varve mount DIR mounts a drive");
	return 0;
}

static int wait_for_path(
	const struct drive_list *l, const char *path, int64_t deadline_mono_ms, struct err *err)
{
	struct drive *d;
	uint64_t node;
	int r = locate_drive(l, path, &d, &node, err);

	return r < 0 ? r : wait_for_drive(d, node, deadline_mono_ms, err);
}

int cmd_wait(const struct cli_calls *calls, int argc, char **argv)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	_cleanup_home_ struct home h = { 0 };
	struct wait_args args = { .timeout_ms = -1 };
	struct err err = { 0 };
	int64_t end;
	int r;

	cli_parse(&argp, argc, argv, &args);
	if (home_init(&h, &err) < 0 || drive_list_load(&h, &l, &err) < 0)
		return cli_fail("wait", "%s", err.text);
	end = args.timeout_ms < 0 ? -1 : clock_mono_ms() + args.timeout_ms;
	r = args.path ? wait_for_path(&l, args.path, end, &err) : wait_for_all(&l, end, &err);
	return r < 0 ? cli_fail("wait", "%s", err.text) : EXIT_DONE;
}
