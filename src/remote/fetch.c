// SPDX-License-Identifier: Apache-2.0
#include "remote/fetch.h"

#include "chunk/chunker.h"
#include "chunk/pack.h"
#include "clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* Few enough that the first bytes come soon, enough that a request is worth its round trip. */
#define GROUP_IDS 32
/* Requests of one fetch side by side: the caller's and these. */
#define HELPERS_MAX 3
/* A server that fails, or a line that breaks, is tried this often before the read fails. */
#define TRIES_MAX 4

static const struct retry fetch_retry = { .min_ms = 50, .max_ms = 1000 };

typedef int deliver_fn(void *ctx, const struct digest *id, const void *p, size_t n);

/* One fetch_chunks(); helpers hold references, since one may start after all is done. */
struct fetch {
	struct sync *sync;
	const struct digest *ids;
	size_t n;
	struct client_limit limit;
	deliver_fn *deliver;
	void *deliver_ctx;

	pthread_mutex_t lock;
	pthread_cond_t idle;
	size_t next; /* first id that nobody has taken */
	size_t active; /* groups being fetched */
	int result;
	struct err err;
	unsigned refs;
};

/* Up to GROUP_IDS ids of a fetch, and which of them are still to come. */
struct group {
	struct fetch *fetch;
	const struct digest *ids;
	size_t n;
	bool have[GROUP_IDS];
};

/* A chunk that is not there fails the fetch in the end, but does not stop the others. */
static bool failed(const struct fetch *f)
{
	return f->result < 0 && f->result != -ENOENT;
}

static int deliver(
	struct fetch *f, const struct digest *id, const struct buf *plain, struct err *err)
{
	SCOPED_LOCK(&f->lock);
	int r;

	if (failed(f))
		return f->result;
	r = f->deliver(f->deliver_ctx, id, plain->data, plain->len);
	return r < 0 ? err_sys(err, -r, "keeping a fetched chunk") : 0;
}

/* Index of a chunk that is still to come; n when nobody asked for it. */
static size_t find(const struct group *g, const struct digest *id)
{
	for (size_t i = 0; i < g->n; i++) {
		if (!g->have[i] && digest_eq(&g->ids[i], id))
			return i;
	}
	return g->n;
}

static int take_entry(
	struct group *g, const struct pack_entry *e, struct buf *plain, struct err *err)
{
	size_t i = find(g, &e->id);
	int r;

	if (i == g->n)
		return 0;
	buf_clear(plain);
	r = frame_decode(e->frame_bytes, e->frame.frame_len, &e->id, plain, err);
	if (r == 0)
		r = deliver(g->fetch, &e->id, plain, err);
	if (r == 0)
		g->have[i] = true;
	return r;
}

/* -EBADMSG when a frame or the pack is damaged; whole chunks before it were delivered. */
static int take_pack(struct group *g, const struct buf *pack, struct err *err)
{
	_cleanup_buf_ struct buf plain = { 0 };
	struct pack_reader reader;
	struct pack_entry e;
	int damaged = 0, r = pack_reader_init(&reader, pack->data, pack->len, err);

	if (r < 0)
		return r;
	while ((r = pack_next(&reader, &e, err)) > 0) {
		r = take_entry(g, &e, &plain, err);
		if (r == -EBADMSG || r == -ENOTSUP)
			damaged = -EBADMSG;
		else if (r < 0)
			return r;
	}
	return r < 0 ? r : damaged;
}

static size_t collect_wanted(const struct group *g, struct digest ret[GROUP_IDS])
{
	size_t n = 0;

	for (size_t i = 0; i < g->n; i++) {
		if (!g->have[i])
			ret[n++] = g->ids[i];
	}
	return n;
}

static int request(struct group *g, const struct digest *ids, size_t n, struct err *err)
{
	struct sync *s = g->fetch->sync;
	int64_t began_ms = clock_mono_ms();
	_cleanup_buf_ struct buf pack = { 0 };
	int r = client_fetch(s->client, s->drive_id, ids, n, &g->fetch->limit, &pack, err);

	if (r == 0)
		sync_note_good(s);
	else if (r == -ENOTCONN)
		sync_note_bad(s, r, err, clock_mono_ms() - began_ms);
	if (r == 0)
		r = take_pack(g, &pack, err);
	return r;
}

/* The server lacks one of many: the others come all the same. */
static int request_one_by_one(struct group *g, struct err *err)
{
	struct digest wanted[GROUP_IDS];
	size_t n = collect_wanted(g, wanted);
	int absent = 0;

	for (size_t i = 0; i < n; i++) {
		int r = request(g, &wanted[i], 1, err);

		if (r == -ENOENT)
			absent = r;
		else if (r < 0)
			return r;
	}
	return absent;
}

static int request_wanted(struct group *g, struct err *err)
{
	struct digest wanted[GROUP_IDS];
	size_t n = collect_wanted(g, wanted);
	int r = n ? request(g, wanted, n, err) : 0;

	if (r == -ENOENT && n > 1)
		r = request_one_by_one(g, err);
	if (r == 0 && collect_wanted(g, wanted))
		r = err_set(err, EBADMSG, "the server's answer lacks a chunk that was asked for");
	return r;
}

