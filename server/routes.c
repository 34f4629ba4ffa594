// SPDX-License-Identifier: Apache-2.0
#include "routes.h"

#include "bounds.h"

/* Names, a password, and room for escapes. */
#define JSON_BODY_MAX 8192
/* A list of ids in CBOR: some 34 bytes each, and what is around them. */
#define IDS_BODY_MAX(n) ((n)*40 + 256)
/* In JSON: 64 digits, quotes, a comma, and a line of its own. */
#define IDS_JSON_MAX(n) ((n)*80 + 256)

const struct route routes[] = {
	{ "GET", "/healthz", RUN_QUICK, true, .handle = route_health },
	{ "GET", "/readyz", RUN_QUICK, true, .handle = route_ready },
	{ "POST", "/v1/login", RUN_LOGIN, true, ROLE_NONE, JSON_BODY_MAX, TYPE_JSON, route_login },
	{ "POST", "/v1/logout", .handle = route_logout },
	{ "GET", "/v1/me", .handle = route_me },
	{ "GET", "/v1/drives", .handle = route_drives },
	{ "POST", "/v1/drives", RUN_QUICK, false, ROLE_NONE, JSON_BODY_MAX, TYPE_JSON,
		route_create_drive },
	{ "POST", "/v1/drives/{drive}/attach", .role = ROLE_READER, .handle = route_attach },
	{ "POST", "/v1/drives/{drive}/commits", RUN_QUICK, false, ROLE_WRITER, COMMIT_BYTES_MAX,
		TYPE_CBOR, route_commit, .json_max = COMMIT_BYTES_MAX },
	{ "GET", "/v1/drives/{drive}/changes", .role = ROLE_READER, .handle = route_changes },
	{ "POST", "/v1/drives/{drive}/missing", RUN_QUICK, false, ROLE_READER,
		IDS_BODY_MAX(MISSING_IDS_MAX), TYPE_CBOR, route_missing,
		.json_max = IDS_JSON_MAX(MISSING_IDS_MAX) },
	{ "POST", "/v1/drives/{drive}/packs", RUN_BULK, false, ROLE_WRITER, PACK_BYTES_MAX,
		TYPE_PACK, route_put_pack },
	{ "POST", "/v1/drives/{drive}/fetch", RUN_BULK, false, ROLE_READER,
		IDS_BODY_MAX(FETCH_IDS_MAX), TYPE_CBOR, route_fetch,
		.json_max = IDS_JSON_MAX(FETCH_IDS_MAX) },
	{ "GET", "/v1/drives/{drive}/chunks/{id}", RUN_BULK, false, ROLE_READER,
		.handle = route_chunk },
	{ "GET", "/v1/drives/{drive}/contents/{id}", .role = ROLE_READER, .handle = route_content },
	{ 0 },
};
