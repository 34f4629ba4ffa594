// SPDX-License-Identifier: Apache-2.0
#include "cli/control_proto.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#define CONTROL_BACKLOG 16
#define TICK_MS 500

/*
 * An address has room for 107 bytes of path. A longer path is reached through its folder, opened
 * as *ret_dir, which must stay open until the address was used.
 */
static int address_of(const char *path, struct sockaddr_un *ret, int *ret_dir)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *folder = NULL;
	int n;

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) < sizeof ret->sun_path) {
		strcpy(ret->sun_path, path);
		return 0;
	}
	folder = slash ? strndup(path, (size_t)(slash - path)) : NULL;
	if (!folder)
		return slash ? -ENOMEM : -ENAMETOOLONG;
	*ret_dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*ret_dir < 0)
		return -errno;
	n = snprintf(
		ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/%s", *ret_dir, slash + 1);
	return n < (int)sizeof ret->sun_path ? 0 : -ENAMETOOLONG;
}

static int open_socket(int flags, int *ret)
{
	*ret = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	return *ret < 0 ? -errno : 0;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address)
{
	if (unlink(address->sun_path) < 0 && errno != ENOENT)
		return -errno;
	if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0 ||
		chmod(address->sun_path, 0600) < 0 || listen(fd, CONTROL_BACKLOG) < 0)
		return -errno;
	return 0;
}

int control_listen(const char *path, int *ret_fd, struct err *err)
{
	_cleanup_close_ int fd = -1, dir = -1;
	struct sockaddr_un address;
	int r = address_of(path, &address, &dir);

	if (r == 0)
		r = open_socket(SOCK_NONBLOCK, &fd);
	if (r == 0)
		r = bind_and_listen(fd, &address);
	if (r < 0)
		return err_sys(err, -r, "cannot listen at %s", path);
	*ret_fd = steal_fd(fd);
	return 0;
}

/* A daemon that does not come to accepting is waited for as long as for an answer. */
static int connect_in_time(int fd, const struct sockaddr_un *address)
{
	struct timeval patience = { .tv_sec = CONTROL_LINE_TIMEOUT_MS / MS_PER_S };

	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0 ||
		connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 ||
		fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int control_connect(const char *path, int *ret_fd, struct err *err)
{
	_cleanup_close_ int fd = -1, dir = -1;
	struct sockaddr_un address;
	int r = address_of(path, &address, &dir);

	if (r == 0)
		r = open_socket(0, &fd);
	if (r == 0)
		r = connect_in_time(fd, &address);
	if (r < 0)
		return err_sys(err, -r, "cannot reach the daemon at %s", path);
	*ret_fd = steal_fd(fd);
	return 0;
}

static int peer_of(int fd, struct ucred *ret)
{
	socklen_t n = sizeof *ret;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &n) < 0 ? -errno : 0;
}

int control_check_peer(int fd)
{
	struct ucred peer;
	int r = peer_of(fd, &peer);

	if (r < 0)
		return r;
	return peer.uid == 0 || peer.uid == geteuid() ? 0 : -EPERM;
}

/* Nobody may pose as the daemon: root may talk to anybody's, others to their own or root's. */
static int check_daemon(int fd, pid_t *ret_pid)
{
	struct ucred peer;
	int r = peer_of(fd, &peer);

	if (r < 0)
		return r;
	*ret_pid = peer.pid;
	return geteuid() == 0 || peer.uid == 0 || peer.uid == geteuid() ? 0 : -EPERM;
}

void control_stream_done(struct control_stream *s)
{
	buf_done(&s->in);
}

/* 0 when ready, -ETIMEDOUT. */
static int wait_for(int fd, short events, int64_t deadline_mono_ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int64_t left = deadline_mono_ms < 0 ? -1 : deadline_mono_ms - clock_mono_ms();
		int n;

		if (deadline_mono_ms >= 0 && left < 0)
			left = 0;
		n = poll(&p, 1, left > INT32_MAX ? INT32_MAX : (int)left);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0 && deadline_mono_ms >= 0 && clock_mono_ms() >= deadline_mono_ms)
			return -ETIMEDOUT;
	}
}

/* Reads what is there: 1, 0 at the end, -EAGAIN when nothing is. */
static int read_more(struct control_stream *s)
{
	ssize_t n;
	int r = buf_reserve(&s->in, 4096);

	if (r < 0)
		return r;
	n = read(s->fd, s->in.data + s->in.len, s->in.cap - s->in.len);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	s->in.len += (size_t)n;
	return n > 0;
}

static int parse_line(const uint8_t *line, size_t n, json_t **ret)
{
	json_t *object = json_loadb((const char *)line, n, JSON_REJECT_DUPLICATES, NULL);

	if (!json_is_object(object) ||
		json_integer_value(json_object_get(object, "v")) != CONTROL_VERSION) {
		json_decref(object);
		return -EBADMSG;
	}
	*ret = object;
	return 1;
}

