// SPDX-License-Identifier: Apache-2.0
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *format, ...)
{
	va_list ap;

	if (!err)
		return -code;
	err->code = code;
	va_start(ap, format);
	vsnprintf(err->text, sizeof err->text, format, ap);
	va_end(ap);
	return -code;
}

int err_sys(struct err *err, int code, const char *format, ...)
{
	va_list ap;
	size_t n;

	if (!err)
		return -code;
	err->code = code;
	va_start(ap, format);
	vsnprintf(err->text, sizeof err->text, format, ap);
	va_end(ap);
	n = strlen(err->text);
	snprintf(err->text + n, sizeof err->text - n, ": %s", strerror(code));
	return -code;
}

void err_prefix(struct err *err, const char *format, ...)
{
	char old[ERR_TEXT_BYTES];
	va_list ap;
	size_t n;

	if (!err)
		return;
	memcpy(old, err->text, sizeof old);
	va_start(ap, format);
	vsnprintf(err->text, sizeof err->text, format, ap);
	va_end(ap);
	n = strlen(err->text);
	snprintf(err->text + n, sizeof err->text - n, ": %s", old);
}
