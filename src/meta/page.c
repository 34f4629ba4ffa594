// SPDX-License-Identifier: Apache-2.0
/*
 * A page of the change feed, on its way into a view. What the server says is checked as anything
 * from outside: it must be whole in itself and fit what is here, or nothing of it is used.
 */
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

struct content_row {
	UT_hash_handle hh;
	struct digest id;
	struct slice bytes;
	uint64_t size;
};

struct page {
	const struct changes *c;
	struct content_row *contents;
	bool *skip_nodes; /* known already: no news */
	bool *skip_links;
};

void page_free(struct page *p)
{
	struct content_row *row, *next;

	if (!p)
		return;
	HASH_ITER (hh, p->contents, row, next) {
		HASH_DEL(p->contents, row);
		free(row);
	}
	free(p->skip_nodes);
	free(p->skip_links);
	free(p);
}

static int bad(struct err *err, const char *what, uint64_t node)
{
	return err_set(err, EBADMSG, "change page: %s (node %llx)", what, (unsigned long long)node);
}

static int add_content(struct page *p, struct slice bytes, struct err *err)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	struct content_row *row, *twin;
	int r = manifest_decode(bytes.p, bytes.n, &m, err);

	if (r < 0)
		return r == -ENOMEM ? r : -EBADMSG;
	row = calloc(1, sizeof *row);
	if (!row)
		return -ENOMEM;
	row->id = *manifest_content_id(m);
	row->size = manifest_size(m);
	row->bytes = bytes;
	HASH_FIND(hh, p->contents, &row->id, sizeof row->id, twin);
	if (twin)
		free(row);
	else
		HASH_ADD(hh, p->contents, id, sizeof row->id, row);
	return 0;
}

static struct content_row *content_find(struct page *p, const struct digest *id)
{
	struct content_row *row;

	HASH_FIND(hh, p->contents, id, sizeof *id, row);
	return row;
}

/* The attributes as the tree keeps them. */
static struct node_attr page_attr(const struct node_row *n)
{
	struct node_attr attr = n->attr;

	attr_normalize(&attr, n->target.n);
	return attr;
}

enum standing {
	CLEAN, /* the row in the tree is the server's */
	UNDER, /* the outbox changed it; *ret is what the server had, p NULL: nothing */
};

static int standing(struct view *v, enum store_cf cf, const struct row_key *k, struct slice *ret)
{
	struct row_key bk = key_base(cf, k->b, k->n);
	struct slice row = { 0 }, base;
	struct base_rec rec;
	int r = view_get(v, cf, k, &row);

	*ret = row;
	if (r < 0 || (r > 0 && !view_dirty(v, row)))
		return r < 0 ? r : CLEAN;
	*ret = (struct slice){ 0 };
	r = view_get(v, CF_BASE, &bk, &base);
	if (r == 0)
		return row.p ? UNDER : CLEAN;
	if (r > 0)
		r = base_decode(base, &rec);
	if (r < 0)
		return r;
	if (rec.present)
		*ret = rec.row;
	return UNDER;
}

static bool content_known(struct view *v, const struct node_rec *have, const struct node_attr *attr)
{
	struct row_key k = key_digest(&attr->content);
	struct slice bytes;

	if (have && digest_eq(&have->attr.content, &attr->content))
		return have->attr.size == attr->size;
	return view_get(v, CF_MANIFEST, &k, &bytes) > 0;
}

/* The page brings the contents that are new in it; others are what the server had before. */
static int check_content(struct page *p, struct view *v, const struct node_row *n, struct err *err)
{
	struct node_attr attr = page_attr(n);
	struct row_key k = key_id(n->node);
	struct content_row *row;
	struct node_rec had;
	struct slice server;
	int r;

	if (!S_ISREG(attr.mode) || attr.size == 0)
		return 0;
	row = content_find(p, &attr.content);
	if (row)
		return row->size == attr.size ? 0 : bad(err, "size is not its content's", n->node);
	r = standing(v, CF_NODE, &k, &server);
	if (r >= 0 && server.p)
		r = node_decode(server, &had);
	if (r < 0)
		return r;
	return content_known(v, server.p ? &had : NULL, &attr)
		       ? 0
		       : bad(err, "content is not there", n->node);
}

