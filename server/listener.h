/* SPDX-License-Identifier: Apache-2.0 */
/* The socket that the server listens on, and the PEM files of its TLS. */
#ifndef VARVE_LISTENER_H
#define VARVE_LISTENER_H

#include "buf.h"
#include "err.h"

#include <stdbool.h>

struct listener {
	int fd;
	char address[128]; /* "127.0.0.1:7420", "[::1]:7420": with the port that it has */
};

/*
 * Listens at "HOST:PORT" ("[ADDRESS]:PORT" of IPv6); port 0 takes a free one. -EPERM when the
 * address can be reached from elsewhere and `loopback_only`.
 */
int listener_open(
	const char *text, bool loopback_only, struct listener *ret, struct err *err) must_check;
/* Reads both files, as C strings, and checks that the key is the certificate's. */
int tls_files_read(const char *cert_path, const char *key_path, struct buf *ret_cert,
	struct buf *ret_key, struct err *err) must_check;

#endif
