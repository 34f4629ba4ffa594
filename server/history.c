// SPDX-License-Identifier: Apache-2.0
#include "history.h"

#include "bytes.h"
#include "bounds.h"

#include <assert.h>
#include <errno.h>
#include <sys/stat.h>

struct history {
	struct db *db;
	int64_t drive;
	uint64_t seq;
	uint32_t device;
	struct node_head *nodes;
	struct link_head *links;
	int64_t affected;
};

int history_open(struct db *db, int64_t drive, uint64_t seq, uint32_t device, struct history **ret,
	struct err *err)
{
	struct history *h = calloc(1, sizeof *h);

	if (!h)
		return err_sys(err, ENOMEM, "history");
	*h = (struct history){ .db = db, .drive = drive, .seq = seq, .device = device };
	*ret = h;
	return 0;
}

void history_free(struct history *h)
{
	struct node_head *n, *next_node;
	struct link_head *l, *next_link;

	if (!h)
		return;
	HASH_ITER (hh, h->nodes, n, next_node) {
		HASH_DEL(h->nodes, n);
		buf_done(&n->target);
		buf_done(&n->xattrs);
		free(n);
	}
	HASH_ITER (hh, h->links, l, next_link) {
		HASH_DEL(h->links, l);
		free(l);
	}
	free(h);
}

int history_read_state(struct db_stmt *s, int first, struct node_attr *ret,
	struct slice *ret_target, struct slice *ret_xattrs, struct err *err)
{
	struct slice content = db_blob(s, first + 9);

	*ret = (struct node_attr){
		.mode = (uint32_t)db_int(s, first),
		.uid = (uint32_t)db_int(s, first + 1),
		.gid = (uint32_t)db_int(s, first + 2),
		.rdev = (uint64_t)db_int(s, first + 3),
		.atime_ns = db_int(s, first + 4),
		.mtime_ns = db_int(s, first + 5),
		.ctime_ns = db_int(s, first + 6),
		.btime_ns = db_int(s, first + 7),
		.size = (uint64_t)db_int(s, first + 8),
	};
	if (content.n == DIGEST_BYTES)
		memcpy(ret->content.b, content.p, DIGEST_BYTES);
	else if (content.n)
		return err_set(err, EBADMSG, "database: a content id of %zu bytes", content.n);
	*ret_target = db_blob(s, first + 10);
	*ret_xattrs = db_blob(s, first + 11);
	return 0;
}

/* Rows behind the state: content_seq, content_device, attr_seq, attr_device, links, seq_from, _to.
 */
static int fill_node(struct db_stmt *s, struct node_head *n, struct err *err)
{
	struct slice target, xattrs;
	int at = NODE_STATE_COLUMNS_N;
	int r = history_read_state(s, 0, &n->attr, &target, &xattrs, err);

	if (r < 0)
		return r;
	n->existed = true;
	n->content_seq = (uint64_t)db_int(s, at);
	n->content_device = (uint32_t)db_int(s, at + 1);
	n->attr_seq = (uint64_t)db_int(s, at + 2);
	n->attr_device = (uint32_t)db_int(s, at + 3);
	n->links = n->stored_links = (uint64_t)db_int(s, at + 4);
	n->seq_from = (uint64_t)db_int(s, at + 5);
	n->alive = n->stored = db_int(s, at + 6) == SEQ_OPEN;
	r = buf_append(&n->target, target.p, target.n);
	if (r == 0)
		r = buf_append(&n->xattrs, xattrs.p, xattrs.n);
	return r < 0 ? err_sys(err, -r, "history") : 0;
}

static int load_node(struct history *h, struct node_head *n, struct err *err)
{
	DB_STMT(s, h->db,
		"SELECT " NODE_STATE_COLUMNS ", content_seq, content_device, attr_seq,"
		" attr_device, links, seq_from, seq_to FROM node_version"
		" WHERE drive = ?1 AND node = ?2 ORDER BY seq_from DESC LIMIT 1",
		err);
	int r;

	db_bind_int(s, 1, h->drive);
	db_bind_int(s, 2, (int64_t)n->node);
	r = db_step(s, err);
	return r > 0 ? fill_node(s, n, err) : r;
}

int history_node(struct history *h, uint64_t node, struct node_head **ret, struct err *err)
{
	struct node_head *n;
	int r;

	HASH_FIND(hh, h->nodes, &node, sizeof node, n);
	if (n) {
		*ret = n;
		return n->alive;
	}
	n = calloc(1, sizeof *n);
	if (!n)
		return err_sys(err, ENOMEM, "history");
	n->node = node;
	HASH_ADD(hh, h->nodes, node, sizeof n->node, n);
	r = load_node(h, n, err);
	if (r < 0)
		return r;
	*ret = n;
	return n->alive;
}

