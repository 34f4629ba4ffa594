#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""POSIX behaviour of a directory: ACLs, times, owners, capabilities, locks, errors.

    posix_attr.py DIR [-k WORD] [-v]

The second part of posix.py, with its rules: the same tests pass in a directory of ext4.
"""

import errno
import fcntl
import os
import socket
import stat
import struct
import sys
import time

from posix_kit import (AT_FDCWD, LIBC, NOBODY, RENAME_EXCHANGE, ROOT, as_user, eq, fails, get,
                       in_child, main, ok, put, renameat2, root_only, test)

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NO_ID = 0xFFFFFFFF
CAPABILITY = struct.pack("<5I", 0x02000000, 1 << 10, 0, 0, 0)


def acl(*entries):
    """Of (tag, permissions[, id])."""
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", e[0], e[1], e[2] if len(e) > 2 else NO_ID) for e in entries)


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def ctimes_move(paths, call, *args):
    """The call changes the ctime of each of the nodes, and nobody's mtime."""
    before = [os.lstat(p) for p in paths]
    time.sleep(0.02)
    call(*args)
    after = {os.lstat(p).st_ino: os.lstat(p) for p in os.listdir(".")}
    for b in before:
        ok(after[b.st_ino].st_ctime_ns > b.st_ctime_ns, f"ctime of {b}")
        eq(after[b.st_ino].st_mtime_ns, b.st_mtime_ns, "mtime")


# --- times


@test
def rename_sets_ctime():
    put("f", b"x")
    os.mkdir("d")
    os.mkdir("d/s")
    os.symlink("f", "l")
    os.mkfifo("p")
    for name in ("f", "d", "l", "p"):
        ctimes_move([name], os.rename, name, name + "2")
    ctimes_move(["f2", "d2"], renameat2, "f2", "d2", RENAME_EXCHANGE)


@test
def rename_of_open_file_sets_ctime():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    for text in (b"", b"dirty"):
        os.write(fd, text)
        before = os.fstat(fd)
        time.sleep(0.02)
        os.rename("f", "g")
        ok(os.fstat(fd).st_ctime_ns > before.st_ctime_ns, "ctime")
        eq(os.fstat(fd).st_mtime_ns, before.st_mtime_ns)
        os.rename("g", "f")
    os.close(fd)


@test
def renamed_directory_keeps_the_time_of_its_names():
    os.mkdir("d")
    put("d/f")
    made = os.stat("d")
    time.sleep(0.02)
    os.rename("d", "e")
    moved = os.stat("e")
    eq(moved.st_mtime_ns, made.st_mtime_ns)
    ok(moved.st_ctime_ns > made.st_ctime_ns, "ctime")
    time.sleep(0.02)
    put("e/g")
    ok(os.stat("e").st_mtime_ns > moved.st_ctime_ns, "a new name comes later")


@test
def losing_a_name_sets_ctime():
    put("f", b"x")
    os.link("f", "g")
    ctimes_move(["f"], os.unlink, "g")
    os.link("f", "g")
    put("h")
    ctimes_move(["f"], os.rename, "h", "g")
    eq(os.stat("f").st_nlink, 1)


@test
def times_far_away():
    put("f")
    for s in (-(2**31) + 1, -1, 0, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 7 * 10**9):
        ns = s * 10**9 + 123456789
        os.utime("f", ns=(ns, ns + 1))
        st = os.stat("f")
        eq((st.st_atime_ns, st.st_mtime_ns), (ns, ns + 1))


@test
def utimes_permissions():
    put("f", mode=0o666)
    os.chmod("f", 0o666)
    if ROOT:
        def other():
            os.utime("f")
            fails(errno.EPERM, os.utime, "f", ns=(1, 1))
        as_user(NOBODY, NOBODY, other)
    omit = (1 << 30) - 2
    before = os.stat("f")
    eq(LIBC.utimensat(AT_FDCWD, b"f", struct.pack("qqqq", 0, omit, 0, omit), 0), 0)
    after = os.stat("f")
    eq((after.st_atime_ns, after.st_mtime_ns, after.st_ctime_ns),
       (before.st_atime_ns, before.st_mtime_ns, before.st_ctime_ns), "nothing to set")


# --- ACLs


