// SPDX-License-Identifier: Apache-2.0
#include "bounds.h"
#include "wire/wire.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define S(text) ((struct slice){ (const uint8_t *)(text), sizeof(text) - 1 })

static bool same(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static struct node_attr file_attr(void)
{
	struct node_attr a = { .mode = S_IFREG | 0644,
		.uid = 1000,
		.gid = UINT32_MAX,
		.rdev = 0,
		.atime_ns = -1,
		.mtime_ns = INT64_MIN,
		.ctime_ns = INT64_MAX,
		.btime_ns = 1700000000123456789,
		.size = FILE_BYTES_MAX };

	memset(a.content.b, 0xab, DIGEST_BYTES);
	return a;
}

static void check_attr(const struct node_attr *a, const struct node_attr *b)
{
	ck_assert_uint_eq(a->mode, b->mode);
	ck_assert_uint_eq(a->uid, b->uid);
	ck_assert_uint_eq(a->gid, b->gid);
	ck_assert_uint_eq(a->rdev, b->rdev);
	ck_assert_int_eq(a->atime_ns, b->atime_ns);
	ck_assert_int_eq(a->mtime_ns, b->mtime_ns);
	ck_assert_int_eq(a->ctime_ns, b->ctime_ns);
	ck_assert_int_eq(a->btime_ns, b->btime_ns);
	ck_assert_uint_eq(a->size, b->size);
	ck_assert(digest_eq(&a->content, &b->content));
}

static void check_xattrs(const struct xattr *a, size_t na, const struct xattr *b, size_t nb)
{
	ck_assert_uint_eq(na, nb);
	for (size_t i = 0; i < na; i++) {
		ck_assert(same(a[i].name, b[i].name));
		ck_assert(same(a[i].value, b[i].value));
	}
}

static const struct xattr two_xattrs[] = {
	{ { (const uint8_t *)"user.b", 6 }, { (const uint8_t *)"\0\xff", 2 } },
	{ { (const uint8_t *)"user.a", 6 }, { NULL, 0 } },
};

/* One good change of each kind. */
static struct change sample(enum change_kind kind)
{
	struct change c = { .kind = kind,
		.node = node_id(NODE_DEVICE_MAX, 7),
		.parent = NODE_ROOT,
		.name = S("\xff name"),
		.time_ns = -5 };

	switch (kind) {
	case CHANGE_CREATE:
		c.attr = file_attr();
		c.xattrs = two_xattrs;
		c.n_xattrs = 2;
		break;
	case CHANGE_WRITE:
	case CHANGE_SETATTR:
		c.attr = file_attr();
		c.mask = ATTR_ALL;
		break;
	case CHANGE_RENAME:
		c.new_parent = 9;
		c.new_name = S("other");
		c.victim = 12;
		c.flags = CHANGE_FLAG_EXCHANGE;
		break;
	case CHANGE_SETXATTR:
	case CHANGE_REMOVEXATTR:
		c.xattr = two_xattrs[0];
		break;
	default:
		c.attr.ctime_ns = 77;
	}
	return c;
}

START_TEST(changes_round_trip)
{
	struct change c = sample((enum change_kind)_i), d;
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 }, again = { 0 };

	ck_assert_int_eq(change_encode(&c, &b), 0);
	ck_assert_int_eq(change_decode(b.data, b.len, &d, &arena, NULL), 0);
	ck_assert_int_eq(d.kind, c.kind);
	ck_assert_uint_eq(d.node, c.node);
	ck_assert_uint_eq(d.parent, c.parent);
	ck_assert(same(d.name, c.name));
	ck_assert_uint_eq(d.new_parent, c.new_parent);
	ck_assert(same(d.new_name, c.new_name));
	ck_assert_uint_eq(d.victim, c.victim);
	ck_assert_uint_eq(d.flags, c.flags);
	ck_assert_uint_eq(d.mask, c.mask);
	check_attr(&d.attr, &c.attr);
	ck_assert(same(d.xattr.name, c.xattr.name));
	ck_assert(same(d.xattr.value, c.xattr.value));
	check_xattrs(d.xattrs, d.n_xattrs, c.xattrs, c.n_xattrs);
	ck_assert_int_eq(d.time_ns, c.time_ns);
	ck_assert_int_eq(change_encode(&d, &again), 0);
	ck_assert_uint_eq(again.len, b.len);
	ck_assert_mem_eq(again.data, b.data, b.len);
}
END_TEST

