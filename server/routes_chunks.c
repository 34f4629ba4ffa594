// SPDX-License-Identifier: Apache-2.0
/* Bytes: which are missing, taking packs, giving chunks and manifests. */
#include "routes.h"

#include "bounds.h"
#include "chunk/pack.h"
#include "messages.h"

#include <errno.h>

/* Decodes the body; false: answered already. */
static bool take_ids(struct request *rq, size_t max, struct id_list *ret)
{
	_cleanup_buf_ struct buf translated = { 0 };
	struct err err = { 0 };
	struct slice body;
	int r = message_body(rq, WIRE_ID_LIST, &translated, &body, &err);

	if (r == 0)
		r = id_list_decode(body.p, body.n, max, ret, &rq->arena, &err);
	if (r < 0)
		reply_failure(rq, r, &err);
	return r == 0;
}

static void reply_result(
	struct request *rq, int r, const char *type, struct buf *b, const struct err *err)
{
	if (r < 0)
		reply_failure(rq, r, err);
	else
		reply_bytes(rq, 200, type, b);
}

void route_missing(struct request *rq, struct context *c)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct err err = { 0 };
	struct id_list ids;
	int r;

	if (!take_ids(rq, MISSING_IDS_MAX, &ids))
		return;
	r = vault_missing(c->vault, rq->access.drive, &ids, &b, &err);
	if (r < 0)
		reply_failure(rq, r, &err);
	else
		reply_message(rq, 200, WIRE_ID_LIST, &b);
}

/* -EBADMSG when the bytes are no pack or hold too much. */
static int count_chunks(const struct buf *b, size_t *ret, struct err *err)
{
	struct pack_reader reader;
	struct pack_entry entry;
	size_t n = 0;
	int r = pack_reader_init(&reader, b->data, b->len, err);

	if (r < 0)
		return r;
	while ((r = pack_next(&reader, &entry, err)) > 0) {
		if (++n > PACK_CHUNKS_MAX)
			return err_set(err, EBADMSG, "pack: more than %d chunks", PACK_CHUNKS_MAX);
	}
	if (r == 0)
		*ret = n;
	return r;
}

void route_put_pack(struct request *rq, struct context *c)
{
	const struct buf *body = exchange_body(rq->x);
	_cleanup_json_ json_t *answer = NULL;
	struct err err = { 0 };
	size_t n = 0;
	int r = count_chunks(body, &n, &err);

	if (r == 0 && n > 0)
		r = vault_put_pack(c->vault, rq->access.drive, body->data, body->len, &err);
	if (r < 0) {
		reply_failure(rq, r, &err);
		return;
	}
	answer = json_pack("{s:I}", "chunks", (json_int_t)n);
	reply_json(rq, 201, answer);
}

void route_fetch(struct request *rq, struct context *c)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct err err = { 0 };
	struct id_list ids;
	int r;

	if (!take_ids(rq, FETCH_IDS_MAX, &ids))
		return;
	r = vault_fetch(c->vault, rq->access.drive, &ids, &b, &err);
	reply_result(rq, r, TYPE_PACK, &b, &err);
}

/* The one frame of a pack of one. */
static int only_frame(const struct buf *pack, struct buf *ret, struct err *err)
{
	struct pack_reader reader;
	struct pack_entry entry;
	int r = pack_reader_init(&reader, pack->data, pack->len, err);

	if (r == 0)
		r = pack_next(&reader, &entry, err);
	if (r <= 0)
		return err_set(err, EIO, "store: no frame in what was read");
	r = buf_append(ret, entry.frame_bytes, entry.frame.frame_len);
	return r < 0 ? err_sys(err, -r, "chunk") : 0;
}

void route_chunk(struct request *rq, struct context *c)
{
	_cleanup_buf_ struct buf pack = { 0 }, frame = { 0 };
	struct id_list ids = { .ids = &rq->id, .n = 1 };
	struct err err = { 0 };
	int r = vault_fetch(c->vault, rq->access.drive, &ids, &pack, &err);

	if (r == 0)
		r = only_frame(&pack, &frame, &err);
	reply_result(rq, r, TYPE_FRAME, &frame, &err);
}

void route_content(struct request *rq, struct context *c)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct err err = { 0 };
	int r = vault_content(c->vault, rq->access.drive, &rq->id, &b, &err);

	reply_result(rq, r, TYPE_MANIFEST, &b, &err);
}
