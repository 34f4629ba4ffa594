/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings the chunks that a commit needs to the server: small ones in the commit itself, the
 * others in packs, of which a few are made and sent side by side. One thread (the push thread)
 * drives it. Private to src/remote.
 */
#ifndef VARVE_UPLOAD_H
#define VARVE_UPLOAD_H

#include "remote/digest_set.h"
#include "remote/sync_state.h"

struct upload {
	struct sync *sync;
	struct digest_set present; /* on the server, though no commit that names them yet */
	pthread_mutex_t lock; /* what follows: shared with the uploaders' threads */
	int result;
	struct err err;
};

void upload_init(struct upload *u, struct sync *s);
void upload_done(struct upload *u);
/* What is on the server may have changed: ask again. */
void upload_forget(struct upload *u);

/*
 * Fills *ret_pack with the small chunks, as far as there is room in a commit. -EBADMSG when one
 * is damaged here and the server does not have it; *ret_damaged then says which.
 */
int upload_inline(struct upload *u, const struct outgoing *o, struct buf *ret_pack,
	struct digest *ret_damaged, struct err *err) must_check;
/*
 * Sends what upload_inline() leaves and the server lacks. 0 when all is there; -EAGAIN when
 * somebody wants the merge right first: what was sent is remembered. Errors as client.h has them,
 * and -EBADMSG as above.
 */
int upload_packs(struct upload *u, const struct outgoing *o, struct digest *ret_damaged,
	struct err *err) must_check;

#endif
