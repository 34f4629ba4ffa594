// SPDX-License-Identifier: Apache-2.0
/*
 * Where chunks were when somebody last read them: a look into the store costs more than the rest
 * of a small read. A table of fixed size in which the newer takes the older's place.
 *
 * A place is true for as long as its segment is there: bytes of a segment never change, and no
 * segment's id comes a second time. Only a row that is dropped or marked because its bytes are
 * wrong has to be told (cache_forget_places()). The locks are leaves.
 */
#include "meta/cache_impl.h"

#include "bytes.h"

#include <errno.h>
#include <stdlib.h>

/* Chunks of 8 GiB, in 2 MiB, of which only what is used becomes resident. */
#define PLACES 32768
#define LOCKS 64

struct place {
	struct digest id;
	uint64_t segment;
	uint64_t offset;
	uint64_t epoch; /* 0: empty */
	uint32_t length;
	uint32_t flags;
};

struct places {
	_Atomic uint64_t epoch;
	pthread_mutex_t locks[LOCKS];
	struct place all[PLACES];
};

int places_new(struct places **ret)
{
	struct places *p = calloc(1, sizeof *p);

	if (!p)
		return -ENOMEM;
	p->epoch = 1;
	for (size_t i = 0; i < LOCKS; i++)
		pthread_mutex_init(&p->locks[i], NULL);
	*ret = p;
	return 0;
}

void places_free(struct places *p)
{
	for (size_t i = 0; p && i < LOCKS; i++)
		pthread_mutex_destroy(&p->locks[i]);
	free(p);
}

/* An id is a hash: any part of it is as good as another. */
static size_t slot_of(const struct digest *id)
{
	return get_le32(id->b) % PLACES;
}

static bool look_up(struct places *p, const struct digest *id, struct place *ret)
{
	size_t i = slot_of(id);
	SCOPED_LOCK(&p->locks[i % LOCKS]);

	*ret = p->all[i];
	return ret->epoch == atomic_load(&p->epoch) && digest_eq(&ret->id, id);
}

int cache_find_place(struct cache *c, const struct digest *id, struct chunk_loc *ret)
{
	struct segment *seg;
	struct place place;
	int r;

	if (!look_up(c->places, id, &place))
		return 0;
	r = segments_get(c->segments, place.segment, &seg);
	if (r <= 0)
		return r;
	*ret = (struct chunk_loc){
		.seg = seg,
		.fd = segment_fd(seg),
		.offset = place.offset,
		.length = place.length,
		.flags = place.flags,
	};
	return 1;
}

uint64_t cache_places_epoch(struct cache *c)
{
	return atomic_load(&c->places->epoch);
}

void cache_keep_place(
	struct cache *c, const struct digest *id, const struct chunk_loc *loc, uint64_t epoch)
{
	size_t i = slot_of(id);
	SCOPED_LOCK(&c->places->locks[i % LOCKS]);

	c->places->all[i] = (struct place){
		.id = *id,
		.segment = segment_id(loc->seg),
		.offset = loc->offset,
		.epoch = epoch,
		.length = loc->length,
		.flags = loc->flags,
	};
}

void cache_forget_places(struct cache *c)
{
	atomic_fetch_add(&c->places->epoch, 1);
}
