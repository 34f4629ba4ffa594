// SPDX-License-Identifier: Apache-2.0
#include "meta/rescue.h"

#include "bounds.h"
#include "chunk/chunker.h"
#include "io.h"
#include "meta/check_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#define COPY_ROWS 1024 /* a batch */

struct rescue {
	struct store *st;
	struct store_snapshot *at;
	const char *dir;
	char *folder;
	FILE *changes;
	int segments_fd;
	uint8_t *bytes; /* CHUNK_MAX */
	struct rescue_result result;
};

static void rescue_done(struct rescue *rs)
{
	store_snapshot_free(rs->at);
	store_free(rs->st);
	free(rs->folder);
	if (rs->changes)
		fclose(rs->changes);
	cleanup_close_p(&rs->segments_fd);
	free(rs->bytes);
}

/* ---- bytes ---- */

/* 1 when rs->bytes has the chunk, 0 when it cannot be had. */
static int read_chunk(struct rescue *rs, const struct manifest_entry *e)
{
	_cleanup_buf_ struct buf value = { 0 };
	_cleanup_close_ int fd = -1;
	struct chunk_row row;
	struct digest actual;
	char name[32];

	if (store_snapshot_get(rs->at, CF_CHUNK, e->id.b, DIGEST_BYTES, &value) <= 0 ||
		chunk_row_decode(value.data, value.len, &row) < 0 || row.length != e->length)
		return 0;
	if (row.inlined) {
		memcpy(rs->bytes, row.bytes.p, row.bytes.n);
	} else {
		snprintf(name, sizeof name, "%016llx", (unsigned long long)row.segment);
		fd = openat(rs->segments_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || io_pread_full(fd, rs->bytes, row.length, row.offset) < 0)
			return 0;
	}
	digest_of(rs->bytes, row.length, &actual);
	return digest_eq(&actual, &e->id);
}

