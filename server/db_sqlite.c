// SPDX-License-Identifier: Apache-2.0
/*
 * The SQLite driver: the only file that knows its API. WAL, and every commit is synced, so that
 * what was answered survives a power cut.
 *
 * SQLite makes a second writer sleep and poll. Connections of this process wait for their turn
 * at a gate (one mutex a database file) instead; SQLite's own waiting remains for others.
 */
#include "db_driver.h"

#include "clock.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>
#include <time.h>

/* How long a writer waits for the others before it gives up with -EBUSY. */
#define WRITER_WAIT_S 30
/* Pages of the log before they are moved into the database: 16 MiB at 4 KiB a page. */
#define CHECKPOINT_PAGES "4096"
/* Memory for pages, in KiB, a connection. */
#define CACHE_KIB "16384"
/* What the log's file keeps of a burst. */
#define LOG_BYTES_KEPT "67108864"

struct gate {
	struct gate *next;
	char *path;
	unsigned users;
	pthread_mutex_t turn;
};

static pthread_mutex_t gates_lock = PTHREAD_MUTEX_INITIALIZER;
static struct gate *gates;

struct sqlite_db {
	struct db db;
	sqlite3 *handle;
	struct gate *gate; /* NULL: in memory, nobody else sees it */
	bool has_turn;
	bool in_transaction;
};

struct sqlite_stmt {
	struct db_stmt stmt;
	sqlite3_stmt *handle;
};

static struct sqlite_db *self(struct db *db)
{
	return (struct sqlite_db *)db;
}

static sqlite3_stmt *handle_of(struct db_stmt *s)
{
	return ((struct sqlite_stmt *)s)->handle;
}

static int constraint_errno(int code)
{
	switch (code) {
	case SQLITE_CONSTRAINT_UNIQUE:
	case SQLITE_CONSTRAINT_PRIMARYKEY:
	case SQLITE_CONSTRAINT_ROWID:
		return EEXIST;
	default:
		return EINVAL;
	}
}

static int errno_of(sqlite3 *handle, int code)
{
	switch (code & 0xff) {
	case SQLITE_CONSTRAINT:
		return constraint_errno(code);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return EBUSY;
	case SQLITE_FULL:
		return ENOSPC;
	case SQLITE_NOMEM:
		return ENOMEM;
	case SQLITE_READONLY:
		return EROFS;
	case SQLITE_TOOBIG:
		return EFBIG;
	case SQLITE_ERROR:
	case SQLITE_MISUSE:
	case SQLITE_RANGE:
		return EINVAL;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN: {
		int sys = handle ? sqlite3_system_errno(handle) : 0;

		return sys ? sys : EIO;
	}
	default:
		return EIO;
	}
}

static int fail(struct sqlite_db *db, int code, struct err *err)
{
	return err_set(err, errno_of(db->handle, code), "database: %s",
		db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(code));
}

static int gate_new(const char *path, struct gate **ret)
{
	struct gate *g = calloc(1, sizeof *g);

	if (!g)
		return -ENOMEM;
	g->path = strdup(path);
	if (!g->path) {
		free(g);
		return -ENOMEM;
	}
	pthread_mutex_init(&g->turn, NULL);
	g->next = gates;
	gates = g;
	*ret = g;
	return 0;
}

static int gate_open(const char *path, struct gate **ret)
{
	SCOPED_LOCK(&gates_lock);
	struct gate *g = gates;
	int r;

	while (g && strcmp(g->path, path) != 0)
		g = g->next;
	if (!g) {
		r = gate_new(path, &g);
		if (r < 0)
			return r;
	}
	g->users++;
	*ret = g;
	return 0;
}

static void gate_close(struct gate *gate)
{
	SCOPED_LOCK(&gates_lock);
	struct gate **at = &gates;

	if (!gate || --gate->users)
		return;
	while (*at != gate)
		at = &(*at)->next;
	*at = gate->next;
	pthread_mutex_destroy(&gate->turn);
	free(gate->path);
	free(gate);
}

static int turn_take(struct sqlite_db *db, struct err *err)
{
	struct timespec until;

	if (!db->gate)
		return 0;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WRITER_WAIT_S;
	if (pthread_mutex_timedlock(&db->gate->turn, &until))
		return err_set(err, EBUSY, "database: other writers take too long");
	db->has_turn = true;
	return 0;
}

