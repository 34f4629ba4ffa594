// SPDX-License-Identifier: Apache-2.0
#include "wire/cbor_write.h"

#include <cbor.h>

/* A head and its argument take at most this. */
#define HEAD_BYTES_MAX 9

static bool ready(struct cbor_writer *w)
{
	if (w->result == 0)
		w->result = buf_reserve(w->b, HEAD_BYTES_MAX);
	return w->result == 0;
}

static unsigned char *tail(struct cbor_writer *w)
{
	return w->b->data + w->b->len;
}

void cbor_write_uint(struct cbor_writer *w, uint64_t v)
{
	if (ready(w))
		w->b->len += cbor_encode_uint(v, tail(w), HEAD_BYTES_MAX);
}

void cbor_write_int(struct cbor_writer *w, int64_t v)
{
	if (v >= 0)
		cbor_write_uint(w, (uint64_t)v);
	else if (ready(w)) /* CBOR stores -1 - v, which is ~v */
		w->b->len += cbor_encode_negint(~(uint64_t)v, tail(w), HEAD_BYTES_MAX);
}

void cbor_write_bool(struct cbor_writer *w, bool v)
{
	if (ready(w))
		w->b->len += cbor_encode_bool(v, tail(w), HEAD_BYTES_MAX);
}

void cbor_write_bytes(struct cbor_writer *w, const void *p, size_t n)
{
	if (!ready(w))
		return;
	w->b->len += cbor_encode_bytestring_start(n, tail(w), HEAD_BYTES_MAX);
	w->result = buf_append(w->b, p, n);
}

void cbor_write_text(struct cbor_writer *w, const void *p, size_t n)
{
	if (!ready(w))
		return;
	w->b->len += cbor_encode_string_start(n, tail(w), HEAD_BYTES_MAX);
	w->result = buf_append(w->b, p, n);
}

void cbor_write_array(struct cbor_writer *w, size_t n)
{
	if (ready(w))
		w->b->len += cbor_encode_array_start(n, tail(w), HEAD_BYTES_MAX);
}

void cbor_write_map(struct cbor_writer *w, size_t n)
{
	if (ready(w))
		w->b->len += cbor_encode_map_start(n, tail(w), HEAD_BYTES_MAX);
}
