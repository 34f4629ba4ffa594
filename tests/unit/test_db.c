// SPDX-License-Identifier: Apache-2.0
#include "server_kit.h"

#include "io.h"

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static struct db *db;
static struct err err;

static void setup(void)
{
	ck_assert_int_eq(db_open("sqlite::memory:", &db, &err), 0);
	err = (struct err){ 0 };
}

static void teardown(void)
{
	db_free(db);
}

static int run(const char *sql)
{
	DB_STMT(s, db, sql, &err);

	return db_run(s, &err);
}

static int64_t one(const char *sql)
{
	DB_STMT(s, db, sql, &err);

	ck_assert_msg(db_step(s, &err) == 1, "%s", err.text);
	return db_int(s, 0);
}

START_TEST(urls)
{
	struct db *other;

	ck_assert_int_eq(db_open("mysql:x", &other, &err), -EINVAL);
	ck_assert_int_eq(db_open("sqlite", &other, &err), -EINVAL);
	ck_assert_int_eq(db_open("", &other, &err), -EINVAL);
	ck_assert_int_eq(db_open("sqlite:/nowhere/x", &other, &err), -ENOENT);
	ck_assert_str_ne(err.text, "");
}
END_TEST

START_TEST(values_come_back)
{
	uint8_t bytes[300];

	memset(bytes, 0xa5, sizeof bytes);
	ck_assert_int_eq(run("CREATE TABLE t (a BIGINT, b BLOB, c TEXT, d BLOB, e BLOB)"), 0);
	{
		DB_STMT(s, db, "INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5)", &err);

		db_bind_int(s, 1, INT64_MIN);
		db_bind_blob(s, 2, bytes, sizeof bytes);
		db_bind_text(s, 3, "text");
		db_bind_blob(s, 4, NULL, 0);
		db_bind_null(s, 5);
		ck_assert_int_eq(db_run(s, &err), 0);
		ck_assert_int_eq(db_changes(db), 1);
	}
	{
		DB_STMT(s, db, "SELECT a, b, c, d, e FROM t", &err);

		ck_assert_int_eq(db_step(s, &err), 1);
		ck_assert_int_eq(db_int(s, 0), INT64_MIN);
		ck_assert_uint_eq(db_blob(s, 1).n, sizeof bytes);
		ck_assert_mem_eq(db_blob(s, 1).p, bytes, sizeof bytes);
		ck_assert_str_eq(db_text(s, 2), "text");
		ck_assert(!db_is_null(s, 3)); /* no bytes are not NULL */
		ck_assert_uint_eq(db_blob(s, 3).n, 0);
		ck_assert(db_is_null(s, 4));
		ck_assert_int_eq(db_step(s, &err), 0);
	}
}
END_TEST

START_TEST(errors_are_told)
{
	ck_assert_int_eq(run("CREATE TABLE t (a BIGINT PRIMARY KEY, b BIGINT UNIQUE)"), 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (1, 1)"), 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (1, 2)"), -EEXIST);
	ck_assert_int_eq(run("INSERT INTO t VALUES (2, 1)"), -EEXIST);
	ck_assert_int_eq(run("INSERT INTO t VALUES (1, 2) ON CONFLICT DO NOTHING"), 0);
	ck_assert_int_eq(db_changes(db), 0);
	ck_assert_int_eq(run("nonsense"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "nonsense"));
	ck_assert_int_eq(run("SELECT 1"), -EPROTO);
	{
		DB_STMT(s, db, "SELECT ?1", &err);

		db_bind_int(s, 2, 5);
		ck_assert_int_eq(db_step(s, &err), -EINVAL);
	}
	{
		DB_STMT(s, db, "SELECT ?1", &err); /* the error went with the reset */

		db_bind_int(s, 1, 5);
		ck_assert_int_eq(db_step(s, &err), 1);
	}
}
END_TEST

static int count(void *ctx, const char *sql)
{
	++*(int *)ctx;
	return 0;
}

START_TEST(statements_are_kept_and_can_nest)
{
	int n = 0;

	for (int i = 0; i < 3; i++) {
		DB_STMT(a, db, "SELECT ?1", &err);
		DB_STMT(b, db, "SELECT ?1", &err);

		ck_assert_ptr_ne(a, b);
		db_bind_int(a, 1, 1);
		db_bind_int(b, 1, 2);
		ck_assert_int_eq(db_step(a, &err), 1);
		ck_assert_int_eq(db_step(b, &err), 1);
		ck_assert_int_eq(db_int(a, 0), 1);
		ck_assert_int_eq(db_int(b, 0), 2);
	}
	ck_assert_int_eq(db_statements(db, count, &n), 0);
	ck_assert_int_eq(n, 1);
	{
		DB_STMT(a, db, "SELECT ?1", &err); /* nothing stays bound */

		ck_assert_int_eq(db_step(a, &err), 1);
		ck_assert(db_is_null(a, 0));
	}
}
END_TEST

