// SPDX-License-Identifier: Apache-2.0
#include "fs/loop.h"

#define FUSE_USE_VERSION 312

#include "bounds.h"
#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* Threads that answer; reads that wait for the network have others (waits.h). */
#define THREADS_MAX 64
/* Each holds the buffer of the largest request that it has seen. */
#define IDLE_MAX 10
/*
 * A program that asks one thing after the other comes with the next question sooner than a
 * sleeping thread is awake again, where that takes an interrupt from one CPU to another: on a
 * virtual machine, some 25 us. Staying awake for so long halves what a question costs. But when
 * the program runs on this very CPU it has to wait until we sleep. So both are tried now and
 * then, and what made the next question come sooner is done.
 */
#define SPIN_NS (50 * 1000)
#define TRY_OTHER_EVERY 32
#define AVERAGE_OF 8
/* A longer pause tells nothing: nobody asked. */
#define PAUSE_NS (500 * 1000)
/* How often the standby looks whether the reader is held up. */
#define STANDBY_NS NS_PER_MS
/* So many requests in a row that were there before anybody looked: more than one thread's work. */
#define QUEUED_MAX 3
/* So many requests in a row that wait for a disk gather a crowd, and so many that do not end it. */
#define GATHER_AFTER 8
#define CALM_MAX 64

/*
 * `turn`: a number that changes whenever the reader takes a request, finishes it, or hands the
 * reading on; TURN_BUSY while the reader answers one. Only the reader changes it, but for the
 * standby, which takes a busy turn over.
 */
#define TURN_BUSY UINT64_C(1)
#define TURN_STEP UINT64_C(2)

struct loop {
	struct fuse_session *se;
	int stop_fd;
	bool spins; /* on a single CPU, nobody can ask while we do */
	_Atomic uint64_t turn;
	_Atomic bool standby_asleep;
	_Atomic unsigned waiting; /* threads, for their turn to read; changed under lock */
	pthread_mutex_t lock; /* the rest; leaf */
	pthread_cond_t wanted; /* a reader or a standby is, or the loop ends */
	pthread_cond_t tick; /* the standby's */
	pthread_cond_t ended; /* a thread did */
	bool reader_wanted;
	bool standby; /* one of those who wait is it */
	bool stopping;
	int error;
	int leave_fd; /* readable while there is no crowd */
	_Atomic bool crowd; /* changed under lock */
	_Atomic unsigned watching; /* of the crowd: threads that are there for the next request */
	_Atomic unsigned waited; /* requests in a row that did */
	_Atomic unsigned calm; /* and in the crowd, that did not */
	unsigned threads;
	unsigned n_ended;
	pthread_t ended_threads[THREADS_MAX]; /* to be joined */
};

/* What a thread knows while it is the reader. */
struct reading {
	struct fuse_buf buf;
	uint64_t turn;
	unsigned queued; /* requests in a row that were there already */
	unsigned waits;
	int64_t gap_ns[2]; /* until the next request came, on average: asleep, awake */
	bool awaited; /* somebody waited for the last answer */
	int crowd_fd; /* epoll, -1 until this thread was in a crowd */
};

