#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""POSIX behaviour of a directory.

    posix.py DIR [-k WORD] [-v]

DIR lies on the file system under test. The same tests pass in a directory of ext4: that proves
the tests. What only root can do is left out for other users, and counted as left out.
Prints "N passed, N failed" and exits 1 when one failed.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import shutil
import socket
import stat
import struct
import sys
import threading
import time

from posix_kit import (AT_FDCWD, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, LIBC,
                       NOBODY, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, ROOT, LeftOut,
                       as_user, eq, fails, fallocate, get, in_child, main, ok, put, renameat2,
                       root_only, test)


# --- create, open, lookup


@test
def create_and_read():
    put("f", b"hello")
    eq(get("f"), b"hello")
    st = os.stat("f")
    eq(st.st_size, 5)
    eq(stat.S_ISREG(st.st_mode), True)
    eq(st.st_nlink, 1)
    eq((st.st_uid, st.st_gid), (os.geteuid(), os.getegid()))


@test
def umask_applies():
    old = os.umask(0o027)
    try:
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir("d", 0o777)
        os.mkfifo("p", 0o666)
    finally:
        os.umask(old)
    eq(stat.S_IMODE(os.stat("f").st_mode), 0o640)
    eq(stat.S_IMODE(os.stat("d").st_mode), 0o750)
    eq(stat.S_IMODE(os.stat("p").st_mode), 0o640)


@test
def absent_name_is_remembered_and_then_found():
    for _ in range(3):
        fails(errno.ENOENT, os.stat, "f")
    put("f", b"x")
    eq(os.stat("f").st_size, 1)
    os.unlink("f")
    fails(errno.ENOENT, os.stat, "f")
    os.mkdir("f")
    ok(os.path.isdir("f"), "directory under a name that was absent")


@test
def o_excl():
    fd = os.open("f", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    os.close(fd)
    fails(errno.EEXIST, os.open, "f", os.O_CREAT | os.O_EXCL | os.O_RDWR)
    os.symlink("nowhere", "l")
    fails(errno.EEXIST, os.open, "l", os.O_CREAT | os.O_EXCL | os.O_RDWR)


@test
def o_trunc():
    put("f", b"0123456789")
    fd = os.open("f", os.O_RDWR | os.O_TRUNC)
    eq(os.fstat(fd).st_size, 0)
    os.write(fd, b"ab")
    os.close(fd)
    eq(get("f"), b"ab")
    before = os.stat("f").st_mtime_ns
    time.sleep(0.02)
    os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
    eq(os.stat("f").st_size, 0)
    ok(os.stat("f").st_mtime_ns > before, "O_TRUNC sets mtime")


@test
def o_creat_on_existing_opens_it():
    put("f", b"abc")
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o600)
    eq(os.read(fd, 10), b"abc")
    os.close(fd)


@test
def wrong_kinds():
    put("f")
    os.mkdir("d")
    fails(errno.ENOTDIR, os.stat, "f/x")
    fails(errno.ENOTDIR, put, "f/x")
    fails(errno.EISDIR, os.open, "d", os.O_WRONLY)
    fails(errno.EISDIR, os.open, "d", os.O_CREAT | os.O_WRONLY)
    fails(errno.ENOTDIR, os.open, "f", os.O_RDONLY | os.O_DIRECTORY)
    fails(errno.ENOENT, put, "none/x")
    fails(errno.EISDIR, os.truncate, "d", 0)
    fails(errno.EINVAL, os.readlink, "f")
    fails(errno.ENOENT, os.open, "none", os.O_RDONLY)


@test
def o_nofollow():
    put("f")
    os.symlink("f", "l")
    fails(errno.ELOOP, os.open, "l", os.O_RDONLY | os.O_NOFOLLOW)
    os.symlink("loop2", "loop1")
    os.symlink("loop1", "loop2")
    fails(errno.ELOOP, os.open, "loop1", os.O_RDONLY)


@test
def names_of_any_bytes():
    names = [b"a" * 255, "ä".encode() * 127, bytes([0xFF, 0xFE, 0x80]), b" ", b"\n", b"\\",
             b"...", b"-rf", b".hidden", bytes(range(1, 47)) + bytes(range(48, 250))]
    for n in names:
        put(n, n)
    eq(sorted(os.listdir(b".")), sorted(names))
    for n in names:
        eq(get(n), n)
    for n in names:
        os.unlink(n)
    eq(os.listdir("."), [])


@test
def names_too_long():
    long = "a" * 256
    put("f")
    fails(errno.ENAMETOOLONG, os.stat, long)
    fails(errno.ENAMETOOLONG, put, long)
    fails(errno.ENAMETOOLONG, os.mkdir, long)
    fails(errno.ENAMETOOLONG, os.symlink, "x", long)
    fails(errno.ENAMETOOLONG, os.link, "f", long)
    fails(errno.ENAMETOOLONG, os.rename, "f", long)
    fails(errno.ENAMETOOLONG, os.mkfifo, long)
    fails(errno.ENAMETOOLONG, os.unlink, long)
    fails(errno.ENAMETOOLONG, os.rmdir, long)
    fails(errno.ENAMETOOLONG, os.stat, "a" * 1500)


@test
def dots():
    fails(errno.EEXIST, os.mkdir, ".")
    fails(errno.EEXIST, os.mkdir, "..")
    os.mkdir("d")
    fails(errno.EINVAL, os.rmdir, "d/.")
    fails((errno.EBUSY, errno.EINVAL), os.rename, "d", ".")
    eq(os.stat("d/..").st_ino, os.stat(".").st_ino)
    eq(os.stat("d/.").st_ino, os.stat("d").st_ino)


# --- read, write, sizes


@test
def read_write_at_offsets():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    data = bytearray(300000)
    rng = random.Random(1)
    for _ in range(300):
        at = rng.randrange(len(data))
        piece = rng.randbytes(min(rng.randrange(1, 9000), len(data) - at))
        eq(os.pwrite(fd, piece, at), len(piece))
        data[at:at + len(piece)] = piece
        at = rng.randrange(len(data))
        n = rng.randrange(1, 9000)
        size = os.fstat(fd).st_size
        eq(os.pread(fd, n, at), bytes(data[at:min(at + n, size)]), "pread")
    size = os.fstat(fd).st_size
    os.close(fd)
    eq(get("f"), bytes(data[:size]))
    eq(os.pread(os.open("f", os.O_RDONLY), 10, size), b"", "at the end")


@test
def large_writes():
    data = random.Random(2).randbytes(5 << 20)
    put("f", data)
    eq(os.stat("f").st_size, len(data))
    eq(get("f"), data)
    fd = os.open("f", os.O_RDWR)
    os.pwrite(fd, b"X" * (2 << 20), 1234567)
    os.close(fd)
    eq(get("f"), data[:1234567] + b"X" * (2 << 20) + data[1234567 + (2 << 20):])


@test
def many_small_appends():
    with open("f", "ab", buffering=0) as f:
        for i in range(1000):
            f.write(b"%06d\n" % i)
    eq(get("f"), b"".join(b"%06d\n" % i for i in range(1000)))


