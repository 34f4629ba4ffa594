// SPDX-License-Identifier: Apache-2.0
#include "replica_kit.h"

#include "meta/check.h"
#include "bounds.h"
#include "chunk/pack.h"
#include "clock.h"
#include "io.h"
#include "meta/rows.h"

#include <check.h>
#include <errno.h>
#include <sys/stat.h>

void world_open(struct world *w)
{
	struct err err = { 0 };
	char url[96];

	strcpy(w->dir, "/tmp/varve-world-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(w->dir));
	snprintf(url, sizeof url, "dir:%s/blobs", w->dir);
	ck_assert_msg(db_open("sqlite::memory:", &w->db, &err) == 0, "%s", err.text);
	ck_assert_msg(db_migrate(w->db, &err) == 0, "%s", err.text);
	ck_assert_msg(blob_open(url, &w->blob, &err) == 0, "%s", err.text);
	ck_assert_msg(vault_open(w->db, w->blob, &w->vault, &err) == 0, "%s", err.text);
	{
		DB_STMT(s, w->db,
			"INSERT INTO account (name, password, salt, params, created_ns)"
			" VALUES ('anna', ?1, ?1, '', 0) RETURNING id",
			&err);
		db_bind_blob(s, 1, "x", 1);
		ck_assert_int_eq(db_step(s, &err), 1);
	}
	ck_assert_msg(vault_create_drive(w->vault, 1, "home", "home", &w->drive, &err) == 0, "%s",
		err.text);
	DB_STMT(s, w->db, "SELECT created_ns FROM drive WHERE id = ?1", &err);
	db_bind_int(s, 1, w->drive);
	ck_assert_int_eq(db_step(s, &err), 1);
	w->created_ns = db_int(s, 0);
}

void world_close(struct world *w)
{
	vault_free(w->vault);
	blob_free(w->blob);
	db_free(w->db);
	ck_assert_int_eq(io_remove_tree(w->dir), 0);
}

static void note_event(struct device *d, const struct tree_event *e)
{
	static const char *const kinds[] = { "attr", "content", "link", "gone" };

	ck_assert_int_eq(buf_printf(&d->events, "%s %llx %llx %.*s\n", kinds[e->kind],
				 (unsigned long long)e->node, (unsigned long long)e->parent,
				 (int)e->name.n, e->name.n ? (const char *)e->name.p : ""),
		0);
}

static void changed(void *ctx, const struct tree_event *events, size_t n)
{
	for (size_t i = 0; i < n; i++)
		note_event(ctx, &events[i]);
}

static void open_parts(struct device *d)
{
	struct err err = { 0 };
	struct tree_options o = { .device_name = d->name };
	int r;

	ck_assert_msg(store_open(d->dir, &d->st, &err) == 0, "%s", err.text);
	ck_assert_msg(cache_open(d->st, d->dir, &d->cache, &err) == 0, "%s", err.text);
	o.store = d->st;
	o.cache = d->cache;
	r = tree_format(d->st, "home", d->number, d->w->created_ns, &err);
	ck_assert_msg(r == 0 || r == -EEXIST, "%s", err.text);
	ck_assert_msg(tree_open(&o, &d->t, &err) == 0, "%s", err.text);
	tree_set_sink(d->t, (struct change_sink){ changed, d });
}

static void close_parts(struct device *d)
{
	tree_free(d->t);
	cache_free(d->cache);
	store_free(d->st);
}

void device_open(struct device *d, struct world *w, uint32_t number, const char *name)
{
	*d = (struct device){ .w = w, .number = number };
	snprintf(d->name, sizeof d->name, "%s", name);
	snprintf(d->dir, sizeof d->dir, "%s/device-%u", w->dir, number);
	ck_assert_int_eq(io_mkdirs(d->dir, 0700), 0);
	open_parts(d);
}

void device_reopen(struct device *d)
{
	close_parts(d);
	open_parts(d);
}

void device_close(struct device *d)
{
	close_parts(d);
	buf_done(&d->events);
}

static void fill_pack(struct device *d, struct outgoing *o)
{
	for (size_t i = 0; i < o->n_chunks; i++) {
		_cleanup_buf_ struct buf plain = { 0 };

		if (i == 0)
			ck_assert_int_eq(pack_begin(&o->memory[2]), 0);
		ck_assert_int_eq(cache_read_chunk(d->cache, &o->chunks[i].id, &plain), 1);
		ck_assert_uint_eq(plain.len, o->chunks[i].length);
		ck_assert_int_eq(
			pack_add(&o->memory[2], &o->chunks[i].id, plain.data, plain.len), 0);
	}
	o->commit.pack = (struct slice){ o->memory[2].data, o->memory[2].len };
}

static void send_commit(
	struct device *d, struct outgoing *o, struct commit_reply *ret, struct arena **ret_arena)
{
	struct committer who = { .device = d->number, .number = d->number };
	struct err err = { 0 };
	int r;

	fill_pack(d, o);
	r = vault_commit(d->w->vault, d->w->drive, &who, &o->commit, ret, ret_arena, &err);
	ck_assert_msg(r == 0, "%s", err.text);
}

static void expect_answerable(const struct commit_reply *reply)
{
	for (size_t i = 0; i < reply->n_refused; i++) {
		const struct refused_change *c = &reply->refused[i];

		ck_assert_msg(c->reason != REFUSAL_INVALID && c->reason != REFUSAL_CHUNK,
			"change %u: %s: %.*s", c->index, refusal_text(c->reason), (int)c->detail.n,
			(const char *)c->detail.p);
	}
}

int device_push(struct device *d)
{
	_cleanup_arena_ struct arena *arena = NULL;
	struct commit_reply reply;
	struct outgoing o;
	int r = replica_next(d->t, &o);

	ck_assert_int_ge(r, 0);
	if (r == 0)
		return 0;
	send_commit(d, &o, &reply, &arena);
	if (reply.seq) {
		ck_assert_int_eq(replica_committed(d->t, &o, reply.seq), 0);
	} else {
		expect_answerable(&reply);
		ck_assert_int_eq(replica_refused(d->t, &o, &reply), 0);
	}
	outgoing_done(&o);
	return reply.seq ? 1 : -1;
}

void device_push_and_die(struct device *d)
{
	_cleanup_arena_ struct arena *arena = NULL;
	struct commit_reply reply;
	struct outgoing o;

	if (replica_next(d->t, &o) <= 0)
		return;
	send_commit(d, &o, &reply, &arena);
	outgoing_done(&o);
	device_reopen(d);
}

int device_pull(struct device *d)
{
	for (;;) {
		_cleanup_arena_ struct arena *arena = NULL;
		_cleanup_buf_ struct buf page = { 0 };
		struct changes c;
		struct err err = { 0 };
		int r;

		ck_assert_int_eq(vault_changes(d->w->vault, d->w->drive, replica_cursor(d->t),
					 CHANGES_ROWS_MAX, &page, &err),
			0);
		ck_assert_int_eq(changes_decode(page.data, page.len, &c, &arena, &err), 0);
		if (c.to == c.from)
			return 0;
		r = replica_apply(d->t, &c, &err);
		ck_assert_msg(r == 0, "%s: %s", d->name, err.text);
	}
}

void device_sync(struct device *d)
{
	int r;

	/* A commit whose fate is not known goes first: nothing may be merged meanwhile. */
	for (int i = 0; i < 200; i++) {
		r = device_push(d);
		if (r > 0)
			continue;
		ck_assert_int_eq(device_pull(d), 0);
		if (r == 0)
			return;
	}
	ck_abort_msg("%s: never quiet", d->name);
}

struct slice text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

uint64_t make(struct device *d, uint64_t parent, const char *name, uint32_t mode)
{
	struct node_init init = { .mode = mode, .target = text("target") };
	struct node n;

	if (!S_ISLNK(mode))
		init.target.n = 0;
	ck_assert_int_eq(tree_create(d->t, parent, text(name), &init, &n), 0);
	return n.id;
}

static struct manifest *manifest_of(const char *bytes)
{
	struct manifest_builder *b;
	struct manifest *m;
	struct digest id;

	ck_assert_int_eq(manifest_builder_new(&b), 0);
	digest_of(bytes, strlen(bytes), &id);
	if (*bytes)
		ck_assert_int_eq(manifest_add_chunk(b, &id, strlen(bytes)), 0);
	ck_assert_int_eq(manifest_builder_finish(b, &m), 0);
	return m;
}

struct digest content_of(const char *bytes)
{
	_cleanup_manifest_ struct manifest *m = manifest_of(bytes);

	return *bytes ? *manifest_content_id(m) : (struct digest){ 0 };
}

enum content_result write_upon(struct device *d, uint64_t node, const struct digest *expected,
	const char *bytes, uint64_t home_parent, const char *home_name, uint64_t *ret_node)
{
	_cleanup_manifest_ struct manifest *m = manifest_of(bytes);
	_cleanup_batch_ struct batch *b = NULL;
	struct content_update u = {
		.node = node,
		.expected = *expected,
		.manifest = m,
		.mtime_ns = clock_real_ns(),
		.ctime_ns = clock_real_ns(),
		.home_parent = home_parent,
		.home_name = text(home_name),
	};
	enum content_result result;
	struct digest id;
	struct node n;

	ck_assert_int_eq(batch_new(d->st, &b), 0);
	digest_of(bytes, strlen(bytes), &id);
	if (*bytes)
		ck_assert_int_eq(cache_add(d->cache, b, &id, bytes, strlen(bytes), 0), 0);
	u.batch = b;
	u.known_entry = d->known_entry ? d->known_entry : tree_place(d->t).entry;
	ck_assert_int_eq(tree_put_content(d->t, &u, &result, &n), 0);
	if (ret_node)
		*ret_node = n.id;
	return result;
}

enum content_result write_file(struct device *d, uint64_t node, const char *bytes)
{
	struct node n;

	ck_assert_int_eq(tree_get(d->t, node, &n), 1);
	return write_upon(d, node, &n.attr.content, bytes, NODE_ROOT, "home", NULL);
}

uint64_t make_file(struct device *d, uint64_t parent, const char *name, const char *bytes)
{
	uint64_t node = make(d, parent, name, S_IFREG | 0644);

	ck_assert_int_eq(write_file(d, node, bytes), CONTENT_PUT);
	return node;
}

int remove_file(struct device *d, uint64_t parent, const char *name)
{
	_cleanup_victim_ struct victim v = { 0 };

	return tree_unlink(d->t, parent, text(name), &v);
}

int move(struct device *d, uint64_t parent, const char *name, uint64_t new_parent,
	const char *new_name)
{
	_cleanup_renamed_ struct renamed v = { 0 };

	return tree_rename(d->t, parent, text(name), new_parent, text(new_name), 0, &v);
}

uint64_t find(struct device *d, uint64_t parent, const char *name)
{
	struct node n;
	int r = tree_lookup(d->t, parent, text(name), &n);

	ck_assert_int_ge(r, 0);
	return r ? n.id : 0;
}

bool has_bytes(struct device *d, uint64_t node, const char *bytes)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	struct digest want = content_of(bytes);
	struct node n;

	ck_assert_int_eq(tree_get(d->t, node, &n), 1);
	ck_assert_int_eq(tree_manifest(d->t, node, &n.attr.content, &m), 0);
	ck_assert_uint_eq(manifest_size(m), n.attr.size);
	return digest_eq(&want, &n.attr.content);
}

