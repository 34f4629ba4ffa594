/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread that applies commits: while it syncs one group to disk, the next one gathers, so
 * that many devices share an fsync. Any thread may submit.
 */
#ifndef VARVE_COMMIT_QUEUE_H
#define VARVE_COMMIT_QUEUE_H

#include "notify.h"
#include "vault.h"

struct commit_queue;
struct context;

/* The caller's storage until done() is called. */
struct commit_job {
	struct commit_job *next;
	size_t bytes; /* what it holds in memory, for the bound on a group */
	struct commit_task task;
	/* On the queue's thread, after the group is durable (or failed); must not block. */
	void (*done)(struct commit_job *job);
};

/* Takes the context, also when it fails. */
int commit_queue_new(struct context *context, struct hub *hub, struct commit_queue **ret,
	struct err *err) must_check;
/* Applies what was submitted, then ends. */
void commit_queue_free(struct commit_queue *c);
void commit_queue_submit(struct commit_queue *c, struct commit_job *job);

#endif
