// SPDX-License-Identifier: Apache-2.0
/*
 * A frame (little-endian):
 *
 *	 0  4  magic "VRVF"
 *	 4  1  version, 1
 *	 5  1  codec (enum frame_codec)
 *	 6  1  cipher (enum frame_cipher)
 *	 7  1  zero
 *	 8  4  plain length, 1 to CHUNK_MAX
 *	12  4  payload length
 *	16  8  check: the first 8 bytes of the BLAKE3-256 of bytes 0 to 15 and the payload
 *	24     payload
 *
 * Payload: stored, the plain bytes; zstd, one zstd frame that is no longer than the plain bytes;
 * zstd patch, the base chunk's id and a zstd frame. The check tells damage without the plain
 * bytes; what proves the plain bytes is their id.
 */
#include "chunk/frame.h"

#include "bytes.h"
#include "chunk/chunker.h"
#include "bounds.h"

#include <assert.h>
#include <blake3.h>
#include <errno.h>
#include <pthread.h>
#include <zstd.h>

#define MAGIC "VRVF"
#define VERSION 1
#define CHECKED_HEADER_BYTES 16
#define CHECK_BYTES 8

static_assert(FRAME_HEADER_BYTES == CHECKED_HEADER_BYTES + CHECK_BYTES, "layout");
static_assert(FRAME_HEADER_BYTES + DIGEST_BYTES <= FRAME_OVERHEAD_MAX, "layout");

/* Levels 2 and 3 save a few percent more and take twice the time. */
#define ZSTD_LEVEL 1
/* Samples that decide whether zstd is worth a try on a large chunk. */
#define PROBE_BYTES ((size_t)16 * 1024)

/* zstd's contexts cost more to make than a small chunk to compress: one of each a thread. */
struct codecs {
	ZSTD_CCtx *compress;
	ZSTD_DCtx *decompress;
};

static pthread_key_t codecs_key;
static pthread_once_t codecs_once = PTHREAD_ONCE_INIT;

static void codecs_free(void *p)
{
	struct codecs *c = p;

	ZSTD_freeCCtx(c->compress);
	ZSTD_freeDCtx(c->decompress);
	free(c);
}

static void codecs_make_key(void)
{
	int r = pthread_key_create(&codecs_key, codecs_free);

	assert(r == 0);
	(void)r;
}

/* This thread's contexts, or NULL when out of memory. */
static struct codecs *codecs_get(void)
{
	struct codecs *c;

	pthread_once(&codecs_once, codecs_make_key);
	c = pthread_getspecific(codecs_key);
	if (c)
		return c;
	c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->compress = ZSTD_createCCtx();
	c->decompress = ZSTD_createDCtx();
	if (!c->compress || !c->decompress || pthread_setspecific(codecs_key, c)) {
		codecs_free(c);
		return NULL;
	}
	return c;
}

static void frame_check(const uint8_t *frame, size_t payload_len, uint8_t ret[CHECK_BYTES])
{
	blake3_hasher h;

	blake3_hasher_init(&h);
	blake3_hasher_update(&h, frame, CHECKED_HEADER_BYTES);
	blake3_hasher_update(&h, frame + FRAME_HEADER_BYTES, payload_len);
	blake3_hasher_finalize(&h, ret, CHECK_BYTES);
}

/* The length that p[0..n) compresses to in room bytes at out, or 0 when it does not fit. */
static size_t compress(struct codecs *c, void *out, size_t room, const void *p, size_t n)
{
	size_t len = ZSTD_compressCCtx(c->compress, out, room, p, n, ZSTD_LEVEL);

	return ZSTD_isError(len) ? 0 : len;
}

/* Whether samples of a large chunk shrink by a sixteenth at least; `out` has room for one. */
static bool worth_a_try(struct codecs *c, void *out, const uint8_t *p, size_t n)
{
	size_t room = PROBE_BYTES - PROBE_BYTES / 16;

	if (n < 4 * PROBE_BYTES)
		return true;
	return compress(c, out, room, p, PROBE_BYTES) ||
	       compress(c, out, room, p + n / 2, PROBE_BYTES);
}

int frame_encode(const void *p, size_t n, struct buf *ret)
{
	struct codecs *c = codecs_get();
	size_t payload_len = 0;
	uint8_t *frame;
	int r;

	assert(n > 0 && n <= CHUNK_MAX);
	if (!c)
		return -ENOMEM;
	r = buf_reserve(ret, FRAME_HEADER_BYTES + n);
	if (r < 0)
		return r;
	frame = ret->data + ret->len;
	memset(frame, 0, FRAME_HEADER_BYTES);
	memcpy(frame, MAGIC, 4);
	frame[4] = VERSION;
	frame[6] = FRAME_CIPHER_NONE;
	if (worth_a_try(c, frame + FRAME_HEADER_BYTES, p, n))
		payload_len = compress(c, frame + FRAME_HEADER_BYTES, n - 1, p, n);
	frame[5] = payload_len ? FRAME_ZSTD : FRAME_STORED;
	if (!payload_len) {
		memcpy(frame + FRAME_HEADER_BYTES, p, n);
		payload_len = n;
	}
	put_le32(frame + 8, (uint32_t)n);
	put_le32(frame + 12, (uint32_t)payload_len);
	frame_check(frame, payload_len, frame + CHECKED_HEADER_BYTES);
	ret->len += FRAME_HEADER_BYTES + payload_len;
	return 0;
}

