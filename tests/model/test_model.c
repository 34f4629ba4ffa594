// SPDX-License-Identifier: Apache-2.0
/*
 * Random operations, from a printed seed: one device against a tree in memory; then several
 * devices and the server's commit code, until all is quiet: trees are equal, and no content that
 * nobody knowingly removed is missing.
 *
 *	VARVE_SEED=N	the one seed to run
 *	VARVE_SEEDS=N	how many (default SEEDS)
 */
#include "replica_kit.h"

#include "bounds.h"
#include "clock.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#define SEEDS 12
#define STEPS 150
#define DEVICES 3
#define DIR_MODE (S_IFDIR | 0755)
#define REG (S_IFREG | 0644)

static uint64_t state;

static uint64_t rnd(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % n;
}

static void seed(uint64_t n)
{
	state = n * UINT64_C(0x9e3779b97f4a7c15) + 1;
	for (int i = 0; i < 8; i++)
		rnd(2);
	printf("seed %llu\n", (unsigned long long)n);
	fflush(stdout);
}

/* With VARVE_SEED: what was done. */
static void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void trace(const char *format, ...)
{
	va_list ap;

	if (!getenv("VARVE_SEED"))
		return;
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	fflush(stdout);
}

static const char *const names[] = { "a", "b", "c", "d.txt", "e" };
#define ANY_NAME names[rnd(ARRAY_SIZE(names))]

/* Everything in a device's tree. */
struct entry {
	uint64_t parent;
	char name[NAME_BYTES_MAX + 1];
	uint64_t node;
	uint32_t type;
};
#define ENTRIES_MAX 4096
struct listing {
	struct entry e[ENTRIES_MAX];
	size_t n;
};

static void list_dir(struct device *d, uint64_t dir, struct listing *l)
{
	struct tree_dirent e;
	struct tree_dir *td;

	ck_assert_int_eq(tree_opendir(d->t, dir, &td), 0);
	while (tree_readdir(td, &e) > 0) {
		struct entry *to = &l->e[l->n++];

		ck_assert_uint_lt(l->n, ENTRIES_MAX);
		to->parent = dir;
		snprintf(to->name, sizeof to->name, "%.*s", (int)e.name.n, (const char *)e.name.p);
		to->node = e.node;
		to->type = e.type;
		if (S_ISDIR(e.type))
			list_dir(d, e.node, l);
	}
	tree_closedir(td);
}

static struct listing *list_tree(struct device *d)
{
	static struct listing l;

	l.n = 0;
	list_dir(d, NODE_ROOT, &l);
	return &l;
}

static uint64_t any_dir(struct listing *l)
{
	for (int i = 0; i < 8 && l->n; i++) {
		struct entry *e = &l->e[rnd(l->n)];

		if (S_ISDIR(e->type))
			return rnd(4) ? e->node : NODE_ROOT;
	}
	return NODE_ROOT;
}

static struct entry *any_entry(struct listing *l, bool file)
{
	for (int i = 0; i < 16 && l->n; i++) {
		struct entry *e = &l->e[rnd(l->n)];

		if (!file || S_ISREG(e->type))
			return e;
	}
	return NULL;
}

/* Contents that were written, and whether somebody who saw them took them away. */
struct content {
	char bytes[32];
	struct digest id;
	bool removed;
};
#define CONTENTS_MAX 4096
static struct content contents[CONTENTS_MAX];
static size_t n_contents;

static const char *new_content(void)
{
	struct content *c = &contents[n_contents++];

	ck_assert_uint_lt(n_contents, CONTENTS_MAX);
	/* Now and then what somebody else may write, too. */
	if (rnd(6))
		snprintf(c->bytes, sizeof c->bytes, "content %zu", n_contents);
	else
		snprintf(c->bytes, sizeof c->bytes, "same %d", (int)rnd(3));
	c->id = content_of(c->bytes);
	c->removed = false;
	trace("   %zu: \"%s\"\n", n_contents, c->bytes);
	return c->bytes;
}

static void removes(struct device *d, uint64_t node)
{
	struct node n;

	if (tree_get(d->t, node, &n) <= 0 || !S_ISREG(n.attr.mode))
		return;
	for (size_t i = 0; i < n_contents; i++) {
		if (digest_eq(&contents[i].id, &n.attr.content))
			contents[i].removed = true;
	}
}

