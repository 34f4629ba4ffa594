// SPDX-License-Identifier: Apache-2.0
/*
 * kill -9 of a writer through file.h at random instants and at every fault point of staging, seal,
 * adoption and recovery:
 *	crash_file [ROUNDS [SEED]]
 * The writer keeps a shadow of each file in memory that the parent shares, with the one operation
 * that is under way. When it is dead, another process opens what is left: every file has the
 * shadow's bytes (those of the operation under way may be old or new), its sealed content is
 * that of a full cut, and no conflicted copy has come about.
 */
#include "bounds.h"
#include "bytes.h"
#include "fault.h"
#include "io.h"
#include "tests/support/files_kit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define FILES 6
#define WRITERS 2
#define FILE_MAX (12 * MIB)
#define KILL_AFTER_US_MAX 150000

enum op_kind { OP_NONE, OP_WRITE, OP_TRUNCATE, OP_ZERO };

/* Shared with the child. `op` is set before an operation and cleared when the shadow has it. */
struct shadow {
	_Atomic uint64_t size;
	_Atomic int op;
	uint64_t offset, n, seed;
	uint64_t new_size;
	uint8_t p[FILE_MAX];
};

static const char *const points[] = {
	"staging.before-record",
	"staging.after-bytes",
	"staging.before-promote",
	"staging.before-synced",
	"staging.log-sync",
	"seal.begin",
	"seal.linked",
	"seal.adopted",
	"seal.before-put",
	"seal.after-put",
};
static const char *const recovery_points[] = {
	"recover.begun",
	"recover.restated",
	"recover.superseded",
	"seal.begin",
	"seal.linked",
	"seal.adopted",
	"seal.before-put",
	"seal.after-put",
};

static struct shadow *shadows;
static char dir[128];
static struct kit k;

static void fail(const char *what, uint64_t a, uint64_t b)
{
	fprintf(stderr, "crash_file: %s: %llu, %llu (%s)\n", what, (unsigned long long)a,
		(unsigned long long)b, dir);
	exit(1);
}

static void file_name(int i, char ret[16])
{
	snprintf(ret, 16, "f%d", i);
}

static uint64_t node_of(int i)
{
	char name[16];
	uint64_t node;

	file_name(i, name);
	node = kit_find(&k, name);
	return node ? node : kit_create(&k, name);
}

static void begin_op(struct shadow *s, enum op_kind op, uint64_t offset, uint64_t n, uint64_t size)
{
	s->offset = offset;
	s->n = n;
	s->new_size = size;
	atomic_store(&s->op, op);
}

static void end_op(struct shadow *s)
{
	s->size = s->new_size;
	atomic_store(&s->op, OP_NONE);
}

static void write_op(struct file *f, struct shadow *s, struct rng *r, uint64_t offset, uint64_t n)
{
	uint8_t *p = malloc(n);

	s->seed = rng_next(r);
	rng_fill(&(struct rng){ s->seed }, p, n);
	begin_op(s, OP_WRITE, offset, n, MAX(s->size, offset + n));
	if (file_write(f, offset, p, n, false) < 0)
		fail("write", offset, n);
	memcpy(s->p + offset, p, n);
	end_op(s);
	free(p);
}

static void truncate_op(struct file *f, struct shadow *s, uint64_t size)
{
	begin_op(s, OP_TRUNCATE, 0, 0, size);
	if (file_truncate(f, size) < 0)
		fail("truncate", size, 0);
	if (size < s->size)
		memset(s->p + size, 0, s->size - size);
	end_op(s);
}

static void punch_op(struct file *f, struct shadow *s, uint64_t offset, uint64_t n)
{
	begin_op(s, OP_ZERO, offset, n, s->size);
	if (file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, n) < 0)
		fail("punch", offset, n);
	if (offset < s->size)
		memset(s->p + offset, 0, MIN(n, s->size - offset));
	end_op(s);
}

