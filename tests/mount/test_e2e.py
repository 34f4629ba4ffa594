#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The main job on real input: /usr/include, /usr/share/doc and one file of 2 GiB, two devices."""

import os
import random
import subprocess

from harness import Lab, check, equal, file_digest, main, run, same_trees, snapshot, until

GIB = 1 << 30
MIB = 1 << 20
BIG = int(os.environ.get("VARVE_TEST_BIG", 2 * GIB))


def settle(*devices):
    for _ in range(2):
        for d in devices:
            d.wait(900)


def make_big(path, size):
    """Incompressible, and different in every MiB."""
    rng = random.Random(2)
    block = rng.randbytes(8 * MIB)
    with open(path, "wb") as f:
        for n in range(size // (8 * MIB)):
            f.write(n.to_bytes(8, "little") * 512)
            f.write(bytes(x ^ (n & 255) for x in block[:4096]))
            cut = n * 7919 % len(block)
            f.write((block[cut:] + block[:cut])[:8 * MIB - 8192])
    equal(os.path.getsize(path), size, "size of the source")


def counted(device, work):
    """The bytes that the device sent while the work went to the server."""
    before = device.status()["bytes_sent"]
    work()
    device.wait(900)
    return device.status()["bytes_sent"] - before


def test_main_job():
    with Lab() as lab:
        server, a, b = lab.pair()
        source = os.path.join(lab.dir, "big")
        make_big(source, BIG)
        for top in ("/usr/include", "/usr/share/doc"):
            run("cp", "-a", top, a.dir, timeout=1200)
        run("cp", "-a", source, a.path("big"), timeout=1200)
        settle(a, b)
        for top in ("include", "doc"):
            same_trees(os.path.join("/usr", "share/doc" if top == "doc" else top), a.path(top))
        paths = same_trees(a.dir, b.dir)
        equal(file_digest(b.path("big")), file_digest(source), "the large file")
        print(f"  {paths} paths equal on both devices", flush=True)

        def one_byte():
            with open(b.path("big"), "r+b") as f:
                f.seek(BIG // 2 + 12345)
                old = f.read(1)
                f.seek(BIG // 2 + 12345)
                f.write(bytes([old[0] ^ 255]))
        sent = counted(b, one_byte)
        print(f"  1 byte changed in {BIG >> 20} MiB: {sent} bytes sent", flush=True)
        check(sent <= 1.5 * MIB, "sent for one changed byte:", sent)
        settle(a, b)
        received = a.status()["bytes_received"]
        equal(file_digest(a.path("big")), file_digest(b.path("big")), "a sees the changed byte")
        received = a.status()["bytes_received"] - received
        check(received <= 1.5 * MIB, "received for one changed byte:", received)

        def insert():
            with open(b.path("big"), "rb") as f, open(b.path("longer"), "wb") as g:
                g.write(b"!")
                while block := f.read(4 * MIB):
                    g.write(block)
        sent = counted(b, insert)
        print(f"  1 byte inserted at the front of a copy: {sent} bytes sent", flush=True)
        check(sent <= 3 * MIB, "sent for one inserted byte:", sent)
        settle(a, b)
        equal(file_digest(a.path("longer")), file_digest(b.path("longer")), "the longer copy")

        server.stop()
        run("cp", "-a", "/usr/include/linux", a.path("made-by-a"))
        run("cp", "-a", "/usr/include/linux", b.path("made-by-b"))
        run("rm", "-r", a.path("doc"), timeout=600)
        os.rename(b.path("include"), b.path("headers"))
        os.unlink(a.path("longer"))
        server.start()
        settle(a, b)
        until(lambda: snapshot(a.dir, bytes_too=False) == snapshot(b.dir, bytes_too=False), 120,
              "equal trees after working apart")
        same_trees(a.dir, b.dir)
        same_trees("/usr/include", a.path("headers"))
        check(not os.path.exists(b.path("doc")), "doc is gone on b")


def test_kill_while_writing():
    """kill -9 of the daemon in the middle of writing: what was written is there."""
    with Lab() as lab:
        _, a, b = lab.pair()
        rng = random.Random(3)
        promised = {}
        for round_no in range(4):
            writer = subprocess.Popen(
                ["python3", "-c", WRITER, a.dir, str(round_no)], stdout=subprocess.PIPE)
            lines = []
            for line in writer.stdout:
                lines.append(line)
                if len(lines) >= 60 + rng.randrange(60):
                    break
            a.kill()
            lines += writer.stdout.readlines()
            writer.stdout.close()
            writer.wait()
            for line in lines:
                if line.endswith(b"\n"):
                    name, size, seed = line.decode().split()
                    promised[name] = (int(size), int(seed))
            a.mount()
            for name, (size, seed) in promised.items():
                want = random.Random(seed).randbytes(size)
                got = a.read(name)
                check(got[:size] == want, f"{name}: {size} bytes were accepted, "
                      f"{len(got)} are there, equal {got == want}")
        settle(a, b)
        same_trees(a.dir, b.dir)
        check(len(promised) > 100, "files:", len(promised))


# Says what write() returned for, after it returned; every third file is never closed.
WRITER = r"""
import os, random, sys
top, no = sys.argv[1], sys.argv[2]
try:
    for n in range(100000):
        name, size, s = f"f-{no}-{n}", random.choice((1, 100, 4096, 70000, 900000)), random.randrange(1 << 30)
        data = random.Random(s).randbytes(size)
        f = os.open(os.path.join(top, name), os.O_WRONLY | os.O_CREAT)
        done = 0
        while done < size:
            done += os.write(f, data[done:done + 65536])
        if n % 3:
            os.close(f)
        print(name, size, s, flush=True)
except OSError:
    pass
"""


if __name__ == "__main__":
    main([t for n, t in list(globals().items()) if n.startswith("test_")])
