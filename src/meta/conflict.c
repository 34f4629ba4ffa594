// SPDX-License-Identifier: Apache-2.0
/* Names of conflicted copies, and the list of what collided. */
#include "bytes.h"
#include "clock.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <time.h>

/* A longer "extension" is no extension: it is cut as the rest is. */
#define EXTENSION_BYTES_MAX 32
#define TRIES_MAX 100000

static size_t extension_len(struct slice name)
{
	for (size_t i = name.n; i-- > 1;) {
		if (name.p[i] == '.')
			return name.n - i <= EXTENSION_BYTES_MAX ? name.n - i : 0;
	}
	return 0;
}

/* The longest start of p[0..n) of at most max bytes that breaks no UTF-8 sequence. */
static size_t cut_utf8(const uint8_t *p, size_t n, size_t max)
{
	size_t cut = max;

	if (n <= max)
		return n;
	while (cut > 0 && max - cut < 4 && (p[cut] & 0xc0) == 0x80)
		cut--;
	return (p[cut] & 0xc0) == 0x80 ? max : cut;
}

static int append_mark(const char *device, int64_t time_ns, unsigned try, struct buf *ret)
{
	time_t seconds = (time_t)(time_ns / NS_PER_S - (time_ns % NS_PER_S < 0));
	char label[LABEL_BYTES_MAX + 1], date[32];
	struct tm tm;
	size_t n = cut_utf8((const uint8_t *)device, strlen(device), LABEL_BYTES_MAX);

	for (size_t i = 0; i < n; i++)
		label[i] = device[i] == '/' ? '-' : device[i];
	label[n] = '\0';
	if (!gmtime_r(&seconds, &tm))
		return -EOVERFLOW;
	strftime(date, sizeof date, "%Y-%m-%d", &tm);
	if (try)
		return buf_printf(ret, " (conflicted copy, %s, %s %u)", label, date, try);
	return buf_printf(ret, " (conflicted copy, %s, %s)", label, date);
}

int conflict_name(
	struct slice name, const char *device, int64_t time_ns, unsigned try, struct buf *ret)
{
	_cleanup_buf_ struct buf mark = { 0 };
	size_t ext = extension_len(name), stem;
	int r = append_mark(device, time_ns, try, &mark);

	if (r < 0)
		return r;
	stem = cut_utf8(name.p, name.n - ext, NAME_BYTES_MAX - mark.len - ext);
	r = buf_append(ret, name.p, stem);
	if (r == 0)
		r = buf_append(ret, mark.data, mark.len);
	return r < 0 ? r : buf_append(ret, name.p + name.n - ext, ext);
}

int conflict_name_free(struct tree *t, struct view *v, uint64_t parent, struct slice name,
	int64_t time_ns, struct slice *ret)
{
	_cleanup_buf_ struct buf b = { 0 };

	for (unsigned try = 0; try < TRIES_MAX; try = try ? try + 1 : 2) {
		uint64_t taken;
		int r;

		buf_clear(&b);
		r = conflict_name(name, t->device_name, time_ns, try, &b);
		if (r == 0)
			r = view_link(v, parent, (struct slice){ b.data, b.len }, &taken);
		if (r < 0)
			return r;
		if (r == 0)
			return view_copy(v, b.data, b.len, ret);
	}
	return -EEXIST;
}

int conflict_put(struct view *v, uint64_t number, const struct conflict_rec *rec)
{
	struct row_key k = key_id(number);
	_cleanup_buf_ struct buf b = { 0 };
	int r = conflict_encode(rec, &b);

	return r < 0 ? r : view_put(v, CF_CONFLICT, &k, b.data, b.len, 0);
}

static const char *kind_text(uint8_t kind)
{
	static const char *const texts[CONFLICT_KIND_LAST + 1] = {
		[CONFLICT_WRITE_WRITE] = "write/write",
		[CONFLICT_NAME_TAKEN] = "name taken",
		[CONFLICT_WRITE_DELETE] = "write/delete",
		[CONFLICT_DELETE_WRITE] = "delete/write",
		[CONFLICT_RENAME_RENAME] = "rename/rename",
		[CONFLICT_RENAME_DELETE] = "rename/delete",
		[CONFLICT_LOOP] = "rename loop",
	};

	return kind <= CONFLICT_KIND_LAST && texts[kind] ? texts[kind] : "unknown";
}

static int each_conflict(
	struct tree *t, int (*visit)(void *ctx, uint64_t number, struct slice row), void *ctx)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_iter_new(t->store, CF_CONFLICT, NULL, 0, &it);

	if (r < 0)
		return r;
	for (store_iter_seek(it, "", 0); (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		uint64_t number;

		r = key_id_parse(store_iter_key(it), &number);
		if (r == 0)
			r = visit(ctx, number, store_iter_value(it));
		if (r)
			return r;
	}
	return r;
}

static int load_number(void *ctx, uint64_t number, struct slice row)
{
	((struct tree *)ctx)->conflict_tail = number;
	return 0;
}

int conflict_load(struct tree *t)
{
	return each_conflict(t, load_number, t);
}

struct visitor {
	int (*visit)(void *ctx, const struct conflict *c);
	void *ctx;
};

static int show(void *ctx, uint64_t number, struct slice row)
{
	const struct visitor *to = ctx;
	struct conflict_rec rec;
	struct conflict c;
	int r = conflict_decode(row, &rec);

	if (r < 0)
		return r;
	c = (struct conflict){ number, rec.time_ns, kind_text(rec.kind), rec.parent, rec.name,
		rec.original };
	return to->visit(to->ctx, &c);
}

int replica_conflicts(struct tree *t, int (*visit)(void *ctx, const struct conflict *c), void *ctx)
{
	struct visitor to = { visit, ctx };

	return each_conflict(t, show, &to);
}
