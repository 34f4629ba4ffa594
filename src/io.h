/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole reads and writes, and files that appear whole. Any thread. 0 or -errno.
 */
#ifndef VARVE_IO_H
#define VARVE_IO_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* All n bytes, or an error; a file that ends early is -ENODATA. */
int io_pread_full(int fd, void *p, size_t n, uint64_t offset) must_check;
int io_pwrite_full(int fd, const void *p, size_t n, uint64_t offset) must_check;
int io_write_full(int fd, const void *p, size_t n) must_check;
/* The whole file behind what *ret holds; -EFBIG beyond max_bytes. */
int io_read_file(const char *path, size_t max_bytes, struct buf *ret) must_check;
/* Writes path.tmp, syncs it, renames it to path and syncs the folder: durable, old or new. */
int io_write_file_atomic(const char *path, const void *p, size_t n, mode_t mode) must_check;
/* Creates path and its parents, durably; existing ones are fine. */
int io_mkdirs(const char *path, mode_t mode) must_check;
/* Makes names in the folder durable. */
int io_sync_dir(const char *path) must_check;
/* Removes a file or a folder with all that is in it; absent is fine. Follows no symlink. */
int io_remove_tree(const char *path) must_check;
/* Whether p[0..n) is all zero bytes. */
bool io_is_zero(const void *p, size_t n);

#endif