@test
def o_append():
    put("f", b"abc")
    a = os.open("f", os.O_WRONLY | os.O_APPEND)
    b = os.open("f", os.O_RDWR)
    os.write(a, b"1")
    os.pwrite(b, b"Z", 0)
    os.lseek(a, 0, os.SEEK_SET)
    os.write(a, b"2")
    os.ftruncate(b, 2)
    os.write(a, b"3")
    eq(os.pread(b, 100, 0), b"Zb3")
    os.close(a)
    os.close(b)
    eq(get("f"), b"Zb3")


@test
def two_appenders():
    a = os.open("f", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    b = os.open("f", os.O_WRONLY | os.O_APPEND)

    def run(fd, mark):
        for _ in range(300):
            os.write(fd, mark * 100)

    threads = [threading.Thread(target=run, args=x) for x in ((a, b"a"), (b, b"b"))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    os.close(a)
    os.close(b)
    data = get("f")
    eq(len(data), 60000)
    for i in range(0, len(data), 100):
        ok(data[i:i + 100] in (b"a" * 100, b"b" * 100), "a torn append")


@test
def wrong_access_mode():
    put("f", b"abc")
    fd = os.open("f", os.O_RDONLY)
    fails(errno.EBADF, os.write, fd, b"x")
    fails((errno.EBADF, errno.EINVAL), os.ftruncate, fd, 0)
    os.close(fd)
    fd = os.open("f", os.O_WRONLY)
    fails(errno.EBADF, os.read, fd, 1)
    os.close(fd)


@test
def truncate_both_ways():
    put("f", b"0123456789")
    os.truncate("f", 4)
    eq(get("f"), b"0123")
    os.truncate("f", 8)
    eq(get("f"), b"0123\0\0\0\0")
    fd = os.open("f", os.O_RDWR)
    os.ftruncate(fd, 2)
    eq(os.fstat(fd).st_size, 2)
    os.ftruncate(fd, 100000)
    eq(os.pread(fd, 200000, 0), b"01" + bytes(99998))
    os.ftruncate(fd, 0)
    os.ftruncate(fd, 3)
    eq(os.pread(fd, 10, 0), bytes(3))
    os.close(fd)
    eq(get("f"), bytes(3))
    fails(errno.EINVAL, os.truncate, "f", -1)
    fails(errno.ENOENT, os.truncate, "none", 1)


@test
def truncate_sets_times():
    put("f", b"abc")
    os.utime("f", ns=(10**18, 10**18))
    before = os.stat("f")
    time.sleep(0.02)
    os.truncate("f", 1)
    after = os.stat("f")
    ok(after.st_mtime_ns > before.st_mtime_ns, "mtime")
    ok(after.st_ctime_ns > before.st_ctime_ns, "ctime")


@test
def write_sets_times():
    put("f", b"abc")
    os.utime("f", ns=(10**18, 10**18))
    fd = os.open("f", os.O_RDWR)
    before = os.fstat(fd)
    time.sleep(0.02)
    os.pwrite(fd, b"x", 0)
    after = os.fstat(fd)
    ok(after.st_mtime_ns > before.st_mtime_ns, "mtime")
    ok(after.st_ctime_ns > before.st_ctime_ns, "ctime")
    os.close(fd)
    eq(os.stat("f").st_mtime_ns, after.st_mtime_ns, "close changes no mtime")


@test
def other_descriptors_see_writes():
    a = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    b = os.open("f", os.O_RDONLY)
    os.pwrite(a, b"hello", 0)
    eq(os.pread(b, 10, 0), b"hello")
    eq(os.fstat(b).st_size, 5)
    eq(os.stat("f").st_size, 5)
    eq(get("f"), b"hello")
    os.pwrite(a, b"J", 0)
    eq(os.pread(b, 10, 0), b"Jello")
    os.ftruncate(a, 2)
    eq(os.pread(b, 10, 0), b"Je")
    os.close(a)
    os.close(b)


@test
def far_offsets():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(fd, b"end", 5 << 30)
    eq(os.fstat(fd).st_size, (5 << 30) + 3)
    eq(os.pread(fd, 10, (5 << 30) - 2), b"\0\0end")
    eq(os.pread(fd, 4, 1 << 30), bytes(4))
    os.close(fd)
    eq(os.stat("f").st_size, (5 << 30) + 3)
    fd = os.open("f", os.O_RDONLY)
    eq(os.pread(fd, 10, 5 << 30), b"end")
    os.close(fd)


@test
def too_far_offsets():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    fails((errno.EFBIG, errno.EINVAL), os.pwrite, fd, b"xx", (1 << 63) - 1)
    fails((errno.EFBIG, errno.EINVAL), os.ftruncate, fd, (1 << 63) - 1)
    eq(os.fstat(fd).st_size, 0)
    os.close(fd)


@test
def sync_flags():
    fd = os.open("f", os.O_CREAT | os.O_WRONLY | os.O_SYNC, 0o644)
    os.write(fd, b"abc")
    os.close(fd)
    fd = os.open("f", os.O_WRONLY | os.O_DSYNC | os.O_APPEND)
    os.write(fd, b"def")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    eq(get("f"), b"abcdef")
    d = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(d)
    os.close(d)


@test
def o_direct():
    size = 1 << 20
    m = mmap.mmap(-1, size)
    data = random.Random(3).randbytes(size)
    m[:] = data
    fd = os.open("f", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o644)
    eq(os.writev(fd, [m]), size)
    os.lseek(fd, 0, os.SEEK_SET)
    back = mmap.mmap(-1, size)
    eq(os.readv(fd, [back]), size)
    eq(back[:], data)
    plain = os.open("f", os.O_RDWR)
    eq(os.pread(plain, size, 0), data)
    os.pwrite(plain, b"Y" * 4096, 4096)
    os.fsync(plain)
    os.lseek(fd, 0, os.SEEK_SET)
    os.readv(fd, [back])
    eq(back[4096:8192], b"Y" * 4096)
    os.close(fd)
    os.close(plain)


# --- sparse files


def segments(fd, size):
    """[(kind, from, to)] as SEEK_DATA and SEEK_HOLE tell."""
    result, at = [], 0
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            eq(e.errno, errno.ENXIO)
            data = size
        if data > at:
            result.append(("hole", at, data))
        if data >= size:
            break
        hole = os.lseek(fd, data, os.SEEK_HOLE)
        ok(hole > data, "SEEK_HOLE moves on")
        result.append(("data", data, hole))
        at = hole
    return result


def check_segments(fd, size, must_be_data):
    """Data must be told as data; what is told as a hole must be zero."""
    found = segments(fd, size)
    for kind, a, b in found:
        if kind == "hole":
            for lo, hi in must_be_data:
                ok(hi <= a or lo >= b, f"data {lo}..{hi} told as a hole: {found}")
            eq(os.pread(fd, min(b - a, 1 << 20), a).strip(b"\0"), b"", "hole")
    return found


@test
def seek_data_and_hole():
    mib = 1 << 20
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(fd, b"x" * mib, 4 * mib)
    os.pwrite(fd, b"y" * mib, 12 * mib)
    os.ftruncate(fd, 20 * mib)
    data = [(4 * mib, 5 * mib), (12 * mib, 13 * mib)]
    found = check_segments(fd, 20 * mib, data)
    ok(any(k == "hole" and b - a >= 3 * mib for k, a, b in found), f"holes are told: {found}")
    os.close(fd)
    fd = os.open("f", os.O_RDONLY)
    found = check_segments(fd, 20 * mib, data)
    ok(any(k == "hole" and b - a >= 3 * mib for k, a, b in found), f"after close: {found}")
    fails(errno.ENXIO, os.lseek, fd, 20 * mib, os.SEEK_DATA)
    fails(errno.ENXIO, os.lseek, fd, 20 * mib, os.SEEK_HOLE)
    eq(os.lseek(fd, 12 * mib, os.SEEK_HOLE), 13 * mib)
    os.close(fd)


@test
def seek_in_plain_file():
    put("f", b"x" * 10000)
    fd = os.open("f", os.O_RDONLY)
    eq(os.lseek(fd, 0, os.SEEK_DATA), 0)
    eq(os.lseek(fd, 0, os.SEEK_HOLE), 10000)
    eq(os.lseek(fd, 5, os.SEEK_DATA), 5)
    fails(errno.ENXIO, os.lseek, fd, 10001, os.SEEK_HOLE)
    eq(os.lseek(fd, -5, os.SEEK_END), 9995)
    fails(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)
    os.close(fd)


@test
def fallocate_grows():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"abc")
    fallocate(fd, 0, 0, 10000)
    eq(os.fstat(fd).st_size, 10000)
    eq(os.pread(fd, 20000, 0), b"abc" + bytes(9997))
    fallocate(fd, 0, 0, 100)
    eq(os.fstat(fd).st_size, 10000, "never shrinks")
    fallocate(fd, FALLOC_KEEP_SIZE, 0, 50000)
    eq(os.fstat(fd).st_size, 10000, "KEEP_SIZE")
    fails(errno.EINVAL, fallocate, fd, 0, 0, 0)
    fails(errno.EINVAL, fallocate, fd, 0, -1, 10)
    os.close(fd)
    eq(get("f"), b"abc" + bytes(9997))
    fd = os.open("f", os.O_RDONLY)
    fails(errno.EBADF, fallocate, fd, 0, 0, 10)
    os.close(fd)


@test
def fallocate_punches_and_zeroes():
    data = random.Random(4).randbytes(100000)
    put("f", data)
    fd = os.open("f", os.O_RDWR)
    eq(os.pread(fd, 100000, 0), data)
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 10000, 30000)
    want = data[:10000] + bytes(30000) + data[40000:]
    eq(os.pread(fd, 200000, 0), want)
    fallocate(fd, FALLOC_ZERO_RANGE, 50000, 1000)
    want = want[:50000] + bytes(1000) + want[51000:]
    eq(os.pread(fd, 200000, 0), want)
    fallocate(fd, FALLOC_ZERO_RANGE, 99000, 2000)
    want = want[:99000] + bytes(2000)
    eq(os.fstat(fd).st_size, 101000)
    eq(os.pread(fd, 200000, 0), want)
    fallocate(fd, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, 100000, 5000)
    eq(os.fstat(fd).st_size, 101000)
    os.close(fd)
    eq(get("f"), want)