static void one_op(struct file *f, struct shadow *s, struct rng *r)
{
	uint64_t n = 1 + rng_below(r, 9000), offset = rng_below(r, FILE_MAX / 4);

	switch (rng_below(r, 20)) {
	case 0:
		truncate_op(f, s, rng_below(r, 2) ? 0 : rng_below(r, FILE_MAX / 2));
		break;
	case 1:
		punch_op(f, s, offset, 5 * n);
		break;
	case 2:
		if (file_fsync(f) < 0)
			fail("fsync", 0, 0);
		break;
	case 3:
	case 4:
		if (file_flush(f) < 0)
			fail("flush", 0, 0);
		break;
	case 5:
	case 6:
	case 7: /* a long run */
		for (int i = 0; i < 24 && s->size + 300000 < FILE_MAX; i++)
			write_op(f, s, r, s->size, 300000);
		break;
	case 8:
	case 9:
	case 10: /* small appends */
		for (int i = 0; i < 20 && s->size + n < FILE_MAX; i++)
			write_op(f, s, r, s->size, n);
		break;
	default:
		write_op(f, s, r, offset, n);
	}
}

struct writer {
	int first;
	uint64_t seed;
};

static void *write_for_ever(void *arg)
{
	struct writer *w = arg;
	struct rng r = { w->seed };

	for (;;) {
		int i = w->first + (int)rng_below(&r, FILES / WRITERS);
		struct file *f = kit_get(&k, node_of(i));

		file_opened(f);
		for (int j = (int)rng_below(&r, 12); j >= 0; j--)
			one_op(f, &shadows[i], &r);
		file_closed(f);
		file_unref(f);
	}
	return NULL;
}

static void run_writer(uint64_t seed)
{
	pthread_t t[WRITERS];
	struct writer w[WRITERS];

	if (fault_init() < 0)
		exit(1);
	kit_open(&k, dir);
	for (int i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){ i * FILES / WRITERS, seed + (uint64_t)i };
		if (pthread_create(&t[i], NULL, write_for_ever, &w[i]))
			exit(1);
	}
	pthread_join(t[0], NULL);
	exit(1);
}

/* Whether a byte may be what it is, an operation being under way. */
static bool byte_fits(const struct shadow *s, uint64_t at, uint8_t is, const uint8_t *new_bytes)
{
	uint8_t was = s->p[at];

	if (is == was)
		return true;
	switch (s->op) {
	case OP_WRITE:
		/* Between the old end and a write behind it lie zeros, as in the shadow. */
		return at >= s->offset && at < s->offset + s->n && is == new_bytes[at - s->offset];
	case OP_TRUNCATE:
		return at >= s->new_size && is == 0;
	case OP_ZERO:
		return at >= s->offset && at < s->offset + s->n && is == 0;
	default:
		return false;
	}
}

static bool size_fits(const struct shadow *s, uint64_t size)
{
	if (size == s->size || (s->op != OP_NONE && size == s->new_size))
		return true;
	return s->op == OP_WRITE && size > s->size && size < s->new_size;
}

static void check_file(int i)
{
	struct shadow *s = &shadows[i];
	_cleanup_buf_ struct buf b = { 0 }, sealed = { 0 };
	uint8_t *new_bytes = malloc(s->n + 1);
	uint64_t node = node_of(i);
	struct file *f = kit_get(&k, node);
	struct digest want, is;

	if (s->op == OP_WRITE)
		rng_fill(&(struct rng){ s->seed }, new_bytes, s->n);
	kit_read(f, 0, FILE_MAX, &b);
	if (!size_fits(s, b.len))
		fail("size", b.len, s->size);
	for (uint64_t at = 0; at < b.len; at++) {
		if (!byte_fits(s, at, b.data[at], new_bytes)) {
			fprintf(stderr, "file %d op %d offset %llu n %llu size %llu -> %llu\n", i,
				s->op, (unsigned long long)s->offset, (unsigned long long)s->n,
				(unsigned long long)s->size, (unsigned long long)s->new_size);
			fail("byte", at, b.len);
		}
	}
	if (file_flush(f) < 0)
		fail("flush after", (uint64_t)i, 0);
	kit_read_sealed(&k, node, &sealed);
	if (sealed.len != b.len || (b.len && memcmp(sealed.data, b.data, b.len) != 0))
		fail("sealed", sealed.len, b.len);
	want = kit_content_id(b.data, b.len);
	is = kit_sealed_id(&k, node);
	if (!digest_eq(&want, &is))
		fail("not canonical", (uint64_t)i, b.len);
	/* What it is now is what the next round begins with. */
	memset(s->p, 0, FILE_MAX);
	if (b.len)
		memcpy(s->p, b.data, b.len);
	s->size = s->new_size = b.len;
	s->op = OP_NONE;
	file_unref(f);
	free(new_bytes);
}

