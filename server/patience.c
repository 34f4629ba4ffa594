// SPDX-License-Identifier: Apache-2.0
#include "patience.h"

#include "clock.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <time.h>
#include <utlist.h>

/* Deadlines are rounded up to this, so that the thread looks at all entries that often at most. */
#define GRAIN_MS 500

struct patience {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct patience_entry *entries;
	int64_t next_look_mono_ms; /* no entry ends before */
	bool stopping;
	pthread_t thread;
};

/* Shuts down what is late; returns the earliest deadline of the others. */
static int64_t look_locked(struct patience *p, int64_t now)
{
	int64_t next = PATIENCE_ENDLESS;
	struct patience_entry *e;

	DL_FOREACH (p->entries, e) {
		if (e->deadline_mono_ms <= now) {
			shutdown(e->fd, SHUT_RDWR);
			e->deadline_mono_ms = PATIENCE_ENDLESS;
		}
		next = MIN(next, e->deadline_mono_ms);
	}
	return next;
}

static void wait_locked(struct patience *p)
{
	int64_t at = p->next_look_mono_ms;
	struct timespec until = { at / MS_PER_S, at % MS_PER_S * NS_PER_MS };

	if (at == PATIENCE_ENDLESS)
		pthread_cond_wait(&p->changed, &p->lock);
	else
		pthread_cond_clockwait(&p->changed, &p->lock, CLOCK_MONOTONIC, &until);
}

static void *run(void *arg)
{
	struct patience *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping) {
		int64_t now = clock_mono_ms();

		if (p->next_look_mono_ms <= now)
			p->next_look_mono_ms = look_locked(p, now);
		else
			wait_locked(p);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int patience_new(struct patience **ret)
{
	struct patience *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	p->next_look_mono_ms = PATIENCE_ENDLESS;
	r = pthread_create(&p->thread, NULL, run, p);
	if (r) {
		free(p);
		return -r;
	}
	pthread_setname_np(p->thread, "patience");
	*ret = p;
	return 0;
}

void patience_free(struct patience *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void set_locked(struct patience *p, struct patience_entry *e, int64_t ms)
{
	if (ms == PATIENCE_ENDLESS) {
		e->deadline_mono_ms = ms;
		return;
	}
	e->deadline_mono_ms = (clock_mono_ms() + ms) / GRAIN_MS * GRAIN_MS + GRAIN_MS;
	if (e->deadline_mono_ms < p->next_look_mono_ms) {
		p->next_look_mono_ms = e->deadline_mono_ms;
		pthread_cond_signal(&p->changed);
	}
}

void patience_add(struct patience *p, struct patience_entry *e, int fd, int64_t ms)
{
	SCOPED_LOCK(&p->lock);
	e->fd = fd;
	DL_APPEND(p->entries, e);
	set_locked(p, e, ms);
}

void patience_set(struct patience *p, struct patience_entry *e, int64_t ms)
{
	SCOPED_LOCK(&p->lock);
	set_locked(p, e, ms);
}

void patience_remove(struct patience *p, struct patience_entry *e)
{
	SCOPED_LOCK(&p->lock);
	DL_DELETE(p->entries, e);
}
