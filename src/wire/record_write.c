// SPDX-License-Identifier: Apache-2.0
#include "wire/record.h"

#include "bytes.h"
#include "io.h"
#include "wire/cbor_write.h"

#include <errno.h>
#include <string.h>

static int write_record(struct cbor_writer *w, const struct record *rec, const void *value);

static uint32_t u32_at(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static uint64_t u64_at(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static bool record_present(const struct record *rec, const uint8_t *value);

bool field_present(const struct field *f, const uint8_t *value)
{
	const uint8_t *p = value + f->offset;

	switch (f->type) {
	case FIELD_U32:
	case FIELD_REFUSAL:
		return u32_at(p) != 0;
	case FIELD_U64:
	case FIELD_I64:
		return u64_at(p) != 0;
	case FIELD_BOOL:
		return *(const bool *)p;
	case FIELD_BYTES:
	case FIELD_TEXT:
		return ((const struct slice *)p)->n != 0;
	case FIELD_FIXED:
		return !io_is_zero(p, f->max);
	case FIELD_RECORD:
		return record_present(f->of, p);
	case FIELD_IDS:
	case FIELD_SLICES:
	case FIELD_RECORDS:
		return u64_at(value + f->count_offset) != 0;
	}
	return false;
}

static bool record_present(const struct record *rec, const uint8_t *value)
{
	for (size_t i = 0; i < rec->n_fields; i++) {
		if (field_present(&rec->fields[i], value))
			return true;
	}
	return false;
}

static int write_slices(
	struct cbor_writer *w, const struct field *f, const struct slice *s, size_t n)
{
	if (n > f->count_max)
		return -EINVAL;
	cbor_write_array(w, n);
	for (size_t i = 0; i < n; i++) {
		if (s[i].n > f->max)
			return -EINVAL;
		cbor_write_bytes(w, s[i].p, s[i].n);
	}
	return 0;
}

static int write_records(struct cbor_writer *w, const struct field *f, const uint8_t *p, size_t n)
{
	int r = 0;

	if (n > f->count_max)
		return -EINVAL;
	cbor_write_array(w, n);
	for (size_t i = 0; i < n && r == 0; i++)
		r = write_record(w, f->of, p + i * f->of->size);
	return r;
}

static int write_ids(struct cbor_writer *w, const struct field *f, const void *ids, size_t n)
{
	if (n > f->max)
		return -EINVAL;
	cbor_write_bytes(w, ids, n * DIGEST_BYTES);
	return 0;
}

static int write_number(struct cbor_writer *w, const struct field *f, uint64_t v)
{
	if (v > f->max)
		return -EINVAL;
	cbor_write_uint(w, v);
	return 0;
}

/* A text may quote a name, and names are bytes: what is not UTF-8 is shown as '?'. */
static void write_for_people(struct cbor_writer *w, const struct slice *s)
{
	cbor_write_text(w, s->p, s->n);
	if (w->result || utf8_valid(s->p, s->n))
		return;
	for (uint8_t *p = w->b->data + w->b->len - s->n; p < w->b->data + w->b->len; p++) {
		if (*p >= 0x80)
			*p = '?';
	}
}

static int write_string(struct cbor_writer *w, const struct field *f, const struct slice *s)
{
	if (s->n > f->max)
		return -EINVAL;
	if (f->type == FIELD_BYTES)
		cbor_write_bytes(w, s->p, s->n);
	else
		write_for_people(w, s);
	return 0;
}

static int write_refusal(struct cbor_writer *w, enum refusal refusal)
{
	const char *text = refusal_text(refusal);

	cbor_write_text(w, text, strlen(text));
	return 0;
}

static int write_list(struct cbor_writer *w, const struct field *f, const uint8_t *value)
{
	size_t n = u64_at(value + f->count_offset);
	const void *list;

	memcpy(&list, value + f->offset, sizeof list);
	if (f->type == FIELD_IDS)
		return write_ids(w, f, list, n);
	if (f->type == FIELD_SLICES)
		return write_slices(w, f, list, n);
	return write_records(w, f, list, n);
}

static int write_field(struct cbor_writer *w, const struct field *f, const uint8_t *value)
{
	const uint8_t *p = value + f->offset;

	switch (f->type) {
	case FIELD_U32:
		return write_number(w, f, u32_at(p));
	case FIELD_U64:
		return write_number(w, f, u64_at(p));
	case FIELD_I64:
		cbor_write_int(w, (int64_t)u64_at(p));
		return 0;
	case FIELD_BOOL:
		cbor_write_bool(w, *(const bool *)p);
		return 0;
	case FIELD_BYTES:
	case FIELD_TEXT:
		return write_string(w, f, (const struct slice *)p);
	case FIELD_FIXED:
		cbor_write_bytes(w, p, f->max);
		return 0;
	case FIELD_RECORD:
		return write_record(w, f->of, p);
	case FIELD_REFUSAL:
		return write_refusal(w, (enum refusal)u32_at(p));
	case FIELD_IDS:
	case FIELD_SLICES:
	case FIELD_RECORDS:
		return write_list(w, f, value);
	}
	return -EINVAL;
}

static int write_fields(
	struct cbor_writer *w, const struct record *rec, const uint8_t *value, uint64_t which)
{
	for (size_t i = 0; i < rec->n_fields; i++) {
		const struct field *f = &rec->fields[i];
		int r;

		if (!(which >> i & 1))
			continue;
		cbor_write_text(w, f->key, f->key_len);
		r = write_field(w, f, value);
		if (r < 0)
			return r;
	}
	return w->result;
}

static int write_record(struct cbor_writer *w, const struct record *rec, const void *value)
{
	uint64_t which = 0;

	if (rec->check && rec->check(value, NULL) < 0)
		return -EINVAL;
	for (size_t i = 0; i < rec->n_fields; i++)
		which |= (uint64_t)field_present(&rec->fields[i], value) << i;
	cbor_write_map(w, (size_t)__builtin_popcountll(which) + rec->versioned);
	if (rec->versioned) {
		cbor_write_text(w, "v", 1);
		cbor_write_uint(w, WIRE_VERSION);
	}
	return write_fields(w, rec, value, which);
}

int record_encode(const struct record *rec, const void *value, size_t max_bytes, struct buf *ret)
{
	struct cbor_writer w = { .b = ret };
	size_t start = ret->len;
	int r = write_record(&w, rec, value);

	if (r == 0 && ret->len - start > max_bytes)
		r = -EMSGSIZE;
	if (r < 0)
		ret->len = start;
	return r;
}
