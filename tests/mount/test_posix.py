#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""posix.py and posix_attr.py on a mounted drive, with the server and without it, and on a plain
folder."""

import os
import subprocess
import sys

from harness import Lab, check, equal, main, same_trees

HERE = os.path.dirname(os.path.abspath(__file__))


def posix(folder):
    """Their own closing lines are counted, too."""
    # Other users have to reach it.
    os.chmod(os.path.dirname(folder), 0o755)
    for script in ("posix.py", "posix_attr.py"):
        r = subprocess.run([sys.executable, os.path.join(HERE, script), folder], text=True,
                           stdout=subprocess.PIPE)
        print(r.stdout, end="", flush=True)
        equal(r.returncode, 0, script)


def test_mounted_with_its_server():
    with Lab() as lab:
        _, a, b = lab.pair()
        posix(a.dir)
        a.write("left", b"1")
        a.wait()
        b.wait()
        same_trees(a.dir, b.dir)


def test_mounted_without_its_server():
    with Lab() as lab:
        server, a, b = lab.pair()
        server.stop()
        posix(a.dir)
        a.write("left", b"1")
        server.start()
        a.wait()
        b.wait()
        same_trees(a.dir, b.dir)


def test_plain_folder():
    """What passes on the drive passes here: the tests ask for nothing but POSIX and Linux."""
    with Lab() as lab:
        folder = os.path.join(lab.dir, "plain")
        os.mkdir(folder)
        posix(folder)
        check(os.path.isdir(folder), "the folder stays")


if __name__ == "__main__":
    main([t for n, t in list(globals().items()) if n.startswith("test_")])