int loop_new(struct fuse_session *se, struct loop **ret)
{
	struct loop *l = calloc(1, sizeof *l);
	pthread_condattr_t attr;

	if (!l)
		return -ENOMEM;
	l->se = se;
	l->spins = sysconf(_SC_NPROCESSORS_ONLN) > 1;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wanted, &attr);
	pthread_cond_init(&l->tick, &attr);
	pthread_cond_init(&l->ended, &attr);
	pthread_condattr_destroy(&attr);
	l->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->leave_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->stop_fd < 0 || l->leave_fd < 0) {
		int r = -errno;

		loop_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	if (l->stop_fd >= 0)
		close(l->stop_fd);
	if (l->leave_fd >= 0)
		close(l->leave_fd);
	pthread_cond_destroy(&l->ended);
	pthread_cond_destroy(&l->tick);
	pthread_cond_destroy(&l->wanted);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void loop_stop(struct loop *l)
{
	fuse_session_exit(l->se);
	/* It can fail only when it is set already. */
	(void)!eventfd_write(l->stop_fd, 1);
}

static void *thread_main(void *arg);

static int thread_add_locked(struct loop *l)
{
	pthread_t thread;
	int r;

	/* One that has ended but is not joined yet counts: it has its place in the list. */
	if (l->threads + l->n_ended >= THREADS_MAX)
		return -EAGAIN;
	r = pthread_create(&thread, NULL, thread_main, l);
	if (r != 0)
		return -r;
	l->threads++;
	l->waiting++;
	return 0;
}

/* A spare thread; failing, those that there are have to do. */
static void spare_add_locked(struct loop *l)
{
	if (l->waiting == 0 && !l->stopping)
		(void)!thread_add_locked(l);
}

/* Somebody has to be there to take over. */
static void standby_wake(struct loop *l)
{
	SCOPED_LOCK(&l->lock);
	spare_add_locked(l);
	if (l->standby)
		pthread_cond_signal(&l->tick);
}

static void hand_over(struct loop *l)
{
	SCOPED_LOCK(&l->lock);
	l->reader_wanted = true;
	spare_add_locked(l);
	/* Rather one that sleeps soundly than the standby, so that there is one afterwards. */
	if (l->standby && l->waiting == 1)
		pthread_cond_signal(&l->tick);
	else
		pthread_cond_signal(&l->wanted);
}

static void wait_tick_locked(struct loop *l)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += STANDBY_NS;
	if (until.tv_nsec >= NS_PER_S) {
		until.tv_nsec -= NS_PER_S;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&l->tick, &l->lock, &until);
}

static void sleep_soundly_locked(struct loop *l, uint64_t seen)
{
	atomic_store(&l->standby_asleep, true);
	/* A request that was taken before the line above woke nobody. */
	if (atomic_load(&l->turn) == seen && !l->reader_wanted && !l->stopping && !l->crowd)
		pthread_cond_wait(&l->tick, &l->lock);
	atomic_store(&l->standby_asleep, false);
}

/* The standby looks twice. True when it found the same request, and took the turn. */
static bool standby_watch_locked(struct loop *l, uint64_t *ret_turn)
{
	uint64_t seen = atomic_load(&l->turn);

	wait_tick_locked(l);
	if (atomic_load(&l->turn) != seen || l->reader_wanted || l->stopping || l->crowd)
		return false;
	if (!(seen & TURN_BUSY)) {
		sleep_soundly_locked(l, seen);
		return false;
	}
	*ret_turn = seen - TURN_BUSY + TURN_STEP;
	return atomic_compare_exchange_strong(&l->turn, &seen, *ret_turn);
}

static bool too_many_locked(const struct loop *l)
{
	return l->standby && l->waiting > IDLE_MAX;
}

enum part { PART_END, PART_READER, PART_CROWD };

/* What the calling thread is to do from now on. */
static enum part wait_for_turn_locked(struct loop *l, uint64_t *ret_turn)
{
	bool standby = false;
	enum part part = PART_END;

	while (!l->stopping) {
		if (l->crowd) {
			atomic_fetch_add(&l->watching, 1);
			part = PART_CROWD;
			break;
		}
		if (l->reader_wanted) {
			l->reader_wanted = false;
			*ret_turn = atomic_fetch_add(&l->turn, TURN_STEP) + TURN_STEP;
			part = PART_READER;
			break;
		}
		if (!standby && too_many_locked(l))
			break;
		if (!standby && l->standby) {
			pthread_cond_wait(&l->wanted, &l->lock);
			continue;
		}
		standby = l->standby = true;
		if (standby_watch_locked(l, ret_turn)) {
			part = PART_READER;
			break;
		}
	}
	if (standby) {
		l->standby = false;
		pthread_cond_signal(&l->wanted);
	}
	l->waiting--;
	return part;
}

/* ---- the crowd ---- */

/* All who wait for their turn come. The caller was the reader, and is not any more. */
static void gather(struct loop *l)
{
	eventfd_t n;

	SCOPED_LOCK(&l->lock);
	/* It fails when it is not readable already. */
	(void)!eventfd_read(l->leave_fd, &n);
	atomic_store(&l->calm, 0);
	atomic_store(&l->crowd, true);
	spare_add_locked(l);
	pthread_cond_broadcast(&l->wanted);
	pthread_cond_broadcast(&l->tick);
}

/* The first that waits for its turn afterwards is the reader. */
static void disperse(struct loop *l)
{
	SCOPED_LOCK(&l->lock);
	if (!l->crowd)
		return;
	atomic_store(&l->crowd, false);
	atomic_store(&l->waited, 0);
	l->reader_wanted = true;
	(void)!eventfd_write(l->leave_fd, 1);
	pthread_cond_signal(&l->wanted);
}

