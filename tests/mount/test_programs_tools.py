#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What shells and package tools do all day: pipes, sockets, locks, watches, deep and wide trees."""

import ctypes
import errno
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import threading

from harness import SLOW, Lab, check, equal, main
from programs import program, settle, variants

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = ctypes.c_void_p
LIBC.readdir.restype = ctypes.c_void_p
LIBC.telldir.restype = ctypes.c_long


class Listing:
    """opendir() and its family, one name at a time."""

    def __init__(self, path):
        self.dir = ctypes.c_void_p(LIBC.opendir(os.fsencode(path)))
        check(self.dir.value, "opendir", path)

    def next(self):
        p = LIBC.readdir(self.dir)
        return ctypes.string_at(p + 19).decode() if p else None

    def take(self, n=None):
        """The next n names, or the rest; without the dots."""
        names = []
        while n is None or len(names) < n:
            name = self.next()
            if name is None:
                break
            if name not in (".", ".."):
                names.append(name)
        return names

    def tell(self):
        return LIBC.telldir(self.dir)

    def seek(self, place):
        LIBC.seekdir(self.dir, ctypes.c_long(place))

    def rewind(self):
        LIBC.rewinddir(self.dir)

    def close(self):
        LIBC.closedir(self.dir)


def fill(folder, n):
    os.mkdir(folder)
    for i in range(n):
        os.close(os.open(os.path.join(folder, f"f{i:06}"), os.O_CREAT | os.O_WRONLY))
    return [f"f{i:06}" for i in range(n)]


def once_each(names, stay, where):
    """POSIX: what is there throughout is listed exactly once; the rest at most once."""
    equal(len(names), len(set(names)), where, "listed twice:",
          sorted({n for n in names if names.count(n) > 1})[:5] if len(names) < 20000 else "")
    check(not stay - set(names), where, "missed:", len(stay - set(names)),
          sorted(stay - set(names))[:5])


def test_listing_while_names_change():
    """Listings that are under way while others add, remove and list anew."""
    with Lab() as lab:
        _, a, _ = lab.pair()
        folder = a.path("d")
        stay = set(fill(folder, 4000))
        for cached in (False, True):
            if cached:
                os.listdir(folder)
            first = Listing(folder)
            got = first.take(1000)
            for i in range(700):
                open(os.path.join(folder, f"a{cached}{i:06}"), "w").close()
            gone = [f"f{i:06}" for i in range(0, 900, 3)]
            for name in gone:
                if os.path.exists(os.path.join(folder, name)):
                    os.unlink(os.path.join(folder, name))
            stay -= set(gone)
            # Another reader of what is there now; what the kernel remembers is that, then.
            once_each(os.listdir(folder), stay, "the second listing")
            got += first.take(500)
            for i in range(100):
                os.rename(os.path.join(folder, f"a{cached}{i:06}"),
                          os.path.join(folder, f"z{cached}{i:06}"))
            once_each(os.listdir(folder), stay, "the third listing")
            got += first.take()
            first.close()
            once_each(got, stay, f"the first listing, cached {cached}")


def test_remote_changes_while_listing():
    with Lab() as lab:
        _, a, b = lab.pair()
        stay = set(fill(a.path("d"), 3000))
        settle(a, b)
        os.listdir(b.path("d"))
        first = Listing(b.path("d"))
        got = first.take(1000)
        for i in range(500):
            open(a.path("d", f"a{i:06}"), "w").close()
        settle(a, b)
        once_each(os.listdir(b.path("d")), stay, "a listing after it")
        got += first.take()
        first.close()
        once_each(got, stay, "the listing under way")