/* 1 with the first line taken out of the buffer, 0 when there is none yet. */
static int take_line(struct control_stream *s, json_t **ret)
{
	uint8_t *end = s->in.len ? memchr(s->in.data, '\n', s->in.len) : NULL;
	size_t n = end ? (size_t)(end - s->in.data) : s->in.len;
	int r;

	if (n > CONTROL_LINE_BYTES_MAX)
		return -EMSGSIZE;
	if (!end)
		return 0;
	r = parse_line(s->in.data, n, ret);
	s->in.len -= n + 1;
	memmove(s->in.data, end + 1, s->in.len);
	return r;
}

int control_receive(struct control_stream *s, int64_t deadline_mono_ms, json_t **ret)
{
	for (;;) {
		int r = take_line(s, ret);

		if (r != 0)
			return r;
		r = wait_for(s->fd, POLLIN, deadline_mono_ms);
		if (r < 0)
			return r;
		r = read_more(s);
		if (r == 0)
			return s->in.len ? -EBADMSG : 0;
		if (r < 0 && r != -EAGAIN)
			return r;
	}
}

static int send_all(int fd, const char *p, size_t n, int64_t deadline_mono_ms)
{
	while (n) {
		ssize_t put = send(fd, p, n, MSG_NOSIGNAL);

		if (put >= 0) {
			p += put;
			n -= (size_t)put;
		} else if (errno == EAGAIN) {
			int r = wait_for(fd, POLLOUT, deadline_mono_ms);

			if (r < 0)
				return r;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

int control_send(struct control_stream *s, json_t *object, int64_t deadline_mono_ms)
{
	_cleanup_free_ char *text = NULL;
	size_t n;

	if (json_object_set_new(object, "v", json_integer(CONTROL_VERSION)) < 0)
		return -ENOMEM;
	text = json_dumps(object, JSON_COMPACT);
	if (!text)
		return -ENOMEM;
	n = strlen(text);
	if (n > CONTROL_LINE_BYTES_MAX)
		return -EMSGSIZE;
	text[n] = '\n'; /* in place of the NUL */
	return send_all(s->fd, text, n + 1, deadline_mono_ms);
}

/* Waits for the answer in slices, so that the caller's display moves. */
static int await_answer(const struct control_call *call, struct control_stream *s, json_t **ret)
{
	int64_t end = call->timeout_ms < 0 ? -1 : clock_mono_ms() + call->timeout_ms;

	for (;;) {
		int64_t slice = call->tick ? clock_mono_ms() + TICK_MS : end;
		int r;

		if (end >= 0 && slice > end)
			slice = end;
		r = control_receive(s, slice, ret);
		if (r == 0)
			return -ECONNRESET;
		if (r != -ETIMEDOUT || slice == end)
			return r;
		call->tick(call->tick_ctx);
	}
}

static int check_answer(json_t *answer, struct err *err)
{
	const char *detail = json_text(answer, "detail");

	if (json_is_true(json_object_get(answer, "ok")))
		return 0;
	return err_set(
		err, EREMOTEIO, "%s", detail ? detail : "the daemon refused, without a word");
}

static int open_pidfd(pid_t pid)
{
#ifdef SYS_pidfd_open
	if (pid > 0)
		return (int)syscall(SYS_pidfd_open, pid, 0);
#endif
	return -1;
}

static int talk(const struct control_call *call, int fd, json_t **ret, struct err *err)
{
	_cleanup_control_stream_ struct control_stream s = { .fd = fd };
	int r = control_send(&s, call->request, clock_mono_ms() + CONTROL_LINE_TIMEOUT_MS);

	if (r == 0)
		r = await_answer(call, &s, ret);
	if (r == -ETIMEDOUT)
		return err_set(err, ETIMEDOUT, "the daemon did not answer in time");
	if (r == -ECONNRESET || r == -EPIPE)
		return err_set(err, ECONNRESET, "the daemon ended without an answer; see its log");
	if (r < 0)
		return err_sys(err, -r, "cannot understand the daemon");
	return check_answer(*ret, err);
}

int control_ask(const struct control_call *call, json_t **ret, int *ret_pidfd, struct err *err)
{
	_cleanup_json_ json_t *request = call->request;
	_cleanup_close_ int fd = -1;
	pid_t pid = 0;
	int r;

	if (!request)
		return err_sys(err, ENOMEM, "request");
	r = control_connect(call->socket_path, &fd, err);
	if (r < 0)
		return r;
	if (check_daemon(fd, &pid) < 0)
		return err_set(err, EPERM, "%s belongs to another user; nothing was sent",
			call->socket_path);
	if (ret_pidfd)
		*ret_pidfd = open_pidfd(pid);
	return talk(call, fd, ret, err);
}