static int check_node(struct page *p, struct view *v, const struct node_row *n, struct err *err)
{
	struct node_rec rec;
	uint64_t bytes = 0;
	int have;

	if (n->node == 0 || (n->deleted && n->node == NODE_ROOT))
		return bad(err, "no such node can be", n->node);
	if (n->deleted)
		return 0;
	have = view_node(v, n->node, &rec);
	if (have < 0)
		return have;
	if (have && (rec.attr.mode & S_IFMT) != (n->attr.mode & S_IFMT))
		return bad(err, "another type than before", n->node);
	if (S_ISLNK(n->attr.mode) ? !n->target.n || n->target.n > SYMLINK_BYTES_MAX : n->target.n)
		return bad(err, "no valid target", n->node);
	for (size_t i = 0; i < n->n_xattrs; i++) {
		const struct xattr *x = &n->xattrs[i];

		if (x->name.n == 0 || x->name.n > XATTR_NAME_BYTES_MAX ||
			x->value.n > XATTR_VALUE_BYTES_MAX)
			return bad(err, "no valid xattr", n->node);
		bytes += x->name.n + x->value.n;
	}
	if (bytes > XATTR_NODE_BYTES_MAX)
		return bad(err, "too many bytes of xattrs", n->node);
	return check_content(p, v, n, err);
}

static int page_load(struct page *p, struct view *v, struct err *err)
{
	const struct changes *c = p->c;
	int r = 0;

	if (c->to < c->from || c->head < c->to || (c->to == c->from && c->n_nodes + c->n_links))
		return err_set(err, EBADMSG, "change page: its revisions contradict each other");
	for (size_t i = 0; i < c->n_contents && r == 0; i++)
		r = add_content(p, c->contents[i], err);
	for (size_t i = 0; i < c->n_nodes && r == 0; i++)
		r = check_node(p, v, &c->nodes[i], err);
	for (size_t i = 0; i < c->n_links && r == 0; i++) {
		const struct link_row *l = &c->links[i];

		if (l->parent == 0 || !name_valid(l->name) || l->node == NODE_ROOT)
			r = bad(err, "no such name can be", l->parent);
	}
	return r;
}

