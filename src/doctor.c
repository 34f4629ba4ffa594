// SPDX-License-Identifier: Apache-2.0
/*
 * The order of a repair: what only this device has is never touched before it is safe elsewhere.
 *  1. the store is opened; if it cannot be, what can be read of it is put together again;
 *  2. its rows are checked, and what can be is repaired in place;
 *  3. files with damaged chunks that nobody else has are kept as damaged copies;
 *  4. a tree that is wrong beyond that: what is unsent is saved as plain files, the store moves
 *     aside, and a new one begins, which the next mount fills from the server.
 */
#include "doctor.h"

#include "fs/staging_check.h"
#include "meta/rescue.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#define PROBLEMS_MAX 1000

struct examination {
	const struct doctor_plan *plan;
	struct doctor_report report;
	struct check_result result;
	struct store *store;
	struct cache *cache;
	struct tree *tree;
	char *store_dir;
	bool salvaged;
};

static void close_all(struct examination *x)
{
	tree_free(steal(x->tree));
	cache_free(steal(x->cache));
	store_free(steal(x->store));
}

static void examination_done(struct examination *x)
{
	close_all(x);
	free(x->store_dir);
	doctor_report_done(&x->report);
}

/* ---- opening ---- */

/* What is no damage: the check itself cannot be done. */
static bool is_obstacle(int r)
{
	return r == -EBUSY || r == -ENOSPC || r == -ENOMEM || r == -EMFILE || r == -EACCES ||
	       r == -EROFS || r == -ENOTSUP;
}

static int salvage(struct examination *x, const char *why, struct err *err)
{
	int r = store_open_as(x->store_dir, STORE_SALVAGE, &x->store, err);

	if (r < 0 && !is_obstacle(r)) {
		r = store_rebuild(x->store_dir, err);
		if (r == 0)
			r = store_open_as(x->store_dir, STORE_SALVAGE, &x->store, err);
	}
	if (r < 0)
		return r;
	x->salvaged = true;
	doctor_report_say(&x->report, CHECK_LOSS, "store", NULL, false,
		"%s. What could be read is kept; of what was changed here since it was last in "
		"sync, some may be missing or as it was before",
		why);
	return 0;
}

/* 1, 0 when there is none to look into, -errno. */
static int open_store(struct examination *x, struct err *err)
{
	enum store_mode mode = x->plan->repair ? STORE_USE : STORE_LOOK;
	struct err why = { 0 };
	int r;

	if (access(x->store_dir, F_OK) < 0)
		return 0;
	r = store_open_as(x->store_dir, mode, &x->store, &why);
	if (r == 0)
		return 1;
	if (is_obstacle(r))
		return err_set(err, -r, "%s", why.text);
	if (!x->plan->repair) {
		doctor_report_say(&x->report, CHECK_PROBLEM, "store",
			"what can be read of it is kept", false, "%s", why.text);
		return 0;
	}
	r = salvage(x, why.text, err);
	if (r == 0)
		return 1;
	if (is_obstacle(r))
		return r;
	doctor_report_say(&x->report, CHECK_LOSS, "store", NULL, false, "%s", err->text);
	return 0;
}

/* ---- checking ---- */

static void found(void *ctx, const struct check_problem *p)
{
	struct examination *x = ctx;

	doctor_report_found(&x->report, p);
}

static void progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	const struct examination *x = ctx;

	if (x->plan->progress)
		x->plan->progress(x->plan->ctx, what, done, total);
}

static void check_options(struct examination *x, struct check_options *ret)
{
	*ret = (struct check_options){
		.store = x->store,
		.dir = x->plan->dir,
		.drive_id = x->plan->drive->id,
		.device_name = x->plan->account ? x->plan->account->device : "this device",
		.quick = x->plan->quick,
		.repair = x->plan->repair,
		.found = found,
		.progress = progress,
		.ctx = x,
	};
}

static int open_tree(struct examination *x, struct err *err)
{
	struct tree_options options = {
		.store = x->store,
		.device_name = x->plan->account ? x->plan->account->device : "this device",
	};
	int r = cache_open(x->store, x->plan->dir, &x->cache, err);

	if (r < 0)
		return r;
	options.cache = x->cache;
	return tree_open(&options, &x->tree, err);
}

static int keep_damaged(struct examination *x, const struct check_options *o, struct err *err)
{
	int r = open_tree(x, err);

	return r < 0 ? r : check_repair_damaged(x->tree, x->cache, o, &x->result, err);
}

