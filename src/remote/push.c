// SPDX-License-Identifier: Apache-2.0
/*
 * The life of a commit here:
 *
 *	           replica_next()
 *	                 |
 *	  chunks --> PREPARED --- error, or a page waits ---> given back (replica_refused() with no
 *	                 |                                    reasons): it was never sent
 *	              sent once
 *	                 |
 *	              UNKNOWN <-- no answer, 5xx: the same bytes again, under the merge right
 *	               /   \
 *	       applied      refused
 *	replica_committed() replica_refused(), pull to the head, and anew
 *
 * The first commit after the start may have been sent before a crash, so it begins as UNKNOWN:
 * it goes out as it is, without asking for chunks; the server knows it by its id, or refuses it
 * for a chunk that it lacks.
 *
 * What is sent is durable here before: after a power loss the server never has changes of this
 * device that the device has forgotten, nor node ids that it would give a second time.
 */
#include "remote/push.h"

#include "clock.h"
#include "fault.h"
#include "remote/pull.h"
#include "remote/upload.h"
#include "workers.h"

#include <errno.h>
#include <string.h>

/*
 * While changes keep coming, commits begin that far apart, so that each has many: every one costs
 * a sync of the disk here and a transaction there, on the CPUs of those who make the changes. The
 * first after a pause goes at once.
 */
#define GATHER_MS 5
/* After so many in a row it is a long piece of work that nobody watches file by file. */
#define GATHER_LONGER_AFTER 20
#define GATHER_LONGER_MS 20
/* So many have gathered already. */
#define GATHERED_CHANGES (COMMIT_CHANGES_MAX / 2)

static const struct retry push_retry = { .min_ms = 100, .max_ms = 30000 };

struct push {
	struct sync *sync;
	struct upload upload;
	struct retry retry;
	bool may_be_sent; /* the next commit may have reached the server already */
	unsigned refused_at_head; /* in a row: pulling will not help */
};

void push_wake(void *ctx)
{
	struct sync *s = ctx;
	SCOPED_LOCK(&s->lock);

	/* It is told already, and has not looked yet. */
	if (s->outbox_woken)
		return;
	s->outbox_woken = true;
	pthread_cond_broadcast(&s->changed);
}

static bool wait_for_work(struct sync *s)
{
	SCOPED_LOCK(&s->lock);
	s->pushing = false;
	if (!s->outbox_woken)
		pthread_cond_broadcast(&s->changed);
	while (!s->outbox_woken && !s->stopping)
		sync_wait_changed_locked(s, NO_DEADLINE);
	s->outbox_woken = false;
	s->pushing = true;
	return !s->stopping;
}

static int give_back(struct push *p, const struct outgoing *o, int why)
{
	static const struct commit_reply no_reasons;
	int r = replica_refused(p->sync->tree, o, &no_reasons);

	return r < 0 ? r : why;
}

struct file_name {
	char text[NAME_BYTES_MAX + 1];
};

static int take_name(void *ctx, uint64_t parent, struct slice name)
{
	struct file_name *f = ctx;

	memcpy(f->text, name.p, MIN(name.n, NAME_BYTES_MAX));
	f->text[MIN(name.n, NAME_BYTES_MAX)] = '\0';
	return 1;
}

static bool content_has(
	const struct slice *content, const struct digest *chunk, struct digest *ret_id)
{
	_cleanup_manifest_ struct manifest *m = NULL;

	if (manifest_decode(content->p, content->n, &m, NULL) < 0)
		return false;
	*ret_id = *manifest_content_id(m);
	for (size_t i = 0; i < manifest_count(m); i++) {
		if (digest_eq(&manifest_at(m, i)->id, chunk))
			return true;
	}
	return false;
}

static uint64_t node_of_content(const struct commit *c, const struct digest *content)
{
	for (size_t i = 0; i < c->n_changes; i++) {
		_cleanup_arena_ struct arena *arena = NULL;
		struct change change;

		if (change_decode(c->changes[i].p, c->changes[i].n, &change, &arena, NULL) == 0 &&
			digest_eq(&change.attr.content, content))
			return change.node;
	}
	return 0;
}

/* Whose bytes they were, for people. */
static void name_damage(
	struct push *p, const struct outgoing *o, const struct digest *chunk, struct err *err)
{
	struct file_name name = { "a file" };
	struct digest content;

	for (size_t i = 0; i < o->commit.n_contents; i++) {
		uint64_t node;

		if (!content_has(&o->commit.contents[i], chunk, &content))
			continue;
		node = node_of_content(&o->commit, &content);
		if (node && tree_names(p->sync->tree, node, take_name, &name) >= 0)
			break;
	}
	err_prefix(err, "%s cannot be uploaded", name.text);
}

