/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long to pause before the next try: doubling from min_ms to max_ms, less up to half of it
 * by chance, so that many devices do not come back in step. Pure: chance is handed in. One
 * thread.
 */
#ifndef VARVE_RETRY_H
#define VARVE_RETRY_H

#include <stdint.h>

struct retry {
	uint32_t min_ms;
	uint32_t max_ms;
	uint32_t next_ms; /* 0: as after retry_reset() */
};

/* The line is good again: the next pause is the shortest. */
void retry_reset(struct retry *r);
/* The pause before the next try, in [pause / 2, pause]; `chance` is any 32 random bits. */
uint32_t retry_pause_ms(struct retry *r, uint32_t chance);

#endif
