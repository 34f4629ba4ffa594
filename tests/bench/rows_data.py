# SPDX-License-Identifier: Apache-2.0
"""Rows about the bytes of files.

The server is stopped in all of them: it shares disk and CPUs with what is measured, and nothing
here waits for it.
"""

import json
import os
import sqlite3
import statistics
import time

from benchlib import (GIB, Lab, Passthrough, drop_caches, filework, in_turn, row, run,
                      turns, until)

FIO_SECONDS = 8
FSYNCS = 2000
INSERTS = 10000


class Sides:
    """A device whose server is gone, and passthrough_ll or a plain folder of the same disk."""

    def __init__(self, lab, passthrough):
        server = lab.server()
        self.device = lab.device("a", server).mount()
        self.device.wait()
        server.stop()
        self.passthrough = Passthrough(lab) if passthrough else None
        self.native = os.path.join(lab.dir, "native")
        os.mkdir(self.native)

    def passthrough_turns(self, n):
        return turns(self.device, self.passthrough, n)

    def native_turns(self, n):
        return in_turn([("varve", self.device.dir), ("ext4", self.native)], n)

    def sealed(self):
        """Until no file has bytes that are not in a version."""
        until(lambda: self.device.status()["dirty_files"] == 0, 600, "sealed")


@row
def large_file(bench, size=4 * GIB):
    with Lab() as lab:
        sides = Sides(lab, passthrough=True)
        seconds = {}
        for n in range(bench.runs):
            for who, top in sides.passthrough_turns(n):
                drop_caches()
                start = time.monotonic()
                took = filework("write", os.path.join(top, "large"), size)
                seconds.setdefault(("write", who), []).append(took)
                if who == "varve":
                    sides.sealed()
                    took = time.monotonic() - start
                seconds.setdefault(("sealed", who), []).append(took)
            for who, top in sides.passthrough_turns(n):
                path = os.path.join(top, "large")
                drop_caches()
                seconds.setdefault(("cold", who), []).append(filework("read", path))
                seconds.setdefault(("warm", who), []).append(filework("read", path))
            for _, top in sides.passthrough_turns(n):
                os.unlink(os.path.join(top, "large"))
        for what, name, bound in (
                ("write", "sequential write and close", 0.9),
                ("sealed", "write, close, and no file is dirty", 0.5),
                ("cold", "sequential read, kernel's cache dropped", 0.8),
                ("warm", "sequential read, kernel's cache", 0.9)):
            bench.against(f"{size // GIB} GiB: {name}", seconds[what, "varve"],
                          seconds[what, "pass"], bound)
        sides.passthrough.stop()


def fio(path, pattern):
    """Operations a second, by fio's clock, which stops before the file is closed."""
    out = run("fio", "--name=r", f"--filename={path}", f"--rw={pattern}", "--bs=4k",
              "--ioengine=psync", "--size=2g", "--numjobs=4", "--thread", "--group_reporting",
              "--fallocate=none", "--invalidate=0", "--norandommap", "--randrepeat=0",
              "--time_based", f"--runtime={FIO_SECONDS}", "--output-format=json",
              timeout=600).stdout
    job = json.loads(out[out.index("{"):])["jobs"][0]
    return job["read"]["iops"] + job["write"]["iops"]


@row
def random_io(bench):
    with Lab() as lab:
        sides = Sides(lab, passthrough=True)
        seconds, closes = {}, []
        for _, top in sides.passthrough_turns(0):
            filework("write", os.path.join(top, "random"), 2 * GIB)
        for n in range(bench.runs):
            for pattern in ("randread", "randwrite", "randrw"):
                for who, top in sides.passthrough_turns(n):
                    drop_caches()
                    start = time.monotonic()
                    per_second = fio(os.path.join(top, "random"), pattern)
                    seconds.setdefault((pattern, who), []).append(1000 / per_second)
                    if who == "varve" and pattern == "randwrite":
                        closes.append(time.monotonic() - start - FIO_SECONDS)
        for pattern, name in (("randread", "reads"), ("randwrite", "writes"),
                              ("randrw", "reads and writes")):
            bench.against(f"2 GiB, 4 jobs: 1,000 random {name} of 4 KiB",
                          seconds[pattern, "varve"], seconds[pattern, "pass"], 0.9)
        print(f"       the close after such writes, which seals: {statistics.median(closes):.1f} s")
        sides.passthrough.stop()


@row
def fsyncs(bench):
    with Lab() as lab:
        sides = Sides(lab, passthrough=False)
        for writers in (1, 8):
            seconds = {}
            for n in range(bench.runs):
                for who, top in sides.native_turns(n):
                    d = os.path.join(top, f"{writers}-{n}")
                    os.mkdir(d)
                    seconds.setdefault(who, []).append(
                        filework("fsync", d, writers, FSYNCS // (2 if writers > 1 else 1)))
            bench.against(f"write of 4 KiB and fsync, writers: {writers}", seconds["varve"],
                          seconds["ext4"], 0.8, who="ext4")


def insert_rows(path):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table t(id integer primary key, v text)")
    start = time.monotonic()
    for i in range(INSERTS):
        db.execute("insert into t(v) values(?)", (f"the text of row {i}, as long as most are",))
    took = time.monotonic() - start
    db.close()
    return took


@row
def sqlite(bench):
    with Lab() as lab:
        sides = Sides(lab, passthrough=False)
        seconds = {}
        for n in range(bench.runs):
            for who, top in sides.native_turns(n):
                seconds.setdefault(who, []).append(insert_rows(os.path.join(top, f"{n}.db")))
        bench.against("SQLite, WAL: 10,000 inserts, each a transaction", seconds["varve"],
                      seconds["ext4"], 0.7, who="ext4")
