/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the segments share, and nobody else. */
#ifndef VARVE_SEGMENT_IMPL_H
#define VARVE_SEGMENT_IMPL_H

#include "meta/group_sync.h"
#include "meta/segment.h"

#include <stdatomic.h>
#include <sys/stat.h>
#include <uthash.h>

/* With more files than this unsynced, one syncfs() is cheaper than their fsyncs. */
#define DIRTY_MAX 256
#define BOOT_ID_BYTES 36
/* How old the stamp of the last use can be. */
#define USE_STAMP_NS (INT64_C(300) * 1000 * 1000 * 1000)
#define SEGMENT_NAME_BYTES 17
/* Keys of CF_STATE; what they hold stands in segment_state.c. */
#define KEY_NEXT "segment-next"
#define KEY_SAFE "segment-safe"

struct segment {
	struct segments *owner;
	uint64_t id;
	int fd;
	unsigned refs; /* under the owner's lock, as is: */
	unsigned writers; /* that have reserved their place and are writing */
	bool removed; /* out of the table; closed with the last reference */
	int64_t used_ns;
	int64_t stamped_ns; /* on the file */
	_Atomic uint64_t size;
	UT_hash_handle hh;
	struct segment *prev, *next; /* in the idle list while refs == 0 */
};

struct segments {
	struct store *store;
	int dir_fd;
	char boot_id[BOOT_ID_BYTES];
	struct group_sync syncs;
	int sync_error; /* of the one round that runs; 0 until the disk failed */

	pthread_mutex_t lock; /* all below; the store may be called under it */
	struct segment *table; /* by id: the held ones and the idle ones */
	struct segment *idle; /* oldest first */
	size_t idle_count;
	struct segment *open; /* a reference, or NULL */
	uint64_t next_id;
	uint64_t ids_end; /* next_id may go up to here before "segment-next" is advanced */
	uint64_t safe; /* as stored */
	uint64_t size_max;
	bool settled;
	bool doubted; /* power was lost; segments from `safe` on had to be checked */
	uint64_t dirty[DIRTY_MAX];
	size_t dirty_count; /* beyond DIRTY_MAX: all */
	uint64_t dirty_first; /* the lowest dirty id; UINT64_MAX */
	bool names_dirty;

	pthread_mutex_t stats_lock;
	bool counted;
	uint64_t count, bytes;
	uint64_t limit_bytes;
	void (*grown)(void *ctx);
	void *grown_ctx;
};

/* segment.c */
void segments_mark_dirty_locked(struct segments *s, uint64_t id);
void segments_drop_idle_locked(struct segments *s);
void segments_forget_locked(struct segments *s, struct segment *seg);
void segment_name(uint64_t id, char ret[SEGMENT_NAME_BYTES]);
/* What a file takes of the disk; of a dense one its length. */
uint64_t segment_disk_bytes(const struct stat *st);
void segments_count_change(struct segments *s, int64_t files, int64_t bytes);

/* segment_state.c */
int segments_put_state(struct segments *s, const char *key, const void *value, size_t n) must_check;

#endif
