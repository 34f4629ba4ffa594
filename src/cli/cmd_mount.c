// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
#include "cli/mounts.h"
#include "cli/output.h"
#include "cli/pick_drive.h"
#include "cli/supervise.h"

#include "fault.h"
#include "io.h"
#include "bounds.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* A log that has grown beyond it becomes NAME.old at the next mount. */
#define LOG_BYTES_MAX (8 * MIB)

/* How long a daemon that was killed may take to go. */
#define DYING_MS 5000

struct mount_args {
	const char *dir;
	const char *drive;
	char *mount_options;
	uint64_t cache_bytes;
	bool foreground;
	bool supervise;
};

enum { KEY_DRIVE = 256, KEY_SUPERVISE };

static const struct argp_option options[] = {
	{ "drive", KEY_DRIVE, "NAME", 0,
		"The drive to mount, by name or id; can be left out when there is only one", 0 },
	{ "foreground", 'f', NULL, 0, "Stay in the foreground and log on stderr", 0 },
	{ "supervise", KEY_SUPERVISE, NULL, 0,
		"Start the daemon again when it dies, until it is unmounted; give up when it dies "
		"over and over",
		0 },
	{ "options", 'o', "OPTIONS", 0,
		"Mount options, as mount(8) has them: ro,noexec,...; posix (root only), to show "
		"the owners of files as the numbers that are stored, and to let set-id bits and "
		"device nodes work, where a default mount shows files as the mounting user's; and "
		"cache_size=BYTES[K|M|G], the disk space that file contents kept on this device "
		"should take at most; what is not on the server yet stays beyond it (default: no "
		"limit but the disk's)",
		0 },
	{ 0 },
};

/* "64M" and the like; cache_size=0 is no limit. */
static bool parse_bytes(const char *text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	unsigned long long n;
	const char *unit;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (errno || (*end && (!unit || !*unit || end[1])))
		return false;
	for (; unit && unit >= units; unit--) {
		if (n > UINT64_MAX / KIB)
			return false;
		n *= KIB;
	}
	*ret = n;
	return true;
}

/* -o can be given several times. */
static void add_options(struct mount_args *a, const char *list)
{
	char *had = a->mount_options;

	if (!*list)
		return;
	if (asprintf(&a->mount_options, "%s%s%s", had ? had : "", had ? "," : "", list) < 0)
		exit(cli_fail("mount", "out of memory"));
	free(had);
}

