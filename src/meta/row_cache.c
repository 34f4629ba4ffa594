// SPDX-License-Identifier: Apache-2.0
#include "meta/row_cache.h"

#include "bytes.h"

#include <errno.h>
#include <string.h>

/* A set has few places, and the row that was not asked for longest leaves it. */
#define SETS 4096
#define WAYS 4
#define LOCKS 16
/* Key and value; a row that is longer is rare, and the store's cache has it. */
#define ROW_BYTES_MAX 640

struct cached_row {
	uint32_t hash;
	uint16_t klen;
	uint16_t vlen;
	uint8_t cf;
	bool present;
	uint8_t bytes[]; /* key, value */
};

struct row_set {
	struct cached_row *way[WAYS]; /* the last one asked for first */
};

/* Sets in turn belong to a lock. Its ticket changes when a row of them does. */
struct row_lock {
	pthread_mutex_t lock;
	uint64_t ticket;
};

struct row_cache {
	struct row_lock locks[LOCKS];
	struct row_set sets[SETS];
};

int row_cache_new(struct row_cache **ret)
{
	struct row_cache *c = calloc(1, sizeof *c);

	if (!c)
		return -ENOMEM;
	for (size_t i = 0; i < LOCKS; i++)
		pthread_mutex_init(&c->locks[i].lock, NULL);
	*ret = c;
	return 0;
}

void row_cache_free(struct row_cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < SETS; i++)
		for (size_t w = 0; w < WAYS; w++)
			free(c->sets[i].way[w]);
	for (size_t i = 0; i < LOCKS; i++)
		pthread_mutex_destroy(&c->locks[i].lock);
	free(c);
}

bool row_cache_has_family(enum store_cf cf)
{
	return cf == CF_NODE || cf == CF_LINK || cf == CF_NAMES || cf == CF_BASE;
}

/* Spreads; nobody gains by making rows collide in a cache of his own. */
static uint32_t hash_of(enum store_cf cf, const uint8_t *key, size_t n)
{
	uint64_t h = (uint64_t)cf * UINT64_C(0x9e3779b97f4a7c15) + n;
	uint8_t tail[8] = { 0 };

	for (; n >= 8; key += 8, n -= 8)
		h = (h ^ get_le64(key)) * UINT64_C(0xff51afd7ed558ccd), h ^= h >> 32;
	if (n)
		memcpy(tail, key, n);
	h = (h ^ get_le64(tail)) * UINT64_C(0xc4ceb9fe1a85ec53);
	return (uint32_t)(h >> 32) ^ (uint32_t)h;
}

static struct row_set *set_of(struct row_cache *c, uint32_t hash)
{
	return &c->sets[hash % SETS];
}

static struct row_lock *lock_of(struct row_cache *c, uint32_t hash)
{
	return &c->locks[hash % LOCKS];
}

static bool is_row(
	const struct cached_row *row, uint32_t hash, enum store_cf cf, const void *key, size_t klen)
{
	return row && row->hash == hash && row->cf == cf && row->klen == klen &&
	       memcmp(row->bytes, key, klen) == 0;
}

/* The row goes to the front of its set. NULL when it is not there. */
static struct cached_row *find(
	struct row_set *set, uint32_t hash, enum store_cf cf, const void *key, size_t klen)
{
	for (size_t w = 0; w < WAYS; w++) {
		struct cached_row *row = set->way[w];

		if (!is_row(row, hash, cf, key, klen))
			continue;
		memmove(&set->way[1], &set->way[0], w * sizeof set->way[0]);
		set->way[0] = row;
		return row;
	}
	return NULL;
}

int row_cache_get(struct row_cache *c, enum store_cf cf, const void *key, size_t klen,
	uint64_t *ret_ticket, struct buf *ret)
{
	uint32_t hash = hash_of(cf, key, klen);
	struct row_lock *l = lock_of(c, hash);
	struct cached_row *row;
	int r;

	SCOPED_LOCK(&l->lock);
	*ret_ticket = l->ticket;
	row = find(set_of(c, hash), hash, cf, key, klen);
	if (!row)
		return -ENOENT;
	if (!row->present)
		return 0;
	r = ret ? buf_append(ret, row->bytes + row->klen, row->vlen) : 0;
	/* Without memory: whoever asks finds out when he reads the store. */
	return r < 0 ? -ENOENT : 1;
}

/* Puts the row into the first place; the memory of the one that leaves is used again. */
static void put(struct row_set *set, uint32_t hash, enum store_cf cf, const void *key, size_t klen,
	struct slice value)
{
	size_t n = klen + value.n;
	struct cached_row *row = n > ROW_BYTES_MAX ? NULL : malloc(sizeof *row + n);

