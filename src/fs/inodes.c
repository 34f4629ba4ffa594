// SPDX-License-Identifier: Apache-2.0
#include "fs/inodes.h"

#include "bounds.h"
#include "clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/xattr.h>
#include <uthash.h>

/* A FUSE id that is not, or not only, the number of its node. */
struct alias {
	uint64_t id;
	uint64_t node;
	uint64_t n_lookups; /* counted for ids with the alias bit only */
	void *instance; /* retired: what its descriptors have open */
	bool retired;
	UT_hash_handle hh;
};

/* A node that does not go by its own number. */
struct moved {
	uint64_t node;
	uint64_t id; /* current */
	UT_hash_handle hh;
};

struct orphan {
	uint64_t id;
	struct node node;
	struct xattr_table xattrs;
	UT_hash_handle hh;
};

struct inodes {
	struct inodes_options options;
	_Atomic size_t n_aliases;
	_Atomic size_t n_orphans;
	pthread_mutex_t lock; /* the tables below; leaf */
	struct alias *aliases;
	struct moved *moved;
	struct orphan *orphans;
	uint64_t next_alias;
};

int inodes_new(const struct inodes_options *options, struct inodes **ret)
{
	struct inodes *t = calloc(1, sizeof *t);

	if (!t)
		return -ENOMEM;
	t->options = *options;
	t->next_alias = INODES_ALIAS_BIT;
	pthread_mutex_init(&t->lock, NULL);
	*ret = t;
	return 0;
}

static void alias_drop(struct inodes *t, struct alias *a)
{
	HASH_DEL(t->aliases, a);
	atomic_fetch_sub(&t->n_aliases, 1);
	free(a);
}

static void orphan_free(struct inodes *t, struct orphan *o)
{
	HASH_DEL(t->orphans, o);
	atomic_fetch_sub(&t->n_orphans, 1);
	xattr_table_done(&o->xattrs);
	free(o);
}

