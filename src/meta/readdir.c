// SPDX-License-Identifier: Apache-2.0
/*
 * A walk over one directory's names. They lie in the order of their hashes, so a name has the same
 * place for as long as it is there, whatever comes and goes beside it; who goes on from a place,
 * at any time and without anybody remembering him, sees what is behind it, once.
 *
 * A place is LINK_PLACE_BITS of the hash, then, in ORDINAL_BITS, which of the names that share
 * them: 1 as good as always.
 */
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define ORDINAL_BITS 8
#define ORDINAL_MAX ((1u << ORDINAL_BITS) - 1)

struct tree_dir {
	struct tree *tree;
	struct store_iter *it;
	uint64_t dir;
	uint64_t place; /* of the entry given last */
	bool given; /* `it` stands on it still: its name is in use until the next call */
};

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
	*ret = d;
	return 0;
}

void tree_closedir(struct tree_dir *d)
{
	if (!d)
		return;
	store_iter_free(d->it);
	free(d);
}

/* The place of the entry that `it` stands on, behind the one at `before`. */
static uint64_t place_here(struct tree_dir *d, uint64_t before)
{
	uint64_t place = key_link_place(store_iter_key(d->it)) << ORDINAL_BITS;

	return (before >> ORDINAL_BITS) == (place >> ORDINAL_BITS) ? before + 1 : place + 1;
}

/* To the first entry behind the place. */
int tree_seekdir(struct tree_dir *d, uint64_t place)
{
	struct row_key dir = key_id(d->dir);
	struct row_key first = key_link_at(d->dir, place >> ORDINAL_BITS);
	uint64_t before = place & ~(uint64_t)ORDINAL_MAX;
	struct store_iter *it;
	int r = store_iter_new(d->tree->store, CF_LINK, dir.b, dir.n, &it);

	if (r < 0)
		return r;
	store_iter_free(d->it);
	d->it = it;
	d->given = false;
	d->place = place;
	store_iter_seek(it, first.b, first.n);
	while (before < place && (r = store_iter_valid(it)) > 0) {
		uint64_t here = place_here(d, before);

		if (here > place)
			break;
		before = here;
		store_iter_next(it);
	}
	return MIN(r, 0);
}

int tree_readdir(struct tree_dir *d, struct tree_dirent *ret)
{
	struct link_rec rec;
	struct slice name;
	uint64_t parent;
	int r = d->it ? 0 : tree_seekdir(d, 0);

	if (r < 0)
		return r;
	if (d->given)
		store_iter_next(d->it);
	d->given = false;
	r = store_iter_valid(d->it);
	if (r <= 0)
		return r;
	r = link_decode(store_iter_value(d->it), &rec);
	if (r == 0)
		r = key_link_parse(store_iter_key(d->it), &parent, &name);
	if (r < 0)
		return r;
	d->place = place_here(d, d->place);
	if ((d->place & ORDINAL_MAX) == 0)
		return -EBADMSG;
	*ret = (struct tree_dirent){ name, rec.node, rec.type, d->place };
	d->given = true;
	return 1;
}
