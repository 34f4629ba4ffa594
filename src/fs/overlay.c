// SPDX-License-Identifier: Apache-2.0
#include "fs/overlay.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* A leaf of 2 KiB: cheap for the file with one extent, few of them for a million. */
#define LEAF_EXTENTS 64

struct overlay_leaf {
	size_t n;
	struct extent extents[LEAF_EXTENTS];
};

/* An extent's place; leaf == n_leaves is the end. */
struct place {
	size_t leaf;
	size_t index;
};

void overlay_done(struct overlay *o)
{
	for (size_t i = 0; i < o->n_leaves; i++)
		free(o->leaves[i]);
	free(o->leaves);
	free(o->spare[0]);
	free(o->spare[1]);
	*o = (struct overlay){ 0 };
}

int overlay_reserve(struct overlay *o)
{
	if (o->n_leaves + 2 > o->capacity) {
		size_t capacity = o->capacity ? 2 * o->capacity : 2;
		struct overlay_leaf **leaves = realloc(o->leaves, capacity * sizeof *leaves);

		if (!leaves)
			return -ENOMEM;
		o->leaves = leaves;
		o->capacity = capacity;
	}
	/* A leaf splits only when full: one is enough while all have room. */
	for (size_t i = 0; i < (o->n_leaves ? ARRAY_SIZE(o->spare) : 1); i++) {
		if (!o->spare[i] && !(o->spare[i] = malloc(sizeof *o->spare[i])))
			return -ENOMEM;
	}
	return 0;
}

static struct overlay_leaf *take_spare(struct overlay *o)
{
	size_t i = o->spare[0] ? 0 : 1;

	assert(o->spare[i] && o->n_leaves < o->capacity);
	o->spare[i]->n = 0;
	return steal(o->spare[i]);
}

static struct extent *at(const struct overlay *o, struct place p)
{
	return &o->leaves[p.leaf]->extents[p.index];
}

static bool is_end(const struct overlay *o, struct place p)
{
	return p.leaf >= o->n_leaves;
}

static struct place next(const struct overlay *o, struct place p)
{
	if (++p.index == o->leaves[p.leaf]->n)
		p = (struct place){ p.leaf + 1, 0 };
	return p;
}

/* The first extent whose end is behind `offset`. */
static struct place find(const struct overlay *o, uint64_t offset)
{
	size_t low = 0, high = o->n_leaves;
	struct place p;

	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct overlay_leaf *leaf = o->leaves[mid];

		if (leaf->extents[leaf->n - 1].end > offset)
			high = mid;
		else
			low = mid + 1;
	}
	p = (struct place){ low, 0 };
	if (is_end(o, p))
		return p;
	high = o->leaves[p.leaf]->n;
	for (low = 0; low < high;) {
		size_t mid = (low + high) / 2;

		if (o->leaves[p.leaf]->extents[mid].end > offset)
			high = mid;
		else
			low = mid + 1;
	}
	p.index = low;
	return p;
}

static void account(struct overlay *o, const struct extent *e, int sign)
{
	o->count += (size_t)sign;
	if (e->kind == EXTENT_STAGED)
		o->staged_bytes += (uint64_t)sign * (e->end - e->start);
}

static void drop_leaf(struct overlay *o, size_t i)
{
	free(o->leaves[i]);
	o->n_leaves--;
	memmove(o->leaves + i, o->leaves + i + 1, (o->n_leaves - i) * sizeof *o->leaves);
}

/* Removes the extent; what followed it is at the same place, or at the next leaf's begin. */
static struct place erase(struct overlay *o, struct place p)
{
	struct overlay_leaf *leaf = o->leaves[p.leaf];

	account(o, at(o, p), -1);
	leaf->n--;
	memmove(leaf->extents + p.index, leaf->extents + p.index + 1,
		(leaf->n - p.index) * sizeof *leaf->extents);
	if (leaf->n == 0)
		drop_leaf(o, p.leaf);
	else if (p.index == leaf->n)
		p = (struct place){ p.leaf + 1, 0 };
	return p;
}

static void insert_leaf(struct overlay *o, size_t i)
{
	struct overlay_leaf *leaf = take_spare(o);

	memmove(o->leaves + i + 1, o->leaves + i, (o->n_leaves - i) * sizeof *o->leaves);
	o->leaves[i] = leaf;
	o->n_leaves++;
}

