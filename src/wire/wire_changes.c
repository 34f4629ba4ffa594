// SPDX-License-Identifier: Apache-2.0
#include "bounds.h"
#include "wire/record.h"

#include <errno.h>

#define AT(type, member) .offset = offsetof(struct type, member)
#define LIST(type, member) \
	.offset = offsetof(struct type, member), .count_offset = offsetof(struct type, n_##member)

/* A page is cut behind a whole commit, which can carry it beyond the row bound. */
#define ROWS_MAX (16 * CHANGES_ROWS_MAX)

static int check_node(const void *value, struct err *err)
{
	const struct node_row *row = value;
	int r;

	if (row->node == 0)
		return err_set(err, EBADMSG, "node row.node: missing");
	if (row->deleted)
		return 0;
	r = attr_check(&row->attr, row->target, err);
	if (r == 0)
		r = xattrs_check(row->xattrs, row->n_xattrs, err);
	return r;
}

static const struct field node_fields[] = {
	{ FIELD_KEY("node"), FIELD_U64, AT(node_row, node), .max = UINT64_MAX },
	{ FIELD_KEY("gone"), FIELD_BOOL, AT(node_row, deleted) },
	{ FIELD_KEY("attr"), FIELD_RECORD, AT(node_row, attr), .of = &attr_record },
	{ FIELD_KEY("target"), FIELD_BYTES, AT(node_row, target), .max = SYMLINK_BYTES_MAX,
		.is_name = true },
	{ FIELD_KEY("xattrs"), FIELD_RECORDS, LIST(node_row, xattrs),
		.count_max = XATTR_NODE_BYTES_MAX, .of = &xattr_record },
};

static const struct record node_record = {
	.name = "node row",
	.size = sizeof(struct node_row),
	.fields = node_fields,
	.n_fields = ARRAY_SIZE(node_fields),
	.check = check_node,
};

static int check_link(const void *value, struct err *err)
{
	const struct link_row *row = value;

	if (row->parent == 0)
		return err_set(err, EBADMSG, "link row.dir: missing");
	if (!name_valid(row->name))
		return err_set(err, EBADMSG, "link row.name: not a valid name");
	return 0;
}

static const struct field link_fields[] = {
	{ FIELD_KEY("dir"), FIELD_U64, AT(link_row, parent), .max = UINT64_MAX },
	{ FIELD_KEY("name"), FIELD_BYTES, AT(link_row, name), .max = NAME_BYTES_MAX,
		.is_name = true },
	{ FIELD_KEY("node"), FIELD_U64, AT(link_row, node), .max = UINT64_MAX },
};

static const struct record link_record = {
	.name = "link row",
	.size = sizeof(struct link_row),
	.fields = link_fields,
	.n_fields = ARRAY_SIZE(link_fields),
	.check = check_link,
};

static int check_changes(const void *value, struct err *err)
{
	const struct changes *c = value;

	if (c->from > c->to || c->to > c->head)
		return err_set(err, EBADMSG, "changes: from, to and head are not in order");
	return 0;
}

static const struct field changes_fields[] = {
	{ FIELD_KEY("from"), FIELD_U64, AT(changes, from), .max = INT64_MAX },
	{ FIELD_KEY("to"), FIELD_U64, AT(changes, to), .max = INT64_MAX },
	{ FIELD_KEY("head"), FIELD_U64, AT(changes, head), .max = INT64_MAX },
	{ FIELD_KEY("nodes"), FIELD_RECORDS, LIST(changes, nodes), .count_max = ROWS_MAX,
		.of = &node_record },
	{ FIELD_KEY("links"), FIELD_RECORDS, LIST(changes, links), .count_max = ROWS_MAX,
		.of = &link_record },
	{ FIELD_KEY("contents"), FIELD_SLICES, LIST(changes, contents), .count_max = ROWS_MAX,
		.max = MANIFEST_BYTES_MAX },
};

const struct record changes_record = {
	.name = "changes",
	.versioned = true,
	.size = sizeof(struct changes),
	.fields = changes_fields,
	.n_fields = ARRAY_SIZE(changes_fields),
	.check = check_changes,
};

int changes_encode(const struct changes *c, struct buf *ret)
{
	return record_encode(&changes_record, c, CHANGES_BYTES_MAX, ret);
}

int changes_decode(
	const void *p, size_t n, struct changes *ret, struct arena **ret_arena, struct err *err)
{
	return record_decode(&changes_record, p, n, CHANGES_BYTES_MAX, ret, ret_arena, err);
}
