// SPDX-License-Identifier: Apache-2.0
#include "cli/mounts.h"

#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>

extern char **environ;

void mount_entry_done(struct mount_entry *m)
{
	free(m->dir);
	free(m->type);
	free(m->source);
	*m = (struct mount_entry){ 0 };
}

/* The kernel writes blanks and backslashes as three octal digits. In place. */
static void unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (s[0] == '\\' && strspn(s + 1, "01234567") >= 3) {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
}

static char *copy_unescaped(const char *field)
{
	char *s = field ? strdup(field) : NULL;

	if (s)
		unescape(s);
	return s;
}

/*
 * 36 35 98:0 /root /mnt rw,noatime shared:1 - fuse.varve varve#home rw
 * Between the sixth field and the "-" stand any number of optional ones.
 */
int mount_entry_parse(char *line, struct mount_entry *ret)
{
	_cleanup_mount_ struct mount_entry m = { 0 };
	char *save = NULL, *field[6], *type, *source;
	unsigned major_number, minor_number;

	for (size_t i = 0; i < ARRAY_SIZE(field); i++) {
		field[i] = strtok_r(i ? NULL : line, " \n", &save);
		if (!field[i])
			return -EBADMSG;
	}
	do {
		type = strtok_r(NULL, " \n", &save);
	} while (type && strcmp(type, "-") != 0);
	type = type ? strtok_r(NULL, " \n", &save) : NULL;
	source = type ? strtok_r(NULL, " \n", &save) : NULL;
	if (!source || sscanf(field[2], "%u:%u", &major_number, &minor_number) != 2)
		return -EBADMSG;
	m.dev = makedev(major_number, minor_number);
	m.dir = copy_unescaped(field[4]);
	m.type = copy_unescaped(type);
	m.source = copy_unescaped(source);
	if (!m.dir || !m.type || !m.source)
		return -ENOMEM;
	*ret = m;
	m = (struct mount_entry){ 0 };
	return 0;
}

static int find(bool (*matches)(const struct mount_entry *m, const void *key), const void *key,
	struct mount_entry *ret)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	size_t cap = 0;
	int found = 0;

	if (!f)
		return -errno;
	while (getline(&line, &cap, f) >= 0) {
		struct mount_entry m = { 0 };
		int r = mount_entry_parse(line, &m);

		if (r == -ENOMEM)
			return r;
		if (r == 0 && matches(&m, key)) {
			/* A later line lies over an earlier one. */
			if (found)
				mount_entry_done(ret);
			*ret = m;
			found = 1;
		} else {
			mount_entry_done(&m);
		}
	}
	return found;
}

static bool is_at(const struct mount_entry *m, const void *dir)
{
	return strcmp(m->dir, dir) == 0;
}

static bool has_device(const struct mount_entry *m, const void *dev)
{
	return m->dev == *(const dev_t *)dev;
}

int mount_find_at(const char *dir, struct mount_entry *ret)
{
	return find(is_at, dir, ret);
}

int mount_find_device(dev_t dev, struct mount_entry *ret)
{
	return find(has_device, &dev, ret);
}

bool mount_is_varve(const struct mount_entry *m)
{
	return strncmp(m->type, "fuse", 4) == 0 &&
	       strncmp(m->source, MOUNT_SOURCE_PREFIX, strlen(MOUNT_SOURCE_PREFIX)) == 0;
}

