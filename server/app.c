// SPDX-License-Identifier: Apache-2.0
#include "app.h"

#include "clock.h"
#include "router.h"

#include <assert.h>
#include <errno.h>

#define QUICK_THREADS 4
#define BULK_THREADS 4
/* Each login takes 32 MiB and a tenth of a second of one core, or more. */
#define LOGIN_THREADS 2

/* How long the last answers may take to be sent when the server stops. */
#define DRAIN_MS (5 * MS_PER_S)

int context_new(const char *db_url, struct blob *blob, struct context **ret, struct err *err)
{
	struct context *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return err_sys(err, ENOMEM, "server");
	r = db_open(db_url, &c->db, err);
	if (r == 0)
		r = vault_open(c->db, blob, &c->vault, err);
	if (r < 0) {
		context_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void context_free(struct context *c)
{
	if (!c)
		return;
	vault_free(c->vault);
	db_free(c->db);
	free(c);
}

struct context *app_take_context(struct app *a)
{
	SCOPED_LOCK(&a->contexts_lock);
	struct context *c = a->contexts;

	assert(c); /* one for each worker */
	a->contexts = c->next;
	return c;
}

void app_give_context(struct app *a, struct context *c)
{
	SCOPED_LOCK(&a->contexts_lock);
	c->next = a->contexts;
	a->contexts = c;
}

static int open_contexts(struct app *a, const char *db_url, struct err *err)
{
	for (int i = 0; i < QUICK_THREADS + BULK_THREADS + LOGIN_THREADS; i++) {
		struct context *c;
		int r = context_new(db_url, a->blob, &c, err);

		if (r < 0)
			return r;
		app_give_context(a, c);
	}
	return 0;
}

static int start_threads(struct app *a, struct err *err)
{
	int r = workers_new(QUICK_THREADS, "quick", &a->quick);

	if (r == 0)
		r = workers_new(BULK_THREADS, "bulk", &a->bulk);
	if (r == 0)
		r = workers_new(LOGIN_THREADS, "login", &a->logins);
	if (r == 0)
		r = hub_new(&a->hub);
	if (r == 0)
		r = token_cache_new(&a->tokens);
	if (r == 0)
		r = login_limit_new(&a->login_limit);
	return r < 0 ? err_sys(err, -r, "server") : 0;
}

static int migrate(const char *db_url, struct err *err)
{
	struct db *db;
	int r = db_open(db_url, &db, err);

	if (r < 0)
		return r;
	r = db_migrate(db, err);
	db_free(db);
	return r;
}

static int build(struct app *a, const struct app_options *o, struct err *err)
{
	struct httpd_options http = {
		.listen_fd = o->listen_fd,
		.cert_pem = o->cert_pem,
		.key_pem = o->key_pem,
	};
	struct context *c;
	int r = migrate(o->db_url, err);

	if (r == 0)
		r = blob_open(o->blob_url, &a->blob, err);
	if (r == 0)
		r = open_contexts(a, o->db_url, err);
	if (r == 0)
		r = start_threads(a, err);
	if (r == 0)
		r = context_new(o->db_url, a->blob, &c, err);
	if (r == 0)
		r = commit_queue_new(c, a->hub, &a->commits, err);
	if (r < 0)
		return r;
	router_calls(a, &http.calls);
	return httpd_new(&http, &a->httpd, err);
}

int app_new(const struct app_options *o, struct app **ret, struct err *err)
{
	struct app *a = calloc(1, sizeof *a);
	int r;

	if (!a)
		return err_sys(err, ENOMEM, "server");
	pthread_mutex_init(&a->contexts_lock, NULL);
	r = build(a, o, err);
	if (r < 0) {
		app_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

void app_stop(struct app *a)
{
	httpd_quiesce(a->httpd);
	hub_stop(a->hub);
	httpd_drain(a->httpd, DRAIN_MS);
}

void app_free(struct app *a)
{
	if (!a)
		return;
	httpd_free(a->httpd);
	workers_free(a->quick);
	workers_free(a->bulk);
	workers_free(a->logins);
	commit_queue_free(a->commits);
	hub_free(a->hub);
	token_cache_free(a->tokens);
	login_limit_free(a->login_limit);
	while (a->contexts)
		context_free(app_take_context(a));
	blob_free(a->blob);
	pthread_mutex_destroy(&a->contexts_lock);
	free(a);
}
