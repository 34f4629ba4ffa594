// SPDX-License-Identifier: Apache-2.0
/* Every rule of a commit, kept and broken. */
#include "server_kit.h"

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define REG (S_IFREG | 0644)
#define DIR_MODE (S_IFDIR | 0755)

static struct kit k;
static uint64_t head;

/* Two devices: 1 and 2. Nodes: n(device, counter). */
#define N(device, counter) node_id(device, counter)

static void setup(void)
{
	kit_open(&k, true);
	head = 0;
}

static void teardown(void)
{
	kit_close(&k);
}

/* Applied as the next seq. */
static uint64_t yes_at(uint32_t device, uint64_t base, struct change c)
{
	struct answer a = send_one(&k, device, base, &c);

	ck_assert_msg(a.seq == head + 1, "kind %d: %d, reason %s", c.kind, a.result,
		refusal_text(a.reason));
	ck_assert_uint_eq(a.head, a.seq);
	return head = a.seq;
}

static uint64_t yes(struct change c)
{
	return yes_at(1, head, c);
}

/* Refused, and nothing changed. */
static void no_at(uint32_t device, uint64_t base, struct change c, enum refusal reason)
{
	int64_t rows = kit_sql(&k, "SELECT count(*) FROM node_version") +
		       kit_sql(&k, "SELECT count(*) FROM link_version");
	struct answer a = send_one(&k, device, base, &c);

	ck_assert_int_eq(a.result, 0);
	ck_assert_uint_eq(a.seq, 0);
	ck_assert_uint_eq(a.head, head);
	ck_assert_str_eq(refusal_text(a.reason), refusal_text(reason));
	ck_assert_int_eq(kit_sql(&k, "SELECT head_seq FROM drive"), (int64_t)head);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM node_version") +
				 kit_sql(&k, "SELECT count(*) FROM link_version"),
		rows);
}

static void no(struct change c, enum refusal reason)
{
	no_at(1, head, c, reason);
}

static struct change write_of(struct batch *b, uint64_t node, const char *bytes)
{
	struct change c = { .kind = CHANGE_WRITE,
		.node = node,
		.attr = { .mtime_ns = T0 + 6, .ctime_ns = T0 + 6 },
		.time_ns = T0 + 6 };

	batch_file(b, &c.attr, bytes, strlen(bytes));
	return c;
}

static struct answer write_at(uint32_t device, uint64_t base, uint64_t node, const char *bytes)
{
	struct batch *b = batch_new(base);
	struct change c = write_of(b, node, bytes);
	struct answer a;

	batch_add(b, &c);
	a = batch_post(&k, device, b);
	if (a.seq)
		head = a.seq;
	return a;
}

/* A directory with a file in it: nodes 2 and 3 of device 1. */
#define D N(1, 2)
#define F N(1, 3)
static void small_tree(void)
{
	yes(create(D, NODE_ROOT, "d", DIR_MODE));
	yes(create(F, D, "f", REG));
}

START_TEST(seqs_have_no_gaps_and_retries_get_the_first_answer)
{
	struct change c = create(N(1, 2), NODE_ROOT, "a", REG);
	struct batch *b = batch_new(0);
	struct answer a;

	batch_add(b, &c);
	ck_assert_uint_eq(batch_send(&k, 1, b).seq, 1);
	head = 1;
	yes(create(N(1, 3), NODE_ROOT, "b", REG));
	no(create(N(1, 4), NODE_ROOT, "b", REG), REFUSAL_EXISTS);
	a = batch_send(&k, 1, b);
	ck_assert_uint_eq(a.seq, 1);
	ck_assert_uint_eq(a.head, 2);
	ck_assert_uint_eq(a.n_refused, 0);
	/* The same id from another device is another commit. */
	a = batch_post(&k, 2, b);
	ck_assert_uint_eq(a.seq, 0);
	yes(create(N(1, 4), NODE_ROOT, "c", REG));
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM commit_log"), 3);
	ck_assert_int_eq(kit_sql(&k, "SELECT max(seq) FROM commit_log"), 3);
}
END_TEST

