// SPDX-License-Identifier: Apache-2.0
/*
 * What file.h costs without a mount:
 *	bench_file [MIB [FILES]]
 * Sequential writes of MIB in 1 MiB calls and the seal, of new and of appended bytes; small
 * files created, written and flushed; small overwrites of a large file, each with an fsync.
 */
#include "bounds.h"
#include "clock.h"
#include "io.h"
#include "tests/support/files_kit.h"

#include <string.h>
#include <sys/resource.h>

static struct kit k;

static double seconds(void)
{
	return (double)clock_mono_ns() / 1e9;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void must(int r)
{
	if (r < 0)
		abort();
}

static void sequential(const char *what, struct file *f, uint64_t offset, uint64_t mib)
{
	uint8_t *p = malloc(MIB);
	struct rng r = { mib + offset };
	double start = seconds(), cpu = cpu_seconds(), written, total;

	rng_fill(&r, p, MIB);
	for (uint64_t i = 0; i < mib; i++) {
		/* Other bytes in every block of every call, at next to no cost. */
		for (size_t at = 0; at < MIB; at += 4096)
			memcpy(p + at, &(uint64_t){ rng_next(&r) }, 8);
		must(file_write(f, offset + i * MIB, p, MIB, false));
	}
	written = seconds() - start;
	must(file_flush(f));
	total = seconds() - start;
	printf("%-22s %6llu MiB: write %6.0f MB/s, with seal %6.0f MB/s (seal %.0f ms), CPU %.2f "
	       "s\n",
		what, (unsigned long long)mib, (double)(mib * MIB) / 1e6 / written,
		(double)(mib * MIB) / 1e6 / total, (total - written) * 1e3, cpu_seconds() - cpu);
	free(p);
}

static void small(int n)
{
	uint8_t p[4096];
	struct rng r = { 1 };
	double start = seconds(), cpu = cpu_seconds(), took;
	char name[32];

	for (int i = 0; i < n; i++) {
		struct file *f;

		snprintf(name, sizeof name, "small-%d", i);
		f = kit_get(&k, kit_create(&k, name));
		file_opened(f);
		rng_fill(&r, p, sizeof p);
		must(file_write(f, 0, p, sizeof p, false));
		must(file_flush(f));
		file_closed(f);
		file_unref(f);
	}
	took = seconds() - start;
	printf("%-22s %6d files: %.0f a second, CPU %.2f s\n", "create+write+flush 4K", n, n / took,
		cpu_seconds() - cpu);
}

static void synced(struct file *f, uint64_t size, int n)
{
	uint8_t p[4096];
	struct rng r = { 2 };
	double start = seconds();

	for (int i = 0; i < n; i++) {
		rng_fill(&r, p, sizeof p);
		must(file_write(f, rng_below(&r, size / 4096) * 4096, p, sizeof p, false));
		must(file_fsync(f));
	}
	printf("%-22s %6d times: %.0f a second\n", "write 4K + fsync", n, n / (seconds() - start));
	start = seconds();
	must(file_flush(f));
	printf("%-22s %.0f ms\n", "  their seal", (seconds() - start) * 1e3);
}

static void scattered(struct file *f, uint64_t size, int n)
{
	uint8_t p[4096];
	struct rng r = { 3 };
	double start = seconds(), took;

	rng_fill(&r, p, sizeof p);
	for (int i = 0; i < n; i++) {
		memcpy(p, &i, sizeof i);
		must(file_write(f, rng_below(&r, size / 4096) * 4096, p, sizeof p, false));
	}
	took = seconds() - start;
	printf("%-22s %6d times: %.0f a second\n", "write 4K at random", n, n / took);
	start = seconds();
	must(file_flush(f));
	printf("%-22s %.0f ms\n", "  their seal", (seconds() - start) * 1e3);
}

static void read_all(struct file *f, uint64_t size, size_t unit)
{
	double start = seconds();
	uint8_t *p = malloc(unit);

	for (uint64_t at = 0; at < size; at += unit) {
		struct read_plan plan;
		size_t done = 0;

		must(file_read_plan(f, at, unit, NULL, &plan));
		for (size_t i = 0; i < plan.n; i++) {
			const struct read_piece *piece = &plan.pieces[i];

			if (piece->fd >= 0)
				must(io_pread_full(piece->fd, p + done, piece->n, piece->offset));
			done += piece->n;
		}
		read_plan_done(&plan);
	}
	printf("%-22s %6zu KiB a call: %.0f MB/s\n", "read", unit / 1024,
		(double)size / 1e6 / (seconds() - start));
	free(p);
}

int main(int argc, char **argv)
{
	uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 2048;
	int files = argc > 2 ? atoi(argv[2]) : 10000;
	struct file *f;
	char dir[128];

	kit_make_dir(dir, sizeof dir);
	kit_open(&k, dir);
	f = kit_get(&k, kit_create(&k, "large"));
	file_opened(f);
	sequential("new", f, 0, mib);
	sequential("appended", f, mib * MIB, mib / 4);
	read_all(f, mib * MIB, MIB);
	read_all(f, mib * MIB / 4, 128 * 1024);
	read_all(f, mib * MIB / 32, 4096);
	must(file_truncate(f, 0));
	sequential("again, cut down first", f, 0, mib / 4);
	scattered(f, mib / 4 * MIB, 20000);
	synced(f, mib / 4 * MIB, 200);
	file_closed(f);
	file_unref(f);
	small(files);
	kit_close(&k);
	return io_remove_tree(dir) < 0;
}
