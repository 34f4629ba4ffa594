// SPDX-License-Identifier: Apache-2.0
/*
 * The column node_version.xattrs (little-endian):
 *
 *	 0  1  version, 1
 *	 1     entries until the end, by name in byte order, no name twice:
 *	       2  length of the name, 1 to XATTR_NAME_BYTES_MAX
 *	       4  length of the value, at most XATTR_VALUE_BYTES_MAX
 *	          name, value
 *
 * Names and values together are at most XATTR_NODE_BYTES_MAX. No bytes at all: no attributes.
 */
#include "xattrs.h"

#include "bytes.h"
#include "bounds.h"

#include <errno.h>

#define VERSION 1
#define ENTRY_HEADER_BYTES 6

static int compare(struct slice a, struct slice b)
{
	int c = memcmp(a.p, b.p, MIN(a.n, b.n));

	return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int by_name(const void *a, const void *b)
{
	return compare(((const struct xattr *)a)->name, ((const struct xattr *)b)->name);
}

static int append_entry(struct buf *b, const struct xattr *x)
{
	uint8_t header[ENTRY_HEADER_BYTES];
	int r;

	put_le16(header, (uint16_t)x->name.n);
	put_le32(header + 2, (uint32_t)x->value.n);
	r = buf_append(b, header, sizeof header);
	if (r == 0)
		r = buf_append(b, x->name.p, x->name.n);
	return r < 0 ? r : buf_append(b, x->value.p, x->value.n);
}

static int pack_sorted(const struct xattr *x, size_t n, struct buf *ret)
{
	const uint8_t version = VERSION;
	int r = n ? buf_append(ret, &version, 1) : 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = append_entry(ret, &x[i]);
	return r;
}

int xattrs_pack(const struct xattr *x, size_t n, struct buf *ret)
{
	_cleanup_free_ struct xattr *sorted = calloc(n ? n : 1, sizeof *sorted);

	if (!sorted)
		return -ENOMEM;
	if (n)
		memcpy(sorted, x, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, by_name);
	return pack_sorted(sorted, n, ret);
}

/* The bytes of the entry at p[0..n), or 0 when it is none. */
static size_t read_entry(const uint8_t *p, size_t n, struct xattr *ret)
{
	if (n < ENTRY_HEADER_BYTES)
		return 0;
	ret->name.n = get_le16(p);
	ret->value.n = get_le32(p + 2);
	ret->name.p = p + ENTRY_HEADER_BYTES;
	if (ret->name.n == 0 || ret->name.n > XATTR_NAME_BYTES_MAX ||
		ret->value.n > XATTR_VALUE_BYTES_MAX ||
		n - ENTRY_HEADER_BYTES < ret->name.n + ret->value.n)
		return 0;
	ret->value.p = ret->name.p + ret->name.n;
	return ENTRY_HEADER_BYTES + ret->name.n + ret->value.n;
}

static size_t count_entries(struct slice packed)
{
	size_t at = 1, n = 0;
	struct xattr x;

	while (at < packed.n) {
		size_t took = read_entry(packed.p + at, packed.n - at, &x);

		if (took == 0)
			return SIZE_MAX;
		at += took;
		n++;
	}
	return n;
}

int xattrs_unpack(struct slice packed, struct arena *a, const struct xattr **ret, size_t *ret_n,
	struct err *err)
{
	size_t n = count_entries(packed), at = 1;
	struct xattr *x;

	*ret = NULL;
	*ret_n = 0;
	if (packed.n == 0)
		return 0;
	if (packed.p[0] != VERSION || n == SIZE_MAX)
		return err_set(err, EBADMSG, "database: a node's xattrs are damaged");
	x = arena_alloc(a, (n ? n : 1) * sizeof *x);
	if (!x)
		return err_sys(err, ENOMEM, "xattrs");
	for (size_t i = 0; i < n; i++) {
		at += read_entry(packed.p + at, packed.n - at, &x[i]);
		if (i && compare(x[i - 1].name, x[i].name) >= 0)
			return err_set(err, EBADMSG, "database: a node's xattrs are damaged");
	}
	*ret = x;
	*ret_n = n;
	return 0;
}

/* All of *packed but `name`, and `add` in its place where it sorts (NULL: nothing). */
static int rewrite(struct buf *packed, struct slice name, const struct xattr *add, struct err *err)
{
	_cleanup_arena_ struct arena *a = NULL;
	_cleanup_buf_ struct buf out = { 0 };
	const struct xattr *old;
	struct xattr *all;
	size_t n_old, n = 0, total = 0;
	int r = arena_new(&a);

	if (r < 0)
		return err_sys(err, -r, "xattrs");
	r = xattrs_unpack((struct slice){ packed->data, packed->len }, a, &old, &n_old, err);
	if (r < 0)
		return r;
	all = arena_alloc(a, (n_old + 1) * sizeof *all);
	if (!all)
		return err_sys(err, ENOMEM, "xattrs");
	for (size_t i = 0; i < n_old; i++)
		if (compare(old[i].name, name) != 0)
			all[n++] = old[i];
	if (add)
		all[n++] = *add;
	for (size_t i = 0; i < n; i++)
		total += all[i].name.n + all[i].value.n;
	if (total > XATTR_NODE_BYTES_MAX)
		return err_set(err, E2BIG, "more extended attributes than a node may carry");
	r = xattrs_pack(all, n, &out);
	if (r < 0)
		return err_sys(err, -r, "xattrs");
	buf_done(packed);
	*packed = out;
	out = (struct buf){ 0 };
	return 0;
}

int xattrs_set(struct buf *packed, const struct xattr *x, struct err *err)
{
	return rewrite(packed, x->name, x, err);
}

int xattrs_remove(struct buf *packed, struct slice name, struct err *err)
{
	return rewrite(packed, name, NULL, err);
}
