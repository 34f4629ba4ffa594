// SPDX-License-Identifier: Apache-2.0
#include "bounds.h"
#include "bytes.h"
#include "fault.h"
#include "fs/instance.h"
#include "io.h"
#include "tests/support/files_kit.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char dir[128], staging[160];
static struct kit k;

static void setup(void)
{
	kit_make_dir(dir, sizeof dir);
	snprintf(staging, sizeof staging, "%s/staging", dir);
}

static void teardown(void)
{
	unsetenv("VARVE_FAULT");
	ck_assert_int_eq(io_remove_tree(dir), 0);
}

/* ---- the log alone ---- */

static int count_records(void *ctx, const struct log_header *h, const struct record *r)
{
	size_t *n = ctx;

	/* Each says its number, and has as many bytes of it. */
	ck_assert_uint_eq(r->a, *n);
	ck_assert_uint_eq(r->payload.n, *n * 10);
	for (size_t i = 0; i < r->payload.n; i++)
		ck_assert_uint_eq(r->payload.p[i], (uint8_t)*n);
	++*n;
	return 0;
}

#define LOG_RECORDS 6
/* Its header, and the records with their payloads. */
#define LOG_END (48 + LOG_RECORDS * 80 + 10 * (0 + 1 + 2 + 3 + 4 + 5))

static size_t write_log(int fd)
{
	struct staging_log *log;
	struct stat st;
	uint8_t bytes[100];

	ck_assert_int_eq(staging_log_new(fd, 7, &log), 0);
	ck_assert_int_eq(staging_log_supersede(log), 0);
	for (size_t i = 0; i < LOG_RECORDS; i++) {
		struct record r = {
			.kind = i ? RECORD_WRITE : RECORD_BEGIN,
			.node = 3,
			.staging = 4,
			.a = i,
			.payload = { bytes, i * 10 },
		};

		memset(bytes, (int)i, sizeof bytes);
		ck_assert_int_eq(staging_log_append(log, &r, 1, NULL), 0);
	}
	ck_assert_int_eq(staging_log_sync(log), 0);
	/* Its begin pins it, so it stays. */
	staging_log_free(log);
	ck_assert_int_eq(fstatat(fd, "log-7", &st, 0), 0);
	return (size_t)st.st_size;
}

static size_t records_in(int fd, int *ret)
{
	struct log_header h;
	size_t n = 0;

	*ret = staging_log_read(fd, 7, &h, count_records, &n);
	if (*ret > 0)
		ck_assert(h.supersedes && !h.unfinished && h.number == 7);
	return n;
}

START_TEST(a_torn_log_ends_where_it_is_torn)
{
	int dir_fd = open(dir, O_RDONLY | O_DIRECTORY), fd, r;
	size_t last = LOG_RECORDS;

	write_log(dir_fd);
	ck_assert_uint_eq(records_in(dir_fd, &r), LOG_RECORDS);
	fd = openat(dir_fd, "log-7", O_RDWR);
	for (size_t n = LOG_END; n-- > 0;) {
		size_t found;

		ck_assert_int_eq(ftruncate(fd, (off_t)n), 0);
		found = records_in(dir_fd, &r);
		ck_assert_int_eq(r, n < 48 ? 0 : 1);
		ck_assert_uint_le(found, last);
		ck_assert_uint_lt(found, LOG_RECORDS);
		last = found;
	}
	ck_assert_uint_eq(last, 0);
	close(fd);
	close(dir_fd);
}
END_TEST

/* Counts whole records, and damage from 100 on. */
static int count_damage(void *ctx, const struct log_header *header, const struct record *r)
{
	*(size_t *)ctx += r->kind == RECORD_DAMAGED ? 100 : 1;
	return 0;
}

static size_t look_at_log(int dir_fd, bool same_boot)
{
	struct log_header h = { 0 };
	size_t n = 0;
	int r = staging_log_read(dir_fd, 7, &h, count_damage, &n);

	ck_assert_int_eq(r, 1);
	ck_assert(!same_boot || h.damaged == 1);
	return n;
}

