// SPDX-License-Identifier: Apache-2.0
/* The calls of the server's routes against a server that answers well, badly, or not. */
#include "clock.h"
#include "http_fake.h"
#include "remote/client.h"

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define DRIVE "0123456789abcdef0123456789abcdef"

/* One canned answer, and what was asked. */
struct canned {
	int status;
	const char *type;
	const char *headers;
	const char *text;
	const struct buf *bytes;
	size_t zeros; /* instead: so many zero bytes */
	size_t cut_at;
	bool close_unanswered;
	_Atomic int wait_ms;
	_Atomic int asked;
	char path[512];
	char sent_headers[4096];
	struct buf body;
};

static pthread_mutex_t canned_lock = PTHREAD_MUTEX_INITIALIZER;

static void note_request(struct canned *c, const struct fake_request *rq)
{
	SCOPED_LOCK(&canned_lock);
	memcpy(c->path, rq->path, sizeof c->path);
	memcpy(c->sent_headers, rq->headers, sizeof c->sent_headers);
	buf_clear(&c->body);
	ck_assert_int_eq(buf_append(&c->body, rq->body, rq->body_len), 0);
	atomic_fetch_add(&c->asked, 1);
}

static void answer(void *ctx, const struct fake_request *rq, struct fake_reply *reply)
{
	struct canned *c = ctx;

	note_request(c, rq);
	for (int ms = 0; ms < atomic_load(&c->wait_ms); ms += 10)
		usleep(10000);
	reply->status = c->status ? c->status : 200;
	reply->type = c->type;
	reply->headers = c->headers;
	reply->cut_at = c->cut_at;
	reply->close_unanswered = c->close_unanswered;
	if (c->text)
		ck_assert_int_eq(buf_append(&reply->body, c->text, strlen(c->text)), 0);
	if (c->bytes)
		ck_assert_int_eq(buf_append(&reply->body, c->bytes->data, c->bytes->len), 0);
	if (c->zeros) {
		ck_assert_int_eq(buf_reserve(&reply->body, c->zeros), 0);
		memset(reply->body.data, 0, c->zeros);
		reply->body.len = c->zeros;
	}
}

static struct canned canned;
static struct http_fake *fake;
static struct client *client;
static struct err err;

static void set_up(void)
{
	struct client_options o = { .token = "t0ken" };

	canned = (struct canned){ .type = "application/json" };
	fake = http_fake_new(0, answer, &canned);
	o.url = http_fake_url(fake);
	ck_assert_int_eq(client_new(&o, &client, &err), 0);
}

static void tear_down(void)
{
	client_free(client);
	atomic_store(&canned.wait_ms, 0);
	http_fake_free(fake);
	buf_done(&canned.body);
}

START_TEST(logs_in)
{
	struct client_login login;

	canned.text = "{\"token\":\"abc\",\"device_id\":12,\"user\":\"ann\",\"more\":1}";
	ck_assert_int_eq(client_login(client, "ann", "p\"w", "lap", NULL, &login, &err), 0);
	ck_assert_str_eq(login.token, "abc");
	ck_assert_str_eq(login.device_id, "12");
	ck_assert_str_eq(login.user, "ann");
	ck_assert_str_eq(canned.path, "/v1/login");
	ck_assert_ptr_nonnull(strstr(canned.sent_headers, "User-Agent: varve/"));
	ck_assert_ptr_null(strstr(canned.sent_headers, "Expect:"));
	ck_assert_ptr_nonnull(strstr(buf_str(&canned.body), "\"p\\\"w\""));
	ck_assert_ptr_null(strstr(buf_str(&canned.body), "device_id"));
}
END_TEST

START_TEST(logs_in_as_the_same_device)
{
	static const char *const ids[] = { "12", "12x", "99999999999999999999", "\xff" };
	static const char *const sent[] = { "\"device_id\":12}", "\"device_id\":\"12x\"",
		"\"device_id\":\"99999999999999999999\"", NULL };
	struct client_login login;

	canned.text = "{\"token\":\"abc\",\"device_id\":12,\"user\":\"ann\"}";
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		ck_assert_int_eq(client_login(client, "ann", "pw", "lap", ids[i], &login, &err),
			sent[i] ? 0 : -EINVAL);
		if (sent[i])
			ck_assert_ptr_nonnull(strstr(buf_str(&canned.body), sent[i]));
	}
}
END_TEST

