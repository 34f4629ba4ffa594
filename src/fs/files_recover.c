// SPDX-License-Identifier: Apache-2.0
/*
 * After a crash: the logs are read into stagings, these become the layers of dirty instances, and
 * their state is written to a new log; then the old logs count no more. Killed before that, the
 * next start does it all again, since nothing old has been changed. Sealing comes after, as for
 * any dirty instance.
 *
 * What is believed: every record whose checks match (one that is damaged is told of, and what
 * stands behind it counts); of a staging file, after the death of the
 * process, what the records and its length say; after a power loss (another boot id) only what
 * the last SYNCED record vouches for. A staging is believed to be in the tree when the tree says so
 * (sealed.h): after a power loss either of the two can be older than the other.
 */
#include "fs/instance.h"

#include "bounds.h"
#include "clock.h"
#include "fault.h"
#include "log.h"
#include "meta/sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct found {
	uint64_t id;
	UT_hash_handle hh;
	bool any; /* its begin was found */
	bool gone; /* dropped, replaced, or sealed for good */
	bool sealed;
	bool pending; /* sealed, and not known to be durable */
	bool power_lost;
	struct digest content; /* sealed as, */
	uint64_t content_node; /* on this node */
	struct staging_begin begin;
	uint8_t *begin_payload;
	struct record *records; /* payloads are owned */
	size_t n, capacity;
	uint64_t synced_records, synced_end;
	bool copies; /* a record is one */
	struct staging *staging;
	struct file *file;
};

struct recovery {
	struct files *fs;
	uint8_t boot_id[BOOT_ID_BYTES];
	struct found *table;
	uint64_t *logs; /* numbers, ascending */
	size_t n_logs;
	uint64_t last_id;
	bool any_row;
};

static void drop_records(struct found *f)
{
	for (size_t i = 0; i < f->n; i++)
		free((void *)(uintptr_t)f->records[i].payload.p);
	free(f->records);
	f->records = NULL;
	f->n = f->capacity = 0;
}

static void recovery_done(struct recovery *rc)
{
	struct found *f, *next;

	HASH_ITER (hh, rc->table, f, next) {
		HASH_DEL(rc->table, f);
		drop_records(f);
		free(f->begin_payload);
		staging_unref(f->staging);
		file_unref(f->file);
		free(f);
	}
	free(rc->logs);
}

static struct found *find(struct recovery *rc, uint64_t id)
{
	struct found *f;

	HASH_FIND(hh, rc->table, &id, sizeof id, f);
	return f;
}

static struct found *find_or_add(struct recovery *rc, uint64_t id)
{
	struct found *f = find(rc, id);

	if (f || !(f = calloc(1, sizeof *f)))
		return f;
	f->id = id;
	HASH_ADD(hh, rc->table, id, sizeof f->id, f);
	rc->last_id = MAX(rc->last_id, id);
	return f;
}

static int copy_payload(struct slice from, struct slice *ret)
{
	uint8_t *p = NULL;

	if (from.n) {
		p = malloc(from.n);
		if (!p)
			return -ENOMEM;
		memcpy(p, from.p, from.n);
	}
	*ret = (struct slice){ p, from.n };
	return 0;
}

static int take_begin(struct recovery *rc, struct found *f, const struct record *r)
{
	struct record copy = *r;
	struct found *replaced;
	int e = copy_payload(r->payload, &copy.payload);

	if (e < 0)
		return e;
	drop_records(f);
	free(f->begin_payload);
	f->begin_payload = (uint8_t *)(uintptr_t)copy.payload.p;
	f->any = staging_begin_decode(&copy, &f->begin) == 0;
	replaced = f->any && f->begin.replaces ? find(rc, f->begin.replaces) : NULL;
	if (replaced) {
		replaced->gone = true;
		drop_records(replaced);
	}
	return 0;
}

/*
 * Of several syncs at a time the later may have been noted first. Copies from before are in the
 * file.
 */
static void take_synced(struct found *f, const struct record *r)
{
	size_t n = (size_t)MIN(r->a, (uint64_t)f->n);

	for (size_t i = (size_t)MIN(f->synced_records, (uint64_t)n); i < n; i++) {
		if (f->records[i].kind != RECORD_COPY)
			continue;
		free((void *)(uintptr_t)f->records[i].payload.p);
		f->records[i].payload = (struct slice){ 0 };
	}
	f->synced_records = MAX(f->synced_records, r->a);
	f->synced_end = MAX(f->synced_end, r->b);
}

