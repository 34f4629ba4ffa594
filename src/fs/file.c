// SPDX-License-Identifier: Apache-2.0
#include "fs/instance.h"

#include "clock.h"
#include "io.h"
#include "bounds.h"

#include <assert.h>
#include <errno.h>
#include <sys/stat.h>

/* A content that another replaces between two looks at the tree; more often is not a race. */
#define LOAD_TRIES 3

void cond_init_monotonic(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

struct file *file_ref(struct file *f)
{
	atomic_fetch_add(&f->refs, 1);
	return f;
}

static void destroy(struct file *f)
{
	assert(!f->in_dirty);
	staging_unref(f->active);
	staging_unref(f->frozen);
	manifest_unref(f->base);
	cache_release(f->hold);
	buf_done(&f->home_name);
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static void leave_locked(struct file *f)
{
	if (f->in_table)
		HASH_DEL(f->fs->table, f);
	f->in_table = false;
}

void file_unref(struct file *f)
{
	unsigned refs;

	if (!f)
		return;
	/* The last one goes under the table's lock, so that nobody finds what is being freed. */
	refs = atomic_load(&f->refs);
	while (refs > 1) {
		if (atomic_compare_exchange_weak(&f->refs, &refs, refs - 1))
			return;
	}
	pthread_mutex_lock(&f->fs->lock);
	if (atomic_fetch_sub(&f->refs, 1) > 1) {
		pthread_mutex_unlock(&f->fs->lock);
		return;
	}
	leave_locked(f);
	pthread_mutex_unlock(&f->fs->lock);
	destroy(f);
}

int file_new(struct files *fs, uint64_t node, struct file **ret)
{
	struct file *f = calloc(1, sizeof *f);

	if (!f)
		return -ENOMEM;
	f->fs = fs;
	f->node = f->put_node = node;
	f->refs = 1;
	/* The node's row may be newer than what the last sync saw. */
	f->tree_changes = 1;
	pthread_mutex_init(&f->lock, NULL);
	cond_init_monotonic(&f->changed);
	*ret = f;
	return 0;
}

static struct file *find_locked(struct files *fs, uint64_t node)
{
	struct file *f;

	HASH_FIND(hh, fs->table, &node, sizeof node, f);
	return f ? file_ref(f) : NULL;
}

static void enter_locked(struct files *fs, struct file *f)
{
	HASH_ADD(hh, fs->table, node, sizeof f->node, f);
	f->in_table = true;
}

bool files_enter(struct files *fs, struct file *f)
{
	struct file *there;

	SCOPED_LOCK(&fs->lock);
	HASH_FIND(hh, fs->table, &f->node, sizeof f->node, there);
	if (there)
		return false;
	enter_locked(fs, f);
	return true;
}

void files_leave(struct file *f)
{
	SCOPED_LOCK(&f->fs->lock);
	leave_locked(f);
}

static void take_attr_locked(struct file *f, const struct node *n)
{
	f->attr = *n;
	f->base_content = n->attr.content;
	f->base_place = tree_place(f->fs->tree);
	f->tree_changes++;
	f->tree_mode = n->attr.mode & 07777;
}

static int look_up_node(struct file *f)
{
	struct node n;
	/* Its name, too: deleted elsewhere and written to after that, it has to come back. */
	int r = tree_get_named(f->fs->tree, f->node, &n, &f->home_parent, &f->home_name);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	if (S_ISDIR(n.attr.mode))
		return -EISDIR;
	if (!S_ISREG(n.attr.mode))
		return -EINVAL;
	take_attr_locked(f, &n);
	return 0;
}

/* The instance is in the table already: who finds it there waits, and no event is missed. */
static void load(struct file *f)
{
	int r;

	pthread_mutex_lock(&f->lock);
	r = look_up_node(f);
	f->load_error = r;
	f->loading = false;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	if (r < 0)
		files_leave(f);
}

static int wait_loaded(struct file *f)
{
	SCOPED_LOCK(&f->lock);
	while (f->loading)
		pthread_cond_wait(&f->changed, &f->lock);
	return f->load_error;
}

static int find_or_add(struct files *fs, uint64_t node, struct file **ret, bool *ret_added)
{
	int r;

	SCOPED_LOCK(&fs->lock);
	*ret = find_locked(fs, node);
	*ret_added = !*ret;
	if (*ret)
		return 0;
	r = file_new(fs, node, ret);
	if (r < 0)
		return r;
	(*ret)->loading = true;
	enter_locked(fs, *ret);
	return 0;
}

int files_get(struct files *fs, uint64_t node, struct file **ret)
{
	_cleanup_file_ struct file *f = NULL;
	bool added;
	int r = find_or_add(fs, node, &f, &added);

	if (r < 0)
		return r;
	if (added)
		load(f);
	r = wait_loaded(f);
	if (r < 0)
		return r;
	*ret = steal(f);
	return 0;
}

int files_peek(struct files *fs, uint64_t node, struct file **ret)
{
	_cleanup_file_ struct file *f = NULL;

	pthread_mutex_lock(&fs->lock);
	f = find_locked(fs, node);
	pthread_mutex_unlock(&fs->lock);
	if (!f || wait_loaded(f) < 0)
		return 0;
	*ret = steal(f);
	return 1;
}

static int try_load_base(struct file *f)
{
	if (digest_is_zero(&f->base_content)) {
		f->base = manifest_empty();
		return f->base ? 0 : -ENOMEM;
	}
	return tree_manifest(f->fs->tree, f->put_node, &f->base_content, &f->base);
}

/* A clean instance that nobody has read from may as well be of the newest content. */
static bool refresh_locked(struct file *f)
{
	struct digest had = f->base_content;

	if (f->active || f->frozen || f->detached || f->unlinked || f->put_node != f->node)
		return false;
	return look_up_node(f) == 0 && !digest_eq(&had, &f->base_content);
}

int file_load_base_locked(struct file *f)
{
	int r = 0;

	for (int i = 0; i < LOAD_TRIES && !f->base; i++) {
		r = try_load_base(f);
		if (r != -ENOENT || !refresh_locked(f))
			break;
	}
	return f->base ? 0 : r == -ENOENT ? -EIO : r;
}

void file_opened(struct file *f)
{
	int r = 0;

	SCOPED_LOCK(&f->lock);
	f->open_count++;
	/*
	 * A small manifest lies in the node's row alone: it is taken now, before a remote change
	 * can replace it. If that fails, whatever needs it tries again and answers the error.
	 * After a cut to no bytes nothing below is looked at.
	 */
	if (!f->active && !f->frozen)
		r = file_load_base_locked(f);
	(void)r;
}

/* Nobody has the bytes open any more that went into a copy: the node is another instance's. */
static void leave_copied(struct file *f)
{
	bool parts;

	pthread_mutex_lock(&f->lock);
	parts = f->put_node != f->node && f->open_count == 0;
	if (parts)
		f->detached = true;
	pthread_mutex_unlock(&f->lock);
	if (parts)
		files_leave(f);
}

void file_closed(struct file *f)
{
	bool last;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	assert(f->open_count > 0);
	last = --f->open_count == 0;
	pthread_mutex_unlock(&f->lock);
	/* Nobody hears of an error here (the flush before did): the thread tries again. */
	if (last)
		r = file_flush(f);
	(void)r;
	if (last)
		leave_copied(f);
}

bool file_is_open(struct file *f)
{
	SCOPED_LOCK(&f->lock);
	return f->open_count > 0;
}

void file_add_mappers(struct file *f, int n)
{
	SCOPED_LOCK(&f->lock);
	f->mappers += n;
	assert(f->mappers >= 0);
}

bool file_may_be_mapped(struct file *f)
{
	SCOPED_LOCK(&f->lock);
	return f->mappers > 0;
}

uint64_t file_node(const struct file *f)
{
	return f->node;
}

void file_node_attr(struct file *f, struct node *ret)
{
	SCOPED_LOCK(&f->lock);
	*ret = f->attr;
	ret->id = f->node;
}

void file_set_node(struct file *f, const struct node *n)
{
	struct node_attr had;
	uint64_t holes;
	uint32_t pending;

	SCOPED_LOCK(&f->lock);
	had = f->attr.attr;
	holes = f->attr.holes;
	f->attr = *n;
	f->attr.holes = holes;
	f->attr.attr.size = had.size;
	f->attr.attr.content = had.content;
	f->tree_changes++;
	if (f->active || f->frozen) {
		f->attr.attr.mtime_ns = had.mtime_ns;
		f->attr.attr.ctime_ns = MAX(had.ctime_ns, n->attr.ctime_ns);
	}
	/* A chmod after the write that took the set-id bits away wins; else they stay away. */
	if ((n->attr.mode & 07777) != f->tree_mode) {
		f->seal_mode = 0;
		if (f->frozen)
			f->frozen->mode = 0;
	}
	f->tree_mode = n->attr.mode & 07777;
	pending = f->seal_mode ? f->seal_mode : f->frozen ? f->frozen->mode : 0;
	if (pending)
		f->attr.attr.mode = (n->attr.mode & ~(uint32_t)07777) | pending;
}

void file_set_times(struct file *f, uint32_t mask, int64_t mtime_ns, int64_t ctime_ns)
{
	struct node_attr *a = &f->attr.attr;
	int r = 0;

	SCOPED_LOCK(&f->lock);
	if (mask & ATTR_MTIME)
		a->mtime_ns = mtime_ns;
	if (mask & ATTR_CTIME)
		a->ctime_ns = ctime_ns;
	/* A full log loses the times in a crash, and only them. */
	if (f->active)
		r = staging_set_times(f->active, a->mtime_ns, a->ctime_ns);
	else if (f->frozen && !f->unlinked)
		r = staging_set_times(f->frozen, a->mtime_ns, a->ctime_ns);
	(void)r;
}

void file_set_unlinked(struct file *f)
{
	SCOPED_LOCK(&f->lock);
	/* What is written goes to a copy, which has its own name. */
	if (f->put_node != f->node)
		return;
	f->unlinked = true;
	pthread_cond_broadcast(&f->changed);
	if (f->active && staging_forget(f->active))
		files_unsettled(f->fs, staging_ref(f->active));
	/* One that is being sealed is forgotten when that ends. */
	if (f->frozen && !f->sealing && staging_forget(f->frozen))
		files_unsettled(f->fs, staging_ref(f->frozen));
	if (!f->sealing)
		file_mark_clean_locked(f);
}

/* The event may be of a content that this instance was made of already. */
static bool is_stale_locked(struct file *f)
{
	struct node n;

	return f->put_node != f->node || tree_get(f->fs->tree, f->node, &n) <= 0 ||
	       !digest_eq(&n.attr.content, &f->base_content);
}

bool file_is_stale(struct file *f)
{
	SCOPED_LOCK(&f->lock);
	return is_stale_locked(f);
}

void file_detach(struct file *f)
{
	bool stale;

	pthread_mutex_lock(&f->lock);
	stale = is_stale_locked(f);
	if (stale)
		f->detached = true;
	pthread_mutex_unlock(&f->lock);
	if (stale)
		files_leave(f);
}

void file_mark_dirty_locked(struct file *f)
{
	struct files *fs = f->fs;

	if (f->unlinked)
		return;
	SCOPED_LOCK(&fs->lock);
	if (f->in_dirty)
		return;
	f->dirty_next = fs->dirty;
	f->dirty_prev = NULL;
	if (fs->dirty)
		fs->dirty->dirty_prev = f;
	fs->dirty = file_ref(f);
	f->in_dirty = true;
	fs->n_dirty++;
	if (fs->thread_idle)
		pthread_cond_signal(&fs->wake);
}

void file_mark_clean_locked(struct file *f)
{
	struct files *fs = f->fs;

	pthread_mutex_lock(&fs->lock);
	if (!f->in_dirty) {
		pthread_mutex_unlock(&fs->lock);
		return;
	}
	if (f->dirty_prev)
		f->dirty_prev->dirty_next = f->dirty_next;
	else
		fs->dirty = f->dirty_next;
	if (f->dirty_next)
		f->dirty_next->dirty_prev = f->dirty_prev;
	f->in_dirty = false;
	fs->n_dirty--;
	pthread_mutex_unlock(&fs->lock);
	/* The caller has a reference: this is not the last. */
	file_unref(f);
}
