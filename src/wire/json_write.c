// SPDX-License-Identifier: Apache-2.0
/* Structs to JSON, by the tables. A jansson call that gives NULL was short of memory. */
#include "base64.h"
#include "bytes.h"
#include "wire/json_table.h"

#include <errno.h>
#include <inttypes.h>

static int record_json(
	const struct record *rec, const uint8_t *value, json_t **ret, struct err *err);

static json_t *u64_json(uint64_t v)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, v);
	return json_string(text);
}

static json_t *i64_json(int64_t v)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRId64, v);
	return json_string(text);
}

static json_t *text_json(const struct slice *s)
{
	return json_stringn((const char *)s->p, s->n);
}

static json_t *base64_json(const struct slice *s)
{
	_cleanup_buf_ struct buf b = { 0 };

	if (base64_encode(s->p, s->n, &b) < 0)
		return NULL;
	return json_stringn(b.data ? (const char *)b.data : "", b.len);
}

static json_t *hex_json(const void *p, size_t n)
{
	_cleanup_free_ char *text = malloc(2 * n + 1);

	if (!text)
		return NULL;
	hex_encode(p, n, text);
	return json_string(text);
}

static json_t *ids_json(const struct digest *ids, size_t n)
{
	_cleanup_json_ json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		if (json_array_append_new(list, hex_json(ids[i].b, DIGEST_BYTES)) < 0)
			return NULL;
	}
	return steal(list);
}

static int encoded_json(
	const struct record *rec, const struct slice *s, json_t **ret, struct err *err)
{
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_free_ uint8_t *value = malloc(rec->size);
	int r = value ? record_decode(rec, s->p, s->n, s->n, value, &arena, err) : -ENOMEM;

	return r < 0 ? r : record_json(rec, value, ret, err);
}

static int slices_json(
	const struct field *f, const struct slice *s, size_t n, json_t **ret, struct err *err)
{
	_cleanup_json_ json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *item = NULL;
		int r = f->of ? encoded_json(f->of, &s[i], &item, err) : 0;

		if (r < 0)
			return r;
		if (json_array_append_new(list, f->of ? item : base64_json(&s[i])) < 0)
			return -ENOMEM;
	}
	*ret = steal(list);
	return 0;
}

static int records_json(
	const struct record *of, const uint8_t *p, size_t n, json_t **ret, struct err *err)
{
	_cleanup_json_ json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *item = NULL;
		int r = record_json(of, p + i * of->size, &item, err);

		if (r < 0)
			return r;
		if (json_array_append_new(list, item) < 0)
			return -ENOMEM;
	}
	*ret = steal(list);
	return 0;
}

static int list_json(const struct field *f, const uint8_t *value, json_t **ret, struct err *err)
{
	const void *list;
	size_t n;

	memcpy(&list, value + f->offset, sizeof list);
	memcpy(&n, value + f->count_offset, sizeof n);
	if (f->type == FIELD_SLICES)
		return slices_json(f, list, n, ret, err);
	if (f->type == FIELD_RECORDS)
		return records_json(f->of, list, n, ret, err);
	*ret = ids_json(list, n);
	return 0;
}

static json_t *scalar_json(const struct field *f, const uint8_t *p)
{
	switch (f->type) {
	case FIELD_U32:
		return json_integer(*(const uint32_t *)p);
	case FIELD_U64:
		return u64_json(*(const uint64_t *)p);
	case FIELD_I64:
		return i64_json(*(const int64_t *)p);
	case FIELD_BOOL:
		return json_boolean(*(const bool *)p);
	case FIELD_BYTES:
		return base64_json((const struct slice *)p);
	case FIELD_TEXT:
		return text_json((const struct slice *)p);
	case FIELD_FIXED:
		return hex_json(p, f->max);
	case FIELD_REFUSAL:
		return json_string(refusal_text(*(const enum refusal *)p));
	default:
		return NULL;
	}
}

static int field_json(const struct field *f, const uint8_t *value, json_t **ret, struct err *err)
{
	switch (f->type) {
	case FIELD_RECORD:
		return record_json(f->of, value + f->offset, ret, err);
	case FIELD_IDS:
	case FIELD_SLICES:
	case FIELD_RECORDS:
		return list_json(f, value, ret, err);
	default:
		*ret = scalar_json(f, value + f->offset);
		return 0;
	}
}

static int set_name(json_t *object, const struct field *f, const struct slice *name)
{
	char key[JSON_KEY_BYTES];

	if (utf8_valid(name->p, name->n))
		return json_object_set_new(object, f->key, text_json(name));
	json_b64_key(f, key);
	return json_object_set_new(object, key, base64_json(name));
}

static int set_field(json_t *object, const struct field *f, const uint8_t *value, struct err *err)
{
	json_t *item = NULL;
	int r;

	if (f->is_name)
		return set_name(object, f, (const void *)(value + f->offset)) < 0 ? -ENOMEM : 0;
	r = field_json(f, value, &item, err);
	if (r < 0)
		return r;
	return json_object_set_new(object, f->key, item) < 0 ? -ENOMEM : 0;
}

static int record_json(
	const struct record *rec, const uint8_t *value, json_t **ret, struct err *err)
{
	_cleanup_json_ json_t *object = json_object();

	if (!object)
		return -ENOMEM;
	for (size_t i = 0; i < rec->n_fields; i++) {
		int r = 0;

		if (field_present(&rec->fields[i], value))
			r = set_field(object, &rec->fields[i], value, err);
		if (r < 0)
			return r;
	}
	*ret = steal(object);
	return 0;
}

static int append(const char *p, size_t n, void *b)
{
	return buf_append(b, p, n);
}

static int message_json(
	const struct record *rec, const struct slice *s, struct buf *ret, struct err *err)
{
	_cleanup_json_ json_t *object = NULL;
	int r = encoded_json(rec, s, &object, err);

	if (r < 0)
		return r;
	if (json_object_set_new(object, "v", json_integer(WIRE_VERSION)) < 0)
		return -ENOMEM;
	return json_dump_callback(object, append, ret, JSON_COMPACT) < 0 ? -ENOMEM : 0;
}

int wire_to_json(enum wire_message m, const void *p, size_t n, struct buf *ret, struct err *err)
{
	const struct record *rec = wire_record(m);
	struct slice s = { p, n };
	int r = message_json(rec, &s, ret, err);

	return r == -ENOMEM ? err_sys(err, ENOMEM, "%s", rec->name) : r;
}
