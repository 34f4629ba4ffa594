/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small JSON objects: in files that appear whole, with a sum of what is in them ("sum", so that a
 * bit that changes on the disk is seen), and with paths in them. A path is bytes, a
 * JSON string is not: one that is not UTF-8 stands base64-encoded in "KEY_base64". Any thread.
 */
#ifndef VARVE_CLI_JSON_FILE_H
#define VARVE_CLI_JSON_FILE_H

#include "buf.h"
#include "err.h"

#include <jansson.h>
#include <stdint.h>

/* What this program writes is far smaller; more is not ours. */
#define JSON_FILE_BYTES_MAX ((size_t)64 * 1024)

static inline void json_decref_p(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ _cleanup_(json_decref_p)

/* 1 with the object, 0 when there is no file, -errno (-EBADMSG: not a JSON object). */
int json_file_load(const char *path, json_t **ret, struct err *err) must_check;
/* Durable, old or new; readable by the owner only. */
int json_file_save(const char *path, const json_t *object, struct err *err) must_check;

/* The string under the key; NULL when it is absent or no string. */
const char *json_text(const json_t *object, const char *key);
/* A copy of it, to be freed. -EBADMSG when absent, -ENOMEM. */
int json_text_copy(const json_t *object, const char *key, char **ret) must_check;

int json_set_path(json_t *object, const char *key, const char *path) must_check;
/* To be freed. -EBADMSG when neither form is there or it holds a NUL. */
int json_get_path(const json_t *object, const char *key, char **ret) must_check;

#endif
