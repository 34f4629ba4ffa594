// SPDX-License-Identifier: Apache-2.0
/*
 * A library to be preloaded: syncs of files whose path contains one of the parts that
 * VARVE_NOSYNC lists (separated by '|') return at once and do nothing. So a test of power loss
 * can show that it would notice.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_skipped(int fd)
{
	const char *spec = getenv("VARVE_NOSYNC");
	char link[64], path[4096], parts[512], *state, *part;
	ssize_t n;

	if (!spec)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	if (n < 0)
		return 0;
	path[n] = '\0';
	snprintf(parts, sizeof parts, "%s", spec);
	for (part = strtok_r(parts, "|", &state); part; part = strtok_r(NULL, "|", &state)) {
		size_t len = strlen(part);

		/* "x$": at the end only. */
		if (len && part[len - 1] == '$') {
			if ((size_t)n >= len - 1 &&
				memcmp(path + n - (len - 1), part, len - 1) == 0)
				return 1;
		} else if (strstr(path, part)) {
			return 1;
		}
	}
	return 0;
}

static int call(const char *name, int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

	return is_skipped(fd) ? 0 : real(fd);
}

int fsync(int fd);
int fsync(int fd)
{
	return call("fsync", fd);
}

int fdatasync(int fd);
int fdatasync(int fd)
{
	return call("fdatasync", fd);
}
