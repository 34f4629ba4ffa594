#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""varved from the outside: its command line, its routes, and what it does with bad requests.

Usage: test_http.py PATH_OF_VARVED [unittest arguments]
"""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings

VARVED = ""
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLOW = float(os.environ.get("VARVE_TEST_SLOW", "1"))
PASSWORD = "correct horse battery"
CBOR = "application/cbor"
PACK = "application/x-varve-pack"



def read(*path, mode="r"):
    with open(os.path.join(ROOT, *path), mode) as f:
        return f.read()


# A sound pack of five chunks; the first is the one byte "v".
FIVE = read("tests/fuzz/corpus/pack/five", mode="rb")
CHUNK_V = bytes.fromhex("fbf7129093429293d558b3993ca13988daba893f4a191bc2b1c1e5b52a0d0172")
# The manifest of a file that is that byte, and its id.
MANIFEST_V = bytes.fromhex("5652564d01000000" "0100000000000000" "01000000" "01000000") + CHUNK_V
CONTENT_V = bytes.fromhex("5b80b985340a9827e2d430fd180854c939fb0f99cf63f08800ccc510494cb77d")


# --- CBOR, as much as is needed ---

def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for code, form, top in ((24, ">B", 1 << 8), (25, ">H", 1 << 16), (26, ">I", 1 << 32)):
        if n < top:
            return bytes([major << 5 | code]) + struct.pack(form, n)
    return bytes([major << 5 | 27]) + struct.pack(">Q", n)


def cbor(v):
    if isinstance(v, bool):
        return b"\xf5" if v else b"\xf4"
    if isinstance(v, int):
        return head(0, v) if v >= 0 else head(1, -1 - v)
    if isinstance(v, bytes):
        return head(2, len(v)) + v
    if isinstance(v, str):
        return head(3, len(v.encode())) + v.encode()
    if isinstance(v, list):
        return head(4, len(v)) + b"".join(map(cbor, v))
    return head(5, len(v)) + b"".join(cbor(k) + cbor(x) for k, x in v.items())


def uncbor(b):
    def item(at):
        major, n = b[at] >> 5, b[at] & 31
        at += 1
        if major == 7:
            return {20: False, 21: True}[n], at
        if n >= 24:
            size = 1 << (n - 24)
            n = int.from_bytes(b[at:at + size], "big")
            at += size
        if major == 0:
            return n, at
        if major == 1:
            return -1 - n, at
        if major in (2, 3):
            raw = b[at:at + n]
            return (raw if major == 2 else raw.decode()), at + n
        out = []
        for _ in range(n * (2 if major == 5 else 1)):
            v, at = item(at)
            out.append(v)
        return (out if major == 4 else dict(zip(out[::2], out[1::2]))), at

    v, end = item(0)
    assert end == len(b), "bytes behind the item"
    return v


def ids(*digests):
    return cbor({"v": 1, "ids": b"".join(digests)} if digests else {"v": 1})


class Commits:
    """Makes changes as one device."""

    def __init__(self, number):
        self.number, self.counter = number, 0

    def node(self):
        self.counter += 1
        return self.number << 40 | self.counter

    def mkdir(self, name, parent=1):
        return cbor({"v": 1, "kind": 1, "node": self.node(), "dir": parent, "name": name,
                     "attr": {"mode": 0o40755, "mtime": 5}, "time": 5})

    def create(self, name, content):
        return cbor({"v": 1, "kind": 1, "node": self.node(), "dir": 1, "name": name,
                     "attr": {"mode": 0o100644, "mtime": 5, "size": 1, "content": content},
                     "time": 5})


def commit(changes, base=0, id=None, **more):
    return cbor({"v": 1, "id": id or os.urandom(16), "base": base, "changes": changes, **more})


# --- the program ---

def varved(*args, **kw):
    return subprocess.run([VARVED, *map(str, args)], text=True, capture_output=True,
                          timeout=60 * SLOW, stdin=subprocess.DEVNULL, start_new_session=True, **kw)


class Server:
    def __init__(self, *args, users=("alice",), drives=("home",), data=None):
        self.dir = data or tempfile.mkdtemp(prefix="varved-test-")
        self.data = os.path.join(self.dir, "data")
        self.args = args
        self.port = 0
        password = self.file("password", PASSWORD + "\n")
        for user in users:
            assert varved("user", "add", user, "--data", self.data,
                          "--password-file", password).returncode == 0
        for drive in drives:
            assert varved("drive", "create", drive, "--owner", users[0],
                          "--data", self.data).returncode == 0
        self.start()

    def file(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def start(self):
        self.stderr = open(os.path.join(self.dir, "stderr"), "a")
        self.process = subprocess.Popen(
            [VARVED, "serve", "--data", self.data, "--listen", f"127.0.0.1:{self.port}",
             *self.args], stdout=subprocess.PIPE, stderr=self.stderr, text=True)
        line = self.process.stdout.readline()
        m = re.fullmatch(r"varved: listening on (https?)://127\.0\.0\.1:(\d+)\n", line)
        assert m, (line, read(self.stderr.name))
        self.scheme, self.port = m.group(1), int(m.group(2))

    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        code = self.process.wait(30 * SLOW)
        self.process.stdout.close()
        self.stderr.close()
        return code

    def remove(self):
        """Stops it; a sanitizer that has found something shows in the exit status."""
        code = self.end() if self.process.poll() is None else self.process.returncode
        log = read(self.stderr.name)
        shutil.rmtree(self.dir)
        assert code == 0, (code, log)

    def connect(self, timeout=30):
        if self.scheme == "https":
            context = ssl.create_default_context(cafile=os.path.join(self.dir, "cert.pem"))
            return http.client.HTTPSConnection("localhost", self.port, context=context,
                                               timeout=timeout * SLOW)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)

    def raw(self, timeout=20):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout * SLOW)

    def ask(self, method, path, body=None, token=None, type=None, headers=(), connection=None):
        c = connection or self.connect()
        h = dict(headers)
        if token:
            h["Authorization"] = "Bearer " + token
        if isinstance(body, (dict, list)):
            body, type = json.dumps(body).encode(), type or "application/json"
        if type:
            h["Content-Type"] = type
        c.request(method, path, body, h)
        r = c.getresponse()
        answer = Answer(r.status, r.read(), r.headers)
        if not connection:
            c.close()
        return answer

    def login(self, user="alice", password=PASSWORD, device="laptop", **more):
        return self.ask("POST", "/v1/login",
                        {"user": user, "password": password, "device": device, **more})


class Answer:
    def __init__(self, status, body, headers):
        self.status, self.body, self.headers = status, body, headers

    @property
    def json(self):
        assert self.headers["Content-Type"] == "application/json", self.headers
        return json.loads(self.body)

    @property
    def cbor(self):
        assert self.headers["Content-Type"] == CBOR, (self.headers, self.body)
        return uncbor(self.body)


# HEADERS_MS of server/httpd.c.
HEADERS_S = 20


def receive(s, until_close=True):
    """What comes on a raw socket until its end (or the first answer's headers)."""
    got = b""
    try:
        while until_close or b"\r\n\r\n" not in got:
            part = s.recv(65536)
            if not part:
                break
            got += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    return got


class Case(unittest.TestCase):
    """One server for the tests of a class."""
    users, drives, args = ("alice", "bob"), ("home",), ()

    @classmethod
    def setUpClass(cls):
        cls.s = Server(*cls.args, users=cls.users, drives=cls.drives)
        cls.token = cls.s.login().json["token"]
        cls.drive = cls.get("/v1/drives").json["drives"][0]["id"]

    @classmethod
    def tearDownClass(cls):
        cls.s.remove()

    @classmethod
    def get(cls, path, token=None):
        return cls.s.ask("GET", path, token=token or cls.token)

    @classmethod
    def post(cls, path, body=None, type=None, token=None, **headers):
        return cls.s.ask("POST", path, body, token or cls.token, type,
                         {k.replace("_", "-"): v for k, v in headers.items()})

    def attach(self, token=None):
        a = self.post(f"/v1/drives/{self.drive}/attach", token=token)
        self.assertEqual(a.status, 200, a.body)
        return a.json["device_number"]

    def commit(self, number, body, token=None):
        return self.post(f"/v1/drives/{self.drive}/commits", body, CBOR, token,
                         Varve_Device_Number=str(number))

    def assertError(self, answer, status, code):
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(answer.json["error"], code)
        self.assertTrue(answer.json["detail"])


# --- tests ---

class CommandLine(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="varved-test-")
        self.data = os.path.join(self.dir, "data")
        self.password = os.path.join(self.dir, "password")
        with open(self.password, "w") as f:
            f.write(PASSWORD + "\nsecond line\n")

    def tearDown(self):
        shutil.rmtree(self.dir)

    def refused(self, code, what, *args, **kw):
        r = varved(*args, **kw)
        self.assertEqual(r.returncode, code, (args, r.stdout, r.stderr))
        self.assertIn(what, r.stderr)
        self.assertTrue(r.stderr.startswith("varved"), r.stderr)
        return r

    def test_misuse(self):
        self.refused(2, "no command", "frobnicate")
        self.refused(2, "no command", "user", "del")
        self.refused(2, "not the whole command", "drive")
        self.refused(2, "NAME", "user", "add", "--data", self.data)
        self.refused(2, "--data", "user", "add", "x")
        self.refused(2, "too many", "user", "add", "x", "y", "--data", self.data)
        self.refused(2, "unrecognized", "serve", "--bogus")
        self.refused(2, "--owner", "drive", "create", "x", "--data", self.data)
        self.refused(2, "too many", "serve", "x", "--data", self.data)
        self.refused(2, "go together", "serve", "--data", self.data, "--tls-cert", "x")
        self.refused(2, "log_level", "serve", "--data", self.data, "--log-level", "loud")
        self.assertEqual(varved().returncode, 2)
        self.assertFalse(os.path.exists(self.data))

    def test_help_and_version(self):
        for args in ([], ["serve"], ["user", "add"], ["drive", "create"]):
            r = varved(*args, "--help")
            self.assertEqual(r.returncode, 0)
            self.assertIn("Usage:", r.stdout)
            self.assertEqual(r.stderr, "")
        self.assertRegex(varved("--version").stdout, r"^varved \d+\.\d+")
        self.assertRegex(varved("serve", "--version").stdout, r"^varved \d+\.\d+")

    def test_accounts(self):
        add = ("user", "add", "--data", self.data, "--password-file", self.password)
        self.assertEqual(varved(*add, "ann").returncode, 0)
        self.refused(1, "already", *add, "ann")
        self.refused(1, "1 to 100", *add, "")
        self.refused(1, "1 to 100", *add, "x" * 101)
        self.refused(1, "control", *add, "a\nb")
        self.refused(1, "UTF-8", *add, os.fsdecode(b"a\xff"))
        self.refused(1, "No such file", "user", "add", "bob", "--data", self.data,
                     "--password-file", self.password + "-")
        self.refused(1, "terminal", "user", "add", "bob", "--data", self.data)
        with open(self.password, "w") as f:
            f.write("short\n")
        self.refused(1, "8 to", *add, "bob")
        create = ("drive", "create", "--data", self.data, "--owner")
        self.assertEqual(varved(*create, "ann", "home").returncode, 0)
        self.refused(1, "already", *create, "ann", "home")
        self.refused(1, "no user", *create, "bob", "home")
        self.refused(1, "1 to 100", *create, "ann", "")
        self.assertEqual(os.stat(self.data).st_mode & 0o777, 0o700)

    def test_serve_refuses(self):
        serve = ("serve", "--data", self.data, "--listen")
        self.refused(1, "plain HTTP", *serve, "0.0.0.0:0")
        self.refused(1, "HOST:PORT", *serve, "nonsense")
        self.refused(1, "HOST:PORT", *serve, "127.0.0.1:99999")
        self.refused(1, "IPv6", *serve, "::1:80")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            self.refused(1, "in use", *serve, "127.0.0.1:%d" % s.getsockname()[1])
        with open(self.password, "r+b") as f:
            f.write(b"nosuch=1\n")
        self.refused(2, "line 1", *serve, "127.0.0.1:0", "--config", self.password)
        self.refused(2, "No such file", *serve, "127.0.0.1:0", "--config", self.password + "-")

    def test_data_folder_that_cannot_be(self):
        self.refused(1, "Not a directory", "serve", "--data", self.password + "/x")


class Configuration(unittest.TestCase):
    def test_file_and_variables(self):
        d = tempfile.mkdtemp(prefix="varved-test-")
        try:
            s = Server(data=d)
            s.end()
            file = s.file("varved.ini", "; a comment\n[server]\ndata = /nonexistent/x\n"
                                        "listen = 127.0.0.1:0\nlog_level = warn\n")
            p = subprocess.Popen([VARVED, "serve", "--config", file], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 env={**os.environ, "VARVED_DATA": s.data})
            self.assertIn("listening", p.stdout.readline())
            p.terminate()
            out, err = p.communicate(timeout=20 * SLOW)
            self.assertEqual((p.returncode, err), (0, ""))
        finally:
            shutil.rmtree(d)


class Accounts(Case):
    def test_login(self):
        a = self.s.login(device="phone")
        self.assertEqual(a.status, 200)
        self.assertRegex(a.json["token"], "^[0-9a-f]{64}$")
        self.assertEqual(a.json["user"], "alice")
        me = self.get("/v1/me", a.json["token"])
        self.assertEqual(me.status, 200)
        self.assertEqual(me.json, {"user": "alice", "device": "phone",
                                   "device_id": a.json["device_id"]})

    def test_failed_logins_look_alike(self):
        answers = [self.s.login(user="alice", password="wrong password"),
                   self.s.login(user="nobody"), self.s.login(user="nobody\u00fc")]
        for a in answers:
            self.assertError(a, 401, "unauthorized")
            self.assertEqual(a.body, answers[0].body)

    def test_unknown_users_take_as_long(self):
        def took(user):
            start = time.monotonic()
            self.s.login(user=user, password="wrong password")
            return time.monotonic() - start

        known = min(took("bob") for _ in range(3))
        unknown = min(took("nobody2") for _ in range(3))
        self.assertLess(max(known, unknown), 3 * min(known, unknown) + 0.05)

    def test_bad_login_bodies(self):
        def login(body, type="application/json"):
            return self.s.ask("POST", "/v1/login", body, type=type)

        good = {"user": "alice", "password": PASSWORD, "device": "x"}
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"user":"a","user":"b"}',
                     b'{"user":"\\u0000"}', b"[" * 4000):
            self.assertError(login(body), 400, "malformed")
        for key in good:
            self.assertError(login({**good, key: 5}), 400, "malformed")
            self.assertError(login({k: v for k, v in good.items() if k != key}), 400, "malformed")
        self.assertError(login({**good, "device": ""}), 400, "invalid")
        self.assertError(login({**good, "device": "a\x1bb"}), 400, "invalid")
        self.assertError(login(b"x" * 9000), 413, "too_large")
        self.assertError(login(json.dumps(good).encode(), "text/plain"), 415, "wrong_type")
        self.assertEqual(login(good, "application/json; charset=utf-8").status, 200)

    def test_too_many_failed_logins(self):
        seen = [self.s.login(user="victim", password="wrong %d" % i).status for i in range(11)]
        self.assertEqual(seen, [401] * 10 + [429])
        a = self.s.login(user="victim", password=PASSWORD)
        self.assertError(a, 429, "too_many_logins")
        self.assertGreater(int(a.headers["Retry-After"]), 0)
        self.assertEqual(self.s.login().status, 200, "others can log in")

    def test_logout(self):
        token = self.s.login().json["token"]
        self.assertEqual(self.get("/v1/me", token).status, 200)
        a = self.post("/v1/logout", token=token)
        self.assertEqual((a.status, a.body), (204, b""))
        for path in ("/v1/me", "/v1/drives", f"/v1/drives/{self.drive}/changes?since=0"):
            self.assertError(self.get(path, token), 401, "unauthorized")
        self.assertEqual(self.get("/v1/me").status, 200)

    def test_a_device_that_logs_in_again_stays_the_same(self):
        first = self.s.login(device="phone").json
        number = self.attach(first["token"])
        c = Commits(number)
        self.assertEqual(self.commit(number, commit([c.mkdir(b"before")]),
                                     first["token"]).status, 200)
        self.assertEqual(self.post("/v1/logout", token=first["token"]).status, 204)
        a = self.s.login(password="wrong password", device_id=first["device_id"])
        self.assertError(a, 401, "unauthorized")
        self.assertError(self.get("/v1/me", first["token"]), 401, "unauthorized")
        again = self.s.login(device="phone 2", device_id=first["device_id"]).json
        self.assertEqual(again["device_id"], first["device_id"])
        self.assertNotEqual(again["token"], first["token"])
        self.assertError(self.get("/v1/me", first["token"]), 401, "unauthorized")
        self.assertEqual(self.get("/v1/me", again["token"]).json["device"], "phone 2")
        self.assertEqual(self.commit(number, commit([c.mkdir(b"after")]),
                                     again["token"]).status, 200)
        # Not logged out: the token that was in use, and cached, ends at once.
        third = self.s.login(device="phone", device_id=first["device_id"]).json
        self.assertEqual(third["device_id"], first["device_id"])
        self.assertError(self.get("/v1/me", again["token"]), 401, "unauthorized")
        self.assertEqual(self.get("/v1/me", third["token"]).status, 200)

    def test_nobody_becomes_anothers_device(self):
        mine = self.s.login().json
        for id in (mine["device_id"], 10**9, 2**63 - 1):
            theirs = self.s.login("bob", device_id=id).json
            self.assertNotEqual(theirs["device_id"], id)
            self.assertEqual(self.get("/v1/me", theirs["token"]).json["user"], "bob")
        self.assertEqual(self.get("/v1/me", mine["token"]).json["user"], "alice")
        for id in (0, -1, "7", 7.0, None, True, [7], 2**63):
            self.assertError(self.s.login(device_id=id), 400, "malformed")

    def test_bad_tokens_look_alike(self):
        bodies = set()
        for value in (None, "", "Bearer", "Bearer ", "Bearer x", "Bearer " + "0" * 64,
                      "Bearer " + "0" * 63, "Bearer " + self.token + "0", "Basic " + self.token,
                      "Bearer  " + self.token, self.token, "Bearer " + self.token[:-1] + "g"):
            a = self.s.ask("GET", "/v1/me", headers={} if value is None
                           else {"Authorization": value})
            self.assertError(a, 401, "unauthorized")
            self.assertEqual(a.headers["WWW-Authenticate"], "Bearer")
            bodies.add(a.body)
        self.assertEqual(len(bodies), 1)

    def test_added_while_serving(self):
        password = os.path.join(self.s.dir, "password")
        r = varved("user", "add", "carol", "--data", self.s.data, "--password-file", password)
        self.assertEqual(r.returncode, 0, r.stderr)
        r = varved("drive", "create", "hers", "--owner", "carol", "--data", self.s.data)
        self.assertEqual(r.returncode, 0, r.stderr)
        token = self.s.login("carol").json["token"]
        self.assertEqual([d["name"] for d in self.get("/v1/drives", token).json["drives"]],
                         ["hers"])