START_TEST(symlinks_carry_their_target)
{
	struct change c = sample(CHANGE_CREATE), d;
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };

	c.attr = (struct node_attr){ .mode = S_IFLNK | 0777, .size = 6 };
	ck_assert_int_eq(change_encode(&c, &b), -EINVAL);
	c.target = S("../foo");
	ck_assert_int_eq(change_encode(&c, &b), 0);
	ck_assert_int_eq(change_decode(b.data, b.len, &d, &arena, NULL), 0);
	ck_assert(same(d.target, c.target));
	c.attr.size = 7;
	ck_assert_int_eq(change_encode(&c, &b), -EINVAL);
}
END_TEST

START_TEST(encoder_appends_or_leaves_alone)
{
	struct change c = sample(CHANGE_UNLINK);
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(buf_append(&b, "xyz", 3), 0);
	c.name = S("a/b");
	ck_assert_int_eq(change_encode(&c, &b), -EINVAL);
	ck_assert_uint_eq(b.len, 3);
	c.name = S("ab");
	ck_assert_int_eq(change_encode(&c, &b), 0);
	ck_assert_uint_gt(b.len, 3);
	ck_assert_mem_eq(b.data, "xyz", 3);
}
END_TEST

static void refuse(struct change c, const char *part_of_reason)
{
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_msg(change_encode(&c, &b) == -EINVAL, "%s", part_of_reason);
}

START_TEST(broken_changes_are_refused)
{
	struct xattr twice[2] = { two_xattrs[0], two_xattrs[0] };
	struct change c;

	c = sample(CHANGE_CREATE), c.node = 0, refuse(c, "node");
	c = sample(CHANGE_CREATE), c.parent = 0, refuse(c, "parent");
	c = sample(CHANGE_CREATE), c.name = S(""), refuse(c, "empty name");
	c = sample(CHANGE_CREATE), c.name = S(".."), refuse(c, "dot dot");
	c = sample(CHANGE_CREATE), c.name = S("a\0b"), refuse(c, "NUL");
	c = sample(CHANGE_CREATE), c.attr.mode = 0644, refuse(c, "no type");
	c = sample(CHANGE_CREATE), c.attr.mode = 0170000 | 0644, refuse(c, "type of nothing");
	c = sample(CHANGE_CREATE), c.attr.mode |= 1 << 20, refuse(c, "mode bits");
	c = sample(CHANGE_CREATE), c.attr.size = FILE_BYTES_MAX + 1, refuse(c, "size");
	c = sample(CHANGE_CREATE), c.attr.mode = S_IFDIR, refuse(c, "content of a directory");
	c = sample(CHANGE_CREATE), c.target = S("x"), refuse(c, "target of a file");
	c = sample(CHANGE_CREATE), c.xattrs = twice, refuse(c, "xattr twice");
	c = sample(CHANGE_WRITE), c.attr.content = (struct digest){ 0 }, refuse(c, "content");
	c = sample(CHANGE_SETATTR), c.mask = ATTR_ALL + 1, refuse(c, "mask");
	c = sample(CHANGE_RENAME), c.new_name = S("/"), refuse(c, "new name");
	c = sample(CHANGE_RENAME), c.victim = 0, refuse(c, "exchange with nothing");
	c = sample(CHANGE_RENAME), c.flags = 2, refuse(c, "flags");
	c = sample(CHANGE_SETXATTR), c.xattr.name = S(""), refuse(c, "xattr name");
	c = sample(CHANGE_SETXATTR), c.xattr.name = S("a\0b"), refuse(c, "xattr NUL");
	c = sample(CHANGE_UNLINK), c.kind = (enum change_kind)99, refuse(c, "kind");
}
END_TEST

