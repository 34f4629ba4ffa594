// SPDX-License-Identifier: Apache-2.0
#include "doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

static int set(struct doctor_report *r, const char *key, json_t *value)
{
	if (json_object_set_new(r->object, key, value) < 0)
		r->failed = true;
	return r->failed ? -ENOMEM : 0;
}

int doctor_report_begin(struct doctor_report *r, const struct drive *d, bool mounted, bool repair,
	size_t max_problems, struct err *err)
{
	*r = (struct doctor_report){
		.object = json_object(), .problems = json_array(), .max_problems = max_problems
	};
	set(r, "drive", json_string(d->name));
	set(r, "drive_id", json_string(d->id));
	set(r, "mounted", json_boolean(mounted));
	set(r, "repair", json_boolean(repair));
	return r->failed || !r->problems ? err_sys(err, ENOMEM, "doctor") : 0;
}

void doctor_report_done(struct doctor_report *r)
{
	json_decref(r->object);
	json_decref(r->problems);
	*r = (struct doctor_report){ 0 };
}

static const char *severity_word(enum check_severity s)
{
	static const char *const words[] = {
		[CHECK_NOTE] = "note", [CHECK_PROBLEM] = "problem", [CHECK_LOSS] = "loss"
	};

	return words[s];
}

/* Text that is not UTF-8 (it can hold names) is shown with its odd bytes replaced. */
static json_t *text_of(const char *text)
{
	json_t *s = json_string(text);
	_cleanup_free_ char *copy = NULL;

	if (s)
		return s;
	copy = strdup(text);
	for (char *c = copy; c && *c; c++) {
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	}
	return copy ? json_string(copy) : NULL;
}

static json_t *paths_of(const struct check_problem *p)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < p->n_paths; i++)
		if (json_array_append_new(list, text_of(p->paths[i])) < 0)
			return list;
	return list;
}

void doctor_report_found(void *ctx, const struct check_problem *p)
{
	struct doctor_report *r = ctx;
	json_t *o;

	if (p->severity != CHECK_NOTE && !p->repaired)
		r->open++;
	if (json_array_size(r->problems) >= r->max_problems) {
		r->more++;
		return;
	}
	o = json_pack("{s:s, s:s, s:o, s:s*, s:b, s:o, s:I}", "severity",
		severity_word(p->severity), "what", p->what, "text", text_of(p->text), "fix",
		p->fix, "repaired", p->repaired, "paths", paths_of(p), "more_paths",
		(json_int_t)p->more_paths);
	if (!o || json_array_append_new(r->problems, o) < 0)
		r->failed = true;
}

void doctor_report_say(struct doctor_report *r, enum check_severity severity, const char *what,
	const char *fix, bool repaired, const char *format, ...)
{
	struct check_problem p = {
		.severity = severity, .what = what, .fix = fix, .repaired = repaired
	};
	va_list ap;

	va_start(ap, format);
	vsnprintf(p.text, sizeof p.text, format, ap);
	va_end(ap);
	doctor_report_found(r, &p);
}

int doctor_report_end(
	struct doctor_report *r, const struct check_result *result, json_t **ret, struct err *err)
{
	json_t *checked = json_pack("{s:I, s:I, s:I, s:I, s:I}", "files", (json_int_t)result->nodes,
		"names", (json_int_t)result->links, "changes_to_send",
		(json_int_t)result->outbox_entries, "chunks", (json_int_t)result->chunks,
		"chunk_bytes", (json_int_t)result->chunk_bytes);

	set(r, "checked", checked);
	set(r, "problems", json_incref(r->problems));
	set(r, "more_problems", json_integer((json_int_t)r->more));
	set(r, "clean", json_boolean(r->open == 0));
	if (r->failed)
		return err_sys(err, ENOMEM, "doctor");
	*ret = steal(r->object);
	return 0;
}
