// SPDX-License-Identifier: Apache-2.0
#include "chunk/manifest.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What decodes must be sound, and encode to the bytes that it came from. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_manifest_ struct manifest *m = NULL, *again = NULL;
	struct manifest_builder *b;
	const uint8_t *p;
	uint64_t at = 0;
	size_t n;

	if (manifest_decode(data, size, &m, NULL) < 0)
		return 0;
	assert(manifest_builder_new(&b) == 0);
	for (size_t i = 0; i < manifest_count(m); i++) {
		const struct manifest_entry *e = manifest_at(m, i);

		assert(e->offset == at && e->length > 0);
		at += e->length;
		assert(manifest_find(m, e->offset) == i && manifest_find(m, at - 1) == i);
		assert((e->hole ? manifest_add_hole(b, e->length)
				: manifest_add_chunk(b, &e->id, e->length)) == 0);
	}
	assert(at == manifest_size(m));
	assert(manifest_builder_finish(b, &again) == 0);
	p = manifest_bytes(again, &n);
	assert(n == size && memcmp(p, data, n) == 0);
	assert(digest_eq(manifest_content_id(m), manifest_content_id(again)));
	return 0;
}