/* The process dies, the system does not: what stands behind the damage had been accepted. */
START_TEST(a_flipped_bit_loses_one_record)
{
	int dir_fd = open(dir, O_RDONLY | O_DIRECTORY), fd, r;
	size_t size = write_log(dir_fd);

	/* Behind the records lie zeros. */
	ck_assert_uint_ge(size, LOG_END);
	fd = openat(dir_fd, "log-7", O_RDWR);
	for (size_t at = 0; at < LOG_END; at++) {
		uint8_t b;
		size_t found;

		ck_assert_int_eq(io_pread_full(fd, &b, 1, at), 0);
		b ^= 0x10;
		ck_assert_int_eq(io_pwrite_full(fd, &b, 1, at), 0);
		found = look_at_log(dir_fd, true);
		/* The file's own header says nothing that the records need. */
		ck_assert_uint_eq(found, at < 48 ? LOG_RECORDS : LOG_RECORDS - 1 + 100);
		b ^= 0x10;
		ck_assert_int_eq(io_pwrite_full(fd, &b, 1, at), 0);
	}
	ck_assert_uint_eq(records_in(dir_fd, &r), LOG_RECORDS);
	close(fd);
	close(dir_fd);
}
END_TEST

START_TEST(old_logs_go_when_nothing_began_there)
{
	struct staging_log *log;
	int fd = open(dir, O_RDONLY | O_DIRECTORY);
	uint8_t *p = calloc(1, 100000);
	struct record r = { .kind = RECORD_BEGIN, .payload = { p, 100000 } };
	uint64_t first, last;

	ck_assert_int_eq(staging_log_new(fd, 1, &log), 0);
	ck_assert_int_eq(staging_log_append(log, &r, 1, &first), 0);
	r.kind = RECORD_WRITE;
	for (int i = 0; i < 1500; i++)
		ck_assert_int_eq(staging_log_append(log, &r, 1, &last), 0);
	ck_assert_uint_eq(first, 1);
	ck_assert_uint_eq(last, 3);
	ck_assert_int_eq(faccessat(fd, "log-1", F_OK, 0), 0);
	ck_assert_int_eq(faccessat(fd, "log-2", F_OK, 0), 0);
	staging_log_unpin(log, 1);
	ck_assert_int_eq(faccessat(fd, "log-1", F_OK, 0), -1);
	ck_assert_int_eq(faccessat(fd, "log-2", F_OK, 0), -1);
	ck_assert_int_eq(faccessat(fd, "log-3", F_OK, 0), 0);
	staging_log_free(log);
	ck_assert_int_eq(faccessat(fd, "log-3", F_OK, 0), -1);
	close(fd);
	free(p);
}
END_TEST

START_TEST(a_begin_is_checked)
{
	struct staging_begin b = { .home_name = { (const uint8_t *)"name", 4 }, .size = 9 }, back;
	_cleanup_buf_ struct buf buf = { 0 };
	struct record r = { .kind = RECORD_BEGIN, .node = 5, .staging = 6 };

	ck_assert_int_eq(staging_begin_encode(&b, &buf), 0);
	for (size_t n = 0; n < buf.len; n++) {
		r.payload = (struct slice){ buf.data, n };
		ck_assert_int_eq(staging_begin_decode(&r, &back), -EBADMSG);
	}
	r.payload.n = buf.len;
	ck_assert_int_eq(staging_begin_decode(&r, &back), 0);
	ck_assert_uint_eq(back.home_name.n, 4);
	ck_assert_uint_eq(back.size, 9);
	/* Lengths that would wrap. */
	put_le32(buf.data + 92, UINT32_MAX);
	ck_assert_int_eq(staging_begin_decode(&r, &back), -EBADMSG);
	put_le32(buf.data + 88, UINT32_MAX);
	ck_assert_int_eq(staging_begin_decode(&r, &back), -EBADMSG);
}
END_TEST

/* ---- what a process leaves that dies ---- */

static void in_a_child(void (*run)(void))
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		kit_open(&k, dir);
		run();
		/* Before the thread seals what nobody has open. */
		kill(getpid(), SIGKILL);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void must(int r)
{
	if (r < 0)
		abort();
}

static uint8_t pattern[8 * 1024 * 1024];

static void make_pattern(void)
{
	struct rng r = { 4 };

	rng_fill(&r, pattern, sizeof pattern);
}

