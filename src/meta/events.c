// SPDX-License-Identifier: Apache-2.0
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>

void events_done(struct events *ev)
{
	free(ev->list);
	*ev = (struct events){ 0 };
}

int events_add(struct events *ev, struct tree_event e)
{
	if (ev->n == ev->cap) {
		size_t cap = ev->cap ? ev->cap * 2 : 64;
		struct tree_event *list = reallocarray(ev->list, cap, sizeof *list);

		if (!list)
			return -ENOMEM;
		ev->list = list;
		ev->cap = cap;
	}
	ev->list[ev->n++] = e;
	return 0;
}

static int node_event(struct events *ev, const struct view_row *row)
{
	struct tree_event e = { .kind = TREE_ATTR };
	struct node_rec was, now;
	int r = key_id_parse(view_row_key(row), &e.node);

	if (r == 0 && row->old.p)
		r = node_decode(row->old, &was);
	if (r == 0 && row->now.p)
		r = node_decode(row->now, &now);
	if (r < 0 || !row->old.p)
		return r;
	if (!row->now.p) {
		e.kind = TREE_GONE;
		e.was = was.attr;
	} else if (!digest_eq(&was.attr.content, &now.attr.content)) {
		e.kind = TREE_CONTENT;
	}
	return events_add(ev, e);
}

static int link_event(struct events *ev, const struct view_row *row)
{
	struct tree_event e = { .kind = TREE_LINK };
	struct link_rec was = { 0 }, now = { 0 };
	int r = key_link_parse(view_row_key(row), &e.parent, &e.name);

	if (r == 0 && row->old.p)
		r = link_decode(row->old, &was);
	if (r == 0 && row->now.p)
		r = link_decode(row->now, &now);
	if (r < 0 || was.node == now.node)
		return r;
	/* Of a name that leads nowhere: where it led. */
	e.node = now.node ? now.node : was.node;
	return events_add(ev, e);
}

static int xattr_event(struct events *ev, const struct view_row *row)
{
	struct tree_event e = { .kind = TREE_ATTR };
	struct slice name;
	int r = key_child_parse(view_row_key(row), &e.node, &name);

	return r < 0 ? r : events_add(ev, e);
}

int events_of_view(struct view *v, struct events *ev)
{
	int r = 0;

	for (struct view_row *row = v->rows; row && r == 0; row = row->hh.next) {
		if (row->old.p ? row->now.p && slice_eq(row->old, row->now) : !row->now.p)
			continue;
		if (view_row_cf(row) == CF_NODE)
			r = node_event(ev, row);
		else if (view_row_cf(row) == CF_LINK)
			r = link_event(ev, row);
		else if (view_row_cf(row) == CF_XATTR)
			r = xattr_event(ev, row);
	}
	return r;
}

void tree_tell_attr(struct tree *t, uint64_t node)
{
	struct tree_event e = { .kind = TREE_ATTR, .node = node };

	events_tell(t, &(struct events){ .list = &e, .n = 1 });
}

void events_tell(struct tree *t, const struct events *ev)
{
	if (t->sink.changed && ev->n)
		t->sink.changed(t->sink.ctx, ev->list, ev->n);
}
