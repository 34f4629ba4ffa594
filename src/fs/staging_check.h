/* SPDX-License-Identifier: Apache-2.0 */
/* A look at the staging folder of a drive that no daemon serves. Changes nothing. One thread. */
#ifndef VARVE_STAGING_CHECK_H
#define VARVE_STAGING_CHECK_H

#include "cleanup.h"

#include <stdint.h>

struct staging_found {
	uint64_t unfinished; /* files whose bytes are not cut into chunks yet */
	uint64_t damaged_records;
	uint64_t missing; /* staging files that the log speaks of and that are not there */
};

/* -ENOENT when there is no such folder. */
int staging_check(const char *path, struct staging_found *ret) must_check;

#endif
