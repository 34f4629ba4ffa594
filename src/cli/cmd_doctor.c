// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
#include "cli/control_proto.h"
#include "cli/locate.h"
#include "cli/output.h"

#include "bounds.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct doctor_args {
	const char *dir;
	const char *drive;
	bool repair;
	bool quick;
	bool json;
};

enum { KEY_DRIVE = 256, KEY_REPAIR, KEY_QUICK, KEY_JSON };

static const struct argp_option options[] = {
	{ "drive", KEY_DRIVE, "NAME", 0, "Only this drive, by name or id", 0 },
	{ "repair", KEY_REPAIR, NULL, 0,
		"Repair what can be. The tree and the store only of a drive that is not mounted; "
		"damaged chunks of a mounted one, too",
		0 },
	{ "quick", KEY_QUICK, NULL, 0, "Do not read the bytes of files' contents", 0 },
	{ "json", KEY_JSON, NULL, 0, "Print JSON", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct doctor_args *a = state->input;

	switch (key) {
	case KEY_DRIVE:
		a->drive = arg;
		return 0;
	case KEY_REPAIR:
		a->repair = true;
		return 0;
	case KEY_QUICK:
		a->quick = true;
		return 0;
	case KEY_JSON:
		a->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->dir)
			exit(cli_misuse("doctor", "'%s' is one argument too many", arg));
		a->dir = arg;
		return 0;
	case ARGP_KEY_END:
		if (a->dir && a->drive)
			exit(cli_misuse("doctor", "give either DIR or --drive"));
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = { options, parse, "[DIR]",
	"Checks everything that this device keeps: its configuration, and of each drive (or of the "
	"one that is mounted at DIR) the tree, what is not sent yet, and the bytes of all contents "
	"against their hashes.\v"
	"Without --repair nothing is changed. What the server has is fetched anew when it is "
	"needed; what only this device had is never dropped: it is named, and kept.\n\n"
	"Exits with 0 when there is no problem or all are repaired, with 1 otherwise.",
	options_common };

/* What was found of one drive, or of the configuration. */
struct doctor {
	const struct cli_calls *calls;
	const struct doctor_args *args;
	struct home home;
	struct account account;
	bool has_account;
	json_t *drives;
	json_t *problems; /* of the configuration */
	bool clean;
};

static void doctor_done(struct doctor *d)
{
	home_done(&d->home);
	account_done(&d->account);
	json_decref(d->drives);
	json_decref(d->problems);
}

/* ---- the configuration ---- */

__attribute__((format(printf, 4, 5))) static void say(
	struct doctor *d, const char *fix, bool repaired, const char *format, ...)
{
	char text[ERR_TEXT_BYTES];
	json_t *o;
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	o = json_pack("{s:s, s:s, s:s, s:s*, s:b, s:[]}", "severity", "problem", "what",
		"configuration", "text", text, "fix", fix, "repaired", repaired, "paths");
	d->clean = d->clean && repaired;
	if (!o || json_array_append_new(d->problems, o) < 0)
		d->clean = false;
}

static void check_private(struct doctor *d, const char *path, mode_t mode)
{
	bool done = false;
	struct stat st;

	if (lstat(path, &st) < 0 || !(st.st_mode & 077))
		return;
	if (d->args->repair)
		done = chmod(path, mode) == 0;
	say(d, "chmod", done, "%s can be read by others: its mode is %o", path,
		(unsigned)st.st_mode & 07777);
}

/* What a write that was cut off left: it is nobody's. */
static void check_leftovers(struct doctor *d, const char *dir)
{
	_cleanup_closedir_ DIR *folder = opendir(dir);
	struct dirent *e;

	while (folder && (e = readdir(folder))) {
		size_t n = strlen(e->d_name);
		bool done = false;

		if (n < 5 || strcmp(e->d_name + n - 4, ".tmp") != 0)
			continue;
		if (d->args->repair)
			done = unlinkat(dirfd(folder), e->d_name, 0) == 0;
		say(d, "removed", done, "%s/%s was left by a write that was cut off", dir,
			e->d_name);
	}
}

/*
 * Who this device is stands in the record of every drive, too: with that, the next login makes it
 * the same device again, whose numbers the drives' unsent changes bear.
 */
static bool mend_account(struct doctor *d)
{
	_cleanup_closedir_ DIR *folder = opendir(d->home.drives);
	struct dirent *e;
	bool done = false;

	while (!done && folder && (e = readdir(folder))) {
		_cleanup_drive_ struct drive drive = { 0 };
		char host[LABEL_BYTES_MAX + 1] = { 0 };
		struct account a = { 0 };

		if (!drive_id_valid(e->d_name) ||
			drive_load(&d->home, e->d_name, &drive, NULL) <= 0 ||
			gethostname(host, sizeof host - 1) < 0)
			continue;
		a = (struct account){ .url = drive.url,
			.user = drive.user,
			.device = host,
			.device_id = drive.device_id };
		done = account_save(&d->home, &a, NULL) == 0;
	}
	return done;
}

/* The token is gone in any case: only the user can give another. */
static void check_account(struct doctor *d, const char *why)
{
	bool mended = d->args->repair && mend_account(d);

	say(d, mended ? "made again without its token" : NULL, false,
		"%s; log in again: varve login", why);
	if (mended)
		d->has_account = account_load(&d->home, &d->account, NULL) > 0;
}

static void check_configuration(struct doctor *d)
{
	_cleanup_free_ char *account = path_join(d->home.config, "account.json");
	struct err err = { 0 };
	int r = account_load(&d->home, &d->account, &err);

	d->has_account = r > 0;
	if (r < 0)
		check_account(d, err.text);
	check_private(d, d->home.config, 0700);
	check_private(d, d->home.drives, 0700);
	if (account)
		check_private(d, account, 0600);
	check_leftovers(d, d->home.config);
}

/* ---- drives ---- */

static void show_progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	const struct drive *drive = ctx;
	char n[BYTES_TEXT_MAX];

	if (strncmp(what, "bytes", 5) == 0)
		progress_show("%s: %s of contents read", drive->name, bytes_text(done, n));
	else if (total)
		progress_show("%s: %llu of about %llu %s", drive->name, (unsigned long long)done,
			(unsigned long long)total, what);
}

static void show_waiting(void *ctx)
{
	const struct drive *drive = ctx;

	progress_show("%s: its daemon reads everything", drive->name);
}

static int ask_daemon(struct doctor *d, const struct drive *drive, json_t **ret, struct err *err)
{
	struct control_call call = {
		.socket_path = drive->socket,
		.timeout_ms = -1,
		.tick = show_waiting,
		.tick_ctx = (void *)(uintptr_t)drive,
	};
	int r;

	if (!drive->socket)
		return err_set(err, EAGAIN, "its daemon is just starting; try again");
	call.request = json_pack("{s:s, s:b, s:b}", "op", "doctor", "quick", d->args->quick,
		"repair", d->args->repair);
	r = control_ask(&call, ret, NULL, err);
	if (r == 0) {
		json_object_del(*ret, "v");
		json_object_del(*ret, "ok");
	}
	return r;
}

static int examine(struct doctor *d, const struct drive *drive, json_t **ret, struct err *err)
{
	_cleanup_free_ char *dir = home_drive_dir(&d->home, drive->id);
	struct doctor_plan plan = {
		.drive = drive,
		.account = d->has_account ? &d->account : NULL,
		.dir = dir,
		.quick = d->args->quick,
		.repair = d->args->repair,
		.progress = show_progress,
		.ctx = (void *)(uintptr_t)drive,
	};
	_cleanup_close_ int lock = -1;
	int r;

	if (!dir)
		return err_sys(err, ENOMEM, "doctor");
	if (drive->running)
		return ask_daemon(d, drive, ret, err);
	r = drive_lock(&d->home, drive->id, &lock, err);
	if (r < 0)
		return r;
	check_private(d, dir, 0700);
	check_leftovers(d, dir);
	return d->calls->doctor(&plan, ret, err);
}

static int examine_drive(struct doctor *d, const struct drive *drive)
{
	json_t *report = NULL;
	struct err err = { 0 };
	int r = examine(d, drive, &report, &err);

	progress_clear();
	if (r < 0) {
		json_decref(report);
		d->clean = false;
		return cli_fail(
			"doctor", "drive '%s' cannot be checked: %s", drive->name, err.text);
	}
	d->clean = d->clean && json_is_true(json_object_get(report, "clean"));
	return json_array_append_new(d->drives, report) < 0 ? EXIT_FAILED : EXIT_DONE;
}

/* A record that cannot be read is made again out of what the server says of the drive. */
static bool mend_record(struct doctor *d, const char *id)
{
	_cleanup_server_drives_ struct server_drives known = { 0 };
	struct drive fresh = { 0 };

	if (!d->has_account || !d->account.token || d->calls->drives(&d->account, &known, NULL) < 0)
		return false;
	memcpy(fresh.id, id, DRIVE_ID_DIGITS);
	fresh.url = d->account.url;
	fresh.user = d->account.user;
	fresh.device_id = d->account.device_id;
	for (size_t i = 0; i < known.n; i++) {
		if (strcmp(known.items[i].id, id) != 0)
			continue;
		fresh.name = known.items[i].name;
		return drive_save(&d->home, &fresh, NULL) == 0;
	}
	return false;
}

/* Whether the record is that of the account; one that is not may be damaged, or of an older login.
 */
static bool is_ours(const struct doctor *d, const struct drive *drive)
{
	return !d->has_account || (strcmp(drive->url, d->account.url) == 0 &&
					  strcmp(drive->user, d->account.user) == 0 &&
					  strcmp(drive->device_id, d->account.device_id) == 0);
}

static void check_record(struct doctor *d, const char *id, struct drive *io)
{
	bool mended = false;

	if (is_ours(d, io))
		return;
	if (d->args->repair && !io->running && mend_record(d, id)) {
		drive_done(io);
		mended = drive_load(&d->home, id, io, NULL) > 0;
	}
	say(d, "made again from what the server says", mended,
		"the record of drive %s is of another server, user or device than the account", id);
}

static bool is_wanted(const struct doctor *d, const struct drive *drive)
{
	return !d->args->drive || strcmp(d->args->drive, drive->name) == 0 ||
	       strcmp(d->args->drive, drive->id) == 0;
}

static int examine_folder(struct doctor *d, const char *id, size_t *io_found)
{
	_cleanup_drive_ struct drive drive = { 0 };
	struct err err = { 0 };
	int r = drive_load(&d->home, id, &drive, &err);

	if (r <= 0) {
		bool mended = d->args->repair && mend_record(d, id);

		say(d, "made again from what the server says", mended, "%s",
			r < 0 ? err.text : "a drive's folder has no drive.json");
		if (!mended || drive_load(&d->home, id, &drive, NULL) <= 0)
			return EXIT_DONE;
	}
	check_record(d, id, &drive);
	if (!drive.name || !is_wanted(d, &drive))
		return EXIT_DONE;
	++*io_found;
	return examine_drive(d, &drive);
}

static int examine_all(struct doctor *d)
{
	_cleanup_closedir_ DIR *folder = opendir(d->home.drives);
	struct dirent *e;
	size_t found = 0;
	int r = EXIT_DONE;

	while (folder && (e = readdir(folder))) {
		if (drive_id_valid(e->d_name) && examine_folder(d, e->d_name, &found) != EXIT_DONE)
			r = EXIT_FAILED;
	}
	if (d->args->drive && found == 0)
		return cli_fail("doctor", "this device has no drive '%s'", d->args->drive);
	return r;
}

static int examine_mounted(struct doctor *d)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	struct drive *drive;
	struct err err = { 0 };

	if (drive_list_load(&d->home, &l, &err) < 0 ||
		locate_drive(&l, d->args->dir, &drive, NULL, &err) < 0)
		return cli_fail("doctor", "%s", err.text);
	return examine_drive(d, drive);
}

