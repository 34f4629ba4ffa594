// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include "log.h"

#include <errno.h>
#include <ini.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#define LISTEN_DEFAULT "127.0.0.1:7420"

static const struct setting {
	const char *key;
	const char *variable;
	size_t at;
} settings[] = {
	{ "data", "VARVED_DATA", offsetof(struct config, data) },
	{ "listen", "VARVED_LISTEN", offsetof(struct config, listen) },
	{ "db", "VARVED_DB", offsetof(struct config, db) },
	{ "blobs", "VARVED_BLOBS", offsetof(struct config, blobs) },
	{ "tls_cert", "VARVED_TLS_CERT", offsetof(struct config, tls_cert) },
	{ "tls_key", "VARVED_TLS_KEY", offsetof(struct config, tls_key) },
	{ "allow_plain_http", "VARVED_ALLOW_PLAIN_HTTP",
		offsetof(struct config, allow_plain_http) },
	{ "log_level", "VARVED_LOG_LEVEL", offsetof(struct config, log_level) },
};

static char **field(const struct config *c, const struct setting *s)
{
	return (char **)((uintptr_t)c + s->at);
}

void config_done(struct config *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		free(*field(c, &settings[i]));
		*field(c, &settings[i]) = NULL;
	}
}

static int set(struct config *c, const struct setting *s, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	free(*field(c, s));
	*field(c, s) = copy;
	return 0;
}

struct reading {
	struct config *config;
	struct err *err;
	bool told;
};

/* inih's convention: 1 good, 0 an error. */
static int on_line(void *ctx, const char *section, const char *key, const char *value)
{
	struct reading *r = ctx;

	if (r->told)
		return 0;
	if (section[0] && strcmp(section, "server") != 0) {
		r->told = true;
		err_set(r->err, EINVAL, "there is no section [%s]", section);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		if (strcmp(settings[i].key, key) == 0)
			return set(r->config, &settings[i], value) == 0;
	}
	r->told = true;
	err_set(r->err, EINVAL, "there is no setting %s", key);
	return 0;
}

static int read_file(struct config *c, const char *path, struct err *err)
{
	struct reading r = { .config = c, .err = err };
	int line = ini_parse(path, on_line, &r);

	if (line == 0)
		return 0;
	if (line < 0)
		return err_sys(err, errno ? errno : EIO, "%s", path);
	if (!r.told)
		err_set(err, EINVAL, "not KEY = VALUE");
	err_prefix(err, "%s, line %d", path, line);
	return -EINVAL;
}

static int take_variables(struct config *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		const char *value = getenv(settings[i].variable);

		if (value && *value && set(c, &settings[i], value) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int take_options(struct config *c, const struct config *given)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		const char *value = *field(given, &settings[i]);

		if (value && set(c, &settings[i], value) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int bool_parse(const char *text)
{
	static const char *const yes[] = { "yes", "true", "on", "1" };
	static const char *const no[] = { "no", "false", "off", "0" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcasecmp(text, yes[i]) == 0)
			return 1;
		if (strcasecmp(text, no[i]) == 0)
			return 0;
	}
	return -EINVAL;
}

bool config_allows_plain_http(const struct config *c)
{
	return c->allow_plain_http && bool_parse(c->allow_plain_http) > 0;
}

/* What holds when nothing else was said. */
static int fill(char **field_at, const char *before, const char *data, const char *behind)
{
	char *text;

	if (*field_at)
		return 0;
	if (asprintf(&text, "%s%s%s", before, data, behind) < 0)
		return -ENOMEM;
	*field_at = text;
	return 0;
}

static int check(struct config *c, struct err *err)
{
	enum log_level level;

	if (!c->data || !*c->data)
		return err_set(err, EINVAL, "--data DIR is missing: where accounts and drives are");
	if (c->allow_plain_http && bool_parse(c->allow_plain_http) < 0)
		return err_set(err, EINVAL, "allow_plain_http: \"%s\" is neither yes nor no",
			c->allow_plain_http);
	if (c->log_level && !log_level_parse(c->log_level, &level))
		return err_set(err, EINVAL, "log_level: \"%s\" is not error, warn, info or debug",
			c->log_level);
	if (!c->tls_cert != !c->tls_key)
		return err_set(err, EINVAL, "--tls-cert and --tls-key go together");
	if (c->log_level)
		log_set_level(level);
	return 0;
}

int config_load(const struct config *given, const char *path, struct config *ret, struct err *err)
{
	_cleanup_config_ struct config c = { 0 };
	int r = 0;

	if (!path)
		path = getenv("VARVED_CONFIG");
	if (path && *path)
		r = read_file(&c, path, err);
	if (r < 0)
		return r;
	if (take_variables(&c) < 0 || take_options(&c, given) < 0)
		return err_sys(err, ENOMEM, "configuration");
	r = check(&c, err);
	if (r < 0)
		return r;
	if (fill(&c.listen, LISTEN_DEFAULT, "", "") < 0 ||
		fill(&c.db, "sqlite:", c.data, "/varved.db") < 0 ||
		fill(&c.blobs, "dir:", c.data, "/packs") < 0)
		return err_sys(err, ENOMEM, "configuration");
	*ret = c;
	c = (struct config){ 0 };
	return 0;
}