int page_open(struct view *v, const struct changes *c, struct page **ret, struct err *err)
{
	struct page *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return -ENOMEM;
	p->c = c;
	p->skip_nodes = calloc(c->n_nodes + 1, sizeof *p->skip_nodes);
	p->skip_links = calloc(c->n_links + 1, sizeof *p->skip_links);
	r = p->skip_nodes && p->skip_links ? page_load(p, v, err) : -ENOMEM;
	if (r < 0) {
		page_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

static bool attr_eq(const struct node_attr *a, const struct node_attr *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->rdev == b->rdev &&
	       a->atime_ns == b->atime_ns && a->mtime_ns == b->mtime_ns &&
	       a->ctime_ns == b->ctime_ns && a->btime_ns == b->btime_ns && a->size == b->size &&
	       digest_eq(&a->content, &b->content);
}

/* Whether the row says what rec does; xattrs aside. */
static bool node_same(const struct node_row *n, const struct node_rec *rec)
{
	struct node_attr attr = page_attr(n);

	return attr_eq(&attr, &rec->attr) &&
	       (!S_ISLNK(attr.mode) || slice_eq(n->target, rec->payload));
}

/* 1: can stay simple. */
static int node_is_simple(struct page *p, struct view *v, size_t i, bool outbox_empty)
{
	const struct node_row *n = &p->c->nodes[i];
	struct row_key k = key_id(n->node);
	struct node_rec rec;
	struct slice row;
	int s = standing(v, CF_NODE, &k, &row), r = 0;

	if (s < 0)
		return s;
	if (row.p)
		r = node_decode(row, &rec);
	if (r < 0)
		return r;
	if (n->deleted)
		p->skip_nodes[i] = !row.p;
	else if (row.p && node_same(n, &rec) && !n->n_xattrs)
		p->skip_nodes[i] = !(rec.tag & NODE_HAS_XATTRS);
	if (p->skip_nodes[i])
		return 1;
	if (n->deleted && S_ISDIR(rec.attr.mode) && !outbox_empty)
		return 0;
	return s == CLEAN;
}

static bool page_brings(struct page *p, uint64_t node)
{
	/* Sorted or not, a page is small, and this is asked only for what the tree lacks. */
	for (size_t i = 0; i < p->c->n_nodes; i++) {
		if (p->c->nodes[i].node == node && !p->c->nodes[i].deleted)
			return true;
	}
	return false;
}

static int there(struct page *p, struct view *v, uint64_t node)
{
	struct node_rec rec;
	int r = view_node(v, node, &rec);

	return r ? r : page_brings(p, node);
}

static int link_is_simple(struct page *p, struct view *v, size_t i, bool outbox_empty)
{
	const struct link_row *l = &p->c->links[i];
	struct row_key k = key_link(l->parent, l->name);
	struct link_rec rec = { 0 };
	struct slice row;
	int s = standing(v, CF_LINK, &k, &row), r = 0;

	if (s < 0)
		return s;
	if (row.p)
		r = link_decode(row, &rec);
	if (r < 0)
		return r;
	p->skip_links[i] = rec.node == l->node;
	if (p->skip_links[i])
		return 1;
	if (S_ISDIR(rec.type) && !outbox_empty)
		return 0;
	if (l->node)
		r = there(p, v, l->node);
	else
		r = 1;
	if (r > 0 && l->node)
		r = there(p, v, l->parent);
	return r > 0 ? s == CLEAN : r;
}

/* A directory that was moved shows as a new link to a node that is there. */
static int moves_directory(struct page *p, struct view *v, size_t i)
{
	struct node_rec rec;
	int r = 0;

	if (!p->skip_links[i] && p->c->links[i].node)
		r = view_node(v, p->c->links[i].node, &rec);
	return r > 0 ? S_ISDIR(rec.attr.mode) : r;
}

int page_is_simple(struct page *p, struct view *v, bool outbox_empty)
{
	int r = 1;

	for (size_t i = 0; i < p->c->n_nodes && r > 0; i++)
		r = node_is_simple(p, v, i, outbox_empty);
	for (size_t i = 0; i < p->c->n_links && r > 0; i++) {
		r = link_is_simple(p, v, i, outbox_empty);
		if (r > 0 && !outbox_empty) {
			r = moves_directory(p, v, i);
			r = r < 0 ? r : !r;
		}
	}
	if (r <= 0) {
		memset(p->skip_nodes, 0, p->c->n_nodes * sizeof *p->skip_nodes);
		memset(p->skip_links, 0, p->c->n_links * sizeof *p->skip_links);
	}
	return r;
}

static const struct xattr *row_xattr(const struct node_row *n, struct slice name)
{
	for (size_t i = 0; i < n->n_xattrs; i++) {
		if (slice_eq(n->xattrs[i].name, name))
			return &n->xattrs[i];
	}
	return NULL;
}

struct prune {
	struct view *v;
	const struct node_row *n;
};

static int prune_xattr(void *ctx, struct slice key, struct slice value)
{
	struct prune *pr = ctx;
	struct slice name;
	uint64_t node;
	int r = key_child_parse(key, &node, &name);

	if (r == 0 && !row_xattr(pr->n, name)) {
		uint8_t copy[NAME_BYTES_MAX];

		memcpy(copy, name.p, name.n);
		name.p = copy;
		r = view_set_xattr(pr->v, node, name, NULL, 0);
	}
	return r;
}

static int put_xattrs(struct view *v, const struct node_row *n, struct node_rec *rec)
{
	struct prune pr = { v, n };
	int r = 0;

	if (rec->tag & NODE_HAS_XATTRS)
		r = view_each(v, CF_XATTR, n->node, prune_xattr, &pr);
	rec->tag &= (uint8_t)~NODE_HAS_XATTRS;
	if (n->n_xattrs)
		rec->tag |= NODE_HAS_XATTRS;
	for (size_t i = 0; i < n->n_xattrs && r == 0; i++) {
		const struct xattr *x = &n->xattrs[i];
		struct slice have;

		r = view_xattr(v, n->node, x->name, &have);
		if (r >= 0 && !(r > 0 && slice_eq(have, x->value)))
			r = view_set_xattr(v, n->node, x->name, &x->value, 0);
		r = MIN(r, 0);
	}
	return r;
}

/* The manifest of a content that is new for the node. */
static int put_manifest(struct page *p, struct view *v, struct node_rec *rec)
{
	struct content_row *row = content_find(p, &rec->attr.content);
	struct row_key k = key_digest(&rec->attr.content);

	rec->tag &= (uint8_t)~NODE_INLINE_MANIFEST;
	rec->payload = (struct slice){ 0 };
	rec->holes = row ? manifest_holes_encoded(row->bytes.p, row->bytes.n) : 0;
	if (!row)
		return 0;
	if (row->bytes.n > MANIFEST_INLINE_MAX)
		return view_put(v, CF_MANIFEST, &k, row->bytes.p, row->bytes.n, 0);
	rec->tag |= NODE_INLINE_MANIFEST;
	rec->payload = row->bytes;
	return 0;
}

static int put_node(struct page *p, struct view *v, const struct node_row *n)
{
	struct node_rec rec = { 0 };
	struct digest old;
	int r = view_node(v, n->node, &rec);

	if (r < 0)
		return r;
	old = rec.attr.content;
	if (rec.attr.uid != n->attr.uid || rec.attr.gid != n->attr.gid)
		rec.tag &= (uint8_t)~NODE_OWNER_HERE;
	rec.attr = page_attr(n);
	rec.entry = 0;
	if (S_ISLNK(n->attr.mode))
		rec.payload = n->target;
	r = 0;
	if (S_ISREG(n->attr.mode) && !digest_eq(&old, &rec.attr.content))
		r = put_manifest(p, v, &rec);
	if (r == 0)
		r = put_xattrs(v, n, &rec);
	return r < 0 ? r : view_put_node(v, n->node, &rec, 0);
}

/* Before its name goes: where it was. */
static int bury(struct view *v, uint64_t node)
{
	struct row_key k = key_id(node);
	struct node_rec rec;
	struct slice row;
	int r = view_node(v, node, &rec);

	if (r <= 0 || !S_ISDIR(rec.attr.mode))
		return MIN(r, 0);
	r = view_get(v, CF_NODE, &k, &row);
	return r > 0 ? grave_put(v, node, row) : r;
}

static int put_nodes(struct page *p, struct view *v)
{
	int r = 0;

	for (size_t i = 0; i < p->c->n_nodes && r == 0; i++) {
		const struct node_row *n = &p->c->nodes[i];

		if (!p->skip_nodes[i])
			r = n->deleted ? bury(v, n->node) : put_node(p, v, n);
	}
	return r;
}

static int put_links(struct page *p, struct view *v, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < p->c->n_links && r == 0; i++) {
		const struct link_row *l = &p->c->links[i];

		if (p->skip_links[i])
			continue;
		r = view_set_link(v, l->parent, l->name, l->node, 0);
		if (r == -EBADMSG)
			bad(err, "a name leads to nothing", l->node);
	}
	return r;
}

static int put_deletes(struct page *p, struct view *v, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < p->c->n_nodes && r == 0; i++) {
		const struct node_row *n = &p->c->nodes[i];
		struct node_rec rec;

		if (!n->deleted || p->skip_nodes[i])
			continue;
		r = view_node(v, n->node, &rec);
		if (r <= 0)
			continue;
		if (rec.links)
			return bad(err, "deleted, but has a name", n->node);
		r = S_ISDIR(rec.attr.mode) ? view_dir_empty(v, n->node) : 1;
		if (r == 0)
			return bad(err, "deleted, but not empty", n->node);
		if (r > 0)
			r = view_kill_node(v, n->node, 0);
	}
	return MIN(r, 0);
}

