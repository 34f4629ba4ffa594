// SPDX-License-Identifier: Apache-2.0
#include "fs/mount.h"

#include "io.h"
#include "bounds.h"

#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define MOUNT_TYPE "fuse.varve"
#define MOUNTINFO_BYTES_MAX (16 * MIB)
/* Dead daemons' mounts can lie on top of each other; more than a few is something else. */
#define STALE_MAX 16

extern char **environ;

#define OPTION_POSIX "posix"

static bool option_known(const char *p, size_t n, bool *ret_root_only)
{
	static const struct {
		const char *name;
		bool root_only;
	} known[] = {
		{ OPTION_POSIX, true },
		{ "ro", false },
		{ "rw", false },
		{ "exec", false },
		{ "noexec", false },
		{ "suid", true },
		{ "nosuid", false },
		{ "dev", true },
		{ "nodev", false },
		{ "sync", false },
		{ "async", false },
		{ "dirsync", false },
		{ "noatime", false },
		{ "allow_other", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strlen(known[i].name) != n || memcmp(known[i].name, p, n) != 0)
			continue;
		*ret_root_only = known[i].root_only;
		return true;
	}
	return false;
}

static int option_check(const char *p, size_t n, bool root, bool allow_other, struct err *err)
{
	bool root_only;

	if (!option_known(p, n, &root_only))
		return err_set(err, EINVAL,
			"mount option '%.*s': unknown; known are ro, noexec, "
			"nosuid, nodev, sync, dirsync, allow_other, posix",
			(int)n, p);
	if (root_only && !root)
		return err_set(err, EPERM, "mount option '%.*s': only root may give it", (int)n, p);
	if (n == strlen("allow_other") && !memcmp(p, "allow_other", n) && !allow_other)
		return err_set(err, EPERM,
			"mount option 'allow_other': not permitted; put "
			"user_allow_other into /etc/fuse.conf");
	return 0;
}

static bool option_is_posix(const char *p, size_t n)
{
	return n == strlen(OPTION_POSIX) && !memcmp(p, OPTION_POSIX, n);
}

bool mount_is_posix(const char *user)
{
	while (user && *user) {
		size_t n = strcspn(user, ",");

		if (option_is_posix(user, n))
			return true;
		user += n + (user[n] == ',');
	}
	return false;
}

static int options_of_user(
	const char *user, bool root, bool allow_other, struct buf *ret, struct err *err)
{
	int r = 0;

	while (user && *user && r == 0) {
		size_t n = strcspn(user, ",");

		if (n > 0)
			r = option_check(user, n, root, allow_other, err);
		if (n > 0 && r == 0 && !option_is_posix(user, n))
			r = buf_printf(ret, ",%.*s", (int)n, user);
		user += n + (user[n] == ',');
	}
	return r;
}

/* libfuse splits at commas unless a backslash is before them. */
static int option_escaped(struct buf *ret, const char *value)
{
	int r = 0;

	for (; *value && r == 0; value++) {
		if (*value == ',' || *value == '\\')
			r = buf_append(ret, "\\", 1);
		if (r == 0)
			r = buf_append(ret, value, 1);
	}
	return r;
}

int mount_options(const char *fsname, const char *user, bool root, bool allow_other,
	struct buf *ret, struct err *err)
{
	int r = buf_printf(ret, "subtype=varve,default_permissions,noatime%s%s,fsname=",
		root && mount_is_posix(user) ? ",suid,dev" : "", allow_other ? ",allow_other" : "");

	if (r == 0)
		r = option_escaped(ret, fsname);
	if (r < 0)
		return err_sys(err, -r, "mount options");
	return options_of_user(user, root, allow_other, ret, err);
}

bool mount_may_allow_other(void)
{
	_cleanup_buf_ struct buf conf = { 0 };
	static const char word[] = "user_allow_other";
	char *line, *rest;

	if (geteuid() == 0)
		return true;
	if (io_read_file("/etc/fuse.conf", MIB, &conf) < 0 || !buf_str(&conf))
		return false;
	rest = (char *)conf.data;
	while ((line = strsep(&rest, "\n"))) {
		line += strspn(line, " \t");
		if (!strncmp(line, word, strlen(word)) &&
			line[strlen(word) + strspn(line + strlen(word), " \t\r")] == '\0')
			return true;
	}
	return false;
}

/* Undoes the kernel's \040 and the like, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
			s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* "36 35 98:0 /root /mount/point opts ... - type source opts" */
