// SPDX-License-Identifier: Apache-2.0
#include "meta/room.h"

#include <errno.h>
#include <sys/statvfs.h>

void room_init(struct room *m)
{
	*m = (struct room){ .dir_fd = -1 };
	pthread_rwlock_init(&m->lock, NULL);
}

void room_done(struct room *m)
{
	pthread_rwlock_destroy(&m->lock);
}

void room_set_watch(struct room *m, const struct room_watch *watch)
{
	pthread_rwlock_wrlock(&m->lock);
	m->watch = watch ? *watch : (struct room_watch){ 0 };
	atomic_store(&m->low_bytes, m->watch.low_bytes);
	pthread_rwlock_unlock(&m->lock);
}

static void tell_low(struct room *m)
{
	pthread_rwlock_rdlock(&m->lock);
	if (m->watch.low)
		m->watch.low(m->watch.ctx);
	pthread_rwlock_unlock(&m->lock);
}

static bool tell_full(struct room *m, uint64_t missing)
{
	bool again;

	pthread_rwlock_rdlock(&m->lock);
	again = m->watch.full && m->watch.full(m->watch.ctx, missing);
	pthread_rwlock_unlock(&m->lock);
	return again;
}

/* How many bytes are missing for `want` to leave `reserve` free. */
static int missing(struct room *m, uint64_t want, uint64_t reserve, uint64_t *ret)
{
	struct statvfs disk;
	uint64_t left;

	if (fstatvfs(m->dir_fd, &disk) < 0)
		return -errno;
	left = (uint64_t)disk.f_bavail * disk.f_frsize;
	if (left < atomic_load(&m->low_bytes))
		tell_low(m);
	if (want > UINT64_MAX - reserve)
		want = UINT64_MAX - reserve;
	*ret = left < want + reserve ? want + reserve - left : 0;
	return 0;
}

int room_check(struct room *m, uint64_t want, uint64_t reserve)
{
	uint64_t bytes = 0;
	int r = missing(m, want, reserve, &bytes);

	return r < 0 ? r : bytes ? -ENOSPC : 0;
}

int room_check_patiently(struct room *m, uint64_t want, uint64_t reserve)
{
	uint64_t bytes = 0;
	int r = missing(m, want, reserve, &bytes);

	if (r < 0 || bytes == 0)
		return r;
	return tell_full(m, bytes) ? room_check(m, want, reserve) : -ENOSPC;
}