static void dump_xattrs(struct device *d, uint64_t node, struct buf *ret)
{
	_cleanup_buf_ struct buf names = { 0 };

	ck_assert_int_eq(tree_listxattr(d->t, node, &names), 0);
	for (size_t at = 0; at < names.len; at += strlen((char *)names.data + at) + 1) {
		const char *name = (const char *)names.data + at;
		_cleanup_buf_ struct buf value = { 0 };

		ck_assert_int_eq(tree_getxattr(d->t, node, text(name), &value), 0);
		ck_assert_int_eq(buf_printf(ret, " %s=%.*s", name, (int)value.len,
					 value.len ? (const char *)value.data : ""),
			0);
	}
}

static void dump_node(struct device *d, uint64_t id, uint32_t type, struct buf *ret)
{
	_cleanup_buf_ struct buf target = { 0 };
	char hex[DIGEST_HEX_BYTES];
	struct node n;

	ck_assert_int_eq(tree_get(d->t, id, &n), 1);
	ck_assert_uint_eq(n.attr.mode & S_IFMT, type);
	digest_hex(&n.attr.content, hex);
	if (S_ISLNK(n.attr.mode))
		ck_assert_int_eq(tree_readlink(d->t, id, &target), 0);
	ck_assert_int_eq(
		buf_printf(ret,
			" %llx %o %u:%u %llu links %u size %llu %.8s a%lld m%lld c%lld b%lld -> %s",
			(unsigned long long)id, n.attr.mode, n.attr.uid, n.attr.gid,
			(unsigned long long)n.attr.rdev, n.nlink, (unsigned long long)n.attr.size,
			hex, (long long)n.attr.atime_ns, (long long)n.attr.mtime_ns,
			(long long)n.attr.ctime_ns, (long long)n.attr.btime_ns, buf_str(&target)),
		0);
	dump_xattrs(d, id, ret);
	ck_assert_int_eq(buf_append(ret, "\n", 1), 0);
}

