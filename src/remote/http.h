/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 requests to one server. The only user of libcurl. Connections are kept and used
 * again; redirects are not followed; proxies are as curl finds them in the environment.
 *
 * Any thread; each http_do() takes a connection of its own for as long as it runs.
 */
#ifndef VARVE_HTTP_H
#define VARVE_HTTP_H

#include "buf.h"
#include "err.h"

#include <stdint.h>

struct http;

struct http_options {
	const char *url; /* "http[s]://host[:port][/prefix]" */
	const char *ca_file; /* PEM; NULL for the system's */
};

/* -EINVAL for a URL of another kind. */
int http_new(const struct http_options *o, struct http **ret, struct err *err) must_check;
/* No call may be running. */
void http_free(struct http *h);
/* Ends what runs, and all that comes, with -ECANCELED. */
void http_stop(struct http *h);

struct http_request {
	const char *method;
	const char *path; /* from "/" on, escaped */
	const char *const *headers; /* "Name: value"; NULL-terminated, or NULL */
	const void *body;
	size_t body_len;
	size_t max_response_bytes;
	unsigned silence_ms; /* how long the server may stay silent beyond the usual */
	int64_t deadline_mono_ms;
	const _Atomic int *cancelled; /* polled; may be NULL */
};

struct http_response {
	int status; /* 200-599 */
	struct buf body;
	char content_type[64]; /* lower case, without parameters; empty when the server named none
				*/
};
static inline void http_response_done(struct http_response *r)
{
	buf_done(&r->body);
}
#define _cleanup_response_ _cleanup_(http_response_done)

/*
 * 0 with an answer of any status. -ENOTCONN (no connection, or TLS refused: nothing of the request
 * was sent), -ETIMEDOUT, -EINTR, -ECANCELED, -EMSGSIZE (the answer is larger than
 * max_response_bytes), -ENOMEM, -EIO (the connection broke).
 */
int http_do(struct http *h, const struct http_request *rq, struct http_response *ret,
	struct err *err) must_check;

struct http_counts {
	uint64_t bytes_sent;
	uint64_t bytes_received;
	int64_t last_contact_ns; /* wall time of the last answer, 0 never */
};
void http_get_counts(struct http *h, struct http_counts *ret);

#endif
