#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of daemon and server, stale mounts, second daemons, a full disk, a line that is cut."""

import errno
import os
import random
import signal
import subprocess
import threading
import time

from harness import SLOW, Lab, check, equal, main, run, same_trees, snapshot, until


def settle(*devices):
    for _ in range(2):
        for d in devices:
            d.wait(300)


def test_stale_mount_is_taken_over():
    with Lab() as lab:
        _, a, b = lab.pair()
        a.write("f", b"before")
        a.kill()
        try:
            os.stat(a.path("f"))
            raise AssertionError("a dead daemon answered")
        except OSError as e:
            equal(e.errno, errno.ENOTCONN, "stale mount")
        a.mount()
        equal(a.read("f"), b"before", "after the new mount")
        settle(a, b)
        same_trees(a.dir, b.dir)


def test_second_daemon_refuses():
    with Lab() as lab:
        _, a, _ = lab.pair()
        other = os.path.join(lab.dir, "elsewhere")
        os.mkdir(other)
        r = a.varve("mount", other, fail=False)
        equal(r.returncode, 1, "exit status")
        check("already mounted" in r.stderr, r.stderr)
        check(not os.path.ismount(other), "nothing mounted")
        a.write("f", b"the first goes on")
        equal(a.read("f"), b"the first goes on", "first daemon")


def test_mount_does_not_ask_who_hangs():
    """Where a daemon hangs, as one that was killed may, the next mount has to get past it."""
    with Lab() as lab:
        _, a, _ = lab.pair()
        a.write("f", b"now the kernel has no attributes of the root")
        a.process.send_signal(signal.SIGSTOP)
        try:
            r = a.varve("mount", a.dir, fail=False, timeout=30)
        finally:
            a.process.send_signal(signal.SIGCONT)
        equal(r.returncode, 1, "exit status")
        check("already mounted" in r.stderr, r.stderr)
        a.write("f", b"the first goes on")
        equal(a.read("f"), b"the first goes on", "first daemon")


def test_open_file_survives_kill():
    """Bytes that write() took, of a file that nobody closed, small and large."""
    with Lab() as lab:
        _, a, b = lab.pair()
        want = {}
        for size in (1, 4096, 65536, 65537, 5 << 20):
            data = random.Random(size).randbytes(size)
            want[f"open-{size}"] = data
            fd = os.open(a.path(f"open-{size}"), os.O_WRONLY | os.O_CREAT)
            done = 0
            while done < size:
                done += os.write(fd, data[done:done + 100000])
        a.write("edited", b"x" * 300000)
        settle(a)
        fd = os.open(a.path("edited"), os.O_WRONLY)
        os.pwrite(fd, b"EDIT", 150000)
        os.ftruncate(fd, 200000)
        want["edited"] = b"x" * 150000 + b"EDIT" + b"x" * 49996
        a.kill()
        a.mount()
        for name, data in want.items():
            check(a.read(name) == data, name)
        settle(a, b)
        same_trees(a.dir, b.dir)


def test_random_kills():
    """A file is one of the contents that were promised, and never older than the last promise."""
    with Lab() as lab:
        _, a, b = lab.pair()
        for round_no in range(6):
            promised, stop = {}, threading.Event()

            def work():
                rng = random.Random(round_no)
                try:
                    for n in range(1 << 30):
                        if stop.is_set():
                            return
                        name = f"r{round_no}-{rng.randrange(30)}"
                        data = b"%d:" % n + rng.randbytes(rng.choice((10, 5000, 200000)))
                        tmp = a.path(name + ".tmp")
                        with open(tmp, "wb") as f:
                            f.write(data)
                        os.rename(tmp, a.path(name))
                        promised[name] = data
                        if n % 7 == 0:
                            # Killed in between, it may be there or gone.
                            del promised[name]
                            os.unlink(a.path(name))
                            promised[name] = None
                        if n % 11 == 0:
                            os.mkdir(a.path(f"{name}.d{n}"))
                            promised[f"{name}.d{n}"] = "dir"
                except OSError:
                    pass

            t = threading.Thread(target=work)
            t.start()
            time.sleep((0.3 + random.random()) * min(SLOW, 2))
            a.kill()
            stop.set()
            t.join()
            a.mount()
            for name, data in promised.items():
                path = a.path(name)
                if data == "dir":
                    check(os.path.isdir(path), name)
                elif data is None:
                    # A rename that was in flight when the daemon died may have brought it back.
                    if os.path.exists(path):
                        int(a.read(name).split(b":")[0])
                else:
                    got = a.read(name)
                    check(got == data or int(got.split(b":")[0]) > int(data.split(b":")[0]),
                          name, "went back")
            check(len(promised) > 0, "nothing was written")
        settle(a, b)
        same_trees(a.dir, b.dir)


