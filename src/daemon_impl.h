/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon's files share. */
#ifndef VARVE_DAEMON_IMPL_H
#define VARVE_DAEMON_IMPL_H

#include "control.h"
#include "daemon.h"
#include "fs/session.h"
#include "meta/evict.h"
#include "node_state.h"
#include "remote/sync.h"
#include "signals.h"

enum daemon_state { DAEMON_STARTING, DAEMON_SERVING, DAEMON_STOPPING, DAEMON_STOPPED };

struct daemon {
	const struct mount_plan *plan;
	struct signals *signals;
	struct store *store;
	struct cache *cache;
	struct tree *tree;
	struct sync *sync;
	struct files *files;
	struct evict *evict;
	struct session *session;
	struct control *control;
	struct node_state_source node_states;
	_Atomic int stopping; /* long answers of the control socket end */

	/* A leaf but for session_stop(), which takes no lock of ours. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum daemon_state state;
	bool stop_asked;
	/* Set with STOPPED. */
	uint64_t unsent; /* outbox entries */
	uint64_t unsealed; /* files */
};

/* Ends session_run(), now or as soon as there is a session. Any thread. */
void daemon_ask_stop(struct daemon *d);

/* daemon_requests.c: what control_handler.handle does; ctx is the daemon. */
int daemon_handle(void *ctx, struct control_peer *peer, const char *op, const json_t *request,
	json_t **ret, struct err *err);

#endif
