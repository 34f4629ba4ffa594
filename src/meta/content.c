// SPDX-License-Identifier: Apache-2.0
/* Sealed contents come into the tree; manifests go out. */
#include "clock.h"
#include "meta/sealed.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <sys/stat.h>

#define REVIVED_MODE 0644

struct row_key key_digest(const struct digest *d)
{
	struct row_key k = { .n = DIGEST_BYTES };

	memcpy(k.b, d->b, DIGEST_BYTES);
	return k;
}

struct digest content_normal(const struct digest *content)
{
	_cleanup_manifest_ struct manifest *empty = manifest_empty();

	if (empty && digest_eq(content, manifest_content_id(empty)))
		return (struct digest){ 0 };
	return *content;
}

int manifest_load(struct view *v, const struct node_rec *rec, struct slice *ret)
{
	struct row_key k;
	int r;

	if (digest_is_zero(&rec->attr.content))
		return 0;
	if (rec->tag & NODE_INLINE_MANIFEST) {
		*ret = rec->payload;
		return 1;
	}
	k = key_digest(&rec->attr.content);
	r = view_get(v, CF_MANIFEST, &k, ret);
	return r == 0 ? -ENOENT : r;
}

int entry_set_manifest(struct view *v, struct outbox_entry *e, struct slice bytes)
{
	const struct digest *content = &e->change.attr.content;
	struct row_key k = key_digest(content);
	int r;

	e->tag &= (uint8_t) ~(OUTBOX_MANIFEST | OUTBOX_CONTENT);
	if (digest_is_zero(content))
		return 0;
	if (bytes.n <= MANIFEST_INLINE_MAX) {
		e->tag |= OUTBOX_MANIFEST;
		e->manifest = bytes;
		return 0;
	}
	r = view_put(v, CF_MANIFEST, &k, bytes.p, bytes.n, 0);
	if (r == 0)
		r = view_copy(v, content->b, DIGEST_BYTES, &e->manifest);
	if (r == 0)
		e->tag |= OUTBOX_CONTENT;
	return r;
}

static int manifest_checked(struct slice bytes, const struct digest *content, struct manifest **ret)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	int r = manifest_decode(bytes.p, bytes.n, &m, NULL);

	if (r < 0)
		return r;
	if (!digest_eq(manifest_content_id(m), content))
		return -EBADMSG;
	*ret = steal(m);
	return 0;
}

int tree_manifest(
	struct tree *t, uint64_t node, const struct digest *content, struct manifest **ret)
{
	struct digest normal = content_normal(content);
	_cleanup_buf_ struct buf row = { 0 };
	struct row_key k = key_digest(&normal);
	struct node_rec rec;
	int r;

	if (digest_is_zero(&normal)) {
		*ret = manifest_empty();
		return *ret ? 0 : -ENOMEM;
	}
	r = node_read(t, node, &row, &rec);
	if (r < 0)
		return r;
	if (r && (rec.tag & NODE_INLINE_MANIFEST) && digest_eq(&rec.attr.content, &normal))
		return manifest_checked(rec.payload, &normal, ret);
	buf_clear(&row);
	r = store_get(t->store, CF_MANIFEST, k.b, k.n, &row);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	return manifest_checked((struct slice){ row.data, row.len }, &normal, ret);
}

/* One tree_put_content() at work. */
struct put {
	const struct content_update *u;
	struct tree *t;
	struct view v;
	struct outbox_writer w;
	struct digest content; /* normal */
	enum content_result result;
	uint64_t node; /* that carries it in the end */
	struct tree_event event; /* of a name that came without the mount's doing */
	bool has_event;
};

static int emit(void *ctx, struct outbox_entry *e)
{
	struct put *p = ctx;

	return outbox_add(&p->w, e);
}

