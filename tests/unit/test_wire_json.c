// SPDX-License-Identifier: Apache-2.0
#include "bounds.h"
#include "bytes.h"
#include "wire/wire_json.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define S(text) ((struct slice){ (const uint8_t *)(text), sizeof(text) - 1 })
#define ID "000102030405060708090a0b0c0d0e0f"
#define DIGEST_AB "abababababababababababababababababababababababababababababababab"

static void encode(const struct change *c, struct buf *ret)
{
	ck_assert_int_eq(change_encode(c, ret), 0);
}

static struct slice slice_of(const struct buf *b)
{
	return (struct slice){ b->data, b->len };
}

static const struct xattr xattrs[] = {
	{ { (const uint8_t *)"user.\xff", 6 }, { (const uint8_t *)"\0\xff", 2 } },
	{ { (const uint8_t *)"user.a", 6 }, { NULL, 0 } },
};

static void make_create(struct buf *ret)
{
	struct change c = { .kind = CHANGE_CREATE,
		.node = UINT64_MAX,
		.parent = NODE_ROOT,
		.name = S("\xff\xfe\n"),
		.attr = { .mode = S_IFREG | 0644,
			.uid = UINT32_MAX,
			.rdev = UINT64_MAX,
			.atime_ns = INT64_MIN,
			.mtime_ns = INT64_MAX,
			.ctime_ns = -1,
			.size = FILE_BYTES_MAX },
		.xattrs = xattrs,
		.n_xattrs = 2,
		.time_ns = 5 };

	memset(c.attr.content.b, 0xab, DIGEST_BYTES);
	encode(&c, ret);
}

static void make_rename(struct buf *ret)
{
	struct change c = { .kind = CHANGE_RENAME,
		.node = 7,
		.parent = 1,
		.name = S("a\"\\\t\xc3\xa9"),
		.new_parent = 2,
		.new_name = S("b"),
		.flags = CHANGE_FLAG_EXCHANGE,
		.victim = 9 };

	encode(&c, ret);
}

static void make_symlink(struct buf *ret)
{
	struct change c = { .kind = CHANGE_CREATE,
		.node = 8,
		.parent = 1,
		.name = S("link"),
		.attr.mode = S_IFLNK | 0777,
		.target = S("to/\x80") };

	encode(&c, ret);
}

/* To JSON and back gives the same bytes. */
static void check_round(enum wire_message m, const struct buf *cbor, struct buf *ret_json)
{
	_cleanup_buf_ struct buf back = { 0 };
	struct err err = { 0 };

	ck_assert_msg(wire_to_json(m, cbor->data, cbor->len, ret_json, &err) == 0, "%s", err.text);
	ck_assert_msg(wire_from_json(m, (char *)ret_json->data, ret_json->len, &back, &err) == 0,
		"%s: %s", err.text, buf_str(ret_json));
	ck_assert_uint_eq(back.len, cbor->len);
	ck_assert_mem_eq(back.data, cbor->data, cbor->len);
}

static void has(struct buf *json, const char *part)
{
	ck_assert_msg(strstr(buf_str(json), part) != NULL, "%s in %s", part, buf_str(json));
}

START_TEST(commits_round_trip)
{
	_cleanup_buf_ struct buf a = { 0 }, b = { 0 }, c = { 0 }, cbor = { 0 }, json = { 0 };
	struct slice changes[3], contents[] = { S("\x01\x02"), S("") };
	struct commit commit = { .base = INT64_MAX,
		.pack = S("pack\xff"),
		.contents = contents,
		.n_contents = 2,
		.changes = changes,
		.n_changes = 3 };

	hex_decode(ID, strlen(ID), commit.id, sizeof commit.id);
	make_create(&a);
	make_rename(&b);
	make_symlink(&c);
	changes[0] = slice_of(&a);
	changes[1] = slice_of(&b);
	changes[2] = slice_of(&c);
	ck_assert_int_eq(commit_encode(&commit, &cbor), 0);
	check_round(WIRE_COMMIT, &cbor, &json);
	has(&json, "\"id\":\"" ID "\"");
	has(&json, "\"base\":\"9223372036854775807\"");
	has(&json, "\"pack\":\"cGFja/8=\"");
	has(&json, "\"contents\":[\"AQI=\",\"\"]");
	has(&json, "\"node\":\"18446744073709551615\"");
	has(&json, "\"name_b64\":\"//4K\"");
	has(&json, "\"name_b64\":\"dXNlci7/\",\"value\":\"AP8=\"");
	has(&json, "\"name\":\"user.a\"");
	has(&json, "\"name\":\"a\\\"\\\\\\t\xc3\xa9\",\"dir2\":\"2\",\"name2\":\"b\"");
	has(&json, "\"atime\":\"-9223372036854775808\",\"mtime\":\"9223372036854775807\"");
	has(&json, "\"uid\":4294967295");
	has(&json, "\"content\":\"" DIGEST_AB "\"");
	has(&json, "\"target_b64\":\"dG8vgA==\"");
}
END_TEST