static void dump_dir(struct device *d, uint64_t dir, const char *path, struct buf *ret)
{
	struct tree_dir *td;
	struct tree_dirent e;
	int r;

	ck_assert_int_eq(tree_opendir(d->t, dir, &td), 0);
	while ((r = tree_readdir(td, &e)) > 0) {
		_cleanup_buf_ struct buf sub = { 0 };

		ck_assert_int_eq(
			buf_printf(&sub, "%s/%.*s", path, (int)e.name.n, (const char *)e.name.p),
			0);
		ck_assert_int_eq(buf_append(ret, sub.data, sub.len), 0);
		dump_node(d, e.node, e.type, ret);
		if (S_ISDIR(e.type))
			dump_dir(d, e.node, buf_str(&sub), ret);
	}
	ck_assert_int_eq(r, 0);
	tree_closedir(td);
}

void device_dump(struct device *d, struct buf *ret)
{
	dump_node(d, NODE_ROOT, S_IFDIR, ret);
	dump_dir(d, NODE_ROOT, "", ret);
	ck_assert_ptr_nonnull(buf_str(ret));
}

void expect_equal(struct device *a, struct device *b)
{
	_cleanup_buf_ struct buf x = { 0 }, y = { 0 };

	device_dump(a, &x);
	device_dump(b, &y);
	ck_assert_msg(strcmp((char *)x.data, (char *)y.data) == 0, "%s:\n%s\n%s:\n%s", a->name,
		(char *)x.data, b->name, (char *)y.data);
}

