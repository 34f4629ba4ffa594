// SPDX-License-Identifier: Apache-2.0
#include "fs/invalidate.h"

#include "bounds.h"
#include "clock.h"
#include "fs/inval_queue.h"
#include "log.h"

#include <errno.h>
#include <string.h>

struct invalidator {
	struct session *s;
	pthread_mutex_t lock;
	pthread_cond_t wake; /* there is something to tell, or to stop */
	pthread_cond_t taken; /* there is room */
	struct inval_queue queue;
	_Atomic uint64_t contents_wait; /* events of contents that are not told yet */
	bool stop;
	bool running;
	pthread_t thread;
};

int invalidator_new(struct session *s, struct invalidator **ret)
{
	struct invalidator *v = calloc(1, sizeof *v);
	pthread_condattr_t attr;

	if (!v)
		return -ENOMEM;
	v->s = s;
	pthread_mutex_init(&v->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&v->wake, &attr);
	pthread_cond_init(&v->taken, &attr);
	pthread_condattr_destroy(&attr);
	*ret = v;
	return 0;
}

void invalidator_free(struct invalidator *v)
{
	if (!v)
		return;
	invalidator_stop(v);
	inval_queue_done(&v->queue);
	pthread_cond_destroy(&v->taken);
	pthread_cond_destroy(&v->wake);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static void wait_for_room_locked(struct invalidator *v)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += INVALIDATE_WAIT_MS / MS_PER_S;
	while (v->running && !v->stop && inval_queue_count(&v->queue) >= INVALIDATE_QUEUE_MAX)
		if (pthread_cond_timedwait(&v->taken, &v->lock, &until) != 0)
			break;
}

void invalidator_changed(struct invalidator *v, const struct tree_event *events, size_t n)
{
	SCOPED_LOCK(&v->lock);
	wait_for_room_locked(v);
	for (size_t i = 0; i < n && !v->stop; i++) {
		if (events[i].kind == TREE_CONTENT)
			atomic_fetch_add(&v->contents_wait, 1);
		if (inval_queue_put(&v->queue, &events[i]) < 0)
			log_debug("invalidate: out of memory, node %#llx stays cached",
				(unsigned long long)events[i].node);
	}
	pthread_cond_signal(&v->wake);
}

bool invalidator_contents_wait(struct invalidator *v)
{
	return atomic_load(&v->contents_wait);
}

/* A notification's answer: -ENOENT says that the kernel does not have it, which is fine. */
static bool told(int r, const char *what, uint64_t id)
{
	if (r < 0 && r != -ENOENT)
		log_debug("invalidate: %s %#llx: error %d", what, (unsigned long long)id, -r);
	return r == 0;
}

static bool tell_attr(struct session *s, uint64_t id)
{
	return told(fuse_lowlevel_notify_inval_inode(s->fuse, id, -1, 0), "attributes", id);
}

static bool tell_all(struct session *s, uint64_t id)
{
	return told(fuse_lowlevel_notify_inval_inode(s->fuse, id, 0, 0), "inode", id);
}

/* libfuse sends the NUL, too. */
static void name_copy(struct slice name, char ret[NAME_BYTES_MAX + 1])
{
	size_t n = MIN(name.n, (size_t)NAME_BYTES_MAX);

	memcpy(ret, name.p, n);
	ret[n] = '\0';
}

static void tell_name(struct session *s, uint64_t parent, struct slice name)
{
	uint64_t id = inodes_current(s->inodes, parent);
	char text[NAME_BYTES_MAX + 1];

	name_copy(name, text);
	told(fuse_lowlevel_notify_inval_entry(s->fuse, id, text, strlen(text)), "name", id);
}

static int tell_name_of(void *ctx, uint64_t parent, struct slice name)
{
	tell_name(ctx, parent, name);
	return 0;
}

static void tell_names(struct session *s, uint64_t node)
{
	if (tree_names(s->o.tree, node, tell_name_of, s) < 0)
		log_debug("invalidate: no names of node %#llx", (unsigned long long)node);
}

/*
 * The content changed elsewhere. Who has the file open keeps what he opened, under the id he
 * knows; everybody else finds the new content under an alias. True when an id was retired.
 */
static bool content_changed(struct session *s, uint64_t node)
{
	struct file *f = NULL;
	bool retired = false;
	uint64_t id;

	pthread_rwlock_wrlock(&s->open_lock);
	/* One opened after the change has the new content: only the kernel's pages are old. */
	if (files_peek(s->o.files, node, &f) > 0 && file_is_stale(f)) {
		retired = file_is_open(f) && inodes_retire(s->inodes, node, f, &id) == 0;
		file_detach(f);
	}
	pthread_rwlock_unlock(&s->open_lock);
	if (f && !retired)
		file_unref(f);
	return retired;
}

