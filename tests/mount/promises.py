# SPDX-License-Identifier: Apache-2.0
"""A workload that writes down what it was promised, and the comparison after a crash.

    w = Workload(mount.dir, journals, seed=7)	# a folder outside of the mount for the journals
    w.start()		# forks the workers, each works on names of its own until it is killed
    ...			# the crash
    w.stop()		# kills and reaps the workers
    ...			# the new mount
    w.compare()		# raises Failed; what is there now is what the next start() begins with

Each worker is a process with one operation at a time: "B OPERATION" goes into its journal before
the call, "E RESULT" behind it. So when the workers are dead, each operation is *promised* (it
returned), *in flight* (at most one a worker, the last: it may have happened or not, as a whole),
or not begun. Model.apply() says what an operation does to a tree; the tree that must be there is
the model after all that was promised, with or without what was in flight.

A write, a copy or msync() of mapped bytes in flight may be there in part: each byte in its range
is the old or the new one, the size is at most what it would be, and bytes outside are untouched.

What survives the death of the daemon need not survive a power cut: for that, read_journal() gives
the operations in order, ("fsync", handle) among them, and Model.apply() the state after each.

Operations, as tuples (paths are relative to the mount; a handle is a number that `create` and
`open` bind to a file until `close`):
    create h path mode | open h path truncate | close h | fsync h | fdatasync h | syncdir path
    write h offset n seed | mmap h offset n seed | copy h offset to_h to_offset n   (result: n)
    truncate h size | trunc_path path size | fallocate h mode offset n
    rename a b flags | link a b | unlink a | mkdir a mode | rmdir a | symlink target a
    chmod a mode | chown a uid gid | utimens a ns | setxattr a name seed n | removexattr a name
    read path	(the worker itself compares)
"""

import copy
import ctypes
import errno
import json
import mmap
import os
import random
import signal
import stat
import traceback

from harness import Failed, check

LIBC = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
# What calls answer when the daemon dies under them.
DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENODEV, errno.ENXIO}
SHARED = ("s0", "s1")
PIECE = 4096


