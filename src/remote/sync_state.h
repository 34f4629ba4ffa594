/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the threads of sync share. Private to src/remote.
 *
 * Two locks, never held together with another of ours:
 *  - `lock` guards the fields below it; nothing waits for network or disk under it.
 *  - the merge right (merge_enter() to merge_leave()) is what replica.h asks for: who has it may
 *    have a commit in flight, or apply a page, never both. It is held across requests, so waiting
 *    for it ends with sync_stop() and at a deadline. Who wants to apply a page goes first.
 */
#ifndef VARVE_SYNC_STATE_H
#define VARVE_SYNC_STATE_H

#include "remote/client.h"
#include "remote/retry.h"
#include "remote/sync.h"
#include "workers.h"

#include <pthread.h>

#define SYNC_DETAIL_BYTES 256

enum sync_hold { HOLD_OUTBOX, HOLD_CHANGES, HOLD_COUNT };

struct sync {
	struct tree *tree;
	struct cache *cache;
	struct client *client;
	char *drive_id;
	struct workers *uploaders;
	struct workers *fetchers;
	pthread_t push_thread;
	pthread_t pull_thread;
	bool started;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* any field below */
	bool stopping;
	bool outbox_woken;
	bool pushing; /* the push thread has work */
	bool merge_taken;
	unsigned merge_wanted_first;
	unsigned recoveries; /* how often the line became good */
	enum sync_link link;
	char link_detail[SYNC_DETAIL_BYTES];
	char hold_detail[HOLD_COUNT][SYNC_DETAIL_BYTES]; /* what waits, though the line is good */
	bool behind; /* others' commits are known that the tree has not */
	int64_t unreachable_until_ms; /* fetches do not try before that */
	uint64_t head;
	uint64_t outbox_news; /* counts when entries may have left the outbox */
};

#define NO_DEADLINE INT64_MAX

bool sync_stopping(struct sync *s);
/* Waits on `changed` under `lock`: false when the deadline has passed. */
bool sync_wait_changed_locked(struct sync *s, int64_t deadline_mono_ms);
/* A pause between tries: ends early when the line becomes good, or at the stop. */
void sync_pause(struct sync *s, uint32_t ms);
/* As retry.h says, but a minute when the server knows us no more. */
void sync_pause_before_retry(struct sync *s, struct retry *retry);

/* 0, -ECANCELED after the stop, -ETIMEDOUT. `first`: before those that want to commit. */
int merge_enter(struct sync *s, bool first, int64_t deadline_mono_ms) must_check;
void merge_leave(struct sync *s);
/* Whether somebody waits with `first`. */
bool merge_wanted_first(struct sync *s);

/* The server has answered. */
void sync_note_good(struct sync *s);
/* A call failed with r after taking took_ms; logs when this is news. */
void sync_note_bad(struct sync *s, int r, const struct err *err, int64_t took_ms);
/* What holds the outbox, or others' changes; NULL: nothing does. Logs when this is news. */
void sync_note_hold(struct sync *s, enum sync_hold hold, const char *why);
void sync_note_head(struct sync *s, uint64_t head);
void sync_note_behind(struct sync *s, bool behind);
/* Entries may have left the outbox. */
void sync_note_outbox(struct sync *s);

#endif
