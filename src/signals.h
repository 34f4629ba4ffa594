/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals as calls on a thread of their own, where locks may be taken. signals_new() must come
 * before the program makes its first thread, so that all inherit the blocked mask.
 */
#ifndef VARVE_SIGNALS_H
#define VARVE_SIGNALS_H

#include "cleanup.h"

struct signals;

/*
 * Blocks SIGINT and SIGTERM and calls `stop` for each that comes, with how many have come;
 * ignores SIGHUP and SIGPIPE.
 */
int signals_new(
	void (*stop)(void *ctx, unsigned count), void *ctx, struct signals **ret) must_check;
/* No call runs any more when it returns. */
void signals_free(struct signals *s);

#endif
