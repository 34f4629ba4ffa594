// SPDX-License-Identifier: Apache-2.0
/* Which files a damaged chunk belongs to. */
#include "meta/check_impl.h"

#include "bounds.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A way up that is longer has a loop in it, or nobody can read it. */
#define DEPTH_MAX 4096

int check_manifest(struct store_snapshot *at, struct slice inlined, const struct digest *content,
	struct manifest **ret)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	_cleanup_buf_ struct buf row = { 0 };
	struct slice bytes = inlined;
	int r;

	if (!bytes.p) {
		r = store_snapshot_get(at, CF_MANIFEST, content->b, DIGEST_BYTES, &row);
		if (r <= 0)
			return r;
		bytes = (struct slice){ row.data, row.len };
	}
	r = manifest_decode(bytes.p, bytes.n, &m, NULL);
	if (r == -ENOMEM)
		return r;
	if (r < 0 || !digest_eq(manifest_content_id(m), content))
		return 0;
	*ret = steal(m);
	return 1;
}

static int prepend(struct buf *path, struct slice name)
{
	int r = buf_reserve(path, name.n + 1);

	if (r < 0)
		return r;
	if (path->len) {
		memmove(path->data + name.n + 1, path->data, path->len);
		path->data[name.n] = '/';
		path->len += 1;
	}
	memcpy(path->data, name.p, name.n);
	path->len += name.n;
	return 0;
}

int check_path_of(struct store_snapshot *at, uint64_t node, char **ret)
{
	_cleanup_buf_ struct buf path = { 0 }, row = { 0 };

	for (int depth = 0; node != NODE_ROOT; depth++) {
		struct row_key k = key_id(node);
		struct node_rec rec;
		int r;

		buf_clear(&row);
		r = store_snapshot_get(at, CF_NODE, k.b, k.n, &row);
		if (r < 0)
			return r;
		if (r == 0 || depth == DEPTH_MAX ||
			node_decode((struct slice){ row.data, row.len }, &rec) < 0 ||
			rec.name.n == 0)
			return 0;
		r = prepend(&path, rec.name);
		if (r < 0)
			return r;
		node = rec.parent;
	}
	if (path.len == 0)
		return 0;
	*ret = strndup((const char *)path.data, path.len);
	return *ret ? 1 : -ENOMEM;
}

static int compare_damaged(const void *a, const void *b)
{
	const struct damaged_chunk *x = a, *y = b;

	return memcmp(x->id.b, y->id.b, DIGEST_BYTES);
}

static struct damaged_chunk *find_damaged(struct check *c, const struct digest *id)
{
	struct damaged_chunk key = { .id = *id };

	return bsearch(&key, c->damaged, c->n_damaged, sizeof key, compare_damaged);
}

static int add_path(struct check *c, struct check_problem *p, uint64_t node)
{
	char *path;
	int r;

	if (p->n_paths == CHECK_PATHS_MAX) {
		p->more_paths++;
		return 0;
	}
	r = check_path_of(c->at, node, &path);
	if (r <= 0)
		return r;
	if (p->n_paths && strcmp(p->paths[p->n_paths - 1], path) == 0)
		free(path); /* a chunk that comes twice in a file */
	else
		p->paths[p->n_paths++] = path;
	return 0;
}

static int visit_file(struct check *c, uint64_t node, const struct node_rec *rec)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	int r;

	if (digest_is_zero(&rec->attr.content))
		return 0;
	r = check_manifest(c->at,
		rec->tag & NODE_INLINE_MANIFEST ? rec->payload : (struct slice){ 0 },
		&rec->attr.content, &m);
	if (r <= 0)
		return r;
	for (size_t i = 0; i < manifest_count(m) && r >= 0; i++) {
		const struct manifest_entry *e = manifest_at(m, i);
		struct damaged_chunk *d = e->hole ? NULL : find_damaged(c, &e->id);

		if (d)
			r = add_path(c, &d->problem, node);
	}
	return MIN(r, 0);
}

static int find_files(struct check *c)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(c->at, CF_NODE, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct node_rec rec;
		uint64_t node;

		if (key_id_parse(store_iter_key(it), &node) < 0 ||
			node_decode(store_iter_value(it), &rec) < 0 || !S_ISREG(rec.attr.mode))
			continue;
		r = visit_file(c, node, &rec);
		if (r == 0)
			r = check_stopped(c);
		if (r < 0)
			return r;
	}
	return r;
}

int check_tell_damaged(struct check *c)
{
	int r = 0;

	if (c->n_damaged == 0)
		return 0;
	qsort(c->damaged, c->n_damaged, sizeof *c->damaged, compare_damaged);
	r = find_files(c);
	for (size_t i = 0; i < c->n_damaged; i++) {
		struct check_problem *p = &c->damaged[i].problem;

		/* Nothing that anybody can see, or send, has it. */
		if (p->severity == CHECK_LOSS && p->n_paths == 0 && r == 0)
			p->fix = "no file has it any more";
		check_tell(c, p);
	}
	return r;
}
