/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's sync: one thread that pushes the outbox, one that waits on the change feed, and
 * fetches on behalf of readers. Built on client.h (typed calls of the server's routes), which is
 * built on http.h (the only user of curl) and retry.h.
 *
 *	sync_new(...); cache_set_source(cache, sync_chunk_source(s)); sync_start(s);
 *	... sync_stop(s); sync_free(s);
 *
 * Nothing here ends the daemon: an unreachable server is tried again with growing pauses (and
 * at once when something is queued after the line was good), forever.
 */
#ifndef VARVE_SYNC_H
#define VARVE_SYNC_H

#include "meta/chunk_source.h"
#include "meta/replica.h"

struct sync;

struct sync_options {
	struct tree *tree;
	struct cache *cache;
	const char *url; /* "https://host:port" */
	const char *token;
	const char *drive_id;
	const char *ca_file; /* PEM, NULL for the system's */
};

int sync_new(const struct sync_options *o, struct sync **ret, struct err *err) must_check;
int sync_start(struct sync *s, struct err *err) must_check;
/* Ends the threads within about a second, whatever the network does. */
void sync_stop(struct sync *s);
void sync_free(struct sync *s);

struct chunk_source sync_chunk_source(struct sync *s);

enum sync_link { SYNC_OFFLINE, SYNC_ONLINE, SYNC_REFUSED /* token or drive is no more */ };

struct sync_status {
	enum sync_link link;
	char detail[256]; /* why offline or refused, or what holds the outbox */
	uint64_t cursor;
	uint64_t head; /* the server's, as last heard */
	uint64_t outbox_entries;
	uint64_t bytes_sent; /* HTTP bodies and headers, since the start */
	uint64_t bytes_received;
	uint64_t chunk_bytes_sent; /* pack bodies only */
	int64_t last_contact_ns; /* wall time, 0 never */
};
void sync_get_status(struct sync *s, struct sync_status *ret);
/*
 * Blocks until the outbox is empty up to what is queued now and the tree has what the server has
 * now. 0, -ETIMEDOUT, -ENOTCONN never (it waits for the line), -EINTR after sync_stop().
 */
int sync_wait(struct sync *s, int64_t deadline_mono_ms) must_check;

#endif
