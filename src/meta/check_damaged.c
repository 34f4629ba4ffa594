// SPDX-License-Identifier: Apache-2.0
/*
 * Files whose bytes only this device had, and has damaged. The bytes that are there become chunks
 * of their own (what cannot be read at all, zeros), so that a content can be sent that has them;
 * every entry of the outbox that named the old content names the new one. Then what a name leads
 * to is settled with changes as any program would make them.
 */
#include "meta/check_impl.h"

#include "bounds.h"
#include "clock.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#define NAME_TRIES 1000

/* A damaged chunk, and the chunk of the bytes that are there. */
struct substitute {
	UT_hash_handle hh;
	struct digest id;
	struct digest now;
};

/* A content, and the one that takes its place. */
struct replaced {
	UT_hash_handle hh;
	struct digest id;
	struct manifest *now;
};

struct damaged_file {
	uint64_t node;
	struct manifest *whole; /* the newest content without damage; NULL: there is none */
};

struct mend {
	struct tree *t;
	struct cache *cache;
	struct check *c;
	struct substitute *chunks;
	struct replaced *contents;
	struct damaged_file *files;
	size_t n_files;
};

static void mend_done(struct mend *m)
{
	struct substitute *s, *next_s;
	struct replaced *p, *next_p;

	HASH_ITER (hh, m->chunks, s, next_s) {
		HASH_DEL(m->chunks, s);
		free(s);
	}
	HASH_ITER (hh, m->contents, p, next_p) {
		HASH_DEL(m->contents, p);
		manifest_unref(p->now);
		free(p);
	}
	for (size_t i = 0; i < m->n_files; i++)
		manifest_unref(m->files[i].whole);
	free(m->files);
}

/* ---- chunks ---- */

/* 1 when the row says that its bytes are damaged and that nobody else has them. */
static int is_lost(
	struct mend *m, const struct digest *id, struct chunk_row *ret, struct buf *value)
{
	int r;

	buf_clear(value);
	r = store_get(m->t->store, CF_CHUNK, id->b, DIGEST_BYTES, value);
	if (r <= 0)
		return r;
	if (chunk_row_decode(value->data, value->len, ret) < 0)
		return 0;
	return (ret->flags & CHUNK_ROW_DAMAGED) && !(ret->flags & CACHE_ON_SERVER);
}

/* What can be read; the rest is zeros. */
static void read_what_is_there(struct mend *m, const struct chunk_row *row, uint8_t *bytes)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *path = NULL;

	memset(bytes, 0, row->length);
	if (row->inlined) {
		memcpy(bytes, row->bytes.p, row->bytes.n);
		return;
	}
	if (asprintf(&path, "%s/segments/%016llx", m->c->o->dir, (unsigned long long)row->segment) <
		0) {
		path = NULL;
		return;
	}
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	for (uint32_t at = 0; fd >= 0 && at < row->length;) {
		uint32_t n = MIN(row->length - at, (uint32_t)4096);

		if (io_pread_full(fd, bytes + at, n, row->offset + at) < 0)
			memset(bytes + at, 0, n);
		at += n;
	}
}

static int add_substitute(struct mend *m, const struct digest *id, const struct chunk_row *row)
{
	_cleanup_batch_ struct batch *b = NULL;
	_cleanup_free_ uint8_t *bytes = malloc(row->length);
	struct substitute *s = calloc(1, sizeof *s);
	int r = bytes && s ? batch_new(m->t->store, &b) : -ENOMEM;

	if (r == 0) {
		read_what_is_there(m, row, bytes);
		s->id = *id;
		digest_of(bytes, row->length, &s->now);
		r = cache_add(m->cache, b, &s->now, bytes, row->length, 0);
	}
	if (r == 0)
		r = store_commit(m->t->store, b);
	if (r < 0) {
		free(s);
		return r;
	}
	HASH_ADD(hh, m->chunks, id, sizeof s->id, s);
	return 0;
}

/* The chunk that takes this one's place; NULL in *ret when it is whole. */
static int substitute_of(struct mend *m, const struct digest *id, const struct digest **ret)
{
	_cleanup_buf_ struct buf value = { 0 };
	struct substitute *s;
	struct chunk_row row;
	int r;

	*ret = NULL;
	HASH_FIND(hh, m->chunks, id, sizeof *id, s);
	if (!s) {
		r = is_lost(m, id, &row, &value);
		if (r > 0)
			r = add_substitute(m, id, &row);
		if (r < 0)
			return r;
		HASH_FIND(hh, m->chunks, id, sizeof *id, s);
	}
	if (s)
		*ret = &s->now;
	return 0;
}

