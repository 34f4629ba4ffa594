/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SEEK_DATA and SEEK_HOLE in a file that somebody may have mapped. The kernel tells of mapped
 * pages that were written to when it pleases, and asks for holes without telling of them before:
 * what lies in such a page would be skipped by who copies the file. So before a hole is answered,
 * its pages are invalidated, which has the kernel write the dirty ones first.
 *
 * Threads: any. The waiting is done by a thread of its own, since the kernel ends a notification
 * when those writes, and reads of the same pages, have been answered.
 */
#ifndef VARVE_SEEKS_H
#define VARVE_SEEKS_H

#include "fs/ops.h"

struct seeks;

int seeks_new(struct session *s, struct seeks **ret) must_check;
void seeks_free(struct seeks *k);
/* Ends what is under way, while requests are still answered; after it holes are not looked at. */
void seeks_stop(struct seeks *k);
/* Answers the request, now or later. */
void seeks_ask(
	struct seeks *k, fuse_req_t req, const struct handle *h, uint64_t offset, int whence);

#endif
