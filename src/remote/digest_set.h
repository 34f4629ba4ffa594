/* SPDX-License-Identifier: Apache-2.0 */
/* A set of ids. One thread. {0} is an empty set. */
#ifndef VARVE_DIGEST_SET_H
#define VARVE_DIGEST_SET_H

#include "chunk/digest.h"
#include "cleanup.h"

struct digest_set {
	struct digest *slots; /* the zero digest is a free slot */
	size_t n;
	size_t cap;
};

void digest_set_done(struct digest_set *s);
/* 0 or -ENOMEM. An id that is there already is fine; the zero id is never in a set. */
int digest_set_add(struct digest_set *s, const struct digest *id) must_check;
bool digest_set_has(const struct digest_set *s, const struct digest *id);

#define _cleanup_digest_set_ _cleanup_(digest_set_done)

#endif
