// SPDX-License-Identifier: Apache-2.0
/* The answers of the control socket. */
#include "daemon_impl.h"

#include "cli/json_file.h"
#include "cli/mounts.h"
#include "clock.h"
#include "doctor.h"
#include "log.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/*
 * A wait is cut into slices, each twice as long as the one before, so that one whose asker has
 * hung up ends, and a refusing server is told of.
 */
#define WAIT_SLICE_FIRST_MS 1000
#define WAIT_SLICE_MAX_MS (5 * 60 * 1000)

/* How long the session may take to see that the kernel has unmounted it. */
#define UNMOUNT_MS 1000
/* Sealing what is dirty reads and hashes it: gigabytes take a while. */
#define STOP_MS (25 * 60 * 1000)

static const char *link_word(enum sync_link link)
{
	static const char *const words[] = {
		[SYNC_OFFLINE] = "offline", [SYNC_ONLINE] = "online", [SYNC_REFUSED] = "refused"
	};

	return words[link];
}

static json_t *time_value(int64_t ns)
{
	time_t seconds = (time_t)(ns / NS_PER_S);
	struct tm utc;
	char text[32];

	if (ns == 0 || !gmtime_r(&seconds, &utc))
		return json_null();
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
	return json_string(text);
}

/*
 * In the direction in which a change travels: what left one place during the look is counted in
 * the next, so that nothing on its way is overlooked.
 */
struct look {
	struct files_stats files;
	struct outbox_stats outbox;
	struct sync_status sync;
	struct cache_stats cache;
	struct tree_usage usage;
};

static void look_around(struct daemon *d, struct look *ret)
{
	files_get_stats(d->files, &ret->files);
	replica_outbox_stats(d->tree, &ret->outbox);
	sync_get_status(d->sync, &ret->sync);
	cache_get_stats(d->cache, &ret->cache);
	tree_get_usage(d->tree, &ret->usage);
}

static bool is_synced(const struct look *l)
{
	return l->files.dirty == 0 && l->outbox.entries == 0 && l->sync.link == SYNC_ONLINE &&
	       l->sync.cursor == l->sync.head;
}

static int set(json_t *o, const char *key, json_t *value)
{
	return json_object_set_new(o, key, value);
}

static int set_number(json_t *o, const char *key, uint64_t value)
{
	return set(o, key, json_integer((json_int_t)value));
}

static int set_identity(json_t *o, const struct mount_plan *plan)
{
	return set(o, "drive", json_string(plan->drive->name)) |
	       set(o, "drive_id", json_string(plan->drive->id)) |
	       set(o, "server", json_string(plan->account->url)) |
	       set(o, "user", json_string(plan->account->user)) |
	       set(o, "device", json_string(plan->account->device)) |
	       set(o, "pid", json_integer(getpid())) |
	       json_set_path(o, "mountpoint", plan->mountpoint);
}

static int set_counts(json_t *o, const struct look *l)
{
	return set_number(o, "cursor", l->sync.cursor) | set_number(o, "head", l->sync.head) |
	       set_number(o, "outbox_entries", l->outbox.entries) |
	       set_number(o, "dirty_files", l->files.dirty) |
	       set_number(o, "staged_bytes", l->files.staged_bytes) |
	       set_number(o, "bytes_sent", l->sync.bytes_sent) |
	       set_number(o, "bytes_received", l->sync.bytes_received) |
	       set_number(o, "chunk_bytes_sent", l->sync.chunk_bytes_sent) |
	       set_number(o, "cache_bytes", l->cache.segment_bytes) |
	       set_number(o, "damaged_chunks", l->cache.damaged) |
	       set_number(o, "names", l->usage.files);
}

/* What the doctor is for, before what the line says. */
static const char *detail_of(struct daemon *d, const struct look *l, char *ret, size_t n)
{
	int broken = store_broken(d->store);

	if (broken < 0)
		snprintf(ret, n,
			"the local store cannot be written any more (%s): varve umount, varve "
			"doctor --repair, varve mount",
			strerror(-broken));
	else if (l->cache.lost || l->files.damaged)
		snprintf(ret, n,
			"bytes that only this device had are damaged; varve doctor says which"
			"%s%s",
			*l->sync.detail ? "; " : "", l->sync.detail);
	else
		snprintf(ret, n, "%s", l->sync.detail);
	return ret;
}