@test
def fallocate_sets_times():
    put("f", b"x" * 5000)
    os.utime("f", ns=(10**18, 10**18))
    fd = os.open("f", os.O_RDWR)
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 4096)
    os.close(fd)
    ok(os.stat("f").st_mtime_ns > 10**18, "mtime")


@test
def copy_file_range():
    data = random.Random(5).randbytes(3 << 20)
    put("a", data)
    put("b", b"0123456789" * 1000)
    a = os.open("a", os.O_RDONLY)
    b = os.open("b", os.O_RDWR)
    n = 0
    while n < (2 << 20):
        n += os.copy_file_range(a, b, (2 << 20) - n, 777 + n, 5000 + n)
    eq(n, 2 << 20)
    want = (b"0123456789" * 1000)[:5000] + data[777:777 + n]
    eq(os.fstat(b).st_size, len(want))
    eq(os.pread(b, len(want) + 1, 0), want)
    eq(os.copy_file_range(a, b, 100, len(data), 0), 0, "at the end")
    os.close(a)
    os.close(b)
    eq(get("b"), want)
    eq(get("a"), data)


@test
def copy_file_range_within():
    data = random.Random(6).randbytes(600000)
    put("f", data)
    fd = os.open("f", os.O_RDWR)
    n = 0
    while n < 100000:
        n += os.copy_file_range(fd, fd, 100000 - n, n, 400000 + n)
    fails(errno.EINVAL, os.copy_file_range, fd, fd, 1000, 0, 500)
    os.close(fd)
    eq(get("f"), data[:400000] + data[:100000] + data[500000:])
    out = os.open("f", os.O_RDONLY)
    inp = os.open("f", os.O_RDONLY)
    fails(errno.EBADF, os.copy_file_range, inp, out, 10)
    os.close(inp)
    os.close(out)


