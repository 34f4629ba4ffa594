// SPDX-License-Identifier: Apache-2.0
/* statfs, ioctl. */
#include "fs/reply.h"

#include "bounds.h"

#include <errno.h>
#include <sys/statvfs.h>

void op_statfs(fuse_req_t req, fuse_ino_t id)
{
	struct session *s = session_of(req);
	struct tree_usage usage;
	struct statvfs st;

	if (statvfs(s->cache_dir, &st) < 0) {
		reply_error(req, -errno);
		return;
	}
	tree_get_usage(s->o.tree, &usage);
	st.f_files = usage.files + st.f_ffree;
	st.f_favail = st.f_ffree;
	st.f_namemax = NAME_BYTES_MAX;
	fuse_reply_statfs(req, &st);
}

/* Without it the kernel would answer ENOSYS, which programs do not expect. */
void op_ioctl(fuse_req_t req, fuse_ino_t id, unsigned cmd, void *arg, struct fuse_file_info *fi,
	unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	reply_error(req, -ENOTTY);
}