class Drives(Case):
    def test_list_create_attach(self):
        a = self.post("/v1/drives", {"name": "fotos \u00e4"})
        self.assertEqual(a.status, 201)
        id = a.json["id"]
        self.assertRegex(id, "^[0-9a-f]{32}$")
        self.assertEqual(a.json["name"], "fotos \u00e4")
        listed = self.get("/v1/drives").json["drives"]
        self.assertIn({"id": id, "name": "fotos \u00e4", "owner": "alice", "role": "owner",
                       "head": 0}, listed)
        numbers = []
        for _ in range(3):
            a = self.post(f"/v1/drives/{id}/attach")
            self.assertEqual(a.status, 200)
            numbers.append(a.json.pop("device_number"))
            self.assertEqual(a.json | {}, a.json)
            self.assertEqual({k: a.json[k] for k in ("id", "name", "role", "head")},
                             {"id": id, "name": "fotos \u00e4", "role": "owner", "head": 0})
        self.assertEqual(len(set(numbers)), 3)
        self.assertError(self.post("/v1/drives", {"name": "fotos \u00e4"}), 409, "exists")
        self.assertError(self.post("/v1/drives", {"name": ""}), 400, "invalid")
        self.assertError(self.post("/v1/drives", {"name": "x" * 101}), 400, "invalid")
        self.assertError(self.post("/v1/drives", {"name": "a\nb"}), 400, "invalid")
        self.assertError(self.post("/v1/drives", {"nome": "x"}), 400, "malformed")

    def test_others_drives_are_as_absent_ones(self):
        token = self.s.login("bob").json["token"]
        bodies = set()
        for drive in (self.drive, "0" * 32):
            for method, path, body, type in (
                    ("POST", "attach", None, None), ("GET", "changes?since=0", None, None),
                    ("GET", "changes?since=0&wait_ms=9", None, None),
                    ("POST", "commits", b"", CBOR), ("POST", "missing", ids(), CBOR),
                    ("POST", "fetch", ids(CHUNK_V), CBOR), ("POST", "packs", FIVE, PACK),
                    ("GET", "chunks/" + CHUNK_V.hex(), None, None),
                    ("GET", "contents/" + CONTENT_V.hex(), None, None)):
                a = self.s.ask(method, f"/v1/drives/{drive}/{path}", body, token, type)
                self.assertError(a, 404, "no_drive")
                bodies.add(a.body)
        self.assertEqual(len(bodies), 1)
        self.assertEqual(self.get("/v1/drives", token).json, {"drives": []})

    def test_reader(self):
        token = self.s.login("bob").json["token"]
        drive = self.post("/v1/drives", {"name": "shared"}).json["id"]
        db = sqlite3.connect(os.path.join(self.s.data, "varved.db"), timeout=20)
        with db:
            db.execute("INSERT INTO drive_member (drive, account, role) SELECT d.id, a.id, 1"
                       " FROM drive d, account a WHERE d.public_id = ? AND a.name = 'bob'",
                       (drive,))
        db.close()
        path = f"/v1/drives/{drive}"
        self.assertEqual(self.get(path + "/changes?since=0", token).status, 200)
        self.assertEqual(self.post(path + "/attach", token=token).json["role"], "reader")
        self.assertEqual(self.post(path + "/missing", ids(CHUNK_V), CBOR, token).status, 200)
        number = self.post(path + "/attach", token=token).json["device_number"]
        a = self.post(path + "/commits", commit([Commits(number).mkdir(b"x")]), CBOR, token,
                      Varve_Device_Number=str(number))
        self.assertError(a, 403, "forbidden")
        self.assertError(self.post(path + "/packs", FIVE, PACK, token), 403, "forbidden")
        self.assertEqual(self.get("/v1/drives", token).json["drives"][0]["head"], 0)


