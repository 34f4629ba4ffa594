// SPDX-License-Identifier: Apache-2.0
#include "chunk/chunker.h"

#include "cleanup.h"

/*
 * Below NORMAL a cut needs 20 zero bits of the hash, from there on 16: two more and two fewer
 * than the 18 of the average ("normalization level 2" of the paper). With the expected length
 *	CHUNK_MIN + sum over x of P(no cut before x)
 * these give 256 KiB for NORMAL = 211 KiB.
 */
#define NORMAL ((size_t)211 * 1024)

/*
 * The hash's bit k depends on the last k + 1 bytes, so the masks take the highest bits, those
 * with the widest window. Bit 63 stays out: the first of the two bytes of a step is tested one
 * bit further left, where it has no place.
 */
#define MASK_STRICT (((UINT64_C(1) << 20) - 1) << 43)
#define MASK_EASY (((UINT64_C(1) << 16) - 1) << 47)

/* Bytes of the window: what leaves the 64-bit hash on its left has no part in it. */
#define WINDOW 64

/*
 * Hashes p[at..end) onto *hash; returns the position behind the first byte whose hash has no
 * bit of the mask, or 0 when there is none.
 */
static size_t scan(const uint8_t *p, size_t at, size_t end, uint64_t mask, uint64_t *hash)
{
	uint64_t h = *hash;

	for (; at + 2 <= end; at += 2) {
		h = (h << 2) + (gear_table[p[at]] << 1);
		if (!(h & mask << 1))
			return at + 1;
		h += gear_table[p[at + 1]];
		if (!(h & mask))
			return at + 2;
	}
	if (at < end) {
		h = (h << 1) + gear_table[p[at]];
		if (!(h & mask))
			return at + 1;
	}
	*hash = h;
	return 0;
}

size_t chunker_cut(const uint8_t *p, size_t n)
{
	size_t end = MIN(n, CHUNK_MAX), cut;
	uint64_t hash = 0;

	if (end <= CHUNK_MIN)
		return end;
	for (size_t i = CHUNK_MIN - WINDOW; i < CHUNK_MIN - 1; i++)
		hash = (hash << 1) + gear_table[p[i]];
	cut = scan(p, CHUNK_MIN - 1, MIN(end, NORMAL), MASK_STRICT, &hash);
	if (!cut && end > NORMAL)
		cut = scan(p, NORMAL, end, MASK_EASY, &hash);
	return cut ? cut : end;
}
