// SPDX-License-Identifier: Apache-2.0
#include "fs/fsyncs.h"

#include "fs/reply.h"

#include <errno.h>

struct fsync_wait {
	fuse_req_t req;
	struct fsync_wait *next;
};

struct fsyncs {
	struct files *files;
	pthread_mutex_t lock; /* leaf */
	pthread_cond_t added; /* or stopping */
	struct fsync_wait *head;
	bool idle; /* the thread waits for `added` */
	bool stopping;
	bool running;
	pthread_t thread;
};

int fsyncs_new(struct files *files, struct fsyncs **ret)
{
	struct fsyncs *q = calloc(1, sizeof *q);

	if (!q)
		return -ENOMEM;
	q->files = files;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->added, NULL);
	*ret = q;
	return 0;
}

void fsyncs_free(struct fsyncs *q)
{
	if (!q)
		return;
	fsyncs_stop(q);
	pthread_cond_destroy(&q->added);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

static void answer(struct fsync_wait *all, int r)
{
	while (all) {
		struct fsync_wait *w = all;

		all = w->next;
		reply_error(w->req, r);
		free(w);
	}
}

static void *run(void *arg)
{
	struct fsyncs *q = arg;

	pthread_mutex_lock(&q->lock);
	while (q->head || !q->stopping) {
		struct fsync_wait *all = steal(q->head);

		if (!all) {
			q->idle = true;
			pthread_cond_wait(&q->added, &q->lock);
			q->idle = false;
			continue;
		}
		pthread_mutex_unlock(&q->lock);
		answer(all, files_sync_log(q->files));
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

int fsyncs_start(struct fsyncs *q)
{
	int r = pthread_create(&q->thread, NULL, run, q);

	if (r != 0)
		return -r;
	pthread_setname_np(q->thread, "varve-fsync");
	SCOPED_LOCK(&q->lock);
	q->running = true;
	return 0;
}

void fsyncs_stop(struct fsyncs *q)
{
	bool running;

	pthread_mutex_lock(&q->lock);
	running = q->running;
	q->running = false;
	q->stopping = true;
	pthread_cond_signal(&q->added);
	pthread_mutex_unlock(&q->lock);
	if (running)
		pthread_join(q->thread, NULL);
}

bool fsyncs_add(struct fsyncs *q, fuse_req_t req)
{
	struct fsync_wait *w = malloc(sizeof *w);

	if (!w)
		return false;
	SCOPED_LOCK(&q->lock);
	if (!q->running) {
		free(w);
		return false;
	}
	*w = (struct fsync_wait){ req, q->head };
	q->head = w;
	if (q->idle)
		pthread_cond_signal(&q->added);
	return true;
}
