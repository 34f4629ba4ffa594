// SPDX-License-Identifier: Apache-2.0
/*
 * A log file is "log-N" (N in decimal): a header, then records, one after another.
 *
 *	header, 48 bytes
 *	 0  8  "VRVSTAGE"
 *	 8  4  version, 1
 *	12  4  flags: 1 = files of smaller numbers count no more; 2 = staging_log_supersede() was
 *	       not reached: neither this file counts nor those of larger numbers
 *	16  8  number
 *	24 16  boot id of the system
 *	40  8  check: first 8 bytes of BLAKE3 of bytes 0-39
 *
 *	record, 80 bytes and the payload
 *	 0  4  "VSR1"
 *	 4  4  kind
 *	 8  4  payload length
 *	12  4  zero
 *	16  8  node
 *	24  8  staging id
 *	32 24  a, b, c
 *	56  8  time, nanoseconds since 1970
 *	64  8  check of the payload: first 8 bytes of its BLAKE3; zero when it is empty
 *	72  8  check: first 8 bytes of BLAKE3 of bytes 0-71
 *
 * Behind the records can be zeros, up to the file's end.
 *
 * Integers are little-endian. A record counts when both checks match. The death of the process
 * can leave the last one short, as one append follows another under a lock; any other that does
 * not match is damage, and is told; those behind it count. After power loss the first that does
 * not match ends the file.
 *
 * A file is only ever removed when all older ones are gone: what ended a staging (SEALED,
 * DROPPED) may stand in a later file than its BEGIN.
 */
#include "fs/staging_log.h"

#include "bytes.h"
#include "fault.h"
#include "io.h"
#include "bounds.h"
#include "meta/group_sync.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define HEADER_BYTES 48
#define HEADER_MAGIC "VRVSTAGE"
#define LOG_VERSION 1
#define HEADER_SUPERSEDES 1
#define HEADER_UNFINISHED 2
#define RECORD_BYTES 80
#define RECORD_MAGIC 0x31525356u /* "VSR1" */
/* Large enough that files are rare, small enough that a crash replays quickly. */
#define LOG_BYTES_MAX (64 * MIB)
/*
 * A sync of bytes that lie where zeros were before needs no journal transaction of the file
 * system, which costs it two to four times the time. So who syncs writes zeros ahead, more each
 * time as long as he goes on; and again when less than this is left of them.
 */
#define AHEAD_LEFT_MIN (16 * KIB)
#define AHEAD_FIRST_BYTES (64 * KIB)
#define AHEAD_DOUBLINGS_MAX 4
/* In whole pieces a write reaches the page cache: the death of a process falls between them. */
#define PAGE_BYTES 4096

struct log_file {
	struct log_file *next; /* newer */
	uint64_t number;
	int fd;
	uint64_t end;
	uint64_t zeroed; /* zeros are written up to here */
	unsigned doublings; /* of how much the next zeros are */
	size_t pins;
	bool unsynced;
	bool unnamed; /* its name is not known to be durable */
};

struct staging_log {
	int dir_fd;
	pthread_mutex_t lock;
	struct log_file *oldest, *newest;
	size_t syncing; /* while not 0 no file is removed */
	bool removed; /* a file, and it is not known to be durable: it could be back */
	struct group_sync sync;
	int failed; /* a sync failed: what the kernel then forgot cannot be vouched for again */
};

static uint64_t check_of(const void *p, size_t n)
{
	struct digest d;

	if (n == 0)
		return 0;
	digest_of(p, n, &d);
	return get_le64(d.b);
}

static void file_name(uint64_t number, char ret[32])
{
	snprintf(ret, 32, "log-%llu", (unsigned long long)number);
}

bool staging_log_parse_name(const char *name, uint64_t *ret)
{
	unsigned long long n;
	char back[32];

	if (sscanf(name, "log-%llu", &n) != 1)
		return false;
	file_name(n, back);
	if (strcmp(back, name) != 0)
		return false;
	*ret = n;
	return true;
}

