// SPDX-License-Identifier: Apache-2.0
#include "fs/inval_queue.h"

#include <errno.h>

#define KEY_FIXED_BYTES (offsetof(struct inval_item, name) - offsetof(struct inval_item, parent))

static struct inval_item *item_new(const struct tree_event *e)
{
	bool link = e->kind == TREE_LINK;
	size_t n = link ? e->name.n : 0;
	struct inval_item *i = calloc(1, sizeof *i + n);

	if (!i)
		return NULL;
	i->name_len = n;
	if (n)
		memcpy(i->name, e->name.p, n);
	i->parent = link ? e->parent : 0;
	i->node = link ? 0 : e->node;
	return i;
}

int inval_queue_put(struct inval_queue *q, const struct tree_event *e)
{
	struct inval_item *fresh = item_new(e);
	struct inval_item *i;
	size_t key_len;

	if (!fresh)
		return -ENOMEM;
	key_len = KEY_FIXED_BYTES + fresh->name_len;
	HASH_FIND(hh, q->items, &fresh->parent, key_len, i);
	if (i) {
		free(fresh);
	} else {
		i = fresh;
		HASH_ADD(hh, q->items, parent, key_len, i);
	}
	i->kinds |= UINT32_C(1) << e->kind;
	if (e->kind == TREE_GONE && !i->was) {
		i->was = malloc(sizeof *i->was);
		if (i->was)
			*i->was = e->was;
	}
	if (e->kind == TREE_LINK)
		i->child = e->node;
	return 0;
}

size_t inval_queue_count(const struct inval_queue *q)
{
	return HASH_COUNT(q->items);
}

struct inval_queue inval_queue_take(struct inval_queue *q)
{
	struct inval_queue taken = *q;

	q->items = NULL;
	return taken;
}

void inval_queue_done(struct inval_queue *q)
{
	struct inval_item *i, *next;

	HASH_ITER (hh, q->items, i, next) {
		HASH_DEL(q->items, i);
		free(i->was);
		free(i);
	}
}
