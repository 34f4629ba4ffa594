/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manifest: the ordered list of (chunk id, length) that is one content of a file. Holes are
 * listed, not stored. The content id is the BLAKE3-256 of the encoded manifest, so the same
 * bytes must always give the same manifest (ingest.h sees to that).
 *
 * Manifests are immutable and counted: share one freely between threads.
 *
 *	manifest_builder_new(&b); manifest_add_chunk(b, ...); manifest_add_hole(b, ...);
 *	manifest_builder_finish(b, &m);		// b is freed either way
 */
#ifndef VARVE_MANIFEST_H
#define VARVE_MANIFEST_H

#include "buf.h"
#include "cleanup.h"
#include "chunk/digest.h"
#include "err.h"

#include <stdbool.h>
#include <stdint.h>

struct manifest_entry {
	uint64_t offset; /* where in the file it begins */
	uint64_t length; /* of a chunk: at most CHUNK_MAX */
	struct digest id; /* all zero for a hole */
	bool hole;
};

struct manifest;
struct manifest_builder;

struct manifest *manifest_ref(struct manifest *m);
void manifest_unref(struct manifest *m);
static inline void manifest_unref_p(struct manifest **m)
{
	manifest_unref(*m);
}
#define _cleanup_manifest_ _cleanup_(manifest_unref_p)

/* The manifest of a file of no bytes; a new reference. NULL when out of memory. */
struct manifest *manifest_empty(void);
uint64_t manifest_size(const struct manifest *m); /* bytes of the file */
uint64_t manifest_holes(const struct manifest *m); /* how many of them are in holes */
size_t manifest_count(const struct manifest *m);
const struct manifest_entry *manifest_at(const struct manifest *m, size_t i); /* i < count */
/* Index of the entry that holds the byte at offset; count when offset is at or past the end. */
size_t manifest_find(const struct manifest *m, uint64_t offset);
const struct digest *manifest_content_id(const struct manifest *m);
/* The encoding; owned by the manifest, lives as long as it does. */
const uint8_t *manifest_bytes(const struct manifest *m, size_t *ret_len);

/* manifest_holes() of an encoding that was checked before. */
uint64_t manifest_holes_encoded(const void *p, size_t n);

/*
 * Checks everything: version, lengths (none zero, none over CHUNK_MAX, no two holes side by
 * side), their sum against the size, and that no bytes are left over. -EBADMSG with a reason.
 */
int manifest_decode(const void *p, size_t n, struct manifest **ret, struct err *err) must_check;

int manifest_builder_new(struct manifest_builder **ret) must_check;
void manifest_builder_free(struct manifest_builder *b);
int manifest_add_chunk(
	struct manifest_builder *b, const struct digest *id, uint64_t length) must_check;
/* Joins with a hole before it. */
int manifest_add_hole(struct manifest_builder *b, uint64_t length) must_check;
uint64_t manifest_builder_size(const struct manifest_builder *b);
/* -EFBIG when the encoding exceeds MANIFEST_BYTES_MAX. */
int manifest_builder_finish(struct manifest_builder *b, struct manifest **ret) must_check;

#endif