START_TEST(a_commit_must_make_sense)
{
	struct change c = create(N(1, 2), NODE_ROOT, "a", REG);
	struct batch *b = batch_new(0);
	struct answer a;

	a = batch_send(&k, 1, b); /* no changes */
	ck_assert_int_eq(a.reason, REFUSAL_INVALID);
	batch_add(b, &c);
	b->changes[b->n_changes++] = text("not CBOR");
	a = batch_send(&k, 1, b);
	ck_assert_int_eq(a.reason, REFUSAL_INVALID);
	ck_assert_uint_eq(a.index, 1);
	b->n_changes--;
	b->contents[b->n_contents++] = text("not a manifest");
	ck_assert_int_eq(batch_send(&k, 1, b).reason, REFUSAL_INVALID);
	b->n_contents--;
	ck_assert_int_eq(buf_append(&b->pack, "VRV", 3), 0);
	ck_assert_int_eq(batch_send(&k, 1, b).reason, REFUSAL_INVALID);
	b->pack.len = 0;
	b->base = 1;
	ck_assert_int_eq(batch_send(&k, 1, b).reason, REFUSAL_INVALID);
	b->base = 0;
	ck_assert_int_eq(batch_send(&k, 0, b).reason, REFUSAL_INVALID);
	ck_assert_int_eq(batch_send(&k, NODE_DEVICE_MAX + 1, b).reason, REFUSAL_INVALID);
	ck_assert_uint_eq(batch_post(&k, 1, b).seq, 1);
	k.drive++;
	ck_assert_int_eq(send_one(&k, 1, 0, &c).result, -ENOENT);
}
END_TEST

START_TEST(damaged_or_large_inline_chunks_are_refused)
{
	struct batch *b = batch_new(0);
	static char large[CHUNK_INLINE_MAX + 1];
	struct change c = create(N(1, 2), NODE_ROOT, "a", REG);

	batch_file(b, &c.attr, "hello", 5);
	batch_add(b, &c);
	b->pack.data[b->pack.len - 1] ^= 1;
	ck_assert_int_eq(batch_send(&k, 1, b).reason, REFUSAL_INVALID);
	b->pack.data[b->pack.len - 1] ^= 1;
	b->pack.data[8] ^= 1; /* the id */
	ck_assert_int_eq(batch_send(&k, 1, b).reason, REFUSAL_INVALID);
	b->pack.data[8] ^= 1;
	batch_chunk(b, large, sizeof large);
	ck_assert_int_eq(batch_send(&k, 1, b).reason, REFUSAL_INVALID);
	b->pack.len = 0;
	ck_assert_int_eq(batch_send(&k, 1, b).reason, REFUSAL_CHUNK);
	batch_chunk(b, "hello", 5);
	ck_assert_uint_eq(batch_post(&k, 1, b).seq, 1);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM chunk"), 1);
	ck_assert_int_gt(kit_sql(&k, "SELECT bytes FROM drive"), 24);
}
END_TEST

START_TEST(create_needs_a_free_name_in_a_directory)
{
	small_tree();
	no(create(N(1, 9), D, "f", REG), REFUSAL_EXISTS);
	no(create(N(1, 9), F, "x", REG), REFUSAL_NOT_DIR);
	no(create(N(1, 9), N(1, 8), "x", REG), REFUSAL_ABSENT);
	no(create(F, D, "g", REG), REFUSAL_EXISTS);
	no(create(NODE_ROOT, D, "g", DIR_MODE), REFUSAL_EXISTS);
	no(create(N(2, 9), D, "g", REG), REFUSAL_INVALID); /* another device's number */
	yes(create(N(1, 9), D, "l", S_IFLNK | 0777));
	yes(create(N(1, 10), D, "p", S_IFIFO | 0600));
	ck_assert_int_eq(kit_sql(&k, "SELECT links FROM node_version WHERE node = 1099511627778"
				     " AND seq_to = 9223372036854775807"),
		3);
}
END_TEST

START_TEST(create_knows_its_content)
{
	struct batch *b = batch_new(0);
	struct change c = create(N(1, 2), NODE_ROOT, "a", REG);

	c.attr.size = 5;
	digest_of("?", 1, &c.attr.content);
	no(c, REFUSAL_CHUNK);
	batch_file(b, &c.attr, "hello", 5);
	c.attr.size = 6;
	batch_add(b, &c);
	ck_assert_int_eq(batch_post(&k, 1, b).reason, REFUSAL_INVALID);
	/* The empty content needs no upload, by its id or without one. */
	{
		_cleanup_manifest_ struct manifest *m = manifest_empty();

		c.attr.size = 0;
		c.attr.content = *manifest_content_id(m);
	}
	yes(c);
	yes(create(N(1, 3), NODE_ROOT, "b", REG));
}
END_TEST

