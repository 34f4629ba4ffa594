/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users, device tokens, roles. Passwords: scrypt (RFC 7914). Tokens: 32 random bytes, stored as
 * their BLAKE3 hash. Threads: as db.h. Every refusal of a stranger looks the same (promise 10).
 */
#ifndef VARVE_AUTH_H
#define VARVE_AUTH_H

#include "db.h"

#include <stdbool.h>

#define TOKEN_TEXT_BYTES 65 /* 64 hexadecimal digits and a NUL */

enum role { ROLE_NONE = 0, ROLE_READER = 1, ROLE_WRITER = 2, ROLE_OWNER = 3 }; /* stored */

struct identity {
	int64_t user;
	int64_t device;
};

/* -EEXIST; -EINVAL with a reason for a bad name or password. */
int auth_add_user(struct db *db, const char *name, const char *password, struct err *err)
	must_check;
int auth_find_user(struct db *db, const char *name, int64_t *ret, struct err *err) must_check;
/* -EACCES for a wrong name or password alike, after the same time. */
int auth_login(struct db *db, const char *name, const char *password, const char *device_name,
	char ret_token[TOKEN_TEXT_BYTES], struct identity *ret, struct err *err) must_check;
/* -EACCES. */
int auth_token(struct db *db, const char *token, struct identity *ret, struct err *err) must_check;
int auth_revoke_device(struct db *db, int64_t device, struct err *err) must_check;

struct access {
	int64_t drive; /* SQL key */
	enum role role;
	uint32_t device_number; /* 0: this device has not attached to the drive */
};
/* By the drive's public id. -ENOENT unless the user has a role in it. */
int auth_drive(struct db *db, const struct identity *who, const char *public_id,
	struct access *ret, struct err *err) must_check;
/* Gives this device a new number in the drive: never used before, never used again. */
int auth_attach(struct db *db, const struct identity *who, int64_t drive, uint32_t *ret_number,
	struct err *err) must_check;

#endif
