/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sync for all who wait: an fsync that callers share. Who comes while a sync runs waits for
 * the next one, since the running one may have begun before their bytes were written. Any thread.
 */
#ifndef VARVE_GROUP_SYNC_H
#define VARVE_GROUP_SYNC_H

#include "cleanup.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct group_sync {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	uint64_t rounds_begun;
	uint64_t rounds_ended;
	uint64_t failed_round; /* the latest that failed */
	int failed_error;
};

void group_sync_init(struct group_sync *g);
void group_sync_done(struct group_sync *g);
/*
 * Returns after a whole run of sync(ctx) that began after this call. sync is called with no lock
 * held, on one thread at a time. Its error goes to everybody who waited for that round.
 */
int group_sync_run(struct group_sync *g, int (*sync)(void *ctx), void *ctx) must_check;

#endif
