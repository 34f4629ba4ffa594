/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vault on a throw-away database and store, and commits in few words. A failure of the kit
 * itself aborts.
 */
#ifndef VARVE_SERVER_KIT_H
#define VARVE_SERVER_KIT_H

#include "bounds.h"
#include "chunk/manifest.h"
#include "server/vault.h"

struct kit {
	char dir[64]; /* holds the store, and the database unless it is in memory */
	bool owns_dir;
	struct db *db;
	struct blob *blob;
	struct vault *vault;
	int64_t account;
	int64_t drive;
};

void kit_open(struct kit *k, bool in_memory);
/* A further connection to the same database (one in a file). */
void kit_connect(struct kit *k, const struct kit *first);
void kit_close(struct kit *k);
int64_t kit_new_drive(struct kit *k, const char *name);
/* The first column of the first row; -1 for no row. */
int64_t kit_sql(struct kit *k, const char *sql);

/* Content of a file that is one chunk (none when n is 0). */
struct manifest *kit_manifest(const void *p, size_t n);

struct batch {
	uint8_t id[COMMIT_ID_BYTES];
	uint64_t base;
	struct buf pack;
	struct buf bytes[2 * COMMIT_CHANGES_MAX]; /* of the two below */
	size_t n_bytes;
	struct slice changes[COMMIT_CHANGES_MAX + 1];
	struct slice contents[COMMIT_CHANGES_MAX];
	size_t n_changes, n_contents;
};

struct batch *batch_new(uint64_t base); /* with a random id */
void batch_free(struct batch *b);
void batch_add(struct batch *b, const struct change *c);
void batch_chunk(struct batch *b, const void *p, size_t n);
void batch_content(struct batch *b, const struct manifest *m);
/* A chunk, its manifest, and attr's size and content. */
void batch_file(struct batch *b, struct node_attr *attr, const void *p, size_t n);
struct commit batch_commit(const struct batch *b);

struct answer {
	int result;
	uint64_t seq, head;
	size_t n_refused;
	enum refusal reason; /* of the first */
	uint32_t index;
};
struct answer batch_send(struct kit *k, uint32_t device, const struct batch *b);
/* Sends and frees. */
struct answer batch_post(struct kit *k, uint32_t device, struct batch *b);

/* A commit of one change. */
struct answer send_one(struct kit *k, uint32_t device, uint64_t base, const struct change *c);

struct slice text(const char *s);
#define T0 INT64_C(1700000000000000000)
struct change create(uint64_t node, uint64_t parent, const char *name, uint32_t mode);
struct change rename_to(uint64_t node, uint64_t parent, const char *name, uint64_t new_parent,
	const char *new_name, uint64_t victim);
struct change unlink_of(uint64_t node, uint64_t parent, const char *name);
struct change link_to(uint64_t node, uint64_t parent, const char *name);
struct change setattr_mode(uint64_t node, uint32_t mode);
struct change setxattr_of(uint64_t node, const char *name, const char *value);

#endif
