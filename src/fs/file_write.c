// SPDX-License-Identifier: Apache-2.0
#include "fs/instance.h"

#include "bounds.h"
#include "clock.h"
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

/*
 * A manifest of so many entries goes into the log with what is staged over it: small manifests
 * lie in the node's row alone, where a remote change can replace them before recovery asks.
 */
#define BEGIN_MANIFEST_ENTRIES 16
/* Cutting behind the writer is not worth it before this much is staged. */
#define BEHIND_BYTES (8 * MIB)

static int take_home(void *ctx, uint64_t parent, struct slice name)
{
	struct file *f = ctx;
	int r;

	buf_clear(&f->home_name);
	r = buf_append(&f->home_name, name.p, name.n);
	if (r < 0)
		return r;
	f->home_parent = parent;
	return 1;
}

void file_moved(struct file *f)
{
	int r;

	SCOPED_LOCK(&f->lock);
	/* Failing, it comes back under the name that it had. */
	r = f->unlinked ? 0 : tree_names(f->fs->tree, f->put_node, take_home, f);
	(void)r;
}

void file_begin_locked(struct file *f, struct staging_begin *ret)
{
	*ret = (struct staging_begin){
		.node = f->put_node,
		.expected = f->base_content,
		.below = f->base_place,
		.previous = f->frozen ? f->frozen->id : 0,
		.size = f->attr.attr.size,
		.mtime_ns = f->attr.attr.mtime_ns,
		.ctime_ns = f->attr.attr.ctime_ns,
		.mode = f->seal_mode,
		.home_parent = f->home_parent,
		.home_name = { f->home_name.data, f->home_name.len },
	};
	if (f->base && manifest_count(f->base) > 0 &&
		manifest_count(f->base) <= BEGIN_MANIFEST_ENTRIES)
		ret->manifest.p = manifest_bytes(f->base, &ret->manifest.n);
}

/* A new staging over what there is; the caller makes it the active one. */
static int stage(struct file *f, bool from_zero, struct staging **ret)
{
	struct staging_begin begin;
	struct staging *s;
	int r = f->unlinked ? 0 : tree_names(f->fs->tree, f->put_node, take_home, f);

	if (r < 0 && r != -ENOENT)
		return r;
	file_begin_locked(f, &begin);
	if (from_zero) {
		begin.from_zero = true;
		begin.size = 0;
		begin.manifest = (struct slice){ 0 };
		begin.mtime_ns = begin.ctime_ns = clock_real_ns();
		begin.replaces = f->active ? f->active->id : 0;
	}
	r = staging_new(f->fs->dir, &begin, &s);
	if (r < 0)
		return r;
	if (f->unlinked)
		staging_forget(s);
	*ret = s;
	return 0;
}

int file_activate_locked(struct file *f)
{
	int r;

	if (f->active)
		return 0;
	r = file_load_base_locked(f);
	return r < 0 ? r : stage(f, false, &f->active);
}

/* Takes back an activation that nothing came of. */
static int give_up_locked(struct file *f, int error)
{
	struct staging *s = f->active;

	if (s && !s->begun && s->map.count == 0 && s->fd < 0) {
		f->active = NULL;
		staging_unref(s);
	}
	return error;
}

struct behind_task {
	struct file *file;
	struct staging *staging;
};

static void run_behind(void *arg)
{
	struct behind_task *t = arg;
	struct file *f = t->file;

	behind_run(t->staging, f->fs->cache, &f->fs->cut_buffer, &f->lock, &f->changed);
	staging_unref(t->staging);
	file_unref(f);
	free(t);
}

static void queue_behind(struct file *f)
{
	struct behind_task *t = malloc(sizeof *t);

	if (t) {
		*t = (struct behind_task){ file_ref(f), staging_ref(f->active) };
		if (workers_submit(f->fs->cutter, run_behind, t) == 0)
			return;
		staging_unref(t->staging);
		file_unref(f);
		free(t);
	}
	behind_cancel(f->active);
}

/* From the file's begin when that is staged, or from where an append begins. */
static int start_behind(struct file *f)
{
	struct staging *s = f->active;
	struct extent first;

	if (s->fd < 0 || s->map.staged_bytes < BEHIND_BYTES || !overlay_find(&s->map, 0, &first))
		return 0;
	if (first.start == 0)
		return behind_start(s, NULL, 0);
	if (f->frozen || !f->base || first.start < manifest_size(f->base))
		return 0;
	return behind_start(s, f->base, behind_append_start(f->base));
}

static void cut_behind(struct file *f, uint64_t start, uint64_t end)
{
	struct staging *s = f->active;

	/* Out of memory: the seal cuts it all. */
	if (!s->behind && start_behind(f) < 0)
		return;
	behind_wrote(s, start, end);
	if (behind_due(s))
		queue_behind(f);
}

static void changed_locked(struct file *f, int64_t now_ns)
{
	f->attr.attr.mtime_ns = f->attr.attr.ctime_ns = now_ns;
	f->written_ms = clock_mono_ms();
	if (!f->in_dirty && !f->unlinked) {
		f->dirty_since_ms = f->written_ms;
		file_mark_dirty_locked(f);
	}
}

/* POSIX: a write by who is not privileged takes the set-id bits away. */
static int clear_suid_locked(struct file *f)
{
	uint32_t mode = f->attr.attr.mode, kept = mode & ~(uint32_t)S_ISUID;
	int r;

	/* Without group execution the bit means mandatory locking, not the group's identity. */
	if (mode & S_IXGRP)
		kept &= ~(uint32_t)S_ISGID;
	if (kept == mode)
		return 0;
	r = staging_set_mode(f->active, kept & 07777);
	if (r < 0)
		return r;
	f->seal_mode = kept & 07777;
	f->attr.attr.mode = kept;
	return 0;
}

