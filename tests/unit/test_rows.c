// SPDX-License-Identifier: Apache-2.0
/* Rows: what is written is read, and what is damaged is refused. */
#include "meta/rows.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

static struct slice text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

static struct node_rec sample(void)
{
	return (struct node_rec){
		.entry = 77,
		.tag = NODE_HAS_XATTRS,
		.attr = {
			.mode = S_IFLNK | 0777,
			.uid = 1,
			.gid = 2,
			.rdev = 3,
			.atime_ns = -4,
			.mtime_ns = 5,
			.ctime_ns = 6,
			.btime_ns = 7,
			.size = 6,
		},
		.links = 2,
		.subdirs = 9,
		.parent = 11,
		.name = text("name"),
		.payload = text("target"),
	};
}

START_TEST(nodes_round_trip)
{
	struct node_rec rec = sample(), back;
	uint8_t row[NODE_ROW_MAX];
	size_t n = node_encode(&rec, row);

	ck_assert_int_eq(node_decode((struct slice){ row, n }, &back), 0);
	ck_assert_uint_eq(back.entry, 77);
	ck_assert_uint_eq(back.tag, NODE_HAS_XATTRS);
	ck_assert_mem_eq(&back.attr, &rec.attr, sizeof rec.attr);
	ck_assert_uint_eq(back.links, 2);
	ck_assert_uint_eq(back.subdirs, 9);
	ck_assert_uint_eq(back.parent, 11);
	ck_assert(slice_eq(back.name, rec.name));
	ck_assert(slice_eq(back.payload, rec.payload));
}
END_TEST

/* They lie where other types have their device number; more than the size is not believed. */
START_TEST(holes_of_regular_files)
{
	struct node_rec rec = sample(), back;
	uint8_t row[NODE_ROW_MAX];

	rec.attr.mode = S_IFREG | 0644;
	rec.attr.rdev = 0;
	rec.attr.size = 1000;
	rec.payload = (struct slice){ 0 };
	rec.holes = 600;
	ck_assert_int_eq(node_decode((struct slice){ row, node_encode(&rec, row) }, &back), 0);
	ck_assert_uint_eq(back.holes, 600);
	ck_assert_uint_eq(back.attr.rdev, 0);
	rec.holes = 1001;
	ck_assert_int_eq(node_decode((struct slice){ row, node_encode(&rec, row) }, &back), 0);
	ck_assert_uint_eq(back.holes, 1000);
	rec.attr.mode = S_IFCHR | 0644;
	rec.attr.rdev = 0x123;
	ck_assert_int_eq(node_decode((struct slice){ row, node_encode(&rec, row) }, &back), 0);
	ck_assert_uint_eq(back.holes, 0);
	ck_assert_uint_eq(back.attr.rdev, 0x123);
}
END_TEST

START_TEST(damaged_nodes_are_refused)
{
	struct node_rec rec = sample(), back;
	uint8_t row[NODE_ROW_MAX + 1];
	size_t n = node_encode(&rec, row);

	for (size_t cut = 0; cut < n; cut++)
		ck_assert_int_eq(node_decode((struct slice){ row, cut }, &back), -EBADMSG);
	row[n] = 0;
	ck_assert_int_eq(node_decode((struct slice){ row, n + 1 }, &back), -EBADMSG);
	row[0]++;
	ck_assert_int_eq(node_decode((struct slice){ row, n }, &back), -EBADMSG);
	row[0]--;
	row[1] |= 0x80;
	ck_assert_int_eq(node_decode((struct slice){ row, n }, &back), -EBADMSG);
	row[1] &= 0x7f;
	row[118]++; /* the name's length */
	ck_assert_int_eq(node_decode((struct slice){ row, n }, &back), -EBADMSG);
	row[118]--;
	row[NODE_FIXED] = '/';
	ck_assert_int_eq(node_decode((struct slice){ row, n }, &back), -EBADMSG);
	row[NODE_FIXED] = 'n';
	ck_assert_int_eq(node_decode((struct slice){ row, n }, &back), 0);
	/* A payload that the type does not have; a size that is not its target's; no type. */
	rec.attr.mode = S_IFREG | 0644;
	ck_assert_int_eq(
		node_decode((struct slice){ row, node_encode(&rec, row) }, &back), -EBADMSG);
	rec.tag |= NODE_INLINE_MANIFEST;
	ck_assert_int_eq(node_decode((struct slice){ row, node_encode(&rec, row) }, &back), 0);
	rec = sample();
	rec.attr.size = 7;
	ck_assert_int_eq(
		node_decode((struct slice){ row, node_encode(&rec, row) }, &back), -EBADMSG);
	rec = sample();
	rec.attr.mode = 0644;
	ck_assert_int_eq(
		node_decode((struct slice){ row, node_encode(&rec, row) }, &back), -EBADMSG);
}
END_TEST

START_TEST(links)
{
	struct link_rec rec = { 5, 6, S_IFSOCK }, back;
	uint8_t row[LINK_ROW_BYTES];

	link_encode(&rec, row);
	ck_assert_int_eq(link_decode((struct slice){ row, sizeof row }, &back), 0);
	ck_assert_uint_eq(back.entry, 5);
	ck_assert_uint_eq(back.node, 6);
	ck_assert_uint_eq(back.type, S_IFSOCK);
	ck_assert_int_eq(link_decode((struct slice){ row, sizeof row - 1 }, &back), -EBADMSG);
	row[1] = 0x1c;
	ck_assert_int_eq(link_decode((struct slice){ row, sizeof row }, &back), -EBADMSG);
	rec.node = 0;
	link_encode(&rec, row);
	ck_assert_int_eq(link_decode((struct slice){ row, sizeof row }, &back), -EBADMSG);
}
END_TEST