static void turn_give(struct sqlite_db *db)
{
	if (!db->has_turn)
		return;
	db->has_turn = false;
	pthread_mutex_unlock(&db->gate->turn);
}

static int sqlite_script(struct db *base, const char *sql, struct err *err)
{
	struct sqlite_db *db = self(base);
	int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);

	return code == SQLITE_OK ? 0 : fail(db, code, err);
}

static void sqlite_close_db(struct db *base)
{
	struct sqlite_db *db = self(base);

	turn_give(db);
	sqlite3_close(db->handle);
	gate_close(db->gate);
	free(db);
}

static int configure(struct sqlite_db *db, struct err *err)
{
	sqlite3_extended_result_codes(db->handle, 1);
	sqlite3_busy_timeout(db->handle, WRITER_WAIT_S * (int)MS_PER_S);
	return sqlite_script(&db->db,
		"PRAGMA journal_mode = WAL;"
		"PRAGMA synchronous = FULL;"
		"PRAGMA foreign_keys = ON;"
		"PRAGMA temp_store = MEMORY;"
		"PRAGMA cache_size = -" CACHE_KIB ";"
		"PRAGMA wal_autocheckpoint = " CHECKPOINT_PAGES ";"
		"PRAGMA journal_size_limit = " LOG_BYTES_KEPT ";",
		err);
}

static int connect_to(struct sqlite_db *db, const char *where, struct err *err)
{
	int code, r;

	if (strcmp(where, ":memory:") != 0) {
		r = gate_open(where, &db->gate);
		if (r < 0)
			return err_sys(err, -r, "database");
	}
	code = sqlite3_open_v2(where, &db->handle,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	if (code != SQLITE_OK) {
		r = fail(db, code, err);
		err_prefix(err, "%s", where);
		return r;
	}
	r = turn_take(db, err); /* changing the journal's mode does not wait by itself */
	if (r == 0)
		r = configure(db, err);
	turn_give(db);
	return r;
}

static int sqlite_open_db(const char *where, struct db **ret, struct err *err)
{
	struct sqlite_db *db = calloc(1, sizeof *db);
	int r;

	if (!db)
		return err_sys(err, ENOMEM, "database");
	r = connect_to(db, where, err);
	if (r < 0) {
		sqlite_close_db(&db->db);
		return r;
	}
	*ret = &db->db;
	return 0;
}

static int sqlite_begin(struct db *base, bool writes, struct err *err)
{
	struct sqlite_db *db = self(base);
	int r = writes ? turn_take(db, err) : 0;

	if (r < 0)
		return r;
	r = sqlite_script(base, writes ? "BEGIN IMMEDIATE" : "BEGIN", err);
	if (r < 0)
		turn_give(db);
	db->in_transaction = r == 0;
	return r;
}

/* SQLite ends a transaction by itself on some errors, as on a full disk. */
static int check_open(struct sqlite_db *db, struct err *err)
{
	if (db->in_transaction && sqlite3_get_autocommit(db->handle))
		return err_set(err, EIO, "database: the transaction was lost to an earlier error");
	return 0;
}

static void sqlite_rollback(struct db *base)
{
	struct sqlite_db *db = self(base);

	if (!sqlite3_get_autocommit(db->handle))
		sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
	db->in_transaction = false;
	turn_give(db);
}

static int sqlite_commit(struct db *base, struct err *err)
{
	struct sqlite_db *db = self(base);
	int r = check_open(db, err);

	if (r == 0)
		r = sqlite_script(base, "COMMIT", err);
	if (r < 0) {
		sqlite_rollback(base);
		return r;
	}
	db->in_transaction = false;
	turn_give(db);
	return 0;
}

static int sqlite_savepoint(struct db *base, struct err *err)
{
	int r = check_open(self(base), err);

	return r < 0 ? r : sqlite_script(base, "SAVEPOINT nested", err);
}

static int sqlite_release(struct db *base, struct err *err)
{
	int r = check_open(self(base), err);

	return r < 0 ? r : sqlite_script(base, "RELEASE nested", err);
}

static void sqlite_rollback_to(struct db *base)
{
	struct sqlite_db *db = self(base);

	/* Fails only when the whole transaction is gone, which the commit will tell. */
	if (!sqlite3_get_autocommit(db->handle))
		sqlite3_exec(db->handle, "ROLLBACK TO nested; RELEASE nested", NULL, NULL, NULL);
}

static int sqlite_prepare(struct db *base, const char *sql, struct db_stmt **ret, struct err *err)
{
	struct sqlite_db *db = self(base);
	struct sqlite_stmt *s = calloc(1, sizeof *s);
	int code;

	if (!s)
		return err_sys(err, ENOMEM, "database");
	code = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->handle, NULL);
	if (code != SQLITE_OK || !s->handle) {
		free(s);
		return code == SQLITE_OK ? err_set(err, EINVAL, "no statement")
					 : fail(db, code, err);
	}
	*ret = &s->stmt;
	return 0;
}

