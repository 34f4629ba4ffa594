// SPDX-License-Identifier: Apache-2.0
#include "server/auth.h"
#include "server/login_limit.h"
#include "server/number.h"
#include "server/password.h"
#include "server/token_cache.h"

#include "bytes.h"
#include "clock.h"

#include <check.h>
#include <errno.h>

#define PASSWORD "correct horse"

static struct db *db;
static int64_t now_ns;

static int64_t fake_clock(void)
{
	return now_ns;
}

static void setup(void)
{
	ck_assert_int_eq(db_open("sqlite::memory:", &db, NULL), 0);
	ck_assert_int_eq(db_migrate(db, NULL), 0);
}

static void teardown(void)
{
	db_free(db);
}

static void run_sql(const char *sql)
{
	DB_STMT(s, db, sql, NULL);

	ck_assert_int_eq(db_run(s, NULL), 0);
}

static void add_drive(void)
{
	run_sql("INSERT INTO drive (id, public_id, owner, name, head_seq, head_time_ns, bytes,"
		" next_device_number, created_ns) VALUES (7, 'abc', 1, 'home', 3, 0, 0, 1, 0)");
	run_sql("INSERT INTO drive_member (drive, account, role) VALUES (7, 1, 3)");
}

START_TEST(names_and_passwords_are_checked)
{
	char longest[LABEL_BYTES_MAX + 2];
	struct err err;

	memset(longest, 'x', sizeof longest);
	longest[LABEL_BYTES_MAX + 1] = '\0';
	ck_assert_int_eq(auth_add_user(db, "", PASSWORD, &err), -EINVAL);
	ck_assert_int_eq(auth_add_user(db, longest, PASSWORD, &err), -EINVAL);
	ck_assert_int_eq(auth_add_user(db, "a\x7f", PASSWORD, &err), -EINVAL);
	ck_assert_int_eq(auth_add_user(db, "a\xff", PASSWORD, &err), -EINVAL);
	ck_assert_int_eq(auth_add_user(db, "ann", "short", &err), -EINVAL);
	longest[LABEL_BYTES_MAX] = '\0';
	ck_assert_int_eq(auth_add_user(db, longest, PASSWORD, &err), 0);
	ck_assert_int_eq(auth_add_user(db, longest, PASSWORD, &err), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.text, "already"));
}
END_TEST

START_TEST(login_gives_a_token_until_it_is_revoked)
{
	char token[TOKEN_TEXT_BYTES], other[TOKEN_TEXT_BYTES];
	struct identity who, found;
	struct auth_names names;
	struct err err;

	ck_assert_int_eq(auth_add_user(db, "ann", PASSWORD, &err), 0);
	ck_assert_int_eq(
		auth_login(db, "ann", "correct hors", "pc", 0, token, &who, &err), -EACCES);
	ck_assert_int_eq(auth_login(db, "bob", PASSWORD, "pc", 0, token, &who, &err), -EACCES);
	ck_assert_int_eq(auth_login(db, "ann", PASSWORD, "", 0, token, &who, &err), -EINVAL);
	ck_assert_int_eq(auth_login(db, "ann", PASSWORD, "pc", 0, token, &who, &err), 0);
	ck_assert_uint_eq(strlen(token), TOKEN_TEXT_BYTES - 1);
	ck_assert_int_eq(auth_token(db, token, &found, &err), 0);
	ck_assert_int_eq(found.device, who.device);
	ck_assert_int_eq(found.user, who.user);
	ck_assert_int_eq(auth_names(db, &who, &names, &err), 0);
	ck_assert_str_eq(names.user, "ann");
	ck_assert_str_eq(names.device, "pc");
	ck_assert_int_eq(auth_login(db, "ann", PASSWORD, "phone", 0, other, &found, &err), 0);
	ck_assert_str_ne(token, other);
	ck_assert_int_eq(auth_revoke_device(db, who.device, &err), 0);
	ck_assert_int_eq(auth_token(db, token, &found, &err), -EACCES);
	ck_assert_int_eq(auth_token(db, other, &found, &err), 0);
	ck_assert_int_eq(auth_token(db, "", &found, &err), -EACCES);
	ck_assert_int_eq(auth_token(db, token + 1, &found, &err), -EACCES);
}
END_TEST

