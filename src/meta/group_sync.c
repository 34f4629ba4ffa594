// SPDX-License-Identifier: Apache-2.0
#include "meta/group_sync.h"

void group_sync_init(struct group_sync *g)
{
	*g = (struct group_sync){ 0 };
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->ended, NULL);
}

void group_sync_done(struct group_sync *g)
{
	pthread_cond_destroy(&g->ended);
	pthread_mutex_destroy(&g->lock);
}

/* Runs one round; the lock is dropped while it lasts. */
static void run_round_locked(struct group_sync *g, int (*sync)(void *ctx), void *ctx)
{
	uint64_t round = ++g->rounds_begun;
	int r;

	pthread_mutex_unlock(&g->lock);
	r = sync(ctx);
	pthread_mutex_lock(&g->lock);
	if (r < 0) {
		g->failed_round = round;
		g->failed_error = r;
	}
	g->rounds_ended = round;
	pthread_cond_broadcast(&g->ended);
}

int group_sync_run(struct group_sync *g, int (*sync)(void *ctx), void *ctx)
{
	SCOPED_LOCK(&g->lock);
	uint64_t wanted = g->rounds_begun + 1;

	while (g->rounds_ended < wanted) {
		if (g->rounds_begun == g->rounds_ended)
			run_round_locked(g, sync, ctx);
		else
			pthread_cond_wait(&g->ended, &g->lock);
	}
	/* A later failure counts too: what the kernel lost then may have been ours. */
	return g->failed_round >= wanted ? g->failed_error : 0;
}