static struct slice link_name(const struct link_head *l)
{
	return (struct slice){ l->key + 8, l->key_len - 8 };
}

static int load_link(struct history *h, struct link_head *l, struct err *err)
{
	struct slice name = link_name(l);
	int r;
	DB_STMT(s, h->db,
		"SELECT node, seq_from, device, seq_to FROM link_version"
		" WHERE drive = ?1 AND parent = ?2 AND name = ?3 ORDER BY seq_from DESC LIMIT 1",
		err);

	db_bind_int(s, 1, h->drive);
	db_bind_int(s, 2, (int64_t)get_be64(l->key));
	db_bind_blob(s, 3, name.p, name.n);
	r = db_step(s, err);
	if (r <= 0 || db_int(s, 3) != SEQ_OPEN)
		return r < 0 ? r : 0;
	l->node = l->stored_node = (uint64_t)db_int(s, 0);
	l->seq_from = l->stored_from = (uint64_t)db_int(s, 1);
	l->device = (uint32_t)db_int(s, 2);
	return 0;
}

int history_link(struct history *h, uint64_t parent, struct slice name, struct link_head **ret,
	struct err *err)
{
	uint8_t key[8 + NAME_BYTES_MAX];
	size_t key_len = 8 + name.n;
	struct link_head *l;
	int r;

	assert(name.n <= NAME_BYTES_MAX);
	put_be64(key, parent);
	memcpy(key + 8, name.p, name.n);
	HASH_FIND(hh, h->links, key, key_len, l);
	if (l) {
		*ret = l;
		return 0;
	}
	l = calloc(1, sizeof *l + key_len);
	if (!l)
		return err_sys(err, ENOMEM, "history");
	l->key_len = key_len;
	memcpy(l->key, key, key_len);
	HASH_ADD_KEYPTR(hh, h->links, l->key, key_len, l);
	r = load_link(h, l, err);
	if (r == 0)
		*ret = l;
	return r;
}

void history_set_link(struct history *h, struct link_head *l, uint64_t node)
{
	l->node = node;
	l->seq_from = h->seq;
	l->device = h->device;
}

static int load_parent(struct history *h, struct node_head *dir, struct err *err)
{
	int r;
	DB_STMT(s, h->db,
		"SELECT parent FROM link_version WHERE drive = ?1 AND node = ?2 AND seq_to = ?3",
		err);

	db_bind_int(s, 1, h->drive);
	db_bind_int(s, 2, (int64_t)dir->node);
	db_bind_int(s, 3, SEQ_OPEN);
	r = db_step(s, err);
	if (r == 0)
		return err_set(err, EBADMSG, "database: directory %llu has no name",
			(unsigned long long)dir->node);
	if (r > 0)
		dir->parent = (uint64_t)db_int(s, 0);
	return r < 0 ? r : 0;
}

int history_parent(struct history *h, struct node_head *dir, uint64_t *ret, struct err *err)
{
	int r = dir->parent ? 0 : load_parent(h, dir, err);

	if (r == 0)
		*ret = dir->parent;
	return r;
}

static int close_node(struct history *h, const struct node_head *n, struct err *err)
{
	DB_STMT(s, h->db,
		"UPDATE node_version SET seq_to = ?4 WHERE drive = ?1 AND node = ?2"
		" AND seq_from = ?3",
		err);

	db_bind_int(s, 1, h->drive);
	db_bind_int(s, 2, (int64_t)n->node);
	db_bind_int(s, 3, (int64_t)n->seq_from);
	db_bind_int(s, 4, (int64_t)h->seq);
	h->affected++;
	return db_run(s, err);
}

static int count_links(struct history *h, const struct node_head *n, struct err *err)
{
	DB_STMT(s, h->db,
		"UPDATE node_version SET links = ?4 WHERE drive = ?1 AND node = ?2"
		" AND seq_from = ?3",
		err);

	db_bind_int(s, 1, h->drive);
	db_bind_int(s, 2, (int64_t)n->node);
	db_bind_int(s, 3, (int64_t)n->seq_from);
	db_bind_int(s, 4, (int64_t)n->links);
	return db_run(s, err);
}

/* NULL rather than no bytes. */
static void bind_bytes(struct db_stmt *s, int i, const void *p, size_t n)
{
	if (n)
		db_bind_blob(s, i, p, n);
	else
		db_bind_null(s, i);
}