START_TEST(changes_round_trip)
{
	_cleanup_buf_ struct buf cbor = { 0 }, json = { 0 };
	struct node_row nodes[] = {
		{ .node = 5, .attr.mode = S_IFDIR | 0755, .xattrs = xattrs, .n_xattrs = 2 },
		{ .node = 6, .deleted = true },
	};
	struct link_row links[] = { { 1, S("plain"), 5 }, { 1, S("\xff"), 0 } };
	struct slice contents[] = { S("m") };
	struct changes c = { 1, 2, 3, nodes, 2, links, 2, contents, 1 };

	ck_assert_int_eq(changes_encode(&c, &cbor), 0);
	check_round(WIRE_CHANGES, &cbor, &json);
	has(&json, "{\"node\":\"6\",\"gone\":true}");
	has(&json, "{\"dir\":\"1\",\"name\":\"plain\",\"node\":\"5\"}");
	has(&json, "{\"dir\":\"1\",\"name_b64\":\"/w==\"}");
	has(&json, "\"from\":\"1\",\"to\":\"2\",\"head\":\"3\"");
}
END_TEST

START_TEST(replies_and_ids_round_trip)
{
	_cleanup_buf_ struct buf cbor = { 0 }, json = { 0 }, ids_cbor = { 0 }, ids_json = { 0 };
	_cleanup_buf_ struct buf none = { 0 }, none_json = { 0 };
	struct refused_change refused[] = { { 0, REFUSAL_STALE, S("why\xc3\xa9") },
		{ 3, REFUSAL_LOOP, S("") } };
	struct commit_reply r = { .head = 4, .refused = refused, .n_refused = 2 };
	struct digest ids[2] = { { { 0 } }, { { 0 } } };
	struct id_list l = { ids, 2 };

	ck_assert_int_eq(commit_reply_encode(&r, &cbor), 0);
	check_round(WIRE_COMMIT_REPLY, &cbor, &json);
	has(&json, "{\"reason\":\"stale\",\"detail\":\"why\xc3\xa9\"}");
	has(&json, "{\"index\":3,\"reason\":\"loop\"}");
	memset(ids[1].b, 0xab, DIGEST_BYTES);
	ck_assert_int_eq(id_list_encode(&l, &ids_cbor), 0);
	check_round(WIRE_ID_LIST, &ids_cbor, &ids_json);
	has(&ids_json, "00\",\"" DIGEST_AB "\"]");
	l.n = 0;
	ck_assert_int_eq(id_list_encode(&l, &none), 0);
	check_round(WIRE_ID_LIST, &none, &none_json);
	ck_assert_str_eq(buf_str(&none_json), "{\"v\":1}");
}
END_TEST

static int read_json(enum wire_message m, const char *text, struct buf *ret, struct err *err)
{
	return wire_from_json(m, text, strlen(text), ret, err);
}

/* What a person leaves out or writes in the other form. */
START_TEST(forms_that_people_write)
{
	static const char *const same[] = {
		"{\"v\":1,\"id\":\"" ID "\",\"changes\":[{\"v\":1,\"kind\":5,\"node\":\"2\","
		"\"dir\":\"1\",\"name\":\"a\"}]}",
		" { \"changes\" : [ { \"name_b64\" : \"YQ==\", \"dir\": \"1\", \"node\": \"02\","
		" \"kind\": 5, \"more\": [null, 1.5, {}] } ],\n\"id\":\"" ID "\", \"v\": 1 } ",
	};
	_cleanup_buf_ struct buf first = { 0 }, second = { 0 };

	ck_assert_int_eq(read_json(WIRE_COMMIT, same[0], &first, NULL), 0);
	ck_assert_int_eq(read_json(WIRE_COMMIT, same[1], &second, NULL), 0);
	ck_assert_uint_eq(first.len, second.len);
	ck_assert_mem_eq(first.data, second.data, first.len);
}
END_TEST

#define IN_COMMIT(what) "{\"v\":1,\"id\":\"" ID "\"," what "}"
#define IN_CHANGE(what) IN_COMMIT("\"changes\":[{" what "}]")

