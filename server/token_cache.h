/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens that were valid a moment ago, by their hash, so that a request need not ask SQL before
 * its body is taken. A fixed number of entries. Any thread.
 *
 * A token that another process revokes is taken for at most TOKEN_CACHE_MS more; what touches
 * a drive asks SQL in any case (auth_drive()).
 */
#ifndef VARVE_TOKEN_CACHE_H
#define VARVE_TOKEN_CACHE_H

#include "auth.h"
#include "chunk/digest.h"

#define TOKEN_CACHE_MS 5000

struct token_cache;

int token_cache_new(struct token_cache **ret) must_check;
void token_cache_free(struct token_cache *c);
bool token_cache_get(struct token_cache *c, const struct digest *token_hash, struct identity *ret);
/* To be read before SQL is asked, and given to token_cache_put(). */
uint64_t token_cache_generation(struct token_cache *c);
/* Nothing is kept when a token was revoked since. */
void token_cache_put(struct token_cache *c, const struct digest *token_hash,
	const struct identity *who, uint64_t generation);
/* After the device was revoked in SQL. */
void token_cache_revoke(struct token_cache *c, int64_t device);

#endif
