# SPDX-License-Identifier: Apache-2.0
"""What the rows of bench.py share: the table of figures, the registry of rows, who is compared.

    from benchlib import row

    @row
    def latency(bench):
        bench.row("close on A to read on B", ms, 50, True, "ms")
"""

import gzip
import os
import resource
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "mount"))
from harness import BUILD, Lab, check, run, until  # noqa: E402,F401

GIB = 1 << 30
MIB = 1 << 20
EXAMPLE = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"

ROWS = {}


def row(function):
    """Registers a function(bench) under its name, in the order of definition."""
    check(function.__name__ not in ROWS, "two rows are called", function.__name__)
    ROWS[function.__name__] = function
    return function


def program(name):
    """A helper of tests/bench, as it was built."""
    return os.path.join(BUILD, "tests", "bench", name)


def filework(*argv):
    return float(run(program("filework"), *argv, timeout=1200).stdout)


def passthrough_build(folder):
    """Compiles libfuse's example into the folder: the program's path."""
    source, out = os.path.join(folder, "passthrough_ll.c"), os.path.join(folder, "passthrough_ll")
    data = gzip.open(EXAMPLE + ".gz").read() if os.path.exists(EXAMPLE + ".gz") \
        else open(EXAMPLE, "rb").read()
    with open(source, "wb") as f:
        f.write(data)
    flags = run("pkg-config", "--cflags", "--libs", "fuse3").stdout.split()
    run("gcc", "-O2", "-w", "-I", os.path.dirname(EXAMPLE), source, "-o", out, *flags)
    return out


class Passthrough:
    """libfuse's example over a plain folder."""

    def __init__(self, lab):
        self.below, self.dir = os.path.join(lab.dir, "below"), os.path.join(lab.dir, "pass")
        os.mkdir(self.below)
        os.mkdir(self.dir)
        # It holds a descriptor for every inode that the kernel knows.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.process = subprocess.Popen([passthrough_build(lab.dir), "-f", "-o",
                                         f"source={self.below},cache=always", self.dir],
                                        stderr=subprocess.DEVNULL)
        until(lambda: os.path.ismount(self.dir), 10, "passthrough_ll")

    def stop(self):
        run("umount", self.dir)
        self.process.wait(10)


def timed(*argv, cwd=None):
    start = time.monotonic()
    subprocess.run([str(a) for a in argv], check=True, cwd=cwd, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def in_turn(sides, n):
    """Who goes first changes from run to run: the second finds warmer memory."""
    return sides if n % 2 == 0 else sides[::-1]


def turns(device, passthrough, n):
    return in_turn([("varve", device.dir), ("pass", passthrough.dir)], n)


def drop_caches(which=3):
    """1: pages, 2: names and attributes, 3: both."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write(str(which))


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise OSError("no VmRSS")


class Bench:
    """The table: one line a figure, and whether it keeps its bound."""

    def __init__(self, runs):
        self.runs = runs
        self.rows = []

    def row(self, name, figure, bound, at_most, unit, detail=""):
        good = figure <= bound if at_most else figure >= bound
        self.rows.append({"name": name, "figure": round(figure, 3), "bound": bound,
                          "at": "most" if at_most else "least", "unit": unit, "met": good,
                          "detail": detail})
        print(f"{'met   ' if good else 'MISSED'} {name:55} {figure:10.3f} {unit:10}"
              f" (at {'most' if at_most else 'least'} {bound}) {detail}", flush=True)

    def against(self, name, ours, theirs, bound, time_ratio=False, who="passthrough_ll"):
        """Rows from two lists of seconds. time_ratio: ours/theirs at most; else speed at least."""
        o, t = statistics.median(ours), statistics.median(theirs)
        spread = f"{o:.3f} s, {who} {t:.3f} s"
        if time_ratio:
            self.row(name, o / t, bound, True, "x time", spread)
        else:
            self.row(name, t / o, bound, False, "x speed", spread)
