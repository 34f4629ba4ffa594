/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How often a login may fail: by name and address together, by address, and by name. The last
 * allows much, so that a stranger cannot lock a user out. A fixed number of counters, which
 * others may share by chance. Any thread.
 */
#ifndef VARVE_LOGIN_LIMIT_H
#define VARVE_LOGIN_LIMIT_H

#include "cleanup.h"

#include <stdint.h>

struct login_limit;

int login_limit_new(struct login_limit **ret) must_check;
void login_limit_free(struct login_limit *l);
/* Counts an attempt. 0, or in how many seconds to try again. */
unsigned login_limit_attempt(struct login_limit *l, const char *name, const char *address);
/* It was a good one after all. */
void login_limit_success(struct login_limit *l, const char *name, const char *address);

#endif
