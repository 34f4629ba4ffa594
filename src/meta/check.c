// SPDX-License-Identifier: Apache-2.0
#include "meta/check_impl.h"

#include "bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int number_add(struct number_list *l, uint64_t n)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 256;
		uint64_t *items = reallocarray(l->items, cap, sizeof *items);

		if (!items)
			return -ENOMEM;
		l->items = items;
		l->cap = cap;
	}
	l->items[l->n++] = n;
	return 0;
}

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void number_sort(struct number_list *l)
{
	size_t kept = 0;

	if (l->n == 0)
		return;
	qsort(l->items, l->n, sizeof *l->items, compare_numbers);
	for (size_t i = 0; i < l->n; i++) {
		if (i == 0 || l->items[i] != l->items[kept - 1])
			l->items[kept++] = l->items[i];
	}
	l->n = kept;
}

bool number_has(const struct number_list *l, uint64_t n)
{
	return l->n && bsearch(&n, l->items, l->n, sizeof *l->items, compare_numbers);
}

int check_stopped(const struct check *c)
{
	return c->o->stop && atomic_load(c->o->stop) ? -EINTR : 0;
}

void check_progress(const struct check *c, const char *what, uint64_t done, uint64_t total)
{
	if (c->o->progress)
		c->o->progress(c->o->ctx, what, done, total);
}

void check_tell(struct check *c, struct check_problem *p)
{
	if (p->severity != CHECK_NOTE) {
		c->result.problems++;
		c->result.repaired += p->repaired;
	}
	c->o->found(c->o->ctx, p);
}

static void tell_text(struct check *c, enum check_severity severity, const char *what,
	const char *fix, const char *format, va_list ap)
{
	struct check_problem p = { .severity = severity, .what = what, .fix = fix };

	vsnprintf(p.text, sizeof p.text, format, ap);
	check_tell(c, &p);
}

void check_say(struct check *c, enum check_severity severity, const char *what, const char *fix,
	const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	tell_text(c, severity, what, fix, format, ap);
	va_end(ap);
}

void check_say_tree(struct check *c, const char *format, ...)
{
	va_list ap;

	c->result.rebuild = true;
	va_start(ap, format);
	tell_text(c, CHECK_PROBLEM, "tree", "the tree is made anew from the server's", format, ap);
	va_end(ap);
}

/* ---- state ---- */

static int state_value(struct check *c, const char *name, struct buf *ret)
{
	buf_clear(ret);
	return store_snapshot_get(c->at, CF_STATE, name, strlen(name), ret);
}

static int state_number(struct check *c, const char *name, bool needed, uint64_t *ret)
{
	_cleanup_buf_ struct buf b = { 0 };
	int r = state_value(c, name, &b);

	if (r < 0)
		return r;
	if (r > 0 && b.len == 8) {
		*ret = get_le64(b.data);
		return 1;
	}
	if (r > 0 || needed)
		check_say_tree(c, "the state \"%s\" is %s", name, r > 0 ? "malformed" : "missing");
	return 0;
}

static int check_drive_id(struct check *c)
{
	_cleanup_buf_ struct buf b = { 0 };
	const char *want = c->o->drive_id;
	int r = state_value(c, STATE_DRIVE, &b);

	if (r < 0 || !want)
		return r < 0 ? r : 0;
	if (r == 0 || b.len != strlen(want) || memcmp(b.data, want, b.len) != 0)
		check_say_tree(c, "the store is not that of the drive whose folder it is in");
	return 0;
}

static int check_state(struct check *c)
{
	uint64_t format = 0, device = 0, cursor = 0, known;
	int r = state_number(c, STATE_FORMAT, true, &format);

	if (r < 0)
		return r;
	if (r > 0 && format != FORMAT_VERSION)
		check_say(c, CHECK_PROBLEM, "state", NULL,
			"the store has format %llu; this program knows %d",
			(unsigned long long)format, FORMAT_VERSION);
	r = state_number(c, STATE_DEVICE, true, &device);
	known = r > 0;
	if (r > 0 && (device == 0 || device > NODE_DEVICE_MAX))
		check_say_tree(c, "the device number %llu cannot be", (unsigned long long)device);
	if (r >= 0)
		r = state_number(c, STATE_CURSOR, true, &cursor);
	if (r >= 0)
		r = state_number(c, STATE_COUNTER, true, &c->counter);
	c->state_known = known && r > 0;
	if (r >= 0)
		r = state_number(c, STATE_ACKED, false, &c->acked);
	if (r >= 0)
		r = state_number(c, "segment-next", false, &c->segment_next);
	c->device = (uint32_t)device;
	return r < 0 ? r : check_drive_id(c);
}

/* ---- blocks ---- */

/* Reading every row makes RocksDB check the sums of every block. */
static int check_family(struct check *c, enum store_cf cf)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(c->at, cf, &it);

	if (r < 0)
		return r;
	while ((r = store_iter_valid(it)) > 0)
		store_iter_next(it);
	return r;
}

/* 1 when all can be read. */
static int check_blocks(struct check *c)
{
	int bad = 0;

	for (int cf = 0; cf < CF_COUNT; cf++) {
		int r = check_family(c, cf);

		if (r == 0)
			r = check_stopped(c);
		if (r == -EINTR || r == -ENOMEM)
			return r;
		if (r == 0)
			continue;
		bad++;
		check_say_tree(c, "rows of the store's family %d are damaged on the disk: %s", cf,
			strerror(-r));
	}
	return !bad;
}

/* ---- all of it ---- */

static void check_done(struct check *c)
{
	store_snapshot_free(c->at);
	free(c->entries.items);
	free(c->derived.items);
	for (size_t i = 0; i < c->n_damaged; i++)
		for (size_t k = 0; k < c->damaged[i].problem.n_paths; k++)
			free(c->damaged[i].problem.paths[k]);
	free(c->damaged);
}

static int run(struct check *c)
{
	int r = store_snapshot_new(c->o->store, &c->at);

	if (r == 0)
		r = check_blocks(c);
	if (r <= 0) /* what is left says nothing by itself */
		return r;
	r = check_state(c);
	if (r == 0)
		r = check_outbox(c);
	if (r == 0)
		r = check_tree(c);
	if (r == 0)
		r = check_chunks(c);
	if (r == 0)
		r = check_tell_damaged(c);
	if (r == 0 && c->derived.n)
		r = check_repair_derived(c);
	return r;
}

int check_run(const struct check_options *options, struct check_result *ret, struct err *err)
{
	_cleanup_(check_done) struct check c = { .o = options };
	int r = run(&c);

	*ret = c.result;
	if (r == -EINTR)
		return err_set(err, EINTR, "stopped");
	return r < 0 ? err_sys(err, -r, "%s: cannot be checked", options->dir) : 0;
}
