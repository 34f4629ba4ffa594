// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
#include "cli/output.h"

#include "bytes.h"
#include "io.h"
#include "bounds.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <termios.h>

#define PASSWORD_BYTES_MAX 1024

static const int ending_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };

struct login_args {
	const char *url;
	const char *user;
	const char *password_file;
	const char *device;
	const char *ca_file;
	bool allow_plain_http;
};

enum { KEY_ALLOW_PLAIN = 256, KEY_CA, KEY_DEVICE, KEY_PASSWORD, KEY_USER };

static const struct argp_option options[] = {
	{ "user", KEY_USER, "NAME", 0, "The account's name", 0 },
	{ "password-file", KEY_PASSWORD, "F", 0,
		"Read the password from F (its first line) instead of asking for it", 0 },
	{ "device", KEY_DEVICE, "NAME", 0, "What to call this device (default: the host's name)",
		0 },
	{ "ca-file", KEY_CA, "F", 0, "Trust the certificates in F (PEM) instead of the system's",
		0 },
	{ "allow-plain-http", KEY_ALLOW_PLAIN, NULL, 0,
		"Send password and token unencrypted over the network to an http:// server", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct login_args *a = state->input;

	switch (key) {
	case KEY_USER:
		a->user = arg;
		return 0;
	case KEY_PASSWORD:
		a->password_file = arg;
		return 0;
	case KEY_DEVICE:
		a->device = arg;
		return 0;
	case KEY_CA:
		a->ca_file = arg;
		return 0;
	case KEY_ALLOW_PLAIN:
		a->allow_plain_http = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->url)
			exit(cli_misuse("login", "'%s' is one argument too many", arg));
		a->url = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->url)
			exit(cli_misuse("login", "the server's URL is missing"));
		if (!a->user)
			exit(cli_misuse("login", "--user NAME is missing"));
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = { options, parse, "URL --user NAME",
	"Logs in at the server at URL (like https://host:7420) and makes this machine a device of "
	"the account. The device's token is kept in the configuration folder; the password is not. "
	"A "
	"token that is there and still works is kept.",
	options_common };

static bool label_valid(const char *s)
{
	size_t n = strlen(s);

	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			return false;
	}
	return n > 0 && n <= LABEL_BYTES_MAX && utf8_valid(s, n);
}

/* The first line of what was read; without its end. */
static int first_line(struct buf *b, struct err *err)
{
	uint8_t *end = b->len ? memchr(b->data, '\n', b->len) : NULL;

	if (end)
		b->len = (size_t)(end - b->data);
	if (b->len && b->data[b->len - 1] == '\r')
		b->len--;
	if (b->len == 0)
		return err_set(err, EINVAL, "the password is empty");
	if (memchr(b->data, '\0', b->len))
		return err_set(err, EINVAL, "the password has a NUL byte");
	return buf_str(b) ? 0 : err_sys(err, ENOMEM, "password");
}

static int read_password_file(const char *path, struct buf *ret, struct err *err)
{
	int r = io_read_file(path, PASSWORD_BYTES_MAX, ret);

	if (r < 0)
		return err_sys(err, -r, "cannot read the password file %s", path);
	r = first_line(ret, err);
	if (r < 0)
		err_prefix(err, "%s", path);
	return r;
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	interrupted = number;
}

/* Signals that would end the program end the question instead, so that echo comes back first. */
static void catch_signals(struct sigaction old[ARRAY_SIZE(ending_signals)])
{
	struct sigaction action = { .sa_handler = on_signal };

	for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++)
		sigaction(ending_signals[i], &action, &old[i]);
}

static void release_signals(const struct sigaction old[ARRAY_SIZE(ending_signals)])
{
	for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++)
		sigaction(ending_signals[i], &old[i], NULL);
	if (interrupted)
		raise(interrupted);
}

static int read_line(int fd, struct buf *ret)
{
	for (;;) {
		char c;
		ssize_t n = read(fd, &c, 1);

		if (interrupted)
			return -EINTR;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0 || (n > 0 && c == '\n'))
			return 0;
		if (ret->len == PASSWORD_BYTES_MAX)
			return -EFBIG;
		if (n > 0 && buf_append(ret, &c, 1) < 0)
			return -ENOMEM;
	}
}

static int read_hidden(int tty, struct buf *ret)
{
	struct sigaction old[ARRAY_SIZE(ending_signals)];
	struct termios shown, hidden;
	int r;

	if (tcgetattr(tty, &shown) < 0)
		return -errno;
	hidden = shown;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	catch_signals(old);
	r = tcsetattr(tty, TCSAFLUSH, &hidden) < 0 ? -errno : read_line(tty, ret);
	tcsetattr(tty, TCSAFLUSH, &shown);
	dprintf(tty, "\n");
	release_signals(old);
	return r;
}

static int ask_password(const char *user, const char *url, struct buf *ret, struct err *err)
{
	_cleanup_close_ int tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
	int r;

	if (tty < 0)
		return err_set(err, ENOTTY,
			"there is no terminal to ask for the password on; give --password-file F");
	dprintf(tty, "Password of %s at %s: ", user, url);
	r = read_hidden(tty, ret);
	return r < 0 ? err_sys(err, -r, "cannot read the password") : first_line(ret, err);
}

