# SPDX-License-Identifier: Apache-2.0
"""Rows about names and attributes."""

import os
import statistics
import subprocess
import threading
import time

from benchlib import (Lab, Passthrough, check, drop_caches, filework, in_turn, program, row,
                      rss_mib, run, timed, turns, until)
import harness

STEPS = ("create", "stat", "readdir", "rename", "unlink")
ROUNDS, ROUND_DIRS, ROUND_FILES, FILE_BYTES = 10, 10, 10000, 4096
DESCRIPTORS_LEFT = 1000


def namework(step, folder):
    size = [FILE_BYTES] if step == "create" else []
    return float(run(program("namework"), step, folder, ROUND_DIRS, ROUND_FILES, *size,
                     timeout=1200).stdout)


def forget(*pids):
    """The kernel forgets names and attributes; passthrough_ll then closes its descriptors."""
    drop_caches(2)
    for pid in pids:
        until(lambda p=pid: len(os.listdir(f"/proc/{p}/fd")) < DESCRIPTORS_LEFT, 60,
              "descriptors closed")


def walk_names(bench, what, device, passthrough, settle):
    """Each step on all rounds. Between rounds both sides forget: RLIMIT_NOFILE's hard maximum
    is below 100,000 descriptors on some machines, and passthrough_ll has one for each name."""
    pids = {"varve": device.process.pid, "pass": passthrough.process.pid}
    seconds = {}
    for n in range(bench.runs):
        for who, top in turns(device, passthrough, n):
            folder = os.path.join(top, f"{what}-{n}")
            os.mkdir(folder)
            for step in STEPS:
                settle()
                took = 0
                for number in range(ROUNDS):
                    d = os.path.join(folder, str(number))
                    if step == "create":
                        os.mkdir(d)
                    forget(pids[who])
                    took += namework(step, d)
                seconds.setdefault((step, who), []).append(took)
            run("rm", "-rf", folder, timeout=600)
    return seconds


@row
def names(bench):
    """With the server and the line, as people have it; then without."""
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server).mount()
        p = Passthrough(lab)
        seconds = walk_names(bench, "on", a, p, lambda: a.wait(1200))
        for step in STEPS:
            bench.against(f"100,000 files of 4 KiB: {step}", seconds[step, "varve"],
                          seconds[step, "pass"], 1.0)
        a.wait(1200)
        server.stop()
        seconds = walk_names(bench, "off", a, p, lambda: None)
        for step in STEPS:
            bench.against(f"100,000 files of 4 KiB, no server: {step}", seconds[step, "varve"],
                          seconds[step, "pass"], 1.0)
        p.stop()


@row
def small_files(bench):
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server).mount()
        p = Passthrough(lab)
        seconds = {}
        for n in range(bench.runs):
            for who, top in turns(a, p, n):
                if who == "varve":
                    a.wait(600)
                d = os.path.join(top, f"small-{n}")
                os.mkdir(d)
                seconds.setdefault(("create", who), []).append(
                    filework("create", d, 100, 10000, 4096))
                for step, argv in (("ls -lR", ("ls", "-lR", d)), ("rm -r", ("rm", "-r", d))):
                    seconds.setdefault((step, who), []).append(timed(*argv))
        for step in ("create", "ls -lR", "rm -r"):
            bench.against(f"10,000 files of 4 KiB: {step}", seconds[step, "varve"],
                          seconds[step, "pass"], 2, True)
        p.stop()


PARTS_KNOWN = 4


class Forgetting:
    """While a program makes a source tree, the kernel forgets every PARTS_KNOWN parts of it:
    passthrough_ll has a descriptor for each name, more than some machines allow."""

    def __init__(self, folder):
        self.folder, self.ended = folder, threading.Event()
        self.thread = threading.Thread(target=self.main)

    def parts(self):
        try:
            return sum(name.startswith("part-") for name in os.listdir(self.folder))
        except FileNotFoundError:
            return 0

    def main(self):
        forgotten = 0
        while not self.ended.wait(0.05):
            n = self.parts()
            if n >= forgotten + PARTS_KNOWN:
                forgotten = n
                with open("/proc/sys/vm/drop_caches", "w") as f:
                    f.write("2")

    def __enter__(self):
        self.thread.start()

    def __exit__(self, kind, value, tb):
        self.ended.set()
        self.thread.join()


def make_sources(folder, files=50000, per_dir=25):
    """A source tree: the same on every machine, texts of 0.2 to 40 KiB that compress as C does."""
    words = [f"{a}{b}" for a in ("get", "put", "read", "file", "node", "tree", "size", "init")
             for b in ("_state", "_entry", "(ctx);", " = 0;", "->next", " *p,", "\n", "{\n\t")]
    x = 1
    for n in range(files):
        d = os.path.join(folder, f"part-{n // (per_dir * 40):03}", f"module-{n // per_dir:05}")
        if n % per_dir == 0:
            os.makedirs(d)
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        length, lines = 200 + (x >> 33) % (400 if n % 8 else 40000), []
        while length > 0:
            x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
            lines.append(words[(x >> 40) % len(words)] + words[(x >> 50) % len(words)])
            length -= len(lines[-1])
        with open(os.path.join(d, f"source-{n:05}.c"), "w") as f:
            f.write("".join(lines))