static void check_content(const char *name, const void *want, size_t n)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct digest id = kit_content_id(want, n), is;
	uint64_t node = kit_find(&k, name);

	ck_assert_uint_ne(node, 0);
	kit_read_sealed(&k, node, &b);
	ck_assert_uint_eq(b.len, n);
	ck_assert(n == 0 || memcmp(b.data, want, n) == 0);
	is = kit_sealed_id(&k, node);
	ck_assert(digest_eq(&id, &is));
}

static void leave_three_files(void)
{
	struct file *f = kit_get(&k, kit_create(&k, "small"));

	must(file_write(f, 0, pattern, 1000, false));
	must(file_flush(f));
	must(file_write(f, 500, pattern, 1000, false));
	f = kit_get(&k, kit_create(&k, "large"));
	for (size_t at = 0; at < sizeof pattern; at += 100000)
		must(file_write(f, at, pattern + at, MIN(100000, sizeof pattern - at), false));
	must(file_truncate(f, 7000000));
	must(file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 300000));
	f = kit_get(&k, kit_create(&k, "cut"));
	must(file_write(f, 0, pattern, 100000, false));
	must(file_flush(f));
	must(file_truncate(f, 0));
	file_set_times(f, ATTR_MTIME, 42, 0);
}

START_TEST(a_dead_process_leaves_what_it_accepted)
{
	static uint8_t want[sizeof pattern];
	struct files_stats st;
	struct node n;

	make_pattern();
	in_a_child(leave_three_files);
	kit_open(&k, dir);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.recovered, 3);
	ck_assert_uint_eq(st.damaged, 0);
	ck_assert_uint_eq(st.dirty, 0);
	ck_assert_uint_eq(st.staged_bytes, 0);
	memcpy(want, pattern, 1000);
	memcpy(want + 500, pattern, 1000);
	check_content("small", want, 1500);
	memcpy(want, pattern, 7000000);
	memset(want + 1000, 0, 300000);
	check_content("large", want, 7000000);
	check_content("cut", want, 0);
	ck_assert_int_eq(tree_get(k.tree, kit_find(&k, "cut"), &n), 1);
	ck_assert_int_eq(n.attr.mtime_ns, 42);
	kit_close(&k);
	/* And nothing is left to recover. */
	kit_open(&k, dir);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.recovered, 0);
	kit_close(&k);
}
END_TEST

/* The same folder, as after another start of the system. */
static void change_boot_id(void)
{
	DIR *d = opendir(staging);
	struct dirent *e;

	while ((e = readdir(d))) {
		uint8_t b[48];
		struct digest id;
		uint64_t number;
		int fd;

		if (!staging_log_parse_name(e->d_name, &number))
			continue;
		fd = openat(dirfd(d), e->d_name, O_RDWR);
		ck_assert_int_eq(io_pread_full(fd, b, sizeof b, 0), 0);
		b[24] ^= 1;
		digest_of(b, 40, &id);
		memcpy(b + 40, id.b, 8);
		ck_assert_int_eq(io_pwrite_full(fd, b, sizeof b, 0), 0);
		close(fd);
	}
	closedir(d);
}

static void write_sync_write(void)
{
	struct file *f = kit_get(&k, kit_create(&k, "synced"));

	must(file_write(f, 0, pattern, 300000, false));
	must(file_write(f, 500000, pattern, 100000, false));
	must(file_fsync(f));
	must(file_write(f, 600000, pattern, 200000, false));
	must(file_write(f, 100000, pattern, 10, false));
	must(file_write(f, 400000, pattern, 5000, false));
	f = kit_get(&k, kit_create(&k, "unsynced"));
	must(file_write(f, 0, pattern, 300000, false));
	f = kit_get(&k, kit_create(&k, "small"));
	must(file_write(f, 0, pattern, 3000, false));
	must(file_fsync(f));
}

START_TEST(power_loss_leaves_what_was_synced)
{
	static uint8_t want[600000];
	struct files_stats st;

	make_pattern();
	in_a_child(write_sync_write);
	change_boot_id();
	kit_open(&k, dir);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.damaged, 0);
	memcpy(want, pattern, 300000);
	memcpy(want + 500000, pattern, 100000);
	/* Written over what was synced already: either is right, and here it is the newer. */
	memcpy(want + 100000, pattern, 10);
	check_content("synced", want, 600000);
	check_content("unsynced", want, 0);
	check_content("small", pattern, 3000);
	kit_close(&k);
}
END_TEST

