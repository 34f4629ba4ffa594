/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CBOR, one token at a time. Nothing is allocated: strings point into the input. One thread per
 * reader. Every call returns 0, or -EBADMSG when the bytes are not well-formed or end early.
 */
#ifndef VARVE_CBOR_READ_H
#define VARVE_CBOR_READ_H

#include "wire/wire.h"

struct cbor_reader {
	const uint8_t *p;
	size_t n;
	size_t at;
};

enum token_kind {
	TOKEN_UINT, /* u */
	TOKEN_NEGINT, /* the number -1 - u */
	TOKEN_BYTES, /* s */
	TOKEN_TEXT, /* s */
	TOKEN_ARRAY, /* u items follow */
	TOKEN_MAP, /* u pairs follow */
	TOKEN_BOOL, /* u: 0 or 1 */
	TOKEN_TAG, /* one item follows */
	TOKEN_OTHER, /* null, undefined, a float */
	TOKEN_OPEN_STRING, /* definite strings of kind u follow, until TOKEN_BREAK */
	TOKEN_OPEN_ARRAY, /* items follow, until TOKEN_BREAK */
	TOKEN_OPEN_MAP,
	TOKEN_BREAK,
};

struct token {
	enum token_kind kind;
	uint64_t u;
	struct slice s;
};

/* Deeper nesting, in what is skipped, is refused. */
#define CBOR_DEPTH_MAX 16

int cbor_read_token(struct cbor_reader *r, struct token *ret) must_check;
/* Passes over one whole item, of any type, with all that is in it. */
int cbor_read_skip(struct cbor_reader *r) must_check;

#endif
