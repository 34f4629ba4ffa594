// SPDX-License-Identifier: Apache-2.0
#include "db_driver.h"

#include "buf.h"

#include <errno.h>
#include <string.h>

static const struct db_driver *const drivers[] = { &db_sqlite_driver };

/* The program's statements are literals, far fewer than this; beyond it nothing is cached. */
#define STATEMENTS_MAX 512

int db_open(const char *url, struct db **ret, struct err *err)
{
	size_t scheme_len = strcspn(url, ":");

	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
		const struct db_driver *d = drivers[i];
		int r;

		if (strlen(d->scheme) != scheme_len || memcmp(d->scheme, url, scheme_len) != 0 ||
			url[scheme_len] == '\0')
			continue;
		r = d->open(url + scheme_len + 1, ret, err);
		if (r == 0)
			(*ret)->driver = d;
		return r;
	}
	return err_set(err, EINVAL, "database %s: no such kind; use sqlite:PATH", url);
}

static void statement_drop(struct db_stmt *s)
{
	char *sql = s->sql;

	if (s->cached)
		HASH_DEL(s->db->statements, s);
	s->db->driver->finalize(s);
	free(sql);
}

void db_free(struct db *db)
{
	struct db_stmt *s, *next;

	if (!db)
		return;
	HASH_ITER (hh, db->statements, s, next)
		statement_drop(s);
	db->driver->close(db);
}

int db_begin(struct db *db, struct err *err)
{
	return db->driver->begin(db, true, err);
}

int db_begin_read(struct db *db, struct err *err)
{
	return db->driver->begin(db, false, err);
}

int db_commit(struct db *db, struct err *err)
{
	return db->driver->commit(db, err);
}

void db_rollback(struct db *db)
{
	db->driver->rollback(db);
}

int db_savepoint(struct db *db, struct err *err)
{
	return db->driver->savepoint(db, err);
}

int db_release(struct db *db, struct err *err)
{
	return db->driver->release(db, err);
}

void db_rollback_to(struct db *db)
{
	db->driver->rollback_to(db);
}

static struct db_stmt *statement_new(struct db *db, const char *sql, struct err *err)
{
	_cleanup_free_ char *copy = strdup(sql);
	struct db_stmt *s;

	if (!copy) {
		err_sys(err, ENOMEM, "database");
		return NULL;
	}
	if (db->driver->prepare(db, sql, &s, err) < 0) {
		err_prefix(err, "database: \"%.100s\"", sql);
		return NULL;
	}
	s->db = db;
	s->sql = steal(copy);
	return s;
}

struct db_stmt *db_prepare(struct db *db, const char *sql, struct err *err)
{
	size_t len = strlen(sql);
	struct db_stmt *s;

	HASH_FIND(hh, db->statements, sql, len, s);
	if (s && !s->in_use) {
		s->in_use = true;
		return s;
	}
	/* A second one of the same text, while the first is being stepped, is not kept. */
	bool keep = !s && HASH_COUNT(db->statements) < STATEMENTS_MAX;

	s = statement_new(db, sql, err);
	if (!s)
		return NULL;
	s->in_use = true;
	s->cached = keep;
	if (keep)
		HASH_ADD_KEYPTR(hh, db->statements, s->sql, len, s);
	return s;
}

void db_reset(struct db_stmt *s)
{
	s->db->driver->reset(s);
	s->bind_error = 0;
	s->in_use = false;
	if (!s->cached)
		statement_drop(s);
}

static void note(struct db_stmt *s, int r)
{
	if (r < 0 && !s->bind_error)
		s->bind_error = r;
}

void db_bind_int(struct db_stmt *s, int i, int64_t v)
{
	if (s)
		note(s, s->db->driver->bind_int(s, i, v));
}

void db_bind_blob(struct db_stmt *s, int i, const void *p, size_t n)
{
	if (s)
		note(s, s->db->driver->bind_blob(s, i, p, n));
}

void db_bind_text(struct db_stmt *s, int i, const char *text)
{
	if (s)
		note(s, s->db->driver->bind_text(s, i, text));
}

void db_bind_null(struct db_stmt *s, int i)
{
	if (s)
		note(s, s->db->driver->bind_null(s, i));
}

int db_step(struct db_stmt *s, struct err *err)
{
	if (!s)
		return err && err->code ? -err->code : -EIO;
	if (s->bind_error)
		return err_sys(err, -s->bind_error, "database: a parameter of \"%.100s\"", s->sql);
	return s->db->driver->step(s, err);
}

int db_run(struct db_stmt *s, struct err *err)
{
	int r = db_step(s, err);

	if (r > 0)
		return err_set(err, EPROTO, "database: a row from \"%.100s\"", s->sql);
	return r;
}

int64_t db_int(struct db_stmt *s, int column)
{
	return s->db->driver->get_int(s, column);
}

struct slice db_blob(struct db_stmt *s, int column)
{
	return s->db->driver->get_blob(s, column);
}

const char *db_text(struct db_stmt *s, int column)
{
	return s->db->driver->get_text(s, column);
}

bool db_is_null(struct db_stmt *s, int column)
{
	return s->db->driver->is_null(s, column);
}

int64_t db_changes(struct db *db)
{
	return db->driver->changes(db);
}

int db_statements(struct db *db, int (*visit)(void *ctx, const char *sql), void *ctx)
{
	struct db_stmt *s, *next;
	int r = 0;

	HASH_ITER (hh, db->statements, s, next) {
		r = visit(ctx, s->sql);
		if (r)
			break;
	}
	return r;
}

static const char *word(const struct db_driver *d, const char *name, size_t n)
{
	if (n == 4 && memcmp(name, "blob", n) == 0)
		return d->blob_word;
	if (n == 2 && memcmp(name, "id", n) == 0)
		return d->id_word;
	if (n == 7 && memcmp(name, "compact", n) == 0)
		return d->compact_word;
	return NULL;
}

/* Fills in {words}. */
static int expand(const struct db_driver *d, const char *sql, struct buf *ret)
{
	for (;;) {
		size_t plain = strcspn(sql, "{"), len;
		const char *text;
		int r = buf_append(ret, sql, plain);

		sql += plain;
		if (r < 0 || !*sql)
			return r;
		len = strcspn(sql, "}");
		text = sql[len] ? word(d, sql + 1, len - 1) : NULL;
		r = text ? buf_append(ret, text, strlen(text)) : -EINVAL;
		if (r < 0)
			return r;
		sql += len + 1;
	}
}

int db_script(struct db *db, const char *sql, struct err *err)
{
	_cleanup_buf_ struct buf text = { 0 };
	int r = expand(db->driver, sql, &text);

	if (r < 0)
		return err_sys(err, -r, "database: the schema's text");
	if (!buf_str(&text))
		return err_sys(err, ENOMEM, "database");
	return db->driver->script(db, (char *)text.data, err);
}
