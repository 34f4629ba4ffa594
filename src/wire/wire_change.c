// SPDX-License-Identifier: Apache-2.0
#include "bounds.h"
#include "wire/record.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define AT(type, member) .offset = offsetof(struct type, member)

static int check_xattr(const void *value, struct err *err)
{
	const struct xattr *x = value;

	if (x->name.n && memchr(x->name.p, '\0', x->name.n))
		return err_set(err, EBADMSG, "xattr.name: has a NUL");
	return 0;
}

static const struct field xattr_fields[] = {
	{ FIELD_KEY("name"), FIELD_BYTES, AT(xattr, name), .max = XATTR_NAME_BYTES_MAX,
		.is_name = true },
	{ FIELD_KEY("value"), FIELD_BYTES, AT(xattr, value), .max = XATTR_VALUE_BYTES_MAX },
};

const struct record xattr_record = {
	.name = "xattr",
	.size = sizeof(struct xattr),
	.fields = xattr_fields,
	.n_fields = ARRAY_SIZE(xattr_fields),
	.check = check_xattr,
};

static const struct field attr_fields[] = {
	{ FIELD_KEY("mode"), FIELD_U32, AT(node_attr, mode), .max = S_IFMT | 07777 },
	{ FIELD_KEY("uid"), FIELD_U32, AT(node_attr, uid), .max = UINT32_MAX },
	{ FIELD_KEY("gid"), FIELD_U32, AT(node_attr, gid), .max = UINT32_MAX },
	{ FIELD_KEY("rdev"), FIELD_U64, AT(node_attr, rdev), .max = UINT64_MAX },
	{ FIELD_KEY("atime"), FIELD_I64, AT(node_attr, atime_ns) },
	{ FIELD_KEY("mtime"), FIELD_I64, AT(node_attr, mtime_ns) },
	{ FIELD_KEY("ctime"), FIELD_I64, AT(node_attr, ctime_ns) },
	{ FIELD_KEY("btime"), FIELD_I64, AT(node_attr, btime_ns) },
	{ FIELD_KEY("size"), FIELD_U64, AT(node_attr, size), .max = FILE_BYTES_MAX },
	{ FIELD_KEY("content"), FIELD_FIXED, AT(node_attr, content), .max = DIGEST_BYTES },
};

const struct record attr_record = {
	.name = "attr",
	.size = sizeof(struct node_attr),
	.fields = attr_fields,
	.n_fields = ARRAY_SIZE(attr_fields),
};

