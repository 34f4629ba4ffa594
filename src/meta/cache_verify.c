// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes on a disk can change by themselves. So a chunk's are hashed before the first time that a
 * reader gets them after cache_open(), and this remembers which have been: a bit for each block of
 * BLOCK_BYTES that a chunk begins in (larger than CHUNK_INLINE_MAX each, no two begin in one), so
 * 32 KiB for a GiB of what was read. Bytes that this process has hashed and put there count.
 *
 * verified_lock is a leaf.
 */
#include "meta/cache_impl.h"

#include "bounds.h"
#include "chunk/chunker.h"
#include "io.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>

#define BLOCK_BYTES CHUNK_INLINE_MAX
#define WORD_BITS 64

struct verified {
	UT_hash_handle hh;
	uint64_t segment;
	size_t words;
	uint64_t *bits; /* set with atomic operations */
};

static bool bit_of(struct cache *c, uint64_t segment, uint64_t offset)
{
	uint64_t block = offset / BLOCK_BYTES;
	struct verified *v;
	bool set = false;

	pthread_rwlock_rdlock(&c->verified_lock);
	HASH_FIND(hh, c->verified, &segment, sizeof segment, v);
	if (v && block / WORD_BITS < v->words)
		set = __atomic_load_n(&v->bits[block / WORD_BITS], __ATOMIC_RELAXED) >>
			      (block % WORD_BITS) &
		      1;
	pthread_rwlock_unlock(&c->verified_lock);
	return set;
}

static bool set_bit(struct verified *v, uint64_t block)
{
	if (!v || block / WORD_BITS >= v->words)
		return false;
	__atomic_fetch_or(
		&v->bits[block / WORD_BITS], UINT64_C(1) << (block % WORD_BITS), __ATOMIC_RELAXED);
	return true;
}

static struct verified *grow_locked(struct cache *c, uint64_t segment, uint64_t block)
{
	size_t words = (size_t)(block / WORD_BITS + 1);
	struct verified *v;
	uint64_t *bits;

	HASH_FIND(hh, c->verified, &segment, sizeof segment, v);
	if (!v) {
		v = calloc(1, sizeof *v);
		if (!v)
			return NULL;
		v->segment = segment;
		HASH_ADD(hh, c->verified, segment, sizeof v->segment, v);
	}
	if (words <= v->words)
		return v;
	words = MAX(words, 2 * v->words);
	bits = reallocarray(v->bits, words, sizeof *bits);
	if (!bits)
		return NULL;
	memset(bits + v->words, 0, (words - v->words) * sizeof *bits);
	v->bits = bits;
	v->words = words;
	return v;
}

/* One that finds no memory is hashed again. */
void cache_set_verified(struct cache *c, uint64_t segment, uint64_t offset)
{
	uint64_t block = offset / BLOCK_BYTES;
	struct verified *v;
	bool done;

	pthread_rwlock_rdlock(&c->verified_lock);
	HASH_FIND(hh, c->verified, &segment, sizeof segment, v);
	done = set_bit(v, block);
	pthread_rwlock_unlock(&c->verified_lock);
	if (done)
		return;
	pthread_rwlock_wrlock(&c->verified_lock);
	(void)!set_bit(grow_locked(c, segment, block), block);
	pthread_rwlock_unlock(&c->verified_lock);
}

static void verified_free(struct cache *c, struct verified *v)
{
	HASH_DEL(c->verified, v);
	free(v->bits);
	free(v);
}

void cache_forget_verified(struct cache *c, uint64_t segment)
{
	struct verified *v;

	pthread_rwlock_wrlock(&c->verified_lock);
	HASH_FIND(hh, c->verified, &segment, sizeof segment, v);
	if (v)
		verified_free(c, v);
	pthread_rwlock_unlock(&c->verified_lock);
}

void cache_verified_done(struct cache *c)
{
	struct verified *v, *next;

	HASH_ITER (hh, c->verified, v, next)
		verified_free(c, v);
	pthread_rwlock_destroy(&c->verified_lock);
}

void cache_note_damage(struct cache *c, const struct digest *id, bool on_server)
{
	char hex[DIGEST_HEX_BYTES];

	digest_hex(id, hex);
	atomic_fetch_add(&c->damaged, 1);
	if (!on_server)
		atomic_fetch_add(&c->lost, 1);
	log_error("chunk %s is damaged on this disk; %s", hex,
		on_server ? "it is fetched anew"
			  : "only this device had it: varve doctor says what it belongs to");
}

int cache_locate_verified(struct cache *c, const struct digest *id, struct chunk_loc *ret)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	uint64_t epoch = cache_places_epoch(c);
	int r = cache_find_place(c, id, ret);

	if (r != 0)
		return r;
	r = cache_locate(c, id, ret);
	if (r <= 0 || !ret->seg)
		return r;
	if (bit_of(c, segment_id(ret->seg), ret->offset)) {
		cache_keep_place(c, id, ret, epoch);
		return r;
	}
	chunk_loc_done(ret);
	*ret = (struct chunk_loc){ .fd = -1 };
	r = cache_read_chunk(c, id, &bytes);
	if (r > 0)
		return cache_locate(c, id, ret);
	/* Dropped, when it can be fetched; else the next look says -EIO. */
	return r == -EBADMSG ? cache_locate(c, id, ret) : r;
}