def test_server_killed_while_syncing():
    with Lab() as lab:
        s, a, b = lab.pair()
        for n in range(5):
            for i in range(100):
                a.write(f"k{n}-{i}", random.Random(i).randbytes(random.choice((50, 4000, 90000))))
            s.kill()
            s.start()
        settle(a, b)
        same_trees(a.dir, b.dir)
        equal(len(os.listdir(b.dir)), 500, "files")


def test_umount_keeps_what_is_unsent():
    with Lab() as lab:
        s, a, b = lab.pair()
        settle(a, b)
        s.stop()
        a.write("unsent", b"1" * 1000)
        r = a.varve("umount", a.dir)
        check("unsent" in (r.stdout + r.stderr) or "not yet" in (r.stdout + r.stderr)
              or "safe" in (r.stdout + r.stderr), "says what is unsent:", r.stdout, r.stderr)
        a.process.wait(30 * SLOW)
        a.process = None
        s.start()
        a.mount()
        settle(a, b)
        equal(b.read("unsent"), b"1" * 1000, "arrived")


def test_full_disk():
    """The cache folder on a small file system: ENOSPC for the writer, and nothing is lost."""
    with Lab() as lab:
        s = lab.server()
        a, b = lab.device("a", s, login=False), lab.device("b", s)
        run("mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", a.home)
        try:
            a.varve("login", s.url, "--user", "alice", "--password-file", s.password,
                    "--device", "a")
            a.mount()
            a.write("kept", b"k" * 100000)
            whole = 0
            try:
                with open(a.path("too-much"), "wb") as f:
                    for _ in range(400):
                        f.write(os.urandom(1 << 20))
                        f.flush()
                        whole += 1
                raise AssertionError("400 MiB fit into 160")
            except OSError as e:
                equal(e.errno, errno.ENOSPC, "errno")
            check(whole > 20, "MiB accepted:", whole)
            equal(a.read("kept"), b"k" * 100000, "what was there")
            os.unlink(a.path("too-much"))

            def fits():
                a.write("after", b"a" * 100000)
                return True
            until(fits, 30, "room again by itself")
            b.mount()
            settle(a, b)
            same_trees(a.dir, b.dir)
            a.umount()
        finally:
            if a.process:
                a.kill()
                subprocess.run(["umount", "-l", a.dir])
            run("umount", "-l", a.home)


def cache_bytes(device):
    """What the segments take of the disk, without those that are just being removed."""
    total = 0
    for folder, _, files in os.walk(device.home):
        if os.path.basename(folder) == "segments":
            for name in files:
                try:
                    total += os.stat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    pass
    return total


def test_cache_budget_holds():
    """A drive of 300 MiB through a cache of 64: written, sent, evicted, and read back the same."""
    budget = 64 << 20
    with Lab() as lab:
        s = lab.server()
        a = lab.device("a", s).mount("-o", "noatime,cache_size=64M")
        sizes = [(100 << 10)] * 100 + [3 << 20] * 40 + [170 << 20]
        want = {}
        for n, size in enumerate(sizes):
            with open(a.path(f"f{n}"), "wb") as f:
                rng = random.Random(n)
                for _ in range(0, size, 1 << 20):
                    f.write(rng.randbytes(min(size, 1 << 20)))
            want[n] = size
        a.wait(300)
        until(lambda: cache_bytes(a) <= budget, 30, "the budget, when all is sent")
        for n, size in want.items():
            rng = random.Random(n)
            with open(a.path(f"f{n}"), "rb") as f:
                for _ in range(0, size, 1 << 20):
                    part = rng.randbytes(min(size, 1 << 20))
                    check(f.read(len(part)) == part, "f", n, "differs")
        until(lambda: cache_bytes(a) <= budget, 30, "the budget, when all is read")
        equal(a.status()["synced"], True, "synced")
        # What is not on the server stays, whatever the budget says.
        s.stop()
        a.write("unsent", random.Random(7).randbytes(100 << 20))
        for n in range(20):
            a.write(f"unsent-{n}", random.Random(n).randbytes(1 << 20))
        a.umount()
        a.mount("-o", "cache_size=64M")
        time.sleep(2 * SLOW)
        check(a.read("unsent") == random.Random(7).randbytes(100 << 20), "unsent")
        for n in range(20):
            check(a.read(f"unsent-{n}") == random.Random(n).randbytes(1 << 20), "unsent", n)
        s.start()
        a.wait(300)
        until(lambda: cache_bytes(a) <= budget, 30, "the budget, when that is sent, too")
        r = a.varve("mount", a.dir, "-o", "cache_size=much", fail=False)
        equal(r.returncode, 2, "a size that is none")


