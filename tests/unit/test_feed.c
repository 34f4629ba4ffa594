// SPDX-License-Identifier: Apache-2.0
/*
 * The change feed against a model: random commits change a tree in memory as the rules say, a
 * copy of which is kept for every seq. Replicas pull pages of random sizes from wherever they
 * are; after each page a replica must be the copy of that seq, to the field.
 */
#include "server_kit.h"

#include "cleanup.h"
#include "workers.h"

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#define NODES 40
#define NAMES 5
#define SEQS 300
#define REPLICAS 4
#define XATTRS 2

/* Node 0 of the model is nothing, 1 is the root; node i has the id id_of(i). */
struct model_node {
	bool alive;
	struct node_attr attr;
	char xattr[XATTRS]; /* one letter as value; 0: not there */
};

struct tree {
	struct model_node nodes[NODES];
	uint8_t links[NODES][NAMES]; /* [parent][name] -> node */
};

static const char *const names[NAMES] = { "a", "b", "c", "d", "\xff\xfe name" };
static const char *const xattr_names[XATTRS] = { "user.p", "user.q" };

static struct tree past[SEQS + 1];
static struct kit k;
static uint64_t rng;

static unsigned pick(unsigned n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (unsigned)(rng >> 20) % n;
}

static uint64_t id_of(unsigned i)
{
	return i < 2 ? i : node_id(1, i);
}

static unsigned index_of(uint64_t id)
{
	return id == NODE_ROOT ? 1 : (unsigned)(id & 0xff);
}

static unsigned name_index(struct slice name)
{
	for (unsigned i = 0; i < NAMES; i++)
		if (strlen(names[i]) == name.n && memcmp(names[i], name.p, name.n) == 0)
			return i;
	ck_abort_msg("a name that nobody gave");
}

static unsigned count_links(const struct tree *t, unsigned node)
{
	unsigned n = 0;

	for (unsigned p = 0; p < NODES; p++)
		for (unsigned i = 0; i < NAMES; i++)
			n += t->links[p][i] == node;
	return n;
}

static bool is_dir(const struct tree *t, unsigned node)
{
	return t->nodes[node].alive && S_ISDIR(t->nodes[node].attr.mode);
}

static bool holds_names(const struct tree *t, unsigned dir)
{
	static const uint8_t none[NAMES];

	return memcmp(t->links[dir], none, NAMES) != 0;
}

static void touch(struct tree *t, unsigned dir, int64_t time_ns)
{
	t->nodes[dir].attr.mtime_ns = t->nodes[dir].attr.ctime_ns = time_ns;
}

static void drop(struct tree *t, unsigned node, int64_t time_ns)
{
	if (count_links(t, node) == 0)
		t->nodes[node] = (struct model_node){ 0 };
	else
		t->nodes[node].attr.ctime_ns = time_ns;
}

static unsigned random_live(const struct tree *t)
{
	for (unsigned i = 0; i < 200; i++) {
		unsigned n = 2 + pick(NODES - 2);

		if (t->nodes[n].alive)
			return n;
	}
	return 0;
}

static unsigned random_dir(const struct tree *t)
{
	for (unsigned i = 0; i < 20; i++) {
		unsigned n = random_live(t);

		if (n && is_dir(t, n))
			return n;
	}
	return 1;
}

static bool random_link(const struct tree *t, unsigned *ret_parent, unsigned *ret_name)
{
	for (unsigned i = 0; i < 500; i++) {
		*ret_parent = 1 + pick(NODES - 1);
		*ret_name = pick(NAMES);
		if (t->links[*ret_parent][*ret_name])
			return true;
	}
	return false;
}

static bool below(const struct tree *t, unsigned node, unsigned top)
{
	if (node == top)
		return true;
	for (unsigned p = 1; p < NODES; p++)
		for (unsigned i = 0; i < NAMES; i++)
			if (t->links[p][i] == node)
				return p == 1 ? top == 1 : below(t, p, top);
	return false;
}

