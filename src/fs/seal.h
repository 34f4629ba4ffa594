/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a frozen staging to a manifest whose chunks are in the cache (their rows in a batch):
 * cut where bytes changed, hash, and either copy the chunks or adopt the staging file as a
 * segment. The result equals that of cutting the whole content, whatever the way here.
 *
 * Blocks (disk, and the network where a cut needs old bytes that are not here); no lock may be
 * held. One thread.
 */
#ifndef VARVE_SEAL_H
#define VARVE_SEAL_H

#include "fs/instance.h"

struct seal {
	struct files *fs;
	struct staging *staging; /* frozen, and behind_stop() was called */
	struct manifest *base; /* what lies below; NULL when nothing of it shows */
	struct batch *batch; /* filled */
	bool local; /* do not wait for the network: -ENOTCONN where old bytes are not here */
};

/* 0 with a new reference to the content, or -errno: nothing is lost, call again. */
int seal_content(struct seal *seal, struct manifest **ret) must_check;

#endif
