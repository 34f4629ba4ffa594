# SPDX-License-Identifier: Apache-2.0
"""Real servers, real devices, real mounts, for the tests of the whole product.

    with Lab() as lab:
        server = lab.server()
        a, b = lab.device("a", server), lab.device("b", server)
        a.mount(); b.mount()
        ...

A Lab makes one temporary folder, and on its way out unmounts, stops by pid and removes
everything it made. VARVE_BUILD names the build folder (default: build).
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("VARVE_BUILD", os.path.join(ROOT, "build")))
VARVE = os.path.join(BUILD, "src", "varve")
VARVED = os.path.join(BUILD, "server", "varved")
# Sanitizers make everything slower; deadlines stretch with them.
SLOW = float(os.environ.get("VARVE_TEST_SLOW", "1"))


class Failed(AssertionError):
    pass


def check(truth, *what):
    if not truth:
        raise Failed(" ".join(str(w) for w in what))


def equal(got, want, *what):
    if got != want:
        raise Failed(f"{' '.join(str(w) for w in what)}: got {got!r}, want {want!r}")


def until(question, seconds=20, what="condition"):
    """Asks until the answer is true; what the tests wait for is in other processes."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        try:
            answer = question()
            if answer:
                return answer
        except (OSError, Failed) as e:
            answer = e
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds * SLOW:.0f} s: {what} (last answer: {answer!r})")
        time.sleep(0.01)


def run(*argv, env=None, timeout=120, fail=True, stdin=None):
    r = subprocess.run([str(a) for a in argv], env=env, text=True, errors="surrogateescape",
                       capture_output=True, timeout=timeout * SLOW,
                       input=stdin)
    if fail and r.returncode != 0:
        raise Failed(f"{' '.join(map(str, argv))} exited {r.returncode}: {r.stderr}{r.stdout}")
    return r


class Server:
    def __init__(self, lab, name="server", tls=False, args=()):
        self.lab, self.name, self.args = lab, name, list(args)
        self.data = os.path.join(lab.dir, name)
        self.log = os.path.join(lab.dir, name + ".log")
        self.process = None
        self.port = 0
        self.tls = tls
        os.makedirs(self.data, exist_ok=True)
        self.password = os.path.join(lab.dir, name + ".password")
        with open(self.password, "w") as f:
            f.write("correct horse battery\n")
        if tls:
            self.cert = os.path.join(lab.dir, name + ".crt")
            self.key = os.path.join(lab.dir, name + ".key")
            run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                "-keyout", self.key, "-out", self.cert, "-subj", "/CN=localhost",
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
            self.args += ["--tls-cert", self.cert, "--tls-key", self.key]
        run(VARVED, "user", "add", "alice", "--data", self.data, "--password-file", self.password)
        run(VARVED, "drive", "create", "home", "--owner", "alice", "--data", self.data)
        self.start()

    def start(self, env=None):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [VARVED, "serve", "--data", self.data, "--listen", f"127.0.0.1:{self.port}",
                 *self.args], stdout=subprocess.PIPE, stderr=log,
                env=dict(os.environ, **(env or {})))
        line = self.process.stdout.readline().decode()
        m = re.search(r"(https?://\S+:(\d+))", line)
        check(m, "server did not start:", line, open(self.log, errors="replace").read()[-2000:])
        self.url = m.group(1).rstrip("/")
        self.port = int(m.group(2))

    def stop(self, sig=signal.SIGTERM):
        if not self.process:
            return None
        self.process.send_signal(sig)
        code = self.process.wait(30 * SLOW)
        self.process.stdout.close()
        self.process = None
        return code

    def kill(self):
        return self.stop(signal.SIGKILL)


class Device:
    def __init__(self, lab, name, server, login=True):
        self.lab, self.name, self.server = lab, name, server
        self.home = os.path.join(lab.dir, "dev-" + name)
        self.dir = os.path.join(lab.dir, "mnt-" + name)
        os.makedirs(self.home, exist_ok=True)
        os.makedirs(self.dir, exist_ok=True)
        self.env = dict(os.environ, VARVE_HOME=self.home)
        self.process = None
        self.dying = []
        if login:
            args = ["login", server.url, "--user", "alice", "--password-file", server.password,
                    "--device", name]
            if server.tls:
                args += ["--ca-file", server.cert]
            self.varve(*args)

    def varve(self, *argv, fail=True, timeout=120):
        return run(VARVE, *argv, env=self.env, fail=fail, timeout=timeout)

    def start_mount(self, *args, env=None, posix=True):
        """In the foreground, so that the daemon is ours to signal. Where its log begins."""
        if posix and os.geteuid() == 0:
            args = ("-o", "posix", *args)
        path = os.path.join(self.lab.dir, f"dev-{self.name}.log")
        with open(path, "ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen([VARVE, "mount", self.dir, "-f", *args],
                                            env=dict(self.env, **(env or {})),
                                            stdout=log, stderr=log)
        return path, begin

    def mount(self, *args, env=None, posix=True):
        """Root's mounts show owners as they are stored, unless `posix` is false."""
        path, begin = self.start_mount(*args, env=env, posix=posix)

        def mounted():
            if self.process.poll() is not None:
                raise SystemError(f"{self.name}: daemon exited {self.process.returncode}: "
                                  + self.log_tail())
            # A stale mount still looks like one: the kernel answers for it out of its cache.
            with open(path, "rb") as said:
                said.seek(begin)
                return b"is mounted at" in said.read()
        until(mounted, 30, "mount of " + self.name)
        while self.dying:
            self.dying.pop().wait(30 * SLOW)
        return self

    def log_tail(self):
        with open(os.path.join(self.lab.dir, f"dev-{self.name}.log"), errors="replace") as f:
            return f.read()[-3000:]

    def umount(self):
        self.varve("umount", self.dir, timeout=300)
        if self.process:
            code = self.process.wait(60 * SLOW)
            self.process = None
            equal(code, 0, f"daemon of {self.name} ended: {self.log_tail()}")

    def kill(self):
        """kill -9 of the daemon; what it leaves is for the next mount to deal with."""
        self.process.kill()
        try:
            self.process.wait(3 * SLOW)
        except subprocess.TimeoutExpired:
            # It hangs in its death, as the kernel may let it: the next mount ends that.
            self.dying.append(self.process)
        self.process = None

    def status(self):
        s = json.loads(self.varve("status", self.dir, "--json").stdout)
        if isinstance(s, dict) and "mounts" in s:
            s = s["mounts"][0]
        return s

    def wait(self, timeout=120):
        self.varve("wait", self.dir, "--timeout", str(int(timeout * SLOW)),
                   timeout=timeout + 30)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, data, mode="wb"):
        if isinstance(data, str):
            data = data.encode()
        with open(self.path(name), mode) as f:
            f.write(data)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()


