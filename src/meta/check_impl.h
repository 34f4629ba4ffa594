/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of check.h share. */
#ifndef VARVE_CHECK_IMPL_H
#define VARVE_CHECK_IMPL_H

#include "meta/check.h"
#include "meta/chunk_row.h"
#include "meta/rows.h"
#include "meta/tree_internal.h"

/* Numbers in order. */
struct number_list {
	uint64_t *items;
	size_t n;
	size_t cap;
};

struct damaged_chunk {
	struct digest id;
	bool on_server;
	struct check_problem problem; /* told when its paths are known */
};

struct check {
	const struct check_options *o;
	struct store_snapshot *at;
	struct check_result result;
	struct number_list entries; /* of the outbox */
	struct number_list derived; /* nodes whose derived fields are wrong */
	uint64_t acked;
	uint64_t counter;
	uint32_t device;
	bool state_known;
	uint64_t segment_next;
	struct damaged_chunk *damaged;
	size_t n_damaged, damaged_cap;
};

/* check.c */
int number_add(struct number_list *l, uint64_t n) must_check;
void number_sort(struct number_list *l);
bool number_has(const struct number_list *l, uint64_t n);
int check_stopped(const struct check *c) must_check;
void check_progress(const struct check *c, const char *what, uint64_t done, uint64_t total);
/* Counts it and tells of it. */
void check_tell(struct check *c, struct check_problem *p);
/* One without paths. fix NULL: nothing does. */
void check_say(struct check *c, enum check_severity severity, const char *what, const char *fix,
	const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The tree itself is wrong. */
void check_say_tree(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* check_tree.c, check_outbox.c, check_chunks.c */
int check_tree(struct check *c) must_check;
int check_outbox(struct check *c) must_check;
int check_chunks(struct check *c) must_check;

/* check_repair.c: the fields of c->derived, out of the links. */
int check_repair_derived(struct check *c) must_check;

/* check_paths.c */
/* Tells of the damaged chunks, with the files that have them. */
int check_tell_damaged(struct check *c) must_check;
/* The node's path from the root, to be freed. 1, 0 when it has none. */
int check_path_of(struct store_snapshot *at, uint64_t node, char **ret) must_check;
/* The manifest of a content that a row of the tree has: inline bytes, or its row. 1, 0. */
int check_manifest(struct store_snapshot *at, struct slice inlined, const struct digest *content,
	struct manifest **ret) must_check;

#endif