/* Each returns false when the dice fell badly; the change is valid otherwise. */
static bool make_create(struct tree *t, struct change *c, struct batch *b)
{
	static const uint32_t modes[] = { S_IFREG | 0644, S_IFREG | 0600, S_IFDIR | 0755,
		S_IFLNK | 0777 };
	unsigned n = 2 + pick(NODES - 2), p = random_dir(t), i = pick(NAMES);
	char bytes[32];

	if (t->nodes[n].alive || t->links[p][i])
		return false;
	*c = create(id_of(n), id_of(p), names[i], modes[pick(ARRAY_SIZE(modes))]);
	c->time_ns = (int64_t)pick(1000000);
	c->attr.uid = pick(5);
	if (S_ISREG(c->attr.mode) && pick(2)) {
		snprintf(bytes, sizeof bytes, "bytes %u", pick(8));
		batch_file(b, &c->attr, bytes, strlen(bytes));
	}
	t->nodes[n] = (struct model_node){ .alive = true, .attr = c->attr };
	t->links[p][i] = (uint8_t)n;
	touch(t, p, c->time_ns);
	return true;
}

static bool make_write(struct tree *t, struct change *c, struct batch *b)
{
	unsigned n = random_live(t);
	struct node_attr *a = &t->nodes[n].attr;
	char bytes[32];

	if (!n || !S_ISREG(a->mode))
		return false;
	*c = (struct change){ .kind = CHANGE_WRITE,
		.node = id_of(n),
		.attr = { .mtime_ns = (int64_t)pick(1000), .ctime_ns = (int64_t)pick(1000) } };
	snprintf(bytes, sizeof bytes, "bytes %u", pick(8));
	batch_file(b, &c->attr, bytes, strlen(bytes));
	a->size = c->attr.size;
	a->content = c->attr.content;
	a->mtime_ns = c->attr.mtime_ns;
	a->ctime_ns = c->attr.ctime_ns;
	return true;
}

static bool make_setattr(struct tree *t, struct change *c)
{
	unsigned n = pick(5) ? random_live(t) : 1;
	struct node_attr *a = &t->nodes[n].attr;

	if (!n)
		return false;
	*c = (struct change){ .kind = CHANGE_SETATTR,
		.node = id_of(n),
		.mask = pick(ATTR_ALL + 1),
		.attr = { .mode = pick(01000),
			.uid = pick(9),
			.gid = pick(9),
			.atime_ns = pick(999),
			.mtime_ns = pick(999),
			.ctime_ns = pick(999) } };
	if (c->mask & ATTR_MODE)
		a->mode = (a->mode & S_IFMT) | c->attr.mode;
	if (c->mask & ATTR_UID)
		a->uid = c->attr.uid;
	if (c->mask & ATTR_GID)
		a->gid = c->attr.gid;
	if (c->mask & ATTR_ATIME)
		a->atime_ns = c->attr.atime_ns;
	if (c->mask & ATTR_MTIME)
		a->mtime_ns = c->attr.mtime_ns;
	a->ctime_ns = c->attr.ctime_ns;
	return true;
}

static bool make_xattr(struct tree *t, struct change *c)
{
	static const char *const values[] = { "x", "y", "z" };
	unsigned n = random_live(t), x = pick(XATTRS), value = pick(3);

	if (!n)
		return false;
	*c = setxattr_of(id_of(n), xattr_names[x], values[value]);
	if (pick(3) == 0)
		c->kind = CHANGE_REMOVEXATTR;
	t->nodes[n].xattr[x] = c->kind == CHANGE_SETXATTR ? values[value][0] : '\0';
	t->nodes[n].attr.ctime_ns = c->attr.ctime_ns;
	return true;
}

static bool make_link(struct tree *t, struct change *c)
{
	unsigned n = random_live(t), p = random_dir(t), i = pick(NAMES);

	if (!n || is_dir(t, n) || t->links[p][i])
		return false;
	*c = link_to(id_of(n), id_of(p), names[i]);
	c->time_ns = (int64_t)pick(100);
	t->links[p][i] = (uint8_t)n;
	t->nodes[n].attr.ctime_ns = c->attr.ctime_ns;
	touch(t, p, c->time_ns);
	return true;
}

