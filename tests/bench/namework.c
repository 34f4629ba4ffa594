// SPDX-License-Identifier: Apache-2.0
/*
 * Work on names and attributes with nothing between it and the system calls, for scripts/bench.
 *
 * namework STEP DIR DIRS FILES [SIZE]
 *
 * FILES files, spread over DIRS directories of DIR. The steps, in the order in which they make
 * sense: create (the directories too, files of SIZE bytes), stat, readdir, rename, unlink. Prints
 * seconds.
 */
#include "bounds.h"
#include "cleanup.h"
#include "clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_MAX_BYTES (64 * 1024)

struct work {
	const char *dir;
	long dirs;
	long files; /* a directory */
	size_t size;
	char path[4096];
	char other[4096];
};

static uint8_t content[SIZE_MAX_BYTES];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static const char *dir_path(struct work *w, long d)
{
	snprintf(w->path, sizeof w->path, "%s/%03ld", w->dir, d);
	return w->path;
}

static const char *file_path(struct work *w, long d, long f)
{
	snprintf(w->path, sizeof w->path, "%s/%03ld/file-%05ld", w->dir, d, f);
	return w->path;
}

static const char *new_path(struct work *w, long d, long f)
{
	snprintf(w->other, sizeof w->other, "%s/%03ld/renamed-%05ld", w->dir, d, f);
	return w->other;
}

static void create_dir(struct work *w, long d)
{
	if (mkdir(dir_path(w, d), 0755) < 0)
		die(w->path);
}

/* No two files have the same bytes. */
static void create_file(struct work *w, long d, long f)
{
	int64_t now = clock_real_ns();
	int fd = open(file_path(w, d, f), O_WRONLY | O_CREAT | O_EXCL, 0644);

	memcpy(content, &now, MIN(sizeof now, w->size));
	if (fd < 0 || (w->size && write(fd, content, w->size) != (ssize_t)w->size) || close(fd) < 0)
		die(w->path);
}

static void stat_file(struct work *w, long d, long f)
{
	struct stat st;

	if (lstat(file_path(w, d, f), &st) < 0 || !S_ISREG(st.st_mode))
		die(w->path);
}

static void rename_file(struct work *w, long d, long f)
{
	if (rename(file_path(w, d, f), new_path(w, d, f)) < 0)
		die(w->path);
}

static void unlink_file(struct work *w, long d, long f)
{
	if (unlink(new_path(w, d, f)) < 0)
		die(w->other);
}

static void read_dir(struct work *w, long d)
{
	DIR *dir = opendir(dir_path(w, d));
	long n = 0;

	if (!dir)
		die(w->path);
	while (readdir(dir))
		n++;
	closedir(dir);
	if (n != w->files + 2) {
		fprintf(stderr, "%s: %ld names, not %ld\n", w->path, n, w->files + 2);
		exit(1);
	}
}

struct step {
	const char *name;
	void (*on_dir)(struct work *w, long d);
	void (*on_file)(struct work *w, long d, long f);
};

static const struct step steps[] = {
	{ "create", create_dir, create_file },
	{ "stat", NULL, stat_file },
	{ "readdir", read_dir, NULL },
	{ "rename", NULL, rename_file },
	{ "unlink", NULL, unlink_file },
};

static void run(struct work *w, const struct step *step)
{
	for (long d = 0; d < w->dirs; d++) {
		if (step->on_dir)
			step->on_dir(w, d);
		for (long f = 0; step->on_file && f < w->files; f++)
			step->on_file(w, d, f);
	}
}

static const struct step *find_step(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
		if (strcmp(steps[i].name, name) == 0)
			return &steps[i];
	return NULL;
}

int main(int argc, char **argv)
{
	const struct step *step = argc >= 5 ? find_step(argv[1]) : NULL;
	struct work w = { 0 };
	int64_t start;

	if (!step || argc > 6 || (w.dirs = atol(argv[3])) < 1 || atol(argv[4]) < w.dirs) {
		fprintf(stderr, "usage: namework STEP DIR DIRS FILES [SIZE]\n");
		return 2;
	}
	w.dir = argv[2];
	w.files = atol(argv[4]) / w.dirs;
	w.size = argc > 5 ? MIN((size_t)atol(argv[5]), sizeof content) : 0;
	start = clock_mono_ns();
	run(&w, step);
	printf("%.6f\n", (double)(clock_mono_ns() - start) / 1e9);
	return 0;
}