START_TEST(transactions_and_savepoints)
{
	ck_assert_int_eq(run("CREATE TABLE t (a BIGINT)"), 0);
	ck_assert_int_eq(db_begin(db, &err), 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (1)"), 0);
	ck_assert_int_eq(db_savepoint(db, &err), 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (2)"), 0);
	db_rollback_to(db);
	ck_assert_int_eq(db_savepoint(db, &err), 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (4)"), 0);
	ck_assert_int_eq(db_release(db, &err), 0);
	ck_assert_int_eq(db_commit(db, &err), 0);
	ck_assert_int_eq(one("SELECT sum(a) FROM t"), 5);
	ck_assert_int_eq(db_begin(db, &err), 0);
	ck_assert_int_eq(run("DELETE FROM t"), 0);
	db_rollback(db);
	db_rollback(db);
	ck_assert_int_eq(one("SELECT sum(a) FROM t"), 5);
	ck_assert_int_lt(db_commit(db, &err), 0); /* none is open */
}
END_TEST

START_TEST(a_lost_transaction_is_told)
{
	ck_assert_int_eq(run("CREATE TABLE t (a BIGINT)"), 0);
	ck_assert_int_eq(db_begin(db, &err), 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (1)"), 0);
	ck_assert_int_eq(run("ROLLBACK"), 0); /* as the engine does on a full disk */
	ck_assert_int_eq(db_savepoint(db, &err), -EIO);
	ck_assert_int_eq(db_commit(db, &err), -EIO);
	ck_assert_int_eq(db_begin(db, &err), 0);
	ck_assert_int_eq(db_commit(db, &err), 0);
}
END_TEST

START_TEST(a_full_database_is_enospc)
{
	ck_assert_int_eq(run("CREATE TABLE t (a BLOB)"), 0);
	ck_assert_int_eq(one("PRAGMA max_page_count = 20"), 20);
	ck_assert_int_eq(db_begin(db, &err), 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (zeroblob(1000000))"), -ENOSPC);
	db_rollback(db);
	ck_assert_int_eq(run("INSERT INTO t VALUES (1)"), 0);
}
END_TEST

START_TEST(readers_see_one_state)
{
	char dir[] = "/tmp/varve-db-XXXXXX", url[64];
	struct db *writer;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(url, sizeof url, "sqlite:%s/db", dir);
	db_free(db);
	ck_assert_int_eq(db_open(url, &db, &err), 0);
	ck_assert_int_eq(run("CREATE TABLE t (a BIGINT)"), 0);
	ck_assert_int_eq(db_open(url, &writer, &err), 0);
	ck_assert_int_eq(db_begin_read(db, &err), 0);
	ck_assert_int_eq(one("SELECT count(*) FROM t"), 0);
	ck_assert_int_eq(db_begin(writer, &err), 0);
	{
		DB_STMT(s, writer, "INSERT INTO t VALUES (1)", &err);

		ck_assert_int_eq(db_run(s, &err), 0);
	}
	ck_assert_int_eq(db_commit(writer, &err), 0);
	ck_assert_int_eq(one("SELECT count(*) FROM t"), 0);
	db_rollback(db);
	ck_assert_int_eq(one("SELECT count(*) FROM t"), 1);
	ck_assert_str_eq("wal", ({
		DB_STMT(s, db, "PRAGMA journal_mode", &err);
		ck_assert_int_eq(db_step(s, &err), 1);
		static char mode[8];
		snprintf(mode, sizeof mode, "%s", db_text(s, 0));
		mode;
	}));
	ck_assert_int_eq(one("PRAGMA synchronous"), 2); /* FULL */
	ck_assert_int_eq(one("PRAGMA foreign_keys"), 1);
	db_free(writer);
	ck_assert_int_eq(io_remove_tree(dir), 0);
}
END_TEST

START_TEST(migrations_run_once_and_refuse_the_future)
{
	ck_assert_int_eq(db_migrate(db, &err), 0);
	ck_assert_int_eq(db_migrate(db, &err), 0);
	ck_assert_int_eq(one("SELECT count(*) FROM schema_version"), 1);
	ck_assert_int_eq(one("SELECT count(*) FROM drive"), 0);
	ck_assert_int_eq(run("INSERT INTO schema_version VALUES (99, 0)"), 0);
	ck_assert_int_eq(db_migrate(db, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "newer"));
}
END_TEST

/* Whether a step of the statement's plan walks a whole table or index, or sorts. */
static bool plan_is_bad(struct db *d, const char *sql)
{
	_cleanup_buf_ struct buf text_of = { 0 };
	bool bad = false;
	int r;

	ck_assert_int_eq(buf_printf(&text_of, "EXPLAIN QUERY PLAN %s", sql), 0);
	DB_STMT(s, d, buf_str(&text_of), &err);
	while ((r = db_step(s, &err)) > 0) {
		const char *step = db_text(s, 3);

		if (strncmp(step, "SCAN", 4) == 0 || strstr(step, "TEMP B-TREE"))
			bad = true;
	}
	ck_assert_msg(r == 0, "%s", err.text);
	return bad;
}

struct texts {
	char *sql[200];
	size_t n;
};

static int keep(void *ctx, const char *sql)
{
	struct texts *t = ctx;

	if (strncmp(sql, "SELECT", 6) == 0 || strncmp(sql, "UPDATE", 6) == 0 ||
		strncmp(sql, "DELETE", 6) == 0)
		t->sql[t->n++] = strdup(sql);
	return 0;
}

/* Runs every path of the vault, so that every statement is in the cache. */
static void exercise(struct kit *k)
{
	uint64_t d = node_id(1, 2), e = node_id(1, 3), f = node_id(1, 4);
	struct change c[] = {
		create(d, NODE_ROOT, "d", S_IFDIR | 0755),
		create(e, d, "e", S_IFDIR | 0755),
		create(f, d, "f", S_IFREG | 0644),
		link_to(f, e, "g"),
		unlink_of(f, d, "f"),
		rename_to(e, d, "e", NODE_ROOT, "x", 0),
		unlink_of(f, e, "g"),
	};
	_cleanup_buf_ struct buf out = { 0 };
	struct digest id;
	struct id_list ids = { &id, 1 };
	uint64_t head;

	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		struct batch *b = batch_new(i);

		if (c[i].kind == CHANGE_CREATE && S_ISREG(c[i].attr.mode))
			batch_file(b, &c[i].attr, "hello", 5);
		batch_add(b, &c[i]);
		ck_assert_uint_eq(batch_post(k, 1, b).seq, i + 1);
	}
	for (uint64_t from = 0; from < 7; from++)
		ck_assert_int_eq(vault_changes(k->vault, k->drive, from, 3, &out, &err), 0);
	digest_of("hello", 5, &id);
	ck_assert_int_eq(vault_fetch(k->vault, k->drive, &ids, &out, &err), 0);
	ck_assert_int_eq(vault_missing(k->vault, k->drive, &ids, &out, &err), 0);
	ck_assert_int_eq(vault_head(k->vault, k->drive, &head, &err), 0);
	ck_assert_int_eq(vault_content(k->vault, k->drive, &id, &out, &err), -ENOENT);
}

START_TEST(no_statement_walks_a_whole_table)
{
	struct texts t = { 0 };
	struct kit k;

	kit_open(&k, true);
	exercise(&k);
	ck_assert_int_eq(db_statements(k.db, keep, &t), 0);
	ck_assert_uint_gt(t.n, 15);
	for (size_t i = 0; i < t.n; i++) {
		ck_assert_msg(!plan_is_bad(k.db, t.sql[i]), "%s", t.sql[i]);
		free(t.sql[i]);
	}
	/* The check can fail. */
	ck_assert(plan_is_bad(k.db, "SELECT node FROM node_version WHERE mtime = 5"));
	ck_assert(plan_is_bad(k.db, "SELECT node FROM node_version WHERE drive = 1"
				    " ORDER BY mtime"));
	kit_close(&k);
}
END_TEST

START_TEST(history_can_be_asked_by_range)
{
	/* What the coming parts will ask. */
	static const char *const sql[] = {
		"SELECT name, node FROM link_version WHERE drive = ?1 AND parent = ?2"
		" AND seq_from <= ?3 AND seq_to > ?3 ORDER BY name",
		"SELECT seq_from, seq_to, node FROM link_version WHERE drive = ?1 AND parent = ?2"
		" AND name = ?3 AND seq_from < ?4 ORDER BY seq_from DESC LIMIT 1000",
		"SELECT parent, name FROM link_version WHERE drive = ?1 AND node = ?2"
		" AND seq_to = 9223372036854775807",
		"SELECT seq, time_ns FROM commit_log WHERE drive = ?1 AND seq <= ?2"
		" ORDER BY seq DESC LIMIT 1",
		"SELECT d.id, d.revoked_ns FROM device d WHERE d.token_hash = ?1",
		"SELECT d.id, m.role FROM drive d JOIN drive_member m ON m.drive = d.id"
		" WHERE d.public_id = ?1 AND m.account = ?2",
		"SELECT number FROM drive_device WHERE drive = ?1 AND number = ?2",
	};

	ck_assert_int_eq(db_migrate(db, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sql); i++)
		ck_assert_msg(!plan_is_bad(db, sql[i]), "%s", sql[i]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("db");
	TCase *t = tcase_create("sqlite");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, urls);
	tcase_add_test(t, values_come_back);
	tcase_add_test(t, errors_are_told);
	tcase_add_test(t, statements_are_kept_and_can_nest);
	tcase_add_test(t, transactions_and_savepoints);
	tcase_add_test(t, a_lost_transaction_is_told);
	tcase_add_test(t, a_full_database_is_enospc);
	tcase_add_test(t, readers_see_one_state);
	tcase_add_test(t, migrations_run_once_and_refuse_the_future);
	tcase_add_test(t, no_statement_walks_a_whole_table);
	tcase_add_test(t, history_can_be_asked_by_range);
	suite_add_tcase(s, t);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
