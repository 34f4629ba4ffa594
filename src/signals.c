// SPDX-License-Identifier: Apache-2.0
#include "signals.h"

#include "log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

struct signals {
	void (*stop)(void *ctx, unsigned count);
	void *ctx;
	int signal_fd;
	int end_fd;
	bool running;
	pthread_t thread;
};

static void *signals_main(void *arg)
{
	struct signals *s = arg;
	struct pollfd p[] = { { .fd = s->signal_fd, .events = POLLIN },
		{ .fd = s->end_fd, .events = POLLIN } };
	unsigned count = 0;

	for (;;) {
		struct signalfd_siginfo info;

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return NULL;
		if (p[1].revents)
			return NULL;
		if (read(s->signal_fd, &info, sizeof info) == sizeof info) {
			log_info("signal: %s", strsignal((int)info.ssi_signo));
			s->stop(s->ctx, ++count);
		}
	}
}

static int start(struct signals *s)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	r = -pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (r < 0)
		return r;
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->end_fd = eventfd(0, EFD_CLOEXEC);
	if (s->signal_fd < 0 || s->end_fd < 0)
		return -errno;
	r = -pthread_create(&s->thread, NULL, signals_main, s);
	s->running = r == 0;
	return r;
}

int signals_new(void (*stop)(void *ctx, unsigned count), void *ctx, struct signals **ret)
{
	struct signals *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct signals){ .stop = stop, .ctx = ctx, .signal_fd = -1, .end_fd = -1 };
	r = start(s);
	if (r < 0) {
		signals_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void signals_free(struct signals *s)
{
	if (!s)
		return;
	if (s->running) {
		if (eventfd_write(s->end_fd, 1) < 0)
			log_error("signals: cannot end the thread: %s", strerror(errno));
		pthread_join(s->thread, NULL);
	}
	cleanup_close_p(&s->signal_fd);
	cleanup_close_p(&s->end_fd);
	free(s);
}
