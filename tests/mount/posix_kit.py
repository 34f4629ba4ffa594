# SPDX-License-Identifier: Apache-2.0
"""What the tests of a directory's POSIX behaviour share: calls, checks, and the runner.

Prints "N passed, N failed" and exits 1 when one failed. What only root can do is left out for
other users, and counted as left out.
"""

import argparse
import ctypes
import errno
import os
import shutil
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16
NOBODY = 65534
ROOT = os.geteuid() == 0

TESTS = []


class LeftOut(Exception):
    pass


def test(f):
    TESTS.append(f)
    return f


def root_only(f):
    def run():
        if not ROOT:
            raise LeftOut("needs root")
        f()

    run.__name__ = f.__name__
    return run


def eq(got, want, what=""):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, not {want!r}")


def ok(condition, what):
    if not condition:
        raise AssertionError(what)


def fails(code, call, *args, **kwargs):
    """The call must fail with this errno (or one of these)."""
    codes = code if isinstance(code, tuple) else (code,)
    try:
        result = call(*args, **kwargs)
    except OSError as e:
        if e.errno not in codes:
            want = "/".join(errno.errorcode[c] for c in codes)
            raise AssertionError(f"{errno.errorcode.get(e.errno)} instead of {want}") from e
        return
    raise AssertionError(f"succeeded ({result!r}) instead of {errno.errorcode[codes[0]]}")


def put(path, data=b"", mode=0o644):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
    finally:
        os.close(fd)


def get(path):
    with open(path, "rb", buffering=0) as f:
        return f.readall()


def renameat2(old, new, flags):
    r = LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)
    if r < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fallocate(fd, mode, offset, length):
    r = LIBC.fallocate(
        fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    if r < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def as_user(uid, gid, f, *args, groups=()):
    """Runs f in a child of that user; what it raises is raised here. The umask is 022."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read_end)
            os.umask(0o022)
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            f(*args)
            code = 0
        except BaseException:
            os.write(write_end, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(code)
    os.close(write_end)
    text = b""
    while True:
        part = os.read(read_end, 4096)
        if not part:
            break
        text += part
    os.close(read_end)
    if os.waitpid(pid, 0)[1] != 0:
        raise AssertionError(f"as user {uid}: {text.decode()}")


def run_one(f, base, number, verbose):
    work = os.path.join(base, f"{number:03}-{f.__name__}")
    os.mkdir(work)
    os.chmod(work, 0o777)
    os.chdir(work)
    os.umask(0o022)
    try:
        f()
    except LeftOut as e:
        print(f"left out: {f.__name__}: {e}")
        return None
    except BaseException:
        print(f"FAILED: {f.__name__}\n{traceback.format_exc()}", flush=True)
        return False
    finally:
        os.chdir(base)
        shutil.rmtree(work, ignore_errors=True)
    if os.path.exists(work):
        print(f"FAILED: {f.__name__}: its directory could not be removed")
        return False
    if verbose:
        print(f"ok: {f.__name__}", flush=True)
    return True


def main(description):
    parser = argparse.ArgumentParser(description=description.split("\n", maxsplit=1)[0])
    parser.add_argument("dir")
    parser.add_argument("-k", metavar="WORD", default="", help="only tests whose name has it")
    parser.add_argument("-v", action="store_true")
    args = parser.parse_args()
    base = os.path.join(os.path.abspath(args.dir), f"posix-{os.getpid()}")
    os.mkdir(base)
    os.chmod(base, 0o777)
    os.chdir(base)
    results = [run_one(f, base, i, args.v) for i, f in enumerate(TESTS)
               if args.k in f.__name__]
    os.chdir("/")
    os.rmdir(base)
    print(f"{results.count(True)} passed, {results.count(False)} failed"
          + (f", {results.count(None)} left out" if None in results else ""))
    return 1 if False in results or not results else 0


def in_child(f):
    """Runs f in a child of the same user."""
    if ROOT:
        as_user(os.getuid(), os.getgid(), f)
        return
    pid = os.fork()
    if pid == 0:
        try:
            f()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    eq(os.waitpid(pid, 0)[1], 0, "child")
