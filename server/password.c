// SPDX-License-Identifier: Apache-2.0
#include "password.h"

#include "bounds.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* OWASP's advice of 2023 for a server of small memory: 32 MiB, three times. */
#define PARAMS "n=32768,r=8,p=3"
/* What stored parameters may ask for: a damaged row must not take all memory or time. */
#define N_MAX (UINT64_C(1) << 20)
#define R_MAX 32
#define P_MAX 16

static int derive(const char *password, const uint8_t salt[PASSWORD_SALT_BYTES], const char *params,
	uint8_t ret[PASSWORD_HASH_BYTES], struct err *err)
{
	unsigned long long n, r, p;
	char end;

	if (sscanf(params, "n=%llu,r=%llu,p=%llu%c", &n, &r, &p, &end) != 3 || n > N_MAX ||
		r > R_MAX || p > P_MAX)
		return err_set(err, EBADMSG, "password: stored parameters are not understood");
	if (EVP_PBE_scrypt(password, strlen(password), salt, PASSWORD_SALT_BYTES, n, r, p,
		    128 * r * (n + p + 2) + MIB, ret, PASSWORD_HASH_BYTES) != 1)
		return err_set(err, ENOMEM, "password: scrypt failed");
	return 0;
}

int password_hash(const char *password, struct password_hash *ret, struct err *err)
{
	struct password_hash h = { .params = PARAMS };
	int r;

	if (getrandom(h.salt, sizeof h.salt, 0) != (ssize_t)sizeof h.salt)
		return err_set(err, EIO, "password: no random numbers");
	r = derive(password, h.salt, h.params, h.hash, err);
	if (r == 0)
		*ret = h;
	return r;
}

int password_check(const char *password, const struct password_hash *stored, struct err *err)
{
	static const struct password_hash nobody = { .params = PARAMS };
	const struct password_hash *h = stored ? stored : &nobody;
	uint8_t hash[PASSWORD_HASH_BYTES];
	int r = derive(password, h->salt, h->params, hash, err);

	if (r < 0)
		return r;
	r = CRYPTO_memcmp(hash, h->hash, sizeof hash) == 0;
	return stored ? r : 0;
}
