// SPDX-License-Identifier: Apache-2.0
#include "notify.h"

#include "clock.h"

#include <errno.h>
#include <time.h>
#include <utlist.h>

/* Lists of waiters, by drive: a commit looks at those of its own drive, and a few others'. */
#define LISTS 1024

struct list {
	struct waiter *waiters;
	uint64_t advances;
};

struct hub {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct list lists[LISTS];
	int64_t next_look_mono_ms; /* no waiter ends before */
	bool stopping;
	pthread_t thread;
};

static struct list *list_of(struct hub *h, int64_t drive)
{
	return &h->lists[(uint64_t)drive % LISTS];
}

static void move_out(struct list *list, struct waiter *w, struct waiter **woken)
{
	DL_DELETE(list->waiters, w);
	w->next = *woken;
	*woken = w;
}

/* Wakes those that were taken out, chained by next. */
static void wake_all(struct waiter *woken)
{
	while (woken) {
		struct waiter *w = woken;

		woken = w->next;
		w->wake(w);
	}
}

/* Takes out of a list those that are late; tells when the next one will be. */
static void take_late_locked(struct hub *h, struct list *list, int64_t now, struct waiter **woken)
{
	struct waiter *w, *next;

	DL_FOREACH_SAFE (list->waiters, w, next) {
		if (w->deadline_mono_ms > now) {
			h->next_look_mono_ms = MIN(h->next_look_mono_ms, w->deadline_mono_ms);
			continue;
		}
		move_out(list, w, woken);
	}
}

static struct waiter *look_locked(struct hub *h, int64_t now)
{
	struct waiter *woken = NULL;

	h->next_look_mono_ms = INT64_MAX;
	for (size_t i = 0; i < LISTS; i++)
		take_late_locked(h, &h->lists[i], now, &woken);
	return woken;
}

static void sleep_locked(struct hub *h)
{
	int64_t at = h->next_look_mono_ms;
	struct timespec until = { at / MS_PER_S, at % MS_PER_S * NS_PER_MS };

	if (at == INT64_MAX)
		pthread_cond_wait(&h->changed, &h->lock);
	else
		pthread_cond_clockwait(&h->changed, &h->lock, CLOCK_MONOTONIC, &until);
}

static void *run(void *arg)
{
	struct hub *h = arg;

	pthread_mutex_lock(&h->lock);
	while (!h->stopping) {
		int64_t now = clock_mono_ms();
		struct waiter *woken;

		if (h->next_look_mono_ms > now) {
			sleep_locked(h);
			continue;
		}
		woken = look_locked(h, now);
		pthread_mutex_unlock(&h->lock);
		wake_all(woken);
		pthread_mutex_lock(&h->lock);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

int hub_new(struct hub **ret)
{
	struct hub *h = calloc(1, sizeof *h);
	int r;

	if (!h)
		return -ENOMEM;
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->changed, NULL);
	h->next_look_mono_ms = INT64_MAX;
	r = pthread_create(&h->thread, NULL, run, h);
	if (r) {
		free(h);
		return -r;
	}
	pthread_setname_np(h->thread, "notify");
	*ret = h;
	return 0;
}

void hub_free(struct hub *h)
{
	if (!h)
		return;
	hub_stop(h);
	pthread_join(h->thread, NULL);
	pthread_cond_destroy(&h->changed);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

uint64_t hub_ticket(struct hub *h, int64_t drive)
{
	SCOPED_LOCK(&h->lock);
	return list_of(h, drive)->advances;
}

/* 1 queued, 0 look again, -ECANCELED stopping. */
static int enqueue(struct hub *h, struct waiter *w, uint64_t ticket)
{
	struct list *list = list_of(h, w->drive);
	SCOPED_LOCK(&h->lock);

	if (h->stopping)
		return -ECANCELED;
	if (list->advances != ticket)
		return 0;
	DL_APPEND(list->waiters, w);
	if (w->deadline_mono_ms < h->next_look_mono_ms) {
		h->next_look_mono_ms = w->deadline_mono_ms;
		pthread_cond_signal(&h->changed);
	}
	return 1;
}

bool hub_wait(struct hub *h, struct waiter *w, uint64_t ticket)
{
	int r = enqueue(h, w, ticket);

	if (r < 0)
		w->wake(w);
	return r != 0;
}

void hub_advance(struct hub *h, int64_t drive, uint64_t head)
{
	struct waiter *woken = NULL, *w, *next;
	struct list *list = list_of(h, drive);

	pthread_mutex_lock(&h->lock);
	list->advances++;
	DL_FOREACH_SAFE (list->waiters, w, next) {
		if (w->drive != drive || w->since >= head)
			continue;
		move_out(list, w, &woken);
	}
	pthread_mutex_unlock(&h->lock);
	wake_all(woken);
}

void hub_stop(struct hub *h)
{
	struct waiter *woken = NULL;

	pthread_mutex_lock(&h->lock);
	h->stopping = true;
	for (size_t i = 0; i < LISTS; i++)
		take_late_locked(h, &h->lists[i], INT64_MAX, &woken);
	pthread_cond_signal(&h->changed);
	pthread_mutex_unlock(&h->lock);
	wake_all(woken);
}
