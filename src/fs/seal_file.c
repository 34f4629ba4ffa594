// SPDX-License-Identifier: Apache-2.0
/* When an instance is sealed, and what becomes of it then. */
#include "fs/seal.h"

#include "bounds.h"
#include "clock.h"
#include "fault.h"
#include "meta/sealed.h"

#include <assert.h>
#include <errno.h>

void file_lock_seal_locked(struct file *f)
{
	while (f->sealing)
		pthread_cond_wait(&f->changed, &f->lock);
	f->sealing = true;
}

void file_unlock_seal_locked(struct file *f)
{
	f->sealing = false;
	pthread_cond_broadcast(&f->changed);
}

void files_unsettled(struct files *fs, struct staging *s)
{
	SCOPED_LOCK(&fs->lock);
	if (fs->n_unsettled == fs->unsettled_capacity) {
		size_t capacity = fs->unsettled_capacity ? 2 * fs->unsettled_capacity : 16;
		struct staging **p = realloc(fs->unsettled, capacity * sizeof *p);

		if (!p) {
			/* It stays on disk; the next start sees that it is sealed. */
			staging_unref(s);
			return;
		}
		fs->unsettled = p;
		fs->unsettled_capacity = capacity;
	}
	fs->unsettled[fs->n_unsettled++] = s;
	if (fs->thread_idle)
		pthread_cond_signal(&fs->wake);
}

static size_t take_unsettled(struct files *fs, struct staging ***ret)
{
	size_t n;

	SCOPED_LOCK(&fs->lock);
	n = fs->n_unsettled;
	*ret = steal(fs->unsettled);
	fs->n_unsettled = fs->unsettled_capacity = 0;
	return n;
}

void files_settle(struct files *fs)
{
	_cleanup_free_ struct staging **all = NULL;
	size_t n = take_unsettled(fs, &all);
	int r = n ? staging_log_sync(fs->dir->log) : 0;

	if (n && r == 0)
		r = tree_sync(fs->tree);
	if (n)
		fault_instant("seal.settle");
	for (size_t i = 0; i < n; i++) {
		/* Not durable: it waits for the next try. */
		if (r < 0) {
			files_unsettled(fs, all[i]);
			continue;
		}
		staging_settle(all[i]);
		staging_unref(all[i]);
	}
}

static int forget_rows(struct files *fs, const uint64_t *ids, size_t n)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r = batch_new(fs->store, &b);

	for (size_t i = 0; i < n && r == 0; i++)
		sealed_del(b, ids[i]);
	return r < 0 ? r : store_commit(fs->store, b);
}

void files_tidy_rows(struct files *fs)
{
	_cleanup_free_ uint64_t *ids = NULL;
	size_t n = staging_dir_take_over(fs->dir, &ids);
	int r = n ? staging_log_sync(fs->dir->log) : 0;

	for (size_t at = 0; at < n && r == 0; at += SEALED_ROWS_MAX)
		r = forget_rows(fs, ids + at, MIN(n - at, (size_t)SEALED_ROWS_MAX));
	/* Rows that stay are looked at, and removed, by the next start. */
	(void)r;
}

/* The empty file has no content id in the tree. */
static struct digest content_id(struct manifest *m)
{
	return manifest_count(m) ? *manifest_content_id(m) : (struct digest){ 0 };
}

void file_sealed_locked(struct file *f, struct manifest *content, enum content_result result,
	const struct node *node)
{
	struct node_attr had = f->attr.attr;
	uint64_t holes = f->attr.holes;

	manifest_unref(f->base);
	f->base = manifest_ref(content);
	f->base_content = content_id(content);
	f->base_place = tree_place(f->fs->tree);
	f->tree_changes++;
	if (result != CONTENT_DROPPED) {
		uint32_t nlink = f->attr.nlink;

		f->attr = *node;
		/* A copy's links are not those of the node that was opened. */
		if (node->id != f->node)
			f->attr.nlink = nlink;
		f->tree_mode = node->attr.mode & 07777;
		if (f->seal_mode)
			f->attr.attr.mode = had.mode;
	}
	f->attr.holes = holes;
	f->attr.attr.size = had.size;
	f->attr.attr.mtime_ns = had.mtime_ns;
	f->attr.attr.ctime_ns = had.ctime_ns;
	f->attr.attr.content = f->base_content;
	if (result == CONTENT_DROPPED || node->id == f->put_node)
		return;
	/*
	 * Theirs keeps the node, ours has become another one. Who has this instance open goes on
	 * with the bytes he knows, and what he writes goes to the copy. While it is open it keeps
	 * its place until file_detach() (the tree has told of their content): two instances under
	 * one FUSE id would share the kernel's pages.
	 */
	f->put_node = node->id;
	if (f->open_count > 0)
		return;
	f->detached = true;
	files_leave(f);
}

