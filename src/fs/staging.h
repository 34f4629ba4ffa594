/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that were written to a file and are not sealed: one layer over a lower content. Small
 * ones lie in memory and in the shared log; beyond STAGING_SMALL_MAX bytes they lie in a sparse
 * file of their own, at the offsets that they have in the file, and the log only says which
 * ranges of it count.
 *
 *	staging_new(dir, &begin, &s);
 *	staging_write(s, ...); staging_zero(s, ...);	// accepted: survives kill -9
 *	staging_sealed(s, ...) or staging_drop(s);	// nothing on disk is left of it
 *	staging_unref(s);				// without either: found again at the next
 *start
 *
 * Each call either does all it says, on disk and in memory, or nothing (-ENOSPC, -EIO, -ENOMEM).
 * Bytes of a staging file are never moved or cut away while somebody holds a reference.
 *
 * Threads: the caller (file.c) serializes all calls on one staging with the instance's lock;
 * only staging_ref/unref, staging_read() of a frozen one and staging_sync() are for any thread.
 * Fields are for reading by the folder; only staging.c and staging_end.c write them, unless it
 * says otherwise.
 */
#ifndef VARVE_STAGING_H
#define VARVE_STAGING_H

#include "fs/overlay.h"
#include "fs/staging_log.h"
#include "meta/cache.h"
#include "meta/tree.h"

#include <stdatomic.h>

/*
 * Up to here a staging costs no file: one log write of 64 KiB takes about as long as creating
 * and removing a file, and a file of less than HOLE_BLOCK bytes is a single chunk.
 */
#define STAGING_SMALL_MAX (64 * KIB)
/*
 * Writes of up to STAGING_COPY_MAX go to the staging file and with their bytes to the log, when
 * an fsync has been there and no more than STAGING_COPIED_MAX was written since: one sync of the
 * log, which all share, then stands for one of each file.
 */
#define STAGING_COPY_MAX (32 * KIB)
#define STAGING_COPIED_MAX (256 * KIB)
/* What all small stagings may hold in memory together; beyond, new bytes go to files. */
#define STAGING_MEMORY_MAX (64 * MIB)

struct behind;

/* The folder and what its stagings share. */
struct staging_dir {
	int fd;
	char *path;
	struct store *store;
	struct staging_log *log;
	struct workers *closer; /* one thread: frees large files' blocks */
	_Atomic uint64_t next_id;
	_Atomic uint64_t memory_bytes;
	_Atomic uint64_t staged_bytes;
	_Atomic uint64_t unchecked_bytes; /* accepted since the disk was asked for room */
	pthread_mutex_t over_lock;
	uint64_t *over; /* ids of which the log says that they are over */
	size_t n_over, over_capacity;
};

int staging_dir_open(struct store *store, const char *path, struct staging_dir **ret) must_check;
void staging_dir_free(struct staging_dir *d);
/*
 * Stagings that the log does not bring back any more, once it is synced: their rows in sealed.h
 * can go. The list is the caller's to free.
 */
size_t staging_dir_over(struct staging_dir *d);
size_t staging_dir_take_over(struct staging_dir *d, uint64_t **ret);

/* What a staging begins with; it is what recovery knows about it. */
struct staging_begin {
	uint64_t id; /* 0: a new one */
	uint64_t node;
	struct digest expected; /* the content below, */
	struct tree_place below; /* and when the tree had it */
	uint64_t previous; /* the staging below that is not sealed yet, 0 for none */
	uint64_t replaces; /* the staging that ends with this one's begin, 0 for none */
	bool from_zero; /* the file was cut to no bytes: nothing below shows */
	uint64_t size;
	int64_t mtime_ns;
	int64_t ctime_ns;
	uint32_t mode; /* permission bits that the seal sets; 0: none */
	uint64_t home_parent; /* a name of the node, to bring it back to */
	struct slice home_name;
	struct slice manifest; /* the content below, encoded, when it is small */
};

#define STAGING_NO_TAIL UINT64_MAX

struct staging {
	atomic_int refs;
	struct staging_dir *dir;
	uint64_t id;
	uint64_t node;
	struct overlay map; /* what it holds */
	struct buf bytes; /* while fd < 0; extents' pos points into it */
	int fd; /* the staging file; extents' pos is their offset */
	uint64_t fd_end; /* behind its last byte */
	uint64_t tail; /* [tail, fd_end) is staged without records, by the file's length */
	bool logged; /* false: of an unlinked file, a crash may take it */
	bool begun; /* its begin is in the log */
	bool ended;
	bool held; /* let go by who wrote it, and on disk until staging_settle(), */
	bool held_file; /* with its file */
	uint64_t *replaced; /* ids that end with this one, as the log says, its own last; or NULL */
	size_t n_replaced;
	uint64_t log_number; /* where it begins */
	struct buf begin; /* encoded, until it is in the log */
	uint64_t n_records; /* behind the begin, SYNCED not counted */
	_Atomic uint64_t synced_records; /* what the last SYNCED record said */
	_Atomic uint64_t synced_end;
	uint64_t bare; /* writes to the staging file without a copy in the log; */
	_Atomic uint64_t synced_bare; /* so many of them are durable */
	bool copied; /* the log has, or had, copies */
	uint64_t since_sync; /* bytes written */
	atomic_int sync_error; /* of the staging file, for good */
	atomic_bool promised; /* an fsync returned, or will */
	/* Written by seal.c: */
	struct segment *segment; /* the staging file was adopted: nobody writes to it any more */
	bool kept; /* it has a second name, for recovery */
	bool no_adopt;
	struct behind *behind;
	/* What the seal carries; written by file.c. */
	uint64_t size;
	int64_t mtime_ns;
	int64_t ctime_ns;
	uint32_t mode;
};

