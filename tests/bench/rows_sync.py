# SPDX-License-Identifier: Apache-2.0
"""Rows about what travels: latency, commits, bytes sent, and what the daemon holds meanwhile."""

import os
import random
import shutil
import statistics
import time

from benchlib import GIB, MIB, Lab, check, drop_caches, filework, program, row, rss_mib, run


@row
def latency(bench):
    with Lab() as lab:
        _, a, b = lab.pair()
        a.write("x", b"0")
        a.wait()
        b.wait()
        lines = run(program("filework"), "latency", a.path("x"), b.path("x"), 200).stdout.split()
        ms = sorted(float(x) / 1000 for x in lines)
        bench.row("close on A to read on B, 4 KiB, median", statistics.median(ms), 50, True,
                  "ms", f"p99 {ms[int(len(ms) * 0.99)]:.1f} ms, {len(ms)} closes")


@row
def commit_files(bench):
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server).mount()
        took = []
        for n in range(bench.runs):
            d = a.path(f"run-{n}")
            os.mkdir(d)
            a.wait()
            filework("create", d, 100, 10000, 4096)
            start = time.monotonic()
            a.wait(600)
            took.append(time.monotonic() - start)
        bench.row("10,000 files: last close to all committed", statistics.median(took), 10, True,
                  "s")


@row
def small_edits(bench, size=2 * GIB):
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server).mount()
        filework("write", a.path("big"), size)
        a.wait(1200)
        changed, inserted = [], []
        rng = random.Random(9)
        for n in range(bench.runs):
            before = a.status()["bytes_sent"]
            with open(a.path("big"), "r+b") as f:
                at = rng.randrange(size)
                f.seek(at)
                old = f.read(1)
                f.seek(at)
                f.write(bytes([old[0] ^ 255]))
            a.wait(600)
            changed.append((a.status()["bytes_sent"] - before) / MIB)
            before = a.status()["bytes_sent"]
            with open(a.path("big"), "rb") as f, open(a.path(f"copy-{n}"), "wb") as g:
                g.write(bytes([n]))
                shutil.copyfileobj(f, g, 4 * MIB)
            a.wait(600)
            inserted.append((a.status()["bytes_sent"] - before) / MIB)
            os.unlink(a.path(f"copy-{n}"))
        bench.row("1 byte changed in 2 GiB: uploaded, largest", max(changed), 1.5, True, "MiB",
                  f"median {statistics.median(changed):.2f}")
        bench.row("1 byte inserted at the front of 2 GiB: uploaded, largest", max(inserted), 3,
                  True, "MiB", f"median {statistics.median(inserted):.2f}")


@row
def commits(bench):
    with Lab() as lab:
        rates = []
        server = lab.server()
        for _ in range(bench.runs):
            out = run(program("bench_commits"), server.url, "alice", server.password, 4, 20000,
                      timeout=600)
            rates.append(float(out.stdout))
        bench.row("20,000 commits of one change, 4 connections", statistics.median(rates), 1000,
                  False, "commits/s")


@row
def memory(bench):
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server).mount()
        for n in range(20):
            d = a.path(f"m{n}")
            os.mkdir(d)
            filework("create", d, 100, 10000, 100)
        a.wait(1200)
        a.umount()
        a.mount()
        drop_caches()
        count = int(run("sh", "-c", f"find {a.dir} | wc -l", timeout=600).stdout)
        check(count > 200000, "paths found:", count)
        bench.row("memory of the daemon, 200,000 files, after find", rss_mib(a.process.pid),
                  200, True, "MiB", f"{count} paths")
