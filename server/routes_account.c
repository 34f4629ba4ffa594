// SPDX-License-Identifier: Apache-2.0
/* Logging in and out. */
#include "routes.h"

#include "log.h"

#include <errno.h>
#include <string.h>

json_t *request_json(struct request *rq)
{
	const struct buf *body = exchange_body(rq->x);
	json_error_t why;
	json_t *json =
		json_loadb((const char *)body->data, body->len, JSON_REJECT_DUPLICATES, &why);

	if (json_is_object(json))
		return json;
	if (json)
		reply_error(rq, 400, "malformed", "the body must be a JSON object");
	else
		reply_error(rq, 400, "malformed", "the body is not JSON: %s", why.text);
	json_decref(json);
	return NULL;
}

const char *request_text(struct request *rq, const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	if (!text)
		reply_error(rq, 400, "malformed", "\"%s\" must be there and a string", name);
	return text;
}

static void login(struct request *rq, struct context *c, const char *user, const char *password,
	const char *device, int64_t device_id)
{
	const char *peer = exchange_peer(rq->x);
	_cleanup_json_ json_t *answer = NULL;
	char token[TOKEN_TEXT_BYTES];
	struct identity who;
	struct err err = { 0 };
	int r = auth_login(c->db, user, password, device, device_id, token, &who, &err);

	if (r == -EACCES) {
		log_info("login: refused for %s", peer);
		reply_error(rq, 401, "unauthorized", "name or password are wrong");
		return;
	}
	login_limit_success(rq->app->login_limit, user, peer);
	if (r < 0) {
		reply_failure(rq, r, &err);
		return;
	}
	/* The device's earlier token. */
	token_cache_revoke(rq->app->tokens, who.device);
	answer = json_pack("{s:s, s:I, s:s}", "token", token, "device_id", (json_int_t)who.device,
		"user", user);
	reply_json(rq, 200, answer);
}

/* Absent: 0, which no device has. False: answered already. */
static bool take_device_id(struct request *rq, const json_t *body, int64_t *ret)
{
	const json_t *id = json_object_get(body, "device_id");

	if (id && (!json_is_integer(id) || json_integer_value(id) < 1)) {
		reply_error(rq, 400, "malformed", "\"device_id\" must be a number from 1");
		return false;
	}
	*ret = json_integer_value(id);
	return true;
}

void route_login(struct request *rq, struct context *c)
{
	_cleanup_json_ json_t *body = request_json(rq);
	const char *user, *password, *device;
	int64_t device_id;
	unsigned wait_s;
	char text[16];

	if (!body || !(user = request_text(rq, body, "user")) ||
		!(password = request_text(rq, body, "password")) ||
		!(device = request_text(rq, body, "device")) ||
		!take_device_id(rq, body, &device_id))
		return;
	wait_s = login_limit_attempt(rq->app->login_limit, user, exchange_peer(rq->x));
	if (wait_s == 0) {
		login(rq, c, user, password, device, device_id);
		return;
	}
	snprintf(text, sizeof text, "%u", wait_s);
	exchange_answer_header(rq->x, "Retry-After", text);
	reply_error(
		rq, 429, "too_many_logins", "too many failed logins; try again in %u s", wait_s);
}

void route_logout(struct request *rq, struct context *c)
{
	struct err err = { 0 };
	int r = auth_revoke_device(c->db, rq->who.device, &err);

	if (r < 0) {
		reply_failure(rq, r, &err);
		return;
	}
	token_cache_revoke(rq->app->tokens, rq->who.device);
	reply_empty(rq, 204);
}

void route_me(struct request *rq, struct context *c)
{
	_cleanup_json_ json_t *answer = NULL;
	struct auth_names names;
	struct err err = { 0 };
	int r = auth_names(c->db, &rq->who, &names, &err);

	if (r < 0) {
		reply_failure(rq, r, &err);
		return;
	}
	answer = json_pack("{s:s, s:s, s:I}", "user", names.user, "device", names.device,
		"device_id", (json_int_t)rq->who.device);
	reply_json(rq, 200, answer);
}
