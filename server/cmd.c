// SPDX-License-Identifier: Apache-2.0
#include "cmd.h"

#include "io.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

enum { KEY_CONFIG = 256, KEY_DATA, KEY_DB, KEY_BLOBS, KEY_LOG_LEVEL };

static const struct argp_option options[] = {
	{ "data", KEY_DATA, "DIR", 0, "Where accounts and drives are kept (VARVED_DATA)", 0 },
	{ "db", KEY_DB, "URL", 0, "The database (default: sqlite:DIR/varved.db)", 0 },
	{ "blobs", KEY_BLOBS, "URL", 0, "Where packs of chunks go (default: dir:DIR/packs)", 0 },
	{ "config", KEY_CONFIG, "F", 0, "Read settings from the file F (VARVED_CONFIG)", 0 },
	{ "log-level", KEY_LOG_LEVEL, "LEVEL", 0, "error, warn, info (default) or debug", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct cmd_options *o = state->input;

	switch (key) {
	case KEY_DATA:
		o->given.data = arg;
		return 0;
	case KEY_DB:
		o->given.db = arg;
		return 0;
	case KEY_BLOBS:
		o->given.blobs = arg;
		return 0;
	case KEY_CONFIG:
		o->config_path = arg;
		return 0;
	case KEY_LOG_LEVEL:
		o->given.log_level = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp cmd_argp = { .options = options, .parser = parse };

int cmd_failed(const struct err *err)
{
	fprintf(stderr, "varved: %s\n", err->text);
	return EXIT_FAILURE;
}

int cmd_misused(const char *command, const char *format, ...)
{
	va_list ap;

	fputs("varved: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, "; see %s --help\n", command);
	return EXIT_MISUSE;
}

int cmd_make_data_folder(const struct config *c, struct err *err)
{
	int r = io_mkdirs(c->data, 0700);

	return r < 0 ? err_sys(err, -r, "--data %s", c->data) : 0;
}

static int open_migrated(
	const struct config *c, struct blob *blob, struct context **ret, struct err *err)
{
	struct context *context;
	int r = context_new(c->db, blob, &context, err);

	if (r < 0)
		return r;
	r = db_migrate(context->db, err);
	if (r < 0) {
		context_free(context);
		return r;
	}
	*ret = context;
	return 0;
}

int cmd_open(const struct config *c, struct blob **ret_blob, struct context **ret, struct err *err)
{
	struct blob *blob;
	int r = cmd_make_data_folder(c, err);

	if (r == 0)
		r = blob_open(c->blobs, &blob, err);
	if (r < 0)
		return r;
	r = open_migrated(c, blob, ret, err);
	if (r < 0) {
		blob_free(blob);
		return r;
	}
	*ret_blob = blob;
	return 0;
}