/* Many small writes and syncs: the file itself is synced in the middle only. */
static void write_and_sync_often(void)
{
	struct file *f = kit_get(&k, kit_create(&k, "often"));
	struct file *g = kit_get(&k, kit_create(&k, "appended"));

	must(file_write(f, 0, pattern, 60000, false));
	must(file_fsync(f));
	for (uint64_t at = 60000; at < 200000; at += 4000) {
		must(file_write(f, at, pattern + at, 4000, false));
		must(file_fsync(f));
	}
	/* The file alone has these, so it is synced; and what lay below them is in the log. */
	must(file_write(f, 100000, pattern, 50000, false));
	must(file_fsync(f));
	must(file_write(f, 400000, pattern + 1, 3000, false));
	must(file_write(f, 100500, pattern + 2, 1000, false));
	must(file_fsync(f));
	/* Nobody was promised these. */
	must(file_write(f, 500000, pattern, 300000, false));
	must(file_write(f, 700000, pattern, 4000, false));
	for (uint64_t at = 0; at < 150000; at += 5000) {
		must(file_write(g, at, pattern + at, 5000, false));
		must(file_fsync(g));
	}
	must(file_fallocate(g, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10000, 100000));
	must(file_write(g, 20000, pattern, 100, false));
	must(file_fsync(g));
}

static void check_often(void)
{
	static uint8_t want[403000];
	struct files_stats st;

	kit_open(&k, dir);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.damaged, 0);
	memcpy(want, pattern, 200000);
	memcpy(want + 100000, pattern, 50000);
	memset(want + 200000, 0, 200000);
	memcpy(want + 400000, pattern + 1, 3000);
	memcpy(want + 100500, pattern + 2, 1000);
	check_content("often", want, 403000);
	memcpy(want, pattern, 150000);
	memset(want + 10000, 0, 100000);
	memcpy(want + 20000, pattern, 100);
	check_content("appended", want, 150000);
	kit_close(&k);
}

/* What a power loss leaves of a file that was not synced: nothing that one could rely on. */
static void lose_files(void)
{
	struct dirent *e;
	DIR *d = opendir(staging);
	uint64_t id;
	bool kept;

	while ((e = readdir(d))) {
		if (staging_parse_name(e->d_name, &id, &kept) && id == 2)
			must(unlinkat(dirfd(d), e->d_name, 0));
	}
	closedir(d);
}

START_TEST(copies_in_the_log_stand_for_a_sync)
{
	make_pattern();
	in_a_child(write_and_sync_often);
	change_boot_id();
	lose_files();
	check_often();
}
END_TEST

/* Killed when it has written those files again, recovery begins anew with what is there. */
START_TEST(copies_are_taken_twice)
{
	pid_t pid;
	int status;

	make_pattern();
	in_a_child(write_and_sync_often);
	change_boot_id();
	lose_files();
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		setenv("VARVE_FAULT", "recover.restated:1:kill", 1);
		must(fault_init());
		kit_open(&k, dir);
		abort();
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	check_often();
}
END_TEST

/* Zeros that the log's syncs wrote ahead end it; so does a record that a death cut short there. */
START_TEST(zeros_behind_the_log_are_its_end)
{
	uint8_t bytes[9000];
	size_t n = 0, end;
	struct staging_log *log;
	struct log_header h;
	struct stat st;
	int dir_fd, fd;
	struct record r = { .kind = RECORD_BEGIN, .staging = 4 };

	memset(bytes, 1, sizeof bytes);
	must(io_mkdirs(staging, 0700));
	dir_fd = open(staging, O_RDONLY | O_DIRECTORY);
	must(staging_log_new(dir_fd, 7, &log));
	must(staging_log_append(log, &r, 1, NULL));
	r = (struct record){ .kind = RECORD_WRITE, .a = 1, .payload = { bytes, 10 } };
	must(staging_log_append(log, &r, 1, NULL));
	must(staging_log_sync(log));
	end = 48 + 80 + 80 + 10;
	fd = openat(dir_fd, "log-7", O_RDWR);
	must(fstat(fd, &st));
	ck_assert_int_ge(st.st_size, 64 * 1024);
	must(staging_log_supersede(log));
	ck_assert_int_eq(staging_log_read(dir_fd, 7, &h, count_records, &n), 1);
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_eq(h.damaged, 0);
	/* The next one arrives, but not its last page. */
	r = (struct record){ .kind = RECORD_WRITE, .a = 2, .payload = { bytes, sizeof bytes } };
	must(staging_log_append(log, &r, 1, NULL));
	memset(bytes, 0, sizeof bytes);
	must(io_pwrite_full(fd, bytes, end + 80 + sizeof bytes - 8192, 8192));
	n = 0;
	ck_assert_int_eq(staging_log_read(dir_fd, 7, &h, count_records, &n), 1);
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_eq(h.damaged, 0);
	staging_log_free(log);
	close(fd);
	close(dir_fd);
}
END_TEST

