/* SPDX-License-Identifier: Apache-2.0 */
/* From the outbox to the server. Private to src/remote. */
#ifndef VARVE_PUSH_H
#define VARVE_PUSH_H

#include "remote/sync_state.h"

/* The thread: sends what the outbox holds until the stop. */
void *push_main(void *arg);
/* What replica_on_outbox() calls; ctx is the struct sync. */
void push_wake(void *ctx);

#endif