/* What link rows say about a node. */
struct count {
	struct device *d;
	uint64_t node;
	uint32_t links;
	uint32_t subdirs;
	bool found_home;
};

static int count_name(void *ctx, uint64_t parent, struct slice name)
{
	struct count *c = ctx;
	struct node n;

	ck_assert_int_eq(tree_lookup(c->d->t, parent, name, &n), 1);
	ck_assert_uint_eq(n.id, c->node);
	c->links++;
	return 0;
}

static void check_node(struct device *d, uint64_t id, const struct node_rec *rec)
{
	struct count c = { .d = d, .node = id };
	_cleanup_iter_ struct store_iter *it = NULL;
	struct row_key k = key_id(id);
	uint32_t subdirs = 0;

	ck_assert_int_eq(tree_names(d->t, id, count_name, &c), 0);
	ck_assert_uint_eq(c.links, rec->links);
	ck_assert_uint_eq(c.links > 0, id != NODE_ROOT);
	ck_assert(!S_ISDIR(rec->attr.mode) || rec->links <= 1);
	ck_assert_int_eq(store_iter_new(d->st, CF_LINK, k.b, k.n, &it), 0);
	for (store_iter_seek(it, k.b, k.n); store_iter_valid(it) > 0; store_iter_next(it)) {
		struct link_rec link;

		ck_assert(S_ISDIR(rec->attr.mode));
		ck_assert_int_eq(link_decode(store_iter_value(it), &link), 0);
		subdirs += S_ISDIR(link.type);
	}
	ck_assert_uint_eq(subdirs, rec->subdirs);
}

static size_t count_rows(struct device *d, enum store_cf cf)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	size_t n = 0;

	ck_assert_int_eq(store_iter_new(d->st, cf, NULL, 0, &it), 0);
	for (store_iter_seek(it, "", 0); store_iter_valid(it) > 0; store_iter_next(it))
		n++;
	return n;
}

static void found_problem(void *ctx, const struct check_problem *p)
{
	const struct device *d = ctx;

	ck_assert_msg(p->severity == CHECK_NOTE, "%s: %s", d->name, p->text);
}

/* What `varve doctor` would say of it. */
static void examine(struct device *d)
{
	struct check_options options = {
		.store = d->st,
		.dir = d->dir,
		.device_name = d->name,
		.cache = d->cache,
		.found = found_problem,
		.ctx = d,
	};
	struct check_result result;
	struct err err = { 0 };

	ck_assert_msg(check_run(&options, &result, &err) == 0, "%s", err.text);
	ck_assert(!result.rebuild && result.problems == 0);
}

void device_check(struct device *d)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	struct outbox_stats stats;
	size_t names = 0, links = 0;

	ck_assert_int_eq(store_iter_new(d->st, CF_NODE, NULL, 0, &it), 0);
	for (store_iter_seek(it, "", 0); store_iter_valid(it) > 0; store_iter_next(it)) {
		struct node_rec rec;
		uint64_t id;

		ck_assert_int_eq(key_id_parse(store_iter_key(it), &id), 0);
		ck_assert_int_eq(node_decode(store_iter_value(it), &rec), 0);
		check_node(d, id, &rec);
		links += rec.links;
		names += rec.links > 1 ? rec.links - 1 : 0;
	}
	ck_assert_uint_eq(count_rows(d, CF_NAMES), names);
	ck_assert_uint_eq(count_rows(d, CF_LINK), links);
	replica_outbox_stats(d->t, &stats);
	ck_assert_uint_ge(count_rows(d, CF_OUTBOX), stats.entries);
	if (count_rows(d, CF_OUTBOX) == 0)
		ck_assert_uint_eq(count_rows(d, CF_BASE), 0);
	examine(d);
}