static int write_content(struct rescue *rs, int fd, const struct manifest *m, bool *ret_whole)
{
	*ret_whole = true;
	for (size_t i = 0; i < manifest_count(m); i++) {
		const struct manifest_entry *e = manifest_at(m, i);
		int r = 0;

		if (e->hole)
			continue;
		if (read_chunk(rs, e))
			r = io_pwrite_full(fd, rs->bytes, e->length, e->offset);
		else
			*ret_whole = false;
		if (r < 0)
			return r;
	}
	if (ftruncate(fd, (off_t)manifest_size(m)) < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

/* FOLDER/files/PATH, with the folders above it. Names that do not fit in a path get a number. */
static int open_file(struct rescue *rs, uint64_t node, char **ret_name)
{
	_cleanup_free_ char *name = NULL, *path = NULL, *parent = NULL;
	char *slash;
	int fd, r = check_path_of(rs->at, node, &name);

	if (r <= 0 && asprintf(&name, "node-%llx", (unsigned long long)node) < 0)
		return -ENOMEM;
	if (asprintf(&path, "%s/files/%s", rs->folder, name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	parent = strdup(path);
	slash = parent ? strrchr(parent, '/') : NULL;
	if (!slash)
		return -ENOMEM;
	*slash = '\0';
	r = io_mkdirs(parent, 0700);
	if (r < 0 && r != -ENAMETOOLONG && r != -ENOTDIR && r != -EEXIST)
		return r;
	fd = r == 0 ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	if (fd < 0) {
		free(path);
		if (asprintf(&path, "%s/node-%llx", rs->folder, (unsigned long long)node) < 0) {
			path = NULL;
			return -ENOMEM;
		}
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	}
	*ret_name = steal(name);
	return fd < 0 ? -errno : fd;
}

static int save_file(struct rescue *rs, const struct outbox_entry *e)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *name = NULL;
	bool whole = false;
	int r = check_manifest(rs->at, e->tag & OUTBOX_MANIFEST ? e->manifest : (struct slice){ 0 },
		&e->change.attr.content, &m);

	if (r == -ENOMEM)
		return r;
	fd = open_file(rs, e->change.node, &name);
	if (fd < 0)
		return fd;
	r = r > 0 ? write_content(rs, fd, m, &whole) : 0;
	if (r < 0)
		return r;
	rs->result.files++;
	rs->result.lost += !whole;
	fprintf(rs->changes, "%s \"%s\"\n",
		whole ? "written" : "written, and parts of it cannot be read here:", name);
	return 0;
}

/* ---- the outbox ---- */

static void describe(struct rescue *rs, const struct change *c)
{
	static const char *const kinds[] = { "change", "create", "write", "set attributes of",
		"link", "unlink", "rename", "set xattr of", "remove xattr of" };
	_cleanup_free_ char *path = NULL;

	rs->result.changes++;
	if (check_path_of(rs->at, c->node, &path) <= 0)
		path = NULL;
	fprintf(rs->changes, "%s \"%s\" (node %llx)", kinds[c->kind], path ? path : "?",
		(unsigned long long)c->node);
	if (c->name.n)
		fprintf(rs->changes, " name \"%.*s\"", (int)c->name.n, (const char *)c->name.p);
	if (c->new_name.n)
		fprintf(rs->changes, " to \"%.*s\"", (int)c->new_name.n,
			(const char *)c->new_name.p);
	fprintf(rs->changes, "\n");
}

static int save_entry(struct rescue *rs, struct slice key, struct slice value)
{
	_cleanup_arena_ struct arena *arena = NULL;
	struct outbox_entry e;
	uint64_t number;

	if (key_id_parse(key, &number) < 0 || outbox_entry_decode(number, value, &e, &arena) < 0) {
		rs->result.lost++;
		fprintf(rs->changes, "a change that cannot be read\n");
		return 0;
	}
	if (e.tag & (OUTBOX_MANIFEST | OUTBOX_CONTENT))
		return save_file(rs, &e);
	describe(rs, &e.change);
	return 0;
}

static int save_outbox(struct rescue *rs)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(rs->at, CF_OUTBOX, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		r = save_entry(rs, store_iter_key(it), store_iter_value(it));
		if (r < 0)
			return r;
	}
	if (r < 0) {
		rs->result.lost++;
		fprintf(rs->changes, "and what the damaged blocks of the store held\n");
	}
	if (fflush(rs->changes) != 0 || fsync(fileno(rs->changes)) < 0)
		return -errno;
	return 0;
}

/* ---- the new store ---- */

static int copy_state(struct rescue *rs, struct batch *b, const char *name)
{
	_cleanup_buf_ struct buf value = { 0 };
	int r = store_snapshot_get(rs->at, CF_STATE, name, strlen(name), &value);

	if (r > 0)
		batch_put(b, CF_STATE, name, strlen(name), value.data, value.len);
	return r == -ENOMEM ? r : 0;
}

/* Chunks that the server has, and the manifests; what cannot be read is fetched again. */
static int copy_rows(struct rescue *rs, struct store *to, enum store_cf cf)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	_cleanup_batch_ struct batch *b = NULL;
	int r = store_snapshot_iter(rs->at, cf, &it);

	if (r == 0)
		r = batch_new(to, &b);
	for (; r == 0 && store_iter_valid(it) > 0; store_iter_next(it)) {
		struct slice key = store_iter_key(it), value = store_iter_value(it);
		struct chunk_row row;

		if (cf == CF_CHUNK && (chunk_row_decode(value.p, value.n, &row) < 0 ||
					      !(row.flags & CACHE_ON_SERVER)))
			continue;
		batch_put(b, cf, key.p, key.n, value.p, value.n);
		if (batch_count(b) >= COPY_ROWS)
			r = store_commit(to, b);
	}
	return r == 0 ? store_commit(to, b) : r;
}

struct identity {
	uint64_t device, counter;
	int64_t created_ns;
};

/* 1 when the new store can be that of the same device number. */
static int read_identity(struct rescue *rs, struct identity *ret)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct row_key k = key_id(NODE_ROOT);
	struct node_rec root;

	if (state_get_u64(rs->st, STATE_DEVICE, &ret->device) <= 0 ||
		state_get_u64(rs->st, STATE_COUNTER, &ret->counter) <= 0 || ret->device == 0 ||
		ret->device > NODE_DEVICE_MAX)
		return 0;
	if (store_snapshot_get(rs->at, CF_NODE, k.b, k.n, &row) <= 0 ||
		node_decode((struct slice){ row.data, row.len }, &root) < 0)
		return 0;
	ret->created_ns = root.attr.btime_ns;
	return 1;
}

