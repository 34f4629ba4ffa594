/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on stderr: "<time> <level> <text>". Any thread; a line is written with one write().
 * Library code logs at debug only; the boundary that answers or drops an error logs it once.
 */
#ifndef VARVE_LOG_H
#define VARVE_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above this level are dropped. The start value is LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);
/* Reads a level's name ("error", "warn", "info", "debug"); false on anything else. */
bool log_level_parse(const char *name, enum log_level *ret_level);
/* What stands before each text, such as the program's name. Not copied. */
void log_set_prefix(const char *prefix);
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