static void sqlite_finalize(struct db_stmt *s)
{
	sqlite3_finalize(handle_of(s));
	free(s);
}

static void sqlite_reset(struct db_stmt *s)
{
	sqlite3_reset(handle_of(s)); /* repeats the last step's error, which was told then */
	sqlite3_clear_bindings(handle_of(s));
}

static int bound(int code)
{
	return code == SQLITE_OK ? 0 : -errno_of(NULL, code);
}

static int sqlite_bind_i(struct db_stmt *s, int i, int64_t v)
{
	return bound(sqlite3_bind_int64(handle_of(s), i, v));
}

static int sqlite_bind_b(struct db_stmt *s, int i, const void *p, size_t n)
{
	/* A NULL pointer would bind NULL, which no bytes are not. */
	return bound(sqlite3_bind_blob64(handle_of(s), i, n ? p : "", n, SQLITE_STATIC));
}

static int sqlite_bind_t(struct db_stmt *s, int i, const char *text)
{
	return bound(sqlite3_bind_text(handle_of(s), i, text, -1, SQLITE_TRANSIENT));
}

static int sqlite_bind_n(struct db_stmt *s, int i)
{
	return bound(sqlite3_bind_null(handle_of(s), i));
}

static int sqlite_next(struct db_stmt *s, struct err *err)
{
	int code = sqlite3_step(handle_of(s));

	if (code == SQLITE_ROW)
		return 1;
	if (code == SQLITE_DONE)
		return 0;
	return fail(self(s->db), code, err);
}

static int64_t sqlite_int(struct db_stmt *s, int column)
{
	return sqlite3_column_int64(handle_of(s), column);
}

static struct slice sqlite_blob(struct db_stmt *s, int column)
{
	struct slice v = { .p = sqlite3_column_blob(handle_of(s), column) };

	v.n = v.p ? (size_t)sqlite3_column_bytes(handle_of(s), column) : 0;
	return v;
}

static const char *sqlite_text(struct db_stmt *s, int column)
{
	const char *text = (const char *)sqlite3_column_text(handle_of(s), column);

	return text ? text : "";
}

static bool sqlite_is_null(struct db_stmt *s, int column)
{
	return sqlite3_column_type(handle_of(s), column) == SQLITE_NULL;
}

static int64_t sqlite_changes(struct db *base)
{
	return sqlite3_changes(self(base)->handle);
}

const struct db_driver db_sqlite_driver = {
	.scheme = "sqlite",
	.blob_word = "BLOB",
	.id_word = "INTEGER PRIMARY KEY",
	.compact_word = "WITHOUT ROWID",
	.open = sqlite_open_db,
	.close = sqlite_close_db,
	.script = sqlite_script,
	.begin = sqlite_begin,
	.commit = sqlite_commit,
	.rollback = sqlite_rollback,
	.savepoint = sqlite_savepoint,
	.release = sqlite_release,
	.rollback_to = sqlite_rollback_to,
	.prepare = sqlite_prepare,
	.finalize = sqlite_finalize,
	.reset = sqlite_reset,
	.bind_int = sqlite_bind_i,
	.bind_blob = sqlite_bind_b,
	.bind_text = sqlite_bind_t,
	.bind_null = sqlite_bind_n,
	.step = sqlite_next,
	.get_int = sqlite_int,
	.get_blob = sqlite_blob,
	.get_text = sqlite_text,
	.is_null = sqlite_is_null,
	.changes = sqlite_changes,
};
