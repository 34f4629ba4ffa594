// SPDX-License-Identifier: Apache-2.0
#include "router.h"

#include "bytes.h"
#include "log.h"
#include "reply.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* Logins that wait for one of the threads that compute scrypt. */
#define LOGINS_WAITING_MAX 64
#define ALLOW_BYTES 64

/* --- paths --- */

static bool is_drive_id(const char *s, size_t n)
{
	if (n != DRIVE_ID_DIGITS)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!strchr("0123456789abcdef", s[i]))
			return false;
	}
	return true;
}

static bool match_segment(
	const char *want, size_t want_len, const char *s, size_t n, struct request *rq)
{
	if (want_len == 7 && memcmp(want, "{drive}", 7) == 0) {
		if (!is_drive_id(s, n))
			return false;
		memcpy(rq->drive_id, s, n);
		rq->drive_id[n] = '\0';
		return true;
	}
	if (want_len == 4 && memcmp(want, "{id}", 4) == 0)
		return hex_decode(s, n, rq->id.b, DIGEST_BYTES);
	return want_len == n && memcmp(want, s, n) == 0;
}

/* Both begin with '/'. */
static bool match_path(const char *want, const char *path, struct request *rq)
{
	while (*want == '/' && *path == '/') {
		size_t n = strcspn(want + 1, "/"), m = strcspn(path + 1, "/");

		if (!match_segment(want + 1, n, path + 1, m, rq))
			return false;
		want += 1 + n;
		path += 1 + m;
	}
	return *want == '\0' && *path == '\0';
}

/* The route, or NULL with the methods that the path has (none: there is no such path). */
static const struct route *find_route(
	struct request *rq, const char *method, const char *path, char ret_allow[ALLOW_BYTES])
{
	ret_allow[0] = '\0';
	for (const struct route *r = routes; r->method; r++) {
		size_t used = strlen(ret_allow);

		if (!match_path(r->path, path, rq))
			continue;
		if (strcmp(r->method, method) == 0)
			return r;
		snprintf(ret_allow + used, ALLOW_BYTES - used, "%s%s", used ? ", " : "", r->method);
	}
	return NULL;
}

/* --- the headers --- */

static enum httpd_next refuse(
	struct exchange *x, unsigned status, const char *code, const char *detail)
{
	answer_error(x, status, code, detail);
	return HTTPD_ANSWER;
}

/* The same answer whatever is wrong with the token. */
static enum httpd_next refuse_token(struct exchange *x)
{
	return refuse(
		x, 401, "unauthorized", "this needs a valid token: Authorization: Bearer TOKEN");
}

/* Nothing is taken for what the route wants. False: neither that nor JSON in its place. */
static bool take_type(struct request *rq)
{
	const struct route *route = rq->route;
	const char *type = exchange_header(rq->x, "Content-Type");

	if (!type || media_type_is(type, route->body_type))
		return true;
	rq->json_body = route->json_max && media_type_is(type, TYPE_JSON);
	return rq->json_body;
}

/* After the token: may the body come? */
static enum httpd_next accept_body(struct request *rq)
{
	uint64_t n = exchange_body_length(rq->x);
	bool typed = n == 0 || rq->route->body_max == 0 || take_type(rq);
	size_t max = rq->json_body ? rq->route->json_max : rq->route->body_max;

	if (rq->route->body_max == 0 && n > 0)
		return refuse(rq->x, 413, "too_large", "this route takes no body");
	if (n != UINT64_MAX && n > max)
		return refuse(rq->x, 413, "too_large", "the body is too long");
	if (!typed)
		return refuse(rq->x, 415, "wrong_type",
			"the body has another type than this route takes");
	exchange_set_body_max(rq->x, max);
	if (!exchange_reserve(rq->x))
		return refuse(rq->x, 503, "busy", "the server is busy; try again");
	return HTTPD_BODY;
}

static enum httpd_next check_token(struct request *rq)
{
	const char *header = exchange_header(rq->x, "Authorization");

	if (!header || strncasecmp(header, "Bearer ", 7) != 0 ||
		auth_token_hash(header + 7, &rq->token_hash) < 0)
		return refuse_token(rq->x);
	if (!token_cache_get(rq->app->tokens, &rq->token_hash, &rq->who))
		return HTTPD_HOLD;
	return accept_body(rq);
}

static enum httpd_next on_begin(void *ctx, struct exchange *x)
{
	struct request *rq = calloc(1, sizeof *rq);
	char allow[ALLOW_BYTES];

