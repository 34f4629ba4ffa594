// SPDX-License-Identifier: Apache-2.0
/* What an fsync needs of a staging; staging.c says which bytes the log has, too. */
#include "fs/staging.h"

#include "fault.h"

#include <errno.h>
#include <unistd.h>

void staging_sync_begin(struct staging *s, struct staging_sync *ret)
{
	atomic_store(&s->promised, true);
	*ret = (struct staging_sync){
		.staging = staging_ref(s),
		.logged = s->logged,
		.fd = s->fd,
		.n_records = s->n_records,
		.end = s->fd_end,
		.bare = s->bare,
	};
	s->since_sync = 0;
}

/*
 * SYNCED follows the bytes: it must not be durable before them. A failed sync is never made good
 * by a later one that succeeds, since the kernel may have dropped the pages.
 */
static int sync_file(const struct staging_sync *sync)
{
	struct staging *s = sync->staging;
	struct record rec = {
		.kind = RECORD_SYNCED,
		.node = s->node,
		.staging = s->id,
		.a = sync->n_records,
		.b = sync->end,
	};
	int r = atomic_load(&s->sync_error);

	if (r == 0 && fdatasync(sync->fd) < 0) {
		r = -errno;
		atomic_store(&s->sync_error, r);
	}
	if (r < 0)
		return r;
	if (s->synced_records == sync->n_records && s->synced_end == sync->end)
		return 0;
	/* The file's name, once. */
	if (s->synced_records == 0 && fsync(s->dir->fd) < 0)
		return -errno;
	r = fault_point("staging.before-synced");
	if (r == 0)
		r = staging_log_append(s->dir->log, &rec, 1, NULL);
	if (r < 0)
		return r;
	s->synced_end = sync->end;
	s->synced_records = sync->n_records;
	return 0;
}

/* From here on a copy in the log stands behind the SYNCED that speaks for all bare bytes. */
static int sync_bare(const struct staging_sync *sync)
{
	struct staging *s = sync->staging;
	int r = atomic_load(&s->sync_error);

	if (sync->bare <= atomic_load(&s->synced_bare))
		return r;
	r = sync_file(sync);
	if (r == 0)
		atomic_store(&s->synced_bare, sync->bare);
	return r;
}

bool staging_sync_by_log(struct staging *s)
{
	if (!s->logged)
		return true;
	if (s->fd >= 0 && (s->bare > atomic_load(&s->synced_bare) || atomic_load(&s->sync_error)))
		return false;
	atomic_store(&s->promised, true);
	s->since_sync = 0;
	return true;
}

int staging_sync(struct staging_sync *sync)
{
	_cleanup_staging_ struct staging *s = sync->staging;
	int r = 0;

	if (!sync->logged)
		return 0;
	if (sync->fd >= 0)
		r = sync_bare(sync);
	return r < 0 ? r : staging_log_sync(s->dir->log);
}
