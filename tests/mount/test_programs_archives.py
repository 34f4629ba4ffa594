#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""rsync, tar, cp, zip and borg: what carries trees into the mount, out of it and within it."""

import contextlib
import os
import random
import socket
import stat
import subprocess
import threading
import time

from harness import SLOW, Lab, check, equal, main, same_trees, until
from programs import program, settle, variants

MOUNT = ("-o", "posix")


def odd_tree(top):
    """All that a file system may hold, with fixed times."""
    top = os.fsencode(top)
    rng = random.Random(3)
    p = lambda *parts: os.path.join(top, *parts)
    for d in (b"", b"dir", b"dir/deep", b"dir/deep/deeper", b"empty", b"sticky", b"setgid"):
        os.mkdir(p(d))
    os.chmod(p(b"sticky"), 0o1777)
    os.chmod(p(b"setgid"), 0o2775)
    for n, size in enumerate((0, 1, 100, 4095, 4096, 4097, 65536, 300001, 3 << 20)):
        with open(p(b"dir", b"size-%d" % size), "wb") as f:
            f.write(rng.randbytes(size))
    for name in (b"with space", b"-dash", b"new\nline", b"tab\t", b"quote'\"`$", b"\xff\xfe raw",
                 "größe".encode(), b"n" * 255, b".hidden", b"back\\slash", b"star*?[", b"a=b;c|d"):
        with open(p(b"dir/deep", name), "wb") as f:
            f.write(name)
    with open(p(b"sparse"), "wb") as f:
        f.truncate(64 << 20)
        f.seek(32 << 20)
        f.write(rng.randbytes(100000))
    os.link(p(b"dir/size-4096"), p(b"hard-1"))
    os.link(p(b"dir/size-4096"), p(b"dir/deep/hard-2"))
    os.symlink(b"dir/size-1", p(b"arrow"))
    os.symlink(b"/nowhere/" + b"x" * 3000, p(b"dangling"))
    os.link(p(b"arrow"), p(b"arrow-2"), follow_symlinks=False)
    os.mkfifo(p(b"fifo"), 0o640)
    os.mknod(p(b"null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(p(b"disk"), stat.S_IFBLK | 0o660, os.makedev(7, 200))
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
        here = os.open(top, os.O_RDONLY)
        s.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    modes(p)
    times(top)


def modes(p):
    os.chmod(p(b"dir/size-100"), 0o4755)
    os.chmod(p(b"dir/size-1"), 0)
    os.chown(p(b"dir/size-4097"), 1234, 4321)
    os.chown(p(b"arrow"), 1234, 4321, follow_symlinks=False)
    os.setxattr(p(b"dir/size-1"), b"user.one", b"1\0\xff")
    os.setxattr(p(b"dir/size-1"), b"user.long", b"v" * 2000)
    os.setxattr(p(b"dir/size-1"), b"trusted.one", b"root's")
    os.setxattr(p(b"dir"), b"user.of directory", b"d")
    program("setcap", "cap_net_raw+ep", os.fsdecode(p(b"dir/size-300001")))
    program("setfacl", "-m", "u:1234:rw,g:4321:r,m:rwx", os.fsdecode(p(b"dir/size-4095")))
    program("setfacl", "-m", "u:1234:rwx,d:u:1234:rx,d:g::r", os.fsdecode(p(b"dir/deep")))


def times(top):
    n = 0
    for folder, dirs, files in os.walk(top, topdown=False):
        for name in dirs + files:
            n += 1
            os.utime(os.path.join(folder, name),
                     ns=(1500000000123456789 + n, 1400000000987654321 + n * 1000000007),
                     follow_symlinks=False)
    os.utime(os.path.join(top, b"hard-1"), ns=(-1, -86400 * 10**9 * 365 * 20 + 1))
    os.utime(top, ns=(1, 1))


def described(top):
    """What two trees must agree on; ctime and inode numbers are each file system's own."""
    top = os.fsencode(top)
    found, links = {}, {}
    for folder, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            one = [stat.filemode(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, st.st_nlink
                   if not stat.S_ISDIR(st.st_mode) else 0]
            if stat.S_ISLNK(st.st_mode):
                one.append(os.readlink(path))
            elif stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    one.append(hash(f.read()))
            elif not stat.S_ISDIR(st.st_mode):
                one.append(st.st_rdev)
            if not stat.S_ISDIR(st.st_mode):
                links.setdefault(st.st_ino, []).append(os.path.relpath(path, top))
            one.append([(x, os.getxattr(path, x, follow_symlinks=False))
                        for x in sorted(os.listxattr(path, follow_symlinks=False))])
            found[os.path.relpath(path, top)] = one
    return found, sorted(sorted(l) for l in links.values())


def alike(one, other):
    (a, a_links), (b, b_links) = described(one), described(other)
    for path in sorted(a.keys() | b.keys()):
        equal(b.get(path), a.get(path), path, "in", other)
    equal(b_links, a_links, "hard links")
    program("diff", "-r", "--no-dereference", "-x", "fifo", "-x", "socket", "-x", "null", "-x",
            "disk", one, other)


def outside(device):
    """A folder on the local disk, beside the mount."""
    return device.dir + ".outside"


RSYNC = ("rsync", "-aHAXS", "--numeric-ids")


def with_rsync(a):
    src = outside(a)
    program(*RSYNC, src + "/", a.path("rsync/"))
    alike(src, a.path("rsync"))
    quiet(src, a.path("rsync"))
    blocks = os.stat(a.path("rsync/sparse")).st_blocks * 512
    check(blocks < 8 << 20, "sparse file takes", blocks)
    # An edit goes over, and only that.
    with open(src + "/dir/size-3145728", "r+b") as f:
        f.seek(1 << 20)
        f.write(b"edited")
    out = program(*RSYNC, "-i", "--inplace", "--no-whole-file", src + "/", a.path("rsync/"))
    equal([l.split()[1] for l in out.splitlines()], ["dir/size-3145728"], "transferred")
    alike(src, a.path("rsync"))
    # Within the mount, out of it, and what is to be deleted.
    program(*RSYNC, a.path("rsync/"), a.path("rsync-2/"))
    quiet(a.path("rsync"), a.path("rsync-2"))
    program("rm", "-r", a.path("rsync-2/dir/deep"))
    program(*RSYNC, "--delete", "--link-dest=" + a.path("rsync"), a.path("rsync/"),
            a.path("rsync-3/"))
    alike(a.path("rsync"), a.path("rsync-3"))
    program(*RSYNC, "--delete", a.path("rsync-2/"), a.path("rsync-3/"))
    quiet(a.path("rsync-2"), a.path("rsync-3"), "--delete")


def quiet(src, dst, *more):
    """A second run has nothing to do, by times and by bytes."""
    equal(program(*RSYNC, "-i", *more, src + "/", dst + "/"), "", "a second run")
    equal(program(*RSYNC, "-i", "--checksum", *more, src + "/", dst + "/"), "", "by checksum")


TAR = ("--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse")


def with_tar(a):
    archive = a.path("tree.tar.gz")
    program("tar", "-C", outside(a), *TAR, "--format=posix", "-czf", archive, ".")
    os.mkdir(a.path("tar"))
    program("tar", "-C", a.path("tar"), *TAR, "-xpzf", archive, "--delay-directory-restore")
    equal(program("tar", "-C", a.path("tar"), *TAR, "-dzf", archive), "", "tar -d")
    # A tar file knows no sockets.
    os.unlink(outside(a) + "/socket")
    alike(outside(a), a.path("tar"))
    program("tar", "-C", a.dir, *TAR, "--listed-incremental=" + outside(a) + ".snar", "-cf",
            "/dev/null", "tar")
    program("tar", "-C", a.dir, *TAR, "--listed-incremental=" + outside(a) + ".snar", "-cf",
            outside(a) + ".tar", "tar")
    files = [n for n in program("tar", "-tf", outside(a) + ".tar").splitlines()
             if not n.endswith("/")]
    equal(files, [], "an incremental archive of what did not change")


def with_cp(a):
    program("cp", "-a", outside(a), a.path("cp"))
    alike(outside(a), a.path("cp"))
    program("cp", "-a", "--reflink=auto", "--sparse=auto", a.path("cp"), a.path("cp-2"))
    alike(a.path("cp"), a.path("cp-2"))
    program("mv", a.path("cp-2"), outside(a) + ".back")
    alike(outside(a), outside(a) + ".back")
    check(not os.path.exists(a.path("cp-2")), "mv left something")
    program("mv", outside(a) + ".back", a.path("cp-3"))
    alike(outside(a), a.path("cp-3"))


def with_zip(a):
    os.mkdir(a.path("zip"))
    program("zip", "-qry", a.path("tree.zip"), "dir", "-x", "dir/deep/*", cwd=outside(a))
    program("unzip", "-q", a.path("tree.zip"), cwd=a.path("zip"))
    program("unzip", "-tq", a.path("tree.zip"))
    program("diff", "-r", "-x", "deep", outside(a) + "/dir", a.path("zip/dir"))


def work(a):
    odd_tree(outside(a))
    with_rsync(a)
    with_tar(a)
    with_cp(a)
    with_zip(a)


def proof(device):
    """What is elsewhere is what rsync would have put there."""
    a = device.dir.removesuffix(device.name) + "a"
    src = device.dir.removesuffix(device.name) + "a.outside"
    alike(src, device.path("cp"))
    quiet(src, device.path("cp"), "--delete")
    equal(program("tar", "-C", device.path("tar"), *TAR, "-dzf", device.path("tree.tar.gz")), "",
          "tar -d")
    check(os.path.isdir(a), a)


BORG = {
    "BORG_PASSPHRASE": "horse",
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
}


def borg(device, *argv, **kw):
    return program("borg", *argv, env={**BORG, "BORG_BASE_DIR": outside(device) + ".borg"}, **kw)


def borg_work(a):
    """A repository on the mount, of a tree on the mount."""
    tree, repo = a.path("tree"), a.path("repo")
    odd_tree(tree)
    # It keeps neither sockets nor hard links of symlinks, nor times before 1970.
    os.utime(os.path.join(tree, "hard-1"), ns=(1, 1))
    os.unlink(os.path.join(tree, "socket"))
    os.unlink(os.path.join(tree, "arrow-2"))
    # It remembers no file that changed as lately as the latest one.
    time.sleep(0.02)
    with open(os.path.join(tree, "latest"), "w"):
        pass
    borg(a, "init", "-e", "repokey-blake2", repo)
    borg(a, "create", "--sparse", repo + "::one", "tree", cwd=a.dir)
    with open(os.path.join(tree, "dir", "new"), "w") as f:
        f.write("new\n")
    out = borg(a, "create", "--sparse", "--list", "--filter=AM", repo + "::two", "tree",
               cwd=a.dir, fail=False).stderr
    equal({l[2:] for l in out.splitlines() if l[:2] in ("A ", "M ")} - {"tree/latest"},
          {"tree/dir/new"}, "files that are read again")
    borg(a, "delete", repo + "::one")
    borg(a, "prune", "--keep-last=1", repo)
    borg(a, "compact", repo)
    borg(a, "check", "--verify-data", repo)
    os.mkdir(a.path("out"))
    borg(a, "extract", "--sparse", "--numeric-ids", repo + "::two", cwd=a.path("out"))
    alike(tree, a.path("out/tree"))


def borg_proof(device):
    borg(device, "check", "--verify-data", device.path("repo"))
    equal(borg(device, "list", "--short", device.path("repo")), "two\n", "archives")


def archives_until_it_fails(a, repo, made):
    for n in range(1000):
        with open(outside(a) + f"/new-{n}", "wb") as f:
            f.write(random.Random(n).randbytes(100000))
        if borg(a, "create", f"{repo}::{n}", outside(a), fail=False).returncode not in (0, 1):
            return
        made.append(str(n))


def test_daemon_killed():
    """kill -9 of the daemon under borg and rsync: what was made is whole, the rest is done again."""
    with Lab() as lab:
        _, a, b = lab.pair()
        repo, src, made = a.path("repo"), outside(a), []
        os.mkdir(src)
        borg(a, "init", "-e", "none", repo)
        t = threading.Thread(target=archives_until_it_fails, args=(a, repo, made))
        t.start()
        until(lambda: len(made) >= 2, 60, "archives")
        a.kill()
        t.join()
        a.mount()
        borg(a, "break-lock", repo)
        borg(a, "check", "--verify-data", repo)
        there = borg(a, "list", "--short", repo).split()
        check(set(made) <= set(there), "made", made, "found", there)
        for n in range(300):
            with open(src + f"/many-{n}", "wb") as f:
                f.write(random.Random(n).randbytes(n * 100))
        copy = subprocess.Popen(["rsync", "-a", src + "/", a.path("copy/")],
                                stderr=subprocess.DEVNULL)
        until(lambda: len(os.listdir(a.path("copy"))) > 20, 60, "files")
        a.kill()
        check(copy.wait(60 * SLOW) != 0, "rsync went on without its mount")
        a.mount()
        program("rsync", "-a", "--delete", src + "/", a.path("copy/"))
        equal(program("rsync", "-ai", "--checksum", src + "/", a.path("copy/")), "", "again")
        settle(a, b)
        same_trees(a.dir, b.dir)
        borg(b, "check", "--verify-data", b.path("repo"))


if __name__ == "__main__":
    main(variants("archives", work, proof, MOUNT) + variants("borg", borg_work, borg_proof, MOUNT) +
         [test_daemon_killed])
