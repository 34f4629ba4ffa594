/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an engine provides to db.c. A driver's connection and statement structs begin with
 * struct db and struct db_stmt. Calls as in db.h; db.c keeps the statement cache.
 */
#ifndef VARVE_DB_DRIVER_H
#define VARVE_DB_DRIVER_H

#include "db.h"

#include <uthash.h>

struct db_driver {
	const char *scheme;
	/* The words that migrations leave open: {blob}, {id} (a primary key given by the engine),
	 * {compact} (behind a table whose rows live in their primary key's tree). */
	const char *blob_word, *id_word, *compact_word;

	int (*open)(const char *where, struct db **ret, struct err *err);
	void (*close)(struct db *db); /* all statements are finalized before */
	int (*script)(struct db *db, const char *sql, struct err *err);

	int (*begin)(struct db *db, bool writes, struct err *err);
	int (*commit)(struct db *db, struct err *err);
	void (*rollback)(struct db *db);
	int (*savepoint)(struct db *db, struct err *err);
	int (*release)(struct db *db, struct err *err);
	void (*rollback_to)(struct db *db);

	int (*prepare)(struct db *db, const char *sql, struct db_stmt **ret, struct err *err);
	void (*finalize)(struct db_stmt *s);
	void (*reset)(struct db_stmt *s); /* also forgets what is bound */
	int (*bind_int)(struct db_stmt *s, int i, int64_t v);
	int (*bind_blob)(struct db_stmt *s, int i, const void *p, size_t n);
	int (*bind_text)(struct db_stmt *s, int i, const char *text);
	int (*bind_null)(struct db_stmt *s, int i);
	int (*step)(struct db_stmt *s, struct err *err);
	int64_t (*get_int)(struct db_stmt *s, int column);
	struct slice (*get_blob)(struct db_stmt *s, int column);
	const char *(*get_text)(struct db_stmt *s, int column);
	bool (*is_null)(struct db_stmt *s, int column);
	int64_t (*changes)(struct db *db);
};

struct db {
	const struct db_driver *driver;
	struct db_stmt *statements; /* by text */
};

struct db_stmt {
	struct db *db;
	char *sql;
	bool in_use;
	bool cached; /* else finalized when given back */
	int bind_error; /* the first since the reset */
	UT_hash_handle hh;
};

extern const struct db_driver db_sqlite_driver;

/* Runs statements that nobody prepares: the schema's. {words} are filled in. */
int db_script(struct db *db, const char *sql, struct err *err) must_check;

#endif
