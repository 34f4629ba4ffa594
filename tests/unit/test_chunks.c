// SPDX-License-Identifier: Apache-2.0
#include "server_kit.h"

#include "chunk/chunker.h"
#include "chunk/pack.h"
#include "io.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static struct kit k;

static void setup(void)
{
	kit_open(&k, true);
}

static void teardown(void)
{
	kit_close(&k);
}

/* Bytes that do not shrink, the same for the same seed. */
static void noise(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		p[i] = (uint8_t)(seed >> 56);
	}
}

#define CHUNK_BYTES 70000

static struct digest add_chunk(struct buf *pack, uint64_t seed)
{
	uint8_t *bytes = malloc(CHUNK_BYTES);
	struct digest id;

	noise(bytes, CHUNK_BYTES, seed);
	digest_of(bytes, CHUNK_BYTES, &id);
	if (pack->len == 0)
		ck_assert_int_eq(pack_begin(pack), 0);
	ck_assert_int_eq(pack_add(pack, &id, bytes, CHUNK_BYTES), 0);
	free(bytes);
	return id;
}

static int put(const struct buf *pack, struct err *err)
{
	return vault_put_pack(k.vault, k.drive, pack->data, pack->len, err);
}

static size_t count_missing(const struct digest *ids, size_t n)
{
	_cleanup_buf_ struct buf b = { 0 };
	_cleanup_arena_ struct arena *arena = NULL;
	struct id_list asked = { ids, n }, got;
	struct err err;

	ck_assert_int_eq(vault_missing(k.vault, k.drive, &asked, &b, &err), 0);
	ck_assert_int_eq(id_list_decode(b.data, b.len, MISSING_IDS_MAX, &got, &arena, &err), 0);
	return got.n;
}

/* How many chunks the answer has, each verified; or -errno. */
static int fetch(const struct digest *ids, size_t n)
{
	_cleanup_buf_ struct buf b = { 0 }, plain = { 0 };
	struct id_list asked = { ids, n };
	struct pack_reader reader;
	struct pack_entry e;
	struct err err = { 0 };
	int r = vault_fetch(k.vault, k.drive, &asked, &b, &err), count = 0;

	if (r < 0) {
		ck_assert_uint_eq(b.len, 0);
		ck_assert_str_ne(err.text, "");
		return r;
	}
	ck_assert_int_eq(pack_reader_init(&reader, b.data, b.len, &err), 0);
	while ((r = pack_next(&reader, &e, &err)) > 0) {
		ck_assert_int_eq(
			frame_decode(e.frame_bytes, e.frame.frame_len, &e.id, &plain, &err), 0);
		count++;
	}
	ck_assert_int_eq(r, 0);
	return count;
}

START_TEST(chunks_come_and_go_in_packs)
{
	_cleanup_buf_ struct buf one = { 0 }, two = { 0 };
	struct digest ids[6];
	struct err err;

	for (unsigned i = 0; i < 5; i++)
		ids[i] = add_chunk(i < 3 ? &one : &two, i);
	digest_of("never", 5, &ids[5]);
	ck_assert_uint_eq(count_missing(ids, 6), 6);
	ck_assert_int_eq(put(&one, &err), 0);
	ck_assert_uint_eq(count_missing(ids, 6), 3);
	ck_assert_int_eq(put(&two, &err), 0);
	ck_assert_uint_eq(count_missing(ids, 6), 1);
	ck_assert_int_eq(fetch(ids, 5), 5);
	ck_assert_int_eq(fetch(ids, 0), 0);
	ck_assert_int_eq(fetch(ids, 6), -ENOENT);
	ids[5] = ids[0];
	ck_assert_int_eq(fetch(ids, 6), 5); /* twice asked for, once told */
	ck_assert_int_gt(kit_sql(&k, "SELECT bytes FROM drive"), 5 * CHUNK_BYTES);
}
END_TEST

START_TEST(inline_chunks_are_fetched_too)
{
	struct change c = { .kind = CHANGE_CREATE,
		.node = node_id(1, 2),
		.parent = NODE_ROOT,
		.name = text("a"),
		.attr.mode = S_IFREG | 0644 };
	struct batch *b = batch_new(0);
	_cleanup_buf_ struct buf pack = { 0 };
	struct digest ids[3];
	struct err err;

	batch_file(b, &c.attr, "hello", 5);
	batch_chunk(b, "world", 5);
	batch_add(b, &c);
	ck_assert_uint_eq(batch_post(&k, 1, b).seq, 1);
	digest_of("hello", 5, &ids[0]);
	digest_of("world", 5, &ids[1]);
	ids[2] = add_chunk(&pack, 1);
	ck_assert_int_eq(put(&pack, &err), 0);
	ck_assert_int_eq(fetch(ids, 3), 3);
}
END_TEST

START_TEST(a_pack_that_is_there_is_recorded_once)
{
	_cleanup_buf_ struct buf one = { 0 }, both = { 0 };
	struct err err;

	add_chunk(&one, 1);
	ck_assert_int_eq(put(&one, &err), 0);
	ck_assert_int_eq(put(&one, &err), 0);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM pack"), 1);
	add_chunk(&both, 1);
	add_chunk(&both, 2);
	add_chunk(&both, 2);
	ck_assert_int_eq(put(&both, &err), 0);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM pack"), 2);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM chunk"), 2);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM chunk WHERE pack = 1"), 1);
}
END_TEST

