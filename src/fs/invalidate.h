/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells the kernel what it must not believe any more.
 *
 * Changes are queued, and told by a thread of its own: a notification can wait for the very
 * request from which, or the lock under which, it would be sent.
 *
 * How a stale answer that was under way cannot stay (the kernel caches without a time limit):
 * names are told first, and their directory last, because telling a name takes the directory's
 * lock, and so waits until the lookups and listings that were under way are in the cache. A node
 * that the kernel does not know yet is told a second time, behind its names.
 */
#ifndef VARVE_INVALIDATE_H
#define VARVE_INVALIDATE_H

#include "fs/ops.h"

/*
 * Changes that wait to be told. Beyond it the one who brings changes is made to wait, for at most
 * INVALIDATE_WAIT_MS: it may itself be what the kernel waits for.
 */
#define INVALIDATE_QUEUE_MAX 65536
#define INVALIDATE_WAIT_MS 1000

int invalidator_new(struct session *s, struct invalidator **ret) must_check;
/* Queues. Any thread, with or without locks. */
void invalidator_changed(struct invalidator *v, const struct tree_event *events, size_t n);
/* Whether the kernel may still have pages of contents that are no more. */
bool invalidator_contents_wait(struct invalidator *v);
int invalidator_start(struct invalidator *v) must_check;
/* Tells what it is at, drops the rest. To be called while the session still answers. */
void invalidator_stop(struct invalidator *v);
void invalidator_free(struct invalidator *v);

#endif