void staging_boot_id(uint8_t ret[BOOT_ID_BYTES])
{
	_cleanup_buf_ struct buf b = { 0 };
	char digits[2 * BOOT_ID_BYTES];
	size_t n = 0;

	memset(ret, 0, BOOT_ID_BYTES);
	if (io_read_file("/proc/sys/kernel/random/boot_id", 256, &b) < 0)
		return;
	for (size_t i = 0; i < b.len && n < sizeof digits; i++) {
		if (b.data[i] != '-')
			digits[n++] = (char)b.data[i];
	}
	if (!hex_decode(digits, n, ret, BOOT_ID_BYTES))
		memset(ret, 0, BOOT_ID_BYTES);
}

static int write_header(int fd, uint64_t number, uint32_t flags)
{
	uint8_t b[HEADER_BYTES];

	memcpy(b, HEADER_MAGIC, 8);
	put_le32(b + 8, LOG_VERSION);
	put_le32(b + 12, flags);
	put_le64(b + 16, number);
	staging_boot_id(b + 24);
	put_le64(b + 40, check_of(b, 40));
	return io_pwrite_full(fd, b, sizeof b, 0);
}

static int create_file(
	struct staging_log *log, uint64_t number, uint32_t flags, struct log_file **ret)
{
	struct log_file *f = calloc(1, sizeof *f);
	char name[32];
	int r;

	if (!f)
		return -ENOMEM;
	file_name(number, name);
	f->number = number;
	f->end = HEADER_BYTES;
	f->unsynced = f->unnamed = true;
	f->fd = openat(log->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	r = f->fd < 0 ? -errno : write_header(f->fd, number, flags);
	if (r < 0) {
		if (f->fd >= 0) {
			close(f->fd);
			unlinkat(log->dir_fd, name, 0);
		}
		free(f);
		return r;
	}
	*ret = f;
	return 0;
}

int staging_log_new(int dir_fd, uint64_t first, struct staging_log **ret)
{
	struct staging_log *log = calloc(1, sizeof *log);
	int r;

	if (!log)
		return -ENOMEM;
	log->dir_fd = dir_fd;
	r = create_file(log, first, HEADER_UNFINISHED, &log->oldest);
	if (r < 0) {
		free(log);
		return r;
	}
	log->newest = log->oldest;
	pthread_mutex_init(&log->lock, NULL);
	group_sync_init(&log->sync);
	*ret = log;
	return 0;
}

static void remove_oldest(struct staging_log *log)
{
	struct log_file *f = log->oldest;
	char name[32];

	file_name(f->number, name);
	unlinkat(log->dir_fd, name, 0);
	log->removed = true;
	close(f->fd);
	log->oldest = f->next;
	free(f);
}

static void tidy_locked(struct staging_log *log)
{
	while (!log->syncing && log->oldest != log->newest && log->oldest->pins == 0)
		remove_oldest(log);
}

void staging_log_free(struct staging_log *log)
{
	if (!log)
		return;
	while (log->oldest && log->oldest->pins == 0)
		remove_oldest(log);
	while (log->oldest) {
		struct log_file *f = log->oldest;

		log->oldest = f->next;
		close(f->fd);
		free(f);
	}
	group_sync_done(&log->sync);
	pthread_mutex_destroy(&log->lock);
	free(log);
}

static void encode_record(const struct record *r, uint8_t b[RECORD_BYTES])
{
	put_le32(b, RECORD_MAGIC);
	put_le32(b + 4, r->kind);
	put_le32(b + 8, (uint32_t)r->payload.n);
	put_le32(b + 12, 0);
	put_le64(b + 16, r->node);
	put_le64(b + 24, r->staging);
	put_le64(b + 32, r->a);
	put_le64(b + 40, r->b);
	put_le64(b + 48, r->c);
	put_le64(b + 56, (uint64_t)r->time_ns);
	put_le64(b + 64, check_of(r->payload.p, r->payload.n));
	put_le64(b + 72, check_of(b, 72));
}

static int rotate_locked(struct staging_log *log)
{
	struct log_file *f;
	int r = create_file(log, log->newest->number + 1, 0, &f);

	if (r < 0)
		return r;
	log->newest->next = f;
	log->newest = f;
	tidy_locked(log);
	return 0;
}

/* All of it, or an error and the file cut back to what it was. */
static int write_at_end(struct log_file *f, struct iovec *iov, int n, size_t total)
{
	ssize_t put = pwritev(f->fd, iov, n, (off_t)f->end);
	int r = put < 0 ? -errno : 0;

	/* Short: the disk is full, or a signal came; the rest again says which. */
	for (size_t done = put < 0 ? 0 : (size_t)put, at = 0; r == 0 && done < total;) {
		struct iovec *v = iov;

		for (at = 0; at + v->iov_len <= done; v++)
			at += v->iov_len;
		r = io_pwrite_full(f->fd, (uint8_t *)v->iov_base + (done - at),
			v->iov_len - (done - at), f->end + done);
		done = at + v->iov_len;
	}
	if (r == 0) {
		f->end += total;
		f->unsynced = true;
	} else if (ftruncate(f->fd, (off_t)f->end) == 0) {
		/* If not, the next append begins at `end` all the same, over what is torn. */
		f->zeroed = f->end;
	}
	return r;
}

int staging_log_append(
	struct staging_log *log, const struct record *records, size_t n, uint64_t *ret_number)
{
	uint8_t headers[APPEND_RECORDS_MAX][RECORD_BYTES];
	struct iovec iov[2 * APPEND_RECORDS_MAX];
	size_t total = 0, begins = 0;
	int n_iov = 0, r;

