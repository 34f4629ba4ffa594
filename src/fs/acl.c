// SPDX-License-Identifier: Apache-2.0
#include "fs/acl.h"

#include "bytes.h"

#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/stat.h>

#define HEAD_BYTES 4
#define ENTRY_BYTES 8
#define RWX 07u

/* The order of the tags; users and groups may stand several times, each other one once. */
static int rank(uint16_t tag)
{
	switch (tag) {
	case ACL_USER_OBJ:
		return 1;
	case ACL_USER:
		return 2;
	case ACL_GROUP_OBJ:
		return 3;
	case ACL_GROUP:
		return 4;
	case ACL_MASK:
		return 5;
	case ACL_OTHER:
		return 6;
	default:
		return 0;
	}
}

static bool repeats(uint16_t tag)
{
	return tag == ACL_USER || tag == ACL_GROUP;
}

static bool has(const struct acl *acl, uint16_t tag)
{
	for (size_t i = 0; i < acl->n; i++)
		if (acl->entries[i].tag == tag)
			return true;
	return false;
}

static bool valid(const struct acl *acl)
{
	int last = 0;

	for (size_t i = 0; i < acl->n; i++) {
		const struct acl_entry *e = &acl->entries[i];
		int now = rank(e->tag);

		if (!now || e->perm & ~RWX || now < last || (now == last && !repeats(e->tag)))
			return false;
		if (repeats(e->tag) && e->id == (uint32_t)ACL_UNDEFINED_ID)
			return false;
		last = now;
	}
	return has(acl, ACL_USER_OBJ) && has(acl, ACL_GROUP_OBJ) && has(acl, ACL_OTHER) &&
	       (has(acl, ACL_MASK) || !(has(acl, ACL_USER) || has(acl, ACL_GROUP)));
}

int acl_decode(struct slice value, struct acl *ret)
{
	size_t n;

	if (value.n < HEAD_BYTES || (value.n - HEAD_BYTES) % ENTRY_BYTES ||
		get_le32(value.p) != POSIX_ACL_XATTR_VERSION)
		return -EINVAL;
	n = (value.n - HEAD_BYTES) / ENTRY_BYTES;
	if (n > ACL_ENTRIES_MAX)
		return -E2BIG;
	ret->n = n;
	for (size_t i = 0; i < n; i++) {
		const uint8_t *p = value.p + HEAD_BYTES + i * ENTRY_BYTES;

		ret->entries[i] = (struct acl_entry){
			.tag = get_le16(p),
			.perm = get_le16(p + 2),
			.id = get_le32(p + 4),
		};
	}
	return n == 0 || valid(ret) ? 0 : -EINVAL;
}

int acl_encode(const struct acl *acl, struct buf *ret)
{
	uint8_t head[HEAD_BYTES], entry[ENTRY_BYTES];
	int r;

	put_le32(head, POSIX_ACL_XATTR_VERSION);
	r = buf_append(ret, head, sizeof head);
	for (size_t i = 0; i < acl->n && r == 0; i++) {
		put_le16(entry, acl->entries[i].tag);
		put_le16(entry + 2, acl->entries[i].perm);
		put_le32(entry + 4, acl->entries[i].id);
		r = buf_append(ret, entry, sizeof entry);
	}
	return r;
}

/* Whose permissions the group bits of the mode are. */
static uint16_t group_class(const struct acl *acl)
{
	return has(acl, ACL_MASK) ? ACL_MASK : ACL_GROUP_OBJ;
}

/* Of the entries that the mode has bits for: what stays of them, and what comes in. */
static void put_bits(struct acl *acl, uint32_t keep, uint32_t set)
{
	uint16_t group = group_class(acl);

	for (size_t i = 0; i < acl->n; i++) {
		struct acl_entry *e = &acl->entries[i];
		int shift = e->tag == ACL_USER_OBJ ? 6 : e->tag == group ? 3 : 0;

		if (shift || e->tag == ACL_OTHER)
			e->perm = (uint16_t)((e->perm & (keep >> shift & RWX)) |
					     (set >> shift & RWX));
	}
}

static uint32_t bits_of(const struct acl *acl)
{
	uint16_t group = group_class(acl);
	uint32_t bits = 0;

	for (size_t i = 0; i < acl->n; i++) {
		const struct acl_entry *e = &acl->entries[i];

		if (e->tag == ACL_USER_OBJ)
			bits |= (uint32_t)e->perm << 6;
		else if (e->tag == group)
			bits |= (uint32_t)e->perm << 3;
		else if (e->tag == ACL_OTHER)
			bits |= e->perm;
	}
	return bits;
}

/* Three entries are what the mode has, too. */
static bool says_more(const struct acl *acl)
{
	return has(acl, ACL_USER) || has(acl, ACL_GROUP) || has(acl, ACL_MASK);
}

bool acl_mode(const struct acl *acl, uint32_t mode, uint32_t *ret_mode)
{
	*ret_mode = (mode & ~0777u) | bits_of(acl);
	return says_more(acl);
}

void acl_chmod(struct acl *acl, uint32_t mode)
{
	put_bits(acl, 0, mode);
}

bool acl_inherit(struct acl *acl, uint32_t *mode)
{
	put_bits(acl, *mode, 0);
	*mode = (*mode & ~0777u) | bits_of(acl);
	return says_more(acl);
}