START_TEST(a_device_stays_the_same)
{
	char first[TOKEN_TEXT_BYTES], token[TOKEN_TEXT_BYTES];
	struct identity ann, bob, again;
	struct auth_names names;
	uint32_t number;
	struct err err;

	ck_assert_int_eq(auth_add_user(db, "ann", PASSWORD, &err), 0);
	ck_assert_int_eq(auth_add_user(db, "bob", PASSWORD, &err), 0);
	ck_assert_int_eq(auth_login(db, "ann", PASSWORD, "pc", 0, first, &ann, &err), 0);
	ck_assert_int_eq(auth_login(db, "bob", PASSWORD, "pc", 0, token, &bob, &err), 0);
	add_drive();
	ck_assert_int_eq(auth_attach(db, &ann, 7, &number, &err), 0);
	ck_assert_int_eq(auth_revoke_device(db, ann.device, &err), 0);
	ck_assert_int_eq(
		auth_login(db, "ann", "not this one", "pc", ann.device, token, &again, &err),
		-EACCES);
	ck_assert_int_eq(auth_token(db, first, &again, &err), -EACCES);
	ck_assert_int_eq(
		auth_login(db, "ann", PASSWORD, "box", ann.device, token, &again, &err), 0);
	ck_assert_int_eq(again.device, ann.device);
	ck_assert_int_eq(auth_token(db, token, &again, &err), 0);
	ck_assert_int_eq(again.device, ann.device);
	ck_assert_int_eq(auth_token(db, first, &again, &err), -EACCES);
	ck_assert_int_eq(auth_has_number(db, &ann, 7, number, &err), 1);
	ck_assert_int_eq(auth_names(db, &ann, &names, &err), 0);
	ck_assert_str_eq(names.device, "box");
	/* Another's device, and one that never was, are not taken over. */
	ck_assert_int_eq(auth_login(db, "ann", PASSWORD, "pc", bob.device, first, &again, &err), 0);
	ck_assert_int_ne(again.device, bob.device);
	ck_assert_int_ne(again.device, ann.device);
	ck_assert_int_eq(auth_login(db, "ann", PASSWORD, "pc", 999, first, &again, &err), 0);
	ck_assert_int_ne(again.device, 999);
	ck_assert_int_eq(auth_token(db, token, &again, &err), 0);
	ck_assert_int_eq(again.device, ann.device);
}
END_TEST

/* What leaves the server's disk by theft must not log in. */
START_TEST(no_secret_is_stored)
{
	char token[TOKEN_TEXT_BYTES];
	struct identity who;
	uint8_t bytes[32];
	DB_STMT(s, db, "SELECT d.token_hash, a.password FROM device d, account a", NULL);

	ck_assert_int_eq(auth_add_user(db, "ann", PASSWORD, NULL), 0);
	ck_assert_int_eq(auth_login(db, "ann", PASSWORD, "pc", 0, token, &who, NULL), 0);
	ck_assert_int_eq(db_step(s, NULL), 1);
	ck_assert(hex_decode(token, strlen(token), bytes, sizeof bytes));
	ck_assert_uint_eq(db_blob(s, 0).n, 32);
	ck_assert_mem_ne(db_blob(s, 0).p, bytes, 32);
	ck_assert_uint_eq(db_blob(s, 1).n, PASSWORD_HASH_BYTES);
}
END_TEST

