/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of file.h share: the instance and the table of instances.
 *
 * Locks, in order: file.lock, then files.lock, then those of the staging log and of meta.
 * Nothing waits for the network under one. file.lock may be held over reads and attributes of
 * the tree and writes to staging (all local), never over a seal, a sync or a fetch.
 *
 * An instance's layers, from the top, each over the next:
 *	active	staged and still written to
 *	frozen	being sealed, or waiting to be after a failure
 *	base	the manifest of base_content, loaded when first needed
 *
 *	clean --write--> active --seal begins--> frozen --seal ends--> base
 */
#ifndef VARVE_INSTANCE_H
#define VARVE_INSTANCE_H

#include "fs/behind.h"
#include "fs/file.h"
#include "fs/staging.h"
#include "workers.h"

#include <uthash.h>

/* A file that nobody wrote to for this long is sealed, open or not; */
#define SEAL_IDLE_MS 2000
/* and one that is dirty for this long in any case, so that it gets uploaded while it grows. */
#define SEAL_DIRTY_MS 10000
/*
 * Each place that was written to costs a seal the old chunks around it, about this much, which are
 * cut, stored and sent anew. Who writes here and there into a large file (a database, the disk of
 * a virtual machine) would so have all of it sealed again and again: it waits longer, so that this
 * takes no more than SEAL_OLD_DIRTY_MS_BYTES a millisecond while he writes, and may begin when he
 * has stopped for as long as it will take.
 */
#define SEAL_PLACE_BYTES (2 * CHUNK_AVG)
#define SEAL_OLD_DIRTY_MS_BYTES (32 * KIB)
#define SEAL_OLD_IDLE_MS_BYTES (256 * KIB)
/* A seal that failed is tried again after this long. */
#define SEAL_RETRY_MS 5000
/* How often the thread looks while something is dirty. */
#define SEAL_TICK_MS 500
/*
 * More than this in one staging is sealed at once: it bounds the segment that it becomes, which
 * is evicted whole.
 */
#define SEAL_BYTES (1 * GIB)

/* Rows of sealed.h are removed when there are so many; each costs some bytes until then. */
#define SEALED_ROWS_MAX 4096

struct file {
	struct files *fs;
	uint64_t node; /* whose content it is to those who opened it */
	UT_hash_handle hh; /* files.lock */
	bool in_table; /* files.lock */
	bool in_dirty; /* files.lock */
	struct file *dirty_next, *dirty_prev; /* files.lock */
	atomic_uint refs;

	pthread_mutex_t lock; /* of all below */
	pthread_cond_t changed; /* loading, sealing, a run behind the writer ended */
	bool loading;
	int load_error;
	struct node attr; /* size, mtime and ctime as they are, unsealed writes included */
	uint32_t tree_mode; /* permission bits that the tree has */
	uint64_t put_node; /* where seals go: another node after a conflict made a copy */
	struct digest base_content;
	struct tree_place base_place; /* at the latest since then the tree has had it */
	struct manifest *base;
	struct cache_hold *hold; /* of a content that no name leads to, only this instance */
	struct staging *active;
	struct staging *frozen;
	bool sealing;
	bool detached;
	bool unlinked;
	uint32_t seal_mode; /* permission bits that the next seal sets; 0: none */
	uint64_t home_parent;
	struct buf home_name;
	unsigned open_count;
	int mappers; /* handles by which pages can be mapped and written to */
	int64_t dirty_since_ms;
	int64_t written_ms;
	int64_t retry_ms; /* not before; 0: no failure */
	uint64_t tree_changes; /* of the node's row, that we know of; */
	uint64_t tree_synced; /* up to here durable */
	/* Sequential readers of what is not here: */
	uint64_t read_next; /* where the last read ended */
	uint64_t ahead_until; /* asked for up to here */
	bool ahead_busy;
	bool missed; /* a read had to wait for the network */
};

