// SPDX-License-Identifier: Apache-2.0
#include "drive_fake.h"

#include "chunk/pack.h"
#include "clock.h"
#include "bounds.h"

#include <string.h>

#define COMMITS_MAX 4096
#define CHUNKS_MAX 4096
#define DRIVE "/v1/drives/" FAKE_DRIVE_ID

struct chunk {
	struct digest id;
	struct buf bytes;
};

struct drive_fake {
	struct http_fake *http;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool ending;
	struct drive_faults faults;
	struct drive_counts counts;
	uint8_t ids[COMMITS_MAX][COMMIT_ID_BYTES]; /* by seq */
	struct chunk chunks[CHUNKS_MAX];
	size_t n_chunks;
};

static void must(int r)
{
	if (r < 0)
		abort();
}

static bool goes_wrong(int *fault)
{
	if (*fault <= 0)
		return false;
	--*fault;
	return true;
}

static void fail(struct fake_reply *reply, int status)
{
	buf_clear(&reply->body);
	reply->status = status;
	reply->type = "application/json";
	must(buf_printf(&reply->body, "{\"error\":\"fault\",\"detail\":\"as told\"}"));
}

static struct chunk *find(struct drive_fake *d, const struct digest *id)
{
	for (size_t i = 0; i < d->n_chunks; i++) {
		if (digest_eq(&d->chunks[i].id, id))
			return &d->chunks[i];
	}
	return NULL;
}

static void add_chunk(struct drive_fake *d, const struct digest *id, const struct buf *plain)
{
	if (find(d, id))
		return;
	d->chunks[d->n_chunks].id = *id;
	must(buf_append(&d->chunks[d->n_chunks++].bytes, plain->data, plain->len));
}

static unsigned take_pack(struct drive_fake *d, const uint8_t *p, size_t n)
{
	struct pack_reader r;
	struct pack_entry e;
	unsigned chunks = 0;

	must(pack_reader_init(&r, p, n, NULL));
	for (; pack_next(&r, &e, NULL) > 0; chunks++) {
		_cleanup_buf_ struct buf plain = { 0 };

		must(frame_decode(e.frame_bytes, e.frame.frame_len, &e.id, &plain, NULL));
		add_chunk(d, &e.id, &plain);
	}
	return chunks;
}

static void reply_commit(
	struct drive_fake *d, const struct commit_reply *r, struct fake_reply *reply)
{
	reply->status = r->seq ? 200 : 409;
	reply->type = "application/cbor";
	must(commit_reply_encode(r, &reply->body));
}

static uint64_t seq_of(struct drive_fake *d, const uint8_t *id)
{
	for (uint64_t seq = 1; seq <= d->counts.head; seq++) {
		if (memcmp(d->ids[seq], id, COMMIT_ID_BYTES) == 0)
			return seq;
	}
	return 0;
}

static void apply(struct drive_fake *d, const struct commit *c, struct fake_reply *reply)
{
	struct commit_reply r = { .head = ++d->counts.head };

	r.seq = r.head;
	memcpy(d->ids[r.seq], c->id, COMMIT_ID_BYTES);
	d->counts.changes_applied += c->n_changes;
	d->counts.committed_ms = clock_mono_ms();
	pthread_cond_broadcast(&d->changed);
	reply->close_unanswered = goes_wrong(&d->faults.lose_replies);
	reply_commit(d, &r, reply);
}

static void on_commit(struct drive_fake *d, const struct fake_request *rq, struct fake_reply *reply)
{
	struct refused_change why = { .reason = REFUSAL_STALE,
		.detail = { (const uint8_t *)"as told", 7 } };
	struct commit_reply r = { .head = d->counts.head, .refused = &why, .n_refused = 1 };
	_cleanup_arena_ struct arena *arena = NULL;
	struct commit c;
	uint64_t seq;

	d->counts.commits++;
	must(commit_decode(rq->body, rq->body_len, &c, &arena, NULL));
	d->counts.last_base = c.base;
	seq = seq_of(d, c.id);
	if (seq) {
		d->counts.seen_twice++;
		r = (struct commit_reply){ .seq = seq, .head = d->counts.head };
		reply_commit(d, &r, reply);
	} else if (goes_wrong(&d->faults.fail_commits)) {
		fail(reply, 500);
	} else if (goes_wrong(&d->faults.refuse_commits)) {
		why.reason = d->faults.refuse_as;
		reply_commit(d, &r, reply);
	} else if (c.base < d->counts.head) {
		reply_commit(d, &r, reply);
	} else {
		if (c.pack.n)
			d->counts.inlined += take_pack(d, c.pack.p, c.pack.n);
		apply(d, &c, reply);
	}
}

static void wait_for_news(struct drive_fake *d, uint64_t since, long wait_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += wait_ms / 1000;
	if (wait_ms == 0 || goes_wrong(&d->faults.early_pages))
		return;
	while (d->counts.head <= since && !d->ending && !d->faults.status &&
		pthread_cond_timedwait(&d->changed, &d->lock, &until) == 0)
		;
}

static void on_changes(
	struct drive_fake *d, const struct fake_request *rq, struct fake_reply *reply)
{
	const char *since = strstr(rq->path, "since="), *wait = strstr(rq->path, "wait_ms=");
	struct changes c = { .from = strtoull(since + 6, NULL, 10) };

	d->counts.changes++;
	wait_for_news(d, c.from, wait ? strtol(wait + 8, NULL, 10) : 0);
	if (d->faults.status) {
		fail(reply, d->faults.status);
		return;
	}
	c.to = c.head = d->counts.head;
	reply->type = "application/cbor";
	must(changes_encode(&c, &reply->body));
	if (goes_wrong(&d->faults.cut_pages))
		reply->cut_at = reply->body.len / 2;
}

