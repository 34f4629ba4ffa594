// SPDX-License-Identifier: Apache-2.0
/*
 * One run of the eviction. Its order is what keeps promises:
 *  1. cache_evict_begin(): from here on no touch is forgotten;
 *  2. the list of segments that nobody holds: no new row can come to name one of them;
 *  3. what is unsent: outbox and holds;
 *  4. a walk over all rows: what each segment holds; the choice;
 *  5. a second walk: in steps, what must stay is copied, verified and synced; then the step's
 *     rows are dropped or rewritten in one batch, each only if it is still what was looked at,
 *     and under the lock under which chunks are touched;
 *  6. rows durable, and only then the files removed.
 * Killed anywhere, it leaves at worst a file that no row names, which the next run removes.
 * Rows of chunks that are on the server can be put back by a batch that was made before (a mark,
 * a merge of flags): they lead nowhere then, and are dropped by who looks.
 */
#include "meta/evict.h"

#include "bounds.h"
#include "chunk/chunker.h"
#include "clock.h"
#include "fault.h"
#include "io.h"
#include "meta/cache_impl.h"
#include "meta/unsent.h"

#include <errno.h>
#include <stdlib.h>

/* Rows a batch: so short that who adds a chunk meanwhile does not notice. */
#define STEP_ROWS 256
/* A step's copies, before they are synced and their rows written. */
#define STEP_MOVED_BYTES (16 * MIB)
/* A segment of which more than this has to be moved gives too little for the work. */
#define KEEP_SHARE_NUM 3
#define KEEP_SHARE_DEN 4
/* Of the room above what rows need, how much copies may take: a part. */
#define MOVE_ROOM_DEN 8

/* Chunks in order, to be looked up. */
struct id_set {
	struct digest *ids;
	size_t n, capacity;
};

struct candidate {
	struct segment_info info;
	uint64_t clean; /* bytes that can be fetched again */
	uint64_t keep; /* bytes that must stay */
	double worth;
	bool chosen;
	bool failed;
};

struct item {
	struct digest id;
	struct chunk_row row; /* as it was seen */
	struct candidate *from;
	bool moved;
	struct segment *to; /* counted; the new place */
	uint64_t to_offset;
};

struct run {
	const struct evict_options *o;
	struct cache *cache;
	const _Atomic int *stop;
	struct id_set unsent;
	bool unsent_known; /* else all that the server does not have stays */
	struct candidate *candidates; /* by id */
	size_t n;
	struct item items[STEP_ROWS];
	size_t n_items;
	uint64_t step_moved;
	uint8_t *bytes; /* CHUNK_MAX */
	struct evict_result result;
};

/* ---- what is unsent ---- */

static int compare_digests(const void *a, const void *b)
{
	return memcmp(a, b, DIGEST_BYTES);
}

static int add_unsent(void *ctx, const struct digest *id, uint32_t length)
{
	struct id_set *set = ctx;

	if (length <= CHUNK_INLINE_MAX) /* not in a segment */
		return 0;
	if (set->n == set->capacity) {
		size_t capacity = set->capacity ? 2 * set->capacity : 1024;
		struct digest *ids = reallocarray(set->ids, capacity, sizeof *ids);

		if (!ids)
			return -ENOMEM;
		set->ids = ids;
		set->capacity = capacity;
	}
	set->ids[set->n++] = *id;
	return 0;
}

static int add_held(void *ctx, const struct manifest *content)
{
	return manifest_visit_chunks(content, add_unsent, ctx);
}

/* Without it, what the server has can go all the same. */
static void find_unsent(struct run *run)
{
	struct id_set *set = &run->unsent;
	int r;

	if (!run->o->tree)
		return;
	r = replica_visit_unsent_chunks(run->o->tree, add_unsent, set);
	if (r == 0)
		r = cache_each_held(run->cache, add_held, set);
	if (r == 0 && set->n)
		qsort(set->ids, set->n, sizeof *set->ids, compare_digests);
	run->unsent_known = r == 0;
}

static bool is_unsent(const struct run *run, const struct digest *id)
{
	const struct id_set *set = &run->unsent;

	return !run->unsent_known ||
	       (set->n && bsearch(id, set->ids, set->n, sizeof *set->ids, compare_digests));
}

static bool is_clean(const struct chunk_row *row)
{
	return row->flags & CACHE_ON_SERVER;
}

/* ---- walking over rows ---- */

static int compare_candidates(const void *key, const void *member)
{
	const uint64_t *id = key;
	const struct candidate *c = member;

	return *id < c->info.id ? -1 : *id > c->info.id;
}

static struct candidate *candidate_of(struct run *run, const struct chunk_row *row)
{
	if (row->inlined || run->n == 0)
		return NULL;
	return bsearch(&row->segment, run->candidates, run->n, sizeof *run->candidates,
		compare_candidates);
}

