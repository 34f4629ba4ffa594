/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX ACLs (POSIX 1003.1e draft 17, as Linux has them): the values of the xattrs
 * system.posix_acl_access and system.posix_acl_default, and what they have to do with modes.
 *
 * The kernel enforces them (FUSE_POSIX_ACL with default_permissions). What a file system does
 * by itself is here: an access ACL and the permission bits say the same where they overlap, and
 * a directory's default ACL goes to what is made in it. The rules are those of the kernel's
 * fs/posix_acl.c. Pure; any thread.
 *
 * Layout of a value (linux/posix_acl_xattr.h, little-endian): version 2 (u32), then entries of
 * tag (u16), permissions (u16), id (u32; all ones for the tags that need none).
 */
#ifndef VARVE_ACL_H
#define VARVE_ACL_H

#include "buf.h"
#include "wire/wire.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* What the kernel passes at most: one page. */
#define ACL_ENTRIES_MAX 511

struct acl_entry {
	uint16_t tag;
	uint16_t perm;
	uint32_t id;
};

struct acl {
	size_t n;
	struct acl_entry entries[ACL_ENTRIES_MAX];
};

/* -EINVAL for what is no valid ACL, -E2BIG. One of no entries is valid: it means none. */
int acl_decode(struct slice value, struct acl *ret) must_check;
/* Appended. */
int acl_encode(const struct acl *acl, struct buf *ret) must_check;

/*
 * The permission bits that go with an access ACL, over the other bits of `mode`. False when the
 * bits say all that it says: then no ACL is kept.
 */
bool acl_mode(const struct acl *acl, uint32_t mode, uint32_t *ret_mode) must_check;
/* chmod: the ACL follows the permission bits. */
void acl_chmod(struct acl *acl, uint32_t mode);
/*
 * What is made with `mode` in a directory whose default ACL this is: it becomes the access ACL,
 * and *mode loses what it does not give. False when the bits alone say it.
 */
bool acl_inherit(struct acl *acl, uint32_t *mode) must_check;

#endif
