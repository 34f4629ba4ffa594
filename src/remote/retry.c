// SPDX-License-Identifier: Apache-2.0
#include "remote/retry.h"

void retry_reset(struct retry *r)
{
	r->next_ms = 0;
}

uint32_t retry_pause_ms(struct retry *r, uint32_t chance)
{
	uint32_t pause = r->next_ms ? r->next_ms : r->min_ms;
	uint32_t half = pause / 2;

	if (pause > r->max_ms)
		pause = r->max_ms;
	r->next_ms = pause > r->max_ms / 2 ? r->max_ms : pause * 2;
	return pause - (uint32_t)((uint64_t)half * chance >> 32);
}
