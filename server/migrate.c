// SPDX-License-Identifier: Apache-2.0
/*
 * The schema, as an ordered list of migrations. A migration that was released is never edited:
 * what must change is a further one behind it.
 *
 * Rules of the schema:
 *  1. Every table of a drive has a key that leads with the drive, so that the tables shard by it.
 *  2. History is temporal: a row of node_version or link_version holds for the seqs in
 *     [seq_from, seq_to). The open end is SEQ_OPEN (history.h). Rows of one key never overlap.
 *  3. A closed row is never changed, and an open one only in seq_to and links.
 *  4. `device` in a drive's table is the device's number in that drive (drive_device).
 *  5. Times are nanoseconds since 1970 by this server's clock; the order is seq's alone.
 *
 * The words in braces are the engine's (db_driver.h).
 */
#include "db_driver.h"

#include "clock.h"

#include <errno.h>

static const char *const accounts[] = {
	/* user: a word that SQL keeps for itself */
	"CREATE TABLE account ("
	" id {id},"
	" name TEXT NOT NULL UNIQUE,"
	" password {blob} NOT NULL," /* scrypt's output */
	" salt {blob} NOT NULL,"
	" params TEXT NOT NULL," /* scrypt's costs, as text */
	" created_ns BIGINT NOT NULL)",

	"CREATE TABLE device ("
	" id {id},"
	" account BIGINT NOT NULL REFERENCES account(id),"
	" name TEXT NOT NULL,"
	" token_hash {blob} NOT NULL UNIQUE,"
	" created_ns BIGINT NOT NULL,"
	" revoked_ns BIGINT)", /* NULL: it may come in */
	"CREATE INDEX device_account ON device(account)",

	NULL,
};

static const char *const drives[] = {
	"CREATE TABLE drive ("
	" id {id},"
	" public_id TEXT NOT NULL UNIQUE,"
	" owner BIGINT NOT NULL REFERENCES account(id),"
	" name TEXT NOT NULL,"
	" head_seq BIGINT NOT NULL,"
	" head_time_ns BIGINT NOT NULL," /* of the newest commit; never goes back */
	" bytes BIGINT NOT NULL," /* of all frames that this drive has uploaded */
	" next_device_number BIGINT NOT NULL,"
	" created_ns BIGINT NOT NULL,"
	" UNIQUE (owner, name))",

	/* The owner is a member too. role: enum role of auth.h. */
	"CREATE TABLE drive_member ("
	" drive BIGINT NOT NULL REFERENCES drive(id),"
	" account BIGINT NOT NULL REFERENCES account(id),"
	" role BIGINT NOT NULL,"
	" PRIMARY KEY (drive, account)) {compact}",
	"CREATE INDEX drive_member_account ON drive_member(account)",

	"CREATE TABLE drive_device ("
	" drive BIGINT NOT NULL REFERENCES drive(id),"
	" number BIGINT NOT NULL,"
	" device BIGINT NOT NULL REFERENCES device(id),"
	" PRIMARY KEY (drive, number)) {compact}",
	"CREATE INDEX drive_device_device ON drive_device(device)",

	NULL,
};

static const char *const history[] = {
	/* affected: how many rows of the two tables below it opened or closed */
	"CREATE TABLE commit_log ("
	" drive BIGINT NOT NULL,"
	" seq BIGINT NOT NULL,"
	" device BIGINT NOT NULL,"
	" commit_id {blob} NOT NULL,"
	" time_ns BIGINT NOT NULL,"
	" affected BIGINT NOT NULL,"
	" PRIMARY KEY (drive, seq)) {compact}",
	"CREATE UNIQUE INDEX commit_log_id ON commit_log(drive, device, commit_id)",

	/*
	 * content_seq, content_device: who gave it its content last; attr_*: its attributes and
	 * xattrs. links, of the open row only: how many names lead to it; of a directory, how
	 * many names it holds.
	 */
	"CREATE TABLE node_version ("
	" drive BIGINT NOT NULL,"
	" node BIGINT NOT NULL,"
	" seq_from BIGINT NOT NULL,"
	" seq_to BIGINT NOT NULL,"
	" device BIGINT NOT NULL,"
	" mode BIGINT NOT NULL,"
	" uid BIGINT NOT NULL,"
	" gid BIGINT NOT NULL,"
	" rdev BIGINT NOT NULL,"
	" atime BIGINT NOT NULL,"
	" mtime BIGINT NOT NULL,"
	" ctime BIGINT NOT NULL,"
	" btime BIGINT NOT NULL,"
	" size BIGINT NOT NULL,"
	" content {blob}," /* NULL: none */
	" target {blob}," /* of a symlink */
	" xattrs {blob}," /* xattrs.h; NULL: none */
	" content_seq BIGINT NOT NULL,"
	" content_device BIGINT NOT NULL,"
	" attr_seq BIGINT NOT NULL,"
	" attr_device BIGINT NOT NULL,"
	" links BIGINT NOT NULL,"
	" PRIMARY KEY (drive, node, seq_from)) {compact}",
	"CREATE INDEX node_version_from ON node_version(drive, seq_from, node)",
	/* Open rows, which most are at first, need no entry here. */
	"CREATE INDEX node_version_to ON node_version(drive, seq_to, node)"
	" WHERE seq_to < 9223372036854775807",

	"CREATE TABLE link_version ("
	" drive BIGINT NOT NULL,"
	" parent BIGINT NOT NULL,"
	" name {blob} NOT NULL,"
	" seq_from BIGINT NOT NULL,"
	" seq_to BIGINT NOT NULL,"
	" node BIGINT NOT NULL,"
	" device BIGINT NOT NULL,"
	" PRIMARY KEY (drive, parent, name, seq_from)) {compact}",
	"CREATE INDEX link_version_node ON link_version(drive, node, seq_to)",
	"CREATE INDEX link_version_from ON link_version(drive, seq_from, parent, name)",
	"CREATE INDEX link_version_to ON link_version(drive, seq_to, parent, name)"
	" WHERE seq_to < 9223372036854775807",

	NULL,
};

