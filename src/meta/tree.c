// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants of the tree:
 *  1. A mutation is one batch: the rows, the base rows below them, and the outbox entry.
 *  2. Every node but the root has a name; it goes with its last one.
 *  3. links, subdirs and the names of a node agree with the link rows (view_set_link()).
 *  4. A row whose entry is not acknowledged has the server's row in CF_BASE, or the server has
 *     none; a row that was deleted since has a base row in any case.
 */
#include "clock.h"
#include "fault.h"
#include "meta/tree_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Device number 0 is the server's: the root is its node. */
#define ROOT_MODE (S_IFDIR | 0755)

static int check_format(struct store *st, struct err *err)
{
	uint64_t format;
	int r = state_get_u64(st, STATE_FORMAT, &format);

	if (r == 0)
		return err_set(err, ENODATA, "the cache holds no drive");
	if (r < 0)
		return err_sys(err, -r, "read the cache's format");
	if (format != FORMAT_VERSION)
		return err_set(err, ENOTSUP,
			"the cache has format %llu, this program knows %d; send what is unsent "
			"with the program that made it; then varve doctor --repair fetches "
			"the tree anew from the server, and sets aside what still is unsent",
			(unsigned long long)format, FORMAT_VERSION);
	return 0;
}

static int load_state(struct tree *t, struct err *err)
{
	uint64_t device = 0, cursor = 0, counter = 0;
	int r = state_get_u64(t->store, STATE_DEVICE, &device);

	if (r > 0)
		r = state_get_u64(t->store, STATE_CURSOR, &cursor);
	if (r > 0)
		r = state_get_u64(t->store, STATE_COUNTER, &counter);
	if (r > 0 && device > NODE_DEVICE_MAX)
		r = -EBADMSG;
	if (r > 0)
		r = inflight_load(t);
	else if (r == 0)
		r = -EBADMSG;
	if (r == 0)
		r = sent_load(t);
	if (r == 0)
		r = conflict_load(t);
	if (r < 0)
		return err_sys(err, -r, "read the cache's state");
	t->device_number = (uint32_t)device;
	t->cursor = cursor;
	t->counter = t->counter_end = counter;
	return outbox_load(t, err);
}

static int init_locks(struct tree *t)
{
	pthread_condattr_t attr;
	int r;

	pthread_mutex_init(&t->lock, NULL);
	pthread_mutex_init(&t->soft_lock, NULL);
	pthread_mutex_init(&t->wait_lock, NULL);
	pthread_condattr_init(&attr);
	r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (r == 0)
		r = pthread_cond_init(&t->wait_cond, &attr);
	pthread_condattr_destroy(&attr);
	return -r;
}

