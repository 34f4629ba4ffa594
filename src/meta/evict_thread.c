// SPDX-License-Identifier: Apache-2.0
/*
 * When an eviction runs.
 *
 *	idle --asked, and there is need--> running --enough, or no need--> idle
 *	                                   running --too little--> pausing --time--> running
 *
 * Pauses double while nothing can go, and are never shorter than what keeps the work to a small
 * share of one core. Who is refused room cuts a pause short, unless the last run has just found
 * nothing.
 */
#include "meta/evict.h"

#include "bounds.h"
#include "chunk/chunker.h"
#include "clock.h"
#include "log.h"
#include "meta/cache_impl.h"

#include <errno.h>
#include <string.h>

/* Looks at the disk that often, even when nobody asks: others fill it, too. */
#define LOOK_MS 60000
#define FIRST_LOOK_MS 1000 /* a mount has other work to do first */
#define PAUSE_MIN_MS 100
#define PAUSE_MAX_MS 5000
#define WORK_SHARE 20 /* one part work, the rest pause */
/* How long somebody who is refused room waits for it. */
#define PATIENCE_MS 2000
/*
 * The thread begins this far above what is refused, of the disk's size at most a part; and ends
 * half as much higher.
 */
#define MARGIN_DEN 20
#define MARGIN_BYTES_MAX (2 * GIB)
/* A segment is a small part of what there is room for, or one eviction takes half of the cache. */
#define SEGMENT_SHARE 16
#define SEGMENT_BYTES_LEAST (4 * MIB)
/* A budget that is exceeded is left by so much, so that the next chunk does not wake us again. */
#define BUDGET_SLACK_DEN 16

struct evict {
	struct evict_options o;
	uint64_t begin_below, end_above; /* free bytes */
	pthread_t thread;
	_Atomic int stop;

	/* A leaf: taken under any lock of whoever asks for room. */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_cond_t ended;
	bool asked;
	uint64_t missing_bytes; /* what somebody is waiting for */
	int64_t not_before_ms;
	int64_t pause_ms;
	bool futile; /* the last run freed nothing */
	uint64_t runs_begun, runs_ended;
};

static void ask(void *ctx)
{
	struct evict *e = ctx;
	SCOPED_LOCK(&e->lock);

	if (e->asked)
		return;
	e->asked = true;
	pthread_cond_signal(&e->wake);
}

static struct timespec deadline(int64_t ms)
{
	return (struct timespec){ ms / MS_PER_S, ms % MS_PER_S * NS_PER_MS };
}

/* Somebody was refused room: true when a run for him has freed something. */
static bool ask_and_wait(void *ctx, uint64_t missing_bytes)
{
	struct evict *e = ctx;
	int64_t now = clock_mono_ms();
	struct timespec until = deadline(now + PATIENCE_MS);
	uint64_t wanted;
	int r = 0;

	SCOPED_LOCK(&e->lock);
	wanted = e->runs_begun + 1;
	if (atomic_load(&e->stop) || (e->futile && now < e->not_before_ms))
		return false;
	e->asked = true;
	e->not_before_ms = now;
	e->missing_bytes = MAX(e->missing_bytes, missing_bytes);
	pthread_cond_signal(&e->wake);
	while (e->runs_ended < wanted && !atomic_load(&e->stop) && r == 0)
		r = pthread_cond_timedwait(&e->ended, &e->lock, &until);
	return e->runs_ended >= wanted && !e->futile;
}

/* How much has to go, 0 when all is well. */
static uint64_t need(struct evict *e, uint64_t missing_bytes)
{
	uint64_t bytes = missing_bytes;
	struct cache_stats stats;
	struct store_disk disk;

	if (store_disk(e->o.store, &disk) == 0 && disk.free < e->begin_below)
		bytes = MAX(bytes, e->end_above - disk.free);
	if (e->o.budget_bytes == 0)
		return bytes;
	cache_get_stats(e->o.cache, &stats);
	if (stats.segment_bytes > e->o.budget_bytes)
		bytes = MAX(bytes, stats.segment_bytes - e->o.budget_bytes +
					   e->o.budget_bytes / BUDGET_SLACK_DEN);
	return bytes;
}

/* The pause after a run; the lock is held. */
static void plan_next_locked(struct evict *e, uint64_t want, uint64_t freed, int64_t took_ms)
{
	int64_t now = clock_mono_ms();

	e->futile = want > 0 && freed == 0;
	if (e->futile)
		e->pause_ms = MIN(2 * e->pause_ms, PAUSE_MAX_MS);
	else
		e->pause_ms = PAUSE_MIN_MS;
	e->not_before_ms = now + MAX(e->pause_ms, took_ms * WORK_SHARE);
	if (freed < want)
		e->asked = true;
	else if (e->missing_bytes)
		e->not_before_ms = now;
}