static int keep_record(struct found *f, const struct record *r)
{
	struct slice payload = r->payload;

	/* The bytes that the process wrote are in the file when only it died. */
	if (r->kind == RECORD_COPY && !f->power_lost)
		payload = (struct slice){ 0 };
	f->copies |= r->kind == RECORD_COPY;
	if (f->n == f->capacity) {
		size_t capacity = f->capacity ? 2 * f->capacity : 8;
		struct record *p = realloc(f->records, capacity * sizeof *p);

		if (!p)
			return -ENOMEM;
		f->records = p;
		f->capacity = capacity;
	}
	f->records[f->n] = *r;
	if (copy_payload(payload, &f->records[f->n].payload) < 0)
		return -ENOMEM;
	f->n++;
	return 0;
}

static int take_sealed(struct found *f, const struct record *r)
{
	if (r->payload.n != DIGEST_BYTES)
		return 0;
	f->sealed = true;
	f->pending = r->b;
	f->content_node = r->a;
	memcpy(f->content.b, r->payload.p, DIGEST_BYTES);
	if (!f->pending || !f->power_lost) {
		f->gone = true;
		drop_records(f);
	}
	return 0;
}

/* Some write is missing; of which file is known when the record's head is whole. */
static int take_damage(struct recovery *rc, const struct record *r)
{
	struct found *f = r->staging ? find(rc, r->staging) : NULL;

	rc->fs->damaged++;
	log_error("staging: a record of what was written%s is damaged on this disk",
		f && f->any && f->begin.home_name.n ? "" : " to some file");
	if (f && f->any && f->begin.home_name.n)
		log_error("staging: it was written to \"%.*s\" (node %llu)",
			(int)f->begin.home_name.n, (const char *)f->begin.home_name.p,
			(unsigned long long)f->begin.node);
	return 0;
}