START_TEST(a_dead_node_can_come_back)
{
	small_tree();
	yes(unlink_of(F, D, "f"));
	no(unlink_of(F, D, "f"), REFUSAL_ABSENT);
	yes_at(2, head, create(F, NODE_ROOT, "again", REG));
	no_at(2, head, create(F, NODE_ROOT, "more", REG), REFUSAL_EXISTS);
	ck_assert_int_eq(
		kit_sql(&k, "SELECT count(*) FROM node_version WHERE node = 1099511627779"), 2);
}
END_TEST

START_TEST(write_needs_the_content_it_saw)
{
	uint64_t base;

	small_tree();
	base = head;
	ck_assert_uint_gt(write_at(2, base, F, "theirs").seq, 0);
	ck_assert_int_eq(write_at(1, base, F, "ours").reason, REFUSAL_STALE);
	/* Its own writes behind its cursor are no news to a device. */
	ck_assert_uint_gt(write_at(2, base, F, "theirs again").seq, 0);
	ck_assert_uint_gt(write_at(1, head, F, "ours").seq, 0);
	ck_assert_int_eq(write_at(1, head, D, "x").reason, REFUSAL_INVALID);
	ck_assert_int_eq(write_at(1, head, N(1, 77), "x").reason, REFUSAL_ABSENT);
	ck_assert_int_eq(kit_sql(&k, "SELECT size FROM node_version WHERE node = 1099511627779"
				     " AND seq_to = 9223372036854775807"),
		4);
}
END_TEST

START_TEST(write_can_take_mode_bits_away)
{
	struct batch *b;
	struct change c;
	uint64_t base;

	small_tree();
	yes(setattr_mode(F, 06755));
	base = head;
	b = batch_new(head);
	c = write_of(b, F, "x");
	c.attr.mode = S_IFREG | 0755;
	batch_add(b, &c);
	ck_assert_uint_eq(batch_send(&k, 1, b).seq, head + 1);
	head++;
	ck_assert_int_eq(kit_sql(&k, "SELECT mode FROM node_version WHERE node = 1099511627779"
				     " AND seq_to = 9223372036854775807"),
		S_IFREG | 0755);
	no_at(2, base, setattr_mode(F, 0600), REFUSAL_STALE);
	batch_free(b);
}
END_TEST

static void post_two(struct batch *b, const struct change *c, const struct change *d,
	enum refusal reason, uint32_t index)
{
	struct answer a;

	batch_add(b, c);
	if (d)
		batch_add(b, d);
	a = batch_post(&k, 1, b);
	ck_assert_str_eq(refusal_text(a.reason), refusal_text(reason));
	ck_assert_uint_eq(a.index, index);
	if (a.seq)
		head = a.seq;
}

START_TEST(a_manifest_needs_all_of_its_chunks)
{
	struct manifest_builder *builder;
	_cleanup_manifest_ struct manifest *m = NULL;
	struct change c = create(F, NODE_ROOT, "f", REG);
	struct batch *b = batch_new(0);
	struct digest id[2];

	digest_of("one", 3, &id[0]);
	digest_of("two", 3, &id[1]);
	ck_assert_int_eq(manifest_builder_new(&builder), 0);
	ck_assert_int_eq(manifest_add_chunk(builder, &id[0], 3), 0);
	ck_assert_int_eq(manifest_add_hole(builder, 65536), 0);
	ck_assert_int_eq(manifest_add_chunk(builder, &id[1], 3), 0);
	ck_assert_int_eq(manifest_builder_finish(builder, &m), 0);
	c.attr.content = *manifest_content_id(m);
	c.attr.size = manifest_size(m);
	batch_content(b, m);
	batch_chunk(b, "one", 3);
	post_two(b, &c, NULL, REFUSAL_CHUNK, 0);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM content"), 0);
	b = batch_new(0);
	batch_content(b, m);
	batch_chunk(b, "one", 3);
	batch_chunk(b, "two", 3);
	post_two(b, &c, NULL, REFUSAL_NONE, 0);
	/* Known now: neither manifest nor chunks need to come again. */
	c = create(N(1, 4), NODE_ROOT, "g", REG);
	c.attr.content = *manifest_content_id(m);
	c.attr.size = manifest_size(m);
	yes(c);
}
END_TEST