static void command(const char *format)
{
	_cleanup_buf_ struct buf b = { 0 };

	must(buf_printf(&b, "cd %s && %s", dir, format));
	if (system(buf_str(&b)) != 0)
		abort();
}

/* The store is put aside before the seal: as if its log had not reached the disk. */
static void seal_what_was_synced(void)
{
	struct file *f = kit_get(&k, kit_create(&k, "large"));
	struct file *g = kit_get(&k, kit_create(&k, "small"));

	must(file_write(f, 0, pattern, sizeof pattern, false));
	must(file_write(g, 0, pattern, 2000, false));
	must(file_fsync(f));
	must(file_fsync(g));
	command("cp -a store before");
	must(file_flush(f));
	must(file_flush(g));
	must(file_write(g, 0, pattern + 1, 2000, false));
	must(file_fsync(g));
	must(file_flush(g));
}

START_TEST(what_was_synced_outlives_its_seal)
{
	struct files_stats st;

	make_pattern();
	in_a_child(seal_what_was_synced);
	command("rm -r store && mv before store");
	change_boot_id();
	kit_open(&k, dir);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.damaged, 0);
	check_content("large", pattern, sizeof pattern);
	check_content("small", pattern + 1, 2000);
	kit_close(&k);
}
END_TEST

START_TEST(what_was_sealed_is_not_sealed_twice)
{
	struct files_stats st;

	make_pattern();
	in_a_child(seal_what_was_synced);
	change_boot_id();
	kit_open(&k, dir);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.recovered, 0);
	check_content("large", pattern, sizeof pattern);
	check_content("small", pattern + 1, 2000);
	kit_close(&k);
}
END_TEST

static void leave_a_large_file(void)
{
	struct file *f = kit_get(&k, kit_create(&k, "large"));

	must(file_write(f, 0, pattern, sizeof pattern, false));
	f = kit_get(&k, kit_create(&k, "other"));
	must(file_write(f, 0, pattern, 10, false));
}

START_TEST(damage_concerns_one_file)
{
	struct files_stats st;

	make_pattern();
	in_a_child(leave_a_large_file);
	command("rm staging/f-*");
	kit_open(&k, dir);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.damaged, 1);
	ck_assert_uint_eq(st.recovered, 1);
	check_content("large", pattern, 0);
	check_content("other", pattern, 10);
	kit_close(&k);
}
END_TEST

START_TEST(foreign_files_do_no_harm)
{
	struct files_stats st;

	ck_assert_int_eq(io_mkdirs(staging, 0700), 0);
	command("echo hello >staging/log-1; : >staging/log-2; echo x >staging/f-0000000000000001; "
		"echo x >staging/strange; mkdir staging/folder");
	kit_open(&k, dir);
	files_get_stats(k.files, &st);
	ck_assert_uint_eq(st.recovered, 0);
	kit_close(&k);
}
END_TEST

/* ---- a disk that is full ---- */

static void arm(const char *fault)
{
	setenv("VARVE_FAULT", fault, 1);
	ck_assert_int_eq(fault_init(), 0);
}

static void check_file(struct file *f, const uint8_t *want, size_t n)
{
	_cleanup_buf_ struct buf b = { 0 };

	kit_read(f, 0, n + 1, &b);
	ck_assert_uint_eq(b.len, n);
	ck_assert(n == 0 || memcmp(b.data, want, n) == 0);
}