def test_ctrl_c_unmounts():
    with Lab() as lab:
        _, a, b = lab.pair()
        a.write("f", b"1")
        a.process.send_signal(signal.SIGINT)
        equal(a.process.wait(30 * SLOW), 0, "exit status")
        a.process = None
        check(not os.path.ismount(a.dir), "unmounted")
        a.mount()
        settle(a, b)
        equal(b.read("f"), b"1", "arrived")


def test_reader_of_missing_bytes_can_be_killed():
    """A server that accepts and never answers: the reader is interruptible, nothing else waits."""
    with Lab() as lab:
        s, a, b = lab.pair()
        a.write("far", random.Random(5).randbytes(3 << 20))
        settle(a, b)
        s.process.send_signal(signal.SIGSTOP)
        try:
            reader = subprocess.Popen(["cat", b.path("far")], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
            time.sleep(0.5 * SLOW)
            check(reader.poll() is None, "the reader waits")
            start = time.monotonic()
            b.write("other", b"not held up")
            equal(os.stat(b.path("other")).st_size, 11, "metadata")
            check(time.monotonic() - start < 2 * SLOW, "the others wait, too")
            reader.send_signal(signal.SIGKILL)
            equal(reader.wait(5 * SLOW), -signal.SIGKILL, "killed reader")
        finally:
            s.process.send_signal(signal.SIGCONT)
        settle(a, b)
        equal(b.read("far"), a.read("far"), "after it is back")


def test_written_after_it_was_deleted_elsewhere():
    """Opened, deleted on the other device, and then written to: the write wins, under its name."""
    with Lab() as lab:
        _, a, b = lab.pair()
        os.mkdir(a.path("d"))
        for name in ("plain", "renamed", "d/below"):
            a.write(name, b"old")
        settle(a, b)
        fds = {n: os.open(b.path(n), os.O_RDWR) for n in ("plain", "renamed", "d/below")}
        os.write(fds["renamed"], b"n")
        os.rename(b.path("renamed"), b.path("moved"))
        b.wait()
        for path in ("plain", "moved", "d/below"):
            until(lambda: os.path.exists(a.path(path)), what=path)
            os.unlink(a.path(path))
        os.rmdir(a.path("d"))
        until(lambda: os.listdir(b.dir) == [], what="the deletion")
        for fd in fds.values():
            os.pwrite(fd, b"new", 0)
            os.close(fd)
        settle(b, a)
        for d in (a, b):
            equal(sorted(os.listdir(d.dir)), ["d", "moved", "plain"], d.name)
            equal([d.read(n) for n in ("plain", "moved", "d/below")], [b"new"] * 3, d.name)


def test_written_after_it_became_one_with_another():
    """Both make the same empty file, which is one then; who has it open goes on writing."""
    with Lab() as lab:
        s, a, b = lab.pair()
        s.stop()
        fds = [os.open(d.path("f"), os.O_RDWR | os.O_CREAT | os.O_EXCL) for d in (a, b)]
        s.start()
        until(lambda: a.status()["synced"] and b.status()["synced"], what="synced")
        for fd, data in zip(fds, (b"from a", b"from b")):
            os.write(fd, data)
            os.close(fd)
        for _ in range(3):
            settle(a, b)
        same_trees(a.dir, b.dir)
        have = {a.read(n) for n in os.listdir(a.dir)}
        equal(have, {b"from a", b"from b"}, "contents")


def test_cut_after_it_was_deleted():
    """Synced, deleted while it is open, and cut to nothing: what waits to be settled is, once."""
    with Lab() as lab:
        _, a, _ = lab.pair()
        for n in range(20):
            fd = os.open(a.path("f"), os.O_RDWR | os.O_CREAT)
            os.write(fd, b"x" * (100 if n % 2 else 200000))
            os.fsync(fd)
            os.unlink(a.path("f"))
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"y", 0)
            equal(os.pread(fd, 10, 0), b"y", "bytes")
            os.close(fd)
        time.sleep(1.2)
        check(a.process.poll() is None, "the daemon goes on")
        a.umount()


if __name__ == "__main__":
    main([t for n, t in list(globals().items()) if n.startswith("test_")])