class Lab:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="varve-test-",
                                    dir=os.environ.get("VARVE_TEST_DIR", "/var/tmp"))
        self.servers, self.devices = [], []

    def server(self, *args, **kw):
        s = Server(self, *args, **kw)
        self.servers.append(s)
        return s

    def device(self, *args, **kw):
        d = Device(self, *args, **kw)
        self.devices.append(d)
        return d

    def pair(self, **kw):
        """The usual: one server, two devices, both mounted."""
        s = self.server(**kw)
        a, b = self.device("a", s), self.device("b", s)
        return s, a.mount(), b.mount()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, tb):
        if kind:
            for d in self.devices:
                with contextlib.suppress(OSError):
                    print(f"--- log of device {d.name} ---\n{d.log_tail()}", file=sys.stderr)
                    if d.process and d.process.poll() is not None:
                        print(f"--- its daemon ended: {d.process.returncode} ---", file=sys.stderr)
            for s in self.servers:
                with contextlib.suppress(OSError):
                    with open(s.log, errors="replace") as f:
                        print(f"--- log of {s.name} ---\n{f.read()[-3000:]}", file=sys.stderr)
        # What a sanitizer finds at the end shows in the exit status.
        bad = []
        for d in self.devices:
            if d.process:
                d.process.terminate()
                try:
                    code = d.process.wait(30 * SLOW)
                except subprocess.TimeoutExpired:
                    code = "nothing within its time"
                    d.process.kill()
                    d.process.wait()
                if code != 0:
                    bad.append(f"daemon of {d.name} ended with {code}: {d.log_tail()}")
            subprocess.run(["umount", "-l", d.dir], capture_output=True)
        for s in self.servers:
            if s.process:
                code = s.stop()
                if code != 0:
                    with open(s.log, errors="replace") as f:
                        bad.append(f"{s.name} ended with {code}: {f.read()[-3000:]}")
        shutil.rmtree(self.dir, ignore_errors=True)
        if bad and not kind:
            raise Failed("; ".join(bad))


def file_digest(path):
    h = hashlib.blake2b(digest_size=20)
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def snapshot(top, bytes_too=True, inodes=False):
    """Everything about a tree that two devices must agree on: {relative path: facts}."""
    top = os.fsencode(top)
    facts = {}
    for folder, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            one = [stat.filemode(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns]
            if inodes:
                one.append(st.st_ino)
            if stat.S_ISLNK(st.st_mode):
                one.append(os.readlink(path))
            elif stat.S_ISREG(st.st_mode):
                one += [st.st_size, st.st_nlink]
                if bytes_too:
                    one.append(file_digest(path))
            elif not stat.S_ISDIR(st.st_mode):
                one.append(st.st_rdev)
            try:
                one.append([(n, os.getxattr(path, n, follow_symlinks=False))
                            for n in sorted(os.listxattr(path, follow_symlinks=False))])
            except OSError:
                one.append(None)
            facts[os.path.relpath(path, top)] = tuple(map(repr, one))
    return facts


def same_trees(a, b, **kw):
    x, y = snapshot(a, **kw), snapshot(b, **kw)
    check(len(x) > 0, "an empty tree proves nothing:", a)
    for path in sorted(x.keys() | y.keys()):
        if x.get(path) != y.get(path):
            raise Failed(f"{os.fsdecode(path)!r} differs: {x.get(path)} / {y.get(path)} "
                         f"({len(x)} and {len(y)} paths)")
    return len(x)


def main(tests):
    """Runs the functions whose names the arguments name (default: all)."""
    wanted = sys.argv[1:]
    passed = failed = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        start = time.monotonic()
        try:
            test()
            passed += 1
            verdict = "ok"
        except Exception:  # the verdict of any failure is the same
            traceback.print_exc()
            failed += 1
            verdict = "FAILED"
        print(f"{verdict} {test.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed or not passed else 0)