static void on_missing(
	struct drive_fake *d, const struct fake_request *rq, struct fake_reply *reply)
{
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_free_ struct digest *lacking = NULL;
	struct id_list asked, answer = { 0 };

	d->counts.missing++;
	must(id_list_decode(rq->body, rq->body_len, MISSING_IDS_MAX, &asked, &arena, NULL));
	lacking = calloc(asked.n + 1, sizeof *lacking);
	for (size_t i = 0; i < asked.n; i++) {
		if (!find(d, &asked.ids[i]))
			lacking[answer.n++] = asked.ids[i];
	}
	answer.ids = lacking;
	reply->type = "application/cbor";
	must(id_list_encode(&answer, &reply->body));
}

static void pause_unlocked(struct drive_fake *d, int ms)
{
	pthread_mutex_unlock(&d->lock);
	usleep((useconds_t)ms * 1000);
	pthread_mutex_lock(&d->lock);
}

static void on_pack(struct drive_fake *d, const struct fake_request *rq, struct fake_reply *reply)
{
	d->counts.packs++;
	pause_unlocked(d, d->faults.slow_packs_ms);
	d->counts.in_packs += take_pack(d, rq->body, rq->body_len);
	reply->status = 201;
	reply->type = "application/json";
	must(buf_printf(&reply->body, "{\"chunks\":1}"));
}

static void add_frame(struct drive_fake *d, const struct digest *id, struct buf *pack)
{
	const struct chunk *k = find(d, id);

	if (goes_wrong(&d->faults.swap_frames)) {
		_cleanup_buf_ struct buf frame = { 0 };

		must(frame_encode("something else", 14, &frame));
		must(pack_add_frame(pack, id, frame.data, frame.len));
		return;
	}
	must(pack_add(pack, id, k->bytes.data, k->bytes.len));
}

static void on_fetch(struct drive_fake *d, const struct fake_request *rq, struct fake_reply *reply)
{
	_cleanup_arena_ struct arena *arena = NULL;
	struct id_list asked;
	size_t n;

	d->counts.fetches++;
	pause_unlocked(d, d->faults.slow_fetches_ms);
	must(id_list_decode(rq->body, rq->body_len, FETCH_IDS_MAX, &asked, &arena, NULL));
	if (goes_wrong(&d->faults.fail_fetches)) {
		fail(reply, 500);
		return;
	}
	reply->type = "application/x-varve-pack";
	must(pack_begin(&reply->body));
	n = asked.n - goes_wrong(&d->faults.drop_frames);
	for (size_t i = 0; i < n; i++) {
		if (!find(d, &asked.ids[i])) {
			fail(reply, 404);
			return;
		}
		add_frame(d, &asked.ids[i], &reply->body);
	}
	if (goes_wrong(&d->faults.damage_frames))
		reply->body.data[reply->body.len - 1] ^= 1;
}

static bool is(const struct fake_request *rq, const char *method, const char *path)
{
	return strcmp(rq->method, method) == 0 && strncmp(rq->path, path, strlen(path)) == 0;
}

static void handle(void *ctx, const struct fake_request *rq, struct fake_reply *reply)
{
	struct drive_fake *d = ctx;
	SCOPED_LOCK(&d->lock);

	if (d->faults.status)
		fail(reply, d->faults.status);
	else if (is(rq, "POST", DRIVE "/commits"))
		on_commit(d, rq, reply);
	else if (is(rq, "GET", DRIVE "/changes"))
		on_changes(d, rq, reply);
	else if (is(rq, "POST", DRIVE "/missing"))
		on_missing(d, rq, reply);
	else if (is(rq, "POST", DRIVE "/packs"))
		on_pack(d, rq, reply);
	else if (is(rq, "POST", DRIVE "/fetch"))
		on_fetch(d, rq, reply);
	else
		fail(reply, 404);
}

struct drive_fake *drive_fake_new(int port)
{
	struct drive_fake *d = calloc(1, sizeof *d);

	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->changed, NULL);
	d->http = http_fake_new(port, handle, d);
	if (!d->http)
		abort();
	return d;
}

void drive_fake_free(struct drive_fake *d)
{
	pthread_mutex_lock(&d->lock);
	d->ending = true;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	http_fake_free(d->http);
	for (size_t i = 0; i < d->n_chunks; i++)
		buf_done(&d->chunks[i].bytes);
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

const char *drive_fake_url(const struct drive_fake *d)
{
	return http_fake_url(d->http);
}

int drive_fake_port(const struct drive_fake *d)
{
	return http_fake_port(d->http);
}

void drive_fake_advance(struct drive_fake *d, uint64_t n)
{
	SCOPED_LOCK(&d->lock);
	d->counts.head += n;
	pthread_cond_broadcast(&d->changed);
}

void drive_fake_set_faults(struct drive_fake *d, const struct drive_faults *faults)
{
	SCOPED_LOCK(&d->lock);
	d->faults = *faults;
	pthread_cond_broadcast(&d->changed);
}

void drive_fake_counts(struct drive_fake *d, struct drive_counts *ret)
{
	SCOPED_LOCK(&d->lock);
	*ret = d->counts;
}

void drive_fake_add_chunk(struct drive_fake *d, const void *p, size_t n)
{
	struct buf plain = { (uint8_t *)(uintptr_t)p, n, n };
	struct digest id;

	digest_of(p, n, &id);
	SCOPED_LOCK(&d->lock);
	add_chunk(d, &id, &plain);
}
