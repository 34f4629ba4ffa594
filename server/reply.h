/* SPDX-License-Identifier: Apache-2.0 */
/* Answers. Each lets the request go: it must not be touched afterwards. */
#ifndef VARVE_REPLY_H
#define VARVE_REPLY_H

#include "router.h"

#include <jansson.h>

#define TYPE_JSON "application/json"
#define TYPE_CBOR "application/cbor"
#define TYPE_PACK "application/x-varve-pack"
#define TYPE_FRAME "application/x-varve-frame"
#define TYPE_MANIFEST "application/x-varve-manifest"

static inline void cleanup_json_p(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ _cleanup_(cleanup_json_p)

/* Whether a Content-Type, or one item of an Accept, is that type, whatever its parameters. */
bool media_type_is(const char *text, const char *type);

void reply_empty(struct request *rq, unsigned status);
/* Takes what the buffer holds. */
void reply_bytes(struct request *rq, unsigned status, const char *type, struct buf *body);
/* NULL: out of memory, which is what is answered then. */
void reply_json(struct request *rq, unsigned status, const json_t *json);
void reply_error(struct request *rq, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/*
 * What a call said: what the asker can do something about as 4xx with err's text; the rest
 * as 5xx, with the text in the log only.
 */
void reply_failure(struct request *rq, int r, const struct err *err);
/* Sets the answer without letting it go: for begin(). */
void answer_error(struct exchange *x, unsigned status, const char *code, const char *detail);

#endif
