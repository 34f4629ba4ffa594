#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A build of this project on the mount: compilers, linkers, ninja's times, programs run from it."""

import errno
import os
import shutil
import subprocess

from harness import ROOT, check, equal, main
from programs import program, variants

# What is built: both programs, and the tests of some modules.
TARGETS = ("src/varve", "server/varved", "tests/unit/test_chunker", "tests/unit/test_manifest",
           "tests/unit/test_wire")
NOTHING = "ninja: no work to do."

LIBRARY = "int answer(void);\nint answer(void)\n{\n\treturn 42;\n}\n"


def ninja(build, *argv):
    return program("ninja", "-C", build, *argv, timeout=900).strip().splitlines()


def copy_of_source(dst):
    skip = shutil.ignore_patterns(".git", "build*", "__pycache__", "*.pyc")
    shutil.copytree(ROOT, dst, symlinks=True, ignore=skip)


def text_file_busy(path):
    with subprocess.Popen([path, "120"]) as p:
        try:
            with open(path, "r+b"):
                raise AssertionError("a running program can be written to")
        except OSError as e:
            equal(e.errno, errno.ETXTBSY, "write to a running program")
        # Replaced by a rename, it runs on.
        shutil.copy2(path, path + ".new")
        os.rename(path + ".new", path)
        check(p.poll() is None, "it ended")
        p.kill()


def libraries(a):
    with open(a.path("answer.c"), "w") as f:
        f.write(LIBRARY)
    program("gcc", "-shared", "-fPIC", "-o", "libanswer.so", "answer.c", cwd=a.dir)
    out = program("python3", "-c", "import ctypes, sys\n"
                  "print(ctypes.CDLL(sys.argv[1]).answer())", a.path("libanswer.so"))
    equal(out, "42\n", "a library that is mapped from the mount")
    shutil.copy2(shutil.which("sleep"), a.path("sleep"))
    text_file_busy(a.path("sleep"))
    with open(a.path("script"), "w") as f:
        f.write("#!/bin/sh\necho \"$1\"\n")
    os.chmod(a.path("script"), 0o755)
    equal(program(a.path("script"), "ran"), "ran\n", "a script")


def work(a):
    copy_of_source(a.path("source"))
    build = a.path("source/build")
    program("meson", "setup", build, "-Dbuildtype=plain", cwd=a.path("source"))
    ninja(build, *TARGETS)
    equal(ninja(build, *TARGETS)[-1], NOTHING, "at once again")
    # An edit builds what depends on it, and no more.
    with open(a.path("source/src/chunk/chunker.c"), "a") as f:
        f.write("\n")
    again = [l for l in ninja(build, "-v", *TARGETS) if " -c " in l]
    equal(len(again), 1, "compiled after an edit:", again)
    check("chunker.c" in again[0], again)
    libraries(a)


def proof(device):
    build = device.path("source/build")
    for name in TARGETS[2:]:
        program(os.path.join(build, name), cwd=build)
    for name in TARGETS[:2]:
        check("Usage" in program(os.path.join(build, name), "--help"), name)
    equal(ninja(build, "-n", *TARGETS)[-1], NOTHING, "on", device.name)
    equal(program(device.path("script"), "ran"), "ran\n", "a script")


if __name__ == "__main__":
    main(variants("build", work, proof))