@test
def copy_file_range_sees_unflushed():
    a = os.open("a", os.O_CREAT | os.O_RDWR, 0o644)
    b = os.open("b", os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(a, b"fresh" * 1000, 0)
    eq(os.copy_file_range(a, b, 5000, 0, 0), 5000)
    eq(os.pread(b, 6000, 0), b"fresh" * 1000)
    os.close(a)
    os.close(b)


# --- mmap


@test
def mmap_shared_write():
    put("f", bytes(20000))
    fd = os.open("f", os.O_RDWR)
    m = mmap.mmap(fd, 20000)
    m[5000:5005] = b"hello"
    m[19999:20000] = b"!"
    eq(os.pread(fd, 5, 5000), b"hello", "read sees the mapping")
    os.pwrite(fd, b"J", 5000)
    eq(m[5000:5005], b"Jello", "the mapping sees a write")
    m.flush()
    m.close()
    os.close(fd)
    data = get("f")
    eq(data[5000:5005] + data[19999:], b"Jello!")
    eq(len(data), 20000)


@test
def mmap_outlives_close():
    put("f", bytes(8192))
    fd = os.open("f", os.O_RDWR)
    m = mmap.mmap(fd, 8192)
    os.close(fd)
    m[100:104] = b"late"
    m.flush()
    eq(get("f")[100:104], b"late")
    m[200:204] = b"more"
    m.close()
    eq(get("f")[200:204], b"more")


@test
def mmap_private_and_readonly():
    put("f", b"a" * 8192)
    fd = os.open("f", os.O_RDONLY)
    m = mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    m[0:1] = b"b"
    eq(get("f")[:1], b"a")
    m.close()
    fails((errno.EACCES, errno.EPERM), mmap.mmap, fd, 8192, flags=mmap.MAP_SHARED,
          prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(fd)


@test
def mmap_sets_mtime():
    put("f", bytes(4096))
    os.utime("f", ns=(10**18, 10**18))
    fd = os.open("f", os.O_RDWR)
    m = mmap.mmap(fd, 4096)
    m[0:1] = b"x"
    m.flush()
    m.close()
    os.close(fd)
    ok(os.stat("f").st_mtime_ns > 10**18, "mtime")
    eq(get("f")[:1], b"x")


# --- attributes


@test
def chmod_and_types():
    put("f")
    for mode in (0o000, 0o444, 0o600, 0o777, 0o1644, 0o4755):
        os.chmod("f", mode)
        eq(stat.S_IMODE(os.stat("f").st_mode), mode)
        ok(stat.S_ISREG(os.stat("f").st_mode), "the type stays")
    os.mkdir("d")
    os.chmod("d", 0o1777)
    eq(stat.S_IMODE(os.stat("d").st_mode), 0o1777)
    fd = os.open("f", os.O_RDONLY) if ROOT else None
    if fd is not None:
        os.fchmod(fd, 0o640)
        eq(stat.S_IMODE(os.stat("f").st_mode), 0o640)
        os.close(fd)
    fails(errno.ENOENT, os.chmod, "none", 0o600)


@test
def chmod_sets_ctime_only():
    put("f")
    before = os.stat("f")
    time.sleep(0.02)
    os.chmod("f", 0o600)
    after = os.stat("f")
    ok(after.st_ctime_ns > before.st_ctime_ns, "ctime")
    eq(after.st_mtime_ns, before.st_mtime_ns, "mtime")


@test
def chmod_while_writing():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"abc")
    os.fchmod(fd, 0o600)
    os.write(fd, b"def")
    st = os.fstat(fd)
    eq((stat.S_IMODE(st.st_mode), st.st_size), (0o600, 6))
    os.close(fd)
    st = os.stat("f")
    eq((stat.S_IMODE(st.st_mode), st.st_size), (0o600, 6))
    eq(get("f"), b"abcdef")


@test
@root_only
def chown():
    put("f")
    os.chown("f", 123, 456)
    st = os.stat("f")
    eq((st.st_uid, st.st_gid), (123, 456))
    os.chown("f", -1, 789)
    st = os.stat("f")
    eq((st.st_uid, st.st_gid), (123, 789))
    os.symlink("f", "l")
    os.lchown("l", 11, 12)
    st = os.lstat("l")
    eq((st.st_uid, st.st_gid), (11, 12))
    eq(os.stat("f").st_uid, 123)
    os.chown("f", 0xFFFFFFFE, 0)
    eq(os.stat("f").st_uid, 0xFFFFFFFE)


@test
@root_only
def chown_takes_setid_away():
    put("f")
    os.chmod("f", 0o6755)
    os.chown("f", 123, 456)
    eq(stat.S_IMODE(os.stat("f").st_mode), 0o755)
    os.chmod("f", 0o6745)
    os.chown("f", 124, -1)
    eq(stat.S_IMODE(os.stat("f").st_mode), 0o2745, "sgid without group execution stays")
    os.mkdir("d")
    os.chmod("d", 0o6755)
    os.chown("d", 123, 456)
    eq(stat.S_IMODE(os.stat("d").st_mode), 0o6755, "directories keep them")


@test
@root_only
def write_takes_setid_away():
    def write(flags=os.O_WRONLY):
        fd = os.open("f", flags)
        os.write(fd, b"x")
        os.close(fd)

    for mode in (0o6777, 0o4766, 0o2777):
        put("f", b"abc")
        os.chmod("f", mode)
        eq(stat.S_IMODE(os.stat("f").st_mode), mode)
        as_user(NOBODY, NOBODY, write)
        eq(stat.S_IMODE(os.stat("f").st_mode), mode & 0o777, f"after a write, {mode:o}")
    os.chmod("f", 0o4777)
    as_user(NOBODY, NOBODY, os.truncate, "f", 1)
    eq(stat.S_IMODE(os.stat("f").st_mode), 0o777, "after truncate")
    os.chmod("f", 0o4777)
    as_user(NOBODY, NOBODY, write, os.O_WRONLY | os.O_TRUNC)
    eq(stat.S_IMODE(os.stat("f").st_mode), 0o777, "after O_TRUNC")
    os.chmod("f", 0o4777)
    write()
    eq(stat.S_IMODE(os.stat("f").st_mode), 0o4777, "root's write keeps it")


@test
@root_only
def chmod_sgid_needs_the_group():
    put("f")
    os.chown("f", NOBODY, 777)
    as_user(NOBODY, NOBODY, os.chmod, "f", 0o2755)
    eq(stat.S_IMODE(os.stat("f").st_mode), 0o755)

    def member():
        os.chmod("f", 0o2755)

    as_user(NOBODY, NOBODY, member, groups=[777])
    eq(stat.S_IMODE(os.stat("f").st_mode), 0o2755)


@test
@root_only
def permissions_hold():
    os.chmod(".", 0o777)
    put("f", b"abc", 0o600)
    os.mkdir("d", 0o700)
    put("d/x")
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    put("sticky/f")

    def denied():
        fails(errno.EACCES, os.open, "f", os.O_RDONLY)
        fails(errno.EACCES, os.open, "f", os.O_WRONLY)
        fails(errno.EPERM, os.chmod, "f", 0o777)
        fails(errno.EPERM, os.chown, "f", NOBODY, -1)
        fails(errno.EPERM, os.utime, "f", ns=(1, 1))
        fails(errno.EACCES, os.stat, "d/x")
        fails(errno.EACCES, os.listdir, "d")
        fails(errno.EPERM, os.unlink, "sticky/f")
        fails(errno.EPERM, os.rename, "sticky/f", "sticky/g")
        put("mine", b"1")
        fails(errno.EPERM, os.chown, "mine", 0, -1)
        os.chmod("mine", 0o000)
        fails(errno.EACCES, os.open, "mine", os.O_RDONLY)
        os.unlink("mine")

    as_user(NOBODY, NOBODY, denied)


@test
@root_only
def supplementary_groups():
    os.chmod(".", 0o755)
    put("f", b"abc")
    os.chown("f", 0, 777)
    os.chmod("f", 0o640)

    def denied():
        fails(errno.EACCES, get, "f")

    as_user(NOBODY, NOBODY, denied)
    as_user(NOBODY, NOBODY, get, "f", groups=[777])


@test
def utime_nanoseconds():
    put("f")
    for a, m in ((123456789, 987654321987654321), (1, 2), (1600000000123456789, 999999999)):
        os.utime("f", ns=(a, m))
        st = os.stat("f")
        eq((st.st_atime_ns, st.st_mtime_ns), (a, m))
    os.utime("f", ns=(-1500000000, -1))
    st = os.stat("f")
    eq((st.st_atime_ns, st.st_mtime_ns), (-1500000000, -1), "before 1970")
    before = time.time_ns()
    os.utime("f")
    ok(abs(os.stat("f").st_mtime_ns - before) < 5 * 10**9, "now")
    os.symlink("f", "l")
    os.utime("l", ns=(5, 6), follow_symlinks=False)
    eq(os.lstat("l").st_mtime_ns, 6)
    os.mkdir("d")
    os.utime("d", ns=(7, 8))
    eq(os.stat("d").st_mtime_ns, 8)


@test
def utime_on_open_dirty_file():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"abc")
    os.utime(fd, ns=(111, 222))
    eq(os.fstat(fd).st_mtime_ns, 222)
    os.close(fd)
    st = os.stat("f")
    eq((st.st_mtime_ns, st.st_size), (222, 3), "close keeps the time that was set")


