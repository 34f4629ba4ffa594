#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What one device does appears on the other: every kind of change, cached or open or mapped."""

import errno
import mmap
import os
import random
import socket
import stat
import threading

from harness import Lab, check, equal, main, same_trees, snapshot, until


def settle(*devices):
    """Until every device has sent what it has and seen what there is."""
    for d in devices:
        d.wait()
    for d in devices:
        d.wait()


def both_ways(one, other, step):
    """Runs the step on each device in turn, and compares the trees after each."""
    for n, (here, there) in enumerate(((one, other), (other, one))):
        step(here, there, f"d{n}")
        settle(here, there)
        same_trees(here.dir, there.dir, inodes=True)


def every_kind(here, there, top):
    p = lambda *parts: here.path(top, *parts)
    os.mkdir(p())
    for name in ("plain", "victim", "trunc", "grow", "modes", "times", "attrs", "linked", "old"):
        here.write(f"{top}/{name}", f"{name} bytes\n" * 100)
    os.mkdir(p("sub"))
    os.mkdir(p("sub/deep"))
    here.write(f"{top}/sub/deep/leaf", b"leaf")
    os.mkdir(p("empty"))
    here.write(f"{top}/big", random.Random(7).randbytes(3 << 20))
    settle(here, there)
    same_trees(here.dir, there.dir)

    with open(p("plain"), "r+b") as f:
        f.seek(500)
        f.write(b"changed in the middle")
    os.truncate(p("trunc"), 10)
    os.truncate(p("grow"), 300000)
    os.unlink(p("victim"))
    os.rmdir(p("empty"))
    os.chmod(p("modes"), 0o4751)
    os.chown(p("modes"), 1234, 4321)
    os.utime(p("times"), ns=(1111111111123456789, 1222222222987654321))
    os.setxattr(p("attrs"), "user.colour", b"blue\0green")
    os.setxattr(p("attrs"), "user.gone", b"1")
    os.removexattr(p("attrs"), "user.gone")
    os.link(p("linked"), p("second"))
    os.symlink("../elsewhere/ü", p("arrow"))
    os.mkfifo(p("pipe"), 0o640)
    os.mknod(p("device"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.rename(p("old"), p("new"))
    os.rename(p("sub"), p("moved"))
    here.write(f"{top}/over.tmp", b"replaces")
    os.rename(p("over.tmp"), p("plain2"))
    here.write(f"{top}/over.tmp", b"replaces again")
    os.rename(p("over.tmp"), p("plain2"))
    with open(p("big"), "rb") as src, open(p("copy"), "wb") as dst:
        equal(os.copy_file_range(src.fileno(), dst.fileno(), 3 << 20), 3 << 20, "copied")
    here.write(f"{top}/" + "n" * 255, b"long")
    with open(os.fsencode(p()) + b"/raw-\xff\xfe", "wb") as f:
        f.write(b"raw name")
    with open(p("sparse"), "wb") as f:
        f.truncate(8 << 20)
        f.seek(5 << 20)
        f.write(b"island")


def test_every_kind_of_change():
    with Lab() as lab:
        _, a, b = lab.pair()
        both_ways(a, b, every_kind)
        st = os.stat(b.path("d0/sparse"))
        equal(st.st_size, 8 << 20, "sparse size")
        with open(b.path("d0/sparse"), "rb") as f:
            equal(os.lseek(f.fileno(), 0, os.SEEK_DATA) > 4 << 20, True, "hole before the island")
        equal(os.readlink(b.path("d0/arrow")), "../elsewhere/ü", "target")
        equal(os.stat(b.path("d1/linked")).st_nlink, 2, "links")


def test_exchange_travels():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    with Lab() as lab:
        _, a, b = lab.pair()
        a.write("x", b"xxx")
        a.write("y", b"yyyy")
        settle(a, b)
        equal((b.read("x"), b.read("y")), (b"xxx", b"yyyy"), "before")
        at = -100
        r = libc.renameat2(at, a.path("x").encode(), at, a.path("y").encode(), 2)
        equal(r, 0, "RENAME_EXCHANGE")
        settle(a, b)
        equal((b.read("x"), b.read("y")), (b"yyyy", b"xxx"), "after")
        r = libc.renameat2(at, b.path("x").encode(), at, b.path("y").encode(), 1)
        equal((r, ctypes.get_errno()), (-1, errno.EEXIST), "RENAME_NOREPLACE")


def test_whiteout_travels():
    """Both halves of the rename, and over a name that the other device has in its caches."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    with Lab() as lab:
        _, a, b = lab.pair()
        a.write("x", b"xxx")
        os.mkdir(a.path("d"))
        settle(a, b)
        equal(b.read("x"), b"xxx", "before")
        r = libc.renameat2(-100, a.path("x").encode(), -100, a.path("d/y").encode(), 4)
        equal((r, r and ctypes.get_errno()), (0, 0), "RENAME_WHITEOUT")
        a.kill()
        a.mount()
        settle(a, b)
        for d in (a, b):
            equal(d.read("d/y"), b"xxx", d.name)
            st = os.lstat(d.path("x"))
            equal((st.st_mode, st.st_rdev, st.st_uid), (stat.S_IFCHR, 0, os.geteuid()), d.name)
        same_trees(a.dir, b.dir, inodes=True)


def test_cached_files_are_invalidated():
    """B has the pages, attributes, names and absences in the kernel's cache when A changes them."""
    with Lab() as lab:
        _, a, b = lab.pair()
        sizes = {"grow": (10, 3000), "shrink": (200000, 3), "same": (5000, 5000),
                 "to-empty": (70000, 0), "large": (3 << 20, (3 << 20) + 1)}
        for n, (before, _) in sizes.items():
            a.write(n, b"A" * before)
        a.write("replaced", b"first")
        a.write("deleted", b"first")
        settle(a, b)
        for n, (before, _) in sizes.items():
            for _ in range(3):
                equal(b.read(n), b"A" * before, n)
            equal(os.stat(b.path(n)).st_size, before, n)
        check(not os.path.exists(b.path("absent")), "not there yet")
        equal(b.read("replaced"), b"first", "replaced")
        b.read("deleted")
        os.listdir(b.dir)
        os.listdir(b.dir)

        for n, (_, after) in sizes.items():
            a.write(n, b"B" * after)
        a.write("tmp", b"second bytes")
        os.rename(a.path("tmp"), a.path("replaced"))
        os.unlink(a.path("deleted"))
        a.write("absent", b"here")
        os.chmod(a.path("same"), 0o600)
        settle(a, b)
        for n, (_, after) in sizes.items():
            equal(os.stat(b.path(n)).st_size, after, "size of " + n)
            equal(b.read(n), b"B" * after, n)
        equal(b.read("replaced"), b"second bytes", "replaced")
        equal(b.read("absent"), b"here", "absent")
        check(not os.path.exists(b.path("deleted")), "deleted")
        equal(stat.S_IMODE(os.stat(b.path("same")).st_mode), 0o600, "mode")
        equal(sorted(os.listdir(b.dir)), sorted(os.listdir(a.dir)), "listing")
        same_trees(a.dir, b.dir)


def test_open_and_mapped_files():
    """Who has a file open keeps the content that he opened; who opens it anew gets the new one."""
    with Lab() as lab:
        _, a, b = lab.pair()
        for n, size in (("grow", 9000), ("shrink", 300000), ("replace", 5000)):
            a.write(n, b"1" * size)
        settle(a, b)
        held = {}
        for n in ("grow", "shrink", "replace"):
            f = open(b.path(n), "rb")
            size = os.fstat(f.fileno()).st_size
            held[n] = (f, mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ), size)
            equal(held[n][1][:10], b"1" * 10, n)
        ino = os.stat(b.path("grow")).st_ino

        a.write("grow", b"2" * 400000)
        a.write("shrink", b"2" * 5)
        a.write("tmp", b"2" * 77)
        os.rename(a.path("tmp"), a.path("replace"))
        settle(a, b)
        for n, size in (("grow", 400000), ("shrink", 5), ("replace", 77)):
            until(lambda: b.read(n) == b"2" * size, 5, n)
            equal(os.stat(b.path(n)).st_size, size, "stat of " + n)
            f, m, old = held[n]
            equal(m[:], b"1" * old, "mapping of " + n)
            f.seek(0)
            equal(f.read(), b"1" * old, "descriptor of " + n)
        equal(os.stat(b.path("grow")).st_ino, ino, "st_ino stays")
        for f, m, _ in held.values():
            m.close()
            f.close()
        a.write("grow", b"3" * 12)
        settle(a, b)
        equal(b.read("grow"), b"3" * 12, "after the old ones are closed")
        b.write("grow", b"4" * 13)
        settle(a, b)
        equal(a.read("grow"), b"4" * 13, "and back")


def test_working_directory_survives():
    with Lab() as lab:
        _, a, b = lab.pair()
        os.makedirs(a.path("x/y/z"))
        settle(a, b)
        old = os.getcwd()
        try:
            os.chdir(b.path("x/y/z"))
            a.write("x/y/z/f", b"1")
            os.rename(a.path("x/y"), a.path("x/q"))
            settle(a, b)
            equal(os.listdir("."), ["f"], "listing of the moved directory")
            with open("f", "rb") as f:
                equal(f.read(), b"1", "read")
        finally:
            os.chdir(old)
        equal(os.listdir(b.path("x")), ["q"], "new name")


def test_who_was_away_catches_up():
    with Lab() as lab:
        s, a, b = lab.pair()
        b.umount()
        every_kind(a, a, "while-away")
        a.wait()
        b.mount()
        settle(a, b)
        same_trees(a.dir, b.dir, inodes=True)
        c = lab.device("c", s).mount()
        settle(c)
        same_trees(a.dir, c.dir, inodes=True)


def test_bytes_come_when_read():
    with Lab() as lab:
        _, a, b = lab.pair()
        a.write("large", random.Random(1).randbytes(20 << 20))
        settle(a, b)
        equal(os.stat(b.path("large")).st_size, 20 << 20, "size known at once")
        check(b.status()["bytes_received"] < 1 << 20, "nothing was fetched yet:", b.status())
        with open(b.path("large"), "rb") as f:
            f.seek(10 << 20)
            f.read(4096)
        check(b.status()["bytes_received"] < 15 << 20, "not all was fetched:", b.status())
        equal(b.read("large"), a.read("large"), "bytes")


def test_write_write_conflict():
    with Lab() as lab:
        s, a, b = lab.pair()
        a.write("doc.txt", b"base\n")
        settle(a, b)
        b.read("doc.txt")
        s.stop()
        a.write("doc.txt", b"what a wrote\n")
        b.write("doc.txt", b"what b wrote, longer\n")
        s.start()
        settle(a, b)
        until(lambda: snapshot(a.dir) == snapshot(b.dir), 20, "equal trees")
        names = sorted(os.listdir(a.dir))
        equal(len(names), 2, names)
        copy = [n for n in names if n != "doc.txt"][0]
        check(copy.startswith("doc (conflicted copy, ") and copy.endswith(").txt"), copy)
        equal(sorted([a.read("doc.txt"), a.read(copy)]),
              [b"what a wrote\n", b"what b wrote, longer\n"], "both are there")


def test_same_bytes_are_no_conflict():
    with Lab() as lab:
        s, a, b = lab.pair()
        a.write("doc", b"base\n")
        settle(a, b)
        s.stop()
        a.write("doc", b"the same\n")
        b.write("doc", b"the same\n")
        a.write("new", b"made twice\n")
        b.write("new", b"made twice\n")
        os.mkdir(a.path("dir"))
        os.mkdir(b.path("dir"))
        a.write("dir/of-a", b"a")
        b.write("dir/of-b", b"b")
        s.start()
        settle(a, b)
        until(lambda: snapshot(a.dir) == snapshot(b.dir), 20, "equal trees")
        equal(sorted(os.listdir(a.dir)), ["dir", "doc", "new"], "names")
        equal(sorted(os.listdir(a.path("dir"))), ["of-a", "of-b"], "merged directory")


def test_write_wins_over_delete():
    with Lab() as lab:
        s, a, b = lab.pair()
        os.makedirs(a.path("d/e"))
        a.write("d/e/f", b"base")
        a.write("g", b"base")
        settle(a, b)
        b.read("g")
        s.stop()
        a.write("d/e/f", b"written by a")
        os.unlink(b.path("d/e/f"))
        os.rmdir(b.path("d/e"))
        os.rmdir(b.path("d"))
        os.unlink(a.path("g"))
        b.write("g", b"written by b")
        s.start()
        settle(a, b)
        until(lambda: snapshot(a.dir) == snapshot(b.dir), 20, "equal trees")
        equal(b.read("d/e/f"), b"written by a", "back, with its parents")
        equal(a.read("g"), b"written by b", "back")


class Line:
    """Between a device and the server; while it is held, nothing gets through, either way."""

    def __init__(self, server):
        self.server, self.password, self.tls = server, server.password, server.tls
        self.open = threading.Event()
        self.open.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.server.port))
            except OSError:
                return
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                self.open.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()

    def __enter__(self):
        self.open.clear()

    def __exit__(self, *_):
        self.open.set()