static void random_write(struct device *d, struct listing *l)
{
	struct entry *e = any_entry(l, true);
	struct digest other = content_of("nothing that anybody has");

	if (!e)
		return;
	trace("%s: write %s (%llx) content %zu\n", d->name, e->name, (unsigned long long)e->node,
		n_contents + 1);
	if (rnd(12) == 0) {
		write_upon(d, e->node, &other, new_content(), e->parent, e->name, NULL);
		return;
	}
	removes(d, e->node);
	write_file(d, e->node, new_content());
}

static void random_create(struct device *d, struct listing *l)
{
	struct node_init init = { .mode = rnd(3) ? REG : DIR_MODE };
	uint64_t dir = any_dir(l);
	const char *name = ANY_NAME;
	struct node n;

	if (rnd(12) == 0)
		init = (struct node_init){ .mode = S_IFLNK | 0777, .target = text(ANY_NAME) };
	if (tree_create(d->t, dir, text(name), &init, &n) < 0)
		return;
	trace("%s: create %llx/%s %llx %o\n", d->name, (unsigned long long)dir, name,
		(unsigned long long)n.id, init.mode);
	if (!S_ISREG(init.mode) || !rnd(4))
		return;
	trace("%s: write it: content %zu\n", d->name, n_contents + 1);
	write_file(d, n.id, new_content());
}

static void random_unlink(struct device *d, struct listing *l)
{
	struct entry *e = any_entry(l, false);
	_cleanup_victim_ struct victim v = { 0 };

	if (!e)
		return;
	trace("%s: unlink %llx/%s %llx\n", d->name, (unsigned long long)e->parent, e->name,
		(unsigned long long)e->node);
	if (S_ISDIR(e->type)) {
		(void)!tree_rmdir(d->t, e->parent, text(e->name), &v);
	} else {
		/* Two devices may each remove one of two names. */
		removes(d, e->node);
		ck_assert_int_eq(tree_unlink(d->t, e->parent, text(e->name), &v), 0);
	}
}

static void random_rename(struct device *d, struct listing *l)
{
	unsigned flags = rnd(6) ? 0 : rnd(2) ? RENAME_EXCHANGE : RENAME_NOREPLACE;
	struct entry *e = any_entry(l, false);
	uint64_t dir = any_dir(l), target;
	const char *name = ANY_NAME;
	struct node was = { 0 };
	_cleanup_renamed_ struct renamed v = { 0 };
	struct node_init whiteout = { .mode = S_IFCHR };
	bool leaves = flags != RENAME_EXCHANGE && !rnd(8);

	if (!e)
		return;
	target = find(d, dir, name);
	if (target)
		ck_assert_int_eq(tree_get(d->t, target, &was), 1);
	if (tree_rename_leaving(d->t, e->parent, text(e->name), dir, text(name), flags,
		    leaves ? &whiteout : NULL, &v) < 0)
		return;
	trace("%s: rename %llx/%s (%llx) -> %llx/%s (%llx) %u%s\n", d->name,
		(unsigned long long)e->parent, e->name, (unsigned long long)e->node,
		(unsigned long long)dir, name, (unsigned long long)target, flags,
		leaves ? ", leaving a whiteout" : "");
	if (v.victim.any && flags != RENAME_EXCHANGE) {
		for (size_t i = 0; i < n_contents; i++) {
			if (digest_eq(&contents[i].id, &was.attr.content))
				contents[i].removed = true;
		}
	}
}

static void random_attr(struct device *d, struct listing *l)
{
	struct node_attr attr = { .mode = (uint32_t)rnd(01000),
		.uid = (uint32_t)rnd(3),
		.gid = (uint32_t)rnd(3),
		.atime_ns = (int64_t)rnd(99),
		.mtime_ns = (int64_t)rnd(99) };
	struct entry *e = any_entry(l, false);
	char value[8];
	struct node n;

	if (!e)
		return;
	snprintf(value, sizeof value, "%d", (int)rnd(100));
	switch (rnd(4)) {
	case 0:
		ck_assert_int_eq(tree_setxattr(d->t, e->node, text(ANY_NAME), text(value), 0), 0);
		break;
	case 1:
		(void)!tree_removexattr(d->t, e->node, text(ANY_NAME));
		break;
	default:
		ck_assert_int_eq(tree_setattr(d->t, e->node, (uint32_t)rnd(32), &attr, &n), 0);
	}
}