class Commit(Case):
    def test_apply_retry_refuse(self):
        number = self.attach()
        c = Commits(number)
        body = commit([c.mkdir(b"one"), c.mkdir(b"\xff\n")])
        a = self.commit(number, body)
        self.assertEqual(a.status, 200, a.body)
        seq = a.cbor["seq"]
        self.assertGreater(seq, 0)
        self.assertEqual(a.cbor["head"], seq)
        again = self.commit(number, body)
        self.assertEqual((again.status, again.cbor["seq"]), (200, seq))
        a = self.commit(number, commit([c.mkdir(b"two"), c.mkdir(b"one")], base=seq))
        self.assertEqual(a.status, 409)
        self.assertEqual(a.cbor.get("seq", 0), 0)
        self.assertEqual(a.cbor["refused"][0].get("index", 0), 1)
        page = self.get(f"/v1/drives/{self.drive}/changes?since=0").cbor
        names = {link["name"] for link in page["links"]}
        self.assertLessEqual({b"one", b"\xff\n"}, names)
        self.assertNotIn(b"two", names)

    def test_device_numbers(self):
        mine = self.attach()
        path = f"/v1/drives/{self.drive}/commits"
        body = commit([Commits(mine).mkdir(b"numbered")])
        self.assertError(self.post(path, body, CBOR), 400, "device_number")
        for text in ("", "0", "x", "-1", "1x", "16777216", "99999999999999999999"):
            self.assertError(self.post(path, body, CBOR, Varve_Device_Number=text), 400,
                             "device_number")
        other = self.s.login(device="other").json["token"]
        theirs = self.attach(other)
        self.assertError(self.commit(theirs, body), 403, "device_number")
        self.assertError(self.commit(8388607, body), 403, "device_number")
        self.assertEqual(self.commit(mine, body).status, 200)

    def test_damaged_commits(self):
        number = self.attach()
        good = commit([Commits(number).mkdir(b"damaged")])
        for body in (b"", b"\xff", good[:-1], good + b"\0", cbor({}), cbor({"v": 2}),
                     cbor({"v": 1, "id": b"short", "changes": []}), b"\x9f" * 1000,
                     b"\xbb" + b"\xff" * 8, cbor([1, 2]), os.urandom(5000)):
            a = self.commit(number, body)
            self.assertError(a, 400, "malformed")
        head = self.get("/v1/drives").json["drives"][0]["head"]
        self.assertEqual(self.commit(number, commit([b"\0"])).status, 409)
        a = self.post(f"/v1/drives/{self.drive}/commits", good, "text/plain",
                      Varve_Device_Number=str(number))
        self.assertError(a, 415, "wrong_type")
        self.assertEqual(self.get("/v1/drives").json["drives"][0]["head"], head)

    def test_refused_by_the_rules(self):
        number = self.attach()
        c, other = Commits(number), Commits(self.attach())
        a, above = c.mkdir(b"above"), c.number << 40 | c.counter
        b, below = c.mkdir(b"below", above), c.number << 40 | c.counter
        seq = self.commit(number, commit([a, b])).cbor["seq"]
        itself = c.number << 40 | c.counter + 1
        loop = cbor({"v": 1, "kind": 6, "node": above, "dir": 1, "name": b"above", "dir2": below,
                     "name2": b"x", "time": 5})
        for reason, base, changes in (
                ("invalid", seq, [other.mkdir(b"x")]), ("invalid", seq + 1, [c.mkdir(b"x")]),
                ("exists", seq, [c.mkdir(b"x"), c.mkdir(b"x")]), ("loop", seq, [loop]),
                ("absent", seq, [c.mkdir(b"x", itself)]),
                ("absent", seq, [c.mkdir(b"x", (1 << 64) - 1)])):
            a = self.commit(number, commit(changes, base))
            self.assertEqual((a.status, a.cbor["refused"][0]["reason"]), (409, reason), reason)
            self.assertEqual(a.cbor["head"], seq)
        for base in (1 << 63, (1 << 64) - 1):
            self.assertError(self.commit(number, commit([c.mkdir(b"x")], base)), 400, "malformed")

    def test_one_commit_from_many_connections(self):
        number = self.attach()
        body = commit([Commits(number).mkdir(b"once")])
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(self.commit(number, body)))
                   for _ in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual({a.status for a in answers}, {200})
        self.assertEqual(len({a.cbor["seq"] for a in answers}), 1)

    def test_many_at_once(self):
        errors = []

        def writer(w):
            connection = self.s.connect()
            number = self.s.ask("POST", f"/v1/drives/{self.drive}/attach", token=self.token,
                                connection=connection).json["device_number"]
            c = Commits(number)
            for i in range(50):
                a = self.s.ask("POST", f"/v1/drives/{self.drive}/commits",
                               commit([c.mkdir(b"w%d-%d" % (w, i))]), self.token, CBOR,
                               {"Varve-Device-Number": str(number)}, connection)
                if a.status != 200:
                    errors.append(a.body)
            connection.close()

        before = self.get("/v1/drives").json["drives"][0]["head"]
        threads = [threading.Thread(target=writer, args=(w,)) for w in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(errors, [])
        self.assertEqual(self.get("/v1/drives").json["drives"][0]["head"], before + 300)


class Changes(Case):
    def path(self, since, wait=None):
        return (f"/v1/drives/{self.drive}/changes?since={since}"
                + (f"&wait_ms={wait}" if wait is not None else ""))

    def head(self):
        return self.get("/v1/drives").json["drives"][0]["head"]

    def test_bad_questions(self):
        base = f"/v1/drives/{self.drive}/changes"
        for query in ("", "?since=", "?since=x", "?since=-1", "?since=1x", "?wait_ms=5",
                      "?since=18446744073709551616", "?since=9223372036854775808",
                      "?since=+1", "?since=0x1", "?since=0%00", "?since=0%00x", "?since=%zz",
                      "?since=0&wait_ms=60001",
                      "?since=0&wait_ms=x", "?since=0&wait_ms="):
            self.assertError(self.get(base + query), 400, "invalid")
        self.assertError(self.get(self.path(self.head() + 1)), 400, "invalid")
        self.assertError(self.get(self.path(self.head() + 1, 60000)), 400, "invalid")

    def test_wait_wakes(self):
        number = self.attach()
        head, c = self.head(), Commits(number)
        answers = []

        def wait():
            a = self.get(self.path(head, 60000))
            answers.append((time.monotonic(), a.status, a.cbor))

        threads = [threading.Thread(target=wait) for _ in range(20)]
        for t in threads:
            t.start()
        time.sleep(0.5)
        self.assertEqual(answers, [])
        self.assertEqual(self.commit(number, commit([c.mkdir(b"woken")], head)).status, 200)
        committed = time.monotonic()
        for t in threads:
            t.join()
        self.assertEqual(len(answers), 20)
        for when, status, page in answers:
            self.assertEqual((status, page["to"]), (200, head + 1))
            self.assertLess(when - committed, 2 * SLOW)

    def test_a_revoked_wait_learns_nothing(self):
        token = self.s.login(device="revoked").json["token"]
        number, head, answers = self.attach(), self.head(), []
        t = threading.Thread(
            target=lambda: answers.append(self.get(self.path(head, 20000), token)))
        t.start()
        time.sleep(0.5)
        self.assertEqual(self.post("/v1/logout", token=token).status, 204)
        c = Commits(number)
        self.assertEqual(self.commit(number, commit([c.mkdir(b"secret")], head)).status, 200)
        t.join()
        self.assertIn(answers[0].status, (401, 404))
        self.assertNotIn(b"secret", answers[0].body)

    def test_wait_ends(self):
        start = time.monotonic()
        a = self.get(self.path(self.head(), 400))
        took = time.monotonic() - start
        self.assertEqual(a.status, 200)
        self.assertEqual(a.cbor.get("nodes", []), [])
        self.assertGreater(took, 0.35)
        self.assertLess(took, 5 * SLOW)

    def test_waiting_holds_no_thread(self):
        sockets = []
        head = self.head()
        for _ in range(200):
            s = self.s.raw()
            s.sendall(f"GET {self.path(head, 60000)} HTTP/1.1\r\nHost: x\r\n"
                      f"Authorization: Bearer {self.token}\r\n\r\n".encode())
            sockets.append(s)
        start = time.monotonic()
        for _ in range(20):
            self.assertEqual(self.get("/v1/me").status, 200)
        self.assertLess(time.monotonic() - start, 5 * SLOW)
        for s in sockets[:100]:  # half of them go away
            s.close()
        number = self.attach()
        self.assertEqual(self.commit(number, commit([Commits(number).mkdir(b"200")], head)).status,
                         200)
        for s in sockets[100:]:
            self.assertIn(b" 200 OK", receive(s, until_close=False))
            s.close()


class Chunks(Case):
    def setUp(self):
        self.drive = self.post("/v1/drives", {"name": self.id()[-100:]}).json["id"]

    def path(self, what):
        return f"/v1/drives/{self.drive}/{what}"

    def test_upload_and_fetch(self):
        for path, body in (("fetch", ids(CHUNK_V)), ("chunks/" + CHUNK_V.hex(), None)):
            a = self.s.ask("POST" if body else "GET", self.path(path), body, self.token,
                           CBOR if body else None)
            self.assertError(a, 404, "not_found")
        absent = bytes(32)
        a = self.post(self.path("missing"), ids(CHUNK_V, absent), CBOR)
        self.assertEqual(a.cbor["ids"], CHUNK_V + absent)
        a = self.post(self.path("packs"), FIVE, PACK)
        self.assertEqual((a.status, a.json), (201, {"chunks": 5}))
        self.assertEqual(self.post(self.path("packs"), FIVE, PACK).status, 201)
        a = self.post(self.path("missing"), ids(CHUNK_V, absent), CBOR)
        self.assertEqual(a.cbor["ids"], absent)
        a = self.post(self.path("fetch"), ids(CHUNK_V), CBOR)
        self.assertEqual((a.status, a.headers["Content-Type"]), (200, PACK))
        self.assertEqual(a.body[:8], FIVE[:8])
        self.assertEqual(a.body[8:40], CHUNK_V)
        a = self.get(self.path("chunks/" + CHUNK_V.hex()))
        self.assertEqual((a.status, a.headers["Content-Type"]),
                         (200, "application/x-varve-frame"))
        self.assertEqual(a.body, FIVE[40:40 + len(a.body)])
        self.assertError(self.post(self.path("fetch"), ids(CHUNK_V, absent), CBOR), 404,
                         "not_found")
        # What one drive has says nothing to another.
        other = self.post("/v1/drives", {"name": "other"}).json["id"]
        a = self.post(f"/v1/drives/{other}/missing", ids(CHUNK_V), CBOR)
        self.assertEqual(a.cbor["ids"], CHUNK_V)
        self.assertError(self.post(f"/v1/drives/{other}/fetch", ids(CHUNK_V), CBOR), 404,
                         "not_found")
        number = self.post(f"/v1/drives/{other}/attach").json["device_number"]
        for contents in ([MANIFEST_V], []):
            a = self.post(f"/v1/drives/{other}/commits",
                          commit([Commits(number).create(b"v", CONTENT_V)], contents=contents),
                          CBOR, Varve_Device_Number=str(number))
            self.assertEqual((a.status, a.cbor["refused"][0]["reason"]), (409, "chunk"))
        self.assertError(self.get(f"/v1/drives/{other}/chunks/{CHUNK_V.hex()}"), 404, "not_found")

    def test_content(self):
        number = self.attach()
        self.assertEqual(self.post(self.path("packs"), FIVE, PACK).status, 201)
        self.assertError(self.get(self.path("contents/" + "0" * 64)), 404, "not_found")
        a = self.commit(number, commit([Commits(number).create(b"v.txt", CONTENT_V)],
                                       contents=[MANIFEST_V]))
        self.assertEqual(a.status, 200, a.body)
        a = self.get(self.path("contents/" + CONTENT_V.hex()))
        self.assertEqual((a.status, a.headers["Content-Type"], a.body),
                         (200, "application/x-varve-manifest", MANIFEST_V))

    def test_bad_packs(self):
        damaged = bytearray(FIVE)
        damaged[45] ^= 1
        swapped = FIVE[:8] + bytes(32) + FIVE[40:]
        for body in (b"", b"x", FIVE[:-1], FIVE + b"x", bytes(damaged), swapped):
            self.assertError(self.post(self.path("packs"), body, PACK), 400, "malformed")

    def test_bad_ids(self):
        for what in ("missing", "fetch"):
            for body in (b"", b"\xff", cbor({"v": 1, "ids": b"x" * 31}), cbor({"v": 2}),
                         cbor({"v": 1, "ids": 5})):
                self.assertError(self.post(self.path(what), body, CBOR), 400, "malformed")
        self.assertError(self.post(self.path("fetch"), cbor({"v": 1, "ids": bytes(32) * 257}),
                                   CBOR), 400, "malformed")
        self.assertError(self.get(self.path("chunks/xyz")), 404, "no_route")
        self.assertError(self.get(self.path("chunks/" + "0" * 63)), 404, "no_route")


def as_json(v, key=None):
    """A decoded CBOR message as openapi.yaml says that JSON shows it."""
    if isinstance(v, dict):
        out = {}
        for k, x in v.items():
            if k in ("name", "name2", "target"):
                try:
                    out[k] = x.decode()
                except UnicodeDecodeError:
                    out[k + "_b64"] = base64.b64encode(x).decode()
            else:
                out[k] = as_json(x, k)
        return out
    if key == "ids":
        return [v[i:i + 32].hex() for i in range(0, len(v), 32)]
    if key == "changes":
        return [as_json({k: x for k, x in uncbor(c).items() if k != "v"}) for c in v]
    if isinstance(v, list):
        return [as_json(x) for x in v]
    if isinstance(v, bytes):
        return v.hex() if key in ("id", "content") else base64.b64encode(v).decode()
    if isinstance(v, int) and not isinstance(v, bool) and key not in (
            "v", "kind", "flags", "mask", "mode", "uid", "gid", "index"):
        return str(v)
    return v


class Json(Case):
    """The CBOR routes speak JSON to who asks for it, and say the same."""
    JSON = {"Accept": "application/json"}

    def path(self, what, drive=None):
        return f"/v1/drives/{drive or self.drive}/{what}"

    def send(self, number, body, drive=None, **headers):
        return self.post(self.path("commits", drive), body, "application/json",
                         Varve_Device_Number=str(number), **headers)

    def both(self, drive):
        path = self.path("changes?since=0", drive)
        return (self.get(path).cbor,
                self.s.ask("GET", path, token=self.token, headers=self.JSON).json)

    def history(self, drive):
        """All that SQL knows of it, without what differs by chance."""
        db = sqlite3.connect(os.path.join(self.s.data, "varved.db"))
        try:
            key, = db.execute("SELECT id FROM drive WHERE public_id = ?", (drive,)).fetchone()
            rows = []
            for table in ("node_version", "link_version", "commit_log", "content"):
                cursor = db.execute(f"SELECT * FROM {table} WHERE drive = ? ORDER BY 2, 3, 4", (key,))
                columns = [c[0] for c in cursor.description]
                skip = {"drive"} | ({"time_ns"} if table == "commit_log" else set())
                rows += [{c: v for c, v in zip(columns, row) if c not in skip} for row in cursor]
            return rows
        finally:
            db.close()

    def test_same_commit_same_history(self):
        drives = [self.post("/v1/drives", {"name": n}).json["id"] for n in ("as cbor", "as json")]
        created = {}
        for drive in drives:
            answer = self.post(self.path("attach", drive)).json
            self.assertEqual(answer["device_number"], 1)
            created[drive] = answer["created_ns"]

        def timeless(drive, value):
            """When the drive was made stands in its root."""
            if isinstance(value, dict):
                return {k: timeless(drive, v) for k, v in value.items()}
            if isinstance(value, list):
                return [timeless(drive, v) for v in value]
            return "created" if value in (created[drive], str(created[drive])) else value

        c, base = Commits(1), 0
        big = (1 << 40 | (1 << 40) - 1)  # beyond what a double can say
        batches = [
            dict(changes=[c.mkdir(b"dir"), c.mkdir(b"\xff\xfe\n"), c.mkdir("\u00e9\"\\".encode()),
                          c.create(b"v.txt", CONTENT_V),
                          cbor({"v": 1, "kind": 1, "node": big, "dir": 1, "name": b"link",
                                "attr": {"mode": 0o120777, "mtime": -(1 << 62), "uid": 2**32 - 1},
                                "target": b"to/\x80", "time": 2**63 - 1,
                                "xattrs": [{"name": b"user.a", "value": b"\0\xff"},
                                           {"name": b"user.\xff", "value": b""}]})],
                 contents=[MANIFEST_V], pack=FIVE),
            dict(changes=[cbor({"v": 1, "kind": 6, "node": big, "dir": 1, "name": b"link",
                                "dir2": 1 << 40 | 1, "name2": b"\x80", "time": 6}),
                          cbor({"v": 1, "kind": 3, "node": 1 << 40 | 4, "mask": 1,
                                "attr": {"mode": 0o600, "ctime": 8}, "time": 8})]),
        ]
        for batch in batches:
            body = cbor({"v": 1, "id": os.urandom(16), "base": base, **batch})
            a = self.post(self.path("commits", drives[0]), body, CBOR, Varve_Device_Number="1")
            self.assertEqual(a.status, 200, a.body)
            b = self.send(1, as_json(uncbor(body)), drives[1], **self.JSON)
            self.assertEqual(b.status, 200, b.body)
            self.assertEqual(b.json, as_json(a.cbor))
            base = a.cbor["seq"]
        self.assertGreater(len(self.history(drives[0])), 8)
        here, there = (timeless(d, self.history(d)) for d in drives)
        self.assertEqual(here, there)
        root = here[0]
        self.assertEqual([root[k] for k in ("node", "atime", "mtime", "ctime", "btime")],
                         [1] + ["created"] * 4)
        (cbor_a, json_a), (cbor_b, json_b) = (
            [timeless(d, view) for view in self.both(d)] for d in drives)
        self.assertEqual((cbor_a, json_a), (cbor_b, json_b))
        self.assertEqual(json_a, as_json(cbor_a))
        names = {link.get("name_b64") for link in json_a["links"]}
        self.assertIn(base64.b64encode(b"\xff\xfe\n").decode(), names)
        # A retry of the one in the other's form is the same commit.
        again = self.send(1, as_json(uncbor(body)), drives[0])
        self.assertEqual((again.status, again.cbor["seq"]), (200, base))

    def test_name_that_is_not_utf8_round_trips(self):
        number = self.attach()
        raw = b"caf\xe9 \x80"
        text = base64.b64encode(raw).decode()
        change = as_json(uncbor(Commits(number).mkdir(raw)))
        self.assertEqual(change["name_b64"], text)
        a = self.send(number, {"v": 1, "id": os.urandom(16).hex(), "base": "0",
                               "changes": [change]}, **self.JSON)
        self.assertEqual(a.status, 200, a.body)
        page, shown = self.both(self.drive)
        self.assertIn(raw, [link["name"] for link in page["links"]])
        self.assertIn({"dir": "1", "name_b64": text, "node": change["node"]}, shown["links"])
        a = self.send(number, {"v": 1, "id": os.urandom(16).hex(), "base": a.json["seq"],
                               "changes": [{"kind": 5, "node": change["node"], "dir": "1",
                                            "name_b64": text}]}, **self.JSON)
        self.assertEqual(a.status, 200, a.body)

    def test_refused_in_json(self):
        number = self.attach()
        change = {"kind": 5, "node": "99", "dir": "1", "name": "is not there"}
        a = self.send(number, {"v": 1, "id": os.urandom(16).hex(), "changes": [change]},
                      **self.JSON)
        self.assertEqual((a.status, a.headers["Content-Type"]), (409, "application/json"))
        self.assertNotIn("seq", a.json)
        self.assertEqual(a.json["refused"][0]["reason"], "absent")

    def test_hostile_json(self):
        number = self.attach()
        good = {"v": 1, "id": os.urandom(16).hex(), "base": "0",
                "changes": [as_json(uncbor(Commits(number).mkdir(b"hostile")))]}

        def change(**more):
            return {**good, "changes": [{**good["changes"][0], **more}]}

        bodies = [b"", b"{", b"\xff", b"[" * 100000, b'{"a":' * 100000, b'"' + b"x" * 1000, b"[]",
                  b"null", b"{}", b'{"v":1,"v":1}', b'{"v":1e999}', b'{"v":' + b"9" * 5000 + b"}",
                  b'{"v":1,"x":[' + b"{}," * 200000 + b"0]}", cbor({"v": 1}),
                  {**good, "v": 2}, {**good, "v": "1"}, {**good, "id": 5}, {**good, "id": "00"},
                  {**good, "id": None}, {**good, "id": "0" * 32}, {**good, "base": 0},
                  {**good, "base": "9" * 100}, {**good, "base": "-1"}, {**good, "base": {}},
                  {**good, "pack": "*"}, {**good, "pack": [1]}, {**good, "contents": "x"},
                  {**good, "changes": {}}, {**good, "changes": ["AA=="]},
                  {**good, "changes": good["changes"] * 1001}, change(kind="1"), change(kind=1.0),
                  change(kind=2**40), change(kind=-1), change(node=5), change(node=str(2**64)),
                  change(node="0x5"), change(name=5), change(name=None), change(name_b64="AA=="),
                  change(attr=[]), change(attr={"mtime": 5}), change(attr={"mtime": str(2**63)}),
                  change(attr={"content": "ab"}), change(xattrs=[5]), change(v=2)]
        for body in bodies:
            with self.subTest(str(body)[:100]):
                self.assertError(self.send(number, body), 400, "malformed")
        for body in (change(name="a/b"), change(name=""), change(name="a\0b"), change(attr={})):
            self.assertEqual(self.send(number, body).status, 409, "as in CBOR")
        self.assertEqual(self.send(number, good).status, 200)

    def test_ids(self):
        path = self.path("missing")
        self.assertEqual(self.post(self.path("packs"), FIVE, PACK).status, 201)
        absent = "0f" * 32
        question = {"v": 1, "ids": [CHUNK_V.hex(), absent]}
        a = self.post(path, question, **self.JSON)
        self.assertEqual((a.status, a.json), (200, {"v": 1, "ids": [absent]}))
        self.assertEqual(self.post(path, question).cbor["ids"], bytes.fromhex(absent))
        a = self.post(path, ids(CHUNK_V), CBOR, **self.JSON)
        self.assertEqual(a.json, {"v": 1})
        a = self.post(self.path("fetch"), {"v": 1, "ids": [CHUNK_V.hex()]}, **self.JSON)
        self.assertEqual((a.status, a.headers["Content-Type"], a.body[8:40]), (200, PACK, CHUNK_V))
        many = {"v": 1, "ids": [absent] * 8192}
        a = self.post(path, many, **self.JSON)
        self.assertEqual((a.status, set(a.json["ids"])), (200, {absent}))
        for what, n in (("missing", 8193), ("fetch", 257)):
            self.assertError(self.post(self.path(what), {"v": 1, "ids": [absent] * n}), 400,
                             "malformed")
            for body in (b"", b"[]", {"v": 1, "ids": absent}, {"v": 1, "ids": ["0f"]},
                         {"v": 1, "ids": [5]}, {"v": 1, "ids": {}}, {"ids": []}):
                self.assertError(self.post(self.path(what), body, "application/json"), 400,
                                 "malformed")
        for what, n in (("missing", 700000), ("fetch", 21000), ("commits", 48 * 2**20 + 1)):
            a = self.post(self.path(what), None, "application/json", Content_Length=str(n))
            self.assertError(a, 413, "too_large")
        self.assertError(self.post(self.path("packs"), {}), 415, "wrong_type")

    def test_who_asks_for_what(self):
        for accept, type in (
                (None, CBOR), ("*/*", CBOR), ("text/html", CBOR), (CBOR, CBOR), ("", CBOR),
                ("application/jsonx", CBOR), ("application/json, application/cbor", CBOR),
                ("application/json", "application/json"),
                ("text/html, Application/JSON;q=0.9, */*", "application/json")):
            headers = {} if accept is None else {"Accept": accept}
            a = self.s.ask("GET", self.path("changes?since=0"), token=self.token, headers=headers)
            self.assertEqual((a.status, a.headers["Content-Type"]), (200, type), accept)
        a = self.s.ask("GET", self.path("changes?since=x"), token=self.token, headers=self.JSON)
        self.assertError(a, 400, "invalid")


class Wire(Case):
    """Requests that no client of ours sends."""

    def talk(self, text, until_close=True):
        with self.s.raw() as s:
            try:
                s.sendall(text if isinstance(text, bytes) else text.encode())
            except (BrokenPipeError, ConnectionResetError):
                pass
            return receive(s, until_close)

    def head(self, method="POST", path=None, *headers):
        lines = [f"{method} {path or '/v1/login'} HTTP/1.1", "Host: x",
                 f"Authorization: Bearer {self.token}", *headers]
        return "\r\n".join(lines) + "\r\n\r\n"

    def test_smuggling(self):
        hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        for headers in (("Content-Length: 5", "Transfer-Encoding: chunked"),
                        ("Transfer-Encoding: chunked", "Content-Length: 5"),
                        ("Content-Length: 5", "Content-Length: 5"),
                        ("Content-Length: 5", "content-length: 6"),
                        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
                        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
                        ("Transfer-Encoding: gzip, chunked",),
                        ("Transfer-Encoding: identity",),
                        ("Transfer-Encoding: xchunked",),
                        ("Content-Length: 5, 5",), ("Content-Length: +5",),
                        ("Content-Length: -5",), ("Content-Length: 0x5",),
                        ("Content-Length: 5 5",), ("Content-Length:",),
                        ("Content-Length: 99999999999999999999999",)):
            for method, path in (("POST", "/v1/login"), ("GET", "/healthz"), ("GET", "/nowhere"),
                                 ("POST", f"/v1/drives/{self.drive}/commits")):
                got = self.talk(self.head(method, path, *headers) + "0\r\n\r\n" + hidden)
                # (libmicrohttpd begins some of its own refusals twice.)
                statuses = set(re.findall(rb"HTTP/1\.1 (\d+) ", got))
                self.assertIn(statuses, ({b"400"}, {b"413"}), (headers, path, got))

    def test_odd_headers(self):
        for header in ("Content-Length : 5", "X Y: z", "Host: y", "Authorization: Bearer x"):
            got = self.talk(self.head("GET", "/healthz", header))
            self.assertRegex(got, rb"^HTTP/1\.1 400 ", header)

    def test_garbage(self):
        for text in (b"\xff\xfe\r\n\r\n", b"GET\r\n\r\n",
                     b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00" + os.urandom(300),
                     b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100000 + b"\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20000 + b"\r\n"):
            with self.s.raw() as s:
                # libmicrohttpd may miss an end that comes together with bytes: then it is the
                # server's deadline for headers that ends the connection.
                s.settimeout(2 * HEADERS_S)
                try:
                    s.sendall(text)
                    s.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                got = receive(s)
                self.assertNotIn(b" 200 ", got[:20], text[:40])
        self.assertEqual(self.get("/healthz").status, 200)

    def test_long_headers(self):
        got = self.talk(self.head("GET", "/v1/me", "X: " + "y" * 20000))
        self.assertRegex(got, rb"^HTTP/1\.1 431 ")
        got = self.talk(self.head("GET", "/" + "y" * 5000))
        self.assertRegex(got, rb"^HTTP/1\.1 414 ")

    def test_oversized_bodies(self):
        limits = {"commits": (48 << 20, CBOR), "packs": (16 << 20, PACK),
                  "missing": (8192 * 40 + 256, CBOR), "fetch": (256 * 40 + 256, CBOR)}
        for what, (most, type) in limits.items():
            # Said, not sent: the answer does not wait for the body.
            got = self.talk(self.head("POST", f"/v1/drives/{self.drive}/{what}",
                                      f"Content-Type: {type}", f"Content-Length: {most + 1}"))
            self.assertRegex(got, rb"^HTTP/1\.1 413 ", what)
            self.assertIn(b'"too_large"', got)
        got = self.talk(self.head("POST", "/v1/logout", "Content-Length: 1") + "x")
        self.assertRegex(got, rb"^HTTP/1\.1 413 ")

    def test_oversized_body_in_pieces(self):
        piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        request = self.head("POST", f"/v1/drives/{self.drive}/fetch", f"Content-Type: {CBOR}",
                            "Transfer-Encoding: chunked").encode()
        got = self.talk(request + piece * 3 + b"0\r\n\r\n", until_close=False)
        self.assertRegex(got, rb"^HTTP/1\.1 413 ")
        got = self.talk(request + piece * 2000)  # without an end: cut off
        self.assertNotIn(b" 200 ", got)

    def test_body_in_pieces(self):
        body = ids(CHUNK_V)
        text = self.head("POST", f"/v1/drives/{self.drive}/missing", f"Content-Type: {CBOR}",
                         "Transfer-Encoding: chunked", "Connection: close").encode()
        for i in range(len(body)):
            text += b"1\r\n" + body[i:i + 1] + b"\r\n"
        self.assertRegex(self.talk(text + b"0\r\n\r\n"), rb"^HTTP/1\.1 200 ")

    def test_short_body(self):
        with self.s.raw() as s:
            s.sendall(self.head("POST", f"/v1/drives/{self.drive}/missing",
                                f"Content-Type: {CBOR}", "Content-Length: 50").encode() + b"x")
            s.shutdown(socket.SHUT_WR)
            s.settimeout(2)
            try:
                self.assertNotIn(b" 200 ", receive(s))
            except TimeoutError:
                pass  # not seen yet that no more will come; the body's deadline ends it

    def test_token_before_body(self):
        """A stranger gets no 100 Continue, and no byte of the body is waited for."""
        for token in ("", "Authorization: Bearer " + "0" * 64 + "\r\n"):
            got = self.talk(f"POST /v1/drives/{self.drive}/commits HTTP/1.1\r\nHost: x\r\n{token}"
                            f"Content-Type: {CBOR}\r\nContent-Length: 40000000\r\n"
                            "Expect: 100-continue\r\n\r\n")
            self.assertRegex(got, rb"^HTTP/1\.1 401 ")

    def test_expect_continue(self):
        body = ids(CHUNK_V)
        with self.s.raw() as s:
            s.sendall(self.head("POST", f"/v1/drives/{self.drive}/missing",
                                f"Content-Type: {CBOR}", f"Content-Length: {len(body)}",
                                "Expect: 100-continue", "Connection: close").encode())
            self.assertRegex(receive(s, until_close=False), rb"^HTTP/1\.1 100 ")
            s.sendall(body)
            self.assertRegex(receive(s), rb"^HTTP/1\.1 200 ")

    def test_slow_and_silent_clients(self):
        silent = [self.s.raw() for _ in range(100)]
        for s in silent[50:]:
            s.sendall(b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Le")
        text = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with self.s.raw() as slow:
            for i in range(len(text)):
                slow.sendall(text[i:i + 1])
                time.sleep(0.01)
            self.assertRegex(receive(slow), rb"^HTTP/1\.1 200 ")
        start = time.monotonic()
        self.assertEqual(self.get("/v1/me").status, 200)
        self.assertLess(time.monotonic() - start, 3 * SLOW)
        for s in silent:
            s.close()

    def test_headers_have_a_deadline(self):
        """A connection that sends none, part of them, or nonsense does not stay for ever."""
        start, sockets = time.monotonic(), []
        for text in (b"", b"GET /healthz HTTP/1.1\r\nHo", b"\0" * 100 + b"\r\n\r\n", b"\r\n" * 9):
            s = self.s.raw(timeout=40)
            s.sendall(text)
            sockets.append(s)
        for s in sockets:
            self.assertNotIn(b" 200 ", receive(s))
            s.close()
        self.assertGreater(time.monotonic() - start, 10)

    def test_pipelining_and_keep_alive(self):
        one = self.head("GET", "/v1/me")
        with self.s.raw() as s:
            s.sendall((one * 3 + self.head("GET", "/v1/me", "Connection: close")).encode())
            self.assertEqual(receive(s).count(b"HTTP/1.1 200 OK"), 4)

    def test_unknown_paths_and_methods(self):
        for path in ("/", "//", "/v1", "/v1/", "/v2/me", "/v1/me/", "/v1/me/x", "/V1/me",
                     "/v1//me", "/v1/drives/", "/v1/drives/x/attach",
                     f"/v1/drives/{self.drive}", f"/v1/drives/{self.drive}/",
                     f"/v1/drives/{self.drive.upper()}x/attach", "/../etc/passwd", "/v1/me%00", "/v1/me%00/x",
                     "/v1/me%2f", "/%2e%2e/v1/me", "/v1/drives/%2e%2e/me"):
            self.assertError(self.get(path), 404, "no_route")
            self.assertEqual(self.s.ask("GET", path).status, 404)
        self.assertEqual(self.get("/v1/m%65").status, 200)
        for method, path, allow in (("DELETE", "/v1/me", "GET"), ("PUT", "/v1/login", "POST"),
                                    ("DELETE", "/v1/drives", "GET, POST"),
                                    ("OPTIONS", "/healthz", "GET"),
                                    ("GET", f"/v1/drives/{self.drive}/commits", "POST")):
            a = self.s.ask(method, path, token=self.token)
            self.assertError(a, 405, "wrong_method")
            self.assertEqual(a.headers["Allow"], allow)


class OpenApi(Case):
    """openapi.yaml against the program, both ways."""

    def documented(self):
        routes, path, public = {}, None, False
        for line in read("server/openapi.yaml").splitlines(True):
            if line.startswith("components:"):
                break
            m = re.fullmatch(r"  (/\S*):\n", line)
            if m:
                path = m.group(1)
            m = re.fullmatch(r"    (get|post|put|delete|head|patch):\n", line)
            if m:
                method = m.group(1).upper()
                routes[method, path] = False
            if path and line == "      security: []\n":
                routes[method, path] = True
        return routes

    def test_each_route_is_there_and_asks_for_a_token(self):
        routes = self.documented()
        self.assertGreater(len(routes), 10)
        public = {p for (_, p), is_public in routes.items() if is_public}
        self.assertEqual(public, {"/healthz", "/readyz", "/v1/login"})
        for (method, path), is_public in routes.items():
            path = path.replace("{drive}", self.drive).replace("{id}", "0" * 64)
            a = self.s.ask(method, path)
            if is_public:
                self.assertIn(a.status, (200, 400), (method, path))
            else:
                self.assertError(a, 401, "unauthorized")

    def test_no_route_is_undocumented(self):
        text = read("server/routes.c")
        built = set(re.findall(r'\{ "([A-Z]+)", "(/[^"]*)"', text))
        self.assertEqual(built, set(self.documented()))

    def test_each_field_is_listed(self):
        listed = set(re.findall(r"^ +(\w+): \{", read("server/openapi.yaml"), re.M))
        listed |= set(re.findall(r"^ +(\w+):$", read("server/openapi.yaml"), re.M))
        fields = set()
        for name in ("wire_change.c", "wire_changes.c", "wire_commit.c"):
            for key, rest in re.findall(r'FIELD_KEY\("(\w+)"\),([^}]*)\}', read("src/wire", name)):
                fields |= {key} | ({key + "_b64"} if "is_name" in rest else set())
        self.assertGreater(len(fields), 35)
        self.assertEqual(fields - listed, set())

    def test_each_error_code_is_listed(self):
        text = read("server/openapi.yaml")
        listed = set(re.findall(r"^            - (\w+)$", text, re.M))
        used = set()
        for name in os.listdir(os.path.join(ROOT, "server")):
            if not re.fullmatch(r"(routes\w*|router|reply|httpd)\.c", name):
                continue
            source = read("server", name)
            used |= set(re.findall(r'\b[1-5]\d\d, "(\w+)"', source))
            used |= set(re.findall(r'MHD_HTTP_[A-Z_]+,\s+"(\w+_\w+|stopping)"', source))
        self.assertEqual(used, listed)

    def test_health(self):
        for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
            a = self.s.ask("GET", path)
            self.assertEqual((a.status, a.json), (200, {"status": status}))


class Process(unittest.TestCase):
    def setUp(self):
        self.s = Server()
        self.token = self.s.login().json["token"]
        self.drive = self.s.ask("GET", "/v1/drives", token=self.token).json["drives"][0]["id"]

    def tearDown(self):
        self.s.remove()

    def test_stops_cleanly(self):
        for sig in (signal.SIGTERM, signal.SIGINT):
            answers = []
            wait = threading.Thread(target=lambda: answers.append(self.s.ask(
                "GET", f"/v1/drives/{self.drive}/changes?since=0&wait_ms=60000",
                token=self.token)))
            wait.start()
            idle = self.s.raw()
            time.sleep(0.4)
            start = time.monotonic()
            self.assertEqual(self.s.end(sig), 0)
            self.assertLess(time.monotonic() - start, 10 * SLOW)
            wait.join()
            self.assertEqual(answers[0].status, 200, "who waited is answered")
            idle.close()
            self.s.start()
            self.assertEqual(self.s.ask("GET", "/v1/me", token=self.token).status, 200)

    def test_answered_commits_survive_a_kill(self):
        number = self.s.ask("POST", f"/v1/drives/{self.drive}/attach",
                            token=self.token).json["device_number"]
        c, connection, acknowledged = Commits(number), self.s.connect(), 0

        def kill():
            time.sleep(0.5)
            self.s.process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            while True:
                a = self.s.ask("POST", f"/v1/drives/{self.drive}/commits",
                               commit([c.mkdir(b"%d" % acknowledged)], acknowledged), self.token,
                               CBOR, {"Varve-Device-Number": str(number)}, connection)
                self.assertEqual(a.status, 200, a.body)
                acknowledged = a.cbor["seq"]
        except (OSError, http.client.HTTPException):
            pass
        killer.join()
        self.s.process.wait()
        self.s.process.stdout.close()
        self.s.stderr.close()
        connection.close()
        self.s.start()
        head = self.s.ask("GET", "/v1/drives", token=self.token).json["drives"][0]["head"]
        self.assertGreater(acknowledged, 0)
        self.assertIn(head, (acknowledged, acknowledged + 1))

    def test_one_server_a_folder(self):
        r = varved("serve", "--data", self.s.data, "--listen", "127.0.0.1:0")
        self.assertEqual(r.returncode, 1)
        self.assertIn("another varved", r.stderr)


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="varved-test-")
        for name in ("", "other-"):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days",
                            "2", "-keyout", f"{cls.dir}/{name}key.pem", "-out",
                            f"{cls.dir}/{name}cert.pem", "-subj", "/CN=localhost", "-addext",
                            "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True,
                           capture_output=True)
        cls.cert, cls.key = f"{cls.dir}/cert.pem", f"{cls.dir}/key.pem"

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir, ignore_errors=True)

    def test_https(self):
        s = Server("--tls-cert", self.cert, "--tls-key", self.key, data=self.dir)
        self.assertEqual(s.scheme, "https")
        token = s.login().json["token"]
        self.assertEqual(s.ask("GET", "/v1/me", token=token).status, 200)
        drive = s.ask("GET", "/v1/drives", token=token).json["drives"][0]["id"]
        a = s.ask("POST", f"/v1/drives/{drive}/packs", FIVE, token, PACK)
        self.assertEqual(a.status, 201)
        a = s.ask("GET", f"/v1/drives/{drive}/changes?since=0&wait_ms=100", token=token)
        self.assertEqual(a.status, 200)
        with s.raw() as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertNotIn(b" 200 ", receive(plain))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with s.raw() as raw, self.assertRaises((ssl.SSLError, OSError)):
            old.wrap_socket(raw)
        self.assertEqual(s.end(), 0)

    def test_bad_files(self):
        text = os.path.join(self.dir, "text.pem")
        with open(text, "w") as f:
            f.write("hello\n")
        for cert, key, what in ((self.cert, f"{self.dir}/other-key.pem", "not the key"),
                                (self.cert + "-", self.key, "No such file"),
                                (self.cert, self.key + "-", "No such file"),
                                (text, self.key, "no certificate"),
                                (self.cert, text, "no private key")):
            r = varved("serve", "--data", f"{self.dir}/bad", "--listen", "127.0.0.1:0",
                       "--tls-cert", cert, "--tls-key", key)
            self.assertEqual(r.returncode, 1, r.stderr)
            self.assertIn(what, r.stderr)


if __name__ == "__main__":
    VARVED = os.path.abspath(sys.argv.pop(1))
    unittest.main()
