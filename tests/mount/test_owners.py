#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whose files are on which mount, ACLs and times on several devices, what the kernel keeps of
them, and what is held open while another device removes it. Needs root."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import time

from harness import SLOW, VARVE, Lab, check, equal, main, run, same_trees, until
from posix_attr import (ACCESS, DEFAULT, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ, acl)
from posix_kit import as_user, fails


def settle(*devices):
    for _ in range(2):
        for d in devices:
            d.wait()


def owner(device, name):
    st = os.lstat(device.path(name))
    return st.st_uid, st.st_gid


def mount_flags(device):
    with open("/proc/self/mounts", encoding="ascii") as f:
        return next(line.split()[3].split(",") for line in f if line.split()[1] == device.dir)


def pair_of_views(lab):
    """One device with -o posix, and one with a default mount."""
    os.chmod(lab.dir, 0o755)
    server = lab.server()
    a = lab.device("a", server).mount()
    b = lab.device("b", server).mount(posix=False)
    return a, b


def test_default_mount_of_root():
    with Lab() as lab:
        a, b = pair_of_views(lab)
        a.write("f", b"x")
        os.mkdir(a.path("d"))
        os.chown(a.path("f"), 1234, 4321)
        os.chmod(a.path("f"), 0o4755)
        os.mknod(a.path("null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        settle(a, b)
        equal(owner(a, "f"), (1234, 4321), "as stored")
        equal(owner(b, "f"), (0, 0), "the mounting user's")
        equal(stat.S_IMODE(os.stat(b.path("f")).st_mode), 0o4755, "modes are kept")
        for flag in ("nosuid", "nodev"):
            check(flag in mount_flags(b) and flag not in mount_flags(a), flag)
        check("noatime" in mount_flags(b), "noatime")
        fails(errno.EACCES, os.open, b.path("null"), os.O_RDWR)
        os.close(os.open(a.path("null"), os.O_RDWR))


def test_owners_that_root_gives_here():
    with Lab() as lab:
        a, b = pair_of_views(lab)
        a.write("theirs", b"x")
        b.write("mine", b"x")
        os.chown(a.path("theirs"), 7, 8)
        settle(a, b)
        os.chown(b.path("mine"), 1234, 4321)
        equal(owner(b, "mine"), (1234, 4321), "given away here")
        os.chown(b.path("theirs"), 55, -1)
        equal(owner(b, "theirs"), (55, 0), "one of the two: both as they show")
        settle(a, b)
        equal((owner(a, "mine"), owner(a, "theirs")), ((1234, 4321), (55, 0)), "stored")
        os.chmod(b.path("."), 0o777)
        as_user(1001, 1002, b.write, "another", b"x")
        equal(owner(b, "another"), (1001, 1002), "made here by another user")
        b.umount()
        b.mount(posix=False)
        equal([owner(b, n) for n in ("mine", "theirs", "another")],
              [(1234, 4321), (55, 0), (1001, 1002)], "after a remount")
        os.chown(a.path("mine"), 9, 9)
        settle(a, b)
        equal(owner(b, "mine"), (0, 0), "given away elsewhere")
        b.umount()
        b.mount()
        equal(owner(b, "mine"), (9, 9), "as stored")


ORDINARY_USER = """set -e
mknod "$1/fuse" c 10 229
chmod 666 "$1/fuse"
mount --bind "$1/fuse" /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --groups=65534,77 bash -ec '
trap "fusermount3 -uz $1/mnt 2>/dev/null || :" EXIT
v="$1/varve"
"$v" login "$2" --user alice --password-file "$1/password"
if "$v" mount "$1/mnt" -o posix 2>"$1/said"; then exit 3; fi
grep "only root" "$1/said"
"$v" mount "$1/mnt"
"$v" wait "$1/mnt" --timeout "$3"
cd "$1/mnt"
for f in theirs d .; do test "$(stat -c %u:%g "$f")" = 65534:65534; done
echo mine >>theirs
echo mine >d/new
test "$(stat -c %u:%g d/new)" = 65534:65534
test "$(stat -c %a theirs)" = 640
chown 65534:65534 theirs d/new
if chgrp 77 d/new 2>"$1/said"; then exit 4; fi
grep "Operation not permitted" "$1/said"
if chown 1 d/new 2>/dev/null; then exit 5; fi
if setfacl -m u:1:r d/new 2>"$1/said"; then exit 6; fi
grep "not supported" "$1/said"
test "$(stat -c %a "$(mktemp -p d)")" = 600
umask 027; touch masked; test "$(stat -c %a masked)" = 640
cd /
"$v" wait "$1/mnt" --timeout "$3"
"$v" umount "$1/mnt"
' sh "$@"
"""


def test_default_mount_of_ordinary_user():
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server).mount()
        os.mkdir(a.path("d"))
        a.write("theirs", b"x")
        os.chown(a.path("theirs"), 1234, 4321)
        os.chown(a.path("d"), 1234, 4321)
        os.chmod(a.path("theirs"), 0o640)
        a.wait()
        os.chmod(lab.dir, 0o755)
        home = os.path.join(lab.dir, "user")
        os.makedirs(os.path.join(home, "mnt"))
        shutil.copy(server.password, os.path.join(home, "password"))
        shutil.copy(VARVE, os.path.join(home, "varve"))
        for path in (home, *(os.path.join(home, name) for name in ("mnt", "password"))):
            os.chown(path, 65534, 65534)
        env = dict(os.environ, VARVE_HOME=os.path.join(home, "v"))
        run("unshare", "-m", "bash", "-c", ORDINARY_USER, "sh", home, server.url,
            str(int(20 * SLOW)), env=env)
        a.wait()
        equal(a.read("theirs"), b"xmine\n", "written to")
        equal(owner(a, "theirs"), (1234, 4321), "what is stored is as it was")


def test_acls_travel():
    with Lab() as lab:
        _, a, b = lab.pair()
        os.chmod(lab.dir, 0o755)
        os.mkdir(a.path("d"))
        run("setfacl", "-m", "u:1001:rwx,g:1002:r", "-m", "d:u:1001:rw", a.path("d"))
        a.write("d/f", b"secret")
        os.chmod(a.path("d/f"), 0o640)
        settle(a, b)

        def facl(device):
            return run("getfacl", "-R", "-c", "-n", "-p", ".",
                       env=dict(os.environ, PWD=device.dir)).stdout

        old = os.getcwd()
        try:
            shown = []
            for device in (a, b):
                os.chdir(device.dir)
                shown.append(facl(device))
        finally:
            os.chdir(old)
        equal(shown[0], shown[1], "the same ACLs")
        check("user:1001:rw-\t#effective:r--" in shown[0], shown[0])
        listing = run("ls", "-l", b.path("d"), b.dir).stdout
        check("rw-r-----+" in listing and "rwxrwxr-x+" in listing, "ls shows it:", listing)
        same_trees(a.dir, b.dir)

        as_user(1001, 1001, b.read, "d/f")
        run("setfacl", "-m", "u:1001:-", a.path("d/f"))
        settle(a, b)
        as_user(1001, 1001, lambda: fails(errno.EACCES, b.read, "d/f"))
        os.chmod(b.path("d/f"), 0o600)
        settle(a, b)
        equal(os.getxattr(a.path("d/f"), ACCESS), os.getxattr(b.path("d/f"), ACCESS), "mask")
        run("setfacl", "-b", b.path("d/f"))
        settle(a, b)
        fails(errno.ENODATA, os.getxattr, a.path("d/f"), ACCESS)
        same_trees(a.dir, b.dir)


def test_default_acls_come_with_the_file():
    """The file and its ACL are one change: neither device has ever seen one without the other."""
    given = acl((USER_OBJ, 7), (USER, 7, 7), (GROUP_OBJ, 0), (MASK, 7), (OTHER, 0))
    with Lab() as lab:
        _, a, b = lab.pair()
        os.mkdir(a.path("d"))
        os.setxattr(a.path("d"), DEFAULT, given)
        settle(a, b)
        seen = {}
        for i in range(50):
            a.write(f"d/{i}", b"x")
        for i in range(50):
            until(lambda: os.path.exists(b.path(f"d/{i}")), what="arrival")
            seen[i] = os.getxattr(b.path(f"d/{i}"), ACCESS)
        equal(set(seen.values()),
              {acl((USER_OBJ, 6), (USER, 7, 7), (GROUP_OBJ, 0), (MASK, 6), (OTHER, 0))}, "ACLs")
        b.write("d/from b", b"x")
        settle(a, b)
        equal(os.stat(a.path("d/from b")).st_mode & 0o777, 0o660, "mode")
        same_trees(a.dir, b.dir)


def test_kernel_keeps_absent_acls():
    """What ls -l asks is answered while the daemon stands still."""
    with Lab() as lab:
        _, a, b = lab.pair()
        names = [f"f{i}" for i in range(50)]
        for name in names:
            a.write(name, b"x")
        settle(a, b)
        run("ls", "-l", b.dir)
        for name in names:
            fails(errno.ENODATA, os.getxattr, b.path(name), ACCESS)
        b.process.send_signal(signal.SIGSTOP)
        try:
            pid = os.fork()
            if pid == 0:
                for name in names:
                    os.lstat(b.path(name))
                    fails(errno.ENODATA, os.getxattr, b.path(name), ACCESS)
                os._exit(0)
            until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, 20, "answers from the cache")
        finally:
            b.process.send_signal(signal.SIGCONT)
        run("setfacl", "-m", "u:1:r", a.path("f0"))
        settle(a, b)
        check(os.getxattr(b.path("f0"), ACCESS), "one that came later is seen")


