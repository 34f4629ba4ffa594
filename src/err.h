/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An error that can be printed as it is: "what: why; what to do". Engines with richer errors
 * than an errno fill one; callers that do not care pass NULL. One thread.
 */
#ifndef VARVE_ERR_H
#define VARVE_ERR_H

#define ERR_TEXT_BYTES 512

struct err {
	int code; /* an errno value, positive */
	char text[ERR_TEXT_BYTES];
};

/* Fills *err (when not NULL) and returns -code, so that a caller can `return err_set(...)`. */
int err_set(struct err *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* As err_set(), with ": " and the text of the errno value behind. */
int err_sys(struct err *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Puts "prefix: " before the text that is there. */
void err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
