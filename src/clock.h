/* SPDX-License-Identifier: Apache-2.0 */
/* Time, through one place that tests can replace. Any thread. */
#ifndef VARVE_CLOCK_H
#define VARVE_CLOCK_H

#include <stdint.h>

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)
#define MS_PER_S INT64_C(1000)

/* Wall time in nanoseconds since 1970 (UTC), as timestamps of files carry it. */
int64_t clock_real_ns(void);
/* A clock that never goes back, for deadlines and durations. */
int64_t clock_mono_ms(void);
int64_t clock_mono_ns(void);

/* Replaces both clocks (tests only); NULL brings the real one back. */
void clock_set_source(int64_t (*real_ns)(void), int64_t (*mono_ns)(void));

#endif
