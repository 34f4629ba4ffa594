/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last resort for a store whose tree cannot be put right: everything in it came from the
 * server and can come again, but for what is not sent yet. One thread; nobody else uses the store.
 */
#ifndef VARVE_RESCUE_H
#define VARVE_RESCUE_H

#include "meta/store.h"

struct rescue_result {
	uint64_t files; /* written into the folder */
	uint64_t changes; /* without bytes: renames, modes, ...; told in its "changes.txt" */
	uint64_t
		lost; /* files of which some or all bytes could not be read: zeros stand for them */
};

/*
 * Writes what is not sent yet into DIR/rescue-TIME: files under their names, other changes as
 * text; also moves there what was being written (the staging folder, as it is), and the old
 * store. DIR/store is a new one then, of the same drive and device number, that knows the chunks
 * that the old one had from the server; without a device number it is absent, and the next mount
 * asks for one. Frees the store in any case. *ret_folder is to be freed. When the folder cannot be
 * written (-ENOSPC, ...), everything stays as it was.
 */
int rescue_and_renew(struct store *st, const char *dir, const char *drive_id, char **ret_folder,
	struct rescue_result *ret, struct err *err) must_check;

#endif
