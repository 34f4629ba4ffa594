/* SPDX-License-Identifier: Apache-2.0 */
/* Answers to the kernel: attributes, entries, errors. Any thread. */
#ifndef VARVE_REPLY_H
#define VARVE_REPLY_H

#include "fs/ops.h"

/*
 * How long the kernel may believe what it was told: until it is told otherwise. The daemon knows
 * of every change and invalidates.
 */
#define REPLY_TIMEOUT_S 1e9

/* What programs should read and write at a time: several chunks, and a few requests. */
#define REPLY_BLOCK_BYTES (256 * 1024)

void reply_stat(struct session *s, const struct node *n, struct stat *ret);
/* Whose the node is on this mount. */
uint32_t reply_uid(const struct session *s, const struct node *n);
uint32_t reply_gid(const struct session *s, const struct node *n);
/* Fills in the node's current FUSE id, and counts it; reply_entry_lost() takes that back. */
void reply_entry_fill(struct session *s, const struct node *n, struct fuse_entry_param *ret);
void reply_entry_lost(struct session *s, const struct fuse_entry_param *e);

/* error: 0 or -errno. */
void reply_error(fuse_req_t req, int error);
void reply_entry(fuse_req_t req, const struct node *n);
/* "There is no such name", to be remembered. */
void reply_no_entry(fuse_req_t req);
void reply_attr(fuse_req_t req, const struct node *n);
/* A size, when `size` is 0; -ERANGE when the value does not fit; else the value. */
void reply_xattr(fuse_req_t req, size_t size, const struct buf *value);

#endif
