/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable run of bytes. One thread. {0} is an empty buffer; buf_done() releases it.
 * Functions return 0 or -ENOMEM and leave the buffer as it was on failure.
 */
#ifndef VARVE_BUF_H
#define VARVE_BUF_H

#include "cleanup.h"

#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data;
	size_t len;
	size_t cap;
};

void buf_done(struct buf *b);
/* Empties without giving the memory back. */
void buf_clear(struct buf *b);
/* Room for n more bytes behind len. */
int buf_reserve(struct buf *b, size_t n) must_check;
int buf_append(struct buf *b, const void *p, size_t n) must_check;
/* printf; no NUL is counted in len, but one always follows the text. */
int buf_printf(struct buf *b, const char *format, ...) must_check
	__attribute__((format(printf, 2, 3)));
/* Makes the bytes a C string (a NUL behind them, not counted). NULL when out of memory. */
char *buf_str(struct buf *b);

#define _cleanup_buf_ _cleanup_(buf_done)

#endif
