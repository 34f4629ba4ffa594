#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The bytes of files: random operations against a model, fio's verification, stress-ng's
file-system class, mappings, appends, sparse and huge files, files without a name.

With arguments it runs the tests that they name; --soak OPERATIONS SEEDS runs the first three at
length (scripts/soak-data)."""

import errno
import mmap
import os
import random
import resource
import shutil
import signal
import subprocess
import sys

from harness import BUILD, Failed, Lab, check, equal, main, run, same_trees, until

EXERCISE = os.path.join(BUILD, "tests", "mount", "exercise")
TIB = 1 << 40
PAGE = mmap.PAGESIZE


def settle(*devices):
    for d in devices:
        d.wait()
    for d in devices:
        d.wait()


def exercise(device, seed, operations, *options):
    folder = device.path(f"x{seed}")
    os.mkdir(folder)
    r = run(EXERCISE, "-b", "-s", seed, "-n", operations, *options, folder, timeout=36000)
    print(r.stdout, end="", flush=True)


# A small cache makes chunks leave and come back while the file is at work.
EXERCISED = (("",), ("", "-m", 200000), ("-o cache_size=8M", "-m", 8 << 20),
             ("-o cache_size=8M", "-x", "map-write,map-read,map-beyond,remap"))


def exercise_all(first_seed, seeds, operations):
    with Lab() as lab:
        server = lab.server()
        a, b = lab.device("a", server), lab.device("b", server)
        b.mount()
        for n in range(seeds):
            mount, *options = EXERCISED[n % len(EXERCISED)]
            a.mount(*mount.split())
            exercise(a, first_seed + n, operations, *options)
            settle(a, b)
            same_trees(a.dir, b.dir)
            a.umount()
            a.mount()
            same_trees(a.dir, b.dir)
            shutil.rmtree(a.path(f"x{first_seed + n}"))
            a.umount()


def test_exercise():
    exercise_all(random.randrange(1 << 30), 4, 4000)


def test_exercise_offline():
    with Lab() as lab:
        server, a, b = lab.pair()
        server.stop()
        exercise(a, 1, 4000)
        server.start()
        settle(a, b)
        same_trees(a.dir, b.dir)


def fio(folder, size, jobs):
    """Each job writes, verifies as it goes and at the end."""
    argv = ["fio", "--output-format=terse", f"--directory={folder}", f"--size={size}",
            "--verify=crc32c", "--verify_state_save=0", "--verify_fatal=1", "--do_verify=1",
            "--group_reporting", "--fallocate=none", "--end_fsync=1",
            "--random_generator=tausworthe64"]
    for name, options in jobs:
        argv += [f"--name={name}", "--stonewall", *options]
    r = run(*argv, timeout=3600, fail=False)
    if r.returncode != 0 or "verify:" in r.stderr + r.stdout:
        raise Failed(f"fio: {r.stderr}{r.stdout}")


FIO_JOBS = [
    ("seq-psync", ["--rw=write", "--bs=1m", "--ioengine=psync"]),
    ("rand-psync", ["--rw=randwrite", "--bs=4k", "--ioengine=psync", "--verify_backlog=100"]),
    ("mixed-psync", ["--rw=randrw", "--bsrange=4k-256k", "--bs_unaligned", "--ioengine=psync"]),
    ("rand-libaio", ["--rw=randwrite", "--bs=16k", "--ioengine=libaio", "--iodepth=8"]),
    ("direct-libaio", ["--rw=randwrite", "--bs=4k", "--ioengine=libaio", "--iodepth=16",
                       "--direct=1", "--verify_async=2"]),
    ("direct-psync", ["--rw=randrw", "--bs=64k", "--ioengine=psync", "--direct=1"]),
    ("rand-mmap", ["--rw=randwrite", "--bs=4k", "--ioengine=mmap"]),
    ("seq-mmap", ["--rw=write", "--bs=128k", "--ioengine=mmap"]),
    ("four-at-once", ["--rw=randwrite", "--bs=4k", "--ioengine=psync", "--numjobs=4",
                      "--fsync=64"]),
    ("in-jumps", ["--rw=write:8k", "--bs=8k", "--ioengine=psync"]),
]


def fio_all(size, *mount):
    with Lab() as lab:
        server = lab.server()
        a, b = lab.device("a", server).mount(*mount), lab.device("b", server).mount()
        fio(a.dir, size, FIO_JOBS)
        settle(a, b)
        same_trees(a.dir, b.dir)


def test_fio_verify():
    fio_all("6m")
    fio_all("6m", "-o", "cache_size=16M")


# What works on the data and names of files; the rest of the class needs other kinds of systems.
STRESSORS = ("access chmod chown copy-file dentry dir dup fallocate fcntl filename flock fpunch "
             "fstat getdent handle hdd io iomix lease link locka lockf lockofd mknod open rename "
             "symlink sync-file touch utime xattr").split()


def stress_ng(folder, stressors, seconds):
    """Exit codes: 0 fine, 3 and 4: not something that this system can do."""
    bad = []
    for s in stressors:
        r = run("stress-ng", f"--{s}", 2, "--verify", "-t", f"{seconds}s", "--temp-path", folder,
                timeout=seconds + 120, fail=False)
        if r.returncode not in (0, 3, 4):
            bad.append(f"{s} ({r.returncode}): {r.stderr}{r.stdout}")
    check(not bad, "stress-ng:", *bad)
    equal(os.listdir(folder), [], "left behind")


def stress_all(seconds):
    with Lab() as lab:
        _, a, b = lab.pair()
        os.mkdir(a.path("stress"))
        stress_ng(a.path("stress"), STRESSORS, seconds)
        a.write("left", b"1")
        settle(a, b)
        same_trees(a.dir, b.dir)


def test_stress_ng():
    stress_all(1)


def mapped(path, size):
    """A mapping whose descriptor is closed."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    if size:
        os.ftruncate(fd, size)
    m = mmap.mmap(fd, os.fstat(fd).st_size)
    os.close(fd)
    return m


