// SPDX-License-Identifier: Apache-2.0
#include "base64.h"
#include "cli/account.h"
#include "cli/drive.h"
#include "cli/json_file.h"
#include "cli/mounts.h"
#include "cli/output.h"

#include "io.h"

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define DRIVE_ID "00112233445566778899aabbccddeeff"
#define OTHER_ID "ffeeddccbbaa99887766554433221100"

static char root[] = "/tmp/varve-test-home-XXXXXX";
static struct home h;

static void set_up(void)
{
	strcpy(root + strlen(root) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	setenv("VARVE_HOME", root, 1);
	ck_assert_int_eq(home_init(&h, NULL), 0);
}

static void tear_down(void)
{
	home_done(&h);
	ck_assert_int_eq(io_remove_tree(root), 0);
}

static void assert_below(const char *path, const char *dir, const char *rest)
{
	_cleanup_free_ char *want = path_join(dir, rest);

	ck_assert_str_eq(path, want);
}

START_TEST(one_folder_holds_all)
{
	assert_below(h.config, root, "config");
	assert_below(h.drives, root, "drives");
	assert_below(h.run, root, "run");
	assert_below(h.log, root, "log");
}
END_TEST

START_TEST(relative_folder_becomes_absolute)
{
	_cleanup_home_ struct home mine = { 0 };

	setenv("VARVE_HOME", "some/where", 1);
	ck_assert_int_eq(chdir(root), 0);
	ck_assert_int_eq(home_init(&mine, NULL), 0);
	assert_below(mine.config, root, "some/where/config");
}
END_TEST

START_TEST(xdg_folders_without_it)
{
	_cleanup_home_ struct home mine = { 0 };

	unsetenv("VARVE_HOME");
	setenv("HOME", "/home/ann", 1);
	setenv("XDG_CONFIG_HOME", "relative/is/dropped", 1);
	setenv("XDG_DATA_HOME", "/data", 1);
	unsetenv("XDG_STATE_HOME");
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	ck_assert_int_eq(home_init(&mine, NULL), 0);
	ck_assert_str_eq(mine.config, "/home/ann/.config/varve");
	ck_assert_str_eq(mine.drives, "/data/varve/drives");
	ck_assert_str_eq(mine.log, "/home/ann/.local/state/varve/log");
	ck_assert_str_eq(mine.run, "/run/user/7/varve");
	home_done(&mine);
	unsetenv("XDG_RUNTIME_DIR");
	ck_assert_int_eq(home_init(&mine, NULL), 0);
	ck_assert_str_eq(mine.run, "/home/ann/.local/state/varve/run");
}
END_TEST

START_TEST(log_name_is_a_file_name)
{
	_cleanup_free_ char *plain = home_log_path(&h, "photos");
	_cleanup_free_ char *evil = home_log_path(&h, "../../x\n");

	assert_below(plain, h.log, "mount-photos.log");
	assert_below(evil, h.log, "mount-.._.._x_.log");
}
END_TEST

static void fill_account(struct account *a)
{
	*a = (struct account){ strdup("https://h:1"), strdup("ann"), strdup("laptop"), strdup("7"),
		strdup("secret"), strdup("/ca\xff.pem") };
}

START_TEST(account_comes_back)
{
	_cleanup_account_ struct account a = { 0 }, b = { 0 };
	_cleanup_free_ char *path = path_join(h.config, "account.json");
	struct stat st;

	ck_assert_int_eq(account_load(&h, &b, NULL), 0);
	ck_assert_int_eq(account_require(&h, &b, NULL), -ENOENT);
	fill_account(&a);
	ck_assert_int_eq(account_save(&h, &a, NULL), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(account_load(&h, &b, NULL), 1);
	ck_assert_str_eq(b.url, "https://h:1");
	ck_assert_str_eq(b.token, "secret");
	ck_assert_str_eq(b.ca_file, "/ca\xff.pem");
}
END_TEST

START_TEST(logged_out_account_is_remembered)
{
	_cleanup_account_ struct account a = { 0 }, b = { 0 };
	struct err err = { 0 };

	fill_account(&a);
	ck_assert_int_eq(account_save(&h, &a, NULL), 0);
	ck_assert_int_eq(account_log_out(&h, &a, NULL), 0);
	ck_assert_ptr_null(a.token);
	ck_assert_int_eq(account_require(&h, &b, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "not logged in"));
	ck_assert_ptr_null(b.url);
	ck_assert_int_eq(account_load(&h, &b, NULL), 1);
	ck_assert_str_eq(b.device_id, "7");
	ck_assert_str_eq(b.device, "laptop");
	ck_assert_ptr_null(b.token);
}
END_TEST

static const char *const bad_accounts[] = { "", "{", "[]", "{\"url\": 1}", "{\"url\": \"x\"}",
	"{\"url\": \"x\", \"url\": \"y\"}", "\xff\xfe",
	"{\"url\":\"u\",\"user\":\"u\",\"device\":\"d\",\"device_id\":\"1\",\"token\":7}" };

START_TEST(damaged_account_is_told)
{
	_cleanup_account_ struct account a = { 0 };
	_cleanup_free_ char *path = path_join(h.config, "account.json");
	const char *text = bad_accounts[_i];
	struct err err = { 0 };

	ck_assert_int_eq(home_make_dir(h.config, NULL), 0);
	ck_assert_int_eq(io_write_file_atomic(path, text, strlen(text), 0600), 0);
	ck_assert_int_eq(account_load(&h, &a, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "account.json"));
	ck_assert_ptr_null(a.url);
}
END_TEST

static const struct {
	const char *in, *out;
	bool exposes;
} urls[] = {
	{ "https://example.org", "https://example.org", false },
	{ "HTTPS://Example.org:7420//", "https://Example.org:7420", false },
	{ "http://127.0.0.1:7420/", "http://127.0.0.1:7420", false },
	{ "http://127.9.9.9", "http://127.9.9.9", false },
	{ "http://localhost:1/sub/", "http://localhost:1/sub", false },
	{ "http://[::1]:7420", "http://[::1]:7420", false },
	{ "http://[::2]", "http://[::2]", true },
	{ "http://example.org", "http://example.org", true },
	{ "http://127.0.0.1.example.org", "http://127.0.0.1.example.org", true },
	{ "http://localhost.example.org", "http://localhost.example.org", true },
	{ "http://0x7f000001", "http://0x7f000001", true },
	{ "example.org", NULL, false },
	{ "ftp://example.org", NULL, false },
	{ "https://", NULL, false },
	{ "https:///path", NULL, false },
	{ "https://:7420", NULL, false },
	{ "https://h:", NULL, false },
	{ "https://h:0", NULL, false },
	{ "https://h:65536", NULL, false },
	{ "https://h:-1", NULL, false },
	{ "https://h:7x", NULL, false },
	{ "http://127.0.0.1@example.org", NULL, false },
	{ "http://127.0.0.1\\.example.org", NULL, false },
	{ "https://h/?q", NULL, false },
	{ "https://h/#f", NULL, false },
	{ "https://h /", NULL, false },
	{ "https://h\n", NULL, false },
	{ "https://[::1", NULL, false },
	{ "https://[::1]x", NULL, false },
};

START_TEST(urls_are_checked)
{
	_cleanup_free_ char *url = NULL;
	struct err err = { 0 };
	int r = server_url_parse(urls[_i].in, &url, &err);

	if (!urls[_i].out) {
		ck_assert_int_eq(r, -EINVAL);
		ck_assert_ptr_nonnull(strstr(err.text, "https://host:port"));
		return;
	}
	ck_assert_int_eq(r, 0);
	ck_assert_str_eq(url, urls[_i].out);
	ck_assert_int_eq(server_url_exposes(url), urls[_i].exposes);
}
END_TEST

static void save_drive(const char *id, const char *name)
{
	_cleanup_drive_ struct drive d = { .name = strdup(name),
		.url = strdup("https://h"),
		.user = strdup("ann"),
		.device_id = strdup("7") };

	strcpy(d.id, id);
	ck_assert_int_eq(drive_save(&h, &d, NULL), 0);
}

START_TEST(drives_are_listed)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	_cleanup_free_ char *junk = path_join(h.drives, "junk");

	ck_assert_int_eq(drive_list_load(&h, &l, NULL), 0);
	ck_assert_uint_eq(l.n, 0);
	save_drive(DRIVE_ID, "photos");
	save_drive(OTHER_ID, "docs");
	ck_assert_int_eq(home_make_dir(junk, NULL), 0);
	ck_assert_int_eq(drive_list_load(&h, &l, NULL), 0);
	ck_assert_uint_eq(l.n, 2);
	ck_assert_str_eq(l.items[0].name, "docs");
	ck_assert_str_eq(l.items[1].id, DRIVE_ID);
	ck_assert(!l.items[0].running);
	ck_assert_ptr_null(drive_list_at(&l, "/mnt"));
}
END_TEST

START_TEST(damaged_drive_is_not_hidden)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	_cleanup_free_ char *path = NULL;
	struct err err = { 0 };

	save_drive(DRIVE_ID, "photos");
	ck_assert_int_ge(asprintf(&path, "%s/" DRIVE_ID "/drive.json", h.drives), 0);
	ck_assert_int_eq(io_write_file_atomic(path, "{}", 2, 0600), 0);
	ck_assert_int_eq(drive_list_load(&h, &l, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "drive.json"));
}
END_TEST