static int fill(struct rescue *rs, struct store *to, const struct identity *id,
	const char *drive_id, struct err *err)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r = tree_format(to, drive_id, (uint32_t)id->device, id->created_ns, err);

	if (r < 0)
		return r;
	r = batch_new(to, &b);
	if (r == 0) {
		/* Numbers that the old one may have given are not given again. */
		state_put_u64(b, STATE_COUNTER, id->counter + COUNTER_STEP);
		r = copy_state(rs, b, "segment-next");
	}
	if (r == 0)
		r = store_commit(to, b);
	if (r == 0)
		r = copy_rows(rs, to, CF_CHUNK);
	if (r == 0)
		r = copy_rows(rs, to, CF_MANIFEST);
	if (r == 0)
		r = store_sync(to);
	return r < 0 ? err_sys(err, -r, "the new store") : 0;
}

static int make_new(struct rescue *rs, const char *path, const char *drive_id, struct err *err)
{
	struct store *to = NULL;
	struct identity id;
	int r = io_remove_tree(path);

	if (r < 0)
		return err_sys(err, -r, "%s", path);
	if (!read_identity(rs, &id))
		return 0;
	r = store_open(path, &to, err);
	if (r == 0)
		r = fill(rs, to, &id, drive_id, err);
	store_free(to);
	return r < 0 ? r : 1;
}

/* ---- moving ---- */

static int move(const char *dir, const char *name, const char *to_dir, const char *to_name)
{
	_cleanup_free_ char *from = NULL, *to = NULL;

	if (asprintf(&from, "%s/%s", dir, name) < 0) {
		from = NULL;
		return -ENOMEM;
	}
	if (asprintf(&to, "%s/%s", to_dir, to_name) < 0) {
		to = NULL;
		return -ENOMEM;
	}
	return rename(from, to) < 0 && errno != ENOENT ? -errno : 0;
}

static int change_places(struct rescue *rs, bool has_new, struct err *err)
{
	int r;

	store_snapshot_free(steal(rs->at));
	store_free(steal(rs->st));
	r = move(rs->dir, "staging", rs->folder, "staging");
	if (r == 0)
		r = move(rs->dir, "store", rs->folder, "store");
	if (r == 0 && has_new)
		r = move(rs->dir, "store.new", rs->dir, "store");
	if (r == 0)
		r = io_sync_dir(rs->dir);
	return r < 0 ? err_sys(err, -r, "%s: cannot change places", rs->dir) : 0;
}

static int open_folder(struct rescue *rs)
{
	_cleanup_free_ char *path = NULL, *segments = NULL;
	time_t now = time(NULL);
	struct tm utc;
	char when[32];

	if (!gmtime_r(&now, &utc) || strftime(when, sizeof when, "%Y-%m-%dT%H%M%SZ", &utc) == 0 ||
		asprintf(&rs->folder, "%s/rescue-%s", rs->dir, when) < 0 ||
		asprintf(&path, "%s/changes.txt", rs->folder) < 0 ||
		asprintf(&segments, "%s/segments", rs->dir) < 0)
		return -ENOMEM;
	if (mkdir(rs->folder, 0700) < 0)
		return -errno;
	rs->segments_fd = open(segments, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rs->changes = fopen(path, "we");
	rs->bytes = malloc(CHUNK_MAX);
	if (!rs->changes)
		return -errno;
	return rs->bytes ? store_snapshot_new(rs->st, &rs->at) : -ENOMEM;
}

int rescue_and_renew(struct store *st, const char *dir, const char *drive_id, char **ret_folder,
	struct rescue_result *ret, struct err *err)
{
	_cleanup_(rescue_done) struct rescue rs = { .st = st, .dir = dir, .segments_fd = -1 };
	_cleanup_free_ char *fresh = NULL;
	int r = open_folder(&rs);

	if (r == 0)
		r = save_outbox(&rs);
	if (r < 0)
		return err_sys(err, -r, "%s: cannot save what is not sent yet", dir);
	if (asprintf(&fresh, "%s/store.new", dir) < 0) {
		fresh = NULL;
		return err_sys(err, ENOMEM, "%s", dir);
	}
	r = make_new(&rs, fresh, drive_id, err);
	if (r >= 0)
		r = change_places(&rs, r > 0, err);
	if (r < 0)
		return r;
	*ret_folder = steal(rs.folder);
	*ret = rs.result;
	return 0;
}
