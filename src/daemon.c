// SPDX-License-Identifier: Apache-2.0
#include "daemon_impl.h"

#include "cli/mounts.h"
#include "cli/output.h"
#include "clock.h"
#include "fault.h"
#include "log.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* A read that needs the network waits that long for its bytes (promise 7). */
#define READ_TIMEOUT_MS 30000
/* The attempt to send what waits, when the mount is gone already and somebody watches. */
#define LAST_PUSH_MS 3000

void daemon_ask_stop(struct daemon *d)
{
	SCOPED_LOCK(&d->lock);

	d->stop_asked = true;
	if (d->state == DAEMON_SERVING)
		session_stop(d->session);
}

static void on_signal(void *ctx, unsigned count)
{
	struct daemon *d = ctx;

	if (count == 1) {
		daemon_ask_stop(d);
		return;
	}
	log_warn("ending at once; what was written is safe, and sealed by the next mount");
	if (mounts_detach(d->plan->mountpoint, true, NULL) < 0)
		log_debug("there was no mount to drop");
	_exit(EXIT_FAILED);
}

/* The sink while the session is being taken down: nobody has the kernel's caches any more. */
static void hear_nothing(void *ctx, const struct tree_event *events, size_t n)
{
}

/* A new store is the drive's on this device from its device number on, which the server gives. */
static int format_store(struct daemon *d, struct err *err)
{
	_cleanup_buf_ struct buf id = { 0 };
	uint32_t number;
	int64_t created_ns;
	int r = tree_drive_id(d->store, &id);

	if (r < 0)
		return err_sys(err, -r, "cannot read the local store");
	if (r > 0 && (id.len != DRIVE_ID_DIGITS ||
			     memcmp(id.data, d->plan->drive->id, DRIVE_ID_DIGITS) != 0))
		return err_set(err, EBADMSG, "%s holds another drive; move it away", d->plan->dir);
	if (r > 0)
		return 0;
	r = d->plan->attach(d->plan->ctx, &number, &created_ns, err);
	fault_instant("attach.saved");
	return r < 0 ? r : tree_format(d->store, d->plan->drive->id, number, created_ns, err);
}

static int open_store(struct daemon *d, struct err *err)
{
	_cleanup_free_ char *dir = path_join(d->plan->dir, "store");
	int r = dir ? store_open(dir, &d->store, err) : err_sys(err, ENOMEM, "store");

	return r < 0 ? r : format_store(d, err);
}

static int open_tree(struct daemon *d, struct err *err)
{
	struct tree_options tree = { .device_name = d->plan->account->device };
	struct sync_options sync = {
		.url = d->plan->account->url,
		.token = d->plan->account->token,
		.drive_id = d->plan->drive->id,
		.ca_file = d->plan->account->ca_file,
	};
	uint64_t dropped;
	int r = open_store(d, err);

	if (r == 0)
		r = cache_open(d->store, d->plan->dir, &d->cache, err);
	if (r < 0)
		return r;
	tree.store = d->store;
	tree.cache = sync.cache = d->cache;
	r = tree_open(&tree, &d->tree, err);
	if (r == 0)
		r = tree_drop_lost(d->tree, &dropped, err);
	if (r < 0)
		return r;
	if (dropped)
		log_warn("the last %llu changes had not reached the disk when the system stopped; "
			 "the drive is as before",
			(unsigned long long)dropped);
	sync.tree = d->tree;
	r = sync_new(&sync, &d->sync, err);
	if (r == 0)
		cache_set_source(d->cache, sync_chunk_source(d->sync));
	return r;
}

static int open_files(struct daemon *d, struct err *err)
{
	struct files_options options = {
		.tree = d->tree,
		.cache = d->cache,
		.store = d->store,
		.dir = d->plan->dir,
		.network_timeout_ms = READ_TIMEOUT_MS,
	};
	struct files_stats stats;
	int r = files_new(&options, &d->files, err);

	if (r < 0)
		return r;
	files_get_stats(d->files, &stats);
	if (stats.recovered)
		log_info("%llu files that the last daemon had not finished were taken over",
			(unsigned long long)stats.recovered);
	if (stats.damaged)
		log_error("of %llu of them, bytes that were written are missing on this disk",
			(unsigned long long)stats.damaged);
	return 0;
}

/* Behind open_files(): what a crash has left is taken over by then. */
static int start_evict(struct daemon *d, struct err *err)
{
	struct evict_options options = {
		.store = d->store,
		.cache = d->cache,
		.tree = d->tree,
		.budget_bytes = d->plan->cache_bytes,
	};

	return evict_start(&options, &d->evict, err);
}

/* What /proc/mounts shows. A comma would end the option that carries it. */
static char *source_name(const char *drive_name)
{
	char *s;

	if (asprintf(&s, MOUNT_SOURCE_PREFIX "%s", drive_name) < 0)
		return NULL;
	for (char *c = s; *c; c++) {
		if (*c == ',' || *c == '\\')
			*c = '_';
	}
	return s;
}

