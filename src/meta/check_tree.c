// SPDX-License-Identifier: Apache-2.0
/*
 * Nodes, links, names, xattrs and base rows against each other: all but base rows are sorted by
 * node, so one walk over them side by side sees all that belongs to a node at once.
 */
#include "meta/check_impl.h"

#include "bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PROGRESS_STEP 4096

/* A walk over one family whose keys begin with a node's id. */
struct walk {
	struct store_iter *it;
	bool any;
	uint64_t id;
	struct slice key, value;
};

struct dir_entry {
	uint64_t id, parent;
	uint8_t state; /* 0 not looked at, 1 reaches the root, 2 does not, 3 being looked at */
};

struct tree_check {
	struct check *c;
	struct walk links, names, xattrs;
	struct dir_entry *dirs;
	size_t n_dirs, dirs_cap;
	/* Of the node at hand: */
	uint64_t id;
	struct node_rec rec;
	uint64_t n_names, n_subdirs, n_xattrs;
	bool derived_wrong;
};

static void tree_check_done(struct tree_check *t)
{
	store_iter_free(t->links.it);
	store_iter_free(t->names.it);
	store_iter_free(t->xattrs.it);
	free(t->dirs);
}

static int walk_read(struct walk *w)
{
	int r = store_iter_valid(w->it);

	w->any = r > 0;
	if (r <= 0)
		return r;
	w->key = store_iter_key(w->it);
	w->value = store_iter_value(w->it);
	w->id = w->key.n >= 8 ? get_be64(w->key.p) : 0;
	return 0;
}

static int walk_begin(struct check *c, enum store_cf cf, struct walk *ret)
{
	int r = store_snapshot_iter(c->at, cf, &ret->it);

	return r < 0 ? r : walk_read(ret);
}

static int walk_next(struct walk *w)
{
	store_iter_next(w->it);
	return walk_read(w);
}

/* What a row's dirtiness says must be in the outbox. */
static void check_entry(struct tree_check *t, const char *what, uint64_t id, uint64_t entry)
{
	if (entry > t->c->acked && !number_has(&t->c->entries, entry))
		check_say_tree(t->c, "%s %llx was changed by entry %llu, which the outbox lacks",
			what, (unsigned long long)id, (unsigned long long)entry);
}

static int get_node(struct tree_check *t, uint64_t id, struct buf *row, struct node_rec *ret)
{
	struct row_key k = key_id(id);
	int r;

	buf_clear(row);
	r = store_snapshot_get(t->c->at, CF_NODE, k.b, k.n, row);
	if (r <= 0)
		return r;
	return node_decode((struct slice){ row->data, row->len }, ret) < 0 ? 0 : 1;
}

/* 1 when that name leads to the node. */
static int leads_to(struct tree_check *t, uint64_t parent, struct slice name, uint64_t node)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct row_key k = key_link(parent, name);
	struct link_rec rec;
	int r = store_snapshot_get(t->c->at, CF_LINK, k.b, k.n, &row);

	if (r <= 0)
		return r;
	return link_decode((struct slice){ row.data, row.len }, &rec) == 0 && rec.node == node;
}

/* Whether the node knows the name that leads to it. */
static int knows_name(struct tree_check *t, uint64_t node, const struct node_rec *rec,
	uint64_t parent, struct slice name)
{
	struct row_key k;

	if (rec->parent == parent && slice_eq(rec->name, name))
		return 1;
	k = key_name(node, parent, name);
	return store_snapshot_get(t->c->at, CF_NAMES, k.b, k.n, NULL);
}

static int check_link(struct tree_check *t)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct node_rec child;
	struct link_rec link;
	struct slice name;
	uint64_t parent;
	int r;

	t->c->result.links++;
	if (key_link_parse(t->links.key, &parent, &name) < 0 || !name_valid(name) ||
		link_decode(t->links.value, &link) < 0) {
		check_say_tree(t->c, "a name in directory %llx is malformed",
			(unsigned long long)t->links.id);
		return 0;
	}
	check_entry(t, "a name in directory", parent, link.entry);
	r = get_node(t, link.node, &row, &child);
	if (r < 0)
		return r;
	if (r == 0 || (child.attr.mode & S_IFMT) != link.type) {
		check_say_tree(t->c, "\"%.*s\" in directory %llx leads to %s", (int)name.n,
			(const char *)name.p, (unsigned long long)parent,
			r ? "a node of another type" : "no node");
		return 0;
	}
	t->n_subdirs += S_ISDIR(link.type);
	r = knows_name(t, link.node, &child, parent, name);
	if (r == 0)
		r = number_add(&t->c->derived, link.node);
	return MIN(r, 0);
}

