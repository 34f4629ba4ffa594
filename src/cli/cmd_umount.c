// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
#include "cli/control_proto.h"
#include "cli/mounts.h"
#include "cli/output.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* Sealing what is dirty reads and hashes it: gigabytes take a while, hours mean that it hangs. */
#define STOP_TIMEOUT_MS (30 * 60 * 1000)
#define EXIT_TIMEOUT_MS (30 * 1000)

struct umount_args {
	const char *dir;
	bool force;
};

enum { KEY_FORCE = 256 };

static const struct argp_option options[] = {
	{ "force", KEY_FORCE, NULL, 0,
		"Unmount although programs have files open there; their later writes fail", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct umount_args *a = state->input;

	switch (key) {
	case KEY_FORCE:
		a->force = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->dir)
			exit(cli_misuse("umount", "'%s' is one argument too many", arg));
		a->dir = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->dir)
			exit(cli_misuse("umount", "the mountpoint DIR is missing"));
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = { options, parse, "DIR",
	"Takes the mount at DIR away and ends its daemon. What could not be sent stays safe on "
	"this "
	"device and goes out at the next mount.",
	options_common };

static void show_progress(void *ctx)
{
	progress_show("%s: finishing what is being written", (const char *)ctx);
}

/* The answer was the daemon's last word but one: the last is that it is gone. */
static int await_exit(int pidfd, struct err *err)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int n;

	if (pidfd < 0)
		return 0;
	do {
		n = poll(&p, 1, EXIT_TIMEOUT_MS);
	} while (n < 0 && errno == EINTR);
	if (n > 0)
		return 0;
	return err_set(
		err, ETIMEDOUT, "the mount is gone, but its daemon does not end; see its log");
}

static int report(const char *dir, const json_t *answer)
{
	uint64_t unsent = (uint64_t)json_integer_value(json_object_get(answer, "unsent"));
	uint64_t unsealed = (uint64_t)json_integer_value(json_object_get(answer, "unsealed"));
	char changes[COUNT_TEXT_MAX], files[COUNT_TEXT_MAX];

	if (unsent == 0 && unsealed == 0) {
		cli_say("Unmounted %s; nothing waits to be sent.", dir);
		return finish_output("umount");
	}
	if (unsealed)
		printf("%s could not be finished (see the log); nothing of it is lost.\n",
			count_text(unsealed, "file", files));
	cli_say("Unmounted %s; %s not sent yet, safe on this device: out at the next mount.", dir,
		count_text(unsent, "change", changes));
	return finish_output("umount");
}

static int stop_daemon(const struct drive *d, const struct umount_args *args, struct err *err)
{
	_cleanup_close_ int pidfd = -1;
	_cleanup_json_ json_t *answer = NULL;
	struct control_call call = {
		.socket_path = d->socket,
		.timeout_ms = STOP_TIMEOUT_MS,
		.tick = show_progress,
		.tick_ctx = d->dir,
	};
	int r;

	if (!d->socket)
		return err_set(err, EAGAIN, "its daemon is just starting; try again");
	call.request = json_pack("{s:s, s:b}", "op", "stop", "force", args->force);
	r = control_ask(&call, &answer, &pidfd, err);
	progress_clear();
	if (r == 0)
		r = await_exit(pidfd, err);
	return r < 0 ? r : report(d->dir, answer);
}

/* Nobody of this home serves it: a dead daemon's mount goes, a living stranger's stays. */
static int take_stale_away(const char *dir, struct err *err)
{
	_cleanup_mount_ struct mount_entry m = { 0 };
	int r = mount_find_at(dir, &m);

	if (r < 0)
		return err_sys(err, -r, "cannot read what is mounted");
	if (r == 0)
		return err_set(err, EINVAL,
			"nothing is mounted at %s; varve status lists what is mounted", dir);
	if (!mount_is_varve(&m))
		return err_set(
			err, EINVAL, "%s holds a %s mount, which is not varve's", dir, m.type);
	if (!mounts_is_dead(dir))
		return err_set(err, EBUSY,
			"%s is served by a daemon that this home does not know; set VARVE_HOME as "
			"it "
			"was at the mount",
			dir);
	r = mounts_detach(dir, true, err);
	if (r < 0)
		return r;
	cli_say("Unmounted %s, which a daemon that had died left; what it had accepted is safe.",
		dir);
	return finish_output("umount");
}

int cmd_umount(const struct cli_calls *calls, int argc, char **argv)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	_cleanup_home_ struct home h = { 0 };
	_cleanup_free_ char *dir = NULL;
	struct umount_args args = { 0 };
	struct err err = { 0 };
	const struct drive *d;
	int r;

	cli_parse(&argp, argc, argv, &args);
	if (home_init(&h, &err) < 0 || drive_list_load(&h, &l, &err) < 0 ||
		mount_resolve(args.dir, &dir, &err) < 0)
		return cli_fail("umount", "%s", err.text);
	d = drive_list_at(&l, dir);
	r = d ? stop_daemon(d, &args, &err) : take_stale_away(dir, &err);
	return r < 0 ? cli_fail("umount", "%s", err.text) : r;
}