/* The active staging becomes the frozen one, with what its seal has to carry. */
static void freeze_locked(struct file *f)
{
	struct staging *s = f->active;

	s->size = f->attr.attr.size;
	s->mtime_ns = f->attr.attr.mtime_ns;
	s->ctime_ns = f->attr.attr.ctime_ns;
	s->mode = f->seal_mode;
	f->seal_mode = 0;
	f->frozen = s;
	f->active = NULL;
}

/* What is needed of the base, as a new reference; NULL when nothing of it shows. */
static int base_below_locked(struct file *f, struct manifest **ret)
{
	int r;

	*ret = NULL;
	if (overlay_covers(&f->frozen->map, 0, f->frozen->size))
		return 0;
	r = file_load_base_locked(f);
	if (r == 0)
		*ret = manifest_ref(f->base);
	return r;
}

/* Fills in what the instance says at this moment: times may have been set since the freeze. */
static void update_locked(struct file *f, struct content_update *u)
{
	const struct staging *s = f->frozen;

	u->node = f->put_node;
	u->expected = f->base_content;
	u->mtime_ns = f->active ? s->mtime_ns : f->attr.attr.mtime_ns;
	u->ctime_ns = f->active ? s->ctime_ns : f->attr.attr.ctime_ns;
	u->mode = s->mode;
	u->home_parent = f->home_parent;
	u->unlinked = f->unlinked;
	u->known_entry = f->base_place.entry;
	if (s->begun && s->logged)
		u->stagings = staging_ids(s, &u->n_stagings);
}

static int copy_home_locked(struct file *f, struct buf *ret, struct content_update *u)
{
	int r = buf_append(ret, f->home_name.data, f->home_name.len);

	u->home_name = (struct slice){ ret->data, ret->len };
	return r;
}

/* utimens() came between update_locked() and the end of the put: the put has undone it. */
static void mend_times_locked(struct file *f, const struct content_update *u)
{
	const struct node_attr *a = &f->attr.attr;
	struct node n;
	int r;

	if (f->active || f->unlinked || a->mtime_ns == u->mtime_ns)
		return;
	r = tree_setattr(f->fs->tree, f->put_node, ATTR_MTIME | ATTR_CTIME, a, &n);
	/* A full disk loses the time that was set, and nothing else; the writer hears of it. */
	(void)r;
}

static void end_frozen_locked(struct file *f, const struct node *node)
{
	struct staging *s = f->frozen;
	bool unsettled = staging_sealed(s, node->id, &f->base_content);

	f->frozen = NULL;
	if (unsettled)
		files_unsettled(f->fs, s);
	else
		staging_unref(s);
	file_count_holes_locked(f);
}

/* The content went into no row of the tree: what it needs stays for as long as this instance. */
static void keep_hold_locked(struct file *f, struct cache_hold **hold)
{
	struct cache_hold *old = f->hold;

	f->hold = *hold;
	*hold = old;
}

/* Zeros that were written have become holes: what the kernel remembers of the size is old. */
static bool takes_other_room(const struct file *f, uint64_t holes)
{
	return f->attr.holes / STAT_BLOCK_BYTES != holes / STAT_BLOCK_BYTES && !f->unlinked;
}

static int put_held(
	struct file *f, struct manifest *content, struct batch *batch, struct cache_hold **hold)
{
	struct content_update u = { .manifest = content, .batch = batch };
	_cleanup_buf_ struct buf name = { 0 };
	enum content_result result = CONTENT_DROPPED;
	struct node node = { 0 };
	uint64_t holes;
	bool room;
	int r;

	pthread_mutex_lock(&f->lock);
	update_locked(f, &u);
	r = copy_home_locked(f, &name, &u);
	pthread_mutex_unlock(&f->lock);
	if (r == 0)
		r = fault_point("seal.before-put");
	if (r == 0)
		r = tree_put_content(f->fs->tree, &u, &result, &node);
	if (r < 0)
		return r;
	/* Killed here, recovery seals the same bytes again, which changes nothing. */
	r = fault_point("seal.after-put");
	(void)r;
	pthread_mutex_lock(&f->lock);
	holes = f->attr.holes;
	if (result == CONTENT_DROPPED)
		keep_hold_locked(f, hold);
	file_sealed_locked(f, content, result, &node);
	mend_times_locked(f, &u);
	end_frozen_locked(f, result == CONTENT_DROPPED ? &f->attr : &node);
	room = takes_other_room(f, holes);
	pthread_mutex_unlock(&f->lock);
	if (room)
		tree_tell_attr(f->fs->tree, f->node);
	return 0;
}

