// SPDX-License-Identifier: Apache-2.0
/*
 * The first byte says which message; the rest is its JSON. What is a message must come back the
 * same from a further round.
 */
#include "wire/wire_json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool truth)
{
	if (!truth)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf cbor = { 0 }, json = { 0 }, again = { 0 }, json_again = { 0 };
	enum wire_message m;

	if (size == 0)
		return 0;
	m = (enum wire_message)(data[0] % (WIRE_ID_LIST + 1));
	if (wire_from_json(m, (const char *)data + 1, size - 1, &cbor, NULL) < 0)
		return 0;
	/* It can still break a rule of the message. */
	if (wire_to_json(m, cbor.data, cbor.len, &json, NULL) < 0)
		return 0;
	must(wire_from_json(m, (const char *)json.data, json.len, &again, NULL) == 0);
	must(wire_to_json(m, again.data, again.len, &json_again, NULL) == 0);
	must(json.len == json_again.len && memcmp(json.data, json_again.data, json.len) == 0);
	return 0;
}
