// SPDX-License-Identifier: Apache-2.0
/*
 * Locks: control.lock (peers and their number) is a leaf; no handler is called under it.
 */
#include "control.h"

#include "cli/control_proto.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

struct control_peer {
	struct control *control;
	int fd; /* -1: the place is free */
};

struct control {
	struct control_handler handler;
	char *path;
	int listen_fd;
	int stop_fd;
	pthread_t acceptor;
	bool closed;
	pthread_mutex_t lock;
	pthread_cond_t all_gone;
	size_t n_peers;
	struct control_peer peers[CONTROL_PEERS_MAX];
};

bool control_peer_gone(struct control_peer *peer)
{
	struct pollfd p = { .fd = peer->fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL);
}

static json_t *refusal(int code, const char *detail)
{
	return json_pack(
		"{s:b, s:s, s:s}", "ok", 0, "error", strerrorname_np(code), "detail", detail);
}

/* Whatever the handler's words are, they go out as text. */
static json_t *answer_of(int r, json_t *fields, const struct err *err)
{
	json_t *answer;

	if (r < 0) {
		json_decref(fields);
		answer = refusal(-r, err->text);
		return answer ? answer : refusal(-r, strerror(-r));
	}
	answer = fields ? fields : json_object();
	if (answer && json_object_set_new(answer, "ok", json_true()) < 0) {
		json_decref(answer);
		return NULL;
	}
	return answer;
}

static int answer_request(
	struct control_peer *peer, struct control_stream *s, const json_t *request)
{
	const struct control_handler *h = &peer->control->handler;
	const char *op = json_text(request, "op");
	_cleanup_json_ json_t *answer = NULL;
	json_t *fields = NULL;
	struct err err = { 0 };
	int r = op ? h->handle(h->ctx, peer, op, request, &fields, &err)
		   : err_set(&err, EINVAL, "the request names no \"op\"");

	answer = answer_of(r, fields, &err);
	if (!answer)
		return -ENOMEM;
	return control_send(s, answer, clock_mono_ms() + CONTROL_LINE_TIMEOUT_MS);
}

/* A line that cannot be understood is told, and then the peer is let go. */
static void refuse_line(struct control_stream *s, int r)
{
	_cleanup_json_ json_t *answer =
		refusal(-r, r == -EMSGSIZE ? "the request is too long"
					   : "the request is no JSON object of this version");

	if (answer && control_send(s, answer, clock_mono_ms() + CONTROL_LINE_TIMEOUT_MS) < 0)
		log_debug("control: a peer did not take its refusal");
}

static void converse(struct control_peer *peer)
{
	_cleanup_control_stream_ struct control_stream s = { .fd = peer->fd };
	int r;

	do {
		_cleanup_json_ json_t *request = NULL;

		r = control_receive(&s, clock_mono_ms() + CONTROL_IDLE_TIMEOUT_MS, &request);
		if (r > 0)
			r = answer_request(peer, &s, request);
		else if (r == -EMSGSIZE || r == -EBADMSG)
			refuse_line(&s, r);
		else if (r == 0)
			r = -EPIPE;
	} while (r == 0);
	log_debug("control: a conversation ended: %s", strerror(-r));
}

static void leave(struct control_peer *peer)
{
	struct control *c = peer->control;
	SCOPED_LOCK(&c->lock);

	close(peer->fd);
	peer->fd = -1;
	if (--c->n_peers == 0)
		pthread_cond_broadcast(&c->all_gone);
}

static void *peer_main(void *arg)
{
	struct control_peer *peer = arg;

	converse(peer);
	leave(peer);
	return NULL;
}

/* A place for the connection, which takes fd; NULL when all are taken. */
static struct control_peer *enter(struct control *c, int fd)
{
	SCOPED_LOCK(&c->lock);

	for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
		if (c->peers[i].fd < 0) {
			c->peers[i].fd = fd;
			c->n_peers++;
			return &c->peers[i];
		}
	}
	return NULL;
}

static void admit(struct control *c, int fd)
{
	struct control_peer *peer = NULL;
	pthread_t thread;

	if (control_check_peer(fd) < 0)
		log_warn("control: another user knocked and was sent away");
	else
		peer = enter(c, fd);
	if (!peer) {
		close(fd);
		return;
	}
	if (pthread_create(&thread, NULL, peer_main, peer) != 0)
		leave(peer);
	else
		pthread_detach(thread);
}

static void *accept_main(void *arg)
{
	struct control *c = arg;
	struct pollfd p[] = { { .fd = c->listen_fd, .events = POLLIN },
		{ .fd = c->stop_fd, .events = POLLIN } };

	for (;;) {
		int fd;

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return NULL;
		if (p[1].revents)
			return NULL;
		fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			admit(c, fd);
		else if (errno == EMFILE || errno == ENFILE)
			poll(&p[1], 1, 100); /* the connection stays readable: do not spin on it */
	}
}

static struct control *control_alloc(const char *path, const struct control_handler *handler)
{
	struct control *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->handler = *handler;
	c->path = strdup(path);
	c->listen_fd = -1;
	c->stop_fd = eventfd(0, EFD_CLOEXEC);
	c->closed = true;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->all_gone, NULL);
	for (size_t i = 0; i < CONTROL_PEERS_MAX; i++)
		c->peers[i] = (struct control_peer){ .control = c, .fd = -1 };
	if (!c->path || c->stop_fd < 0) {
		control_free(c);
		return NULL;
	}
	return c;
}

int control_new(const char *path, const struct control_handler *handler, struct control **ret,
	struct err *err)
{
	struct control *c = control_alloc(path, handler);
	int r;

	if (!c)
		return err_sys(err, ENOMEM, "control socket");
	r = control_listen(path, &c->listen_fd, err);
	if (r == 0) {
		r = -pthread_create(&c->acceptor, NULL, accept_main, c);
		if (r < 0)
			err_sys(err, -r, "control socket");
	}
	if (r < 0) {
		control_free(c);
		return r;
	}
	c->closed = false;
	*ret = c;
	return 0;
}

void control_close(struct control *c)
{
	if (c->closed)
		return;
	c->closed = true;
	if (eventfd_write(c->stop_fd, 1) < 0)
		log_error("control: cannot end the acceptor: %s", strerror(errno));
	pthread_join(c->acceptor, NULL);
	unlink(c->path);
}

void control_free(struct control *c)
{
	if (!c)
		return;
	control_close(c);
	pthread_mutex_lock(&c->lock);
	/* Those between two requests read the end; those with an answer to send can send it. */
	for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
		if (c->peers[i].fd >= 0)
			shutdown(c->peers[i].fd, SHUT_RD);
	}
	while (c->n_peers)
		pthread_cond_wait(&c->all_gone, &c->lock);
	pthread_mutex_unlock(&c->lock);
	cleanup_close_p(&c->listen_fd);
	cleanup_close_p(&c->stop_fd);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->all_gone);
	free(c->path);
	free(c);
}
