// SPDX-License-Identifier: Apache-2.0
#include "vault_internal.h"

#include "auth.h"
#include "clock.h"
#include "history.h"

#include <errno.h>
#include <sys/stat.h>

int vault_open(struct db *db, struct blob *blob, struct vault **ret, struct err *err)
{
	struct vault *v = calloc(1, sizeof *v);

	if (!v)
		return err_sys(err, ENOMEM, "vault");
	*v = (struct vault){ .db = db, .blob = blob };
	*ret = v;
	return 0;
}

void vault_free(struct vault *v)
{
	free(v);
}

int drive_head(struct db *db, int64_t drive, uint64_t *ret, struct err *err)
{
	int r;
	DB_STMT(s, db, "SELECT head_seq FROM drive WHERE id = ?1", err);

	db_bind_int(s, 1, drive);
	r = db_step(s, err);
	if (r == 0)
		return err_set(err, ENOENT, "no such drive");
	if (r > 0)
		*ret = (uint64_t)db_int(s, 0);
	return r < 0 ? r : 0;
}

int drive_add_bytes(struct db *db, int64_t drive, int64_t bytes, struct err *err)
{
	int r;
	DB_STMT(s, db, "UPDATE drive SET bytes = bytes + ?2 WHERE id = ?1", err);

	db_bind_int(s, 1, drive);
	db_bind_int(s, 2, bytes);
	r = db_run(s, err);
	if (r == 0 && db_changes(db) == 0)
		return err_set(err, ENOENT, "no such drive");
	return r;
}

int vault_head(struct vault *v, int64_t drive, uint64_t *ret, struct err *err)
{
	return drive_head(v->db, drive, ret, err);
}

static int insert_drive(struct db *db, int64_t owner, const char *name, const char *public_id,
	int64_t now_ns, int64_t *ret_drive, struct err *err)
{
	int r;
	DB_STMT(s, db,
		"INSERT INTO drive (public_id, owner, name, head_seq, head_time_ns, bytes,"
		" next_device_number, created_ns) VALUES (?1, ?2, ?3, 0, ?4, 0, 1, ?4)"
		" RETURNING id",
		err);

	db_bind_text(s, 1, public_id);
	db_bind_int(s, 2, owner);
	db_bind_text(s, 3, name);
	db_bind_int(s, 4, now_ns);
	r = db_step(s, err);
	if (r <= 0)
		return r < 0 ? r : err_set(err, EIO, "database: no id for a new drive");
	*ret_drive = db_int(s, 0);
	return 0;
}

static int insert_owner(struct db *db, int64_t drive, int64_t owner, struct err *err)
{
	DB_STMT(s, db, "INSERT INTO drive_member (drive, account, role) VALUES (?1, ?2, ?3)", err);

	db_bind_int(s, 1, drive);
	db_bind_int(s, 2, owner);
	db_bind_int(s, 3, ROLE_OWNER);
	return db_run(s, err);
}

/* Devices make the same one themselves, from what attach says. */
static int insert_root(struct db *db, int64_t drive, int64_t now_ns, struct err *err)
{
	_cleanup_history_ struct history *h = NULL;
	struct node_head *root;
	int64_t affected;
	int r = history_open(db, drive, 0, 0, &h, err);

	if (r == 0)
		r = history_node(h, NODE_ROOT, &root, err);
	if (r)
		return r < 0 ? r : err_set(err, EEXIST, "database: the drive has a root already");
	root->attr = (struct node_attr){
		.mode = S_IFDIR | 0755,
		.atime_ns = now_ns,
		.mtime_ns = now_ns,
		.ctime_ns = now_ns,
		.btime_ns = now_ns,
	};
	root->alive = root->changed = true;
	return history_flush(h, &affected, err);
}

int vault_create_drive(struct vault *v, int64_t owner, const char *name, const char *public_id,
	int64_t *ret_drive, struct err *err)
{
	int64_t drive = 0, now_ns = clock_real_ns();
	int r = db_begin(v->db, err);

	if (r < 0)
		return r;
	r = insert_drive(v->db, owner, name, public_id, now_ns, &drive, err);
	if (r == 0)
		r = insert_owner(v->db, drive, owner, err);
	if (r == 0)
		r = insert_root(v->db, drive, now_ns, err);
	if (r < 0) {
		db_rollback(v->db);
		return r;
	}
	r = db_commit(v->db, err);
	if (r == 0)
		*ret_drive = drive;
	return r;
}
