/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structs as CBOR maps, described by tables: one table says how a struct is written, read and
 * bounded. Private to src/wire.
 *
 *  - A field that is zero or empty is left out; a field that is not there reads as zero or empty.
 *  - Fields are written in the table's order, so an encoding is a function of the values.
 *  - Unknown keys are passed over; a key that stands twice, a wrong type and a value beyond its
 *    bound are refused with -EBADMSG and a text that names the field.
 *  - `check` says what the bounds of single fields cannot; it runs when reading and writing.
 */
#ifndef VARVE_RECORD_H
#define VARVE_RECORD_H

#include "bounds.h"
#include "wire/arena.h"

enum field_type {
	FIELD_U32, /* uint32_t or an enum, at most max */
	FIELD_U64, /* uint64_t, at most max */
	FIELD_I64, /* int64_t, any */
	FIELD_BOOL,
	FIELD_BYTES, /* struct slice, at most max bytes */
	FIELD_TEXT, /* struct slice, UTF-8, at most max bytes */
	FIELD_FIXED, /* an array of exactly max bytes; left out when all are zero */
	FIELD_IDS, /* pointer to digests and size_t count, as one byte string; at most max ids */
	FIELD_RECORD, /* a struct inside, by the table `of` */
	FIELD_SLICES, /* pointer to slices and size_t count; each at most max bytes, and one encoded
			 record when there is an `of` */
	FIELD_RECORDS, /* pointer to structs and size_t count, by the table `of` */
	FIELD_REFUSAL, /* enum refusal, as text */
};

struct record;

struct field {
	const char *key;
	size_t key_len;
	enum field_type type;
	size_t offset;
	size_t count_offset; /* lists */
	uint64_t max;
	size_t count_max; /* FIELD_SLICES, FIELD_RECORDS */
	const struct record *of;
	bool is_name; /* FIELD_BYTES that people read as a text: how JSON shows it */
};

#define FIELD_KEY(k) .key = (k), .key_len = sizeof(k) - 1

struct record {
	const char *name;
	bool versioned; /* has "v", first */
	size_t size; /* of the struct */
	const struct field *fields; /* at most 63 */
	size_t n_fields;
	int (*check)(const void *value, struct err *err);
};

/* Whether the field of the struct has anything to say: else it is left out. */
bool field_present(const struct field *f, const uint8_t *value);

/*
 * Appends the encoding. -EINVAL when a bound or the check does not hold, -EMSGSIZE when it takes
 * more than max_bytes; *ret is as it was then.
 */
int record_encode(
	const struct record *rec, const void *value, size_t max_bytes, struct buf *ret) must_check;
/* Reads exactly p[0..n), n <= max_bytes. *ret and *ret_arena are written on success only. */
int record_decode(const struct record *rec, const void *p, size_t n, size_t max_bytes, void *ret,
	struct arena **ret_arena, struct err *err) must_check;

/* A reply of every change refused, each with the longest detail. */
#define REPLY_DETAIL_BYTES_MAX ERR_TEXT_BYTES
#define REPLY_BYTES_MAX ((size_t)COMMIT_CHANGES_MAX * (REPLY_DETAIL_BYTES_MAX + 64))

extern const struct record change_record;
extern const struct record commit_record;
extern const struct record commit_reply_record;
extern const struct record changes_record;
extern const struct record id_list_record; /* of at most MISSING_IDS_MAX */
/* Shared between messages. */
extern const struct record xattr_record;
extern const struct record attr_record;
int attr_check(const struct node_attr *attr, struct slice target, struct err *err) must_check;
int xattrs_check(const struct xattr *x, size_t n, struct err *err) must_check;

#endif
