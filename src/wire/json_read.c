// SPDX-License-Identifier: Apache-2.0
/*
 * JSON to CBOR, by the tables. What decodes the CBOR then checks bounds and rules; here it is
 * seen to that the JSON has the right types, and takes bounded memory.
 */
#include "base64.h"
#include "bytes.h"
#include "wire/cbor_write.h"
#include "wire/json_table.h"

#include <errno.h>

/* What is being written, and the words for a complaint about it. */
struct writing {
	struct cbor_writer out;
	struct err *err;
	const struct record *rec;
	const struct field *field;
};

static int put_record(
	struct writing *w, const struct record *rec, const json_t *object, bool is_message);

static int bad(const struct writing *w, const char *what)
{
	return err_set(w->err, EBADMSG, "%s%s%s: %s", w->rec->name, w->field ? "." : "",
		w->field ? w->field->key : "", what);
}

/* --- numbers --- */

/* Digits and nothing else, of a number up to max. */
static bool parse_digits(const char *s, size_t n, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9' || !mul_fits(v, 10, &v) ||
			!add_fits(v, (uint64_t)(s[i] - '0'), &v))
			return false;
	}
	*ret = v;
	return n > 0 && v <= max;
}

static int put_u32(struct writing *w, const json_t *v)
{
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < 0)
		return bad(w, "must be a number that is whole and not below 0");
	if ((uint64_t)n > w->field->max)
		return bad(w, "too large");
	cbor_write_uint(&w->out, (uint64_t)n);
	return 0;
}

static int put_u64(struct writing *w, const json_t *v)
{
	uint64_t n;

	if (!json_is_string(v) ||
		!parse_digits(json_string_value(v), json_string_length(v), UINT64_MAX, &n))
		return bad(w, "must be a string of decimal digits, of a number of 64 bits");
	if (n > w->field->max)
		return bad(w, "too large");
	cbor_write_uint(&w->out, n);
	return 0;
}

static int put_i64(struct writing *w, const json_t *v)
{
	const char *s = json_is_string(v) ? json_string_value(v) : "";
	size_t n = json_is_string(v) ? json_string_length(v) : 0;
	bool below = n && s[0] == '-';
	uint64_t size;

	if (!parse_digits(s + below, n - below, (uint64_t)INT64_MAX + below, &size))
		return bad(w, "must be a string of decimal digits, of a number of 64 bits");
	cbor_write_int(&w->out, (int64_t)(below ? -size : size));
	return 0;
}

/* --- bytes --- */

static int put_base64(struct writing *w, const json_t *v)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = -EBADMSG;

	if (json_is_string(v))
		r = base64_decode(json_string_value(v), json_string_length(v), &b);
	if (r == -EBADMSG)
		return bad(w, "must be bytes in base64");
	if (r == 0)
		cbor_write_bytes(&w->out, b.data, b.len);
	return r;
}

static int put_text(struct writing *w, const json_t *v)
{
	if (!json_is_string(v))
		return bad(w, "must be a string");
	cbor_write_text(&w->out, json_string_value(v), json_string_length(v));
	return 0;
}

static int put_name(struct writing *w, const json_t *object)
{
	const json_t *plain = json_object_get(object, w->field->key), *coded;
	char key[JSON_KEY_BYTES];

	json_b64_key(w->field, key);
	coded = json_object_get(object, key);
	if (plain && coded)
		return bad(w, "stands in both forms");
	if (coded)
		return put_base64(w, coded);
	if (!json_is_string(plain))
		return bad(w, "must be a string");
	cbor_write_bytes(&w->out, json_string_value(plain), json_string_length(plain));
	return 0;
}

static int append_hex(struct writing *w, const json_t *v, size_t n, struct buf *b)
{
	int r = buf_reserve(b, n);

	if (r < 0)
		return r;
	if (!json_is_string(v) ||
		!hex_decode(json_string_value(v), json_string_length(v), b->data + b->len, n))
		return bad(w, n == DIGEST_BYTES ? "must be 64 hexadecimal digits"
						: "must be 32 hexadecimal digits");
	b->len += n;
	return 0;
}

static int put_fixed(struct writing *w, const json_t *v)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = append_hex(w, v, w->field->max, &b);

	if (r == 0)
		cbor_write_bytes(&w->out, b.data, b.len);
	return r;
}

/* --- lists --- */

static int check_list(const struct writing *w, const json_t *list, size_t max)
{
	if (!json_is_array(list))
		return bad(w, "must be an array");
	return json_array_size(list) > max ? bad(w, "too many items") : 0;
}

static int put_ids(struct writing *w, const json_t *list)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = check_list(w, list, w->field->max);

	for (size_t i = 0; r == 0 && i < json_array_size(list); i++)
		r = append_hex(w, json_array_get(list, i), DIGEST_BYTES, &b);
	if (r == 0)
		cbor_write_bytes(&w->out, b.data, b.len);
	return r;
}

/* A record inside, encoded as a message by itself. */
static int put_encoded(struct writing *w, const json_t *object)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct writing inner = { .out = { .b = &b }, .err = w->err };
	int r = put_record(&inner, w->field->of, object, false);

	if (r == 0)
		cbor_write_bytes(&w->out, b.data, b.len);
	return r;
}

