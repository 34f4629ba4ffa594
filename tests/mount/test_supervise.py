#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The supervisor, and mounts that dead daemons left."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import time

from harness import SLOW, Lab, check, equal, main, run, until


def daemon_pid(device):
    """Of the daemon that serves; the supervisor is its parent."""
    status = device.varve("status", device.dir, "--json", fail=False)
    check(status.returncode == 0, status.stderr)
    s = json.loads(status.stdout)
    check(s["link"] not in ("dead", "no answer"), s)
    return s["pid"]


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rsplit(")", 1)[1].split()[1])


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def new_daemon(device, old):
    def look():
        pid = daemon_pid(device)
        return pid != old and os.path.ismount(device.dir) and pid
    return until(look, 30, "a new daemon")


def crash(device, sig):
    pid = daemon_pid(device)
    os.kill(pid, sig)
    return new_daemon(device, pid)


def test_daemon_is_started_again():
    """SIGKILL, SIGSEGV, SIGABRT; in the background, by the exit of the command; umount ends it."""
    with Lab() as lab:
        s = lab.server()
        a = lab.device("a", s)
        a.varve("mount", a.dir, "--supervise")
        pid = daemon_pid(a)
        supervisor = parent_of(pid)
        a.write("f", b"before")
        fd = os.open(a.path("open"), os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"accepted")
        for sig in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
            crash(a, sig)
            equal(a.read("f"), b"before", sig)
            equal(a.read("open"), b"accepted", sig)
            # What was open belongs to the mount that died.
            try:
                os.write(fd, b"more")
                raise AssertionError("a dead mount took a write")
            except OSError as e:
                check(e.errno in (errno.ENOTCONN, errno.EIO, errno.ECONNABORTED), e)
        with contextlib.suppress(OSError):
            os.close(fd)
        # Nobody else gets the drive, not even while the daemon is dead.
        other = os.path.join(lab.dir, "elsewhere")
        os.mkdir(other)
        pid = daemon_pid(a)
        os.kill(pid, signal.SIGKILL)
        r = a.varve("mount", other, fail=False)
        equal(r.returncode, 1, r.stderr)
        check("already mounted" in r.stderr or "being mounted" in r.stderr, r.stderr)
        pid = new_daemon(a, pid)
        a.varve("umount", a.dir)
        until(lambda: not alive(supervisor) and not alive(pid), what="both end")
        check(not os.path.ismount(a.dir))
        a.mount()
        equal(a.read("f"), b"before")


def test_signals_pass_through():
    with Lab() as lab:
        a = lab.device("a", lab.server())
        for sig in (signal.SIGTERM, signal.SIGINT):
            a.mount("--supervise")
            pid = daemon_pid(a)
            equal(parent_of(pid), a.process.pid, "the foreground is the supervisor")
            a.write(f"f{int(sig)}", b"1")
            a.process.send_signal(sig)
            equal(a.process.wait(60 * SLOW), 0, sig)
            a.process = None
            check(not alive(pid) and not os.path.ismount(a.dir))
        # Taken away from outside: a clean end, too.
        a.mount("--supervise")
        run("umount", a.dir)
        equal(a.process.wait(60 * SLOW), 0, "after umount(8)")
        a.process = None


def test_gives_up_when_it_dies_over_and_over():
    with Lab() as lab:
        a = lab.device("a", lab.server())
        a.mount("--supervise", env={"VARVE_FAULT": "seal.begin:1:kill"})
        begin = time.monotonic()
        n = 0
        while a.process.poll() is None and time.monotonic() - begin < 90 * SLOW:
            try:
                a.write(f"f{n}", b"x")
                n += 1
            except OSError:
                time.sleep(0.01)
        equal(a.process.wait(1), 1, "exit status")
        a.process = None
        check("giving up" in a.log_tail(), a.log_tail())
        # Programs see that it is dead, and write nothing below the mount.
        with open("/proc/self/mountinfo") as f:
            check(f" {a.dir} " in f.read(), "the dead mount is gone")
        a.mount()
        check(len(os.listdir(a.dir)) > 0)


def test_first_start_that_fails_is_told():
    with Lab() as lab:
        s = lab.server()
        a = lab.device("a", s)
        s.stop()
        for args in ((), ("-f",)):
            r = a.varve("mount", a.dir, "--supervise", *args, fail=False)
            equal(r.returncode, 1, r.stderr)
            check("server" in r.stderr or "connect" in r.stderr, r.stderr)
        s.start()
        store = os.path.join(a.home, "drives")
        a.mount("--supervise")
        pid = daemon_pid(a)
        # Two commands at once, supervised and not: one serves.
        r = a.varve("mount", a.dir, fail=False)
        equal(r.returncode, 1)
        check("already mounted" in r.stderr, r.stderr)
        equal(daemon_pid(a), pid)
        check(os.path.isdir(store))


def test_stale_mounts_are_taken_over():
    """Somebody's folder is inside; several lie over each other; the mountpoint is a symlink."""
    with Lab() as lab:
        s = lab.server()
        a = lab.device("a", s).mount()
        os.mkdir(a.path("sub"))
        a.write("sub/f", b"1")
        inside = subprocess.Popen(["sleep", "1000"], cwd=a.path("sub"))
        try:
            a.kill()
            a.mount()
            equal(a.read("sub/f"), b"1", "with a process inside the old mount")
            a.kill()
            a.mount()
            equal(a.read("sub/f"), b"1", "again")
        finally:
            inside.kill()
            inside.wait()
        a.umount()
        check(not os.path.ismount(a.dir), "nothing is left below")

        # Stacked: a second device mounts over the dead mount of the first.
        b = lab.device("b", s)
        a.mount()
        a.kill()
        b.dir, other = a.dir, b.dir
        b.mount()
        b.wait()
        equal(b.read("sub/f"), b"1", "over a dead mount")
        b.kill()
        run("mount", "--bind", a.home, a.dir, fail=False)
        subprocess.run(["umount", "-l", a.dir])
        a.mount()
        equal(a.read("sub/f"), b"1", "over two dead mounts")
        a.umount()
        check(not os.path.ismount(a.dir), "all of the stack is gone")
        b.dir = other

        real, link = a.dir, os.path.join(lab.dir, "link")
        os.symlink(real, link)
        a.dir = link
        a.mount()
        a.write("through", b"2")
        a.kill()
        a.mount()
        equal(a.read("through"), b"2", "through a symlink")
        equal(a.varve("status", link, "--json").returncode, 0)
        a.kill()
        a.varve("umount", link)
        check(not os.path.ismount(real))
        a.dir = real


TESTS = [
    test_daemon_is_started_again,
    test_signals_pass_through,
    test_gives_up_when_it_dies_over_and_over,
    test_first_start_that_fails_is_told,
    test_stale_mounts_are_taken_over,
]

if __name__ == "__main__":
    main(TESTS)
