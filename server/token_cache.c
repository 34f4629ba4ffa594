// SPDX-License-Identifier: Apache-2.0
#include "token_cache.h"

#include "bytes.h"
#include "clock.h"

#include <errno.h>

/* Where two tokens meet, the later one stays: a miss costs one question to SQL. */
#define SLOTS 8192

struct slot {
	struct digest token_hash;
	struct identity who;
	int64_t until_mono_ms; /* 0: empty */
};

struct token_cache {
	pthread_mutex_t lock;
	uint64_t generation;
	struct slot slots[SLOTS];
};

int token_cache_new(struct token_cache **ret)
{
	struct token_cache *c = calloc(1, sizeof *c);

	if (!c)
		return -ENOMEM;
	pthread_mutex_init(&c->lock, NULL);
	*ret = c;
	return 0;
}

void token_cache_free(struct token_cache *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct slot *slot_of(struct token_cache *c, const struct digest *token_hash)
{
	return &c->slots[get_le64(token_hash->b) % SLOTS];
}

bool token_cache_get(struct token_cache *c, const struct digest *token_hash, struct identity *ret)
{
	struct slot *s = slot_of(c, token_hash);
	SCOPED_LOCK(&c->lock);

	if (!digest_eq(&s->token_hash, token_hash) || s->until_mono_ms <= clock_mono_ms())
		return false;
	*ret = s->who;
	return true;
}

uint64_t token_cache_generation(struct token_cache *c)
{
	SCOPED_LOCK(&c->lock);
	return c->generation;
}

void token_cache_put(struct token_cache *c, const struct digest *token_hash,
	const struct identity *who, uint64_t generation)
{
	SCOPED_LOCK(&c->lock);
	if (generation != c->generation)
		return;
	*slot_of(c, token_hash) = (struct slot){
		.token_hash = *token_hash,
		.who = *who,
		.until_mono_ms = clock_mono_ms() + TOKEN_CACHE_MS,
	};
}

void token_cache_revoke(struct token_cache *c, int64_t device)
{
	SCOPED_LOCK(&c->lock);
	c->generation++;
	for (size_t i = 0; i < SLOTS; i++) {
		if (c->slots[i].who.device == device)
			c->slots[i] = (struct slot){ 0 };
	}
}