def test_ls_asks_once_for_selinux():
    """ls -l stops asking a file system that says that it has no such thing."""
    with Lab() as lab:
        a = lab.device("a", lab.server()).mount()
        a.write("f", b"x")
        fails(errno.EOPNOTSUPP, os.getxattr, a.path("f"), "security.selinux")
        os.setxattr(a.path("f"), "security.selinux", b"label\0")
        equal(os.getxattr(a.path("f"), "security.selinux"), b"label\0", "one that is there")


def test_root_has_the_times_of_the_drive():
    before = time.time_ns()
    with Lab() as lab:
        _, a, b = lab.pair()

        def times(device):
            st = os.stat(device.dir)
            return st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns

        first = times(a)
        equal(times(b), first, "on both")
        check(before - 10**9 < first[1] <= time.time_ns(), "when it was made:", first)
        a.write("f", b"x")
        settle(a, b)
        equal(times(b), times(a), "after the first name")
        check(times(a)[1] > first[1] and times(a)[0] == first[0], "mtime moved, atime did not")
        b.umount()
        b.mount()
        equal(times(b), times(a), "after a remount")
        same_trees(a.dir, b.dir)


def test_ctimes_travel():
    def everything(device, top="."):
        facts = {}
        for folder, dirs, files in os.walk(device.path(top)):
            for name in dirs + files:
                path = os.path.join(folder, name)
                st = os.lstat(path)
                facts[os.path.relpath(path, device.dir)] = (
                    st.st_ino, st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns, st.st_nlink)
        return facts

    with Lab() as lab:
        server, a, b = lab.pair()
        for online in (True, False):
            top = f"t{online}"
            os.mkdir(a.path(top))
            os.mkdir(a.path(f"{top}/d"))
            for name in "fgh":
                a.write(f"{top}/{name}", name)
            os.link(a.path(f"{top}/f"), a.path(f"{top}/second"))
            os.link(a.path(f"{top}/g"), a.path(f"{top}/other"))
            settle(a, b)
            if not online:
                server.stop()
            p = lambda name: a.path(top, name)  # noqa: E731
            before = os.stat(p("f")).st_ctime_ns
            os.rename(p("f"), p("moved"))
            check(os.stat(p("moved")).st_ctime_ns > before, "ctime")
            os.unlink(p("second"))
            a.write(f"{top}/d/new", b"x")
            os.rename(p("d"), p("e"))
            a.write(f"{top}/e/newer", b"x")
            os.rename(p("h"), p("other"))
            os.chmod(p("moved"), 0o600)
            os.rename(p("moved"), p("moved again"))
            if not online:
                server.start()
            settle(a, b)
            equal(everything(a), everything(b), "all times")
        same_trees(a.dir, b.dir)


