// SPDX-License-Identifier: Apache-2.0
#include "remote/sync_state.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* How often a device whose token or drive is gone asks whether it is back. */
#define REFUSED_PAUSE_MS (60 * 1000)
/* Finding out that nobody answers took this long: do not make every reader wait for it. */
#define SLOW_FAILURE_MS 500
#define UNREACHABLE_MS 1000

bool sync_stopping(struct sync *s)
{
	SCOPED_LOCK(&s->lock);
	return s->stopping;
}

bool sync_wait_changed_locked(struct sync *s, int64_t deadline_mono_ms)
{
	int64_t left = deadline_mono_ms - clock_mono_ms();
	struct timespec t;

	if (deadline_mono_ms == NO_DEADLINE) {
		pthread_cond_wait(&s->changed, &s->lock);
		return true;
	}
	if (left <= 0)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += left / MS_PER_S;
	t.tv_nsec += left % MS_PER_S * NS_PER_MS;
	if (t.tv_nsec >= NS_PER_S) {
		t.tv_sec++;
		t.tv_nsec -= NS_PER_S;
	}
	pthread_cond_timedwait(&s->changed, &s->lock, &t);
	return true;
}

void sync_pause(struct sync *s, uint32_t ms)
{
	int64_t until = clock_mono_ms() + ms;
	SCOPED_LOCK(&s->lock);
	unsigned recoveries = s->recoveries;

	while (!s->stopping && s->recoveries == recoveries && sync_wait_changed_locked(s, until))
		;
}

void sync_pause_before_retry(struct sync *s, struct retry *retry)
{
	uint32_t chance = 0, ms;
	bool refused;

	/* Without chance the pause is the longest: good enough. */
	if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) < 0)
		chance = 0;
	ms = retry_pause_ms(retry, chance);
	pthread_mutex_lock(&s->lock);
	refused = s->link == SYNC_REFUSED;
	pthread_mutex_unlock(&s->lock);
	sync_pause(s, refused ? REFUSED_PAUSE_MS : ms);
}

int merge_enter(struct sync *s, bool first, int64_t deadline_mono_ms)
{
	int r = 0;
	SCOPED_LOCK(&s->lock);

	s->merge_wanted_first += first;
	while (r == 0 && (s->merge_taken || (!first && s->merge_wanted_first)) && !s->stopping) {
		if (!sync_wait_changed_locked(s, deadline_mono_ms))
			r = -ETIMEDOUT;
	}
	s->merge_wanted_first -= first;
	if (s->stopping)
		r = -ECANCELED;
	if (r == 0)
		s->merge_taken = true;
	else if (first)
		pthread_cond_broadcast(&s->changed);
	return r;
}

void merge_leave(struct sync *s)
{
	SCOPED_LOCK(&s->lock);
	s->merge_taken = false;
	pthread_cond_broadcast(&s->changed);
}

bool merge_wanted_first(struct sync *s)
{
	SCOPED_LOCK(&s->lock);
	return s->merge_wanted_first > 0;
}

static void note_link(struct sync *s, enum sync_link link, const char *detail)
{
	bool news;
	SCOPED_LOCK(&s->lock);

	news = s->link != link || strncmp(s->link_detail, detail, SYNC_DETAIL_BYTES - 1) != 0;
	if (link == SYNC_ONLINE && s->link != SYNC_ONLINE)
		s->recoveries++;
	s->link = link;
	snprintf(s->link_detail, sizeof s->link_detail, "%.*s", SYNC_DETAIL_BYTES - 1, detail);
	if (!news)
		return;
	pthread_cond_broadcast(&s->changed);
	if (link == SYNC_ONLINE)
		log_info("sync: connected");
	else
		log_warn("sync: %s", detail);
}

void sync_note_good(struct sync *s)
{
	note_link(s, SYNC_ONLINE, "");
}

static void note_unreachable(struct sync *s, int64_t took_ms)
{
	SCOPED_LOCK(&s->lock);
	if (took_ms >= SLOW_FAILURE_MS)
		s->unreachable_until_ms = clock_mono_ms() + UNREACHABLE_MS;
}

void sync_note_bad(struct sync *s, int r, const struct err *err, int64_t took_ms)
{
	if (r == -ECANCELED || r == -EINTR)
		return;
	if (r == -ENOTCONN)
		note_unreachable(s, took_ms);
	if (r == -EACCES || r == -EPERM || r == -ENOENT)
		note_link(s, SYNC_REFUSED, err->text);
	else
		note_link(s, SYNC_OFFLINE, err->text);
}

void sync_note_hold(struct sync *s, enum sync_hold hold, const char *why)
{
	static const char *const what[] = { [HOLD_OUTBOX] = "upload", [HOLD_CHANGES] = "changes" };
	char *detail = s->hold_detail[hold];
	SCOPED_LOCK(&s->lock);
	bool news;

	if (!why)
		why = "";
	news = strncmp(detail, why, SYNC_DETAIL_BYTES - 1) != 0;
	snprintf(detail, SYNC_DETAIL_BYTES, "%s", why);
	if (news && *why)
		log_warn("sync: %s: %s", what[hold], why);
}

void sync_note_head(struct sync *s, uint64_t head)
{
	SCOPED_LOCK(&s->lock);
	if (head > s->head)
		s->head = head;
	pthread_cond_broadcast(&s->changed);
}

void sync_note_behind(struct sync *s, bool behind)
{
	SCOPED_LOCK(&s->lock);
	s->behind = behind;
	pthread_cond_broadcast(&s->changed);
}

void sync_note_outbox(struct sync *s)
{
	SCOPED_LOCK(&s->lock);
	s->outbox_news++;
	pthread_cond_broadcast(&s->changed);
}
