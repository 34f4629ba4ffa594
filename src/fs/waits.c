// SPDX-License-Identifier: Apache-2.0
#include "fs/waits.h"

#include "fs/reply.h"

#include "bounds.h"
#include "clock.h"
#include "fs/loop.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utlist.h>

/* fetch, TLS and decompression run on it */
#define WAIT_STACK_BYTES (512 * KIB)
/* Below two pages libfuse copies as well, with more ado. */
#define COPY_BYTES_MAX (8 * KIB)

struct wait {
	struct waits *w;
	fuse_req_t req;
	struct file *file; /* the kernel keeps it open until it has its answer */
	uint64_t offset;
	size_t size;
	_Atomic int cancelled;
	struct wait *prev, *next;
};

struct waits {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	struct wait *all;
	size_t n;
	bool stopping;
};

int waits_new(struct waits **ret)
{
	struct waits *w = calloc(1, sizeof *w);

	if (!w)
		return -ENOMEM;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->ended, NULL);
	*ret = w;
	return 0;
}

void waits_free(struct waits *w)
{
	if (!w)
		return;
	waits_stop(w);
	pthread_cond_destroy(&w->ended);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

void waits_cancel(struct waits *w)
{
	struct wait *i;

	SCOPED_LOCK(&w->lock);
	w->stopping = true;
	DL_FOREACH (w->all, i)
		atomic_store(&i->cancelled, 1);
}

void waits_stop(struct waits *w)
{
	waits_cancel(w);
	SCOPED_LOCK(&w->lock);
	while (w->n > 0)
		pthread_cond_wait(&w->ended, &w->lock);
}

static struct fuse_buf piece_buf(const struct read_piece *p)
{
	if (p->fd < 0)
		return (struct fuse_buf){
			.size = p->n,
			.mem = (void *)(uintptr_t)p->mem,
		};
	return (struct fuse_buf){
		.size = p->n,
		.flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK,
		.fd = p->fd,
		.pos = (off_t)p->offset,
	};
}

/* The piece's first n bytes, as far as they are in memory. */
static ssize_t read_cached(const struct read_piece *p, void *buf, size_t n)
{
	struct iovec iov = { buf, n };

	return preadv2(p->fd, &iov, 1, (off_t)p->offset, RWF_NOWAIT);
}

/* So long a read of a few pages takes only when it waits for a disk. */
#define WAITED_NS (40 * 1000)

/* For who holds nobody up: the look whether it would wait costs more than the rest. */
static ssize_t read_waiting(const struct read_piece *p, void *buf)
{
	int64_t began = clock_mono_ns();
	ssize_t n = pread(p->fd, buf, p->n, (off_t)p->offset);

	if (clock_mono_ns() - began >= WAITED_NS)
		loop_waited();
	return n;
}

/* A small read, answered with one copy. */
static bool reply_copy(fuse_req_t req, const struct read_plan *plan)
{
	const struct read_piece *p = plan->pieces;
	char bytes[COPY_BYTES_MAX];
	ssize_t n = -1;

	if (plan->n != 1 || p->fd < 0 || p->n > sizeof bytes)
		return false;
	if (loop_is_awaited()) {
		n = read_cached(p, bytes, p->n);
		if (n != (ssize_t)p->n)
			loop_may_wait();
	}
	if (n != (ssize_t)p->n)
		n = read_waiting(p, bytes);
	/* Short or failed: the long way says how. */
	if (n != (ssize_t)p->n)
		return false;
	fuse_reply_buf(req, bytes, p->n);
	return true;
}

/* The kernel reads ahead: what has its first byte there is there, as a rule. */
static bool is_cached(const struct read_plan *plan)
{
	char c;

	for (size_t i = 0; i < plan->n; i++) {
		const struct read_piece *p = &plan->pieces[i];

		if (p->fd >= 0 && read_cached(p, &c, 1) != 1)
			return false;
	}
	return true;
}

static void reply_plan(fuse_req_t req, const struct read_plan *plan)
{
	_cleanup_free_ struct fuse_bufvec *v = NULL;

	if (plan->n == 0) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	if (reply_copy(req, plan))
		return;
	if (!is_cached(plan))
		loop_may_wait();
	v = calloc(1, sizeof *v + (plan->n - 1) * sizeof v->buf[0]);
	if (!v) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	v->count = plan->n;
	for (size_t i = 0; i < plan->n; i++)
		v->buf[i] = piece_buf(&plan->pieces[i]);
	fuse_reply_data(req, v, 0);
}

/* Answers, unless that would have to wait and `must` is not set: false then. */
static bool read_now(fuse_req_t req, struct file *f, uint64_t offset, size_t size,
	const _Atomic int *cancelled, bool must)
{
	struct read_plan plan = { 0 };
	int r = file_read_plan(f, offset, size, cancelled, &plan);

	if (r == -EINTR && !must)
		return false;
	if (must)
		fuse_req_interrupt_func(req, NULL, NULL);
	if (r < 0) {
		reply_error(req, r);
		return true;
	}
	reply_plan(req, &plan);
	read_plan_done(&plan);
	return true;
}

static void interrupted(fuse_req_t req, void *data)
{
	struct wait *i = data;

	atomic_store(&i->cancelled, 1);
}

static void wait_run(struct wait *i)
{
	struct waits *w = i->w;

	fuse_req_interrupt_func(i->req, interrupted, i);
	read_now(i->req, i->file, i->offset, i->size, &i->cancelled, true);
	pthread_mutex_lock(&w->lock);
	DL_DELETE(w->all, i);
	w->n--;
	pthread_cond_broadcast(&w->ended);
	pthread_mutex_unlock(&w->lock);
	free(i);
}

static void *wait_main(void *arg)
{
	wait_run(arg);
	return NULL;
}

/* True when a thread may be started for it. */
static bool wait_enter(struct waits *w, struct wait *i)
{
	SCOPED_LOCK(&w->lock);
	DL_APPEND(w->all, i);
	if (w->stopping)
		atomic_store(&i->cancelled, 1);
	return ++w->n <= WAITS_MAX;
}

static int start_thread(struct wait *i)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, WAIT_STACK_BYTES);
	r = pthread_create(&thread, &attr, wait_main, i);
	pthread_attr_destroy(&attr);
	return -r;
}

void waits_read(struct waits *w, fuse_req_t req, struct file *f, uint64_t offset, size_t size)
{
	static const _Atomic int at_once = 1;
	struct wait *i;

	/* Cancelled from the start: a read of what is local does not ask, any other gives up. */
	if (read_now(req, f, offset, size, &at_once, false))
		return;
	i = calloc(1, sizeof *i);
	if (!i) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*i = (struct wait){ .w = w, .req = req, .file = f, .offset = offset, .size = size };
	if (!wait_enter(w, i) || start_thread(i) < 0)
		wait_run(i);
}