static void random_link(struct device *d, struct listing *l)
{
	struct entry *e = any_entry(l, true);
	uint64_t dir = any_dir(l);
	const char *name = ANY_NAME;
	struct node n;

	if (e && tree_link(d->t, e->node, dir, text(name), &n) == 0)
		trace("%s: link %llx to %llx/%s\n", d->name, (unsigned long long)e->node,
			(unsigned long long)dir, name);
}

static void random_operation(struct device *d)
{
	struct listing *l = list_tree(d);

	switch (rnd(16)) {
	case 0 ... 3:
		random_create(d, l);
		break;
	case 4 ... 6:
		random_write(d, l);
		break;
	case 7 ... 8:
		random_unlink(d, l);
		break;
	case 9 ... 12:
		random_rename(d, l);
		break;
	case 13 ... 14:
		random_attr(d, l);
		break;
	default:
		random_link(d, l);
	}
}

static void expect_contents(struct device *d)
{
	struct listing *l = list_tree(d);

	for (size_t i = 0; i < n_contents; i++) {
		bool there = contents[i].removed;

		for (size_t k = 0; k < l->n && !there; k++) {
			struct node n;

			ck_assert_int_eq(tree_get(d->t, l->e[k].node, &n), 1);
			there = digest_eq(&contents[i].id, &n.attr.content);
		}
		ck_assert_msg(there, "%s lost %zu: %s", d->name, i + 1, contents[i].bytes);
	}
}

/* What the network does: some of it, none of it, or an answer that never comes. */
static void random_sync(struct device *d)
{
	trace("%s: sync\n", d->name);
	switch (rnd(8)) {
	case 0 ... 2:
		device_sync(d);
		break;
	case 3:
		device_push_and_die(d);
		break;
	case 4:
		device_reopen(d);
		break;
	default:
		(void)device_push(d);
	}
}

static void converge(uint64_t n)
{
	static struct world w;
	static struct device d[DEVICES];
	size_t devices;

	seed(n);
	devices = 2 + rnd(DEVICES - 1);
	n_contents = 0;
	world_open(&w);
	for (size_t i = 0; i < devices; i++)
		device_open(&d[i], &w, (uint32_t)i + 1, i == 0 ? "A" : i == 1 ? "B" : "C");
	for (int i = 0; i < STEPS; i++) {
		struct device *at = &d[rnd(devices)];

		random_operation(at);
		if (rnd(10) == 0)
			random_sync(&d[rnd(devices)]);
		if (rnd(16) == 0)
			device_check(at);
	}
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < devices; i++) {
			trace("%s: last syncs\n", d[i].name);
			device_sync(&d[i]);
			if (getenv("VARVE_SEED")) {
				_cleanup_buf_ struct buf b = { 0 };

				device_dump(&d[i], &b);
				trace("%s", (char *)b.data);
			}
		}
	}
	for (size_t i = 0; i < devices; i++) {
		device_check(&d[i]);
		expect_equal(&d[0], &d[i]);
		expect_contents(&d[i]);
	}
	for (size_t i = 0; i < devices; i++)
		device_close(&d[i]);
	world_close(&w);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v ? strtoull(v, NULL, 10) : otherwise;
}

START_TEST(devices_converge)
{
	uint64_t first = number("VARVE_SEED", 1);
	uint64_t n =
		getenv("VARVE_SEED") && !getenv("VARVE_SEEDS") ? 1 : number("VARVE_SEEDS", SEEDS);

	for (uint64_t i = 0; i < n; i++)
		converge(first + i);
}
END_TEST

/* The tree in memory: names as rows, nodes as what the names lead to. */
struct model_node {
	uint64_t id;
	uint32_t type;
	char bytes[32];
};
struct model_link {
	size_t parent; /* index of a node */
	char name[8];
	size_t node;
	bool used;
};
#define MODEL_MAX 2048
struct model {
	struct model_node nodes[MODEL_MAX];
	size_t n_nodes;
	struct model_link links[MODEL_MAX];
	size_t n_links;
};

