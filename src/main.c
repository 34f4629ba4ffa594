// SPDX-License-Identifier: Apache-2.0
/* The client's composition root: the command line gets its server and its daemon here. */
#include "cli/output.h"
#include "daemon.h"
#include "doctor.h"
#include "fault.h"
#include "log.h"
#include "remote/client.h"

#include <errno.h>
#include <string.h>

static int connect_to(const struct account *who, struct client **ret, struct err *err)
{
	struct client_options options = {
		.url = who->url,
		.token = who->token,
		.ca_file = who->ca_file,
	};

	return client_new(&options, ret, err);
}

static int login(struct account *who, const char *password, struct err *err)
{
	_cleanup_client_ struct client *c = NULL;
	struct client_login answer;
	int r = connect_to(who, &c, err);

	if (r == 0)
		r = client_login(c, who->user, password, who->device, who->device_id, &answer, err);
	if (r < 0)
		return r;
	free(who->token);
	free(who->device_id);
	who->token = strdup(answer.token);
	who->device_id = strdup(answer.device_id);
	explicit_bzero(&answer, sizeof answer);
	return who->token && who->device_id ? 0 : err_sys(err, ENOMEM, "login");
}

static int logout(const struct account *who, struct err *err)
{
	_cleanup_client_ struct client *c = NULL;
	int r = connect_to(who, &c, err);

	return r < 0 ? r : client_logout(c, err);
}

static int add_drive(void *ctx, const struct client_drive *d)
{
	struct server_drive item = {
		.id = (char *)(uintptr_t)d->id,
		.name = (char *)(uintptr_t)d->name,
		.owner = (char *)(uintptr_t)d->owner,
		.role = (char *)(uintptr_t)d->role,
		.head = d->head,
	};

	return server_drives_add(ctx, &item);
}

static int drives(const struct account *who, struct server_drives *ret, struct err *err)
{
	_cleanup_client_ struct client *c = NULL;
	int r = connect_to(who, &c, err);

	if (r == 0)
		r = client_drives(c, add_drive, ret, err);
	if (r == -ENOMEM)
		return err_sys(err, ENOMEM, "drives");
	return r;
}

static int attach(const struct account *who, const char *drive_id, uint32_t *ret_number,
	int64_t *ret_created_ns, struct err *err)
{
	_cleanup_client_ struct client *c = NULL;
	struct client_drive answer;
	int r = connect_to(who, &c, err);

	if (r == 0)
		r = client_attach(c, drive_id, &answer, err);
	if (r < 0)
		return r;
	*ret_number = answer.device_number;
	*ret_created_ns = answer.created_ns;
	return 0;
}

static const struct cli_calls calls = {
	.login = login,
	.logout = logout,
	.drives = drives,
	.attach = attach,
	.serve = daemon_serve,
	.doctor = doctor_examine,
};

int main(int argc, char **argv)
{
	const char *level_name = getenv("VARVE_LOG");
	enum log_level level;

	if (fault_init() < 0)
		return cli_fail("VARVE_FAULT", "write it as NAME:N:kill or NAME:N:ERRNO");
	if (level_name && *level_name) {
		if (!log_level_parse(level_name, &level))
			return cli_fail("VARVE_LOG", "use one of error, warn, info, debug");
		log_set_level(level);
	}
	return cli_main(&calls, argc, argv);
}
