/* SPDX-License-Identifier: Apache-2.0 */
/* The routes, by family. openapi.yaml says what each takes and gives. */
#ifndef VARVE_ROUTES_H
#define VARVE_ROUTES_H

#include "reply.h"

void route_login(struct request *rq, struct context *c);
void route_logout(struct request *rq, struct context *c);
void route_me(struct request *rq, struct context *c);

void route_drives(struct request *rq, struct context *c);
void route_create_drive(struct request *rq, struct context *c);
void route_attach(struct request *rq, struct context *c);

void route_commit(struct request *rq, struct context *c);
void route_changes(struct request *rq, struct context *c);

void route_missing(struct request *rq, struct context *c);
void route_put_pack(struct request *rq, struct context *c);
void route_fetch(struct request *rq, struct context *c);
void route_chunk(struct request *rq, struct context *c);
void route_content(struct request *rq, struct context *c);

void route_health(struct request *rq, struct context *c);
void route_ready(struct request *rq, struct context *c);

/* The body as a JSON object, or NULL: answered already. */
json_t *request_json(struct request *rq);
/* A member that must be a string, or NULL: answered already. */
const char *request_text(struct request *rq, const json_t *object, const char *name);
/* 16 random bytes as digits. */
int drive_id_new(char ret[DRIVE_ID_DIGITS + 1]) must_check;

#endif
