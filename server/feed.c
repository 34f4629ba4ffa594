// SPDX-License-Identifier: Apache-2.0
/*
 * The change feed: what differs between two seqs.
 *
 * The rows that began or ended in (from, to] name the nodes and names that may differ; the state
 * of each as of `to` is one look-up. Rows that hold at a past seq never change, so a page is the
 * same whenever it is asked for, whatever is committed meanwhile.
 *
 * A page ends where one more seq would bring it over the bound of rows, counting each node and
 * name once however often it changed: a drive with a long history is not told change by change.
 */
#include "vault_internal.h"

#include "bytes.h"
#include "contents.h"
#include "history.h"
#include "bounds.h"
#include "wire/arena.h"
#include "xattrs.h"

#include <errno.h>

/* Row events that are looked at for one row of a page: bounds the work when few things changed
 * often. */
#define EVENTS_PER_ROW 8
/* Room that a row's fields and their names take in a message, names and xattrs apart. */
#define ROW_BYTES 512
/* Where a page of several seqs is cut for its bytes; the rest of the bound is for rounding. */
#define PAGE_BYTES_MAX (CHANGES_BYTES_MAX / 4 * 3)

struct feed_node {
	uint64_t node;
	uint64_t first_seq; /* of the first event in the window */
	UT_hash_handle hh;
};

struct feed_link {
	uint64_t first_seq;
	UT_hash_handle hh;
	size_t key_len;
	uint8_t key[]; /* the parent's id and the name */
};

struct feed {
	struct db *db;
	int64_t drive;
	uint64_t from, to, head;
	size_t max_rows;
	struct arena *arena; /* of the two tables */
	struct feed_node *nodes; /* in the order of first_seq, as the next */
	struct feed_link *links;
};

/* One of the four indices, walked by seq. */
struct cursor {
	struct db_stmt *s;
	bool is_link;
	uint64_t seq; /* of the row it stands on; UINT64_MAX at the end */
};

static const char *const cursor_sql[] = {
	"SELECT seq_from, node FROM node_version"
	" WHERE drive = ?1 AND seq_from > ?2 AND seq_from <= ?3 ORDER BY seq_from",
	"SELECT seq_to, node FROM node_version"
	" WHERE drive = ?1 AND seq_to > ?2 AND seq_to <= ?3"
	" AND seq_to < 9223372036854775807 ORDER BY seq_to",
	"SELECT seq_from, parent, name FROM link_version"
	" WHERE drive = ?1 AND seq_from > ?2 AND seq_from <= ?3 ORDER BY seq_from",
	"SELECT seq_to, parent, name FROM link_version"
	" WHERE drive = ?1 AND seq_to > ?2 AND seq_to <= ?3"
	" AND seq_to < 9223372036854775807 ORDER BY seq_to",
};
#define CURSORS 4

struct walk {
	struct cursor cursors[CURSORS];
};

static void walk_done(struct walk *w)
{
	for (size_t i = 0; i < CURSORS; i++)
		db_reset_p(&w->cursors[i].s);
}
#define _cleanup_walk_ _cleanup_(walk_done)

static int cursor_next(struct cursor *c, struct err *err)
{
	int r = db_step(c->s, err);

	if (r < 0)
		return r;
	c->seq = r ? (uint64_t)db_int(c->s, 0) : UINT64_MAX;
	return 0;
}

