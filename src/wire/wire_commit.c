// SPDX-License-Identifier: Apache-2.0
#include "io.h"
#include "bounds.h"
#include "wire/record.h"

#include <errno.h>

#define AT(type, member) .offset = offsetof(struct type, member)
#define LIST(type, member) \
	.offset = offsetof(struct type, member), .count_offset = offsetof(struct type, n_##member)

#define ID_LIST_OVERHEAD 64

static int check_commit(const void *value, struct err *err)
{
	const struct commit *c = value;

	if (io_is_zero(c->id, sizeof c->id))
		return err_set(err, EBADMSG, "commit.id: missing");
	for (size_t i = 0; i < c->n_changes; i++) {
		if (c->changes[i].n == 0)
			return err_set(err, EBADMSG, "commit.changes: %zu is empty", i);
	}
	return 0;
}

static const struct field commit_fields[] = {
	{ FIELD_KEY("id"), FIELD_FIXED, AT(commit, id), .max = COMMIT_ID_BYTES },
	{ FIELD_KEY("base"), FIELD_U64, AT(commit, base), .max = INT64_MAX },
	{ FIELD_KEY("pack"), FIELD_BYTES, AT(commit, pack), .max = COMMIT_BYTES_MAX },
	{ FIELD_KEY("contents"), FIELD_SLICES, LIST(commit, contents), .max = MANIFEST_BYTES_MAX,
		.count_max = COMMIT_CHANGES_MAX },
	{ FIELD_KEY("changes"), FIELD_SLICES, LIST(commit, changes), .max = CHANGE_BYTES_MAX,
		.count_max = COMMIT_CHANGES_MAX, .of = &change_record },
};

const struct record commit_record = {
	.name = "commit",
	.versioned = true,
	.size = sizeof(struct commit),
	.fields = commit_fields,
	.n_fields = ARRAY_SIZE(commit_fields),
	.check = check_commit,
};

int commit_encode(const struct commit *c, struct buf *ret)
{
	return record_encode(&commit_record, c, COMMIT_BYTES_MAX, ret);
}

int commit_decode(
	const void *p, size_t n, struct commit *ret, struct arena **ret_arena, struct err *err)
{
	return record_decode(&commit_record, p, n, COMMIT_BYTES_MAX, ret, ret_arena, err);
}

static int check_refused(const void *value, struct err *err)
{
	const struct refused_change *r = value;

	if (r->reason == REFUSAL_NONE)
		return err_set(err, EBADMSG, "refused.reason: missing");
	return 0;
}

static const struct field refused_fields[] = {
	{ FIELD_KEY("index"), FIELD_U32, AT(refused_change, index), .max = COMMIT_CHANGES_MAX - 1 },
	{ FIELD_KEY("reason"), FIELD_REFUSAL, AT(refused_change, reason), .max = 32 },
	{ FIELD_KEY("detail"), FIELD_TEXT, AT(refused_change, detail),
		.max = REPLY_DETAIL_BYTES_MAX },
};

static const struct record refused_record = {
	.name = "refused",
	.size = sizeof(struct refused_change),
	.fields = refused_fields,
	.n_fields = ARRAY_SIZE(refused_fields),
	.check = check_refused,
};

static int check_reply(const void *value, struct err *err)
{
	const struct commit_reply *r = value;

	if (r->seq > r->head)
		return err_set(err, EBADMSG, "commit reply.seq: beyond the head");
	if (r->seq && r->n_refused)
		return err_set(err, EBADMSG, "commit reply: both applied and refused");
	return 0;
}

static const struct field reply_fields[] = {
	{ FIELD_KEY("seq"), FIELD_U64, AT(commit_reply, seq), .max = INT64_MAX },
	{ FIELD_KEY("head"), FIELD_U64, AT(commit_reply, head), .max = INT64_MAX },
	{ FIELD_KEY("refused"), FIELD_RECORDS, LIST(commit_reply, refused),
		.count_max = COMMIT_CHANGES_MAX, .of = &refused_record },
};

const struct record commit_reply_record = {
	.name = "commit reply",
	.versioned = true,
	.size = sizeof(struct commit_reply),
	.fields = reply_fields,
	.n_fields = ARRAY_SIZE(reply_fields),
	.check = check_reply,
};

int commit_reply_encode(const struct commit_reply *r, struct buf *ret)
{
	return record_encode(&commit_reply_record, r, REPLY_BYTES_MAX, ret);
}

int commit_reply_decode(const void *p, size_t n, struct commit_reply *ret, struct arena **ret_arena,
	struct err *err)
{
	return record_decode(&commit_reply_record, p, n, REPLY_BYTES_MAX, ret, ret_arena, err);
}

#define IDS_FIELD(n_max)                                                             \
	{                                                                            \
		FIELD_KEY("ids"), FIELD_IDS, AT(id_list, ids),                       \
			.count_offset = offsetof(struct id_list, n), .max = (n_max), \
	}
#define IDS_RECORD(field)                                                             \
	{                                                                             \
		.name = "id list", .versioned = true, .size = sizeof(struct id_list), \
		.fields = (field), .n_fields = 1,                                     \
	}

static const struct field ids_fields[] = { IDS_FIELD(MISSING_IDS_MAX) };
const struct record id_list_record = IDS_RECORD(ids_fields);

int id_list_encode(const struct id_list *l, struct buf *ret)
{
	return record_encode(
		&id_list_record, l, MISSING_IDS_MAX * DIGEST_BYTES + ID_LIST_OVERHEAD, ret);
}

/* The bound on the number of ids is the caller's, so the table is made for each call. */
int id_list_decode(const void *p, size_t n, size_t max, struct id_list *ret,
	struct arena **ret_arena, struct err *err)
{
	const struct field field = IDS_FIELD(MIN(max, MISSING_IDS_MAX));
	const struct record rec = IDS_RECORD(&field);

	return record_decode(&rec, p, n, COMMIT_BYTES_MAX, ret, ret_arena, err);
}
