/* SPDX-License-Identifier: Apache-2.0 */
/* Every bound of the product, in one place, each with its reason. */
#ifndef VARVE_BOUNDS_H
#define VARVE_BOUNDS_H

#include <stdint.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)
#define TIB (GIB * 1024)

/* POSIX: NAME_MAX and PATH_MAX - 1 of Linux. */
#define NAME_BYTES_MAX 255
#define SYMLINK_BYTES_MAX 4095
/* Linux: XATTR_NAME_MAX, XATTR_SIZE_MAX, and what one node may carry altogether. */
#define XATTR_NAME_BYTES_MAX 255
#define XATTR_VALUE_BYTES_MAX 65536
#define XATTR_NODE_BYTES_MAX (128 * KIB)
/* ext4's default. */
#define LINKS_MAX 65000
/* What st_blocks counts in. */
#define STAT_BLOCK_BYTES 512
/* The largest file, and what off_t arithmetic on it can reach. */
#define FILE_BYTES_MAX (8 * TIB)
/* A manifest travels inside one message: 32 MiB name about 230 GiB of data that is no hole. */
#define MANIFEST_BYTES_MAX (32 * MIB)

/* Chunks up to here live in RocksDB, in the commit message and in the SQL row. */
#define CHUNK_INLINE_MAX 4096
/* A frame's header and check around an incompressible chunk of the largest size. */
#define FRAME_OVERHEAD_MAX 64

/* One commit: bounded work under the drive's lock, bounded memory for one request. */
#define COMMIT_CHANGES_MAX 1000
#define COMMIT_BYTES_MAX (48 * MIB)
/* One pack: large enough to amortize a request and an fsync, small enough to retry. */
#define PACK_BYTES_MAX (16 * MIB)
#define PACK_CHUNKS_MAX 4096
/* One "which of these are missing" question; and how many chunks one answer carries. */
#define MISSING_IDS_MAX 8192
#define FETCH_IDS_MAX 256
/* One page of the change feed; a single commit may exceed it, up to its own bounds. */
#define CHANGES_ROWS_MAX 4096
#define CHANGES_BYTES_MAX (64 * MIB)

/* Names of users, drives and devices. */
#define LABEL_BYTES_MAX 100

#endif
