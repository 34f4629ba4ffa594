/* SPDX-License-Identifier: Apache-2.0 */
/* Which drive `varve mount` means. One thread. */
#ifndef VARVE_CLI_PICK_DRIVE_H
#define VARVE_CLI_PICK_DRIVE_H

#include "cli/cli.h"

/*
 * The drive that is called `wanted` (its name, or its id); without `wanted` the only one. What
 * this device knows of the account's drives decides; the server is asked only when that names
 * none, so that a drive that was mounted here before needs no network. Errors list the choice.
 */
int pick_drive(const struct cli_calls *calls, const struct home *h, const struct account *a,
	const char *wanted, struct drive *ret, struct err *err) must_check;

#endif