	if (!row)
		return;
	*row = (struct cached_row){ .hash = hash,
		.klen = (uint16_t)klen,
		.vlen = (uint16_t)value.n,
		.cf = (uint8_t)cf,
		.present = value.p != NULL };
	memcpy(row->bytes, key, klen);
	if (value.n)
		memcpy(row->bytes + klen, value.p, value.n);
	free(set->way[WAYS - 1]);
	memmove(&set->way[1], &set->way[0], (WAYS - 1) * sizeof set->way[0]);
	set->way[0] = row;
}

static void drop_first(struct row_set *set)
{
	free(set->way[0]);
	memmove(&set->way[0], &set->way[1], (WAYS - 1) * sizeof set->way[0]);
	set->way[WAYS - 1] = NULL;
}

void row_cache_fill(struct row_cache *c, enum store_cf cf, const void *key, size_t klen,
	uint64_t ticket, struct slice value)
{
	uint32_t hash = hash_of(cf, key, klen);
	struct row_lock *l = lock_of(c, hash);
	struct row_set *set = set_of(c, hash);

	SCOPED_LOCK(&l->lock);
	if (l->ticket == ticket && !find(set, hash, cf, key, klen))
		put(set, hash, cf, key, klen, value);
}

static void note(struct row_cache *c, enum store_cf cf, const void *key, size_t klen,
	const struct slice *value, bool add)
{
	uint32_t hash = hash_of(cf, key, klen);
	struct row_lock *l = lock_of(c, hash);
	struct row_set *set = set_of(c, hash);
	bool had;

	SCOPED_LOCK(&l->lock);
	l->ticket++;
	had = find(set, hash, cf, key, klen);
	if (had)
		drop_first(set);
	if (value && (had || add))
		put(set, hash, cf, key, klen, *value);
}

void row_cache_note(struct row_cache *c, enum store_cf cf, const void *key, size_t klen,
	struct slice value, bool add)
{
	note(c, cf, key, klen, &value, add);
}

void row_cache_drop(struct row_cache *c, enum store_cf cf, const void *key, size_t klen)
{
	note(c, cf, key, klen, NULL, false);
}

void row_cache_clear(struct row_cache *c)
{
	for (size_t i = 0; i < SETS; i++) {
		struct row_lock *l = lock_of(c, (uint32_t)i);

		SCOPED_LOCK(&l->lock);
		l->ticket++;
		while (c->sets[i].way[0])
			drop_first(&c->sets[i]);
	}
}

/* Rows of a larger batch are not what is asked for next. */
#define ADD_ROWS_MAX 64

struct batch_row {
	enum store_cf cf;
	bool present;
	bool known; /* the value was kept */
	size_t at; /* of its key in batch_rows.bytes; the value follows */
	size_t klen;
	size_t vlen;
};

void batch_rows_done(struct batch_rows *b)
{
	free(b->rows);
	buf_done(&b->bytes);
}

static int grow(struct batch_rows *b)
{
	size_t cap = b->cap ? b->cap * 2 : 8;
	struct batch_row *rows = reallocarray(b->rows, cap, sizeof *rows);

	if (!rows)
		return -ENOMEM;
	b->rows = rows;
	b->cap = cap;
	return 0;
}

void batch_rows_add(struct batch_rows *b, enum store_cf cf, const void *key, size_t klen,
	const void *value, size_t vlen)
{
	struct batch_row row = { .cf = cf,
		.present = value,
		.known = klen + vlen <= ROW_BYTES_MAX,
		.at = b->bytes.len,
		.klen = klen,
		.vlen = vlen };

	if (!row_cache_has_family(cf))
		return;
	if ((b->n == b->cap && grow(b) < 0) || buf_append(&b->bytes, key, klen) < 0 ||
		(row.known && buf_append(&b->bytes, value, vlen) < 0))
		b->lost = true;
	else
		b->rows[b->n++] = row;
}

void batch_rows_mark(struct batch_rows *b)
{
	b->marked = b->n;
}

void batch_rows_rewind(struct batch_rows *b)
{
	b->n = b->marked;
}

static void tell_row(struct row_cache *c, const struct batch_row *row, const uint8_t *p,
	bool committed, bool add)
{
	struct slice value = { 0 };

	if (row->present && row->known)
		value = (struct slice){ p + row->at + row->klen, row->vlen };
	if (committed && row->present == (value.p != NULL))
		row_cache_note(c, row->cf, p + row->at, row->klen, value, add);
	else
		row_cache_drop(c, row->cf, p + row->at, row->klen);
}

void batch_rows_tell(struct batch_rows *b, struct row_cache *c, bool committed)
{
	for (size_t i = 0; i < b->n && !b->lost; i++)
		tell_row(c, &b->rows[i], b->bytes.data, committed, b->n <= ADD_ROWS_MAX);
	if (b->lost)
		row_cache_clear(c);
	b->n = b->marked = 0;
	b->lost = false;
	buf_clear(&b->bytes);
}
