// SPDX-License-Identifier: Apache-2.0
#include "meta/soft.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>

struct soft_time {
	UT_hash_handle hh;
	uint64_t dir;
	uint64_t entry;
	int64_t time_ns;
};

static void remove_row(struct soft_times *s, struct soft_time *row)
{
	HASH_DEL(s->rows, row);
	free(row);
}

void soft_done(struct soft_times *s)
{
	struct soft_time *row, *next;

	HASH_ITER (hh, s->rows, row, next)
		remove_row(s, row);
}

static struct soft_time *find(const struct soft_times *s, uint64_t dir)
{
	struct soft_time *row;

	HASH_FIND(hh, s->rows, &dir, sizeof dir, row);
	return row;
}

static int set(struct soft_times *s, uint64_t dir, int64_t time_ns, uint64_t entry)
{
	struct soft_time *row = find(s, dir);

	if (!row) {
		row = calloc(1, sizeof *row);
		if (!row)
			return -ENOMEM;
		row->dir = dir;
		HASH_ADD(hh, s->rows, dir, sizeof row->dir, row);
	}
	row->time_ns = time_ns;
	row->entry = entry;
	return 0;
}

/* What was soft is in the row. */
static void end(struct soft_times *s, uint64_t dir)
{
	struct soft_time *row = find(s, dir);

	if (row)
		remove_row(s, row);
}

int soft_note(struct soft_times *s, const struct change *c, uint64_t entry)
{
	int r;

	switch (c->kind) {
	case CHANGE_RENAME:
		end(s, c->node);
		if (c->victim)
			end(s, c->victim);
		r = set(s, c->new_parent, c->time_ns, entry);
		return r < 0 ? r : set(s, c->parent, c->time_ns, entry);
	case CHANGE_CREATE:
	case CHANGE_LINK:
	case CHANGE_UNLINK:
		return set(s, c->parent, c->time_ns, entry);
	case CHANGE_SETATTR:
	case CHANGE_SETXATTR:
	case CHANGE_REMOVEXATTR:
		end(s, c->node);
		return 0;
	case CHANGE_WRITE:
		return 0;
	}
	return -EBADMSG;
}

bool soft_get(const struct soft_times *s, uint64_t dir, int64_t *ret_time_ns)
{
	struct soft_time *row = find(s, dir);

	if (row)
		*ret_time_ns = row->time_ns;
	return row;
}

void soft_forget(struct soft_times *s, uint64_t up_to)
{
	struct soft_time *row, *next;

	HASH_ITER (hh, s->rows, row, next) {
		if (row->entry <= up_to)
			remove_row(s, row);
	}
}

void soft_each(const struct soft_times *s, void (*visit)(void *ctx, uint64_t dir), void *ctx)
{
	for (struct soft_time *row = s->rows; row; row = row->hh.next)
		visit(ctx, row->dir);
}
