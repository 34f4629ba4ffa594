/* SPDX-License-Identifier: Apache-2.0 */
/* One call of a route: what client.c and client_account.c share. Private to src/remote. */
#ifndef VARVE_CLIENT_CALL_H
#define VARVE_CLIENT_CALL_H

#include "remote/client.h"
#include "remote/http.h"

#define TYPE_CBOR "application/cbor"
#define TYPE_JSON "application/json"
#define TYPE_PACK "application/x-varve-pack"
#define TYPE_MANIFEST "application/x-varve-manifest"

/* Answers in JSON: lists of drives, errors. */
#define JSON_BYTES_MAX ((size_t)4 * MIB)

struct call {
	const char *method;
	const char *path;
	const void *body;
	size_t body_len;
	const char *type; /* of the body; NULL without one */
	const char *accept; /* the type that a good answer has */
	size_t max_answer_bytes;
	uint32_t device_number; /* 0: not sent */
	unsigned silence_ms;
	const struct client_limit *limit;
	int also_good; /* a status beside 2xx that is an answer, not an error; 0: none */
};

/* 0 with an answer of the type asked for; otherwise as client.h lists the errors. */
int client_call(struct client *c, const struct call *call, struct http_response *ret,
	struct err *err) must_check;

#endif
