// SPDX-License-Identifier: Apache-2.0
#include "cli/drive.h"

#include "cli/json_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

bool drive_id_valid(const char *id)
{
	return strlen(id) == DRIVE_ID_DIGITS && strspn(id, "0123456789abcdef") == DRIVE_ID_DIGITS;
}

void drive_done(struct drive *d)
{
	free(d->name);
	free(d->url);
	free(d->user);
	free(d->device_id);
	free(d->dir);
	free(d->socket);
	*d = (struct drive){ 0 };
}

static char *file_in(const struct home *h, const char *id, const char *file)
{
	_cleanup_free_ char *dir = home_drive_dir(h, id);

	return dir ? path_join(dir, file) : NULL;
}

static int load_record(const struct home *h, const char *id, struct drive *d, struct err *err)
{
	_cleanup_free_ char *path = file_in(h, id, "drive.json");
	_cleanup_json_ json_t *object = NULL;
	int r = path ? json_file_load(path, &object, err) : err_sys(err, ENOMEM, "drive %s", id);

	if (r <= 0)
		return r;
	memcpy(d->id, id, DRIVE_ID_DIGITS);
	r = json_text_copy(object, "name", &d->name);
	if (r == 0)
		r = json_text_copy(object, "url", &d->url);
	if (r == 0)
		r = json_text_copy(object, "user", &d->user);
	if (r == 0)
		r = json_text_copy(object, "device_id", &d->device_id);
	if (r < 0)
		return err_set(err, -r, "%s lacks a field; restore it from a backup", path);
	return 1;
}

/* What the last daemon said of itself. A damaged file is as none: the lock tells who lives. */
static int load_daemon(const struct home *h, struct drive *d)
{
	_cleanup_free_ char *path = file_in(h, d->id, "daemon.json");
	_cleanup_json_ json_t *object = NULL;
	int r = path ? json_file_load(path, &object, NULL) : -ENOMEM;

	if (r <= 0)
		return r == -ENOMEM ? r : 0;
	d->pid = (pid_t)json_integer_value(json_object_get(object, "pid"));
	if (json_get_path(object, "mountpoint", &d->dir) == -ENOMEM ||
		json_get_path(object, "socket", &d->socket) == -ENOMEM)
		return -ENOMEM;
	return 0;
}

int drive_load(const struct home *h, const char *id, struct drive *ret, struct err *err)
{
	_cleanup_drive_ struct drive d = { 0 };
	int r = load_record(h, id, &d, err);

	if (r <= 0)
		return r;
	if (load_daemon(h, &d) < 0)
		return err_sys(err, ENOMEM, "drive %s", id);
	d.running = drive_is_locked(h, id);
	*ret = d;
	d = (struct drive){ 0 };
	return 1;
}

int drive_save(const struct home *h, const struct drive *d, struct err *err)
{
	_cleanup_free_ char *dir = home_drive_dir(h, d->id);
	_cleanup_free_ char *path = file_in(h, d->id, "drive.json");
	_cleanup_json_ json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", d->id, "name",
		d->name, "url", d->url, "user", d->user, "device_id", d->device_id);
	int r = dir ? home_make_dir(dir, err) : -ENOMEM;

	if (!dir || !path || !object)
		return err_sys(err, ENOMEM, "drive %s", d->id);
	return r < 0 ? r : json_file_save(path, object, err);
}

void drive_list_done(struct drive_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		drive_done(&l->items[i]);
	free(l->items);
	*l = (struct drive_list){ 0 };
}

static int drive_list_add(struct drive_list *l, const struct drive *d)
{
	struct drive *grown = reallocarray(l->items, l->n + 1, sizeof *grown);

	if (!grown)
		return -ENOMEM;
	l->items = grown;
	l->items[l->n++] = *d;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct drive *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : strcmp(x->id, y->id);
}

static int load_one(const struct home *h, const char *id, struct drive_list *l, struct err *err)
{
	_cleanup_drive_ struct drive d = { 0 };
	int r = drive_load(h, id, &d, err);

	if (r <= 0)
		return r;
	if (drive_list_add(l, &d) < 0)
		return err_sys(err, ENOMEM, "drive %s", id);
	d = (struct drive){ 0 };
	return 0;
}

int drive_list_load(const struct home *h, struct drive_list *ret, struct err *err)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	_cleanup_closedir_ DIR *dir = opendir(h->drives);
	struct dirent *e;

	if (!dir && errno != ENOENT)
		return err_sys(err, errno, "cannot read %s", h->drives);
	while (dir && (e = readdir(dir))) {
		int r = drive_id_valid(e->d_name) ? load_one(h, e->d_name, &l, err) : 0;

		if (r < 0)
			return r;
	}
	if (l.n)
		qsort(l.items, l.n, sizeof *l.items, by_name);
	*ret = l;
	l = (struct drive_list){ 0 };
	return 0;
}

struct drive *drive_list_at(const struct drive_list *l, const char *dir)
{
	for (size_t i = 0; i < l->n; i++) {
		struct drive *d = &l->items[i];

		if (d->running && d->dir && strcmp(d->dir, dir) == 0)
			return d;
	}
	return NULL;
}

/* A lock of the open file description: it passes to the forked daemon, and can be asked about. */
static struct flock whole_file(void)
{
	return (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
}

static int already_mounted(const struct home *h, const char *id, struct err *err)
{
	_cleanup_drive_ struct drive d = { 0 };

	if (drive_load(h, id, &d, NULL) <= 0 || !d.dir)
		return err_set(err, EBUSY, "the drive is just being mounted by another process");
	return err_set(err, EBUSY, "already mounted at %s by process %d; varve umount it first",
		d.dir, (int)d.pid);
}

int drive_lock(const struct home *h, const char *id, int *ret_fd, struct err *err)
{
	_cleanup_free_ char *dir = home_drive_dir(h, id);
	_cleanup_free_ char *path = file_in(h, id, "lock");
	_cleanup_close_ int fd = -1;
	struct flock lock = whole_file();
	int r;

	if (!dir || !path)
		return err_sys(err, ENOMEM, "drive %s", id);
	r = home_make_dir(dir, err);
	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(err, errno, "cannot open %s", path);
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
		*ret_fd = steal_fd(fd);
		return 0;
	}
	if (errno == EAGAIN || errno == EACCES)
		return already_mounted(h, id, err);
	return err_sys(err, errno, "cannot lock %s", path);
}

bool drive_is_locked(const struct home *h, const char *id)
{
	_cleanup_free_ char *path = file_in(h, id, "lock");
	_cleanup_close_ int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	struct flock lock = whole_file();

	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int drive_announce(
	const struct home *h, const char *id, const char *dir, const char *socket, struct err *err)
{
	_cleanup_free_ char *path = file_in(h, id, "daemon.json");
	_cleanup_json_ json_t *object = json_pack("{s:i}", "pid", (int)getpid());

	if (!path || !object || json_set_path(object, "mountpoint", dir) < 0 ||
		json_set_path(object, "socket", socket) < 0)
		return err_sys(err, ENOMEM, "drive %s", id);
	return json_file_save(path, object, err);
}