@test
def utime_of_one_only():
    put("f")
    os.utime("f", ns=(111, 222))
    omit, now = (1 << 30) - 2, (1 << 30) - 1
    spec = struct.pack("qqqq", 0, omit, 5, 7)
    eq(LIBC.utimensat(AT_FDCWD, b"f", spec, 0), 0)
    st = os.stat("f")
    eq((st.st_atime_ns, st.st_mtime_ns), (111, 5 * 10**9 + 7))
    spec = struct.pack("qqqq", 0, now, 0, omit)
    eq(LIBC.utimensat(AT_FDCWD, b"f", spec, 0), 0)
    st = os.stat("f")
    ok(abs(st.st_atime_ns - time.time_ns()) < 5 * 10**9, "atime now")
    eq(st.st_mtime_ns, 5 * 10**9 + 7)


@test
def directory_times():
    os.mkdir("d")

    def changed(call, *args):
        os.utime("d", ns=(1, 1))
        call(*args)
        ok(os.stat("d").st_mtime_ns > 1, f"{call.__name__} sets the directory's mtime")

    changed(put, "d/f")
    changed(os.link, "d/f", "d/g")
    changed(os.rename, "d/g", "d/h")
    changed(os.rename, "d/h", "x")
    changed(os.rename, "x", "d/x")
    changed(os.unlink, "d/x")
    changed(os.mkdir, "d/s")
    changed(os.rmdir, "d/s")
    changed(os.symlink, "x", "d/l")
    changed(os.mkfifo, "d/p")
    os.utime("d", ns=(1, 1))
    os.chmod("d/f", 0o600)
    eq(os.stat("d").st_mtime_ns, 1, "chmod of an entry does not")


@test
def inode_numbers():
    put("f")
    os.mkdir("d")
    numbers = {e.name: e.inode() for e in os.scandir(".")}
    eq(numbers, {"f": os.stat("f").st_ino, "d": os.stat("d").st_ino})
    ino = os.stat("f").st_ino
    os.rename("f", "d/g")
    eq(os.stat("d/g").st_ino, ino)
    put("f")
    ok(os.stat("f").st_ino != ino, "no number twice")


@test
def statfs():
    st = os.statvfs(".")
    eq(st.f_namemax, 255)
    ok(st.f_bsize > 0 and st.f_frsize > 0, "block size")
    ok(st.f_blocks > 0 and 0 < st.f_bavail <= st.f_blocks, "blocks")
    ok(st.f_files > 0, "files")


@test
def blocks_of_files():
    put("f", b"x" * 100000)
    fd = os.open("f", os.O_RDWR)
    os.fsync(fd)
    os.close(fd)
    st = os.stat("f")
    ok(100000 <= st.st_blocks * 512 <= 300000, f"st_blocks {st.st_blocks}")
    ok(st.st_blksize >= 512, "st_blksize")
    put("e")
    eq(os.stat("e").st_blocks, 0)


# --- links, removal


@test
def hard_links():
    put("a", b"abc")
    os.mkdir("d")
    os.link("a", "d/b")
    eq(os.stat("a").st_nlink, 2)
    eq(os.stat("d/b").st_nlink, 2)
    eq(os.stat("a").st_ino, os.stat("d/b").st_ino)
    with open("d/b", "ab") as f:
        f.write(b"def")
    eq(get("a"), b"abcdef")
    eq(os.stat("a").st_size, 6)
    os.unlink("a")
    eq(os.stat("d/b").st_nlink, 1)
    eq(get("d/b"), b"abcdef")
    fails(errno.EEXIST, os.link, "d/b", "d")
    fails(errno.ENOENT, os.link, "a", "c")
    fails(errno.EPERM, os.link, "d", "e")
    os.symlink("d/b", "l")
    os.link("l", "m", follow_symlinks=False)
    eq(os.readlink("m"), "d/b")
    eq(os.lstat("l").st_nlink, 2)


@test
def hard_link_while_writing():
    fd = os.open("a", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"one")
    os.link("a", "b")
    eq(os.fstat(fd).st_nlink, 2)
    eq(os.stat("b").st_size, 3)
    os.write(fd, b"two")
    eq(os.stat("b").st_size, 6)
    os.unlink("a")
    eq(os.fstat(fd).st_nlink, 1)
    os.write(fd, b"three")
    os.close(fd)
    eq(get("b"), b"onetwothree")


@test
def symlinks():
    target = "t" * 4000
    os.symlink(target, "l")
    eq(os.readlink("l"), target)
    eq(os.lstat("l").st_size, 4000)
    ok(stat.S_ISLNK(os.lstat("l").st_mode), "type")
    fails(errno.EEXIST, os.symlink, "x", "l")
    fails(errno.ENOENT, os.symlink, "", "m")
    os.symlink(b"\xff\xfe/../x", b"bytes")
    eq(os.readlink(b"bytes"), b"\xff\xfe/../x")
    put("f", b"via")
    os.symlink("f", "g")
    eq(get("g"), b"via")
    os.unlink("g")
    eq(get("f"), b"via")


@test
def unlink_and_rmdir_errors():
    put("f")
    os.mkdir("d")
    put("d/x")
    fails((errno.EISDIR, errno.EPERM), os.unlink, "d")
    fails(errno.ENOTDIR, os.rmdir, "f")
    fails(errno.ENOTEMPTY, os.rmdir, "d")
    fails(errno.ENOENT, os.unlink, "none")
    fails(errno.ENOENT, os.rmdir, "none")
    os.unlink("d/x")
    os.rmdir("d")
    fails(errno.ENOENT, os.stat, "d")


@test
def directory_link_counts():
    os.mkdir("d")
    base = os.stat("d").st_nlink
    os.mkdir("d/a")
    os.mkdir("d/b")
    if base == 2:
        eq(os.stat("d").st_nlink, 4)
        os.mkdir("e")
        os.rename("d/b", "e/b")
        eq((os.stat("d").st_nlink, os.stat("e").st_nlink), (3, 3))
        os.rmdir("d/a")
        eq(os.stat("d").st_nlink, 2)