int file_write(struct file *f, uint64_t offset, const void *p, size_t n, bool clear_suid)
{
	int64_t now = clock_real_ns();
	struct hole_count holes;
	int r;

	if (n == 0)
		return 0;
	if (offset > FILE_BYTES_MAX || n > FILE_BYTES_MAX - offset)
		return -EFBIG;
	SCOPED_LOCK(&f->lock);
	r = file_activate_locked(f);
	if (r < 0)
		return r;
	holes = file_holes_before_locked(f, offset, offset + n);
	if (clear_suid)
		r = clear_suid_locked(f);
	if (r == 0)
		r = staging_write(f->active, offset, p, n, now);
	if (r < 0)
		return give_up_locked(f, r);
	f->attr.attr.size = MAX(f->attr.attr.size, offset + n);
	file_holes_after_locked(f, &holes, false);
	changed_locked(f, now);
	cut_behind(f, offset, offset + n);
	return 0;
}

/* The dropped staging's begin is replaced by one record, so a crash sees either. */
static int cut_to_nothing(struct file *f, int64_t now)
{
	struct staging *s, *had = f->active;
	int r = stage(f, true, &s);

	if (r < 0)
		return r;
	if (had)
		r = staging_replaces(s, had);
	if (r == 0)
		r = staging_commit_begin(s);
	if (r < 0) {
		staging_unref(s);
		return r;
	}
	fault_instant("file.cut");
	f->active = s;
	if (had) {
		behind_halt(had);
		if (staging_replaced(had))
			files_unsettled(f->fs, had);
		else
			staging_unref(had);
	}
	f->attr.attr.size = f->attr.holes = 0;
	changed_locked(f, now);
	return 0;
}

/* [start, end) becomes zeros, and the size `size`. */
static int zero_locked(struct file *f, uint64_t start, uint64_t end, uint64_t size, int64_t now)
{
	struct hole_count holes;
	int r = file_activate_locked(f);

	if (r < 0)
		return give_up_locked(f, r);
	holes = file_holes_before_locked(f, start, end);
	r = staging_zero(f->active, start, end, size, now);
	if (r < 0)
		return give_up_locked(f, r);
	f->attr.attr.size = size;
	file_holes_after_locked(f, &holes, true);
	changed_locked(f, now);
	behind_wrote(f->active, start, start);
	return 0;
}

static int grow_locked(struct file *f, uint64_t size, int64_t now)
{
	int r = file_activate_locked(f);

	if (r == 0)
		r = staging_resize(f->active, size, now);
	if (r < 0)
		return give_up_locked(f, r);
	f->attr.holes += size - f->attr.attr.size;
	f->attr.attr.size = size;
	changed_locked(f, now);
	return 0;
}

/* The same size again: no new content, new times. */
static int touch_locked(struct file *f, int64_t now)
{
	struct node_attr a = { .mtime_ns = now, .ctime_ns = now };
	struct node n;
	int r;

	if (f->active) {
		r = staging_set_times(f->active, now, now);
	} else if (f->unlinked) {
		r = 0;
	} else {
		r = tree_setattr(f->fs->tree, f->put_node, ATTR_MTIME | ATTR_CTIME, &a, &n);
		f->tree_changes++;
	}
	if (r < 0)
		return r;
	f->attr.attr.mtime_ns = f->attr.attr.ctime_ns = now;
	return 0;
}

int file_truncate(struct file *f, uint64_t size)
{
	int64_t now = clock_real_ns();

	if (size > FILE_BYTES_MAX)
		return -EFBIG;
	SCOPED_LOCK(&f->lock);
	if (size == f->attr.attr.size)
		return touch_locked(f, now);
	if (size == 0)
		return cut_to_nothing(f, now);
	if (size < f->attr.attr.size)
		return zero_locked(f, size, OVERLAY_END, size, now);
	return grow_locked(f, size, now);
}

static int preallocate_locked(
	struct file *f, uint64_t offset, uint64_t end, bool keep_size, int64_t now)
{
	int r = file_activate_locked(f);

	if (r == 0)
		r = staging_preallocate(f->active, offset, end);
	if (r < 0)
		return give_up_locked(f, r);
	if (!keep_size && end > f->attr.attr.size)
		return grow_locked(f, end, now);
	/* The staging is there, so it has to be sealed, or it would stay. */
	changed_locked(f, now);
	return 0;
}

int file_fallocate(struct file *f, int mode, uint64_t offset, uint64_t length)
{
	bool keep = mode & FALLOC_FL_KEEP_SIZE;
	int64_t now = clock_real_ns();
	uint64_t size;

	if (length == 0)
		return -EINVAL;
	if (offset > FILE_BYTES_MAX || length > FILE_BYTES_MAX - offset)
		return -EFBIG;
	SCOPED_LOCK(&f->lock);
	size = f->attr.attr.size;
	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:
		return preallocate_locked(f, offset, offset + length, keep, now);
	case FALLOC_FL_PUNCH_HOLE:
		if (!keep)
			return -EOPNOTSUPP;
		break;
	case FALLOC_FL_ZERO_RANGE:
		if (!keep)
			size = MAX(size, offset + length);
		break;
	default:
		return -EOPNOTSUPP;
	}
	return zero_locked(f, offset, offset + length, size, now);
}
