/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices of one drive and the server's real commit code, in one process: no HTTP, no threads.
 * Every failure of the kit itself fails the test.
 */
#ifndef VARVE_REPLICA_KIT_H
#define VARVE_REPLICA_KIT_H

#include "meta/replica.h"
#include "server/vault.h"

struct world {
	char dir[64];
	struct db *db;
	struct blob *blob;
	struct vault *vault;
	int64_t drive;
	int64_t created_ns;
};

struct device {
	struct world *w;
	uint32_t number;
	char name[32];
	char dir[96];
	struct store *st;
	struct cache *cache;
	struct tree *t;
	struct buf events; /* one line an event */
	uint64_t known_entry; /* of write_upon(); 0: as of now */
};

void world_open(struct world *w);
void world_close(struct world *w);
void device_open(struct device *d, struct world *w, uint32_t number, const char *name);
/* As after a kill: everything is read from the store again. */
void device_reopen(struct device *d);
void device_close(struct device *d);

/* Hands one commit in: 1 applied, 0 nothing to send, -1 refused. */
int device_push(struct device *d);
/* Sends it, and dies before the answer comes. */
void device_push_and_die(struct device *d);
/* Pages until the head. The result of the last replica_apply(). */
int device_pull(struct device *d);
/* Until nothing waits in either direction. */
void device_sync(struct device *d);

struct slice text(const char *s);
uint64_t make(struct device *d, uint64_t parent, const char *name, uint32_t mode);
uint64_t make_file(struct device *d, uint64_t parent, const char *name, const char *bytes);
/* The content that these bytes are. */
struct digest content_of(const char *bytes);
/* A write upon what the node has. */
enum content_result write_file(struct device *d, uint64_t node, const char *bytes);
enum content_result write_upon(struct device *d, uint64_t node, const struct digest *expected,
	const char *bytes, uint64_t home_parent, const char *home_name, uint64_t *ret_node);
int remove_file(struct device *d, uint64_t parent, const char *name);
int move(struct device *d, uint64_t parent, const char *name, uint64_t new_parent,
	const char *new_name);
/* 0 when there is none. */
uint64_t find(struct device *d, uint64_t parent, const char *name);
bool has_bytes(struct device *d, uint64_t node, const char *bytes);

/* The whole tree as text, one line a name, with everything that devices must agree upon. */
void device_dump(struct device *d, struct buf *ret);
/* Link counts, names, and, when the outbox is empty, that nothing is dirty. */
void device_check(struct device *d);
void expect_equal(struct device *a, struct device *b);

#endif
