// SPDX-License-Identifier: Apache-2.0
#include "reply.h"

#include "bytes.h"
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#define RETRY_AFTER_S "1"

bool media_type_is(const char *text, const char *type)
{
	size_t n = strlen(type);

	text += strspn(text, " \t");
	return strncasecmp(text, type, n) == 0 && (!text[n] || strchr(",; \t", text[n]));
}

static void answer_json(struct exchange *x, unsigned status, const json_t *json)
{
	struct buf b = { 0 };

	if (json)
		b.data = (uint8_t *)json_dumps(json, JSON_COMPACT);
	if (!b.data) {
		exchange_answer(x, 503, NULL, NULL);
		return;
	}
	b.len = strlen((char *)b.data);
	exchange_answer(x, status, TYPE_JSON, &b);
}

void answer_error(struct exchange *x, unsigned status, const char *code, const char *detail)
{
	/* A detail can quote what was asked, cut anywhere. */
	bool shown = utf8_valid(detail, strlen(detail));
	_cleanup_json_ json_t *json = json_pack(
		"{s:s, s:s}", "error", code, "detail", shown ? detail : "the reason is not UTF-8");

	if (status == 401)
		exchange_answer_header(x, "WWW-Authenticate", "Bearer");
	if (status == 503)
		exchange_answer_header(x, "Retry-After", RETRY_AFTER_S);
	answer_json(x, status, json);
}

void reply_empty(struct request *rq, unsigned status)
{
	exchange_answer(rq->x, status, NULL, NULL);
	exchange_done(rq->x);
}

void reply_bytes(struct request *rq, unsigned status, const char *type, struct buf *body)
{
	exchange_answer(rq->x, status, type, body);
	exchange_done(rq->x);
}

void reply_json(struct request *rq, unsigned status, const json_t *json)
{
	answer_json(rq->x, status, json);
	exchange_done(rq->x);
}

void reply_error(struct request *rq, unsigned status, const char *code, const char *format, ...)
{
	char detail[ERR_TEXT_BYTES];
	va_list ap;

	va_start(ap, format);
	vsnprintf(detail, sizeof detail, format, ap);
	va_end(ap);
	answer_error(rq->x, status, code, detail);
	exchange_done(rq->x);
}

static const struct {
	int code;
	unsigned status;
	const char *error;
} failures[] = {
	{ EACCES, 401, "unauthorized" },
	{ EPERM, 403, "forbidden" },
	{ ENOENT, 404, "not_found" },
	{ EEXIST, 409, "exists" },
	{ EINVAL, 400, "invalid" },
	{ EBADMSG, 400, "malformed" },
	{ ENOTSUP, 400, "not_supported" },
	{ EFBIG, 413, "too_large" },
	{ E2BIG, 413, "too_large" },
	{ EMSGSIZE, 413, "too_large" },
	{ EDQUOT, 403, "exhausted" },
};

static const struct {
	int code;
	unsigned status;
	const char *error;
	const char *detail;
} own_failures[] = {
	{ EBUSY, 503, "busy", "the server is busy; try again" },
	{ EAGAIN, 503, "busy", "the server is busy; try again" },
	{ ENOMEM, 503, "busy", "the server is out of memory; try again" },
	{ ENOSPC, 507, "store_full", "the server's store is full" },
};

void reply_failure(struct request *rq, int r, const struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
		if (failures[i].code == -r) {
			reply_error(rq, failures[i].status, failures[i].error, "%s", err->text);
			return;
		}
	}
	log_error("%s %s: %s", rq->route->method, exchange_path(rq->x), err->text);
	for (size_t i = 0; i < ARRAY_SIZE(own_failures); i++) {
		if (own_failures[i].code == -r) {
			reply_error(rq, own_failures[i].status, own_failures[i].error, "%s",
				own_failures[i].detail);
			return;
		}
	}
	reply_error(rq, 500, "internal", "the server failed; its log tells why");
}