START_TEST(drives_are_for_their_members)
{
	char token[TOKEN_TEXT_BYTES];
	struct identity ann, bob;
	struct access access;
	uint32_t first, second;
	struct err err;

	ck_assert_int_eq(auth_add_user(db, "ann", PASSWORD, &err), 0);
	ck_assert_int_eq(auth_add_user(db, "bob", PASSWORD, &err), 0);
	ck_assert_int_eq(auth_login(db, "ann", PASSWORD, "pc", 0, token, &ann, &err), 0);
	ck_assert_int_eq(auth_login(db, "bob", PASSWORD, "pc", 0, token, &bob, &err), 0);
	add_drive();
	ck_assert_int_eq(auth_drive(db, &ann, "abc", &access, &err), 0);
	ck_assert_int_eq(access.role, ROLE_OWNER);
	ck_assert_int_eq(access.drive, 7);
	ck_assert_uint_eq(access.head, 3);
	ck_assert_uint_eq(access.device_number, 0);
	ck_assert_str_eq(access.name, "home");
	ck_assert_int_eq(auth_drive(db, &bob, "abc", &access, &err), -ENOENT);
	ck_assert_int_eq(auth_drive(db, &ann, "abd", &access, &err), -ENOENT);
	ck_assert_int_eq(auth_attach(db, &ann, 7, &first, &err), 0);
	ck_assert_int_eq(auth_attach(db, &ann, 7, &second, &err), 0);
	ck_assert_uint_ne(first, second);
	ck_assert_int_eq(auth_has_number(db, &ann, 7, first, &err), 1);
	ck_assert_int_eq(auth_has_number(db, &ann, 7, second, &err), 1);
	ck_assert_int_eq(auth_has_number(db, &ann, 7, second + 1, &err), 0);
	ck_assert_int_eq(auth_has_number(db, &bob, 7, first, &err), 0);
	ck_assert_int_eq(auth_drive(db, &ann, "abc", &access, &err), 0);
	ck_assert_uint_eq(access.device_number, second);
	ck_assert_int_eq(auth_revoke_device(db, ann.device, &err), 0);
	ck_assert_int_eq(auth_drive(db, &ann, "abc", &access, &err), -ENOENT);
}
END_TEST

START_TEST(device_numbers_end)
{
	struct identity who = { 1, 1 };
	char token[TOKEN_TEXT_BYTES];
	struct err err;
	uint32_t number;

	ck_assert_int_eq(auth_add_user(db, "ann", PASSWORD, &err), 0);
	ck_assert_int_eq(auth_login(db, "ann", PASSWORD, "pc", 0, token, &who, &err), 0);
	add_drive();
	run_sql("UPDATE drive SET next_device_number = 8388607");
	ck_assert_int_eq(auth_attach(db, &who, 7, &number, &err), 0);
	ck_assert_uint_eq(number, NODE_DEVICE_GIVEN_MAX);
	/* Bit 63 of none of its node ids: the alias bit of src/fs/inodes.h. */
	ck_assert_uint_eq(node_id(number, UINT64_MAX >> 24) >> 63, 0);
	ck_assert_int_eq(auth_attach(db, &who, 7, &number, &err), -EDQUOT);
	ck_assert_ptr_nonnull(strstr(err.text, "no device numbers left"));
	ck_assert_int_eq(auth_attach(db, &who, 8, &number, &err), -ENOENT);
}
END_TEST