	assert(n > 0 && n <= APPEND_RECORDS_MAX);
	for (size_t i = 0; i < n; i++) {
		const struct slice *payload = &records[i].payload;

		assert(payload->n <= RECORD_PAYLOAD_MAX);
		encode_record(&records[i], headers[i]);
		iov[n_iov++] = (struct iovec){ headers[i], RECORD_BYTES };
		if (payload->n)
			iov[n_iov++] = (struct iovec){ (void *)(uintptr_t)payload->p, payload->n };
		total += RECORD_BYTES + payload->n;
		begins += records[i].kind == RECORD_BEGIN;
	}
	r = fault_point("staging.before-record");
	if (r < 0)
		return r;
	SCOPED_LOCK(&log->lock);
	if (log->newest->end + total > LOG_BYTES_MAX) {
		r = rotate_locked(log);
		if (r < 0)
			return r;
	}
	r = write_at_end(log->newest, iov, n_iov, total);
	if (r < 0)
		return r;
	log->newest->pins += begins;
	if (ret_number)
		*ret_number = log->newest->number;
	return 0;
}

void staging_log_unpin(struct staging_log *log, uint64_t number)
{
	struct log_file *f;

	SCOPED_LOCK(&log->lock);
	for (f = log->oldest; f && f->number != number; f = f->next)
		;
	assert(f && f->pins > 0);
	f->pins--;
	tidy_locked(log);
}

/* Zeros for the syncs to come; the one that follows makes them durable, too. */
static void write_ahead_locked(struct log_file *f)
{
	static const uint8_t zeros[AHEAD_FIRST_BYTES];
	uint64_t start = MAX(f->end, f->zeroed), end;

	if (f->end + AHEAD_LEFT_MIN <= f->zeroed)
		return;
	end = MIN(start + ((uint64_t)AHEAD_FIRST_BYTES << f->doublings), LOG_BYTES_MAX);
	/* A full disk: the sync takes longer. */
	for (; start < end; start = f->zeroed) {
		size_t n = (size_t)MIN(end - start, sizeof zeros);

		if (io_pwrite_full(f->fd, zeros, n, start) < 0)
			return;
		f->zeroed = start + n;
	}
	f->doublings = MIN(f->doublings + 1, AHEAD_DOUBLINGS_MAX);
}

/*
 * The files stay while `syncing` is raised; their flags are taken first, so that a write during
 * the sync sets them again.
 */
static int sync_one(struct staging_log *log, struct log_file *f)
{
	bool unsynced, unnamed;
	int r = 0;

	pthread_mutex_lock(&log->lock);
	if (f->unsynced && f == log->newest)
		write_ahead_locked(f);
	unsynced = f->unsynced;
	unnamed = f->unnamed;
	f->unsynced = f->unnamed = false;
	pthread_mutex_unlock(&log->lock);
	if (unsynced && fdatasync(f->fd) < 0)
		r = -errno;
	if (r == 0 && unnamed && fsync(log->dir_fd) < 0)
		r = -errno;
	return r;
}

static int sync_all(void *ctx)
{
	struct staging_log *log = ctx;
	struct log_file *f, *last;
	bool removed;
	int r;

	pthread_mutex_lock(&log->lock);
	log->syncing++;
	f = log->oldest;
	last = log->newest;
	r = log->failed;
	removed = log->removed;
	log->removed = false;
	pthread_mutex_unlock(&log->lock);
	for (; r == 0; f = f->next) {
		r = sync_one(log, f);
		if (f == last)
			break;
	}
	if (r == 0 && removed && fsync(log->dir_fd) < 0)
		r = -errno;
	pthread_mutex_lock(&log->lock);
	if (r < 0)
		log->failed = r;
	log->syncing--;
	tidy_locked(log);
	pthread_mutex_unlock(&log->lock);
	return r;
}

int staging_log_sync(struct staging_log *log)
{
	int r = fault_point("staging.log-sync");

	if (r < 0)
		return r;
	return group_sync_run(&log->sync, sync_all, log);
}

int staging_log_supersede(struct staging_log *log)
{
	SCOPED_LOCK(&log->lock);
	return write_header(log->oldest->fd, log->oldest->number, HEADER_SUPERSEDES);
}

static bool decode_header(const uint8_t *b, struct log_header *ret)
{
	if (memcmp(b, HEADER_MAGIC, 8) != 0 || get_le32(b + 8) != LOG_VERSION ||
		get_le64(b + 40) != check_of(b, 40))
		return false;
	*ret = (struct log_header){
		.number = get_le64(b + 16),
		.supersedes = get_le32(b + 12) & HEADER_SUPERSEDES,
		.unfinished = get_le32(b + 12) & HEADER_UNFINISHED,
	};
	memcpy(ret->boot_id, b + 24, BOOT_ID_BYTES);
	return true;
}

static bool decode_record(const uint8_t *b, struct record *ret)
{
	if (get_le32(b) != RECORD_MAGIC || get_le64(b + 72) != check_of(b, 72))
		return false;
	*ret = (struct record){
		.kind = get_le32(b + 4),
		.node = get_le64(b + 16),
		.staging = get_le64(b + 24),
		.a = get_le64(b + 32),
		.b = get_le64(b + 40),
		.c = get_le64(b + 48),
		.time_ns = (int64_t)get_le64(b + 56),
		.payload.n = get_le32(b + 8),
	};
	return ret->kind >= RECORD_BEGIN && ret->kind <= RECORD_KIND_LAST &&
	       ret->payload.n <= RECORD_PAYLOAD_MAX;
}

/* A log file in memory, and how far it is read. */
struct log_reader {
	const uint8_t *p;
	size_t n, at;
	size_t filled; /* from here on are zeros only */
	bool same_boot; /* nothing but the last record can be torn */
};

static bool magic_at(const struct log_reader *l, size_t at)
{
	return l->n - at >= RECORD_BYTES && get_le32(l->p + at) == RECORD_MAGIC;
}

/* Behind damage: the next header that is whole, or the end. */
static void skip_damage(struct log_reader *l)
{
	struct record rec;

	for (l->at++; l->n - l->at >= RECORD_BYTES; l->at++) {
		if (magic_at(l, l->at) && decode_record(l->p + l->at, &rec))
			return;
	}
	l->at = l->n;
}

/*
 * Whether the record of n bytes, which does not match, is the last one, cut short: zeros from the
 * begin of one of its pages on.
 */
static bool is_torn(const struct log_reader *l, size_t n)
{
	size_t last = l->at + n - 1;

	return l->filled <= last - last % PAGE_BYTES;
}

/* 1 a whole record, 0 the end, -EBADMSG damage (with the record's staging when that is known). */
static int next_record(struct log_reader *l, struct record *ret)
{
	const uint8_t *b = l->p + l->at;
	size_t left = l->n - l->at - RECORD_BYTES;

	ret->staging = 0;
	if (l->n - l->at < RECORD_BYTES || l->at >= l->filled)
		return 0;
	if (!decode_record(b, ret)) {
		ret->staging = 0;
		return l->same_boot && !is_torn(l, RECORD_BYTES) ? -EBADMSG : 0;
	}
	if (ret->payload.n > left)
		return 0;
	ret->payload.p = b + RECORD_BYTES;
	if (check_of(ret->payload.p, ret->payload.n) != get_le64(b + 64)) {
		bool torn = is_torn(l, RECORD_BYTES + ret->payload.n);

		l->at += RECORD_BYTES + ret->payload.n - 1; /* skip_damage() goes on behind it */
		return l->same_boot && !torn ? -EBADMSG : 0;
	}
	l->at += RECORD_BYTES;
	l->at += ret->payload.n;
	return 1;
}

static int read_records(struct log_reader *l, struct log_header *header,
	int (*visit)(void *ctx, const struct log_header *header, const struct record *r), void *ctx)
{
	struct record rec;
	int r;

	while ((r = next_record(l, &rec)) != 0) {
		if (r < 0) {
			header->damaged++;
			rec = (struct record){ .kind = RECORD_DAMAGED, .staging = rec.staging };
			skip_damage(l);
		}
		r = visit(ctx, header, &rec);
		if (r < 0)
			return r;
	}
	return 1;
}

/* One whose header is damaged, and that has records, is read as if nothing were said in it. */
static bool mend_header(
	struct log_reader *l, uint64_t number, const uint8_t boot_id[16], struct log_header *ret)
{
	struct record rec;