def test_conflict_with_an_open_dirty_file():
    """
    Bytes that are only staged when the remote change comes are not lost either. Starting a program
    closes what the program does not get, and a close seals: none is started while it is open.
    """
    with Lab() as lab:
        s = lab.server()
        line = Line(s)
        a, b = lab.device("a", s).mount(), lab.device("b", line).mount()
        a.write("f", b"base")
        settle(a, b)
        equal(b.read("f"), b"base", "before")
        with line:
            a.write("f", b"a was first")
            a.wait()
            f = open(b.path("f"), "r+b")
            f.write(b"b is still writing")
            f.flush()
            equal(b.read("f"), b"b is still writing", "nothing got through")
        with f:
            until(lambda: b.read("f") == b"a was first", 20, "theirs under the name")
            f.write(b", and done")
        settle(a, b)
        until(lambda: snapshot(a.dir) == snapshot(b.dir), 20, "equal trees")
        equal(a.read("f"), b"a was first", "theirs keeps the name")
        copies = [n for n in os.listdir(a.dir) if n != "f"]
        equal(len(copies), 1, copies)
        equal(a.read(copies[0]), b"b is still writing, and done", "ours")


def test_offline_and_back():
    with Lab() as lab:
        s, a, b = lab.pair()
        every_kind(a, b, "before")
        settle(a, b)
        same_trees(a.dir, b.dir)
        b.read("before/plain")
        a.write("before/far", random.Random(4).randbytes(1 << 20))
        settle(a, b)
        s.stop()
        until(lambda: not a.status()["synced"] or not a.status().get("online", False), 20,
              "offline is seen")
        b.umount()
        b.mount()
        equal(b.read("before/plain"), a.read("before/plain"), "cached bytes, no server")
        os.mkdir(a.path("offline-a"))
        a.write("offline-a/f", b"1" * 100000)
        os.rename(a.path("before/new"), a.path("offline-a/taken"))
        os.unlink(a.path("before/linked"))
        os.mkdir(b.path("offline-b"))
        b.write("offline-b/f", b"2" * 100000)
        os.rename(b.path("before/moved"), b.path("offline-b/moved"))
        os.truncate(b.path("before/grow"), 7)
        try:
            b.read("before/far")
            raise AssertionError("bytes that are nowhere near were read")
        except OSError as e:
            check(e.errno in (errno.ENOTCONN, errno.EIO, errno.ETIMEDOUT, errno.EHOSTUNREACH),
                  "errno", e)
        r = a.varve("wait", a.dir, "--timeout", "1", fail=False)
        equal(r.returncode, 1, "wait times out")
        s.start()
        settle(a, b)
        until(lambda: snapshot(a.dir) == snapshot(b.dir), 30, "equal trees")
        same_trees(a.dir, b.dir, inodes=True)
        equal(b.read("offline-a/f"), b"1" * 100000, "from a")
        equal(a.read("offline-b/f"), b"2" * 100000, "from b")


