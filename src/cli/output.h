/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people see: errors, tables, progress, JSON. Text from elsewhere (names, the server's
 * words) is shown with its control characters replaced, so that it cannot command a terminal.
 * One thread.
 */
#ifndef VARVE_CLI_OUTPUT_H
#define VARVE_CLI_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_MISUSED = 2 };

/* Prints "varve: WHAT: text" on stderr; returns EXIT_FAILED. */
int cli_fail(const char *what, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints "varve: COMMAND: text; see 'varve COMMAND --help'"; returns EXIT_MISUSED. */
int cli_misuse(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints a line "varve: WHAT: text" that is no failure, on stderr. */
void cli_note(const char *what, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints a line on stdout; finish_output() tells whether it got there. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* EXIT_DONE, or EXIT_FAILED when stdout could not take it. */
int print_json(const json_t *value);
/* What a command that printed ends with: EXIT_FAILED when stdout is full or closed. */
int finish_output(const char *command);

#define TABLE_COLUMNS_MAX 8
struct table {
	size_t columns;
	size_t rows; /* with the heading */
	char **cells; /* rows * columns */
	bool failed; /* out of memory: told by table_print() */
};
/* Adds a row of `columns` texts (const char *), of which the first row is the heading. */
void table_row(struct table *t, ...);
/* 0, -ENOMEM. */
int table_print(const struct table *t, FILE *out);
void table_done(struct table *t);

/* "0 B", "1.5 MiB". */
#define BYTES_TEXT_MAX 24
const char *bytes_text(uint64_t n, char ret[BYTES_TEXT_MAX]);
/* "1 change", "2 changes". */
#define COUNT_TEXT_MAX 64
const char *count_text(uint64_t n, const char *one, char ret[COUNT_TEXT_MAX]);

/* A line that replaces itself, on stderr when that is a terminal; nothing otherwise. */
void progress_show(const char *format, ...) __attribute__((format(printf, 1, 2)));
void progress_clear(void);

#endif