START_TEST(names_are_checked)
{
	char longest[NAME_BYTES_MAX + 1];

	memset(longest, 'n', sizeof longest);
	ck_assert(name_valid((struct slice){ (uint8_t *)longest, NAME_BYTES_MAX }));
	ck_assert(!name_valid((struct slice){ (uint8_t *)longest, NAME_BYTES_MAX + 1 }));
	ck_assert(!name_valid((struct slice){ NULL, 0 }));
	ck_assert(!name_valid(S(".")));
	ck_assert(!name_valid(S("..")));
	ck_assert(name_valid(S("...")));
	ck_assert(name_valid(S(".a")));
	ck_assert(!name_valid(S("a/")));
	ck_assert(!name_valid(S("\0")));
	ck_assert(name_valid(S("\xff\n")));
}
END_TEST

/* Hand-made CBOR, for what our encoder never writes. */
static void raw(const char *bytes, size_t n, int expected, const char *part_of_reason)
{
	_cleanup_arena_ struct arena *arena = NULL;
	struct err err = { 0 };
	struct change c;
	int r = change_decode(bytes, n, &c, &arena, &err);

	ck_assert_msg(r == expected, "%s: got %d, \"%s\"", part_of_reason, r, err.text);
	if (r < 0) {
		ck_assert_int_eq(err.code, EBADMSG);
		ck_assert_msg(strstr(err.text, part_of_reason), "\"%s\" lacks \"%s\"", err.text,
			part_of_reason);
	}
}
#define RAW(bytes, expected, reason) raw(bytes, sizeof(bytes) - 1, expected, reason)

/* A whole unlink: {v: 1, kind: 5, node: 2, dir: 1, name: 'a'}, with room for more pairs. */
#define UNLINK                                  \
	"\x61v\x01\x64kind\x05\x64node\x02\x63" \
	"dir\x01\x64name\x41"                   \
	"a"

START_TEST(hostile_cbor_is_refused)
{
	RAW("\xa5" UNLINK, 0, "");
	RAW("", -EBADMSG, "cut short");
	RAW("\x80", -EBADMSG, "must be a map");
	RAW("\xbf" UNLINK "\xff", -EBADMSG, "must be a map of known length");
	RAW("\xa5" UNLINK "\x00", -EBADMSG, "left over");
	RAW("\xa6" UNLINK, -EBADMSG, "cut short");
	RAW("\xbb\xff\xff\xff\xff\xff\xff\xff\xff" UNLINK, -EBADMSG, "cut short");
	RAW("\xa4\x64kind\x05\x64node\x02\x63"
	    "dir\x01\x64name\x41"
	    "a",
		-EBADMSG, "v is missing");
	RAW("\xa6" UNLINK "\x61v\x01", -EBADMSG, "v stands twice");
	RAW("\xa6" UNLINK "\x64node\x02", -EBADMSG, "node: stands twice");
	RAW("\xa1\x61v\x02", -EBADMSG, "version");
	RAW("\xa1\x61v\x20", -EBADMSG, "v must be");
	RAW("\xa2\x61v\x01\x64kind\x18\x63", -EBADMSG, "change.node: missing");
	RAW("\xa6" UNLINK "\x01\x02", -EBADMSG, "every key must be a text");
	RAW("\xa6" UNLINK "\x66victim\x61"
	    "a",
		-EBADMSG, "victim: must be an unsigned");
	RAW("\xa6" UNLINK "\x66victim\x20", -EBADMSG, "victim: must be an unsigned");
	RAW("\xa6" UNLINK "\x65"
	    "flags\x02",
		-EBADMSG, "flags: too large");
	RAW("\xa6" UNLINK "\x64time\x3b\x80\0\0\0\0\0\0\0", -EBADMSG, "time: out of range");
	RAW("\xa6" UNLINK "\x64time\xfb\0\0\0\0\0\0\0\0", -EBADMSG, "time: must be an integer");
	RAW("\xa6" UNLINK "\x64"
	    "attr\x01",
		-EBADMSG, "attr: must be a map");
	RAW("\xa6" UNLINK "\x64"
	    "attr\xa1\x67"
	    "content\x41x",
		-EBADMSG, "content: too short");
	RAW("\xa6" UNLINK "\x66target\x61x", -EBADMSG, "target: must be a byte string");
	RAW("\xa6" UNLINK "\x66target\x5a\xff\xff\xff\xff", -EBADMSG, "cut short");
	RAW("\xa6" UNLINK "\x66xattrs\x9a\x00\x01\x00\x00", -EBADMSG, "xattrs: cut short");
	RAW("\xa6" UNLINK "\x66xattrs\x9b\xff\xff\xff\xff\xff\xff\xff\xff", -EBADMSG, "too many");
	RAW("\xa6" UNLINK "\x66xattrs\x81\xa1\x64name\x43"
	    "a\0b",
		-EBADMSG, "NUL");
	RAW("\xff", -EBADMSG, "must be a map");
	RAW("\x1c", -EBADMSG, "not well-formed");
}
END_TEST

