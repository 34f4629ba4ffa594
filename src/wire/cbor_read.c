// SPDX-License-Identifier: Apache-2.0
#include "wire/cbor_read.h"

#include <cbor.h>
#include <errno.h>

static void on_uint8(void *ctx, uint8_t v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_UINT, .u = v };
}

static void on_uint16(void *ctx, uint16_t v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_UINT, .u = v };
}

static void on_uint32(void *ctx, uint32_t v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_UINT, .u = v };
}

static void on_uint64(void *ctx, uint64_t v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_UINT, .u = v };
}

static void on_negint8(void *ctx, uint8_t v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_NEGINT, .u = v };
}

static void on_negint16(void *ctx, uint16_t v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_NEGINT, .u = v };
}

static void on_negint32(void *ctx, uint32_t v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_NEGINT, .u = v };
}

static void on_negint64(void *ctx, uint64_t v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_NEGINT, .u = v };
}

static void on_bytes(void *ctx, cbor_data p, size_t n)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_BYTES, .s = { p, n } };
}

static void on_text(void *ctx, cbor_data p, size_t n)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_TEXT, .s = { p, n } };
}

static void on_open_bytes(void *ctx)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_OPEN_STRING, .u = TOKEN_BYTES };
}

static void on_open_text(void *ctx)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_OPEN_STRING, .u = TOKEN_TEXT };
}

static void on_array(void *ctx, size_t n)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_ARRAY, .u = n };
}

static void on_open_array(void *ctx)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_OPEN_ARRAY };
}

static void on_map(void *ctx, size_t n)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_MAP, .u = n };
}

static void on_open_map(void *ctx)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_OPEN_MAP };
}

static void on_tag(void *ctx, uint64_t v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_TAG, .u = v };
}

static void on_bool(void *ctx, bool v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_BOOL, .u = v };
}

static void on_float(void *ctx, float v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_OTHER };
}

static void on_double(void *ctx, double v)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_OTHER };
}

static void on_other(void *ctx)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_OTHER };
}

static void on_break(void *ctx)
{
	*(struct token *)ctx = (struct token){ .kind = TOKEN_BREAK };
}

static const struct cbor_callbacks callbacks = {
	.uint8 = on_uint8,
	.uint16 = on_uint16,
	.uint32 = on_uint32,
	.uint64 = on_uint64,
	.negint8 = on_negint8,
	.negint16 = on_negint16,
	.negint32 = on_negint32,
	.negint64 = on_negint64,
	.byte_string = on_bytes,
	.byte_string_start = on_open_bytes,
	.string = on_text,
	.string_start = on_open_text,
	.array_start = on_array,
	.indef_array_start = on_open_array,
	.map_start = on_map,
	.indef_map_start = on_open_map,
	.tag = on_tag,
	.boolean = on_bool,
	.float2 = on_float,
	.float4 = on_float,
	.float8 = on_double,
	.null = on_other,
	.undefined = on_other,
	.indef_break = on_break,
};

int cbor_read_token(struct cbor_reader *r, struct token *ret)
{
	struct cbor_decoder_result result;

	result = cbor_stream_decode(r->p + r->at, r->n - r->at, &callbacks, ret);
	if (result.status != CBOR_DECODER_FINISHED || result.read == 0)
		return -EBADMSG;
	r->at += result.read;
	return 0;
}

static int skip(struct cbor_reader *r, unsigned depth, bool *ret_break);

static int skip_items(struct cbor_reader *r, uint64_t n, unsigned depth)
{
	for (; n; n--) {
		bool broke;
		int k = skip(r, depth, &broke);

		if (k < 0)
			return k;
		if (broke)
			return -EBADMSG;
	}
	return 0;
}

static int skip_until_break(struct cbor_reader *r, unsigned items_at_a_time, unsigned depth)
{
	for (uint64_t i = 0;; i++) {
		bool broke;
		int k = skip(r, depth, &broke);

		if (k < 0)
			return k;
		if (broke)
			return i % items_at_a_time ? -EBADMSG : 0;
	}
}

static int skip_open_string(struct cbor_reader *r, enum token_kind kind)
{
	for (;;) {
		struct token t;
		int k = cbor_read_token(r, &t);

		if (k < 0)
			return k;
		if (t.kind == TOKEN_BREAK)
			return 0;
		if (t.kind != kind)
			return -EBADMSG;
	}
}

static int skip_inside(struct cbor_reader *r, const struct token *t, unsigned depth)
{
	switch (t->kind) {
	case TOKEN_ARRAY:
		return skip_items(r, t->u, depth);
	case TOKEN_MAP: /* each item takes a byte at least, so a count beyond that is a lie */
		return t->u > r->n ? -EBADMSG : skip_items(r, 2 * t->u, depth);
	case TOKEN_TAG:
		return skip_items(r, 1, depth);
	case TOKEN_OPEN_ARRAY:
		return skip_until_break(r, 1, depth);
	case TOKEN_OPEN_MAP:
		return skip_until_break(r, 2, depth);
	case TOKEN_OPEN_STRING:
		return skip_open_string(r, (enum token_kind)t->u);
	default:
		return 0;
	}
}

static int skip(struct cbor_reader *r, unsigned depth, bool *ret_break)
{
	struct token t;
	int k;

	if (depth > CBOR_DEPTH_MAX)
		return -EBADMSG;
	k = cbor_read_token(r, &t);
	if (k < 0)
		return k;
	k = skip_inside(r, &t, depth + 1);
	if (k < 0)
		return k;
	*ret_break = t.kind == TOKEN_BREAK;
	return 0;
}

int cbor_read_skip(struct cbor_reader *r)
{
	return skip_items(r, 1, 0);
}
