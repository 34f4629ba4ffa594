// SPDX-License-Identifier: Apache-2.0
#include "fs/device.h"

#include <linux/fuse.h>
#include <sys/uio.h>

static _Thread_local bool answering_init;

void device_init_seen(void)
{
	answering_init = true;
}

/* libfuse's own buffers: header, then struct fuse_init_out. */
static void complete_init(const struct iovec *iov, int count)
{
	const struct fuse_out_header *header = iov[0].iov_base;
	struct fuse_init_out *out;

	if (count != 2 || header->error != 0 || iov[1].iov_len < sizeof *out)
		return;
	out = iov[1].iov_base;
	out->flags |= FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2;
}

static ssize_t device_writev(int fd, struct iovec *iov, int count, void *ctx)
{
	if (answering_init) {
		answering_init = false;
		complete_init(iov, count);
	}
	return writev(fd, iov, count);
}

static ssize_t device_read(int fd, void *p, size_t n, void *ctx)
{
	return read(fd, p, n);
}

static ssize_t device_splice(
	int in, off_t *in_offset, int out, off_t *out_offset, size_t n, unsigned flags, void *ctx)
{
	return splice(in, in_offset, out, out_offset, n, flags);
}

int device_attach(struct fuse_session *se)
{
	static const struct fuse_custom_io io = {
		.writev = device_writev,
		.read = device_read,
		.splice_receive = device_splice,
		.splice_send = device_splice,
	};

	return fuse_session_custom_io(se, &io, fuse_session_fd(se));
}