START_TEST(nothing_of_a_bad_pack_is_stored)
{
	_cleanup_buf_ struct buf pack = { 0 };
	struct err err = { 0 };

	add_chunk(&pack, 1);
	add_chunk(&pack, 2);
	pack.data[pack.len - 5] ^= 1;
	ck_assert_int_eq(put(&pack, &err), -EBADMSG);
	ck_assert_str_ne(err.text, "");
	pack.data[pack.len - 5] ^= 1;
	pack.data[9] ^= 1; /* the first one's id */
	ck_assert_int_eq(put(&pack, &err), -EBADMSG);
	pack.data[9] ^= 1;
	pack.len--;
	ck_assert_int_eq(put(&pack, &err), -EBADMSG);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM pack"), 0);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM chunk"), 0);
	ck_assert_int_eq(vault_put_pack(k.vault, k.drive, "x", 1, &err), -EBADMSG);
	ck_assert_int_eq(vault_put_pack(k.vault, 77, pack.data, pack.len + 1, &err), -ENOENT);
}
END_TEST

START_TEST(a_pack_has_a_bound_of_chunks)
{
	_cleanup_buf_ struct buf pack = { 0 };
	struct err err;

	ck_assert_int_eq(pack_begin(&pack), 0);
	for (int i = 0; i <= PACK_CHUNKS_MAX; i++) {
		struct digest id;

		if (i == PACK_CHUNKS_MAX)
			ck_assert_int_eq(put(&pack, &err), 0);
		digest_of(&i, sizeof i, &id);
		ck_assert_int_eq(pack_add(&pack, &id, &i, sizeof i), 0);
	}
	ck_assert_int_eq(put(&pack, &err), -EBADMSG);
}
END_TEST

START_TEST(drives_see_only_their_own)
{
	_cleanup_buf_ struct buf pack = { 0 };
	int64_t first = k.drive;
	struct digest id = add_chunk(&pack, 1);
	struct err err;

	ck_assert_int_eq(put(&pack, &err), 0);
	k.drive = kit_new_drive(&k, "other");
	ck_assert_uint_eq(count_missing(&id, 1), 1);
	ck_assert_int_eq(fetch(&id, 1), -ENOENT);
	ck_assert_int_eq(put(&pack, &err), 0); /* the same object serves both */
	ck_assert_int_eq(fetch(&id, 1), 1);
	k.drive = first;
	ck_assert_int_eq(fetch(&id, 1), 1);
}
END_TEST

static int damage(void *ctx, const char *key, uint64_t size)
{
	char command[256];

	/* The store's layout is not this test's: find the file by its name. */
	snprintf(command, sizeof command,
		"f=$(find %s -name %s) && chmod u+w $f && printf X | dd of=$f bs=1 seek=%llu"
		" conv=notrunc status=none",
		k.dir, key, (unsigned long long)size / 2);
	return *(int *)ctx = system(command);
}

static int cut(void *ctx, const char *key, uint64_t size)
{
	char command[256];

	snprintf(command, sizeof command, "truncate -s %llu $(find %s -name %s)",
		(unsigned long long)size / 2, k.dir, key);
	return *(int *)ctx = system(command);
}

START_TEST(damage_is_never_served)
{
	_cleanup_buf_ struct buf pack = { 0 };
	struct digest id = add_chunk(&pack, 1);
	struct err err;
	int status = -1;

	ck_assert_int_eq(put(&pack, &err), 0);
	ck_assert_int_eq(blob_list(k.blob, "", damage, &status, &err), 0);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(fetch(&id, 1), -EBADMSG);
	status = -1;
	ck_assert_int_eq(blob_list(k.blob, "", cut, &status, &err), 0);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(fetch(&id, 1), -EBADMSG);
}
END_TEST

START_TEST(manifests_are_given_back)
{
	_cleanup_manifest_ struct manifest *m = kit_manifest("hello", 5), *none = manifest_empty();
	struct change c = { .kind = CHANGE_CREATE,
		.node = node_id(1, 2),
		.parent = NODE_ROOT,
		.name = text("a"),
		.attr.mode = S_IFREG | 0644 };
	struct batch *b = batch_new(0);
	_cleanup_buf_ struct buf got = { 0 };
	struct digest id;
	struct err err;
	size_t n;
	const uint8_t *bytes = manifest_bytes(m, &n);

	batch_file(b, &c.attr, "hello", 5);
	batch_add(b, &c);
	ck_assert_uint_eq(batch_post(&k, 1, b).seq, 1);
	ck_assert_int_eq(vault_content(k.vault, k.drive, manifest_content_id(m), &got, &err), 0);
	ck_assert_uint_eq(got.len, n);
	ck_assert_mem_eq(got.data, bytes, n);
	digest_of("?", 1, &id);
	ck_assert_int_eq(vault_content(k.vault, k.drive, &id, &got, &err), -ENOENT);
	ck_assert_int_eq(vault_content(k.vault, k.drive, manifest_content_id(none), &got, &err), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("chunks");
	TCase *t = tcase_create("chunks");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, chunks_come_and_go_in_packs);
	tcase_add_test(t, inline_chunks_are_fetched_too);
	tcase_add_test(t, a_pack_that_is_there_is_recorded_once);
	tcase_add_test(t, nothing_of_a_bad_pack_is_stored);
	tcase_add_test(t, a_pack_has_a_bound_of_chunks);
	tcase_add_test(t, drives_see_only_their_own);
	tcase_add_test(t, damage_is_never_served);
	tcase_add_test(t, manifests_are_given_back);
	suite_add_tcase(s, t);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