START_TEST(a_chunk_has_one_length)
{
	struct manifest_builder *builder;
	_cleanup_manifest_ struct manifest *m = NULL;
	struct change c = create(F, NODE_ROOT, "f", REG);
	struct batch *b = batch_new(0);
	struct digest id;

	digest_of("one", 3, &id);
	ck_assert_int_eq(manifest_builder_new(&builder), 0);
	ck_assert_int_eq(manifest_add_chunk(builder, &id, 4), 0);
	ck_assert_int_eq(manifest_builder_finish(builder, &m), 0);
	c.attr.content = *manifest_content_id(m);
	c.attr.size = 4;
	batch_content(b, m);
	batch_chunk(b, "one", 3);
	post_two(b, &c, NULL, REFUSAL_INVALID, 0);
}
END_TEST

/* A manifest of `n` chunks "0", "1", ...; the one at `differs` is named with `length`. */
static struct manifest *long_manifest(struct batch *b, int n, int differs, uint64_t length)
{
	struct manifest_builder *builder;
	struct manifest *m;
	char bytes[16];

	ck_assert_int_eq(manifest_builder_new(&builder), 0);
	for (int i = 0; i < n; i++) {
		struct digest id;
		int len = snprintf(bytes, sizeof bytes, "%08d", i);

		digest_of(bytes, (size_t)len, &id);
		if (b)
			batch_chunk(b, bytes, (size_t)len);
		ck_assert_int_eq(
			manifest_add_chunk(builder, &id, i == differs ? length : (uint64_t)len), 0);
	}
	ck_assert_int_eq(manifest_builder_finish(builder, &m), 0);
	return m;
}

START_TEST(a_long_manifest_is_checked_against_the_one_before)
{
	_cleanup_manifest_ struct manifest *m = NULL, *more = NULL, *wrong = NULL;
	struct change c = create(F, NODE_ROOT, "f", REG), w = { .kind = CHANGE_WRITE, .node = F };
	struct batch *b = batch_new(0);

	m = long_manifest(b, 40, -1, 0);
	more = long_manifest(NULL, 41, -1, 0);
	wrong = long_manifest(NULL, 39, 7, 9);
	c.attr.content = *manifest_content_id(m);
	c.attr.size = manifest_size(m);
	batch_content(b, m);
	post_two(b, &c, NULL, REFUSAL_NONE, 0);
	w.attr.content = *manifest_content_id(more);
	w.attr.size = manifest_size(more);
	b = batch_new(head);
	batch_content(b, more);
	post_two(b, &w, NULL, REFUSAL_CHUNK, 0);
	b = batch_new(head);
	batch_content(b, more);
	batch_chunk(b, "00000040", 8);
	post_two(b, &w, NULL, REFUSAL_NONE, 0);
	w.attr.content = *manifest_content_id(wrong);
	w.attr.size = manifest_size(wrong);
	b = batch_new(head);
	batch_content(b, wrong);
	post_two(b, &w, NULL, REFUSAL_INVALID, 0);
}
END_TEST

START_TEST(attributes_need_what_the_device_saw)
{
	uint64_t base;

	small_tree();
	base = head;
	yes_at(2, base, setattr_mode(F, 0600));
	no_at(1, base, setattr_mode(F, 0640), REFUSAL_STALE);
	no_at(1, base, setxattr_of(F, "user.a", "1"), REFUSAL_STALE);
	yes_at(2, base, setxattr_of(F, "user.a", "1"));
	yes_at(1, head, setxattr_of(F, "user.b", "2"));
	yes_at(1, head, setxattr_of(F, "user.a", "3"));
	no(setattr_mode(N(1, 50), 0600), REFUSAL_ABSENT);
	ck_assert_int_eq(kit_sql(&k, "SELECT mode FROM node_version WHERE node = 1099511627779"
				     " AND seq_to = 9223372036854775807"),
		S_IFREG | 0600);
	/* The content was not touched by any of it. */
	ck_assert_uint_gt(write_at(1, base, F, "x").seq, 0);
}
END_TEST

