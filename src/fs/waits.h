/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads. What is local is answered at once on the session's thread; a read that needs the
 * network waits on a thread of its own, so that however many wait, the others go on. A waiting
 * read ends early when its caller is interrupted (EINTR) or the session stops.
 *
 * Any thread.
 */
#ifndef VARVE_WAITS_H
#define VARVE_WAITS_H

#include "fs/ops.h"

/* Threads of waiting reads; more wait on the session's own threads. */
#define WAITS_MAX 256

int waits_new(struct waits **ret) must_check;
/* Answers the request, now or later. */
void waits_read(struct waits *w, fuse_req_t req, struct file *f, uint64_t offset, size_t size);
/* Interrupts all that wait, now and from now on. */
void waits_cancel(struct waits *w);
/* The same, and returns when none does. */
void waits_stop(struct waits *w);
void waits_free(struct waits *w);

#endif