@test
def acl_and_mode_agree():
    put("f", mode=0o640)
    full = acl((USER_OBJ, 6), (USER, 6, 7), (GROUP_OBJ, 4), (MASK, 6), (OTHER, 0))
    fails(errno.ENODATA, os.getxattr, "f", ACCESS)
    os.setxattr("f", ACCESS, full)
    eq(os.getxattr("f", ACCESS), full)
    eq(mode_of("f"), 0o660, "the group bits are the mask")
    ok(ACCESS in os.listxattr("f"), "listed")
    os.chmod("f", 0o604)
    eq(os.getxattr("f", ACCESS),
       acl((USER_OBJ, 6), (USER, 6, 7), (GROUP_OBJ, 4), (MASK, 0), (OTHER, 4)), "chmod")
    eq(mode_of("f"), 0o604)
    os.removexattr("f", ACCESS)
    os.removexattr("f", ACCESS)
    fails(errno.ENODATA, os.getxattr, "f", ACCESS)
    eq(mode_of("f"), 0o604)


@test
def acl_that_says_no_more_than_the_mode():
    put("f", mode=0o640)
    os.setxattr("f", ACCESS, acl((USER_OBJ, 6), (USER, 4, 7), (GROUP_OBJ, 4), (MASK, 4),
                                 (OTHER, 0)))
    os.setxattr("f", ACCESS, acl((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 1)))
    fails(errno.ENODATA, os.getxattr, "f", ACCESS)
    eq(os.listxattr("f"), [])
    eq(mode_of("f"), 0o751)
    os.setxattr("f", ACCESS, acl((USER_OBJ, 6), (GROUP_OBJ, 4), (MASK, 7), (OTHER, 0)))
    eq(mode_of("f"), 0o670, "a mask is more")
    ok(ACCESS in os.listxattr("f"), "kept")


@test
def acls_that_are_none():
    put("f")
    os.mkdir("d")
    good = acl((USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 0))
    for bad in (good[:-1], b"", b"\3" + good[1:], acl((USER_OBJ, 6), (GROUP_OBJ, 4)),
                acl((GROUP_OBJ, 4), (USER_OBJ, 6), (OTHER, 0)),
                acl((USER_OBJ, 8), (GROUP_OBJ, 4), (OTHER, 0)),
                acl((USER_OBJ, 6), (USER, 4, 7), (GROUP_OBJ, 4), (OTHER, 0)),
                acl((USER_OBJ, 6), (64, 4, 7), (GROUP_OBJ, 4), (OTHER, 0))):
        if bad:
            fails((errno.EINVAL, errno.EOPNOTSUPP), os.setxattr, "f", ACCESS, bad)
    fails(errno.EACCES, os.setxattr, "f", DEFAULT, good)
    os.setxattr("d", DEFAULT, good)
    eq(os.getxattr("d", DEFAULT), good, "a default ACL of three entries is kept")
    os.symlink("f", "l")
    fails((errno.EOPNOTSUPP, errno.EPERM), os.setxattr, "l", ACCESS, good, follow_symlinks=False)
    os.removexattr("d", DEFAULT)
    fails(errno.ENODATA, os.getxattr, "d", DEFAULT)


@test
def acl_sets_ctime():
    put("f")
    value = acl((USER_OBJ, 6), (USER, 6, 7), (GROUP_OBJ, 4), (MASK, 6), (OTHER, 0))
    ctimes_move(["f"], os.setxattr, "f", ACCESS, value)
    ctimes_move(["f"], os.removexattr, "f", ACCESS)


