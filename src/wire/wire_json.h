/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of wire.h as JSON, for people and scripts: the same fields by the same tables.
 *
 *	CBOR				JSON
 *	uint of 64 bits, int		decimal number in a string: "-5"
 *	uint of 32 bits, "v"		number
 *	bool, text			the same
 *	bytes that are a name		a string, when they are UTF-8 (names of files and xattrs,
 *					targets of symlinks); else, under the key with "_b64"
 *					behind it, in base64
 *	bytes of a fixed length		hexadecimal digits: digests, and the id of a commit
 *	list of ids			array of such strings
 *	encoded change in a commit	object; its "v" may be left out
 *	other bytes			base64 (RFC 4648, section 4) in a string
 *
 * Reading takes either form of a name, and ignores unknown keys as CBOR does. The other
 * direction is exact: what is translated and read back gives the same bytes. Pure; any thread.
 */
#ifndef VARVE_WIRE_JSON_H
#define VARVE_WIRE_JSON_H

#include "wire/wire.h"

enum wire_message { WIRE_COMMIT, WIRE_COMMIT_REPLY, WIRE_CHANGES, WIRE_ID_LIST };

/* Deeper JSON is refused: no message of ours comes near. */
#define WIRE_JSON_DEPTH_MAX 16
/*
 * Values in one text. jansson keeps each in memory, an empty object in some 250 bytes; a commit
 * of COMMIT_CHANGES_MAX changes can have 130 of them a change.
 */
#define WIRE_JSON_VALUES_MAX 131072

/*
 * Appends the JSON text of an encoded message; no NUL. -EBADMSG when it does not decode. On
 * failure what was appended is undefined.
 */
int wire_to_json(
	enum wire_message m, const void *p, size_t n, struct buf *ret, struct err *err) must_check;
/*
 * Appends the encoding of the message that the JSON text says. -EBADMSG with the reason when it
 * is no JSON or cannot be said in CBOR: the decoder's own checks are still to be made.
 */
int wire_from_json(
	enum wire_message m, const char *p, size_t n, struct buf *ret, struct err *err) must_check;

#endif
