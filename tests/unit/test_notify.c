// SPDX-License-Identifier: Apache-2.0
#include "server/notify.h"
#include "server/patience.h"

#include "clock.h"

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/socket.h>

struct guest {
	struct waiter waiter;
	atomic_int woken;
};

static void wake(struct waiter *w)
{
	atomic_fetch_add(&((struct guest *)w)->woken, 1);
}

static struct guest guest_of(int64_t drive, uint64_t since, int64_t ms)
{
	return (struct guest){ .waiter = { .drive = drive,
				       .since = since,
				       .deadline_mono_ms = clock_mono_ms() + ms,
				       .wake = wake } };
}

static void until_woken(struct guest *g)
{
	int64_t deadline = clock_mono_ms() + 20 * MS_PER_S;

	while (!atomic_load(&g->woken) && clock_mono_ms() < deadline)
		usleep(1000);
	ck_assert_int_eq(atomic_load(&g->woken), 1);
}

START_TEST(woken_by_what_concerns_them)
{
	/* Drives 1 and 1025 share a list. */
	struct guest a = guest_of(1, 5, 60000), b = guest_of(1, 9, 60000),
		     c = guest_of(1025, 5, 60000), d = guest_of(2, 5, 60000);
	struct hub *h;

	ck_assert_int_eq(hub_new(&h), 0);
	ck_assert(hub_wait(h, &a.waiter, hub_ticket(h, 1)));
	ck_assert(hub_wait(h, &b.waiter, hub_ticket(h, 1)));
	ck_assert(hub_wait(h, &c.waiter, hub_ticket(h, 1025)));
	ck_assert(hub_wait(h, &d.waiter, hub_ticket(h, 2)));
	hub_advance(h, 1, 5);
	ck_assert_int_eq(a.woken, 0);
	hub_advance(h, 1, 6);
	ck_assert_int_eq(a.woken, 1);
	ck_assert_int_eq(b.woken + c.woken + d.woken, 0);
	hub_advance(h, 1025, 10);
	ck_assert_int_eq(c.woken, 1);
	hub_stop(h);
	ck_assert_int_eq(a.woken + b.woken + c.woken + d.woken, 4);
	hub_free(h);
}
END_TEST

START_TEST(no_commit_slips_between_looking_and_waiting)
{
	struct guest a = guest_of(1, 5, 60000);
	struct hub *h;
	uint64_t ticket;

	ck_assert_int_eq(hub_new(&h), 0);
	ticket = hub_ticket(h, 1);
	hub_advance(h, 1, 6);
	ck_assert(!hub_wait(h, &a.waiter, ticket));
	ck_assert_int_eq(a.woken, 0);
	ck_assert(hub_wait(h, &a.waiter, hub_ticket(h, 1)));
	hub_stop(h);
	ck_assert_int_eq(a.woken, 1);
	hub_free(h);
}
END_TEST

START_TEST(woken_by_time)
{
	struct guest late = guest_of(1, 5, 60000), soon = guest_of(2, 5, 30),
		     now = guest_of(3, 5, 0);
	int64_t start = clock_mono_ms();
	struct hub *h;

	ck_assert_int_eq(hub_new(&h), 0);
	ck_assert(hub_wait(h, &late.waiter, hub_ticket(h, 1)));
	ck_assert(hub_wait(h, &soon.waiter, hub_ticket(h, 2)));
	ck_assert(hub_wait(h, &now.waiter, hub_ticket(h, 3)));
	until_woken(&now);
	until_woken(&soon);
	ck_assert_int_ge(clock_mono_ms() - start, 30);
	ck_assert_int_eq(late.woken, 0);
	hub_free(h);
	ck_assert_int_eq(late.woken, 1);
}
END_TEST

START_TEST(nobody_waits_on_a_stopped_hub)
{
	struct guest a = guest_of(1, 5, 60000);
	struct hub *h;

	ck_assert_int_eq(hub_new(&h), 0);
	hub_stop(h);
	ck_assert(hub_wait(h, &a.waiter, hub_ticket(h, 1)));
	ck_assert_int_eq(a.woken, 1);
	hub_free(h);
}
END_TEST

#define ROUNDS 2000

struct race {
	struct hub *hub;
	_Atomic uint64_t head;
};

static void *advance(void *arg)
{
	struct race *r = arg;

	for (uint64_t i = 1; i <= ROUNDS; i++) {
		atomic_store(&r->head, i);
		hub_advance(r->hub, 1, i);
	}
	return NULL;
}

/* The calling sequence of the header, against a thread that commits without a pause. */
START_TEST(every_waiter_is_woken_once)
{
	struct race r = { 0 };
	struct guest *guests = calloc(ROUNDS, sizeof *guests);
	pthread_t t;

	ck_assert_int_eq(hub_new(&r.hub), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, advance, &r), 0);
	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint64_t ticket;
		bool news = false;

		guests[i] = guest_of(1, i, 60000);
		do {
			ticket = hub_ticket(r.hub, 1);
			news = atomic_load(&r.head) > i;
		} while (!news && !hub_wait(r.hub, &guests[i].waiter, ticket));
		if (news)
			atomic_store(&guests[i].woken, 1);
	}
	pthread_join(t, NULL);
	for (int i = 0; i < ROUNDS; i++)
		ck_assert_int_eq(guests[i].woken, 1);
	hub_free(r.hub);
	free(guests);
}
END_TEST

START_TEST(patience_ends)
{
	struct patience_entry late, endless, removed;
	int a[2], b[2], c[2];
	struct patience *p;
	char byte;

	ck_assert_int_eq(patience_new(&p), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, c), 0);
	patience_add(p, &endless, b[0], PATIENCE_ENDLESS);
	patience_add(p, &late, a[0], 60000);
	patience_add(p, &removed, c[0], 1);
	patience_remove(p, &removed);
	patience_set(p, &late, 10);
	ck_assert_int_eq(read(a[1], &byte, 1), 0);
	ck_assert_int_eq(recv(b[1], &byte, 1, MSG_DONTWAIT), -1);
	ck_assert_int_eq(recv(c[1], &byte, 1, MSG_DONTWAIT), -1);
	patience_remove(p, &late);
	patience_remove(p, &endless);
	patience_free(p);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("notify");
	TCase *tc = tcase_create("notify");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, woken_by_what_concerns_them);
	tcase_add_test(tc, no_commit_slips_between_looking_and_waiting);
	tcase_add_test(tc, woken_by_time);
	tcase_add_test(tc, nobody_waits_on_a_stopped_hub);
	tcase_add_test(tc, every_waiter_is_woken_once);
	tcase_add_test(tc, patience_ends);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
