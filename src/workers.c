// SPDX-License-Identifier: Apache-2.0
#include "workers.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>

#define BACKGROUND_NICE 5

struct task {
	struct task *next;
	void (*fn)(void *arg);
	void *arg;
};

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t work;
	pthread_cond_t idle;
	struct task *head, **tail;
	size_t pending;
	bool stopping;
	size_t n_threads;
	pthread_t threads[];
};

static void *run(void *arg)
{
	struct workers *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct task *t = w->head;

		if (!t) {
			if (w->stopping)
				break;
			pthread_cond_wait(&w->work, &w->lock);
			continue;
		}
		w->head = t->next;
		if (!w->head)
			w->tail = &w->head;
		pthread_mutex_unlock(&w->lock);
		t->fn(t->arg);
		free(t);
		pthread_mutex_lock(&w->lock);
		if (--w->pending == 0)
			pthread_cond_broadcast(&w->idle);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int workers_new(size_t n_threads, const char *name, struct workers **ret)
{
	struct workers *w = calloc(1, sizeof *w + n_threads * sizeof w->threads[0]);

	if (!w)
		return -ENOMEM;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	pthread_cond_init(&w->idle, NULL);
	w->tail = &w->head;
	for (; w->n_threads < n_threads; w->n_threads++) {
		int r = pthread_create(&w->threads[w->n_threads], NULL, run, w);

		if (r) {
			workers_free(w);
			return -r;
		}
		pthread_setname_np(w->threads[w->n_threads], name);
	}
	*ret = w;
	return 0;
}

void workers_free(struct workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (size_t i = 0; i < w->n_threads; i++)
		pthread_join(w->threads[i], NULL);
	pthread_cond_destroy(&w->work);
	pthread_cond_destroy(&w->idle);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

int workers_submit(struct workers *w, void (*fn)(void *arg), void *arg)
{
	struct task *t = malloc(sizeof *t);

	if (!t)
		return -ENOMEM;
	*t = (struct task){ .fn = fn, .arg = arg };
	pthread_mutex_lock(&w->lock);
	*w->tail = t;
	w->tail = &t->next;
	w->pending++;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
	return 0;
}

void thread_set_background(void)
{
	/* A thread that is not allowed to stays as it is: only speed is at stake. */
	if (setpriority(PRIO_PROCESS, (id_t)gettid(), BACKGROUND_NICE) < 0)
		errno = 0;
}

size_t workers_pending(struct workers *w)
{
	SCOPED_LOCK(&w->lock);
	return w->pending;
}

void workers_drain(struct workers *w)
{
	SCOPED_LOCK(&w->lock);
	while (w->pending)
		pthread_cond_wait(&w->idle, &w->lock);
}