static const char *const chunks[] = {
	/* A row says that the manifest and all chunks it names were uploaded by this drive. */
	"CREATE TABLE content ("
	" drive BIGINT NOT NULL,"
	" id {blob} NOT NULL,"
	" size BIGINT NOT NULL,"
	" manifest {blob} NOT NULL,"
	" PRIMARY KEY (drive, id))",

	"CREATE TABLE pack ("
	" drive BIGINT NOT NULL,"
	" id BIGINT NOT NULL,"
	" blob_key TEXT NOT NULL,"
	" bytes BIGINT NOT NULL,"
	" PRIMARY KEY (drive, id)) {compact}",

	/* Its frame: frame_len bytes at frame_at of the pack, or in data when pack is NULL. */
	"CREATE TABLE chunk ("
	" drive BIGINT NOT NULL,"
	" id {blob} NOT NULL,"
	" plain_len BIGINT NOT NULL,"
	" pack BIGINT,"
	" frame_at BIGINT NOT NULL,"
	" frame_len BIGINT NOT NULL,"
	" data {blob},"
	" PRIMARY KEY (drive, id))",

	NULL,
};

/* One released version: a list of lists, for the reader's sake. */
static const char *const *const version_1[] = { accounts, drives, history, chunks, NULL };

static const char *const *const *const versions[] = { version_1 };

#define VERSION_LAST ((int64_t)ARRAY_SIZE(versions))

static int current_version(struct db *db, int64_t *ret, struct err *err)
{
	DB_STMT(s, db, "SELECT COALESCE(MAX(version), 0) FROM schema_version", err);
	int r = db_step(s, err);

	if (r > 0)
		*ret = db_int(s, 0);
	return r < 0 ? r : 0;
}

static int note_version(struct db *db, int64_t version, struct err *err)
{
	DB_STMT(s, db, "INSERT INTO schema_version (version, applied_ns) VALUES (?1, ?2)", err);

	db_bind_int(s, 1, version);
	db_bind_int(s, 2, clock_real_ns());
	return db_run(s, err);
}

static int run_version(struct db *db, const char *const *const *lists, struct err *err)
{
	for (; *lists; lists++) {
		for (const char *const *sql = *lists; *sql; sql++) {
			int r = db_script(db, *sql, err);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* 1 when the schema is the last one. The transaction is the caller's. */
static int step_up(struct db *db, struct err *err)
{
	int64_t version = 0;
	int r = db_script(db,
		"CREATE TABLE IF NOT EXISTS schema_version ("
		" version BIGINT PRIMARY KEY, applied_ns BIGINT NOT NULL)",
		err);

	if (r == 0)
		r = current_version(db, &version, err);
	if (r < 0)
		return r;
	if (version > VERSION_LAST)
		return err_set(err, ENOTSUP,
			"database: its schema is version %lld, of a newer varved; this one knows "
			"up to %lld",
			(long long)version, (long long)VERSION_LAST);
	if (version == VERSION_LAST)
		return 1;
	r = run_version(db, versions[version], err);
	return r < 0 ? r : note_version(db, version + 1, err);
}

int db_migrate(struct db *db, struct err *err)
{
	for (;;) {
		int r = db_begin(db, err), done;

		if (r < 0)
			return r;
		done = step_up(db, err);
		if (done < 0) {
			db_rollback(db);
			err_prefix(err, "migration");
			return done;
		}
		r = db_commit(db, err);
		if (r < 0 || done)
			return r;
	}
}
