// SPDX-License-Identifier: Apache-2.0
#include "server_kit.h"

#include "chunk/pack.h"
#include "io.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

/* The kit serves benchmarks too, where Check's assertions cannot stand. */
#define MUST(condition)                                                                 \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                        \
		}                                                                       \
	} while (0)
#define MUST_OK(call, err)                                                              \
	do {                                                                            \
		if ((call) < 0) {                                                       \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, (err).text); \
			abort();                                                        \
		}                                                                       \
	} while (0)

static void open_parts(struct kit *k, const char *db_url)
{
	struct err err = { 0 };
	char url[96];

	snprintf(url, sizeof url, "dir:%s", k->dir);
	MUST_OK(db_open(db_url, &k->db, &err), err);
	MUST_OK(db_migrate(k->db, &err), err);
	MUST_OK(blob_open(url, &k->blob, &err), err);
	MUST(vault_open(k->db, k->blob, &k->vault, &err) == 0);
}

static int64_t add_account(struct kit *k)
{
	struct err err;
	DB_STMT(s, k->db,
		"INSERT INTO account (name, password, salt, params, created_ns)"
		" VALUES ('anna', ?1, ?1, '', 0) RETURNING id",
		&err);

	db_bind_blob(s, 1, "x", 1);
	MUST(db_step(s, &err) == 1);
	return db_int(s, 0);
}

static const char *file_url(const struct kit *k, char url[96])
{
	snprintf(url, 96, "sqlite:%s/db", k->dir);
	return url;
}

