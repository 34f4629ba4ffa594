/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `varve doctor`: what meta/check.h finds, and what lies around the store, as one JSON object:
 *
 *	{"drive", "drive_id", "mounted": bool, "repair": bool, "clean": bool,
 *	 "checked": {"files", "names", "changes_to_send", "chunks", "chunk_bytes"},
 *	 "problems": [{"severity": "note" | "problem" | "loss", "what", "text", "fix", "repaired",
 *	               "paths": [...], "more_paths"}],
 *	 "more_problems": N, "rescue": PATH}
 *
 * "clean": there is no problem, or all that there were are repaired. "fix" may be absent, "rescue"
 * is there when unsent bytes were saved into that folder.
 */
#ifndef VARVE_DOCTOR_H
#define VARVE_DOCTOR_H

#include "cli/cli.h"
#include "meta/check.h"

/* A drive that no daemon serves; the caller holds its lock. */
int doctor_examine(const struct doctor_plan *plan, json_t **ret, struct err *err) must_check;

/* A report in the making. */
struct doctor_report {
	json_t *object;
	json_t *problems;
	size_t max_problems; /* listed; all are counted */
	uint64_t more;
	uint64_t open; /* problems that are not repaired */
	bool failed; /* out of memory */
};

int doctor_report_begin(struct doctor_report *r, const struct drive *d, bool mounted, bool repair,
	size_t max_problems, struct err *err) must_check;
/* As check_options.found; ctx is the report. */
void doctor_report_found(void *ctx, const struct check_problem *p);
void doctor_report_say(struct doctor_report *r, enum check_severity severity, const char *what,
	const char *fix, bool repaired, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
int doctor_report_end(struct doctor_report *r, const struct check_result *result, json_t **ret,
	struct err *err) must_check;
void doctor_report_done(struct doctor_report *r);
#define _cleanup_report_ _cleanup_(doctor_report_done)

#endif