def test_mapping_outlives_its_descriptor():
    with Lab() as lab:
        _, a, b = lab.pair()
        m = mapped(a.path("f"), 300000)
        m[1000:1010] = b"first-page"
        settle(a, b)
        m[200000:200006] = b"second"
        m.close()
        settle(a, b)
        want = bytearray(300000)
        want[1000:1010] = b"first-page"
        want[200000:200006] = b"second"
        equal(b.read("f"), bytes(want), "on the other device")
        equal(a.status()["dirty_files"], 0, "dirty files")


def test_holes_end_where_mapped_pages_were_written():
    """Who copies a file by its holes must not miss what another process has mapped."""
    with Lab() as lab:
        _, a, b = lab.pair()
        m = mapped(a.path("f"), 8 << 20)
        for at in (1 << 20, 5 << 20):
            m[at:at + 5] = b"bytes"
            fd = os.open(a.path("f"), os.O_RDONLY)
            found = os.lseek(fd, at - 500000, os.SEEK_DATA)
            check(at - 65536 <= found <= at, "data at", found, "not", at)
            m[at + PAGE:at + PAGE + 5] = b"other"
            hole = os.lseek(fd, at, os.SEEK_HOLE)
            check(hole >= at + PAGE + 5, "a hole at", hole)
            os.close(fd)
        m[3 << 20] = 1
        run("cp", "--sparse=always", "--reflink=never", a.path("f"), a.path("copy"))
        equal(a.read("copy"), bytes(m), "the copy")
        m.close()
        settle(a, b)
        equal(b.read("f"), b.read("copy"), "on the other device")


def test_mapped_and_gone():
    """What is written through a mapping of a file that has no name any more goes nowhere."""
    with Lab() as lab:
        _, a, b = lab.pair()
        for how in ("unlinked", "replaced"):
            m = mapped(a.path("f"), 300000)
            m[:5] = b"early"
            settle(a, b)
            if how == "unlinked":
                os.unlink(a.path("f"))
            else:
                a.write("g", b"new")
                os.rename(a.path("g"), a.path("f"))
            m[5:9] = b"late"
            m.flush()
            equal(m[:9], b"earlylate", how)
            settle(a, b)
            m[9:13] = b"last"
            m.close()
            settle(a, b)
            equal(sorted(os.listdir(b.dir)), [] if how == "unlinked" else ["f"], how)
            equal(a.status()["dirty_files"], 0, "dirty files")
        equal(b.read("f"), b"new", "replaced")
        a.umount()
        a.mount()
        equal(a.read("f"), b"new", "after a new mount")
        same_trees(a.dir, b.dir)


