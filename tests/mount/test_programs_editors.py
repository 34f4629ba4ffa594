#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How editors save: a save is one version of the name, here and on the other device."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile

from harness import Lab, check, equal, main
from programs import program, settle

SAVES = 4


def put(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode=0o644, sync=True):
    fd = os.open(path, flags, mode)
    try:
        equal(os.write(fd, data), len(data), "written")
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path):
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def in_place(path, data):
    """nano, Notepad: the same file, cut and written again."""
    put(path, data)


def overwritten(path, data):
    """Without O_TRUNC; cut at the end."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, data)
    os.ftruncate(fd, len(data))
    os.close(fd)


def temp_and_rename(path, data):
    """GLib's g_file_set_contents(), VS Code's atomic saves, most configuration files."""
    fd, temp = tempfile.mkstemp(prefix=".goutputstream-", dir=os.path.dirname(path))
    os.write(fd, data)
    with contextlib.suppress(FileNotFoundError):
        os.fchmod(fd, stat.S_IMODE(os.stat(path).st_mode))
    os.fsync(fd)
    os.close(fd)
    os.rename(temp, path)
    sync_folder(path)


def backup_by_rename(path, data):
    """Vim with 'backupcopy=no', Emacs: the old file becomes NAME~, a new one takes the name."""
    old = os.stat(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + "~")
    os.rename(path, path + "~")
    put(path, data, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.chmod(path, stat.S_IMODE(old.st_mode))


def backup_by_link(path, data):
    """Emacs with backup-by-copying-when-linked, gedit: the backup is a second link."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + ".bak")
    os.link(path, path + ".bak")
    put(path + ".tmp", data)
    os.rename(path + ".tmp", path)


def backup_by_copy(path, data):
    """Vim with 'backupcopy=yes': the inode stays."""
    shutil.copy2(path, path + "~")
    put(path, data)
    os.unlink(path + "~")