@test
def default_acl_is_inherited():
    given = acl((USER_OBJ, 7), (USER, 7, 7), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 1))
    os.mkdir("d")
    os.setxattr("d", DEFAULT, given)
    eq(mode_of("d"), 0o755, "it says nothing of the directory itself")
    old = os.umask(0o077)
    try:
        os.close(os.open("d/f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir("d/s", 0o777)
        os.mkfifo("d/p", 0o600)
        os.symlink("f", "d/l")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind("d/sock")
    finally:
        os.umask(old)
    eq(mode_of("d/f"), 0o660, "not the umask, but the mask")
    eq(os.getxattr("d/f", ACCESS),
       acl((USER_OBJ, 6), (USER, 7, 7), (GROUP_OBJ, 5), (MASK, 6), (OTHER, 0)))
    fails(errno.ENODATA, os.getxattr, "d/f", DEFAULT)
    eq(mode_of("d/s"), 0o771)
    eq(os.getxattr("d/s", ACCESS), given)
    eq(os.getxattr("d/s", DEFAULT), given)
    eq(mode_of("d/p"), 0o600)
    eq(os.getxattr("d/p", ACCESS),
       acl((USER_OBJ, 6), (USER, 7, 7), (GROUP_OBJ, 5), (MASK, 0), (OTHER, 0)))
    ok(os.getxattr("d/sock", ACCESS), "sockets, too")
    put("d/s/deep", mode=0o600)
    ok(os.getxattr("d/s/deep", ACCESS), "all the way down")
    put("outside")
    os.rename("outside", "d/outside")
    eq(os.listxattr("d/outside"), [], "what moves in keeps its own")


@test
def default_acl_of_three_entries():
    os.mkdir("d")
    os.setxattr("d", DEFAULT, acl((USER_OBJ, 7), (GROUP_OBJ, 4), (OTHER, 0)))
    old = os.umask(0)
    try:
        os.close(os.open("d/f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir("d/s", 0o777)
    finally:
        os.umask(old)
    eq(mode_of("d/f"), 0o640)
    eq(os.listxattr("d/f"), [])
    eq(mode_of("d/s"), 0o740)
    eq(os.listxattr("d/s"), [DEFAULT])


@test
def umask_without_acl():
    old = os.umask(0o137)
    try:
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o777))
        os.mkdir("d", 0o777)
        os.mkfifo("p", 0o777)
        os.symlink("f", "l")
    finally:
        os.umask(old)
    eq((mode_of("f"), mode_of("d"), mode_of("p")), (0o640, 0o640, 0o640))
    eq(stat.S_IMODE(os.lstat("l").st_mode), 0o777)


@test
@root_only
def acls_decide():
    put("f", b"secret", mode=0o600)
    fails_for = [(1001, 1001), (1002, 1002)]
    os.setxattr("f", ACCESS, acl((USER_OBJ, 6), (USER, 4, 1001), (GROUP_OBJ, 0), (GROUP, 6, 1003),
                                 (MASK, 6), (OTHER, 0)))

    def reads():
        eq(get("f"), b"secret")
        fails(errno.EACCES, os.open, "f", os.O_WRONLY)

    def writes():
        os.close(os.open("f", os.O_RDWR))

    def denied():
        fails(errno.EACCES, os.open, "f", os.O_RDONLY)

    as_user(1001, 1001, reads)
    as_user(1002, 1003, writes)
    as_user(1002, 1002, writes, groups=[1003])
    as_user(*fails_for[1], denied)
    os.chmod("f", 0o600)
    as_user(1001, 1001, denied)
    os.chmod("f", 0o640)
    as_user(1001, 1001, reads)
    os.removexattr("f", ACCESS)
    as_user(1001, 1001, denied)
    as_user(1002, 1003, denied)


@test
@root_only
def only_the_owner_sets_acls():
    value = acl((USER_OBJ, 6), (USER, 4, 1001), (GROUP_OBJ, 4), (MASK, 4), (OTHER, 4))
    put("f", mode=0o666)
    os.chmod("f", 0o666)
    as_user(1001, 1001, lambda: fails(errno.EPERM, os.setxattr, "f", ACCESS, value))
    os.chown("f", 1001, 1001)
    as_user(1001, 1001, os.setxattr, "f", ACCESS, value)
    as_user(1002, 1002, lambda: fails(errno.EPERM, os.removexattr, "f", ACCESS))


@test
@root_only
def acl_of_a_stranger_to_the_group_takes_sgid_away():
    value = acl((USER_OBJ, 7), (USER, 4, 1005), (GROUP_OBJ, 5), (MASK, 5), (OTHER, 5))
    for groups, kept in (([], 0), ([1009], 0o2000)):
        put("f")
        os.chown("f", 1001, 1009)
        os.chmod("f", 0o2755)
        as_user(1001, 1001, os.setxattr, "f", ACCESS, value, groups=groups)
        eq(mode_of("f"), kept | 0o755)
        os.unlink("f")
    put("f")
    os.chmod("f", 0o2755)
    os.setxattr("f", ACCESS, value)
    eq(mode_of("f"), 0o2755, "root")


# --- xattrs


@test
def xattrs_of_open_unlinked_file():
    put("f", b"x")
    os.setxattr("f", "user.a", b"1")
    os.setxattr("f", "user.b", b"2")
    fd = os.open("f", os.O_RDWR)
    os.unlink("f")
    eq(os.getxattr(fd, "user.a"), b"1")
    os.setxattr(fd, "user.c", b"3", os.XATTR_CREATE)
    fails(errno.EEXIST, os.setxattr, fd, "user.c", b"3", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, fd, "user.d", b"3", os.XATTR_REPLACE)
    os.removexattr(fd, "user.b")
    fails(errno.ENODATA, os.removexattr, fd, "user.b")
    fails(errno.ENODATA, os.getxattr, fd, "user.b")
    os.write(fd, b"more")
    eq(sorted(os.listxattr(fd)), ["user.a", "user.c"])
    os.close(fd)


@test
def xattrs_of_open_replaced_and_removed():
    put("f")
    os.setxattr("f", "user.a", b"1")
    put("g")
    os.mkdir("d")
    os.setxattr("d", "user.a", b"1")
    fd, dir_fd = os.open("f", os.O_RDONLY), os.open("d", os.O_RDONLY)
    os.rename("g", "f")
    os.rmdir("d")
    eq(os.getxattr(fd, "user.a"), b"1")
    eq(os.getxattr(dir_fd, "user.a"), b"1")
    eq(os.listxattr("f"), [])
    os.close(fd)
    os.close(dir_fd)


@test
def user_xattrs_of_other_kinds():
    os.mkfifo("p")
    fails(errno.EPERM, os.setxattr, "p", "user.a", b"1")
    fails((errno.ENODATA, errno.EPERM), os.getxattr, "p", "user.a")
    if ROOT:
        os.setxattr("p", "trusted.a", b"1")
        eq(os.listxattr("p"), ["trusted.a"])
        os.symlink("x", "l")
        os.setxattr("l", "trusted.a", b"1", follow_symlinks=False)
        eq(os.getxattr("l", "trusted.a", follow_symlinks=False), b"1")


@test
@root_only
def capabilities_go_with_the_bytes():
    def has():
        return "security.capability" in os.listxattr("f")

    def changed(call, *args):
        put("f", b"program")
        os.setxattr("f", "security.capability", CAPABILITY)
        ok(has(), "set")
        call(*args)
        ok(not has(), f"{call.__name__} takes them away")

    def write():
        fd = os.open("f", os.O_WRONLY)
        os.write(fd, b"x")
        os.close(fd)

    def write_twice():
        fd = os.open("f", os.O_WRONLY)
        os.write(fd, b"x")
        os.setxattr("f", "security.capability", CAPABILITY)
        os.write(fd, b"x")
        os.close(fd)

    def truncate_by_open():
        os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))

    changed(write)
    changed(write_twice)
    changed(os.truncate, "f", 1)
    changed(truncate_by_open)
    changed(os.chown, "f", 5, 5)


