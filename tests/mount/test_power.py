#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Power loss of the device and of the server, at many instants of one recording.

VARVE_POWER_INSTANTS (default 72), VARVE_POWER_SEED (default: the time) and VARVE_POWER_SECONDS
(of the workload, default 4) say how much; scripts/soak-power sets them. Each instant is checked in
one of two ways: `local`, the device alone: all that fsync promised is there, and nothing that never
was; `full`, the server, too: a fresh device finds all that had been acknowledged, the one that lost
power syncs on, both agree, and there is no conflict.
"""

import ast
import contextlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from types import SimpleNamespace

import powerlib
import powerwork
from harness import Device, Lab, Server, check, main, run, same_trees

INSTANTS = int(os.environ.get("VARVE_POWER_INSTANTS", "72"))
SEED = int(os.environ.get("VARVE_POWER_SEED", str(int(time.time()))))
SECONDS = float(os.environ.get("VARVE_POWER_SECONDS", "4"))
KEEP = os.environ.get("VARVE_POWER_KEEP")  # a folder for the disks of instants that are wrong
QUIET = "VARVE_POWER_QUIET" in os.environ  # only whether something is wrong is asked
JOBS = int(os.environ.get("VARVE_POWER_JOBS", "2"))
DISK_MIB = 768
# With and without eviction.
MOUNT = {"ext4": ("-o", "cache_size=0"), "ext4-writeback": ("-o", "cache_size=48M")}


def mount_options(kind):
    return MOUNT.get(kind, MOUNT["ext4-writeback"])


# ---- recording ----


class Recording:
    """Made in a namespace of its own; what the checks need is in folder/recording."""

    def __init__(self, folder, seed, kind, nosync=None, seconds=SECONDS):
        self.folder, self.seed, self.kind, self.seconds = folder, seed, kind, seconds
        self.rng = random.Random(seed)
        self.nosync = nosync or {}
        self.marks = {}

    def env(self, who):
        if who not in self.nosync:
            return {}
        return {"LD_PRELOAD": powerlib.NOSYNC, "VARVE_NOSYNC": self.nosync[who]}

    def make(self):
        rec = powerlib.Recorder(self.folder, [DISK_MIB, DISK_MIB])
        lab = Lab()
        try:
            os.makedirs(os.path.join(lab.dir, "server"))
            rec.mount(0, os.path.join(lab.dir, "dev-a"), self.kind)
            rec.mount(1, os.path.join(lab.dir, "server"), self.kind)
            with lab:
                self.run(rec, lab)
        finally:
            for name in ("dev-a", "server"):
                subprocess.run(["umount", "-l", os.path.join(lab.dir, name)], capture_output=True)
            rec.stop()

    def run(self, rec, lab):
        with preloaded(self.env("server")):
            server = lab.server()
        a, b = lab.device("a", server), lab.device("b", server)
        powerwork.copy_home(b.home, os.path.join(self.folder, "home-b"))
        a.mount(*mount_options(self.kind), env=self.env("device"))
        work = powerwork.Work(a.dir, rec.pos, self.seed)
        work.setup()
        a.wait()
        self.marks["begin"] = rec.pos()
        kernel = powerwork.Adversary(a.home, random.Random(self.seed + 1))
        try:
            self.phases(a, work)
        finally:
            kernel.stop()
        a.umount()
        work.ended()
        self.marks["end"] = rec.pos()
        with open(os.path.join(self.folder, "recording"), "wb") as f:
            pickle.dump({"things": work.things, "port": server.port, "marks": self.marks,
                         "kind": self.kind, "log": rec.log, "seed": self.seed}, f)

    def phases(self, a, work):
        self.work(work, self.seconds * 0.4)
        reached = work.reached()
        a.wait()
        work.acknowledged(reached)
        self.work(work, self.seconds * 0.2)
        a.umount()
        work.ended()
        a.mount(*mount_options(self.kind), env=self.env("device"))
        self.work(work, self.seconds * 0.2)
        a.kill()
        a.mount(*mount_options(self.kind), env=self.env("device"))
        self.work(work, self.seconds * 0.2)

    @staticmethod
    def work(work, seconds):
        work.start()
        time.sleep(seconds)
        work.stop()


@contextlib.contextmanager
def preloaded(env):
    had = dict(os.environ)
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(had)


def choose_instants(r, log, n, rng):
    """Where it is most likely to go wrong: right after a promise, and around flushes."""
    begin, end = r["marks"]["begin"], r["marks"]["end"]
    promises = [pos for t in r["things"] for pos, _ in t.must + t.acked if begin <= pos]
    flushes = [e for e in log.flushes() if begin <= e <= end]
    records = [e for e in log.ends if begin <= e <= end]
    some = [r["marks"]["end"]]
    while len(some) < n:
        k = rng.random()
        if k < 0.5:
            some.append(rng.choice(promises))
        elif k < 0.65:
            some.append(rng.choice(flushes))
        elif k < 0.8:
            # A flush's record is its header.
            some.append(rng.choice(flushes) - powerlib.HEADER.size)
        else:
            some.append(rng.choice(records))
    return sorted(some)


# ---- checking ----


class RestoredServer(Server):
    def __init__(self, lab, port):
        self.lab, self.name, self.args, self.tls = lab, "server", [], False
        self.data = os.path.join(lab.dir, "server")
        self.log = os.path.join(lab.dir, "server.log")
        self.process, self.port = None, port
        self.start()


class Checker:
    """One process's share of the instants."""

    def __init__(self, folder, job):
        self.folder = folder
        with open(os.path.join(folder, "recording"), "rb") as f:
            self.r = pickle.load(f)
        self.log = powerlib.Log(self.r["log"])
        self.dir = os.path.join(folder, f"job{job}")
        self.disks = powerlib.Disks(self.log, self.dir)
        self.boot = powerlib.BootId(self.dir)
        self.lab = SimpleNamespace(dir=self.dir)

    def device(self, name):
        return Device(self.lab, name, None, login=False)

    def one(self, instant, mode):
        said = self.disks.make(instant, self.rng(instant))
        self.boot.renew()
        mounted, running = [], []
        try:
            for n, where in enumerate(("dev-a", "server")):
                where = os.path.join(self.dir, where)
                powerlib.mount_disk(self.r["kind"], self.disks.image(n), where)
                mounted.append(where)
            wrong = getattr(self, mode)(instant, running)
        except Exception:  # whatever it is, it is this instant's
            wrong = [traceback.format_exc()]
        finally:
            logs = [d.log_tail() for d in running if isinstance(d, Device)]
            for d in running:
                if d.process:
                    d.kill()
                if isinstance(d, Device):
                    subprocess.run(["umount", "-l", d.dir], capture_output=True)
            for where in mounted:
                run("umount", where)
            for n in range(len(self.disks.sizes)):
                os.unlink(self.disks.image(n))
        return [f"{w}  [{said}]" for w in wrong] + (logs if wrong else [])

    def keep(self, instant, where):
        """For somebody to look at: the disks, and how they were made."""
        os.makedirs(where, exist_ok=True)
        said = self.disks.make(instant, self.rng(instant))
        for n in range(len(self.disks.sizes)):
            shutil.copy(self.disks.image(n), f"{where}/{instant}.disk{n}")
        with open(f"{where}/{instant}.txt", "w") as f:
            f.write(f"{self.r['kind']} seed {self.r['seed']}: {said}\n")
        shutil.copytree(os.path.join(self.folder, "home-b"), f"{where}/home-b",
                        dirs_exist_ok=True)

    def rng(self, instant):
        return random.Random(f"{self.r['seed']} {instant}")

    def local(self, instant, running):
        a = self.device("a")
        running.append(a)
        a.mount(*mount_options(self.r["kind"]))
        return powerwork.check_all(self.r["things"], a.dir, instant)

    def server(self, instant, running):
        """What the server has, without the device that it has it from."""
        server = RestoredServer(self.lab, self.r["port"])
        running.append(server)
        b = self.device("b")
        powerwork.copy_home(os.path.join(self.folder, "home-b"), b.home)
        running.append(b)
        b.mount()
        b.wait()
        # Files of one database arrive one by one: they fit together when all have come.
        files = [t for t in self.r["things"] if not isinstance(t, powerwork.Database)]
        return [f"the server alone: {w}"
                for w in powerwork.check_all(files, b.dir, instant, local=False)]

    def full(self, instant, running):
        wrong = self.server(instant, running)
        b = running[-1]
        a = self.device("a")
        running.append(a)
        a.mount(*mount_options(self.r["kind"]))
        for _ in range(2):
            a.wait()
            b.wait()
        same_trees(a.dir, b.dir)
        return wrong + powerwork.check_all(self.r["things"], a.dir, instant)


