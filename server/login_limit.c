// SPDX-License-Identifier: Apache-2.0
#include "login_limit.h"

#include "bytes.h"
#include "chunk/digest.h"
#include "clock.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#define SLOTS 16384
#define WINDOW_MS (60 * MS_PER_S)

/* Failures a window. */
static const struct {
	const char *what;
	unsigned max;
} kinds[] = {
	{ "both", 10 },
	{ "address", 30 },
	{ "name", 200 },
};

struct slot {
	unsigned failures;
	int64_t window_ends_mono_ms;
};

struct login_limit {
	pthread_mutex_t lock;
	uint8_t secret[16]; /* so that nobody can choose whom to share a counter with */
	struct slot slots[ARRAY_SIZE(kinds)][SLOTS];
};

int login_limit_new(struct login_limit **ret)
{
	struct login_limit *l = calloc(1, sizeof *l);

	if (!l)
		return -ENOMEM;
	if (getrandom(l->secret, sizeof l->secret, 0) != (ssize_t)sizeof l->secret) {
		free(l);
		return -EIO;
	}
	pthread_mutex_init(&l->lock, NULL);
	*ret = l;
	return 0;
}

void login_limit_free(struct login_limit *l)
{
	if (!l)
		return;
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static struct slot *slot_locked(
	struct login_limit *l, size_t kind, const char *name, const char *address, int64_t now)
{
	char text[512], secret[2 * sizeof l->secret + 1];
	struct digest d;
	struct slot *s;

	hex_encode(l->secret, sizeof l->secret, secret);
	snprintf(text, sizeof text, "%s %s %s", secret, kind == 2 ? "" : address,
		kind == 1 ? "" : name);
	digest_of(text, strlen(text), &d);
	s = &l->slots[kind][get_le64(d.b) % SLOTS];
	if (s->window_ends_mono_ms <= now)
		*s = (struct slot){ .window_ends_mono_ms = now + WINDOW_MS };
	return s;
}

unsigned login_limit_attempt(struct login_limit *l, const char *name, const char *address)
{
	int64_t now = clock_mono_ms();
	struct slot *slots[ARRAY_SIZE(kinds)];
	SCOPED_LOCK(&l->lock);

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		slots[i] = slot_locked(l, i, name, address, now);
		if (slots[i]->failures >= kinds[i].max)
			return (unsigned)((slots[i]->window_ends_mono_ms - now) / MS_PER_S) + 1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		slots[i]->failures++;
	return 0;
}

void login_limit_success(struct login_limit *l, const char *name, const char *address)
{
	int64_t now = clock_mono_ms();
	SCOPED_LOCK(&l->lock);

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct slot *s = slot_locked(l, i, name, address, now);

		if (s->failures)
			s->failures--;
	}
}
