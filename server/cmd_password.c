// SPDX-License-Identifier: Apache-2.0
/* A new password, from a file or from the terminal. */
#include "cmd.h"

#include "io.h"
#include "password.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>

/* Cuts the text at its first line's end, and checks what is left. */
static int first_line(struct buf *b, struct err *err)
{
	uint8_t *end = b->len ? memchr(b->data, '\n', b->len) : NULL;

	if (end)
		b->len = (size_t)(end - b->data);
	if (b->len && b->data[b->len - 1] == '\r')
		b->len--;
	if (b->len && memchr(b->data, '\0', b->len))
		return err_set(err, EINVAL, "the password has a NUL byte; give another");
	return buf_str(b) ? 0 : err_sys(err, ENOMEM, "password");
}

static int read_line(int fd, struct buf *ret, struct err *err)
{
	char c;

	buf_clear(ret);
	for (;;) {
		ssize_t n = read(fd, &c, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(
				err, EIO, "the terminal was closed before the password was given");
		if (c == '\n')
			return buf_str(ret) ? 0 : err_sys(err, ENOMEM, "password");
		if (ret->len > PASSWORD_BYTES_MAX)
			return err_set(err, EINVAL, "the password is too long; give a shorter one");
		if (buf_append(ret, &c, 1) < 0)
			return err_sys(err, ENOMEM, "password");
	}
}

static int ask(int tty, const char *question, const char *user, struct buf *ret, struct err *err)
{
	int r;

	dprintf(tty, "%s %s: ", question, user);
	r = read_line(tty, ret, err);
	dprintf(tty, "\n");
	return r;
}

static int ask_twice(int tty, const char *user, struct buf *ret, struct err *err)
{
	_cleanup_buf_ struct buf again = { 0 };
	int r = ask(tty, "Password for", user, ret, err);

	if (r == 0)
		r = ask(tty, "Again, the password for", user, &again, err);
	if (r == 0 && strcmp((char *)ret->data, (char *)again.data) != 0)
		r = err_set(err, EINVAL, "the two passwords differ; try again");
	if (again.data)
		explicit_bzero(again.data, again.len);
	return r;
}

static int ask_on_terminal(const char *user, struct buf *ret, struct err *err)
{
	_cleanup_close_ int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios shown, hidden;
	int r;

	if (tty < 0 || tcgetattr(tty, &shown) < 0)
		return err_set(
			err, ENOTTY, "no terminal to ask for the password; give --password-file F");
	hidden = shown;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	if (tcsetattr(tty, TCSAFLUSH, &hidden) < 0)
		return err_sys(err, errno, "terminal");
	r = ask_twice(tty, user, ret, err);
	tcsetattr(tty, TCSAFLUSH, &shown);
	return r;
}

int cmd_read_password(const char *path, const char *user, struct buf *ret, struct err *err)
{
	int r;

	if (!path)
		return ask_on_terminal(user, ret, err);
	r = io_read_file(path, 4 * PASSWORD_BYTES_MAX, ret);
	if (r < 0)
		return err_sys(err, -r, "--password-file %s", path);
	return first_line(ret, err);
}
