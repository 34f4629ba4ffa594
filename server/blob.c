// SPDX-License-Identifier: Apache-2.0
#include "blob_driver.h"

#include <errno.h>
#include <string.h>

static const struct blob_driver *const drivers[] = { &blob_dir_driver };

int blob_open(const char *url, struct blob **ret, struct err *err)
{
	size_t scheme_len = strcspn(url, ":");

	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
		const struct blob_driver *d = drivers[i];
		int r;

		if (strlen(d->scheme) != scheme_len || memcmp(d->scheme, url, scheme_len) != 0 ||
			url[scheme_len] == '\0')
			continue;
		r = d->open(url + scheme_len + 1, ret, err);
		if (r == 0)
			(*ret)->driver = d;
		return r;
	}
	return err_set(err, EINVAL, "blob store %s: no such kind; use dir:PATH", url);
}

void blob_free(struct blob *b)
{
	if (b)
		b->driver->close(b);
}

/* No key can lead out of the store: no dots, and no empty part. */
static int check_key(const char *key, size_t min_len, struct err *err)
{
	size_t n = strlen(key);

	if (n < min_len || n > BLOB_KEY_BYTES_MAX ||
		strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789/-") != n || key[0] == '/' ||
		(n && min_len && key[n - 1] == '/') || strstr(key, "//"))
		return err_set(err, EINVAL, "blob store: not a key: %.200s", key);
	return 0;
}

int blob_put(struct blob *b, const char *key, const void *p, size_t n, struct err *err)
{
	int r = check_key(key, 1, err);

	return r < 0 ? r : b->driver->put(b, key, p, n, err);
}

int blob_get(struct blob *b, const char *key, uint64_t offset, size_t n, struct buf *ret,
	struct err *err)
{
	int r = check_key(key, 1, err);

	return r < 0 ? r : b->driver->get(b, key, offset, n, ret, err);
}

int blob_delete(struct blob *b, const char *key, struct err *err)
{
	int r = check_key(key, 1, err);

	return r < 0 ? r : b->driver->delete (b, key, err);
}

int blob_list(struct blob *b, const char *prefix,
	int (*visit)(void *ctx, const char *key, uint64_t size), void *ctx, struct err *err)
{
	int r = check_key(prefix, 0, err);

	return r < 0 ? r : b->driver->list(b, prefix, visit, ctx, err);
}
