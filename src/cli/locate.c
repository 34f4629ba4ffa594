// SPDX-License-Identifier: Apache-2.0
#include "cli/locate.h"

#include "cli/control_proto.h"
#include "cli/mounts.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

bool drive_left_mount(const struct drive *d)
{
	_cleanup_mount_ struct mount_entry m = { 0 };

	return !d->running && d->dir && mount_find_at(d->dir, &m) > 0 && mount_is_varve(&m);
}

static int not_mounted(const char *path, struct err *err)
{
	return err_set(
		err, ENOENT, "%s is in no mounted drive; varve status lists what is mounted", path);
}

/* Mounted, but no daemon of this home serves it. */
static int not_served(const struct drive_list *l, const char *dir, struct err *err)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->items[i].dir && strcmp(l->items[i].dir, dir) == 0)
			return err_set(err, ENOTCONN,
				"the daemon of %s has died; varve mount %s takes over what it had "
				"accepted",
				dir, dir);
	}
	return err_set(err, ENOENT,
		"%s is served by a daemon that this home does not know; set VARVE_HOME as it was "
		"at the mount",
		dir);
}

/* Only the names of mounts are looked at: nothing here waits for a daemon. */
static int locate_mountpoint(
	const struct drive_list *l, const char *dir, struct drive **ret, struct err *err)
{
	_cleanup_mount_ struct mount_entry m = { 0 };

	*ret = drive_list_at(l, dir);
	if (*ret)
		return 1;
	if (mount_find_at(dir, &m) > 0 && mount_is_varve(&m))
		return not_served(l, dir, err);
	return 0;
}

/* By the device number: no name comparison can be fooled by symlinks and bind mounts. */
static int locate_inside(const struct drive_list *l, const char *path, struct drive **ret,
	uint64_t *ret_node, struct err *err)
{
	_cleanup_mount_ struct mount_entry m = { 0 };
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return err_sys(err, errno, "%s", path);
	r = mount_find_device(st.st_dev, &m);
	if (r < 0)
		return err_sys(err, -r, "cannot read what is mounted");
	if (r == 0 || !mount_is_varve(&m))
		return not_mounted(path, err);
	*ret = drive_list_at(l, m.dir);
	if (!*ret)
		return not_served(l, m.dir, err);
	if (ret_node)
		*ret_node = st.st_ino;
	return 0;
}

int locate_drive(const struct drive_list *l, const char *path, struct drive **ret,
	uint64_t *ret_node, struct err *err)
{
	_cleanup_free_ char *resolved = NULL;
	int r = mount_resolve(path, &resolved, err);

	if (r == 0)
		r = locate_mountpoint(l, resolved, ret, err);
	if (r == 0)
		return locate_inside(l, path, ret, ret_node, err);
	if (r > 0 && ret_node)
		*ret_node = 0;
	return r < 0 ? r : 0;
}

int drive_status(const struct drive *d, json_t **ret, struct err *err)
{
	struct control_call call = {
		.socket_path = d->socket,
		.timeout_ms = DAEMON_ANSWER_MS,
	};
	int r;

	if (!d->socket)
		return err_set(err, ENOENT, "the daemon of '%s' is just starting", d->name);
	call.request = json_pack("{s:s}", "op", "status");
	r = control_ask(&call, ret, NULL, err);
	if (r < 0)
		err_prefix(err, "drive '%s'", d->name);
	return r;
}
