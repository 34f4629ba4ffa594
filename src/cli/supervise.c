// SPDX-License-Identifier: Apache-2.0
#include "cli/supervise.h"

#include "cli/mounts.h"
#include "cli/output.h"
#include "clock.h"
#include "err.h"
#include "io.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

/* Five crashes in a row within a minute are no accident. */
#define CRASHES_MAX 5
#define CRASH_WINDOW_MS (60 * 1000)
#define PAUSE_MIN_MS 250
#define PAUSE_MAX_MS 8000
/* One that hangs in its death is no child that has ended: it has to be looked at. */
#define DYING_TICK_MS 1000
/* A full disk, say: until somebody makes room. */
#define PASSING_PAUSE_MS 2000

struct run {
	struct supervised *s;
	sigset_t before; /* the mask that the daemon gets */
	int signal_fd;
	pid_t pid;
	int ready; /* the daemon's end comes out here; -1 when it has said all */
	char text[ERR_TEXT_BYTES + 1]; /* what it said */
	size_t text_len;
	bool served; /* ever */
	bool stopping;
	int64_t crashes[CRASHES_MAX]; /* when; a ring */
	unsigned n_crashes;
};

/* ---- a daemon ---- */

static int start(struct run *r)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	fflush(NULL);
	r->pid = fork();
	if (r->pid < 0) {
		close(ends[0]);
		close(ends[1]);
		return -errno;
	}
	if (r->pid == 0) {
		/* Ctrl-C is for us: two of them would end it at once. */
		setpgid(0, 0);
		sigprocmask(SIG_SETMASK, &r->before, NULL);
		close(ends[0]);
		close(r->signal_fd);
		cleanup_close_p(&r->s->ready_fd);
		_exit(r->s->run(r->s->ctx, ends[1]));
	}
	close(ends[1]);
	r->ready = ends[0];
	r->text_len = 0;
	return 0;
}

/* Whoever waits for the first start hears what the daemon said; later it goes to the log. */
static void pass_on(struct run *r)
{
	r->text[r->text_len] = '\0';
	if (r->s->ready_fd >= 0) {
		if (io_write_full(r->s->ready_fd, r->text, r->text_len) < 0)
			log_debug("nobody waits for the mount");
		close(r->s->ready_fd);
		r->s->ready_fd = -1;
	} else if (r->text_len > 1 && r->text[0] == '-') {
		log_error("%s", r->text + 1);
	}
	r->served |= r->text_len && r->text[0] == '+';
}

static void hear(struct run *r)
{
	ssize_t n = read(r->ready, r->text + r->text_len, sizeof r->text - 1 - r->text_len);

	if (n < 0 && errno == EINTR)
		return;
	if (n > 0)
		r->text_len += (size_t)n;
	if (n > 0 && r->text[0] != '+' && r->text_len < sizeof r->text - 1)
		return;
	pass_on(r);
	close(r->ready);
	r->ready = -1;
}

static void take_signal(struct run *r)
{
	struct signalfd_siginfo info;

	if (read(r->signal_fd, &info, sizeof info) != sizeof info || info.ssi_signo == SIGCHLD)
		return;
	r->stopping = true;
	if (r->pid > 0)
		kill(r->pid, (int)info.ssi_signo);
}

/* Waits for the daemon's end; its wait status. */
static int await_end(struct run *r)
{
	int status = 0;

	for (;;) {
		struct pollfd p[] = { { .fd = r->signal_fd, .events = POLLIN },
			{ .fd = r->ready, .events = POLLIN } };

		if (waitpid(r->pid, &status, WNOHANG) == r->pid)
			break;
		if (mounts_end_dying(r->pid, r->s->mountpoint))
			log_debug("supervisor: the daemon is dying");
		if (poll(p, ARRAY_SIZE(p), DYING_TICK_MS) < 0)
			continue;
		if (p[0].revents)
			take_signal(r);
		if (r->ready >= 0 && p[1].revents)
			hear(r);
	}
	r->pid = 0;
	while (r->ready >= 0)
		hear(r);
	return status;
}

/* ---- between two ---- */

static void pause_ms(struct run *r, int64_t ms)
{
	int64_t until = clock_mono_ms() + ms;

	while (!r->stopping && clock_mono_ms() < until) {
		struct pollfd p = { .fd = r->signal_fd, .events = POLLIN };

		if (poll(&p, 1, (int)(until - clock_mono_ms()) + 1) > 0)
			take_signal(r);
	}
}

/* True when there have been too many. */
static bool note_crash(struct run *r)
{
	int64_t now = clock_mono_ms();
	int64_t oldest = r->crashes[r->n_crashes % CRASHES_MAX];

	r->crashes[r->n_crashes % CRASHES_MAX] = now;
	r->n_crashes++;
	return r->n_crashes > CRASHES_MAX && now - oldest < CRASH_WINDOW_MS;
}

/* How many crashes lie within the window: what the pause goes by. */
static unsigned recent_crashes(const struct run *r)
{
	int64_t now = clock_mono_ms();
	unsigned n = 0;

	for (unsigned i = 0; i < MIN(r->n_crashes, CRASHES_MAX); i++)
		n += now - r->crashes[i] < CRASH_WINDOW_MS;
	return n;
}

static void tell_end(int status)
{
	if (WIFSIGNALED(status))
		log_error("supervisor: the daemon was ended by signal %d (%s)", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	else
		log_error("supervisor: the daemon ended with status %d", WEXITSTATUS(status));
}

static bool is_passing(int status)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_PASSING;
}

/* True when the daemon is to be started again, after the pause. */
static bool goes_on(struct run *r, int status)
{
	unsigned recent;

	if (r->stopping || (WIFEXITED(status) && WEXITSTATUS(status) == 0) || !r->served)
		return false;
	tell_end(status);
	if (is_passing(status)) {
		pause_ms(r, PASSING_PAUSE_MS);
		return !r->stopping;
	}
	if (note_crash(r)) {
		log_error("supervisor: that was %d times within a minute; giving up. What was "
			  "written is safe; varve doctor may know more",
			CRASHES_MAX + 1);
		return false;
	}
	recent = recent_crashes(r);
	if (recent > 1)
		pause_ms(r, MIN(PAUSE_MIN_MS << (recent - 2), PAUSE_MAX_MS));
	if (!r->stopping)
		log_info("supervisor: starting it again");
	return !r->stopping;
}

static int exit_status(const struct run *r, int status)
{
	if (!WIFEXITED(status))
		return r->stopping ? EXIT_DONE : EXIT_FAILED;
	return WEXITSTATUS(status) == EXIT_PASSING ? EXIT_FAILED : WEXITSTATUS(status);
}

static int run_all(struct run *r)
{
	int status;

	do {
		int e = start(r);

		if (e < 0) {
			log_error("supervisor: cannot start the daemon: %s", strerror(-e));
			return EXIT_FAILED;
		}
		status = await_end(r);
	} while (goes_on(r, status));
	return exit_status(r, status);
}

int supervise(struct supervised *s)
{
	struct run r = { .s = s, .ready = -1 };
	sigset_t set;
	int status;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, &r.before);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	r.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (r.signal_fd < 0)
		return cli_fail("mount", "cannot catch signals: %s", strerror(errno));
	status = run_all(&r);
	close(r.signal_fd);
	return status;
}