	if (!rq)
		return refuse(x, 503, "busy", "the server is out of memory; try again");
	rq->app = ctx;
	rq->x = x;
	exchange_set_data(x, rq);
	rq->route = find_route(rq, exchange_method(x), exchange_path(x), allow);
	if (!rq->route && allow[0]) {
		exchange_answer_header(x, "Allow", allow);
		return refuse(x, 405, "wrong_method", "this path has no such method");
	}
	if (!rq->route)
		return refuse(x, 404, "no_route", "there is no such path");
	return rq->route->is_public ? accept_body(rq) : check_token(rq);
}

/* --- on workers --- */

struct task {
	struct request *rq;
	void (*fn)(struct request *rq, struct context *c);
};

static void run_task(void *arg)
{
	struct task *t = arg;
	struct task task = *t;
	struct app *a = task.rq->app;
	struct context *c = app_take_context(a);

	free(t);
	task.fn(task.rq, c);
	app_give_context(a, c);
}

static int submit(
	struct workers *w, struct request *rq, void (*fn)(struct request *rq, struct context *c))
{
	struct task *t = malloc(sizeof *t);
	int r;

	if (!t)
		return -ENOMEM;
	*t = (struct task){ rq, fn };
	r = workers_submit(w, run_task, t);
	if (r < 0)
		free(t);
	return r;
}

static struct workers *workers_of(struct request *rq)
{
	switch (rq->route->where) {
	case RUN_LOGIN:
		return rq->app->logins;
	case RUN_BULK:
		return rq->app->bulk;
	case RUN_QUICK:
		break;
	}
	return rq->app->quick;
}

void request_run(struct request *rq, void (*fn)(struct request *rq, struct context *c))
{
	if (submit(workers_of(rq), rq, fn) < 0)
		reply_error(rq, 503, "busy", "the server is out of memory; try again");
}

static void ask_token(struct request *rq, struct context *c)
{
	uint64_t generation = token_cache_generation(rq->app->tokens);
	struct err err = { 0 };
	int r = auth_hashed_token(c->db, &rq->token_hash, &rq->who, &err);
	enum httpd_next next;

	if (r == 0) {
		token_cache_put(rq->app->tokens, &rq->token_hash, &rq->who, generation);
		next = accept_body(rq);
	} else if (r == -EACCES) {
		next = refuse_token(rq->x);
	} else {
		log_error("token: %s", err.text);
		next = refuse(rq->x, 503, "busy", "the server is busy; try again");
	}
	exchange_go_on(rq->x, next);
}

static void on_held(void *ctx, struct exchange *x)
{
	struct request *rq = exchange_data(x);

	if (submit(rq->app->quick, rq, ask_token) < 0)
		exchange_go_on(x, refuse(x, 503, "busy", "the server is out of memory; try again"));
}

bool request_authorize(struct request *rq, struct context *c)
{
	struct err err = { 0 };
	int r = auth_drive(c->db, &rq->who, rq->drive_id, &rq->access, &err);

	if (r == -ENOENT)
		reply_error(rq, 404, "no_drive", "there is no such drive for this user");
	else if (r < 0)
		reply_failure(rq, r, &err);
	else if (rq->access.role < rq->route->role)
		reply_error(rq, 403, "forbidden", "the role %s does not allow this",
			role_name(rq->access.role));
	else
		return true;
	return false;
}

static void handle(struct request *rq, struct context *c)
{
	if (rq->route->role == ROLE_NONE || request_authorize(rq, c))
		rq->route->handle(rq, c);
}

static void on_run(void *ctx, struct exchange *x)
{
	struct request *rq = exchange_data(x);

	if (rq->route->where == RUN_LOGIN &&
		workers_pending(rq->app->logins) >= LOGINS_WAITING_MAX) {
		reply_error(rq, 503, "busy", "too many logins at once; try again");
		return;
	}
	request_run(rq, handle);
}

static void on_over(void *ctx, struct exchange *x)
{
	struct request *rq = exchange_data(x);

	if (!rq)
		return;
	arena_free(rq->arena);
	free(rq->commit_body);
	free(rq);
}

void router_calls(struct app *a, struct httpd_calls *ret)
{
	*ret = (struct httpd_calls){
		.begin = on_begin,
		.held = on_held,
		.run = on_run,
		.over = on_over,
		.ctx = a,
	};
}
