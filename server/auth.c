// SPDX-License-Identifier: Apache-2.0
#include "auth.h"

#include "bounds.h"
#include "bytes.h"
#include "chunk/digest.h"
#include "clock.h"
#include "password.h"

#include <errno.h>
#include <sys/random.h>

#define TOKEN_BYTES 32

const char *role_name(enum role role)
{
	static const char *const names[] = { "none", "reader", "writer", "owner" };

	return (unsigned)role < ARRAY_SIZE(names) ? names[role] : names[ROLE_NONE];
}

/* Names are shown in terminals and stand in JSON. */
int auth_check_label(const char *what, const char *text, struct err *err)
{
	size_t n = strlen(text);

	if (n == 0 || n > LABEL_BYTES_MAX)
		return err_set(
			err, EINVAL, "the %s must have 1 to %d bytes", what, LABEL_BYTES_MAX);
	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return err_set(err, EINVAL, "the %s has a control character", what);
	}
	if (!utf8_valid(text, n))
		return err_set(err, EINVAL, "the %s is not UTF-8", what);
	return 0;
}

static int check_password(const char *password, struct err *err)
{
	size_t n = strlen(password);

	if (n < PASSWORD_BYTES_MIN || n > PASSWORD_BYTES_MAX)
		return err_set(err, EINVAL, "the password must have %d to %d bytes",
			PASSWORD_BYTES_MIN, PASSWORD_BYTES_MAX);
	return 0;
}

static int insert_account(
	struct db *db, const char *name, const struct password_hash *h, struct err *err)
{
	int r;
	DB_STMT(s, db,
		"INSERT INTO account (name, password, salt, params, created_ns)"
		" VALUES (?1, ?2, ?3, ?4, ?5)",
		err);

	db_bind_text(s, 1, name);
	db_bind_blob(s, 2, h->hash, sizeof h->hash);
	db_bind_blob(s, 3, h->salt, sizeof h->salt);
	db_bind_text(s, 4, h->params);
	db_bind_int(s, 5, clock_real_ns());
	r = db_run(s, err);
	if (r == -EEXIST)
		err_set(err, EEXIST, "the user %s is there already", name);
	return r;
}

/* Ends the transaction: commits when r is 0, else rolls back and returns r. */
static int end(struct db *db, int r, struct err *err)
{
	if (r == 0)
		return db_commit(db, err);
	db_rollback(db);
	return r;
}

int auth_add_user(struct db *db, const char *name, const char *password, struct err *err)
{
	struct password_hash h;
	int r = auth_check_label("user's name", name, err);

	if (r == 0)
		r = check_password(password, err);
	if (r == 0)
		r = password_hash(password, &h, err);
	if (r == 0)
		r = db_begin(db, err);
	if (r < 0)
		return r;
	return end(db, insert_account(db, name, &h, err), err);
}

int auth_find_user(struct db *db, const char *name, int64_t *ret, struct err *err)
{
	int r;
	DB_STMT(s, db, "SELECT id FROM account WHERE name = ?1", err);

	db_bind_text(s, 1, name);
	r = db_step(s, err);
	if (r == 0)
		return err_set(err, ENOENT, "there is no user %s", name);
	if (r > 0)
		*ret = db_int(s, 0);
	return r < 0 ? r : 0;
}

/* 1 with the account and its stored password, 0 when there is none. */
static int load_account(struct db *db, const char *name, int64_t *ret_account,
	struct password_hash *ret, struct err *err)
{
	struct slice hash, salt;
	int r;
	DB_STMT(s, db, "SELECT id, password, salt, params FROM account WHERE name = ?1", err);

	db_bind_text(s, 1, name);
	r = db_step(s, err);
	if (r <= 0)
		return r;
	*ret_account = db_int(s, 0);
	hash = db_blob(s, 1);
	salt = db_blob(s, 2);
	if (hash.n != sizeof ret->hash || salt.n != sizeof ret->salt)
		return err_set(err, EBADMSG, "database: the password of %s is damaged", name);
	memcpy(ret->hash, hash.p, hash.n);
	memcpy(ret->salt, salt.p, salt.n);
	snprintf(ret->params, sizeof ret->params, "%s", db_text(s, 3));
	return 1;
}

static int insert_device(struct db *db, int64_t account, const char *name,
	const struct digest *token_hash, int64_t *ret, struct err *err)
{
	int r;
	DB_STMT(s, db,
		"INSERT INTO device (account, name, token_hash, created_ns)"
		" VALUES (?1, ?2, ?3, ?4) RETURNING id",
		err);

	db_bind_int(s, 1, account);
	db_bind_text(s, 2, name);
	db_bind_blob(s, 3, token_hash->b, DIGEST_BYTES);
	db_bind_int(s, 4, clock_real_ns());
	r = db_step(s, err);
	if (r == 0)
		return err_set(err, EIO, "database: no id for a new device");
	if (r > 0)
		*ret = db_int(s, 0);
	return r < 0 ? r : 0;
}