START_TEST(bases_outbox_and_conflicts)
{
	struct base_rec base = { 3, true, text("row") }, base_back;
	struct outbox_rec entry = { OUTBOX_MANIFEST, text("manifest"), text("change") }, entry_back;
	struct conflict_rec con = { 2, -9, 4, text("now"), text("then") }, con_back;
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(base_encode(&base, &b), 0);
	ck_assert_int_eq(base_decode((struct slice){ b.data, b.len }, &base_back), 0);
	ck_assert(base_back.present && slice_eq(base_back.row, base.row));
	ck_assert_int_eq(base_decode((struct slice){ b.data, ROW_HEAD }, &base_back), -EBADMSG);
	b.data[1] = 0;
	ck_assert_int_eq(base_decode((struct slice){ b.data, b.len }, &base_back), -EBADMSG);
	ck_assert_int_eq(outbox_encode(&entry, &b), 0);
	ck_assert_int_eq(outbox_decode((struct slice){ b.data, b.len }, &entry_back), 0);
	ck_assert(slice_eq(entry_back.manifest, entry.manifest));
	ck_assert(slice_eq(entry_back.change, entry.change));
	ck_assert_int_eq(
		outbox_decode((struct slice){ b.data, ROW_HEAD + 2 }, &entry_back), -EBADMSG);
	b.data[1] = 0; /* bytes that no tag explains */
	ck_assert_int_eq(outbox_decode((struct slice){ b.data, b.len }, &entry_back), -EBADMSG);
	b.data[1] = OUTBOX_CONTENT; /* no content id is 8 bytes long */
	ck_assert_int_eq(outbox_decode((struct slice){ b.data, b.len }, &entry_back), -EBADMSG);
	b.data[1] = 8;
	ck_assert_int_eq(outbox_decode((struct slice){ b.data, b.len }, &entry_back), -EBADMSG);
	ck_assert_int_eq(conflict_encode(&con, &b), 0);
	ck_assert_int_eq(conflict_decode((struct slice){ b.data, b.len }, &con_back), 0);
	ck_assert_int_eq(con_back.time_ns, -9);
	ck_assert(slice_eq(con_back.original, con.original));
	ck_assert_int_eq(conflict_decode((struct slice){ b.data, 28 }, &con_back), -EBADMSG);
}
END_TEST

START_TEST(keys)
{
	struct row_key k = key_link(7, text("x")), bk = key_base(CF_LINK, k.b, k.n), n;
	struct slice key, name;
	enum store_cf cf;
	uint64_t id;

	ck_assert_int_eq(key_of_base((struct slice){ bk.b, bk.n }, &cf, &key), 0);
	ck_assert_int_eq(cf, CF_LINK);
	ck_assert_int_eq(key_link_parse(key, &id, &name), 0);
	ck_assert_uint_eq(id, 7);
	ck_assert(slice_eq(name, text("x")));
	ck_assert_int_eq(key_link_parse((struct slice){ k.b, 15 }, &id, &name), -EBADMSG);
	k = key_link_at(7, key_link_place(key));
	ck_assert_mem_eq(k.b, key.p, k.n);
	n = key_name(7, 8, text("y"));
	ck_assert_int_eq(key_name_parse((struct slice){ n.b, n.n }, &id, &name), 0);
	ck_assert_uint_eq(id, 8);
	ck_assert_int_eq(key_name_parse((struct slice){ n.b, 16 }, &id, &name), -EBADMSG);
	bk.b[0] = 'z';
	ck_assert_int_eq(key_of_base((struct slice){ bk.b, bk.n }, &cf, &key), -EBADMSG);
	bk.b[0] = 'n'; /* a node's key is 8 bytes */
	ck_assert_int_eq(key_of_base((struct slice){ bk.b, bk.n }, &cf, &key), -EBADMSG);
}
END_TEST

/* Any byte of any row may be anything: answered, never a crash. */
START_TEST(noise_is_answered)
{
	uint8_t row[NODE_ROW_MAX] = { 0 };
	struct node_rec node = sample();
	size_t n = node_encode(&node, row);

	srandom(1);
	for (int i = 0; i < 100000; i++) {
		uint8_t copy[NODE_ROW_MAX];
		struct slice s = { copy, (size_t)random() % (n + 1) };
		struct conflict_rec con;
		struct outbox_rec out;
		struct link_rec link;
		struct base_rec base;

		memcpy(copy, row, sizeof copy);
		copy[(size_t)random() % n] = (uint8_t)random();
		copy[(size_t)random() % 16] = (uint8_t)random();
		if (i % 3)
			s.n = n;
		if (node_decode(s, &node) == 0)
			ck_assert_uint_le(node.name.n + node.payload.n, n);
		if (outbox_decode(s, &out) == 0)
			ck_assert_uint_le(out.change.n, n);
		(void)!base_decode(s, &base);
		(void)!link_decode(s, &link);
		(void)!conflict_decode(s, &con);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rows");
	TCase *tc = tcase_create("rows");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, nodes_round_trip);
	tcase_add_test(tc, holes_of_regular_files);
	tcase_add_test(tc, damaged_nodes_are_refused);
	tcase_add_test(tc, links);
	tcase_add_test(tc, bases_outbox_and_conflicts);
	tcase_add_test(tc, keys);
	tcase_add_test(tc, noise_is_answered);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
