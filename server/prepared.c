// SPDX-License-Identifier: Apache-2.0
#include "prepared.h"

#include "chunk/pack.h"
#include "bounds.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/stat.h>

int refuse(struct verdict *v, enum refusal reason, const char *format, ...)
{
	va_list ap;

	v->reason = reason;
	va_start(ap, format);
	vsnprintf(v->detail, sizeof v->detail, format, ap);
	va_end(ap);
	return 1;
}

void prepared_done(struct prepared *p)
{
	struct inline_chunk *c, *next_chunk;
	struct new_content *n, *next_content;

	HASH_ITER (hh, p->chunks, c, next_chunk) {
		HASH_DEL(p->chunks, c);
		free(c);
	}
	HASH_ITER (hh, p->contents, n, next_content) {
		HASH_DEL(p->contents, n);
		manifest_unref(n->manifest);
		free(n);
	}
	for (size_t i = 0; p->arenas && i < p->commit->n_changes; i++)
		arena_free(p->arenas[i]);
	free(p->arenas);
	free(p->changes);
	*p = (struct prepared){ 0 };
}

static int add_chunk(struct prepared *p, const struct pack_entry *e, struct err *err)
{
	struct inline_chunk *c;

	HASH_FIND(hh, p->chunks, &e->id, sizeof e->id, c);
	if (c)
		return 0;
	c = calloc(1, sizeof *c);
	if (!c)
		return err_sys(err, ENOMEM, "commit");
	c->id = e->id;
	c->plain_len = e->frame.plain_len;
	c->frame = (struct slice){ e->frame_bytes, e->frame.frame_len };
	HASH_ADD(hh, p->chunks, id, sizeof c->id, c);
	return 0;
}

/* 1 refused. `plain` is scratch. */
static int take_chunk(
	struct prepared *p, const struct pack_entry *e, struct buf *plain, struct err *err)
{
	struct err why = { 0 };
	int r;

	if (e->frame.plain_len > CHUNK_INLINE_MAX)
		return refuse(&p->verdict, REFUSAL_INVALID, "pack: a chunk of %u bytes",
			e->frame.plain_len);
	buf_clear(plain);
	r = frame_decode(e->frame_bytes, e->frame.frame_len, &e->id, plain, &why);
	if (r == -ENOMEM)
		return err_sys(err, ENOMEM, "commit");
	if (r < 0)
		return refuse(&p->verdict, REFUSAL_INVALID, "pack: %.150s", why.text);
	return add_chunk(p, e, err);
}

static int take_pack(struct prepared *p, struct err *err)
{
	const struct slice *pack = &p->commit->pack;
	_cleanup_buf_ struct buf plain = { 0 };
	struct err why = { 0 };
	struct pack_reader reader;
	struct pack_entry e;
	int r;

	if (pack->n == 0)
		return 0;
	r = pack_reader_init(&reader, pack->p, pack->n, &why);
	while (r >= 0 && (r = pack_next(&reader, &e, &why)) > 0) {
		int taken = take_chunk(p, &e, &plain, err);

		if (taken)
			return taken;
	}
	return r < 0 ? refuse(&p->verdict, REFUSAL_INVALID, "%.150s", why.text) : 0;
}

static int take_content(struct prepared *p, struct slice bytes, struct err *err)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	struct err why = { 0 };
	struct new_content *c;
	int r = manifest_decode(bytes.p, bytes.n, &m, &why);

	if (r == -ENOMEM)
		return err_sys(err, ENOMEM, "commit");
	if (r < 0)
		return refuse(&p->verdict, REFUSAL_INVALID, "%.150s", why.text);
	HASH_FIND(hh, p->contents, manifest_content_id(m), DIGEST_BYTES, c);
	if (c)
		return 0;
	c = calloc(1, sizeof *c);
	if (!c)
		return err_sys(err, ENOMEM, "commit");
	c->id = *manifest_content_id(m);
	c->manifest = steal(m);
	HASH_ADD(hh, p->contents, id, sizeof c->id, c);
	return 0;
}

/* What the rules rely on, whoever decoded the change. */
static int check_change(const struct change *c, struct verdict *v)
{
	bool named = c->kind == CHANGE_CREATE || c->kind == CHANGE_LINK ||
		     c->kind == CHANGE_UNLINK || c->kind == CHANGE_RENAME;

	if (c->node == 0 || c->node > INT64_MAX)
		return refuse(v, REFUSAL_INVALID, "no node id");
	if (named && !name_valid(c->name))
		return refuse(v, REFUSAL_INVALID, "not a name");
	if (c->kind == CHANGE_RENAME && !name_valid(c->new_name))
		return refuse(v, REFUSAL_INVALID, "not a new name");
	if (c->attr.size > FILE_BYTES_MAX)
		return refuse(v, REFUSAL_INVALID, "larger than a file can be");
	if (c->target.n > SYMLINK_BYTES_MAX)
		return refuse(v, REFUSAL_INVALID, "the symlink's target is too long");
	if (c->kind == CHANGE_CREATE && S_ISLNK(c->attr.mode) && c->target.n == 0)
		return refuse(v, REFUSAL_INVALID, "a symlink without a target");
	return 0;
}

static int take_change(struct prepared *p, size_t i, struct err *err)
{
	const struct slice *bytes = &p->commit->changes[i];
	struct err why = { 0 };
	int r = change_decode(bytes->p, bytes->n, &p->changes[i], &p->arenas[i], &why);

	if (r == -ENOMEM)
		return err_sys(err, ENOMEM, "commit");
	p->verdict.index = (uint32_t)i;
	if (r < 0)
		return refuse(&p->verdict, REFUSAL_INVALID, "%.150s", why.text);
	return check_change(&p->changes[i], &p->verdict);
}

static int take_changes(struct prepared *p, struct err *err)
{
	size_t n = p->commit->n_changes;

	if (n == 0 || n > COMMIT_CHANGES_MAX)
		return refuse(&p->verdict, REFUSAL_INVALID, "a commit of %zu changes", n);
	p->changes = calloc(n, sizeof *p->changes);
	p->arenas = calloc(n, sizeof *p->arenas);
	if (!p->changes || !p->arenas)
		return err_sys(err, ENOMEM, "commit");
	for (size_t i = 0; i < n; i++) {
		int r = take_change(p, i, err);

		if (r)
			return r;
	}
	p->verdict.index = 0;
	return 0;
}

int prepared_init(struct prepared *p, const struct commit *commit, struct err *err)
{
	int r;

	*p = (struct prepared){ .commit = commit };
	r = take_changes(p, err);
	if (r == 0)
		r = take_pack(p, err);
	for (size_t i = 0; r == 0 && i < commit->n_contents; i++)
		r = take_content(p, commit->contents[i], err);
	if (r < 0)
		prepared_done(p);
	return r < 0 ? r : 0;
}
