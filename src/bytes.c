// SPDX-License-Identifier: Apache-2.0
#include "bytes.h"

void hex_encode(const void *p, size_t n, char *ret)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++) {
		*ret++ = digits[b[i] >> 4];
		*ret++ = digits[b[i] & 15];
	}
	*ret = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool hex_decode(const char *s, size_t slen, void *ret, size_t n)
{
	uint8_t *out = ret;

	if (slen != 2 * n)
		return false;
	for (size_t i = 0; i < slen; i++) {
		if (hex_digit(s[i]) < 0)
			return false;
	}
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)(hex_digit(s[2 * i]) << 4 | hex_digit(s[2 * i + 1]));
	return true;
}

bool utf8_valid(const void *p, size_t n)
{
	const uint8_t *s = p, *end = s + n;

	while (s < end) {
		uint32_t c = *s++, min;
		int more;

		if (c < 0x80)
			continue;
		if ((c & 0xe0) == 0xc0) {
			more = 1;
			c &= 0x1f;
			min = 0x80;
		} else if ((c & 0xf0) == 0xe0) {
			more = 2;
			c &= 0x0f;
			min = 0x800;
		} else if ((c & 0xf8) == 0xf0) {
			more = 3;
			c &= 0x07;
			min = 0x10000;
		} else {
			return false;
		}
		for (; more; more--) {
			if (s == end || (*s & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*s++ & 0x3f);
		}
		if (c < min || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
			return false;
	}
	return true;
}