static int answer_status(struct daemon *d, json_t **ret, struct err *err)
{
	_cleanup_json_ json_t *o = json_object();
	char detail[ERR_TEXT_BYTES];
	struct look l = { 0 };

	look_around(d, &l);
	if (!o || set_identity(o, d->plan) || set_counts(o, &l) ||
		set(o, "link", json_string(link_word(l.sync.link))) ||
		set(o, "last_contact", time_value(l.sync.last_contact_ns)) ||
		set(o, "synced", json_boolean(is_synced(&l))))
		return err_sys(err, ENOMEM, "status");
	/* The server's words in it need not be UTF-8: then they are left out. */
	if (set(o, "detail", json_string(detail_of(d, &l, detail, sizeof detail))) &&
		set(o, "detail", json_string("")))
		return err_sys(err, ENOMEM, "status");
	*ret = json_incref(o);
	return 0;
}

/* What is at the node now becomes a version: one file, or all that is dirty. */
static int seal(struct daemon *d, uint64_t node)
{
	_cleanup_file_ struct file *f = NULL;
	struct node n;

	if (node == 0 || tree_get(d->tree, node, &n) <= 0 || S_ISDIR(n.attr.mode))
		return files_seal_all(d->files);
	return files_peek(d->files, node, &f) > 0 ? file_flush(f) : 0;
}

static int refused(struct daemon *d, struct err *err)
{
	struct sync_status s;

	sync_get_status(d->sync, &s);
	if (s.link != SYNC_REFUSED)
		return 0;
	return err_set(err, EACCES,
		"the server refuses this device (%s); varve login again, then mount again",
		s.detail);
}

static int wait_in_slices(
	struct daemon *d, struct control_peer *peer, int64_t deadline_mono_ms, struct err *err)
{
	int64_t slice_ms = WAIT_SLICE_FIRST_MS;
	int r;

	do {
		int64_t end = MIN(clock_mono_ms() + slice_ms, deadline_mono_ms);

		r = sync_wait(d->sync, end);
		if (r == -ETIMEDOUT && end == deadline_mono_ms)
			return r;
		if (r == -ETIMEDOUT && control_peer_gone(peer))
			return err_set(err, ECANCELED, "nobody waits any more");
		if (r == -ETIMEDOUT && refused(d, err) < 0)
			return -EACCES;
		slice_ms = MIN(slice_ms * 2, WAIT_SLICE_MAX_MS);
	} while (r == -ETIMEDOUT);
	return r;
}

static int timed_out(struct daemon *d, struct err *err)
{
	struct look l = { 0 };

	look_around(d, &l);
	return err_set(err, ETIMEDOUT,
		"timed out (%s%s%s; %llu changes to send, revision %llu of %llu here)",
		link_word(l.sync.link), *l.sync.detail ? ": " : "", l.sync.detail,
		(unsigned long long)l.outbox.entries, (unsigned long long)l.sync.cursor,
		(unsigned long long)l.sync.head);
}

static int answer_wait(
	struct daemon *d, struct control_peer *peer, const json_t *request, struct err *err)
{
	const json_t *timeout = json_object_get(request, "timeout_ms");
	int64_t timeout_ms = json_integer_value(timeout), deadline = INT64_MAX;
	uint64_t node = (uint64_t)json_integer_value(json_object_get(request, "node"));
	int r;

	if (timeout_ms < 0)
		return err_set(err, EINVAL, "a negative time-out");
	if (timeout && __builtin_add_overflow(clock_mono_ms(), timeout_ms, &deadline))
		deadline = INT64_MAX;
	r = seal(d, node);
	if (r < 0)
		return err_sys(err, -r, "what was written cannot be finished");
	r = wait_in_slices(d, peer, deadline, err);
	if (r == -ETIMEDOUT)
		return timed_out(d, err);
	if (r == -EINTR)
		return err_set(err, EINTR, "the drive is being unmounted");
	return r < 0 && !err->code ? err_sys(err, -r, "cannot wait") : r;
}

