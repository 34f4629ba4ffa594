// SPDX-License-Identifier: Apache-2.0
/* Which drives there are, and being a device of one. */
#include "routes.h"

#include "bytes.h"

#include <errno.h>
#include <sys/random.h>

int drive_id_new(char ret[DRIVE_ID_DIGITS + 1])
{
	uint8_t bytes[DRIVE_ID_DIGITS / 2];

	if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		return -EIO;
	hex_encode(bytes, sizeof bytes, ret);
	return 0;
}

static int add_drive(void *ctx, const struct drive_info *d)
{
	json_t *item = json_pack("{s:s, s:s, s:s, s:s, s:I}", "id", d->public_id, "name", d->name,
		"owner", d->owner, "role", role_name(d->role), "head", (json_int_t)d->head);

	return item && json_array_append_new(ctx, item) == 0 ? 0 : -ENOMEM;
}

void route_drives(struct request *rq, struct context *c)
{
	_cleanup_json_ json_t *answer = json_pack("{s:[]}", "drives");
	struct err err = { 0 };
	int r = auth_drives(c->db, &rq->who, add_drive, json_object_get(answer, "drives"), &err);

	if (r < 0)
		reply_failure(rq, r, &err);
	else
		reply_json(rq, 200, answer);
}

void route_create_drive(struct request *rq, struct context *c)
{
	_cleanup_json_ json_t *body = request_json(rq);
	_cleanup_json_ json_t *answer = NULL;
	const char *name = body ? request_text(rq, body, "name") : NULL;
	char id[DRIVE_ID_DIGITS + 1];
	struct err err = { 0 };
	int64_t drive;
	int r;

	if (!name)
		return;
	r = auth_check_label("drive's name", name, &err);
	if (r == 0 && drive_id_new(id) < 0)
		r = err_set(&err, EIO, "no random numbers");
	if (r == 0)
		r = vault_create_drive(c->vault, rq->who.user, name, id, &drive, &err);
	if (r == -EEXIST)
		err_set(&err, EEXIST, "this user has a drive of that name already");
	if (r < 0) {
		reply_failure(rq, r, &err);
		return;
	}
	answer = json_pack("{s:s, s:s}", "id", id, "name", name);
	reply_json(rq, 201, answer);
}

void route_attach(struct request *rq, struct context *c)
{
	const struct access *a = &rq->access;
	_cleanup_json_ json_t *answer = NULL;
	struct err err = { 0 };
	uint32_t number;
	int r = auth_attach(c->db, &rq->who, a->drive, &number, &err);

	if (r < 0) {
		reply_failure(rq, r, &err);
		return;
	}
	answer = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "id", rq->drive_id, "name", a->name,
		"role", role_name(a->role), "device_number", (json_int_t)number, "head",
		(json_int_t)a->head, "created_ns", (json_int_t)a->created_ns);
	reply_json(rq, 200, answer);
}
