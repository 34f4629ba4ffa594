// SPDX-License-Identifier: Apache-2.0
/* The routes that speak JSON: accounts and drives. */
#include "remote/client.h"

#include "bytes.h"
#include "remote/client_call.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#define DRIVE_ID_HEX 32

static void json_decref_p(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ _cleanup_(json_decref_p)

static int call_json(struct client *c, const char *method, const char *path, const json_t *body,
	json_t **ret, struct err *err)
{
	_cleanup_response_ struct http_response answer = { 0 };
	_cleanup_free_ char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	struct call call = { .method = method,
		.path = path,
		.body = text,
		.body_len = text ? strlen(text) : 0,
		.type = text ? TYPE_JSON : NULL,
		.accept = ret ? TYPE_JSON : NULL,
		.max_answer_bytes = JSON_BYTES_MAX };
	int r;

	if (body && !text)
		return err_sys(err, ENOMEM, "%s", path);
	r = client_call(c, &call, &answer, err);
	if (r < 0 || !ret)
		return r;
	*ret = json_loadb((const char *)answer.body.data, answer.body.len, 0, NULL);
	return *ret ? 0 : err_set(err, EBADMSG, "%s: the answer is not JSON", path);
}

/* Copies a text that must be there and fit. */
static int take_text(json_t *from, const char *key, char *ret, size_t size, struct err *err)
{
	const char *text = json_string_value(json_object_get(from, key));
	size_t n = text ? strlen(text) : 0;

	if (n == 0 || n >= size)
		return err_set(err, EBADMSG, "the server's answer: %s is missing or too long", key);
	memcpy(ret, text, n + 1);
	return 0;
}

static int take_number(
	json_t *from, const char *key, uint64_t min, uint64_t max, uint64_t *ret, struct err *err)
{
	json_t *v = json_object_get(from, key);
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < 0 || (uint64_t)n < min || (uint64_t)n > max)
		return err_set(
			err, EBADMSG, "the server's answer: %s is missing or out of range", key);
	*ret = (uint64_t)n;
	return 0;
}

/* Device ids are shown, not counted with: a number is fine too. */
static int take_id(json_t *from, const char *key, char *ret, size_t size, struct err *err)
{
	json_t *v = json_object_get(from, key);

	if (!json_is_integer(v))
		return take_text(from, key, ret, size, err);
	snprintf(ret, size, "%lld", (long long)json_integer_value(v));
	return 0;
}

static int take_drive_id(json_t *from, char ret[CLIENT_ID_BYTES], struct err *err)
{
	uint8_t bytes[DRIVE_ID_HEX / 2];
	int r = take_text(from, "id", ret, CLIENT_ID_BYTES, err);

	if (r == 0 && !hex_decode(ret, strlen(ret), bytes, sizeof bytes))
		r = err_set(err, EBADMSG, "the server's answer: id is not a drive's");
	return r;
}

/* It goes into a header: no control characters. */
static int check_token(const char *token, struct err *err)
{
	for (const char *p = token; *p; p++) {
		if (*p <= ' ' || *p > '~')
			return err_set(err, EBADMSG, "the server's answer: token is malformed");
	}
	return 0;
}

static int take_login(json_t *answer, struct client_login *ret, struct err *err)
{
	int r = take_text(answer, "token", ret->token, sizeof ret->token, err);

	if (r == 0)
		r = check_token(ret->token, err);
	if (r == 0)
		r = take_id(answer, "device_id", ret->device_id, sizeof ret->device_id, err);
	if (r == 0)
		r = take_text(answer, "user", ret->user, sizeof ret->user, err);
	return r;
}

/* As the number that the server gave, when it is one. */
static json_t *id_json(const char *id)
{
	char *end;
	long long number;

	errno = 0;
	number = strtoll(id, &end, 10);
	return *end || end == id || errno ? json_string(id) : json_integer(number);
}

int client_login(struct client *c, const char *user, const char *password, const char *device,
	const char *device_id, struct client_login *ret, struct err *err)
{
	_cleanup_json_ json_t *body =
		json_pack("{s:s,s:s,s:s}", "user", user, "password", password, "device", device);
	_cleanup_json_ json_t *answer = NULL;
	struct client_login login = { 0 };
	int r;

	if (!body)
		return err_set(err, EINVAL, "user, password and device must be UTF-8");
	if (device_id && json_object_set_new(body, "device_id", id_json(device_id)) < 0)
		return err_set(err, EINVAL, "the device's id must be UTF-8");
	r = call_json(c, "POST", "/v1/login", body, &answer, err);
	if (r == 0)
		r = take_login(answer, &login, err);
	if (r == 0)
		*ret = login;
	return r;
}

int client_logout(struct client *c, struct err *err)
{
	return call_json(c, "POST", "/v1/logout", NULL, NULL, err);
}

static int take_drive(json_t *from, struct client_drive *ret, struct err *err)
{
	int r = take_drive_id(from, ret->id, err);

	if (r == 0)
		r = take_text(from, "name", ret->name, sizeof ret->name, err);
	if (r == 0)
		r = take_text(from, "role", ret->role, sizeof ret->role, err);
	if (r == 0)
		r = take_number(from, "head", 0, INT64_MAX, &ret->head, err);
	return r;
}

int client_drives(struct client *c, int (*visit)(void *ctx, const struct client_drive *d),
	void *ctx, struct err *err)
{
	_cleanup_json_ json_t *answer = NULL;
	json_t *list, *item;
	size_t i;
	int r = call_json(c, "GET", "/v1/drives", NULL, &answer, err);

	if (r < 0)
		return r;
	list = json_object_get(answer, "drives");
	if (!json_is_array(list))
		return err_set(err, EBADMSG, "the server's answer: drives is missing");
	json_array_foreach(list, i, item)
	{
		struct client_drive d = { 0 };

		r = take_drive(item, &d, err);
		if (r == 0)
			r = take_text(item, "owner", d.owner, sizeof d.owner, err);
		if (r < 0)
			return r;
		r = visit(ctx, &d);
		if (r)
			return r;
	}
	return 0;
}

int client_attach(struct client *c, const char *drive_id, struct client_drive *ret, struct err *err)
{
	_cleanup_json_ json_t *answer = NULL;
	struct client_drive d = { 0 };
	uint64_t number = 0, created_ns = 0;
	char path[128];
	int r;

	snprintf(path, sizeof path, "/v1/drives/%s/attach", drive_id);
	r = call_json(c, "POST", path, NULL, &answer, err);
	if (r == 0)
		r = take_drive(answer, &d, err);
	if (r == 0)
		r = take_number(answer, "device_number", 1, NODE_DEVICE_GIVEN_MAX, &number, err);
	if (r == 0)
		r = take_number(answer, "created_ns", 0, INT64_MAX, &created_ns, err);
	if (r < 0)
		return r;
	d.device_number = (uint32_t)number;
	d.created_ns = (int64_t)created_ns;
	*ret = d;
	return 0;
}
