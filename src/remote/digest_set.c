// SPDX-License-Identifier: Apache-2.0
#include "remote/digest_set.h"

#include "bytes.h"

#include <errno.h>

#define CAP_MIN 64

void digest_set_done(struct digest_set *s)
{
	free(s->slots);
	*s = (struct digest_set){ 0 };
}

/* Where the id is, or the free slot where it belongs. An id's bytes are as good as a hash. */
static struct digest *slot_of(const struct digest_set *s, const struct digest *id)
{
	size_t at = (size_t)get_le64(id->b) & (s->cap - 1);

	while (!digest_is_zero(&s->slots[at]) && !digest_eq(&s->slots[at], id))
		at = (at + 1) & (s->cap - 1);
	return &s->slots[at];
}

static int grow(struct digest_set *s)
{
	struct digest_set bigger = { .cap = s->cap ? s->cap * 2 : CAP_MIN, .n = s->n };

	bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < s->cap; i++) {
		if (!digest_is_zero(&s->slots[i]))
			*slot_of(&bigger, &s->slots[i]) = s->slots[i];
	}
	free(s->slots);
	*s = bigger;
	return 0;
}

int digest_set_add(struct digest_set *s, const struct digest *id)
{
	struct digest *slot;

	if (digest_is_zero(id))
		return 0;
	if (s->n * 2 >= s->cap && grow(s) < 0)
		return -ENOMEM;
	slot = slot_of(s, id);
	if (digest_is_zero(slot)) {
		*slot = *id;
		s->n++;
	}
	return 0;
}

bool digest_set_has(const struct digest_set *s, const struct digest *id)
{
	return s->n && !digest_is_zero(id) && !digest_is_zero(slot_of(s, id));
}
