// SPDX-License-Identifier: Apache-2.0
/*
 * cache_require(): who wants a chunk that is missing leads a fetch of it, or waits for the one
 * who does. A flight is one chunk on its way:
 *
 *	(none) --join--> in the air --land--> landed (0 or the error), out of the table
 *
 * Who leads lands every flight of his, whatever happens. A leader's deadline and cancellation are
 * his own: who waited for him then tries again, as a leader.
 */
#include "meta/cache_impl.h"

#include "chunk/chunker.h"
#include "clock.h"
#include "fault.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <uthash.h>

/* `cancelled` wakes nobody: a waiter looks at it this often. */
#define CANCEL_LOOK_MS 20
/* What is fetched is committed in steps, so that readers of the first chunks need not wait. */
#define STEP_BYTES ((size_t)64 * 1024)
#define STEP_ROWS 64

struct flight {
	struct digest id;
	unsigned refs; /* all under the lock */
	bool landed;
	int result;
	UT_hash_handle hh;
};

struct flights {
	pthread_mutex_t lock;
	pthread_cond_t landed;
	struct flight *table; /* those in the air */
};

/* One attempt of one caller. */
struct attempt {
	struct cache *cache;
	int64_t deadline_mono_ms;
	const _Atomic int *cancelled;
	struct flight **led; /* the flights that we lead; of the same length: their ids */
	struct digest *led_ids;
	size_t n_led;
	struct flight **awaited;
	size_t n_awaited;

	pthread_mutex_t deliver_lock; /* below: a source may deliver from several threads */
	struct batch *batch;
	struct flight **stored; /* in the batch, not yet committed */
	size_t n_stored;
	size_t stored_bytes;
	int error;
};

int flights_new(struct flights **ret)
{
	struct flights *f = calloc(1, sizeof *f);
	pthread_condattr_t attr;

	if (!f)
		return -ENOMEM;
	pthread_mutex_init(&f->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->landed, &attr);
	pthread_condattr_destroy(&attr);
	*ret = f;
	return 0;
}

