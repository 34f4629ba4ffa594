// SPDX-License-Identifier: Apache-2.0
/*
 * Layouts behind the head (all integers little-endian; keys big-endian, so that they sort):
 *
 * node		tag: NODE_*. 10 mode, 14 uid, 18 gid (u32); 22 rdev, of a regular file how many
 *		bytes of its content are in holes (u64); 30 atime, 38 mtime,
 *		46 ctime, 54 btime (i64 ns); 62 size (u64); 70 links, 74 subdirs (u32); 78 parent
 *		(u64); 86 content (32 bytes); 118 name length (u8); 119 payload length (u16);
 *		121 name; payload.
 *		Valid: a known file type; the name empty or valid; a payload only of a symlink (its
 *		target, size bytes) or with NODE_INLINE_MANIFEST; nothing behind it.
 * link		tag: S_IFMT bits >> 12. 10 node (u64).
 * xattr	tag: 0. 10 the value.
 * names	the version byte alone: the key says all.
 * base		tag: 1 present, 0 absent. 10 the row; empty when absent.
 * outbox	tag: OUTBOX_*, entry 0. 10 length of the manifest or content id (u16), 12 it, then
 *		the change in its wire encoding.
 * conflict	tag: the kind, entry 0. 10 time (i64 ns), 18 parent (u64), 26 name length (u8),
 *		27 name, then the original name.
 */
#include "meta/rows.h"

#include "bytes.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define TYPE_SHIFT 12
#define CONFLICT_FIXED 27

void row_head_encode(uint8_t tag, uint64_t entry, uint8_t ret[ROW_HEAD])
{
	ret[0] = ROW_VERSION;
	ret[1] = tag;
	put_le64(ret + 2, entry);
}

int row_head_decode(struct slice row, uint8_t *ret_tag, uint64_t *ret_entry)
{
	if (row.n < ROW_HEAD || row.p[0] != ROW_VERSION)
		return -EBADMSG;
	*ret_tag = row.p[1];
	*ret_entry = get_le64(row.p + 2);
	return 0;
}

