#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the daemon and of the server: at random instants, and at every point the code names.

VARVE_KILL_ROUNDS (default 200) and VARVE_KILL_SEED (default: the time) say how often and where;
the test prints both; VARVE_KILL_POINTS (a pattern) leaves out the other points. Instants are chosen by the seed, what happens at them is not.
"""

import contextlib
import os
import random
import re
import signal
import time

from harness import ROOT, SLOW, Failed, Lab, check, equal, main, same_trees, until
from promises import Workload

ROUNDS = int(os.environ.get("VARVE_KILL_ROUNDS", "200"))
SEED = int(os.environ.get("VARVE_KILL_SEED", str(int(time.time()))))
POINTS = os.environ.get("VARVE_KILL_POINTS", "")
# Owners as they are, so that they can be compared.
POSIX = "posix"
# A daemon that takes over what another left has to be there within that.
MOUNT_SECONDS = 20
# How long a workload gets to come by a point.
REACH_SECONDS = 30


def settle(*devices):
    for _ in range(2):
        for d in devices:
            d.wait(300)


def fault_points(folder):
    """All names that the sources have, each with the file."""
    points = {}
    for where, _, files in os.walk(os.path.join(ROOT, folder)):
        for name in files:
            if name.endswith(".c"):
                with open(os.path.join(where, name)) as f:
                    for point in re.findall(r'fault_(?:point|instant)\(\s*"([^"]+)"', f.read()):
                        points[point] = name
    check(points, "no fault point in", folder)
    return [p for p in sorted(points) if re.search(POINTS, p)]


class KillLab:
    """Device A is killed, B looks on and now and then writes; each has names of its own."""

    def __init__(self, lab, seed):
        self.lab, self.rng = lab, random.Random(seed)
        self.server = lab.server()
        self.a, self.b = (lab.device(n, self.server).mount("-o", POSIX) for n in "ab")
        journals = os.path.join(lab.dir, "journals")
        self.work = Workload(self.a.dir, journals, seed)
        self.work.setup()
        self.other = Workload(self.b.dir, journals, seed + 1, workers=1, prefix="b", big=False)
        settle(self.a, self.b)
        self.other.setup()
        self.pids = []
        self.made = {}

    def fork(self, run):
        """A process that runs until it is killed or its mount dies."""
        pid = os.fork()
        if pid:
            self.pids.append(pid)
            return
        with contextlib.suppress(OSError):
            run()
        os._exit(0)

    def stop(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.pids = []
        self.work.stop()
        self.other.stop()

    def read_for_ever(self):
        """What B wrote, on A: bytes that have to be fetched."""
        while True:
            for folder, _, files in os.walk(os.path.join(self.a.dir, self.other.names[0])):
                for name in files:
                    with contextlib.suppress(FileNotFoundError):
                        with open(os.path.join(folder, name), "rb") as f:
                            f.read()
            time.sleep(0.005)

    def collide(self, device, tag):
        """Both devices make the same names, with different bytes; each ends in a line of a log."""
        os.makedirs(device.path("c"), exist_ok=True)
        log = os.open(os.path.join(self.lab.dir, "made-" + device.name),
                      os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for n in range(1 << 30):
            data = f"{device.name} {tag} {n}"
            # Opened, not created anew: the other's may be there already.
            with contextlib.suppress(FileExistsError):
                with open(device.path(f"c/{tag}-{n}"), "x") as f:
                    f.write(data)
                os.write(log, data.encode() + b"\n")
            time.sleep(0.003)

    def check_collided(self):
        """Nothing that a close had promised is lost: it has the name, or is a copy beside it."""
        promised = set()
        for device in (self.a, self.b):
            with contextlib.suppress(FileNotFoundError):
                with open(os.path.join(self.lab.dir, "made-" + device.name)) as f:
                    promised |= set(f.read().split("\n")[:-1])
        have = set()
        for name in os.listdir(self.a.path("c")) if promised else ():
            with open(self.a.path("c", name)) as f:
                have.add(f.read())
        check(promised <= have, "lost:", sorted(promised - have)[:10])

    def mount(self, options=POSIX, env=None):
        """Whether it came to live."""
        begun = time.monotonic()
        try:
            self.a.mount("-o", options, env=env)
        except SystemError:
            equal(self.a.process.returncode, -signal.SIGKILL, "exit of a daemon in its mount",
                  self.a.log_tail())
            self.a.process = None
            return False
        check(time.monotonic() - begun < MOUNT_SECONDS * SLOW, "mounting took too long")
        return True

    def compare(self):
        self.stop()
        if not self.a.process:
            check(self.mount(), "the mount after the kill died, too")
        self.work.compare()
        self.other.compare()

    def examine(self):
        """What a dead daemon left: tree, outbox, rows below it, and chunks agree."""
        r = self.a.varve("doctor", fail=False)
        problems = re.findall(r"^ *(?:problem|LOSS|loss): .*", r.stdout, re.M)
        check(r.returncode == 0 or problems, "varve doctor says:", r.stdout, r.stderr)
        # A file that its name was to be given to is what a death in between leaves.
        check(all(".tmp was left by" in p for p in problems), "varve doctor says:", r.stdout)

    def settle(self):
        settle(self.a, self.b)
        same_trees(self.a.dir, self.b.dir)
        self.check_collided()

    def died(self, seconds):
        """Whether the daemon ends by its fault point within that."""
        deadline = time.monotonic() + seconds * SLOW
        while time.monotonic() < deadline:
            if self.a.process.poll() is not None:
                code = self.a.process.returncode
                self.a.process = None
                check(code in (0, -signal.SIGKILL), "exit", code, self.a.log_tail())
                return code != 0
            time.sleep(0.005)
        return False

    def kill_a_mount(self):
        """A daemon that is killed while it takes over what the last one left."""
        before = self.a.process
        check(before is None, "one runs")
        pid_file = time.monotonic() + self.rng.uniform(0, 0.3) * SLOW
        self.a.start_mount("-o", POSIX)
        while time.monotonic() < pid_file and self.a.process.poll() is None:
            time.sleep(0.002)
        self.a.kill()


def test_random_kills():
    print(f"seed {SEED}, {ROUNDS} rounds", flush=True)
    with Lab() as lab:
        k = KillLab(lab, SEED)
        for n in range(ROUNDS):
            k.work.start()
            if n % 4 == 0:
                k.other.start()
                k.fork(k.read_for_ever)
            if n % 8 == 0:
                k.fork(lambda: k.collide(k.a, n))
                k.fork(lambda: k.collide(k.b, n))
            time.sleep(k.rng.uniform(0.005, 0.25) * SLOW)
            check(k.work.alive(), f"round {n}: a worker ended by itself")
            k.a.kill()
            k.stop()
            if n % 5 == 0:
                k.examine()
            if n % 4 == 1:
                k.kill_a_mount()
            k.compare()
            if n % 20 == 19:
                k.settle()
        k.settle()
        print(f"{k.work.ops} operations promised, {k.work.in_flight} in flight that had happened")

# How the daemon is brought to a point. What is not listed, the usual work has to reach.
RECOVERY = ("recover.",)  # by a mount after a kill in the midst of work
LEAVING = ("umount.",)  # by an unmount
FIRST = ("attach.", "tree.formatted")  # by the first mount of a device
SMALL_CACHE = ("evict.",)
COLLIDING = ("replica.",)  # by two devices that change the same names
ALONE = ("replica.ack",)  # by one that nobody's commits come between


def reach(k, point, n):
    """Work, with the fault armed, until the daemon dies at the point; whether it did."""
    env = {"VARVE_FAULT": f"{point}:{n}:kill"}
    options = POSIX + (",cache_size=8M" if point.startswith(SMALL_CACHE) else "")
    if point.startswith(RECOVERY):
        k.work.start()
        time.sleep(0.2 * SLOW)
        k.a.kill()
        k.stop()
        return not k.mount(options, env=env)
    k.a.umount()
    if not k.mount(options, env=env):
        return True
    k.work.start()
    if not point.startswith(ALONE):
        k.other.start()
        k.fork(k.read_for_ever)
    if point.startswith(COLLIDING) and not point.startswith(ALONE):
        k.fork(lambda: k.collide(k.a, f"{point}{n}"))
        k.fork(lambda: k.collide(k.b, f"{point}{n}"))
    if point.startswith(LEAVING):
        time.sleep(0.2 * SLOW)
        k.stop()
        k.a.process.terminate()
    return k.died(REACH_SECONDS if n == 1 else 0.7)


def first_mount(lab, server, point, n):
    """The first mount of a device, killed at a point; the next one does."""
    d = lab.device(f"{point}-{n}", server)
    d.start_mount(env={"VARVE_FAULT": f"{point}:{n}:kill"})
    reached = d.process.wait(60 * SLOW) == -signal.SIGKILL
    d.process = None
    d.mount()
    d.write(f"first-{point}-{n}", b"1")
    d.wait()
    d.umount()
    return reached


def test_every_point_of_the_client():
    print(f"seed {SEED}", flush=True)
    never = []
    begun = time.monotonic()
    with Lab() as lab:
        k = KillLab(lab, SEED)
        for number, point in enumerate(fault_points("src")):
            for n in (1, k.rng.randrange(2, 12)):
                if point.startswith(FIRST):
                    reached = n > 1 or first_mount(lab, k.server, point, n)
                else:
                    reached = reach(k, point, n)
                    if k.a.process:
                        k.a.kill()
                    k.stop()
                    k.examine()
                    k.compare()
                if n == 1 and not reached:
                    never.append(point)
                print(f"{time.monotonic() - begun:.1f} {point} {n}"
                      f"{'' if reached else ' not reached'}", flush=True)
            if number % 5 == 4:
                k.settle()
        k.settle()
    check(not never, "no work came by:", never)


def test_every_point_of_the_server():
    """kill -9 of the server: what it had acknowledged stays, and the devices go on."""
    print(f"seed {SEED}", flush=True)
    never = []
    with Lab() as lab:
        k = KillLab(lab, SEED)
        for point in fault_points("server"):
            for n in (1, k.rng.randrange(2, 10)):
                k.server.stop()
                k.server.start(env={"VARVE_FAULT": f"{point}:{n}:kill"})
                k.work.start()
                k.other.start()
                if not until_dead(k.server, REACH_SECONDS if n == 1 else 2) and n == 1:
                    never.append(point)
                time.sleep(k.rng.uniform(0, 0.1) * SLOW)
                check(k.work.alive() and k.other.alive(), "a worker ended by itself")
                k.stop()
                k.server.kill()
                k.server.start()
                k.compare()
            k.settle()
    check(not never, "no work came by:", never)


def until_dead(server, seconds):
    deadline = time.monotonic() + seconds * SLOW
    while time.monotonic() < deadline and server.process.poll() is None:
        time.sleep(0.005)
    return server.process.poll() is not None


def test_server_killed_at_random():
    print(f"seed {SEED}", flush=True)
    with Lab() as lab:
        k = KillLab(lab, SEED)
        for n in range(max(ROUNDS // 10, 3)):
            k.work.start()
            k.other.start()
            k.fork(k.read_for_ever)
            k.fork(lambda: k.collide(k.a, n))
            k.fork(lambda: k.collide(k.b, n))
            for _ in range(3):
                time.sleep(k.rng.uniform(0.01, 0.2) * SLOW)
                k.server.kill()
                k.server.start()
            check(k.work.alive() and k.other.alive(), f"round {n}: a worker ended by itself")
            k.compare()
            if n % 5 == 4:
                k.settle()
        k.settle()


def test_unlink_of_a_dirty_file():
    """Dead between the tree's deletion and the end of the bytes: it does not come back."""
    with Lab() as lab:
        _, a, b = lab.pair()
        a.write("kept", b"k")
        for point, take in (("names.unlinked", lambda: os.unlink(a.path("f"))),
                            ("names.renamed", lambda: os.rename(a.path("g"), a.path("f")))):
            for offline in (False, True):
                a.umount()
                if offline:
                    lab.servers[0].stop()
                a.mount(env={"VARVE_FAULT": f"{point}:1:kill"})
                a.write("g", b"new")
                fd = os.open(a.path("f"), os.O_WRONLY | os.O_CREAT)
                os.write(fd, b"old" * 30000)
                try:
                    take()
                    raise Failed("a dead daemon answered")
                except OSError:
                    pass
                until(lambda: a.process.poll() is not None, what="death")
                with contextlib.suppress(OSError):
                    os.close(fd)
                if offline:
                    lab.servers[0].start()
                a.mount()
                want = ["g", "kept"] if point == "names.unlinked" else ["f", "kept"]
                equal(sorted(os.listdir(a.dir)), want, "names")
                settle(a, b)
                equal(sorted(os.listdir(b.dir)), want, "names on the other device")
                a.write("g", b"")
                os.rename(a.path("g"), a.path("f"))
                os.unlink(a.path("f"))


if __name__ == "__main__":
    main([t for n, t in list(globals().items()) if n.startswith("test_")])
