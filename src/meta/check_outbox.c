// SPDX-License-Identifier: Apache-2.0
/* The outbox: each entry, and what it says against what the tree has; and the conflicts. */
#include "meta/check_impl.h"

#include <errno.h>

/* What the outbox says last of a node. */
struct last_word {
	UT_hash_handle hh;
	uint64_t node;
	struct digest content;
	bool wrote;
	bool died;
};

struct outbox_check {
	struct check *c;
	struct last_word *words;
};

static void outbox_check_done(struct outbox_check *oc)
{
	struct last_word *w, *next;

	HASH_ITER (hh, oc->words, w, next) {
		HASH_DEL(oc->words, w);
		free(w);
	}
}

static struct last_word *word_of(struct outbox_check *oc, uint64_t node)
{
	struct last_word *w;

	HASH_FIND(hh, oc->words, &node, sizeof node, w);
	if (w || !(w = calloc(1, sizeof *w)))
		return w;
	w->node = node;
	HASH_ADD(hh, oc->words, node, sizeof w->node, w);
	return w;
}

static int note_change(struct outbox_check *oc, const struct outbox_entry *e)
{
	const struct change *c = &e->change;
	bool victim_died = c->kind == CHANGE_RENAME && (e->tag & OUTBOX_DIED);
	struct last_word *w = word_of(oc, c->node), *v;

	if (!w)
		return -ENOMEM;
	if (c->kind == CHANGE_WRITE || c->kind == CHANGE_CREATE) {
		w->content = c->attr.content;
		w->wrote = true;
		w->died = false;
	}
	if (c->kind == CHANGE_UNLINK && (e->tag & OUTBOX_DIED))
		w->died = true;
	if (!victim_died)
		return 0;
	v = word_of(oc, c->victim);
	if (v)
		v->died = true;
	return v ? 0 : -ENOMEM;
}

/* Every content that an entry names has to be here, to be sent. */
static int check_entry_content(struct outbox_check *oc, const struct outbox_entry *e)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	struct digest id = e->change.attr.content;
	int r;

	if (!(e->tag & (OUTBOX_MANIFEST | OUTBOX_CONTENT)))
		return 0;
	r = check_manifest(
		oc->c->at, e->tag & OUTBOX_MANIFEST ? e->manifest : (struct slice){ 0 }, &id, &m);
	if (r == 0)
		check_say(oc->c, CHECK_LOSS, "outbox", NULL,
			"entry %llu writes node %llx; the list of its chunks is missing or damaged",
			(unsigned long long)e->number, (unsigned long long)e->change.node);
	return MIN(r, 0);
}

static int check_one(struct outbox_check *oc, struct slice key, struct slice value)
{
	_cleanup_arena_ struct arena *arena = NULL;
	struct outbox_entry e;
	uint64_t number;
	int r;

	if (key_id_parse(key, &number) < 0 || outbox_entry_decode(number, value, &e, &arena) < 0) {
		check_say(oc->c, CHECK_LOSS, "outbox", NULL,
			"a change that is not sent yet is malformed");
		oc->c->result.rebuild = true;
		return 0;
	}
	oc->c->result.outbox_entries++;
	if (number <= oc->c->acked)
		check_say_tree(oc->c, "entry %llu was sent, and is still in the outbox",
			(unsigned long long)number);
	r = number_add(&oc->c->entries, number);
	if (r == 0)
		r = note_change(oc, &e);
	return r < 0 ? r : check_entry_content(oc, &e);
}

/* The tree has what the outbox said last. */
static int check_words(struct outbox_check *oc)
{
	_cleanup_buf_ struct buf row = { 0 };

	for (struct last_word *w = oc->words; w; w = w->hh.next) {
		struct row_key k = key_id(w->node);
		struct node_rec rec;
		int r;

		buf_clear(&row);
		r = store_snapshot_get(oc->c->at, CF_NODE, k.b, k.n, &row);
		if (r < 0)
			return r;
		if (r > 0 && node_decode((struct slice){ row.data, row.len }, &rec) < 0)
			continue; /* told by the check of the tree */
		if (r > 0 && w->died)
			check_say_tree(oc->c, "node %llx is there, and was deleted",
				(unsigned long long)w->node);
		if (r == 0 && !w->died)
			check_say_tree(oc->c, "node %llx was changed, and is not there",
				(unsigned long long)w->node);
		if (r > 0 && w->wrote && !digest_eq(&rec.attr.content, &w->content))
			check_say_tree(oc->c, "node %llx has another content than was written",
				(unsigned long long)w->node);
	}
	return 0;
}

static int check_conflicts(struct check *c)
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(c->at, CF_CONFLICT, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct conflict_rec rec;
		uint64_t number;

		if (key_id_parse(store_iter_key(it), &number) < 0 ||
			conflict_decode(store_iter_value(it), &rec) < 0)
			check_say_tree(c, "a conflict that is listed is malformed");
	}
	return r;
}

int check_outbox(struct check *c)
{
	_cleanup_(outbox_check_done) struct outbox_check oc = { .c = c };
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_snapshot_iter(c->at, CF_OUTBOX, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		r = check_one(&oc, store_iter_key(it), store_iter_value(it));
		if (r == 0)
			r = check_stopped(c);
		if (r < 0)
			return r;
	}
	if (r == 0)
		r = check_words(&oc);
	return r == 0 ? check_conflicts(c) : r;
}