static bool type_known(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

size_t node_encode(const struct node_rec *rec, uint8_t ret[NODE_ROW_MAX])
{
	const struct node_attr *a = &rec->attr;

	assert(rec->name.n <= NAME_BYTES_MAX && rec->payload.n <= SYMLINK_BYTES_MAX);
	row_head_encode(rec->tag, rec->entry, ret);
	put_le32(ret + 10, a->mode);
	put_le32(ret + 14, a->uid);
	put_le32(ret + 18, a->gid);
	put_le64(ret + 22, S_ISREG(a->mode) ? rec->holes : a->rdev);
	put_le64(ret + 30, (uint64_t)a->atime_ns);
	put_le64(ret + 38, (uint64_t)a->mtime_ns);
	put_le64(ret + 46, (uint64_t)a->ctime_ns);
	put_le64(ret + 54, (uint64_t)a->btime_ns);
	put_le64(ret + 62, a->size);
	put_le32(ret + 70, rec->links);
	put_le32(ret + 74, rec->subdirs);
	put_le64(ret + 78, rec->parent);
	memcpy(ret + 86, a->content.b, DIGEST_BYTES);
	ret[118] = (uint8_t)rec->name.n;
	put_le16(ret + 119, (uint16_t)rec->payload.n);
	if (rec->name.n)
		memcpy(ret + NODE_FIXED, rec->name.p, rec->name.n);
	if (rec->payload.n)
		memcpy(ret + NODE_FIXED + rec->name.n, rec->payload.p, rec->payload.n);
	return NODE_FIXED + rec->name.n + rec->payload.n;
}

static bool node_payload_ok(const struct node_rec *rec)
{
	if (rec->tag & ~(NODE_HAS_XATTRS | NODE_INLINE_MANIFEST | NODE_OWNER_HERE))
		return false;
	if (S_ISLNK(rec->attr.mode))
		return rec->payload.n == rec->attr.size && rec->payload.n <= SYMLINK_BYTES_MAX &&
		       !(rec->tag & NODE_INLINE_MANIFEST);
	if (!(rec->tag & NODE_INLINE_MANIFEST))
		return rec->payload.n == 0;
	return S_ISREG(rec->attr.mode) && rec->payload.n && rec->payload.n <= MANIFEST_INLINE_MAX;
}

int node_decode(struct slice row, struct node_rec *ret)
{
	const uint8_t *p = row.p;
	struct node_rec rec = { 0 };
	struct node_attr *a = &rec.attr;

	if (row.n < NODE_FIXED || row_head_decode(row, &rec.tag, &rec.entry) < 0)
		return -EBADMSG;
	a->mode = get_le32(p + 10);
	a->uid = get_le32(p + 14);
	a->gid = get_le32(p + 18);
	if (S_ISREG(a->mode))
		rec.holes = get_le64(p + 22);
	else
		a->rdev = get_le64(p + 22);
	a->atime_ns = (int64_t)get_le64(p + 30);
	a->mtime_ns = (int64_t)get_le64(p + 38);
	a->ctime_ns = (int64_t)get_le64(p + 46);
	a->btime_ns = (int64_t)get_le64(p + 54);
	a->size = get_le64(p + 62);
	rec.links = get_le32(p + 70);
	rec.subdirs = get_le32(p + 74);
	rec.parent = get_le64(p + 78);
	memcpy(a->content.b, p + 86, DIGEST_BYTES);
	rec.name = (struct slice){ p + NODE_FIXED, p[118] };
	if (row.n - NODE_FIXED < rec.name.n)
		return -EBADMSG;
	rec.payload = (struct slice){ p + NODE_FIXED + rec.name.n, get_le16(p + 119) };
	if (row.n != NODE_FIXED + rec.name.n + rec.payload.n || !type_known(a->mode) ||
		(rec.name.n && !name_valid(rec.name)) || !node_payload_ok(&rec))
		return -EBADMSG;
	rec.holes = MIN(rec.holes, a->size);
	*ret = rec;
	return 0;
}

void link_encode(const struct link_rec *rec, uint8_t ret[LINK_ROW_BYTES])
{
	row_head_encode((uint8_t)((rec->type & S_IFMT) >> TYPE_SHIFT), rec->entry, ret);
	put_le64(ret + ROW_HEAD, rec->node);
}

int link_decode(struct slice row, struct link_rec *ret)
{
	uint8_t tag;
	uint64_t entry, node;

	if (row.n != LINK_ROW_BYTES || row_head_decode(row, &tag, &entry) < 0)
		return -EBADMSG;
	node = get_le64(row.p + ROW_HEAD);
	if (!type_known((uint32_t)tag << TYPE_SHIFT) || tag > S_IFMT >> TYPE_SHIFT || node == 0)
		return -EBADMSG;
	*ret = (struct link_rec){ entry, node, (uint32_t)tag << TYPE_SHIFT };
	return 0;
}

int xattr_decode(struct slice row, uint64_t *ret_entry, struct slice *ret_value)
{
	uint8_t tag;

	if (row_head_decode(row, &tag, ret_entry) < 0 || tag != 0 ||
		row.n > ROW_HEAD + XATTR_VALUE_BYTES_MAX)
		return -EBADMSG;
	*ret_value = (struct slice){ row.p + ROW_HEAD, row.n - ROW_HEAD };
	return 0;
}

int base_encode(const struct base_rec *rec, struct buf *ret)
{
	uint8_t head[ROW_HEAD];
	int r;

	row_head_encode(rec->present, rec->entry, head);
	buf_clear(ret);
	r = buf_append(ret, head, sizeof head);
	return r == 0 && rec->present ? buf_append(ret, rec->row.p, rec->row.n) : r;
}

int base_decode(struct slice row, struct base_rec *ret)
{
	uint8_t tag;
	struct base_rec rec;

	if (row_head_decode(row, &tag, &rec.entry) < 0 || tag > 1)
		return -EBADMSG;
	rec.present = tag;
	rec.row = (struct slice){ row.p + ROW_HEAD, row.n - ROW_HEAD };
	if (rec.present != (rec.row.n != 0))
		return -EBADMSG;
	*ret = rec;
	return 0;
}

int outbox_encode(const struct outbox_rec *rec, struct buf *ret)
{
	uint8_t head[ROW_HEAD + 2];
	int r;

	assert(rec->manifest.n <= MANIFEST_INLINE_MAX);
	row_head_encode(rec->tag, 0, head);
	put_le16(head + ROW_HEAD, (uint16_t)rec->manifest.n);
	buf_clear(ret);
	r = buf_append(ret, head, sizeof head);
	if (r == 0)
		r = buf_append(ret, rec->manifest.p, rec->manifest.n);
	return r < 0 ? r : buf_append(ret, rec->change.p, rec->change.n);
}

int outbox_decode(struct slice row, struct outbox_rec *ret)
{
	struct outbox_rec rec;
	uint64_t entry;
	size_t n, begin = ROW_HEAD + 2;

	if (row_head_decode(row, &rec.tag, &entry) < 0 || row.n < begin)
		return -EBADMSG;
	n = get_le16(row.p + ROW_HEAD);
	if (rec.tag > 7 || n > row.n - begin)
		return -EBADMSG;
	if ((rec.tag & OUTBOX_CONTENT) && n != DIGEST_BYTES)
		return -EBADMSG;
	if (!(rec.tag & (OUTBOX_CONTENT | OUTBOX_MANIFEST)) != (n == 0))
		return -EBADMSG;
	rec.manifest = (struct slice){ row.p + begin, n };
	rec.change = (struct slice){ row.p + begin + n, row.n - begin - n };
	*ret = rec;
	return 0;
}

int conflict_encode(const struct conflict_rec *rec, struct buf *ret)
{
	uint8_t head[CONFLICT_FIXED];
	int r;

	assert(rec->name.n <= NAME_BYTES_MAX);
	row_head_encode(rec->kind, 0, head);
	put_le64(head + 10, (uint64_t)rec->time_ns);
	put_le64(head + 18, rec->parent);
	head[26] = (uint8_t)rec->name.n;
	buf_clear(ret);
	r = buf_append(ret, head, sizeof head);
	if (r == 0)
		r = buf_append(ret, rec->name.p, rec->name.n);
	return r < 0 ? r : buf_append(ret, rec->original.p, rec->original.n);
}

int conflict_decode(struct slice row, struct conflict_rec *ret)
{
	struct conflict_rec rec;
	uint64_t entry;

	if (row.n < CONFLICT_FIXED || row_head_decode(row, &rec.kind, &entry) < 0)
		return -EBADMSG;
	rec.time_ns = (int64_t)get_le64(row.p + 10);
	rec.parent = get_le64(row.p + 18);
	rec.name = (struct slice){ row.p + CONFLICT_FIXED, row.p[26] };
	if (rec.name.n > row.n - CONFLICT_FIXED)
		return -EBADMSG;
	rec.original.p = rec.name.p + rec.name.n;
	rec.original.n = row.n - CONFLICT_FIXED - rec.name.n;
	if (rec.original.n > NAME_BYTES_MAX)
		return -EBADMSG;
	*ret = rec;
	return 0;
}

struct row_key key_id(uint64_t id)
{
	struct row_key k;

	put_be64(k.b, id);
	k.n = 8;
	return k;
}

static void key_add(struct row_key *k, struct slice name)
{
	assert(name.n <= NAME_BYTES_MAX);
	memcpy(k->b + k->n, name.p, name.n);
	k->n += name.n;
}

struct row_key key_child(uint64_t id, struct slice name)
{
	struct row_key k = key_id(id);

	key_add(&k, name);
	return k;
}

static void put_place(uint8_t *p, uint64_t place)
{
	uint8_t be[8];

	put_be64(be, place);
	memcpy(p, be + 8 - LINK_PLACE_BYTES, LINK_PLACE_BYTES);
}

struct row_key key_link_at(uint64_t parent, uint64_t place)
{
	struct row_key k = key_id(parent);

	put_place(k.b + k.n, place);
	k.n += LINK_PLACE_BYTES;
	return k;
}

/* The name's hash, so that nobody can make many names share one. */
struct row_key key_link(uint64_t parent, struct slice name)
{
	struct digest d;
	struct row_key k;

	digest_of(name.p, name.n, &d);
	k = key_link_at(parent, get_be64(d.b) >> (64 - LINK_PLACE_BITS));
	key_add(&k, name);
	return k;
}

uint64_t key_link_place(struct slice key)
{
	uint8_t be[8] = { 0 };

	if (key.n >= 8 + LINK_PLACE_BYTES)
		memcpy(be + 8 - LINK_PLACE_BYTES, key.p + 8, LINK_PLACE_BYTES);
	return get_be64(be);
}

struct row_key key_name(uint64_t node, uint64_t parent, struct slice name)
{
	struct row_key k = key_id(node);

	put_be64(k.b + 8, parent);
	k.n = 16;
	key_add(&k, name);
	return k;
}

static uint8_t base_letter(enum store_cf cf)
{
	return cf == CF_NODE ? 'n' : cf == CF_LINK ? 'l' : 'x';
}

struct row_key key_base(enum store_cf cf, const void *key, size_t klen)
{
	struct row_key k;

	assert(klen <= sizeof k.b - 1);
	k.b[0] = base_letter(cf);
	memcpy(k.b + 1, key, klen);
	k.n = klen + 1;
	return k;
}

int key_of_base(struct slice key, enum store_cf *ret_cf, struct slice *ret_key)
{
	static const enum store_cf kinds[] = { CF_NODE, CF_LINK, CF_XATTR };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (key.n < 9 || key.p[0] != base_letter(kinds[i]))
			continue;
		if ((kinds[i] == CF_NODE) != (key.n == 9))
			return -EBADMSG;
		*ret_cf = kinds[i];
		*ret_key = (struct slice){ key.p + 1, key.n - 1 };
		return 0;
	}
	return -EBADMSG;
}