START_TEST(unknown_keys_are_passed_over)
{
	RAW("\xa6" UNLINK "\x65"
	    "extra\xf6",
		0, "");
	RAW("\xa6" UNLINK "\x65"
	    "extra\x82\xa1\x01\x81\x02\xc1\x1a\0\0\0\0",
		0, "");
	RAW("\xa6" UNLINK "\x65"
	    "extra\x9f\xbf\x01\x02\xff\x5f\x41x\x41y\xff\xff",
		0, "");
	RAW("\xa7" UNLINK "\x65"
	    "extra\x01\x65"
	    "extra\xfb\0\0\0\0\0\0\0\0",
		0, "");
	RAW("\xa6" UNLINK "\x65"
	    "extra\x5f\x61x\xff",
		-EBADMSG, "damaged");
	RAW("\xa6" UNLINK "\x65"
	    "extra\xff",
		-EBADMSG, "damaged");
	RAW("\xa6" UNLINK "\x65"
	    "extra\xbf\x01\xff",
		-EBADMSG, "damaged");
	RAW("\xa6" UNLINK "\x65"
	    "extra\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
		-EBADMSG, "damaged");
	RAW("\xa6" UNLINK "\x65"
	    "extra\xbb\x80\0\0\0\0\0\0\0",
		-EBADMSG, "damaged");
}
END_TEST

START_TEST(nesting_is_bounded)
{
	_cleanup_buf_ struct buf b = { 0 };
	_cleanup_arena_ struct arena *arena = NULL;
	struct change c;

	ck_assert_int_eq(buf_append(&b,
				 "\xa6" UNLINK "\x65"
				 "extra",
				 sizeof("\xa6" UNLINK) + 5),
		0);
	for (int i = 0; i < 1000000; i++)
		ck_assert_int_eq(buf_append(&b, "\x81", 1), 0);
	ck_assert_int_eq(change_decode(b.data, b.len, &c, &arena, NULL), -EBADMSG);
}
END_TEST

static struct commit sample_commit(void)
{
	static const struct slice contents[] = { { (const uint8_t *)"m1", 2 }, { NULL, 0 } };
	static const struct slice changes[] = { { (const uint8_t *)"c1", 2 },
		{ (const uint8_t *)"c2", 2 }, { (const uint8_t *)"c3", 2 } };

	return (struct commit){ .id = { 1, 2, 3 },
		.base = INT64_MAX,
		.pack = S("pack"),
		.contents = contents,
		.n_contents = 2,
		.changes = changes,
		.n_changes = 3 };
}

START_TEST(commits_round_trip)
{
	struct commit c = sample_commit(), d;
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(commit_encode(&c, &b), 0);
	ck_assert_int_eq(commit_decode(b.data, b.len, &d, &arena, NULL), 0);
	memset(b.data, 0xee, b.len); /* the message has memory of its own */
	ck_assert_mem_eq(d.id, c.id, COMMIT_ID_BYTES);
	ck_assert_uint_eq(d.base, c.base);
	ck_assert(same(d.pack, c.pack));
	ck_assert_uint_eq(d.n_contents, 2);
	ck_assert_uint_eq(d.n_changes, 3);
	for (size_t i = 0; i < 2; i++)
		ck_assert(same(d.contents[i], c.contents[i]));
	for (size_t i = 0; i < 3; i++)
		ck_assert(same(d.changes[i], c.changes[i]));
}
END_TEST

