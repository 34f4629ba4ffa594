/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that starts a daemon again when it dies, with nothing but that in it.
 *
 *	starting --ready--> serving --clean end--> done
 *	   |                   |  crash
 *	   | failure           v
 *	   v               pausing --time--> starting
 *	 done (at the first start), or pausing
 *
 * The first restart is at once; pauses double from then on. It gives up after CRASHES_MAX of them
 * within CRASH_WINDOW_MS: then something is wrong that starting again does not mend. A start that
 * fails for want of room or memory is tried again for as long as that lasts.
 *
 * SIGTERM and SIGINT go to the daemon, and there is no restart after them. The process that calls
 * has one thread; the daemon is forked from it, and inherits what is open.
 */
#ifndef VARVE_CLI_SUPERVISE_H
#define VARVE_CLI_SUPERVISE_H

#include "cleanup.h"

/* What a daemon ends with when its start failed for something that passes by itself. */
#define EXIT_PASSING 75 /* EX_TEMPFAIL of sysexits.h */

struct supervised {
	/*
	 * The daemon, in its own process: its exit status. It writes "+" to ready_fd when it
	 * serves, or "-" and why it does not.
	 */
	int (*run)(void *ctx, int ready_fd);
	void *ctx;
	const char *mountpoint;
	int ready_fd; /* who waits for the first start; -1 for nobody. Closed when that is known. */
};

/* Returns the exit status when it is over. */
int supervise(struct supervised *s);

#endif