START_TEST(names_in_a_directory_do_not_conflict_with_its_attributes)
{
	uint64_t base;

	small_tree();
	base = head;
	yes_at(2, head, create(N(2, 5), D, "theirs", REG));
	yes_at(1, base, setattr_mode(D, 0700));
	yes_at(1, base, create(N(1, 5), D, "ours", REG));
	ck_assert_int_eq(kit_sql(&k, "SELECT mode FROM node_version WHERE node = 1099511627778"
				     " AND seq_to = 9223372036854775807"),
		S_IFDIR | 0700);
}
END_TEST

START_TEST(xattrs_are_bounded)
{
	_cleanup_free_ char *value = malloc(XATTR_VALUE_BYTES_MAX + 1);
	struct change c;

	small_tree();
	memset(value, 'v', XATTR_VALUE_BYTES_MAX);
	value[XATTR_VALUE_BYTES_MAX] = '\0';
	yes(setxattr_of(F, "user.a", value));
	no(setxattr_of(F, "user.b", value), REFUSAL_INVALID);
	c = setxattr_of(F, "user.a", "");
	c.kind = CHANGE_REMOVEXATTR;
	yes(c);
	yes(setxattr_of(F, "user.b", value));
}
END_TEST

START_TEST(hard_links)
{
	small_tree();
	yes(link_to(F, NODE_ROOT, "g"));
	no(link_to(F, NODE_ROOT, "g"), REFUSAL_EXISTS);
	no(link_to(D, NODE_ROOT, "h"), REFUSAL_INVALID);
	no(link_to(N(1, 50), NODE_ROOT, "h"), REFUSAL_ABSENT);
	no(link_to(F, F, "h"), REFUSAL_NOT_DIR);
	yes(unlink_of(F, D, "f"));
	ck_assert_int_eq(kit_sql(&k, "SELECT links FROM node_version WHERE node = 1099511627779"
				     " AND seq_to = 9223372036854775807"),
		1);
	yes(unlink_of(F, NODE_ROOT, "g"));
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM node_version WHERE node ="
				     " 1099511627779 AND seq_to = 9223372036854775807"),
		0);
}
END_TEST

START_TEST(unlink_needs_the_name_as_it_was_seen)
{
	uint64_t base;

	small_tree();
	no(unlink_of(D, NODE_ROOT, "d"), REFUSAL_NOT_EMPTY);
	no(unlink_of(F, NODE_ROOT, "f"), REFUSAL_ABSENT);
	no(unlink_of(N(1, 9), D, "f"), REFUSAL_STALE);
	base = head;
	yes_at(2, head, rename_to(F, D, "f", D, "g", 0));
	no_at(1, base, unlink_of(F, D, "f"), REFUSAL_ABSENT);
	no_at(1, base, unlink_of(F, D, "g"), REFUSAL_STALE);
	yes_at(1, head, unlink_of(F, D, "g"));
	yes_at(1, head, unlink_of(D, NODE_ROOT, "d"));
	no_at(1, head, create(N(1, 9), D, "x", REG), REFUSAL_ABSENT);
}
END_TEST

START_TEST(a_write_wins_against_the_deletion_of_the_last_name)
{
	uint64_t base;

	small_tree();
	yes(link_to(F, D, "g"));
	base = head;
	ck_assert_uint_gt(write_at(2, head, F, "new").seq, 0);
	yes_at(1, base, unlink_of(F, D, "f")); /* not the last */
	no_at(1, base, unlink_of(F, D, "g"), REFUSAL_STALE);
	yes_at(2, head, setattr_mode(F, 0600));
	no_at(1, head - 1, unlink_of(F, D, "g"), REFUSAL_STALE);
	yes_at(1, head, unlink_of(F, D, "g"));
}
END_TEST