static bool make_unlink(struct tree *t, struct change *c)
{
	unsigned p, i, n;

	if (!random_link(t, &p, &i))
		return false;
	n = t->links[p][i];
	if (is_dir(t, n) && holds_names(t, n))
		return false;
	*c = unlink_of(id_of(n), id_of(p), names[i]);
	c->time_ns = (int64_t)pick(100);
	t->links[p][i] = 0;
	drop(t, n, c->time_ns);
	touch(t, p, c->time_ns);
	return true;
}

static bool make_rename(struct tree *t, struct change *c)
{
	unsigned p, i, n, q = random_dir(t), j = pick(NAMES), victim;
	bool exchange;

	if (!random_link(t, &p, &i))
		return false;
	n = t->links[p][i];
	victim = t->links[q][j];
	exchange = victim && pick(2);
	if ((p == q && i == j) || n == victim || (is_dir(t, n) && below(t, q, n)))
		return false;
	if (exchange && is_dir(t, victim) && below(t, p, victim))
		return false;
	if (!exchange && victim &&
		(is_dir(t, n) != is_dir(t, victim) ||
			(is_dir(t, victim) && holds_names(t, victim))))
		return false;
	*c = rename_to(id_of(n), id_of(p), names[i], id_of(q), names[j], id_of(victim));
	c->flags = exchange ? CHANGE_FLAG_EXCHANGE : 0;
	c->time_ns = (int64_t)pick(100);
	t->links[q][j] = (uint8_t)n;
	t->links[p][i] = exchange ? (uint8_t)victim : 0;
	t->nodes[n].attr.ctime_ns = c->time_ns;
	if (victim && exchange)
		t->nodes[victim].attr.ctime_ns = c->time_ns;
	else if (victim)
		drop(t, victim, c->time_ns);
	touch(t, p, c->time_ns);
	touch(t, q, c->time_ns);
	return true;
}

static bool make_change(struct tree *t, struct change *c, struct batch *b)
{
	switch (pick(10)) {
	case 0:
	case 1:
	case 2:
		return make_create(t, c, b);
	case 3:
		return make_write(t, c, b);
	case 4:
		return make_setattr(t, c);
	case 5:
		return make_xattr(t, c);
	case 6:
		return make_link(t, c);
	case 7:
		return make_unlink(t, c);
	default:
		return make_rename(t, c);
	}
}

/* A commit of 1 to 6 valid changes, which becomes `seq`. */
static void commit_some(uint64_t seq)
{
	struct batch *b = batch_new(seq - 1);
	struct answer a;

	past[seq] = past[seq - 1];
	while (b->n_changes == 0 || pick(6)) {
		struct change c;

		if (make_change(&past[seq], &c, b))
			batch_add(b, &c);
	}
	a = batch_post(&k, 1, b);
	ck_assert_msg(a.seq == seq, "seq %llu: change %u: %s", (unsigned long long)seq, a.index,
		refusal_text(a.reason));
}

struct replica {
	struct tree tree;
	uint64_t cursor;
	struct digest contents[64]; /* manifests it was told */
	size_t n_contents;
};

static bool knows(const struct replica *r, const struct digest *id)
{
	for (size_t i = 0; i < r->n_contents; i++)
		if (digest_eq(&r->contents[i], id))
			return true;
	return digest_is_zero(id);
}

static void apply_node(struct replica *r, const struct node_row *row)
{
	struct model_node *n = &r->tree.nodes[index_of(row->node)];

	*n = (struct model_node){ 0 };
	if (row->deleted)
		return;
	n->alive = true;
	n->attr = row->attr;
	for (size_t i = 0; i < row->n_xattrs; i++) {
		unsigned x = memcmp(row->xattrs[i].name.p, xattr_names[0], 6) == 0 ? 0 : 1;

		ck_assert_uint_eq(row->xattrs[i].value.n, 1);
		n->xattr[x] = (char)row->xattrs[i].value.p[0];
	}
	ck_assert(!S_ISLNK(row->attr.mode) || row->target.n == 8);
	ck_assert(knows(r, &row->attr.content));
}

