/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What varved is told: by options, else by VARVED_* variables, else by a configuration file
 * (INI: KEY = VALUE, below [server] or no section), else by default.
 *
 *	key               variable                 option
 *	data              VARVED_DATA              --data DIR
 *	listen            VARVED_LISTEN            --listen HOST:PORT
 *	db                VARVED_DB                --db URL
 *	blobs             VARVED_BLOBS             --blobs URL
 *	tls_cert          VARVED_TLS_CERT          --tls-cert F
 *	tls_key           VARVED_TLS_KEY           --tls-key F
 *	allow_plain_http  VARVED_ALLOW_PLAIN_HTTP  --allow-plain-http
 *	log_level         VARVED_LOG_LEVEL         --log-level LEVEL
 *	                  VARVED_CONFIG            --config F
 */
#ifndef VARVE_CONFIG_H
#define VARVE_CONFIG_H

#include "cleanup.h"
#include "err.h"

#include <stdbool.h>

struct config {
	char *data; /* NULL: nobody said */
	char *listen;
	char *db;
	char *blobs;
	char *tls_cert;
	char *tls_key;
	char *allow_plain_http; /* "yes", "no", ... */
	char *log_level;
};

void config_done(struct config *c);
#define _cleanup_config_ _cleanup_(config_done)

/* What options said stands in `given` (borrowed); path may be NULL. -EINVAL with a reason. */
int config_load(const struct config *given, const char *path, struct config *ret,
	struct err *err) must_check;
bool config_allows_plain_http(const struct config *c);

#endif