def test_telldir():
    """A place that telldir() gave leads back to it, also after what is before it has gone."""
    with Lab() as lab:
        _, a, _ = lab.pair()
        names = fill(a.path("d"), 3000)
        for cached in (False, True):
            if cached:
                os.listdir(a.path("d"))
            listing = Listing(a.path("d"))
            places = {}
            while True:
                place = listing.tell()
                name = listing.next()
                if name is None:
                    break
                places[name] = place
            equal(len(places), len(names) + 2, "names")
            rng = random.Random(1)
            for name in rng.sample(sorted(places), 200):
                listing.seek(places[name])
                equal(listing.next(), name, "behind seekdir()")
            listing.rewind()
            equal(sorted(listing.take()), sorted(names), "rewound")
            listing.close()
            listing = Listing(a.path("d"))
            before = listing.take(500)
            place = listing.tell()
            after = listing.take(10)
            for name in before[:200]:
                os.unlink(a.path("d", name))
            names = [n for n in names if n not in before[:200]]
            os.listdir(a.path("d"))
            listing.seek(place)
            equal(listing.take(10), after, "the same place")
            listing.close()


def test_wide_directory():
    """Many names (VARVE_TEST_WIDE says how many), listed while a thread adds and removes others."""
    n = int(os.environ.get("VARVE_TEST_WIDE", 20000))
    with Lab() as lab:
        _, a, b = lab.pair()
        folder = a.path("wide")
        stay = set(fill(folder, n))
        stop, changed = threading.Event(), [0]

        def churn():
            rng, mine = random.Random(2), []
            while not stop.is_set():
                if len(mine) > 300 or (mine and rng.random() < 0.4):
                    os.unlink(mine.pop(rng.randrange(len(mine))))
                else:
                    mine.append(os.path.join(folder, f"{rng.choice('aefgz')}{rng.random()}"))
                    os.close(os.open(mine[-1], os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                changed[0] += 1

        t = threading.Thread(target=churn)
        t.start()
        try:
            for round_no in range(4):
                once_each(os.listdir(folder), stay, f"round {round_no}")
        finally:
            stop.set()
            t.join()
        check(changed[0] > 20, "changes while it was listed:", changed[0])
        once_each(os.listdir(folder), stay, "at rest")
        settle(a, b)
        equal(sorted(os.listdir(b.path("wide"))), sorted(os.listdir(folder)), "on the other device")
        shutil.rmtree(folder)
        settle(a, b)
        check(not os.path.exists(b.path("wide")), "gone there, too")


def pipes(a):
    os.mkfifo(a.path("pipe"))
    writer = subprocess.Popen(["sh", "-c", "seq 1 20000 > \"$0\"", a.path("pipe")])
    out = program("sh", "-c", "wc -l < \"$0\"", a.path("pipe"))
    equal((out.strip(), writer.wait(60)), ("20000", 0), "through a fifo")


def sockets(a):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        path = a.path(f"socket-{int(kind)}")
        with socket.socket(socket.AF_UNIX, kind) as server:
            server.bind(path)
            try:
                socket.socket(socket.AF_UNIX, kind).bind(path)
                raise AssertionError("bound twice")
            except OSError as e:
                equal(e.errno, errno.EADDRINUSE, "bind")
            if kind == socket.SOCK_STREAM:
                server.listen()
            with socket.socket(socket.AF_UNIX, kind) as client:
                client.connect(path)
                client.send(b"hello")
                end = server.accept()[0] if kind == socket.SOCK_STREAM else server
                equal(end.recv(100), b"hello", "through a socket")
                if end is not server:
                    end.close()


def locks(a):
    """flock(1) in two processes: one after the other, or not at all."""
    path = a.path("lock")
    script = "n=$(cat count); sleep 0.01; echo $((n + 1)) > count"
    with open(a.path("count"), "w") as f:
        f.write("0\n")
    many = [subprocess.Popen(["flock", path, "sh", "-c", script], cwd=a.dir) for _ in range(8)]
    for p in many:
        equal(p.wait(60 * SLOW), 0, "flock")
    with open(a.path("count")) as f:
        equal(f.read(), "8\n", "counted under the lock")
    holder = subprocess.Popen(["flock", path, "sh", "-c", "echo held; read x"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    equal(holder.stdout.readline(), b"held\n", "holder")
    equal(program("flock", "-n", path, "true", fail=False).returncode, 1, "held by another")
    holder.communicate(b"\n")
    equal(program("flock", "-n", path, "true", fail=False).returncode, 0, "free again")


def watches(a):
    """inotify tells of what is done on this mount: tail -f, file managers, development servers."""
    with open(a.path("log"), "w") as f:
        f.write("first\n")
    tail = subprocess.Popen(["tail", "-n", "+1", "-f", a.path("log")], stdout=subprocess.PIPE)
    equal(tail.stdout.readline(), b"first\n", "tail")
    with open(a.path("log"), "a") as f:
        f.write("second\n")
        f.flush()
        ready, _, _ = select.select([tail.stdout], [], [], 20 * SLOW)
        check(ready, "tail -f sees nothing")
        equal(tail.stdout.readline(), b"second\n", "tail")
    tail.kill()
    tail.wait()
    tail.stdout.close()
    fd = LIBC.inotify_init1(os.O_NONBLOCK)
    LIBC.inotify_add_watch(fd, os.fsencode(a.dir), 0xfff)
    open(a.path("watched"), "w").close()
    os.rename(a.path("watched"), a.path("moved"))
    events = os.read(fd, 65536)
    check(b"watched\0" in events and b"moved\0" in events, events)
    os.close(fd)


def newer(a):
    os.mkdir(a.path("n"))
    for name in ("old", "mark", "new"):
        with open(a.path("n", name), "w") as f:
            f.write(name)
    os.utime(a.path("n/old"), ns=(10**18, 10**18))
    os.utime(a.path("n/mark"), ns=(10**18, 10**18 + 1))
    equal(program("find", a.path("n"), "-type", "f", "-newer", a.path("n/mark")).split(),
          [a.path("n/new")], "newer")
    equal(program("find", a.path("n"), "-samefile", a.path("n/new")).split(), [a.path("n/new")],
          "samefile")
    program("sh", "-c", "test n/mark -nt n/old && test n/old -ot n/mark", cwd=a.dir)


def deep(a):
    """A path that is longer than PATH_MAX, made and removed a step at a time."""
    top = a.path("deep")
    program(sys.executable, "-c", "import os, sys\n"
            "os.mkdir(sys.argv[1]); os.chdir(sys.argv[1])\n"
            "for n in range(1000):\n"
            "    name = 'level-%d' % n\n"
            "    os.mkdir(name); os.chdir(name)\n"
            "    open('leaf', 'w').close()\n", top)
    equal(len(program("find", top, "-name", "leaf", "-printf", "x")), 1000, "leaves")
    equal(program("du", "-s", "--inodes", top).split()[0], "2001", "du counts")
    program("mv", top, a.path("deeper"))
    program("rm", "-rf", a.path("deeper"))
    check(not os.path.exists(a.path("deeper")), "rm -rf")
    # One stays, for the other device.
    os.makedirs(a.path(*["down"] * 300))


def moves(a):
    os.makedirs(a.path("m/one/inner"))
    os.makedirs(a.path("m/two"))
    with open(a.path("m/one/inner/f"), "w") as f:
        f.write("f")
    program("mv", a.path("m/one"), a.path("m/two"))
    equal(os.listdir(a.path("m/two/one/inner")), ["f"], "moved")
    r = program("mv", a.path("m/two"), a.path("m/two/one"), fail=False)
    check(r.returncode and "subdirectory of itself" in r.stderr, r.stderr)
    os.chdir(a.path("m/two/one/inner"))
    os.rename(a.path("m/two"), a.path("m/three"))
    equal(os.getcwd(), a.path("m/three/one/inner"), "the working folder moved, too")
    os.chdir("/")


def sorting(a):
    with open(a.path("numbers"), "w") as f:
        rng = random.Random(5)
        f.writelines(f"{rng.randrange(10**9)}\n" for _ in range(100000))
    program("sort", "-n", "-S", "200K", "-T", a.dir, "-o", a.path("numbers"), a.path("numbers"))
    program("sort", "-nc", a.path("numbers"))
    program("split", "-n", "l/8", a.path("numbers"), a.path("part-"))
    program("sh", "-c", "cat part-* | cmp - numbers", cwd=a.dir)
    program("dd", f"if={a.path('numbers')}", f"of={a.path('dd')}", "bs=777", "conv=fsync",
            "oflag=append", "status=none")
    program("cmp", a.path("numbers"), a.path("dd"))
    program("truncate", "-s", "100", a.path("dd"))
    program("shred", "-u", a.path("dd"))


def environment(a):
    """A Python environment: symlinks, scripts that name the mount, modules that are mapped."""
    program("python3", "-m", "venv", "--without-pip", a.path("venv"))
    python = a.path("venv/bin/python")
    site = program(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    with open(os.path.join(site, "mine.py"), "w") as f:
        f.write("print('imported')\n")
    equal(program(python, "-c", "import mine"), "imported\n", "import")
    check(os.listdir(os.path.join(site, "__pycache__")), "compiled")
    equal(program(python, "-c", "import mine"), "imported\n", "import, compiled")


def node_modules(a):
    """What npm and pnpm leave: many small packages, and symlinks from everywhere to them."""
    top = a.path("node_modules")
    os.makedirs(os.path.join(top, ".bin"))
    for n in range(300):
        store = os.path.join(top, ".store", f"p{n}@1.{n}.0", "node_modules", f"p{n}")
        os.makedirs(os.path.join(store, "lib"))
        for name in ("package.json", "index.js", "lib/main.js"):
            with open(os.path.join(store, name), "w") as f:
                f.write(f"// {n} {name}\n")
        os.symlink(os.path.relpath(store, top), os.path.join(top, f"p{n}"))
        os.symlink(f"../p{n}/index.js", os.path.join(top, ".bin", f"p{n}"))
        if n:
            os.symlink(f"../../p{n - 1}@1.{n - 1}.0/node_modules/p{n - 1}",
                       os.path.join(os.path.dirname(store), f"p{n - 1}"))
    with open(os.path.join(top, ".bin", "p7")) as f:
        equal(f.read(), "// 7 index.js\n", "through the symlinks")
    equal(len(program("find", "-L", top, "-maxdepth", "2", "-name", "index.js").split()), 300,
          "followed")
    program("cp", "-a", top, a.path("copy_of_modules"))
    program("diff", "-r", "--no-dereference", top, a.path("copy_of_modules"))
    program("rm", "-rf", a.path("copy_of_modules"))


def packages(a):
    """dpkg-deb makes and unpacks an archive on the mount."""
    top = a.path("package")
    os.makedirs(os.path.join(top, "DEBIAN"))
    os.makedirs(os.path.join(top, "usr/share/doc/p"))
    with open(os.path.join(top, "DEBIAN/control"), "w") as f:
        f.write("Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m <m@example.org>\n"
                "Description: d\n")
    for n in range(50):
        with open(os.path.join(top, f"usr/share/doc/p/{n}"), "w") as f:
            f.write("text\n" * n)
    program("dpkg-deb", "-b", top, a.path("p.deb"))
    program("dpkg-deb", "-x", a.path("p.deb"), a.path("unpacked"))
    program("diff", "-r", os.path.join(top, "usr"), a.path("unpacked/usr"))


def work(a):
    for step in (pipes, sockets, locks, watches, newer, deep, moves, sorting, environment,
                 node_modules, packages):
        step(a)


if __name__ == "__main__":
    main(variants("tools", work) + [test_listing_while_names_change,
                                    test_remote_changes_while_listing, test_telldir,
                                    test_wide_directory])