def vim_swap(path, data):
    """A swap file that is written while one types, and removed at the end."""
    folder, name = os.path.split(path)
    swap = os.path.join(folder, f".{name}.swp")
    # Vim looks whether the file system keeps short names.
    put(swap, b"b0VIM", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, sync=False)
    try:
        put(swap, b"", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        raise AssertionError("O_EXCL let a second editor in")
    except FileExistsError:
        pass
    fd = os.open(swap, os.O_RDWR)
    for n in range(5):
        os.pwrite(fd, bytes(4096), n * 4096)
        os.fsync(fd)
    # Its test of a folder where it may write.
    put(os.path.join(folder, "4913"), b"x", os.O_WRONLY | os.O_CREAT | os.O_EXCL, sync=False)
    os.unlink(os.path.join(folder, "4913"))
    backup_by_rename(path, data)
    os.unlink(path + "~")
    os.close(fd)
    os.unlink(swap)


def emacs_lock(path, data):
    """The lock is a symlink that leads nowhere and says who has it."""
    folder, name = os.path.split(path)
    lock = os.path.join(folder, f".#{name}")
    os.symlink("user@host.1234:1700000000", lock)
    try:
        os.symlink("other@host.1", lock)
        raise AssertionError("two locks")
    except FileExistsError:
        equal(os.readlink(lock), "user@host.1234:1700000000", "the lock says who")
    put(os.path.join(folder, f"#{name}#"), data)
    put(path, data)
    os.unlink(os.path.join(folder, f"#{name}#"))
    os.unlink(lock)


def libreoffice(path, data):
    """A lock file, a lock on the document itself, a temporary file, a copy over the old one."""
    import fcntl
    folder, name = os.path.split(path)
    lock = os.path.join(folder, f".~lock.{name}#")
    put(lock, b",user,host,01.01.2026 00:00,file:///home;", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    fd = os.open(path, os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    temp = os.path.join(folder, "lu12345.tmp")
    put(temp, data)
    os.close(fd)
    os.rename(temp, path)
    os.unlink(lock)


def office(path, data):
    """Word: write a new file, move the old one aside, move the new one in, drop the old one."""
    folder, name = os.path.split(path)
    put(os.path.join(folder, f"~${name}"), b"owner", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    put(os.path.join(folder, "~WRD0000.tmp"), data)
    os.rename(path, os.path.join(folder, "~WRL0001.tmp"))
    os.rename(os.path.join(folder, "~WRD0000.tmp"), path)
    os.unlink(os.path.join(folder, "~WRL0001.tmp"))
    os.unlink(os.path.join(folder, f"~${name}"))


def exchanged(path, data):
    """macOS and newer tools: both names change places, then the old one goes."""
    put(path + ".new", data)
    renameat2 = __import__("ctypes").CDLL(None, use_errno=True).renameat2
    equal(renameat2(-100, os.fsencode(path + ".new"), -100, os.fsencode(path), 2), 0, "exchange")
    os.unlink(path + ".new")


def unnamed(path, data):
    """O_TMPFILE and linkat() where there is such a thing, else a named temporary file."""
    folder = os.path.dirname(path)
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o644)
    except OSError as e:
        check(e.errno in (errno.EOPNOTSUPP, errno.EISDIR), "errno of O_TMPFILE:", e)
        temp_and_rename(path, data)
        return
    os.write(fd, data)
    os.fsync(fd)
    os.link(f"/proc/self/fd/{fd}", path + ".new", follow_symlinks=True)
    os.close(fd)
    os.rename(path + ".new", path)


def with_vim(path, data):
    script = path + ".vim.tmp"
    put(os.path.join("/tmp", os.path.basename(script)), data)
    program("vim.tiny" if shutil.which("vim.tiny") else "vim", "-N", "-u", "NONE", "-i", "NONE",
            "-es", "-c", "set backup writebackup backupcopy=auto fsync", "-c",
            f"%!cat /tmp/{os.path.basename(script)}", "-c", "wq", path)
    os.unlink(os.path.join("/tmp", os.path.basename(script)))


def with_sed(path, data):
    program("sed", "-i", "-n", f"$!d; 1c\\\n{data.decode().rstrip()}", path)
    put(path, data, sync=False)


def with_perl(path, data):
    program("perl", "-i.orig", "-pe", "s/^/# /", path)
    put(path, data, sync=False)


# How a save is made, and how many changes of the tree it may cost at most.
PATTERNS = {
    in_place: 2,
    overwritten: 1,
    temp_and_rename: 4,
    backup_by_rename: 5,
    backup_by_link: 6,
    backup_by_copy: 7,
    vim_swap: 14,
    emacs_lock: 8,
    libreoffice: 7,
    office: 9,
    exchanged: 4,
    unnamed: 5,
    with_vim: 20,
    with_sed: 8,
    with_perl: 10,
}


def text(pattern, n):
    return b"%s, save %d\n" % (pattern.__name__.encode(), n) * (n + 1)


def first(device):
    for pattern in PATTERNS:
        folder = device.path(pattern.__name__)
        os.mkdir(folder)
        put(os.path.join(folder, "doc.txt"), text(pattern, 0), sync=False)
        os.chmod(os.path.join(folder, "doc.txt"), 0o640)


def no_conflicts(*devices):
    for d in devices:
        for folder, _, names in os.walk(d.dir):
            for name in names:
                check("conflicted" not in name, name)
                check(not name.startswith((".#", ".~", "~$", "lu1", ".goutput", "4913"))
                      and not name.endswith((".swp", ".tmp", ".new")), "left behind:", name)


def is_at(device, pattern, n):
    path = device.path(pattern.__name__, "doc.txt")
    with open(path, "rb") as f:
        equal(f.read(), text(pattern, n), pattern.__name__, "on", device.name)


def test_saves_online():
    """In turn on both devices, each upon what the other saved."""
    with Lab() as lab:
        _, a, b = lab.pair()
        first(a)
        settle(a, b)
        for n in range(1, SAVES + 1):
            here, there = (a, b) if n % 2 else (b, a)
            for pattern in PATTERNS:
                pattern(here.path(pattern.__name__, "doc.txt"), text(pattern, n))
                is_at(here, pattern, n)
            settle(here, there)
            for pattern in PATTERNS:
                is_at(there, pattern, n)
        no_conflicts(a, b)


def test_saves_offline():
    """A save costs a handful of changes, and all arrive once there is a server."""
    with Lab() as lab:
        s, a, b = lab.pair()
        first(a)
        settle(a, b)
        modes = {p: os.stat(a.path(p.__name__, "doc.txt")).st_mode for p in PATTERNS}
        s.stop()
        for pattern, most in PATTERNS.items():
            for n in range(1, SAVES + 1):
                before = a.status()["outbox_entries"]
                pattern(a.path(pattern.__name__, "doc.txt"), text(pattern, n))
                made = a.status()["outbox_entries"] - before
                # On a machine that is slow enough, what is open and idle is sealed, too.
                check(0 < made <= most + 4, pattern.__name__, "made", made, "changes")
                is_at(a, pattern, n)
        s.start()
        settle(a, b)
        for pattern in PATTERNS:
            is_at(b, pattern, SAVES)
            equal(os.stat(b.path(pattern.__name__, "doc.txt")).st_mode,
                  os.stat(a.path(pattern.__name__, "doc.txt")).st_mode, "mode")
        equal(os.stat(b.path("with_vim", "doc.txt")).st_mode, modes[with_vim], "mode by vim")
        no_conflicts(a, b)


if __name__ == "__main__":
    main([test_saves_online, test_saves_offline])
