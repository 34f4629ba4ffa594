/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users, device tokens, roles. Passwords: scrypt (RFC 7914). Tokens: 32 random bytes, stored as
 * their BLAKE3 hash. Threads: as db.h. Every refusal of a stranger looks the same (promise 10).
 */
#ifndef VARVE_AUTH_H
#define VARVE_AUTH_H

#include "bounds.h"
#include "chunk/digest.h"
#include "db.h"

#include <stdbool.h>

#define TOKEN_TEXT_BYTES 65 /* 64 hexadecimal digits and a NUL */

enum role { ROLE_NONE = 0, ROLE_READER = 1, ROLE_WRITER = 2, ROLE_OWNER = 3 }; /* stored */
const char *role_name(enum role role);

struct identity {
	int64_t user;
	int64_t device;
};

/* Whether a text may be the name of a user, drive or device: else -EINVAL with a reason. */
int auth_check_label(const char *what, const char *text, struct err *err) must_check;

/* -EEXIST; -EINVAL with a reason for a bad name or password. */
int auth_add_user(
	struct db *db, const char *name, const char *password, struct err *err) must_check;
int auth_find_user(struct db *db, const char *name, int64_t *ret, struct err *err) must_check;
/*
 * A new token, and the device it is for: `device`, when that is one of this user's, revoked or
 * not, whose earlier token ends; else (0, or another's) a new one. -EACCES for a wrong name or
 * password alike, after the same time.
 */
int auth_login(struct db *db, const char *name, const char *password, const char *device_name,
	int64_t device, char ret_token[TOKEN_TEXT_BYTES], struct identity *ret,
	struct err *err) must_check;
/* What is stored of a token. -EACCES when the text cannot be one. */
int auth_token_hash(const char *token, struct digest *ret) must_check;
/* -EACCES. */
int auth_hashed_token(
	struct db *db, const struct digest *hash, struct identity *ret, struct err *err) must_check;
int auth_token(struct db *db, const char *token, struct identity *ret, struct err *err) must_check;
int auth_revoke_device(struct db *db, int64_t device, struct err *err) must_check;

struct access {
	int64_t drive; /* SQL key */
	enum role role;
	uint32_t device_number; /* the newest; 0: this device has not attached to the drive */
	uint64_t head;
	int64_t created_ns;
	char name[LABEL_BYTES_MAX + 1];
};
/* By the drive's public id. -ENOENT unless the user has a role in it. */
int auth_drive(struct db *db, const struct identity *who, const char *public_id, struct access *ret,
	struct err *err) must_check;
/* 1 when attach gave the number to this device, 0 when not. */
int auth_has_number(struct db *db, const struct identity *who, int64_t drive, uint32_t number,
	struct err *err) must_check;
/* Gives this device a new number in the drive: never used before, never used again. */
int auth_attach(struct db *db, const struct identity *who, int64_t drive, uint32_t *ret_number,
	struct err *err) must_check;

struct auth_names {
	char user[LABEL_BYTES_MAX + 1];
	char device[LABEL_BYTES_MAX + 1];
};
int auth_names(struct db *db, const struct identity *who, struct auth_names *ret,
	struct err *err) must_check;

struct drive_info {
	const char *public_id; /* texts are valid during the visit */
	const char *name;
	const char *owner;
	enum role role;
	uint64_t head;
};
/* The drives in which the user has a role, by name. A negative return ends it. */
int auth_drives(struct db *db, const struct identity *who,
	int (*visit)(void *ctx, const struct drive_info *d), void *ctx, struct err *err) must_check;

#endif