static int open_session(struct daemon *d, struct err *err)
{
	_cleanup_free_ char *source = source_name(d->plan->drive->name);
	struct session_options options = {
		.tree = d->tree,
		.files = d->files,
		.fsname = source,
		.mount_options = d->plan->mount_options,
		.cache_dir = d->plan->dir,
		.state_xattr = node_state_xattr,
		.state_ctx = &d->node_states,
	};
	int r;

	if (!source)
		return err_sys(err, ENOMEM, "mount");
	d->node_states = (struct node_state_source){ d->store, d->tree, d->files };
	r = session_new(&options, &d->session, err);
	if (r < 0)
		return r;
	tree_set_sink(d->tree, session_sink(d->session));
	r = session_mount(d->session, d->plan->mountpoint, err);
	fault_instant("mount.mounted");
	return r;
}

/* Many segments and files are open at once. Failing, the soft limit has to do. */
static void raise_limits(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &l) < 0)
			log_debug("cannot raise the number of open files: %s", strerror(errno));
	}
}

static int start(struct daemon *d, struct err *err)
{
	struct control_handler handler = { .handle = daemon_handle, .ctx = d };
	int r;

	umask(0077);
	raise_limits();
	r = signals_new(on_signal, d, &d->signals);
	if (r < 0)
		return err_sys(err, -r, "cannot catch signals");
	r = open_tree(d, err);
	if (r == 0)
		r = open_files(d, err);
	if (r == 0)
		r = start_evict(d, err);
	if (r == 0)
		r = open_session(d, err);
	if (r == 0)
		r = sync_start(d->sync, err);
	if (r == 0)
		r = control_new(d->plan->socket_path, &handler, &d->control, err);
	return r;
}

/* Asks the mount as any program would: an answer means that programs can use it. */
static void *announce_main(void *arg)
{
	struct daemon *d = arg;
	struct statfs fs;

	if (statfs(d->plan->mountpoint, &fs) == 0)
		d->plan->ready(d->plan->ctx);
	return NULL;
}

/* True unless a signal asked to stop before there was anything to be stopped. */
static bool begin_serving(struct daemon *d)
{
	SCOPED_LOCK(&d->lock);

	if (d->stop_asked)
		return false;
	d->state = DAEMON_SERVING;
	return true;
}

static int serve(struct daemon *d, struct err *err)
{
	pthread_t announcer;
	int r;

	if (!begin_serving(d))
		return err_set(err, EINTR, "stopped by a signal");
	r = -pthread_create(&announcer, NULL, announce_main, d);
	if (r < 0)
		return err_sys(err, -r, "cannot start a thread");
	r = session_run(d->session);
	pthread_join(announcer, NULL);
	return r < 0 ? err_sys(err, -r, "the mount at %s broke", d->plan->mountpoint) : 0;
}

static void set_state(struct daemon *d, enum daemon_state state)
{
	SCOPED_LOCK(&d->lock);

	d->state = state;
	pthread_cond_broadcast(&d->changed);
}

static void last_push(struct daemon *d)
{
	struct sync_status s;
	int r;

	sync_get_status(d->sync, &s);
	if (s.link != SYNC_ONLINE)
		return;
	r = sync_wait(d->sync, clock_mono_ms() + LAST_PUSH_MS);
	if (r < 0)
		log_debug("the last push: %s", strerror(-r));
}

static void finish(struct daemon *d)
{
	struct files_stats files;
	struct outbox_stats outbox;
	int r;

	atomic_store(&d->stopping, 1);
	set_state(d, DAEMON_STOPPING);
	control_close(d->control);
	fault_instant("umount.begun");
	r = files_seal_all(d->files);
	fault_instant("umount.sealed");
	if (r < 0)
		log_error("some of what was written waits for the next mount: %s", strerror(-r));
	last_push(d);
	sync_stop(d->sync);
	fault_instant("umount.pushed");
	files_get_stats(d->files, &files);
	replica_outbox_stats(d->tree, &outbox);
	d->unsealed = files.dirty;
	d->unsent = outbox.entries;
	log_info("unmounted; %llu changes are not sent yet", (unsigned long long)outbox.entries);
	set_state(d, DAEMON_STOPPED);
}

/* From the outside in: each part is used by those that go before it. */
static void daemon_done(struct daemon *d)
{
	control_free(d->control);
	if (d->sync)
		sync_stop(d->sync);
	if (d->tree)
		tree_set_sink(d->tree, (struct change_sink){ .changed = hear_nothing });
	if (d->session)
		session_free(d->session);
	if (d->files)
		files_free(d->files);
	evict_stop(d->evict);
	if (d->sync)
		sync_free(d->sync);
	if (d->tree)
		tree_free(d->tree);
	if (d->cache)
		cache_free(d->cache);
	if (d->store)
		store_free(d->store);
	signals_free(d->signals);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->changed);
}

/* Damage, whoever met it first. */
static void name_the_doctor(struct err *err)
{
	size_t n = strlen(err->text);

	if (!strstr(err->text, "doctor"))
		snprintf(err->text + n, sizeof err->text - n,
			"; varve doctor --repair mends what can be mended");
}

int daemon_serve(const struct mount_plan *plan, struct err *err)
{
	struct daemon d = { .plan = plan };
	int r;

	pthread_mutex_init(&d.lock, NULL);
	pthread_cond_init(&d.changed, NULL);
	log_info("varve %s, drive '%s' of %s at %s", VARVE_VERSION, plan->drive->name,
		plan->account->user, plan->account->url);
	r = start(&d, err);
	if (r == 0)
		r = serve(&d, err);
	if (r == -EBADMSG)
		name_the_doctor(err);
	if (d.control)
		finish(&d);
	daemon_done(&d);
	return r;
}