/* ---- contents ---- */

/* 1 with the content in its place, 0 when it is whole. */
static int replace(struct mend *m, struct manifest *old, struct manifest **ret)
{
	struct manifest_builder *b;
	bool any = false;
	int r = manifest_builder_new(&b);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < manifest_count(old); i++) {
		const struct manifest_entry *e = manifest_at(old, i);
		const struct digest *now = NULL;

		if (e->hole) {
			r = manifest_add_hole(b, e->length);
			continue;
		}
		r = substitute_of(m, &e->id, &now);
		any |= now != NULL;
		if (r == 0)
			r = manifest_add_chunk(b, now ? now : &e->id, e->length);
	}
	if (r < 0 || !any) {
		manifest_builder_free(b);
		return r;
	}
	r = manifest_builder_finish(b, ret);
	return r < 0 ? r : 1;
}

/* As replace(), of one content; *ret is borrowed. */
static int replaced_by(
	struct mend *m, const struct digest *id, struct slice inlined, struct manifest **ret)
{
	_cleanup_manifest_ struct manifest *old = NULL, *now = NULL;
	struct replaced *p;
	int r;

	*ret = NULL;
	HASH_FIND(hh, m->contents, id, sizeof *id, p);
	if (p) {
		*ret = p->now;
		return 1;
	}
	r = check_manifest(m->c->at, inlined, id, &old);
	if (r > 0)
		r = replace(m, old, &now);
	if (r <= 0)
		return r;
	p = calloc(1, sizeof *p);
	if (!p)
		return -ENOMEM;
	p->id = *id;
	*ret = p->now = steal(now);
	HASH_ADD(hh, m->contents, id, sizeof p->id, p);
	return 1;
}

/* ---- rows that name them ---- */

static int rewrite_entry(struct mend *m, struct view *v, struct outbox_entry *e)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct row_key k = key_id(e->number);
	struct manifest *now;
	struct slice bytes;
	int r;

	if (!(e->tag & (OUTBOX_MANIFEST | OUTBOX_CONTENT)))
		return 0;
	r = replaced_by(m, &e->change.attr.content,
		e->tag & OUTBOX_MANIFEST ? e->manifest : (struct slice){ 0 }, &now);
	if (r <= 0)
		return r;
	e->change.attr.content = *manifest_content_id(now);
	bytes.p = manifest_bytes(now, &bytes.n);
	r = entry_set_manifest(v, e, bytes);
	if (r == 0)
		r = outbox_entry_encode(e, &row);
	return r == 0 ? view_put(v, CF_OUTBOX, &k, row.data, row.len, 0) : r;
}

static int rewrite_outbox(struct mend *m, struct view *v)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(m->c->at, CF_OUTBOX, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		_cleanup_arena_ struct arena *arena = NULL;
		struct outbox_entry e;
		uint64_t number;

		r = key_id_parse(store_iter_key(it), &number);
		if (r == 0)
			r = outbox_entry_decode(number, store_iter_value(it), &e, &arena);
		if (r == 0)
			r = rewrite_entry(m, v, &e);
		if (r < 0)
			return r;
	}
	return r;
}

static int rewrite_node(
	struct mend *m, struct view *v, uint64_t node, struct node_rec *rec, struct manifest *now)
{
	struct damaged_file *files;
	struct slice bytes;
	int r = 0;

	rec->attr.content = *manifest_content_id(now);
	bytes.p = manifest_bytes(now, &bytes.n);
	rec->tag &= (uint8_t)~NODE_INLINE_MANIFEST;
	rec->payload = (struct slice){ 0 };
	if (bytes.n <= MANIFEST_INLINE_MAX) {
		rec->tag |= NODE_INLINE_MANIFEST;
		rec->payload = bytes;
	} else {
		struct row_key k = key_digest(&rec->attr.content);

		r = view_put(v, CF_MANIFEST, &k, bytes.p, bytes.n, 0);
	}
	if (r == 0)
		r = view_put_node(v, node, rec, 0);
	if (r < 0)
		return r;
	files = reallocarray(m->files, m->n_files + 1, sizeof *files);
	if (!files)
		return -ENOMEM;
	m->files = files;
	files[m->n_files++] = (struct damaged_file){ .node = node };
	return 0;
}