void flights_free(struct flights *f)
{
	if (!f)
		return;
	assert(!f->table);
	pthread_cond_destroy(&f->landed);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static void unref_locked(struct flight *flight)
{
	if (--flight->refs == 0)
		free(flight);
}

/* Ends the flights that have not ended. */
static void land(struct flights *f, struct flight **flights, size_t n, int result)
{
	SCOPED_LOCK(&f->lock);

	for (size_t i = 0; i < n; i++) {
		if (flights[i]->landed)
			continue;
		flights[i]->landed = true;
		flights[i]->result = result;
		HASH_DEL(f->table, flights[i]);
	}
	pthread_cond_broadcast(&f->landed);
}

/* ---- joining ---- */

static bool is_in(struct flight **flights, size_t n, const struct flight *flight)
{
	for (size_t i = 0; i < n; i++)
		if (flights[i] == flight)
			return true;
	return false;
}

static int join_locked(struct flights *f, struct attempt *a, const struct digest *id)
{
	struct flight *flight;

	HASH_FIND(hh, f->table, id, sizeof *id, flight);
	if (flight) {
		if (is_in(a->led, a->n_led, flight) || is_in(a->awaited, a->n_awaited, flight))
			return 0;
		flight->refs++;
		a->awaited[a->n_awaited++] = flight;
		return 0;
	}
	flight = calloc(1, sizeof *flight);
	if (!flight)
		return -ENOMEM;
	flight->id = *id;
	flight->refs = 1;
	HASH_ADD(hh, f->table, id, sizeof flight->id, flight);
	a->led[a->n_led] = flight;
	a->led_ids[a->n_led++] = *id;
	return 0;
}

/*
 * Looks into the cache under the lock: who lands a flight has committed its chunk before, so
 * a chunk is never both absent and without its flight while somebody brings it.
 */
static int join_missing_locked(struct attempt *a, const struct digest *ids, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 };
		int r = cache_locate(a->cache, &ids[i], &loc);

		if (r == 0)
			r = join_locked(a->cache->flights, a, &ids[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- leading ---- */

static struct flight *find_led(struct attempt *a, const struct digest *id)
{
	for (size_t i = 0; i < a->n_led; i++)
		if (digest_eq(&a->led_ids[i], id))
			return a->led[i];
	return NULL;
}

static int commit_stored_locked(struct attempt *a)
{
	int r;

	fault_instant("fetch.arrived");
	r = store_commit(a->cache->store, a->batch);
	if (r < 0)
		return r;
	land(a->cache->flights, a->stored, a->n_stored, 0);
	a->n_stored = a->stored_bytes = 0;
	return 0;
}

static int store_locked(struct attempt *a, struct flight *flight, const void *p, size_t n)
{
	int r = cache_add(a->cache, a->batch, &flight->id, p, n, CACHE_ON_SERVER);

	if (r < 0)
		return r;
	a->stored[a->n_stored++] = flight;
	a->stored_bytes += n;
	if (a->stored_bytes >= STEP_BYTES || a->n_stored >= STEP_ROWS)
		return commit_stored_locked(a);
	return 0;
}

static bool has_landed(struct attempt *a, const struct flight *flight)
{
	SCOPED_LOCK(&a->cache->flights->lock);

	return flight->landed || is_in(a->stored, a->n_stored, flight);
}

/* The source has checked the bytes too; promise 6 is kept where they enter the cache. */
static int deliver(void *ctx, const struct digest *id, const void *p, size_t n)
{
	struct attempt *a = ctx;
	struct flight *flight = find_led(a, id);
	struct digest actual;
	int r;

	if (n == 0 || n > CHUNK_MAX)
		return -EBADMSG;
	digest_of(p, n, &actual);
	if (!digest_eq(&actual, id))
		return -EBADMSG;
	SCOPED_LOCK(&a->deliver_lock);

	if (!flight || has_landed(a, flight))
		return 0; /* nobody asked, or it came twice */
	r = store_locked(a, flight, p, n);
	if (r < 0 && a->error == 0)
		a->error = r;
	return r;
}

static bool all_landed(struct attempt *a)
{
	SCOPED_LOCK(&a->cache->flights->lock);

	for (size_t i = 0; i < a->n_led; i++)
		if (!a->led[i]->landed)
			return false;
	return true;
}

static int fetch(struct attempt *a, struct err *err)
{
	struct chunk_source *source = &a->cache->source;
	int r, committed;

	if (!source->fetch)
		return err_set(err, ENOTCONN, "not connected to a server");
	r = source->fetch(source->ctx, a->led_ids, a->n_led, a->deadline_mono_ms, a->cancelled,
		deliver, a, err);
	SCOPED_LOCK(&a->deliver_lock);

	/* What came before an error is kept. */
	committed = a->n_stored ? commit_stored_locked(a) : 0;
	if (a->error < 0)
		return err_sys(err, -a->error, "cannot store a fetched chunk");
	if (committed < 0)
		return err_sys(err, -committed, "cannot store a fetched chunk");
	if (r < 0)
		return r;
	return all_landed(a) ? 0 : err_set(err, EIO, "a chunk did not come with the answer");
}

static int lead(struct attempt *a, struct err *err)
{
	int r;

	if (a->n_led == 0)
		return 0;
	r = batch_new(a->cache->store, &a->batch);
	if (r == 0)
		r = fetch(a, err);
	land(a->cache->flights, a->led, a->n_led, r < 0 ? r : 0);
	return r;
}

/* ---- waiting ---- */

static void wait_a_while_locked(struct flights *f, int64_t ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / MS_PER_S;
	until.tv_nsec += ms % MS_PER_S * NS_PER_MS;
	if (until.tv_nsec >= NS_PER_S) {
		until.tv_nsec -= NS_PER_S;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&f->landed, &f->lock, &until);
}

/* -EINTR or -ETIMEDOUT when this caller is to give up. */
static int check_patience(const struct attempt *a, int64_t *ret_left_ms)
{
	int64_t now = clock_mono_ms();

	if (a->cancelled && atomic_load(a->cancelled))
		return -EINTR;
	if (now >= a->deadline_mono_ms)
		return -ETIMEDOUT;
	*ret_left_ms = a->deadline_mono_ms - now;
	return 0;
}

static int await_locked(struct attempt *a, struct flight *flight)
{
	struct flights *f = a->cache->flights;

	while (!flight->landed) {
		int64_t left_ms;
		int r = check_patience(a, &left_ms);

		if (r < 0)
			return r;
		wait_a_while_locked(f, MIN(left_ms, CANCEL_LOOK_MS));
	}
	return flight->result;
}

/* 0; -EAGAIN when a leader gave up for himself and we have patience left. */
static int await_all(struct attempt *a, struct err *err)
{
	SCOPED_LOCK(&a->cache->flights->lock);

	for (size_t i = 0; i < a->n_awaited; i++) {
		int r = await_locked(a, a->awaited[i]);
		int64_t left_ms;

		if (r == 0)
			continue;
		if (a->awaited[i]->landed && (r == -EINTR || r == -ETIMEDOUT) &&
			check_patience(a, &left_ms) == 0)
			return -EAGAIN;
		return err_sys(err, -r, "cannot fetch what the read needs");
	}
	return 0;
}

/* ---- one attempt ---- */

static void attempt_done(struct attempt *a)
{
	struct flights *f = a->cache->flights;

	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; i < a->n_led; i++)
		unref_locked(a->led[i]);
	for (size_t i = 0; i < a->n_awaited; i++)
		unref_locked(a->awaited[i]);
	pthread_mutex_unlock(&f->lock);
	batch_free(a->batch);
	pthread_mutex_destroy(&a->deliver_lock);
	free(a->led);
	free(a->led_ids);
	free(a->awaited);
	free(a->stored);
}

static int attempt_alloc(struct attempt *a, size_t n)
{
	a->led = calloc(n, sizeof *a->led);
	a->led_ids = calloc(n, sizeof *a->led_ids);
	a->awaited = calloc(n, sizeof *a->awaited);
	a->stored = calloc(n, sizeof *a->stored);
	return a->led && a->led_ids && a->awaited && a->stored ? 0 : -ENOMEM;
}

static int attempt_join(struct attempt *a, const struct digest *ids, size_t n)
{
	SCOPED_LOCK(&a->cache->flights->lock);

	return join_missing_locked(a, ids, n);
}

static int attempt_run(struct attempt *a, const struct digest *ids, size_t n, struct err *err)
{
	int64_t left_ms;
	int r = attempt_alloc(a, n);

	if (r == 0)
		r = attempt_join(a, ids, n);
	if (r == 0 && a->n_led + a->n_awaited)
		r = check_patience(a, &left_ms);
	if (r < 0) {
		land(a->cache->flights, a->led, a->n_led, -EINTR); /* others try themselves */
		return err_sys(err, -r, "cannot fetch what the read needs");
	}
	r = lead(a, err);
	return r < 0 ? r : await_all(a, err);
}

/* 1 when all are here: the usual case, without any lock or allocation. */
static int all_here(struct cache *c, const struct digest *ids, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		_cleanup_chunk_loc_ struct chunk_loc loc = { .fd = -1 };
		int r = cache_locate(c, &ids[i], &loc);

		if (r <= 0)
			return r;
	}
	return 1;
}

int cache_require(struct cache *c, const struct digest *ids, size_t n, int64_t deadline_mono_ms,
	const _Atomic int *cancelled, struct err *err)
{
	int r = all_here(c, ids, n);

	if (r < 0)
		return err_sys(err, -r, "cannot look into the chunk cache");
	if (r > 0)
		return 0;
	do {
		struct attempt a = {
			.cache = c,
			.deadline_mono_ms = deadline_mono_ms,
			.cancelled = cancelled,
			.deliver_lock = PTHREAD_MUTEX_INITIALIZER,
		};

		r = attempt_run(&a, ids, n, err);
		attempt_done(&a);
	} while (r == -EAGAIN);
	return r;
}