/*
 * Removed elsewhere. A writer who has it open still brings it back when he closes it. Who holds a
 * directory or a special file open goes on seeing what it was.
 */
static void node_gone(struct session *s, const struct inval_item *i)
{
	_cleanup_file_ struct file *f = NULL;
	struct node n = { .id = i->node };

	if (files_peek(s->o.files, i->node, &f) > 0) {
		file_node_attr(f, &n);
		n.nlink = 0;
		file_set_node(f, &n);
	} else if (i->was) {
		n.attr = *i->was;
		if (inodes_orphan_put(s->inodes, &n) < 0)
			log_debug("invalidate: out of memory, node %#llx is stale",
				(unsigned long long)i->node);
	}
}

static void tell_node(struct session *s, struct inval_item *i)
{
	uint64_t id = inodes_current(s->inodes, i->node);

	i->known = inval_item_has(i, TREE_CONTENT) ? tell_all(s, id) : tell_attr(s, id);
}

static void node_changed(struct session *s, struct inval_item *i)
{
	bool content = inval_item_has(i, TREE_CONTENT);
	bool gone = inval_item_has(i, TREE_GONE);
	struct node n;

	if (content && content_changed(s, i->node)) {
		tell_names(s, i->node);
		i->known = true;
		return;
	}
	if (tree_get(s->o.tree, i->node, &n) > 0)
		node_tell_instance(s, &n);
	else if (gone)
		node_gone(s, i);
	tell_node(s, i);
	if (gone && !i->known)
		inodes_orphan_drop(s->inodes, i->node);
	if (!i->known && !gone)
		tell_names(s, i->node);
}

/* A name that leads nowhere now, and whose node is no more: watchers hear of its deletion. */
static bool tell_deleted(struct session *s, const struct inval_item *i)
{
	struct slice name = inval_item_name(i);
	char text[NAME_BYTES_MAX + 1];
	struct node n;

	if (!i->child || tree_lookup(s->o.tree, i->parent, name, &n) != 0 ||
		tree_get(s->o.tree, i->child, &n) != 0)
		return false;
	name_copy(name, text);
	return fuse_lowlevel_notify_delete(s->fuse, inodes_current(s->inodes, i->parent),
		       inodes_current(s->inodes, i->child), text, strlen(text)) == 0;
}

static void name_changed(struct session *s, const struct inval_item *i)
{
	if (!tell_deleted(s, i))
		tell_name(s, i->parent, inval_item_name(i));
}

/* A directory whose names changed: its times, and the listing that the kernel keeps. */
static void parents_changed(struct session *s, const struct inval_queue *q)
{
	uint64_t last = 0;

	for (const struct inval_item *i = q->items; i; i = i->hh.next) {
		if (i->parent == 0 || i->parent == last)
			continue;
		last = i->parent;
		tell_all(s, inodes_current(s->inodes, last));
	}
}

static void tell(struct session *s, const struct inval_queue *q)
{
	struct inval_item *i;

	for (i = q->items; i; i = i->hh.next)
		if (i->parent == 0)
			node_changed(s, i);
	for (i = q->items; i; i = i->hh.next)
		if (i->parent != 0)
			name_changed(s, i);
	/* Lookups that were under way, by old names too, have made the node known by now. */
	for (i = q->items; i; i = i->hh.next)
		if (i->parent == 0 && !i->known && !inval_item_has(i, TREE_GONE))
			tell_node(s, i);
	parents_changed(s, q);
}

static void *invalidator_main(void *arg)
{
	struct invalidator *v = arg;
	struct inval_queue q;
	uint64_t contents;

	pthread_mutex_lock(&v->lock);
	while (!v->stop) {
		if (inval_queue_count(&v->queue) == 0) {
			pthread_cond_wait(&v->wake, &v->lock);
			continue;
		}
		q = inval_queue_take(&v->queue);
		contents = atomic_load(&v->contents_wait);
		pthread_cond_broadcast(&v->taken);
		pthread_mutex_unlock(&v->lock);
		tell(v->s, &q);
		atomic_fetch_sub(&v->contents_wait, contents);
		inval_queue_done(&q);
		pthread_mutex_lock(&v->lock);
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

int invalidator_start(struct invalidator *v)
{
	int r;

	SCOPED_LOCK(&v->lock);
	if (v->stop)
		return 0;
	r = pthread_create(&v->thread, NULL, invalidator_main, v);
	v->running = r == 0;
	return -r;
}

void invalidator_stop(struct invalidator *v)
{
	bool join;

	pthread_mutex_lock(&v->lock);
	v->stop = true;
	join = v->running;
	v->running = false;
	pthread_cond_broadcast(&v->wake);
	pthread_cond_broadcast(&v->taken);
	pthread_mutex_unlock(&v->lock);
	if (join)
		pthread_join(v->thread, NULL);
}