static bool type_known(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

/* A content of some bytes has an id. (One of no bytes may be told by the zero id.) */
static int check_content(const struct node_attr *attr, struct err *err)
{
	if (attr->size && digest_is_zero(&attr->content))
		return err_set(err, EBADMSG, "attr.content: missing for a file of %llu bytes",
			(unsigned long long)attr->size);
	return 0;
}

static int check_symlink(const struct node_attr *attr, struct slice target, struct err *err)
{
	if (target.n == 0)
		return err_set(err, EBADMSG, "target: missing for a symlink");
	if (memchr(target.p, '\0', target.n))
		return err_set(err, EBADMSG, "target: has a NUL");
	if (attr->size && attr->size != target.n)
		return err_set(err, EBADMSG, "attr.size: not that of the symlink's target");
	return 0;
}

int attr_check(const struct node_attr *attr, struct slice target, struct err *err)
{
	if (!type_known(attr->mode))
		return err_set(err, EBADMSG, "attr.mode: no known file type");
	if (S_ISREG(attr->mode)) {
		int r = check_content(attr, err);

		if (r < 0)
			return r;
	} else if (!digest_is_zero(&attr->content)) {
		return err_set(err, EBADMSG, "attr.content: only regular files have one");
	}
	if (S_ISLNK(attr->mode))
		return check_symlink(attr, target, err);
	if (target.n)
		return err_set(err, EBADMSG, "target: only symlinks have one");
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	const struct slice *x = a, *y = b;
	int c = memcmp(x->p, y->p, MIN(x->n, y->n));

	return c ? c : (x->n > y->n) - (x->n < y->n);
}

static int check_distinct(const struct xattr *x, size_t n, struct err *err)
{
	_cleanup_free_ struct slice *names = calloc(n, sizeof *names);

	if (!names)
		return err_sys(err, ENOMEM, "xattrs");
	for (size_t i = 0; i < n; i++)
		names[i] = x[i].name;
	qsort(names, n, sizeof *names, compare_names);
	for (size_t i = 1; i < n; i++) {
		if (compare_names(&names[i - 1], &names[i]) == 0)
			return err_set(err, EBADMSG, "xattrs: a name stands twice");
	}
	return 0;
}

int xattrs_check(const struct xattr *x, size_t n, struct err *err)
{
	uint64_t total = 0;

	for (size_t i = 0; i < n; i++) {
		if (x[i].name.n == 0)
			return err_set(err, EBADMSG, "xattrs: a name is empty");
		total += x[i].name.n + x[i].value.n;
	}
	if (total > XATTR_NODE_BYTES_MAX)
		return err_set(err, EBADMSG, "xattrs: more bytes than a node may carry");
	return n < 2 ? 0 : check_distinct(x, n, err);
}

static int check_name(uint64_t parent, struct slice name, const char *which, struct err *err)
{
	if (parent == 0)
		return err_set(err, EBADMSG, "change.dir%s: missing", which);
	if (!name_valid(name))
		return err_set(err, EBADMSG, "change.name%s: not a valid name", which);
	return 0;
}

static int check_create(const struct change *c, struct err *err)
{
	int r = check_name(c->parent, c->name, "", err);

	if (r == 0)
		r = attr_check(&c->attr, c->target, err);
	if (r == 0)
		r = xattrs_check(c->xattrs, c->n_xattrs, err);
	return r;
}

static int check_rename(const struct change *c, struct err *err)
{
	int r = check_name(c->parent, c->name, "", err);

	if (r == 0)
		r = check_name(c->new_parent, c->new_name, "2", err);
	if (r == 0 && c->flags & CHANGE_FLAG_EXCHANGE && c->victim == 0)
		r = err_set(err, EBADMSG, "change.victim: missing for an exchange");
	return r;
}

static int check_xattr_name(const struct change *c, struct err *err)
{
	return c->xattr.name.n ? 0 : err_set(err, EBADMSG, "change.xattr: the name is missing");
}

static int check_kind(const struct change *c, struct err *err)
{
	switch (c->kind) {
	case CHANGE_CREATE:
		return check_create(c, err);
	case CHANGE_WRITE:
		return check_content(&c->attr, err);
	case CHANGE_SETATTR:
		return 0;
	case CHANGE_LINK:
	case CHANGE_UNLINK:
		return check_name(c->parent, c->name, "", err);
	case CHANGE_RENAME:
		return check_rename(c, err);
	case CHANGE_SETXATTR:
	case CHANGE_REMOVEXATTR:
		return check_xattr_name(c, err);
	}
	return err_set(err, EBADMSG, "change.kind: %u is not known", (unsigned)c->kind);
}

static int check_change(const void *value, struct err *err)
{
	const struct change *c = value;

	if (c->node == 0)
		return err_set(err, EBADMSG, "change.node: missing");
	if (c->attr.mode & S_IFMT && !type_known(c->attr.mode))
		return err_set(err, EBADMSG, "attr.mode: no known file type");
	return check_kind(c, err);
}

static const struct field change_fields[] = {
	{ FIELD_KEY("kind"), FIELD_U32, AT(change, kind), .max = UINT32_MAX },
	{ FIELD_KEY("node"), FIELD_U64, AT(change, node), .max = UINT64_MAX },
	{ FIELD_KEY("dir"), FIELD_U64, AT(change, parent), .max = UINT64_MAX },
	{ FIELD_KEY("name"), FIELD_BYTES, AT(change, name), .max = NAME_BYTES_MAX,
		.is_name = true },
	{ FIELD_KEY("dir2"), FIELD_U64, AT(change, new_parent), .max = UINT64_MAX },
	{ FIELD_KEY("name2"), FIELD_BYTES, AT(change, new_name), .max = NAME_BYTES_MAX,
		.is_name = true },
	{ FIELD_KEY("victim"), FIELD_U64, AT(change, victim), .max = UINT64_MAX },
	{ FIELD_KEY("flags"), FIELD_U32, AT(change, flags), .max = CHANGE_FLAG_EXCHANGE },
	{ FIELD_KEY("mask"), FIELD_U32, AT(change, mask), .max = ATTR_ALL },
	{ FIELD_KEY("attr"), FIELD_RECORD, AT(change, attr), .of = &attr_record },
	{ FIELD_KEY("target"), FIELD_BYTES, AT(change, target), .max = SYMLINK_BYTES_MAX,
		.is_name = true },
	{ FIELD_KEY("xattr"), FIELD_RECORD, AT(change, xattr), .of = &xattr_record },
	{ FIELD_KEY("xattrs"), FIELD_RECORDS, AT(change, xattrs),
		.count_offset = offsetof(struct change, n_xattrs),
		.count_max = XATTR_NODE_BYTES_MAX, .of = &xattr_record },
	{ FIELD_KEY("time"), FIELD_I64, AT(change, time_ns) },
};

const struct record change_record = {
	.name = "change",
	.versioned = true,
	.size = sizeof(struct change),
	.fields = change_fields,
	.n_fields = ARRAY_SIZE(change_fields),
	.check = check_change,
};

int change_encode(const struct change *c, struct buf *ret)
{
	return record_encode(&change_record, c, CHANGE_BYTES_MAX, ret);
}

int change_decode(
	const void *p, size_t n, struct change *ret, struct arena **ret_arena, struct err *err)
{
	return record_decode(&change_record, p, n, CHANGE_BYTES_MAX, ret, ret_arena, err);
}