static const struct {
	const char *text;
	const char *reason; /* a part of it */
} bad_commits[] = {
	{ "", "not JSON" },
	{ "{", "not JSON" },
	{ "\xff", "not JSON" },
	{ "{} x", "not JSON" },
	{ "{\"v\":1,\"v\":1}", "not JSON" },
	{ "\"\\", "not JSON" },
	{ "[]", "must be an object" },
	{ "null", "not JSON" },
	{ "{}", "v is missing" },
	{ "{\"v\":2}", "version" },
	{ "{\"v\":\"1\"}", "version" },
	{ "{\"v\":1e0}", "version" },
	{ IN_COMMIT("\"base\":7"), "commit.base: must be a string" },
	{ IN_COMMIT("\"base\":\"\""), "commit.base" },
	{ IN_COMMIT("\"base\":\"-1\""), "commit.base" },
	{ IN_COMMIT("\"base\":\"1.0\""), "commit.base" },
	{ IN_COMMIT("\"base\":\"1\\u0000\""), "commit.base" },
	{ IN_COMMIT("\"base\":\" 1\""), "commit.base" },
	{ IN_COMMIT("\"base\":\"18446744073709551616\""), "commit.base" },
	{ IN_COMMIT("\"base\":\"9223372036854775808\""), "commit.base: too large" },
	{ IN_COMMIT("\"base\":null"), "commit.base" },
	{ IN_COMMIT("\"base\":1e400"), "not JSON" },
	{ IN_COMMIT("\"base\":99999999999999999999999"), "not JSON" },
	{ IN_COMMIT("\"pack\":\"a\""), "commit.pack: must be bytes in base64" },
	{ IN_COMMIT("\"pack\":\"====\""), "commit.pack" },
	{ IN_COMMIT("\"pack\":\"YR==\""), "commit.pack" },
	{ IN_COMMIT("\"pack\":[1]"), "commit.pack" },
	{ IN_COMMIT("\"contents\":{}"), "commit.contents: must be an array" },
	{ IN_COMMIT("\"contents\":[5]"), "commit.contents" },
	{ IN_COMMIT("\"changes\":\"x\""), "commit.changes: must be an array" },
	{ IN_COMMIT("\"changes\":[\"x\"]"), "change: must be an object" },
	{ IN_CHANGE("\"v\":2"), "change: v is a version" },
	{ IN_CHANGE("\"kind\":\"create\""), "change.kind: must be a number" },
	{ IN_CHANGE("\"kind\":-1"), "change.kind" },
	{ IN_CHANGE("\"kind\":1.0"), "change.kind" },
	{ IN_CHANGE("\"kind\":4294967296"), "change.kind: too large" },
	{ IN_CHANGE("\"node\":5"), "change.node: must be a string" },
	{ IN_CHANGE("\"name\":5"), "change.name: must be a string" },
	{ IN_CHANGE("\"name\":null"), "change.name" },
	{ IN_CHANGE("\"name\":\"\xff\""), "not JSON" },
	{ IN_CHANGE("\"name\":\"\\ud800\""), "not JSON" },
	{ IN_CHANGE("\"name\":\"a\",\"name_b64\":\"YQ==\""), "change.name: stands in both" },
	{ IN_CHANGE("\"name_b64\":\"%\""), "change.name: must be bytes" },
	{ IN_CHANGE("\"time\":\"--1\""), "change.time" },
	{ IN_CHANGE("\"time\":\"9223372036854775808\""), "change.time" },
	{ IN_CHANGE("\"time\":\"-9223372036854775809\""), "change.time" },
	{ IN_CHANGE("\"attr\":[]"), "attr: must be an object" },
	{ IN_CHANGE("\"attr\":{\"content\":\"abab\"}"), "attr.content: must be 64" },
	{ IN_CHANGE("\"xattrs\":[[]]"), "xattr: must be an object" },
	{ "{\"v\":1,\"id\":\"0102\"}", "commit.id: must be 32" },
	{ "{\"v\":1,\"id\":5}", "commit.id: must be 32" },
};

START_TEST(hostile_json_is_refused)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct err err = { 0 };

	ck_assert_int_eq(buf_append(&b, "kept", 4), 0);
	ck_assert_int_eq(read_json(WIRE_COMMIT, bad_commits[_i].text, &b, &err), -EBADMSG);
	ck_assert_msg(strstr(err.text, bad_commits[_i].reason) != NULL, "%s: %s",
		bad_commits[_i].text, err.text);
	ck_assert_uint_eq(b.len, 4);
}
END_TEST