int staging_new(
	struct staging_dir *d, const struct staging_begin *begin, struct staging **ret) must_check;
struct staging *staging_ref(struct staging *s);
void staging_unref(struct staging *s);
static inline void staging_unref_p(struct staging **s)
{
	staging_unref(*s);
}
#define _cleanup_staging_ _cleanup_(staging_unref_p)

int staging_write(
	struct staging *s, uint64_t offset, const void *p, size_t n, int64_t time_ns) must_check;
/* As staging_write() to memory, without the log. */
int staging_put_memory(struct staging *s, uint64_t offset, const void *p, size_t n) must_check;
/* The range shows zeros, or the staging file's bytes. overlay_reserve() was called. */
void staging_map(
	struct staging *s, uint64_t start, uint64_t end, uint64_t pos, enum extent_kind kind);
/* [start, end) shows zeros (end may be OVERLAY_END), and the file's size is `size`. */
int staging_zero(
	struct staging *s, uint64_t start, uint64_t end, uint64_t size, int64_t time_ns) must_check;
int staging_resize(struct staging *s, uint64_t size, int64_t time_ns) must_check;
int staging_set_times(struct staging *s, int64_t mtime_ns, int64_t ctime_ns) must_check;
int staging_set_mode(struct staging *s, uint32_t mode) must_check;
/* Disk blocks for [start, end), as far as the file system can promise them. */
int staging_preallocate(struct staging *s, uint64_t start, uint64_t end) must_check;
/* Writes the begin to the log when no record has done so yet. */
int staging_commit_begin(struct staging *s) must_check;

/* n staged bytes that lie at `pos`, as an extent says. */
int staging_read(const struct staging *s, uint64_t pos, void *p, size_t n) must_check;

/*
 * What was accepted before staging_sync_begin() is durable after staging_sync(), which blocks
 * and needs no lock.
 */
struct staging_sync {
	struct staging *staging; /* a reference, which staging_sync() gives back */
	bool logged;
	int fd;
	uint64_t n_records;
	uint64_t end;
	uint64_t bare;
};
void staging_sync_begin(struct staging *s, struct staging_sync *ret);
int staging_sync(struct staging_sync *sync) must_check;
/*
 * The same where staging_log_sync() alone makes it durable: true, and that has to follow. False:
 * there is more to be done.
 */
bool staging_sync_by_log(struct staging *s) must_check;

/*
 * It is sealed as this content of this node, visible and not durable. One that an fsync has
 * promised stays on disk until staging_settle(), called after a tree_sync(): true then.
 */
bool staging_sealed(struct staging *s, uint64_t node, const struct digest *content);
void staging_settle(struct staging *s);
/* Another staging's begin has said that it replaces this one. True as of staging_sealed(). */
bool staging_replaced(struct staging *s);
/* To be said to the new one, before its begin is logged. */
int staging_replaces(struct staging *s, const struct staging *old) must_check;
/* The ids of which a seal is the end; valid as long as the staging. */
const uint64_t *staging_ids(const struct staging *s, size_t *ret_n);
/*
 * The node was deleted: from now on it is for those who have it open, and a crash may take it.
 * True as of staging_sealed(): the deletion may not be durable yet.
 */
bool staging_forget(struct staging *s);

/* "f-ID", the staging file; "k-ID", its second name while it is being adopted. */
#define STAGING_NAME_BYTES 32
void staging_file_name(uint64_t id, bool kept, char ret[STAGING_NAME_BYTES]);
bool staging_parse_name(const char *name, uint64_t *ret_id, bool *ret_kept);

/* staging_restate.c, for recovery: a staging as the log had it, and again into the new log. */
int staging_begin_encode(const struct staging_begin *b, struct buf *ret) must_check;
/* Slices point into the payload. -EBADMSG. */
int staging_begin_decode(const struct record *r, struct staging_begin *ret) must_check;
/*
 * Does what the records say to a new staging, without logging it. `fd` is its staging file, or
 * -1; `end` is how far that is believed. The file was not synced after the first `rewrite`
 * records: the others count up to the first whose bytes are in the file alone, and the bytes that
 * they have are written to it. Takes fd on success. -EBADMSG when records contradict each other.
 */
int staging_replay(struct staging *s, const struct record *records, size_t n, int fd, uint64_t end,
	size_t rewrite) must_check;
int staging_restate(struct staging *s, const struct staging_begin *begin) must_check;

#endif