START_TEST(rename_moves_one_name)
{
	small_tree();
	no(rename_to(F, D, "nothing", D, "g", 0), REFUSAL_ABSENT);
	no(rename_to(D, D, "f", D, "g", 0), REFUSAL_STALE);
	no(rename_to(F, D, "f", D, "f", 0), REFUSAL_INVALID);
	no(rename_to(F, D, "f", N(1, 9), "g", 0), REFUSAL_ABSENT);
	no(rename_to(F, D, "f", F, "g", 0), REFUSAL_NOT_DIR);
	no(rename_to(F, D, "f", NODE_ROOT, "d", 0), REFUSAL_EXISTS);
	no(rename_to(F, D, "f", NODE_ROOT, "g", N(1, 9)), REFUSAL_STALE);
	yes(rename_to(F, D, "f", NODE_ROOT, "g", 0));
	ck_assert_int_eq(kit_sql(&k, "SELECT links FROM node_version WHERE node = 1099511627778"
				     " AND seq_to = 9223372036854775807"),
		0);
	ck_assert_int_eq(kit_sql(&k, "SELECT links FROM node_version WHERE node = 1"
				     " AND seq_to = 9223372036854775807"),
		2);
	yes(unlink_of(D, NODE_ROOT, "d"));
}
END_TEST

START_TEST(rename_replaces_its_victim)
{
	uint64_t base;

	small_tree();
	yes(create(N(1, 4), D, "g", REG));
	yes(create(N(1, 5), NODE_ROOT, "e", DIR_MODE));
	no(rename_to(F, D, "f", D, "g", N(1, 5)), REFUSAL_STALE);
	no(rename_to(F, D, "f", NODE_ROOT, "e", N(1, 5)), REFUSAL_INVALID);
	no(rename_to(N(1, 5), NODE_ROOT, "e", D, "f", F), REFUSAL_NOT_DIR);
	no(rename_to(N(1, 5), NODE_ROOT, "e", NODE_ROOT, "d", D), REFUSAL_NOT_EMPTY);
	base = head;
	ck_assert_uint_gt(write_at(2, head, N(1, 4), "news").seq, 0);
	no_at(1, base, rename_to(F, D, "f", D, "g", N(1, 4)), REFUSAL_STALE);
	yes_at(1, head, rename_to(F, D, "f", D, "g", N(1, 4)));
	no(setattr_mode(N(1, 4), 0600), REFUSAL_ABSENT);
	yes(unlink_of(F, D, "g"));
	yes(rename_to(N(1, 5), NODE_ROOT, "e", NODE_ROOT, "d", D));
	no(setattr_mode(D, 0700), REFUSAL_ABSENT);
	ck_assert_int_eq(kit_sql(&k, "SELECT links FROM node_version WHERE node = 1"
				     " AND seq_to = 9223372036854775807"),
		1);
}
END_TEST

START_TEST(two_names_of_one_node_do_not_replace_each_other)
{
	small_tree();
	yes(link_to(F, D, "g"));
	no(rename_to(F, D, "f", D, "g", F), REFUSAL_INVALID);
}
END_TEST

START_TEST(directories_cannot_loop)
{
	struct change c;

	yes(create(N(1, 2), NODE_ROOT, "a", DIR_MODE));
	yes(create(N(1, 3), N(1, 2), "b", DIR_MODE));
	yes(create(N(1, 4), N(1, 3), "c", DIR_MODE));
	yes(create(N(1, 5), NODE_ROOT, "f", REG));
	no(rename_to(N(1, 2), NODE_ROOT, "a", N(1, 4), "x", 0), REFUSAL_LOOP);
	no(rename_to(N(1, 2), NODE_ROOT, "a", N(1, 2), "x", 0), REFUSAL_LOOP);
	c = rename_to(N(1, 5), NODE_ROOT, "f", N(1, 3), "c", N(1, 4));
	c.flags = CHANGE_FLAG_EXCHANGE;
	yes(c); /* file in, directory out */
	c = rename_to(N(1, 5), N(1, 3), "c", NODE_ROOT, "a", N(1, 2));
	c.flags = CHANGE_FLAG_EXCHANGE;
	no(c, REFUSAL_LOOP); /* a would move below itself */
	yes(rename_to(N(1, 2), NODE_ROOT, "a", N(1, 4), "x", 0));
	no(rename_to(N(1, 4), NODE_ROOT, "f", N(1, 3), "y", 0), REFUSAL_LOOP);
}
END_TEST

