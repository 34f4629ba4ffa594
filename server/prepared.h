/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A commit, decoded and verified as far as that goes without the database: its changes, its
 * inline chunks (each hashed), its manifests. Pure, so that it is done before the drive is
 * locked. The commit must outlive it. One thread.
 */
#ifndef VARVE_PREPARED_H
#define VARVE_PREPARED_H

#include "chunk/manifest.h"
#include "wire/wire.h"

#include <uthash.h>

/* Why a change, or the commit, is refused. */
struct verdict {
	enum refusal reason;
	uint32_t index; /* of the change */
	char detail[200];
};

/* Fills the verdict but for its index; returns 1, which is what rules return on refusal. */
int refuse(struct verdict *v, enum refusal reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A chunk that came inside the commit. */
struct inline_chunk {
	struct digest id;
	uint32_t plain_len;
	struct slice frame;
	UT_hash_handle hh;
};

/* A manifest that came with the commit. */
struct new_content {
	struct digest id;
	struct manifest *manifest;
	bool admitted; /* a change names it, and its chunks are there: to be stored */
	UT_hash_handle hh;
};

struct prepared {
	const struct commit *commit;
	struct change *changes; /* commit->n_changes */
	struct arena **arenas; /* what the changes' slices point into */
	struct inline_chunk *chunks;
	struct new_content *contents;
	struct verdict verdict; /* REFUSAL_NONE unless the commit is refused as it is */
};

int prepared_init(struct prepared *p, const struct commit *commit, struct err *err) must_check;
void prepared_done(struct prepared *p);
#define _cleanup_prepared_ _cleanup_(prepared_done)

#endif