/* Every row that lies in a candidate. */
static int each_row(struct run *run, int (*visit)(struct run *run, const struct digest *id,
					     const struct chunk_row *row, struct candidate *c))
{
	_cleanup_iter_ struct store_iter *it = NULL;
	int r = store_iter_new(run->cache->store, CF_CHUNK, NULL, 0, &it);

	if (r < 0)
		return r;
	for (; (r = store_iter_valid(it)) > 0; store_iter_next(it)) {
		struct slice key = store_iter_key(it), value = store_iter_value(it);
		struct chunk_row row;
		struct candidate *c;
		struct digest id;

		if (run->stop && atomic_load(run->stop))
			return -EINTR;
		/* A row that says nothing is dealt with by who reads it. */
		if (key.n != DIGEST_BYTES || chunk_row_decode(value.p, value.n, &row) < 0)
			continue;
		c = candidate_of(run, &row);
		if (!c)
			continue;
		memcpy(id.b, key.p, DIGEST_BYTES);
		r = visit(run, &id, &row, c);
		if (r < 0)
			return r;
	}
	return r;
}

/* ---- choosing ---- */

static int count_row(
	struct run *run, const struct digest *id, const struct chunk_row *row, struct candidate *c)
{
	if (is_clean(row))
		c->clean += row->length;
	else if (is_unsent(run, id))
		c->keep += row->length;
	/* A damaged one that is needed cannot be moved; somebody may want to look at it. */
	if ((row->flags & CHUNK_ROW_DAMAGED) && !is_clean(row) && is_unsent(run, id))
		c->failed = true;
	return 0;
}

/*
 * What it gives, the longer unused the better, by what it costs: a fetch of what is clean, and
 * reading and writing of what must stay (Rosenblum and Ousterhout, The Design and Implementation
 * of a Log-Structured File System, 1991: benefit to cost).
 */
static void weigh(struct candidate *c, int64_t now_ns)
{
	double age_s = (double)MAX(now_ns - c->info.used_ns, 0) / (double)NS_PER_S;
	double gain = (double)(c->info.bytes - MIN(c->keep, c->info.bytes));

	c->worth = (1 + age_s) * gain / (double)(c->clean + 2 * c->keep + CHUNK_INLINE_MAX);
}

static int compare_worth(const void *a, const void *b)
{
	const struct candidate *const *x = a, *const *y = b;

	return (*x)->worth > (*y)->worth ? -1 : (*x)->worth < (*y)->worth;
}

static bool is_eligible(const struct candidate *c)
{
	return !c->failed && c->keep <= c->info.bytes / KEEP_SHARE_DEN * KEEP_SHARE_NUM;
}

static uint64_t room_to_move(struct run *run)
{
	struct store_disk disk;

	if (store_disk(run->cache->store, &disk) < 0)
		return 0;
	if (disk.free > disk.refused_below)
		return disk.free - disk.refused_below + disk.refused_below / MOVE_ROOM_DEN;
	return disk.refused_below / MOVE_ROOM_DEN;
}

static void choose_in_order(struct run *run, struct candidate **order, uint64_t want)
{
	uint64_t gain = 0, room = room_to_move(run);

	for (size_t i = 0; i < run->n; i++) {
		struct candidate *c = order[i];
		bool empty = c->clean + c->keep == 0;

		if (!is_eligible(c) || c->keep > room || (!empty && gain >= want))
			continue;
		c->chosen = true;
		room -= c->keep;
		gain += c->info.bytes - c->keep;
	}
}

static int choose(struct run *run, uint64_t want)
{
	_cleanup_free_ struct candidate **order = NULL;
	int64_t now = clock_real_ns();

	if (run->n == 0)
		return 0;
	order = calloc(run->n, sizeof *order);
	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < run->n; i++) {
		weigh(&run->candidates[i], now);
		order[i] = &run->candidates[i];
	}
	qsort(order, run->n, sizeof *order, compare_worth);
	choose_in_order(run, order, want);
	return 0;
}

/* ---- one step ---- */

static bool is_touched(struct run *run, const struct digest *id)
{
	SCOPED_LOCK(&run->cache->touch_lock);

	return cache_is_touched_locked(run->cache, id);
}

static int read_verified(struct run *run, const struct item *item)
{
	_cleanup_segment_ struct segment *seg = NULL;
	struct digest actual;
	int r = segments_get(run->cache->segments, item->row.segment, &seg);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = io_pread_full(segment_fd(seg), run->bytes, item->row.length, item->row.offset);
	if (r < 0)
		return r;
	digest_of(run->bytes, item->row.length, &actual);
	return digest_eq(&actual, &item->id) ? 0 : -EBADMSG;
}

/* Failing, the segment stays as it is. */
static void move_item(struct run *run, struct item *item)
{
	int r = read_verified(run, item);

	if (r == 0)
		r = segments_append_moved(run->cache->segments, run->bytes, item->row.length,
			&item->to, &item->to_offset);
	if (r < 0) {
		item->from->failed = true;
		return;
	}
	item->moved = true;
	run->step_moved += item->row.length;
	run->result.moved_bytes += item->row.length;
}

static bool is_same_place(const struct chunk_row *a, const struct chunk_row *b)
{
	return !b->inlined && a->segment == b->segment && a->offset == b->offset &&
	       a->length == b->length;
}

