// SPDX-License-Identifier: Apache-2.0
#include "control.h"

#include "cli/control_proto.h"
#include "clock.h"
#include "io.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char root[] = "/tmp/varve-test-control-XXXXXX";
static char *path;
static struct control *c;
static atomic_int handled, released, saw_hangup;

static int hold(struct control_peer *peer)
{
	while (!released && !saw_hangup) {
		saw_hangup = control_peer_gone(peer);
		poll(NULL, 0, 5);
	}
	return 0;
}

static int handle(void *ctx, struct control_peer *peer, const char *op, const json_t *request,
	json_t **ret, struct err *err)
{
	handled++;
	if (strcmp(op, "echo") == 0) {
		*ret = json_pack("{s:O?}", "text", json_object_get(request, "text"));
		return 0;
	}
	if (strcmp(op, "hold") == 0)
		return hold(peer);
	if (strcmp(op, "quiet") == 0)
		return 0;
	return err_set(err, EOPNOTSUPP, "no such request");
}

static void set_up(void)
{
	struct control_handler handler = { .handle = handle };

	handled = released = saw_hangup = 0;
	strcpy(root + strlen(root) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	ck_assert_int_ge(asprintf(&path, "%s/s.sock", root), 0);
	ck_assert_int_eq(control_new(path, &handler, &c, NULL), 0);
}

static void tear_down(void)
{
	released = 1;
	control_free(c);
	free(path);
	ck_assert_int_eq(io_remove_tree(root), 0);
}

static int ask(const char *at, json_t *request, json_t **ret, struct err *err)
{
	struct control_call call = { .socket_path = at, .request = request, .timeout_ms = 5000 };

	return control_ask(&call, ret, NULL, err);
}

START_TEST(question_and_answer)
{
	_cleanup_json_ json_t *answer = NULL;
	struct stat st;

	ck_assert_int_eq(ask(path, json_pack("{s:s,s:s}", "op", "echo", "text", "h\xc3\xbc\n"),
				 &answer, NULL),
		0);
	ck_assert_str_eq(json_text(answer, "text"), "h\xc3\xbc\n");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
}
END_TEST

START_TEST(refusals_keep_their_words)
{
	_cleanup_json_ json_t *a = NULL, *b = NULL, *none = NULL;
	struct err err = { 0 };

	ck_assert_int_eq(ask(path, json_pack("{s:s}", "op", "what"), &a, &err), -EREMOTEIO);
	ck_assert_str_eq(err.text, "no such request");
	ck_assert_str_eq(json_text(a, "error"), "EOPNOTSUPP");
	ck_assert_int_eq(ask(path, json_object(), &b, &err), -EREMOTEIO);
	ck_assert_int_eq(handled, 1);
	ck_assert_int_eq(ask("/nowhere/x.sock", json_object(), &none, &err), -ENOENT);
}
END_TEST

static void send_raw(int fd, const char *p, size_t n)
{
	while (n) {
		struct pollfd ready = { .fd = fd, .events = POLLOUT };
		ssize_t put = send(fd, p, n, MSG_NOSIGNAL);

		if (put < 0 && errno == EPIPE)
			return;
		ck_assert(put >= 0 || errno == EAGAIN);
		if (put < 0) {
			ck_assert_int_eq(poll(&ready, 1, 5000), 1);
			continue;
		}
		p += put;
		n -= (size_t)put;
	}
}

static int64_t soon(void)
{
	return clock_mono_ms() + 5000;
}

static const char *const garbage[] = { "\n", "hello\n", "[]\n", "{\"v\": 2, \"op\": \"echo\"}\n",
	"{\"op\": \"echo\"}\n", "{\"v\": 1, \"v\": 1}\n", "{\"v\": 1\n", "\xff\xfe\n",
	"{\"v\": \"1\", \"op\": \"echo\"}\n" };

START_TEST(garbage_is_refused_and_let_go)
{
	_cleanup_control_stream_ struct control_stream s = { 0 };
	_cleanup_json_ json_t *answer = NULL, *more = NULL;
	_cleanup_close_ int fd = -1;

	ck_assert_int_eq(control_connect(path, &fd, NULL), 0);
	s.fd = fd;
	send_raw(fd, garbage[_i], strlen(garbage[_i]));
	ck_assert_int_eq(control_receive(&s, soon(), &answer), 1);
	ck_assert(json_is_false(json_object_get(answer, "ok")));
	ck_assert_int_eq(control_receive(&s, soon(), &more), 0);
	ck_assert_int_eq(handled, 0);
}
END_TEST

START_TEST(oversized_line_is_refused)
{
	_cleanup_control_stream_ struct control_stream s = { 0 };
	_cleanup_free_ char *line = malloc(CONTROL_LINE_BYTES_MAX * 2);
	_cleanup_json_ json_t *answer = NULL;
	_cleanup_close_ int fd = -1;
	int r;

	memset(line, 'x', CONTROL_LINE_BYTES_MAX * 2);
	ck_assert_int_eq(control_connect(path, &fd, NULL), 0);
	s.fd = fd;
	send_raw(fd, line, CONTROL_LINE_BYTES_MAX * 2);
	/* With bytes unread when the daemon closes, the answer may be lost to a reset. */
	r = control_receive(&s, soon(), &answer);
	ck_assert(r == 1 || r == -ECONNRESET);
	if (r == 1)
		ck_assert_str_eq(json_text(answer, "error"), "EMSGSIZE");
	ck_assert_int_eq(handled, 0);
}
END_TEST

START_TEST(several_requests_in_any_pieces)
{
	static const char text[] = "{\"v\":1,\"op\":\"quiet\"}\n{\"v\":1,\"op\":\"quiet\"}\n";
	_cleanup_control_stream_ struct control_stream s = { 0 };
	_cleanup_json_ json_t *a = NULL, *b = NULL;
	_cleanup_close_ int fd = -1;

	ck_assert_int_eq(control_connect(path, &fd, NULL), 0);
	s.fd = fd;
	for (size_t i = 0; i < sizeof text - 1; i++)
		send_raw(fd, text + i, 1);
	ck_assert_int_eq(control_receive(&s, soon(), &a), 1);
	ck_assert_int_eq(control_receive(&s, soon(), &b), 1);
	ck_assert_int_eq(handled, 2);
}
END_TEST

START_TEST(disconnects_do_no_harm)
{
	_cleanup_json_ json_t *answer = NULL;

	for (int i = 0; i < 100; i++) {
		_cleanup_close_ int fd = -1;

		ck_assert_int_eq(control_connect(path, &fd, NULL), 0);
		send_raw(fd, "{\"v\":1,\"op\":\"echo\"}\n", (size_t)(i % 22));
	}
	for (int i = 0; i < 100 && !answer; i++) {
		if (ask(path, json_pack("{s:s}", "op", "quiet"), &answer, NULL) < 0)
			poll(NULL, 0, 10);
	}
	ck_assert_ptr_nonnull(answer);
}
END_TEST

START_TEST(handler_sees_the_hangup)
{
	int fd;

	ck_assert_int_eq(control_connect(path, &fd, NULL), 0);
	send_raw(fd, "{\"v\":1,\"op\":\"hold\"}\n", 20);
	while (!handled)
		poll(NULL, 0, 1);
	ck_assert_int_eq(saw_hangup, 0);
	close(fd);
	for (int i = 0; i < 1000 && !saw_hangup; i++)
		poll(NULL, 0, 5);
	ck_assert_int_eq(saw_hangup, 1);
}
END_TEST

START_TEST(places_are_bounded)
{
	int fd[CONTROL_PEERS_MAX];
	struct pollfd end;
	char byte;
	int one_more;

	for (int i = 0; i < CONTROL_PEERS_MAX; i++) {
		_cleanup_control_stream_ struct control_stream s = { 0 };
		_cleanup_json_ json_t *answer = NULL;

		ck_assert_int_eq(control_connect(path, &fd[i], NULL), 0);
		s.fd = fd[i];
		send_raw(fd[i], "{\"v\":1,\"op\":\"quiet\"}\n", 21);
		ck_assert_int_eq(control_receive(&s, soon(), &answer), 1);
	}
	ck_assert_int_eq(control_connect(path, &one_more, NULL), 0);
	end = (struct pollfd){ .fd = one_more, .events = POLLIN };
	ck_assert_int_eq(poll(&end, 1, 5000), 1);
	ck_assert_int_eq(read(one_more, &byte, 1), 0);
	close(one_more);
	for (int i = 0; i < CONTROL_PEERS_MAX; i++)
		close(fd[i]);
}
END_TEST

static void *release_soon(void *arg)
{
	poll(NULL, 0, 50);
	released = 1;
	return NULL;
}

/* The end of the daemon waits for an answer on its way, and the answer arrives. */
START_TEST(last_answer_arrives)
{
	_cleanup_control_stream_ struct control_stream s = { 0 };
	struct control_handler handler = { .handle = handle };
	_cleanup_json_ json_t *answer = NULL, *none = NULL;
	_cleanup_close_ int fd = -1;
	pthread_t thread;

	ck_assert_int_eq(control_connect(path, &fd, NULL), 0);
	s.fd = fd;
	send_raw(fd, "{\"v\":1,\"op\":\"hold\"}\n", 20);
	while (!handled)
		poll(NULL, 0, 1);
	control_close(c);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(ask(path, json_object(), &none, NULL), -ENOENT);
	pthread_create(&thread, NULL, release_soon, NULL);
	control_free(c);
	pthread_join(thread, NULL);
	ck_assert_int_eq(control_receive(&s, soon(), &answer), 1);
	ck_assert(json_is_true(json_object_get(answer, "ok")));
	ck_assert_int_eq(control_new(path, &handler, &c, NULL), 0);
}
END_TEST

START_TEST(long_paths_work)
{
	struct control_handler handler = { .handle = handle };
	_cleanup_free_ char *dir = NULL, *deep = NULL;
	_cleanup_json_ json_t *answer = NULL;
	struct control *other;

	ck_assert_int_ge(asprintf(&dir, "%s/%0200d", root, 7), 0);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	ck_assert_int_ge(asprintf(&deep, "%s/s.sock", dir), 0);
	ck_assert_int_eq(control_new(deep, &handler, &other, NULL), 0);
	ck_assert_int_eq(access(deep, F_OK), 0);
	ck_assert_int_eq(ask(deep, json_pack("{s:s}", "op", "quiet"), &answer, NULL), 0);
	control_free(other);
	ck_assert_int_eq(access(deep, F_OK), -1);
}
END_TEST

START_TEST(silence_times_out)
{
	struct control_call call = { .socket_path = path, .timeout_ms = 50 };
	_cleanup_json_ json_t *answer = NULL;
	struct err err = { 0 };

	call.request = json_pack("{s:s}", "op", "hold");
	ck_assert_int_eq(control_ask(&call, &answer, NULL, &err), -ETIMEDOUT);
	ck_assert_ptr_nonnull(strstr(err.text, "in time"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("control");
	TCase *t = tcase_create("control");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, question_and_answer);
	tcase_add_test(t, refusals_keep_their_words);
	tcase_add_loop_test(t, garbage_is_refused_and_let_go, 0, (int)ARRAY_SIZE(garbage));
	tcase_add_test(t, oversized_line_is_refused);
	tcase_add_test(t, several_requests_in_any_pieces);
	tcase_add_test(t, disconnects_do_no_harm);
	tcase_add_test(t, handler_sees_the_hangup);
	tcase_add_test(t, places_are_bounded);
	tcase_add_test(t, last_answer_arrives);
	tcase_add_test(t, long_paths_work);
	tcase_add_test(t, silence_times_out);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