static int check_name(struct tree_check *t)
{
	struct slice name;
	uint64_t parent;
	int r = key_name_parse(t->names.key, &parent, &name);

	t->n_names++;
	if (r == 0)
		r = leads_to(t, parent, name, t->names.id);
	if (r == 0 || r == -EBADMSG)
		t->derived_wrong = true;
	return r == -EBADMSG ? 0 : MIN(r, 0);
}

static int check_xattr(struct tree_check *t)
{
	struct slice name, value;
	uint64_t id, entry;

	t->n_xattrs++;
	if (key_child_parse(t->xattrs.key, &id, &name) < 0 ||
		xattr_decode(t->xattrs.value, &entry, &value) < 0) {
		check_say_tree(t->c, "an xattr of node %llx is malformed",
			(unsigned long long)t->xattrs.id);
		return 0;
	}
	check_entry(t, "an xattr of node", id, entry);
	return 0;
}

static int orphan(struct tree_check *t, struct walk *w)
{
	if (w == &t->names)
		return number_add(&t->c->derived, w->id);
	check_say_tree(t->c, "%s of node %llx, which is not there",
		w == &t->links ? "a name in the directory" : "an xattr", (unsigned long long)w->id);
	return 0;
}

/* The rows of the walk that belong to the node at hand; those before it belong to nobody. */
static int take_rows(
	struct tree_check *t, struct walk *w, uint64_t id, int (*visit)(struct tree_check *t))
{
	int r = 0;

	while (r == 0 && w->any && w->id <= id) {
		r = w->id < id ? orphan(t, w) : visit(t);
		if (r == 0)
			r = walk_next(w);
	}
	return r;
}

static int take_rest(struct tree_check *t, struct walk *w)
{
	int r = 0;

	while (r == 0 && w->any) {
		r = orphan(t, w);
		if (r == 0)
			r = walk_next(w);
	}
	return r;
}

static int remember_dir(struct tree_check *t)
{
	if (t->n_dirs == t->dirs_cap) {
		size_t cap = t->dirs_cap ? 2 * t->dirs_cap : 1024;
		struct dir_entry *dirs = reallocarray(t->dirs, cap, sizeof *dirs);

		if (!dirs)
			return -ENOMEM;
		t->dirs = dirs;
		t->dirs_cap = cap;
	}
	t->dirs[t->n_dirs++] = (struct dir_entry){ t->id, t->rec.parent, 0 };
	return 0;
}

static int check_content(struct tree_check *t)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	const struct node_attr *a = &t->rec.attr;
	int r;

	if (digest_is_zero(&a->content)) {
		if (a->size)
			check_say_tree(t->c, "file %llx has %llu bytes and no content",
				(unsigned long long)t->id, (unsigned long long)a->size);
		return 0;
	}
	r = check_manifest(t->c->at,
		t->rec.tag & NODE_INLINE_MANIFEST ? t->rec.payload : (struct slice){ 0 },
		&a->content, &m);
	if (r < 0)
		return r;
	if (r == 0 || manifest_size(m) != a->size)
		check_say_tree(t->c, "the list of chunks of file %llx is %s",
			(unsigned long long)t->id, r ? "of another size" : "missing or damaged");
	return 0;
}

static int check_names(struct tree_check *t)
{
	uint64_t names = t->n_names + (t->rec.name.n > 0);
	bool known = t->id == NODE_ROOT;
	int r = 0;

	if (t->id != NODE_ROOT && t->rec.name.n) {
		r = leads_to(t, t->rec.parent, t->rec.name, t->id);
		known = r > 0;
	}
	if (r < 0)
		return r;
	if (!known || t->derived_wrong || t->rec.links != names || t->rec.subdirs != t->n_subdirs)
		return number_add(&t->c->derived, t->id);
	if (S_ISDIR(t->rec.attr.mode) && names > 1)
		check_say_tree(t->c, "directory %llx has %llu names", (unsigned long long)t->id,
			(unsigned long long)names);
	return 0;
}

static void check_own_id(struct tree_check *t)
{
	uint64_t mask = (UINT64_C(1) << NODE_DEVICE_SHIFT) - 1;

	if (t->c->state_known && node_device(t->id) == t->c->device &&
		(t->id & mask) >= t->c->counter)
		check_say_tree(t->c,
			"node %llx was never given by this device, but bears its "
			"number",
			(unsigned long long)t->id);
}

