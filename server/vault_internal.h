/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the vault share. */
#ifndef VARVE_VAULT_INTERNAL_H
#define VARVE_VAULT_INTERNAL_H

#include "vault.h"

struct vault {
	struct db *db;
	struct blob *blob;
};

/* The drive's head, inside or outside of a transaction. -ENOENT. */
int drive_head(struct db *db, int64_t drive, uint64_t *ret, struct err *err) must_check;
/* Adds to what the drive has stored; also what locks the drive. -ENOENT. */
int drive_add_bytes(struct db *db, int64_t drive, int64_t bytes, struct err *err) must_check;

#endif