	if (l->n < HEADER_BYTES + RECORD_BYTES || !decode_record(l->p + HEADER_BYTES, &rec))
		return false;
	*ret = (struct log_header){ .number = number, .damaged = 1 };
	memcpy(ret->boot_id, boot_id, BOOT_ID_BYTES);
	return true;
}

static int read_mapped(struct log_reader *l, uint64_t number, struct log_header *ret,
	int (*visit)(void *ctx, const struct log_header *header, const struct record *r), void *ctx)
{
	uint8_t boot_id[BOOT_ID_BYTES];

	staging_boot_id(boot_id);
	if ((!decode_header(l->p, ret) || ret->number != number) &&
		!mend_header(l, number, boot_id, ret))
		return 0;
	l->same_boot = memcmp(ret->boot_id, boot_id, BOOT_ID_BYTES) == 0;
	l->at = HEADER_BYTES;
	for (l->filled = l->n; l->filled > 0 && l->p[l->filled - 1] == 0; l->filled--)
		;
	return read_records(l, ret, visit, ctx);
}

int staging_log_read(int dir_fd, uint64_t number, struct log_header *ret,
	int (*visit)(void *ctx, const struct log_header *header, const struct record *r), void *ctx)
{
	_cleanup_close_ int fd = -1;
	struct log_reader l = { 0 };
	char name[32];
	struct stat st;
	void *p;
	int r;

	file_name(number, name);
	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < HEADER_BYTES)
		return 0;
	l.n = (size_t)st.st_size;
	p = mmap(NULL, l.n, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	l.p = p;
	r = read_mapped(&l, number, ret, visit, ctx);
	munmap(p, l.n);
	return r;
}
