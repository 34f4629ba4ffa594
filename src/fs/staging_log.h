/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log that all staging shares: small writes with their bytes, and for larger files which
 * ranges of their staging file hold bytes. After a crash it says what had been written and not
 * sealed. The byte layout stands at the top of staging_log.c.
 *
 *	staging_log_new(dirfd, first, &log);
 *	staging_log_append(log, records, n, &number);	accepted: survives the process
 *	staging_log_sync(log);				durable
 *	staging_log_unpin(log, number);			the staging that began there is over
 *
 * A log file goes away when nothing that began in it, or in an older one, is alive.
 *
 * Threads: any.
 */
#ifndef VARVE_STAGING_LOG_H
#define VARVE_STAGING_LOG_H

#include "wire/wire.h"

#define BOOT_ID_BYTES 16

enum record_kind { /* stored: only append */
	RECORD_BEGIN = 1, /* payload: struct staging_begin; pins the log */
	RECORD_WRITE = 2, /* payload at offset a */
	RECORD_RANGE = 3, /* [a, b) of the staging file holds bytes */
	RECORD_TAIL = 4, /* the tail [a, b) ended; from c to the staging file's end is a new one */
	RECORD_ZERO = 5, /* [a, b) is zeros, the size is c */
	RECORD_SIZE = 6, /* the size is a */
	RECORD_TIMES = 7, /* mtime a, ctime b, set by the user */
	RECORD_MODE = 8, /* permission bits a, to be set by the seal */
	RECORD_PROMOTE = 9, /* what was written so far lies in the staging file, too */
	RECORD_SYNCED = 10, /* of a staging file: the first a records, and its bytes up to b */
	RECORD_SEALED = 11, /* payload: content id; on node a; b: not durable before DROPPED */
	RECORD_DROPPED = 12, /* nothing of it is wanted any more */
	RECORD_COPY = 13, /* as RANGE; payload: its bytes, so that they need not be synced */

	RECORD_DAMAGED = 0, /* never stored: what was here is lost; its staging, if that is known */
};
#define RECORD_KIND_LAST RECORD_COPY

struct record {
	enum record_kind kind;
	uint64_t node;
	uint64_t staging; /* id */
	uint64_t a, b, c;
	int64_t time_ns;
	struct slice payload;
};

/* A write, or a begin with a manifest; more than any of them needs. */
#define RECORD_PAYLOAD_MAX (128 * 1024)
/* Records that one append takes. */
#define APPEND_RECORDS_MAX 4

struct staging_log;

/*
 * Begins the log file number `first`; older ones are none of its business. dir_fd stays the
 * caller's and open.
 */
int staging_log_new(int dir_fd, uint64_t first, struct staging_log **ret) must_check;
/* Removes log files that nothing pins. */
void staging_log_free(struct staging_log *log);
/*
 * One write for all n records: they survive the death of the process when it returns. On
 * failure (-ENOSPC, -EIO) the log is as it was. *ret_number (may be NULL) is the file that took
 * them.
 */
int staging_log_append(struct staging_log *log, const struct record *records, size_t n,
	uint64_t *ret_number) must_check;
void staging_log_unpin(struct staging_log *log, uint64_t number);
/* Everything appended before is durable; callers share. */
int staging_log_sync(struct staging_log *log) must_check;
/*
 * From now on the log counts, and files older than `first` do not: called once, when all that
 * lived in them is written into this one. Until then a crash leaves the older ones in force.
 */
int staging_log_supersede(struct staging_log *log) must_check;

/* What a log file's header says. */
struct log_header {
	uint64_t number;
	bool supersedes; /* older files count no more */
	bool unfinished; /* neither this file counts nor any newer one */
	uint8_t boot_id[BOOT_ID_BYTES]; /* of the system that wrote it */
	uint64_t damaged; /* records so far that are damaged, the header counted */
};
/* This system's; all zero when it cannot be told. */
void staging_boot_id(uint8_t ret[BOOT_ID_BYTES]);
/*
 * Reads the file of that number, calling visit for each whole record, and once for each run of
 * damage. 1, 0 when even the header is not whole (nothing was ever accepted into it),
 * -errno, or what visit returned below 0.
 */
int staging_log_read(int dir_fd, uint64_t number, struct log_header *ret,
	int (*visit)(void *ctx, const struct log_header *header, const struct record *r),
	void *ctx) must_check;
/* "log-N" to its number. */
bool staging_log_parse_name(const char *name, uint64_t *ret);

#endif
