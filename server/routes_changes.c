// SPDX-License-Identifier: Apache-2.0
/* The change feed, which is the notification too: a request can wait for news. */
#include "routes.h"

#include "bounds.h"
#include "clock.h"
#include "messages.h"
#include "number.h"

#include <errno.h>

#define WAIT_MS_MAX 60000

static void page(struct request *rq, struct context *c)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct err err = { 0 };
	int r = vault_changes(c->vault, rq->access.drive, rq->since, CHANGES_ROWS_MAX, &b, &err);

	if (r < 0)
		reply_failure(rq, r, &err);
	else
		reply_message(rq, 200, WIRE_CHANGES, &b);
}

/* The role can have been taken away meanwhile. */
static void page_after_wait(struct request *rq, struct context *c)
{
	if (request_authorize(rq, c))
		page(rq, c);
}

static void wake(struct waiter *w)
{
	struct request *rq = (struct request *)((char *)w - offsetof(struct request, waiter));

	request_run(rq, page_after_wait);
}

/* Waits, or answers at once when there is something to tell. */
static void wait_for_news(struct request *rq, struct context *c, uint64_t wait_ms)
{
	struct hub *hub = rq->app->hub;
	int64_t drive = rq->access.drive;
	uint64_t ticket, head;
	struct err err = { 0 };
	int r;

	rq->waiter = (struct waiter){
		.drive = drive,
		.since = rq->since,
		.deadline_mono_ms = clock_mono_ms() + (int64_t)wait_ms,
		.wake = wake,
	};
	do {
		ticket = hub_ticket(hub, drive);
		r = vault_head(c->vault, drive, &head, &err);
		if (r < 0) {
			reply_failure(rq, r, &err);
			return;
		}
		if (head != rq->since) {
			page(rq, c);
			return;
		}
	} while (!hub_wait(hub, &rq->waiter, ticket));
}

void route_changes(struct request *rq, struct context *c)
{
	const char *since = exchange_argument(rq->x, "since");
	const char *wait = exchange_argument(rq->x, "wait_ms");
	uint64_t wait_ms = 0;

	if (!since || !number_parse(since, INT64_MAX, &rq->since)) {
		reply_error(rq, 400, "invalid", "since must be there and a number");
		return;
	}
	if (wait && !number_parse(wait, WAIT_MS_MAX, &wait_ms)) {
		reply_error(rq, 400, "invalid", "wait_ms must be a number up to %d", WAIT_MS_MAX);
		return;
	}
	if (wait_ms)
		wait_for_news(rq, c, wait_ms);
	else
		page(rq, c);
}
