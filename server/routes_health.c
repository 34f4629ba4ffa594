// SPDX-License-Identifier: Apache-2.0
/* For whoever watches over the process: is it alive, and can it work? */
#include "routes.h"

#include <errno.h>

void route_health(struct request *rq, struct context *c)
{
	_cleanup_json_ json_t *answer = json_pack("{s:s}", "status", "ok");

	reply_json(rq, 200, answer);
}

void route_ready(struct request *rq, struct context *c)
{
	_cleanup_json_ json_t *answer = json_pack("{s:s}", "status", "ready");
	struct err err = { 0 };
	uint64_t head;
	/* No drive has this key: that it is absent is an answer. */
	int r = vault_head(c->vault, -1, &head, &err);

	if (r < 0 && r != -ENOENT)
		reply_error(rq, 503, "not_ready", "the database does not answer");
	else
		reply_json(rq, 200, answer);
}