static int put_write(struct put *p)
{
	const struct content_update *u = p->u;
	struct outbox_entry e = {
		.change = {
			.kind = CHANGE_WRITE,
			.node = p->node,
			.time_ns = u->mtime_ns,
			.attr = {
				.mode = u->mode ? S_IFREG | (u->mode & 07777) : 0,
				.mtime_ns = u->mtime_ns,
				.ctime_ns = u->ctime_ns,
				.size = manifest_size(u->manifest),
				.content = p->content,
			},
		},
	};
	struct slice bytes;
	int r;

	bytes.p = manifest_bytes(u->manifest, &bytes.n);
	r = entry_set_manifest(&p->v, &e, bytes);
	return r < 0 ? r : outbox_add(&p->w, &e);
}

static int note_conflict(struct put *p, enum conflict_kind kind, uint64_t parent, struct slice name,
	struct slice original)
{
	struct conflict_rec rec = { kind, clock_real_ns(), parent, name, original };

	p->has_event = true;
	p->event = (struct tree_event){ TREE_LINK, p->node, parent, name };
	return conflict_put(&p->v, p->t->conflict_tail + 1, &rec);
}

/* Somebody else's content came first: ours becomes a node of its own beside it. */
static int put_copy(struct put *p, const struct node_rec *rec)
{
	struct outbox_entry e = {
		.change = {
			.kind = CHANGE_CREATE,
			.parent = rec->parent,
			.attr = rec->attr,
			.time_ns = clock_real_ns(),
		},
	};
	struct change *c = &e.change;
	int r = conflict_name_free(p->t, &p->v, rec->parent, rec->name, p->u->mtime_ns, &c->name);

	if (r == 0)
		r = node_id_next(p->t, &p->node);
	c->node = p->node;
	c->attr.size = 0;
	c->attr.content = (struct digest){ 0 };
	p->result = CONTENT_COPIED;
	if (r == 0)
		r = outbox_add(&p->w, &e);
	if (r == 0)
		r = put_write(p);
	if (r < 0)
		return r;
	return note_conflict(p, CONFLICT_WRITE_WRITE, c->parent, c->name, rec->name);
}

/* Deleted elsewhere: the write wins, and its parents come back with it. */
static int put_revived(struct put *p)
{
	const struct content_update *u = p->u;
	struct reviver rv = { p->t, &p->v, emit, p };
	struct node_rec dir, rec = { 0 };
	int64_t now = clock_real_ns();
	uint64_t parent = NODE_ROOT;
	int r = revive_dir(&rv, u->home_parent, now, &parent);

	if (r == 0)
		r = dir_of(&p->v, parent, &dir);
	if (r < 0)
		return r;
	rec.attr = dir.attr;
	rec.attr.mode = S_IFREG | (u->mode ? u->mode & 07777 : REVIVED_MODE);
	rec.attr.atime_ns = rec.attr.btime_ns = u->mtime_ns;
	p->result = CONTENT_REVIVED;
	r = revive_node(&rv, u->node, &rec, parent, u->home_name, now);
	if (r == 0)
		r = put_write(p);
	if (r == 0)
		r = view_node(&p->v, p->node, &rec);
	if (r <= 0)
		return r < 0 ? r : -EIO;
	return note_conflict(p, CONFLICT_WRITE_DELETE, rec.parent, rec.name, u->home_name);
}

/*
 * A file that stays open goes on being written after what it held was copied aside, by a seal or by
 * a rebase: the same copy gets its next version, not one copy more for every seal. 1 / 0.
 */
static int find_own_copy(struct put *p, const struct node_rec *rec, const struct digest *content)
{
	for (unsigned try = 0;; try = try ? try + 1 : 2) {
		_cleanup_buf_ struct buf name = { 0 };
		struct node_rec copy;
		uint64_t node;
		int r = conflict_name(rec->name, p->t->device_name, p->u->mtime_ns, try, &name);

		if (r == 0)
			r = view_link(
				&p->v, rec->parent, (struct slice){ name.data, name.len }, &node);
		if (r > 0)
			r = view_node(&p->v, node, &copy);
		if (r <= 0)
			return r;
		if (S_ISREG(copy.attr.mode) && digest_eq(&copy.attr.content, content)) {
			p->node = node;
			return 1;
		}
	}
}