def test_removed_elsewhere_while_held_open():
    with Lab() as lab:
        _, a, b = lab.pair()
        os.mkdir(a.path("d"))
        os.mkfifo(a.path("p"))
        a.write("f", b"bytes")
        settle(a, b)
        held = {n: os.open(b.path(n), os.O_RDWR if n == "p" else os.O_RDONLY)
                for n in ("d", "p", "f")}
        known = {n: os.fstat(fd) for n, fd in held.items()}
        os.rmdir(a.path("d"))
        os.unlink(a.path("p"))
        os.unlink(a.path("f"))
        settle(a, b)
        until(lambda: os.listdir(b.dir) == [], what="all names gone")
        for n, fd in held.items():
            st = os.fstat(fd)
            equal((st.st_ino, st.st_mode, st.st_nlink), (known[n].st_ino, known[n].st_mode, 0), n)
        equal(os.listdir(held["d"]), [], "an empty directory")
        fails(errno.ENOENT, os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=held["d"])
        equal(os.pread(held["f"], 9, 0), b"bytes", "the file's bytes")
        for fd in held.values():
            os.close(fd)


def test_reads_change_no_atime():
    with Lab() as lab:
        _, a, b = lab.pair()
        a.write("f", b"x")
        os.utime(a.path("f"), ns=(1, 2))
        settle(a, b)
        for d in (a, b):
            equal(d.read("f"), b"x", "bytes")
            equal((os.stat(d.path("f")).st_atime_ns, os.stat(d.path("f")).st_mtime_ns), (1, 2))


def test_most_links():
    """As many as ext4 allows, and the right error behind them."""
    with Lab() as lab:
        a = lab.device("a", lab.server()).mount()
        a.write("f", b"x")
        os.mkdir(a.path("d"))
        for i in range(64999):
            os.link(a.path("f"), a.path("d", str(i)))
        equal(os.stat(a.path("f")).st_nlink, 65000, "links")
        fails(errno.EMLINK, os.link, a.path("f"), a.path("one more"))
        os.unlink(a.path("d/0"))
        os.link(a.path("f"), a.path("one more"))


def test_options_are_added_up():
    with Lab() as lab:
        a = lab.device("a", lab.server()).mount("-o", "noexec", "-o", "cache_size=1G", posix=False)
        check("noexec" in mount_flags(a), "first")
        a.umount()
        r = subprocess.run([VARVE, "mount", a.dir, "-o", "ro", "-o", "nonsense"], env=a.env,
                           capture_output=True, text=True, timeout=60 * SLOW)
        equal(r.returncode, 1, "unknown option")
        check("'nonsense'" in r.stderr and "posix" in r.stderr, r.stderr)


if __name__ == "__main__":
    main([t for n, t in list(globals().items()) if n.startswith("test_")])
