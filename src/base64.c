// SPDX-License-Identifier: Apache-2.0
#include "base64.h"

#include <errno.h>
#include <stdbool.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void encode_group(const uint8_t *b, size_t n, uint8_t out[4])
{
	uint32_t v = (uint32_t)b[0] << 16;

	if (n > 1)
		v |= (uint32_t)b[1] << 8;
	if (n > 2)
		v |= b[2];
	out[0] = (uint8_t)digits[v >> 18];
	out[1] = (uint8_t)digits[v >> 12 & 63];
	out[2] = n > 1 ? (uint8_t)digits[v >> 6 & 63] : '=';
	out[3] = n > 2 ? (uint8_t)digits[v & 63] : '=';
}

int base64_encode(const void *p, size_t n, struct buf *ret)
{
	const uint8_t *b = p;
	int r = buf_reserve(ret, (n + 2) / 3 * 4);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i += 3, ret->len += 4)
		encode_group(b + i, MIN(n - i, 3), ret->data + ret->len);
	return 0;
}

static int digit_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* One group of four digits, of which the last `pad` are '='. False: not one. */
static bool decode_group(const char *s, size_t pad, uint8_t *out)
{
	uint32_t v = 0;

	for (size_t i = 0; i < 4; i++) {
		int d = i < 4 - pad ? digit_value(s[i]) : 0;

		if (d < 0)
			return false;
		v = v << 6 | (uint32_t)d;
	}
	if (v & ((1u << (8 * pad)) - 1))
		return false;
	for (size_t i = 0; i < 3 - pad; i++)
		out[i] = (uint8_t)(v >> (16 - 8 * i));
	return true;
}

static size_t padding(const char *s, size_t n)
{
	if (n == 0 || s[n - 1] != '=')
		return 0;
	return s[n - 2] == '=' ? 2 : 1;
}

int base64_decode(const char *s, size_t n, struct buf *ret)
{
	size_t pad, len = ret->len;
	int r;

	if (n % 4)
		return -EBADMSG;
	pad = padding(s, n);
	r = buf_reserve(ret, n / 4 * 3);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i += 4) {
		size_t group_pad = i + 4 == n ? pad : 0;

		if (!decode_group(s + i, group_pad, ret->data + len))
			return -EBADMSG;
		len += 3 - group_pad;
	}
	ret->len = len;
	return 0;
}