struct files {
	struct tree *tree;
	struct cache *cache;
	struct store *store;
	struct staging_dir *dir;
	int64_t network_timeout_ms;
	struct workers *cutter; /* one thread: it has one buffer */
	struct behind_buffer cut_buffer;
	struct workers *fetchers;
	pthread_mutex_t lock;
	struct file *table;
	struct file *dirty;
	uint64_t n_dirty;
	struct staging **unsettled; /* sealed; each a reference */
	size_t n_unsettled, unsettled_capacity;
	uint64_t recovered, damaged;
	pthread_cond_t wake; /* of the thread: something is dirty, or stop */
	pthread_t thread;
	bool thread_started;
	bool thread_idle;
	bool stopping;
};

/* files.c: all that are dirty now, each with a reference, in memory to be freed. */
int files_collect_dirty(struct files *fs, struct file ***ret, size_t *ret_n) must_check;

/* file.c */
/* A condition whose timed waits go by clock_mono_ns(). */
void cond_init_monotonic(pthread_cond_t *cond);
struct file *file_ref(struct file *f);
/* An instance that is in no table; its attributes are the caller's to fill. */
int file_new(struct files *fs, uint64_t node, struct file **ret) must_check;
/* Puts it into the table; false when another instance has the place. */
bool files_enter(struct files *fs, struct file *f);
/* Takes it out of the table: the next files_get() makes a new one. */
void files_leave(struct file *f);
/* Loads the manifest of base_content. file.lock is held. */
int file_load_base_locked(struct file *f) must_check;
/* The list of dirty instances, each with a reference. file.lock is held. */
void file_mark_dirty_locked(struct file *f);
void file_mark_clean_locked(struct file *f);

/* file_write.c */
/* Makes sure that there is an active staging to write to. */
int file_activate_locked(struct file *f) must_check;
/* What a staging on top of this instance's content begins with; slices point into it. */
void file_begin_locked(struct file *f, struct staging_begin *ret);

/* seal_file.c */
/* Seals what was staged when it was called; 0 when nothing was. */
int file_seal(struct file *f) must_check;
/* Waits for a running seal and keeps others out until file_unlock_seal_locked(). */
void file_lock_seal_locked(struct file *f);
void file_unlock_seal_locked(struct file *f);
/* The tree has taken a content for us: what it says becomes the instance's. */
void file_sealed_locked(struct file *f, struct manifest *content, enum content_result result,
	const struct node *node);
/* A sealed staging that has to stay until the tree is durable; takes the reference. */
void files_unsettled(struct files *fs, struct staging *s);
/* Makes the tree durable and lets them go. */
void files_settle(struct files *fs);
/* Removes rows of sealed.h that the log has overtaken, after it is durable. */
void files_tidy_rows(struct files *fs);

/* seal_thread.c */
int files_start_thread(struct files *fs) must_check;
void files_stop_thread(struct files *fs);

/* files_recover.c */
int files_recover(struct files *fs, struct err *err) must_check;

/* holes.c: attr.holes as a change of [start, end) makes it, asked before and told after. */
struct hole_count {
	uint64_t size; /* of the file, before */
	uint64_t start, end;
	uint64_t holes; /* bytes of them, before */
};
struct hole_count file_holes_before_locked(struct file *f, uint64_t start, uint64_t end);
void file_holes_after_locked(struct file *f, const struct hole_count *c, bool zeros);
void file_count_holes_locked(struct file *f);

/* reader.c */
enum span_kind { SPAN_ZERO, SPAN_STAGED, SPAN_BASE };
/* A run of bytes that come from one layer. */
struct span {
	uint64_t start, end;
	enum span_kind kind;
	struct staging *staging; /* SPAN_STAGED; borrowed */
	uint64_t pos;
};
/* The run that begins at offset < limit and ends at limit at the latest. */
void file_span_locked(const struct file *f, uint64_t offset, uint64_t limit, struct span *ret);

#endif
