// SPDX-License-Identifier: Apache-2.0
/*
 * A commit on its way into the drive:
 *
 *	prepare (no lock) -> lock the drive, take the next seq -> seen before? -> rules
 *		-> refused: back to the savepoint	-> applied: chunks, contents, rows, log
 *
 * Invariants: 1. seqs have no gaps: a seq is taken in the transaction that uses it. 2. All rows
 * of a commit are in one transaction with its line in commit_log, so a retry finds either all of
 * it or nothing. 3. Contents are stored only when all of their chunks are.
 */
#include "vault_internal.h"

#include "apply.h"
#include "clock.h"
#include "fault.h"
#include "wire/arena.h"

#include <errno.h>
#include <string.h>

/* Reasons in one answer: enough for a person to see the pattern, bounded work. */
#define REFUSED_MAX 100

/* What was refused so far, and the nodes that it leaves unclear. */
struct refusals {
	struct verdict verdicts[REFUSED_MAX];
	size_t n;
	uint64_t nodes[4 * REFUSED_MAX];
	size_t n_nodes;
};

static void add_unclear(struct refusals *f, uint64_t node)
{
	if (node && f->n_nodes < ARRAY_SIZE(f->nodes))
		f->nodes[f->n_nodes++] = node;
}

static bool is_unclear(const struct refusals *f, uint64_t node)
{
	for (size_t i = 0; i < f->n_nodes; i++)
		if (f->nodes[i] == node)
			return true;
	return false;
}

/* Whether the change builds upon one that was refused: what it would meet says nothing. */
static bool depends(const struct refusals *f, const struct change *c)
{
	return f->n && (is_unclear(f, c->node) || is_unclear(f, c->parent) ||
			       is_unclear(f, c->new_parent) || is_unclear(f, c->victim));
}

static void note_refusal(
	struct refusals *f, const struct verdict *v, const struct change *c, size_t index)
{
	f->verdicts[f->n] = *v;
	f->verdicts[f->n++].index = (uint32_t)index;
	add_unclear(f, c->node);
	add_unclear(f, c->victim);
}

static int apply_changes(struct apply *a, struct refusals *f, struct err *err)
{
	const struct prepared *p = a->prepared;

	for (size_t i = 0; i < p->commit->n_changes && f->n < REFUSED_MAX; i++) {
		const struct change *c = &p->changes[i];
		int r;

		if (depends(f, c)) {
			add_unclear(f, c->node);
			continue;
		}
		r = apply_change(a, c, err);
		if (r < 0)
			return r;
		if (r)
			note_refusal(f, &a->verdict, c, i);
	}
	return f->n ? 1 : 0;
}

/* The next seq of the drive, which is locked from here on; and the time of the commit. */
static int take_seq(
	struct db *db, int64_t drive, uint64_t *ret_seq, int64_t *ret_time_ns, struct err *err)
{
	int r;
	DB_STMT(s, db,
		"UPDATE drive SET head_seq = head_seq + 1,"
		" head_time_ns = CASE WHEN head_time_ns < ?2 THEN ?2 ELSE head_time_ns END"
		" WHERE id = ?1 RETURNING head_seq, head_time_ns",
		err);

	db_bind_int(s, 1, drive);
	db_bind_int(s, 2, clock_real_ns());
	r = db_step(s, err);
	if (r == 0)
		return err_set(err, ENOENT, "no such drive");
	if (r < 0)
		return r;
	*ret_seq = (uint64_t)db_int(s, 0);
	*ret_time_ns = db_int(s, 1);
	return 0;
}

/* 1 with the seq that this very commit got before. */
static int find_earlier(struct db *db, const struct commit_task *t, uint64_t *ret, struct err *err)
{
	int r;
	DB_STMT(s, db,
		"SELECT seq FROM commit_log WHERE drive = ?1 AND device = ?2 AND commit_id = ?3",
		err);

	db_bind_int(s, 1, t->drive);
	db_bind_int(s, 2, t->who.number);
	db_bind_blob(s, 3, t->commit->id, COMMIT_ID_BYTES);
	r = db_step(s, err);
	if (r > 0)
		*ret = (uint64_t)db_int(s, 0);
	return r;
}

static int log_commit(struct db *db, const struct commit_task *t, uint64_t seq, int64_t time_ns,
	int64_t affected, struct err *err)
{
	DB_STMT(s, db,
		"INSERT INTO commit_log (drive, seq, device, commit_id, time_ns, affected)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
		err);

	db_bind_int(s, 1, t->drive);
	db_bind_int(s, 2, (int64_t)seq);
	db_bind_int(s, 3, t->who.number);
	db_bind_blob(s, 4, t->commit->id, COMMIT_ID_BYTES);
	db_bind_int(s, 5, time_ns);
	db_bind_int(s, 6, affected);
	return db_run(s, err);
}

static int write_all(
	struct db *db, struct commit_task *t, struct apply *a, int64_t time_ns, struct err *err)
{
	int64_t bytes, affected;
	int r = contents_flush(db, t->drive, a->prepared, &bytes, err);

	if (r == 0 && bytes)
		r = drive_add_bytes(db, t->drive, bytes, err);
	if (r == 0)
		r = history_flush(a->history, &affected, err);
	if (r == 0)
		r = log_commit(db, t, a->seq, time_ns, affected, err);
	return r;
}

