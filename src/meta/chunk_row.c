// SPDX-License-Identifier: Apache-2.0
/*
 * CF_CHUNK: the key is the chunk's id (32 bytes), the value one of
 *
 *	kind 1, inlined		u8 kind, u8 flags, the bytes (1 to CHUNK_INLINE_MAX)
 *	kind 2, in a segment	u8 kind, u8 flags, le64 segment, le64 offset, le32 length
 *
 * A change of layout is a new kind. Valid: a known kind, exactly its length, a length of 1 to
 * CHUNK_MAX, a segment that is not 0, no overflow of offset + length.
 */
#include "meta/chunk_row.h"

#include "bounds.h"
#include "bytes.h"
#include "chunk/chunker.h"

#include <errno.h>

enum { /* stored: only append */
	KIND_INLINED = 1,
	KIND_SEGMENT = 2,
};

static int decode_inlined(const uint8_t *p, size_t n, struct chunk_row *ret)
{
	size_t len = n - CHUNK_ROW_INLINE_HEADER;

	if (len < 1 || len > CHUNK_INLINE_MAX)
		return -EBADMSG;
	*ret = (struct chunk_row){
		.flags = p[1],
		.inlined = true,
		.bytes = { p + CHUNK_ROW_INLINE_HEADER, len },
		.length = (uint32_t)len,
	};
	return 0;
}

static int decode_segment(const uint8_t *p, size_t n, struct chunk_row *ret)
{
	struct chunk_row row = { .flags = p[1] };
	uint64_t end;

	if (n != CHUNK_ROW_SEGMENT_BYTES)
		return -EBADMSG;
	row.segment = get_le64(p + 2);
	row.offset = get_le64(p + 10);
	row.length = get_le32(p + 18);
	if (row.segment == 0 || row.length == 0 || row.length > CHUNK_MAX)
		return -EBADMSG;
	if (!add_fits(row.offset, row.length, &end) || end > INT64_MAX)
		return -EBADMSG;
	*ret = row;
	return 0;
}

int chunk_row_decode(const void *p, size_t n, struct chunk_row *ret)
{
	const uint8_t *b = p;

	if (n < CHUNK_ROW_INLINE_HEADER)
		return -EBADMSG;
	if (b[0] == KIND_INLINED)
		return decode_inlined(b, n, ret);
	if (b[0] == KIND_SEGMENT)
		return decode_segment(b, n, ret);
	return -EBADMSG;
}

int chunk_row_encode(const struct chunk_row *row, struct buf *ret)
{
	uint8_t b[CHUNK_ROW_SEGMENT_BYTES] = { KIND_SEGMENT, (uint8_t)row->flags };
	int r;

	if (row->inlined) {
		b[0] = KIND_INLINED;
		r = buf_reserve(ret, CHUNK_ROW_INLINE_HEADER + row->bytes.n);
		if (r == 0)
			r = buf_append(ret, b, CHUNK_ROW_INLINE_HEADER);
		if (r == 0)
			r = buf_append(ret, row->bytes.p, row->bytes.n);
		return r;
	}
	put_le64(b + 2, row->segment);
	put_le64(b + 10, row->offset);
	put_le32(b + 18, row->length);
	return buf_append(ret, b, sizeof b);
}