def content(seed, n):
    """n bytes; zeros and repeated ones among them, so that holes and known chunks occur."""
    if seed % 11 == 0:
        return bytes(n)
    if seed % 7 == 0:
        return (random.Random(seed % 5).randbytes(5000) * (n // 5000 + 1))[:n]
    return random.Random(seed).randbytes(n)


class Node:
    def __init__(self, kind, mode=0, target=None):
        self.kind, self.mode, self.target = kind, mode, target
        self.uid = self.gid = 0
        self.nlink = 1
        self.xattrs = {}
        self.mtime = None  # None: any
        self.data = bytearray() if kind == "f" else None
        self.names = {} if kind == "d" else None


class Model:
    """A tree as it must be. `at` finds a node; `apply` does what an operation did."""

    def __init__(self):
        self.root = Node("d")
        self.handles = {}

    def at(self, path):
        node = self.root
        for name in path.split("/"):
            node = node.names[name]
        return node

    def place(self, path):
        """The directory's node, and the name in it."""
        head, _, name = path.rpartition("/")
        return (self.at(head) if head else self.root), name

    def walk(self, node=None, path=""):
        for name, child in (node or self.root).names.items():
            below = f"{path}/{name}" if path else name
            yield below, child
            if child.kind == "d":
                yield from self.walk(child, below)

    def target_of(self, op):
        """The file whose bytes the operation changes."""
        if op[0] in ("write", "mmap", "truncate", "fallocate"):
            return self.handles[op[1]]
        if op[0] == "copy":
            return self.handles[op[3]]
        return None

    def forget_handles(self):
        self.handles = {}

    def apply(self, op, result=None):
        getattr(self, "_" + op[0])(*op[1:], *([result] if op[0] in COUNTED else []))

    def _put(self, path, node):
        folder, name = self.place(path)
        folder.names[name] = node

    def _create(self, h, path, mode):
        self.handles[h] = Node("f", mode)
        self._put(path, self.handles[h])

    def _open(self, h, path, truncate):
        self.handles[h] = self.at(path)
        if truncate:
            self._resize(self.handles[h], 0)

    def _close(self, h):
        del self.handles[h]

    def _fsync(self, h):
        pass

    _fdatasync = _syncdir = _read = _fsync

    def _resize(self, node, size):
        if size < len(node.data):
            del node.data[size:]
        else:
            node.data.extend(bytes(size - len(node.data)))
        node.mtime = None

    def _store(self, node, offset, data):
        if data and len(node.data) < offset:
            self._resize(node, offset)
        node.data[offset:offset + len(data)] = data
        node.mtime = None

    def _write(self, h, offset, n, seed, result):
        self._store(self.handles[h], offset, content(seed, n)[:n if result is None else result])

    _mmap = _write

    def _copy(self, h, offset, to_h, to_offset, n, result):
        n = n if result is None else result
        self._store(self.handles[to_h], to_offset, bytes(self.handles[h].data[offset:offset + n]))

    def _truncate(self, h, size):
        self._resize(self.handles[h], size)

    def _trunc_path(self, path, size):
        self._resize(self.at(path), size)

    def _fallocate(self, h, mode, offset, n):
        node = self.handles[h]
        node.mtime = None
        if not mode & KEEP_SIZE and offset + n > len(node.data):
            self._resize(node, offset + n)
        end = min(offset + n, len(node.data))
        if mode & (PUNCH_HOLE | ZERO_RANGE) and offset < end:
            node.data[offset:end] = bytes(end - offset)

    def _rename(self, a, b, flags):
        (from_dir, from_name), (to_dir, to_name) = self.place(a), self.place(b)
        node, old = from_dir.names.pop(from_name), to_dir.names.get(to_name)
        if flags & EXCHANGE:
            from_dir.names[from_name] = old
        elif old is node:
            # Two names of one file: nothing happens.
            from_dir.names[from_name] = node
            return
        elif old:
            old.nlink -= 1
        to_dir.names[to_name] = node

    def _link(self, a, b):
        self.at(a).nlink += 1
        self._put(b, self.at(a))

    def _unlink(self, a):
        folder, name = self.place(a)
        folder.names.pop(name).nlink -= 1

    def _mkdir(self, a, mode):
        self._put(a, Node("d", mode))

    _rmdir = _unlink

    def _symlink(self, target, a):
        self._put(a, Node("l", 0o777, target))

    def _chmod(self, a, mode):
        self.at(a).mode = mode

    def _chown(self, a, uid, gid):
        self.at(a).uid, self.at(a).gid = uid, gid

    def _utimens(self, a, ns):
        self.at(a).mtime = ns

    def _setxattr(self, a, name, seed, n):
        self.at(a).xattrs[name] = content(seed, n)

    def _removexattr(self, a, name):
        del self.at(a).xattrs[name]


COUNTED = ("write", "mmap", "copy")


def read_journal(path):
    """[(operation, returned, result)]; the last may not have returned. A failure is raised."""
    entries = []
    with open(path) as f:
        lines = f.read().split("\n")
    for line in lines[:-1]:
        if line.startswith("B "):
            entries.append((tuple(json.loads(line[2:])), False, None))
        elif line.startswith("E "):
            entries[-1] = (entries[-1][0], True, json.loads(line[2:]))
        else:
            raise Failed(f"{path}: {line} in {entries[-1][0] if entries else 'the beginning'}")
    return entries


def _libc(name, *args):
    if getattr(LIBC, name)(*args) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)


class Calls:
    """Does operations for real."""

    def __init__(self, top):
        self.top, self.fds = top, {}

    def path(self, path):
        return os.path.join(self.top, path)

    def do(self, op):
        return getattr(self, op[0])(*op[1:])

    def create(self, h, path, mode):
        self.fds[h] = os.open(self.path(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, h, path, truncate):
        self.fds[h] = os.open(self.path(path), os.O_RDWR | (os.O_TRUNC if truncate else 0))

    def close(self, h):
        os.close(self.fds.pop(h))

    def fsync(self, h):
        os.fsync(self.fds[h])

    def fdatasync(self, h):
        os.fdatasync(self.fds[h])

    def syncdir(self, path):
        fd = os.open(self.path(path), os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)

    def write(self, h, offset, n, seed):
        return os.pwrite(self.fds[h], content(seed, n), offset)

    def mmap(self, h, offset, n, seed):
        skip = offset % mmap.PAGESIZE
        with mmap.mmap(self.fds[h], skip + n, offset=offset - skip) as m:
            m[skip:skip + n] = content(seed, n)
            m.flush()
        return n

    def copy(self, h, offset, to_h, to_offset, n):
        return os.copy_file_range(self.fds[h], self.fds[to_h], n, offset, to_offset)

    def truncate(self, h, size):
        os.ftruncate(self.fds[h], size)

    def trunc_path(self, path, size):
        os.truncate(self.path(path), size)

    def fallocate(self, h, mode, offset, n):
        _libc("fallocate", self.fds[h], mode, ctypes.c_int64(offset), ctypes.c_int64(n))

    def rename(self, a, b, flags):
        _libc("renameat2", -100, os.fsencode(self.path(a)), -100, os.fsencode(self.path(b)), flags)

    def link(self, a, b):
        os.link(self.path(a), self.path(b))

    def unlink(self, a):
        os.unlink(self.path(a))

    def mkdir(self, a, mode):
        os.mkdir(self.path(a), mode)

    def rmdir(self, a):
        os.rmdir(self.path(a))

    def symlink(self, target, a):
        os.symlink(target, self.path(a))

    def chmod(self, a, mode):
        os.chmod(self.path(a), mode)

    def chown(self, a, uid, gid):
        os.chown(self.path(a), uid, gid)

    def utimens(self, a, ns):
        os.utime(self.path(a), ns=(ns, ns), follow_symlinks=False)

    def setxattr(self, a, name, seed, n):
        os.setxattr(self.path(a), name, content(seed, n))

    def removexattr(self, a, name):
        os.removexattr(self.path(a), name)

    def read(self, path):
        with open(self.path(path), "rb") as f:
            return f.read()


class Worker:
    """Chooses operations from what its model says is there. Runs in a process of its own."""

    OPEN_MAX = 8
    FILES_MAX = 40
    BYTES_MAX = 10 << 20

    def __init__(self, name, model, top, journal, rng, big):
        self.name, self.model, self.rng, self.big = name, model, rng, big
        self.calls = Calls(top)
        self.journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        self.next_handle = 1

    def note(self, text):
        os.write(self.journal, text.encode() + b"\n")

    def do(self, *op):
        self.note("B " + json.dumps(op))
        result = self.calls.do(op)
        if op[0] == "read":
            if result != self.model.at(op[1]).data:
                raise Failed("read other bytes than were written")
            result = None
        self.note("E " + json.dumps(result))
        if op[0] == "write" and result < op[3]:
            # The kernel sent it in pieces, and the daemon died over one of them.
            raise OSError(errno.ENOTCONN, "short write")
        self.model.apply(op, result)
        return result

    def run(self):
        """Until the mount is dead; what else goes wrong stands in the journal."""
        try:
            while True:
                self.one_program()
        except OSError as e:
            if e.errno not in DEAD:
                self.note("U " + repr(e))
        except Failed as e:
            self.note("U " + str(e))
        except BaseException:
            self.note("U " + repr(traceback.format_exc()))

    # What there is to work on. Names in shared folders begin with the worker's own.

    def files(self):
        return [p for p, n in self.model.walk() if n.kind == "f"]

    def dirs(self):
        return [p for p, n in self.model.walk() if n.kind == "d"]

    def name_in(self, folder):
        name = f"{self.rng.choice('nopqr')}{self.rng.randrange(40)}"
        return f"{folder}/{self.name}.{name}" if folder in SHARED else f"{folder}/{name}"

    def new_path(self):
        dirs = self.dirs()
        while True:
            path = self.name_in(self.rng.choice(dirs))
            folder, name = self.model.place(path)
            if name not in folder.names:
                return path

    def own_dirs(self):
        return [p for p in self.dirs() if p not in SHARED and p != self.name]

    def seed(self):
        return self.rng.randrange(1 << 30)

    def handle(self):
        self.next_handle += 1
        return self.next_handle

    def open_file(self, truncate=False):
        """A handle to any file, open already or not."""
        known = list(self.model.handles)
        files = self.files()
        if known and (not files or self.rng.random() < 0.4):
            return self.rng.choice(known)
        if not files:
            return self.make_file(3000)
        h = self.handle()
        self.do("open", h, self.rng.choice(files), truncate)
        return h

    def make_file(self, n, path=None):
        h = self.handle()
        self.do("create", h, path or self.new_path(), self.rng.choice((0o644, 0o600, 0o755)))
        done = 0
        while done < n:
            done += self.do("write", h, done, min(n - done, 1 << 20), self.seed())
        return h

    def maybe_sync(self, h, share=0.3):
        if self.rng.random() < share:
            self.do(self.rng.choice(("fsync", "fdatasync")), h)

    def maybe_close(self, h, share=0.6):
        if self.rng.random() < share or len(self.model.handles) > self.OPEN_MAX:
            self.do("close", h)

    def size_of(self, h):
        return len(self.model.handles[h].data)

    def small(self):
        return self.rng.choice((1, 100, 4096, 5000, 20000, 66000, self.rng.randrange(1, 120000)))

    def one_program(self):
        files = self.files()
        total = sum(len(self.model.at(p).data) for p in files)
        if len(files) > self.FILES_MAX or total > self.BYTES_MAX:
            self.do("unlink", max(files, key=lambda p: len(self.model.at(p).data)))
            return
        programs = [p for p, weight in self.PROGRAMS for _ in range(weight)]
        self.rng.choice(programs)(self)

    def p_new(self):
        h = self.make_file(self.small())
        self.maybe_sync(h, 0.1)
        self.maybe_close(h, 0.9)

    def p_big(self):
        """Grows as a copy does: cut behind the writer, adopted as a segment."""
        if not self.big or self.rng.random() < 0.5:
            return
        h = self.make_file(0)
        for i in range(self.rng.randrange(4, 30)):
            self.do("write", h, self.size_of(h), self.rng.choice((131072, 300000, 1 << 20)),
                    self.seed())
            self.maybe_sync(h, 0.05)
        self.maybe_close(h)

    def p_append(self):
        h = self.open_file()
        for _ in range(self.rng.randrange(1, 8)):
            self.do("write", h, self.size_of(h), self.rng.randrange(1, 9000), self.seed())
        self.maybe_sync(h)
        self.maybe_close(h)

    def p_overwrite(self):
        h = self.open_file()
        for _ in range(self.rng.randrange(1, 5)):
            self.do("write", h, self.rng.randrange(self.size_of(h) + 1),
                    self.rng.randrange(1, 9000), self.seed())
        self.maybe_sync(h)
        self.maybe_close(h)

    def p_beyond(self):
        h = self.open_file()
        gap = self.rng.choice((1, 5000, 70000, 300000))
        self.do("write", h, self.size_of(h) + gap, self.rng.randrange(1, 9000), self.seed())
        self.maybe_close(h)

    def p_mmap(self):
        h = self.open_file()
        if self.size_of(h) == 0:
            return
        offset = self.rng.randrange(self.size_of(h))
        self.do("mmap", h, offset, min(self.size_of(h) - offset, self.rng.randrange(1, 30000)),
                self.seed())
        self.maybe_close(h)

    def p_truncate(self):
        if self.rng.random() < 0.3 and self.files():
            path = self.rng.choice(self.files())
            self.do("trunc_path", path, self.rng.choice((0, len(self.model.at(path).data) // 2)))
            return
        h = self.open_file(self.rng.random() < 0.2)
        size = self.size_of(h)
        self.do("truncate", h, self.rng.choice((0, size // 2, size, size + 70000)))
        if self.rng.random() < 0.5:
            self.do("write", h, self.rng.randrange(1, 5000), 3000, self.seed())
        self.maybe_close(h)

    def p_fallocate(self):
        h = self.open_file()
        mode = self.rng.choice((0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE,
                                ZERO_RANGE | KEEP_SIZE))
        self.do("fallocate", h, mode, self.rng.randrange(self.size_of(h) + 9000),
                self.rng.randrange(1, 100000))
        self.maybe_close(h)

    def p_copy(self):
        h, to = self.open_file(), self.open_file()
        if self.rng.random() < 0.3:
            h = self.make_file(self.rng.choice((70000, 300000)))
        if h == to or self.model.handles[h] is self.model.handles[to] or self.size_of(h) == 0:
            return
        offset = self.rng.randrange(self.size_of(h)) // 2
        self.do("copy", h, offset, to, self.rng.randrange(self.size_of(to) + 1),
                self.size_of(h) - offset)

    def p_save(self):
        """Writes another file and renames it over the old one."""
        files = self.files()
        old, new = self.rng.choice(files) if files else self.new_path(), self.new_path()
        h = self.make_file(self.small(), new)
        self.maybe_sync(h, 0.5)
        if self.rng.random() < 0.8:
            self.do("close", h)
        self.do("rename", new, old, 0)

    def p_backup(self):
        """Renames the old one away, writes under its name, removes the old one."""
        if not self.files():
            return
        path, away = self.rng.choice(self.files()), self.new_path()
        self.do("rename", path, away, NOREPLACE)
        self.do("close", self.make_file(self.small(), path))
        self.do("unlink", away)

    def p_rename(self):
        files = self.files()
        if not files:
            return
        if self.rng.random() < 0.3:
            a, b = self.rng.choice(files), self.rng.choice(files)
            # Of a hard link to itself nothing would happen, and that is another test's.
            if self.model.at(a) is not self.model.at(b):
                self.do("rename", a, b, self.rng.choice((0, EXCHANGE)))
            return
        self.do("rename", self.rng.choice(files), self.new_path(), 0)

    def p_rename_dirty(self):
        """A name that changes while the file has unsealed bytes."""
        path, to = self.new_path(), self.new_path()
        if path == to:
            return
        h = self.make_file(self.small(), path)
        self.do("rename", path, to, 0)
        self.do("write", h, 0, self.rng.randrange(1, 5000), self.seed())
        self.maybe_close(h, 0.3)

    def p_rename_dir(self):
        dirs = self.own_dirs()
        if not dirs:
            return
        path, to = self.rng.choice(dirs), self.new_path()
        if not (to + "/").startswith(path + "/"):
            self.do("rename", path, to, 0)

    def p_link(self):
        if self.files():
            self.do("link", self.rng.choice(self.files()), self.new_path())

    def p_unlink(self):
        names = [p for p, n in self.model.walk() if n.kind != "d"]
        if len(names) > 5:
            self.do("unlink", self.rng.choice(names))

    def p_unlink_open(self):
        """Deleted while it is dirty and open, and written to after that."""
        path = self.new_path()
        h = self.make_file(self.small(), path)
        self.maybe_sync(h, 0.2)
        self.do("unlink", path)
        if self.rng.random() < 0.5:
            self.do("write", h, 0, 5000, self.seed())
        self.maybe_close(h)

    def p_mkdir(self):
        if len(self.own_dirs()) < 12:
            self.do("mkdir", self.new_path(), self.rng.choice((0o755, 0o700)))

    def p_rmdir(self):
        empty = [p for p in self.own_dirs() if not self.model.at(p).names]
        if empty:
            self.do("rmdir", self.rng.choice(empty))

    def p_symlink(self):
        if sum(n.kind == "l" for _, n in self.model.walk()) < 10:
            self.do("symlink", "to/" + "x" * self.rng.randrange(200), self.new_path())

    def p_attr(self):
        paths = self.files() + self.own_dirs()
        if not paths:
            return
        path = self.rng.choice(paths)
        what = self.rng.randrange(3)
        if what == 0:
            self.do("chmod", path, self.rng.choice((0o640, 0o600, 0o755, 0o777)))
        elif what == 1:
            self.do("chown", path, self.rng.randrange(3), self.rng.randrange(3))
        elif self.model.at(path).kind == "f":
            self.do("utimens", path, self.rng.randrange(1 << 60))

    def p_times_dirty(self):
        """Times that are set while bytes are not sealed; the seal must carry them."""
        path = self.new_path()
        h = self.make_file(self.small(), path)
        self.do("utimens", path, self.rng.randrange(1 << 60))
        self.maybe_close(h, 0.8)

    def p_xattr(self):
        if not self.files():
            return
        path = self.rng.choice(self.files())
        have = list(self.model.at(path).xattrs)
        if have and self.rng.random() < 0.4:
            self.do("removexattr", path, self.rng.choice(have))
        else:
            self.do("setxattr", path, f"user.x{self.rng.randrange(5)}", self.seed(),
                    self.rng.randrange(1, 300))

    def p_close(self):
        for h in list(self.model.handles):
            self.do("close", h)

    def p_read(self):
        if self.files():
            self.do("read", self.rng.choice(self.files()))

    def p_syncdir(self):
        self.do("syncdir", self.rng.choice(self.dirs()))

    PROGRAMS = [
        (p_new, 8), (p_big, 2), (p_append, 6), (p_overwrite, 6), (p_beyond, 2), (p_mmap, 3),
        (p_truncate, 4), (p_fallocate, 3), (p_copy, 2), (p_save, 6), (p_backup, 2),
        (p_rename, 4), (p_rename_dirty, 2), (p_rename_dir, 2), (p_link, 3), (p_unlink, 4),
        (p_unlink_open, 2), (p_mkdir, 2), (p_rmdir, 2), (p_symlink, 1), (p_attr, 4),
        (p_times_dirty, 2), (p_xattr, 3), (p_close, 2), (p_read, 2), (p_syncdir, 1),
    ]


# The comparison.


def _mixed(got, old, new):
    """Whether each byte is the old or the new one; what lies behind the old end is the new's."""
    if not min(len(old), len(new)) <= len(got) <= max(len(old), len(new)):
        return False
    for at in range(0, len(got), PIECE):
        one = got[at:at + PIECE]
        a, b = old[at:at + len(one)], new[at:at + len(one)]
        if one == a or one == b:
            continue
        for i, byte in enumerate(one):
            if byte not in (a[i:i + 1] + b[i:i + 1]):
                return False
    return True


def _differs(path, st, node):
    """What of one node is not as it should be, bytes aside; None when all is."""
    kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}.get(stat.S_IFMT(st.st_mode))
    if kind != node.kind:
        return f"is {kind}, not {node.kind}"
    if kind != "l" and stat.S_IMODE(st.st_mode) != node.mode:
        return f"mode {stat.S_IMODE(st.st_mode):o}, not {node.mode:o}"
    if (st.st_uid, st.st_gid) != (node.uid, node.gid):
        return f"owner {st.st_uid}:{st.st_gid}, not {node.uid}:{node.gid}"
    nlink = node.nlink
    if kind == "d":
        nlink = 2 + sum(n.kind == "d" for n in node.names.values())
    if st.st_nlink != nlink:
        return f"{st.st_nlink} links, not {nlink}"
    if node.mtime is not None and st.st_mtime_ns != node.mtime:
        return f"mtime {st.st_mtime_ns}, not {node.mtime}"
    if kind == "l":
        return None if os.readlink(path) == node.target else "another target"
    names = {n for n in os.listxattr(path) if not n.startswith("user.varve.")}
    if names != set(node.xattrs):
        return f"xattrs {sorted(names)}, not {sorted(node.xattrs)}"
    if any(os.getxattr(path, n) != v for n, v in node.xattrs.items()):
        return "another value of an xattr"
    return None


class Found:
    """What lies in the mount; each file is read once, however often it is compared."""

    def __init__(self, top):
        self.top, self.bytes = top, {}

    def data(self, path, st):
        if st.st_ino not in self.bytes:
            with open(path, "rb") as f:
                self.bytes[st.st_ino] = f.read()
        return self.bytes[st.st_ino]

    def compare(self, owner, node, below="", loose=None, out=None):
        """Differences between the mount and a model's directory, as texts."""
        out = [] if out is None else out
        folder = os.path.join(self.top, below)
        names = set(os.listdir(folder))
        if below in SHARED or not below:
            names = {n for n in names if n == owner or n.startswith(owner + ".")}
        want = set(node.names)
        if not below:
            want -= set(SHARED)
            for shared in SHARED:
                if shared in node.names:
                    self.compare(owner, node.names[shared], shared, loose, out)
        out += [f"{below}/{n} is missing" for n in sorted(want - names)]
        out += [f"{below}/{n} should not be there" for n in sorted(names - want)]
        for name in sorted(names & want):
            self.compare_one(owner, node.names[name], f"{below}/{name}" if below else name, loose,
                             out)
        return out

    def compare_one(self, owner, node, rel, loose, out):
        path = os.path.join(self.top, rel)
        st = os.lstat(path)
        if loose and node is loose[1]:
            node = copy.copy(node)
            node.mtime = None
        why = _differs(path, st, node)
        if why:
            out.append(f"{rel}: {why}")
            return
        if node.kind == "d":
            self.compare(owner, node, rel, loose, out)
        if node.kind != "f":
            return
        got = self.data(path, st)
        if len(got) != st.st_size:
            out.append(f"{rel}: {len(got)} bytes could be read of {st.st_size}")
        elif got != node.data:
            if loose and node.data is loose[1].data and _mixed(got, loose[0].data, node.data):
                return
            at = next((i for i, (x, y) in enumerate(zip(got, node.data)) if x != y),
                      min(len(got), len(node.data)))
            out.append(f"{rel}: {len(got)} bytes, not {len(node.data)}, differ from {at} on")


class Workload:
    def __init__(self, top, journals, seed=1, workers=3, prefix="w", big=True):
        self.top, self.seed, self.big = top, seed, big
        self.names = [f"{prefix}{i}" for i in range(workers)]
        self.journals = {n: os.path.join(journals, f"journal-{n}") for n in self.names}
        self.models = {n: Model() for n in self.names}
        self.pids = {}
        self.rounds = self.ops = self.in_flight = 0
        os.makedirs(journals, exist_ok=True)
        for path in self.journals.values():
            open(path, "w").close()

    def setup(self):
        """The folders that all share, and one for each; to be called once, mounted."""
        for shared in SHARED:
            os.makedirs(os.path.join(self.top, shared), exist_ok=True)
        for name, model in self.models.items():
            os.mkdir(os.path.join(self.top, name))
            os.chmod(os.path.join(self.top, name), 0o755)
            for shared in SHARED:
                model.root.names[shared] = Node("d")
            model.root.names[name] = Node("d", 0o755)

    def start(self):
        self.rounds += 1
        for i, name in enumerate(self.names):
            pid = os.fork()
            if pid == 0:
                try:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    os.umask(0)
                    rng = random.Random(self.seed * 1000003 + self.rounds * 101 + i)
                    Worker(name, self.models[name], self.top, self.journals[name], rng,
                           self.big).run()
                finally:
                    os._exit(0)
            self.pids[name] = pid

    def alive(self):
        """Whether all workers still work; to be asked before the crash."""
        for pid in self.pids.values():
            # WNOWAIT: stop() reaps.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return False
        return True

    def stop(self):
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
        for pid in self.pids.values():
            os.waitpid(pid, 0)
        self.pids = {}

    def compare(self):
        found = Found(self.top)
        for name in self.names:
            self._compare_worker(name, found)

    def _compare_worker(self, name, found):
        model, entries = self.models[name], read_journal(self.journals[name])
        # Compared again without a run in between, there is nothing new.
        open(self.journals[name], "w").close()
        open_op = None
        for op, returned, result in entries:
            if returned:
                model.apply(op, result)
                self.ops += 1
                # What lies behind the end of a short write is as much in flight as any.
                open_op = op if op[0] == "write" and result < op[3] else None
            else:
                open_op = op
        without = found.compare(name, model.root)
        if not without:
            model.forget_handles()
            return
        check(open_op, f"{name}: after all that was promised:", "; ".join(without[:8]),
              self._story(entries, without))
        self.in_flight += 1
        after = copy.deepcopy(model)
        after.apply(open_op)
        with_it = found.compare(name, after.root)
        if with_it:
            with_it = self._compare_partly(name, found, model, after, open_op, with_it)
        check(not with_it, f"{name}: {open_op} in flight; without it:", "; ".join(without[:8]),
              "; with it:", "; ".join(with_it[:8]), self._story(entries, with_it))
        after.forget_handles()
        self.models[name] = after

    @staticmethod
    def _story(entries, differences):
        """What the round did to the first path that differs, and its last operations."""
        path = differences[0].split(":")[0].split(" ")[0] if differences else None
        handles, story = set(), []
        for op, *_ in entries:
            if path in op[1:]:
                story.append(op)
                handles |= {op[1]} if op[0] in ("create", "open") else set()
            elif op[1] in handles:
                story.append(op)
            if op[0] == "close":
                handles.discard(op[1])
        return f"; of {path}: {story}; last: {[e[0] for e in entries[-4:]]}"

    def _compare_partly(self, name, found, model, after, op, differences):
        if op[0] not in COUNTED:
            return differences
        old, new = model.target_of(op), after.target_of(op)
        differences = found.compare(name, after.root, loose=(old, new))
        if not differences and new.nlink:
            path = next(p for p, n in after.walk() if n is new)
            full = os.path.join(self.top, path)
            new.data[:] = found.data(full, os.lstat(full))
        return differences
