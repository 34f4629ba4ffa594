/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP server on a loopback port, for tests of the client: plain sockets, a thread for each
 * connection, and a handler that decides what is answered, and how badly.
 */
#ifndef VARVE_HTTP_FAKE_H
#define VARVE_HTTP_FAKE_H

#include "buf.h"

#include <stdbool.h>

struct http_fake;

struct fake_request {
	char method[16];
	char path[512]; /* with the query */
	char headers[4096];
	const uint8_t *body;
	size_t body_len;
};

struct fake_reply {
	int status; /* 200 unless the handler says otherwise */
	const char *type;
	const char *headers; /* further lines, each with "\r\n"; NULL: none */
	struct buf body;
	bool close_unanswered; /* the request was read, and handled; no answer comes */
	size_t cut_at; /* > 0: the connection ends after so many bytes of the body */
};

typedef void fake_handler(void *ctx, const struct fake_request *rq, struct fake_reply *reply);

/* port 0: any free one. NULL when that port is taken. */
struct http_fake *http_fake_new(int port, fake_handler *handle, void *ctx);
/* Cuts all connections. A handler that waits must have been told before. */
void http_fake_free(struct http_fake *f);
int http_fake_port(const struct http_fake *f);
const char *http_fake_url(const struct http_fake *f);
unsigned http_fake_connections(struct http_fake *f);

#endif
