// SPDX-License-Identifier: Apache-2.0
#include "node_state.h"

#include "bytes.h"
#include "meta/replica.h"
#include "meta/rows.h"

#include <errno.h>
#include <sys/stat.h>

static bool name_is(struct slice name, const char *text)
{
	return name.n == strlen(text) && memcmp(name.p, text, name.n) == 0;
}

/* An instance may only be open. What was written to has another size or mtime than its row. */
static bool is_dirty(const struct node_state_source *s, const struct node *n)
{
	_cleanup_file_ struct file *f = NULL;
	struct node now;

	if (!S_ISREG(n->attr.mode) || files_peek(s->files, n->id, &f) == 0)
		return false;
	file_node_attr(f, &now);
	return now.attr.size != n->attr.size || now.attr.mtime_ns != n->attr.mtime_ns;
}

/* Whether the entry that last changed the node's row is in the outbox: 1, 0, -errno. */
static int is_queued(const struct node_state_source *s, uint64_t node)
{
	_cleanup_buf_ struct buf row = { 0 };
	struct row_key key = key_id(node);
	struct outbox_stats outbox;
	uint64_t entry;
	uint8_t tag;
	int r;

	replica_outbox_stats(s->tree, &outbox);
	r = store_get(s->store, CF_NODE, key.b, key.n, &row);
	if (r > 0)
		r = row_head_decode((struct slice){ row.data, row.len }, &tag, &entry);
	else if (r == 0)
		r = -ENODATA;
	return r < 0 ? r : outbox.entries > 0 && entry >= outbox.first;
}

static int append_state(const struct node_state_source *s, const struct node *n, struct buf *ret)
{
	int queued = is_queued(s, n->id);

	if (queued < 0)
		return queued;
	return buf_printf(ret, "%s", is_dirty(s, n) ? "dirty" : queued ? "local" : "synced");
}

static int append_version(const struct node *n, struct buf *ret)
{
	char text[2 * sizeof n->attr.content + 1];

	if (!S_ISREG(n->attr.mode) || n->attr.size == 0)
		return -ENODATA;
	hex_encode(&n->attr.content, sizeof n->attr.content, text);
	return buf_append(ret, text, strlen(text));
}

int node_state_xattr(void *ctx, uint64_t node, struct slice name, struct buf *ret)
{
	const struct node_state_source *s = ctx;
	struct node n;
	int r = tree_get(s->tree, node, &n);

	if (r <= 0)
		return r < 0 ? r : -ENODATA;
	if (name_is(name, "user.varve.state"))
		return append_state(s, &n, ret);
	if (name_is(name, "user.varve.version"))
		return append_version(&n, ret);
	return -ENODATA;
}
