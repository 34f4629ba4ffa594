/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that can be told to be right or wrong about what is on this device of a drive: the
 * rows of the store against each other, and every chunk's bytes against its id.
 *
 *	check_run(&options, &result, &err);	found() is called for each problem
 *
 * Looks at one snapshot, so it can run beside a daemon's work. Repairs of rows need a store that
 * nobody else uses; a chunk whose bytes are wrong can be dealt with in either case.
 *
 * What is repaired, and how:
 *	a chunk that the server has	its row goes: it is fetched anew when it is read
 *	a chunk that only this device had	its row is marked: reads of it fail, it is never
 *sent; a file that has it is kept as a damaged copy (repair_damaged) link counts, names of a node
 *derived again from the links
 *	a name of no node, an xattr of no node, a node of no name	only a new tree helps:
 *					`rebuild` in the result is set
 *
 * One thread.
 */
#ifndef VARVE_CHECK_H
#define VARVE_CHECK_H

#include "meta/cache.h"
#include "meta/store.h"
#include "meta/tree.h"

enum check_severity {
	CHECK_NOTE, /* nothing is wrong; somebody may want to know */
	CHECK_PROBLEM, /* wrong, and can be put right without loss */
	CHECK_LOSS, /* bytes that only this device had */
};

#define CHECK_PATHS_MAX 16

struct check_problem {
	enum check_severity severity;
	const char *what; /* a word for programs: "chunk", "tree", "outbox", "state", ... */
	bool repaired;
	const char *fix; /* what repairs it, for people; NULL: nothing does */
	char text[ERR_TEXT_BYTES];
	/* Names of files that it concerns, from the drive's root; bytes. */
	char *paths[CHECK_PATHS_MAX];
	size_t n_paths;
	uint64_t more_paths; /* beyond those */
};

struct check_options {
	struct store *store;
	const char *dir; /* of the drive: segments are below it */
	const char *drive_id; /* that it must be; NULL: any */
	const char *device_name; /* for the names of damaged copies */
	struct cache *cache; /* of the daemon that runs; NULL: nobody else uses the store */
	bool quick; /* do not read chunks' bytes */
	bool repair;
	void (*found)(void *ctx, const struct check_problem *p);
	/* May be NULL. total 0: not known. */
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
	void *ctx;
	const _Atomic int *stop; /* may be NULL: -EINTR when it becomes true */
};

struct check_result {
	uint64_t nodes;
	uint64_t links;
	uint64_t outbox_entries;
	uint64_t chunks;
	uint64_t chunk_bytes; /* that were read and hashed */
	uint64_t problems; /* notes not counted */
	uint64_t repaired; /* of them */
	uint64_t damaged; /* chunks */
	bool rebuild; /* the tree itself is wrong: only a new one from the server helps */
};

/* 0 also when problems were found; -errno when the store cannot be read. */
int check_run(
	const struct check_options *options, struct check_result *ret, struct err *err) must_check;

/*
 * Files whose newest content has chunks that only this device had and whose bytes are wrong: the
 * bytes that are there become a file of their own, "name (damaged copy, DEVICE, DATE).ext", and
 * the name has the newest content again that is whole, if there was one; else it becomes the
 * damaged copy's. So the outbox names nothing any more that cannot be sent. Nobody else uses the
 * store, and check_run() with `repair` has marked the chunks. found() hears of each file.
 */
int check_repair_damaged(struct tree *t, struct cache *c, const struct check_options *options,
	struct check_result *io, struct err *err) must_check;

#endif