static int put_list(struct writing *w, const json_t *list)
{
	const struct field *f = w->field;
	int r = check_list(w, list, f->count_max);

	if (r < 0)
		return r;
	cbor_write_array(&w->out, json_array_size(list));
	for (size_t i = 0; r == 0 && i < json_array_size(list); i++) {
		const json_t *item = json_array_get(list, i);

		if (f->type == FIELD_RECORDS)
			r = put_record(w, f->of, item, false);
		else
			r = f->of ? put_encoded(w, item) : put_base64(w, item);
	}
	return r;
}

/* --- records --- */

static int put_value(struct writing *w, const json_t *v)
{
	switch (w->field->type) {
	case FIELD_U32:
		return put_u32(w, v);
	case FIELD_U64:
		return put_u64(w, v);
	case FIELD_I64:
		return put_i64(w, v);
	case FIELD_BOOL:
		if (!json_is_boolean(v))
			return bad(w, "must be true or false");
		cbor_write_bool(&w->out, json_is_true(v));
		return 0;
	case FIELD_BYTES:
		return put_base64(w, v);
	case FIELD_TEXT:
	case FIELD_REFUSAL:
		return put_text(w, v);
	case FIELD_FIXED:
		return put_fixed(w, v);
	case FIELD_RECORD:
		return put_record(w, w->field->of, v, false);
	case FIELD_IDS:
		return put_ids(w, v);
	case FIELD_SLICES:
	case FIELD_RECORDS:
		return put_list(w, v);
	}
	return bad(w, "has no type");
}

static bool member_present(const struct field *f, const json_t *object)
{
	char key[JSON_KEY_BYTES];

	if (json_object_get(object, f->key))
		return true;
	json_b64_key(f, key);
	return f->is_name && json_object_get(object, key);
}

static int put_version(struct writing *w, const json_t *v, bool is_message)
{
	if (!v && is_message)
		return bad(w, "v is missing");
	if (v && (!json_is_integer(v) || json_integer_value(v) != WIRE_VERSION))
		return bad(w, "v is a version that this program does not know");
	cbor_write_text(&w->out, "v", 1);
	cbor_write_uint(&w->out, WIRE_VERSION);
	return 0;
}

static int put_member(struct writing *w, const struct field *f, const json_t *object)
{
	if (!member_present(f, object))
		return 0;
	w->field = f;
	cbor_write_text(&w->out, f->key, f->key_len);
	return f->is_name ? put_name(w, object) : put_value(w, json_object_get(object, f->key));
}

static int put_members(struct writing *w, const json_t *object, bool is_message)
{
	const struct record *rec = w->rec;
	size_t n = rec->versioned;
	int r = 0;

	for (size_t i = 0; i < rec->n_fields; i++)
		n += member_present(&rec->fields[i], object);
	cbor_write_map(&w->out, n);
	if (rec->versioned)
		r = put_version(w, json_object_get(object, "v"), is_message);
	for (size_t i = 0; r == 0 && i < rec->n_fields; i++)
		r = put_member(w, &rec->fields[i], object);
	return r < 0 ? r : w->out.result;
}

static int put_record(
	struct writing *w, const struct record *rec, const json_t *object, bool is_message)
{
	const struct record *outer = w->rec;
	const struct field *outer_field = w->field;
	int r;

	w->rec = rec;
	w->field = NULL;
	r = json_is_object(object) ? put_members(w, object, is_message)
				   : bad(w, "must be an object");
	w->rec = outer;
	w->field = outer_field;
	return r;
}

/* --- texts --- */

/* Behind the string that begins at p[at]; n when it has no end. */
static size_t skip_string(const char *p, size_t n, size_t at)
{
	for (at++; at < n && p[at] != '"'; at++)
		at += p[at] == '\\';
	return at;
}

/*
 * Before anything is allocated: counts what the parser would make of it. A text that is not JSON
 * may be counted wrongly; the parser refuses it in any case.
 */
static int check_size(const struct writing *w, const char *p, size_t n)
{
	size_t depth = 0, values = 1;

	for (size_t i = 0; i < n; i++) {
		if (p[i] == '"')
			i = skip_string(p, n, i);
		else if (p[i] == '[' || p[i] == '{')
			depth++, values++;
		else if (p[i] == ']' || p[i] == '}')
			depth -= depth > 0;
		else if (p[i] == ',')
			values++;
		if (depth > WIRE_JSON_DEPTH_MAX)
			return bad(w, "the JSON is nested too deeply");
		if (values > WIRE_JSON_VALUES_MAX)
			return bad(w, "the JSON has too many values; send less at once");
	}
	return 0;
}

int wire_from_json(enum wire_message m, const char *p, size_t n, struct buf *ret, struct err *err)
{
	struct writing w = { .out = { .b = ret }, .err = err, .rec = wire_record(m) };
	_cleanup_json_ json_t *object = NULL;
	size_t len = ret->len;
	json_error_t why;
	int r = check_size(&w, p, n);

	if (r < 0)
		return r;
	object = json_loadb(p, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
	if (!object)
		return err_set(err, EBADMSG, "the body is not JSON: %s", why.text);
	r = put_record(&w, w.rec, object, true);
	if (r < 0)
		ret->len = len;
	return r == -ENOMEM ? err_sys(err, ENOMEM, "%s", w.rec->name) : r;
}
