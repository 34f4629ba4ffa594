// SPDX-License-Identifier: Apache-2.0
#include "cli/json_file.h"

#include "bytes.h"
#include "io.h"

#include <errno.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(const void *p, size_t n, struct buf *ret)
{
	const uint8_t *b = p;
	int r = buf_reserve(ret, (n + 2) / 3 * 4);

	for (size_t i = 0; r == 0 && i < n; i += 3) {
		uint32_t v = (uint32_t)b[i] << 16;
		char out[4];

		if (i + 1 < n)
			v |= (uint32_t)b[i + 1] << 8;
		if (i + 2 < n)
			v |= b[i + 2];
		out[0] = digits[v >> 18];
		out[1] = digits[v >> 12 & 63];
		out[2] = i + 1 < n ? digits[v >> 6 & 63] : '=';
		out[3] = i + 2 < n ? digits[v & 63] : '=';
		r = buf_append(ret, out, sizeof out);
	}
	return r;
}

static int digit_value(char c)
{
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* One group of four digits, of which the last `pad` are '='. */
static int decode_group(const char *s, size_t pad, struct buf *ret)
{
	uint32_t v = 0;
	uint8_t out[3];

	for (size_t i = 0; i < 4; i++) {
		int d = i < 4 - pad ? digit_value(s[i]) : 0;

		if (d < 0)
			return -EBADMSG;
		v = v << 6 | (uint32_t)d;
	}
	if (v & ((1u << (8 * pad)) - 1))
		return -EBADMSG;
	out[0] = (uint8_t)(v >> 16);
	out[1] = (uint8_t)(v >> 8);
	out[2] = (uint8_t)v;
	return buf_append(ret, out, 3 - pad);
}

int base64_decode(const char *s, size_t n, struct buf *ret)
{
	int r = n % 4 ? -EBADMSG : 0;

	for (size_t i = 0; r == 0 && i < n; i += 4) {
		size_t pad = 0;

		if (i + 4 == n)
			pad = s[i + 3] != '=' ? 0 : s[i + 2] != '=' ? 1 : 2;
		r = decode_group(s + i, pad, ret);
	}
	return r;
}

int json_file_load(const char *path, json_t **ret, struct err *err)
{
	_cleanup_buf_ struct buf b = { 0 };
	json_error_t why;
	json_t *object;
	int r = io_read_file(path, JSON_FILE_BYTES_MAX, &b);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return err_sys(err, -r, "cannot read %s", path);
	object = json_loadb((char *)b.data, b.len, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(object)) {
		json_decref(object);
		return err_set(err, EBADMSG, "%s is damaged: %s; move it away and try again", path,
			object ? "it is not a JSON object" : why.text);
	}
	*ret = object;
	return 1;
}

int json_file_save(const char *path, const json_t *object, struct err *err)
{
	_cleanup_free_ char *text = json_dumps(object, JSON_INDENT(2) | JSON_SORT_KEYS);
	int r;

	if (!text)
		return err_sys(err, ENOMEM, "cannot write %s", path);
	r = io_write_file_atomic(path, text, strlen(text), 0600);
	return r < 0 ? err_sys(err, -r, "cannot write %s", path) : 0;
}

const char *json_text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

int json_text_copy(const json_t *object, const char *key, char **ret)
{
	const char *text = json_text(object, key);
	char *copy;

	if (!text)
		return -EBADMSG;
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

static int base64_key(const char *key, char **ret)
{
	if (asprintf(ret, "%s_base64", key) >= 0)
		return 0;
	*ret = NULL;
	return -ENOMEM;
}

int json_set_path(json_t *object, const char *key, const char *path)
{
	_cleanup_buf_ struct buf text = { 0 };
	_cleanup_free_ char *coded_key = NULL;
	int r;

	if (utf8_valid(path, strlen(path)))
		return json_object_set_new(object, key, json_string(path)) < 0 ? -ENOMEM : 0;
	r = base64_key(key, &coded_key);
	if (r == 0)
		r = base64_encode(path, strlen(path), &text);
	if (r < 0)
		return r;
	return json_object_set_new(object, coded_key, json_stringn((char *)text.data, text.len)) < 0
		       ? -ENOMEM
		       : 0;
}

static int decode_path(const char *text, char **ret)
{
	_cleanup_buf_ struct buf path = { 0 };
	int r = base64_decode(text, strlen(text), &path);

	if (r == 0 && (path.len == 0 || memchr(path.data, '\0', path.len)))
		r = -EBADMSG;
	if (r < 0)
		return r;
	*ret = strndup((char *)path.data, path.len);
	return *ret ? 0 : -ENOMEM;
}

int json_get_path(const json_t *object, const char *key, char **ret)
{
	_cleanup_free_ char *coded_key = NULL;
	const char *coded;
	int r = json_text_copy(object, key, ret);

	if (r != -EBADMSG)
		return r;
	r = base64_key(key, &coded_key);
	if (r < 0)
		return r;
	coded = json_text(object, coded_key);
	return coded ? decode_path(coded, ret) : -EBADMSG;
}
