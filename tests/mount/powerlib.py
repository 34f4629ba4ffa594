# SPDX-License-Identifier: Apache-2.0
"""Power loss: disks that are recorded (tests/crash/blockrec.c), and made anew as of any instant.

    rec = Recorder(folder, [512, 512])		# MiB of each disk
    rec.mount(0, where, "ext4")
    ...						# rec.pos() is the instant: bytes in the log
    rec.stop()

    disks = Disks(Log(rec.log), folder)		# in any process
    disks.make(instant, rng)			# instants must ascend
    mount_disk("ext4", disks.image(0), where)

What was written before the last flush is there, and of what was written after it, some: by write,
or by sector. All of it happens in namespaces of its own (in_namespace()): mounts, loopback
network, and what the kernel says of its boot id are nobody else's.
"""

import bisect
import contextlib
import mmap
import os
import struct
import subprocess
import time
import uuid

from harness import BUILD, Failed, run, until

BLOCKREC = os.path.join(BUILD, "tests", "crash", "blockrec")
NOSYNC = os.path.join(BUILD, "tests", "crash", "nosync.so")
BOOT_ID = "/proc/sys/kernel/random/boot_id"
SECTOR = 512
WRITE, ZEROS, FLUSH = 1, 2, 3
HEADER = struct.Struct("<IIQQ")
NO_LAZY = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
# Of a file system: how it is made, and mounted.
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-E", NO_LAZY], "commit=1"),
    # Names and sizes may be on the disk before the bytes are.
    "ext4-writeback": (["mkfs.ext4", "-q", "-F", "-E", NO_LAZY], "commit=1,data=writeback"),
    "xfs": (["mkfs.xfs", "-q", "-f", "-K"], "nouuid"),
    "btrfs": (["mkfs.btrfs", "-q", "-f", "-K"], "commit=1"),
}


def in_namespace(script, *args, **kw):
    """A process that runs the script where its mounts and its network are its own."""
    return subprocess.Popen(["unshare", "-m", "-n", "--propagation", "private", "python3", script,
                             *args], env=dict(os.environ, VARVE_POWER_NS="1"), **kw)


def tmpfs(where, size="10g"):
    os.makedirs(where, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", where)


class BootId:
    """What the kernel says about this start of the system, as far as this namespace can tell."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "boot_id")
        self.renew()
        run("mount", "--bind", self.path, BOOT_ID)

    def renew(self):
        with open(self.path, "w") as f:
            f.write(str(uuid.uuid4()) + "\n")


def mount_disk(kind, source, where):
    """The loop device goes with the mount."""
    os.makedirs(where, exist_ok=True)
    for _ in range(100):
        r = run("mount", "-t", kind.partition("-")[0], "-o", "loop," + FILE_SYSTEMS[kind][1],
                source, where, fail=False)
        if r.returncode == 0:
            return
        # All nodes that are there are taken, or another process was faster.
        for n in range(128):
            with contextlib.suppress(FileExistsError):
                os.mknod(f"/dev/loop{n}", 0o60600, os.makedev(7, n))
        time.sleep(0.02)
    raise Failed(f"mount {source}: {r.stderr}")


class Recorder:
    def __init__(self, folder, sizes):
        self.log = os.path.join(folder, "disk.log")
        self.dir = os.path.join(folder, "disks")
        os.makedirs(self.dir)
        self.process = subprocess.Popen([BLOCKREC, self.log, self.dir, *map(str, sizes)])
        until(lambda: os.path.exists(os.path.join(self.dir, "pos")), 10, "the recorder")
        self.pos_fd = os.open(os.path.join(self.dir, "pos"), os.O_RDONLY)

    def pos(self):
        return int(os.pread(self.pos_fd, 32, 0))

    def mount(self, n, where, kind):
        disk = os.path.join(self.dir, f"disk{n}")
        run(*FILE_SYSTEMS[kind][0], disk)
        mount_disk(kind, disk, where)

    def stop(self):
        os.close(self.pos_fd)
        run("umount", self.dir)
        self.process.wait(30)


class Log:
    """The records: ends[i] is the instant at which record i is in the log."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            self.bytes = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        self.records, self.ends = [], []
        at = 0
        while at + HEADER.size <= len(self.bytes):
            kind, disk, offset, n = HEADER.unpack_from(self.bytes, at)
            at += HEADER.size
            self.records.append((kind, disk, offset, n, at))
            at += n if kind == WRITE else 0
            self.ends.append(at)

    def flushes(self):
        return [e for e, r in zip(self.ends, self.records) if r[0] == FLUSH]


class Disks:
    """The disks as a power cut at an instant leaves them."""

    def __init__(self, log, folder):
        self.log, self.folder, self.next = log, folder, 0
        self.sizes = []
        while os.path.exists(f"{log.path}.disk{len(self.sizes)}"):
            self.sizes.append(os.path.getsize(f"{log.path}.disk{len(self.sizes)}"))
        os.makedirs(folder, exist_ok=True)
        self.bases = [self._new(f"{folder}/base{n}", size) for n, size in enumerate(self.sizes)]
        self.unflushed = [[] for _ in self.sizes]

    @staticmethod
    def _new(path, size):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.ftruncate(fd, size)
        return fd

    def image(self, n):
        return f"{self.folder}/image{n}"

    def _apply(self, fd, record, sectors=None):
        kind, _, offset, n, at = record
        data = self.log.bytes[at:at + n] if kind == WRITE else bytes(n)
        if sectors is None:
            os.pwrite(fd, data, offset)
            return
        for i in sectors:
            os.pwrite(fd, data[i * SECTOR:(i + 1) * SECTOR], offset + i * SECTOR)

    def _advance(self, instant):
        end = bisect.bisect_right(self.log.ends, instant)
        for record in self.log.records[self.next:end]:
            disk = record[1]
            if record[0] != FLUSH:
                self.unflushed[disk].append(record)
                continue
            for one in self.unflushed[disk]:
                self._apply(self.bases[disk], one)
            self.unflushed[disk] = []
        self.next = max(self.next, end)

    def _copy(self, n):
        """Copies what is not a hole."""
        out = self._new(self.image(n), self.sizes[n])
        at = 0
        with contextlib.suppress(OSError):  # ENXIO: no data behind
            while at < self.sizes[n]:
                at = os.lseek(self.bases[n], at, os.SEEK_DATA)
                end = os.lseek(self.bases[n], at, os.SEEK_HOLE)
                while at < end:
                    data = os.pread(self.bases[n], min(end - at, 4 << 20), at)
                    os.pwrite(out, data, at)
                    at += len(data)
        return out

    def make(self, instant, rng):
        """What happened to what was not flushed, in words."""
        self._advance(instant)
        said = []
        for n, pending in enumerate(self.unflushed):
            out = self._copy(n)
            share = rng.choice((0, 1, 0.5, 0.5, 0.1, 0.9))
            torn = rng.choice((0, 0.3))
            kept = 0
            for record in pending:
                if rng.random() < torn:
                    count = (record[3] + SECTOR - 1) // SECTOR
                    self._apply(out, record, [i for i in range(count) if rng.random() < 0.5])
                elif rng.random() < share:
                    self._apply(out, record)
                    kept += 1
            os.close(out)
            said.append(f"disk {n}: {kept} of {len(pending)} unflushed writes, torn {torn}")
        return "; ".join(said)