START_TEST(broken_commits_are_refused)
{
	_cleanup_free_ struct slice *many = calloc(COMMIT_CHANGES_MAX + 1, sizeof *many);
	struct commit c = sample_commit();
	_cleanup_buf_ struct buf b = { 0 };

	for (size_t i = 0; i <= COMMIT_CHANGES_MAX; i++)
		many[i] = S("c");
	c.changes = many;
	c.n_changes = COMMIT_CHANGES_MAX + 1;
	ck_assert_int_eq(commit_encode(&c, &b), -EINVAL);
	c.n_changes--;
	ck_assert_int_eq(commit_encode(&c, &b), 0);
	memset(c.id, 0, sizeof c.id);
	ck_assert_int_eq(commit_encode(&c, &b), -EINVAL);
}
END_TEST

START_TEST(commits_are_bounded_as_a_whole)
{
	_cleanup_free_ uint8_t *half = calloc(1, COMMIT_BYTES_MAX / 2);
	struct slice contents[] = { { half, COMMIT_BYTES_MAX / 2 },
		{ half, COMMIT_BYTES_MAX / 2 } };
	struct commit c = sample_commit(), d;
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };

	c.contents = contents;
	ck_assert_int_eq(commit_encode(&c, &b), -EMSGSIZE);
	ck_assert_uint_eq(b.len, 0);
	ck_assert_int_eq(buf_reserve(&b, COMMIT_BYTES_MAX + 1), 0);
	memset(b.data, 0, COMMIT_BYTES_MAX + 1);
	ck_assert_int_eq(commit_decode(b.data, COMMIT_BYTES_MAX + 1, &d, &arena, NULL), -EBADMSG);
}
END_TEST

START_TEST(replies_round_trip)
{
	struct refused_change refused[] = {
		{ .index = 0, .reason = REFUSAL_STALE, .detail = S("the name is gr\xc3\xbcn") },
		{ .index = COMMIT_CHANGES_MAX - 1, .reason = REFUSAL_QUOTA, .detail = S("\xff!") },
	};
	struct commit_reply c = { .head = 9, .refused = refused, .n_refused = 2 }, d;
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(commit_reply_encode(&c, &b), 0);
	ck_assert_int_eq(commit_reply_decode(b.data, b.len, &d, &arena, NULL), 0);
	ck_assert_uint_eq(d.seq, 0);
	ck_assert_uint_eq(d.head, 9);
	ck_assert_uint_eq(d.n_refused, 2);
	ck_assert_uint_eq(d.refused[1].index, COMMIT_CHANGES_MAX - 1);
	ck_assert_int_eq(d.refused[0].reason, REFUSAL_STALE);
	ck_assert_int_eq(d.refused[1].reason, REFUSAL_QUOTA);
	ck_assert(same(d.refused[0].detail, refused[0].detail));
	ck_assert(same(d.refused[1].detail, S("?!")));
	c.seq = 9;
	ck_assert_int_eq(commit_reply_encode(&c, &b), -EINVAL);
	c.n_refused = 0;
	ck_assert_int_eq(commit_reply_encode(&c, &b), 0);
	c.seq = 10;
	ck_assert_int_eq(commit_reply_encode(&c, &b), -EINVAL);
}
END_TEST

START_TEST(refusals_have_texts)
{
	for (int r = REFUSAL_NONE; r <= REFUSAL_QUOTA; r++) {
		const char *text = refusal_text((enum refusal)r);

		ck_assert_int_eq(refusal_parse(text, strlen(text)), r);
	}
	ck_assert_int_eq(refusal_parse("stal", 4), REFUSAL_INVALID);
	ck_assert_str_eq(refusal_text((enum refusal)500), "invalid");
}
END_TEST

static struct changes sample_changes(void)
{
	static struct node_row nodes[3];
	static const struct link_row links[] = {
		{ .parent = 1, .name = { (const uint8_t *)"a", 1 }, .node = 2 },
		{ .parent = 1, .name = { (const uint8_t *)"b", 1 }, .node = 0 },
	};
	static const struct slice contents[] = { { (const uint8_t *)"manifest", 8 } };