def git(*argv, timeout=600):
    return run("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost",
               "-c", "gc.auto=0", "-c", "core.fsmonitor=false", *argv, timeout=timeout)


def make_repository(lab):
    folder = os.path.join(lab.dir, "sources")
    os.mkdir(folder)
    make_sources(folder)
    run("tar", "-cf", os.path.join(lab.dir, "sources.tar"), "-C", lab.dir, "sources", timeout=600)
    git("-C", folder, "init", "-q")
    git("-C", folder, "add", ".")
    git("-C", folder, "commit", "-q", "-m", "all")
    # One pack: a clone copies that, and makes the files of the work tree.
    git("-C", folder, "repack", "-a", "-d", "-q")
    return folder


@row
def cached_walks(bench):
    """Second and later looks, all in the kernel's cache, against a plain folder."""
    with Lab() as lab:
        repository = make_repository(lab)
        server = lab.server()
        a = lab.device("a", server).mount()
        plain = os.path.join(lab.dir, "plain")
        os.mkdir(plain)
        tops = [("varve", a.path("w")), ("plain", os.path.join(plain, "w"))]
        for _, top in tops:
            git("clone", "-q", "--no-hardlinks", repository, top)
        a.wait(1200)
        looks = (("find", lambda d: ("find", d)), ("ls -lR", lambda d: ("ls", "-lR", d)),
                 ("git status", lambda d: ("git", "-C", d, "status")))
        seconds = {}
        for name, argv in looks:
            for _, top in tops:
                for _ in range(2):  # the first fills the caches; git also writes its index anew
                    timed(*argv(top))
            for n in range(2 * bench.runs + 1):
                for who, top in in_turn(tops, n):
                    seconds.setdefault((name, who), []).append(timed(*argv(top)))
        for name, _ in looks:
            bench.against(f"50,000 files, second {name}", seconds[name, "varve"],
                          seconds[name, "plain"], 0.95, who="plain folder")


@row
def source_tree(bench):
    with Lab() as lab:
        repository = make_repository(lab)
        tar = os.path.join(lab.dir, "sources.tar")
        server = lab.server()
        a = lab.device("a", server).mount()
        p = Passthrough(lab)
        pids = {"varve": a.process.pid, "pass": p.process.pid}
        works = (("untar", ("tar", "-xf", tar, "-C")),
                 ("git clone", ("git", "clone", "-q", "--no-hardlinks", repository)))
        seconds = {}
        for n in range(bench.runs):
            for name, argv in works:
                for who, top in turns(a, p, n):
                    a.wait(1200)
                    d = os.path.join(top, f"{name.replace(' ', '-')}-{n}")
                    os.mkdir(d)
                    forget(pids[who])
                    with Forgetting(os.path.join(d, "sources") if name == "untar" else d):
                        seconds.setdefault((name, who), []).append(timed(*argv, d))
                    run("rm", "-rf", d, timeout=600)
        for name, _ in works:
            bench.against(f"50,000 files: {name}", seconds[name, "varve"], seconds[name, "pass"],
                          0.9)
        p.stop()


@row
def build(bench):
    """The client of this project, sources and build folder on the drive."""
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server).mount()
        p = Passthrough(lab)
        seconds = {}
        for n in range(bench.runs):
            for who, top in turns(a, p, n):
                a.wait(1200)
                src, out = os.path.join(top, f"src-{n}"), os.path.join(top, f"out-{n}")
                os.mkdir(src)
                for name in ("meson.build", "meson_options.txt", "src", "server", "tests"):
                    run("cp", "-r", os.path.join(harness.ROOT, name), src)
                drop_caches(2)
                seconds.setdefault(who, []).append(
                    timed("meson", "setup", out, src) + timed("ninja", "-C", out, "src/varve"))
                run("rm", "-rf", src, out, timeout=600)
        bench.against("build of this project", seconds["varve"], seconds["pass"], 0.9)
        p.stop()


def mount_in_background(device):
    """As people do: seconds until the command is back, which is when the mount answers."""
    start = time.monotonic()
    device.varve("mount", device.dir)
    took = time.monotonic() - start
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if words[:2] == [harness.VARVE.encode(), b"mount"] and device.dir.encode() in words:
            return took, int(pid)
    raise OSError("no daemon")


@row
def million_nodes(bench, dirs=1001, files=999):
    with Lab() as lab:
        server = lab.server()
        run(program("fillwork"), server.url, "alice", server.password, dirs, files, timeout=1800)
        a = lab.device("a", server).mount()
        a.wait(1800)
        a.umount()
        took, memory = [], []
        for _ in range(bench.runs):
            seconds, pid = mount_in_background(a)
            took.append(seconds * 1000)
            memory.append(rss_mib(pid))
            found = rss_mib(pid)
            if len(took) == bench.runs:
                count = subprocess.run(["find", a.dir], check=True, stdout=subprocess.PIPE)
                check(count.stdout.count(b"\n") > dirs * files, "paths found")
                found = rss_mib(pid)
            a.varve("umount", a.dir, timeout=300)
            until(lambda p=pid: not os.path.exists(f"/proc/{p}"), 60, "end of the daemon")
        bench.row("1,000,000 nodes: mount", statistics.median(took), 200, True, "ms",
                  f"largest {max(took):.0f}")
        bench.row("1,000,000 nodes: memory of the daemon", max(memory), 100, True, "MiB",
                  f"after find {found:.0f}")
