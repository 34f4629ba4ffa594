// SPDX-License-Identifier: Apache-2.0
/*
 * An encoded manifest (little-endian):
 *
 *	 0  4  magic "VRVM"
 *	 4  1  version, 1
 *	 5  3  zero
 *	 8  8  bytes of the file: the sum of the entries' lengths, at most FILE_BYTES_MAX
 *	16  4  number of entries
 *	20     the entries, in the file's order:
 *	       chunk	4  length, 1 to CHUNK_MAX
 *			32 id
 *	       hole	4  HOLE_FLAG | length >> 32
 *			4  the low 32 bits of the length; the length is not 0
 *
 * Valid when nothing follows the last entry, no two holes stand side by side, and the whole is
 * at most MANIFEST_BYTES_MAX. There is one encoding of a list of entries, so its hash names it.
 */
#include "chunk/manifest.h"

#include "bytes.h"
#include "chunk/chunker.h"
#include "bounds.h"

#include <errno.h>
#include <stdatomic.h>

#define MAGIC "VRVM"
#define VERSION 1
#define HEADER_BYTES 20
#define CHUNK_ENTRY_BYTES (4 + DIGEST_BYTES)
#define HOLE_ENTRY_BYTES 8
#define HOLE_FLAG UINT32_C(0x80000000)

struct manifest {
	atomic_uint refs;
	struct digest content_id;
	uint64_t size;
	size_t count;
	struct manifest_entry *entries;
	uint8_t *bytes;
	size_t n_bytes;
};

struct manifest_builder {
	uint64_t size;
	size_t n_bytes; /* of the encoding so far */
	size_t count, cap;
	struct manifest_entry *entries;
};

static void manifest_free(struct manifest *m)
{
	free(m->entries);
	free(m->bytes);
	free(m);
}

struct manifest *manifest_ref(struct manifest *m)
{
	atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
	return m;
}

void manifest_unref(struct manifest *m)
{
	if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1)
		manifest_free(m);
}

uint64_t manifest_size(const struct manifest *m)
{
	return m->size;
}

uint64_t manifest_holes(const struct manifest *m)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < m->count; i++) {
		if (m->entries[i].hole)
			sum += m->entries[i].length;
	}
	return sum;
}

size_t manifest_count(const struct manifest *m)
{
	return m->count;
}

const struct manifest_entry *manifest_at(const struct manifest *m, size_t i)
{
	return &m->entries[i];
}

