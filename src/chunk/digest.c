// SPDX-License-Identifier: Apache-2.0
#include "chunk/digest.h"

#include "bytes.h"

#include <blake3.h>

void digest_of(const void *p, size_t n, struct digest *ret)
{
	blake3_hasher h;

	blake3_hasher_init(&h);
	blake3_hasher_update(&h, p, n);
	blake3_hasher_finalize(&h, ret->b, DIGEST_BYTES);
}

void digest_hex(const struct digest *d, char ret[DIGEST_HEX_BYTES])
{
	hex_encode(d->b, DIGEST_BYTES, ret);
}

bool digest_parse(const char *s, struct digest *ret)
{
	return hex_decode(s, strlen(s), ret->b, DIGEST_BYTES);
}