static void apply_page(struct replica *r, const struct changes *page)
{
	for (size_t i = 0; i < page->n_contents; i++) {
		_cleanup_manifest_ struct manifest *m = NULL;

		ck_assert_int_eq(
			manifest_decode(page->contents[i].p, page->contents[i].n, &m, NULL), 0);
		if (!knows(r, manifest_content_id(m)))
			r->contents[r->n_contents++] = *manifest_content_id(m);
	}
	for (size_t i = 0; i < page->n_nodes; i++)
		apply_node(r, &page->nodes[i]);
	for (size_t i = 0; i < page->n_links; i++)
		r->tree.links[index_of(page->links[i].parent)][name_index(page->links[i].name)] =
			(uint8_t)index_of(page->links[i].node);
}

static bool same_node(const struct model_node *a, const struct model_node *b)
{
	const struct node_attr *x = &a->attr, *y = &b->attr;

	if (a->alive != b->alive)
		return false;
	if (!a->alive)
		return true;
	return x->mode == y->mode && x->uid == y->uid && x->gid == y->gid &&
	       x->atime_ns == y->atime_ns && x->mtime_ns == y->mtime_ns &&
	       x->ctime_ns == y->ctime_ns && x->btime_ns == y->btime_ns && x->size == y->size &&
	       digest_eq(&x->content, &y->content) && memcmp(a->xattr, b->xattr, XATTRS) == 0;
}

static void check_same(const struct tree *a, const struct tree *b, uint64_t seq)
{
	for (unsigned i = 1; i < NODES; i++)
		ck_assert_msg(same_node(&a->nodes[i], &b->nodes[i]), "node %u at seq %llu", i,
			(unsigned long long)seq);
	ck_assert_msg(memcmp(a->links, b->links, sizeof a->links) == 0, "links at seq %llu",
		(unsigned long long)seq);
}