static int check_link(struct view *v, const struct link_row *l, struct err *err)
{
	struct node_rec rec;
	int r;

	if (l->node == 0)
		return 0;
	r = view_node(v, l->parent, &rec);
	if (r >= 0 && (r == 0 || !S_ISDIR(rec.attr.mode)))
		return bad(err, "a name in what is no directory", l->parent);
	if (r > 0)
		r = view_node(v, l->node, &rec);
	if (r <= 0)
		return r < 0 ? r : bad(err, "a name leads to nothing", l->node);
	if (!S_ISDIR(rec.attr.mode))
		return 0;
	if (rec.links != 1)
		return bad(err, "a directory of several names", l->node);
	r = view_below(v, l->node, NODE_ROOT);
	return r == -ELOOP ? bad(err, "a directory below itself", l->node) : MIN(r, 0);
}

static int check_names(struct view *v, struct err *err)
{
	for (struct view_row *row = v->rows; row; row = row->hh.next) {
		struct node_rec rec;
		uint64_t id;
		int r;

		if (view_row_cf(row) != CF_NODE || !row->now.p)
			continue;
		r = key_id_parse(view_row_key(row), &id);
		if (r == 0)
			r = node_decode(row->now, &rec);
		if (r < 0)
			return r;
		if (rec.links == 0 && id != NODE_ROOT)
			return bad(err, "without a name", id);
	}
	return 0;
}

int page_put(struct page *p, struct view *v, struct err *err)
{
	int r = put_nodes(p, v);

	if (r == 0)
		r = put_links(p, v, err);
	if (r == 0)
		r = put_deletes(p, v, err);
	for (size_t i = 0; i < p->c->n_links && r == 0; i++) {
		if (!p->skip_links[i])
			r = check_link(v, &p->c->links[i], err);
	}
	return r < 0 ? r : check_names(v, err);
}
