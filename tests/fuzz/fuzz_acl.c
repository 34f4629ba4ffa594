// SPDX-License-Identifier: Apache-2.0
#include "fs/acl.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf again = { 0 };
	uint32_t mode = 0, other = 02751;
	struct acl acl, child;
	bool more;

	if (acl_decode((struct slice){ data, size }, &acl) < 0)
		return 0;
	assert(acl_encode(&acl, &again) == 0);
	assert(again.len == size && memcmp(again.data, data, size) == 0);
	if (acl.n == 0)
		return 0;
	more = acl_mode(&acl, 07000, &mode);
	assert((mode & ~0777u) == 07000 && (more || acl.n == 3));
	acl_chmod(&acl, 0751);
	assert(acl_mode(&acl, 0, &mode) == more && mode == 0751);
	child = acl;
	assert(acl_inherit(&child, &other) == more && other == 02751);
	return 0;
}
