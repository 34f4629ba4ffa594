// SPDX-License-Identifier: Apache-2.0
#include "chunk/pack.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf again = { 0 };
	struct pack_reader reader;
	struct pack_entry e;
	int r;

	if (pack_reader_init(&reader, data, size, NULL) < 0)
		return 0;
	assert(pack_begin(&again) == 0);
	while ((r = pack_next(&reader, &e, NULL)) > 0) {
		_cleanup_buf_ struct buf plain = { 0 };

		assert(e.frame_offset + e.frame.frame_len <= size);
		r = frame_decode(e.frame_bytes, e.frame.frame_len, &e.id, &plain, NULL);
		assert(r == 0 ? plain.len == e.frame.plain_len : plain.len == 0);
		assert(pack_add_frame(&again, &e.id, e.frame_bytes, e.frame.frame_len) == 0);
	}
	if (r == 0)
		assert(again.len == size && memcmp(again.data, data, size) == 0);
	return 0;
}
