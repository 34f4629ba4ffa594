// SPDX-License-Identifier: Apache-2.0
#include "cli/json_file.h"

#include "base64.h"
#include "bytes.h"
#include "io.h"

#include <errno.h>
#include <string.h>

/* Fowler, Noll and Vo's hash: no single changed byte keeps it. */
#define FNV_BASIS UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)
#define SUM_KEY "sum"
#define SUM_CHARS 17

/* Of all but the sum itself, however it is laid out. */
static int sum_of(const json_t *object, char ret[SUM_CHARS])
{
	_cleanup_json_ json_t *rest = json_copy((json_t *)(uintptr_t)object);
	_cleanup_free_ char *text = NULL;
	uint64_t h = FNV_BASIS;

	if (rest)
		json_object_del(rest, SUM_KEY);
	text = rest ? json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	if (!text)
		return -ENOMEM;
	for (const char *c = text; *c; c++)
		h = (h ^ (uint8_t)*c) * FNV_PRIME;
	snprintf(ret, SUM_CHARS, "%016llx", (unsigned long long)h);
	return 0;
}

/* One without a sum was written by hand, or by an older program. */
static bool sum_ok(const json_t *object)
{
	const char *said = json_text(object, SUM_KEY);
	char sum[SUM_CHARS];

	return !said || (sum_of(object, sum) == 0 && strcmp(said, sum) == 0);
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
	if (!sum_ok(object)) {
		json_decref(object);
		return err_set(err, EBADMSG,
			"%s is damaged: it does not fit its sum (who edits it takes \"" SUM_KEY
			"\" out)",
			path);
	}
	*ret = object;
	return 1;
}

int json_file_save(const char *path, const json_t *object, struct err *err)
{
	_cleanup_json_ json_t *summed = json_copy((json_t *)(uintptr_t)object);
	_cleanup_free_ char *text = NULL;
	char sum[SUM_CHARS];
	int r;

	if (summed && sum_of(object, sum) == 0 &&
		json_object_set_new(summed, SUM_KEY, json_string(sum)) == 0)
		text = json_dumps(summed, JSON_INDENT(2) | JSON_SORT_KEYS);
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