/* The row as it is now; rows and touch_lock are held. */
static int settle_item_locked(struct run *run, struct batch *b, struct item *item)
{
	_cleanup_buf_ struct buf value = { 0 };
	struct cache *c = run->cache;
	struct chunk_row row;
	int r = cache_get_row(c, &item->id, &value, &row);

	if (r == -EBADMSG || r == 0 || (r > 0 && !is_same_place(&item->row, &row)))
		return 0;
	if (r < 0)
		return r;
	if (item->moved) {
		row.segment = segment_id(item->to);
		row.offset = item->to_offset;
		return cache_put_row(b, &item->id, &row);
	}
	if (is_clean(&row) ||
		(!is_unsent(run, &item->id) && !cache_is_touched_locked(c, &item->id)))
		batch_del(b, CF_CHUNK, item->id.b, DIGEST_BYTES);
	else
		item->from->failed = true;
	return 0;
}

static int commit_step(struct run *run)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r = batch_new(run->cache->store, &b);

	SCOPED_LOCK(&run->cache->rows);
	SCOPED_LOCK(&run->cache->touch_lock);
	for (size_t i = 0; i < run->n_items && r == 0; i++)
		r = settle_item_locked(run, b, &run->items[i]);
	return r < 0 ? r : store_commit_urgent(run->cache->store, b);
}

static int end_step(struct run *run)
{
	int r = run->step_moved ? cache_sync(run->cache) : 0;

	if (r == 0)
		r = fault_point("evict.moved");
	if (r == 0)
		r = commit_step(run);
	if (r == 0)
		r = fault_point("evict.dropped");
	for (size_t i = 0; i < run->n_items; i++)
		segment_unref(run->items[i].to);
	run->n_items = 0;
	run->step_moved = 0;
	return r;
}

static int take_row(
	struct run *run, const struct digest *id, const struct chunk_row *row, struct candidate *c)
{
	struct item *item = &run->items[run->n_items];

	if (!c->chosen || c->failed)
		return 0;
	*item = (struct item){ .id = *id, .row = *row, .from = c };
	if (!is_clean(row) && (is_unsent(run, id) || is_touched(run, id)))
		move_item(run, item);
	if (c->failed)
		return 0;
	run->n_items++;
	return run->n_items == STEP_ROWS || run->step_moved >= STEP_MOVED_BYTES ? end_step(run) : 0;
}

/* ---- the run ---- */

static int list_candidates(struct run *run)
{
	_cleanup_free_ struct segment_info *list = NULL;
	int r = segments_list(run->cache->segments, &list, &run->n);

	if (r < 0 || run->n == 0)
		return r;
	run->candidates = calloc(run->n, sizeof *run->candidates);
	if (!run->candidates)
		return -ENOMEM;
	for (size_t i = 0; i < run->n; i++)
		run->candidates[i].info = list[i];
	return 0;
}

static int remove_chosen(struct run *run)
{
	/* The rows' way first: also the marks that say that the server has what goes. */
	int r = store_sync(run->cache->store);

	for (size_t i = 0; i < run->n && r == 0; i++) {
		struct candidate *c = &run->candidates[i];

		if (!c->chosen || c->failed)
			continue;
		r = fault_point("evict.remove");
		if (r == 0)
			r = segments_remove(run->cache->segments, c->info.id);
		cache_forget_verified(run->cache, c->info.id);
		if (r < 0)
			return r;
		run->result.segments++;
		run->result.freed_bytes += c->info.bytes - MIN(c->keep, c->info.bytes);
	}
	return r;
}

static bool any_chosen(const struct run *run)
{
	for (size_t i = 0; i < run->n; i++)
		if (run->candidates[i].chosen)
			return true;
	return false;
}

static int run_all(struct run *run, uint64_t want)
{
	int r = list_candidates(run);

	if (r < 0 || run->n == 0)
		return r;
	find_unsent(run);
	r = each_row(run, count_row);
	if (r == 0)
		r = choose(run, want);
	if (r < 0 || !any_chosen(run))
		return r;
	r = each_row(run, take_row);
	if (r == 0)
		r = end_step(run);
	return r < 0 ? r : remove_chosen(run);
}

static void run_free(struct run *run)
{
	for (size_t i = 0; i < run->n_items; i++)
		segment_unref(run->items[i].to);
	free(run->unsent.ids);
	free(run->candidates);
	free(run->bytes);
	free(run);
}

int evict_run(const struct evict_options *options, uint64_t want_bytes, const _Atomic int *stop,
	struct evict_result *ret)
{
	struct run *run = calloc(1, sizeof *run);
	int r = -ENOMEM;

	if (!run)
		return r;
	run->o = options;
	run->cache = options->cache;
	run->stop = stop;
	run->bytes = malloc(CHUNK_MAX);
	if (run->bytes) {
		cache_evict_begin(run->cache);
		r = run_all(run, want_bytes);
		cache_evict_end(run->cache);
	}
	if (r == 0)
		*ret = run->result;
	run_free(run);
	return r;
}