static void run_once_locked(struct evict *e, bool first)
{
	struct evict_result result = { 0 };
	int64_t begin = clock_mono_ms();
	uint64_t missing = e->missing_bytes, want;
	int r = 0;

	e->asked = false;
	e->missing_bytes = 0;
	e->runs_begun++;
	pthread_mutex_unlock(&e->lock);
	want = need(e, missing);
	if (want || first)
		r = evict_run(&e->o, want, &e->stop, &result);
	if (r < 0 && r != -EINTR)
		log_debug("eviction: %s", strerror(-r));
	pthread_mutex_lock(&e->lock);
	plan_next_locked(e, want, result.freed_bytes, clock_mono_ms() - begin);
	e->runs_ended = e->runs_begun;
	pthread_cond_broadcast(&e->ended);
}

static void *run(void *arg)
{
	struct evict *e = arg;
	bool first = true; /* removes what a crash has left */

	pthread_mutex_lock(&e->lock);
	while (!atomic_load(&e->stop)) {
		int64_t now = clock_mono_ms();
		int64_t at = e->asked ? e->not_before_ms : now + LOOK_MS;
		struct timespec until = deadline(at);

		if (now < at) {
			if (pthread_cond_timedwait(&e->wake, &e->lock, &until) == ETIMEDOUT)
				e->asked = true;
			continue;
		}
		run_once_locked(e, first);
		first = false;
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

static int set_marks(struct evict *e, struct err *err)
{
	uint64_t margin, most;
	struct store_disk disk;
	int r = store_disk(e->o.store, &disk);

	if (r < 0)
		return err_sys(err, -r, "cannot ask for the room on the disk");
	margin = MIN(disk.total / MARGIN_DEN, MARGIN_BYTES_MAX);
	e->begin_below = disk.refused_below + margin;
	e->end_above = e->begin_below + margin / 2;
	most = e->o.budget_bytes ? MIN(e->o.budget_bytes, disk.total) : disk.total;
	segments_set_max(e->o.cache->segments, MAX(most / SEGMENT_SHARE, SEGMENT_BYTES_LEAST));
	return 0;
}

static void watch(struct evict *e)
{
	struct room_watch room = {
		.low_bytes = e->begin_below,
		.low = ask,
		.full = ask_and_wait,
		.ctx = e,
	};

	store_set_watch(e->o.store, &room);
	segments_watch(e->o.cache->segments, e->o.budget_bytes, ask, e);
}

static void unwatch(struct evict *e)
{
	store_set_watch(e->o.store, NULL);
	segments_watch(e->o.cache->segments, 0, NULL, NULL);
}

static void evict_free(struct evict *e)
{
	pthread_cond_destroy(&e->wake);
	pthread_cond_destroy(&e->ended);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static struct evict *evict_new(const struct evict_options *options)
{
	struct evict *e = calloc(1, sizeof *e);
	pthread_condattr_t attr;

	if (!e)
		return NULL;
	e->o = *options;
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->wake, &attr);
	pthread_cond_init(&e->ended, &attr);
	pthread_condattr_destroy(&attr);
	e->asked = true;
	e->not_before_ms = clock_mono_ms() + FIRST_LOOK_MS;
	e->pause_ms = PAUSE_MIN_MS;
	return e;
}

int evict_start(const struct evict_options *options, struct evict **ret, struct err *err)
{
	struct evict *e = evict_new(options);
	int r;

	if (!e)
		return err_sys(err, ENOMEM, "eviction");
	r = set_marks(e, err);
	if (r == 0) {
		r = -pthread_create(&e->thread, NULL, run, e);
		if (r < 0)
			err_sys(err, -r, "cannot start a thread");
	}
	if (r < 0) {
		evict_free(e);
		return r;
	}
	pthread_setname_np(e->thread, "varve-evict");
	watch(e);
	*ret = e;
	return 0;
}

void evict_stop(struct evict *e)
{
	if (!e)
		return;
	pthread_mutex_lock(&e->lock);
	atomic_store(&e->stop, 1);
	pthread_cond_signal(&e->wake);
	pthread_cond_broadcast(&e->ended);
	pthread_mutex_unlock(&e->lock);
	unwatch(e);
	pthread_join(e->thread, NULL);
	evict_free(e);
}
