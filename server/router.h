/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a path to the function that answers, with everything that is the same for all routes:
 * the token, the drive and the role in it, the kind and the length of the body.
 *
 * Order of checks: path (404), method (405), token (401), length (413) and kind of the body
 * (415), then, with the body, drive (404) and role (403). So a stranger learns which routes
 * there are, which anyone can read in openapi.yaml, and nothing else.
 */
#ifndef VARVE_ROUTER_H
#define VARVE_ROUTER_H

#include "app.h"

#define DRIVE_ID_DIGITS 32

struct route;

/* One request while a route works on it. */
struct request {
	struct app *app;
	struct exchange *x;
	const struct route *route;
	struct digest token_hash;
	struct identity who; /* unless the route is public */
	char drive_id[DRIVE_ID_DIGITS + 1]; /* of {drive}, */
	struct access access; /* and what the user may do with it */
	struct digest id; /* of {id} */
	union {
		struct commit_job commit;
		struct waiter waiter;
	};
	struct arena *arena; /* of the decoded body */
	struct commit *commit_body;
	uint64_t since;
	bool json_body; /* the body came as JSON, not as CBOR */
};

/* Which threads run the route. */
enum route_where { RUN_QUICK, RUN_BULK, RUN_LOGIN };

struct route {
	const char *method;
	const char *path; /* {drive}: a drive's public id; {id}: a digest */
	enum route_where where;
	bool is_public;
	enum role role; /* ROLE_NONE: the path names no drive */
	size_t body_max; /* 0: no body */
	const char *body_type;
	/* On a worker. Answers with one of reply.h, now or later. */
	void (*handle)(struct request *rq, struct context *c);
	size_t json_max; /* 0: bodies of body_type only; else JSON is taken too, so much of it */
};

/* All routes; the last one has no method. */
extern const struct route routes[];

/* What the HTTP server calls for this app. */
void router_calls(struct app *a, struct httpd_calls *ret);

/*
 * Runs fn on a worker of the route's kind, with a context; fn answers. When no memory is left,
 * the request is answered with 503.
 */
void request_run(struct request *rq, void (*fn)(struct request *rq, struct context *c));
/* The role in the request's drive, asked anew; false: answered already. */
bool request_authorize(struct request *rq, struct context *c);

#endif
