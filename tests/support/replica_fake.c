// SPDX-License-Identifier: Apache-2.0
#include "replica_fake.h"

#include "meta/cache.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define ENTRIES_MAX 4096
#define NEEDS_MAX 512
#define CHUNKS_MAX 1024

struct chunk {
	struct digest id;
	struct buf bytes;
	bool damaged;
};

struct cache {
	pthread_mutex_t lock;
	struct chunk chunks[CHUNKS_MAX];
	size_t n;
};

struct entry {
	struct needed_chunk *needs;
	size_t n_needs;
};

struct tree {
	pthread_mutex_t lock;
	struct cache *cache;
	uint64_t cursor;
	struct entry entries[ENTRIES_MAX]; /* entry number i at i - 1 */
	uint64_t first, tail;
	bool in_flight;
	bool durable; /* since it was handed out */
	struct commit flying; /* id and base */
	uint64_t flying_last;
	void (*notify)(void *ctx);
	void *notify_ctx;
	unsigned violations, pages, refusals;
};

struct tree *tree_fake_new(void)
{
	struct tree *t = calloc(1, sizeof *t);

	pthread_mutex_init(&t->lock, NULL);
	t->first = 1;
	return t;
}

void tree_fake_free(struct tree *t)
{
	for (size_t i = 0; i < t->tail; i++)
		free(t->entries[i].needs);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void tree_fake_set_cache(struct tree *t, struct cache *c)
{
	t->cache = c;
}

static struct chunk *find(struct cache *c, const struct digest *id)
{
	for (size_t i = 0; i < c->n; i++) {
		if (digest_eq(&c->chunks[i].id, id))
			return &c->chunks[i];
	}
	return NULL;
}

void tree_fake_put(struct tree *t, const struct digest *ids, size_t n)
{
	struct entry e = { .needs = calloc(n + 1, sizeof *e.needs), .n_needs = n };
	void (*notify)(void *ctx);
	void *ctx;

	for (size_t i = 0; i < n; i++)
		e.needs[i] = (struct needed_chunk){ ids[i],
			(uint32_t)find(t->cache, &ids[i])->bytes.len };
	pthread_mutex_lock(&t->lock);
	t->entries[t->tail++] = e;
	notify = t->notify;
	ctx = t->notify_ctx;
	pthread_mutex_unlock(&t->lock);
	if (notify)
		notify(ctx);
}

unsigned tree_fake_violations(struct tree *t)
{
	SCOPED_LOCK(&t->lock);
	return t->violations;
}

unsigned tree_fake_pages(struct tree *t)
{
	SCOPED_LOCK(&t->lock);
	return t->pages;
}

unsigned tree_fake_refusals(struct tree *t)
{
	SCOPED_LOCK(&t->lock);
	return t->refusals;
}

uint64_t replica_cursor(struct tree *t)
{
	SCOPED_LOCK(&t->lock);
	return t->cursor;
}

uint32_t replica_device_number(struct tree *t)
{
	return 5;
}

void replica_on_outbox(struct tree *t, void (*notify)(void *ctx), void *ctx)
{
	SCOPED_LOCK(&t->lock);
	t->notify = notify;
	t->notify_ctx = ctx;
}

void replica_outbox_stats(struct tree *t, struct outbox_stats *ret)
{
	SCOPED_LOCK(&t->lock);
	*ret = (struct outbox_stats){
		.entries = t->tail + 1 - t->first, .first = t->first, .tail = t->tail
	};
}

static void start_flight(struct tree *t)
{
	if (t->in_flight)
		return;
	t->in_flight = true;
	t->flying = (struct commit){ .base = t->cursor };
	t->flying_last = MIN(t->tail, t->first + 99);
	if (getrandom(t->flying.id, sizeof t->flying.id, 0) < 0)
		abort();
}

void tree_fake_in_flight(struct tree *t)
{
	SCOPED_LOCK(&t->lock);
	start_flight(t);
}

static void add_change(struct outgoing *o, uint64_t number)
{
	struct change c = { .kind = CHANGE_SETATTR, .node = number + 1, .mask = ATTR_UID };
	size_t had = o->memory[0].len;

	if (change_encode(&c, &o->memory[0]) < 0)
		abort();
	o->slices[o->commit.n_changes++].n = o->memory[0].len - had;
}

int replica_next(struct tree *t, struct outgoing *ret)
{
	struct outgoing o = { 0 };
	size_t at = 0, n;
	SCOPED_LOCK(&t->lock);

	if (t->first > t->tail)
		return 0;
	start_flight(t);
	t->durable = false;
	n = t->flying_last - t->first + 1;
	o.slices = calloc(n, sizeof *o.slices);
	o.chunks = calloc(n * NEEDS_MAX, sizeof *o.chunks);
	o.commit = t->flying;
	for (uint64_t i = t->first; i <= t->flying_last; i++) {
		const struct entry *e = &t->entries[i - 1];

		add_change(&o, i);
		memcpy(o.chunks + o.n_chunks, e->needs, e->n_needs * sizeof *e->needs);
		o.n_chunks += e->n_needs;
	}
	for (size_t i = 0; i < n; at += o.slices[i++].n)
		o.slices[i].p = o.memory[0].data + at;
	o.commit.changes = o.slices;
	o.last_entry = t->flying_last;
	*ret = o;
	return 1;
}

void outgoing_done(struct outgoing *o)
{
	for (size_t i = 0; i < ARRAY_SIZE(o->memory); i++)
		buf_done(&o->memory[i]);
	free(o->chunks);
	free(o->slices);
}

int replica_committed(struct tree *t, const struct outgoing *o, uint64_t seq)
{
	SCOPED_LOCK(&t->lock);
	t->violations += !t->in_flight || o->last_entry != t->flying_last || !t->durable;
	t->in_flight = false;
	t->first = o->last_entry + 1;
	if (seq == t->cursor + 1)
		t->cursor = seq;
	return 0;
}

int replica_refused(struct tree *t, const struct outgoing *o, const struct commit_reply *reply)
{
	SCOPED_LOCK(&t->lock);
	t->violations += !t->in_flight;
	t->in_flight = false;
	t->refusals += reply->n_refused > 0;
	return 0;
}

int replica_apply(struct tree *t, const struct changes *page, struct err *err)
{
	SCOPED_LOCK(&t->lock);
	t->violations += t->in_flight || page->from != t->cursor;
	t->cursor = page->to;
	t->pages++;
	return 0;
}

int tree_sync(struct tree *t)
{
	SCOPED_LOCK(&t->lock);
	t->durable = true;
	return 0;
}

int tree_names(struct tree *t, uint64_t node,
	int (*visit)(void *ctx, uint64_t parent, struct slice name), void *ctx)
{
	return 0;
}

struct cache *cache_fake_new(void)
{
	struct cache *c = calloc(1, sizeof *c);

	pthread_mutex_init(&c->lock, NULL);
	return c;
}

void cache_fake_free(struct cache *c)
{
	for (size_t i = 0; i < c->n; i++)
		buf_done(&c->chunks[i].bytes);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

void fake_bytes(unsigned seed, size_t n, struct buf *ret)
{
	if (buf_reserve(ret, n) < 0)
		abort();
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		ret->data[ret->len++] = (uint8_t)(seed >> 24);
	}
}

struct digest cache_fake_add(struct cache *c, unsigned seed, size_t n)
{
	SCOPED_LOCK(&c->lock);
	struct chunk *k = &c->chunks[c->n++];

	fake_bytes(seed, n, &k->bytes);
	digest_of(k->bytes.data, n, &k->id);
	return k->id;
}

void cache_fake_damage(struct cache *c, const struct digest *id)
{
	SCOPED_LOCK(&c->lock);
	find(c, id)->damaged = true;
}

int cache_read_chunk(struct cache *c, const struct digest *id, struct buf *ret)
{
	SCOPED_LOCK(&c->lock);
	struct chunk *k = find(c, id);

	if (!k)
		return 0;
	if (k->damaged)
		return -EBADMSG;
	return buf_append(ret, k->bytes.data, k->bytes.len) < 0 ? -ENOMEM : 1;
}