START_TEST(broken_logins_are_refused)
{
	static const char *const texts[] = { "", "{}", "[]", "nonsense", "{\"token\":7}",
		"{\"token\":\"a b\",\"device_id\":\"1\",\"user\":\"u\"}",
		"{\"token\":\"a\\nb\",\"device_id\":\"1\",\"user\":\"u\"}",
		"{\"token\":\"\",\"device_id\":\"1\",\"user\":\"u\"}" };
	struct client_login login;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		canned.text = texts[i];
		ck_assert_msg(client_login(client, "a", "b", "c", NULL, &login, &err) == -EBADMSG,
			"%s", texts[i]);
	}
	ck_assert_int_eq(client_login(client, "\xff", "b", "c", NULL, &login, &err), -EINVAL);
}
END_TEST

static int collect(void *ctx, const struct client_drive *d)
{
	ck_assert_str_eq(d->id, DRIVE);
	ck_assert_str_eq(d->name, "gr\xc3\xbcn");
	ck_assert_str_eq(d->owner, "ann");
	ck_assert_str_eq(d->role, "writer");
	ck_assert_uint_eq(d->head, 42);
	return ++*(int *)ctx;
}

START_TEST(lists_drives)
{
	int n = 0;

	canned.text = "{\"drives\":[{\"id\":\"" DRIVE "\",\"name\":\"gr\xc3\xbcn\","
		      "\"owner\":\"ann\",\"role\":\"writer\",\"head\":42}]}";
	ck_assert_int_eq(client_drives(client, collect, &n, &err), 1);
	ck_assert_ptr_nonnull(strstr(canned.sent_headers, "Authorization: Bearer t0ken\r\n"));
	canned.text = "{\"drives\":[{\"id\":\"../../etc\",\"name\":\"n\",\"owner\":\"o\","
		      "\"role\":\"r\",\"head\":1}]}";
	ck_assert_int_eq(client_drives(client, collect, &n, &err), -EBADMSG);
	canned.text = "{\"drives\":[{\"id\":\"" DRIVE "\",\"name\":\"n\",\"owner\":\"o\","
		      "\"role\":\"r\",\"head\":-1}]}";
	ck_assert_int_eq(client_drives(client, collect, &n, &err), -EBADMSG);
}
END_TEST

START_TEST(attaches)
{
	struct client_drive d;

	canned.text = "{\"id\":\"" DRIVE "\",\"name\":\"n\",\"role\":\"owner\","
		      "\"device_number\":3,\"head\":0,\"created_ns\":1763856000123456789}";
	ck_assert_int_eq(client_attach(client, DRIVE, &d, &err), 0);
	ck_assert_uint_eq(d.device_number, 3);
	ck_assert_int_eq(d.created_ns, 1763856000123456789);
	ck_assert_str_eq(canned.path, "/v1/drives/" DRIVE "/attach");
	canned.text = "{\"id\":\"" DRIVE "\",\"name\":\"n\",\"role\":\"owner\","
		      "\"device_number\":0,\"head\":0,\"created_ns\":1}";
	ck_assert_int_eq(client_attach(client, DRIVE, &d, &err), -EBADMSG);
	canned.text = "{\"id\":\"" DRIVE "\",\"name\":\"n\",\"role\":\"owner\","
		      "\"device_number\":3,\"head\":0}";
	ck_assert_int_eq(client_attach(client, DRIVE, &d, &err), -EBADMSG);
}
END_TEST

START_TEST(errors_carry_the_servers_words)
{
	static const struct {
		int status;
		int result;
	} cases[] = { { 400, -EINVAL }, { 401, -EACCES }, { 403, -EPERM }, { 404, -ENOENT },
		{ 409, -EINVAL }, { 413, -EMSGSIZE }, { 429, -EBUSY }, { 500, -EIO },
		{ 503, -EBUSY }, { 507, -ENOSPC }, { 302, -EBADMSG } };

	canned.text = "{\"error\":\"code\",\"detail\":\"the very reason\"}";
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		canned.status = cases[i].status;
		ck_assert_int_eq(client_logout(client, &err), cases[i].result);
		ck_assert_ptr_nonnull(strstr(err.text, "the very reason"));
	}
	canned.status = 500;
	canned.text = "<html>";
	ck_assert_int_eq(client_logout(client, &err), -EIO);
	ck_assert_ptr_nonnull(strstr(err.text, "500"));
}
END_TEST