static int put_beside(struct put *p, const struct node_rec *rec, const struct digest *expected)
{
	int r = find_own_copy(p, rec, expected);

	if (r <= 0)
		return r < 0 ? r : put_copy(p, rec);
	p->result = CONTENT_COPIED;
	return put_write(p);
}

/* Who unlinks a file tells the tree first, and then those who hold its bytes. */
static int put_absent(struct put *p)
{
	int r = died_here(p->t, p->node, p->u->known_entry);

	return r == 0 ? put_revived(p) : MIN(r, 0);
}

static int put_decide(struct put *p)
{
	struct digest expected = content_normal(&p->u->expected);
	struct node_rec rec;
	int r;

	p->result = CONTENT_DROPPED;
	if (p->u->unlinked)
		return 0;
	r = view_node(&p->v, p->node, &rec);
	if (r == 0 && p->u->must_exist)
		return -ENOENT;
	if (r == 0)
		return put_absent(p);
	if (r < 0)
		return r;
	if (!S_ISREG(rec.attr.mode))
		return -EINVAL;
	p->result = CONTENT_PUT;
	if (digest_eq(&rec.attr.content, &expected))
		return put_write(p);
	return digest_eq(&rec.attr.content, &p->content) ? 0 : put_beside(p, &rec, &expected);
}

/* Goes with the content, whether that made an entry or the node had it already. */
static void note_stagings(struct put *p)
{
	struct sealed s = {
		.entry = p->t->tail + p->w.n * ENTRY_STRIDE,
		.node = p->node,
		.content = p->content,
	};

	for (size_t i = 0; i < p->u->n_stagings; i++) {
		s.staging = p->u->stagings[i];
		sealed_put(p->w.batch ? p->w.batch : p->w.own, &s);
	}
}

static int put_locked(struct put *p, struct node *ret_node)
{
	struct node_rec rec;
	int r;

	r = put_decide(p);
	if (r < 0)
		return r;
	note_stagings(p);
	r = outbox_end(&p->w);
	if (r < 0)
		return r;
	if (p->has_event)
		p->t->conflict_tail++;
	*ret_node = (struct node){ .id = p->node };
	r = view_node(&p->v, p->node, &rec);
	if (r > 0)
		node_show(p->t, p->node, &rec, ret_node);
	return MIN(r, 0);
}

static int put_run(struct put *p, struct node *ret_node)
{
	struct tree *t = p->t;
	int r;

	SCOPED_LOCK(&t->lock);
	tree_view(t, &p->v);
	r = outbox_begin(&p->w, t, &p->v, p->u->batch);
	if (r < 0)
		return r;
	if (p->u->batch)
		batch_mark(p->u->batch);
	r = put_locked(p, ret_node);
	/* The caller tries again with its chunk rows, and must not bring stale rows of ours. */
	if (r < 0 && p->u->batch)
		batch_rewind(p->u->batch);
	return r;
}

int tree_put_content(struct tree *t, const struct content_update *update,
	enum content_result *ret_result, struct node *ret_node)
{
	struct put p = { .u = update, .t = t, .node = update->node };
	struct events ev = { 0 };
	struct node node;
	int r;

	p.content = content_normal(manifest_content_id(update->manifest));
	r = put_run(&p, &node);
	if (r == 0) {
		*ret_result = p.result;
		*ret_node = node;
		if (p.w.n)
			outbox_notify(t);
		if (p.has_event)
			(void)!events_add(&ev, p.event);
		/* Who has the node open has other bytes than the node. */
		if (p.result == CONTENT_COPIED)
			(void)!events_add(&ev, (struct tree_event){ TREE_CONTENT, update->node });
		events_tell(t, &ev);
	}
	events_done(&ev);
	outbox_writer_done(&p.w);
	view_done(&p.v);
	return r;
}