static bool worth_another_try(int r, unsigned tries)
{
	if (r == -EBADMSG) /* damaged on the way, or there for good: once more tells */
		return tries < 2;
	return (r == -EIO || r == -EBUSY) && tries < TRIES_MAX;
}

static int check_limit(const struct fetch *f, struct err *err)
{
	if (f->limit.cancelled && atomic_load(f->limit.cancelled))
		return err_sys(err, EINTR, "fetching");
	if (clock_mono_ms() >= f->limit.deadline_mono_ms)
		return err_sys(err, ETIMEDOUT, "fetching");
	return 0;
}

static int fetch_group(struct group *g, struct err *err)
{
	struct retry retry = fetch_retry;
	int r = 0;

	for (unsigned tries = 1;; tries++) {
		r = request_wanted(g, err);
		if (r == 0 || !worth_another_try(r, tries))
			return r;
		if (r != -EBADMSG)
			sync_pause(g->fetch->sync, retry_pause_ms(&retry, 0));
		r = check_limit(g->fetch, err);
		if (r < 0)
			return r;
	}
}

static void fetch_unref(struct fetch *f)
{
	bool last;

	pthread_mutex_lock(&f->lock);
	last = --f->refs == 0;
	pthread_mutex_unlock(&f->lock);
	if (!last)
		return;
	pthread_cond_destroy(&f->idle);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static bool take_group(struct fetch *f, struct group *ret)
{
	SCOPED_LOCK(&f->lock);
	size_t n = MIN(f->n - f->next, GROUP_IDS);

	if (n == 0 || failed(f))
		return false;
	*ret = (struct group){ .fetch = f, .ids = f->ids + f->next, .n = n };
	f->next += n;
	f->active++;
	return true;
}

static void give_result(struct fetch *f, int r, const struct err *err)
{
	SCOPED_LOCK(&f->lock);
	if (r < 0 && !failed(f)) {
		f->result = r;
		f->err = *err;
	}
	if (--f->active == 0)
		pthread_cond_broadcast(&f->idle);
}

static void fetch_groups(struct fetch *f)
{
	struct group g;

	while (take_group(f, &g)) {
		struct err err = { 0 };
		int r = fetch_group(&g, &err);

		give_result(f, r, &err);
	}
}

static void help(void *arg)
{
	struct fetch *f = arg;

	fetch_groups(f);
	fetch_unref(f);
}

static void call_helpers(struct fetch *f)
{
	size_t groups = (f->n + GROUP_IDS - 1) / GROUP_IDS;

	for (size_t i = 0; i < HELPERS_MAX && i + 1 < groups; i++) {
		pthread_mutex_lock(&f->lock);
		f->refs++;
		pthread_mutex_unlock(&f->lock);
		if (workers_submit(f->sync->fetchers, help, f) == 0)
			continue;
		pthread_mutex_lock(&f->lock); /* fewer hands, the same result */
		f->refs--;
		pthread_mutex_unlock(&f->lock);
	}
}

static int finish(struct fetch *f, struct err *err)
{
	int r;

	pthread_mutex_lock(&f->lock);
	while (f->active)
		pthread_cond_wait(&f->idle, &f->lock);
	r = f->result;
	if (r < 0 && err)
		*err = f->err;
	pthread_mutex_unlock(&f->lock);
	return r;
}

/* What chunk_source.h promises; the rest is -EIO. */
static int narrow(int r, struct err *err)
{
	switch (r) {
	case 0:
	case -ETIMEDOUT:
	case -ENOTCONN:
	case -ENOENT:
	case -EINTR:
	case -ENOMEM:
	case -ENOSPC:
		return r;
	case -ECANCELED:
		return err_set(err, ENOTCONN, "the connection to the server is closed");
	default:
		if (err)
			err->code = EIO;
		return -EIO;
	}
}

/* Trying would take long, and has just been tried in vain. */
static bool known_unreachable(struct sync *s)
{
	SCOPED_LOCK(&s->lock);
	return s->stopping ||
	       (s->link == SYNC_OFFLINE && clock_mono_ms() < s->unreachable_until_ms);
}

static int fetch_new(const struct fetch *model, struct fetch **ret)
{
	struct fetch *f = malloc(sizeof *f);

	if (!f)
		return -ENOMEM;
	*f = *model;
	f->refs = 1;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->idle, NULL);
	*ret = f;
	return 0;
}

int fetch_chunks(void *ctx, const struct digest *ids, size_t n, int64_t deadline_mono_ms,
	const _Atomic int *cancelled, deliver_fn *deliver_chunk, void *deliver_ctx, struct err *err)
{
	struct fetch model = { .sync = ctx,
		.ids = ids,
		.n = n,
		.limit = { .deadline_mono_ms = deadline_mono_ms, .cancelled = cancelled },
		.deliver = deliver_chunk,
		.deliver_ctx = deliver_ctx };
	struct fetch *f;
	int r;

	if (known_unreachable(ctx))
		return err_set(err, ENOTCONN, "the server cannot be reached");
	r = fetch_new(&model, &f);
	if (r < 0)
		return err_sys(err, -r, "fetching");
	call_helpers(f);
	fetch_groups(f);
	r = finish(f, err);
	fetch_unref(f);
	return narrow(r, err);
}
