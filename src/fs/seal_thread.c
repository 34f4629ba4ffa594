// SPDX-License-Identifier: Apache-2.0
/* The thread that seals what nobody closes, and tries again what failed. */
#include "fs/instance.h"

#include "bounds.h"
#include "clock.h"

#include <errno.h>

static void wait_tick(struct files *fs)
{
	int64_t at = clock_mono_ns() + SEAL_TICK_MS * NS_PER_MS;
	struct timespec until = { at / NS_PER_S, at % NS_PER_S };

	/* Whoever stops the thread signals; whoever makes something dirty need not. */
	pthread_cond_timedwait(&fs->wake, &fs->lock, &until);
}

/* Old bytes that a seal would read, cut and store again; nothing when there are none. */
static int64_t old_bytes_locked(const struct file *f)
{
	uint64_t places = f->active->map.count;

	if (digest_is_zero(&f->base_content))
		return 0;
	return (int64_t)MIN(places * SEAL_PLACE_BYTES, f->attr.attr.size);
}

static bool is_due_locked(const struct file *f, int64_t now)
{
	int64_t old = old_bytes_locked(f);

	return now - f->written_ms >= MAX(SEAL_IDLE_MS, old / (int64_t)SEAL_OLD_IDLE_MS_BYTES) ||
	       now - f->dirty_since_ms >=
		       MAX(SEAL_DIRTY_MS, old / (int64_t)SEAL_OLD_DIRTY_MS_BYTES) ||
	       f->active->map.staged_bytes >= SEAL_BYTES;
}

static bool is_due(struct file *f, int64_t now)
{
	SCOPED_LOCK(&f->lock);
	if (f->sealing || f->retry_ms > now || f->unlinked)
		return false;
	if (f->retry_ms)
		return true;
	if (!f->active)
		return f->frozen;
	return f->open_count == 0 || is_due_locked(f, now);
}

static void seal_due(struct files *fs)
{
	_cleanup_free_ struct file **all = NULL;
	size_t n = 0;

	/* Out of memory: at the next tick. */
	if (files_collect_dirty(fs, &all, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		/* The instance keeps that there was an error: retry_ms. */
		if (is_due(all[i], clock_mono_ms()) && file_seal(all[i]) < 0)
			errno = 0;
		file_unref(all[i]);
	}
	files_settle(fs);
	if (staging_dir_over(fs->dir) >= SEALED_ROWS_MAX)
		files_tidy_rows(fs);
}

static void *run(void *arg)
{
	struct files *fs = arg;

	thread_set_background();
	pthread_mutex_lock(&fs->lock);
	while (!fs->stopping) {
		if (!fs->dirty && !fs->n_unsettled) {
			fs->thread_idle = true;
			pthread_cond_wait(&fs->wake, &fs->lock);
			fs->thread_idle = false;
			continue;
		}
		wait_tick(fs);
		if (fs->stopping)
			break;
		pthread_mutex_unlock(&fs->lock);
		seal_due(fs);
		pthread_mutex_lock(&fs->lock);
	}
	pthread_mutex_unlock(&fs->lock);
	return NULL;
}

int files_start_thread(struct files *fs)
{
	int r = pthread_create(&fs->thread, NULL, run, fs);

	if (r)
		return -r;
	pthread_setname_np(fs->thread, "varve-seal");
	fs->thread_started = true;
	return 0;
}

void files_stop_thread(struct files *fs)
{
	if (!fs->thread_started)
		return;
	pthread_mutex_lock(&fs->lock);
	fs->stopping = true;
	pthread_cond_signal(&fs->wake);
	pthread_mutex_unlock(&fs->lock);
	pthread_join(fs->thread, NULL);
	fs->thread_started = false;
}
