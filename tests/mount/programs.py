# SPDX-License-Identifier: Apache-2.0
"""Real programs at work on the mount: what the test_programs_*.py share.

    for test in variants("git", work, proof): ...

Each program works on device a, once while the server runs and once while it does not, and
passes its own integrity check there. Then device b must have the same tree, byte by byte, and
the program's check passes there, too.
"""

import os
import subprocess

from harness import SLOW, Failed, Lab, same_trees

# What people have set in their environment is none of the tests' business.
CLEAN = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}


def program(*argv, cwd=None, env=None, stdin=None, fail=True, timeout=300, user=None):
    """Runs it in a clean environment; its output, standard error apart."""
    argv = [os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in argv]
    r = subprocess.run(argv, cwd=cwd, env={**CLEAN, **(env or {})}, input=stdin, text=True,
                       errors="surrogateescape", capture_output=True, timeout=timeout * SLOW,
                       user=user, group=user, extra_groups=[] if user else None)
    if fail and r.returncode != 0:
        raise Failed(f"{' '.join(argv)} exited {r.returncode}: {r.stderr[-3000:]}"
                     f"{r.stdout[-3000:]}")
    return r.stdout if fail else r


def settle(*devices):
    """Until every device has sent what it has and seen what there is."""
    for _ in range(2):
        for d in devices:
            d.wait(300)


def remount(device, *args):
    device.umount()
    device.mount(*args)


def mounted_pair(lab, options=()):
    """A server and two mounted devices, whose mounts other users can reach."""
    os.chmod(lab.dir, 0o711)
    server = lab.server()
    return server, *(lab.device(n, server).mount(*options) for n in "ab")


def variants(name, work, proof=None, options=()):
    """Two tests: work(a) with the server and without it; then proof(a) and proof(b)."""
    def arrived(a, b):
        settle(a, b)
        same_trees(a.dir, b.dir, inodes=True)
        if proof:
            proof(a)
            proof(b)

    def online():
        with Lab() as lab:
            _, a, b = mounted_pair(lab, options)
            work(a)
            arrived(a, b)

    def offline():
        with Lab() as lab:
            server, a, b = mounted_pair(lab, options)
            server.stop()
            work(a)
            if proof:
                proof(a)
            server.start()
            arrived(a, b)

    online.__name__ = f"test_{name}_online"
    offline.__name__ = f"test_{name}_offline"
    return [online, offline]
