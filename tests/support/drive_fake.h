/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server with one drive, in memory: it takes commits in order, keeps chunks, and wakes who
 * waits on the feed; and it misbehaves as it is told.
 */
#ifndef VARVE_DRIVE_FAKE_H
#define VARVE_DRIVE_FAKE_H

#include "http_fake.h"
#include "wire/wire.h"

#define FAKE_DRIVE_ID "0123456789abcdef0123456789abcdef"

struct drive_fake;

/* How often each of these goes wrong from now on, and then no more. */
struct drive_faults {
	int lose_replies; /* commits: applied, but the connection is cut before the answer */
	int fail_commits; /* 500, not applied */
	int refuse_commits; /* 409 with `refuse_as` */
	enum refusal refuse_as;
	int cut_pages; /* changes: cut in the middle of the body */
	int damage_frames; /* fetch: a bit of the last frame is wrong */
	int swap_frames; /* fetch: another chunk's frame under the id */
	int drop_frames; /* fetch: the last is left out */
	int fail_fetches; /* 500 */
	int status; /* not 0: everything is answered so, for ever */
	int slow_packs_ms; /* each upload takes so long */
	int slow_fetches_ms;
	int early_pages; /* changes: answers at once, though there is nothing new */
};

struct drive_counts {
	unsigned commits; /* requests */
	unsigned missing, packs, fetches, changes;
	unsigned inlined; /* chunks that came inside commits */
	unsigned in_packs; /* chunks that came in packs */
	unsigned seen_twice; /* commits with an id that was applied before */
	uint64_t changes_applied;
	uint64_t head;
	uint64_t last_base;
	int64_t committed_ms; /* when the last one was */
};

struct drive_fake *drive_fake_new(int port);
void drive_fake_free(struct drive_fake *d);
const char *drive_fake_url(const struct drive_fake *d);
int drive_fake_port(const struct drive_fake *d);
/* Commits of somebody else. */
void drive_fake_advance(struct drive_fake *d, uint64_t n);
void drive_fake_set_faults(struct drive_fake *d, const struct drive_faults *faults);
void drive_fake_counts(struct drive_fake *d, struct drive_counts *ret);
void drive_fake_add_chunk(struct drive_fake *d, const void *p, size_t n);

#endif