static int rewrite_nodes(struct mend *m, struct view *v)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(m->c->at, CF_NODE, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct manifest *now;
		struct node_rec rec;
		uint64_t node;

		if (key_id_parse(store_iter_key(it), &node) < 0 ||
			node_decode(store_iter_value(it), &rec) < 0 || !S_ISREG(rec.attr.mode) ||
			digest_is_zero(&rec.attr.content))
			continue;
		r = replaced_by(m, &rec.attr.content,
			rec.tag & NODE_INLINE_MANIFEST ? rec.payload : (struct slice){ 0 }, &now);
		if (r > 0)
			r = rewrite_node(m, v, node, &rec, now);
		if (r < 0)
			return r;
	}
	return r;
}

/* ---- the newest content that is whole ---- */

static int take_whole(
	struct mend *m, struct damaged_file *f, const struct digest *id, struct slice inlined)
{
	_cleanup_manifest_ struct manifest *whole = NULL;
	struct replaced *p;
	int r;

	HASH_FIND(hh, m->contents, id, sizeof *id, p);
	if (p || digest_is_zero(id))
		return 0;
	r = check_manifest(m->c->at, inlined, id, &whole);
	if (r > 0) {
		manifest_unref(f->whole);
		f->whole = steal(whole);
	}
	return MIN(r, 0);
}

/* What the server has, and then what the outbox has made of it. */
static int find_whole(struct mend *m, struct damaged_file *f)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	_cleanup_buf_ struct buf row = { 0 };
	struct row_key k = key_id(f->node), bk = key_base(CF_NODE, k.b, k.n);
	struct base_rec base;
	struct node_rec rec;
	int r = store_snapshot_get(m->c->at, CF_BASE, bk.b, bk.n, &row);

	if (r > 0 && base_decode((struct slice){ row.data, row.len }, &base) == 0 && base.present &&
		node_decode(base.row, &rec) == 0)
		r = take_whole(m, f, &rec.attr.content,
			rec.tag & NODE_INLINE_MANIFEST ? rec.payload : (struct slice){ 0 });
	if (r >= 0)
		r = store_snapshot_iter(m->c->at, CF_OUTBOX, &it);
	for (; r >= 0 && store_iter_valid(it) > 0; store_iter_next(it)) {
		_cleanup_arena_ struct arena *arena = NULL;
		struct outbox_entry e;

		r = outbox_entry_decode(1, store_iter_value(it), &e, &arena);
		if (r == 0 && e.change.node == f->node &&
			(e.tag & (OUTBOX_MANIFEST | OUTBOX_CONTENT)))
			r = take_whole(m, f, &e.change.attr.content,
				e.tag & OUTBOX_MANIFEST ? e.manifest : (struct slice){ 0 });
	}
	return MIN(r, 0);
}

/* ---- names ---- */

/* "name (damaged copy, DEVICE, DATE).ext", free in the directory. */
static int free_name(struct mend *m, uint64_t parent, struct slice name, struct buf *ret)
{
	static const char was[] = "(conflicted copy, ", is[] = "(damaged copy, ";

	for (unsigned try = 0; try < NAME_TRIES; try = try ? try + 1 : 2) {
		struct node taken;
		uint8_t *at;
		int r;

		buf_clear(ret);
		r = conflict_name(name, m->c->o->device_name, clock_real_ns(), try, ret);
		if (r < 0)
			return r;
		at = memmem(ret->data, ret->len, was, strlen(was));
		if (!at)
			return -EINVAL;
		memcpy(at, is, strlen(is));
		memmove(at + strlen(is), at + strlen(was),
			ret->len - (size_t)(at - ret->data) - strlen(was));
		ret->len -= strlen(was) - strlen(is);
		r = tree_lookup(m->t, parent, (struct slice){ ret->data, ret->len }, &taken);
		if (r <= 0)
			return r;
	}
	return -EEXIST;
}