static struct model_link *model_find(struct model *m, size_t parent, const char *name)
{
	for (size_t i = 0; i < m->n_links; i++) {
		struct model_link *l = &m->links[i];

		if (l->used && l->parent == parent && strcmp(l->name, name) == 0)
			return l;
	}
	return NULL;
}

static size_t model_count(struct model *m, size_t node)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_links; i++)
		n += m->links[i].used && m->links[i].node == node;
	return n;
}

static bool model_empty(struct model *m, size_t dir)
{
	for (size_t i = 0; i < m->n_links; i++) {
		if (m->links[i].used && m->links[i].parent == dir)
			return false;
	}
	return true;
}

static void model_add(struct model *m, size_t parent, const char *name, size_t node)
{
	struct model_link *l = &m->links[m->n_links++];

	ck_assert_uint_lt(m->n_links, MODEL_MAX);
	*l = (struct model_link){ .parent = parent, .node = node, .used = true };
	snprintf(l->name, sizeof l->name, "%s", name);
}

static bool model_below(struct model *m, size_t node, size_t top)
{
	while (node != top) {
		struct model_link *up = NULL;

		for (size_t i = 0; i < m->n_links; i++) {
			if (m->links[i].used && m->links[i].node == node)
				up = &m->links[i];
		}
		if (!up)
			return false;
		node = up->parent;
	}
	return true;
}

static bool model_is_dir(struct model *m, size_t node)
{
	return m->nodes[node].type == S_IFDIR;
}

/* A directory that is in the tree. */
static size_t model_any_dir(struct model *m)
{
	for (int i = 0; i < 20; i++) {
		size_t n = rnd(m->n_nodes);

		if (model_is_dir(m, n) && model_count(m, n))
			return n;
	}
	return 0;
}

static struct model_link *model_any_link(struct model *m)
{
	for (int i = 0; i < 50 && m->n_links; i++) {
		struct model_link *l = &m->links[rnd(m->n_links)];

		if (l->used)
			return l;
	}
	return NULL;
}

static void model_create(struct model *m, struct device *d)
{
	struct node_init init = { .mode = rnd(2) ? REG : DIR_MODE };
	size_t parent = model_any_dir(m);
	const char *name = ANY_NAME;
	bool taken = model_find(m, parent, name);
	struct node n;
	int r = tree_create(d->t, m->nodes[parent].id, text(name), &init, &n);

	ck_assert_int_eq(r, taken ? -EEXIST : 0);
	if (r < 0)
		return;
	m->nodes[m->n_nodes] = (struct model_node){ .id = n.id, .type = init.mode & S_IFMT };
	model_add(m, parent, name, m->n_nodes++);
}

static void model_remove(struct model *m, struct device *d)
{
	struct model_link *l = model_any_link(m);
	uint64_t parent;
	_cleanup_victim_ struct victim v = { 0 };
	bool dir;
	int r;

	if (!l)
		return;
	parent = m->nodes[l->parent].id;
	dir = model_is_dir(m, l->node);
	ck_assert_int_eq(dir ? tree_unlink(d->t, parent, text(l->name), &v)
			     : tree_rmdir(d->t, parent, text(l->name), &v),
		dir ? -EISDIR : -ENOTDIR);
	r = dir ? tree_rmdir(d->t, parent, text(l->name), &v)
		: tree_unlink(d->t, parent, text(l->name), &v);
	ck_assert_int_eq(r, dir && !model_empty(m, l->node) ? -ENOTEMPTY : 0);
	if (r < 0)
		return;
	l->used = false;
	ck_assert_uint_eq(v.node.id, m->nodes[l->node].id);
	ck_assert_uint_eq(v.node.nlink, model_count(m, l->node));
}

static int model_rename_result(struct model *m, struct model_link *from, size_t parent,
	struct model_link *to, unsigned flags)
{
	bool dir = model_is_dir(m, from->node);

	if (flags == RENAME_NOREPLACE && to)
		return -EEXIST;
	if (flags == RENAME_EXCHANGE && !to)
		return -ENOENT;
	if (to && to->node == from->node)
		return 0;
	if (dir && model_below(m, parent, from->node))
		return -EINVAL;
	if (flags == RENAME_EXCHANGE)
		return model_is_dir(m, to->node) && model_below(m, from->parent, to->node) ? -EINVAL
											   : 0;
	if (to && dir && !model_is_dir(m, to->node))
		return -ENOTDIR;
	if (to && !dir && model_is_dir(m, to->node))
		return -EISDIR;
	return to && dir && !model_empty(m, to->node) ? -ENOTEMPTY : 0;
}

