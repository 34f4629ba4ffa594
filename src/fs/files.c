// SPDX-License-Identifier: Apache-2.0
/* The table as a whole: its beginning, its end, its figures. */
#include "fs/instance.h"

#include "fault.h"

#include "io.h"

#include <errno.h>

static int start_workers(struct files *fs)
{
	int r = workers_new(1, "varve-cut", &fs->cutter);

	return r < 0 ? r : workers_new(2, "varve-ahead", &fs->fetchers);
}

static void destroy(struct files *fs)
{
	workers_free(fs->cutter);
	workers_free(fs->fetchers);
	free(fs->cut_buffer.p);
	for (size_t i = 0; i < fs->n_unsettled; i++)
		staging_unref(fs->unsettled[i]);
	free(fs->unsettled);
	staging_dir_free(fs->dir);
	pthread_cond_destroy(&fs->wake);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

static void release_dirty(struct files *fs)
{
	struct file *f;

	while ((f = fs->dirty)) {
		file_ref(f);
		pthread_mutex_lock(&f->lock);
		file_mark_clean_locked(f);
		pthread_mutex_unlock(&f->lock);
		file_unref(f);
	}
}

int files_new(const struct files_options *o, struct files **ret, struct err *err)
{
	struct files *fs = calloc(1, sizeof *fs);
	_cleanup_free_ char *path = NULL;
	int r;

	if (!fs || asprintf(&path, "%s/staging", o->dir) < 0) {
		free(fs);
		return err_set(err, ENOMEM, "staging: out of memory");
	}
	fs->tree = o->tree;
	fs->cache = o->cache;
	fs->store = o->store;
	fs->network_timeout_ms = o->network_timeout_ms;
	pthread_mutex_init(&fs->lock, NULL);
	cond_init_monotonic(&fs->wake);
	r = staging_dir_open(o->store, path, &fs->dir);
	if (r < 0)
		r = err_sys(err, -r, "%s: cannot be opened", path);
	if (r == 0 && (r = start_workers(fs)) < 0)
		r = err_sys(err, -r, "staging: threads cannot be started");
	if (r == 0)
		r = files_recover(fs, err);
	if (r < 0) {
		/* The old log still counts: nothing must be sealed that it speaks of. */
		release_dirty(fs);
		files_free(fs);
		return r;
	}
	/* What does not get sealed now stays staged, and the thread tries again. */
	if (files_seal_all(fs) < 0)
		errno = 0;
	if (fs->recovered)
		fault_instant("recover.sealed");
	/* They are taken as promised. */
	files_settle(fs);
	r = files_start_thread(fs);
	if (r < 0) {
		files_free(fs);
		return err_sys(err, -r, "staging: threads cannot be started");
	}
	*ret = fs;
	return 0;
}

int files_collect_dirty(struct files *fs, struct file ***ret, size_t *ret_n)
{
	size_t n = 0;
	struct file **all;

	SCOPED_LOCK(&fs->lock);
	all = calloc(fs->n_dirty ? fs->n_dirty : 1, sizeof *all);
	if (!all)
		return -ENOMEM;
	for (struct file *f = fs->dirty; f; f = f->dirty_next)
		all[n++] = file_ref(f);
	*ret = all;
	*ret_n = n;
	return 0;
}

int files_seal_all(struct files *fs)
{
	_cleanup_free_ struct file **all = NULL;
	size_t n;
	int first = files_collect_dirty(fs, &all, &n);

	if (first < 0)
		return first;
	for (size_t i = 0; i < n; i++) {
		int r = file_seal(all[i]);

		if (r < 0 && first == 0)
			first = r;
		file_unref(all[i]);
	}
	return first;
}

void files_free(struct files *fs)
{
	if (!fs)
		return;
	files_stop_thread(fs);
	if (fs->cutter)
		workers_drain(fs->cutter);
	if (fs->fetchers)
		workers_drain(fs->fetchers);
	/* What cannot be sealed stays in the folder, and the next start finds it. */
	if (fs->dir && fs->dir->log && files_seal_all(fs) < 0)
		errno = 0;
	if (fs->cutter)
		workers_drain(fs->cutter);
	if (fs->dir && fs->dir->log) {
		files_settle(fs);
		files_tidy_rows(fs);
	}
	release_dirty(fs);
	destroy(fs);
}

void files_get_stats(struct files *fs, struct files_stats *ret)
{
	SCOPED_LOCK(&fs->lock);
	*ret = (struct files_stats){
		.dirty = fs->n_dirty,
		.staged_bytes = atomic_load(&fs->dir->staged_bytes),
		.recovered = fs->recovered,
		.damaged = fs->damaged,
	};
}