size_t manifest_find(const struct manifest *m, uint64_t offset)
{
	size_t low = 0, high = m->count; /* the first entry that ends beyond offset */

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (m->entries[mid].offset + m->entries[mid].length > offset)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

const struct digest *manifest_content_id(const struct manifest *m)
{
	return &m->content_id;
}

const uint8_t *manifest_bytes(const struct manifest *m, size_t *ret_len)
{
	*ret_len = m->n_bytes;
	return m->bytes;
}

/* Reads one entry at p[0..n), n > 0; returns the bytes it took, or 0 when it is not one. */
static size_t entry_decode(const uint8_t *p, size_t n, struct manifest_entry *ret)
{
	uint32_t word;

	if (n < HOLE_ENTRY_BYTES)
		return 0;
	word = get_le32(p);
	if (word & HOLE_FLAG) {
		*ret = (struct manifest_entry){ .hole = true };
		ret->length = (uint64_t)(word & ~HOLE_FLAG) << 32 | get_le32(p + 4);
		return ret->length ? HOLE_ENTRY_BYTES : 0;
	}
	if (n < CHUNK_ENTRY_BYTES || word == 0 || word > CHUNK_MAX)
		return 0;
	*ret = (struct manifest_entry){ .length = word };
	memcpy(ret->id.b, p + 4, DIGEST_BYTES);
	return CHUNK_ENTRY_BYTES;
}

static size_t entry_encode(const struct manifest_entry *e, uint8_t *p)
{
	if (e->hole) {
		put_le32(p, HOLE_FLAG | (uint32_t)(e->length >> 32));
		put_le32(p + 4, (uint32_t)e->length);
		return HOLE_ENTRY_BYTES;
	}
	put_le32(p, (uint32_t)e->length);
	memcpy(p + 4, e->id.b, DIGEST_BYTES);
	return CHUNK_ENTRY_BYTES;
}

static int entries_decode(struct manifest *m, const uint8_t *p, size_t n, struct err *err)
{
	uint64_t at = 0;
	size_t used = HEADER_BYTES;

	for (size_t i = 0; i < m->count; i++) {
		struct manifest_entry *e = &m->entries[i];
		size_t took = entry_decode(p + used, n - used, e);

		if (took == 0)
			return err_set(err, EBADMSG, "manifest: entry %zu is not valid", i);
		if (i && e->hole && e[-1].hole)
			return err_set(err, EBADMSG, "manifest: two holes at entry %zu", i);
		e->offset = at;
		if (!add_fits(at, e->length, &at) || at > m->size)
			return err_set(err, EBADMSG, "manifest: entries exceed the size");
		used += took;
	}
	if (at != m->size)
		return err_set(err, EBADMSG, "manifest: entries do not add up to the size");
	if (used != n)
		return err_set(err, EBADMSG, "manifest: bytes behind the last entry");
	return 0;
}

static int header_check(const uint8_t *p, size_t n, struct err *err)
{
	static const uint8_t zero[3];

	if (n < HEADER_BYTES || memcmp(p, MAGIC, 4) != 0)
		return err_set(err, EBADMSG, "manifest: not a manifest");
	if (p[4] != VERSION)
		return err_set(err, EBADMSG, "manifest: version %u is not known", p[4]);
	if (memcmp(p + 5, zero, sizeof zero) != 0)
		return err_set(err, EBADMSG, "manifest: reserved bytes are not zero");
	if (n > MANIFEST_BYTES_MAX)
		return err_set(err, EBADMSG, "manifest: longer than allowed");
	if (get_le64(p + 8) > FILE_BYTES_MAX)
		return err_set(err, EBADMSG, "manifest: file larger than allowed");
	if (get_le32(p + 16) > (n - HEADER_BYTES) / HOLE_ENTRY_BYTES)
		return err_set(err, EBADMSG, "manifest: more entries than bytes");
	return 0;
}

uint64_t manifest_holes_encoded(const void *p, size_t n)
{
	const uint8_t *b = p;
	struct manifest_entry e;
	uint64_t sum = 0;
	size_t took;

	for (size_t used = HEADER_BYTES; used < n; used += took) {
		took = entry_decode(b + used, n - used, &e);
		if (took == 0)
			break;
		if (e.hole)
			sum += e.length;
	}
	return sum;
}

/* A manifest with room for its entries and encoding, referenced once. */
static struct manifest *manifest_alloc(uint64_t size, size_t count, size_t n_bytes)
{
	struct manifest *m = calloc(1, sizeof *m);

	if (!m)
		return NULL;
	atomic_init(&m->refs, 1);
	m->size = size;
	m->count = count;
	m->n_bytes = n_bytes;
	m->entries = count ? calloc(count, sizeof *m->entries) : NULL;
	m->bytes = malloc(n_bytes);
	if ((count && !m->entries) || !m->bytes) {
		manifest_free(m);
		return NULL;
	}
	return m;
}

int manifest_decode(const void *p, size_t n, struct manifest **ret, struct err *err)
{
	_cleanup_manifest_ struct manifest *m = NULL;
	const uint8_t *b = p;
	int r = header_check(b, n, err);

	if (r < 0)
		return r;
	m = manifest_alloc(get_le64(b + 8), get_le32(b + 16), n);
	if (!m)
		return err_sys(err, ENOMEM, "manifest");
	r = entries_decode(m, b, n, err);
	if (r < 0)
		return r;
	memcpy(m->bytes, b, n);
	digest_of(m->bytes, n, &m->content_id);
	*ret = steal(m);
	return 0;
}

/* From a builder's entries, which it takes over. */
static int manifest_from_builder(struct manifest_builder *b, struct manifest **ret)
{
	struct manifest *m = manifest_alloc(b->size, 0, b->n_bytes);
	size_t used = HEADER_BYTES;

	if (!m)
		return -ENOMEM;
	m->count = b->count;
	m->entries = steal(b->entries);
	memset(m->bytes, 0, HEADER_BYTES);
	memcpy(m->bytes, MAGIC, 4);
	m->bytes[4] = VERSION;
	put_le64(m->bytes + 8, m->size);
	put_le32(m->bytes + 16, (uint32_t)m->count);
	for (size_t i = 0; i < m->count; i++)
		used += entry_encode(&m->entries[i], m->bytes + used);
	digest_of(m->bytes, m->n_bytes, &m->content_id);
	*ret = m;
	return 0;
}

struct manifest *manifest_empty(void)
{
	struct manifest_builder b = { .n_bytes = HEADER_BYTES };
	struct manifest *m = NULL;

	return manifest_from_builder(&b, &m) == 0 ? m : NULL;
}

int manifest_builder_new(struct manifest_builder **ret)
{
	struct manifest_builder *b = calloc(1, sizeof *b);

	if (!b)
		return -ENOMEM;
	b->n_bytes = HEADER_BYTES;
	*ret = b;
	return 0;
}

void manifest_builder_free(struct manifest_builder *b)
{
	if (!b)
		return;
	free(b->entries);
	free(b);
}

uint64_t manifest_builder_size(const struct manifest_builder *b)
{
	return b->size;
}

static int builder_append(struct manifest_builder *b, const struct manifest_entry *e)
{
	size_t n_bytes = b->n_bytes + (e->hole ? HOLE_ENTRY_BYTES : CHUNK_ENTRY_BYTES);

	if (n_bytes > MANIFEST_BYTES_MAX)
		return -EFBIG;
	if (b->count == b->cap) {
		size_t cap = b->cap ? 2 * b->cap : 4;
		struct manifest_entry *entries = reallocarray(b->entries, cap, sizeof *b->entries);

		if (!entries)
			return -ENOMEM;
		b->entries = entries;
		b->cap = cap;
	}
	b->entries[b->count] = *e;
	b->entries[b->count++].offset = b->size;
	b->size += e->length;
	b->n_bytes = n_bytes;
	return 0;
}

int manifest_add_chunk(struct manifest_builder *b, const struct digest *id, uint64_t length)
{
	struct manifest_entry e = { .length = length, .id = *id };

	if (length == 0 || length > CHUNK_MAX)
		return -EINVAL;
	if (length > FILE_BYTES_MAX - b->size)
		return -EFBIG;
	return builder_append(b, &e);
}

int manifest_add_hole(struct manifest_builder *b, uint64_t length)
{
	struct manifest_entry e = { .length = length, .hole = true };

	if (length == 0)
		return 0;
	if (length > FILE_BYTES_MAX - b->size)
		return -EFBIG;
	if (b->count && b->entries[b->count - 1].hole) {
		b->entries[b->count - 1].length += length;
		b->size += length;
		return 0;
	}
	return builder_append(b, &e);
}

int manifest_builder_finish(struct manifest_builder *b, struct manifest **ret)
{
	int r = manifest_from_builder(b, ret);

	manifest_builder_free(b);
	return r;
}
