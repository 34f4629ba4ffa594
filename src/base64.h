/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as text: RFC 4648, section 4, with padding. Pure; any thread. */
#ifndef VARVE_BASE64_H
#define VARVE_BASE64_H

#include "buf.h"

/* Appends the text; no NUL. -ENOMEM. */
int base64_encode(const void *p, size_t n, struct buf *ret) must_check;
/*
 * Appends the bytes. -EBADMSG on anything that base64_encode() would not write, -ENOMEM; what
 * stands behind ret->len is undefined then, ret->len is as it was.
 */
int base64_decode(const char *s, size_t n, struct buf *ret) must_check;

#endif