static void more_of_crowd(struct loop *l)
{
	SCOPED_LOCK(&l->lock);
	spare_add_locked(l);
}

/* -1 when it cannot be had: who has none asks without waiting, and leaves. */
static int crowd_fd_new(struct loop *l)
{
	struct epoll_event on[] = {
		/* One thread wakes for each request. */
		{ .events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = fuse_session_fd(l->se) },
		{ .events = EPOLLIN, .data.fd = l->stop_fd },
		{ .events = EPOLLIN, .data.fd = l->leave_fd },
	};
	int fd = epoll_create1(EPOLL_CLOEXEC);

	for (size_t i = 0; fd >= 0 && i < ARRAY_SIZE(on); i++) {
		if (epoll_ctl(fd, EPOLL_CTL_ADD, on[i].data.fd, &on[i]) < 0) {
			close(fd);
			fd = -1;
		}
	}
	return fd;
}

static void wait_for_request(struct loop *l)
{
	struct pollfd fds[] = {
		{ .fd = fuse_session_fd(l->se), .events = POLLIN },
		{ .fd = l->stop_fd, .events = POLLIN },
	};

	(void)!poll(fds, ARRAY_SIZE(fds), -1);
}

/* Whether to stay awake for the next request. */
static bool choose_awake(const struct loop *l, struct reading *rd)
{
	bool awake = rd->gap_ns[true] < MIN(rd->gap_ns[false], SPIN_NS);

	return l->spins && (++rd->waits % TRY_OTHER_EVERY == 0 ? !awake : awake);
}

static void learn(struct reading *rd, bool awake, int64_t gap_ns)
{
	if (gap_ns < PAUSE_NS)
		rd->gap_ns[awake] += (gap_ns - rd->gap_ns[awake]) / AVERAGE_OF;
}

static int receive_waiting(struct loop *l, struct reading *rd)
{
	int64_t began = clock_mono_ns();
	bool awake = choose_awake(l, rd);
	int r;

	do {
		if (fuse_session_exited(l->se))
			return 0;
		if (!awake || clock_mono_ns() - began >= SPIN_NS)
			wait_for_request(l);
		r = fuse_session_receive_buf(l->se, &rd->buf);
	} while (r == -EAGAIN || r == -EINTR);
	learn(rd, awake, clock_mono_ns() - began);
	return r;
}

/* As fuse_session_receive_buf(); 0 when the loop is to end. */
static int receive(struct loop *l, struct reading *rd)
{
	int r = fuse_session_receive_buf(l->se, &rd->buf);

	if (r != -EAGAIN && r != -EINTR) {
		rd->queued += rd->awaited;
		return r;
	}
	rd->queued = 0;
	return receive_waiting(l, rd);
}

static uint32_t opcode(const struct reading *rd)
{
	const struct fuse_in_header *in = rd->buf.mem;

	return in->opcode;
}

/* Whether others could have to wait too long while this request is answered. */
static bool is_slow(const struct reading *rd)
{
	switch (opcode(rd)) {
	case FUSE_FSYNCDIR:
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
		return true;
	default:
		return rd->queued >= QUEUED_MAX;
	}
}

static bool is_awaited(const struct reading *rd)
{
	switch (opcode(rd)) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		return false;
	default:
		return true;
	}
}

/* The loop whose reader the calling thread is, while it answers a request. */
static _Thread_local struct loop *read_by_me;
static _Thread_local uint64_t my_turn;
/* The loop in whose crowd it is. */
static _Thread_local struct loop *crowded_by_me;

/* False when the standby has taken it. */
static bool end_turn(struct loop *l)
{
	uint64_t busy = my_turn;

	read_by_me = NULL;
	return atomic_compare_exchange_strong(&l->turn, &busy, my_turn - TURN_BUSY + TURN_STEP);
}

bool loop_is_awaited(void)
{
	return read_by_me;
}

void loop_waited(void)
{
	if (crowded_by_me)
		atomic_store(&crowded_by_me->calm, 0);
}

void loop_may_wait(void)
{
	struct loop *l = read_by_me;

	loop_waited();
	if (!l || !end_turn(l))
		return;
	if (atomic_fetch_add(&l->waited, 1) < GATHER_AFTER)
		hand_over(l);
	else
		gather(l);
}

