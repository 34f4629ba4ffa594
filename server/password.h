/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passwords as they are stored: scrypt (RFC 7914) of the password and a random salt, with the
 * costs beside it as text, so that later ones can be higher. Slow by intent: some 100 ms and
 * 32 MiB a call. Any thread.
 */
#ifndef VARVE_PASSWORD_H
#define VARVE_PASSWORD_H

#include "cleanup.h"
#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PASSWORD_HASH_BYTES 32
#define PASSWORD_SALT_BYTES 16
#define PASSWORD_PARAMS_BYTES 48
#define PASSWORD_BYTES_MIN 8
#define PASSWORD_BYTES_MAX 1024

struct password_hash {
	uint8_t hash[PASSWORD_HASH_BYTES];
	uint8_t salt[PASSWORD_SALT_BYTES];
	char params[PASSWORD_PARAMS_BYTES];
};

int password_hash(const char *password, struct password_hash *ret, struct err *err) must_check;
/* 1 right, 0 wrong. NULL: compares with nothing and says 0, after the same time. */
int password_check(
	const char *password, const struct password_hash *stored, struct err *err) must_check;

#endif
