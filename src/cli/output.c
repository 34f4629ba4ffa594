// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE_BYTES 4096

static bool progress_shown;

/* C0 and DEL; C1 as UTF-8 (0xc2 0x80..0x9f), which terminals obey, too. */
static void defuse(char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)s[0];

		if (c < ' ' || c == 0x7f)
			*s = '?';
		else if (c == 0xc2 && ((unsigned char)s[1] & 0xe0) == 0x80)
			s[0] = s[1] = '?';
	}
}

static void message(const char *what, const char *format, va_list ap, const char *see)
{
	char text[MESSAGE_BYTES];

	vsnprintf(text, sizeof text, format, ap);
	defuse(text);
	progress_clear();
	if (see)
		fprintf(stderr, "varve: %s: %s; see 'varve %s --help'\n", what, text, see);
	else
		fprintf(stderr, "varve: %s: %s\n", what, text);
}

int cli_fail(const char *what, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	message(what, format, ap, NULL);
	va_end(ap);
	return EXIT_FAILED;
}

int cli_misuse(const char *command, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	message(command, format, ap, command);
	va_end(ap);
	return EXIT_MISUSED;
}

void cli_note(const char *what, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	message(what, format, ap, NULL);
	va_end(ap);
}

void cli_say(const char *format, ...)
{
	char text[MESSAGE_BYTES];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	defuse(text);
	puts(text);
}

int finish_output(const char *command)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return EXIT_DONE;
	return cli_fail(command, "cannot write the output: %s", strerror(errno));
}

int print_json(const json_t *value)
{
	if (json_dumpf(value, stdout, JSON_INDENT(2)) < 0 || putchar('\n') == EOF)
		return cli_fail("json", "cannot write the output: %s", strerror(errno));
	return finish_output("json");
}

static int table_grow(struct table *t)
{
	char **grown = reallocarray(t->cells, (t->rows + 1) * t->columns, sizeof *grown);

	if (!grown)
		return -ENOMEM;
	t->cells = grown;
	memset(grown + t->rows * t->columns, 0, t->columns * sizeof *grown);
	t->rows++;
	return 0;
}

void table_row(struct table *t, ...)
{
	va_list ap;

	if (t->failed || table_grow(t) < 0) {
		t->failed = true;
		return;
	}
	va_start(ap, t);
	for (size_t i = 0; i < t->columns; i++) {
		char *cell = strdup(va_arg(ap, const char *));

		if (cell)
			defuse(cell);
		else
			t->failed = true;
		t->cells[(t->rows - 1) * t->columns + i] = cell;
	}
	va_end(ap);
}

/* Characters of UTF-8, which is what a terminal's columns are for most scripts. */
static int text_width(const char *s)
{
	int n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

int table_print(const struct table *t, FILE *out)
{
	int width[TABLE_COLUMNS_MAX] = { 0 };

	if (t->failed)
		return -ENOMEM;
	for (size_t i = 0; i < t->rows * t->columns; i++) {
		int w = text_width(t->cells[i]);

		if (w > width[i % t->columns])
			width[i % t->columns] = w;
	}
	for (size_t i = 0; i < t->rows * t->columns; i++) {
		size_t column = i % t->columns;

		fputs(t->cells[i], out);
		if (column + 1 == t->columns)
			fputc('\n', out);
		else
			fprintf(out, "%*s", width[column] - text_width(t->cells[i]) + 2, "");
	}
	return 0;
}

void table_done(struct table *t)
{
	for (size_t i = 0; i < t->rows * t->columns; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct table){ 0 };
}

const char *bytes_text(uint64_t n, char ret[BYTES_TEXT_MAX])
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)n / 1024;
	size_t i = 0;

	if (n < 1024) {
		snprintf(ret, BYTES_TEXT_MAX, "%u B", (unsigned)n);
		return ret;
	}
	for (; value >= 1023.95 && i < sizeof units / sizeof units[0] - 1; i++)
		value /= 1024;
	snprintf(ret, BYTES_TEXT_MAX, "%.1f %s", value, units[i]);
	return ret;
}

const char *count_text(uint64_t n, const char *one, char ret[COUNT_TEXT_MAX])
{
	snprintf(ret, COUNT_TEXT_MAX, "%llu %s%s", (unsigned long long)n, one, n == 1 ? "" : "s");
	return ret;
}

void progress_show(const char *format, ...)
{
	char text[MESSAGE_BYTES];
	va_list ap;

	if (!isatty(STDERR_FILENO))
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	defuse(text);
	/* Back to the line's start, the text, and the rest of the line emptied. */
	fprintf(stderr, "\r%.100s\033[K", text);
	progress_shown = true;
}

void progress_clear(void)
{
	if (progress_shown)
		fputs("\r\033[K", stderr);
	progress_shown = false;
}
