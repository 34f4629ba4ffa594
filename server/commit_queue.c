// SPDX-License-Identifier: Apache-2.0
#include "commit_queue.h"

#include "app.h"
#include "bounds.h"

#include <errno.h>

/* One group: a bounded transaction, and a bounded wait for who comes next. */
#define GROUP_MAX 128
#define GROUP_BYTES_MAX (64 * MIB)

struct commit_queue {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct commit_job *first, **last;
	bool stopping;
	struct context *context;
	struct hub *hub;
	pthread_t thread;
};

/* Takes a group from the front of the queue. */
static size_t take_group_locked(struct commit_queue *c, struct commit_job *ret[GROUP_MAX])
{
	size_t n = 0, bytes = 0;

	while (c->first && n < GROUP_MAX &&
		(n == 0 || bytes + c->first->bytes <= GROUP_BYTES_MAX)) {
		ret[n++] = c->first;
		bytes += c->first->bytes;
		c->first = c->first->next;
	}
	if (!c->first)
		c->last = &c->first;
	return n;
}

static void apply(struct commit_queue *c, struct commit_job *const *jobs, size_t n)
{
	struct commit_task *tasks[GROUP_MAX];

	for (size_t i = 0; i < n; i++)
		tasks[i] = &jobs[i]->task;
	vault_commit_group(c->context->vault, tasks, n);
	for (size_t i = 0; i < n; i++) {
		const struct commit_task *t = tasks[i];

		if (t->result == 0 && t->reply.seq)
			hub_advance(c->hub, t->drive, t->reply.head);
	}
	for (size_t i = 0; i < n; i++)
		jobs[i]->done(jobs[i]);
}

static void *run(void *arg)
{
	struct commit_queue *c = arg;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		struct commit_job *jobs[GROUP_MAX];
		size_t n = take_group_locked(c, jobs);

		if (n == 0) {
			if (c->stopping)
				break;
			pthread_cond_wait(&c->work, &c->lock);
			continue;
		}
		pthread_mutex_unlock(&c->lock);
		apply(c, jobs, n);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int commit_queue_new(
	struct context *context, struct hub *hub, struct commit_queue **ret, struct err *err)
{
	struct commit_queue *c = calloc(1, sizeof *c);
	int r;

	if (!c) {
		context_free(context);
		return err_sys(err, ENOMEM, "committer");
	}
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->work, NULL);
	c->last = &c->first;
	c->context = context;
	c->hub = hub;
	r = pthread_create(&c->thread, NULL, run, c);
	if (r) {
		context_free(context);
		free(c);
		return err_sys(err, r, "committer");
	}
	pthread_setname_np(c->thread, "committer");
	*ret = c;
	return 0;
}

void commit_queue_free(struct commit_queue *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	pthread_cond_signal(&c->work);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	context_free(c->context);
	pthread_cond_destroy(&c->work);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

void commit_queue_submit(struct commit_queue *c, struct commit_job *job)
{
	SCOPED_LOCK(&c->lock);
	job->next = NULL;
	*c->last = job;
	c->last = &job->next;
	pthread_cond_signal(&c->work);
}