# --- errors, locks


@test
def errors_as_on_ext4():
    put("f", b"#!/bin/sh\n", mode=0o755)
    fails(errno.EXDEV, os.rename, "f", "/dev/shm/posix-attr")
    fails(errno.EXDEV, os.link, "f", "/dev/shm/posix-attr")
    fails(errno.ENAMETOOLONG, os.stat, "/".join(["a" * 200] * 21))
    fails(errno.ENOENT, os.symlink, "", "l")
    fails(errno.ENAMETOOLONG, os.symlink, "x" * 4096, "l")
    os.symlink("x" * 4095, "l")
    eq(len(os.readlink("l")), 4095)
    eq(os.lstat("l").st_size, 4095)
    fails(errno.ENOTDIR, os.rmdir, "f")
    fails(errno.EEXIST, os.mknod, "f")
    fails((errno.ENOENT, errno.ENOTDIR), os.mkdir, "none/x")
    fails(errno.ENOTDIR, os.mkdir, "f/x")
    fails(errno.EINVAL, os.open, "f", os.O_RDONLY | os.O_CREAT | os.O_DIRECTORY)


@test
def o_tmpfile():
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as e:
        ok(e.errno in (errno.EOPNOTSUPP, errno.EISDIR), "the errno after which programs use a name")
        return
    os.close(fd)