def test_tail_of_the_last_page():
    """What a mapping puts behind the end is not the file's, however the file grows."""
    grows = {
        "ftruncate": lambda fd: os.ftruncate(fd, 3 * PAGE),
        "pwrite": lambda fd: os.pwrite(fd, b"z", 3 * PAGE - 1),
        "fallocate": lambda fd: os.posix_fallocate(fd, 0, 3 * PAGE),
    }
    with Lab() as lab:
        _, a, b = lab.pair()
        for name, grow in grows.items():
            fd = os.open(a.path(name), os.O_RDWR | os.O_CREAT)
            os.pwrite(fd, b"x" * PAGE, 0)
            m = mmap.mmap(fd, PAGE)
            os.ftruncate(fd, 1000)
            m[1000:1100] = b"y" * 100
            m.flush()
            equal(os.fstat(fd).st_size, 1000, name)
            grow(fd)
            got = os.pread(fd, 3 * PAGE, 0)
            equal(got[:1000], b"x" * 1000, name)
            check(not any(got[1000:3 * PAGE - 1]), name, "has bytes from behind its old end")
            os.ftruncate(fd, 500)
            os.ftruncate(fd, 2000)
            equal(bytes(m[500:2000]), bytes(1500), f"{name}: cut and grown")
            m.close()
            os.close(fd)
        settle(a, b)
        same_trees(a.dir, b.dir)


def test_two_processes_map():
    with Lab() as lab:
        _, a, b = lab.pair()
        m = mapped(a.path("f"), 16 * PAGE)
        child = os.fork()
        if child == 0:
            other = mapped(a.path("f"), 0)
            for i in range(1, 16, 2):
                other[i * PAGE] = 0x40 + i
            while other[0] != 1:
                pass
            os._exit(0)
        for i in range(2, 16, 2):
            m[i * PAGE] = 0x40 + i
        until(lambda: m[15 * PAGE] == 0x40 + 15, what="what the other process wrote")
        m[0] = 1
        equal(os.waitpid(child, 0)[1], 0, "the other process")
        want = bytearray(16 * PAGE)
        want[::PAGE] = bytes([1] + [0x40 + i for i in range(1, 16)])
        m.close()
        settle(a, b)
        equal(b.read("f"), bytes(want), "on the other device")


def test_sealed_while_mapped():
    """Every seal takes some instant of what is being written; the last one takes all."""
    with Lab() as lab:
        _, a, b = lab.pair()
        m = mapped(a.path("f"), 4 << 20)
        rng = random.Random(4)
        want = bytearray(4 << 20)
        for step in range(12):
            for _ in range(50):
                at = rng.randrange((4 << 20) - 64)
                piece = rng.randbytes(64)
                m[at:at + 64] = piece
                want[at:at + 64] = piece
            if step % 3 == 0:
                m.flush()
            elif step % 3 == 1:
                a.wait()
        m.close()
        settle(a, b)
        equal(b.read("f"), bytes(want), "on the other device")
        equal(a.read("f"), bytes(want), "here")


