// SPDX-License-Identifier: Apache-2.0
#include "clock.h"

#include <stddef.h>
#include <time.h>

static int64_t (*real_source)(void);
static int64_t (*mono_source)(void);

static int64_t read_clock(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

int64_t clock_real_ns(void)
{
	return real_source ? real_source() : read_clock(CLOCK_REALTIME);
}

int64_t clock_mono_ns(void)
{
	return mono_source ? mono_source() : read_clock(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
	return clock_mono_ns() / NS_PER_MS;
}

void clock_set_source(int64_t (*real_ns)(void), int64_t (*mono_ns)(void))
{
	real_source = real_ns;
	mono_source = mono_ns;
}
