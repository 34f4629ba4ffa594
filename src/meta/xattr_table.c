// SPDX-License-Identifier: Apache-2.0
#include "meta/xattr_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void xattr_table_done(struct xattr_table *l)
{
	for (size_t i = 0; i < l->n; i++)
		free((void *)(uintptr_t)l->items[i].name.p);
	free(l->items);
	*l = (struct xattr_table){ 0 };
}

/* Name and value in one block, which begins with the name. */
static int item_new(struct slice name, struct slice value, struct xattr *ret)
{
	uint8_t *p = malloc(name.n + value.n + 1);

	if (!p)
		return -ENOMEM;
	memcpy(p, name.p, name.n);
	if (value.n)
		memcpy(p + name.n, value.p, value.n);
	ret->name = (struct slice){ p, name.n };
	ret->value = (struct slice){ p + name.n, value.n };
	return 0;
}

static struct xattr *find(const struct xattr_table *l, struct slice name)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].name.n == name.n && !memcmp(l->items[i].name.p, name.p, name.n))
			return &l->items[i];
	return NULL;
}

int xattr_table_set(struct xattr_table *l, struct slice name, struct slice value)
{
	struct xattr *had = find(l, name), *items, item;
	int r = item_new(name, value, &item);

	if (r < 0)
		return r;
	if (had) {
		free((void *)(uintptr_t)had->name.p);
		*had = item;
		return 0;
	}
	items = reallocarray(l->items, l->n + 1, sizeof *items);
	if (!items) {
		free((void *)(uintptr_t)item.name.p);
		return -ENOMEM;
	}
	l->items = items;
	l->items[l->n++] = item;
	return 0;
}

const struct xattr *xattr_table_find(const struct xattr_table *l, struct slice name)
{
	return find(l, name);
}

bool xattr_table_remove(struct xattr_table *l, struct slice name)
{
	struct xattr *had = find(l, name);

	if (!had)
		return false;
	free((void *)(uintptr_t)had->name.p);
	*had = l->items[--l->n];
	return true;
}

size_t xattr_table_bytes(const struct xattr_table *l)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		n += l->items[i].name.n + l->items[i].value.n;
	return n;
}
