// SPDX-License-Identifier: Apache-2.0
/* The first byte says which message; the rest is its bytes. What decodes must encode again. */
#include "bounds.h"
#include "wire/wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int r)
{
	if (r < 0)
		abort();
}

static void fuzz_change(const uint8_t *p, size_t n)
{
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };
	struct change c;

	if (change_decode(p, n, &c, &arena, NULL) == 0)
		must(change_encode(&c, &b));
}

static void fuzz_commit(const uint8_t *p, size_t n)
{
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };
	struct commit c;

	if (commit_decode(p, n, &c, &arena, NULL) == 0)
		must(commit_encode(&c, &b));
}

static void fuzz_reply(const uint8_t *p, size_t n)
{
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };
	struct commit_reply c;

	if (commit_reply_decode(p, n, &c, &arena, NULL) == 0)
		must(commit_reply_encode(&c, &b));
}

static void fuzz_changes(const uint8_t *p, size_t n)
{
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };
	struct changes c;

	if (changes_decode(p, n, &c, &arena, NULL) == 0)
		must(changes_encode(&c, &b));
}

static void fuzz_ids(const uint8_t *p, size_t n)
{
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };
	struct id_list l;

	if (id_list_decode(p, n, MISSING_IDS_MAX, &l, &arena, NULL) == 0)
		must(id_list_encode(&l, &b));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[])(const uint8_t *, size_t) = { fuzz_change, fuzz_commit,
		fuzz_reply, fuzz_changes, fuzz_ids };

	if (size)
		targets[data[0] % ARRAY_SIZE(targets)](data + 1, size - 1);
	return 0;
}