START_TEST(hostile_ids_are_refused)
{
	static const char *const bad[] = { "{\"v\":1,\"ids\":\"" DIGEST_AB "\"}",
		"{\"v\":1,\"ids\":[\"ab\"]}", "{\"v\":1,\"ids\":[5]}",
		"{\"v\":1,\"ids\":[\"" DIGEST_AB "0\"]}", "{\"v\":1,\"ids\":[null]}" };
	_cleanup_buf_ struct buf many = { 0 }, b = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_int_eq(read_json(WIRE_ID_LIST, bad[i], &b, NULL), -EBADMSG);
	ck_assert_int_eq(buf_printf(&many, "{\"v\":1,\"ids\":[\"" DIGEST_AB "\""), 0);
	for (size_t i = 1; i < MISSING_IDS_MAX; i++)
		ck_assert_int_eq(buf_printf(&many, ",\"" DIGEST_AB "\""), 0);
	ck_assert_int_eq(buf_printf(&many, "]}"), 0);
	ck_assert_int_eq(wire_from_json(WIRE_ID_LIST, (char *)many.data, many.len, &b, NULL), 0);
	many.len -= 2;
	ck_assert_int_eq(buf_printf(&many, ",\"" DIGEST_AB "\"]}"), 0);
	ck_assert_int_eq(
		wire_from_json(WIRE_ID_LIST, (char *)many.data, many.len, &b, NULL), -EBADMSG);
}
END_TEST

static void fill(struct buf *b, const char *part, size_t times)
{
	for (size_t i = 0; i < times; i++)
		ck_assert_int_eq(buf_append(b, part, strlen(part)), 0);
}

static void refuse_size(const char *before, const char *part, size_t times, const char *reason)
{
	_cleanup_buf_ struct buf b = { 0 }, out = { 0 };
	struct err err = { 0 };

	fill(&b, before, 1);
	fill(&b, part, times);
	ck_assert_int_eq(wire_from_json(WIRE_COMMIT, (char *)b.data, b.len, &out, &err), -EBADMSG);
	ck_assert_msg(strstr(err.text, reason) != NULL, "%s", err.text);
}

START_TEST(memory_is_bounded)
{
	refuse_size("", "[", 1 << 20, "nested too deeply");
	refuse_size("", "{\"a\":", WIRE_JSON_DEPTH_MAX + 1, "nested too deeply");
	refuse_size("", "{\"a\":", WIRE_JSON_DEPTH_MAX, "not JSON");
	refuse_size("{\"x\":[", "0,", WIRE_JSON_VALUES_MAX, "too many values");
	refuse_size("{\"x\":[", "{},", WIRE_JSON_VALUES_MAX / 2, "too many values");
	/* What stands in strings is no value. */
	refuse_size("{\"\\\"x", "[,", WIRE_JSON_VALUES_MAX, "not JSON");
	refuse_size("{\"v\":1,\"x\":\"\\\\\",", "[", 1 << 20, "nested too deeply");
}
END_TEST

/* Bytes that do not decode do not become JSON. */
START_TEST(damaged_messages_are_refused)
{
	_cleanup_buf_ struct buf b = { 0 }, json = { 0 };
	struct slice change = S("\xff");
	struct commit c = { .id = { 1 }, .changes = &change, .n_changes = 1 };

	ck_assert_int_eq(commit_encode(&c, &b), 0);
	ck_assert_int_eq(wire_to_json(WIRE_COMMIT, b.data, b.len, &json, NULL), -EBADMSG);
	ck_assert_int_eq(wire_to_json(WIRE_COMMIT, b.data, b.len - 1, &json, NULL), -EBADMSG);
	ck_assert_int_eq(wire_to_json(WIRE_CHANGES, NULL, 0, &json, NULL), -EBADMSG);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("wire_json");
	TCase *t = tcase_create("wire_json");
	SRunner *runner;
	int failed;

	tcase_add_test(t, commits_round_trip);
	tcase_add_test(t, changes_round_trip);
	tcase_add_test(t, replies_and_ids_round_trip);
	tcase_add_test(t, forms_that_people_write);
	tcase_add_loop_test(t, hostile_json_is_refused, 0, ARRAY_SIZE(bad_commits));
	tcase_add_test(t, hostile_ids_are_refused);
	tcase_add_test(t, memory_is_bounded);
	tcase_add_test(t, damaged_messages_are_refused);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