static int take_record(void *ctx, const struct log_header *header, const struct record *r)
{
	struct recovery *rc = ctx;
	struct found *f;

	if (r->kind == RECORD_DAMAGED)
		return take_damage(rc, r);
	f = find_or_add(rc, r->staging);
	if (!f)
		return -ENOMEM;
	f->power_lost |= memcmp(header->boot_id, rc->boot_id, BOOT_ID_BYTES) != 0;
	switch (r->kind) {
	case RECORD_BEGIN:
		return take_begin(rc, f, r);
	case RECORD_SEALED:
		return take_sealed(f, r);
	case RECORD_DROPPED:
		f->gone = true;
		drop_records(f);
		return 0;
	case RECORD_SYNCED:
		take_synced(f, r);
		return 0;
	default:
		return f->gone ? 0 : keep_record(f, r);
	}
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int each_name(struct recovery *rc, int (*visit)(struct recovery *rc, const char *name))
{
	_cleanup_closedir_ DIR *d = opendir(rc->fs->dir->path);
	struct dirent *e;
	int r = d ? 0 : -errno;

	while (r == 0 && (e = readdir(d))) {
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = visit(rc, e->d_name);
	}
	return r;
}

static int note_log(struct recovery *rc, const char *name)
{
	uint64_t *more, number;

	if (!staging_log_parse_name(name, &number))
		return 0;
	more = realloc(rc->logs, (rc->n_logs + 1) * sizeof *more);
	if (!more)
		return -ENOMEM;
	rc->logs = more;
	rc->logs[rc->n_logs++] = number;
	return 0;
}

static int skip_record(void *ctx, const struct log_header *header, const struct record *r)
{
	return 0;
}

/* The range of logs that count: from the last that supersedes, up to one that is unfinished. */
static int choose_logs(struct recovery *rc, size_t *ret_first, size_t *ret_end)
{
	*ret_first = 0;
	*ret_end = rc->n_logs;
	for (size_t i = 0; i < rc->n_logs; i++) {
		struct log_header h = { 0 };
		int r = staging_log_read(rc->fs->dir->fd, rc->logs[i], &h, skip_record, NULL);

		if (r < 0)
			return r;
		if (r > 0 && h.unfinished) {
			*ret_end = i;
			return 0;
		}
		if (r > 0 && h.supersedes)
			*ret_first = i;
	}
	return 0;
}

static int read_logs(struct recovery *rc)
{
	size_t first, end;
	int r = each_name(rc, note_log);

	if (r < 0)
		return r;
	if (rc->n_logs)
		qsort(rc->logs, rc->n_logs, sizeof *rc->logs, by_number);
	r = choose_logs(rc, &first, &end);
	for (size_t i = first; i < end && r >= 0; i++) {
		struct log_header h;

		r = staging_log_read(rc->fs->dir->fd, rc->logs[i], &h, take_record, rc);
	}
	return MIN(r, 0);
}

static int by_id(struct found *a, struct found *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

/* The tree says that it has the content, whether the log got to say so or not. */
static int take_row(void *ctx, const struct sealed *s)
{
	struct recovery *rc = ctx;
	struct found *f = find(rc, s->staging);

	rc->any_row = true;
	rc->last_id = MAX(rc->last_id, s->staging);
	if (!f)
		return 0;
	f->sealed = f->gone = true;
	f->content = s->content;
	f->content_node = s->node;
	drop_records(f);
	return 0;
}

static int drop_row(void *ctx, const struct sealed *s)
{
	sealed_del(ctx, s->staging);
	return 0;
}

/* The new log, which is durable, knows nothing of what is sealed. */
static int drop_rows(struct recovery *rc)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r = rc->any_row ? batch_new(rc->fs->store, &b) : 0;

	if (!rc->any_row || r < 0)
		return r;
	r = sealed_each(rc->fs->store, drop_row, b);
	if (r == 0)
		r = store_commit(rc->fs->store, b);
	/* On a full disk they stay for the next start. */
	return r == -ENOSPC ? 0 : r;
}

/* The staging file, under either name; -ENOENT. */
static int open_file(struct recovery *rc, struct found *f)
{
	char name[STAGING_NAME_BYTES], second[STAGING_NAME_BYTES];
	int dir = rc->fs->dir->fd, fd;

	staging_file_name(f->id, false, name);
	staging_file_name(f->id, true, second);
	fd = openat(dir, name, O_RDWR | O_CLOEXEC);
	if (fd >= 0 || errno != ENOENT)
		return fd < 0 ? -errno : fd;
	/* Its first name became a segment's; rows may name its bytes, so it must not be one twice.
	 */
	if (renameat(dir, second, dir, name) < 0)
		return -errno;
	f->staging->no_adopt = true;
	fd = openat(dir, name, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static size_t index_of_promote(const struct found *f)
{
	size_t i;

	for (i = 0; i < f->n && f->records[i].kind != RECORD_PROMOTE; i++)
		;
	return i;
}

/* The file's length and time say what appending said without records. */
static void take_file_time(struct staging *s, const struct stat *st, int64_t last_ns)
{
	int64_t t = (int64_t)st->st_mtim.tv_sec * NS_PER_S + st->st_mtim.tv_nsec;

	if (t > last_ns)
		s->mtime_ns = s->ctime_ns = t;
}

/* Nothing of the old file counts; it may be a segment by now. */
static int create_anew(struct recovery *rc, const struct found *f)
{
	char name[STAGING_NAME_BYTES];
	int dir = rc->fs->dir->fd, fd;

	staging_file_name(f->id, false, name);
	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int replay_file(struct recovery *rc, struct found *f, size_t rewrite)
{
	_cleanup_close_ int fd = rewrite == 0 ? create_anew(rc, f) : open_file(rc, f);
	struct stat st;
	uint64_t end;
	int r;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	end = (uint64_t)st.st_size;
	if (f->power_lost)
		end = MIN(end, f->synced_end);
	r = staging_replay(f->staging, f->records, f->n, fd, end, rewrite);
	if (r < 0)
		return r;
	fd = -1;
	if (fstat(f->staging->fd, &st) < 0)
		return -errno;
	f->staging->fd_end = (uint64_t)st.st_size;
	if (!f->power_lost)
		take_file_time(f->staging, &st, f->records[f->n - 1].time_ns);
	return 0;
}

/*
 * Whether an fsync may have promised something of it: only a SYNCED is proof, but the sync of what
 * is in the log leaves no trace.
 */
static bool may_be_promised(const struct found *f, size_t promote)
{
	return f->power_lost || promote > 0 || f->copies || f->synced_records;
}

static int replay(struct recovery *rc, struct found *f)
{
	size_t promote = index_of_promote(f), rewrite = SIZE_MAX;

	f->staging->promised = may_be_promised(f, promote);
	if (promote == f->n)
		return staging_replay(f->staging, f->records, f->n, -1, 0, SIZE_MAX);
	if (f->power_lost)
		rewrite = f->synced_records > promote ? f->synced_records : 0;
	return replay_file(rc, f, rewrite);
}

static int make_staging(struct recovery *rc, struct found *f)
{
	int r = staging_new(rc->fs->dir, &f->begin, &f->staging);

	if (r < 0)
		return r;
	f->staging->size = f->begin.size;
	f->staging->mtime_ns = f->begin.mtime_ns;
	f->staging->ctime_ns = f->begin.ctime_ns;
	f->staging->mode = f->begin.mode;
	r = replay(rc, f);
	drop_records(f);
	return r;
}

/* What lies below, as far as it can be told by now. */
static void take_below(struct recovery *rc, struct found *f, struct found **ret_previous)
{
	struct found *p = f->begin.previous ? find(rc, f->begin.previous) : NULL;

	*ret_previous = NULL;
	if (p && p->file && !p->gone)
		*ret_previous = p;
	if (p && p->sealed) {
		f->begin.expected = p->content;
		f->begin.node = p->content_node;
		f->begin.manifest = (struct slice){ 0 };
	}
	/* One that was sealed when this one began, and that the power loss took out of the tree. */
	for (struct found *g = rc->table; g && g != f && !*ret_previous; g = g->hh.next) {
		if (g->file && !g->gone && g->sealed && g->content_node == f->begin.node &&
			digest_eq(&g->content, &f->begin.expected))
			*ret_previous = g;
	}
}

static int fill_instance(struct recovery *rc, struct file *file, struct found *f)
{
	int r = tree_get(rc->fs->tree, f->begin.node, &file->attr);

	if (r < 0)
		return r;
	if (r == 0)
		file->attr = (struct node){ .id = f->begin.node, .attr.mode = S_IFREG | 0600 };
	file->tree_mode = file->attr.attr.mode & 07777;
	file->base_content = f->begin.expected;
	file->base_place = f->begin.below;
	file->home_parent = f->begin.home_parent;
	r = buf_append(&file->home_name, f->begin.home_name.p, f->begin.home_name.n);
	if (r < 0)
		return r;
	if (f->begin.manifest.n &&
		manifest_decode(f->begin.manifest.p, f->begin.manifest.n, &file->base, NULL) < 0)
		file->base = NULL;
	return 0;
}

static void put_on_top(struct file *file, struct found *f)
{
	struct staging *s = f->staging;

	file->frozen = file->active;
	file->active = staging_ref(s);
	file->attr.attr.size = s->size;
	file->attr.attr.mtime_ns = s->mtime_ns;
	file->attr.attr.ctime_ns = s->ctime_ns;
	file->seal_mode = s->mode;
	f->file = file_ref(file);
}

/*
 * The content below is needed and cannot be had (another one came from elsewhere, and its
 * manifest is gone): what was written is kept, and zeros stand for the rest.
 */
static int check_base(struct recovery *rc, struct file *file)
{
	struct staging *lowest = file->frozen ? file->frozen : file->active;

	if (overlay_covers(&lowest->map, 0, lowest->size) || file_load_base_locked(file) == 0)
		return 0;
	rc->fs->damaged++;
	file->base = manifest_empty();
	return file->base ? 0 : -ENOMEM;
}

/*
 * After a power loss: what was written lies over a content that the tree does not have any more.
 * No fsync has returned for it, or the tree would be durable up to there; and without what was
 * below it says nothing. 1, 0, -errno.
 */
static int lost_ground(struct recovery *rc, const struct found *f)
{
	struct tree_place now = tree_place(rc->fs->tree);
	const struct tree_place *then = &f->begin.below;
	struct node n;
	int r;

	if (!f->power_lost || (now.entry >= then->entry && now.cursor >= then->cursor))
		return 0;
	r = tree_get(rc->fs->tree, f->begin.node, &n);
	if (r < 0)
		return r;
	return r == 0 || !digest_eq(&n.attr.content, &f->begin.expected);
}

static int make_instance(struct recovery *rc, struct found *f)
{
	_cleanup_file_ struct file *file = NULL;
	struct found *previous;
	int r;

	take_below(rc, f, &previous);
	r = previous ? 0 : lost_ground(rc, f);
	if (r != 0) {
		f->gone = true;
		return MIN(r, 0);
	}
	if (previous && previous->file->active == previous->staging && !previous->file->frozen) {
		SCOPED_LOCK(&previous->file->lock);
		put_on_top(previous->file, f);
		file_count_holes_locked(previous->file);
		return 0;
	}
	r = file_new(rc->fs, f->begin.node, &file);
	if (r < 0)
		return r;
	SCOPED_LOCK(&file->lock);
	r = fill_instance(rc, file, f);
	if (r < 0)
		return r;
	put_on_top(file, f);
	r = check_base(rc, file);
	if (r < 0)
		return r;
	file_count_holes_locked(file);
	/* Two on one node: the second to be sealed becomes a copy. Nothing is lost. */
	file->detached = !files_enter(rc->fs, file);
	file_mark_dirty_locked(file);
	return 0;
}

/* -EBADMSG and a missing file concern one staging; all else stops the start. */
static int rebuild(struct recovery *rc)
{
	for (struct found *f = rc->table; f; f = f->hh.next) {
		int r;

		if (f->gone)
			continue;
		if (!f->any) {
			rc->fs->damaged += f->n > 0;
			continue;
		}
		r = make_staging(rc, f);
		if (r == 0)
			r = make_instance(rc, f);
		if (r == -EBADMSG || r == -ENOENT) {
			rc->fs->damaged++;
			f->gone = true;
			continue;
		}
		if (r < 0)
			return r;
		rc->fs->recovered += !f->gone;
	}
	return 0;
}

static int restate(struct recovery *rc)
{
	for (struct found *f = rc->table; f; f = f->hh.next) {
		struct found *previous;
		int r;

		if (f->gone || !f->file)
			continue;
		take_below(rc, f, &previous);
		f->begin.previous = previous ? previous->id : 0;
		f->begin.replaces = 0;
		r = staging_restate(f->staging, &f->begin);
		if (r < 0)
			return r;
	}
	return 0;
}

static int new_log(struct recovery *rc)
{
	struct staging_dir *d = rc->fs->dir;
	uint64_t number = rc->n_logs ? rc->logs[rc->n_logs - 1] + 1 : 1;
	bool must_last = rc->fs->recovered || rc->any_row;
	int r = staging_log_new(d->fd, number, &d->log);

	if (r == 0)
		r = restate(rc);
	if (r == 0)
		r = fault_point("recover.restated");
	/*
	 * Power loss must not find the old log gone and the new one empty; nor what the old one
	 * had as sealed, and what fsync had promised, in a tree that is not durable yet.
	 */
	if (r == 0 && must_last)
		r = tree_sync(rc->fs->tree);
	if (r == 0 && must_last)
		r = staging_log_sync(d->log);
	if (r == 0)
		r = staging_log_supersede(d->log);
	if (r == 0 && must_last)
		r = staging_log_sync(d->log);
	return r == 0 ? fault_point("recover.superseded") : r;
}

/* Old logs, and staging files that no instance has. */
static int remove_leftover(struct recovery *rc, const char *name)
{
	uint64_t id;
	bool kept, wanted = false;

	if (staging_log_parse_name(name, &id)) {
		wanted = rc->n_logs == 0 || id > rc->logs[rc->n_logs - 1];
	} else if (staging_parse_name(name, &id, &kept)) {
		struct found *f = find(rc, id);

		wanted = f && f->file && !f->gone && f->staging->fd >= 0 && !kept;
	}
	/* What cannot be removed takes room and says nothing: the new log supersedes it. */
	if (!wanted && unlinkat(rc->fs->dir->fd, name, 0) < 0)
		errno = 0;
	if (!wanted)
		fault_instant("recover.removed");
	return 0;
}

int files_recover(struct files *fs, struct err *err)
{
	_cleanup_(recovery_done) struct recovery rc = { .fs = fs };
	int r;

	staging_boot_id(rc.boot_id);
	r = read_logs(&rc);
	if (r < 0)
		return err_sys(err, -r, "%s: cannot be read", fs->dir->path);
	HASH_SORT(rc.table, by_id);
	fs->dir->next_id = rc.last_id + 1;
	r = sealed_each(fs->store, take_row, &rc);
	if (r == 0)
		r = fault_point("recover.read");
	if (r == 0)
		r = rebuild(&rc);
	if (r == 0)
		r = new_log(&rc);
	if (r == 0)
		r = drop_rows(&rc);
	if (r == 0)
		r = each_name(&rc, remove_leftover);
	if (r < 0)
		return err_sys(
			err, -r, "%s: what was not sealed cannot be taken up", fs->dir->path);
	return 0;
}
