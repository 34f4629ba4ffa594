#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Full disks: below the cache folder at every stage, out of inodes, and at the server. Whoever
writes hears of it, nothing that was accepted is lost, and all goes on by itself."""

import contextlib
import errno
import os
import random
import subprocess
import threading
import time

from harness import VARVE, Failed, Lab, check, equal, main, run, same_trees, until

FULL = (errno.ENOSPC, errno.EDQUOT)
# What programs see of a mount whose daemon has died, until the next one serves.
DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EBADF, errno.EPERM)


@contextlib.contextmanager
def small_disk(folder, options, kind="tmpfs"):
    """A file system of its own below the folder; an ext4 image, or a tmpfs."""
    os.makedirs(folder, exist_ok=True)
    image = folder + ".img"
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)
    else:
        run("truncate", "-s", options, image)
        run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        run("mount", "-o", "loop", image, folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(image)


@contextlib.contextmanager
def nothing_below(folder):
    """Between a dead mount and the next one, nobody writes into the folder itself."""
    run("chattr", "+i", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True)
        run("chattr", "-i", folder)


@contextlib.contextmanager
def device_on(lab, server, options, kind="tmpfs", name="a"):
    d = lab.device(name, server, login=False)
    with small_disk(d.home, options, kind):
        d.varve("login", server.url, "--user", "alice", "--password-file", server.password,
                "--device", name)
        try:
            yield d
            if d.process:
                d.umount()
        finally:
            if d.process:
                d.kill()
            subprocess.run(["umount", "-l", d.dir], capture_output=True)


class Filler:
    """Somebody else, who takes all room that there is."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "filler")

    def fill(self, leave=0):
        with open(self.path, "ab", buffering=0) as f:
            for size in (1 << 20, 65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while size > 1 or leave == 0:
                        st = os.statvfs(self.path)
                        if st.f_bavail * st.f_frsize < leave + size:
                            break
                        f.write(bytes(size))

    def free(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def settle(*devices):
    for _ in range(2):
        for d in devices:
            d.wait(300)


def refused(action):
    """ENOSPC, and not anything else."""
    try:
        action()
    except OSError as e:
        check(e.errno in FULL, "errno", e)
        return True
    return False


def works_again(action, what):
    def attempt():
        action()
        return True
    until(attempt, 60, what)


def each_stage(lab, a, b):
    """A disk that somebody else fills to the last byte, at every stage of the work."""
    filler = Filler(a.home)
    rng = random.Random(1)
    kept = rng.randbytes(100000)
    a.write("kept", kept)
    os.mkdir(a.path("d"))
    big = open(a.path("big"), "wb", buffering=0)
    big.write(rng.randbytes(3 << 20))
    small = open(a.path("small"), "wb", buffering=0)
    small.write(b"small")
    b.wait()
    b.write("remote", rng.randbytes(2 << 20))
    b.wait()
    a.wait()
    filler.fill()

    # Writers, small and large, and every change of the tree.
    check(refused(lambda: [big.write(bytes(1 << 20)) for _ in range(64)]), "a large file grew")
    ops = {
        "create": lambda: a.write("new", b"n" * 100000),
        "mkdir": lambda: os.mkdir(a.path("newdir")),
        "rename": lambda: os.rename(a.path("d"), a.path("dd")),
        "setxattr": lambda: os.setxattr(a.path("kept"), "user.x", b"1" * 5000),
        "symlink": lambda: os.symlink("x" * 4000, a.path("link")),
        "chmod": lambda: os.chmod(a.path("kept"), 0o600),
    }
    for name, op in ops.items():
        check(refused(op), name, "was accepted by a full disk")
    equal(a.read("kept"), kept, "what was there can be read")
    equal(sorted(os.listdir(a.dir)), sorted(["kept", "d", "big", "small", "remote"]), "names")
    # Reading what is not here needs room; what does not fit is an error, not wrong bytes.
    try:
        equal(len(a.read("remote")), 2 << 20, "remote bytes")
    except OSError as e:
        check(e.errno in FULL + (errno.EIO,), e)
    b.write("remote2", b"while it was full")
    b.wait()

    filler.free()
    for name, op in ops.items():
        works_again(op, name + " again")
    big.write(b"end")
    small.write(b" goes on")
    big.close()
    small.close()
    settle(a, b)
    equal(a.read("remote2"), b"while it was full", "the pull went on by itself")
    equal(b.read("small"), b"small goes on", "small")
    check(b.read("big").endswith(b"end"), "big")
    check(len(a.read("remote")) == 2 << 20, "remote")
    same_trees(a.dir, b.dir)


def test_each_stage():
    with Lab() as lab:
        s = lab.server()
        b = lab.device("b", s)
        b.mount()
        with device_on(lab, s, "size=160m") as a:
            a.mount()
            each_stage(lab, a, b)


def test_each_stage_on_ext4():
    with Lab() as lab:
        s = lab.server()
        b = lab.device("b", s)
        b.mount()
        with device_on(lab, s, "200M", "ext4") as a:
            a.mount()
            each_stage(lab, a, b)


def test_full_of_what_is_not_sent():
    """Everything in the cache is unsent, so nothing can go: deleting works all the same, and there
    is room when the server is back."""
    with Lab() as lab:
        s = lab.server()
        with device_on(lab, s, "size=160m") as a:
            a.mount()
            a.wait()
            s.stop()
            rng = random.Random(2)
            n = 0
            with contextlib.suppress(OSError):
                while n < 400:
                    a.write(f"f{n}", rng.randbytes(1 << 20))
                    n += 1
            check(20 < n < 400, n, "MiB accepted")
            for i in range(0, n, 2):
                os.unlink(a.path(f"f{i}"))
            check(len(os.listdir(a.dir)) <= n // 2 + 1, "names")
            s.start()
            works_again(lambda: a.write("after", b"x" * (4 << 20)), "room again")
            b = lab.device("b", s).mount()
            settle(a, b)
            rng = random.Random(2)
            for i in range(n):
                data = rng.randbytes(1 << 20)
                if i % 2:
                    check(b.read(f"f{i}") == data, f"f{i}")
            a.umount()


def work(device, rng, promised, stop, end):
    """Files that appear by rename, folders, attributes; what is refused is not promised."""
    n = 0
    while not stop.is_set():
        n += 1
        name = f"w{rng.randrange(25)}"
        data = b"%d:" % n + rng.randbytes(rng.choice((10, 3000, 90000, 700000)))
        try:
            with open(device.path(name + ".tmp"), "wb", buffering=0) as f:
                if f.write(data) != len(data):
                    continue
            os.rename(device.path(name + ".tmp"), device.path(name))
            promised[name] = data
            if n % 5 == 0:
                os.setxattr(device.path(name), "user.n", b"%d" % n)
            if n % 9 == 0:
                promised.pop(name)
                os.unlink(device.path(name))
        except OSError as e:
            if e.errno not in FULL + (errno.ENOENT,) + DEAD:
                end.append(e)
                return
            if e.errno != errno.ENOENT:
                time.sleep(0.002)


def fill_at_random(device, filler, seconds, rng):
    """Every fourth time the daemon is killed while there is no room."""
    end = time.monotonic() + seconds
    fills = kills = 0
    while time.monotonic() < end:
        time.sleep(rng.random() * 0.2)
        filler.fill()
        fills += 1
        if fills % 4 == 0:
            with contextlib.suppress(Failed, ValueError, KeyError, ProcessLookupError):
                os.kill(device.status()["pid"], 9)
                kills += 1
        time.sleep(rng.random() * 0.4)
        filler.free()
        if fills % 4 == 0:
            until(lambda: os.listdir(device.dir), 60, "the next daemon serves")
    return fills, kills


def check_promised(device, promised, what):
    for name, data in promised.items():
        got = device.read(name)
        check(got == data or int(got[:20].split(b":")[0] or b"-1") > int(data.split(b":")[0]),
              what, name, "went back or is damaged: got", got[:20], len(got), "want", data[:20],
              len(data), sorted(os.listdir(device.dir)))


def test_somebody_fills_the_disk_at_random():
    seed = int(os.environ.get("VARVE_TEST_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    with Lab() as lab:
        s = lab.server()
        b = lab.device("b", s).mount()
        with device_on(lab, s, "size=192m") as a, nothing_below(a.dir):
            a.mount("--supervise")
            rng, promised, stop, end = random.Random(seed), {}, threading.Event(), []
            t = threading.Thread(target=work, args=(a, rng, promised, stop, end))
            t.start()
            try:
                fills, kills = fill_at_random(a, Filler(a.home), 12, random.Random(seed + 1))
            finally:
                stop.set()
                t.join()
            check(fills > 4 and kills > 0, "fills", fills, "kills", kills)
            with open(os.path.join(lab.dir, "dev-a.log"), errors="replace") as f:
                deaths = f.read().count("was ended by signal")
            print("fills", fills, "kills", kills, "deaths", deaths)
            equal(deaths, kills, "it died of nothing but our kills")
            check(not end, "the writer saw", end)
            until(lambda: os.listdir(a.dir), 60, "the mount answers")
            check_promised(a, promised, "after the fills")
            settle(a, b)
            same_trees(a.dir, b.dir)
            check_promised(b, promised, "on the other device")
            r = a.varve("doctor", a.dir)
            check("All is well" in r.stdout, r.stdout)
            a.umount()


def test_no_inodes():
    with Lab() as lab:
        s = lab.server()
        b = lab.device("b", s).mount()
        with device_on(lab, s, "size=300m,nr_inodes=300") as a:
            a.mount()
            a.write("kept", b"k" * 300000)
            a.wait()
            others = os.path.join(a.home, "others")
            os.mkdir(others)
            made = 0
            with contextlib.suppress(OSError):
                while True:
                    open(os.path.join(others, str(made)), "wb").close()
                    made += 1
            rng = random.Random(4)
            accepted = {}
            for n in range(40):
                data = rng.randbytes(rng.choice((100, 200000, 5 << 20)))
                with contextlib.suppress(OSError):
                    a.write(f"f{n}", data)
                    accepted[f"f{n}"] = data
            for name, data in accepted.items():
                check(a.read(name) == data, name)
            for n in range(made):
                os.unlink(os.path.join(others, str(n)))
            works_again(lambda: a.write("again", rng.randbytes(5 << 20)), "a write again")
            settle(a, b)
            for name, data in accepted.items():
                check(b.read(name) == data, name, "on the other device")
            same_trees(a.dir, b.dir)


def test_starting_on_a_full_disk():
    """Login and mount refuse with words; a supervised daemon waits for room."""
    with Lab() as lab:
        s = lab.server()
        with device_on(lab, s, "size=160m") as a:
            filler = Filler(a.home)
            a.mount()
            a.write("f", b"f" * 50000)
            fd = os.open(a.path("open"), os.O_WRONLY | os.O_CREAT)
            os.write(fd, b"accepted")
            a.kill()
            with contextlib.suppress(OSError):
                os.close(fd)
            filler.fill()
            r = a.varve("mount", a.dir, fail=False)
            equal(r.returncode, 1, r.stderr)
            check("full" in r.stderr or "No space" in r.stderr, r.stderr)
            other = dict(a.env, VARVE_HOME=os.path.join(a.home, "other"))
            r = run(VARVE, "login", s.url, "--user", "alice", "--password-file", s.password,
                    "--device", "other", env=other, fail=False)
            equal(r.returncode, 1, r.stderr)
            check("No space" in r.stderr or "full" in r.stderr, r.stderr)
            check("problem" in a.varve("doctor", fail=False).stdout, "the doctor works all the same")
            filler.free()
            a.mount("--supervise")
            equal(a.read("f"), b"f" * 50000)
            equal(a.read("open"), b"accepted")
            filler.fill()
            os.kill(a.status()["pid"], 9)
            until(lambda: "status 75" in a.log_tail(), 30, "it cannot be started again")
            check(a.process.poll() is None, "the supervisor gave up")
            filler.free()
            until(lambda: a.read("f") == b"f" * 50000, 30, "it serves again")
            a.umount()


def test_full_disk_of_the_server():
    with Lab() as lab:
        with small_disk(os.path.join(lab.dir, "server"), "size=64m") as data:
            s = lab.server()
            a = lab.device("a", s).mount()
            a.write("before", b"b" * 100000)
            a.wait()
            filler = Filler(data)
            filler.fill()
            rng = random.Random(6)
            want = {f"f{n}": rng.randbytes(size) for n, size in enumerate((10, 3000, 1 << 20))}
            for name, bytes_ in want.items():
                a.write(name, bytes_)
            equal(a.varve("wait", a.dir, "--timeout", "3", fail=False).returncode, 1)
            status = a.status()
            check(status["outbox_entries"] > 0, status)
            check("full" in status["detail"] or "space" in status["detail"]
                  or "room" in status["detail"], status["detail"])
            equal(a.read("before"), b"b" * 100000)
            filler.free()
            a.wait()
            b = lab.device("b", s).mount()
            b.wait()
            for name, bytes_ in want.items():
                check(b.read(name) == bytes_, name)
            same_trees(a.dir, b.dir)
            a.umount()
            b.umount()
            s.stop()


TESTS = [
    test_each_stage,
    test_each_stage_on_ext4,
    test_full_of_what_is_not_sent,
    test_somebody_fills_the_disk_at_random,
    test_no_inodes,
    test_starting_on_a_full_disk,
    test_full_disk_of_the_server,
]

if __name__ == "__main__":
    main(TESTS)
