# SPDX-License-Identifier: Apache-2.0
"""A workload that writes down, for each thing it changes, when it may be there, and from when on
it must be; and the comparison with what a power cut has left.

A thing (Thing and its kinds) has states, one after another. A state *may* be seen from the instant
before the call that makes it, and *must* be there, or a later one, from the instant on at which
an fsync() that covers it has returned. An instant is a number that Recorder.pos() gives.
"""

import bisect
import errno
import hashlib
import mmap
import os
import random
import shutil
import sqlite3
import stat
import threading

from harness import Failed, check

BLOCK = 512
PAGE = 4096
GROW_MAX = 12 << 20


def digest(data):
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def seen(path):
    """What is at a name, as a value that can be compared."""
    try:
        st = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(st.st_mode):
        return ("link", os.readlink(path))
    if stat.S_ISDIR(st.st_mode):
        return ("dir",)
    with open(path, "rb") as f:
        data = f.read()
    check(len(data) == st.st_size, path, "stat says", st.st_size, "read", len(data))
    return ("file", len(data), digest(data))


def of_bytes(data):
    return ("file", len(data), digest(bytes(data)))


class Thing:
    """One name, with what is at it."""

    def __init__(self, name, first=None):
        self.name = name
        self.values = [first]
        self.may = [0]  # ascending
        self.must = []  # (instant, state), ascending in both
        self.acked = []  # the same, of what the server has

    def begin(self, pos, value):
        self.values.append(value)
        self.may.append(pos)

    def durable(self, pos, state=None):
        self.must.append((pos, len(self.values) - 1 if state is None else state))

    def note_acked(self, pos, state):
        if not self.acked or self.acked[-1][1] < state:
            self.acked.append((pos, state))

    @staticmethod
    def _last(marks, instant):
        # A mark made late, of an early state, takes nothing back.
        return max((state for pos, state in marks if pos <= instant), default=0)

    def bounds(self, instant, local=True):
        low = self._last(self.acked, instant)
        if local:
            low = max(low, self._last(self.must, instant))
        high = bisect.bisect_right(self.may, instant) - 1
        return low, max(high, low)

    def look(self, top):
        return seen(os.path.join(top, self.name))

    def same(self, got, value):
        return got == value

    def check(self, top, instant, local=True):
        """None, or what is wrong."""
        low, high = self.bounds(instant, local)
        got = self.look(top)
        for value in self.values[low:high + 1]:
            if self.same(got, value):
                return None
        where = [i for i, v in enumerate(self.values) if self.same(got, v)]
        return (f"{self.name}: {got}, which is state {where or 'none'}; must be one of {low}.."
                f"{high}, the first of them {self.values[low]}")


class Mode(Thing):
    """The permission bits and an xattr of a file that is there."""

    def look(self, top):
        path = os.path.join(top, self.name)
        try:
            value = os.getxattr(path, "user.state")
        except OSError:
            value = b""
        return (stat.S_IMODE(os.lstat(path).st_mode), value.decode())


class Place(Thing):
    """Which of some names one file has. Renamed: never none, never two."""

    def __init__(self, names, first, data):
        super().__init__(" or ".join(names), first)
        self.names, self.data = names, of_bytes(data)

    def look(self, top):
        found = [n for n in self.names if os.path.lexists(os.path.join(top, n))]
        if len(found) == 1:
            got = seen(os.path.join(top, found[0]))
            return found[0] if got == self.data else (found[0], got)
        return tuple(found)