static void model_rename(struct model *m, struct device *d)
{
	unsigned flags = rnd(3) ? 0 : rnd(2) ? RENAME_EXCHANGE : RENAME_NOREPLACE;
	struct model_link *from = model_any_link(m), *to;
	size_t parent = model_any_dir(m), node;
	const char *name = ANY_NAME;
	_cleanup_renamed_ struct renamed v = { 0 };
	int r;

	if (!from)
		return;
	to = model_find(m, parent, name);
	r = tree_rename(d->t, m->nodes[from->parent].id, text(from->name), m->nodes[parent].id,
		text(name), flags, &v);
	ck_assert_int_eq(r, model_rename_result(m, from, parent, to, flags));
	if (r < 0 || (to && to->node == from->node))
		return;
	ck_assert_int_eq(v.victim.any, to != NULL);
	node = from->node;
	if (flags == RENAME_EXCHANGE) {
		from->node = to->node;
		to->node = node;
		return;
	}
	from->used = false;
	if (to)
		to->used = false;
	model_add(m, parent, name, node);
}

static void model_link_op(struct model *m, struct device *d)
{
	struct model_link *l = model_any_link(m);
	size_t parent = model_any_dir(m);
	const char *name = ANY_NAME;
	struct node n;
	int r, want;

	if (!l)
		return;
	want = model_is_dir(m, l->node) ? -EPERM : model_find(m, parent, name) ? -EEXIST : 0;
	r = tree_link(d->t, m->nodes[l->node].id, m->nodes[parent].id, text(name), &n);
	ck_assert_int_eq(r, want);
	if (r == 0)
		model_add(m, parent, name, l->node);
}

static void model_write(struct model *m, struct device *d)
{
	struct model_link *l = model_any_link(m);
	struct model_node *n;

	if (!l || model_is_dir(m, l->node))
		return;
	n = &m->nodes[l->node];
	snprintf(n->bytes, sizeof n->bytes, "%s", rnd(5) ? new_content() : "");
	ck_assert_int_eq(write_file(d, n->id, n->bytes), CONTENT_PUT);
}

static void model_compare(struct model *m, struct device *d)
{
	struct listing *l = list_tree(d);
	size_t links = 0;

	for (size_t i = 0; i < m->n_links; i++) {
		struct model_link *ml = &m->links[i];
		struct model_node *mn = &m->nodes[ml->node];

		if (!ml->used)
			continue;
		links++;
		ck_assert_uint_eq(find(d, m->nodes[ml->parent].id, ml->name), mn->id);
		if (mn->type == S_IFREG)
			ck_assert(has_bytes(d, mn->id, mn->bytes));
	}
	ck_assert_uint_eq(links, l->n);
	device_check(d);
}

START_TEST(one_device_is_as_the_model)
{
	static struct world w;
	static struct device d;
	static struct model m;

	seed(number("VARVE_SEED", 1));
	world_open(&w);
	device_open(&d, &w, 1, "A");
	m.nodes[0] = (struct model_node){ .id = NODE_ROOT, .type = S_IFDIR };
	m.n_nodes = 1;
	for (int i = 0; i < 1500; i++) {
		switch (rnd(8)) {
		case 0 ... 2:
			model_create(&m, &d);
			break;
		case 3:
			model_remove(&m, &d);
			break;
		case 4 ... 5:
			model_rename(&m, &d);
			break;
		case 6:
			model_link_op(&m, &d);
			break;
		default:
			model_write(&m, &d);
		}
		if (rnd(100) == 0)
			device_sync(&d);
		if (rnd(150) == 0) {
			device_reopen(&d);
			model_compare(&m, &d);
		}
	}
	model_compare(&m, &d);
	device_close(&d);
	world_close(&w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("model");
	TCase *tc = tcase_create("model");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 3600);
	tcase_add_test(tc, one_device_is_as_the_model);
	tcase_add_test(tc, devices_converge);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
