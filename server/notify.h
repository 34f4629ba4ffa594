/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub: requests that wait until a drive's head is beyond what they know. A waiter holds no
 * thread. Losing a notification is harmless (devices compare seqs), but none is lost here:
 *
 *	do {
 *		ticket = hub_ticket(h, drive);
 *		if (the drive's head > since)
 *			return answer();
 *	} while (!hub_wait(h, &waiter, ticket));
 *	// the waiter is the hub's now; wake() answers
 *
 * Any thread.
 */
#ifndef VARVE_NOTIFY_H
#define VARVE_NOTIFY_H

#include "cleanup.h"

#include <stdbool.h>
#include <stdint.h>

struct hub;

/* The caller's storage, from a hub_wait() that says true until wake() is called. */
struct waiter {
	int64_t drive;
	uint64_t since;
	int64_t deadline_mono_ms;
	/* Once, on any thread, with no lock held; must not block. */
	void (*wake)(struct waiter *w);
	struct waiter *prev, *next;
};

int hub_new(struct hub **ret) must_check;
/* Nobody may wait any more: hub_stop() and let the woken end. */
void hub_free(struct hub *h);
/* Changes whenever a drive's head does (and sometimes when another's does). */
uint64_t hub_ticket(struct hub *h, int64_t drive);
/*
 * True: w will be woken, or was already, when the drive's head goes beyond since, at its
 * deadline, or when the hub stops. False: a head has moved since the ticket; look again.
 */
bool hub_wait(struct hub *h, struct waiter *w, uint64_t ticket) must_check;
/* After the commit is durable. */
void hub_advance(struct hub *h, int64_t drive, uint64_t head);
/* Wakes all, now and from now on. */
void hub_stop(struct hub *h);

#endif
