#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL on the mount: initdb, pgbench, pg_amcheck, kill -9 of it and of the daemon."""

import contextlib
import glob
import os
import signal
import subprocess
import tempfile

from harness import SLOW, Lab, check, equal, main, until
from programs import CLEAN, mounted_pair, program, settle, variants

USER = "postgres"
BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
# It refuses to run as root, and files of others are refused to it.
OPTIONS = ("-o", "posix,allow_other")
SETTINGS = {
    "listen_addresses": "",
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "16MB",
    "max_connections": "20",
    "checkpoint_timeout": "30s",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "autovacuum_naptime": "1s",
}


def pg(name, *argv, **kw):
    return program(os.path.join(BIN, name), *argv, user=USER, cwd="/", **kw)


class Cluster:
    """One data folder; the sockets lie outside of the mount."""

    def __init__(self, device):
        self.data = device.path("pg")
        self.sockets = tempfile.mkdtemp(prefix="varve-pg-", dir="/tmp")
        os.chmod(self.sockets, 0o777)
        self.log = os.path.join(self.sockets, "log")
        self.process = None

    def init(self):
        os.mkdir(self.data, 0o700)
        program("chown", USER, self.data)
        pg("initdb", "-k", "-D", self.data, "-A", "trust", "--locale=C", "-E", "UTF8",
           "--wal-segsize=1")
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a") as f:
            for name, value in SETTINGS.items():
                f.write(f"{name} = '{value}'\n")

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(BIN, "postgres"), "-D", self.data, "-k", self.sockets], env=CLEAN,
                user=USER, group=USER, extra_groups=[], cwd="/", stdout=log, stderr=log,
                start_new_session=True)

        def ready():
            check(self.process.poll() is None, "postgres ended:", self.said()[-3000:])
            return pg("pg_isready", "-q", "-h", self.sockets, fail=False).returncode == 0
        until(ready, 60, "postgres")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        equal(self.process.wait(60 * SLOW), 0, "postgres stopped")
        self.process = None

    def kill(self):
        """Every process of it, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        # Its backends are in sessions of their own.
        for pid in self.backends():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.backends(), 20, "the end of all backends")

    def backends(self):
        """Whoever works in the data folder."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/cwd") == self.data:
                    found.append(int(pid))
        return found

    def said(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def sql(self, statement, **kw):
        return pg("psql", "-h", self.sockets, "-d", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1",
                  "-c", statement, **kw)

    def bench(self, *argv, **kw):
        return pg("pgbench", "-h", self.sockets, *argv, "postgres", **kw)

    def sound(self):
        """Every relation and index, against the running server."""
        self.sql("create extension if not exists amcheck")
        pg("pg_amcheck", "-h", self.sockets, "--all", "--heapallindexed", "--rootdescend",
           "--install-missing")
        equal(self.sql("select sum(abalance) = (select sum(bbalance) from pgbench_branches) "
                       "and sum(abalance) = (select sum(tbalance) from pgbench_tellers) "
                       "and sum(abalance) = coalesce((select sum(delta) from pgbench_history), 0) "
                       "from pgbench_accounts"), "t\n", "pgbench's sums")

    def checksums(self):
        pg("pg_checksums", "--check", "-D", self.data)

    def done(self):
        if self.process:
            self.kill()
        program("rm", "-rf", self.sockets)


@contextlib.contextmanager
def cluster(device):
    c = Cluster(device)
    try:
        yield c
    except BaseException:
        if os.path.exists(c.log):
            print(c.said()[-3000:])
        raise
    finally:
        c.done()


class Committer:
    """A client that counts up, one transaction each, and notes what was committed."""

    def __init__(self, c):
        statements = "".join(f"insert into counted values ({n});\n\\echo {n}\n"
                             for n in range(c_first(c), 100000))
        self.script = os.path.join(c.sockets, "script")
        with open(self.script, "w") as f:
            f.write(statements)
        self.out = os.path.join(c.sockets, "committed")
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(
                [os.path.join(BIN, "psql"), "-h", c.sockets, "-d", "postgres", "-XAtq", "-v",
                 "ON_ERROR_STOP=1", "-f", self.script], env=CLEAN, user=USER, group=USER,
                extra_groups=[], cwd="/", stdout=out, stderr=subprocess.DEVNULL)

    def committed(self):
        with open(self.out, "rb") as f:
            return [int(n) for n in f.read().split(b"\n")[:-1]]

    def ended(self):
        check(self.process.wait(60 * SLOW) != 0, "psql saw no error")
        return self.committed()


def c_first(c):
    return int(c.sql("select coalesce(max(n), 0) + 1 from counted"))


def bench_in_background(c):
    return subprocess.Popen([os.path.join(BIN, "pgbench"), "-h", c.sockets, "-n", "-c", "3", "-T",
                             "600", "postgres"], env=CLEAN, user=USER, group=USER,
                            extra_groups=[], cwd="/", stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def crash(c, kill):
    """Writers at work; then kill(); returns what was committed before it."""
    bench = bench_in_background(c)
    committer = Committer(c)
    until(lambda: len(committer.committed()) > 20, 60, "commits before the kill")
    kill()
    bench.wait(60 * SLOW)
    return committer.ended()


def all_there(c, committed):
    there = set(map(int, c.sql("select n from counted").split()))
    missing = [n for n in committed if n not in there]
    check(not missing, "committed and gone:", missing)
    c.sound()


def kill_a_backend(c):
    """The server then restarts itself, by crash recovery."""
    pid = int(c.sql("select pid from pg_stat_activity where application_name = 'psql' "
                    "and pid <> pg_backend_pid() limit 1"))
    os.kill(pid, signal.SIGKILL)


def initialised(c):
    c.init()
    c.start()
    c.bench("-i", "-q", "-s", "1")
    c.sql("create table counted (n integer primary key)")


def work(a):
    with cluster(a) as c:
        initialised(c)
        c.bench("-n", "-c", "3", "-t", "60")
        equal(c.sql("select count(*) from pgbench_history"), "180\n", "transactions")
        committed = crash(c, lambda: kill_a_backend(c))
        until(lambda: c.sql("select 1", fail=False).stdout == "1\n", 60, "recovery by itself")
        all_there(c, committed)
        committed = crash(c, c.kill)
        c.start()
        check("database system was not properly shut down" in c.said(), "no recovery")
        all_there(c, committed)
        c.sql("vacuum full")
        c.sql("reindex database postgres")
        c.sound()
        c.stop()
        c.checksums()


def proof(device):
    with cluster(device) as c:
        c.checksums()


def elsewhere(b):
    """It runs where it was not made."""
    with cluster(b) as c:
        c.start()
        c.sound()
        c.stop()


def test_daemon_killed():
    """kill -9 of the daemon under the server: recovery, and every commit is there."""
    with Lab() as lab:
        _, a, b = mounted_pair(lab, OPTIONS)
        with cluster(a) as c:
            initialised(c)
            for _ in range(2):
                committed = crash(c, a.kill)
                c.kill()
                a.mount(*OPTIONS)
                c.start()
                all_there(c, committed)
            c.stop()
            c.checksums()
        settle(a, b)
        elsewhere(b)


if __name__ == "__main__":
    main(variants("postgres", work, proof, OPTIONS) + [test_daemon_killed])
