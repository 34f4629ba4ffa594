/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much room the store's disk has, and who is told when it runs short. Any thread.
 */
#ifndef VARVE_ROOM_H
#define VARVE_ROOM_H

#include "cleanup.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Both are called by whoever asked for room, under any lock of his. */
struct room_watch {
	uint64_t low_bytes; /* tell when less is free */
	void (*low)(void *ctx); /* must not block */
	/* Refused, for want of so many bytes: true when it is worth asking again; may wait a little
	 */
	bool (*full)(void *ctx, uint64_t missing_bytes);
	void *ctx;
};

struct room {
	int dir_fd; /* on the disk; borrowed */
	_Atomic uint64_t low_bytes; /* 0: nobody watches */
	pthread_rwlock_t lock; /* held while the watcher is called, so that it can go away */
	struct room_watch watch;
};

void room_init(struct room *m);
void room_done(struct room *m);
/* NULL: nobody any more; nobody is being called when it returns. */
void room_set_watch(struct room *m, const struct room_watch *watch);
/* Whether `want` bytes leave `reserve` free: 0, -ENOSPC, -errno. */
int room_check(struct room *m, uint64_t want, uint64_t reserve) must_check;
/* The same; but who watches may make room first. */
int room_check_patiently(struct room *m, uint64_t want, uint64_t reserve) must_check;

#endif