/* 1 when the device is there and the account's, 0 when not. A revoked one comes in again. */
static int renew_device(struct db *db, int64_t account, int64_t device, const char *name,
	const struct digest *token_hash, struct err *err)
{
	DB_STMT(s, db,
		"UPDATE device SET name = ?3, token_hash = ?4, revoked_ns = NULL"
		" WHERE id = ?1 AND account = ?2 RETURNING id",
		err);

	db_bind_int(s, 1, device);
	db_bind_int(s, 2, account);
	db_bind_text(s, 3, name);
	db_bind_blob(s, 4, token_hash->b, DIGEST_BYTES);
	return db_step(s, err);
}

/* *device: which it says it is, 0 for a new one; and which it is. */
static int put_device(struct db *db, int64_t account, const char *name,
	const struct digest *token_hash, int64_t *device, struct err *err)
{
	int r = *device ? renew_device(db, account, *device, name, token_hash, err) : 0;

	if (r == 0)
		return insert_device(db, account, name, token_hash, device, err);
	return r < 0 ? r : 0;
}

static int let_in(struct db *db, const char *name, char ret_token[TOKEN_TEXT_BYTES],
	struct identity *who, struct err *err)
{
	uint8_t token[TOKEN_BYTES];
	struct digest hash;
	int r;

	if (getrandom(token, sizeof token, 0) != (ssize_t)sizeof token)
		return err_set(err, EIO, "no random numbers");
	digest_of(token, sizeof token, &hash);
	r = db_begin(db, err);
	if (r < 0)
		return r;
	r = end(db, put_device(db, who->user, name, &hash, &who->device, err), err);
	if (r == 0)
		hex_encode(token, sizeof token, ret_token);
	return r;
}

int auth_login(struct db *db, const char *name, const char *password, const char *device_name,
	int64_t device, char ret_token[TOKEN_TEXT_BYTES], struct identity *ret, struct err *err)
{
	struct password_hash stored;
	struct identity who = { .device = device };
	int r = auth_check_label("device's name", device_name, err), known;

	if (r < 0)
		return r;
	known = load_account(db, name, &who.user, &stored, err);
	if (known < 0)
		return known;
	r = password_check(password, known ? &stored : NULL, err);
	if (r < 0)
		return r;
	if (r == 0)
		return err_set(err, EACCES, "name or password are wrong");
	r = let_in(db, device_name, ret_token, &who, err);
	if (r == 0)
		*ret = who;
	return r;
}

int auth_token_hash(const char *token, struct digest *ret)
{
	uint8_t bytes[TOKEN_BYTES];

	if (!hex_decode(token, strlen(token), bytes, sizeof bytes))
		return -EACCES;
	digest_of(bytes, sizeof bytes, ret);
	return 0;
}

int auth_hashed_token(
	struct db *db, const struct digest *hash, struct identity *ret, struct err *err)
{
	int r;
	DB_STMT(s, db,
		"SELECT id, account FROM device WHERE token_hash = ?1 AND revoked_ns IS NULL", err);

	db_bind_blob(s, 1, hash->b, DIGEST_BYTES);
	r = db_step(s, err);
	if (r == 0)
		return err_set(err, EACCES, "the token is not valid");
	if (r > 0)
		*ret = (struct identity){ .device = db_int(s, 0), .user = db_int(s, 1) };
	return r < 0 ? r : 0;
}

int auth_token(struct db *db, const char *token, struct identity *ret, struct err *err)
{
	struct digest hash;

	if (auth_token_hash(token, &hash) < 0)
		return err_set(err, EACCES, "the token is not valid");
	return auth_hashed_token(db, &hash, ret, err);
}

static int mark_revoked(struct db *db, int64_t device, struct err *err)
{
	DB_STMT(s, db, "UPDATE device SET revoked_ns = ?2 WHERE id = ?1 AND revoked_ns IS NULL",
		err);

	db_bind_int(s, 1, device);
	db_bind_int(s, 2, clock_real_ns());
	return db_run(s, err);
}

int auth_revoke_device(struct db *db, int64_t device, struct err *err)
{
	int r = db_begin(db, err);

	return r < 0 ? r : end(db, mark_revoked(db, device, err), err);
}

int auth_names(struct db *db, const struct identity *who, struct auth_names *ret, struct err *err)
{
	int r;
	DB_STMT(s, db,
		"SELECT a.name, d.name FROM device d JOIN account a ON a.id = d.account"
		" WHERE d.id = ?1",
		err);

	db_bind_int(s, 1, who->device);
	r = db_step(s, err);
	if (r == 0)
		return err_set(err, EACCES, "the token is not valid");
	if (r < 0)
		return r;
	snprintf(ret->user, sizeof ret->user, "%s", db_text(s, 0));
	snprintf(ret->device, sizeof ret->device, "%s", db_text(s, 1));
	return 0;
}