void inodes_free(struct inodes *t)
{
	struct alias *a, *next_a;
	struct moved *m, *next_m;
	struct orphan *o, *next_o;

	if (!t)
		return;
	HASH_ITER (hh, t->aliases, a, next_a) {
		if (a->instance)
			t->options.unref(t->options.ctx, a->instance);
		alias_drop(t, a);
	}
	HASH_ITER (hh, t->moved, m, next_m) {
		HASH_DEL(t->moved, m);
		free(m);
	}
	HASH_ITER (hh, t->orphans, o, next_o) {
		orphan_free(t, o);
	}
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static struct alias *alias_find(struct inodes *t, uint64_t id)
{
	struct alias *a;

	HASH_FIND(hh, t->aliases, &id, sizeof id, a);
	return a;
}

static struct moved *moved_find(struct inodes *t, uint64_t node)
{
	struct moved *m;

	HASH_FIND(hh, t->moved, &node, sizeof node, m);
	return m;
}

static struct orphan *orphan_find(struct inodes *t, uint64_t id)
{
	struct orphan *o;

	HASH_FIND(hh, t->orphans, &id, sizeof id, o);
	return o;
}

uint64_t inodes_node(struct inodes *t, uint64_t id)
{
	struct alias *a;

	if (!atomic_load(&t->n_aliases))
		return id;
	SCOPED_LOCK(&t->lock);
	a = alias_find(t, id);
	return a ? a->node : id;
}

bool inodes_retired(struct inodes *t, uint64_t id)
{
	struct alias *a;

	if (!atomic_load(&t->n_aliases))
		return false;
	SCOPED_LOCK(&t->lock);
	a = alias_find(t, id);
	return a && a->retired;
}

void *inodes_instance(struct inodes *t, uint64_t id)
{
	struct alias *a;

	if (!atomic_load(&t->n_aliases))
		return NULL;
	SCOPED_LOCK(&t->lock);
	a = alias_find(t, id);
	return a ? a->instance : NULL;
}

static uint64_t current_locked(struct inodes *t, uint64_t node)
{
	struct moved *m = moved_find(t, node);

	return m ? m->id : node;
}

uint64_t inodes_current(struct inodes *t, uint64_t node)
{
	if (!atomic_load(&t->n_aliases))
		return node;
	SCOPED_LOCK(&t->lock);
	return current_locked(t, node);
}

uint64_t inodes_entry(struct inodes *t, uint64_t node)
{
	struct alias *a;
	uint64_t id;

	if (!atomic_load(&t->n_aliases))
		return node;
	SCOPED_LOCK(&t->lock);
	id = current_locked(t, node);
	a = alias_find(t, id);
	if (a)
		a->n_lookups++;
	return id;
}

static struct alias *alias_add(struct inodes *t, uint64_t id, uint64_t node)
{
	struct alias *a = calloc(1, sizeof *a);

	if (!a)
		return NULL;
	a->id = id;
	a->node = node;
	HASH_ADD(hh, t->aliases, id, sizeof a->id, a);
	atomic_fetch_add(&t->n_aliases, 1);
	return a;
}

/* Points the node at a new alias. */
static int moved_to_new_alias(struct inodes *t, uint64_t node)
{
	struct moved *m = moved_find(t, node);
	bool added = !m;

	if (added) {
		m = calloc(1, sizeof *m);
		if (!m)
			return -ENOMEM;
		m->node = node;
		HASH_ADD(hh, t->moved, node, sizeof m->node, m);
	}
	if (alias_add(t, t->next_alias, node)) {
		m->id = t->next_alias++;
		return 0;
	}
	if (added) {
		HASH_DEL(t->moved, m);
		free(m);
	}
	return -ENOMEM;
}

int inodes_retire(struct inodes *t, uint64_t node, void *instance, uint64_t *ret_id)
{
	struct alias *a;
	uint64_t id;
	bool added;
	int r;

	SCOPED_LOCK(&t->lock);
	id = current_locked(t, node);
	a = alias_find(t, id);
	added = !a;
	if (added)
		a = alias_add(t, id, node);
	if (!a)
		return -ENOMEM;
	r = moved_to_new_alias(t, node);
	if (r < 0) {
		if (added)
			alias_drop(t, a);
		return r;
	}
	a->retired = true;
	a->instance = instance;
	*ret_id = id;
	return 0;
}

/* The node's alias is not known to the kernel: go back to its number unless that is retired. */
static void moved_back(struct inodes *t, uint64_t node)
{
	struct moved *m = moved_find(t, node);
	struct alias *current = m ? alias_find(t, m->id) : NULL;

	if (!m || alias_find(t, node) || (current && current->n_lookups > 0))
		return;
	if (current)
		alias_drop(t, current);
	HASH_DEL(t->moved, m);
	free(m);
}

/* False while the kernel still knows the id. */
static bool forgotten(struct alias *a, uint64_t n_lookups)
{
	if (!a || !(a->id & INODES_ALIAS_BIT))
		return true;
	a->n_lookups -= MIN(n_lookups, a->n_lookups);
	return a->n_lookups == 0;
}

static void orphan_drop_locked(struct inodes *t, uint64_t node)
{
	struct orphan *o = orphan_find(t, node);

	if (!o)
		return;
	orphan_free(t, o);
}

/* Returns the instance whose reference is to be given back, outside of the lock. */
static void *forget_locked(struct inodes *t, uint64_t id, uint64_t n_lookups)
{
	struct alias *a = alias_find(t, id);
	uint64_t node = a ? a->node : id;
	void *instance = NULL;

	if (!forgotten(a, n_lookups))
		return NULL;
	if (id == current_locked(t, node))
		orphan_drop_locked(t, node);
	if (!a)
		return NULL;
	if (a->retired) {
		instance = a->instance;
		alias_drop(t, a);
	}
	moved_back(t, node);
	return instance;
}

void inodes_forget(struct inodes *t, uint64_t id, uint64_t n_lookups)
{
	void *instance;

	if (!atomic_load(&t->n_aliases) && !atomic_load(&t->n_orphans))
		return;
	pthread_mutex_lock(&t->lock);
	instance = forget_locked(t, id, n_lookups);
	pthread_mutex_unlock(&t->lock);
	if (instance)
		t->options.unref(t->options.ctx, instance);
}

void inodes_entry_lost(struct inodes *t, uint64_t id)
{
	if (id & INODES_ALIAS_BIT)
		inodes_forget(t, id, 1);
}

int inodes_orphan_put(struct inodes *t, const struct node *n)
{
	struct orphan *o;

	SCOPED_LOCK(&t->lock);
	o = orphan_find(t, n->id);
	if (!o) {
		o = calloc(1, sizeof *o);
		if (!o)
			return -ENOMEM;
		o->id = n->id;
		HASH_ADD(hh, t->orphans, id, sizeof o->id, o);
		atomic_fetch_add(&t->n_orphans, 1);
	}
	o->node = *n;
	return 0;
}

bool inodes_orphan_get(struct inodes *t, uint64_t node, struct node *ret)
{
	struct orphan *o;

	if (!atomic_load(&t->n_orphans))
		return false;
	SCOPED_LOCK(&t->lock);
	o = orphan_find(t, node);
	if (!o)
		return false;
	*ret = o->node;
	return true;
}

void inodes_orphan_drop(struct inodes *t, uint64_t node)
{
	SCOPED_LOCK(&t->lock);
	orphan_drop_locked(t, node);
}

void inodes_orphan_give_xattrs(struct inodes *t, uint64_t node, struct xattr_table *l)
{
	struct orphan *o;

	SCOPED_LOCK(&t->lock);
	o = orphan_find(t, node);
	if (!o)
		return;
	xattr_table_done(&o->xattrs);
	o->xattrs = *l;
	*l = (struct xattr_table){ 0 };
}

int inodes_orphan_getxattr(struct inodes *t, uint64_t node, struct slice name, struct buf *ret)
{
	const struct xattr *x;
	struct orphan *o;

	SCOPED_LOCK(&t->lock);
	o = orphan_find(t, node);
	if (!o)
		return -ESTALE;
	x = xattr_table_find(&o->xattrs, name);
	return x ? buf_append(ret, x->value.p, x->value.n) : -ENODATA;
}

int inodes_orphan_listxattr(struct inodes *t, uint64_t node, struct buf *ret)
{
	struct orphan *o;
	int r = 0;

	SCOPED_LOCK(&t->lock);
	o = orphan_find(t, node);
	if (!o)
		return -ESTALE;
	for (size_t i = 0; i < o->xattrs.n && r == 0; i++) {
		r = buf_append(ret, o->xattrs.items[i].name.p, o->xattrs.items[i].name.n);
		if (r == 0)
			r = buf_append(ret, "", 1);
	}
	return r;
}

static int orphan_xattr_fits(
	const struct xattr_table *l, struct slice name, struct slice value, int flags)
{
	const struct xattr *had = xattr_table_find(l, name);
	size_t bytes = xattr_table_bytes(l) + name.n + value.n;

	if (had && flags & XATTR_CREATE)
		return -EEXIST;
	if (!had && flags & XATTR_REPLACE)
		return -ENODATA;
	if (had)
		bytes -= had->name.n + had->value.n;
	return bytes > XATTR_NODE_BYTES_MAX ? -ENOSPC : 0;
}

int inodes_orphan_setxattr(
	struct inodes *t, uint64_t node, struct slice name, const struct slice *value, int flags)
{
	struct orphan *o;
	int r;

	SCOPED_LOCK(&t->lock);
	o = orphan_find(t, node);
	if (!o)
		return -ESTALE;
	if (value)
		r = orphan_xattr_fits(&o->xattrs, name, *value, flags);
	else
		r = xattr_table_remove(&o->xattrs, name) ? 0 : -ENODATA;
	if (r == 0 && value)
		r = xattr_table_set(&o->xattrs, name, *value);
	if (r == 0)
		o->node.attr.ctime_ns = clock_real_ns();
	return r;
}

size_t inodes_orphans(struct inodes *t)
{
	return atomic_load(&t->n_orphans);
}