static int make_anew(struct examination *x, struct err *err)
{
	_cleanup_free_ char *rescue = NULL;
	struct rescue_result saved = { 0 };
	int r = rescue_and_renew(x->store, x->plan->dir, x->plan->drive->id, &rescue, &saved, err);

	/* Its store is closed by then. */
	x->store = NULL;
	if (r < 0)
		return r;
	if (saved.files || saved.changes || saved.lost)
		doctor_report_say(&x->report, saved.lost ? CHECK_LOSS : CHECK_PROBLEM, "rescue",
			"put back what is still wanted, then delete the folder", false,
			"%llu files and %llu other changes that were not sent yet are saved in "
			"%s; of %llu, bytes are gone",
			(unsigned long long)saved.files, (unsigned long long)saved.changes, rescue,
			(unsigned long long)saved.lost);
	if (json_object_set_new(x->report.object, "rescue", json_string(rescue)) < 0)
		return err_sys(err, ENOMEM, "doctor");
	doctor_report_say(&x->report, CHECK_NOTE, "tree", NULL, true,
		"the tree begins anew; the next mount fetches it from the server");
	return 0;
}

static void mark_tree_repaired(struct examination *x)
{
	size_t i;
	json_t *p;

	json_array_foreach(x->report.problems, i, p)
	{
		const char *what = json_text(p, "what");

		if (!what || strcmp(what, "tree") != 0 ||
			json_is_true(json_object_get(p, "repaired")))
			continue;
		if (strcmp(json_text(p, "severity"), "problem") == 0 && x->report.open)
			x->report.open--;
		json_object_set_new(p, "repaired", json_true());
	}
}

static int examine_store(struct examination *x, struct err *err)
{
	struct check_options o;
	int r;

	check_options(x, &o);
	r = check_run(&o, &x->result, err);
	if (r < 0 || !x->plan->repair)
		return r;
	if (x->result.rebuild) {
		r = make_anew(x, err);
		if (r == 0)
			mark_tree_repaired(x);
		return r;
	}
	return x->result.damaged ? keep_damaged(x, &o, err) : 0;
}

/* ---- what lies beside the store ---- */

static void examine_staging(struct examination *x)
{
	_cleanup_free_ char *path = path_join(x->plan->dir, "staging");
	struct staging_found found = { 0 };
	int r = path ? staging_check(path, &found) : -ENOMEM;

	if (r < 0 && r != -ENOENT)
		doctor_report_say(&x->report, CHECK_PROBLEM, "staging", NULL, false,
			"%s cannot be read: %s", path ? path : "", strerror(-r));
	if (found.damaged_records)
		doctor_report_say(&x->report, CHECK_LOSS, "staging", NULL, false,
			"%llu records of what was written and not finished are damaged; the next "
			"mount takes the others over",
			(unsigned long long)found.damaged_records);
	if (found.unfinished)
		doctor_report_say(&x->report, CHECK_NOTE, "staging", NULL, false,
			"%llu files were being written; the next mount finishes them",
			(unsigned long long)found.unfinished);
}

static void examine_room(struct examination *x)
{
	struct store_disk disk;

	if (!x->store || store_disk(x->store, &disk) < 0 || disk.free >= disk.refused_below)
		return;
	doctor_report_say(&x->report, CHECK_PROBLEM, "disk", "make room on it", false,
		"the disk has %llu MiB free; writes are refused below %llu MiB",
		(unsigned long long)(disk.free >> 20),
		(unsigned long long)(disk.refused_below >> 20));
}

static int examine(struct examination *x, struct err *err)
{
	int r = open_store(x, err);

	if (r < 0)
		return r;
	if (r > 0) {
		examine_room(x);
		r = examine_store(x, err);
	}
	if (r < 0)
		return r;
	examine_staging(x);
	return 0;
}

int doctor_examine(const struct doctor_plan *plan, json_t **ret, struct err *err)
{
	_cleanup_(examination_done) struct examination x = { .plan = plan };
	int r = doctor_report_begin(&x.report, plan->drive, false, plan->repair, PROBLEMS_MAX, err);

	if (r < 0)
		return r;
	x.store_dir = path_join(plan->dir, "store");
	if (!x.store_dir)
		return err_sys(err, ENOMEM, "doctor");
	r = examine(&x, err);
	return r < 0 ? r : doctor_report_end(&x.report, &x.result, ret, err);
}
