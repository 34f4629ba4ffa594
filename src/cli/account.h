/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who this device is at which server: written by `varve login`, in the configuration folder.
 * After `varve logout` it says the same without a token, so that a later login of the same user
 * at the same server makes it the same device again.
 * Plain values, each to be freed; account_done() frees all. One thread.
 */
#ifndef VARVE_CLI_ACCOUNT_H
#define VARVE_CLI_ACCOUNT_H

#include "cli/home.h"

#include <stdbool.h>

struct account {
	char *url; /* "https://host:port", without a slash at the end */
	char *user;
	char *device; /* its name */
	char *device_id; /* the server's word for it */
	char *token; /* NULL: logged out */
	char *ca_file; /* NULL: the system's */
};

void account_done(struct account *a);
#define _cleanup_account_ _cleanup_(account_done)

/* 1 (also when it is logged out), 0 when this device never was logged in, -errno. */
int account_load(const struct home *h, struct account *ret, struct err *err) must_check;
/* As account_load(), and -ENOENT with advice when there is no token. */
int account_require(const struct home *h, struct account *ret, struct err *err) must_check;
/* Old or new, durable, file mode 0600. */
int account_save(const struct home *h, const struct account *a, struct err *err) must_check;
/* Saves the account without its token, here and in *a. */
int account_log_out(const struct home *h, struct account *a, struct err *err) must_check;

/*
 * Checks a server's URL and brings it into its form: http or https, a host, an optional port and
 * path; no user, query or fragment; no slash at the end. *ret is to be freed.
 */
int server_url_parse(const char *text, char **ret, struct err *err) must_check;
/* Whether the URL (as server_url_parse() makes it) sends the token in clear to another machine. */
bool server_url_exposes(const char *url);

#endif