/* True when the thread is the reader afterwards, too. */
static bool answer(struct loop *l, struct reading *rd)
{
	if (is_slow(rd)) {
		hand_over(l);
		fuse_session_process_buf(l->se, &rd->buf);
		return false;
	}
	rd->awaited = is_awaited(rd);
	read_by_me = l;
	my_turn = rd->turn + TURN_BUSY;
	atomic_store(&l->turn, my_turn);
	if (atomic_load(&l->standby_asleep) || atomic_load(&l->waiting) == 0)
		standby_wake(l);
	fuse_session_process_buf(l->se, &rd->buf);
	rd->turn += TURN_STEP;
	if (!read_by_me)
		return false;
	atomic_store_explicit(&l->waited, 0, memory_order_relaxed);
	return end_turn(l);
}

static void end(struct loop *l, int error)
{
	SCOPED_LOCK(&l->lock);
	if (!l->stopping)
		l->error = error;
	l->stopping = true;
	pthread_cond_broadcast(&l->wanted);
	pthread_cond_broadcast(&l->tick);
}

/* Reads and answers until it is not the reader any more. */
static void read_on(struct loop *l, struct reading *rd)
{
	int r;

	rd->queued = 0;
	rd->awaited = true;
	do {
		r = receive(l, rd);
		if (r <= 0) {
			end(l, r);
			return;
		}
	} while (answer(l, rd));
}

static void answer_in_crowd(struct loop *l, struct reading *rd)
{
	if (atomic_fetch_sub(&l->watching, 1) == 1)
		more_of_crowd(l);
	crowded_by_me = l;
	if (atomic_fetch_add(&l->calm, 1) >= CALM_MAX)
		disperse(l);
	fuse_session_process_buf(l->se, &rd->buf);
	crowded_by_me = NULL;
	atomic_fetch_add(&l->watching, 1);
}

/* Reads and answers, as others do at the same time, for as long as there is a crowd. */
static void read_in_crowd(struct loop *l, struct reading *rd)
{
	struct epoll_event e;

	if (rd->crowd_fd < 0)
		rd->crowd_fd = crowd_fd_new(l);
	if (rd->crowd_fd < 0)
		disperse(l);
	while (atomic_load(&l->crowd) && !fuse_session_exited(l->se)) {
		int r = fuse_session_receive_buf(l->se, &rd->buf);

		if (r > 0)
			answer_in_crowd(l, rd);
		else if (r == -EAGAIN || r == -EINTR)
			(void)!epoll_wait(rd->crowd_fd, &e, 1, -1);
		else {
			end(l, r);
			break;
		}
	}
	if (fuse_session_exited(l->se))
		end(l, 0);
	atomic_fetch_sub(&l->watching, 1);
}

static void *thread_main(void *arg)
{
	struct loop *l = arg;
	struct reading rd = { .crowd_fd = -1 };
	enum part part;

	pthread_setname_np(pthread_self(), "varve-fuse");
	pthread_mutex_lock(&l->lock);
	while ((part = wait_for_turn_locked(l, &rd.turn)) != PART_END) {
		pthread_mutex_unlock(&l->lock);
		if (part == PART_READER)
			read_on(l, &rd);
		else
			read_in_crowd(l, &rd);
		pthread_mutex_lock(&l->lock);
		l->waiting++;
	}
	free(rd.buf.mem);
	if (rd.crowd_fd >= 0)
		close(rd.crowd_fd);
	l->threads--;
	l->ended_threads[l->n_ended++] = pthread_self();
	pthread_cond_signal(&l->ended);
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

/* The thread that runs the loop joins the others as they end. */
static void join_all_locked(struct loop *l)
{
	while (l->threads || l->n_ended) {
		pthread_t thread;

		if (l->n_ended == 0) {
			pthread_cond_wait(&l->ended, &l->lock);
			continue;
		}
		thread = l->ended_threads[--l->n_ended];
		pthread_mutex_unlock(&l->lock);
		pthread_join(thread, NULL);
		pthread_mutex_lock(&l->lock);
	}
}

int loop_run(struct loop *l)
{
	int fd = fuse_session_fd(l->se);
	int flags = fcntl(fd, F_GETFL);
	int r;

	/* So that the reader can look without sleeping. */
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	SCOPED_LOCK(&l->lock);
	l->reader_wanted = true;
	r = thread_add_locked(l);
	if (r < 0)
		return r;
	join_all_locked(l);
	return l->error;
}
