/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where to cut: FastCDC with normalized chunking and a 64-bit gear hash (Xia et al., "FastCDC",
 * USENIX ATC 2016; the two-bytes-a-step loop of "The Design of Fast Content-Defined Chunking",
 * IEEE TPDS 2020). A cut depends on the 64 bytes before it and on the distance from the
 * previous cut, on nothing else. Pure; any thread.
 *
 * The parameters below and the table in gear.c are part of the stored format: other values
 * would cut the same file elsewhere and share nothing with what is stored.
 */
#ifndef VARVE_CHUNKER_H
#define VARVE_CHUNKER_H

#include <stddef.h>
#include <stdint.h>

#define CHUNK_MIN ((size_t)64 * 1024)
#define CHUNK_AVG ((size_t)256 * 1024)
#define CHUNK_MAX ((size_t)1024 * 1024)

/*
 * The length of the first chunk of p[0..n), n > 0. p must start at a cut. Bytes beyond
 * CHUNK_MAX are not looked at; when n < CHUNK_MAX the caller vouches that the run ends at n.
 */
size_t chunker_cut(const uint8_t *p, size_t n);

extern const uint64_t gear_table[256];

#endif
