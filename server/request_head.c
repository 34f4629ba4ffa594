// SPDX-License-Identifier: Apache-2.0
#include "request_head.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* More digits than any body has, and fewer than would wrap. */
#define LENGTH_DIGITS_MAX 18

static bool is_token(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!s[i] || (!isalnum((unsigned char)s[i]) && !strchr("!#$%&'*+-.^_`|~", s[i])))
			return false;
	}
	return n > 0;
}

void request_head_add(struct request_head *h, const char *name, size_t name_len, const char *value,
	size_t value_len)
{
	h->bytes += name_len + value_len + strlen(": \r\n");
	if (!is_token(name, name_len) || (value && memchr(value, '\0', value_len)))
		h->bad = true;
	if (strcasecmp(name, "Content-Length") == 0) {
		h->lengths++;
		h->length = value;
	}
	if (strcasecmp(name, "Transfer-Encoding") == 0) {
		h->encodings++;
		h->encoding = value;
	}
	h->hosts += strcasecmp(name, "Host") == 0;
	h->tokens += strcasecmp(name, "Authorization") == 0;
}

static bool is_length(const char *s)
{
	size_t n = s ? strspn(s, "0123456789") : 0;

	return n > 0 && n <= LENGTH_DIGITS_MAX && s[n] == '\0';
}

const char *request_head_check(
	const struct request_head *h, const char *version, uint64_t *ret_body_length)
{
	if (h->bad)
		return "a header is malformed";
	if (h->lengths + h->encodings > 1)
		return "more than one header says how long the body is";
	if (h->hosts > 1 || h->tokens > 1)
		return "a header is given twice";
	if (h->lengths && !is_length(h->length))
		return "Content-Length is not a number";
	if (h->encodings && (!h->encoding || strcasecmp(h->encoding, "chunked") != 0 ||
				    strcmp(version, "HTTP/1.1") != 0))
		return "Transfer-Encoding is not understood";
	if (h->encodings)
		*ret_body_length = BODY_LENGTH_UNKNOWN;
	else
		*ret_body_length = h->lengths ? strtoull(h->length, NULL, 10) : 0;
	return NULL;
}