/* Whether the daemon came to that state in time. */
static bool await_state(struct daemon *d, enum daemon_state state, int64_t timeout_ms)
{
	int64_t end_ns = clock_mono_ns() + timeout_ms * NS_PER_MS;
	struct timespec end = { end_ns / NS_PER_S, end_ns % NS_PER_S };
	int r = 0;
	SCOPED_LOCK(&d->lock);

	while (d->state < state && r == 0)
		r = pthread_cond_clockwait(&d->changed, &d->lock, CLOCK_MONOTONIC, &end);
	return d->state >= state;
}

/* The kernel refuses a plain unmount when programs use the mount; a session's end it cannot. */
static int unmount(struct daemon *d, bool force, struct err *err)
{
	int r = force ? 0 : mounts_detach(d->plan->mountpoint, false, err);

	if (r < 0 && r != -EINVAL) /* not mounted there any more */
		return r;
	/* The file system may go on living in another mount namespace. */
	if (force || !await_state(d, DAEMON_STOPPING, UNMOUNT_MS))
		daemon_ask_stop(d);
	return 0;
}

static int answer_stop(struct daemon *d, const json_t *request, json_t **ret, struct err *err)
{
	int r = files_seal_all(d->files);

	if (r < 0)
		log_warn("some of what was written is not finished: %s", strerror(-r));
	r = unmount(d, json_is_true(json_object_get(request, "force")), err);
	if (r < 0)
		return r;
	if (!await_state(d, DAEMON_STOPPED, STOP_MS))
		return err_set(
			err, ETIMEDOUT, "unmounted, but the daemon does not come to its end");
	*ret = json_pack(
		"{s:I, s:I}", "unsent", (json_int_t)d->unsent, "unsealed", (json_int_t)d->unsealed);
	return 0;
}

/* What fits into one answer. */
#define PROBLEMS_MAX 50

static void found(void *ctx, const struct check_problem *p)
{
	if (p->severity != CHECK_NOTE)
		log_error("doctor: %s", p->text);
	doctor_report_found(ctx, p);
}

/* Beside the work of the mount, on a snapshot; ended by that of the mount. */
static int answer_doctor(struct daemon *d, const json_t *request, json_t **ret, struct err *err)
{
	_cleanup_report_ struct doctor_report report = { 0 };
	struct check_options options = {
		.store = d->store,
		.dir = d->plan->dir,
		.drive_id = d->plan->drive->id,
		.device_name = d->plan->account->device,
		.cache = d->cache,
		.quick = json_is_true(json_object_get(request, "quick")),
		.repair = json_is_true(json_object_get(request, "repair")),
		.found = found,
		.ctx = &report,
		.stop = &d->stopping,
	};
	struct check_result result = { 0 };
	int r = doctor_report_begin(
		&report, d->plan->drive, true, options.repair, PROBLEMS_MAX, err);

	if (r == 0)
		r = check_run(&options, &result, err);
	if (r == 0 && result.rebuild && options.repair)
		doctor_report_say(&report, CHECK_NOTE, "tree", NULL, false,
			"varve umount, then varve doctor --repair, repairs the tree");
	return r < 0 ? r : doctor_report_end(&report, &result, ret, err);
}

int daemon_handle(void *ctx, struct control_peer *peer, const char *op, const json_t *request,
	json_t **ret, struct err *err)
{
	struct daemon *d = ctx;

	if (strcmp(op, "status") == 0)
		return answer_status(d, ret, err);
	if (strcmp(op, "wait") == 0)
		return answer_wait(d, peer, request, err);
	if (strcmp(op, "stop") == 0)
		return answer_stop(d, request, ret, err);
	if (strcmp(op, "doctor") == 0)
		return answer_doctor(d, request, ret, err);
	return err_set(err, EOPNOTSUPP,
		"the daemon does not know '%.32s'; it is of another version: mount again", op);
}