@test
def running_program():
    with open("/bin/sleep", "rb") as f:
        put("prog", f.read(), mode=0o755)
    pid = os.posix_spawn("./prog", ["prog", "60"], {})
    try:
        fails(errno.ETXTBSY, os.open, "prog", os.O_WRONLY)
        fails(errno.ETXTBSY, os.truncate, "prog", 0)
        os.rename("prog", "other")
        os.unlink("other")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    put("busy", b"x", mode=0o755)
    fd = os.open("busy", os.O_WRONLY)
    fails(errno.ETXTBSY, os.posix_spawn, "./busy", ["busy"], {})
    os.close(fd)


@test
def locks_of_open_files():
    put("f", bytes(100))
    setlk, getlk = 37, 36
    fd, other = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)

    def lock(kind, start, length):
        return struct.pack("hhqqi4x", kind, 0, start, length, 0)

    fcntl.fcntl(fd, setlk, lock(fcntl.F_WRLCK, 0, 10))
    fails((errno.EAGAIN, errno.EACCES), fcntl.fcntl, other, setlk, lock(fcntl.F_WRLCK, 5, 10))
    fcntl.fcntl(other, setlk, lock(fcntl.F_RDLCK, 10, 10))
    who = struct.unpack("hhqqi4x", fcntl.fcntl(other, getlk, lock(fcntl.F_WRLCK, 0, 1)))
    eq((who[0], who[4]), (fcntl.F_WRLCK, -1), "an open file, not a process, has it")

    def in_another_process():
        mine = os.open("f", os.O_RDWR)
        fails((errno.EAGAIN, errno.EACCES), fcntl.lockf, mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)

    in_child(in_another_process)
    os.close(fd)
    fcntl.fcntl(other, setlk, lock(fcntl.F_WRLCK, 0, 10))
    os.close(other)


@test
def statfs_identifies():
    first, second = os.statvfs("."), os.statvfs("..")
    eq(first.f_fsid, second.f_fsid)
    eq(first.f_namemax, 255)
    ok(first.f_ffree <= first.f_files, "free of all")
    ok(first.f_bfree >= first.f_bavail, "free for root, free for all")


@test
def link_counts():
    put("f")
    for i in range(300):
        os.link("f", f"l{i}")
    eq(os.stat("f").st_nlink, 301)
    os.mkdir("d")
    for i in range(300):
        os.mkdir(f"d/{i}")
    eq(os.stat("d").st_nlink, 302)
    os.rename("d/0", "moved")
    eq((os.stat("d").st_nlink, os.stat(".").st_nlink), (301, 4))


@test
@root_only
def owners_and_setid_bits():
    put("f", mode=0o755)
    for uid, gid in ((1, 2), (4294967294, 4294967294), (65536, 0), (0, 0)):
        os.chown("f", uid, gid)
        st = os.stat("f")
        eq((st.st_uid, st.st_gid), (uid, gid))
    os.chown("f", 1001, 1009)
    os.chmod("f", 0o6755)
    as_user(1001, 1001, os.chown, "f", -1, 1009, groups=[1009])
    eq(mode_of("f"), 0o755, "chown takes them away")
    os.chmod("f", 0o6745)
    os.chmod(".", 0o777)

    def write():
        fd = os.open("f", os.O_WRONLY)
        os.write(fd, b"x")
        os.close(fd)
    as_user(1001, 1001, write, groups=[1009])
    eq(mode_of("f"), 0o2745, "without group execution, set-group-id is another thing")
    as_user(1001, 1001, os.chmod, "f", 0o2755)
    eq(mode_of("f"), 0o755, "a stranger to the group")


@test
@root_only
def kinds_made_by_mknod():
    for kind, rdev in ((stat.S_IFREG, 0), (stat.S_IFIFO, 0), (stat.S_IFSOCK, 0),
                       (stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, os.makedev(4095, 1048575))):
        os.mknod("n", kind | 0o640, rdev)
        st = os.lstat("n")
        eq((stat.S_IFMT(st.st_mode), st.st_rdev, stat.S_IMODE(st.st_mode)), (kind, rdev, 0o640))
        os.unlink("n")


if __name__ == "__main__":
    sys.exit(main(__doc__))