/* Takes cache_size=... out of the options: it is not for the kernel. */
static void take_options(struct mount_args *a, char *list)
{
	static const char name[] = "cache_size=";
	char *rest = list, *one, *to = list;

	while ((one = strsep(&rest, ","))) {
		size_t n = strlen(one);

		if (strncmp(one, name, strlen(name)) == 0) {
			if (!parse_bytes(one + strlen(name), &a->cache_bytes))
				exit(cli_misuse("mount",
					"'%s' is no size; write it as cache_size=20G", one));
			continue;
		}
		if (to > list)
			*to++ = ',';
		memmove(to, one, n + 1);
		to += n;
	}
	*to = 0;
	add_options(a, list);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct mount_args *a = state->input;

	switch (key) {
	case KEY_DRIVE:
		a->drive = arg;
		return 0;
	case 'f':
		a->foreground = true;
		return 0;
	case KEY_SUPERVISE:
		a->supervise = true;
		return 0;
	case 'o':
		take_options(a, arg);
		return 0;
	case ARGP_KEY_ARG:
		if (a->dir)
			exit(cli_misuse("mount", "'%s' is one argument too many", arg));
		a->dir = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->dir)
			exit(cli_misuse("mount", "the folder DIR to mount at is missing"));
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = { options, parse, "DIR",
	"Mounts a drive at the folder DIR and returns when the mount answers. A drive that was "
	"mounted on this device before needs no network for it.",
	options_common };

/* One mount on its way: from what was asked to what the daemon is told. */
struct mounting {
	const struct cli_calls *calls;
	const struct mount_args *args;
	struct home home;
	struct account account;
	struct drive drive;
	char *mountpoint;
	char *dir;
	char *socket;
	int lock_fd;
	int ready_fd; /* to the waiting parent; -1 in the foreground */
};

static void mounting_done(struct mounting *m)
{
	home_done(&m->home);
	account_done(&m->account);
	drive_done(&m->drive);
	free(m->mountpoint);
	free(m->dir);
	free(m->socket);
	cleanup_close_p(&m->lock_fd);
	cleanup_close_p(&m->ready_fd);
}

static int attach(void *ctx, uint32_t *ret_number, int64_t *ret_created_ns, struct err *err)
{
	struct mounting *m = ctx;
	int r = m->calls->attach(&m->account, m->drive.id, ret_number, ret_created_ns, err);

	if (r < 0) {
		err_prefix(err, "the first mount on this device needs the server");
		return r;
	}
	fault_instant("attach.answered");
	return drive_save(&m->home, &m->drive, err);
}

/* "+" to the parent: it may return to the shell. */
static void ready(void *ctx)
{
	struct mounting *m = ctx;

	log_info("drive '%s' is mounted at %s", m->drive.name, m->mountpoint);
	if (m->ready_fd < 0)
		return;
	if (io_write_full(m->ready_fd, "+", 1) < 0)
		log_debug("nobody waits for the mount");
	close(m->ready_fd);
	m->ready_fd = -1;
}

/* The folder, whether or not a dead daemon's mount lies over it. */
static int check_mountpoint(const char *text, char **ret, struct err *err)
{
	_cleanup_free_ char *dir = NULL;
	_cleanup_mount_ struct mount_entry entry = { 0 };
	struct stat st;
	int r = mount_resolve(text, &dir, err);

	if (r < 0)
		return r;
	/* A folder, then; not to be asked: its daemon may hang in its death (mounts.h). */
	if (mount_find_at(dir, &entry) > 0 && mount_is_varve(&entry)) {
		*ret = steal(dir);
		return 0;
	}
	r = stat(dir, &st) < 0 ? -errno : 0;
	if (r == -ENOENT)
		return err_set(err, ENOENT, "%s is not there; make the folder first", text);
	if (r < 0 && r != -ENOTCONN)
		return err_sys(err, -r, "cannot use %s", text);
	if (r == 0 && !S_ISDIR(st.st_mode))
		return err_set(
			err, ENOTDIR, "%s is no folder; a drive is mounted at a folder", text);
	*ret = steal(dir);
	return 0;
}

/*
 * Where the last daemon of this drive died, the user need not clean up by hand. (A dead mount at
 * the mountpoint itself is taken away by who mounts there.)
 */
static void clear_last_mount(struct mounting *m)
{
	_cleanup_mount_ struct mount_entry entry = { 0 };
	_cleanup_drive_ struct drive last = { 0 };

	if (drive_load(&m->home, m->drive.id, &last, NULL) <= 0 || !last.dir ||
		strcmp(last.dir, m->mountpoint) == 0)
		return;
	if (mount_find_at(last.dir, &entry) <= 0 || !mount_is_varve(&entry) ||
		!mounts_is_dead(last.dir))
		return;
	if (mounts_detach(last.dir, true, NULL) < 0)
		log_debug("%s: the last mount of the drive is not taken away", last.dir);
}

/*
 * Numbers that a device was given are its own: the server takes nothing from another device that
 * uses them. What is here can be read and written all the same.
 */
static void warn_of_other_device(const struct mounting *m)
{
	if (strcmp(m->drive.device_id, m->account.device_id) != 0)
		cli_note("mount",
			"drive '%s' was attached in an earlier login; the server may refuse what "
			"is "
			"changed here",
			m->drive.name);
}

/*
 * The lock of a daemon that was killed a moment ago, or that hangs in its death, is free soon.
 * Nothing tells of a lock that becomes free within a time.
 */
static int lock_drive(struct mounting *m, struct err *err)
{
	static const struct timespec pause = { .tv_nsec = 20 * NS_PER_MS };
	int64_t until = clock_mono_ms() + DYING_MS;

	for (;;) {
		_cleanup_drive_ struct drive last = { 0 };
		int r = drive_lock(&m->home, m->drive.id, &m->lock_fd, err);

		if (r != -EBUSY || clock_mono_ms() > until ||
			drive_load(&m->home, m->drive.id, &last, NULL) <= 0 || last.pid <= 0 ||
			!mounts_end_dying(last.pid, last.dir))
			return r;
		nanosleep(&pause, NULL);
	}
}

static int prepare(struct mounting *m, struct err *err)
{
	int r = account_require(&m->home, &m->account, err);

	if (r == 0)
		r = pick_drive(m->calls, &m->home, &m->account, m->args->drive, &m->drive, err);
	if (r == 0)
		r = lock_drive(m, err);
	if (r == 0)
		r = home_make_dir(m->home.run, err);
	if (r < 0)
		return r;
	clear_last_mount(m);
	warn_of_other_device(m);
	m->dir = home_drive_dir(&m->home, m->drive.id);
	m->socket = home_socket_path(&m->home, m->drive.id);
	return m->dir && m->socket ? 0 : err_sys(err, ENOMEM, "mount");
}

static int serve(struct mounting *m, struct err *err)
{
	struct mount_plan plan = {
		.account = &m->account,
		.drive = &m->drive,
		.dir = m->dir,
		.socket_path = m->socket,
		.mountpoint = m->mountpoint,
		.mount_options = m->args->mount_options,
		.cache_bytes = m->args->cache_bytes,
		.attach = attach,
		.ready = ready,
		.ctx = m,
	};
	int r = drive_announce(&m->home, m->drive.id, m->mountpoint, m->socket, err);

	return r < 0 ? r : m->calls->serve(&plan, err);
}

/* What somebody can change while we wait. */
static int failed_status(const struct err *err)
{
	return err->code == ENOSPC || err->code == ENOMEM || err->code == EMFILE ? EXIT_PASSING
										 : EXIT_FAILED;
}

/* To who waits for the mount, or to the log. */
static void tell_failure(struct mounting *m, const struct err *err)
{
	if (m->ready_fd < 0)
		log_error("%s", err->text);
	else if (io_write_full(m->ready_fd, "-", 1) < 0 ||
		 io_write_full(m->ready_fd, err->text, strlen(err->text)) < 0)
		log_error("%s", err->text);
}

/* One daemon of the supervisor. The drive's lock is the supervisor's, and so ours. */
static int run_supervised(void *ctx, int ready_fd)
{
	struct mounting *m = ctx;
	struct err err = { 0 };

	m->ready_fd = ready_fd;
	if (serve(m, &err) == 0)
		return EXIT_DONE;
	tell_failure(m, &err);
	return failed_status(&err);
}

/* Who waits for the mount is told by the supervisor. */
static int supervise_mount(struct mounting *m)
{
	struct supervised s = { .run = run_supervised,
		.ctx = m,
		.mountpoint = m->mountpoint,
		.ready_fd = m->ready_fd };

	m->ready_fd = -1;
	return supervise(&s);
}

static int mount_in_foreground(struct mounting *m)
{
	struct err err = { 0 };

	if (prepare(m, &err) < 0)
		return cli_fail("mount", "%s", err.text);
	if (m->args->supervise)
		return supervise_mount(m);
	return serve(m, &err) < 0 ? cli_fail("mount", "%s", err.text) : EXIT_DONE;
}

static int open_log(struct mounting *m, int *ret_fd, struct err *err)
{
	_cleanup_free_ char *path = home_log_path(&m->home, m->drive.name);
	char *old = NULL;
	struct stat st;
	int r = home_make_dir(m->home.log, err);

	if (r < 0)
		return r;
	if (!path || asprintf(&old, "%s.old", path) < 0)
		return err_sys(err, ENOMEM, "log");
	if (stat(path, &st) == 0 && (uint64_t)st.st_size > LOG_BYTES_MAX)
		rename(path, old); /* failing, the log goes on where it is */
	free(old);
	*ret_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
	return *ret_fd < 0 ? err_sys(err, errno, "cannot open the log %s", path) : 0;
}

/* Leaves the terminal and the shell's folder. Descriptors 0 to 2 stay open throughout. */
static int leave_terminal(struct mounting *m, struct err *err)
{
	_cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = -1;
	int r = null < 0 ? err_sys(err, errno, "/dev/null") : open_log(m, &log, err);

	if (r < 0)
		return r;
	if (dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
		dup2(log, STDERR_FILENO) < 0 || chdir("/") < 0)
		return err_sys(err, errno, "cannot leave the terminal");
	return 0;
}

/* The daemon's process: "+" when the mount answers, or "-" and why not, to the parent. */
static int run_daemon(struct mounting *m)
{
	struct err err = { 0 };
	int r;

	setsid();
	r = prepare(m, &err);
	if (r == 0)
		r = leave_terminal(m, &err);
	if (r == 0 && m->args->supervise)
		return supervise_mount(m);
	if (r == 0)
		r = serve(m, &err);
	if (r == 0)
		return EXIT_DONE;
	tell_failure(m, &err);
	return EXIT_FAILED;
}

/* The daemon that is awaited: in a session of its own, Ctrl-C does not reach it by itself. */
static volatile sig_atomic_t awaited, interrupted;

static void on_interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
	kill((pid_t)awaited, SIGTERM);
}

