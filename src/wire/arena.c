// SPDX-License-Identifier: Apache-2.0
#include "wire/arena.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BLOCK_BYTES ((size_t)1024)

struct block {
	struct block *next;
	size_t used;
	size_t size;
	_Alignas(max_align_t) uint8_t bytes[];
};

struct arena {
	struct block *blocks;
};

int arena_new(struct arena **ret)
{
	struct arena *a = calloc(1, sizeof *a);

	if (!a)
		return -ENOMEM;
	*ret = a;
	return 0;
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	while (a->blocks) {
		struct block *b = a->blocks;

		a->blocks = b->next;
		free(b);
	}
	free(a);
}

static struct block *add_block(struct arena *a, size_t n)
{
	struct block *b = malloc(sizeof *b + n);

	if (!b)
		return NULL;
	b->next = a->blocks;
	b->used = 0;
	b->size = n;
	a->blocks = b;
	return b;
}

/* The returned bytes are not cleared. */
static void *take(struct arena *a, size_t n)
{
	const size_t align = _Alignof(max_align_t);
	struct block *b = a->blocks;
	void *p;

	if (n > SIZE_MAX / 2)
		return NULL;
	n = (n + align - 1) / align * align;
	if (!b || b->size - b->used < n) {
		b = add_block(a, MAX(n, ARENA_BLOCK_BYTES));
		if (!b)
			return NULL;
	}
	p = b->bytes + b->used;
	b->used += n;
	return p;
}

void *arena_alloc(struct arena *a, size_t n)
{
	void *p = take(a, n);

	return p ? memset(p, 0, n) : NULL;
}

void *arena_dup(struct arena *a, const void *p, size_t n)
{
	void *copy = take(a, n);

	if (copy && n)
		memcpy(copy, p, n);
	return copy;
}