/* ---- what is said ---- */

static void print_problem(const json_t *p)
{
	const json_t *paths = json_object_get(p, "paths"), *path;
	uint64_t more = (uint64_t)json_integer_value(json_object_get(p, "more_paths"));
	const char *fix = json_text(p, "fix");
	bool repaired = json_is_true(json_object_get(p, "repaired"));
	size_t i;

	cli_say("  %s: %s", json_text(p, "severity"), json_text(p, "text"));
	json_array_foreach(paths, i, path) cli_say("      in %s", json_string_value(path));
	if (more)
		cli_say("      and in %llu more", (unsigned long long)more);
	if (repaired)
		cli_say("      repaired%s%s", fix ? ": " : "", fix ? fix : "");
	else if (fix)
		cli_say("      %s", fix);
}

static void print_problems(const json_t *list)
{
	const json_t *p;
	size_t i;

	json_array_foreach(list, i, p) print_problem(p);
}

static uint64_t checked(const json_t *report, const char *key)
{
	const json_t *o = json_object_get(report, "checked");

	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static void print_drive(const json_t *report)
{
	uint64_t more = (uint64_t)json_integer_value(json_object_get(report, "more_problems"));
	const char *rescue = json_text(report, "rescue");
	char files[COUNT_TEXT_MAX], chunks[COUNT_TEXT_MAX], bytes[BYTES_TEXT_MAX];

	cli_say("Drive '%s'%s: %s, %s, %s read.", json_text(report, "drive"),
		json_is_true(json_object_get(report, "mounted")) ? " (mounted)" : "",
		count_text(checked(report, "files"), "file", files),
		count_text(checked(report, "chunks"), "chunk", chunks),
		bytes_text(checked(report, "chunk_bytes"), bytes));
	print_problems(json_object_get(report, "problems"));
	if (more)
		cli_say("  and %llu more", (unsigned long long)more);
	if (rescue)
		cli_say("  What was not sent yet is in %s.", rescue);
}

static int print_all(struct doctor *d)
{
	const json_t *report;
	size_t i;

	if (d->args->json) {
		_cleanup_json_ json_t *o = json_pack("{s:b, s:O, s:O}", "clean", d->clean,
			"problems", d->problems, "drives", d->drives);

		return o ? print_json(o) : cli_fail("doctor", "%s", strerror(ENOMEM));
	}
	print_problems(d->problems);
	json_array_foreach(d->drives, i, report) print_drive(report);
	if (d->clean)
		cli_say("All is well.");
	else
		cli_say("There are problems%s.",
			d->args->repair ? " that need you" : "; varve doctor --repair");
	return finish_output("doctor");
}

int cmd_doctor(const struct cli_calls *calls, int argc, char **argv)
{
	__attribute__((cleanup(doctor_done))) struct doctor d = {
		.calls = calls, .drives = json_array(), .problems = json_array(), .clean = true
	};
	struct doctor_args args = { 0 };
	struct err err = { 0 };
	int r;

	cli_parse(&argp, argc, argv, &args);
	d.args = &args;
	if (!d.drives || !d.problems || home_init(&d.home, &err) < 0)
		return cli_fail("doctor", "%s", err.text);
	check_configuration(&d);
	r = args.dir ? examine_mounted(&d) : examine_all(&d);
	if (print_all(&d) != EXIT_DONE)
		return EXIT_FAILED;
	return r == EXIT_DONE && d.clean ? EXIT_DONE : EXIT_FAILED;
}
