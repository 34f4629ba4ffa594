/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's routes as calls. Each is one request and its checked answer; nothing is tried
 * again here. Any thread; many calls may run side by side on one client.
 *
 *	client_new(&(struct client_options){ .url = url }, &c, &err);
 *	client_login(c, "ann", password, "laptop", NULL, &login, &err);
 *	client_set_token(c, login.token);
 *	client_drives(c, visit, ctx, &err);
 *
 * Errors, with the server's own words in *err where it had some:
 *	-EACCES		the token, or user and password, are not valid (401)
 *	-EPERM		the role does not allow it (403)
 *	-ENOENT		no such thing, or not for this user (404)
 *	-EMSGSIZE	too large for the server (413), or its answer too large for us
 *	-ENOSPC		the server's store is full (507)
 *	-EBUSY		the server asks to come back later (429, 503)
 *	-EINVAL		the server refuses the request as wrong (another 4xx)
 *	-EBADMSG	the answer is not what this program understands
 *	-EIO		the server failed (5xx), or the line broke in the middle
 *	-ENOTCONN	the server cannot be reached
 *	-ETIMEDOUT	the deadline, or silence for too long
 *	-EINTR		*cancelled became true
 *	-ECANCELED	client_stop()
 */
#ifndef VARVE_CLIENT_H
#define VARVE_CLIENT_H

#include "bounds.h"
#include "wire/wire.h"

struct client;

struct client_options {
	const char *url; /* "https://host:port" */
	const char *token; /* NULL: none yet */
	const char *ca_file; /* PEM; NULL for the system's */
};

int client_new(const struct client_options *o, struct client **ret, struct err *err) must_check;
void client_free(struct client *c);
static inline void client_free_p(struct client **c)
{
	client_free(*c);
}
#define _cleanup_client_ _cleanup_(client_free_p)
/* 0 or -ENOMEM. Before calls on other threads only. */
int client_set_token(struct client *c, const char *token) must_check;
/* Every call, now and later, ends at once with -ECANCELED. */
void client_stop(struct client *c);

struct client_counts {
	uint64_t bytes_sent; /* bodies and headers */
	uint64_t bytes_received;
	uint64_t pack_bytes_sent; /* bodies of client_put_pack() */
	int64_t last_contact_ns; /* wall time of the last answer of any kind; 0: never */
};
void client_get_counts(struct client *c, struct client_counts *ret);

/* How long a call may take. NULL where one is asked for means CLIENT_TIMEOUT_MS from now. */
struct client_limit {
	int64_t deadline_mono_ms;
	const _Atomic int *cancelled; /* polled; may be NULL */
};
#define CLIENT_TIMEOUT_MS (60 * 1000)

#define CLIENT_TOKEN_BYTES 257
#define CLIENT_ID_BYTES 65

struct client_login {
	char token[CLIENT_TOKEN_BYTES];
	char device_id[CLIENT_ID_BYTES];
	char user[LABEL_BYTES_MAX + 1];
};
/* device_id: of an earlier login, so that it stays the same device; NULL for a new one. */
int client_login(struct client *c, const char *user, const char *password, const char *device,
	const char *device_id, struct client_login *ret, struct err *err) must_check;
/* Revokes this device's token. */
int client_logout(struct client *c, struct err *err) must_check;

struct client_drive {
	char id[CLIENT_ID_BYTES]; /* 32 hexadecimal digits */
	char name[LABEL_BYTES_MAX + 1];
	char owner[LABEL_BYTES_MAX + 1]; /* client_drives() only */
	char role[16]; /* "owner", "writer", "reader" */
	uint64_t head;
	uint32_t device_number; /* client_attach() only; never 0 there */
	int64_t created_ns; /* client_attach() only */
};
/* Calls visit for each drive that the user has a role in; what it returns, if not 0, ends it. */
int client_drives(struct client *c, int (*visit)(void *ctx, const struct client_drive *d),
	void *ctx, struct err *err) must_check;
/* Registers this device with the drive: each call gives a new device number. */
int client_attach(struct client *c, const char *drive_id, struct client_drive *ret,
	struct err *err) must_check;

/* p[0..n): an encoded commit. 0 also when it was refused: then ret->seq is 0. */
int client_commit(struct client *c, const char *drive_id, uint32_t device_number, const void *p,
	size_t n, struct commit_reply *ret, struct arena **ret_arena, struct err *err) must_check;
/* With wait_ms > 0 the server may answer that late, when there is nothing new. */
int client_changes(struct client *c, const char *drive_id, uint64_t since, unsigned wait_ms,
	const struct client_limit *limit, struct changes *ret, struct arena **ret_arena,
	struct err *err) must_check;
/* Those of the n <= MISSING_IDS_MAX ids that the server lacks. */
int client_missing(struct client *c, const char *drive_id, const struct digest *ids, size_t n,
	struct id_list *ret, struct arena **ret_arena, struct err *err) must_check;
int client_put_pack(struct client *c, const char *drive_id, const void *p, size_t n,
	struct err *err) must_check;
/* n <= FETCH_IDS_MAX chunks, appended to *ret as a pack, whose frames are not checked yet. */
int client_fetch(struct client *c, const char *drive_id, const struct digest *ids, size_t n,
	const struct client_limit *limit, struct buf *ret, struct err *err) must_check;
/* An encoded manifest, appended; not checked yet. */
int client_content(struct client *c, const char *drive_id, const struct digest *id,
	const struct client_limit *limit, struct buf *ret, struct err *err) must_check;

#endif
