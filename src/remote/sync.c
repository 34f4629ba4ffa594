// SPDX-License-Identifier: Apache-2.0
#include "remote/sync.h"

#include "bytes.h"
#include "clock.h"
#include "remote/fetch.h"
#include "remote/pull.h"
#include "remote/push.h"
#include "remote/sync_state.h"

#include <errno.h>
#include <string.h>

/* Two packs on the line and one in the making. */
#define UPLOADERS 3
/* Requests of readers' large fetches, beside the readers' own threads. */
#define FETCHERS 4

static int init_members(struct sync *s, const struct sync_options *o, struct err *err)
{
	struct client_options options = { .url = o->url, .token = o->token, .ca_file = o->ca_file };
	int r;

	s->drive_id = strdup(o->drive_id);
	if (!s->drive_id)
		return err_sys(err, ENOMEM, "sync");
	r = client_new(&options, &s->client, err);
	if (r < 0)
		return r;
	r = workers_new(UPLOADERS, "varve-upload", &s->uploaders);
	if (r == 0)
		r = workers_new(FETCHERS, "varve-fetch", &s->fetchers);
	return r < 0 ? err_sys(err, -r, "starting threads") : 0;
}

int sync_new(const struct sync_options *o, struct sync **ret, struct err *err)
{
	uint8_t id[16];
	pthread_condattr_t attr;
	struct sync *s;
	int r;

	if (!hex_decode(o->drive_id, strlen(o->drive_id), id, sizeof id))
		return err_set(err, EINVAL, "%s: not the id of a drive", o->drive_id);
	s = calloc(1, sizeof *s);
	if (!s)
		return err_sys(err, ENOMEM, "sync");
	s->tree = o->tree;
	s->cache = o->cache;
	s->link = SYNC_OFFLINE;
	snprintf(s->link_detail, sizeof s->link_detail, "not connected yet");
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	r = init_members(s, o, err);
	if (r < 0) {
		sync_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int sync_start(struct sync *s, struct err *err)
{
	int r;

	s->outbox_woken = true; /* what a former life left */
	replica_on_outbox(s->tree, push_wake, s);
	r = pthread_create(&s->push_thread, NULL, push_main, s);
	if (r)
		return err_sys(err, r, "starting a thread");
	r = pthread_create(&s->pull_thread, NULL, pull_main, s);
	if (r) {
		sync_stop(s);
		pthread_join(s->push_thread, NULL);
		return err_sys(err, r, "starting a thread");
	}
	pthread_setname_np(s->push_thread, "varve-push");
	pthread_setname_np(s->pull_thread, "varve-pull");
	s->started = true;
	return 0;
}

void sync_stop(struct sync *s)
{
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	client_stop(s->client);
	if (!s->started)
		return;
	pthread_join(s->push_thread, NULL);
	pthread_join(s->pull_thread, NULL);
	s->started = false;
	replica_on_outbox(s->tree, NULL, NULL);
}

void sync_free(struct sync *s)
{
	if (!s)
		return;
	if (s->client)
		sync_stop(s);
	workers_free(s->uploaders);
	workers_free(s->fetchers);
	client_free(s->client);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s->drive_id);
	free(s);
}

struct chunk_source sync_chunk_source(struct sync *s)
{
	return (struct chunk_source){ .fetch = fetch_chunks, .ctx = s };
}

static const char *detail(const struct sync *s)
{
	if (s->link != SYNC_ONLINE)
		return s->link_detail;
	return s->hold_detail[HOLD_OUTBOX][0] ? s->hold_detail[HOLD_OUTBOX]
					      : s->hold_detail[HOLD_CHANGES];
}

void sync_get_status(struct sync *s, struct sync_status *ret)
{
	struct client_counts counts;
	struct outbox_stats outbox;

	client_get_counts(s->client, &counts);
	replica_outbox_stats(s->tree, &outbox);
	*ret = (struct sync_status){ .cursor = replica_cursor(s->tree),
		.outbox_entries = outbox.entries,
		.bytes_sent = counts.bytes_sent,
		.bytes_received = counts.bytes_received,
		.chunk_bytes_sent = counts.pack_bytes_sent,
		.last_contact_ns = counts.last_contact_ns };
	SCOPED_LOCK(&s->lock);
	ret->link = s->link;
	ret->head = MAX(s->head, ret->cursor);
	snprintf(ret->detail, sizeof ret->detail, "%s", detail(s));
}

static bool outbox_sent(struct sync *s, uint64_t number)
{
	struct outbox_stats stats;

	replica_outbox_stats(s->tree, &stats);
	return stats.entries == 0 || stats.first > number;
}

/*
 * Blocks until something happens after `seen` was read, so that nothing that happens between the
 * caller's look and the wait is missed.
 */
static int wait_for_news(struct sync *s, uint64_t *seen, int64_t deadline_mono_ms)
{
	SCOPED_LOCK(&s->lock);
	while (s->outbox_news == *seen && !s->stopping) {
		if (!sync_wait_changed_locked(s, deadline_mono_ms))
			return -ETIMEDOUT;
	}
	*seen = s->outbox_news;
	return s->stopping ? -EINTR : 0;
}

static int wait_for_outbox(struct sync *s, int64_t deadline_mono_ms)
{
	struct outbox_stats stats;
	uint64_t seen = UINT64_MAX;
	int r = 0;

	replica_outbox_stats(s->tree, &stats);
	while (r == 0 && !outbox_sent(s, stats.tail))
		r = wait_for_news(s, &seen, deadline_mono_ms);
	return r;
}

/* It waits for the line: errors of the line are tried again until the deadline. */
static int wait_for_head(struct sync *s, int64_t deadline_mono_ms)
{
	struct retry retry = { .min_ms = 50, .max_ms = 1000 };

	for (;;) {
		struct err err;
		int r = pull_to_head(s, deadline_mono_ms, &err);

		if (r == 0)
			return 0;
		if (r == -ECANCELED || sync_stopping(s))
			return -EINTR;
		if (clock_mono_ms() >= deadline_mono_ms)
			return -ETIMEDOUT;
		sync_pause(s, retry_pause_ms(&retry, 0));
	}
}

int sync_wait(struct sync *s, int64_t deadline_mono_ms)
{
	int r = wait_for_outbox(s, deadline_mono_ms);

	return r < 0 ? r : wait_for_head(s, deadline_mono_ms);
}
