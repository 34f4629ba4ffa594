// SPDX-License-Identifier: Apache-2.0
#include "messages.h"

#include <errno.h>
#include <string.h>

int message_body(struct request *rq, enum wire_message m, struct buf *translated, struct slice *ret,
	struct err *err)
{
	const struct buf *body = exchange_body(rq->x);

	if (rq->json_body) {
		int r = wire_from_json(m, (const char *)body->data, body->len, translated, err);

		if (r < 0)
			return r;
		body = translated;
	}
	*ret = (struct slice){ body->data, body->len };
	return 0;
}

static bool accepts(const char *header, const char *type)
{
	for (; header; header = strchr(header, ',')) {
		header += *header == ',';
		if (media_type_is(header, type))
			return true;
	}
	return false;
}

static bool wants_json(const struct request *rq)
{
	const char *accept = exchange_header(rq->x, "Accept");

	return accepts(accept, TYPE_JSON) && !accepts(accept, TYPE_CBOR);
}

void reply_message(struct request *rq, unsigned status, enum wire_message m, struct buf *cbor)
{
	_cleanup_buf_ struct buf text = { 0 };
	struct err err = { 0 };
	int r;

	if (!wants_json(rq)) {
		reply_bytes(rq, status, TYPE_CBOR, cbor);
		return;
	}
	r = wire_to_json(m, cbor->data, cbor->len, &text, &err);
	if (r == 0)
		reply_bytes(rq, status, TYPE_JSON, &text);
	else /* our own message: no fault of the asker's */
		reply_failure(rq, r == -ENOMEM ? r : -EIO, &err);
}