int tree_open(const struct tree_options *options, struct tree **ret, struct err *err)
{
	struct tree *t;
	int r = check_format(options->store, err);

	if (r < 0)
		return r;
	t = calloc(1, sizeof *t);
	if (!t)
		return err_sys(err, ENOMEM, "open the tree");
	t->store = options->store;
	t->cache = options->cache;
	t->device_name = strdup(options->device_name);
	r = init_locks(t);
	if (r == 0 && !t->device_name)
		r = -ENOMEM;
	if (r < 0)
		err_sys(err, -r, "open the tree");
	else
		r = load_state(t, err);
	if (r < 0) {
		tree_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	soft_done(&t->soft);
	pthread_cond_destroy(&t->wait_cond);
	pthread_mutex_destroy(&t->wait_lock);
	pthread_mutex_destroy(&t->soft_lock);
	pthread_mutex_destroy(&t->lock);
	free(t->sent);
	free(t->device_name);
	free(t);
}

/* As the server has it on every drive. */
static void put_root(struct batch *b, int64_t created_ns)
{
	struct node_rec rec = {
		.attr = {
			.mode = ROOT_MODE,
			.atime_ns = created_ns,
			.mtime_ns = created_ns,
			.ctime_ns = created_ns,
			.btime_ns = created_ns,
		},
	};
	struct row_key k = key_id(NODE_ROOT);
	uint8_t row[NODE_ROW_MAX];

	batch_put(b, CF_NODE, k.b, k.n, row, node_encode(&rec, row));
}

int tree_format(struct store *st, const char *drive_id, uint32_t device_number, int64_t created_ns,
	struct err *err)
{
	_cleanup_batch_ struct batch *b = NULL;
	int r = state_get(st, STATE_FORMAT, NULL);

	if (r > 0)
		return err_set(err, EEXIST, "the cache holds a drive already");
	if (device_number == 0 || device_number > NODE_DEVICE_MAX)
		return err_set(err, EINVAL, "device number %u: not in 1..%u", device_number,
			NODE_DEVICE_MAX);
	if (r == 0)
		r = batch_new(st, &b);
	if (r == 0) {
		state_put_u64(b, STATE_FORMAT, FORMAT_VERSION);
		state_put_u64(b, STATE_DEVICE, device_number);
		state_put_u64(b, STATE_CURSOR, 0);
		state_put_u64(b, STATE_COUNTER, 1);
		batch_put(
			b, CF_STATE, STATE_DRIVE, strlen(STATE_DRIVE), drive_id, strlen(drive_id));
		put_root(b, created_ns);
		r = store_commit(st, b);
	}
	fault_instant("tree.formatted");
	if (r == 0)
		r = store_sync(st);
	return r < 0 ? err_sys(err, -r, "format the cache") : 0;
}

int tree_drive_id(struct store *st, struct buf *ret)
{
	return state_get(st, STATE_DRIVE, ret);
}

void tree_set_sink(struct tree *t, struct change_sink sink)
{
	SCOPED_LOCK(&t->lock);

	t->sink = sink;
}

void tree_view(struct tree *t, struct view *v)
{
	view_init(v, t->store, t->acked, &t->xattr_sums);
}

static int64_t now_ns(void)
{
	return clock_real_ns();
}

/* What the change of one entry needs: mutations build it, commit it, and show the node. */
static int commit_one(
	struct tree *t, struct view *v, const struct change *c, uint64_t node, struct node *ret)
{
	struct outbox_entry e = { .change = *c };
	struct node_rec rec;
	int r = outbox_commit(t, v, &e, 1);

	if (r == 0)
		r = view_node(v, node, &rec);
	if (r < 0)
		return r;
	if (r > 0)
		node_show(t, node, &rec, ret);
	return 0;
}

int node_init_check(const struct node_init *init)
{
	switch (init->mode & S_IFMT) {
	case S_IFLNK:
		if (init->target.n == 0)
			return -ENOENT;
		return init->target.n > SYMLINK_BYTES_MAX ? -ENAMETOOLONG : 0;
	case S_IFREG:
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return 0;
	default:
		return -EINVAL;
	}
}

void create_change(
	uint64_t parent, struct slice name, const struct node_init *init, struct change *ret)
{
	int64_t now = now_ns();

	*ret = (struct change){
		.kind = CHANGE_CREATE,
		.parent = parent,
		.name = name,
		.time_ns = now,
		.attr = {
			.mode = init->mode,
			.uid = init->uid,
			.gid = init->gid,
			.rdev = S_ISCHR(init->mode) || S_ISBLK(init->mode) ? init->rdev : 0,
			.atime_ns = now,
			.mtime_ns = now,
			.ctime_ns = now,
			.btime_ns = now,
		},
	};
	ret->xattrs = init->xattrs;
	ret->n_xattrs = init->n_xattrs;
	if (S_ISLNK(init->mode)) {
		ret->target = init->target;
		ret->attr.size = init->target.n;
	}
}

static int create_locked(struct tree *t, struct change *c, struct node *ret)
{
	_cleanup_view_ struct view v;
	struct node_rec dir;
	uint64_t taken;
	int r;

	tree_view(t, &v);
	r = dir_of(&v, c->parent, &dir);
	if (r == 0)
		r = view_link(&v, c->parent, c->name, &taken);
	if (r != 0)
		return r > 0 ? -EEXIST : r;
	r = node_id_next(t, &c->node);
	return r < 0 ? r : commit_one(t, &v, c, c->node, ret);
}

int tree_create(struct tree *t, uint64_t parent, struct slice name, const struct node_init *init,
	struct node *ret)
{
	struct change c;
	int r = name_check(name);

	if (r == 0)
		r = node_init_check(init);
	if (r < 0)
		return r;
	create_change(parent, name, init, &c);
	{
		SCOPED_LOCK(&t->lock);
		r = create_locked(t, &c, ret);
	}
	if (r == 0)
		outbox_notify(t);
	return r;
}

static int setattr_locked(struct tree *t, struct change *c, struct node *ret)
{
	_cleanup_view_ struct view v;
	struct node_rec rec;
	int r;

	tree_view(t, &v);
	r = view_node(&v, c->node, &rec);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	c->attr.mode = (c->attr.mode & 07777) | (rec.attr.mode & S_IFMT);
	return commit_one(t, &v, c, c->node, ret);
}

int tree_setattr(struct tree *t, uint64_t node, uint32_t mask, const struct node_attr *attr,
	struct node *ret)
{
	struct change c = { .kind = CHANGE_SETATTR, .node = node, .time_ns = now_ns() };
	int r;

	if (mask & ~(uint32_t)ATTR_ALL)
		return -EINVAL;
	c.mask = mask | ATTR_CTIME;
	attr_merge(&c.attr, attr, mask);
	if (!(mask & ATTR_CTIME))
		c.attr.ctime_ns = c.time_ns;
	{
		SCOPED_LOCK(&t->lock);
		r = setattr_locked(t, &c, ret);
	}
	if (r == 0)
		outbox_notify(t);
	return r;
}

struct tree_place tree_place(struct tree *t)
{
	return (struct tree_place){ t->tail, t->cursor };
}

int tree_sync(struct tree *t)
{
	return t->cache ? cache_sync_all(t->cache) : store_sync(t->store);
}

void tree_get_usage(struct tree *t, struct tree_usage *ret)
{
	ret->files = store_estimate(t->store, CF_LINK);
}

uint64_t replica_cursor(struct tree *t)
{
	return t->cursor;
}

uint32_t replica_device_number(struct tree *t)
{
	return t->device_number;
}
