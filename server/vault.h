/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server knows how to do, with no HTTP in it: the drives' history, contents and chunks.
 * The routes call it on worker threads; the simulator calls it directly.
 *
 * A vault is one connection's view: one thread at a time; open one per worker. SQL is the only
 * state they share. Many processes may do the same on one database.
 *
 * All calls name the drive by its SQL key, which authorize() (auth.h) gives after it has checked
 * the token and the role: nothing here checks who asks.
 *
 * Parts: prepared.c (a commit, decoded and verified), commit.c (takes it through a transaction),
 * apply.c (the rules of each change), contents.c (manifests and chunk rows), history.c (temporal
 * rows), feed.c (changes since a cursor), chunks.c (packs, missing, fetch), migrate.c (schema).
 */
#ifndef VARVE_VAULT_H
#define VARVE_VAULT_H

#include "blob.h"
#include "db.h"
#include "wire/wire.h"

struct vault;

int vault_open(struct db *db, struct blob *blob, struct vault **ret, struct err *err) must_check;
void vault_free(struct vault *v);

/* Creates the drive's rows (root directory at seq 0). *ret_drive is its SQL key. */
int vault_create_drive(struct vault *v, int64_t owner, const char *name, const char *public_id,
	int64_t *ret_drive, struct err *err) must_check;

/* Who commits: the device's SQL key and its number in this drive. */
struct committer {
	int64_t device;
	uint32_t number;
};

/*
 * One commit, wholly decoded, in a transaction of its own. 0: the reply is filled (applied or
 * refused; a commit id that was applied before gets its first answer). -errno: nothing happened.
 * reply's memory is *ret_arena's.
 */
int vault_commit(struct vault *v, int64_t drive, const struct committer *who,
	const struct commit *commit, struct commit_reply *ret, struct arena **ret_arena,
	struct err *err) must_check;
/*
 * The same for a group of commits in one transaction (one fsync), each in a savepoint: the
 * result of each is in its slot. When the transaction itself fails, every slot gets that error.
 */
struct commit_task {
	int64_t drive;
	struct committer who;
	const struct commit *commit;
	int result;
	struct commit_reply reply;
	struct arena *arena;
	struct err err;
};
void vault_commit_group(struct vault *v, struct commit_task **tasks, size_t n);

int vault_head(struct vault *v, int64_t drive, uint64_t *ret, struct err *err) must_check;
/* The encoded page since `from`, appended. -EINVAL when from is beyond the head. */
int vault_changes(struct vault *v, int64_t drive, uint64_t from, size_t max_rows, struct buf *ret,
	struct err *err) must_check;

/* Those of the ids that this drive has not uploaded, appended as an encoded id list. */
int vault_missing(struct vault *v, int64_t drive, const struct id_list *ids, struct buf *ret,
	struct err *err) must_check;
/*
 * Verifies every frame of the pack against its id, stores the pack, records its chunks.
 * -EBADMSG with a reason: nothing stored. Durable when it returns 0.
 */
int vault_put_pack(
	struct vault *v, int64_t drive, const void *p, size_t n, struct err *err) must_check;
/*
 * The chunks as a pack, appended; each was checked against its id after it was read. -ENOENT
 * when the drive lacks one (the err says which).
 */
int vault_fetch(struct vault *v, int64_t drive, const struct id_list *ids, struct buf *ret,
	struct err *err) must_check;
/* The encoded manifest, appended. -ENOENT. */
int vault_content(struct vault *v, int64_t drive, const struct digest *id, struct buf *ret,
	struct err *err) must_check;

#endif
