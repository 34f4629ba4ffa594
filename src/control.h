/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's end of the control socket (cli/control_proto.h): accepts, checks who asks, reads
 * requests and hands each to one function. Every connection has a thread of its own, at most
 * CONTROL_PEERS_MAX of them, since `wait` and `stop` take as long as they take.
 *
 *	control_new(path, &handler, &c, &err); ... control_close(c); ... control_free(c);
 */
#ifndef VARVE_CONTROL_H
#define VARVE_CONTROL_H

#include "err.h"
#include "cleanup.h"

#include <jansson.h>
#include <stdbool.h>

/* More at once than people and scripts open; each costs a thread. */
#define CONTROL_PEERS_MAX 64
/* A peer that says nothing between two requests is let go. */
#define CONTROL_IDLE_TIMEOUT_MS 60000

struct control;
struct control_peer;

struct control_handler {
	/*
	 * Answers one request; on any thread, several at once. 0 with an object of further
	 * fields in *ret (NULL for none); -errno with words for people in *err.
	 */
	int (*handle)(void *ctx, struct control_peer *peer, const char *op, const json_t *request,
		json_t **ret, struct err *err);
	void *ctx;
};

/* Whether the peer has hung up: for handlers that wait on its behalf. */
bool control_peer_gone(struct control_peer *peer);

int control_new(const char *path, const struct control_handler *handler, struct control **ret,
	struct err *err) must_check;
/* Takes the socket away: nobody new comes. Requests that are being answered go on. */
void control_close(struct control *c);
/* Waits until the last request is answered (the handler must see to it that it ends). */
void control_free(struct control *c);

#endif