static void bind_state(struct db_stmt *s, int i, const struct node_head *n)
{
	const struct node_attr *a = &n->attr;

	db_bind_int(s, i, a->mode);
	db_bind_int(s, i + 1, a->uid);
	db_bind_int(s, i + 2, a->gid);
	db_bind_int(s, i + 3, (int64_t)a->rdev);
	db_bind_int(s, i + 4, a->atime_ns);
	db_bind_int(s, i + 5, a->mtime_ns);
	db_bind_int(s, i + 6, a->ctime_ns);
	db_bind_int(s, i + 7, a->btime_ns);
	db_bind_int(s, i + 8, (int64_t)a->size);
	bind_bytes(s, i + 9, a->content.b, digest_is_zero(&a->content) ? 0 : DIGEST_BYTES);
	bind_bytes(s, i + 10, n->target.data, n->target.len);
	bind_bytes(s, i + 11, n->xattrs.data, n->xattrs.len);
}

static int insert_node(struct history *h, const struct node_head *n, struct err *err)
{
	DB_STMT(s, h->db,
		"INSERT INTO node_version (drive, node, seq_from, seq_to, device,"
		" " NODE_STATE_COLUMNS ","
		" content_seq, content_device, attr_seq, attr_device, links)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,"
		" ?17, ?18, ?19, ?20, ?21, ?22)",
		err);

	db_bind_int(s, 1, h->drive);
	db_bind_int(s, 2, (int64_t)n->node);
	db_bind_int(s, 3, (int64_t)h->seq);
	db_bind_int(s, 4, SEQ_OPEN);
	db_bind_int(s, 5, h->device);
	bind_state(s, 6, n);
	db_bind_int(s, 18, (int64_t)n->content_seq);
	db_bind_int(s, 19, n->content_device);
	db_bind_int(s, 20, (int64_t)n->attr_seq);
	db_bind_int(s, 21, n->attr_device);
	db_bind_int(s, 22, (int64_t)n->links);
	h->affected++;
	return db_run(s, err);
}

static int flush_node(struct history *h, const struct node_head *n, struct err *err)
{
	int r = 0;

	if (n->stored && (n->changed || !n->alive))
		r = close_node(h, n, err);
	else if (n->stored && n->links != n->stored_links)
		return count_links(h, n, err);
	if (r == 0 && n->alive && n->changed)
		r = insert_node(h, n, err);
	return r;
}

static int close_link(struct history *h, const struct link_head *l, struct err *err)
{
	struct slice name = link_name(l);
	DB_STMT(s, h->db,
		"UPDATE link_version SET seq_to = ?5 WHERE drive = ?1 AND parent = ?2"
		" AND name = ?3 AND seq_from = ?4",
		err);

	db_bind_int(s, 1, h->drive);
	db_bind_int(s, 2, (int64_t)get_be64(l->key));
	db_bind_blob(s, 3, name.p, name.n);
	db_bind_int(s, 4, (int64_t)l->stored_from);
	db_bind_int(s, 5, (int64_t)h->seq);
	h->affected++;
	return db_run(s, err);
}

static int insert_link(struct history *h, const struct link_head *l, struct err *err)
{
	struct slice name = link_name(l);
	DB_STMT(s, h->db,
		"INSERT INTO link_version (drive, parent, name, seq_from, seq_to, node, device)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
		err);

	db_bind_int(s, 1, h->drive);
	db_bind_int(s, 2, (int64_t)get_be64(l->key));
	db_bind_blob(s, 3, name.p, name.n);
	db_bind_int(s, 4, (int64_t)h->seq);
	db_bind_int(s, 5, SEQ_OPEN);
	db_bind_int(s, 6, (int64_t)l->node);
	db_bind_int(s, 7, h->device);
	h->affected++;
	return db_run(s, err);
}

static int flush_link(struct history *h, const struct link_head *l, struct err *err)
{
	int r = 0;

	if (l->node == l->stored_node)
		return 0;
	if (l->stored_node)
		r = close_link(h, l, err);
	if (r == 0 && l->node)
		r = insert_link(h, l, err);
	return r;
}

int history_flush(struct history *h, int64_t *ret_affected, struct err *err)
{
	struct node_head *n, *next_node;
	struct link_head *l, *next_link;
	int r;

	HASH_ITER (hh, h->nodes, n, next_node) {
		r = flush_node(h, n, err);
		if (r < 0)
			return r;
	}
	HASH_ITER (hh, h->links, l, next_link) {
		r = flush_link(h, l, err);
		if (r < 0)
			return r;
	}
	*ret_affected = h->affected;
	return 0;
}