START_TEST(redirects_are_not_followed)
{
	int n = 0;

	canned.status = 302;
	canned.headers = "Location: /elsewhere\r\n";
	ck_assert_int_eq(client_drives(client, collect, &n, &err), -EBADMSG);
	ck_assert_int_eq(canned.asked, 1);
	ck_assert_str_eq(canned.path, "/v1/drives");
}
END_TEST

START_TEST(wrong_types_are_refused)
{
	_cleanup_arena_ struct arena *arena = NULL;
	struct changes page;

	canned.type = "text/html";
	canned.text = "<html>please log in to this hotel</html>";
	ck_assert_int_eq(client_changes(client, DRIVE, 0, 0, NULL, &page, &arena, &err), -EBADMSG);
	canned.type = "application/cbor; charset=x";
	ck_assert_int_eq(client_changes(client, DRIVE, 0, 0, NULL, &page, &arena, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "changes"));
}
END_TEST

START_TEST(oversize_answers_are_refused)
{
	struct digest id = { { 1 } };
	_cleanup_buf_ struct buf b = { 0 };
	_cleanup_arena_ struct arena *arena = NULL;
	struct id_list list;

	canned.type = "application/x-varve-pack";
	canned.zeros = 5 * MIB;
	ck_assert_int_eq(client_fetch(client, DRIVE, &id, 1, NULL, &b, &err), -EMSGSIZE);
	ck_assert_uint_eq(b.len, 0);
	canned.type = "application/cbor";
	ck_assert_int_eq(client_missing(client, DRIVE, &id, 1, &list, &arena, &err), -EMSGSIZE);
}
END_TEST

START_TEST(cut_answers_are_errors)
{
	int n = 0;

	canned.text = "{\"drives\":[]}";
	canned.cut_at = 5;
	ck_assert_int_eq(client_drives(client, collect, &n, &err), -EIO);
	canned.cut_at = 0;
	ck_assert_int_eq(client_drives(client, collect, &n, &err), 0);
	canned.close_unanswered = true;
	ck_assert_int_eq(client_drives(client, collect, &n, &err), -EIO);
}
END_TEST

START_TEST(commits_carry_the_device_number)
{
	struct refused_change refused = { .index = 0, .reason = REFUSAL_STALE };
	struct commit_reply said = { .head = 9, .refused = &refused, .n_refused = 1 }, heard;
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(commit_reply_encode(&said, &b), 0);
	canned.type = "application/cbor";
	canned.bytes = &b;
	canned.status = 409;
	ck_assert_int_eq(client_commit(client, DRIVE, 77, "xyz", 3, &heard, &arena, &err), 0);
	ck_assert_uint_eq(heard.seq, 0);
	ck_assert_uint_eq(heard.n_refused, 1);
	ck_assert_ptr_nonnull(strstr(canned.sent_headers, "Varve-Device-Number: 77\r\n"));
	ck_assert_ptr_nonnull(strstr(canned.sent_headers, "Content-Type: application/cbor\r\n"));
	arena_free(steal(arena));
	canned.status = 200; /* a refusal that says that it was applied */
	ck_assert_int_eq(
		client_commit(client, DRIVE, 77, "xyz", 3, &heard, &arena, &err), -EBADMSG);
	ck_assert_ptr_null(arena);
}
END_TEST

START_TEST(a_page_of_another_place_is_refused)
{
	struct changes said = { .from = 4, .to = 5, .head = 5 }, heard;
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(changes_encode(&said, &b), 0);
	canned.type = "application/cbor";
	canned.bytes = &b;
	ck_assert_int_eq(client_changes(client, DRIVE, 3, 0, NULL, &heard, &arena, &err), -EBADMSG);
	ck_assert_int_eq(client_changes(client, DRIVE, 4, 0, NULL, &heard, &arena, &err), 0);
	ck_assert_str_eq(canned.path, "/v1/drives/" DRIVE "/changes?since=4");
}
END_TEST