static int check_node(struct tree_check *t, struct slice key, struct slice value)
{
	int r;

	t->n_names = t->n_subdirs = t->n_xattrs = 0;
	t->derived_wrong = false;
	if (key_id_parse(key, &t->id) < 0 || node_decode(value, &t->rec) < 0) {
		check_say_tree(t->c, "the row of a node is malformed");
		return 0;
	}
	check_entry(t, "node", t->id, t->rec.entry);
	check_own_id(t);
	r = take_rows(t, &t->links, t->id, check_link);
	if (r == 0)
		r = take_rows(t, &t->names, t->id, check_name);
	if (r == 0)
		r = take_rows(t, &t->xattrs, t->id, check_xattr);
	if (r == 0)
		r = check_names(t);
	if (r == 0 && t->n_xattrs && !(t->rec.tag & NODE_HAS_XATTRS))
		check_say_tree(
			t->c, "node %llx does not know of its xattrs", (unsigned long long)t->id);
	if (r == 0 && S_ISREG(t->rec.attr.mode))
		r = check_content(t);
	return r == 0 && S_ISDIR(t->rec.attr.mode) ? remember_dir(t) : r;
}

static int check_nodes(struct tree_check *t)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	uint64_t total = store_estimate(t->c->o->store, CF_NODE);
	int r = store_snapshot_iter(t->c->at, CF_NODE, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		r = check_node(t, store_iter_key(it), store_iter_value(it));
		if (r == 0 && ++t->c->result.nodes % PROGRESS_STEP == 0) {
			check_progress(t->c, "files", t->c->result.nodes, total);
			r = check_stopped(t->c);
		}
		if (r < 0)
			return r;
	}
	if (r == 0)
		r = take_rest(t, &t->links);
	if (r == 0)
		r = take_rest(t, &t->names);
	return r == 0 ? take_rest(t, &t->xattrs) : r;
}

/* ---- directories reach the root ---- */

static int compare_dirs(const void *a, const void *b)
{
	const struct dir_entry *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static struct dir_entry *find_dir(struct tree_check *t, uint64_t id)
{
	struct dir_entry key = { .id = id };

	return t->n_dirs ? bsearch(&key, t->dirs, t->n_dirs, sizeof key, compare_dirs) : NULL;
}

/* Goes up to what is known, then marks the way. */
static void settle_dir(struct tree_check *t, struct dir_entry *from)
{
	struct dir_entry *d = from;
	uint8_t state;

	while (d && d->state == 0 && d->id != NODE_ROOT) {
		d->state = 3;
		d = find_dir(t, d->parent);
	}
	state = d && (d->id == NODE_ROOT || d->state == 1) ? 1 : 2;
	if (d && d->state == 0)
		d->state = state;
	for (d = from; d && d->state == 3; d = find_dir(t, d->parent))
		d->state = state;
}

static void check_ways_up(struct tree_check *t)
{
	if (!find_dir(t, NODE_ROOT)) {
		check_say_tree(t->c, "the root directory is missing");
		return;
	}
	for (size_t i = 0; i < t->n_dirs; i++) {
		struct dir_entry *d = &t->dirs[i];

		if (d->state == 0)
			settle_dir(t, d);
		if (d->state == 2)
			check_say_tree(t->c,
				"the way up from directory %llx does not end at the "
				"root",
				(unsigned long long)d->id);
	}
}

/* ---- base rows ---- */

static bool base_row_ok(enum store_cf cf, struct slice row)
{
	struct node_rec node;
	struct link_rec link;
	struct slice value;
	uint64_t entry;

	if (cf == CF_NODE)
		return node_decode(row, &node) == 0;
	return cf == CF_LINK ? link_decode(row, &link) == 0
			     : xattr_decode(row, &entry, &value) == 0;
}

static int check_base(struct tree_check *t)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(t->c->at, CF_BASE, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct base_rec rec;
		struct slice key;
		enum store_cf cf;

		if (key_of_base(store_iter_key(it), &cf, &key) < 0 ||
			base_decode(store_iter_value(it), &rec) < 0 ||
			(rec.present && !base_row_ok(cf, rec.row)))
			check_say_tree(t->c, "what the server has below a change is malformed");
	}
	return r;
}

int check_tree(struct check *c)
{
	_cleanup_(tree_check_done) struct tree_check t = { .c = c };
	int r = walk_begin(c, CF_LINK, &t.links);

	if (r == 0)
		r = walk_begin(c, CF_NAMES, &t.names);
	if (r == 0)
		r = walk_begin(c, CF_XATTR, &t.xattrs);
	if (r == 0)
		r = check_nodes(&t);
	if (r < 0)
		return r;
	check_ways_up(&t);
	return check_base(&t);
}
