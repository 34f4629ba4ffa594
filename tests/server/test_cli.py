#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line of `varve`: misuse, help, failures, and what login leaves behind.

Usage: test_cli.py PATH_OF_VARVE [unittest arguments]. Needs no server, no FUSE and no network: a
small HTTP server in here answers as varved would.
"""

import http.server
import json
import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

VARVE = ""
DRIVE_A = "00112233445566778899aabbccddeeff"
DRIVE_B = "ffeeddccbbaa99887766554433221100"
COMMANDS = ["login", "logout", "drives", "mount", "umount", "status", "wait", "version", "help"]


class Answers(http.server.BaseHTTPRequestHandler):
    """What varved answers; `server.plan` maps "METHOD path" to (status, body)."""

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        getattr(self.server, "before", lambda path: None)(self.path)
        status, answer = self.server.plan.get(
            f"{self.command} {self.path}", (404, {"error": "absent", "detail": "no such route"}))
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status != 204:
            self.wfile.write(data)

    do_GET = do_POST = answer

    def log_message(self, *args):
        pass


class CliCase(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="varve-cli-")
        self.addCleanup(shutil.rmtree, self.root)
        self.home = os.path.join(self.root, "home")
        self.password = self.write("password", "correct horse\n")

    def write(self, name, text):
        path = os.path.join(self.root, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def varve(self, *args, timeout=30, **extra):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("VARVE", "XDG_"))}
        for name in list(env):
            if name.lower().endswith("_proxy"):
                del env[name]
        env.update({"VARVE_HOME": self.home}, **extra.pop("env", {}))
        return subprocess.run([VARVE, *args], env=env, timeout=timeout, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              start_new_session=True, check=False, **extra)

    def misused(self, *args, says, see=None):
        r = self.varve(*args)
        self.assertEqual(r.returncode, 2, r)
        self.assertEqual(r.stdout, "")
        self.assertTrue(r.stderr.startswith("varve: "), r.stderr)
        self.assertIn(says, r.stderr)
        self.assertIn(f"see 'varve {see + ' ' if see else ''}--help'", r.stderr)
        self.assertLessEqual(r.stderr.count("\n"), 2)

    def fails(self, *args, says, **extra):
        r = self.varve(*args, **extra)
        self.assertEqual(r.returncode, 1, r)
        self.assertTrue(r.stderr.startswith(f"varve: {args[0]}: "), r.stderr)
        self.assertIn(says, r.stderr)
        self.assertEqual(r.stderr.count("\n"), 1, r.stderr)
        return r

    def works(self, *args, **extra):
        r = self.varve(*args, **extra)
        self.assertEqual((r.returncode, r.stderr), (0, ""), r)
        return r.stdout


class Misuse(CliCase):
    def test_no_command(self):
        self.misused(says="no command")

    def test_unknown_command(self):
        self.misused("frobnicate", says="'frobnicate' is no command")
        self.misused("help", "frobnicate", says="'frobnicate' is no command")
        self.misused("", says="'' is no command")

    def test_unknown_option(self):
        for command in COMMANDS[:-2]:
            with self.subTest(command):
                self.misused(command, "--frobnicate", says="--frobnicate", see=command)

    def test_option_without_value(self):
        for command, option in (("login", "--user"), ("mount", "--drive"), ("wait", "--timeout")):
            self.misused(command, option, says=option, see=command)

    def test_missing_argument(self):
        self.misused("login", "--user", "ann", says="URL is missing", see="login")
        self.misused("login", "https://h", says="--user NAME is missing", see="login")
        self.misused("mount", says="DIR", see="mount")
        self.misused("umount", says="DIR", see="umount")

    def test_superfluous_argument(self):
        for args in (("login", "https://h", "x"), ("logout", "x"), ("drives", "x"),
                     ("mount", "a", "x"), ("umount", "a", "x"), ("status", "a", "x"),
                     ("wait", "a", "x"), ("version", "x")):
            with self.subTest(args[0]):
                self.misused(*args, says="'x' is one argument too many", see=args[0])

    def test_urls(self):
        for url in ("h", "ftp://h", "https://", "https://h:0", "https://h:99999", "https://u@h",
                    "https://h/?q", "https://h x"):
            with self.subTest(url):
                self.misused("login", url, "--user", "ann", "--password-file", self.password,
                             says="https://host:port", see="login")

    def test_plain_http_off_loopback(self):
        for host in ("example.org", "127.0.0.1.example.org", "10.0.0.1", "[::2]"):
            self.misused("login", f"http://{host}", "--user", "ann", "--password-file",
                         self.password, says="unencrypted", see="login")

    def test_names(self):
        self.misused("login", "https://h", "--user", "a\x1b[2J", says="cannot be a user's name",
                     see="login")
        self.misused("login", "https://h", "--user", "x" * 101, says="cannot be", see="login")
        self.misused("login", "https://h", "--user", "ann", "--device", "", says="device's name",
                     see="login")

    def test_timeouts(self):
        for text in ("", "x", "-1", "1s", "nan", "inf", "1e9"):
            with self.subTest(text):
                self.misused("wait", "--timeout", text, says="no number of seconds", see="wait")


class Help(CliCase):
    def test_list(self):
        out = self.works("--help")
        self.assertEqual(out, self.works("help"))
        for command in COMMANDS:
            self.assertIn(f"\n  {command} ", out)

    def test_each_command(self):
        options = {
            "login": ["--user=NAME", "--password-file=F", "--device=NAME", "--ca-file=F",
                      "--allow-plain-http", "URL --user NAME"],
            "logout": ["--local"],
            "drives": ["--json"],
            "mount": ["--drive=NAME", "-f, --foreground", "-o, --options=OPTIONS", "DIR"],
            "umount": ["--force", "DIR"],
            "status": ["--json", "[DIR]", '"synced"'],
            "wait": ["--timeout=SECONDS", "[PATH]"],
            "version": [],
        }
        for command, names in options.items():
            with self.subTest(command):
                out = self.works(command, "--help")
                self.assertTrue(out.startswith(f"Usage: varve {command}"), out)
                for name in names:
                    self.assertIn(name, out)
                self.assertEqual(out, self.works("help", command))

    def test_version(self):
        self.assertRegex(self.works("version"), r"^varve \d+\.\d+\.\d+\n$")
        self.assertEqual(self.works("version"), self.works("--version"))

    def test_full_disk_is_told(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            r = subprocess.run([VARVE, "--help"], stdout=full, stderr=subprocess.PIPE, text=True,
                               check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("cannot write the output", r.stderr)


class Failures(CliCase):
    def login_args(self, url, password=None):
        return ("login", url, "--user", "ann", "--password-file", password or self.password)

    def test_unreachable_server(self):
        r = self.fails(*self.login_args("http://127.0.0.1:1"), says="127.0.0.1")
        self.assertNotIn("correct horse", r.stderr)
        self.assertFalse(os.path.exists(os.path.join(self.home, "config")))

    def test_password_file(self):
        for path, says in (("/nonexistent/f", "/nonexistent/f: No such file"),
                           (self.root, "Is a directory"), (self.write("e", ""), "empty"),
                           (self.write("n", "\nx\n"), "empty"), (self.write("z", "a\0b"), "NUL"),
                           (self.write("l", "x" * 5000), "too large")):
            with self.subTest(path):
                self.fails(*self.login_args("http://127.0.0.1:1", path), says=says)

    def test_no_terminal(self):
        self.fails("login", "http://127.0.0.1:1", "--user", "ann", says="--password-file")

    def test_ca_file(self):
        self.fails(*self.login_args("https://127.0.0.1:1"), "--ca-file", "/nonexistent",
                   says="/nonexistent")

    def test_not_logged_in(self):
        for args in (("logout",), ("drives",), ("mount", self.root), ("mount", "-f", self.root)):
            with self.subTest(args):
                self.fails(*args, says="varve login URL --user NAME")

    def test_damaged_account(self):
        os.makedirs(os.path.join(self.home, "config"))
        with open(os.path.join(self.home, "config", "account.json"), "w", encoding="utf-8") as f:
            f.write("{")
        self.fails("drives", says="account.json is damaged")

    def test_mountpoint(self):
        self.fails("mount", os.path.join(self.root, "absent"), says="make the folder first")
        self.fails("mount", self.password, says="is no folder")

    def test_nothing_mounted(self):
        self.fails("umount", self.root, says="nothing is mounted at")
        self.fails("umount", "/proc", says="holds a proc mount")
        self.fails("umount", "/nonexistent/x", says="No such file")
        self.fails("status", self.root, says="is in no mounted drive")
        self.fails("wait", self.root, says="is in no mounted drive")
        self.fails("wait", says="nothing is mounted")

    def test_status_of_nothing(self):
        self.assertIn("Nothing is mounted", self.works("status"))
        self.assertEqual(json.loads(self.works("status", "--json")),
                         {"synced": False, "mounts": []})

    def test_environment(self):
        r = self.varve("status", env={"VARVE_LOG": "loud"})
        self.assertEqual(r.returncode, 1)
        self.assertIn("VARVE_LOG", r.stderr)
        r = self.varve("status", env={"VARVE_FAULT": "x"})
        self.assertEqual(r.returncode, 1)
        self.assertIn("VARVE_FAULT", r.stderr)


class Server(CliCase):
    """Against a server that answers what the test plans."""

    def setUp(self):
        super().setUp()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.server.daemon_threads = True
        self.server.seen = []
        self.server.plan = {
            "POST /v1/login": (200, {"token": "t0k3n", "device_id": "7", "user": "ann"}),
            "POST /v1/logout": (204, b""),
            "GET /v1/drives": (200, {"drives": [self.drive(DRIVE_A, "home")]}),
        }
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    @staticmethod
    def drive(drive_id, name):
        return {"id": drive_id, "name": name, "owner": "ann", "role": "owner", "head": 12}

    def login(self, *args):
        return self.works("login", self.url, "--user", "ann", "--password-file", self.password,
                          *args)

    def account(self):
        return os.path.join(self.home, "config", "account.json")

    def token(self):
        with open(self.account(), encoding="utf-8") as f:
            return json.load(f)["token"]

    def test_login_is_kept(self):
        out = self.login("--device", "laptop")
        self.assertNotIn("t0k3n", out)
        method, path, headers, body = self.server.seen[0]
        self.assertEqual((method, path), ("POST", "/v1/login"))
        self.assertNotIn("Authorization", headers)
        self.assertEqual(json.loads(body),
                         {"user": "ann", "password": "correct horse", "device": "laptop"})
        self.assertEqual(stat.S_IMODE(os.stat(self.account()).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(self.home).st_mode), 0o700)
        with open(self.account(), encoding="utf-8") as f:
            account = json.load(f)
        self.assertEqual(account["token"], "t0k3n")
        self.assertNotIn("correct horse", json.dumps(account))

    def test_device_defaults_to_the_host(self):
        self.login()
        self.assertEqual(json.loads(self.server.seen[0][3])["device"], os.uname().nodename)

    def test_login_again(self):
        self.login("--device", "laptop")
        new = {"token": "new", "device_id": "8", "user": "ann"}
        self.server.plan["POST /v1/login"] = (200, new)
        self.login()
        self.assertEqual(self.token(), "t0k3n", "a token that works is kept")
        self.server.plan["GET /v1/drives"] = (503, {"error": "busy", "detail": "come back"})
        self.fails("login", self.url, "--user", "ann", "--password-file", self.password,
                   says="come back")
        self.server.plan["GET /v1/drives"] = (401, {"error": "denied", "detail": "revoked"})
        self.login()
        self.assertEqual(self.token(), "new")

    def test_login_as_another(self):
        self.login("--device", "laptop")
        for args in ((self.url, "--user", "bob"), (self.url + "/x", "--user", "ann"),
                     (self.url, "--user", "ann", "--device", "desktop")):
            self.fails("login", *args, "--password-file", self.password,
                       says=f"logged in as ann at {self.url}, called 'laptop'")
        self.assertEqual(self.token(), "t0k3n")

    def test_refused_login(self):
        self.server.plan["POST /v1/login"] = (401, {"error": "denied", "detail": "no such login"})
        self.fails("login", self.url, "--user", "ann", "--password-file", self.password,
                   says="no such login")
        self.assertFalse(os.path.exists(self.account()))

    def test_senseless_answers(self):
        for answer in (b"", b"{", b"[]", b"{}", {"token": 7}, {"token": "x" * 10000},
                       {"token": "a\nb", "device_id": "7", "user": "ann"}):
            with self.subTest(answer):
                self.server.plan["POST /v1/login"] = (200, answer)
                r = self.varve("login", self.url, "--user", "ann", "--password-file",
                               self.password)
                self.assertEqual(r.returncode, 1, r)
                self.assertFalse(os.path.exists(self.account()))

    def logged_in(self):
        with open(self.account(), "rb") as f:
            text = f.read()
        self.assertEqual(json.loads(text)["device_id"], "7")
        self.assertEqual(b"token" in text, b"t0k3n" in text)
        return b"token" in text

    def test_logout(self):
        self.login()
        self.assertIn("Logged out ann", self.works("logout"))
        self.assertEqual(self.server.seen[-1][2]["Authorization"], "Bearer t0k3n")
        self.assertFalse(self.logged_in())
        for args in (("logout",), ("drives",), ("mount", self.root)):
            self.fails(*args, says="not logged in")

    def sent(self):
        return json.loads(self.server.seen[-1][3])

    def test_same_device_after_logout(self):
        self.login("--device", "laptop")
        self.works("logout")
        self.login()
        self.assertEqual((self.sent()["device_id"], self.sent()["device"]), (7, "laptop"))
        self.works("logout")
        self.login("--device", "desktop")
        self.assertEqual((self.sent()["device_id"], self.sent()["device"]), (7, "desktop"))
        self.assertNotIn("Authorization", self.server.seen[-1][2])
        self.server.plan["GET /v1/drives"] = (401, {"error": "denied", "detail": "revoked"})
        self.login()
        self.assertEqual(self.sent()["device_id"], 7, "a token that was taken away")
        self.assertTrue(self.logged_in())

    def test_other_device_of_another_account(self):
        self.login("--device", "laptop")
        self.works("logout")
        login = ("--password-file", self.password)
        self.works("login", self.url, "--user", "bob", *login)
        self.assertEqual(self.sent(), {"user": "bob", "password": "correct horse",
                                       "device": os.uname().nodename})
        self.works("logout")
        self.server.plan["POST /x/v1/login"] = self.server.plan["POST /v1/login"]
        self.works("login", self.url + "/x", "--user", "bob", *login)
        self.assertNotIn("device_id", self.sent())

    def test_logout_of_a_revoked_device(self):
        self.login()
        self.server.plan["POST /v1/logout"] = (401, {"error": "denied", "detail": "no"})
        self.works("logout")
        self.assertFalse(self.logged_in())

    def test_logout_without_server(self):
        self.login()
        self.server.plan["POST /v1/logout"] = (500, {"error": "broken", "detail": "on fire"})
        self.fails("logout", says="on fire")
        self.assertTrue(self.logged_in())
        self.works("logout", "--local")
        self.assertFalse(self.logged_in())

    def test_drives(self):
        self.login()
        out = self.works("drives")
        self.assertRegex(out, r"^NAME +OWNER +ROLE +REVISION +MOUNTED AT\nhome +ann +owner +12 +-\n$")
        self.assertEqual(json.loads(self.works("drives", "--json")),
                         {"drives": [self.drive(DRIVE_A, "home")]})
        self.server.plan["GET /v1/drives"] = (200, {"drives": []})
        self.assertIn("varved drive create", self.works("drives"))
        self.assertEqual(json.loads(self.works("drives", "--json")), {"drives": []})

    def test_names_cannot_command_the_terminal(self):
        self.login()
        self.server.plan["GET /v1/drives"] = (200, {"drives": [self.drive(DRIVE_A, "a\x1b[2Jb")]})
        r = self.varve("drives")
        self.assertNotIn("\x1b", r.stdout + r.stderr)

    def test_which_drive(self):
        self.login()
        mountpoint = os.path.join(self.root, "mnt")
        os.mkdir(mountpoint)
        self.server.plan["GET /v1/drives"] = (200, {"drives": []})
        self.fails("mount", mountpoint, says="no drive")
        self.server.plan["GET /v1/drives"] = (
            200, {"drives": [self.drive(DRIVE_A, "home"), self.drive(DRIVE_B, "work")]})
        self.fails("mount", mountpoint, says="--drive NAME, one of: home, work")
        self.fails("mount", mountpoint, "--drive", "play", says="there are: home, work")
        self.server.plan["GET /v1/drives"] = (
            200, {"drives": [self.drive(DRIVE_A, "home"), self.drive(DRIVE_B, "home")]})
        self.fails("mount", mountpoint, "--drive", "home", says=DRIVE_B)

    def test_interrupted_mount(self):
        """Ctrl-C while the server keeps the first mount waiting: nothing goes on behind it."""
        self.login()
        asked = threading.Event()

        def hold(path):
            if path.endswith("/attach"):
                asked.set()
                time.sleep(2)
        self.server.before = hold
        self.addCleanup(delattr, self.server, "before")
        folder = os.path.join(self.root, "mnt")
        os.mkdir(folder)
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        with subprocess.Popen([VARVE, "mount", folder, "--drive", DRIVE_A], text=True,
                              env=env | {"VARVE_HOME": self.home}, stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, start_new_session=True) as p:
            self.assertTrue(asked.wait(20))
            os.killpg(p.pid, signal.SIGINT)
            self.assertIn("stopped by a signal; nothing is mounted", p.stderr.read())
            self.assertEqual(p.wait(), 1)
        self.assertFalse(os.path.ismount(folder))

    def test_attach_refused(self):
        self.login()
        self.server.plan[f"POST /v1/drives/{DRIVE_A}/attach"] = (
            403, {"error": "forbidden", "detail": "not for you"})
        self.fails("mount", self.root, says="not for you")
        self.assertIn("Nothing is mounted", self.works("status"))

    def test_password_is_asked_without_echo(self):
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["VARVE_HOME"] = self.home
            try:
                os.execv(VARVE, [VARVE, "login", self.url, "--user", "ann"])
            finally:
                os._exit(127)
        shown = b""
        while b": " not in shown and select.select([terminal], [], [], 10)[0]:
            shown += os.read(terminal, 1000)
        time.sleep(0.1)
        os.write(terminal, b"correct horse\n")
        try:
            while True:
                data = os.read(terminal, 1000)
                if not data:
                    break
                shown += data
        except OSError:
            pass  # the terminal's other end is closed
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, shown)
        self.assertNotIn(b"horse", shown)
        self.assertIn(b"Logged in as ann", shown)
        self.assertEqual(json.loads(self.server.seen[0][3])["password"], "correct horse")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    VARVE = os.path.abspath(sys.argv.pop(1))
    if not os.access(VARVE, os.X_OK):
        sys.exit(f"{VARVE} is no program")
    result = unittest.main(exit=False).result
    wrong = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - wrong} passed, {wrong} failed")
    sys.exit(1 if wrong or not result.testsRun else 0)