@test
def open_unlinked_file():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"secret")
    os.unlink("f")
    fails(errno.ENOENT, os.stat, "f")
    st = os.fstat(fd)
    eq((st.st_nlink, st.st_size), (0, 6))
    eq(os.pread(fd, 10, 0), b"secret")
    os.pwrite(fd, b"more", 6)
    os.ftruncate(fd, 8)
    eq(os.pread(fd, 20, 0), b"secretmo")
    os.fchmod(fd, 0o600)
    eq(stat.S_IMODE(os.fstat(fd).st_mode), 0o600)
    os.utime(fd, ns=(3, 4))
    eq(os.fstat(fd).st_mtime_ns, 4)
    os.fsync(fd)
    m = mmap.mmap(fd, 8)
    eq(m[:], b"secretmo")
    m.close()
    put("f", b"other")
    eq(os.pread(fd, 20, 0), b"secretmo")
    ok(os.stat("f").st_ino != os.fstat(fd).st_ino, "another file")
    os.close(fd)
    eq(get("f"), b"other")


@test
def open_unlinked_clean_file():
    put("f", b"sealed" * 1000)
    fd = os.open("f", os.O_RDONLY)
    os.unlink("f")
    eq(os.fstat(fd).st_nlink, 0)
    eq(os.pread(fd, 6, 600), b"sealed")
    os.close(fd)


@test
def open_renamed_over_file():
    put("a", b"old")
    put("b", b"new")
    fd = os.open("a", os.O_RDWR)
    os.rename("b", "a")
    eq(os.fstat(fd).st_nlink, 0)
    eq(os.pread(fd, 10, 0), b"old")
    os.pwrite(fd, b"OLD", 0)
    eq(get("a"), b"new")
    os.close(fd)
    eq(get("a"), b"new")


@test
def removed_directory_held_open():
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir("d")
    st = os.fstat(fd)
    ok(stat.S_ISDIR(st.st_mode), "fstat works")
    eq(st.st_nlink, 0)
    eq(os.listdir(fd), [])
    fails(errno.ENOENT, os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    fails(errno.ENOENT, os.mkdir, "x", dir_fd=fd)
    os.close(fd)


@test
def removed_special_files_held_open():
    os.mkfifo("p")
    fd = os.open("p", os.O_RDWR)
    os.unlink("p")
    st = os.fstat(fd)
    ok(stat.S_ISFIFO(st.st_mode), "fstat works")
    eq(st.st_nlink, 0)
    os.close(fd)


@test
def held_by_o_path():
    put("f", b"abc")
    fd = os.open("f", os.O_PATH)
    os.unlink("f")
    eq(os.fstat(fd).st_nlink, 0)
    os.close(fd)


# --- rename


@test
def rename_file():
    put("a", b"1")
    os.rename("a", "b")
    fails(errno.ENOENT, os.stat, "a")
    eq(get("b"), b"1")
    put("c", b"2")
    os.rename("b", "c")
    eq(get("c"), b"1")
    eq(os.listdir("."), ["c"])
    os.mkdir("d")
    os.rename("c", "d/c")
    eq(get("d/c"), b"1")
    fails(errno.ENOENT, os.rename, "none", "x")
    fails(errno.ENOENT, os.rename, "d/c", "none/x")
    fails(errno.ENOTDIR, os.rename, "d/c", "d/c/x")


@test
def rename_matrix():
    """Every kind over every kind."""
    def make(name, kind):
        if kind == "file":
            put(name, name.encode())
        elif kind == "link":
            os.symlink("to-" + name, name)
        elif kind == "fifo":
            os.mkfifo(name)
        elif kind in ("empty", "full"):
            os.mkdir(name)
            if kind == "full":
                put(name + "/x")

    kinds = ("absent", "file", "link", "fifo", "empty", "full")
    for i, a in enumerate(kinds[1:]):
        for j, b in enumerate(kinds):
            os.mkdir(f"{i}{j}")
            os.chdir(f"{i}{j}")
            make("a", a)
            make("b", b)
            ino = os.lstat("a").st_ino
            a_dir, b_dir = a in ("empty", "full"), b in ("empty", "full")
            if b == "absent" or (a_dir and b == "empty") or (not a_dir and not b_dir):
                os.rename("a", "b")
                eq(os.lstat("b").st_ino, ino, f"{a} over {b}")
                fails(errno.ENOENT, os.lstat, "a")
            elif a_dir and not b_dir:
                fails(errno.ENOTDIR, os.rename, "a", "b")
            elif not a_dir:
                fails(errno.EISDIR, os.rename, "a", "b")
            else:
                fails((errno.ENOTEMPTY, errno.EEXIST), os.rename, "a", "b")
            os.chdir("..")


@test
def rename_noreplace():
    put("a", b"1")
    put("b", b"2")
    fails(errno.EEXIST, renameat2, "a", "b", RENAME_NOREPLACE)
    eq((get("a"), get("b")), (b"1", b"2"))
    renameat2("a", "c", RENAME_NOREPLACE)
    eq(get("c"), b"1")
    fails(errno.ENOENT, os.stat, "a")


@test
def rename_exchange():
    put("a", b"1")
    os.mkdir("d")
    put("d/x", b"2")
    renameat2("a", "d", RENAME_EXCHANGE)
    eq(get("d"), b"1")
    eq(get("a/x"), b"2")
    os.mkdir("e")
    put("e/f", b"3")
    renameat2("e/f", "a", RENAME_EXCHANGE)
    eq(get("a"), b"3")
    eq(get("e/f/x"), b"2")
    eq(os.stat("e/f/..").st_ino, os.stat("e").st_ino)
    fails(errno.ENOENT, renameat2, "a", "none", RENAME_EXCHANGE)
    fails(errno.EINVAL, renameat2, "e", "e/f/y", RENAME_EXCHANGE | RENAME_NOREPLACE)
    fails(errno.EINVAL, renameat2, "e", "e/f/x", RENAME_EXCHANGE)


@test
@root_only
def rename_whiteout():
    put("a", b"1")
    put("b", b"2")
    os.mkdir("d")
    fails(errno.EINVAL, renameat2, "a", "b", RENAME_WHITEOUT | RENAME_EXCHANGE)
    fails(errno.EEXIST, renameat2, "a", "b", RENAME_WHITEOUT | RENAME_NOREPLACE)
    fails(errno.ENOENT, renameat2, "none", "b", RENAME_WHITEOUT)
    eq((get("a"), get("b")), (b"1", b"2"))
    renameat2("a", "d/a", RENAME_WHITEOUT | RENAME_NOREPLACE)
    eq(get("d/a"), b"1")
    st = os.lstat("a")
    eq((st.st_mode, st.st_rdev, st.st_nlink, st.st_size), (stat.S_IFCHR, 0, 1, 0))
    eq((st.st_uid, st.st_gid), (0, 0))
    eq(sorted(e.name for e in os.scandir(".") if not e.is_file() and not e.is_dir()), ["a"],
       "its type is listed")
    fails((errno.ENXIO, errno.EACCES), os.open, "a", os.O_RDONLY)
    renameat2("b", "a", RENAME_WHITEOUT)
    eq(get("a"), b"2", "over a whiteout")
    eq(stat.S_ISCHR(os.lstat("b").st_mode), True)
    renameat2("d", "e", RENAME_WHITEOUT)
    eq(stat.S_ISCHR(os.lstat("d").st_mode), True)
    eq(get("e/a"), b"1")
    os.unlink("d")
    eq(sorted(os.listdir(".")), ["a", "b", "e"])
    os.mkdir("sgid")
    os.chown("sgid", -1, 4711)
    os.chmod("sgid", 0o2755)
    put("sgid/x")
    renameat2("sgid/x", "sgid/y", RENAME_WHITEOUT)
    eq(os.lstat("sgid/x").st_gid, 4711, "the group that the directory hands down")


@test
def rename_same_node():
    put("a", b"1")
    os.link("a", "b")
    os.rename("a", "b")
    eq(sorted(os.listdir(".")), ["a", "b"], "two names of one node: nothing happens")
    os.rename("a", "a")
    eq(os.stat("a").st_nlink, 2)


@test
def rename_directory():
    os.makedirs("a/b/c")
    put("a/b/f", b"deep")
    os.rename("a/b", "x")
    eq(get("x/f"), b"deep")
    eq(os.stat("x/..").st_ino, os.stat(".").st_ino)
    fails(errno.EINVAL, os.rename, "x", "x/c/y")
    fails(errno.EINVAL, os.rename, "x", "x/y")
    os.mkdir("x/c/e")
    os.rename("x/c/e", "e")
    os.rename("x", "e/x")
    eq(get("e/x/f"), b"deep")


@test
def rename_over_removes_link():
    put("a", b"1")
    put("b", b"2")
    os.link("b", "c")
    os.rename("a", "b")
    eq(os.stat("c").st_nlink, 1)
    eq(get("c"), b"2")


@test
def rename_while_writing():
    fd = os.open("a", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"one")
    os.rename("a", "b")
    os.write(fd, b"two")
    os.close(fd)
    eq(get("b"), b"onetwo")
    put("x.tmp", b"saved")
    fd = os.open("b", os.O_RDONLY)
    os.rename("x.tmp", "b")
    eq(os.pread(fd, 10, 0), b"onetwo")
    os.close(fd)
    eq(get("b"), b"saved")


# --- directories


@test
def readdir_types_and_dots():
    put("f")
    os.mkdir("d")
    os.symlink("f", "l")
    os.mkfifo("p")
    kinds = {e.name: (e.is_file(follow_symlinks=False), e.is_dir(follow_symlinks=False),
                      e.is_symlink()) for e in os.scandir(".")}
    eq(kinds, {"f": (True, False, False), "d": (False, True, False),
               "l": (False, False, True), "p": (False, False, False)})


@test
def readdir_many():
    names = [f"entry-{i:05}-{'x' * (i % 50)}" for i in range(3000)]
    for n in names:
        put(n)
    for _ in range(2):
        eq(sorted(os.listdir(".")), names)
    for n in names[::2]:
        os.unlink(n)
    eq(sorted(os.listdir(".")), names[1::2])


@test
def readdir_while_modifying():
    """What stays is listed exactly once, whatever comes and goes meanwhile."""
    stay = {f"stay{i:04}" for i in range(500)}
    for n in stay:
        put(n)
    for i in range(500):
        put(f"go{i:04}")
    seen = []
    with os.scandir(".") as it:
        for k, e in enumerate(it):
            seen.append(e.name)
            if k < 500:
                os.unlink(f"go{k:04}")
                put(f"new{k:04}")
    eq(len([n for n in seen if n in stay]), 500, "each once")
    eq({n for n in seen if n in stay}, stay)
    eq(len(seen), len(set(seen)), "nothing twice")
    eq(sorted(n for n in os.listdir(".") if not n.startswith("new")), sorted(stay))


@test
def readdir_then_remove_all():
    os.mkdir("d")
    for i in range(2000):
        put(f"d/{i}")
    for e in os.scandir("d"):
        os.unlink(e.path)
    os.rmdir("d")


@test
def listing_is_never_old():
    os.mkdir("d")
    for i in range(30):
        put(f"d/{i}")
        ok(str(i) in os.listdir("d"), "made")
        os.rename(f"d/{i}", f"d/r{i}")
        names = os.listdir("d")
        ok(f"r{i}" in names and str(i) not in names, "renamed")
        for e in os.scandir("d"):
            e.stat()
        if i % 3 == 0:
            os.unlink(f"d/r{i}")
            ok(f"r{i}" not in os.listdir("d"), "removed")
            fails(errno.ENOENT, os.stat, f"d/r{i}")


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64),
                ("reclen", ctypes.c_uint16), ("type", ctypes.c_uint8),
                ("name", ctypes.c_char * 256)]


