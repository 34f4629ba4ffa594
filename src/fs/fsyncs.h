/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsync requests for which a sync of the staging log is all that is missing: one thread syncs it
 * for all that have come meanwhile, and answers them. So eight programs that wait for their fsync
 * cost no eight threads that wait and are woken.
 *
 *	fsyncs_new(files, &q); fsyncs_start(q); fsyncs_add(q, req); ... fsyncs_stop(q);
 *fsyncs_free(q);
 */
#ifndef VARVE_FSYNCS_H
#define VARVE_FSYNCS_H

#include "fs/ops.h"

struct fsyncs;

int fsyncs_new(struct files *files, struct fsyncs **ret) must_check;
void fsyncs_free(struct fsyncs *q);
int fsyncs_start(struct fsyncs *q) must_check;
/* Answers what is there, then ends the thread. */
void fsyncs_stop(struct fsyncs *q);
/*
 * After file_fsync_begin(). True: the request is answered by the thread when what was written
 * before this call is durable. False: it is the caller's. Any thread.
 */
bool fsyncs_add(struct fsyncs *q, fuse_req_t req) must_check;

#endif