START_TEST(drive_ids_are_checked)
{
	ck_assert(drive_id_valid(DRIVE_ID));
	ck_assert(!drive_id_valid("0011"));
	ck_assert(!drive_id_valid(DRIVE_ID "0"));
	ck_assert(!drive_id_valid("../../../../../../../../../../aa"));
	ck_assert(!drive_id_valid("00112233445566778899AABBCCDDEEFF"));
}
END_TEST

/* Another process has the lock and the daemon's file; this one sees it and is refused. */
START_TEST(second_daemon_is_refused)
{
	_cleanup_drive_list_ struct drive_list l = { 0 };
	struct err err = { 0 };
	int ends[2], fd, status;
	pid_t pid;
	char c;

	save_drive(DRIVE_ID, "photos");
	ck_assert_int_eq(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		if (drive_lock(&h, DRIVE_ID, &fd, NULL) < 0 ||
			drive_announce(&h, DRIVE_ID, "/mnt/a b", "/run/s", NULL) < 0 ||
			write(ends[1], "x", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	ck_assert_int_eq(read(ends[0], &c, 1), 1);
	ck_assert(drive_is_locked(&h, DRIVE_ID));
	ck_assert_int_eq(drive_lock(&h, DRIVE_ID, &fd, &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "already mounted at /mnt/a b by process "));
	ck_assert_int_eq(drive_list_load(&h, &l, NULL), 0);
	ck_assert(l.items[0].running);
	ck_assert_int_eq(l.items[0].pid, pid);
	ck_assert_ptr_eq(drive_list_at(&l, "/mnt/a b"), &l.items[0]);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(!drive_is_locked(&h, DRIVE_ID));
	ck_assert_int_eq(drive_lock(&h, DRIVE_ID, &fd, NULL), 0);
	close(fd);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

START_TEST(base64_round_trip)
{
	static const char *const bad[] = { "A", "AA=A", "A===", "AB==", "AAB=", "A\nAA",
		"AA==AAAA" };

	for (size_t n = 0; n < 8; n++) {
		_cleanup_buf_ struct buf text = { 0 }, back = { 0 };

		ck_assert_int_eq(base64_encode("\xff\x00\x7f\x80zyx", n, &text), 0);
		ck_assert_uint_eq(text.len, (n + 2) / 3 * 4);
		ck_assert_int_eq(base64_decode((char *)text.data, text.len, &back), 0);
		ck_assert_uint_eq(back.len, n);
		if (n)
			ck_assert_mem_eq(back.data, "\xff\x00\x7f\x80zyx", n);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_buf_ struct buf back = { 0 };

		ck_assert_int_eq(base64_decode(bad[i], strlen(bad[i]), &back), -EBADMSG);
	}
}
END_TEST

START_TEST(mountinfo_is_parsed)
{
	char line[] = "36 35 0:52 / /mnt/a\\040b\\134 rw,nosuid shared:1 master:2 - "
		      "fuse.varve varve#my\\040drive rw,user_id=0\n";
	static const char *const bad[] = { "", "\n", "1 2 0:3 / /mnt rw",
		"1 2 0:3 / /mnt rw shared:1", "1 2 0:3 / /mnt rw -", "1 2 0:3 / /mnt rw - fuse",
		"1 2 x / /mnt rw - fuse src rw" };
	_cleanup_mount_ struct mount_entry m = { 0 };

	ck_assert_int_eq(mount_entry_parse(line, &m), 0);
	ck_assert_str_eq(m.dir, "/mnt/a b\\");
	ck_assert_str_eq(m.source, "varve#my drive");
	ck_assert_uint_eq(m.dev, makedev(0, 52));
	ck_assert(mount_is_varve(&m));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_mount_ struct mount_entry none = { 0 };
		_cleanup_free_ char *copy = strdup(bad[i]);

		ck_assert_int_eq(mount_entry_parse(copy, &none), -EBADMSG);
	}
}
END_TEST

START_TEST(mountpoints_are_resolved)
{
	_cleanup_free_ char *link = path_join(root, "link"), *dir = path_join(root, "dir");
	_cleanup_free_ char *slashes = path_join(root, "dir//"), *absent = path_join(root, "no/x");
	_cleanup_free_ char *a = NULL, *b = NULL, *c = NULL, *d = NULL, *e = NULL;

	ck_assert_int_eq(mkdir(dir, 0700), 0);
	ck_assert_int_eq(symlink("dir", link), 0);
	ck_assert_int_eq(mount_resolve(link, &a, NULL), 0);
	ck_assert_str_eq(a, dir);
	ck_assert_int_eq(mount_resolve(slashes, &b, NULL), 0);
	ck_assert_str_eq(b, dir);
	ck_assert_int_eq(chdir(dir), 0);
	ck_assert_int_eq(mount_resolve(".", &c, NULL), 0);
	ck_assert_str_eq(c, dir);
	ck_assert_int_eq(mount_resolve("/", &d, NULL), 0);
	ck_assert_str_eq(d, "/");
	ck_assert_int_eq(mount_resolve(absent, &e, NULL), -ENOENT);
	ck_assert_int_eq(chdir("/"), 0);
}
END_TEST

START_TEST(tables_line_up_and_are_harmless)
{
	_cleanup_free_ char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);
	struct table t = { .columns = 2 };

	table_row(&t, "NAME", "STATE");
	table_row(&t, "gr\xc3\xbc\xc3\x9f", "ok");
	table_row(&t, "evil\x1b[2J\xc2\x9b", "x");
	ck_assert_int_eq(table_print(&t, out), 0);
	fclose(out);
	ck_assert_str_eq(text, "NAME        STATE\ngr\xc3\xbc\xc3\x9f        ok\nevil?[2J??  x\n");
	table_done(&t);
}
END_TEST

START_TEST(numbers_for_people)
{
	char b[BYTES_TEXT_MAX], c[COUNT_TEXT_MAX];

	ck_assert_str_eq(bytes_text(1023, b), "1023 B");
	ck_assert_str_eq(bytes_text(1536, b), "1.5 KiB");
	ck_assert_str_eq(bytes_text(1048575, b), "1.0 MiB");
	ck_assert_str_eq(bytes_text(UINT64_MAX, b), "16.0 EiB");
	ck_assert_str_eq(count_text(1, "change", c), "1 change");
	ck_assert_str_eq(count_text(0, "change", c), "0 changes");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("home");
	TCase *t = tcase_create("home");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, one_folder_holds_all);
	tcase_add_test(t, relative_folder_becomes_absolute);
	tcase_add_test(t, xdg_folders_without_it);
	tcase_add_test(t, log_name_is_a_file_name);
	tcase_add_test(t, account_comes_back);
	tcase_add_test(t, logged_out_account_is_remembered);
	tcase_add_loop_test(t, damaged_account_is_told, 0, (int)ARRAY_SIZE(bad_accounts));
	tcase_add_loop_test(t, urls_are_checked, 0, (int)ARRAY_SIZE(urls));
	tcase_add_test(t, drives_are_listed);
	tcase_add_test(t, damaged_drive_is_not_hidden);
	tcase_add_test(t, drive_ids_are_checked);
	tcase_add_test(t, second_daemon_is_refused);
	tcase_add_test(t, base64_round_trip);
	tcase_add_test(t, mountinfo_is_parsed);
	tcase_add_test(t, mountpoints_are_resolved);
	tcase_add_test(t, tables_line_up_and_are_harmless);
	tcase_add_test(t, numbers_for_people);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