	nodes[0] = (struct node_row){
		.node = 2, .attr = file_attr(), .xattrs = two_xattrs, .n_xattrs = 2
	};
	nodes[1] = (struct node_row){ .node = 3, .deleted = true };
	nodes[2] = (struct node_row){
		.node = 4, .attr = { .mode = S_IFLNK | 0777, .size = 1 }, .target = S("t")
	};
	return (struct changes){ .from = 3,
		.to = 5,
		.head = 6,
		.nodes = nodes,
		.n_nodes = 3,
		.links = links,
		.n_links = 2,
		.contents = contents,
		.n_contents = 1 };
}

START_TEST(pages_round_trip)
{
	struct changes c = sample_changes(), d;
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(changes_encode(&c, &b), 0);
	ck_assert_int_eq(changes_decode(b.data, b.len, &d, &arena, NULL), 0);
	ck_assert_uint_eq(d.from, 3);
	ck_assert_uint_eq(d.to, 5);
	ck_assert_uint_eq(d.head, 6);
	ck_assert_uint_eq(d.n_nodes, 3);
	check_attr(&d.nodes[0].attr, &c.nodes[0].attr);
	check_xattrs(d.nodes[0].xattrs, d.nodes[0].n_xattrs, two_xattrs, 2);
	ck_assert(d.nodes[1].deleted);
	ck_assert(same(d.nodes[2].target, S("t")));
	ck_assert_uint_eq(d.n_links, 2);
	ck_assert(same(d.links[1].name, S("b")));
	ck_assert_uint_eq(d.links[1].node, 0);
	ck_assert_uint_eq(d.n_contents, 1);
	ck_assert(same(d.contents[0], S("manifest")));
}
END_TEST

START_TEST(broken_pages_are_refused)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct node_row row = { .node = 5, .attr = { .mode = 0644 } };
	struct link_row link = { .parent = 1, .name = S("x/y"), .node = 1 };
	struct changes c = sample_changes();

	c.to = 2;
	ck_assert_int_eq(changes_encode(&c, &b), -EINVAL);
	c = sample_changes(), c.head = 4;
	ck_assert_int_eq(changes_encode(&c, &b), -EINVAL);
	c = sample_changes(), c.nodes = &row, c.n_nodes = 1;
	ck_assert_int_eq(changes_encode(&c, &b), -EINVAL);
	c = sample_changes(), c.links = &link, c.n_links = 1;
	ck_assert_int_eq(changes_encode(&c, &b), -EINVAL);
}
END_TEST

START_TEST(id_lists_round_trip)
{
	struct digest ids[3] = { { { 1 } }, { { 2 } }, { { 3 } } };
	struct id_list l = { ids, 3 }, d;
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };
	struct err err;

	ck_assert_int_eq(id_list_encode(&l, &b), 0);
	ck_assert_int_eq(id_list_decode(b.data, b.len, 2, &d, &arena, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "ids: too long"));
	ck_assert_int_eq(id_list_decode(b.data, b.len, 3, &d, &arena, NULL), 0);
	ck_assert_uint_eq(d.n, 3);
	ck_assert_mem_eq(d.ids, ids, sizeof ids);
	b.data[b.len - 3 * DIGEST_BYTES - 1]--;
	ck_assert_int_eq(id_list_decode(b.data, b.len - 1, 3, &d, &arena, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "whole number"));
}
END_TEST

START_TEST(empty_id_list)
{
	struct id_list l = { NULL, 0 }, d = { NULL, 7 };
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_buf_ struct buf b = { 0 };

	ck_assert_int_eq(id_list_encode(&l, &b), 0);
	ck_assert_int_eq(id_list_decode(b.data, b.len, 3, &d, &arena, NULL), 0);
	ck_assert_uint_eq(d.n, 0);
}
END_TEST

