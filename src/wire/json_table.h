/* SPDX-License-Identifier: Apache-2.0 */
/* What both directions of wire_json.h share. Private to src/wire. */
#ifndef VARVE_JSON_TABLE_H
#define VARVE_JSON_TABLE_H

#include "wire/record.h"
#include "wire/wire_json.h"

#include <jansson.h>

#define JSON_KEY_BYTES 32

static inline void json_decref_p(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ _cleanup_(json_decref_p)

/* The key of a name's base64. */
static inline void json_b64_key(const struct field *f, char ret[JSON_KEY_BYTES])
{
	snprintf(ret, JSON_KEY_BYTES, "%s_b64", f->key);
}

static inline const struct record *wire_record(enum wire_message m)
{
	static const struct record *const records[] = {
		[WIRE_COMMIT] = &commit_record,
		[WIRE_COMMIT_REPLY] = &commit_reply_record,
		[WIRE_CHANGES] = &changes_record,
		[WIRE_ID_LIST] = &id_list_record,
	};

	return records[m];
}

#endif