START_TEST(connections_are_kept_and_bytes_counted)
{
	struct client_counts counts, before;
	_cleanup_free_ char *big = calloc(1, MIB);
	int n = 0;

	canned.text = "{\"drives\":[]}";
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(client_drives(client, collect, &n, &err), 0);
	ck_assert_uint_eq(http_fake_connections(fake), 1);
	client_get_counts(client, &before);
	ck_assert_uint_gt(before.bytes_sent, 20 * 50);
	ck_assert_uint_lt(before.bytes_sent, 20 * 400);
	ck_assert_uint_gt(before.bytes_received, 20 * 50);
	ck_assert_uint_lt(before.bytes_received, 20 * 200);
	ck_assert_int_gt(before.last_contact_ns, 0);
	ck_assert_int_eq(client_put_pack(client, DRIVE, big, 1000, &err), 0);
	ck_assert_int_eq(client_put_pack(client, DRIVE, big, MIB, &err), 0);
	client_get_counts(client, &counts);
	ck_assert_uint_eq(counts.pack_bytes_sent, MIB + 1000);
	ck_assert_uint_gt(counts.bytes_sent - before.bytes_sent, MIB + 1000);
	ck_assert_uint_lt(counts.bytes_sent - before.bytes_sent, MIB + 1000 + 800);
}
END_TEST

START_TEST(nobody_listens)
{
	struct client_options o = { .url = "http://127.0.0.1:1" };
	_cleanup_client_ struct client *c = NULL;

	ck_assert_int_eq(client_new(&o, &c, &err), 0);
	ck_assert_int_eq(client_logout(c, &err), -ENOTCONN);
	ck_assert_int_eq(
		client_new(&(struct client_options){ .url = "ftp://x" }, &c, &err), -EINVAL);
}
END_TEST

START_TEST(deadlines_hold)
{
	struct client_limit limit = { .deadline_mono_ms = clock_mono_ms() + 150 };
	struct digest id = { { 1 } };
	_cleanup_buf_ struct buf b = { 0 };

	canned.wait_ms = 5000;
	ck_assert_int_eq(client_fetch(client, DRIVE, &id, 1, &limit, &b, &err), -ETIMEDOUT);
	ck_assert_int_lt(clock_mono_ms(), limit.deadline_mono_ms + 500);
}
END_TEST

static _Atomic int cancelled;

static void *cancel_soon(void *arg)
{
	usleep(100000);
	if (arg)
		client_stop(arg);
	else
		atomic_store(&cancelled, 1);
	return NULL;
}

START_TEST(waiting_calls_can_be_ended)
{
	struct client_limit limit = { clock_mono_ms() + 10000, &cancelled };
	_cleanup_arena_ struct arena *arena = NULL;
	int64_t began = clock_mono_ms();
	struct changes page;
	pthread_t thread;

	canned.wait_ms = 8000;
	atomic_store(&cancelled, 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, cancel_soon, NULL), 0);
	ck_assert_int_eq(client_changes(client, DRIVE, 3, 0, &limit, &page, &arena, &err), -EINTR);
	pthread_join(thread, NULL);
	ck_assert_int_eq(pthread_create(&thread, NULL, cancel_soon, client), 0);
	ck_assert_int_eq(
		client_changes(client, DRIVE, 3, 50000, NULL, &page, &arena, &err), -ECANCELED);
	pthread_join(thread, NULL);
	ck_assert_int_eq(client_logout(client, &err), -ECANCELED);
	ck_assert_int_lt(clock_mono_ms() - began, 1500);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("client");
	TCase *tc = tcase_create("client");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, logs_in);
	tcase_add_test(tc, logs_in_as_the_same_device);
	tcase_add_test(tc, broken_logins_are_refused);
	tcase_add_test(tc, lists_drives);
	tcase_add_test(tc, attaches);
	tcase_add_test(tc, errors_carry_the_servers_words);
	tcase_add_test(tc, redirects_are_not_followed);
	tcase_add_test(tc, wrong_types_are_refused);
	tcase_add_test(tc, oversize_answers_are_refused);
	tcase_add_test(tc, cut_answers_are_errors);
	tcase_add_test(tc, commits_carry_the_device_number);
	tcase_add_test(tc, a_page_of_another_place_is_refused);
	tcase_add_test(tc, connections_are_kept_and_bytes_counted);
	tcase_add_test(tc, nobody_listens);
	tcase_add_test(tc, deadlines_hold);
	tcase_add_test(tc, waiting_calls_can_be_ended);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
