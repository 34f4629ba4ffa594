#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SQLite on the mount: journal modes, locks between processes, shared memory, kills."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys

from harness import SLOW, Lab, check, equal, main, same_trees
from programs import settle, variants

MODES = ("wal", "delete", "truncate", "persist")

# argv: file, journal mode, name, how many. A line for each transaction once it is committed.
WRITER = """
import sqlite3, sys
path, mode, who, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
db = sqlite3.connect(path, timeout=120, isolation_level=None)
db.execute("pragma journal_mode=" + mode)
db.execute("pragma synchronous=full")
for i in range(n):
    db.execute("begin immediate")
    db.execute("insert into t values (?, ?, ?)", (who, i, bytes([i % 256]) * (i * 37 % 3000)))
    db.execute("update sums set n = n + 1")
    db.execute("commit")
    print(i, flush=True)
"""

# A transaction that is larger than its cache, so that pages reach the file before the commit.
HANGS = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma journal_mode=" + sys.argv[2])
db.execute("pragma cache_size=10")
db.execute("begin immediate")
db.execute("update sums set n = -1")
db.execute("update t set data = randomblob(1000)")
db.execute("insert into t select 'never', i, randomblob(2000) from t")
print("now", flush=True)
time.sleep(1000)
"""


def writer(path, mode, who, n):
    return subprocess.Popen([sys.executable, "-c", WRITER, path, mode, who, str(n)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def connect(path):
    return contextlib.closing(sqlite3.connect(path, timeout=120 * SLOW, isolation_level=None))


def create(path, mode, rows=0):
    with connect(path) as db:
        equal(db.execute("pragma journal_mode=" + mode).fetchone()[0], mode, "journal mode")
        db.execute("create table t (who text, i integer, data blob, primary key (who, i))")
        db.execute("create table sums (n integer)")
        db.execute("insert into sums values (?)", (rows,))
        db.execute("begin")
        db.executemany("insert into t values ('first', ?, ?)",
                       ((i, bytes(500)) for i in range(rows)))
        db.execute("commit")


def sound(path):
    """Its own check, and that what one transaction changed belongs together."""
    with connect(path) as db:
        equal(db.execute("pragma integrity_check").fetchall(), [("ok",)], path)
        rows, = db.execute("select count(*) from t").fetchone()
        equal(db.execute("select n from sums").fetchone()[0], rows, path, "rows")
        return rows


def journal_modes(a):
    for mode in MODES:
        path = a.path(mode + ".db")
        create(path, mode, 100)
        with connect(path) as db:
            for n in range(24):
                db.execute("begin")
                db.execute("insert into t values ('more', ?, randomblob(?))", (n, n * 50))
                db.execute("update sums set n = n + 1")
                db.execute("commit" if n % 4 else "rollback")
            db.execute("delete from t where i % 5 = 0")
            db.execute("update sums set n = (select count(*) from t)")
            db.execute("vacuum")
        sound(path)


def mapped(a):
    path = a.path("mapped.db")
    create(path, "wal", 3000)
    with connect(path) as db:
        check(db.execute("pragma mmap_size=67108864").fetchone()[0] > 0, "mmap is not compiled in")
        for n in range(50):
            db.execute("update t set data = randomblob(700) where i % 50 = ?", (n,))
        equal(db.execute("pragma integrity_check").fetchall(), [("ok",)], "mapped")
        db.execute("pragma wal_checkpoint(truncate)")
        db.execute("vacuum")


def many_writers(a):
    """Locks of processes; in WAL mode they share memory through a mapped file, too."""
    for mode in ("wal", "delete"):
        path = a.path(f"shared-{mode}.db")
        create(path, mode)
        writers = [writer(path, mode, f"w{n}", 25) for n in range(3)]
        with connect(path) as db:
            seen = 0
            while any(w.poll() is None for w in writers):
                n, rows = db.execute("select n, (select count(*) from t) from sums").fetchone()
                equal(rows, n, "a reader between transactions")
                check(n >= seen, "went back")
                seen = n
        for w in writers:
            out, err = w.communicate()
            equal((w.returncode, err, len(out.split())), (0, "", 25), "writer")
        equal(sound(path), 75, "rows of all writers")


def killed_writers(a):
    for mode in MODES:
        path = a.path(f"killed-{mode}.db")
        create(path, mode, 200)
        w = subprocess.Popen([sys.executable, "-c", HANGS, path, mode], stdout=subprocess.PIPE,
                             text=True)
        equal(w.stdout.readline(), "now\n", "inside the transaction")
        w.kill()
        w.wait()
        w.stdout.close()
        equal(sound(path), 200, "rolled back")


def exclusive_lock(a):
    path = a.path("locked.db")
    create(path, "delete", 10)
    with connect(path) as holder:
        holder.execute("begin exclusive")
        r = subprocess.run([sys.executable, "-c", "import sqlite3, sys\n"
                            "sqlite3.connect(sys.argv[1], timeout=0).execute('select * from t')",
                            path], capture_output=True, text=True)
        check("database is locked" in r.stderr, "another process got in:", r.stderr)


def work(a):
    journal_modes(a)
    mapped(a)
    many_writers(a)
    killed_writers(a)
    exclusive_lock(a)


def proof(device):
    names = [n for n in os.listdir(device.dir) if n.endswith(".db")]
    check(len(names) >= 12, names)
    for name in names:
        sound(device.path(name))
    if shutil.which("sqlite3"):
        out = subprocess.run(["sqlite3", device.path("wal.db"), ".dump"], capture_output=True,
                             text=True).stdout
        check(out.rstrip().endswith("COMMIT;"), "dump:", out[-200:])


def test_open_database_arrives():
    """What is committed and still in the write-ahead log of an open database is elsewhere, too."""
    with Lab() as lab:
        _, a, b = lab.pair()
        create(a.path("open.db"), "wal", 100)
        with connect(a.path("open.db")) as db:
            db.execute("insert into t values ('open', 1, randomblob(5000))")
            db.execute("update sums set n = n + 1")
            settle(a, b)
            check(os.path.getsize(b.path("open.db-wal")) > 0, "there is a log")
            copy = os.path.join(lab.dir, "copy")
            os.mkdir(copy)
            for name in ("open.db", "open.db-wal"):
                shutil.copy(b.path(name), copy)
            equal(sound(os.path.join(copy, "open.db")), 101, "rows elsewhere")
            db.execute("insert into t values ('open', 2, randomblob(5000))")
            db.execute("update sums set n = n + 1")
        settle(a, b)
        equal(sound(b.path("open.db")), 102, "rows elsewhere, closed")
        settle(a, b)
        equal(sorted(os.listdir(a.dir)), ["open.db"], "nothing is left beside it")


def test_taking_turns():
    """Each device goes on where the other one closed the file; pages of the old one are gone."""
    with Lab() as lab:
        _, a, b = lab.pair()
        for mode in ("wal", "delete"):
            create(a.path(f"{mode}.db"), mode, 50)
        for n in range(4):
            here, there = (a, b) if n % 2 else (b, a)
            settle(there, here)
            for mode in ("wal", "delete"):
                path = here.path(f"{mode}.db")
                equal(sound(path), 50 + 3 * n, "rows on", here.name)
                with connect(path) as db:
                    db.execute("pragma mmap_size=67108864")
                    equal(db.execute("select count(*) from t").fetchone()[0], 50 + 3 * n, "mapped")
                w = writer(path, mode, f"turn {n}", 3)
                _, err = w.communicate()
                equal((w.returncode, err), (0, ""), "writer")
        settle(a, b)
        same_trees(a.dir, b.dir)
        equal(sorted(os.listdir(a.dir)), ["delete.db", "wal.db"], "and no other file")


def test_daemon_killed():
    """kill -9 of the daemon under writers: after a new mount every commit is there."""
    with Lab() as lab:
        _, a, b = lab.pair()
        for mode in MODES:
            path = a.path(f"{mode}.db")
            create(path, mode)
            w = writer(path, mode, "w", 1000000)
            for _ in range(10):
                last = int(w.stdout.readline())
            a.kill()
            out = w.stdout.read()
            w.wait(60 * SLOW)
            w.stdout.close()
            w.stderr.close()
            check(w.returncode != 0, "the writer went on without its file")
            last = int((out.split() or [last])[-1])
            a.mount()
            rows = sound(path)
            check(last + 1 <= rows <= last + 2, mode, "committed", last + 1, "found", rows)
        settle(a, b)
        for mode in MODES:
            sound(b.path(f"{mode}.db"))


if __name__ == "__main__":
    main(variants("sqlite", work, proof) + [test_open_database_arrives, test_taking_turns,
                                            test_daemon_killed])
