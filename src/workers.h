/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fixed set of threads that run what is handed to them, oldest first.
 *
 *	workers_new(2, "cut", &w); workers_submit(w, fn, arg); ... workers_free(w);
 *
 * Any thread may submit. workers_free() runs all that was submitted, then joins.
 */
#ifndef VARVE_WORKERS_H
#define VARVE_WORKERS_H

#include "cleanup.h"

#include <stddef.h>

struct workers;

int workers_new(size_t n_threads, const char *name, struct workers **ret) must_check;
void workers_free(struct workers *w);
/* 0 or -ENOMEM; on failure fn is not run. */
int workers_submit(struct workers *w, void (*fn)(void *arg), void *arg) must_check;
/* How many submitted tasks have not ended. */
size_t workers_pending(struct workers *w);
/*
 * The calling thread's work can wait: others that want the CPU come first. For threads that work
 * behind people's backs, never for one that somebody waits for.
 */
void thread_set_background(void);

/* Waits until nothing is pending. */
void workers_drain(struct workers *w);

#endif
