/* SPDX-License-Identifier: Apache-2.0 */
/* From the change feed into the tree. Private to src/remote. */
#ifndef VARVE_PULL_H
#define VARVE_PULL_H

#include "remote/sync_state.h"

/* The thread: waits on the feed until the stop. */
void *pull_main(void *arg);
/*
 * Asks and applies until the tree has what the server has as of an answer to a question asked
 * after the call began. Any thread that does not have the merge right.
 */
int pull_to_head(struct sync *s, int64_t deadline_mono_ms, struct err *err) must_check;

#endif