static int prepare(struct push *p, const struct outgoing *o, struct buf *ret_pack, struct err *err)
{
	struct digest damaged = { 0 };
	int r = 0;

	if (!p->may_be_sent)
		r = upload_packs(&p->upload, o, &damaged, err);
	if (r == 0)
		r = upload_inline(&p->upload, o, ret_pack, &damaged, err);
	if (r == -EBADMSG && !digest_is_zero(&damaged))
		name_damage(p, o, &damaged, err);
	return r;
}

/* The server did not apply it, and never saw an earlier copy that it could have applied. */
static bool surely_not_applied(int r)
{
	return r == -ENOTCONN || r == -EACCES || r == -EPERM || r == -ENOENT || r == -EINVAL ||
	       r == -EMSGSIZE;
}

/* Which errors tell of the line or the token, and which of this commit. */
static void note_failure(struct push *p, int r, const struct err *err, int64_t took_ms)
{
	if (r == -EPERM || r == -EINVAL || r == -EMSGSIZE || r == -EBADMSG || r == -ENOSPC ||
		r == -ENOMEM)
		sync_note_hold(p->sync, HOLD_OUTBOX, err->text);
	else
		sync_note_bad(p->sync, r, err, took_ms);
}

/* Sends it until its fate is known, or it is known not to have arrived. */
static int send(struct push *p, const struct buf *body, struct commit_reply *ret,
	struct arena **ret_arena, struct err *err)
{
	struct sync *s = p->sync;
	uint32_t number = replica_device_number(s->tree);

	for (;;) {
		int64_t began_ms = clock_mono_ms();
		int r = client_commit(
			s->client, s->drive_id, number, body->data, body->len, ret, ret_arena, err);

		/* It has been there; what it said is not noted yet, and that can fail. */
		if (r == 0) {
			p->may_be_sent = true;
			fault_instant("push.answered");
			return 0;
		}
		if (!p->may_be_sent && surely_not_applied(r))
			return r;
		p->may_be_sent = true;
		if (r == -ECANCELED)
			return r;
		note_failure(p, r, err, clock_mono_ms() - began_ms);
		sync_pause_before_retry(s, &p->retry);
	}
}

static int applied(
	struct push *p, const struct outgoing *o, const struct commit_reply *reply, struct err *err)
{
	struct sync *s = p->sync;
	int r = replica_committed(s->tree, o, reply->seq);

	if (r < 0)
		return err_sys(err, -r, "noting what the server accepted");
	p->may_be_sent = false;
	p->refused_at_head = 0;
	upload_forget(&p->upload);
	retry_reset(&p->retry);
	sync_note_hold(s, HOLD_OUTBOX, NULL);
	if (replica_cursor(s->tree) < reply->head)
		sync_note_behind(s, true);
	sync_note_head(s, reply->head);
	sync_note_outbox(s);
	return 1;
}

static void describe_refusal(
	const struct commit *c, const struct commit_reply *reply, struct err *err)
{
	static const char *const kinds[] = { "change", "create", "write", "setattr", "link",
		"unlink", "rename", "setxattr", "removexattr" };
	const struct refused_change *first = reply->refused;
	_cleanup_arena_ struct arena *arena = NULL;
	struct change change = { 0 };

	if (reply->n_refused == 0) {
		err_set(err, EAGAIN, "the server refuses a commit without a reason");
		return;
	}
	if (first->index < c->n_changes)
		(void)!change_decode(c->changes[first->index].p, c->changes[first->index].n,
			&change, &arena, NULL);
	err_set(err, EAGAIN, "the server refuses %s of \"%.*s\" (node %llu): %s: %.*s",
		kinds[(unsigned)change.kind < ARRAY_SIZE(kinds) ? change.kind : 0],
		(int)change.name.n, change.name.p ? (const char *)change.name.p : "",
		(unsigned long long)change.node, refusal_text(first->reason), (int)first->detail.n,
		first->detail.p ? (const char *)first->detail.p : "");
}

static bool pulling_helps(const struct outgoing *o, const struct commit_reply *reply)
{
	for (size_t i = 0; i < reply->n_refused; i++) {
		if (reply->refused[i].reason == REFUSAL_QUOTA)
			return false;
	}
	return reply->head > o->commit.base;
}

/* 1: worth another try at once. */
static int refused(
	struct push *p, const struct outgoing *o, const struct commit_reply *reply, struct err *err)
{
	int r = replica_refused(p->sync->tree, o, reply);

