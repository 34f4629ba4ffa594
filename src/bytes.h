/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers as bytes, and sizes that cannot wrap. Formats on disk and on the wire are
 * little-endian; keys that must sort by number are big-endian. Pure; any thread.
 */
#ifndef VARVE_BYTES_H
#define VARVE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DEFINE_BYTES(name, type, to, from)             \
	static inline void put_##name(void *p, type v) \
	{                                              \
		v = to(v);                             \
		memcpy(p, &v, sizeof v);               \
	}                                              \
	static inline type get_##name(const void *p)   \
	{                                              \
		type v;                                \
		memcpy(&v, p, sizeof v);               \
		return from(v);                        \
	}

DEFINE_BYTES(le16, uint16_t, htole16, le16toh)
DEFINE_BYTES(le32, uint32_t, htole32, le32toh)
DEFINE_BYTES(le64, uint64_t, htole64, le64toh)
DEFINE_BYTES(be32, uint32_t, htobe32, be32toh)
DEFINE_BYTES(be64, uint64_t, htobe64, be64toh)

/* True when the sum or product fits; *ret is written only then. */
static inline bool add_fits(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return false;
	*ret = sum;
	return true;
}

static inline bool mul_fits(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t product;

	if (__builtin_mul_overflow(a, b, &product))
		return false;
	*ret = product;
	return true;
}

/* Writes 2 * n lower-case digits and a NUL. */
void hex_encode(const void *p, size_t n, char *ret);
/* Reads exactly 2 * n digits; false on anything else. */
bool hex_decode(const char *s, size_t slen, void *ret, size_t n);
/* Whether p[0..n) is well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates. */
bool utf8_valid(const void *p, size_t n);

#endif
