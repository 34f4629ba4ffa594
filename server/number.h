/* SPDX-License-Identifier: Apache-2.0 */
/* Decimal numbers in text: digits and nothing else. */
#ifndef VARVE_NUMBER_H
#define VARVE_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

static inline bool number_parse(const char *s, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9' || v > (UINT64_MAX - 9) / 10)
			return false;
		v = 10 * v + (uint64_t)(*s - '0');
	}
	if (v > max)
		return false;
	*ret = v;
	return true;
}

#endif