START_TEST(damaged_parameters_are_refused)
{
	static const char *const damaged[] = { "", "n=x", "n=32768,r=8", "n=32768,r=8,p=3 ",
		"n=9999999999,r=8,p=3", "n=32768,r=99,p=3", "n=32768,r=8,p=99" };
	struct password_hash h;
	struct err err;

	ck_assert_int_eq(password_hash(PASSWORD, &h, &err), 0);
	ck_assert_int_eq(password_check(PASSWORD, &h, &err), 1);
	ck_assert_int_eq(password_check("else else", &h, &err), 0);
	ck_assert_int_eq(password_check(PASSWORD, NULL, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(damaged); i++) {
		snprintf(h.params, sizeof h.params, "%s", damaged[i]);
		ck_assert_int_eq(password_check(PASSWORD, &h, &err), -EBADMSG);
	}
}
END_TEST

START_TEST(cached_tokens_end)
{
	struct identity who = { .user = 1, .device = 2 }, found;
	struct token_cache *c;
	struct digest d;
	uint64_t generation;

	now_ns = NS_PER_S;
	clock_set_source(fake_clock, fake_clock);
	digest_of("t", 1, &d);
	ck_assert_int_eq(token_cache_new(&c), 0);
	ck_assert(!token_cache_get(c, &d, &found));
	generation = token_cache_generation(c);
	token_cache_put(c, &d, &who, generation);
	ck_assert(token_cache_get(c, &d, &found));
	ck_assert_int_eq(found.device, 2);
	now_ns += TOKEN_CACHE_MS * NS_PER_MS;
	ck_assert(!token_cache_get(c, &d, &found));
	token_cache_put(c, &d, &who, generation);
	token_cache_revoke(c, 2);
	ck_assert(!token_cache_get(c, &d, &found));
	/* SQL was asked before the token was revoked: its answer must not come back. */
	token_cache_put(c, &d, &who, generation);
	ck_assert(!token_cache_get(c, &d, &found));
	token_cache_free(c);
	clock_set_source(NULL, NULL);
}
END_TEST

START_TEST(logins_are_limited)
{
	struct login_limit *l;

	now_ns = NS_PER_S;
	clock_set_source(fake_clock, fake_clock);
	ck_assert_int_eq(login_limit_new(&l), 0);
	for (int i = 0; i < 10; i++)
		ck_assert_uint_eq(login_limit_attempt(l, "ann", "1.1.1.1"), 0);
	ck_assert_uint_gt(login_limit_attempt(l, "ann", "1.1.1.1"), 0);
	ck_assert_uint_eq(login_limit_attempt(l, "ann", "2.2.2.2"), 0);
	for (int i = 0; i < 20; i++)
		ck_assert_uint_eq(login_limit_attempt(l, i % 2 ? "bob" : "eve", "1.1.1.1"), 0);
	ck_assert_uint_gt(login_limit_attempt(l, "someone", "1.1.1.1"), 0);
	now_ns += 60 * NS_PER_S;
	ck_assert_uint_eq(login_limit_attempt(l, "ann", "1.1.1.1"), 0);
	for (int i = 0; i < 1000; i++) {
		login_limit_success(l, "ann", "1.1.1.1");
		ck_assert_uint_eq(login_limit_attempt(l, "ann", "1.1.1.1"), 0);
	}
	login_limit_free(l);
	clock_set_source(NULL, NULL);
}
END_TEST

START_TEST(numbers_are_digits)
{
	uint64_t n = 7;

	ck_assert(number_parse("0", 5, &n));
	ck_assert_uint_eq(n, 0);
	ck_assert(number_parse("18446744073709551609", UINT64_MAX, &n));
	ck_assert(!number_parse("18446744073709551616", UINT64_MAX, &n));
	ck_assert(!number_parse("99999999999999999999999", UINT64_MAX, &n));
	ck_assert(!number_parse("6", 5, &n));
	ck_assert(!number_parse("", 5, &n));
	ck_assert(!number_parse("-1", 5, &n));
	ck_assert(!number_parse("1 ", 5, &n));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("auth");
	TCase *tc = tcase_create("auth");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, names_and_passwords_are_checked);
	tcase_add_test(tc, login_gives_a_token_until_it_is_revoked);
	tcase_add_test(tc, a_device_stays_the_same);
	tcase_add_test(tc, no_secret_is_stored);
	tcase_add_test(tc, drives_are_for_their_members);
	tcase_add_test(tc, device_numbers_end);
	tcase_add_test(tc, damaged_parameters_are_refused);
	tcase_add_test(tc, cached_tokens_end);
	tcase_add_test(tc, logins_are_limited);
	tcase_add_test(tc, numbers_are_digits);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