def check_job(folder, job, jobs, n, seed, mode):
    checker = Checker(folder, job)
    instants = choose_instants(checker.r, checker.log, n, random.Random(seed))
    bad = 0
    for i, instant in enumerate(instants):
        if i % jobs != job:
            continue
        # Alternating within each job.
        this = mode if mode != "mixed" else "full" if i // jobs % 3 == 0 else "local"
        wrong = checker.one(instant, this)
        if not wrong:
            continue
        bad += 1
        if KEEP:
            checker.keep(instant, KEEP)
        if QUIET:
            break
        print(f"instant {instant} ({this}, {checker.r['kind']}, seed {checker.r['seed']}):")
        for w in wrong[:12]:
            print("   ", w)
        sys.stdout.flush()
    return bad


def check_recording(folder, n, seed, mode):
    """The number of instants that are wrong."""
    jobs = [powerlib.in_namespace(__file__, "--check", folder, str(job), str(JOBS), str(n),
                                  str(seed), mode) for job in range(JOBS)]
    codes = [j.wait() for j in jobs]
    check(all(c in range(0, 100) for c in codes), "a job ended with", codes)
    return sum(codes)


def record_and_check(kind, n, seed, nosync, modes):
    """Prints, as its last line, how many instants were wrong in each mode."""
    with tempfile.TemporaryDirectory(prefix="varve-power-", dir="/var/tmp") as top:
        powerlib.tmpfs(top)
        try:
            os.makedirs(os.path.join(top, "lab"))
            os.environ["VARVE_TEST_DIR"] = os.path.join(top, "lab")
            start = time.monotonic()
            Recording(top, seed, kind, nosync).make()
            took = time.monotonic() - start
            bad = [check_recording(top, n, seed, mode) for mode in modes]
            print(f"{kind}, seed {seed}{', without ' + repr(nosync) if nosync else ''}: recorded "
                  f"in {took:.1f} s, {n} instants checked in "
                  f"{time.monotonic() - start - took:.1f} s, wrong: {dict(zip(modes, bad))}")
            print(json.dumps(bad))
        finally:
            subprocess.run(["umount", "-l", top])