	if (r < 0)
		return err_sys(err, -r, "noting what the server refused");
	p->may_be_sent = false;
	upload_forget(&p->upload);
	sync_note_head(p->sync, reply->head);
	p->refused_at_head = pulling_helps(o, reply) ? 0 : p->refused_at_head + 1;
	if (p->refused_at_head < 2)
		return 1;
	describe_refusal(&o->commit, reply, err);
	sync_note_hold(p->sync, HOLD_OUTBOX, err->text);
	return -EAGAIN;
}

static int encode(
	const struct outgoing *o, const struct buf *pack, struct buf *ret, struct err *err)
{
	struct commit c = o->commit;
	int r;

	c.pack = (struct slice){ pack->data, pack->len };
	r = commit_encode(&c, ret);
	return r < 0 ? err_sys(err, -r, "a commit cannot be encoded") : 0;
}

static int make_durable(struct push *p, struct err *err)
{
	int r = tree_sync(p->sync->tree);

	return r < 0 ? err_sys(err, -r, "what is to be sent cannot be made durable here") : 0;
}

/* 1 done, and there may be more; 2 refused: pull first; -errno. Has the merge right. */
static int push_commit(struct push *p, const struct outgoing *o, struct err *err)
{
	_cleanup_buf_ struct buf pack = { 0 }, body = { 0 };
	_cleanup_arena_ struct arena *arena = NULL;
	struct commit_reply reply = { 0 };
	int r = prepare(p, o, &pack, err);

	if (r == 0)
		r = encode(o, &pack, &body, err);
	buf_done(&pack);
	if (r == 0)
		r = make_durable(p, err);
	if (r == 0)
		r = send(p, &body, &reply, &arena, err);
	if (r < 0)
		return p->may_be_sent ? r : give_back(p, o, r);
	sync_note_good(p->sync);
	if (reply.seq)
		return applied(p, o, &reply, err);
	r = refused(p, o, &reply, err);
	return r < 0 ? r : 2;
}

static int push_locked(struct push *p, struct err *err)
{
	struct outgoing o = { 0 };
	int r = replica_next(p->sync->tree, &o);

	if (r < 0)
		return err_sys(err, -r, "reading the outbox");
	if (r == 0) {
		p->may_be_sent = false;
		sync_note_hold(p->sync, HOLD_OUTBOX, NULL);
		return 0;
	}
	r = push_commit(p, &o, err);
	outgoing_done(&o);
	return r;
}

/* 1: progress, there may be more; 0: the outbox is empty; -errno: pause. */
static int push_once(struct push *p, struct err *err)
{
	struct sync *s = p->sync;
	int r = merge_enter(s, false, NO_DEADLINE);

	if (r < 0)
		return r;
	r = push_locked(p, err);
	merge_leave(s);
	if (r == 2) {
		r = pull_to_head(s, NO_DEADLINE, err);
		return r < 0 ? r : 1;
	}
	/* Somebody's page waited for the merge right, or pulling may help the refused commit. */
	if (r == -EAGAIN && p->refused_at_head < 2)
		return 1;
	return r;
}

/* Waits for more to gather, when there is something already. */
static void gather(struct push *p, unsigned in_a_row, int64_t began_ms)
{
	struct sync *s = p->sync;
	struct outbox_stats outbox;
	int64_t until = began_ms + (in_a_row < GATHER_LONGER_AFTER ? GATHER_MS : GATHER_LONGER_MS);

	replica_outbox_stats(s->tree, &outbox);
	if (outbox.entries == 0 || outbox.entries >= GATHERED_CHANGES)
		return;
	SCOPED_LOCK(&s->lock);
	while (!s->stopping && sync_wait_changed_locked(s, until))
		;
}

static void push_all(struct push *p)
{
	struct sync *s = p->sync;
	unsigned in_a_row = 0;
	int r = 1;

	while (r && !sync_stopping(s)) {
		struct err err = { 0 };
		int64_t began_ms = clock_mono_ms();

		r = push_once(p, &err);
		if (r > 0)
			gather(p, in_a_row++, began_ms);
		if (r >= 0 || r == -ECANCELED)
			continue;
		if (r != -EAGAIN)
			note_failure(p, r, &err, clock_mono_ms() - began_ms);
		sync_pause_before_retry(s, &p->retry);
	}
}

void *push_main(void *arg)
{
	struct push p = { .sync = arg, .retry = push_retry, .may_be_sent = true };

	thread_set_background();
	upload_init(&p.upload, p.sync);
	while (wait_for_work(p.sync))
		push_all(&p);
	upload_done(&p.upload);
	return NULL;
}
