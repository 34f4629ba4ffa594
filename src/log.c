// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_BYTES 2048

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static _Atomic enum log_level max_level = LOG_LEVEL_INFO;
static const char *_Atomic line_prefix = "varve";

void log_set_level(enum log_level level)
{
	max_level = level;
}

bool log_level_parse(const char *name, enum log_level *ret_level)
{
	for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return true;
		}
	}
	return false;
}

void log_set_prefix(const char *prefix)
{
	line_prefix = prefix;
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[LOG_LINE_BYTES];
	struct timespec now;
	struct tm utc;
	va_list ap;
	size_t n;

	if (level > max_level)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
	n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s %s: ", now.tv_nsec / 1000000,
		level_names[level], line_prefix);
	va_start(ap, format);
	vsnprintf(line + n, sizeof line - n - 1, format, ap);
	va_end(ap);
	n = strlen(line);
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return; /* nowhere left to report it */
}
