// SPDX-License-Identifier: Apache-2.0
/* varved serve */
#include "cmd.h"

#include "fault.h"
#include "listener.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <systemd/sd-daemon.h>

#define COMMAND "varved serve"

enum { KEY_LISTEN = 512, KEY_CERT, KEY_KEY, KEY_PLAIN };

struct arguments {
	struct cmd_options options;
	const char *surplus;
};

static const struct argp_option options[] = {
	{ "listen", KEY_LISTEN, "HOST:PORT", 0,
		"Where to listen (default: 127.0.0.1:7420); port 0 takes a free one", 0 },
	{ "tls-cert", KEY_CERT, "F", 0, "The certificate, and its chain, in PEM form", 0 },
	{ "tls-key", KEY_KEY, "F", 0, "The certificate's private key in PEM form", 0 },
	{ "allow-plain-http", KEY_PLAIN, NULL, 0,
		"Serve without TLS to other machines: only behind a proxy that encrypts", 0 },
	{ 0 },
};

static char yes[] = "yes";

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->options;
		return 0;
	case KEY_LISTEN:
		a->options.given.listen = arg;
		return 0;
	case KEY_CERT:
		a->options.given.tls_cert = arg;
		return 0;
	case KEY_KEY:
		a->options.given.tls_key = arg;
		return 0;
	case KEY_PLAIN:
		a->options.given.allow_plain_http = yes;
		return 0;
	case ARGP_KEY_ARG:
		a->surplus = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = { { &cmd_argp, 0, NULL, 0 }, { 0 } };
static const struct argp argp = { options, parse, NULL,
	"Serves the drives in DIR until SIGTERM or SIGINT. Prints its URL when it is ready.",
	children, NULL, NULL };

/* Notifications go round inside one process: a second one on the same folder would not wake. */
static int lock_folder(const struct config *c, int *ret, struct err *err)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;

	if (asprintf(&path, "%s/varved.lock", c->data) < 0) {
		path = NULL;
		return err_sys(err, ENOMEM, "--data %s", c->data);
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, errno, "%s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, EBUSY,
			"--data %s: another varved serves it; stop that one first", c->data);
	*ret = steal_fd(fd);
	return 0;
}

static int start(
	const struct config *c, struct app **ret, struct listener *ret_listener, struct err *err)
{
	_cleanup_buf_ struct buf cert = { 0 }, key = { 0 };
	struct app_options o = { .db_url = c->db, .blob_url = c->blobs };
	struct listener l = { .fd = -1 };
	int r = 0;

	if (c->tls_cert)
		r = tls_files_read(c->tls_cert, c->tls_key, &cert, &key, err);
	if (r == 0)
		r = listener_open(c->listen, !c->tls_cert && !config_allows_plain_http(c), &l, err);
	if (r < 0)
		return r;
	o.listen_fd = l.fd;
	if (c->tls_cert) {
		o.cert_pem = (char *)cert.data;
		o.key_pem = (char *)key.data;
	}
	r = app_new(&o, ret, err);
	if (key.data)
		explicit_bzero(key.data, key.len);
	if (r < 0)
		close(l.fd);
	else
		*ret_listener = l;
	return r;
}

static int serve(const struct config *c, struct err *err)
{
	_cleanup_close_ int lock = -1;
	struct listener l;
	struct app *app;
	sigset_t signals;
	int r, sig;

	/* Before there are threads, so that all have them blocked. */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);

	r = cmd_make_data_folder(c, err);
	if (r == 0)
		r = lock_folder(c, &lock, err);
	if (r == 0)
		r = start(c, &app, &l, err);
	if (r < 0)
		return r;
	printf("varved: listening on http%s://%s\n", c->tls_cert ? "s" : "", l.address);
	fflush(stdout);
	sd_notify(0, "READY=1");
	sigwait(&signals, &sig);
	log_info("%s: stopping", strsignal(sig));
	sd_notify(0, "STOPPING=1");
	app_stop(app);
	app_free(app);
	return 0;
}

int cmd_serve(int argc, char **argv)
{
	_cleanup_config_ struct config config = { 0 };
	struct arguments a = { 0 };
	struct err err = { 0 };

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (a.surplus)
		return cmd_misused(COMMAND, "'%s' is one argument too many", a.surplus);
	if (config_load(&a.options.given, a.options.config_path, &config, &err) < 0)
		return cmd_misused(COMMAND, "%s", err.text);
	if (fault_init() < 0)
		return cmd_misused(COMMAND, "VARVE_FAULT does not parse");
	return serve(&config, &err) < 0 ? cmd_failed(&err) : EXIT_SUCCESS;
}
