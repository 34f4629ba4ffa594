// SPDX-License-Identifier: Apache-2.0
#include "listener.h"

#include "bounds.h"
#include "cleanup.h"
#include "io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/socket.h>

#define BACKLOG 1024
#define PEM_BYTES_MAX ((size_t)MIB)

/* Splits "HOST:PORT" and "[HOST]:PORT". */
static int split(const char *text, char host[256], char port[8], struct err *err)
{
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;

	if (!colon || n == 0 || n >= 256 || !colon[1] || strlen(colon + 1) > 5 ||
		strspn(colon + 1, "0123456789") != strlen(colon + 1) || atoi(colon + 1) > 65535)
		return err_set(err, EINVAL, "--listen %s: not HOST:PORT", text);
	strcpy(port, colon + 1);
	if (text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	} else if (memchr(text, ':', n)) {
		return err_set(err, EINVAL, "--listen %s: write [ADDRESS]:PORT for IPv6", text);
	}
	memcpy(host, text, n);
	host[n] = '\0';
	return 0;
}

static bool is_loopback(const struct sockaddr *a)
{
	const struct in6_addr *six = &((const struct sockaddr_in6 *)a)->sin6_addr;

	if (a->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24) == 127;
	return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(six);
}

static int bind_to(const struct addrinfo *a)
{
	_cleanup_close_ int fd =
		socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	/* A server that was just stopped leaves its port in use for a while. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
		bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	return steal_fd(fd);
}

static int tell_address(int fd, struct listener *ret, struct err *err)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof a;
	char host[INET6_ADDRSTRLEN], port[8];

	if (getsockname(fd, (struct sockaddr *)&a, &n) < 0)
		return err_sys(err, errno, "listening");
	if (getnameinfo((struct sockaddr *)&a, n, host, sizeof host, port, sizeof port,
		    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return err_set(err, EIO, "listening: the address cannot be told");
	snprintf(ret->address, sizeof ret->address, a.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
		host, port);
	ret->fd = fd;
	return 0;
}

static void free_addresses(struct addrinfo **a)
{
	if (*a)
		freeaddrinfo(*a);
}

int listener_open(const char *text, bool loopback_only, struct listener *ret, struct err *err)
{
	_cleanup_(free_addresses) struct addrinfo *list = NULL;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	char host[256], port[8];
	int r = split(text, host, port, err), fd;

	if (r < 0)
		return r;
	r = getaddrinfo(host, port, &hints, &list);
	if (r)
		return err_set(err, EINVAL, "--listen %s: %s", text, gai_strerror(r));
	if (loopback_only && !is_loopback(list->ai_addr))
		return err_set(err, EPERM,
			"--listen %s: plain HTTP would show passwords and files to the network; "
			"give --tls-cert and --tls-key, or --allow-plain-http",
			text);
	fd = bind_to(list);
	if (fd < 0)
		return err_sys(err, -fd, "--listen %s", text);
	r = tell_address(fd, ret, err);
	if (r < 0)
		close(fd);
	return r;
}

static int read_pem(const char *path, struct buf *ret, struct err *err)
{
	int r = io_read_file(path, PEM_BYTES_MAX, ret);

	if (r < 0)
		return err_sys(err, -r, "%s", path);
	return buf_str(ret) ? 0 : err_sys(err, ENOMEM, "%s", path);
}

static void bio_free_p(BIO **b)
{
	BIO_free(*b);
}
#define _cleanup_bio_ _cleanup_(bio_free_p)

/* Rather than asking on the terminal. */
static int no_passphrase(char *p, int n, int writing, void *ctx)
{
	return -1;
}

static int check_pair(const char *cert_path, const char *key_path, const struct buf *cert,
	const struct buf *key, struct err *err)
{
	_cleanup_bio_ BIO *cert_bio = BIO_new_mem_buf(cert->data, (int)cert->len);
	_cleanup_bio_ BIO *key_bio = BIO_new_mem_buf(key->data, (int)key->len);
	X509 *x = cert_bio ? PEM_read_bio_X509(cert_bio, NULL, NULL, NULL) : NULL;
	EVP_PKEY *k = key_bio ? PEM_read_bio_PrivateKey(key_bio, NULL, no_passphrase, NULL) : NULL;
	int r = 0;

	if (!x)
		r = err_set(err, EINVAL, "%s: no certificate in PEM form", cert_path);
	else if (!k)
		r = err_set(err, EINVAL, "%s: no private key in PEM form, without a passphrase",
			key_path);
	else if (X509_check_private_key(x, k) != 1)
		r = err_set(err, EINVAL, "%s: not the key of the certificate in %s", key_path,
			cert_path);
	X509_free(x);
	EVP_PKEY_free(k);
	return r;
}

int tls_files_read(const char *cert_path, const char *key_path, struct buf *ret_cert,
	struct buf *ret_key, struct err *err)
{
	int r = read_pem(cert_path, ret_cert, err);

	if (r == 0)
		r = read_pem(key_path, ret_key, err);
	return r < 0 ? r : check_pair(cert_path, key_path, ret_cert, ret_key, err);
}