int auth_drives(struct db *db, const struct identity *who,
	int (*visit)(void *ctx, const struct drive_info *d), void *ctx, struct err *err)
{
	int r;
	DB_STMT(s, db,
		"SELECT d.public_id, d.name, o.name, m.role, d.head_seq FROM drive_member m"
		" JOIN drive d ON d.id = m.drive JOIN account o ON o.id = d.owner"
		" WHERE m.account = ?1 ORDER BY d.name, d.id",
		err);

	db_bind_int(s, 1, who->user);
	while ((r = db_step(s, err)) > 0) {
		struct drive_info d = {
			.public_id = db_text(s, 0),
			.name = db_text(s, 1),
			.owner = db_text(s, 2),
			.role = (enum role)db_int(s, 3),
			.head = (uint64_t)db_int(s, 4),
		};

		r = visit(ctx, &d);
		if (r < 0)
			return err_sys(err, -r, "drives");
	}
	return r;
}

/* The device is asked for too: one that was revoked a moment ago may still be in a cache. */
int auth_drive(struct db *db, const struct identity *who, const char *public_id, struct access *ret,
	struct err *err)
{
	int r;
	DB_STMT(s, db,
		"SELECT d.id, m.role, d.head_seq, d.name, d.created_ns,"
		" (SELECT COALESCE(MAX(n.number), 0) FROM drive_device n"
		"  WHERE n.device = ?3 AND n.drive = d.id)"
		" FROM drive d"
		" JOIN drive_member m ON m.drive = d.id AND m.account = ?2"
		" JOIN device v ON v.id = ?3 AND v.account = ?2 AND v.revoked_ns IS NULL"
		" WHERE d.public_id = ?1",
		err);

	db_bind_text(s, 1, public_id);
	db_bind_int(s, 2, who->user);
	db_bind_int(s, 3, who->device);
	r = db_step(s, err);
	if (r < 0)
		return r;
	if (r == 0 || db_int(s, 1) < ROLE_READER || db_int(s, 1) > ROLE_OWNER)
		return err_set(err, ENOENT, "no such drive");
	*ret = (struct access){
		.drive = db_int(s, 0),
		.role = (enum role)db_int(s, 1),
		.head = (uint64_t)db_int(s, 2),
		.created_ns = db_int(s, 4),
		.device_number = (uint32_t)db_int(s, 5),
	};
	snprintf(ret->name, sizeof ret->name, "%s", db_text(s, 3));
	return 0;
}

int auth_has_number(
	struct db *db, const struct identity *who, int64_t drive, uint32_t number, struct err *err)
{
	DB_STMT(s, db,
		"SELECT 1 FROM drive_device WHERE drive = ?1 AND number = ?2 AND device = ?3", err);

	db_bind_int(s, 1, drive);
	db_bind_int(s, 2, number);
	db_bind_int(s, 3, who->device);
	return db_step(s, err);
}

static int next_number(struct db *db, int64_t drive, uint32_t *ret, struct err *err)
{
	int64_t number;
	int r;
	DB_STMT(s, db,
		"UPDATE drive SET next_device_number = next_device_number + 1 WHERE id = ?1"
		" RETURNING next_device_number - 1",
		err);

	db_bind_int(s, 1, drive);
	r = db_step(s, err);
	if (r <= 0)
		return r < 0 ? r : err_set(err, ENOENT, "no such drive");
	number = db_int(s, 0);
	if (number < 1 || number > NODE_DEVICE_GIVEN_MAX)
		return err_set(err, EDQUOT,
			"the drive has no device numbers left: it has given all %u to devices",
			NODE_DEVICE_GIVEN_MAX);
	*ret = (uint32_t)number;
	return 0;
}

static int insert_number(
	struct db *db, int64_t drive, uint32_t number, int64_t device, struct err *err)
{
	DB_STMT(s, db, "INSERT INTO drive_device (drive, number, device) VALUES (?1, ?2, ?3)", err);

	db_bind_int(s, 1, drive);
	db_bind_int(s, 2, number);
	db_bind_int(s, 3, device);
	return db_run(s, err);
}

int auth_attach(struct db *db, const struct identity *who, int64_t drive, uint32_t *ret_number,
	struct err *err)
{
	uint32_t number = 0;
	int r = db_begin(db, err);

	if (r < 0)
		return r;
	r = next_number(db, drive, &number, err);
	if (r == 0)
		r = insert_number(db, drive, number, who->device, err);
	r = end(db, r, err);
	if (r == 0)
		*ret_number = number;
	return r;
}
