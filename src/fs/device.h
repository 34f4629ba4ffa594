/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel offers and libfuse 3.14.0 cannot ask for: it drops FUSE_PARALLEL_DIROPS from
 * its answer to INIT, and does not know FUSE_HANDLE_KILLPRIV_V2, without which every write is
 * preceded by a GETXATTR of security.capability. The answer is completed on its way to the
 * device. Bits that a kernel does not know, it ignores.
 */
#ifndef VARVE_DEVICE_H
#define VARVE_DEVICE_H

#include "fs/ops.h"

/* Behind fuse_session_mount(). 0 or -errno. */
int device_attach(struct fuse_session *se) must_check;
/* From the init operation: the next thing that this thread sends is the answer to INIT. */
void device_init_seen(void);

#endif