START_TEST(exchange_swaps_two_names)
{
	struct change c = rename_to(F, D, "f", NODE_ROOT, "e", N(1, 4));

	small_tree();
	c.flags = CHANGE_FLAG_EXCHANGE;
	no(c, REFUSAL_STALE); /* the other is not there */
	yes(create(N(1, 4), NODE_ROOT, "e", DIR_MODE));
	yes(c);
	yes(create(N(1, 5), N(1, 4), "inside", REG));
	no(unlink_of(N(1, 4), D, "f"), REFUSAL_NOT_EMPTY);
	yes(unlink_of(F, NODE_ROOT, "e"));
}
END_TEST

START_TEST(changes_of_one_commit_build_upon_one_another)
{
	struct batch *b = batch_new(0);
	struct change c[] = {
		create(N(1, 2), NODE_ROOT, "d", DIR_MODE),
		create(N(1, 3), N(1, 2), "f", REG),
		create(N(1, 4), N(1, 2), "gone", REG),
		setattr_mode(N(1, 3), 0600),
		unlink_of(N(1, 4), N(1, 2), "gone"),
		rename_to(N(1, 3), N(1, 2), "f", NODE_ROOT, "g", 0),
		setxattr_of(N(1, 3), "user.x", "y"),
		create(N(1, 5), N(1, 2), "f", REG),
	};

	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		batch_add(b, &c[i]);
	ck_assert_uint_eq(batch_post(&k, 1, b).seq, 1);
	/* One row each; what came and went in it left none. */
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM node_version WHERE seq_from = 1"), 4);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM link_version WHERE seq_from = 1"), 3);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM node_version WHERE node = 1"), 2);
	ck_assert_int_eq(kit_sql(&k, "SELECT mode FROM node_version WHERE node = 1099511627779"),
		S_IFREG | 0600);
	ck_assert_int_eq(kit_sql(&k, "SELECT mtime FROM node_version WHERE node = 1"
				     " AND seq_from = 1"),
		T0 + 1);
	ck_assert_int_eq(kit_sql(&k, "SELECT attr_seq FROM node_version WHERE node = 1"
				     " AND seq_from = 1"),
		0);
	head = 1;
	/* The same within a later commit: one new version. */
	b = batch_new(1);
	batch_add(b, &c[3]);
	batch_add(b, &c[6]);
	ck_assert_uint_eq(batch_post(&k, 1, b).seq, 2);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM node_version"
				     " WHERE node = 1099511627779"),
		2);
	ck_assert_int_eq(kit_sql(&k, "SELECT seq_to FROM node_version"
				     " WHERE node = 1099511627779 AND seq_from = 1"),
		2);
}
END_TEST

START_TEST(a_refused_change_refuses_all)
{
	struct batch *b = batch_new(0);
	struct change c[] = {
		create(N(1, 2), NODE_ROOT, "d", DIR_MODE),
		create(N(1, 3), N(1, 99), "f", REG), /* 1: absent */
		create(N(1, 4), NODE_ROOT, "d", REG), /* 2: exists */
		setattr_mode(N(1, 3), 0600), /* depends upon 1: not told */
		unlink_of(N(1, 2), NODE_ROOT, "other"), /* 4: absent */
	};
	_cleanup_arena_ struct arena *arena = NULL;
	struct committer who = { 1, 1 };
	struct commit_reply reply;
	struct commit commit;

	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		batch_add(b, &c[i]);
	commit = batch_commit(b);
	ck_assert_int_eq(vault_commit(k.vault, k.drive, &who, &commit, &reply, &arena, NULL), 0);
	ck_assert_uint_eq(reply.seq, 0);
	ck_assert_uint_eq(reply.n_refused, 3);
	ck_assert_uint_eq(reply.refused[0].index, 1);
	ck_assert_int_eq(reply.refused[0].reason, REFUSAL_ABSENT);
	ck_assert_uint_eq(reply.refused[1].index, 2);
	ck_assert_int_eq(reply.refused[1].reason, REFUSAL_EXISTS);
	ck_assert_uint_eq(reply.refused[2].index, 4);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM link_version"), 0);
	ck_assert_int_eq(kit_sql(&k, "SELECT head_seq FROM drive"), 0);
	batch_free(b);
}
END_TEST

