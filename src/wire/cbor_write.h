/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CBOR out, in its shortest forms, so that the same values always give the same bytes. The first
 * failure stays in `result` and later calls do nothing. One thread per writer.
 */
#ifndef VARVE_CBOR_WRITE_H
#define VARVE_CBOR_WRITE_H

#include "wire/wire.h"

struct cbor_writer {
	struct buf *b;
	int result;
};

void cbor_write_uint(struct cbor_writer *w, uint64_t v);
void cbor_write_int(struct cbor_writer *w, int64_t v);
void cbor_write_bool(struct cbor_writer *w, bool v);
void cbor_write_bytes(struct cbor_writer *w, const void *p, size_t n);
void cbor_write_text(struct cbor_writer *w, const void *p, size_t n);
void cbor_write_array(struct cbor_writer *w, size_t n);
void cbor_write_map(struct cbor_writer *w, size_t n);

#endif