@test
def seekdir_and_rewinddir():
    for i in range(500):
        put(f"f{i}")
    LIBC.opendir.restype = ctypes.c_void_p
    LIBC.readdir.restype = ctypes.POINTER(Dirent)
    LIBC.telldir.restype = ctypes.c_long
    for f in (LIBC.readdir, LIBC.telldir, LIBC.rewinddir, LIBC.closedir):
        f.argtypes = [ctypes.c_void_p]
    LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    d = LIBC.opendir(b".")

    def rest():
        names = []
        while True:
            e = LIBC.readdir(d)
            if not e:
                return names
            names.append(e.contents.name)

    first = [LIBC.readdir(d).contents.name for _ in range(123)]
    place = LIBC.telldir(d)
    second = rest()
    eq(len(first) + len(second), 502)
    eq(len(set(first + second)), 502)
    LIBC.seekdir(d, place)
    eq(rest(), second, "seekdir goes back")
    put("late")
    LIBC.rewinddir(d)
    eq(len(rest()), 503, "rewinddir looks anew")
    LIBC.closedir(d)


@test
def deep_paths():
    path = "."
    for i in range(60):
        path += "/" + "d" * 50
        os.mkdir(path)
    put(path + "/f", b"deep")
    eq(get(path + "/f"), b"deep")
    shutil.rmtree("./" + "d" * 50)


@test
@root_only
def sgid_directories():
    os.mkdir("d")
    os.chown("d", 0, 777)
    os.chmod("d", 0o2777)

    def inside():
        put("d/f")
        os.mkdir("d/s")
        os.symlink("x", "d/l")
        os.mkfifo("d/p")

    as_user(NOBODY, NOBODY, inside)
    for n in ("f", "s", "l", "p"):
        st = os.lstat("d/" + n)
        eq((st.st_uid, st.st_gid), (NOBODY, 777), n)
    eq(stat.S_IMODE(os.stat("d/s").st_mode), 0o2755, "the bit goes on to directories")
    eq(stat.S_IMODE(os.stat("d/f").st_mode) & 0o2000, 0)


# --- special files


@test
def fifo_and_socket():
    os.mkfifo("p", 0o600)
    ok(stat.S_ISFIFO(os.stat("p").st_mode), "fifo")
    r = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    w = os.open("p", os.O_WRONLY)
    os.write(w, b"x")
    eq(os.read(r, 1), b"x")
    os.close(r)
    os.close(w)
    s = socket.socket(socket.AF_UNIX)
    s.bind("s")
    s.listen()
    ok(stat.S_ISSOCK(os.stat("s").st_mode), "socket")
    c = socket.socket(socket.AF_UNIX)
    c.connect("s")
    c.close()
    s.close()
    fails(errno.EEXIST, os.mkfifo, "p")


