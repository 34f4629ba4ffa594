// SPDX-License-Identifier: Apache-2.0
#include "fs/seeks.h"

#include "workers.h"

#include <errno.h>
#include <unistd.h>

struct seeks {
	struct session *s;
	pthread_mutex_t lock;
	struct workers *thread; /* made when it is first needed */
	bool stopped;
};

struct question {
	struct session *s;
	fuse_req_t req;
	struct file *file; /* the kernel keeps it open until it has its answer */
	uint64_t id;
	uint64_t offset;
	int whence;
};

/* A run of bytes; empty when start >= end. */
struct run {
	uint64_t start, end;
};

int seeks_new(struct session *s, struct seeks **ret)
{
	struct seeks *k = calloc(1, sizeof *k);

	if (!k)
		return -ENOMEM;
	k->s = s;
	pthread_mutex_init(&k->lock, NULL);
	*ret = k;
	return 0;
}

void seeks_stop(struct seeks *k)
{
	struct workers *thread;

	pthread_mutex_lock(&k->lock);
	k->stopped = true;
	thread = steal(k->thread);
	pthread_mutex_unlock(&k->lock);
	if (thread)
		workers_free(thread);
}

void seeks_free(struct seeks *k)
{
	if (!k)
		return;
	seeks_stop(k);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static void answer(fuse_req_t req, int64_t r)
{
	if (r < 0)
		fuse_reply_err(req, (int)-r);
	else
		fuse_reply_lseek(req, r);
}

static uint64_t size_of(struct file *f)
{
	struct node n;

	file_node_attr(f, &n);
	return n.attr.size;
}

/* The hole that the answer speaks of. */
static struct run hole_of(const struct question *q, int64_t at)
{
	uint64_t size = size_of(q->file);
	int64_t data;

	if (q->whence == SEEK_DATA)
		return (struct run){ q->offset, at < 0 ? size : (uint64_t)at };
	if (at < 0)
		return (struct run){ 0 };
	data = file_seek(q->file, (uint64_t)at, SEEK_DATA);
	return (struct run){ (uint64_t)at, data < 0 ? size : (uint64_t)data };
}

/* A hole is asked about once: then it is the same one, or less of it. */
static int64_t look_again(const struct question *q, int64_t at)
{
	struct run told = { 0 }, hole = hole_of(q, at);

	while (hole.start < hole.end && (hole.start < told.start || hole.end > told.end)) {
		/* Not known to the kernel, or gone with the mount: it has no pages then. */
		if (fuse_lowlevel_notify_inval_inode(q->s->fuse, q->id, (off_t)hole.start,
			    (off_t)(hole.end - hole.start)) < 0)
			break;
		told = hole;
		at = file_seek(q->file, q->offset, q->whence);
		hole = hole_of(q, at);
	}
	return at;
}

static void run_question(void *arg)
{
	struct question *q = arg;

	answer(q->req, look_again(q, file_seek(q->file, q->offset, q->whence)));
	free(q);
}

/* False when it cannot be done: the answer is what is known here. */
static bool hand_over(struct seeks *k, const struct question *q)
{
	struct question *copy;
	int r = 0;

	SCOPED_LOCK(&k->lock);
	if (k->stopped)
		return false;
	if (!k->thread)
		r = workers_new(1, "varve-seek", &k->thread);
	copy = r == 0 ? malloc(sizeof *copy) : NULL;
	if (!copy)
		return false;
	*copy = *q;
	r = workers_submit(k->thread, run_question, copy);
	if (r < 0)
		free(copy);
	return r == 0;
}

void seeks_ask(struct seeks *k, fuse_req_t req, const struct handle *h, uint64_t offset, int whence)
{
	struct question q = {
		.s = k->s,
		.req = req,
		.file = h->file,
		.id = h->id,
		.offset = offset,
		.whence = whence,
	};
	int64_t at = file_seek(h->file, offset, whence);
	struct run hole = { 0 };

	if (file_may_be_mapped(h->file))
		hole = hole_of(&q, at);
	if (hole.start >= hole.end || !hand_over(k, &q))
		answer(req, at);
}