static int fill_refused(struct commit_task *t, const struct refusals *f, struct err *err)
{
	struct refused_change *list;
	int r = arena_new(&t->arena);

	if (r < 0)
		return err_sys(err, -r, "commit");
	list = arena_alloc(t->arena, f->n * sizeof *list);
	for (size_t i = 0; list && i < f->n; i++) {
		const struct verdict *v = &f->verdicts[i];
		size_t len = strlen(v->detail);
		const void *text = arena_dup(t->arena, v->detail, len);

		if (!text)
			return err_sys(err, ENOMEM, "commit");
		list[i] = (struct refused_change){ v->index, v->reason, { text, len } };
	}
	if (!list)
		return err_sys(err, ENOMEM, "commit");
	t->reply.refused = list;
	t->reply.n_refused = f->n;
	return 0;
}

/* 0 applied, 1 refused (the reply says why), -errno. */
static int try_rules(struct db *db, struct commit_task *t, struct prepared *p, uint64_t seq,
	int64_t time_ns, struct err *err)
{
	_cleanup_history_ struct history *h = NULL;
	_cleanup_free_ struct refusals *f = calloc(1, sizeof *f);
	struct apply a = { .db = db,
		.drive = t->drive,
		.prepared = p,
		.base = t->commit->base,
		.seq = seq,
		.device = t->who.number };
	int r = f ? history_open(db, t->drive, seq, a.device, &h, err)
		  : err_sys(err, ENOMEM, "commit");

	if (r < 0)
		return r;
	a.history = h;
	if (a.device == 0 || a.device > NODE_DEVICE_MAX)
		refuse(&p->verdict, REFUSAL_INVALID, "the device is not attached to the drive");
	else if (p->verdict.reason == REFUSAL_NONE && t->commit->base >= seq)
		refuse(&p->verdict, REFUSAL_INVALID, "base %llu is beyond the head",
			(unsigned long long)t->commit->base);
	if (p->verdict.reason != REFUSAL_NONE)
		f->verdicts[f->n++] = p->verdict;
	else
		r = apply_changes(&a, f, err);
	if (r < 0)
		return r;
	if (f->n) {
		r = fill_refused(t, f, err);
		return r < 0 ? r : 1;
	}
	return write_all(db, t, &a, time_ns, err);
}

/* 1: nothing was changed, the reply is filled; 0: applied; -errno. */
static int commit_in_savepoint(
	struct db *db, struct commit_task *t, struct prepared *p, struct err *err)
{
	uint64_t seq = 0, earlier = 0;
	int64_t time_ns = 0;
	int r = take_seq(db, t->drive, &seq, &time_ns, err);

	if (r == 0)
		r = find_earlier(db, t, &earlier, err);
	if (r < 0)
		return r;
	if (r > 0) {
		t->reply = (struct commit_reply){ .seq = earlier, .head = seq - 1 };
		return 1;
	}
	r = try_rules(db, t, p, seq, time_ns, err);
	if (r == 0)
		t->reply = (struct commit_reply){ .seq = seq, .head = seq };
	else if (r > 0)
		t->reply.head = seq - 1;
	return r;
}

static void drop_reply(struct commit_task *t)
{
	arena_free(steal(t->arena));
	t->reply = (struct commit_reply){ 0 };
}

/* Whether the transaction has something to commit afterwards. */
static bool run_task(struct vault *v, struct commit_task *t, struct prepared *p)
{
	int r = db_savepoint(v->db, &t->err);

	if (r == 0) {
		r = commit_in_savepoint(v->db, t, p, &t->err);
		if (r)
			db_rollback_to(v->db);
		else
			r = db_release(v->db, &t->err);
	}
	t->result = r < 0 ? r : 0;
	if (r < 0)
		drop_reply(t);
	return r == 0;
}

/* -errno for the group as a whole. */
static int run_group(struct vault *v, struct commit_task **tasks, struct prepared *prepared,
	size_t n, struct err *err)
{
	bool any = false;
	int r = db_begin(v->db, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if (tasks[i]->result == 0)
			any |= run_task(v, tasks[i], &prepared[i]);
	if (any) {
		r = fault_point("vault_commit");
		if (r == 0) {
			r = db_commit(v->db, err);
			fault_instant("vault_committed");
			return r;
		}
		err_sys(err, -r, "commit");
	}
	db_rollback(v->db);
	return r;
}

static void fail_group(struct commit_task **tasks, size_t n, int r, const struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (tasks[i]->result < 0)
			continue; /* it has a reason of its own */
		drop_reply(tasks[i]);
		tasks[i]->result = r;
		tasks[i]->err = *err;
	}
}

void vault_commit_group(struct vault *v, struct commit_task **tasks, size_t n)
{
	_cleanup_free_ struct prepared *prepared = calloc(n ? n : 1, sizeof *prepared);
	struct err err = { 0 };
	int r;

	for (size_t i = 0; i < n; i++) {
		struct commit_task *t = tasks[i];

		t->reply = (struct commit_reply){ 0 };
		t->arena = NULL;
		t->result = prepared ? prepared_init(&prepared[i], t->commit, &t->err)
				     : err_sys(&t->err, ENOMEM, "commit");
	}
	r = prepared ? run_group(v, tasks, prepared, n, &err) : 0;
	if (r < 0)
		fail_group(tasks, n, r, &err);
	for (size_t i = 0; prepared && i < n; i++)
		prepared_done(&prepared[i]);
}

int vault_commit(struct vault *v, int64_t drive, const struct committer *who,
	const struct commit *commit, struct commit_reply *ret, struct arena **ret_arena,
	struct err *err)
{
	struct commit_task task = { .drive = drive, .who = *who, .commit = commit };
	struct commit_task *tasks[] = { &task };

	vault_commit_group(v, tasks, 1);
	if (task.result < 0) {
		if (err)
			*err = task.err;
		return task.result;
	}
	*ret = task.reply;
	*ret_arena = task.arena;
	return 0;
}
