// SPDX-License-Identifier: Apache-2.0
#include "fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool fault_armed;

static char fault_name[64];
static unsigned long fault_count;
static int fault_errno; /* 0: kill */
static atomic_ulong passes;

int fault_init(void)
{
	const char *spec = getenv("VARVE_FAULT");
	char action[16];

	if (!spec || !*spec)
		return 0;
	if (sscanf(spec, "%63[^:]:%lu:%15s", fault_name, &fault_count, action) != 3 ||
		fault_count == 0)
		return -EINVAL;
	if (strcmp(action, "kill") != 0) {
		fault_errno = atoi(action);
		if (fault_errno <= 0)
			return -EINVAL;
	}
	fault_armed = true;
	return 0;
}

int fault_hit(const char *name)
{
	if (strcmp(name, fault_name) != 0)
		return 0;
	if (atomic_fetch_add(&passes, 1) + 1 < fault_count)
		return 0;
	if (fault_errno == 0)
		kill(getpid(), SIGKILL);
	return -fault_errno;
}