class Blocks(Thing):
    """A file of a fixed size that is written in place, more than a log takes at once: each sector
    is one that it had since the last fsync."""

    def __init__(self, name, data):
        super().__init__(name, None)
        self.size = len(data)
        self.data = bytearray(data)
        self.sectors = {}  # number: [(may, state, bytes)]
        self.states = 0
        self.first = bytes(data)

    def begin_write(self, pos, offset, data):
        self.states += 1
        self.values.append(self.states)
        self.may.append(pos)
        self.data[offset:offset + len(data)] = data
        for n in range(offset // BLOCK, (offset + len(data) - 1) // BLOCK + 1):
            self.sectors.setdefault(n, []).append(
                (pos, self.states, bytes(self.data[n * BLOCK:(n + 1) * BLOCK])))

    def check(self, top, instant, local=True):
        low, _ = self.bounds(instant, local)
        with open(os.path.join(top, self.name), "rb") as f:
            got = f.read()
        if len(got) != self.size:
            return f"{self.name}: {len(got)} bytes, not {self.size}"
        for at in range(0, self.size, BLOCK):
            one = got[at:at + BLOCK]
            had = [(0, 0, self.first[at:at + BLOCK])] + self.sectors.get(at // BLOCK, [])
            had = [h for h in had if h[0] <= instant]
            begin = max(i for i, h in enumerate(had) if h[1] <= low)
            if all(one != h[2] for h in had[begin:]):
                which = [h[1] for h in had if h[2] == one]
                return (f"{self.name}: the sector at {at} is of state {which or 'none'}, must be "
                        f"of {[h[1] for h in had[begin:]]}; zeros: {not any(one)}")
        return None


class Growing(Thing):
    """A file that is only appended to. Its values are lengths. What was not fsynced may end within
    an append, at a page: the kernel may cut a write there into two requests."""

    def __init__(self, name):
        super().__init__(name, None)
        self.data = bytearray()

    def begin_append(self, pos, data):
        self.data += data
        self.begin(pos, len(self.data))

    def look(self, top):
        try:
            with open(os.path.join(top, self.name), "rb") as f:
                return f.read()
        except FileNotFoundError:
            return None

    def same(self, got, value):
        if got is None or value is None:
            return got is value
        return len(got) == value and got == self.data[:value]

    def check(self, top, instant, local=True):
        wrong = super().check(top, instant, local)
        if not wrong:
            return None
        got = self.look(top)
        low, high = self.bounds(instant, local)
        if got is None:
            return f"{self.name}: absent; must have {self.values[low]} to {self.values[high]}"
        same = next((i for i, (a, b) in enumerate(zip(got, self.data)) if a != b), len(got))
        if (same == len(got) and len(got) % PAGE == 0
                and (self.values[low] or 0) <= len(got) <= (self.values[high] or 0)):
            return None
        return (f"{self.name}: {len(got)} bytes, {same} of them right; must be "
                f"{self.values[low]} to {self.values[high]}")


class Database(Thing):
    """Transactions 1, 2, 3, ... in SQLite."""

    def __init__(self, name, journal, synchronous):
        super().__init__(name, None)
        self.journal, self.synchronous = journal, synchronous

    def connect(self, top):
        db = sqlite3.connect(os.path.join(top, self.name), isolation_level=None,
                             check_same_thread=False)
        db.execute(f"pragma journal_mode={self.journal}")
        db.execute(f"pragma synchronous={self.synchronous}")
        db.execute("pragma wal_autocheckpoint=20")
        return db

    def look(self, top):
        path = os.path.join(top, self.name)
        if not os.path.exists(path) or os.path.getsize(path) == 0:
            return None
        for name in (path, path + "-wal", path + "-journal"):
            if os.path.exists(name):
                with open(name, "rb") as f:
                    f.read()  # SQLite does not say what it could not read, and why
        db = sqlite3.connect(path)
        try:
            ok = db.execute("pragma integrity_check").fetchall()
            if ok != [("ok",)]:
                return ok
            if not db.execute("select 1 from sqlite_master where name = 't'").fetchall():
                return None
            count, last, whole = db.execute(
                "select count(*), max(n), sum(length(x) = 300 + n % 700) from t").fetchone()
            return (last or 0) if count == (last or 0) == (whole or 0) else ("rows", count, last)
        except sqlite3.Error as e:
            return repr(e)
        finally:
            db.close()


class Work:
    """The threads. top: the mount; pos: a function."""

    def __init__(self, top, pos, seed):
        self.top, self.pos = top, pos
        self.things = []
        self.rngs = [random.Random(seed * 31 + i) for i in range(5)]
        self.stopping = threading.Event()
        self.threads, self.errors = [], []
        self.counter = 0
        self.lock = threading.Lock()

    def path(self, name):
        return os.path.join(self.top, name)

    def add(self, thing):
        with self.lock:
            self.things.append(thing)
        return thing

    def sync_dir(self, name):
        fd = os.open(self.path(name), os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)

    def setup(self):
        """What is there from the beginning, durable."""
        pos = self.pos()
        rng = self.rngs[0]
        for folder in ("small", "big", "names", "names/deep", "db"):
            os.mkdir(self.path(folder))
        self.saves = [self.add(Thing(f"small/save{i}")) for i in range(4)]
        self.loose = [self.add(Thing(f"small/loose{i}")) for i in range(4)]
        self.edits = []
        for i in range(3):
            data = bytearray(rng.randbytes((3000, 90000, 700000)[i]))
            thing = self.add(Thing(f"small/edit{i}", of_bytes(data)))
            self.edits.append((thing, data))
            self.put(thing.name, data)
        self.mapped = self.add(Blocks("big/mapped", rng.randbytes(256 << 10)))
        self.inplace = self.add(Blocks("big/inplace", rng.randbytes(3 << 20)))
        for thing in (self.mapped, self.inplace):
            self.put(thing.name, thing.data)
        self.logs = [self.add(Growing(f"small/log{i}")) for i in range(2)]
        self.big = [self.add(Growing(f"big/grow{i}")) for i in range(2)]
        self.rewrite = [self.add(Thing(f"big/rewrite{i}")) for i in range(2)]
        self.moved = []
        for i in range(3):
            names = [f"names/m{i}.a", f"names/deep/m{i}.b", f"names/m{i}.c"]
            data = rng.randbytes(2000 + 40000 * i)
            self.put(names[0], data)
            self.moved.append(self.add(Place(names, names[0], data)))
        self.modes = []
        for i in range(2):
            self.put(f"names/mode{i}", b"m")
            os.chmod(self.path(f"names/mode{i}"), 0o600)
            os.setxattr(self.path(f"names/mode{i}"), "user.state", b"0")
            self.modes.append(self.add(Mode(f"names/mode{i}", (0o600, "0"))))
        self.names = [self.add(Thing(f"names/n{i}")) for i in range(10)]
        self.dbs = [self.add(Database("db/wal.db", "wal", "full")),
                    self.add(Database("db/delete.db", "delete", "extra")),
                    self.add(Database("db/truncate.db", "truncate", "full"))]
        for folder in ("small", "big", "names", "names/deep", "db"):
            self.sync_dir(folder)
        return pos

    def put(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())

    # The threads; each has its things to itself.

    def start(self):
        self.stopping.clear()
        for i, work in enumerate((self.do_small, self.do_big, self.do_names, self.do_db)):
            t = threading.Thread(target=self._run, args=(work, self.rngs[i + 1]))
            t.start()
            self.threads.append(t)

    def _run(self, work, rng):
        try:
            work(rng)
        except Exception as e:  # any is a failure of the test
            self.errors.append((work.__name__, repr(e)))

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join()
        self.threads = []
        if self.errors:
            raise Failed(f"the workload failed: {self.errors}")

    def ended(self):
        """The daemon was stopped, and well: all is durable."""
        pos = self.pos()
        for thing in self.things:
            thing.durable(pos)

    def reached(self):
        """For acknowledged(): how far each thing is. Only while the threads rest."""
        return [(t, len(t.values) - 1) for t in self.things]

    def acknowledged(self, reached):
        pos = self.pos()
        for thing, state in reached:
            thing.note_acked(pos, state)

    def do_small(self, rng):
        fds = {}
        while not self.stopping.is_set():
            k = rng.randrange(10)
            if k < 3:
                self.save(rng, rng.choice(self.saves), synced=True)
            elif k < 5:
                self.save(rng, rng.choice(self.loose), synced=False)
            elif k < 7:
                self.edit(rng, *rng.choice(self.edits))
            else:
                self.append(rng, rng.choice(self.logs), fds)
        for fd in fds.values():
            os.close(fd)

    def save(self, rng, thing, synced):
        data = rng.randbytes(rng.choice((0, 10, 3000, 5000, 40000, 66000, 300000)))
        tmp = self.path(thing.name + ".tmp")
        with open(tmp, "wb") as f:
            f.write(data)
            f.flush()
            if synced:
                os.fsync(f.fileno())
        thing.begin(self.pos(), of_bytes(data))
        os.rename(tmp, self.path(thing.name))
        if synced and rng.random() < 0.6:
            self.sync_dir("small")
            thing.durable(self.pos())
        elif synced and rng.random() < 0.5:
            # fsync of the file itself has to bring its name along.
            fd = os.open(self.path(thing.name), os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            thing.durable(self.pos())

    def edit(self, rng, thing, data):
        """In place, little enough for the staging log: each write is whole or not at all."""
        fd = os.open(self.path(thing.name), os.O_RDWR)
        if rng.random() < 0.15:
            thing.begin(self.pos(), of_bytes(b""))
            os.ftruncate(fd, 0)
            if rng.random() < 0.5:
                os.fsync(fd)
                thing.durable(self.pos())
            fresh = rng.randbytes(len(data) % 20000 + 1000)
            data[:] = fresh
            thing.begin(self.pos(), of_bytes(data))
            os.pwrite(fd, fresh, 0)
        for _ in range(rng.randrange(1, 4)):
            if len(data) > 100 and rng.random() < 0.15:
                del data[rng.randrange(len(data) // 2, len(data)):]
                thing.begin(self.pos(), of_bytes(data))
                os.ftruncate(fd, len(data))
            else:
                piece = rng.randbytes(rng.choice((1, 100, 4096, 9000)))
                at = rng.randrange(len(data) + 1)
                data[at:at + len(piece)] = piece
                thing.begin(self.pos(), of_bytes(data))
                os.pwrite(fd, piece, at)
            if rng.random() < 0.5:
                os.fsync(fd)
                thing.durable(self.pos())
        os.close(fd)

    def append(self, rng, thing, fds):
        """Stays open over many appends, as a log does."""
        if thing.name not in fds:
            if not os.path.exists(self.path(thing.name)):
                thing.begin(self.pos(), 0)
            fds[thing.name] = os.open(self.path(thing.name), os.O_WRONLY | os.O_APPEND |
                                      os.O_CREAT, 0o644)
        fd = fds[thing.name]
        for _ in range(rng.randrange(1, 6)):
            piece = rng.randbytes(rng.choice((20, 300, 5000)))
            thing.begin_append(self.pos(), piece)
            os.write(fd, piece)
        if rng.random() < 0.5:
            os.fdatasync(fd)
            thing.durable(self.pos())
        if rng.random() < 0.1:
            os.close(fds.pop(thing.name))

    def do_big(self, rng):
        while not self.stopping.is_set():
            k = rng.randrange(8)
            if k < 3:
                self.write_in_place(rng)
            elif k < 5:
                self.write_mapped(rng)
            elif k < 6:
                self.grow(rng, rng.choice(self.big))
            else:
                self.write_anew(rng, rng.choice(self.rewrite))

    def write_in_place(self, rng):
        thing = self.inplace
        fd = os.open(self.path(thing.name), os.O_RDWR)
        for _ in range(rng.randrange(1, 8)):
            n = BLOCK * rng.choice((1, 8, 8, 100, 400))
            at = BLOCK * rng.randrange((thing.size - n) // BLOCK)
            piece = rng.randbytes(n)
            thing.begin_write(self.pos(), at, piece)
            os.pwrite(fd, piece, at)
            if rng.random() < 0.4:
                os.fsync(fd)
                thing.durable(self.pos())
        os.close(fd)

    def write_mapped(self, rng):
        thing = self.mapped
        fd = os.open(self.path(thing.name), os.O_RDWR)
        with mmap.mmap(fd, thing.size) as m:
            for _ in range(rng.randrange(1, 5)):
                at = BLOCK * rng.randrange(thing.size // BLOCK)
                piece = rng.randbytes(BLOCK)
                thing.begin_write(self.pos(), at, piece)
                m[at:at + BLOCK] = piece
            if rng.random() < 0.7:
                m.flush()
                thing.durable(self.pos())
        os.close(fd)
        # Unmapped pages are the kernel's to write when it likes; acknowledged() needs them out.
        if thing.must and thing.must[-1][1] != thing.states:
            fd = os.open(self.path(thing.name), os.O_RDWR)
            os.fsync(fd)
            os.close(fd)
            thing.durable(self.pos())

    def grow(self, rng, thing):
        """Large enough to become a segment as it lies."""
        if len(thing.data) > GROW_MAX:
            return
        if not os.path.exists(self.path(thing.name)):
            thing.begin(self.pos(), 0)
        fd = os.open(self.path(thing.name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for _ in range(rng.randrange(1, 7)):
            piece = rng.randbytes(1 << 20)
            thing.begin_append(self.pos(), piece)
            # What the kernel sends in pieces may be there in pieces.
            done = len(thing.data) - len(piece)
            for part in range(4096, len(piece), 4096):
                thing.values.insert(-1, done + part)
                thing.may.insert(-1, thing.may[-1])
            os.write(fd, piece)
            if rng.random() < 0.2:
                os.fsync(fd)
                thing.durable(self.pos())
        if rng.random() < 0.5:
            os.fsync(fd)
            thing.durable(self.pos())
        os.close(fd)

    def write_anew(self, rng, thing):
        """O_TRUNC, and in one write: nothing, or all of it."""
        data = rng.randbytes(rng.choice((100000, 900000)))
        if thing.values[-1] is None or rng.random() < 0.7:
            thing.begin(self.pos(), of_bytes(b""))
            fd = os.open(self.path(thing.name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            thing.begin(self.pos(), of_bytes(data))
            os.write(fd, data)
            if rng.random() < 0.6:
                os.fsync(fd)
                thing.durable(self.pos())
            os.close(fd)
            return
        # Unlinked after it was synced: there whole, or gone.
        thing.begin(self.pos(), None)
        os.unlink(self.path(thing.name))
        if rng.random() < 0.5:
            self.sync_dir("big")
            thing.durable(self.pos())

    def do_names(self, rng):
        while not self.stopping.is_set():
            k = rng.randrange(4)
            if k == 0:
                self.move(rng, rng.choice(self.moved))
            elif k == 1:
                self.change_mode(rng, rng.choice(self.modes))
            else:
                self.change_names(rng)

    def move(self, rng, thing):
        here = thing.values[-1]
        there = rng.choice([n for n in thing.names if n != here])
        fd = os.open(self.path(here), os.O_RDONLY)
        thing.begin(self.pos(), there)
        os.rename(self.path(here), self.path(there))
        k = rng.random()
        if k < 0.3:
            self.sync_dir(os.path.dirname(there))
            thing.durable(self.pos())
        elif k < 0.6:
            os.fsync(fd)
            thing.durable(self.pos())
        os.close(fd)

    def change_mode(self, rng, thing):
        mode, text = thing.values[-1]
        mode, next_text = rng.choice((0o600, 0o640, 0o644)), str(int(text) + 1)
        path = self.path(thing.name)
        thing.begin(self.pos(), (mode, text))
        os.chmod(path, mode)
        thing.begin(self.pos(), (mode, next_text))
        os.setxattr(path, "user.state", next_text.encode())
        if rng.random() < 0.5:
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            thing.durable(self.pos())

    def change_names(self, rng):
        some = rng.sample(self.names, rng.randrange(1, 6))
        for thing in some:
            path = self.path(thing.name)
            had = thing.values[-1]
            if had is None:
                kind = rng.randrange(4)
                if kind == 0:
                    thing.begin(self.pos(), ("dir",))
                    os.mkdir(path)
                elif kind == 1:
                    target = f"target{rng.randrange(1000)}"
                    thing.begin(self.pos(), ("link", target))
                    os.symlink(target, path)
                elif kind == 2:
                    # A second name of a file whose content does not change.
                    thing.begin(self.pos(), of_bytes(b"m"))
                    os.link(self.path("names/mode0"), path)
                else:
                    data = rng.randbytes(rng.choice((10, 4000, 30000)))
                    thing.begin(self.pos(), of_bytes(b""))
                    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                    thing.begin(self.pos(), of_bytes(data))
                    os.write(fd, data)
                    os.fsync(fd)
                    thing.durable(self.pos())
                    os.close(fd)
            else:
                thing.begin(self.pos(), None)
                (os.rmdir if had == ("dir",) else os.unlink)(path)
        if rng.random() < 0.5:
            self.sync_dir("names")
            pos = self.pos()
            for thing in some:
                thing.durable(pos)

    def do_db(self, rng):
        open_dbs = []
        for thing in self.dbs:
            db = thing.connect(self.top)
            if thing.values[-1] is None:
                thing.begin(self.pos(), 0)
                db.execute("create table t (n integer primary key, x blob)")
                thing.durable(self.pos())
            open_dbs.append((thing, db))
        while not self.stopping.is_set():
            thing, db = rng.choice(open_dbs)
            n = thing.values[-1] + 1
            thing.begin(self.pos(), n)
            db.execute("insert into t values (?, ?)", (n, rng.randbytes(300 + n % 700)))
            thing.durable(self.pos())
        for _, db in open_dbs:
            db.close()


class Adversary:
    """The kernel may write back any page of any file at any time, and commit names at any time;
    here it does."""

    def __init__(self, home, rng):
        self.home, self.rng = home, rng
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _files(self):
        for folder, _, files in os.walk(self.home):
            for name in files:
                weight = 8 if folder.endswith("store") and name.endswith(".log") else 1
                yield from [os.path.join(folder, name)] * weight

    def _run(self):
        import ctypes
        libc = ctypes.CDLL(None)
        while not self.stopping.wait(self.rng.uniform(0.005, 0.05)):
            files = list(self._files())
            if not files:
                continue
            path = self.rng.choice(files)
            try:
                fd = os.open(path, os.O_RDONLY)
            except OSError:
                continue  # gone by now, or a socket
            # 2: begin to write; 4: wait for it.
            libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), 2 | 4)
            if self.rng.random() < 0.3:
                os.fsync(fd)
            os.close(fd)

    def stop(self):
        self.stopping.set()
        self.thread.join()


def check_all(things, top, instant, local=True):
    wrong = []
    for thing in things:
        try:
            w = thing.check(top, instant, local)
        except OSError as e:
            # Evicted, and the server is not there.
            away = local and e.errno == errno.ENOTCONN
            w = None if away else f"{thing.name}: {e!r}"
        if w:
            wrong.append(w)
    names = [os.path.join(folder, n) for folder, dirs, files in os.walk(top) for n in dirs + files]
    wrong += [f"a conflict: {n}" for n in names if "conflicted copy" in n]
    return wrong


def copy_home(pristine, where):
    shutil.rmtree(where, ignore_errors=True)
    shutil.copytree(pristine, where, symlinks=True)