/* statfs(2), because stat(2) can be answered out of the kernel's cache. */
bool mounts_is_dead(const char *dir)
{
	struct statfs fs;

	return statfs(dir, &fs) < 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

/* Splits "a/b/" into "a" and "b". Names that are no plain last part ("." "..") are refused. */
static int split(char *path, const char **ret_parent, const char **ret_name)
{
	size_t n = strlen(path);
	char *slash;

	while (n > 1 && path[n - 1] == '/')
		path[--n] = '\0';
	slash = strrchr(path, '/');
	*ret_name = slash ? slash + 1 : path;
	*ret_parent = !slash ? "." : slash == path ? "/" : path;
	if (!**ret_name || strcmp(*ret_name, ".") == 0 || strcmp(*ret_name, "..") == 0)
		return -EINVAL;
	if (slash && slash != path)
		*slash = '\0';
	return 0;
}

static char *join(const char *parent, const char *name)
{
	char *s;

	return asprintf(&s, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, name) < 0 ? NULL : s;
}

/* A symlink as last part is followed by its text: readlink(2) does not enter a mount. */
int mount_resolve(const char *dir, char **ret, struct err *err)
{
	_cleanup_free_ char *copy = strdup(dir), *parent = NULL, *path = NULL;
	const char *parent_text, *name;
	char target[PATH_MAX];

	if (!copy)
		return err_sys(err, ENOMEM, "%s", dir);
	if (split(copy, &parent_text, &name) < 0) {
		*ret = realpath(dir, NULL);
		return *ret ? 0 : err_sys(err, errno, "%s", dir);
	}
	parent = realpath(parent_text, NULL);
	if (!parent)
		return err_sys(err, errno, "%s", dir);
	path = join(parent, name);
	if (!path)
		return err_sys(err, ENOMEM, "%s", dir);
	if (readlink(path, target, sizeof target) >= 0) {
		*ret = realpath(path, NULL);
		return *ret ? 0 : err_sys(err, errno, "%s", dir);
	}
	*ret = steal(path);
	return 0;
}

/* fusermount3 may do for its owner what umount2() is refused. It says why on stderr: dropped. */
static int detach_by_helper(const char *dir, bool lazy)
{
	const char *argv[] = { "fusermount3", "-u", "-q", lazy ? "-z" : "--", lazy ? "--" : dir,
		lazy ? dir : NULL, NULL };
	posix_spawn_file_actions_t actions;
	int status, r;
	pid_t pid;

	r = posix_spawn_file_actions_init(&actions);
	if (r)
		return -r;
	r = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	if (r == 0)
		r = posix_spawnp(
			&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r)
		return -r;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

static bool is_dying(pid_t pid)
{
	_cleanup_buf_ struct buf stat = { 0 };
	char path[64];
	const char *state;
	int r;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	r = io_read_file(path, 4096, &stat);
	if (r < 0)
		return r == -ENOENT || r == -ESRCH;
	/* Behind the name, which can have anything in it. */
	state = memrchr(stat.data, ')', stat.len);
	return state && state + 2 < (char *)stat.data + stat.len &&
	       (state[2] == 'Z' || state[2] == 'X');
}

/* The connection's own switch, or what a forced unmount does before it looks who uses it. */
static void cut_connection(const struct mount_entry *m)
{
	_cleanup_close_ int fd = -1;
	char path[64];

	snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", minor(m->dev));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "1", 1) == 1)
		return;
	if (umount2(m->dir, MNT_FORCE | UMOUNT_NOFOLLOW) < 0)
		errno = 0;
}

bool mounts_end_dying(pid_t pid, const char *dir)
{
	_cleanup_mount_ struct mount_entry m = { 0 };

	if (!is_dying(pid))
		return false;
	if (dir && mount_find_at(dir, &m) > 0 && mount_is_varve(&m))
		cut_connection(&m);
	return true;
}

int mounts_detach(const char *dir, bool lazy, struct err *err)
{
	int r = umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? -errno : 0;

	if (r == -EPERM)
		r = detach_by_helper(dir, lazy);
	if (r == -EBUSY)
		return err_set(err, EBUSY,
			"%s is in use; end what uses it (fuser -vm shows), or varve umount --force",
			dir);
	if (r == -ENOENT)
		return err_set(err, ENOENT,
			"cannot unmount %s: fusermount3 is missing; install fuse3", dir);
	return r < 0 ? err_sys(err, -r, "cannot unmount %s", dir) : 0;
}