@test
@root_only
def device_nodes():
    for name, kind, dev in (("c", stat.S_IFCHR, os.makedev(1, 3)),
                            ("big", stat.S_IFCHR, os.makedev(511, 0xABCDE)),
                            ("b", stat.S_IFBLK, os.makedev(7, 200))):
        os.mknod(name, kind | 0o600, dev)
        st = os.stat(name)
        eq((stat.S_IFMT(st.st_mode), st.st_rdev), (kind, dev))
    os.mknod("r", stat.S_IFREG | 0o640)
    st = os.stat("r")
    eq((st.st_mode, st.st_size), (stat.S_IFREG | 0o640, 0))
    put("r", b"x")
    eq(get("r"), b"x")


# --- extended attributes


@test
def xattrs():
    put("f")
    os.mkdir("d")
    for name in ("f", "d"):
        os.setxattr(name, "user.a", b"1")
        os.setxattr(name, "user.b", b"")
        os.setxattr(name, "user.bin", bytes(range(256)))
        eq(os.getxattr(name, "user.a"), b"1")
        eq(os.getxattr(name, "user.b"), b"")
        eq(os.getxattr(name, "user.bin"), bytes(range(256)))
        eq(sorted(n for n in os.listxattr(name) if n.startswith("user.")),
           ["user.a", "user.b", "user.bin"])
        os.removexattr(name, "user.a")
        fails(errno.ENODATA, os.getxattr, name, "user.a")
        fails(errno.ENODATA, os.removexattr, name, "user.a")
    fd = os.open("f", os.O_RDWR)
    os.setxattr(fd, "user.fd", b"x")
    eq(os.getxattr("f", "user.fd"), b"x")
    os.close(fd)


@test
def xattr_flags_and_sizes():
    put("f")
    fails(errno.ENODATA, os.setxattr, "f", "user.a", b"1", os.XATTR_REPLACE)
    os.setxattr("f", "user.a", b"12345", os.XATTR_CREATE)
    fails(errno.EEXIST, os.setxattr, "f", "user.a", b"2", os.XATTR_CREATE)
    os.setxattr("f", "user.a", b"123456", os.XATTR_REPLACE)
    eq(LIBC.getxattr(b"f", b"user.a", None, 0), 6, "size 0 asks for the size")
    small = ctypes.create_string_buffer(3)
    eq(LIBC.getxattr(b"f", b"user.a", small, 3), -1)
    eq(ctypes.get_errno(), errno.ERANGE)
    eq(LIBC.listxattr(b"f", small, 3), -1)
    eq(ctypes.get_errno(), errno.ERANGE)
    ok(LIBC.listxattr(b"f", None, 0) >= 7, "size of the list")
    fails(errno.ERANGE, os.setxattr, "f", "user." + "n" * 251, b"x")
    os.setxattr("f", "user." + "n" * 250, b"x")
    fails((errno.E2BIG, errno.ERANGE), os.setxattr, "f", "user.v", bytes(65537))
    fails(errno.EOPNOTSUPP, os.setxattr, "f", "nonsense", b"x")
    fails(errno.EOPNOTSUPP, os.setxattr, "f", "other.x", b"x")
    os.symlink("f", "l")
    fails(errno.EPERM, os.setxattr, "l", "user.a", b"x", follow_symlinks=False)


@test
def xattr_sets_ctime():
    put("f")
    before = os.stat("f")
    time.sleep(0.02)
    os.setxattr("f", "user.a", b"1")
    after = os.stat("f")
    ok(after.st_ctime_ns > before.st_ctime_ns, "ctime")
    eq(after.st_mtime_ns, before.st_mtime_ns)


@test
def xattrs_of_open_dirty_file():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"abc")
    os.setxattr(fd, "user.a", b"1")
    os.write(fd, b"def")
    eq(os.getxattr(fd, "user.a"), b"1")
    eq(os.fstat(fd).st_size, 6)
    os.close(fd)
    os.rename("f", "g")
    eq(os.getxattr("g", "user.a"), b"1")
    eq(get("g"), b"abcdef")


@test
@root_only
def xattr_name_spaces():
    put("f")
    os.setxattr("f", "trusted.t", b"1")
    eq(os.getxattr("f", "trusted.t"), b"1")
    ok("trusted.t" in os.listxattr("f"), "root lists it")
    os.chmod(".", 0o777)
    os.chmod("f", 0o666)

    def other():
        ok("trusted.t" not in os.listxattr("f"), "others do not see trusted.*")
        fails(errno.ENODATA, os.getxattr, "f", "trusted.t")
        fails(errno.EPERM, os.setxattr, "f", "trusted.t", b"2")

    as_user(NOBODY, NOBODY, other)
    cap = struct.pack("<5I", 0x02000000, 1 << 10, 0, 0, 0)
    os.setxattr("f", "security.capability", cap)
    eq(os.getxattr("f", "security.capability"), cap)


# --- locks, ioctl


@test
def locks():
    put("f", bytes(100))
    fd = os.open("f", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)

    def other():
        g = os.open("f", os.O_RDWR)
        fails(errno.EWOULDBLOCK, fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fails((errno.EAGAIN, errno.EACCES), fcntl.lockf, g, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)
        fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20)

    in_child(other)
    fcntl.flock(fd, fcntl.LOCK_UN)
    fcntl.lockf(fd, fcntl.LOCK_UN, 10, 0)
    os.close(fd)

    def free_now():
        g = os.open("f", os.O_RDWR)
        fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB)

    in_child(free_now)


@test
def unknown_ioctl():
    put("f")
    fd = os.open("f", os.O_RDWR)
    fails(errno.ENOTTY, fcntl.ioctl, fd, 0x7799, 0)
    os.close(fd)


# --- many at once


@test
def threads_in_one_directory():
    failed = []

    def run(k):
        try:
            for i in range(100):
                name = f"t{k}-{i}"
                put(name, name.encode() * 50)
                os.rename(name, name + "x")
                eq(get(name + "x"), name.encode() * 50)
                if i % 2:
                    os.unlink(name + "x")
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    eq(failed, [])
    eq(len(os.listdir(".")), 400)


@test
def threads_in_one_file():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    block = 8192
    failed = []

    def run(k):
        try:
            for i in range(k, 256, 8):
                os.pwrite(fd, bytes([i]) * block, i * block)
                eq(os.pread(fd, block, i * block), bytes([i]) * block)
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    os.close(fd)
    eq(failed, [])
    eq(get("f"), b"".join(bytes([i]) * block for i in range(256)))


@test
def writers_race_creators():
    """O_EXCL: of many that create one name, one wins."""
    wins = []

    def run():
        for i in range(50):
            try:
                os.close(os.open(f"n{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                wins.append(i)
            except FileExistsError:
                pass

    threads = [threading.Thread(target=run) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    eq(sorted(wins), list(range(50)))


if __name__ == "__main__":
    sys.exit(main(__doc__))
