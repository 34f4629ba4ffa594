// SPDX-License-Identifier: Apache-2.0
#include "remote/pull.h"

#include "clock.h"

#include <errno.h>

/* The server answers a waiting question after this at the latest: below usual proxies' minute. */
#define FEED_WAIT_MS 50000
/* A feed that answers "nothing new" sooner than asked must not make us spin. */
#define EARLY_ANSWER_MS 1000
#define EARLY_ANSWER_PAUSE_MS 200
/* While own commits go out, each would only come back as news: let them gather. */
#define OWN_COMMITS_MS 200

static const struct retry pull_retry = { .min_ms = 100, .max_ms = 30000 };

static int apply(
	struct sync *s, const struct changes *page, int64_t deadline_mono_ms, struct err *err)
{
	int r = merge_enter(s, true, deadline_mono_ms);

	if (r < 0)
		return err_sys(err, -r, "waiting to apply changes");
	/* Own commits may have moved the cursor meanwhile: then the page is not for this tree. */
	if (replica_cursor(s->tree) == page->from)
		r = replica_apply(s->tree, page, err);
	merge_leave(s);
	sync_note_outbox(s); /* a rebase may have dropped entries */
	return r;
}

static int check_progress(const struct changes *page, struct err *err)
{
	if (page->to == page->from && page->head > page->to)
		return err_set(err, EBADMSG, "changes: a page that leads nowhere");
	return 0;
}

static void note_applied(struct sync *s, int r, const struct err *err)
{
	if (r != -ECANCELED && r != -ETIMEDOUT)
		sync_note_hold(s, HOLD_CHANGES, r < 0 ? err->text : NULL);
}

/* One question. *ret_at_head: the answer left nothing to ask for. */
static int pull_page(struct sync *s, unsigned wait_ms, int64_t deadline_mono_ms, bool *ret_at_head,
	struct err *err)
{
	struct client_limit limit = { .deadline_mono_ms = deadline_mono_ms };
	int64_t began_ms = clock_mono_ms();
	_cleanup_arena_ struct arena *arena = NULL;
	struct changes page;
	int r;

	r = client_changes(s->client, s->drive_id, replica_cursor(s->tree), wait_ms,
		deadline_mono_ms == NO_DEADLINE ? NULL : &limit, &page, &arena, err);
	if (r < 0) {
		/* A caller's short deadline says nothing about the line. */
		if (r != -ETIMEDOUT || clock_mono_ms() < deadline_mono_ms)
			sync_note_bad(s, r, err, clock_mono_ms() - began_ms);
		return r;
	}
	sync_note_good(s);
	sync_note_head(s, page.head);
	r = check_progress(&page, err);
	if (r == 0 && page.to > page.from)
		r = apply(s, &page, deadline_mono_ms, err);
	note_applied(s, r, err);
	if (r < 0)
		return r;
	*ret_at_head = replica_cursor(s->tree) >= page.head;
	sync_note_behind(s, !*ret_at_head);
	return 0;
}

int pull_to_head(struct sync *s, int64_t deadline_mono_ms, struct err *err)
{
	bool at_head = false;
	int r = 0;

	while (r == 0 && !at_head)
		r = pull_page(s, 0, deadline_mono_ms, &at_head, err);
	return r;
}

/* Lets a burst of own commits pass, unless somebody else's are known to lie between them. */
static void wait_for_own_commits(struct sync *s)
{
	int64_t until = clock_mono_ms() + OWN_COMMITS_MS;
	SCOPED_LOCK(&s->lock);

	while (s->pushing && !s->behind && !s->stopping && s->link == SYNC_ONLINE &&
		sync_wait_changed_locked(s, until))
		;
}

static int pull_once(struct sync *s, struct err *err)
{
	int64_t began_ms = clock_mono_ms();
	uint64_t cursor = replica_cursor(s->tree);
	bool at_head;
	int r = pull_page(s, FEED_WAIT_MS, NO_DEADLINE, &at_head, err);

	if (r == 0 && replica_cursor(s->tree) == cursor &&
		clock_mono_ms() - began_ms < EARLY_ANSWER_MS)
		sync_pause(s, EARLY_ANSWER_PAUSE_MS);
	return r;
}

void *pull_main(void *arg)
{
	struct sync *s = arg;
	struct retry retry = pull_retry;

	while (!sync_stopping(s)) {
		struct err err = { 0 };
		int r;

		wait_for_own_commits(s);
		r = pull_once(s, &err);
		if (r == 0) {
			retry_reset(&retry);
			continue;
		}
		sync_pause_before_retry(s, &retry);
	}
	return NULL;
}
