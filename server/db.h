/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQL, through prepared statements only. One driver per engine (db_sqlite.c); the rest of the
 * server sees this header alone. The statements' text is the same for every engine: positional
 * parameters ?1, ?2, ..., and no engine's own functions.
 *
 *	db_open(url, &db, &err); db_migrate(db, &err);
 *	db_begin(db, err);
 *	DB_STMT(s, db, "SELECT a FROM t WHERE b = ?1", err); db_bind_int(s, 1, 5);
 *	while ((r = db_step(s, err)) > 0) x = db_int(s, 0);
 *	db_commit(db, err);
 *
 * A db is one connection: one thread at a time. Statements are cached by their text inside it;
 * db_reset() (or the cleanup) gives one back. A statement that could not be prepared is NULL:
 * binding to it does nothing, and stepping it gives the error that preparing gave.
 */
#ifndef VARVE_DB_H
#define VARVE_DB_H

#include "err.h"
#include "cleanup.h"
#include "wire/wire.h"

#include <stdbool.h>

struct db;
struct db_stmt;

/* "sqlite:PATH", "sqlite::memory:". -EINVAL for another scheme. */
int db_open(const char *url, struct db **ret, struct err *err) must_check;
void db_free(struct db *db);
/* Brings the schema to this program's version; refuses a newer one. */
int db_migrate(struct db *db, struct err *err) must_check;

/* A writing transaction, from the start. Waits for other writers, up to a time: -EBUSY. */
int db_begin(struct db *db, struct err *err) must_check;
/* A transaction that only reads, and sees one state of the database throughout. */
int db_begin_read(struct db *db, struct err *err) must_check;
int db_commit(struct db *db, struct err *err) must_check; /* durable when it returns 0 */
void db_rollback(struct db *db); /* nothing when no transaction is open */
/* Nested: one commit of a group can fail without the others. */
int db_savepoint(struct db *db, struct err *err) must_check;
int db_release(struct db *db, struct err *err) must_check;
void db_rollback_to(struct db *db);

/* NULL and *err on failure. */
struct db_stmt *db_prepare(struct db *db, const char *sql, struct err *err);
void db_reset(struct db_stmt *s);
static inline void db_reset_p(struct db_stmt **s)
{
	if (*s)
		db_reset(*s);
}
#define _cleanup_stmt_ _cleanup_(db_reset_p)
/* Declares s, which goes back when its scope ends. */
#define DB_STMT(s, db, sql, err) _cleanup_stmt_ struct db_stmt *s = db_prepare(db, sql, err)

/* A bind that fails is told by the next step. */
void db_bind_int(struct db_stmt *s, int i, int64_t v); /* i from 1 */
void db_bind_blob(struct db_stmt *s, int i, const void *p, size_t n); /* valid until the reset */
void db_bind_text(struct db_stmt *s, int i, const char *text); /* copied */
void db_bind_null(struct db_stmt *s, int i);
/* 1 with a row, 0 done, -errno (-EEXIST: a unique key; -EBUSY; -ENOSPC; -EIO). */
int db_step(struct db_stmt *s, struct err *err) must_check;
/* Steps once, expecting no row (-EPROTO otherwise). */
int db_run(struct db_stmt *s, struct err *err) must_check;
int64_t db_int(struct db_stmt *s, int column); /* from 0 */
struct slice db_blob(struct db_stmt *s, int column); /* valid until the next step */
const char *db_text(struct db_stmt *s, int column);
bool db_is_null(struct db_stmt *s, int column);
/* Rows changed by the last db_run(). */
int64_t db_changes(struct db *db);

/* Visits the texts of all cached statements, so that a test can ask for their plans. */
int db_statements(struct db *db, int (*visit)(void *ctx, const char *sql), void *ctx);

#endif