static void check_names(void)
{
	struct tree_dir *d;
	struct tree_dirent e;

	if (tree_opendir(k.tree, NODE_ROOT, &d) < 0)
		fail("opendir", 0, 0);
	while (tree_readdir(d, &e) > 0) {
		if (e.name.n != 2)
			fail("a copy has come about", e.node, e.name.n);
	}
	tree_closedir(d);
}

static void run_check(void)
{
	struct files_stats st;

	if (fault_init() < 0)
		exit(1);
	kit_open(&k, dir);
	files_get_stats(k.files, &st);
	if (st.damaged)
		fail("damaged", st.damaged, st.recovered);
	for (int i = 0; i < FILES; i++)
		check_file(i);
	check_names();
	kit_close(&k);
	exit(0);
}

static pid_t start(void (*run)(uint64_t seed), uint64_t seed, const char *fault)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("fork", 0, 0);
	if (pid == 0) {
		if (fault)
			setenv("VARVE_FAULT", fault, 1);
		else
			unsetenv("VARVE_FAULT");
		run(seed);
	}
	return pid;
}

static void checker(uint64_t seed)
{
	run_check();
}

static int wait_for(pid_t pid)
{
	int status;

	struct timespec now = { 0 };
	sigset_t set;

	if (waitpid(pid, &status, 0) != pid)
		fail("wait", 0, 0);
	/* The one that this child sent must not end the next wait. */
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	while (sigtimedwait(&set, NULL, &now) > 0)
		;
	return status;
}

/* Until a child ends, or so long. */
static void wait_child(uint64_t us)
{
	struct timespec t = { (time_t)(us / 1000000), (long)(us % 1000000) * 1000 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	while (sigtimedwait(&set, NULL, &t) < 0 && errno == EINTR)
		;
}

/* A writer until it is killed: by itself at a fault point, or by us at some instant. */
static void kill_a_writer(struct rng *r, const char *point)
{
	char fault[96];
	pid_t pid;
	int status;

	if (point)
		snprintf(fault, sizeof fault, "%s:%llu:kill", point,
			(unsigned long long)(1 + rng_below(r, 12)));
	pid = start(run_writer, rng_next(r), point ? fault : NULL);
	wait_child(point ? 20 * KILL_AFTER_US_MAX : rng_below(r, KILL_AFTER_US_MAX));
	kill(pid, SIGKILL);
	status = wait_for(pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail("the writer ended by itself", (uint64_t)status, 0);
}

/* Recovery, killed in its turn now and then, and then the comparison. */
static void check(struct rng *r)
{
	for (int i = 0; i < 2 && rng_below(r, 2); i++) {
		const char *point = recovery_points[rng_below(r, ARRAY_SIZE(recovery_points))];
		char fault[96];
		int status;

		snprintf(fault, sizeof fault, "%s:1:kill", point);
		status = wait_for(start(checker, 0, fault));
		if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
			fail("the check failed under a fault", (uint64_t)status, 0);
	}
	if (wait_for(start(checker, 0, NULL)) != 0)
		fail("the check failed", 0, 0);
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 24;
	struct rng r = { argc > 2 ? strtoull(argv[2], NULL, 10) : 1 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);

	shadows = mmap(NULL, FILES * sizeof *shadows, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shadows == MAP_FAILED)
		fail("mmap", 0, 0);
	kit_make_dir(dir, sizeof dir);
	for (int i = 0; i < rounds; i++) {
		const char *point = i % 2 ? points[(size_t)i / 2 % ARRAY_SIZE(points)] : NULL;

		kill_a_writer(&r, point);
		check(&r);
	}
	return io_remove_tree(dir) < 0;
}
