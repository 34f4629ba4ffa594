// SPDX-License-Identifier: Apache-2.0
/* Runs a fuzz target over the files of a folder: the corpus as a test, with any compiler. */
#include "io.h"
#include "bounds.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
	_cleanup_buf_ struct buf b = { 0 };
	_cleanup_free_ uint8_t *exact = NULL;
	int r = io_read_file(path, 64 * MIB, &b);

	if (r < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(-r));
		return r;
	}
	exact = malloc(b.len ? b.len : 1); /* no slack behind it: a sanitizer sees one byte */
	if (!exact)
		return -ENOMEM;
	if (b.len)
		memcpy(exact, b.data, b.len);
	LLVMFuzzerTestOneInput(exact, b.len);
	return 0;
}

int main(int argc, char **argv)
{
	_cleanup_closedir_ DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
	struct dirent *e;
	size_t n = 0;

	if (!dir) {
		fprintf(stderr, "usage: %s CORPUS-FOLDER\n", argv[0]);
		return 2;
	}
	while ((e = readdir(dir))) {
		_cleanup_free_ char *path = NULL;

		if (e->d_name[0] == '.')
			continue;
		if (asprintf(&path, "%s/%s", argv[1], e->d_name) < 0)
			return 1;
		if (run_file(path) < 0)
			return 1;
		n++;
	}
	printf("%zu inputs\n", n);
	return n ? 0 : 1;
}
