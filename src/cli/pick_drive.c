// SPDX-License-Identifier: Apache-2.0
#include "cli/pick_drive.h"

#include <errno.h>
#include <string.h>

/* One of the drives to pick from, wherever it is known from. */
struct choice {
	const char *id;
	const char *name;
	const char *device_id; /* that this device's store is attached as */
};

static bool is_wanted(const struct choice *c, const char *wanted)
{
	return !wanted || strcmp(c->name, wanted) == 0 || strcmp(c->id, wanted) == 0;
}

/* How many are wanted; *ret is the last of them. */
static size_t count_wanted(
	const struct choice *c, size_t n, const char *wanted, const struct choice **ret)
{
	size_t found = 0;

	for (size_t i = 0; i < n; i++) {
		if (is_wanted(&c[i], wanted)) {
			found++;
			*ret = &c[i];
		}
	}
	return found;
}

/* "home, photos": names, or ids behind them where the names are the question itself. */
static void list_choices(
	const struct choice *c, size_t n, const char *wanted, char *ret, size_t size)
{
	size_t used = 0;

	ret[0] = '\0';
	for (size_t i = 0; i < n && used < size; i++) {
		if (!is_wanted(&c[i], wanted))
			continue;
		used += (size_t)snprintf(ret + used, size - used, "%s%s%s%s%s", used ? ", " : "",
			c[i].name, wanted ? " (" : "", wanted ? c[i].id : "", wanted ? ")" : "");
	}
}

static int several(const struct choice *c, size_t n, const char *wanted, struct err *err)
{
	char list[ERR_TEXT_BYTES / 2];

	list_choices(c, n, wanted, list, sizeof list);
	if (wanted)
		return err_set(err, ENOTUNIQ,
			"several drives are called '%s'; name one by its id: %s", wanted, list);
	return err_set(
		err, ENOTUNIQ, "there are several drives; say --drive NAME, one of: %s", list);
}

static int none(const struct choice *c, size_t n, const char *wanted, struct err *err)
{
	char list[ERR_TEXT_BYTES / 2];

	list_choices(c, n, NULL, list, sizeof list);
	if (n == 0)
		return err_set(err, ENOENT,
			"this account has no drive; make one on the server: varved drive create");
	return err_set(err, ENOENT, "there is no drive '%s'; there are: %s", wanted, list);
}

static int take(const struct choice *c, const struct account *a, struct drive *ret, struct err *err)
{
	struct drive d = { .name = strdup(c->name),
		.url = strdup(a->url),
		.user = strdup(a->user),
		.device_id = strdup(c->device_id) };

	memcpy(d.id, c->id, DRIVE_ID_DIGITS);
	if (!d.name || !d.url || !d.user || !d.device_id) {
		drive_done(&d);
		return err_sys(err, ENOMEM, "drive %s", c->name);
	}
	*ret = d;
	return 0;
}

/* 1 picked, 0 when this device knows none that is wanted. */
static int pick_known(const struct home *h, const struct account *a, const char *wanted,
	struct drive *ret, struct err *err)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	_cleanup_free_ struct choice *choices = NULL;
	const struct choice *picked = NULL;
	size_t n = 0, found;
	int r = drive_list_load(h, &l, err);

	if (r < 0)
		return r;
	choices = calloc(l.n + 1, sizeof *choices);
	if (!choices)
		return err_sys(err, ENOMEM, "drives");
	for (size_t i = 0; i < l.n; i++) {
		const struct drive *d = &l.items[i];

		if (strcmp(d->url, a->url) == 0 && strcmp(d->user, a->user) == 0)
			choices[n++] = (struct choice){ d->id, d->name, d->device_id };
	}
	found = count_wanted(choices, n, wanted, &picked);
	if (found > 1)
		return several(choices, n, wanted, err);
	if (found == 0)
		return 0;
	r = take(picked, a, ret, err);
	return r < 0 ? r : 1;
}

static int pick_listed(const struct server_drives *drives, const struct account *a,
	const char *wanted, struct drive *ret, struct err *err)
{
	_cleanup_free_ struct choice *choices = calloc(drives->n + 1, sizeof *choices);
	const struct choice *picked = NULL;
	size_t n = 0, found;

	if (!choices)
		return err_sys(err, ENOMEM, "drives");
	for (size_t i = 0; i < drives->n; i++) {
		const struct server_drive *d = &drives->items[i];

		if (drive_id_valid(d->id))
			choices[n++] = (struct choice){ d->id, d->name, a->device_id };
	}
	found = count_wanted(choices, n, wanted, &picked);
	if (found > 1)
		return several(choices, n, wanted, err);
	return found ? take(picked, a, ret, err) : none(choices, n, wanted, err);
}

int pick_drive(const struct cli_calls *calls, const struct home *h, const struct account *a,
	const char *wanted, struct drive *ret, struct err *err)
{
	_cleanup_server_drives_ struct server_drives drives = { 0 };
	int r = pick_known(h, a, wanted, ret, err);

	if (r != 0)
		return r < 0 ? r : 0;
	r = calls->drives(a, &drives, err);
	if (r < 0) {
		err_prefix(err, "the drive was never mounted here, so the server is asked");
		return r;
	}
	return pick_listed(&drives, a, wanted, ret, err);
}