/* Every decoder on bytes from a buffer of exactly their size, so that ASan sees an overrun. */
static int decode_any(int what, const uint8_t *p, size_t n)
{
	_cleanup_arena_ struct arena *arena = NULL;
	_cleanup_free_ uint8_t *exact = malloc(n ? n : 1);
	union {
		struct change change;
		struct commit commit;
		struct commit_reply reply;
		struct changes changes;
		struct id_list ids;
	} u;

	if (n)
		memcpy(exact, p, n);
	switch (what) {
	case 0:
		return change_decode(exact, n, &u.change, &arena, NULL);
	case 1:
		return commit_decode(exact, n, &u.commit, &arena, NULL);
	case 2:
		return commit_reply_decode(exact, n, &u.reply, &arena, NULL);
	case 3:
		return changes_decode(exact, n, &u.changes, &arena, NULL);
	default:
		return id_list_decode(exact, n, 100, &u.ids, &arena, NULL);
	}
}

static void encode_any(int what, struct buf *b)
{
	static const struct digest ids[2] = { { { 1 } }, { { 2 } } };
	struct refused_change refused = { .index = 3, .reason = REFUSAL_LOOP, .detail = S("why") };
	struct change change = sample(CHANGE_CREATE);
	struct commit commit = sample_commit();
	struct commit_reply reply = { .head = 1, .refused = &refused, .n_refused = 1 };
	struct changes changes = sample_changes();
	struct id_list list = { ids, 2 };
	int r;

	if (what == 0)
		r = change_encode(&change, b);
	else if (what == 1)
		r = commit_encode(&commit, b);
	else if (what == 2)
		r = commit_reply_encode(&reply, b);
	else if (what == 3)
		r = changes_encode(&changes, b);
	else
		r = id_list_encode(&list, b);
	ck_assert_int_eq(r, 0);
}

START_TEST(truncation_at_every_byte)
{
	_cleanup_buf_ struct buf b = { 0 };

	encode_any(_i, &b);
	ck_assert_int_eq(decode_any(_i, b.data, b.len), 0);
	for (size_t n = 0; n < b.len; n++)
		ck_assert_int_eq(decode_any(_i, b.data, n), -EBADMSG);
}
END_TEST

START_TEST(bit_flips_never_crash)
{
	_cleanup_buf_ struct buf b = { 0 };
	int refused = 0;

	encode_any(_i, &b);
	for (size_t bit = 0; bit < b.len * 8; bit++) {
		int r;

		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		r = decode_any(_i, b.data, b.len);
		ck_assert(r == 0 || r == -EBADMSG);
		refused += r < 0;
		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ck_assert_int_gt(refused, 20);
}
END_TEST

START_TEST(random_damage_never_crashes)
{
	_cleanup_buf_ struct buf b = { 0 };
	unsigned seed = 1;

	encode_any(_i, &b);
	for (int round = 0; round < 20000; round++) {
		uint8_t copy[2048];

		ck_assert_uint_le(b.len, sizeof copy);
		memcpy(copy, b.data, b.len);
		for (int i = 0; i < 4; i++)
			copy[(unsigned)rand_r(&seed) % b.len] = (uint8_t)rand_r(&seed);
		ck_assert_int_le(decode_any(_i, copy, b.len), 0);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("wire");
	TCase *tc = tcase_create("wire");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(tc, changes_round_trip, 1, CHANGE_KIND_LAST + 1);
	tcase_add_test(tc, symlinks_carry_their_target);
	tcase_add_test(tc, encoder_appends_or_leaves_alone);
	tcase_add_test(tc, broken_changes_are_refused);
	tcase_add_test(tc, names_are_checked);
	tcase_add_test(tc, hostile_cbor_is_refused);
	tcase_add_test(tc, unknown_keys_are_passed_over);
	tcase_add_test(tc, nesting_is_bounded);
	tcase_add_test(tc, commits_round_trip);
	tcase_add_test(tc, broken_commits_are_refused);
	tcase_add_test(tc, commits_are_bounded_as_a_whole);
	tcase_add_test(tc, replies_round_trip);
	tcase_add_test(tc, refusals_have_texts);
	tcase_add_test(tc, pages_round_trip);
	tcase_add_test(tc, broken_pages_are_refused);
	tcase_add_test(tc, id_lists_round_trip);
	tcase_add_test(tc, empty_id_list);
	tcase_add_loop_test(tc, truncation_at_every_byte, 0, 5);
	tcase_add_loop_test(tc, bit_flips_never_crash, 0, 5);
	tcase_add_loop_test(tc, random_damage_never_crashes, 0, 5);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
