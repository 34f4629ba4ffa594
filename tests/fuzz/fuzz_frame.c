// SPDX-License-Identifier: Apache-2.0
#include "chunk/frame.h"

#include "chunk/chunker.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input is the chunk's id and a frame; the id decides, so what decodes has that id. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf out = { 0 };
	struct frame_info info;
	struct digest id, found;
	int r;

	if (size < DIGEST_BYTES)
		return 0;
	memcpy(id.b, data, DIGEST_BYTES);
	data += DIGEST_BYTES;
	size -= DIGEST_BYTES;
	if (frame_peek(data, size, &info, NULL) == 0) {
		assert(info.frame_len <= size && info.frame_len >= FRAME_HEADER_BYTES);
		assert(info.plain_len > 0 && info.plain_len <= CHUNK_MAX);
	}
	r = frame_decode(data, size, &id, &out, NULL);
	if (r < 0) {
		assert(out.len == 0);
		return 0;
	}
	assert(out.len == info.plain_len);
	digest_of(out.data, out.len, &found);
	assert(digest_eq(&found, &id));
	return 0;
}