static int put_content(struct mend *m, uint64_t node, const struct node_attr *attr,
	const struct digest *expected, struct manifest *content)
{
	_cleanup_batch_ struct batch *b = NULL;
	struct content_update u = {
		.node = node,
		.expected = *expected,
		.manifest = content,
		.mtime_ns = attr->mtime_ns,
		.ctime_ns = clock_real_ns(),
	};
	enum content_result result;
	struct node after;
	int r = batch_new(m->t->store, &b);

	u.batch = b;
	return r < 0 ? r : tree_put_content(m->t, &u, &result, &after);
}

static int copy_beside(struct mend *m, const struct damaged_file *f, const struct node *n,
	uint64_t parent, struct slice name)
{
	struct node_init init = { .mode = n->attr.mode, .uid = n->attr.uid, .gid = n->attr.gid };
	_cleanup_manifest_ struct manifest *damaged = NULL;
	struct digest none = { 0 };
	struct node copy;
	int r = tree_manifest(m->t, f->node, &n->attr.content, &damaged);

	if (r == 0)
		r = tree_create(m->t, parent, name, &init, &copy);
	if (r == 0)
		r = put_content(m, copy.id, &n->attr, &none, damaged);
	if (r == 0)
		r = put_content(m, f->node, &n->attr, &n->attr.content, f->whole);
	return r;
}

struct first_name {
	uint64_t parent;
	struct buf name;
};

static int take_name(void *ctx, uint64_t parent, struct slice name)
{
	struct first_name *first = ctx;
	int r;

	first->parent = parent;
	r = buf_append(&first->name, name.p, name.n);
	return r < 0 ? r : 1;
}

static void tell(
	struct mend *m, const struct damaged_file *f, struct slice name, const struct buf *copy)
{
	struct check_problem p = { .severity = CHECK_LOSS, .what = "file" };
	char *path = NULL;

	snprintf(p.text, sizeof p.text, "the damaged bytes are kept as \"%.*s\"; %s",
		(int)copy->len, (const char *)copy->data,
		f->whole ? "the name has the newest content again that is whole"
			 : "no whole content of it is left on this device");
	p.fix = "compare it with a backup, then delete it";
	if (check_path_of(m->c->at, f->node, &path) > 0)
		p.paths[p.n_paths++] = path;
	check_tell(m->c, &p);
	free(path);
}

static int settle_file(struct mend *m, const struct damaged_file *f)
{
	struct first_name first = { 0 };
	_cleanup_buf_ struct buf copy = { 0 };
	_cleanup_renamed_ struct renamed done = { 0 };
	struct slice name;
	struct node n;
	int r = tree_names(m->t, f->node, take_name, &first);

	name = (struct slice){ first.name.data, first.name.len };
	if (r > 0)
		r = tree_get(m->t, f->node, &n);
	if (r > 0)
		r = free_name(m, first.parent, name, &copy);
	if (r == 0 && copy.len) {
		struct slice to = { copy.data, copy.len };

		r = f->whole ? copy_beside(m, f, &n, first.parent, to)
			     : tree_rename(m->t, first.parent, name, first.parent, to, 0, &done);
		if (r == 0)
			tell(m, f, name, &copy);
	}
	victim_done(&done.victim);
	buf_done(&first.name);
	return r;
}

static int mend_all(struct mend *m)
{
	_cleanup_view_ struct view v;
	_cleanup_batch_ struct batch *b = NULL;
	int r = batch_new(m->t->store, &b);

	tree_view(m->t, &v);
	if (r == 0)
		r = rewrite_nodes(m, &v);
	if (r == 0)
		r = rewrite_outbox(m, &v);
	if (r < 0)
		return r;
	view_emit_raw(&v, b);
	r = store_commit(m->t->store, b);
	for (size_t i = 0; r == 0 && i < m->n_files; i++) {
		r = find_whole(m, &m->files[i]);
		if (r == 0)
			r = settle_file(m, &m->files[i]);
	}
	return r < 0 ? r : tree_sync(m->t);
}

int check_repair_damaged(struct tree *t, struct cache *cache, const struct check_options *options,
	struct check_result *io, struct err *err)
{
	struct check c = { .o = options, .result = *io };
	_cleanup_(mend_done) struct mend m = { .t = t, .cache = cache, .c = &c };
	int r = store_snapshot_new(t->store, &c.at);

	if (r == 0)
		r = mend_all(&m);
	store_snapshot_free(c.at);
	*io = c.result;
	return r < 0 ? err_sys(err, -r, "%s: damaged files cannot be kept aside", options->dir) : 0;
}
