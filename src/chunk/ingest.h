/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a file's bytes to pieces (chunks and holes), always the same way for the same bytes,
 * whatever the order they were written in:
 *
 *  - A block of HOLE_BLOCK bytes, aligned in the file and wholly inside it, that is all zeros is
 *    part of a hole. Runs of such blocks are one hole.
 *  - What lies between holes is cut by chunker.h; each run begins at a cut.
 *
 * So the piece that begins at an offset depends only on bytes at and after that offset: this is
 * what lets a change be re-cut locally (ingest_recut()).
 *
 * Pure; one thread per object; bytes come from a callback.
 */
#ifndef VARVE_INGEST_H
#define VARVE_INGEST_H

#include "chunk/chunker.h"
#include "chunk/manifest.h"

#define HOLE_BLOCK ((size_t)64 * 1024)
/* ingest_next() needs this many bytes from the offset on, or the end of the file. */
#define INGEST_WINDOW (CHUNK_MAX + HOLE_BLOCK)

struct piece {
	uint64_t length;
	bool hole;
};

/*
 * The piece that begins at `offset`: p[0..n) are the file's bytes from there on. `at_end` says
 * that the file ends at offset + n; otherwise n >= INGEST_WINDOW. n > 0.
 * (A hole is as long as the window shows it: the caller joins neighbours.)
 */
void ingest_next(const uint8_t *p, size_t n, uint64_t offset, bool at_end, struct piece *ret);

/* A run of bytes [start, end) of the file. */
struct range {
	uint64_t start;
	uint64_t end;
};

/* Where ingest_recut() gets bytes and leaves chunks. */
struct ingest_io {
	/* Reads exactly n bytes of the new content at offset. 0 or -errno. */
	int (*read)(void *ctx, uint64_t offset, void *p, size_t n);
	/*
	 * Optional: the number of bytes from offset on that are known to be zeros without
	 * reading (a hole); 0 when not known.
	 */
	uint64_t (*zeros)(void *ctx, uint64_t offset);
	/*
	 * A chunk of the new content that is not an entry of the old manifest at its place;
	 * bytes are valid during the call. 0 or -errno, which ends the recut.
	 */
	int (*chunk)(void *ctx, uint64_t offset, const struct digest *id, const void *p, size_t n);
	void *ctx;
};

/*
 * The manifest of a file that was `old` (may be manifest_empty()) and now has `size` bytes, of
 * which `dirty` (sorted, disjoint, joined where they touch) may differ. Equal, for every
 * input, to cutting the whole new content from the start; reads only around what is dirty.
 * A size change counts as dirty from the smaller size on; the caller need not list it.
 */
int ingest_recut(struct manifest *old, uint64_t size, const struct range *dirty, size_t n_dirty,
	const struct ingest_io *io, struct manifest **ret) must_check;

#endif
