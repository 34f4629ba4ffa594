/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 requests and their answers, with nothing of Varve in it. The only user of
 * libmicrohttpd. Its few threads never block: a request is suspended while others work on it.
 *
 * The life of an exchange (one request and its answer):
 *
 *	headers in ─► begin() ─┬─ HTTPD_ANSWER ─────────────────────────────────► sent ─► over()
 *	                       ├─ HTTPD_HOLD ─► held() ... exchange_go_on() ─┬─ HTTPD_ANSWER ─►
 *	                       └─ HTTPD_BODY ◄───────────────────────────────┘
 *	                              └─► body in ─► run() ... exchange_done() ─► sent ─► over()
 *
 * Requests that two parsers could understand in two ways (more than one body length) are
 * refused before begin(). A body is collected only when begin() or held() said so.
 */
#ifndef VARVE_HTTPD_H
#define VARVE_HTTPD_H

#include "buf.h"
#include "err.h"

#include <stdbool.h>
#include <stdint.h>

struct httpd;
struct exchange;

enum httpd_next { HTTPD_ANSWER, HTTPD_HOLD, HTTPD_BODY };

/* None of these may block: they run on the threads that serve every connection. */
struct httpd_calls {
	enum httpd_next (*begin)(void *ctx, struct exchange *x);
	/* Leads to exchange_go_on(), on any thread. */
	void (*held)(void *ctx, struct exchange *x);
	/* Leads to exchange_done(), on any thread. */
	void (*run)(void *ctx, struct exchange *x);
	/* The last call for x. */
	void (*over)(void *ctx, struct exchange *x);
	void *ctx;
};

struct httpd_options {
	int listen_fd; /* bound and listening; owned by the httpd on success */
	const char *cert_pem; /* text of PEM files; NULL for plain HTTP */
	const char *key_pem;
	struct httpd_calls calls;
};

int httpd_new(const struct httpd_options *o, struct httpd **ret, struct err *err) must_check;
/* New requests are refused with 503 from now on, and new connections not taken. */
void httpd_quiesce(struct httpd *h);
/* Waits until nothing is held or running, and up to timeout_ms for the answers to be sent. */
void httpd_drain(struct httpd *h, int64_t timeout_ms);
/* After httpd_drain(). */
void httpd_free(struct httpd *h);

/* The request. Texts live as long as the exchange; lookups give NULL for what is not there. */
const char *exchange_method(const struct exchange *x);
const char *exchange_path(const struct exchange *x);
const char *exchange_header(const struct exchange *x, const char *name);
const char *exchange_argument(const struct exchange *x, const char *name);
/* The peer's address, without the port; of IPv6, the network (/64) that it is in. */
const char *exchange_peer(const struct exchange *x);
/* Bytes that the request says its body has; UINT64_MAX when it will come in pieces. */
uint64_t exchange_body_length(const struct exchange *x);
const struct buf *exchange_body(const struct exchange *x);
/* What the caller of begin() keeps with it. */
void exchange_set_data(struct exchange *x, void *data);
void *exchange_data(const struct exchange *x);

/* Before HTTPD_BODY: a longer one is answered with exchange_too_large()'s answer. */
void exchange_set_body_max(struct exchange *x, size_t n);
/*
 * Counts the body against what all bodies and answers may hold in memory. False: no room. Once,
 * before HTTPD_BODY, after exchange_set_body_max().
 */
bool exchange_reserve(struct exchange *x) must_check;

/* The answer: set it once, then let it go. Takes what body holds; type is a literal. */
void exchange_answer(struct exchange *x, unsigned status, const char *type, struct buf *body);
/* Copies the value; at most a few, short ones. */
void exchange_answer_header(struct exchange *x, const char *name, const char *value);
void exchange_close_after(struct exchange *x);
void exchange_go_on(struct exchange *x, enum httpd_next next);
void exchange_done(struct exchange *x);

#endif
