/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One running server: what the routes share. Made by `varved serve`.
 *
 *	app_new(&options, &app, &err); ... app_stop(app); app_free(app);
 *
 * Threads: the HTTP server's own, which never block; three sets of workers, so that one kind of
 * request does not wait behind another; the committer; the hub.
 */
#ifndef VARVE_APP_H
#define VARVE_APP_H

#include "commit_queue.h"
#include "httpd.h"
#include "login_limit.h"
#include "notify.h"
#include "token_cache.h"
#include "vault.h"
#include "workers.h"

/* A worker's own view of the database. One thread at a time. */
struct context {
	struct context *next;
	struct db *db;
	struct vault *vault;
};

int context_new(
	const char *db_url, struct blob *blob, struct context **ret, struct err *err) must_check;
void context_free(struct context *c);

struct app {
	struct blob *blob;
	struct httpd *httpd;
	struct workers *quick; /* a few statements */
	struct workers *bulk; /* packs and many chunks: disk and hashing */
	struct workers *logins; /* scrypt: as many as memory is for */
	struct commit_queue *commits;
	struct hub *hub;
	struct token_cache *tokens;
	struct login_limit *login_limit;
	pthread_mutex_t contexts_lock;
	struct context *contexts; /* free ones: as many as there are workers */
};

struct app_options {
	const char *db_url;
	const char *blob_url;
	int listen_fd; /* owned by the app on success */
	const char *cert_pem;
	const char *key_pem;
};

int app_new(const struct app_options *o, struct app **ret, struct err *err) must_check;
/* No new requests; those that are there are answered. */
void app_stop(struct app *a);
void app_free(struct app *a);

struct context *app_take_context(struct app *a);
void app_give_context(struct app *a, struct context *c);

#endif