static void pass_signals_on(pid_t pid)
{
	struct sigaction sa = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART };

	awaited = pid;
	sigemptyset(&sa.sa_mask);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

static int daemon_died(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			break;
	}
	if (interrupted)
		return cli_fail("mount", "stopped by a signal; nothing is mounted");
	if (WIFSIGNALED(status))
		return cli_fail("mount", "the daemon was ended by signal %d (%s); see its log",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	return cli_fail("mount", "the daemon ended before the mount answered; see its log");
}

static int await_daemon(int fd, pid_t pid)
{
	char text[ERR_TEXT_BYTES + 1];
	size_t n = 0;

	while (n < sizeof text - 1) {
		ssize_t got = read(fd, text + n, sizeof text - 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		n += (size_t)got;
		if (text[0] == '+' && !interrupted)
			return EXIT_DONE;
	}
	if (interrupted)
		return daemon_died(pid);
	text[n] = '\0';
	return n > 1 ? cli_fail("mount", "%s", text + 1) : daemon_died(pid);
}

/* No thread runs yet: RocksDB, curl and FUSE begin theirs in the child. */
static int mount_in_background(struct mounting *m)
{
	_cleanup_close_ int from_child = -1;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return cli_fail("mount", "cannot make a pipe: %s", strerror(errno));
	from_child = ends[0];
	m->ready_fd = ends[1];
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return cli_fail("mount", "cannot start the daemon: %s", strerror(errno));
	if (pid == 0)
		return run_daemon(m);
	pass_signals_on(pid);
	close(m->ready_fd);
	m->ready_fd = -1;
	return await_daemon(from_child, pid);
}

int cmd_mount(const struct cli_calls *calls, int argc, char **argv)
{
	__attribute__((cleanup(mounting_done))) struct mounting m = {
		.calls = calls,
		.lock_fd = -1,
		.ready_fd = -1,
	};
	struct mount_args args = { 0 };
	struct err err = { 0 };
	int r;

	cli_parse(&argp, argc, argv, &args);
	m.args = &args;
	if (home_init(&m.home, &err) < 0 || check_mountpoint(args.dir, &m.mountpoint, &err) < 0)
		return cli_fail("mount", "%s", err.text);
	r = args.foreground ? mount_in_foreground(&m) : mount_in_background(&m);
	free(args.mount_options);
	return r;
}
