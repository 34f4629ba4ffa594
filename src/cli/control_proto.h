/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the command line and a daemon say to each other over the daemon's Unix socket: one JSON
 * object a line, at most CONTROL_LINE_BYTES_MAX bytes, the request first, then its answer, as
 * often as the peer likes.
 *
 *	{"v": 1, "op": "status"}
 *	{"v": 1, "op": "wait", "timeout_ms": N, "node": N}	both may be absent
 *	{"v": 1, "op": "stop", "force": false}
 *	{"v": 1, "op": "doctor", "quick": false, "repair": false}
 *	->	{"v": 1, "ok": true, ...}
 *	->	{"v": 1, "ok": false, "error": "word for programs", "detail": "text for people"}
 *
 * Both sides check who the other is: the owner of the daemon and root may talk to it.
 * Any thread; a connection by one at a time.
 */
#ifndef VARVE_CLI_CONTROL_PROTO_H
#define VARVE_CLI_CONTROL_PROTO_H

#include "cli/json_file.h"

#include <sys/types.h>

#define CONTROL_VERSION 1
/* A status with paths of 4 KiB in their longest spelling takes about 50 KiB. */
#define CONTROL_LINE_BYTES_MAX ((size_t)64 * 1024)
/* A peer that has begun a line, or that an answer goes to, gets this long. */
#define CONTROL_LINE_TIMEOUT_MS 10000

/* Listens at `path`; what lay there is removed (the caller holds the drive's lock). */
int control_listen(const char *path, int *ret_fd, struct err *err) must_check;
int control_connect(const char *path, int *ret_fd, struct err *err) must_check;
/* For the daemon: 0 when the process at the other end is its owner's or root's; -EPERM. */
int control_check_peer(int fd) must_check;

/* One end of a connection, and what came in behind the last line. */
struct control_stream {
	int fd; /* borrowed, non-blocking */
	struct buf in;
};
void control_stream_done(struct control_stream *s);
#define _cleanup_control_stream_ _cleanup_(control_stream_done)

/*
 * The next line as a JSON object: 1, 0 at the end of the stream, -ETIMEDOUT, -EMSGSIZE (a line
 * too long), -EBADMSG (no JSON object, or another version), or what read(2) says.
 * deadline_mono_ms: for the whole line; -1 for none.
 */
int control_receive(struct control_stream *s, int64_t deadline_mono_ms, json_t **ret) must_check;
/* The object with "v" added, and a newline. -ETIMEDOUT, -EPIPE, ... */
int control_send(struct control_stream *s, json_t *object, int64_t deadline_mono_ms) must_check;

/*
 * Asks the daemon at `socket_path` and waits for the answer, for as long as timeout_ms says (-1:
 * without end). A refusal becomes -EREMOTEIO with the daemon's words; its word for programs is
 * left in *ret (an object) then, too. `tick`, when not NULL, is called about twice a second
 * meanwhile. ret_pidfd, when not NULL, gets a descriptor that becomes readable when the daemon has
 * exited, -1 where the kernel has none.
 */
struct control_call {
	const char *socket_path;
	json_t *request; /* taken over */
	int64_t timeout_ms;
	void (*tick)(void *ctx);
	void *tick_ctx;
};
int control_ask(
	const struct control_call *call, json_t **ret, int *ret_pidfd, struct err *err) must_check;

#endif