START_TEST(a_group_keeps_the_good_ones)
{
	struct commit_task task[3] = { { 0 } };
	struct commit_task *tasks[3];
	struct batch *b[3];
	struct commit commits[3];

	for (unsigned i = 0; i < 3; i++) {
		struct change c = create(N(i + 1, 2), NODE_ROOT, i == 2 ? "new" : "same", REG);

		b[i] = batch_new(0);
		batch_add(b[i], &c);
		commits[i] = batch_commit(b[i]);
		task[i].drive = k.drive;
		task[i].who = (struct committer){ i + 1, i + 1 };
		task[i].commit = &commits[i];
		tasks[i] = &task[i];
	}
	vault_commit_group(k.vault, tasks, 3);
	ck_assert_uint_eq(task[0].reply.seq, 1);
	ck_assert_uint_eq(task[1].reply.seq, 0);
	ck_assert_int_eq(task[1].reply.refused[0].reason, REFUSAL_EXISTS);
	ck_assert_uint_eq(task[2].reply.seq, 2);
	ck_assert_int_eq(kit_sql(&k, "SELECT head_seq FROM drive"), 2);
	/* A drive that is not there fails alone. */
	task[1].drive = 99;
	task[0].commit = &commits[1];
	arena_free(task[1].arena);
	vault_commit_group(k.vault, tasks, 2);
	ck_assert_int_eq(task[1].result, -ENOENT);
	ck_assert_uint_eq(task[0].reply.seq, 0);
	arena_free(task[0].arena);
	for (unsigned i = 0; i < 3; i++)
		batch_free(b[i]);
}
END_TEST

START_TEST(drives_do_not_share)
{
	int64_t first = k.drive;
	struct batch *b = batch_new(0);
	struct change c = create(N(1, 2), NODE_ROOT, "a", REG);
	struct err err;
	int64_t id;

	batch_file(b, &c.attr, "secret", 6);
	batch_add(b, &c);
	ck_assert_uint_eq(batch_post(&k, 1, b).seq, 1);
	k.drive = kit_new_drive(&k, "other");
	/* The content is the first drive's. */
	ck_assert_int_eq(send_one(&k, 1, 0, &c).reason, REFUSAL_CHUNK);
	k.drive = first;
	ck_assert_int_eq(vault_create_drive(k.vault, k.account, "other", "p", &id, &err), -EEXIST);
	ck_assert_int_eq(vault_create_drive(k.vault, 999, "third", "q", &id, &err), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("commit");
	TCase *t = tcase_create("rules");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, seqs_have_no_gaps_and_retries_get_the_first_answer);
	tcase_add_test(t, a_commit_must_make_sense);
	tcase_add_test(t, damaged_or_large_inline_chunks_are_refused);
	tcase_add_test(t, create_needs_a_free_name_in_a_directory);
	tcase_add_test(t, create_knows_its_content);
	tcase_add_test(t, a_dead_node_can_come_back);
	tcase_add_test(t, write_needs_the_content_it_saw);
	tcase_add_test(t, write_can_take_mode_bits_away);
	tcase_add_test(t, a_manifest_needs_all_of_its_chunks);
	tcase_add_test(t, a_chunk_has_one_length);
	tcase_add_test(t, a_long_manifest_is_checked_against_the_one_before);
	tcase_add_test(t, attributes_need_what_the_device_saw);
	tcase_add_test(t, names_in_a_directory_do_not_conflict_with_its_attributes);
	tcase_add_test(t, xattrs_are_bounded);
	tcase_add_test(t, hard_links);
	tcase_add_test(t, unlink_needs_the_name_as_it_was_seen);
	tcase_add_test(t, a_write_wins_against_the_deletion_of_the_last_name);
	tcase_add_test(t, rename_moves_one_name);
	tcase_add_test(t, rename_replaces_its_victim);
	tcase_add_test(t, two_names_of_one_node_do_not_replace_each_other);
	tcase_add_test(t, directories_cannot_loop);
	tcase_add_test(t, exchange_swaps_two_names);
	tcase_add_test(t, changes_of_one_commit_build_upon_one_another);
	tcase_add_test(t, a_refused_change_refuses_all);
	tcase_add_test(t, a_group_keeps_the_good_ones);
	tcase_add_test(t, drives_do_not_share);
	suite_add_tcase(s, t);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