static const char *const write_faults[] = {
	"staging.before-record:1:28",
	"staging.before-promote:1:28",
	"staging.after-bytes:1:28",
};

START_TEST(a_full_disk_changes_nothing)
{
	uint64_t node;
	struct file *f;
	int r;

	make_pattern();
	kit_open(&k, dir);
	node = kit_create(&k, "full");
	f = kit_get(&k, node);
	ck_assert_int_eq(file_write(f, 0, pattern, 50000, false), 0);
	arm(write_faults[_i]);
	r = file_write(f, 50000, pattern + 50000, 100000, false);
	ck_assert_int_eq(r, -ENOSPC);
	check_file(f, pattern, 50000);
	arm("none:1:28");
	ck_assert_int_eq(file_flush(f), 0);
	check_content("full", pattern, 50000);
	/* A clean file that cannot become dirty stays clean. */
	arm("staging.before-record:1:28");
	ck_assert_int_eq(file_write(f, 0, "x", 1, false), -ENOSPC);
	ck_assert_int_eq(file_truncate(f, 0), -ENOSPC);
	ck_assert_int_eq(file_truncate(f, 10), -ENOSPC);
	ck_assert_int_eq(file_truncate(f, 60000), -ENOSPC);
	check_file(f, pattern, 50000);
	arm("none:1:28");
	ck_assert_ptr_null(f->active);
	ck_assert_int_eq(file_write(f, 50000, pattern + 50000, 100000, false), 0);
	check_file(f, pattern, 150000);
	ck_assert_int_eq(file_flush(f), 0);
	check_content("full", pattern, 150000);
	file_unref(f);
	kit_close(&k);
}
END_TEST

static const char *const seal_faults[] = {
	"seal.begin:1:28",
	"seal.linked:1:28",
	"seal.adopted:1:28",
	"seal.before-put:1:28",
};

START_TEST(a_seal_that_fails_is_done_again)
{
	uint64_t node;
	struct file *f;
	int r;

	make_pattern();
	kit_open(&k, dir);
	node = kit_create(&k, "full");
	f = kit_get(&k, node);
	ck_assert_int_eq(file_write(f, 0, pattern, 6000000, false), 0);
	arm(seal_faults[_i]);
	ck_assert_int_eq(file_flush(f), -ENOSPC);
	check_file(f, pattern, 6000000);
	/* Written on, over what waits. */
	ck_assert_int_eq(file_write(f, 6000000, pattern + 6000000, 1000000, false), 0);
	ck_assert_int_eq(file_write(f, 5, pattern + 5, 10, false), 0);
	/* What was adopted stays so: that point is not passed again. */
	r = file_flush(f);
	ck_assert(r == -ENOSPC || (r == 0 && strstr(seal_faults[_i], "adopted")));
	check_file(f, pattern, 7000000);
	arm("none:1:28");
	ck_assert_int_eq(file_flush(f), 0);
	check_content("full", pattern, 7000000);
	file_unref(f);
	kit_close(&k);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("staging");
	TCase *tc = tcase_create("staging");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, a_torn_log_ends_where_it_is_torn);
	tcase_add_test(tc, a_flipped_bit_loses_one_record);
	tcase_add_test(tc, old_logs_go_when_nothing_began_there);
	tcase_add_test(tc, a_begin_is_checked);
	tcase_add_test(tc, a_dead_process_leaves_what_it_accepted);
	tcase_add_test(tc, power_loss_leaves_what_was_synced);
	tcase_add_test(tc, copies_in_the_log_stand_for_a_sync);
	tcase_add_test(tc, copies_are_taken_twice);
	tcase_add_test(tc, zeros_behind_the_log_are_its_end);
	tcase_add_test(tc, what_was_synced_outlives_its_seal);
	tcase_add_test(tc, what_was_sealed_is_not_sealed_twice);
	tcase_add_test(tc, damage_concerns_one_file);
	tcase_add_test(tc, foreign_files_do_no_harm);
	tcase_add_loop_test(tc, a_full_disk_changes_nothing, 0, ARRAY_SIZE(write_faults));
	tcase_add_loop_test(tc, a_seal_that_fails_is_done_again, 0, ARRAY_SIZE(seal_faults));
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
