/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What devices send in CBOR and people in JSON. The request says what it has by its
 * Content-Type, and what it wants by its Accept: JSON when that names application/json and not
 * application/cbor, else CBOR.
 */
#ifndef VARVE_MESSAGES_H
#define VARVE_MESSAGES_H

#include "reply.h"
#include "wire/wire_json.h"

/* The body in CBOR: as it came, or translated into *translated. It is not decoded yet. */
int message_body(struct request *rq, enum wire_message m, struct buf *translated, struct slice *ret,
	struct err *err) must_check;
/* Takes what the buffer holds: the message in CBOR. As reply.h. */
void reply_message(struct request *rq, unsigned status, enum wire_message m, struct buf *cbor);

#endif
