/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BLAKE3-256 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn: "BLAKE3", 2020): the id of a chunk, of
 * a content, and the check of a frame. Pure; any thread.
 */
#ifndef VARVE_DIGEST_H
#define VARVE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DIGEST_BYTES 32
#define DIGEST_HEX_BYTES (2 * DIGEST_BYTES + 1)

struct digest {
	uint8_t b[DIGEST_BYTES];
};

void digest_of(const void *p, size_t n, struct digest *ret);
void digest_hex(const struct digest *d, char ret[DIGEST_HEX_BYTES]);
/* False unless s is exactly 64 hexadecimal digits. */
bool digest_parse(const char *s, struct digest *ret);

static inline bool digest_eq(const struct digest *a, const struct digest *b)
{
	return memcmp(a->b, b->b, DIGEST_BYTES) == 0;
}

static inline bool digest_is_zero(const struct digest *d)
{
	static const struct digest zero;

	return digest_eq(d, &zero);
}

#endif
