/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request's headers say about its body, and whether two parsers could read them in two
 * ways (request smuggling). Pure.
 *
 *	struct request_head h = { 0 };
 *	request_head_add(&h, ...) for each header; why = request_head_check(&h, ...);
 */
#ifndef VARVE_REQUEST_HEAD_H
#define VARVE_REQUEST_HEAD_H

#include "cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct request_head {
	size_t bytes;
	unsigned lengths, encodings, hosts, tokens;
	const char *length, *encoding; /* borrowed */
	bool bad;
};

#define BODY_LENGTH_UNKNOWN UINT64_MAX

/* Both texts end with a NUL too; value may be NULL. */
void request_head_add(struct request_head *h, const char *name, size_t name_len, const char *value,
	size_t value_len);
/* A reason to refuse the request, or NULL with the length of its body. */
const char *request_head_check(
	const struct request_head *h, const char *version, uint64_t *ret_body_length) must_check;

#endif
