// SPDX-License-Identifier: Apache-2.0
#include "http_fake.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 256

struct http_fake {
	int fd;
	int port;
	char url[64];
	fake_handler *handle;
	void *ctx;
	pthread_t acceptor;
	pthread_mutex_t lock;
	int fds[CONNECTIONS_MAX];
	pthread_t threads[CONNECTIONS_MAX];
	size_t n;
};

struct connection {
	struct http_fake *fake;
	int fd;
	struct buf in; /* what was read beyond the last request */
};

static bool read_more(struct connection *c)
{
	ssize_t n;

	if (buf_reserve(&c->in, 64 * 1024) < 0)
		return false;
	n = recv(c->fd, c->in.data + c->in.len, 64 * 1024, 0);
	if (n <= 0)
		return false;
	c->in.len += (size_t)n;
	return true;
}

static size_t content_length(const char *headers)
{
	for (const char *line = headers; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncasecmp(line, "content-length:", 15) == 0)
			return strtoul(line + 15, NULL, 10);
	}
	return 0;
}

static size_t head_length(const struct buf *in)
{
	const uint8_t *end = memmem(in->data, in->len, "\r\n\r\n", 4);

	return in->len && end ? (size_t)(end - in->data) + 4 : 0;
}

/* Leaves the whole request at the start of c->in; its length goes to *ret_len. */
static bool read_request(struct connection *c, struct fake_request *rq, size_t *ret_len)
{
	size_t head;

	while ((head = c->in.len ? head_length(&c->in) : 0) == 0) {
		if (!read_more(c))
			return false;
	}
	snprintf(rq->headers, sizeof rq->headers, "%.*s", (int)head, (char *)c->in.data);
	if (sscanf(rq->headers, "%15s %511s", rq->method, rq->path) != 2)
		return false;
	rq->body_len = content_length(rq->headers);
	while (c->in.len < head + rq->body_len) {
		if (!read_more(c))
			return false;
	}
	rq->body = c->in.data + head;
	*ret_len = head + rq->body_len;
	return true;
}

static bool send_all(int fd, const void *p, size_t n)
{
	const uint8_t *at = p;

	while (n) {
		ssize_t k = send(fd, at, n, MSG_NOSIGNAL);

		if (k <= 0)
			return false;
		at += k;
		n -= (size_t)k;
	}
	return true;
}

static bool send_reply(int fd, const struct fake_reply *reply)
{
	_cleanup_buf_ struct buf out = { 0 };
	size_t n = reply->cut_at ? reply->cut_at : reply->body.len;

	if (buf_printf(&out, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n", reply->status,
		    reply->body.len) < 0)
		return false;
	if (reply->type && buf_printf(&out, "Content-Type: %s\r\n", reply->type) < 0)
		return false;
	if (buf_printf(&out, "%s\r\n", reply->headers ? reply->headers : "") < 0)
		return false;
	if (buf_append(&out, reply->body.data, n) < 0)
		return false;
	return send_all(fd, out.data, out.len) && !reply->cut_at;
}

static bool serve_one(struct connection *c)
{
	struct fake_request rq = { 0 };
	struct fake_reply reply = { .status = 200 };
	size_t used;
	bool go_on;

	if (!read_request(c, &rq, &used))
		return false;
	c->fake->handle(c->fake->ctx, &rq, &reply);
	go_on = !reply.close_unanswered && send_reply(c->fd, &reply);
	buf_done(&reply.body);
	memmove(c->in.data, c->in.data + used, c->in.len - used);
	c->in.len -= used;
	return go_on;
}

static void *serve(void *arg)
{
	struct connection *c = arg;

	while (serve_one(c))
		;
	shutdown(c->fd, SHUT_RDWR);
	buf_done(&c->in);
	free(c);
	return NULL;
}

static void add_connection(struct http_fake *f, int fd)
{
	struct connection *c = calloc(1, sizeof *c);
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	*c = (struct connection){ .fake = f, .fd = fd };
	SCOPED_LOCK(&f->lock);
	if (f->n == CONNECTIONS_MAX || pthread_create(&f->threads[f->n], NULL, serve, c) != 0)
		abort();
	f->fds[f->n++] = fd;
}

static void *accept_all(void *arg)
{
	struct http_fake *f = arg;

	for (;;) {
		int fd = accept(f->fd, NULL, NULL);

		if (fd < 0)
			return NULL;
		add_connection(f, fd);
	}
}

struct http_fake *http_fake_new(int port, fake_handler *handle, void *ctx)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct http_fake *f = calloc(1, sizeof *f);
	socklen_t len = sizeof at;
	int one = 1;

	f->handle = handle;
	f->ctx = ctx;
	pthread_mutex_init(&f->lock, NULL);
	f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(f->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(f->fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(f->fd, 64) < 0 ||
		getsockname(f->fd, (struct sockaddr *)&at, &len) < 0) {
		close(f->fd);
		free(f);
		return NULL;
	}
	f->port = ntohs(at.sin_port);
	snprintf(f->url, sizeof f->url, "http://127.0.0.1:%d", f->port);
	if (pthread_create(&f->acceptor, NULL, accept_all, f) != 0)
		abort();
	return f;
}

void http_fake_free(struct http_fake *f)
{
	if (!f)
		return;
	shutdown(f->fd, SHUT_RDWR);
	pthread_join(f->acceptor, NULL);
	close(f->fd);
	for (size_t i = 0; i < f->n; i++)
		shutdown(f->fds[i], SHUT_RDWR);
	for (size_t i = 0; i < f->n; i++) {
		pthread_join(f->threads[i], NULL);
		close(f->fds[i]);
	}
	pthread_mutex_destroy(&f->lock);
	free(f);
}

int http_fake_port(const struct http_fake *f)
{
	return f->port;
}

const char *http_fake_url(const struct http_fake *f)
{
	return f->url;
}

unsigned http_fake_connections(struct http_fake *f)
{
	SCOPED_LOCK(&f->lock);
	return (unsigned)f->n;
}