static bool payload_len_valid(const struct frame_info *info)
{
	uint32_t len = info->frame_len - FRAME_HEADER_BYTES;

	switch (info->codec) {
	case FRAME_STORED:
		return len == info->plain_len;
	case FRAME_ZSTD:
		return len > 0 && len <= info->plain_len;
	case FRAME_ZSTD_PATCH:
		return len > DIGEST_BYTES && len <= info->plain_len + DIGEST_BYTES;
	}
	return false;
}

int frame_peek(const void *p, size_t n, struct frame_info *ret, struct err *err)
{
	const uint8_t *b = p;
	struct frame_info info;
	uint32_t payload_len;

	if (n < FRAME_HEADER_BYTES)
		return err_set(err, ENODATA, "frame: header cut short");
	if (memcmp(b, MAGIC, 4) != 0)
		return err_set(err, EBADMSG, "frame: not a frame");
	if (b[4] != VERSION)
		return err_set(err, ENOTSUP, "frame: version %u is not known", b[4]);
	if (b[5] > FRAME_ZSTD_PATCH)
		return err_set(err, ENOTSUP, "frame: codec %u is not known", b[5]);
	if (b[6] != FRAME_CIPHER_NONE)
		return err_set(err, ENOTSUP, "frame: cipher %u is not known", b[6]);
	if (b[7] != 0)
		return err_set(err, EBADMSG, "frame: reserved byte is not zero");
	info.codec = b[5];
	info.plain_len = get_le32(b + 8);
	payload_len = get_le32(b + 12);
	if (info.plain_len == 0 || info.plain_len > CHUNK_MAX)
		return err_set(err, EBADMSG, "frame: plain length %u", info.plain_len);
	if (payload_len > CHUNK_MAX + DIGEST_BYTES)
		return err_set(err, EBADMSG, "frame: payload length %u", payload_len);
	info.frame_len = FRAME_HEADER_BYTES + payload_len;
	if (!payload_len_valid(&info))
		return err_set(err, EBADMSG, "frame: payload of %u for %u plain bytes", payload_len,
			info.plain_len);
	if (n < info.frame_len)
		return err_set(err, ENODATA, "frame: payload cut short");
	*ret = info;
	return 0;
}

/* Appends exactly info->plain_len bytes, without a look at what they are. */
static int decode_payload(
	const uint8_t *payload, const struct frame_info *info, struct buf *ret, struct err *err)
{
	struct codecs *c = codecs_get();
	uint32_t payload_len = info->frame_len - FRAME_HEADER_BYTES;
	size_t len;
	int r;

	if (info->codec == FRAME_STORED) {
		r = buf_append(ret, payload, payload_len);
		return r < 0 ? err_sys(err, -r, "frame") : 0;
	}
	if (!c)
		return err_sys(err, ENOMEM, "frame");
	r = buf_reserve(ret, info->plain_len);
	if (r < 0)
		return err_sys(err, -r, "frame");
	len = ZSTD_decompressDCtx(
		c->decompress, ret->data + ret->len, info->plain_len, payload, payload_len);
	if (ZSTD_isError(len) || len != info->plain_len)
		return err_set(err, EBADMSG, "frame: zstd payload is damaged");
	ret->len += len;
	return 0;
}

int frame_decode(const void *p, size_t n, const struct digest *id, struct buf *ret, struct err *err)
{
	uint8_t check[CHECK_BYTES];
	const uint8_t *b = p;
	struct frame_info info;
	struct digest found;
	size_t had = ret->len;
	int r = frame_peek(p, n, &info, err);

	if (r == -ENODATA) {
		if (err)
			err->code = EBADMSG;
		return -EBADMSG;
	}
	if (r < 0)
		return r;
	if (n != info.frame_len)
		return err_set(err, EBADMSG, "frame: bytes behind the payload");
	if (info.codec == FRAME_ZSTD_PATCH)
		return err_set(err, ENOTSUP, "frame: a patch needs its base chunk");
	frame_check(b, n - FRAME_HEADER_BYTES, check);
	if (memcmp(check, b + CHECKED_HEADER_BYTES, CHECK_BYTES) != 0)
		return err_set(err, EBADMSG, "frame: the check does not match");
	r = decode_payload(b + FRAME_HEADER_BYTES, &info, ret, err);
	if (r < 0)
		return r;
	digest_of(ret->data + had, info.plain_len, &found);
	if (!digest_eq(&found, id)) {
		ret->len = had;
		return err_set(err, EBADMSG, "frame: the bytes do not match their id");
	}
	return 0;
}
