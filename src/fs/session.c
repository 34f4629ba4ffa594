// SPDX-License-Identifier: Apache-2.0
#include "fs/session.h"

#include "fs/device.h"
#include "fs/fsyncs.h"
#include "fs/invalidate.h"
#include "fs/loop.h"
#include "fs/mount.h"
#include "fs/ops.h"
#include "fs/seeks.h"
#include "fs/waits.h"
#include "bounds.h"
#include "log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define WRITE_BYTES_MAX (1 * MIB)
#define BACKGROUND_MAX 128

/* libfuse says what went wrong in its log only. */
static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;
static char said[ERR_TEXT_BYTES / 2];

__attribute__((format(printf, 2, 0))) static void libfuse_log(
	enum fuse_log_level level, const char *format, va_list ap)
{
	char line[sizeof said];

	vsnprintf(line, sizeof line, format, ap);
	line[strcspn(line, "\n")] = '\0';
	log_debug("libfuse: %s", line);
	SCOPED_LOCK(&said_lock);
	memcpy(said, line, sizeof said);
}

static int libfuse_failed(struct err *err, int code, const char *what)
{
	SCOPED_LOCK(&said_lock);
	return err_set(err, code, "%s: %s", what, said[0] ? said : "failed");
}

static void op_init(void *ctx, struct fuse_conn_info *conn)
{
	struct session *s = ctx;
	unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS |
			  FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO |
			  FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS |
			  FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_SPLICE_WRITE |
			  FUSE_CAP_SPLICE_MOVE | FUSE_CAP_DONT_MASK;
	/*
	 * Not: a new mtime must not drop the pages that our own write filled; locks are the
	 * kernel's; a write is taken from memory, where read(2) puts it with one copy.
	 */
	unsigned unwanted = FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE |
			    FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_SPLICE_READ;

	if (s->owners != OWNERS_MINE)
		wanted |= FUSE_CAP_POSIX_ACL;
	conn->want |= wanted & conn->capable;
	s->acls = conn->want & FUSE_CAP_POSIX_ACL;
	s->may_skip_opendir = conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT;
	conn->want &= ~unwanted;
	conn->max_write = WRITE_BYTES_MAX;
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
	device_init_seen();
}

static const struct fuse_lowlevel_ops operations = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.create = op_create,
	.link = op_link,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.copy_file_range = op_copy_file_range,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.statfs = op_statfs,
	.ioctl = op_ioctl,
};

/* Behind the write lock, nobody uses what the table gave out before. */
static void instance_unref(void *ctx, void *instance)
{
	struct session *s = ctx;

	pthread_rwlock_wrlock(&s->open_lock);
	pthread_rwlock_unlock(&s->open_lock);
	file_unref(instance);
}

static int session_parts(struct session *s)
{
	struct inodes_options o = { .unref = instance_unref, .ctx = s };
	int r;

	s->fsname = strdup(s->o.fsname);
	s->cache_dir = strdup(s->o.cache_dir);
	if (!s->fsname || !s->cache_dir)
		return -ENOMEM;
	r = inodes_new(&o, &s->inodes);
	if (r == 0)
		r = waits_new(&s->waits);
	if (r == 0)
		r = fsyncs_new(s->o.files, &s->fsyncs);
	if (r == 0)
		r = seeks_new(s, &s->seeks);
	if (r == 0)
		r = invalidator_new(s, &s->invalidator);
	return r;
}

