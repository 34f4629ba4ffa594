// SPDX-License-Identifier: Apache-2.0
#include "remote/client.h"

#include "chunk/chunker.h"
#include "chunk/pack.h"
#include "clock.h"
#include "remote/client_call.h"

#include <errno.h>
#include <jansson.h>
#include <stdatomic.h>
#include <string.h>

#define PATH_BYTES 192

struct client {
	struct http *http;
	char *token;
	atomic_uint_fast64_t pack_bytes_sent;
};

int client_new(const struct client_options *o, struct client **ret, struct err *err)
{
	struct http_options options = { .url = o->url, .ca_file = o->ca_file };
	struct client *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return err_sys(err, ENOMEM, "client");
	r = http_new(&options, &c->http, err);
	if (r == 0 && o->token && client_set_token(c, o->token) < 0)
		r = err_sys(err, ENOMEM, "client");
	if (r < 0) {
		client_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	http_free(c->http);
	free(c->token);
	free(c);
}

int client_set_token(struct client *c, const char *token)
{
	char *copy = strdup(token);

	if (!copy)
		return -ENOMEM;
	free(c->token);
	c->token = copy;
	return 0;
}

void client_stop(struct client *c)
{
	http_stop(c->http);
}

void client_get_counts(struct client *c, struct client_counts *ret)
{
	struct http_counts counts;

	http_get_counts(c->http, &counts);
	*ret = (struct client_counts){ .bytes_sent = counts.bytes_sent,
		.bytes_received = counts.bytes_received,
		.pack_bytes_sent = atomic_load(&c->pack_bytes_sent),
		.last_contact_ns = counts.last_contact_ns };
}

static int errno_of_status(int status)
{
	switch (status) {
	case 401:
		return EACCES;
	case 403:
		return EPERM;
	case 404:
		return ENOENT;
	case 413:
		return EMSGSIZE;
	case 429:
	case 503:
		return EBUSY;
	case 507:
		return ENOSPC;
	default:
		if (status >= 500)
			return EIO;
		return status >= 400 ? EINVAL : EBADMSG;
	}
}

/* The server's own words, from {"error": ..., "detail": ...}. */
static int refused(const struct http_response *answer, struct err *err)
{
	int e = errno_of_status(answer->status);
	const char *code = NULL, *detail = NULL;
	json_t *json = json_loadb((const char *)answer->body.data, answer->body.len, 0, NULL);

	if (json)
		(void)json_unpack(json, "{s?s,s?s}", "error", &code, "detail", &detail);
	if (detail)
		err_set(err, e, "the server says: %s", detail);
	else if (code)
		err_set(err, e, "the server says: %s", code);
	else
		err_set(err, e, "the server answers with status %d", answer->status);
	json_decref(json);
	return -e;
}

static int check_answer(
	const struct call *call, const struct http_response *answer, struct err *err)
{
	bool good = answer->status >= 200 && answer->status <= 299;

	if (!good && answer->status != call->also_good)
		return refused(answer, err);
	if (call->accept && strcmp(answer->content_type, call->accept) != 0)
		return err_set(err, EBADMSG, "the server answers with \"%s\" instead of %s",
			answer->content_type, call->accept);
	return 0;
}

struct header_texts {
	char authorization[CLIENT_TOKEN_BYTES + 32];
	char type[64];
	char accept[64];
	char number[48];
	const char *list[5];
};

static void make_headers(const struct client *c, const struct call *call, struct header_texts *h)
{
	size_t n = 0;

	if (c->token) {
		snprintf(h->authorization, sizeof h->authorization, "Authorization: Bearer %s",
			c->token);
		h->list[n++] = h->authorization;
	}
	if (call->type) {
		snprintf(h->type, sizeof h->type, "Content-Type: %s", call->type);
		h->list[n++] = h->type;
	}
	if (call->accept) {
		snprintf(h->accept, sizeof h->accept, "Accept: %s", call->accept);
		h->list[n++] = h->accept;
	}
	if (call->device_number) {
		snprintf(h->number, sizeof h->number, "Varve-Device-Number: %u",
			call->device_number);
		h->list[n++] = h->number;
	}
	h->list[n] = NULL;
}

int client_call(
	struct client *c, const struct call *call, struct http_response *ret, struct err *err)
{
	_cleanup_response_ struct http_response answer = { 0 };
	struct header_texts headers;
	struct http_request rq = { .method = call->method,
		.path = call->path,
		.headers = headers.list,
		.body = call->body,
		.body_len = call->body_len,
		.max_response_bytes = MAX(call->max_answer_bytes, JSON_BYTES_MAX),
		.silence_ms = call->silence_ms,
		.deadline_mono_ms = clock_mono_ms() + CLIENT_TIMEOUT_MS + call->silence_ms };
	int r;

	if (call->limit) {
		rq.deadline_mono_ms = call->limit->deadline_mono_ms;
		rq.cancelled = call->limit->cancelled;
	}
	make_headers(c, call, &headers);
	r = http_do(c->http, &rq, &answer, err);
	if (r == 0)
		r = check_answer(call, &answer, err);
	if (r < 0)
		return r;
	*ret = answer;
	answer = (struct http_response){ 0 };
	return 0;
}

int client_commit(struct client *c, const char *drive_id, uint32_t device_number, const void *p,
	size_t n, struct commit_reply *ret, struct arena **ret_arena, struct err *err)
{
	_cleanup_response_ struct http_response answer = { 0 };
	char path[PATH_BYTES];
	struct call call = { .method = "POST",
		.path = path,
		.body = p,
		.body_len = n,
		.type = TYPE_CBOR,
		.accept = TYPE_CBOR,
		.max_answer_bytes = JSON_BYTES_MAX,
		.device_number = device_number,
		.also_good = 409 };
	int r;

	snprintf(path, sizeof path, "/v1/drives/%s/commits", drive_id);
	r = client_call(c, &call, &answer, err);
	if (r == 0)
		r = commit_reply_decode(answer.body.data, answer.body.len, ret, ret_arena, err);
	if (r == 0 && (answer.status == 409) != (ret->seq == 0)) {
		arena_free(steal(*ret_arena));
		r = err_set(err, EBADMSG, "commit reply: contradicts status %d", answer.status);
	}
	return r;
}

int client_changes(struct client *c, const char *drive_id, uint64_t since, unsigned wait_ms,
	const struct client_limit *limit, struct changes *ret, struct arena **ret_arena,
	struct err *err)
{
	_cleanup_response_ struct http_response answer = { 0 };
	char path[PATH_BYTES];
	struct call call = { .method = "GET",
		.path = path,
		.accept = TYPE_CBOR,
		.max_answer_bytes = CHANGES_BYTES_MAX,
		.silence_ms = wait_ms,
		.limit = limit };
	int r, n;

	n = snprintf(path, sizeof path, "/v1/drives/%s/changes?since=%llu", drive_id,
		(unsigned long long)since);
	if (wait_ms && n > 0 && (size_t)n < sizeof path)
		snprintf(path + n, sizeof path - (size_t)n, "&wait_ms=%u", wait_ms);
	r = client_call(c, &call, &answer, err);
	if (r == 0)
		r = changes_decode(answer.body.data, answer.body.len, ret, ret_arena, err);
	if (r == 0 && ret->from != since) {
		arena_free(steal(*ret_arena));
		r = err_set(err, EBADMSG, "changes.from: not what was asked for");
	}
	return r;
}

int client_missing(struct client *c, const char *drive_id, const struct digest *ids, size_t n,
	struct id_list *ret, struct arena **ret_arena, struct err *err)
{
	_cleanup_response_ struct http_response answer = { 0 };
	_cleanup_buf_ struct buf body = { 0 };
	char path[PATH_BYTES];
	struct call call = { .method = "POST",
		.path = path,
		.type = TYPE_CBOR,
		.accept = TYPE_CBOR,
		.max_answer_bytes = JSON_BYTES_MAX };
	int r = id_list_encode(&(struct id_list){ ids, n }, &body);

	if (r < 0)
		return err_sys(err, -r, "id list");
	call.body = body.data;
	call.body_len = body.len;
	snprintf(path, sizeof path, "/v1/drives/%s/missing", drive_id);
	r = client_call(c, &call, &answer, err);
	if (r == 0)
		r = id_list_decode(answer.body.data, answer.body.len, n, ret, ret_arena, err);
	return r;
}

int client_put_pack(
	struct client *c, const char *drive_id, const void *p, size_t n, struct err *err)
{
	_cleanup_response_ struct http_response answer = { 0 };
	char path[PATH_BYTES];
	/* The server syncs the pack before it answers. */
	struct client_limit limit = { .deadline_mono_ms =
					      clock_mono_ms() + 10 * CLIENT_TIMEOUT_MS };
	struct call call = { .method = "POST",
		.path = path,
		.body = p,
		.body_len = n,
		.type = TYPE_PACK,
		.limit = &limit };
	int r;

	snprintf(path, sizeof path, "/v1/drives/%s/packs", drive_id);
	r = client_call(c, &call, &answer, err);
	if (r == 0)
		atomic_fetch_add(&c->pack_bytes_sent, n);
	return r;
}

/* A pack of n chunks, each as long as it can be. */
static size_t pack_bytes_of(size_t n)
{
	return 64 + n * (CHUNK_MAX + FRAME_OVERHEAD_MAX + DIGEST_BYTES);
}

int client_fetch(struct client *c, const char *drive_id, const struct digest *ids, size_t n,
	const struct client_limit *limit, struct buf *ret, struct err *err)
{
	_cleanup_response_ struct http_response answer = { 0 };
	_cleanup_buf_ struct buf body = { 0 };
	char path[PATH_BYTES];
	struct call call = { .method = "POST",
		.path = path,
		.type = TYPE_CBOR,
		.accept = TYPE_PACK,
		.max_answer_bytes = pack_bytes_of(n),
		.limit = limit };
	int r = n > FETCH_IDS_MAX ? -EINVAL : id_list_encode(&(struct id_list){ ids, n }, &body);

	if (r < 0)
		return err_sys(err, -r, "id list");
	call.body = body.data;
	call.body_len = body.len;
	snprintf(path, sizeof path, "/v1/drives/%s/fetch", drive_id);
	r = client_call(c, &call, &answer, err);
	if (r == 0 && buf_append(ret, answer.body.data, answer.body.len) < 0)
		r = err_sys(err, ENOMEM, "fetch");
	return r;
}

int client_content(struct client *c, const char *drive_id, const struct digest *id,
	const struct client_limit *limit, struct buf *ret, struct err *err)
{
	_cleanup_response_ struct http_response answer = { 0 };
	char path[PATH_BYTES], hex[DIGEST_HEX_BYTES];
	struct call call = { .method = "GET",
		.path = path,
		.accept = TYPE_MANIFEST,
		.max_answer_bytes = MANIFEST_BYTES_MAX,
		.limit = limit };
	int r;

	digest_hex(id, hex);
	snprintf(path, sizeof path, "/v1/drives/%s/contents/%s", drive_id, hex);
	r = client_call(c, &call, &answer, err);
	if (r == 0 && buf_append(ret, answer.body.data, answer.body.len) < 0)
		r = err_sys(err, ENOMEM, "content");
	return r;
}