def in_child(kind, n, seed, nosync=None, modes=("mixed",)):
    """Everything that it mounts is gone with its process."""
    p = powerlib.in_namespace(__file__, "--record", repr((kind, n, seed, nosync, modes)),
                              stdout=subprocess.PIPE, text=True)
    out = p.communicate()[0]
    check(p.returncode == 0, "the recording failed:", out[-3000:])
    said, _, last = out.rstrip("\n").rpartition("\n")
    print(said, flush=True)
    return json.loads(last)


# ---- tests ----


def test_power_loss():
    equal_zero(in_child("ext4", INSTANTS * 2 // 3, SEED))


def test_power_loss_names_before_bytes():
    equal_zero(in_child("ext4-writeback", INSTANTS - INSTANTS * 2 // 3, SEED + 1))


def test_missing_syncs_are_noticed():
    """Without the syncs of the staging log and of the server's SQL log, the same checks fail."""
    os.environ["VARVE_POWER_QUIET"] = "1"
    local, server = in_child("ext4", 12, SEED + 2, {"device": "/staging/log-", "server": "-wal$"},
                             ("local", "server"))
    check(local > 0, "a staging log that is never synced was not noticed")
    check(server > 0, "an SQL log that is never synced was not noticed")


# ---- by hand ----

# Of a path (see tests/crash/nosync.c): what is not synced, by whom, and in which check it shows.
MUTATIONS = [
    ("device", "/staging/log-", "local"),
    ("device", "/staging/f-", "local"),
    ("device", "/staging$", "local"),
    ("device", "/segments/", "local"),
    ("device", "/segments$", "local"),
    ("device", "/store/0|.log$", "local"),
    ("device", "/store$", "local"),
    ("server", "-wal$", "server"),
    ("server", "/objects/", "server"),
    ("server", ".db$", "server"),
]


def prove():
    os.environ["VARVE_POWER_QUIET"] = "1"
    for who, part, mode in MUTATIONS:
        n = max(INSTANTS, 24)
        wrong, = in_child("ext4-writeback", n, SEED, {who: part}, (mode,))
        print(f"{who} without syncs of {part}: {'noticed' if wrong else 'not noticed'} in {n} "
              "instants", flush=True)


def soak():
    kinds = ["ext4", "ext4-writeback"] + ["xfs"] * bool(shutil.which("mkfs.xfs"))
    for i, kind in enumerate(kinds):
        equal_zero(in_child(kind, max(1, INSTANTS // len(kinds)), SEED + i))


def equal_zero(bad):
    check(sum(bad) == 0, sum(bad), "instants are wrong")


def entry(argv):
    if argv[:1] == ["--check"]:
        run("ip", "link", "set", "lo", "up")
        sys.exit(min(99, check_job(argv[1], *map(int, argv[2:6]), argv[6])))
    if argv[:1] == ["--record"]:
        run("ip", "link", "set", "lo", "up")
        record_and_check(*ast.literal_eval(argv[1]))
        sys.exit(0)
    for name, work in (("--prove", prove), ("--soak", soak)):
        if argv[:1] == [name]:
            work()
            sys.exit(0)


if __name__ == "__main__":
    entry(sys.argv[1:])
    main([t for n, t in list(globals().items()) if n.startswith("test_")])