/* Makes room in the leaf of p by moving its upper half to a new one. */
static struct place split(struct overlay *o, struct place p)
{
	struct overlay_leaf *low = o->leaves[p.leaf], *high;
	/* Appending goes on in an almost empty leaf, so that sequences fill theirs. */
	size_t keep = p.index == LEAF_EXTENTS ? LEAF_EXTENTS - 1 : LEAF_EXTENTS / 2;

	insert_leaf(o, p.leaf + 1);
	high = o->leaves[p.leaf + 1];
	high->n = low->n - keep;
	memcpy(high->extents, low->extents + keep, high->n * sizeof *high->extents);
	low->n = keep;
	if (p.index > keep)
		p = (struct place){ p.leaf + 1, p.index - keep };
	return p;
}

/* Puts the extent before the one at p. */
static void insert(struct overlay *o, struct place p, const struct extent *e)
{
	struct overlay_leaf *leaf;

	if (is_end(o, p) && o->n_leaves)
		p = (struct place){ o->n_leaves - 1, o->leaves[o->n_leaves - 1]->n };
	if (o->n_leaves == 0)
		insert_leaf(o, 0);
	if (o->leaves[p.leaf]->n == LEAF_EXTENTS)
		p = split(o, p);
	leaf = o->leaves[p.leaf];
	memmove(leaf->extents + p.index + 1, leaf->extents + p.index,
		(leaf->n - p.index) * sizeof *leaf->extents);
	leaf->extents[p.index] = *e;
	leaf->n++;
	account(o, e, 1);
}

static void trim(struct overlay *o, struct extent *e, uint64_t start, uint64_t end)
{
	account(o, e, -1);
	e->pos += start - e->start;
	e->start = start;
	e->end = end;
	account(o, e, 1);
}

/* Takes [start, end) out of all extents. */
static void carve(struct overlay *o, uint64_t start, uint64_t end)
{
	struct place p = find(o, start);
	struct extent *e;

	if (!is_end(o, p) && at(o, p)->start < start) {
		struct extent right = *at(o, p);

		e = at(o, p);
		trim(o, e, e->start, start);
		p = next(o, p);
		if (right.end > end) {
			right.pos += end - right.start;
			right.start = end;
			insert(o, p, &right);
			return;
		}
	}
	while (!is_end(o, p) && at(o, p)->end <= end)
		p = erase(o, p);
	if (!is_end(o, p) && at(o, p)->start < end) {
		e = at(o, p);
		trim(o, e, end, e->end);
	}
}

static bool goes_on(const struct extent *a, const struct extent *b)
{
	return a->kind == b->kind && a->end == b->start &&
	       (a->kind == EXTENT_ZERO || a->pos + (a->end - a->start) == b->pos);
}

static bool previous(const struct overlay *o, struct place p, struct place *ret)
{
	if (p.leaf == 0 && p.index == 0)
		return false;
	if (p.index)
		*ret = (struct place){ p.leaf, p.index - 1 };
	else
		*ret = (struct place){ p.leaf - 1, o->leaves[p.leaf - 1]->n - 1 };
	return true;
}

void overlay_set(struct overlay *o, const struct extent *e)
{
	struct extent joined = *e;
	struct place p, before;

	assert(e->start < e->end);
	carve(o, e->start, e->end);
	p = find(o, e->start);
	if (!is_end(o, p) && goes_on(&joined, at(o, p))) {
		joined.end = at(o, p)->end;
		p = erase(o, p);
	}
	if (previous(o, p, &before) && goes_on(at(o, before), &joined)) {
		trim(o, at(o, before), at(o, before)->start, joined.end);
		return;
	}
	insert(o, p, &joined);
}

bool overlay_find(const struct overlay *o, uint64_t offset, struct extent *ret)
{
	struct place p = find(o, offset);

	if (is_end(o, p))
		return false;
	*ret = *at(o, p);
	return true;
}

bool overlay_covers(const struct overlay *o, uint64_t start, uint64_t end)
{
	struct extent e;

	while (start < end) {
		if (!overlay_find(o, start, &e) || e.start > start)
			return false;
		start = e.end;
	}
	return true;
}

bool overlay_is_staged(const struct overlay *o, uint64_t start, uint64_t end)
{
	struct extent e;

	while (start < end) {
		if (!overlay_find(o, start, &e) || e.start > start || e.kind != EXTENT_STAGED)
			return false;
		start = e.end;
	}
	return true;
}