static int put(struct file *f, struct manifest *content, struct batch *batch)
{
	struct cache_hold *hold;
	int r = cache_hold(f->fs->cache, content, &hold);

	if (r < 0)
		return r;
	r = put_held(f, content, batch, &hold);
	cache_release(hold);
	return r;
}

static int seal_frozen(struct file *f, struct seal *seal)
{
	_cleanup_manifest_ struct manifest *content = NULL;
	_cleanup_batch_ struct batch *batch = NULL;
	int r = batch_new(f->fs->store, &batch);

	seal->batch = batch;
	if (r == 0)
		r = seal_content(seal, &content);
	return r < 0 ? r : put(f, content, batch);
}

static void settle_state_locked(struct file *f, int error)
{
	int64_t now = clock_mono_ms();

	f->retry_ms = error < 0 ? now + SEAL_RETRY_MS : 0;
	if (f->unlinked && f->frozen && staging_forget(f->frozen))
		files_unsettled(f->fs, staging_ref(f->frozen));
	if (f->unlinked || (!f->active && !f->frozen))
		file_mark_clean_locked(f);
	else if (error == 0)
		f->dirty_since_ms = now;
}

/* Seals the lowest staging. The lock is held before and after, not in between. */
static int seal_lowest_locked(struct file *f, bool local)
{
	_cleanup_manifest_ struct manifest *base = NULL;
	struct seal seal = { .fs = f->fs, .local = local };
	int r;

	file_lock_seal_locked(f);
	if (!f->frozen && f->active)
		freeze_locked(f);
	if (!f->frozen) {
		file_unlock_seal_locked(f);
		return 0;
	}
	behind_stop(f->frozen, &f->lock, &f->changed);
	seal.staging = f->frozen;
	r = base_below_locked(f, &base);
	seal.base = base;
	pthread_mutex_unlock(&f->lock);
	if (r == 0)
		r = seal_frozen(f, &seal);
	pthread_mutex_lock(&f->lock);
	settle_state_locked(f, r);
	file_unlock_seal_locked(f);
	return r;
}

static int seal_all_layers(struct file *f, bool local)
{
	_cleanup_staging_ struct staging *newest = NULL;

	SCOPED_LOCK(&f->lock);
	newest = f->active ? f->active : f->frozen;
	if (!newest)
		return 0;
	staging_ref(newest);
	/* What is written meanwhile is another staging, and not this caller's. */
	while (!f->unlinked && (f->active == newest || f->frozen == newest)) {
		int r = seal_lowest_locked(f, local);

		if (r < 0)
			return r;
	}
	return 0;
}

int file_seal(struct file *f)
{
	return seal_all_layers(f, false);
}

/*
 * Who closes a file does not wait for the network: where the cut needs old bytes that are not
 * here, what was written stays staged, and the thread seals it when they can be had.
 */
int file_flush(struct file *f)
{
	int r = seal_all_layers(f, true);

	if (r != -ENOTCONN)
		return r;
	SCOPED_LOCK(&f->lock);
	if (f->retry_ms)
		f->retry_ms = clock_mono_ms();
	return 0;
}

static int sync_stagings(struct staging_sync *syncs, size_t n)
{
	int first = 0;

	/* All of them, also after a failure: each gives back its reference. */
	for (size_t i = 0; i < n; i++) {
		int r = staging_sync(&syncs[i]);

		if (r < 0 && first == 0)
			first = r;
	}
	return first;
}

bool file_fsync_begin(struct file *f)
{
	SCOPED_LOCK(&f->lock);
	if (f->unlinked || f->tree_changes != f->tree_synced)
		return false;
	return (!f->frozen || staging_sync_by_log(f->frozen)) &&
	       (!f->active || staging_sync_by_log(f->active));
}

int files_sync_log(struct files *fs)
{
	return staging_log_sync(fs->dir->log);
}

int file_fsync(struct file *f)
{
	struct staging_sync syncs[2];
	uint64_t changes;
	bool tree_too;
	size_t n = 0;
	int r;

	pthread_mutex_lock(&f->lock);
	if (f->unlinked) {
		pthread_mutex_unlock(&f->lock);
		return 0;
	}
	if (f->frozen)
		staging_sync_begin(f->frozen, &syncs[n++]);
	if (f->active)
		staging_sync_begin(f->active, &syncs[n++]);
	changes = f->tree_changes;
	tree_too = changes != f->tree_synced;
	pthread_mutex_unlock(&f->lock);
	r = sync_stagings(syncs, n);
	if (r == 0 && tree_too)
		r = tree_sync(f->fs->tree);
	if (r < 0 || !tree_too)
		return r;
	SCOPED_LOCK(&f->lock);
	f->tree_synced = MAX(f->tree_synced, changes);
	return 0;
}
