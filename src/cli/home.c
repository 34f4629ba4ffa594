// SPDX-License-Identifier: Apache-2.0
#include "cli/home.h"

#include "io.h"
#include "bounds.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <string.h>

static char *join2(const char *a, const char *b, const char *c)
{
	char *s;

	return asprintf(&s, "%s/%s%s", a, b, c) < 0 ? NULL : s;
}

char *path_join(const char *dir, const char *name)
{
	return join2(dir, name, "");
}

/* The variable's value; NULL when unset or empty. The XDG specification drops relative ones. */
static const char *absolute_env(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] == '/' ? value : NULL;
}

static int user_home(char **ret, struct err *err)
{
	const char *env = absolute_env("HOME");
	struct passwd *pw = env ? NULL : getpwuid(geteuid());

	if (!env && (!pw || pw->pw_dir[0] != '/'))
		return err_set(err, ENOENT,
			"no home folder is known; set VARVE_HOME to the folder to use");
	*ret = strdup(env ? env : pw->pw_dir);
	return *ret ? 0 : err_sys(err, ENOMEM, "home folder");
}

/* "$VARIABLE/varve", or "~/FALLBACK/varve" without it. */
static char *xdg_dir(const char *variable, const char *user, const char *fallback)
{
	const char *base = absolute_env(variable);

	return base ? path_join(base, "varve") : join2(user, fallback, "/varve");
}

static int complete(struct home *h, struct err *err)
{
	return h->config && h->drives && h->run && h->log ? 0 : err_sys(err, ENOMEM, "home folder");
}

static int init_xdg(struct home *h, struct err *err)
{
	_cleanup_free_ char *user = NULL, *data = NULL, *state = NULL;
	int r = user_home(&user, err);

	if (r < 0)
		return r;
	data = xdg_dir("XDG_DATA_HOME", user, ".local/share");
	state = xdg_dir("XDG_STATE_HOME", user, ".local/state");
	if (!data || !state)
		return err_sys(err, ENOMEM, "home folder");
	h->config = xdg_dir("XDG_CONFIG_HOME", user, ".config");
	h->drives = path_join(data, "drives");
	h->log = path_join(state, "log");
	h->run = absolute_env("XDG_RUNTIME_DIR") ? xdg_dir("XDG_RUNTIME_DIR", user, "")
						 : path_join(state, "run");
	return complete(h, err);
}

static int init_one_folder(struct home *h, const char *dir, struct err *err)
{
	_cleanup_free_ char *cwd = NULL, *root = NULL;

	if (dir[0] != '/') {
		cwd = getcwd(NULL, 0);
		if (!cwd)
			return err_sys(err, errno, "VARVE_HOME=%s: the current folder", dir);
	}
	root = cwd ? path_join(cwd, dir) : strdup(dir);
	if (!root)
		return err_sys(err, ENOMEM, "home folder");
	h->config = path_join(root, "config");
	h->drives = path_join(root, "drives");
	h->run = path_join(root, "run");
	h->log = path_join(root, "log");
	return complete(h, err);
}

int home_init(struct home *ret, struct err *err)
{
	const char *dir = getenv("VARVE_HOME");
	struct home h = { 0 };
	int r = dir && *dir ? init_one_folder(&h, dir, err) : init_xdg(&h, err);

	if (r < 0)
		home_done(&h);
	else
		*ret = h;
	return r;
}

void home_done(struct home *h)
{
	free(h->config);
	free(h->drives);
	free(h->run);
	free(h->log);
	*h = (struct home){ 0 };
}

int home_make_dir(const char *path, struct err *err)
{
	int r = io_mkdirs(path, 0700);

	return r < 0 ? err_sys(err, -r, "cannot make the folder %s", path) : 0;
}

char *home_drive_dir(const struct home *h, const char *drive_id)
{
	return path_join(h->drives, drive_id);
}

char *home_socket_path(const struct home *h, const char *drive_id)
{
	return join2(h->run, drive_id, ".sock");
}

char *home_log_path(const struct home *h, const char *drive_name)
{
	char file[LABEL_BYTES_MAX + sizeof "mount-.log"];

	snprintf(file, sizeof file, "mount-%.*s.log", LABEL_BYTES_MAX, drive_name);
	for (char *s = file; *s; s++) {
		if ((unsigned char)*s < ' ' || *s == '/' || *s == 0x7f)
			*s = '_';
	}
	return path_join(h->log, file);
}