static int session_fuse(struct session *s, struct err *err)
{
	_cleanup_buf_ struct buf options = { 0 };
	char program[] = "varve", option[] = "-o";
	char *argv[] = { program, option, NULL, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	int r = mount_options(s->fsname, s->o.mount_options, geteuid() == 0,
		mount_may_allow_other(), &options, err);

	if (r < 0)
		return r;
	argv[2] = buf_str(&options);
	if (!argv[2])
		return err_sys(err, ENOMEM, "mount");
	fuse_set_log_func(libfuse_log);
	s->fuse = fuse_session_new(&args, &operations, sizeof operations, s);
	fuse_opt_free_args(&args);
	if (!s->fuse)
		return libfuse_failed(err, EINVAL, "mount options");
	r = loop_new(s->fuse, &s->loop);
	return r < 0 ? err_sys(err, -r, "mount") : 0;
}

int session_new(const struct session_options *o, struct session **ret, struct err *err)
{
	struct session *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return err_sys(err, ENOMEM, "mount");
	s->o = *o;
	if (mount_is_posix(o->mount_options))
		s->owners = OWNERS_STORED;
	else
		s->owners = geteuid() ? OWNERS_MINE : OWNERS_HERE;
	pthread_rwlock_init(&s->open_lock, NULL);
	pthread_mutex_init(&s->handles_lock, NULL);
	pthread_mutex_init(&s->run_lock, NULL);
	pthread_cond_init(&s->run_changed, NULL);
	r = session_parts(s);
	if (r < 0)
		err_sys(err, -r, "mount");
	else
		r = session_fuse(s, err);
	if (r < 0) {
		session_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

static void wait_for_stop(struct session *s)
{
	SCOPED_LOCK(&s->run_lock);
	while (s->stop == STOP_UNDER_WAY)
		pthread_cond_wait(&s->run_changed, &s->run_lock);
}

void session_free(struct session *s)
{
	if (!s)
		return;
	wait_for_stop(s);
	invalidator_free(s->invalidator);
	waits_free(s->waits);
	fsyncs_free(s->fsyncs);
	seeks_free(s->seeks);
	while (s->handles)
		handle_close(s, s->handles);
	inodes_free(s->inodes);
	loop_free(s->loop);
	/* A session that never ran may be mounted all the same: the mount must not outlive us. */
	if (s->fuse) {
		fuse_session_unmount(s->fuse);
		fuse_session_destroy(s->fuse);
	}
	pthread_cond_destroy(&s->run_changed);
	pthread_mutex_destroy(&s->run_lock);
	pthread_mutex_destroy(&s->handles_lock);
	pthread_rwlock_destroy(&s->open_lock);
	free(s->dir);
	free(s->cache_dir);
	free(s->fsname);
	free(s);
}

int session_mount(struct session *s, const char *dir, struct err *err)
{
	int r = mount_prepare(dir, err);

	if (r < 0)
		return r;
	s->dir = realpath(dir, NULL);
	if (!s->dir)
		return err_sys(err, errno, "%s", dir);
	if (fuse_session_mount(s->fuse, s->dir) < 0)
		return libfuse_failed(err, EPERM, dir);
	r = device_attach(s->fuse);
	if (r < 0) {
		fuse_session_unmount(s->fuse);
		return err_sys(err, -r, "%s", dir);
	}
	return 0;
}

static void running_set(struct session *s, bool running)
{
	SCOPED_LOCK(&s->run_lock);
	s->running = running;
	pthread_cond_broadcast(&s->run_changed);
}

static int session_loop(struct session *s)
{
	int r;

	running_set(s, true);
	r = loop_run(s->loop);
	running_set(s, false);
	return r;
}

int session_run(struct session *s)
{
	int r = invalidator_start(s->invalidator);

	if (r == 0)
		r = fsyncs_start(s->fsyncs);
	if (r == 0)
		r = session_loop(s);
	invalidator_stop(s->invalidator);
	seeks_stop(s->seeks);
	waits_stop(s->waits);
	fsyncs_stop(s->fsyncs);
	fuse_session_unmount(s->fuse);
	return r;
}

/* Mapped pages that were written to come as requests; nobody answers them later. */
static void write_back(struct session *s)
{
	_cleanup_close_ int fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0 && syncfs(fd) < 0)
		log_debug("stop: dirty pages: %s", strerror(errno));
}

static bool is_running(struct session *s)
{
	SCOPED_LOCK(&s->run_lock);
	return s->running;
}

static void end_loop(struct session *s)
{
	loop_stop(s->loop);
	SCOPED_LOCK(&s->run_lock);
	while (s->running)
		pthread_cond_wait(&s->run_changed, &s->run_lock);
}

/* True for the first; session_free() waits until it has left. */
static bool stop_enter(struct session *s)
{
	SCOPED_LOCK(&s->run_lock);
	if (s->stop != STOP_NONE)
		return false;
	s->stop = STOP_UNDER_WAY;
	return true;
}

static void stop_leave(struct session *s)
{
	SCOPED_LOCK(&s->run_lock);
	s->stop = STOP_DONE;
	pthread_cond_broadcast(&s->run_changed);
}

void session_stop(struct session *s)
{
	if (!stop_enter(s))
		return;
	if (is_running(s))
		write_back(s);
	/* While requests are still answered: a notification may wait for one of them. */
	invalidator_stop(s->invalidator);
	seeks_stop(s->seeks);
	waits_cancel(s->waits);
	end_loop(s);
	stop_leave(s);
}

static void sink_changed(void *ctx, const struct tree_event *events, size_t n)
{
	struct session *s = ctx;

	atomic_fetch_add(&s->names_changed, 1);
	atomic_fetch_add(&s->remote_changes, 1);
	invalidator_changed(s->invalidator, events, n);
}

struct change_sink session_sink(struct session *s)
{
	return (struct change_sink){ .changed = sink_changed, .ctx = s };
}