/* What need not survive anything does not wait for the disk. */
static const char *place_for(bool in_memory)
{
	const char *place = getenv("VARVE_KIT_DIR");

	if (place)
		return place;
	return in_memory && access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

void kit_open(struct kit *k, bool in_memory)
{
	char url[96];

	*k = (struct kit){ .owns_dir = true };
	snprintf(k->dir, sizeof k->dir, "%s/varve-kit-XXXXXX", place_for(in_memory));
	MUST(mkdtemp(k->dir));
	open_parts(k, in_memory ? "sqlite::memory:" : file_url(k, url));
	k->account = add_account(k);
	k->drive = kit_new_drive(k, "home");
}

void kit_connect(struct kit *k, const struct kit *first)
{
	char url[96];

	*k = *first;
	k->owns_dir = false;
	open_parts(k, file_url(k, url));
}

void kit_close(struct kit *k)
{
	vault_free(k->vault);
	blob_free(k->blob);
	db_free(k->db);
	if (k->owns_dir)
		MUST(io_remove_tree(k->dir) == 0);
}

int64_t kit_new_drive(struct kit *k, const char *name)
{
	struct err err = { 0 };
	int64_t drive = 0;
	int r = vault_create_drive(k->vault, k->account, name, name, &drive, &err);

	MUST_OK(r, err);
	return drive;
}

int64_t kit_sql(struct kit *k, const char *sql)
{
	struct err err = { 0 };
	DB_STMT(s, k->db, sql, &err);
	int r = db_step(s, &err);

	MUST_OK(r, err);
	return r ? db_int(s, 0) : -1;
}

struct manifest *kit_manifest(const void *p, size_t n)
{
	struct manifest_builder *b;
	struct manifest *m;
	struct digest id;

	MUST(manifest_builder_new(&b) == 0);
	digest_of(p, n, &id);
	if (n)
		MUST(manifest_add_chunk(b, &id, n) == 0);
	MUST(manifest_builder_finish(b, &m) == 0);
	return m;
}

struct batch *batch_new(uint64_t base)
{
	struct batch *b = calloc(1, sizeof *b);

	MUST(b);
	b->base = base;
	MUST(getrandom(b->id, sizeof b->id, 0) == sizeof b->id);
	return b;
}

void batch_free(struct batch *b)
{
	for (size_t i = 0; i < b->n_bytes; i++)
		buf_done(&b->bytes[i]);
	buf_done(&b->pack);
	free(b);
}

void batch_add(struct batch *b, const struct change *c)
{
	struct buf *bytes = &b->bytes[b->n_bytes++];

	MUST(change_encode(c, bytes) == 0);
	b->changes[b->n_changes++] = (struct slice){ bytes->data, bytes->len };
}

void batch_chunk(struct batch *b, const void *p, size_t n)
{
	struct digest id;

	digest_of(p, n, &id);
	if (b->pack.len == 0)
		MUST(pack_begin(&b->pack) == 0);
	MUST(pack_add(&b->pack, &id, p, n) == 0);
}

void batch_content(struct batch *b, const struct manifest *m)
{
	struct buf *bytes = &b->bytes[b->n_bytes++];
	size_t n;
	const uint8_t *p = manifest_bytes(m, &n);

	MUST(buf_append(bytes, p, n) == 0);
	b->contents[b->n_contents++] = (struct slice){ bytes->data, bytes->len };
}

void batch_file(struct batch *b, struct node_attr *attr, const void *p, size_t n)
{
	_cleanup_manifest_ struct manifest *m = kit_manifest(p, n);

	if (n)
		batch_chunk(b, p, n);
	batch_content(b, m);
	attr->size = n;
	attr->content = *manifest_content_id(m);
}

struct commit batch_commit(const struct batch *b)
{
	struct commit c = {
		.base = b->base,
		.pack = { b->pack.data, b->pack.len },
		.contents = b->contents,
		.n_contents = b->n_contents,
		.changes = b->changes,
		.n_changes = b->n_changes,
	};

	memcpy(c.id, b->id, sizeof c.id);
	return c;
}

struct answer batch_send(struct kit *k, uint32_t device, const struct batch *b)
{
	_cleanup_arena_ struct arena *arena = NULL;
	const struct committer who = { device, device };
	struct commit c = batch_commit(b);
	struct commit_reply reply = { 0 };
	struct answer a = { 0 };
	struct err err = { 0 };

	a.result = vault_commit(k->vault, k->drive, &who, &c, &reply, &arena, &err);
	if (a.result < 0)
		return a;
	a.seq = reply.seq;
	a.head = reply.head;
	a.n_refused = reply.n_refused;
	if (reply.n_refused) {
		a.reason = reply.refused[0].reason;
		a.index = reply.refused[0].index;
	}
	return a;
}

struct answer batch_post(struct kit *k, uint32_t device, struct batch *b)
{
	struct answer a = batch_send(k, device, b);

	batch_free(b);
	return a;
}

struct answer send_one(struct kit *k, uint32_t device, uint64_t base, const struct change *c)
{
	struct batch *b = batch_new(base);

	batch_add(b, c);
	return batch_post(k, device, b);
}

struct slice text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

struct change create(uint64_t node, uint64_t parent, const char *name, uint32_t mode)
{
	struct change c = { .kind = CHANGE_CREATE,
		.node = node,
		.parent = parent,
		.name = text(name),
		.attr = { .mode = mode, .mtime_ns = T0, .ctime_ns = T0, .btime_ns = T0 },
		.time_ns = T0 };

	if (S_ISLNK(mode)) {
		c.target = text("a target");
		c.attr.size = c.target.n;
	}
	return c;
}

struct change rename_to(uint64_t node, uint64_t parent, const char *name, uint64_t new_parent,
	const char *new_name, uint64_t victim)
{
	return (struct change){ .kind = CHANGE_RENAME,
		.node = node,
		.parent = parent,
		.name = text(name),
		.new_parent = new_parent,
		.new_name = text(new_name),
		.victim = victim,
		.time_ns = T0 + 1 };
}

struct change unlink_of(uint64_t node, uint64_t parent, const char *name)
{
	return (struct change){ .kind = CHANGE_UNLINK,
		.node = node,
		.parent = parent,
		.name = text(name),
		.time_ns = T0 + 2 };
}

struct change link_to(uint64_t node, uint64_t parent, const char *name)
{
	return (struct change){ .kind = CHANGE_LINK,
		.node = node,
		.parent = parent,
		.name = text(name),
		.attr = { .ctime_ns = T0 + 3 },
		.time_ns = T0 + 3 };
}

struct change setattr_mode(uint64_t node, uint32_t mode)
{
	return (struct change){ .kind = CHANGE_SETATTR,
		.node = node,
		.mask = ATTR_MODE,
		.attr = { .mode = mode, .ctime_ns = T0 + 4 },
		.time_ns = T0 + 4 };
}

struct change setxattr_of(uint64_t node, const char *name, const char *value)
{
	return (struct change){ .kind = CHANGE_SETXATTR,
		.node = node,
		.xattr = { text(name), text(value) },
		.attr = { .ctime_ns = T0 + 5 },
		.time_ns = T0 + 5 };
}