int key_id_parse(struct slice key, uint64_t *ret)
{
	if (key.n != 8)
		return -EBADMSG;
	*ret = get_be64(key.p);
	return 0;
}

int key_child_parse(struct slice key, uint64_t *ret_id, struct slice *ret_name)
{
	if (key.n < 9 || key.n > 8 + NAME_BYTES_MAX)
		return -EBADMSG;
	*ret_id = get_be64(key.p);
	*ret_name = (struct slice){ key.p + 8, key.n - 8 };
	return 0;
}

int key_link_parse(struct slice key, uint64_t *ret_parent, struct slice *ret_name)
{
	const size_t fixed = 8 + LINK_PLACE_BYTES;

	if (key.n <= fixed || key.n > fixed + NAME_BYTES_MAX)
		return -EBADMSG;
	*ret_parent = get_be64(key.p);
	*ret_name = (struct slice){ key.p + fixed, key.n - fixed };
	return 0;
}

int key_name_parse(struct slice key, uint64_t *ret_parent, struct slice *ret_name)
{
	if (key.n < 17 || key.n > 16 + NAME_BYTES_MAX)
		return -EBADMSG;
	*ret_parent = get_be64(key.p + 8);
	*ret_name = (struct slice){ key.p + 16, key.n - 16 };
	return 0;
}
