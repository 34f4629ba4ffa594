/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of an open or dirty regular file: staging over manifest.
 *
 * A `struct file` is one *instance* of a node's content: what the kernel knows under one FUSE
 * node id. All handles that were opened on it share it. It lives while it is open, dirty or
 * being sealed. When the content changes remotely while it is open, file_detach() makes it keep
 * what it has; the next files_get() makes a new instance.
 *
 * Parts: staging.c (bytes written and not sealed; survives kill -9), overlay.c (which bytes are
 * staged, zero, or the manifest's), seal.c (recut, chunks, tree_put_content), reader.c.
 *
 * Writes are accepted when they are in a file of the cache folder (page cache: they survive the
 * death of the daemon); durable after file_fsync(). A write that does not fit is -ENOSPC before
 * anything is accepted.
 *
 * Threads: any; each instance has a lock of its own. A seal holds it only to swap the layers.
 */
#ifndef VARVE_FILE_H
#define VARVE_FILE_H

#include "meta/tree.h"

#include <sys/uio.h>

struct files;
struct file;

/*
 * Opens DIR/staging and seals what a crash left there (promise 2), before it returns; what
 * cannot be sealed yet stays staged and is tried again by a thread. -EIO with a reason when the
 * folder cannot be read. `dir` is copied.
 * network_timeout_ms: how long a read may wait for missing chunks.
 */
struct files_options {
	struct tree *tree;
	struct cache *cache;
	struct store *store;
	const char *dir;
	int64_t network_timeout_ms;
};
int files_new(const struct files_options *options, struct files **ret, struct err *err) must_check;
/* Seals everything dirty, then frees. */
void files_free(struct files *fs);

/* The current instance of the node, made when there is none; a reference. -ENOENT, -EISDIR... */
int files_get(struct files *fs, uint64_t node, struct file **ret) must_check;
/* The current instance if there is one: 1 / 0. It is how attributes of dirty files are found. */
int files_peek(struct files *fs, uint64_t node, struct file **ret);
void file_unref(struct file *f);
static inline void file_unref_p(struct file **f)
{
	file_unref(*f);
}
#define _cleanup_file_ _cleanup_(file_unref_p)

/* Counts handles: an instance is "open" between the two. */
void file_opened(struct file *f);
/* The last one seals what is dirty. */
void file_closed(struct file *f);
bool file_is_open(struct file *f);
/* Counts handles by which pages can be mapped and written to: the kernel tells of those late. */
void file_add_mappers(struct file *f, int n);
bool file_may_be_mapped(struct file *f);

uint64_t file_node(const struct file *f);
/* Attributes as they are, unsealed writes included. */
void file_node_attr(struct file *f, struct node *ret);
/* Attributes that changed through the tree (chmod, chown, utimens, link count). */
void file_set_node(struct file *f, const struct node *n);
/* It has another name: there it comes back to if it is deleted elsewhere and written to. */
void file_moved(struct file *f);
/* utimens on a dirty file: the times that its seal must carry. */
void file_set_times(struct file *f, uint32_t mask, int64_t mtime_ns, int64_t ctime_ns);

/*
 * A read, as pieces that need no copy where possible: file descriptors with offsets (held
 * open by the plan), or memory. Zeros are memory, too. Stops at the end of the file.
 */
struct read_piece {
	int fd; /* -1: memory */
	uint64_t offset;
	const void *mem;
	size_t n;
};
struct read_plan {
	struct read_piece *pieces;
	size_t n;
	size_t bytes;
	void *held; /* private: what keeps the pieces alive */
};
/*
 * Fetches what is missing (may wait for the network, no lock held): -ETIMEDOUT, -ENOTCONN,
 * -EIO, -EINTR as chunk_source.h. *cancelled may be NULL. When it is set from the start, a read
 * of what is local succeeds, and any other is -EINTR at once (that is how the session asks).
 */
int file_read_plan(struct file *f, uint64_t offset, size_t n, const _Atomic int *cancelled,
	struct read_plan *ret) must_check;
void read_plan_done(struct read_plan *p);

/* All n bytes or an error. clear_suid: the writer is not privileged. */
int file_write(
	struct file *f, uint64_t offset, const void *p, size_t n, bool clear_suid) must_check;
int file_truncate(struct file *f, uint64_t size) must_check;
/* mode as fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE. -EOPNOTSUPP else. */
int file_fallocate(struct file *f, int mode, uint64_t offset, uint64_t length) must_check;
/* whence SEEK_DATA or SEEK_HOLE. The offset, or -ENXIO. */
int64_t file_seek(struct file *f, uint64_t offset, int whence) must_check;
/* Shares chunks where they are whole, copies the rest. Bytes copied, or -errno. */
int64_t file_copy_range(struct file *from, uint64_t from_offset, struct file *to,
	uint64_t to_offset, uint64_t n) must_check;

/*
 * Seals what is dirty: the content is a version, sealed and queued, when it returns. It never
 * waits for the network: where a cut needs old bytes that are not on this device, what was written
 * stays staged (as safe as before) and is sealed once they could be fetched.
 */
int file_flush(struct file *f) must_check;
/* Bytes and metadata are on stable storage when it returns. Does not need to seal. */
int file_fsync(struct file *f) must_check;
/*
 * True when files_sync_log() after it does the same. Else nothing has happened, and file_fsync()
 * has to be called.
 */
bool file_fsync_begin(struct file *f) must_check;
int files_sync_log(struct files *fs) must_check;

/* The node lost its last name on this device: nothing is sealed any more. */
void file_set_unlinked(struct file *f);
/* Whether the node has a content in the tree that is not this instance's. */
bool file_is_stale(struct file *f);
/*
 * Another content came from elsewhere: keep ours for those who have it open. Nothing happens to
 * an instance that is not stale.
 */
void file_detach(struct file *f);

/* Seals every dirty file, open ones too: `varve wait`, umount. First error, all tried. */
int files_seal_all(struct files *fs) must_check;

struct files_stats {
	uint64_t dirty; /* instances */
	uint64_t staged_bytes;
	uint64_t recovered; /* stagings that files_new() found left by a crash, */
	uint64_t damaged; /* and those of which not all could be read */
};
void files_get_stats(struct files *fs, struct files_stats *ret);

#endif