static int walk_start(struct walk *w, const struct feed *f, uint64_t limit, struct err *err)
{
	/* From nothing, what was there from the start is new too: the root. */
	int64_t after = f->from ? (int64_t)f->from : -1;

	for (size_t i = 0; i < CURSORS; i++) {
		struct cursor *c = &w->cursors[i];
		int r;

		c->s = db_prepare(f->db, cursor_sql[i], err);
		c->is_link = i >= CURSORS / 2;
		db_bind_int(c->s, 1, f->drive);
		db_bind_int(c->s, 2, after);
		db_bind_int(c->s, 3, (int64_t)limit);
		r = cursor_next(c, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int note_node(struct feed *f, uint64_t node, uint64_t seq)
{
	struct feed_node *n;

	HASH_FIND(hh, f->nodes, &node, sizeof node, n);
	if (n)
		return 0;
	n = arena_alloc(f->arena, sizeof *n);
	if (!n)
		return -ENOMEM;
	n->node = node;
	n->first_seq = seq;
	HASH_ADD(hh, f->nodes, node, sizeof n->node, n);
	return 0;
}

static int note_link(struct feed *f, uint64_t parent, struct slice name, uint64_t seq)
{
	uint8_t key[8 + NAME_BYTES_MAX];
	size_t key_len = 8 + name.n;
	struct feed_link *l;

	if (name.n > NAME_BYTES_MAX)
		return -EBADMSG;
	put_be64(key, parent);
	memcpy(key + 8, name.p, name.n);
	HASH_FIND(hh, f->links, key, key_len, l);
	if (l)
		return 0;
	l = arena_alloc(f->arena, sizeof *l + key_len);
	if (!l)
		return -ENOMEM;
	l->first_seq = seq;
	l->key_len = key_len;
	memcpy(l->key, key, key_len);
	HASH_ADD_KEYPTR(hh, f->links, l->key, key_len, l);
	return 0;
}

static int note_event(struct feed *f, struct cursor *c, struct err *err)
{
	uint64_t id = (uint64_t)db_int(c->s, 1);
	int r = c->is_link ? note_link(f, id, db_blob(c->s, 2), c->seq) : note_node(f, id, c->seq);

	return r < 0 ? err_sys(err, -r, "changes") : cursor_next(c, err);
}

static struct cursor *earliest(struct walk *w)
{
	struct cursor *best = &w->cursors[0];

	for (size_t i = 1; i < CURSORS; i++)
		if (w->cursors[i].seq < best->seq)
			best = &w->cursors[i];
	return best;
}

/* Collects nodes and names, and sets f->to: at least one seq, as many as max_rows allows. */
static int collect(struct feed *f, uint64_t limit, struct err *err)
{
	_cleanup_walk_ struct walk w = { 0 };
	int r = walk_start(&w, f, limit, err);

	f->to = limit;
	while (r == 0) {
		struct cursor *c = earliest(&w);
		uint64_t seq = c->seq;

		if (seq == UINT64_MAX)
			break;
		r = note_event(f, c, err);
		if (seq > f->from + 1 &&
			HASH_COUNT(f->nodes) + HASH_COUNT(f->links) > f->max_rows) {
			f->to = seq - 1;
			break;
		}
	}
	return r;
}

/* How far to look: bounds the events, which may be many more than the rows. */
static int find_limit(const struct feed *f, uint64_t *ret, struct err *err)
{
	int64_t left = (int64_t)f->max_rows * EVENTS_PER_ROW;
	int r;
	DB_STMT(s, f->db,
		"SELECT seq, affected FROM commit_log WHERE drive = ?1 AND seq > ?2 ORDER BY seq",
		err);

	*ret = f->from;
	db_bind_int(s, 1, f->drive);
	db_bind_int(s, 2, (int64_t)f->from);
	while ((r = db_step(s, err)) > 0) {
		left -= db_int(s, 1);
		if (left < 0 && *ret > f->from)
			return 0;
		*ret = (uint64_t)db_int(s, 0);
	}
	return r;
}

static void feed_done(struct feed *f)
{
	HASH_CLEAR(hh, f->nodes);
	HASH_CLEAR(hh, f->links);
	arena_free(f->arena);
}
#define _cleanup_feed_ _cleanup_(feed_done)

/* A page under construction: the rows of f with first_seq <= f->to. */
struct named_content {
	struct digest id;
	UT_hash_handle hh;
};

struct page {
	const struct feed *f;
	struct arena *arena;
	struct node_row *nodes;
	struct link_row *links;
	struct slice *contents;
	size_t n_nodes, n_links, n_contents;
	struct named_content *named;
	size_t bytes;
	bool single; /* one seq: it cannot be cut further */
};

static void page_done(struct page *p)
{
	HASH_CLEAR(hh, p->named);
	arena_free(p->arena);
}
#define _cleanup_page_ _cleanup_(page_done)

static int page_init(struct page *p, const struct feed *f, struct err *err)
{
	size_t n_nodes = HASH_COUNT(f->nodes), n_links = HASH_COUNT(f->links);
	int r;

	*p = (struct page){ .f = f, .single = f->to <= f->from + 1 };
	r = arena_new(&p->arena);
	if (r < 0)
		return err_sys(err, -r, "changes");
	p->nodes = arena_alloc(p->arena, n_nodes * sizeof *p->nodes);
	p->links = arena_alloc(p->arena, n_links * sizeof *p->links);
	p->contents = arena_alloc(p->arena, n_nodes * sizeof *p->contents);
	return p->nodes && p->links && p->contents ? 0 : err_sys(err, ENOMEM, "changes");
}

static struct slice keep(struct page *p, struct slice bytes, bool *ok)
{
	uint8_t *copy = bytes.n ? arena_dup(p->arena, bytes.p, bytes.n) : NULL;

	*ok &= !bytes.n || copy;
	p->bytes += bytes.n;
	return (struct slice){ copy, copy ? bytes.n : 0 };
}

/*
 * Manifests beyond the page's bytes are left out of a page of one seq, which cannot be made
 * smaller: the device asks for them by their ids.
 */
static int add_manifest(struct page *p, const struct digest *id, struct err *err)
{
	_cleanup_buf_ struct buf bytes = { 0 };
	bool ok = true;
	int r = contents_get(p->f->db, p->f->drive, id, &bytes, err);

	if (r < 0)
		return r;
	if (r == 0)
		return err_set(err, EBADMSG, "database: a node names a content that is not there");
	if (p->single && p->bytes + bytes.len > PAGE_BYTES_MAX)
		return 0;
	p->contents[p->n_contents++] = keep(p, (struct slice){ bytes.data, bytes.len }, &ok);
	return ok ? 0 : err_sys(err, ENOMEM, "changes");
}

static int name_content(struct page *p, const struct digest *id, struct err *err)
{
	struct named_content *c;

	HASH_FIND(hh, p->named, id, sizeof *id, c);
	if (c)
		return 0;
	c = arena_alloc(p->arena, sizeof *c);
	if (!c)
		return err_sys(err, ENOMEM, "changes");
	c->id = *id;
	HASH_ADD(hh, p->named, id, sizeof c->id, c);
	return add_manifest(p, id, err);
}

/* The row of the node that holds at seq: 1, or 0 when it was not there. */
static int node_at(
	const struct feed *f, struct db_stmt *s, uint64_t node, uint64_t seq, struct err *err)
{
	int r;

	db_bind_int(s, 1, f->drive);
	db_bind_int(s, 2, (int64_t)node);
	db_bind_int(s, 3, (int64_t)seq);
	r = db_step(s, err);
	return r > 0 ? (uint64_t)db_int(s, 0) > seq : r;
}

/* Whether the device can have it: it was there at `from`. */
static int node_was_there(const struct feed *f, uint64_t node, struct err *err)
{
	DB_STMT(s, f->db,
		"SELECT seq_to FROM node_version"
		" WHERE drive = ?1 AND node = ?2 AND seq_from <= ?3"
		" ORDER BY seq_from DESC LIMIT 1",
		err);

	return f->from ? node_at(f, s, node, f->from, err) : 0;
}

static int fill_node_row(struct page *p, struct db_stmt *s, struct node_row *row, struct err *err)
{
	struct slice target, xattrs;
	bool ok = true;
	int r = history_read_state(s, 2, &row->attr, &target, &xattrs, err);

	if (r < 0)
		return r;
	row->target = keep(p, target, &ok);
	xattrs = keep(p, xattrs, &ok);
	if (!ok)
		return err_sys(err, ENOMEM, "changes");
	r = xattrs_unpack(xattrs, p->arena, &row->xattrs, &row->n_xattrs, err);
	if (r == 0 && (uint64_t)db_int(s, 1) > p->f->from && !digest_is_zero(&row->attr.content))
		r = name_content(p, &row->attr.content, err);
	return r;
}

static int add_node(struct page *p, uint64_t node, struct err *err)
{
	struct node_row *row = &p->nodes[p->n_nodes];
	int r;
	DB_STMT(s, p->f->db,
		"SELECT seq_to, content_seq, " NODE_STATE_COLUMNS " FROM node_version"
		" WHERE drive = ?1 AND node = ?2 AND seq_from <= ?3"
		" ORDER BY seq_from DESC LIMIT 1",
		err);

	*row = (struct node_row){ .node = node };
	r = node_at(p->f, s, node, p->f->to, err);
	if (r > 0) {
		r = fill_node_row(p, s, row, err);
	} else if (r == 0) {
		r = node_was_there(p->f, node, err);
		if (r <= 0)
			return r;
		row->deleted = true;
	}
	p->n_nodes++;
	p->bytes += ROW_BYTES;
	return r < 0 ? r : 0;
}

/* The node that the name led to at seq; 0 for none. */
static int link_at(const struct feed *f, uint64_t parent, struct slice name, uint64_t seq,
	uint64_t *ret, struct err *err)
{
	int r;
	DB_STMT(s, f->db,
		"SELECT node, seq_to FROM link_version"
		" WHERE drive = ?1 AND parent = ?2 AND name = ?3 AND seq_from <= ?4"
		" ORDER BY seq_from DESC LIMIT 1",
		err);

	db_bind_int(s, 1, f->drive);
	db_bind_int(s, 2, (int64_t)parent);
	db_bind_blob(s, 3, name.p, name.n);
	db_bind_int(s, 4, (int64_t)seq);
	r = db_step(s, err);
	if (r < 0)
		return r;
	*ret = r && (uint64_t)db_int(s, 1) > seq ? (uint64_t)db_int(s, 0) : 0;
	return 0;
}

static int add_link(struct page *p, const struct feed_link *l, struct err *err)
{
	struct link_row row = { .parent = get_be64(l->key),
		.name = { l->key + 8, l->key_len - 8 } };
	uint64_t before = 0;
	int r = link_at(p->f, row.parent, row.name, p->f->to, &row.node, err);

	if (r == 0 && row.node == 0 && p->f->from)
		r = link_at(p->f, row.parent, row.name, p->f->from, &before, err);
	if (r < 0 || (row.node == 0 && before == 0))
		return r;
	p->links[p->n_links++] = row;
	p->bytes += ROW_BYTES + row.name.n;
	return 0;
}

static bool page_full(const struct page *p)
{
	return !p->single && p->bytes > PAGE_BYTES_MAX;
}

/* 0, or -EMSGSIZE when the page must be cut. */
static int build(struct page *p, struct err *err)
{
	const struct feed *f = p->f;
	struct feed_node *n;
	struct feed_link *l;
	int r = 0;

	for (n = f->nodes; n && n->first_seq <= f->to; n = n->hh.next) {
		r = add_node(p, n->node, err);
		if (r == 0 && page_full(p))
			r = -EMSGSIZE;
		if (r < 0)
			return r;
	}
	for (l = f->links; l && l->first_seq <= f->to; l = l->hh.next) {
		r = add_link(p, l, err);
		if (r == 0 && page_full(p))
			r = -EMSGSIZE;
		if (r < 0)
			return r;
	}
	return 0;
}

static int encode(const struct page *p, struct buf *ret)
{
	const struct feed *f = p->f;
	const struct changes c = {
		.from = f->from,
		.to = f->to,
		.head = f->head,
		.nodes = p->nodes,
		.n_nodes = p->n_nodes,
		.links = p->links,
		.n_links = p->n_links,
		.contents = p->contents,
		.n_contents = p->n_contents,
	};

	return changes_encode(&c, ret);
}

static int build_and_encode(const struct feed *f, struct buf *ret, struct err *err)
{
	_cleanup_page_ struct page p = { 0 };
	int r = page_init(&p, f, err);

	if (r == 0)
		r = build(&p, err);
	if (r < 0)
		return r;
	r = encode(&p, ret);
	return r < 0 && r != -EMSGSIZE ? err_sys(err, -r, "changes") : r;
}

/* Halves the window until the page fits. */
static int write_page(struct feed *f, struct buf *ret, struct err *err)
{
	for (;;) {
		int r = build_and_encode(f, ret, err);

		if (r != -EMSGSIZE)
			return r;
		if (f->to <= f->from + 1)
			return err_set(err, EMSGSIZE, "changes: one commit is too large to send");
		f->to = f->from + (f->to - f->from) / 2;
	}
}

static int feed_run(struct feed *f, struct buf *ret, struct err *err)
{
	uint64_t limit;
	int r = drive_head(f->db, f->drive, &f->head, err);

	if (r < 0)
		return r;
	if (f->from > f->head)
		return err_set(err, EINVAL, "changes since %llu: the head is %llu",
			(unsigned long long)f->from, (unsigned long long)f->head);
	f->to = f->from;
	if (f->from < f->head) {
		r = find_limit(f, &limit, err);
		if (r == 0)
			r = collect(f, limit, err);
	}
	return r < 0 ? r : write_page(f, ret, err);
}

int vault_changes(struct vault *v, int64_t drive, uint64_t from, size_t max_rows, struct buf *ret,
	struct err *err)
{
	_cleanup_feed_ struct feed f = { .db = v->db,
		.drive = drive,
		.from = from,
		.max_rows = MIN(MAX(max_rows, (size_t)1), (size_t)CHANGES_ROWS_MAX) };
	int r = arena_new(&f.arena);

	if (r < 0)
		return err_sys(err, -r, "changes");
	r = db_begin_read(v->db, err);
	if (r < 0)
		return r;
	r = feed_run(&f, ret, err);
	db_rollback(v->db);
	return r;
}