static int other_account(const struct account *old, struct err *err)
{
	return err_set(err, EEXIST,
		"this device is logged in as %s at %s, called '%s'; log out first: varve logout",
		old->user, old->url, old->device);
}

static bool same_account(const struct account *a, const struct account *b)
{
	return strcmp(a->url, b->url) == 0 && strcmp(a->user, b->user) == 0;
}

/* The device that it was before, by the name that it is given now or had. */
static void take_over(const struct login_args *args, struct account *old, struct account *a)
{
	if (args->device) {
		free(old->device);
		old->device = steal(a->device);
	}
	free(old->ca_file);
	old->ca_file = steal(a->ca_file);
	account_done(a);
	*a = *old;
	*old = (struct account){ 0 };
}

/*
 * What this device has of its drives belongs to the device at the server: with the same account
 * it stays the same device, and another account, or another name, begins with a logout. A token
 * that still works is kept: *ret_valid.
 */
static int check_old_account(const struct cli_calls *calls, const struct login_args *args,
	const struct home *h, struct account *a, bool *ret_valid, struct err *err)
{
	_cleanup_server_drives_ struct server_drives drives = { 0 };
	_cleanup_account_ struct account old = { 0 };
	int r = account_load(h, &old, err);

	if (r <= 0)
		return r;
	if (old.token &&
		(!same_account(&old, a) || (args->device && strcmp(old.device, a->device) != 0)))
		return other_account(&old, err);
	if (!same_account(&old, a))
		return 0;
	take_over(args, &old, a);
	if (!a->token)
		return 0;
	r = calls->drives(a, &drives, err);
	*ret_valid = r == 0;
	return r == -EACCES ? 0 : r;
}

static char *host_name(void)
{
	char name[LABEL_BYTES_MAX + 1];

	if (gethostname(name, sizeof name) < 0 || !*name)
		return strdup("device");
	name[LABEL_BYTES_MAX] = '\0';
	return strdup(name);
}

static int fill_account(const struct login_args *args, struct account *a, struct err *err)
{
	int r = server_url_parse(args->url, &a->url, err);

	if (r < 0)
		return r;
	a->user = strdup(args->user);
	a->device = args->device ? strdup(args->device) : host_name();
	if (!a->user || !a->device)
		return err_sys(err, ENOMEM, "login");
	if (args->ca_file && !(a->ca_file = realpath(args->ca_file, NULL)))
		return err_sys(err, errno, "cannot use the CA file %s", args->ca_file);
	return 0;
}

static int check_args(const struct login_args *args, const struct account *a)
{
	if (!label_valid(a->user))
		return cli_misuse("login", "'%s' cannot be a user's name", a->user);
	if (!label_valid(a->device))
		return cli_misuse("login", "'%s' cannot be a device's name", a->device);
	if (server_url_exposes(a->url) && !args->allow_plain_http)
		return cli_misuse("login",
			"%s would send the password unencrypted over the network; "
			"use https://, or --allow-plain-http",
			a->url);
	return EXIT_DONE;
}

static int log_in(const struct cli_calls *calls, const struct login_args *args, struct account *a,
	struct err *err)
{
	_cleanup_buf_ struct buf password = { 0 };
	int r = args->password_file ? read_password_file(args->password_file, &password, err)
				    : ask_password(a->user, a->url, &password, err);

	if (r == 0)
		r = calls->login(a, (const char *)password.data, err);
	if (password.data)
		explicit_bzero(password.data, password.cap);
	return r;
}

/* What a server with a certificate of its own needs is easily missed in the help. */
static const char *hint(const struct account *a, const struct err *err)
{
	return !a->ca_file && strstr(err->text, "SSL certificate problem")
		       ? "; --ca-file F trusts the certificate in F"
		       : "";
}

static int log_in_or_stay(const struct cli_calls *calls, const struct login_args *args,
	const struct home *h, struct account *a, struct err *err)
{
	bool valid = false;
	int r = check_old_account(calls, args, h, a, &valid, err);

	if (r == 0 && !valid)
		r = log_in(calls, args, a, err);
	return r < 0 ? r : account_save(h, a, err);
}

int cmd_login(const struct cli_calls *calls, int argc, char **argv)
{
	_cleanup_account_ struct account a = { 0 };
	_cleanup_home_ struct home h = { 0 };
	struct login_args args = { 0 };
	struct err err = { 0 };
	int r;

	cli_parse(&argp, argc, argv, &args);
	r = fill_account(&args, &a, &err);
	if (r == -EINVAL)
		return cli_misuse("login", "%s", err.text);
	if (r < 0)
		return cli_fail("login", "%s", err.text);
	r = check_args(&args, &a);
	if (r != EXIT_DONE)
		return r;
	if (home_init(&h, &err) < 0 || log_in_or_stay(calls, &args, &h, &a, &err) < 0)
		return cli_fail("login", "%s%s", err.text, hint(&a, &err));
	printf("Logged in as %s at %s; this device is called '%s'.\n", a.user, a.url, a.device);
	return finish_output("login");
}
