// SPDX-License-Identifier: Apache-2.0
/*
 * How a staging ends. What an fsync has promised of it stays on disk until the tree that has it,
 * or that its node is deleted from, is durable; and so does what another one's begin replaces,
 * until that begin is durable.
 */
#include "fs/staging.h"

#include "fault.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What it counts for in the folder's figures. */
static void unaccount(struct staging *s)
{
	atomic_fetch_sub(&s->dir->staged_bytes, s->map.staged_bytes);
}

/* The log ends it: what the tree knows of it can go once that is durable. */
static void note_over(struct staging *s)
{
	struct staging_dir *d = s->dir;

	SCOPED_LOCK(&d->over_lock);
	if (d->n_over == d->over_capacity) {
		size_t capacity = d->over_capacity ? 2 * d->over_capacity : 64;
		uint64_t *p = reallocarray(d->over, capacity, sizeof *p);

		if (!p)
			return; /* the row goes after the next start */
		d->over = p;
		d->over_capacity = capacity;
	}
	d->over[d->n_over++] = s->id;
}

size_t staging_dir_over(struct staging_dir *d)
{
	SCOPED_LOCK(&d->over_lock);
	return d->n_over;
}

size_t staging_dir_take_over(struct staging_dir *d, uint64_t **ret)
{
	size_t n;

	SCOPED_LOCK(&d->over_lock);
	n = d->n_over;
	*ret = steal(d->over);
	d->n_over = d->over_capacity = 0;
	return n;
}

/* Removes what is on disk; readers keep the descriptor. */
static void remove_files(struct staging *s, bool file)
{
	char name[STAGING_NAME_BYTES];

	if (file) {
		staging_file_name(s->id, false, name);
		unlinkat(s->dir->fd, name, 0);
	}
	if (s->kept) {
		staging_file_name(s->id, true, name);
		unlinkat(s->dir->fd, name, 0);
	}
	s->kept = false;
}

static bool has_file(const struct staging *s)
{
	return s->fd >= 0 && s->logged && !s->segment;
}

static void end_in_log(struct staging *s)
{
	staging_log_unpin(s->dir->log, s->log_number);
	note_over(s);
}

static void finish(struct staging *s)
{
	assert(!s->ended);
	fault_instant("staging.ended");
	remove_files(s, has_file(s));
	unaccount(s);
	if (s->begun && s->logged)
		end_in_log(s);
	s->ended = true;
}

bool staging_sealed(struct staging *s, uint64_t node, const struct digest *content)
{
	bool pending = atomic_load(&s->promised) && s->logged;
	struct record rec = {
		.kind = RECORD_SEALED,
		.node = s->node,
		.staging = s->id,
		.a = node,
		.b = pending,
		.payload = { content->b, DIGEST_BYTES },
	};
	int r = 0;

	/*
	 * Without this record a crash makes recovery seal the same bytes again, which changes
	 * nothing while the node has them: so a full disk may lose it.
	 */
	if (s->begun && s->logged)
		r = staging_log_append(s->dir->log, &rec, 1, NULL);
	(void)r;
	if (!pending)
		finish(s);
	return pending;
}

static void log_dropped(struct staging *s)
{
	struct record rec = { .kind = RECORD_DROPPED, .node = s->node, .staging = s->id };
	int r = 0;

	/* Lost, a crash brings back a deleted file's bytes, which the tree then drops. */
	if (s->begun)
		r = staging_log_append(s->dir->log, &rec, 1, NULL);
	(void)r;
}

/* Nothing of it is logged from now on; readers, and who has the file open, go on with it. */
static bool let_go(struct staging *s)
{
	bool hold = s->logged && s->begun && atomic_load(&s->promised);

	/* Forgotten before, and waiting to be settled. */
	if (s->held)
		return false;
	s->held = hold;
	s->held_file = hold && has_file(s);
	if (!hold)
		remove_files(s, has_file(s));
	return hold;
}

static void settle_held(struct staging *s)
{
	log_dropped(s);
	remove_files(s, s->held_file);
	end_in_log(s);
	s->held = false;
}

void staging_settle(struct staging *s)
{
	if (s->held) {
		settle_held(s);
		return;
	}
	if (s->logged)
		log_dropped(s);
	finish(s);
}

int staging_replaces(struct staging *s, const struct staging *old)
{
	size_t n;
	const uint64_t *ids = staging_ids(old, &n);

	s->replaced = calloc(n + 1, sizeof *s->replaced);
	if (!s->replaced)
		return -ENOMEM;
	memcpy(s->replaced, ids, n * sizeof *ids);
	s->replaced[n] = s->id;
	s->n_replaced = n + 1;
	return 0;
}

const uint64_t *staging_ids(const struct staging *s, size_t *ret_n)
{
	*ret_n = s->replaced ? s->n_replaced : 1;
	return s->replaced ? s->replaced : &s->id;
}

/* Until the begin that replaces it is durable, this one is what fsync promised. */
bool staging_replaced(struct staging *s)
{
	bool logged = s->logged && s->begun;

	assert(!s->ended);
	fault_instant("staging.ended");
	unaccount(s);
	s->ended = true;
	if (let_go(s))
		return true;
	if (logged)
		end_in_log(s);
	return false;
}

bool staging_forget(struct staging *s)
{
	if (!s->logged)
		return false;
	if (!let_go(s)) {
		log_dropped(s);
		if (s->begun)
			end_in_log(s);
	}
	s->logged = false;
	return s->held;
}