def test_edit_of_bytes_that_are_not_here():
    """A small edit in a large file of which nothing was fetched, with the server gone."""
    with Lab() as lab:
        s, a, b = lab.pair()
        data = bytearray(random.Random(6).randbytes(4 << 20))
        a.write("large", data)
        settle(a, b)
        s.stop()
        with open(b.path("large"), "r+b") as f:
            f.seek(2 << 20)
            f.write(b"edited while away")
        data[2 << 20:(2 << 20) + 17] = b"edited while away"
        equal(os.stat(b.path("large")).st_size, 4 << 20, "size")
        check(not b.status()["synced"], "the edit waits")
        b.umount()
        b.mount()
        equal(os.stat(b.path("large")).st_size, 4 << 20, "size after a new mount")
        s.start()
        settle(a, b)
        until(lambda: a.read("large") == data, 20, "the edit on a")
        equal(b.read("large"), bytes(data), "the edit on b")


def test_copy_shares_chunks():
    """copy_file_range moves no bytes: neither here nor to the server."""
    with Lab() as lab:
        _, a, b = lab.pair()
        data = random.Random(8).randbytes(20 << 20)
        a.write("original", data)
        settle(a)
        before = a.status()
        with open(a.path("original"), "rb") as src, open(a.path("copy"), "wb") as dst:
            done = 0
            while done < len(data):
                done += os.copy_file_range(src.fileno(), dst.fileno(), len(data) - done)
        settle(a, b)
        after = a.status()
        check(after["bytes_sent"] - before["bytes_sent"] < 100000, "sent:", before, after)
        check(after["cache_bytes"] - before["cache_bytes"] < 1 << 20, "stored:", before, after)
        equal(b.read("copy"), data, "bytes of the copy")


def test_over_tls():
    with Lab() as lab:
        _, a, b = lab.pair(tls=True)
        every_kind(a, b, "tls")
        settle(a, b)
        same_trees(a.dir, b.dir)
        stranger = lab.device("stranger", lab.servers[0], login=False)
        r = stranger.varve("login", lab.servers[0].url, "--user", "alice", "--password-file",
                           lab.servers[0].password, fail=False)
        equal(r.returncode, 1, "a certificate that nobody vouches for is refused")
        check("certificate" in r.stderr, r.stderr)


if __name__ == "__main__":
    main([t for n, t in list(globals().items()) if n.startswith("test_")])
