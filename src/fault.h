/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named points at which a test can kill the program or make a call fail.
 *
 * VARVE_FAULT=NAME:N:kill	SIGKILL at the N-th pass (from 1) of the point NAME
 * VARVE_FAULT=NAME:N:ERRNO	fault_point() returns -ERRNO at the N-th pass and after
 *
 * Without the variable a point costs one load. Any thread.
 */
#ifndef VARVE_FAULT_H
#define VARVE_FAULT_H

#include <stdbool.h>

extern bool fault_armed;

/* Reads VARVE_FAULT once, at the program's start. -EINVAL when it does not parse. */
int fault_init(void);
int fault_hit(const char *name);

/* 0, or the negative errno that the test asked for. */
static inline int fault_point(const char *name)
{
	return __builtin_expect(fault_armed, 0) ? fault_hit(name) : 0;
}

/* Where nothing can fail any more: a point for "kill" alone. */
static inline void fault_instant(const char *name)
{
	if (__builtin_expect(fault_armed, 0))
		(void)fault_hit(name);
}

#endif