/* One page; whether there may be more. */
static bool pull(struct kit *from, struct replica *r, size_t max_rows)
{
	_cleanup_buf_ struct buf b = { 0 };
	_cleanup_arena_ struct arena *arena = NULL;
	struct changes page;
	struct err err = { 0 };

	ck_assert_msg(vault_changes(from->vault, from->drive, r->cursor, max_rows, &b, &err) == 0,
		"%s", err.text);
	ck_assert_msg(changes_decode(b.data, b.len, &page, &arena, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(page.from, r->cursor);
	ck_assert(page.to > page.from || page.to == page.head);
	if (page.to > page.from + 1)
		ck_assert_uint_le(page.n_nodes + page.n_links, max_rows);
	apply_page(r, &page);
	r->cursor = page.to;
	return page.to < page.head;
}

static void fresh(struct replica *r)
{
	*r = (struct replica){ 0 };
	r->tree.nodes[1] = past[0].nodes[1];
}

/* A drive's root has the times of the drive. */
static struct node_attr root_attr(void)
{
	struct err err = { 0 };
	int64_t ns;
	DB_STMT(s, k.db, "SELECT created_ns FROM drive WHERE id = ?1", &err);

	db_bind_int(s, 1, k.drive);
	ck_assert_int_eq(db_step(s, &err), 1);
	ns = db_int(s, 0);
	return (struct node_attr){ .mode = S_IFDIR | 0755,
		.atime_ns = ns,
		.mtime_ns = ns,
		.ctime_ns = ns,
		.btime_ns = ns };
}

static void start(uint64_t seed)
{
	rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	memset(past, 0, sizeof past);
	past[0].nodes[1] = (struct model_node){ .alive = true, .attr = root_attr() };
}

START_TEST(pages_give_the_model)
{
	static struct replica replicas[REPLICAS];

	kit_open(&k, true);
	start((uint64_t)_i + 1);
	for (unsigned i = 0; i < REPLICAS; i++)
		fresh(&replicas[i]);
	for (uint64_t seq = 1; seq <= SEQS; seq++) {
		struct replica *r = &replicas[pick(REPLICAS)];

		commit_some(seq);
		if (pick(4))
			continue;
		while (pull(&k, r, 1 + pick(60)) && pick(5))
			check_same(&r->tree, &past[r->cursor], r->cursor);
		check_same(&r->tree, &past[r->cursor], r->cursor);
	}
	fresh(&replicas[0]);
	for (unsigned i = 0; i < REPLICAS; i++) {
		while (pull(&k, &replicas[i], 1 + pick(200)))
			check_same(
				&replicas[i].tree, &past[replicas[i].cursor], replicas[i].cursor);
		ck_assert_uint_eq(replicas[i].cursor, SEQS);
		check_same(&replicas[i].tree, &past[SEQS], SEQS);
	}
	kit_close(&k);
}
END_TEST

START_TEST(cursors_beyond_the_head_and_at_it)
{
	_cleanup_buf_ struct buf b = { 0 };
	_cleanup_arena_ struct arena *arena = NULL;
	struct change c = create(node_id(1, 2), NODE_ROOT, "a", S_IFREG | 0644);
	struct changes page;
	struct err err;

	kit_open(&k, true);
	ck_assert_int_eq(vault_changes(k.vault, k.drive, 0, 10, &b, &err), 0);
	ck_assert_int_eq(changes_decode(b.data, b.len, &page, &arena, &err), 0);
	ck_assert_uint_eq(page.n_nodes + page.n_links + page.to + page.head, 0);
	ck_assert_int_eq(vault_changes(k.vault, k.drive, 1, 10, &b, &err), -EINVAL);
	ck_assert_int_eq(vault_changes(k.vault, 99, 0, 10, &b, &err), -ENOENT);
	ck_assert_uint_eq(send_one(&k, 1, 0, &c).seq, 1);
	ck_assert_int_eq(vault_changes(k.vault, k.drive, 1, 10, &b, &err), 0);
	kit_close(&k);
}
END_TEST

/* A file written again and again is one row, not one for each time. */
START_TEST(a_long_history_of_few_files_is_short)
{
	struct change c = create(node_id(1, 2), NODE_ROOT, "a", S_IFREG | 0644);
	struct replica r;
	int pages = 0;

	kit_open(&k, true);
	start(1);
	ck_assert_uint_eq(send_one(&k, 1, 0, &c).seq, 1);
	for (unsigned i = 0; i < 200; i++) {
		c = setattr_mode(node_id(1, 2), i % 2 ? 0600 : 0644);
		ck_assert_uint_eq(send_one(&k, 1, 1 + i, &c).seq, i + 2);
	}
	fresh(&r);
	do
		pages++;
	while (pull(&k, &r, 20));
	ck_assert_int_le(pages, 4);
	ck_assert_uint_eq(r.tree.nodes[2].attr.mode, S_IFREG | 0600);
	kit_close(&k);
}
END_TEST

/* 100 nodes with the longest value that an attribute can have. */
static void commit_heavy(unsigned round, const struct xattr *heavy)
{
	struct batch *b = batch_new(round);

	for (unsigned i = 0; i < 100; i++) {
		char name[16];
		struct change c;

		snprintf(name, sizeof name, "n%u-%u", round, i);
		c = create(node_id(1, 2 + 100 * round + i), NODE_ROOT, name, S_IFREG | 0644);
		c.xattrs = heavy;
		c.n_xattrs = 1;
		batch_add(b, &c);
	}
	ck_assert_uint_eq(batch_post(&k, 1, b).seq, round + 1);
}

/* Few rows can be many bytes: they cut a page, too. */
START_TEST(pages_are_bounded_in_bytes)
{
	enum { ROUNDS = 8 };
	static const uint8_t value[XATTR_VALUE_BYTES_MAX];
	const struct xattr heavy = { text("user.heavy"), { value, sizeof value } };
	uint64_t cursor = 0;
	int pages = 0;

	kit_open(&k, true);
	for (unsigned i = 0; i < ROUNDS; i++)
		commit_heavy(i, &heavy);
	while (cursor < ROUNDS) {
		_cleanup_buf_ struct buf b = { 0 };
		_cleanup_arena_ struct arena *arena = NULL;
		struct changes page;

		ck_assert_int_eq(vault_changes(k.vault, k.drive, cursor, 4096, &b, NULL), 0);
		ck_assert_uint_le(b.len, CHANGES_BYTES_MAX);
		ck_assert_int_eq(changes_decode(b.data, b.len, &page, &arena, NULL), 0);
		ck_assert_uint_eq(page.n_links, 100 * (page.to - page.from));
		cursor = page.to;
		pages++;
	}
	ck_assert_int_gt(pages, 1);
	kit_close(&k);
}
END_TEST

#define COMMITTERS 3
#define EACH 30
static atomic_int active;
static atomic_uint conflicts;

/* Its own directory, its own names; and one name that all fight for. */
static void commit_thread(void *arg)
{
	unsigned device = (unsigned)(uintptr_t)arg;
	struct kit mine;

	kit_connect(&mine, &k);
	for (unsigned i = 0; i < EACH; i++) {
		char name[32];
		struct change c;

		snprintf(name, sizeof name, "n%u-%u", device, i);
		c = create(node_id(device, 2 + i), NODE_ROOT, name, S_IFREG | 0644);
		ck_assert_uint_gt(send_one(&mine, device, 0, &c).seq, 0);
		snprintf(name, sizeof name, "fight %u", i);
		c = create(node_id(device, 2 + EACH + i), NODE_ROOT, name, S_IFREG | 0644);
		if (send_one(&mine, device, 0, &c).reason == REFUSAL_EXISTS)
			conflicts++;
	}
	kit_close(&mine);
	active--;
}

static void follow_thread(void *arg)
{
	atomic_uint *ret_names = arg;
	uint64_t cursor = 0, head;
	bool last = false;
	struct kit mine;

	kit_connect(&mine, &k);
	while (!last) {
		_cleanup_buf_ struct buf b = { 0 };
		_cleanup_arena_ struct arena *arena = NULL;
		struct changes page;

		last = active == 0;
		ck_assert_int_eq(vault_changes(mine.vault, mine.drive, cursor, 7, &b, NULL), 0);
		ck_assert_int_eq(changes_decode(b.data, b.len, &page, &arena, NULL), 0);
		*ret_names += (unsigned)page.n_links;
		cursor = page.to;
		last = last && cursor == page.head;
	}
	ck_assert_int_eq(vault_head(mine.vault, mine.drive, &head, NULL), 0);
	ck_assert_uint_eq(cursor, head);
	kit_close(&mine);
}

START_TEST(connections_work_side_by_side)
{
	atomic_uint seen[2] = { 0, 0 };
	struct workers *w;

	kit_open(&k, false);
	active = COMMITTERS;
	ck_assert_int_eq(workers_new(COMMITTERS + 2, "kit", &w), 0);
	for (uintptr_t i = 1; i <= COMMITTERS; i++)
		ck_assert_int_eq(workers_submit(w, commit_thread, (void *)i), 0);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(workers_submit(w, follow_thread, &seen[i]), 0);
	workers_free(w);
	ck_assert_uint_eq(conflicts, (COMMITTERS - 1) * EACH);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_uint_eq(seen[i], (COMMITTERS + 1) * EACH);
	ck_assert_int_eq(kit_sql(&k, "SELECT head_seq FROM drive"), (COMMITTERS + 1) * EACH);
	ck_assert_int_eq(kit_sql(&k, "SELECT count(*) FROM commit_log"), (COMMITTERS + 1) * EACH);
	kit_close(&k);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("feed");
	TCase *t = tcase_create("feed");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 100);
	tcase_add_loop_test(t, pages_give_the_model, 0, 10);
	tcase_add_test(t, cursors_beyond_the_head_and_at_it);
	tcase_add_test(t, a_long_history_of_few_files_is_short);
	tcase_add_test(t, pages_are_bounded_in_bytes);
	tcase_add_test(t, connections_work_side_by_side);
	suite_add_tcase(s, t);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
