// SPDX-License-Identifier: Apache-2.0
/* A device's changes. A commit is decoded on a worker and applied in a group with others. */
#include "routes.h"

#include "bounds.h"
#include "messages.h"
#include "number.h"

#include <errno.h>
#include <stdlib.h>

static void finish(struct commit_job *job)
{
	struct request *rq = (struct request *)((char *)job - offsetof(struct request, commit));
	struct commit_task *t = &job->task;
	struct arena *arena = t->arena; /* rq is gone after the answer */
	_cleanup_buf_ struct buf b = { 0 };
	int r = t->result;

	if (r == 0)
		r = commit_reply_encode(&t->reply, &b);
	if (r < 0 && t->result == 0)
		err_sys(&t->err, -r, "commit");
	if (r < 0)
		reply_failure(rq, r, &t->err);
	else
		reply_message(rq, t->reply.seq ? 200 : 409, WIRE_COMMIT_REPLY, &b);
	arena_free(arena);
}

/* The device's number, which attach must have given to it; false: answered already. */
static bool take_number(struct request *rq, struct context *c, uint32_t *ret)
{
	const char *text = exchange_header(rq->x, "Varve-Device-Number");
	struct err err = { 0 };
	uint64_t number;
	int r;

	if (!text || !number_parse(text, NODE_DEVICE_MAX, &number) || number == 0) {
		reply_error(rq, 400, "device_number",
			"the header Varve-Device-Number is missing "
			"or no number");
		return false;
	}
	r = auth_has_number(c->db, &rq->who, rq->access.drive, (uint32_t)number, &err);
	if (r < 0)
		reply_failure(rq, r, &err);
	else if (r == 0)
		reply_error(rq, 403, "device_number",
			"this number was not given to this device; attach to the drive anew");
	*ret = (uint32_t)number;
	return r > 0;
}

void route_commit(struct request *rq, struct context *c)
{
	_cleanup_buf_ struct buf translated = { 0 };
	struct err err = { 0 };
	struct slice body;
	uint32_t number;
	int r;

	if (!take_number(rq, c, &number))
		return;
	rq->commit_body = calloc(1, sizeof *rq->commit_body);
	r = rq->commit_body ? 0 : err_sys(&err, ENOMEM, "commit");
	if (r == 0)
		r = message_body(rq, WIRE_COMMIT, &translated, &body, &err);
	if (r == 0)
		r = commit_decode(body.p, body.n, rq->commit_body, &rq->arena, &err);
	if (r < 0) {
		reply_failure(rq, r, &err);
		return;
	}
	rq->commit = (struct commit_job){
		.bytes = body.n,
		.task = { .drive = rq->access.drive,
			.who = { .device = rq->who.device, .number = number },
			.commit = rq->commit_body },
		.done = finish,
	};
	commit_queue_submit(rq->app->commits, &rq->commit);
}