static bool parse_line(char *line, char **ret_point, char **ret_type)
{
	char *dash = strstr(line, " - ");
	char *field = NULL;

	if (!dash)
		return false;
	*dash = '\0';
	for (int i = 0; i < 5; i++) {
		field = strsep(&line, " ");
		if (!field)
			return false;
	}
	unescape(field);
	*ret_point = field;
	dash += strlen(" - ");
	*ret_type = strsep(&dash, " ");
	return true;
}

bool mount_is_ours(const char *mountinfo, const char *path)
{
	_cleanup_free_ char *copy = strdup(mountinfo);
	char *rest = copy;
	bool ours = false;
	char *line, *point, *type;

	while (rest && (line = strsep(&rest, "\n")))
		if (parse_line(line, &point, &type) && !strcmp(point, path))
			ours = !strcmp(type, MOUNT_TYPE);
	return ours;
}

/* The path as mountinfo has it, found without touching what is mounted there. */
static char *resolve(const char *dir)
{
	_cleanup_free_ char *copy = strdup(dir);
	_cleanup_free_ char *parent = NULL;
	char *slash, *full = NULL;

	if (!copy)
		return NULL;
	for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	slash = strrchr(copy, '/');
	if (!strcmp(slash ? slash + 1 : copy, "..") || !strcmp(slash ? slash + 1 : copy, "."))
		return realpath(dir, NULL);
	if (!slash)
		parent = realpath(".", NULL);
	else if (slash == copy)
		parent = strdup("");
	else
		parent = (*slash = '\0', realpath(copy, NULL));
	if (!parent)
		return NULL;
	if (!strcmp(parent, "/"))
		parent[0] = '\0';
	if (asprintf(&full, "%s/%s", parent, slash ? slash + 1 : copy) < 0)
		return NULL;
	return full;
}

static bool listed_as_ours(const char *dir)
{
	_cleanup_buf_ struct buf info = { 0 };
	_cleanup_free_ char *link = resolve(dir);
	_cleanup_free_ char *path = NULL;
	struct stat st;

	if (!link)
		return false;
	/* A symlink to the mount point; lstat() does not touch what it leads to. */
	if (lstat(link, &st) == 0 && S_ISLNK(st.st_mode))
		path = realpath(link, NULL);
	if (io_read_file("/proc/self/mountinfo", MOUNTINFO_BYTES_MAX, &info) < 0 || !buf_str(&info))
		return false;
	return mount_is_ours((const char *)info.data, path ? path : link);
}

static bool is_dead(int error)
{
	return error == ENOTCONN || error == ECONNABORTED;
}

/* 1 stale, 0 not, -EBUSY: a daemon lives there. */
static int stale(const char *dir, struct err *err)
{
	struct statfs fs;
	struct stat st;

	if (stat(dir, &st) < 0 && is_dead(errno))
		return 1;
	if (!listed_as_ours(dir))
		return 0;
	/* stat() can be answered from the kernel's cache; statfs() asks the daemon. */
	if (statfs(dir, &fs) < 0 && is_dead(errno))
		return 1;
	return err_set(err, EBUSY, "%s: a drive is mounted there already; varve umount %s first",
		dir, dir);
}

static int run_fusermount(const char *dir)
{
	char program[] = "fusermount3", options[] = "-uzq", end[] = "--";
	char *argv[] = { program, options, end, (char *)(uintptr_t)dir, NULL };
	int status;
	pid_t pid;
	int r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);

	if (r != 0)
		return -r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

int mount_detach(const char *dir)
{
	if (umount2(dir, MNT_DETACH) == 0)
		return 0;
	return errno == EPERM ? run_fusermount(dir) : -errno;
}

static int take_stale_away(const char *dir, struct err *err)
{
	int r;

	for (int i = 0; i < STALE_MAX; i++) {
		r = stale(dir, err);
		if (r <= 0)
			return r;
		r = mount_detach(dir);
		if (r < 0)
			return err_sys(err, -r,
				"%s: the mount of a dead daemon cannot be taken away", dir);
	}
	return err_set(
		err, EBUSY, "%s: more than %d dead mounts on top of each other", dir, STALE_MAX);
}

int mount_prepare(const char *dir, struct err *err)
{
	struct stat st;
	int r = take_stale_away(dir, err);

	if (r < 0)
		return r;
	if (stat(dir, &st) < 0)
		return err_sys(err, errno, "%s", dir);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "%s: not a directory", dir);
	return 0;
}
