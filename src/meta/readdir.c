// SPDX-License-Identifier: Apache-2.0
/*
 * A walk over one directory's names, on a snapshot of the store. A place is the number of
 * entries before it. Keys of every MARK_STEP-th entry are kept, so that a seek back walks a
 * bounded way, and a million entries cost a thousand keys.
 */
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MARK_STEP 1024

struct mark {
	size_t n;
	uint8_t *key;
};

struct tree_dir {
	struct tree *tree;
	struct store_iter *it;
	uint64_t dir;
	uint64_t place; /* where `it` stands */
	bool given; /* the entry there: its name is in use until the next call */
	struct mark *marks; /* [i]: the key at place i * MARK_STEP */
	size_t n_marks;
	size_t cap;
};

static void marks_clear(struct tree_dir *d)
{
	for (size_t i = 0; i < d->n_marks; i++)
		free(d->marks[i].key);
	d->n_marks = 0;
}

static int rewind_dir(struct tree_dir *d)
{
	struct row_key k = key_id(d->dir);
	struct store_iter *it;
	int r = store_iter_new(d->tree->store, CF_LINK, k.b, k.n, &it);

	if (r < 0)
		return r;
	store_iter_seek(it, k.b, k.n);
	store_iter_free(d->it);
	d->it = it;
	d->place = 0;
	d->given = false;
	marks_clear(d);
	return 0;
}

int tree_opendir(struct tree *t, uint64_t dir, struct tree_dir **ret)
{
	struct tree_dir *d;
	struct node node;
	int r = tree_get(t, dir, &node);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	if (!S_ISDIR(node.attr.mode))
		return -ENOTDIR;
	d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	d->tree = t;
	d->dir = dir;
	r = rewind_dir(d);
	if (r < 0) {
		tree_closedir(d);
		return r;
	}
	*ret = d;
	return 0;
}

void tree_closedir(struct tree_dir *d)
{
	if (!d)
		return;
	marks_clear(d);
	free(d->marks);
	store_iter_free(d->it);
	free(d);
}

/* At a place that is a multiple of MARK_STEP and has no mark yet. */
static int add_mark(struct tree_dir *d)
{
	struct slice key = store_iter_key(d->it);
	struct mark m = { .n = key.n };

	if (d->n_marks == d->cap) {
		size_t cap = d->cap ? d->cap * 2 : 16;
		struct mark *marks = realloc(d->marks, cap * sizeof *marks);

		if (!marks)
			return -ENOMEM;
		d->marks = marks;
		d->cap = cap;
	}
	m.key = malloc(key.n);
	if (!m.key)
		return -ENOMEM;
	memcpy(m.key, key.p, key.n);
	d->marks[d->n_marks++] = m;
	return 0;
}

/* 1 when `it` stands on an entry; sees to the mark. */
static int here(struct tree_dir *d)
{
	int r = store_iter_valid(d->it);

	if (r > 0 && d->place == d->n_marks * MARK_STEP)
		r = add_mark(d);
	return r < 0 ? r : store_iter_valid(d->it);
}

static void step(struct tree_dir *d)
{
	store_iter_next(d->it);
	d->place++;
	d->given = false;
}

int tree_seekdir(struct tree_dir *d, uint64_t place)
{
	int r = 1;

	if (place == 0)
		return rewind_dir(d);
	if (d->given)
		step(d);
	if (place < d->place && d->n_marks) {
		size_t i = (size_t)MIN(place / MARK_STEP, (uint64_t)d->n_marks - 1);

		store_iter_seek(d->it, d->marks[i].key, d->marks[i].n);
		d->place = i * MARK_STEP;
	}
	while (d->place < place && (r = here(d)) > 0)
		step(d);
	return MIN(r, 0);
}

int tree_readdir(struct tree_dir *d, struct tree_dirent *ret)
{
	struct link_rec rec;
	struct slice name;
	uint64_t parent;
	int r;

	if (d->given)
		step(d);
	r = here(d);
	if (r <= 0)
		return r;
	r = link_decode(store_iter_value(d->it), &rec);
	if (r == 0)
		r = key_child_parse(store_iter_key(d->it), &parent, &name);
	if (r < 0)
		return r;
	*ret = (struct tree_dirent){ name, rec.node, rec.type, d->place + 1 };
	d->given = true;
	return 1;
}