def test_append_by_many():
    """Records of several processes: none lost, none in another's middle."""
    with Lab() as lab:
        _, a, b = lab.pair()
        children = []
        for who in range(4):
            pid = os.fork()
            if pid == 0:
                fd = os.open(a.path("log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                for i in range(500):
                    record = b"%d %d %s\n" % (who, i, bytes([97 + who]) * (i * 7 % 900))
                    if os.write(fd, record) != len(record):
                        os._exit(1)
                os._exit(0)
            children.append(pid)
        for pid in children:
            equal(os.waitpid(pid, 0)[1], 0, "a process that appends")
        seen = {who: [] for who in range(4)}
        for line in a.read("log").splitlines():
            who, i, text = line.split(b" ")
            equal(text, bytes([97 + int(who)]) * (int(i) * 7 % 900), "a record")
            seen[int(who)].append(int(i))
        for who, numbers in seen.items():
            equal(numbers, list(range(500)), f"records of {who}")
        settle(a, b)
        same_trees(a.dir, b.dir)


def test_o_sync_asks_for_durability():
    """The point between bytes and their record in the log is passed by a sync alone."""
    with Lab() as lab:
        a = lab.device("a", lab.server())
        a.mount(env={"VARVE_FAULT": "staging.before-synced:1:5"})
        data = random.Random(1).randbytes(200000)
        for name, flag in (("none", 0), ("dsync", os.O_DSYNC), ("sync", os.O_SYNC),
                           ("direct", os.O_DIRECT | os.O_DSYNC)):
            fd = os.open(a.path(name), os.O_WRONLY | os.O_CREAT | flag)
            block = mmap.mmap(-1, 50 * PAGE)
            block.write(data)
            try:
                os.write(fd, block)
                failed = 0
            except OSError as e:
                failed = e.errno
            equal(failed, errno.EIO if flag else 0, name)
            os.close(fd)
        fd = os.open(a.path("range"), os.O_WRONLY | os.O_CREAT)
        os.write(fd, data)
        for sync in (os.fsync, os.fdatasync):
            try:
                sync(fd)
                raise Failed(f"{sync.__name__} did not reach the staging")
            except OSError as e:
                equal(e.errno, errno.EIO, sync.__name__)
        os.close(fd)


def blocks(path):
    return os.stat(path).st_blocks * 512


def test_blocks_of_sparse_files():
    """st_blocks says what a file takes, here and there, dirty and sealed."""
    with Lab() as lab:
        _, a, b = lab.pair()
        noise = random.Random(2).randbytes(1 << 20)
        with open(a.path("f"), "wb") as f:
            f.truncate(TIB)
            f.seek(TIB // 2)
            f.write(noise[:4096])
            f.flush()
            equal(blocks(f.name), 4096, "4 KiB in 1 TiB, not sealed")
        with open(a.path("many"), "wb") as f:
            for i in range(300):
                f.seek(i << 20)
                f.write(noise[:65536])
        a.write("full", noise)
        a.write("zeros", bytes(1 << 20))
        a.write("empty", b"")
        settle(a, b)
        same_blocks(a, b, "f", "many", "full", "zeros")
        for d in (a, b):
            check(4096 <= blocks(d.path("f")) <= 65536, "4 KiB in 1 TiB:", blocks(d.path("f")))
            equal(blocks(d.path("many")), 300 << 16, "300 pieces, each a whole block")
            equal(blocks(d.path("full")), 1 << 20, "no hole")
            equal(blocks(d.path("empty")), 0, "no bytes")
            du = run("du", "-k", d.path("f")).stdout.split()[0]
            check(4 <= int(du) <= 64, "du says", du)
        with open(a.path("many"), "r+b") as f:
            f.truncate(10 << 20)
            equal(blocks(f.name), 10 << 16, "cut")
            f.truncate(200 << 20)
            equal(blocks(f.name), 10 << 16, "grown")
            f.seek(100 << 20)
            f.write(noise[:8192])
            f.flush()
            equal(blocks(f.name), (10 << 16) + 8192, "written to")
        fd = os.open(a.path("full"), os.O_RDWR)
        fallocate(fd, 3, 131072, 524288)
        equal(blocks(a.path("full")), 524288, "punched")
        os.close(fd)
        equal(blocks(a.path("full")), 524288, "punched and sealed")
        settle(a, b)
        same_blocks(a, b, "f", "many", "full", "zeros")
        a.umount()
        a.mount()
        same_blocks(a, b, "f", "many", "full", "zeros")


def same_blocks(a, b, *names):
    for n in names:
        until(lambda n=n: blocks(a.path(n)) == blocks(b.path(n)), 5, f"st_blocks of {n} the same")


def fallocate(fd, mode, offset, length):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    off = ctypes.c_int64
    if libc.fallocate(fd, mode, off(offset), off(length)) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def fails(code, call, *args):
    try:
        call(*args)
    except OSError as e:
        equal(e.errno, code, call.__name__)
        return
    raise Failed(f"{call.__name__}{args}: no error")


def test_largest_file():
    with Lab() as lab:
        _, a, b = lab.pair()
        end = 8 * TIB
        fd = os.open(a.path("f"), os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, end)
        fails(errno.EFBIG, os.ftruncate, fd, end + 1)
        fails(errno.EFBIG, os.pwrite, fd, b"x", end)
        fails(errno.EFBIG, fallocate, fd, 0, end - 4096, 8192)
        fails(errno.EOPNOTSUPP, fallocate, fd, 8, 0, 65536)
        fails(errno.EOPNOTSUPP, fallocate, fd, 0x20, 0, 65536)
        fails(errno.ENOSPC, fallocate, fd, 0, 0, end)
        tail = random.Random(3).randbytes(100000)
        os.pwrite(fd, tail, end - len(tail))
        os.fsync(fd)
        os.close(fd)
        settle(a, b)
        for d in (a, b):
            st = os.stat(d.path("f"))
            equal(st.st_size, end, "size")
            check(st.st_blocks * 512 <= 1 << 18, "room:", st.st_blocks * 512)
            with open(d.path("f"), "rb") as f:
                at = os.lseek(f.fileno(), 0, os.SEEK_DATA)
                check(end - 200000 < at <= end - len(tail), "data at", at)
                equal(os.lseek(f.fileno(), at, os.SEEK_HOLE), end, "hole at the end")
                f.seek(end - len(tail))
                equal(f.read(), tail, "tail")
        status = a.status()
        check(status["chunk_bytes_sent"] < 1 << 20, "sent", status["chunk_bytes_sent"])

        for argv in (["cp", "--sparse=always", a.path("f"), a.path("cp")],
                     ["cp", "--sparse=auto", a.path("f"), a.path("cp-auto")],
                     ["tar", "-C", a.dir, "-S", "-cf", a.path("t.tar"), "f"]):
            run(*argv, timeout=30)
        os.mkdir(a.path("out"))
        run("tar", "-C", a.path("out"), "-xSf", a.path("t.tar"), timeout=30)
        for copy in ("cp", "cp-auto", "out/f"):
            equal(os.stat(a.path(copy)).st_size, end, copy)
            check(blocks(a.path(copy)) <= 1 << 18, copy, "takes", blocks(a.path(copy)))
            with open(a.path(copy), "rb") as f:
                f.seek(end - len(tail))
                equal(f.read(), tail, copy)


def copy_all(fd_in, fd_out, at, n):
    while n:
        did = os.copy_file_range(fd_in, fd_out, n, at, at)
        check(did > 0, "copied", did, "bytes")
        at += did
        n -= did


def test_copy_range_in_huge_files():
    with Lab() as lab:
        _, a, b = lab.pair()
        rng = random.Random(5)
        pieces = {at: rng.randbytes(300000) for at in (0, 5 * TIB + 4711, 8 * TIB - 300000)}
        with open(a.path("from"), "wb") as f:
            for at, data in pieces.items():
                f.seek(at)
                f.write(data)
        src, dst = os.open(a.path("from"), os.O_RDONLY), os.open(a.path("to"), os.O_RDWR | os.O_CREAT)
        equal(os.copy_file_range(src, dst, 4 << 30, 5 * TIB, 5 * TIB), 1 << 30, "one call")
        copy_all(src, dst, 0, 2 << 30)
        copy_all(src, dst, 8 * TIB - (1 << 30), 1 << 30)
        equal(os.copy_file_range(src, dst, 1 << 30, 0, 8 * TIB - 1000), 1000, "up to the end")
        os.pwrite(dst, pieces[8 * TIB - 300000][-1000:], 8 * TIB - 1000)
        for at, data in pieces.items():
            equal(os.pread(dst, 300000, at), data, f"at {at}")
        fails(errno.EFBIG, os.copy_file_range, src, dst, 100, 0, 8 * TIB)
        fails(errno.EINVAL, os.copy_file_range, dst, dst, 1000, 0, 999)
        equal(os.copy_file_range(src, dst, 100, 8 * TIB, 0), 0, "from behind the end")
        os.close(src)
        os.close(dst)
        settle(a, b)
        for at, data in pieces.items():
            with open(b.path("to"), "rb") as f:
                f.seek(at)
                equal(f.read(300000), data, f"on the other device at {at}")
        same_blocks(a, b, "from", "to")


READER = """
import os, random, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
rng = random.Random(int(sys.argv[2]))
while True:
    at = rng.randrange(size // 4096) * 4096
    os.posix_fadvise(fd, at, 4096, os.POSIX_FADV_DONTNEED)
    if os.pread(fd, 8, at) != (at // 4096).to_bytes(8, "little"):
        sys.exit(3)
"""


def test_many_wait_for_the_disk():
    """Readers that wait, with names coming and going between them, and an end in the middle."""
    with Lab() as lab:
        _, a, _ = lab.pair()
        pages = 16384
        with open(a.path("big"), "wb") as f:
            for n in range(pages):
                f.write(n.to_bytes(8, "little") + bytes(PAGE - 8))
        a.wait()
        for turn in range(3):
            if not turn:
                a.umount()
                a.mount()
            readers = [subprocess.Popen([sys.executable, "-c", READER, a.path("big"), str(n)])
                       for n in range(12)]
            try:
                for n in range(300):
                    if n % 100 == 0:
                        with open("/proc/sys/vm/drop_caches", "w") as f:
                            f.write("1")
                    a.write(f"n{n}", b"x")
                    os.rename(a.path(f"n{n}"), a.path("n"))
                    os.listdir(a.dir)
                check(all(r.poll() is None for r in readers), "a reader saw other bytes")
                if turn == 2:
                    run("umount", "-l", a.dir)
            finally:
                for r in readers:
                    r.kill()
                    r.wait()
        equal(a.process.wait(60), 0, "the daemon's end")
        a.process = None


def test_limit_of_file_size():
    with Lab() as lab:
        a = lab.device("a", lab.server()).mount()
        fd = os.open(a.path("f"), os.O_RDWR | os.O_CREAT)
        had = resource.getrlimit(resource.RLIMIT_FSIZE)
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, had[1]))
        try:
            equal(os.pwrite(fd, b"x" * 60000, 50000), 50000, "up to the limit")
            fails(errno.EFBIG, os.pwrite, fd, b"x", 100000)
            fails(errno.EFBIG, os.ftruncate, fd, 100001)
            fails(errno.EFBIG, fallocate, fd, 0, 0, 100001)
            fallocate(fd, 1, 0, 200000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, had)
            signal.signal(signal.SIGXFSZ, old)
        equal(os.fstat(fd).st_size, 100000, "size")
        os.close(fd)


def work_without_a_name(fd, data):
    """Everything that works on an open file works when its name is gone."""
    equal(os.pread(fd, len(data), 0), data, "read")
    os.pwrite(fd, b"changed", 1000)
    os.ftruncate(fd, 400000)
    m = mmap.mmap(fd, 400000)
    equal(m[1000:1007], b"changed", "mapped")
    m[399990:400000] = b"0123456789"
    m.close()
    os.fsync(fd)
    fallocate(fd, 3, 65536, 65536)
    equal(os.pread(fd, 65536, 65536), bytes(65536), "punched")
    equal(os.copy_file_range(fd, fd, 70000, 0, 400000), 70000, "copied")
    equal(os.pread(fd, 20, 400990), data[990:1000] + b"changed" + data[1007:1010], "the copy")
    equal(os.pread(fd, 10, 399990), b"0123456789", "what was mapped")
    equal(os.fstat(fd).st_size, 470000, "size")


def test_files_without_a_name():
    with Lab() as lab:
        _, a, b = lab.pair()
        data = random.Random(6).randbytes(300000)
        for clean in (True, False):
            for how in ("unlinked", "replaced"):
                a.write("f", data)
                if clean:
                    a.wait()
                fd = os.open(a.path("f"), os.O_RDWR)
                if not clean:
                    os.pwrite(fd, data[:10], 0)
                if how == "unlinked":
                    os.unlink(a.path("f"))
                else:
                    a.write("new", b"new")
                    os.rename(a.path("new"), a.path("f"))
                work_without_a_name(fd, data)
                a.wait()
                os.close(fd)
        settle(a, b)
        equal(sorted(os.listdir(b.dir)), ["f"], "names")
        equal(b.read("f"), b"new", "on the other device")
        equal((a.status()["dirty_files"], a.status()["outbox_entries"]), (0, 0), "at rest")
        fd = os.open(a.path("f"), os.O_RDWR)
        os.unlink(a.path("f"))
        os.pwrite(fd, data, 0)
        a.kill()
        fails(errno.ENOTCONN, os.close, fd)
        a.mount()
        equal(os.listdir(a.dir), [], "after a crash")
        settle(a, b)
        equal(os.listdir(b.dir), [], "after a crash, on the other device")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--soak"]:
        operations, seeds = int(sys.argv[2]), int(sys.argv[3])
        del sys.argv[1:]

        def soak_exercise():
            exercise_all(random.randrange(1 << 30), seeds, operations // seeds)

        def soak_fio():
            fio_all("128m")
            fio_all("128m", "-o", "cache_size=64M")

        def soak_stress_ng():
            stress_all(10)

        main([soak_exercise, soak_fio, soak_stress_ng])
    main([t for n, t in list(globals().items()) if n.startswith("test_")])
