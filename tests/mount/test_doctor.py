#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""varve doctor, and flipped bits in every file that a device keeps."""

import errno
import json
import os
import random
import shutil
import sys


from harness import Lab, check, equal, main, run, same_trees, until


def drive_dir(device):
    drives = os.path.join(device.home, "drives")
    return os.path.join(drives, os.listdir(drives)[0])


def files_below(device, *parts):
    top = os.path.join(drive_dir(device), *parts)
    return sorted(os.path.join(folder, f) for folder, _, names in os.walk(top) for f in names)


def flip(path, offset, bit=0):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ (1 << bit)]))


def doctor(device, *args, want=None):
    r = device.varve("doctor", *args, "--json", fail=False, timeout=300)
    try:
        report = json.loads(r.stdout)
    except ValueError:
        raise AssertionError(f"no JSON: {r.stdout!r} {r.stderr!r}")
    equal(r.returncode, 0 if report["clean"] else 1, "exit status goes with \"clean\"", r.stderr)
    if want is not None:
        equal(report["clean"], want, "clean", json.dumps(report, indent=1), r.stderr)
    return report


def problems(report, what=None):
    found = report["problems"] + [p for d in report["drives"] for p in d["problems"]]
    return [p for p in found if p["severity"] != "note" and what in (None, p["what"])]


def fill(device, seed, count=12):
    rng = random.Random(seed)
    want = {}
    for n in range(count):
        size = rng.choice((10, 3000, 50000, 400000, 3 << 20))
        want[f"f{n}"] = rng.randbytes(size)
        device.write(f"f{n}", want[f"f{n}"])
    return want


def change_tree(device):
    os.makedirs(device.path("d", "e"))
    device.write("d/e/x", b"1")
    os.link(device.path("d", "e", "x"), device.path("d", "y"))
    os.link(device.path("d", "e", "x"), device.path("z"))
    os.symlink("nowhere", device.path("d", "s"))
    os.setxattr(device.path("d", "y"), "user.a", b"b")
    os.rename(device.path("d", "e"), device.path("moved"))
    os.unlink(device.path("z"))


def test_clean_while_working_and_after():
    """Nothing is found where nothing is wrong: mounted and busy, offline with an outbox, unmounted,
    and after kill -9."""
    with Lab() as lab:
        s, a, b = lab.pair()
        fill(a, 1)
        change_tree(a)
        doctor(a, a.dir, want=True)
        a.wait()
        report = doctor(a, a.dir, want=True)["drives"][0]
        check(report["mounted"] and report["checked"]["files"] > 12, report)
        check(report["checked"]["chunk_bytes"] > 1000, report)
        # Changes from elsewhere below changes that are not sent.
        b.wait()
        s.stop()
        change = random.Random(3)
        for n in range(5):
            with open(a.path(f"f{n}"), "r+b") as f:
                f.seek(change.randrange(9))
                f.write(b"changed")
        os.rename(a.path("d"), a.path("dd"))
        os.unlink(a.path("f6"))
        os.setxattr(a.path("f7"), "user.x", b"y")
        report = doctor(a, a.dir, want=True)["drives"][0]
        check(report["checked"]["changes_to_send"] > 5, report)
        a.kill()
        doctor(a, want=True)
        a.mount()
        a.umount()
        doctor(a, want=True)
        doctor(a, "--quick", want=True)
        doctor(a, "--repair", want=True)
        s.start()
        a.mount()
        a.wait()
        b.wait()
        same_trees(a.dir, b.dir)
        b.umount()
        doctor(b, "--drive", "home", want=True)
        r = b.varve("doctor", "--drive", "none", fail=False)
        equal(r.returncode, 1, r.stderr)
        r = b.varve("doctor")
        check("All is well" in r.stdout, r.stdout)


def test_flipped_chunk_is_fetched_anew():
    with Lab() as lab:
        _, a, b = lab.pair()
        want = fill(a, 2)
        a.wait()
        a.umount()
        segments = [p for p in files_below(a, "segments") if os.path.getsize(p)]
        check(segments, "no segments")
        rng = random.Random(5)
        for path in segments:
            for _ in range(3):
                flip(path, rng.randrange(os.path.getsize(path)), rng.randrange(8))
        found = problems(doctor(a, want=False), "chunk")
        check(found, "nothing found")
        for p in found:
            check(not p["repaired"] and p["paths"], p)
            check(all(name in want for name in p["paths"]), p)
        # Found by its hash when it is read, without any doctor.
        a.mount()
        for name, data in want.items():
            check(a.read(name) == data, name, "is wrong")
        check(a.status()["damaged_chunks"] > 0, a.status())
        doctor(a, a.dir, want=True)
        # And by the doctor of a mount, which repairs it.
        path = max(files_below(a, "segments"), key=os.path.getsize)
        flip(path, os.path.getsize(path) // 2)
        check(problems(doctor(a, a.dir, want=False), "chunk"), "not found while mounted")
        doctor(a, a.dir, "--repair", want=True)
        doctor(a, a.dir, want=True)
        a.umount()
        flip(path, os.path.getsize(path) // 2 + 70000)
        doctor(a, "--repair", want=True)
        doctor(a, want=True)
        a.mount()
        for name, data in want.items():
            check(a.read(name) == data, name, "is wrong after the repair")
        same_trees(a.dir, b.dir)


def flip_in_content(device, data):
    """Flips a bit of these bytes, wherever they lie in a segment."""
    for path in files_below(device, "segments"):
        with open(path, "rb") as f:
            at = f.read().find(data)
        if at >= 0:
            flip(path, at + len(data) // 2)
            return True
    return False


def test_damaged_and_unsent_is_kept_beside():
    """What only this device had: named, never sent as if it were right, never dropped, and in
    nobody's way."""
    with Lab() as lab:
        s, a, b = lab.pair()
        rng = random.Random(7)
        old, other = rng.randbytes(200000), rng.randbytes(50000)
        a.write("edited.txt", old)
        a.wait()
        b.wait()
        s.stop()
        edited, fresh = rng.randbytes(200000), rng.randbytes(150000)
        a.write("edited.txt", edited)
        a.write("fresh.txt", fresh)
        a.write("whole.txt", other)
        a.umount()
        check(flip_in_content(a, edited[:60000]), "not found in a segment")
        check(flip_in_content(a, fresh[:60000]), "not found in a segment")
        found = problems(doctor(a, want=False), "chunk")
        equal(sorted(n for p in found for n in p["paths"]), ["edited.txt", "fresh.txt"])
        equal({p["severity"] for p in found}, {"loss"})
        # A daemon does not serve, nor send, such bytes; it says so, and names the doctor.
        s.start()
        a.mount()
        for name in ("edited.txt", "fresh.txt"):
            try:
                a.read(name)
                raise AssertionError("damaged bytes were served")
            except OSError as e:
                equal(e.errno, errno.EIO, name)
        equal(a.read("whole.txt"), other)
        until(lambda: "doctor" in a.status()["detail"], what="status names the doctor")
        equal(a.varve("wait", a.dir, "--timeout", "1", fail=False).returncode, 1, "not synced")
        a.umount()
        report = doctor(a, "--repair", want=False)
        check(len(problems(report, "file")) == 2, json.dumps(report, indent=1))
        a.mount()
        a.wait()
        b.wait()
        names = sorted(os.listdir(b.dir))
        equal(len(names), 4, names)
        kept = {n.split(" (")[0]: n for n in names if "damaged copy, a, " in n}
        equal(sorted(kept), ["edited", "fresh"], names)
        equal(b.read("edited.txt"), old, "the name has what was whole")
        check("fresh.txt" not in names, names)
        equal(b.read("whole.txt"), other, "others went on")
        for stem, data in (("edited", edited), ("fresh", fresh)):
            got = b.read(kept[stem])
            equal(len(got), len(data))
            equal(sum(x != y for x, y in zip(got, data)), 1, "bytes that differ")
        same_trees(a.dir, b.dir)
        a.umount()
        for p in problems(doctor(a, "--repair")):
            equal(p["fix"], "no file has it any more", p)


def test_flip_anywhere():
    """One bit, at random, in every kind of file: never a wrong byte, and the doctor mends it."""
    seed = int(os.environ.get("VARVE_TEST_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    rng = random.Random(seed)
    with Lab() as lab:
        s, a, b = lab.pair()
        want = fill(a, seed)
        change_tree(a)
        a.wait()
        b.wait()
        same_trees(a.dir, b.dir)
        a.umount()
        # So that there are table files, logs, and something unsent.
        s.stop()
        a.mount()
        unsent = rng.randbytes(300000)
        a.write("unsent", unsent)
        a.write("small", b"small and unsent")
        os.mkdir(a.path("newdir"))
        a.kill()
        b.umount()
        saved = os.path.join(lab.dir, "saved")
        shutil.copytree(s.data, saved + "-server")
        shutil.copytree(a.home, saved, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
        kinds = {}
        for folder, _, names in os.walk(saved):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), saved)
                kind = "".join(c for c in path if not c.isdigit())
                kinds.setdefault(kind.split("drives/")[-1][32:] or kind, []).append(path)
        for kind in sorted(kinds):
            for _ in range(int(os.environ.get("VARVE_TEST_FLIPS", "1"))):
                flip_and_mend(a, saved, rng.choice(kinds[kind]), rng, want, unsent)


def restore(device, saved):
    """Device and server as they were when the copy was made."""
    server = device.server
    server.stop()
    for to, source in ((device.home, saved), (server.data, saved + "-server")):
        shutil.rmtree(to)
        shutil.copytree(source, to, symlinks=True)
    server.start()


def see_right_bytes(device, want, unsent, what, lost=False):
    """Every byte that can be read is right; of what was told to be lost, old or not there."""
    unread = []
    for name, data in list(want.items()) + [("unsent", unsent), ("small", b"small and unsent")]:
        try:
            got = device.read(name)
            if lost and got == b"" and name not in want:
                unread.append(name)
                continue
            check(got == data, what, "wrong bytes in", name)
        except OSError as e:
            check(e.errno in (errno.EIO, errno.ENOENT), what, name, e)
            unread.append(name)
    return unread


def mount_or_refuse(device, path, what):
    """Mounts; what is damaged may be told instead, with the doctor's name."""
    begin = os.path.getsize(os.path.join(device.lab.dir, f"dev-{device.name}.log"))
    try:
        device.mount()
        return True
    except SystemError as e:
        said = open(os.path.join(device.lab.dir, f"dev-{device.name}.log")).read()[begin:]
        check("varve: mount: " in said or "doctor" in said, what, "refused without a word:", said)
        check(path.startswith("config/") or "drive.json" in path or "doctor" in said,
              what, "refused without naming the doctor:", said)
        return False


def log_in_again(device):
    device.varve("login", device.server.url, "--user", "alice", "--password-file",
                 device.server.password, "--device", device.name)


def flip_and_mend(a, saved, path, rng, want, unsent):
    restore(a, saved)
    size = os.path.getsize(os.path.join(a.home, path))
    if size == 0:
        return
    offset, bit = rng.randrange(size), rng.randrange(8)
    what = f"{path} at {offset} of {size}, bit {bit}:"
    flip(os.path.join(a.home, path), offset, bit)
    if mount_or_refuse(a, path, what):
        see_right_bytes(a, want, unsent, what)
        a.umount()
    restore(a, saved)
    flip(os.path.join(a.home, path), offset, bit)
    before = problems(doctor(a))
    report = doctor(a, "--repair")
    if path.startswith("config/"):
        log_in_again(a)
    rescue = "".join(d.get("rescue", "") for d in report["drives"])
    a.mount()
    a.wait()
    losses = [p for p in problems(report) if not p["repaired"]]
    unread = see_right_bytes(a, want, unsent, what, bool(losses))
    for name in unread:
        told = json.dumps(report)
        check(name in ("unsent", "small"), what, name, "is gone, and the server has it")
        saved_file = os.path.join(rescue, "files", name)
        if rescue and os.path.exists(saved_file):
            with open(saved_file, "rb") as f:
                check(f.read() == (unsent if name == "unsent" else b"small and unsent"),
                      what, "wrong bytes of", name, "in the rescue folder")
            continue
        check(losses and (rescue or name in told or "staging" in told or "damaged" in told),
              what, name, "is gone without a word:", told)
    a.umount()
    left = [p for p in problems(doctor(a)) if "no file has it" not in (p.get("fix") or "")]
    check(not left, what, "problems are left after the repair:", left, "before:", before)


def test_configuration():
    with Lab() as lab:
        s = lab.server()
        a = lab.device("a", s).mount()
        a.write("f", b"1")
        a.wait()
        a.umount()
        account = os.path.join(a.home, "config", "account.json")
        os.chmod(account, 0o644)
        with open(account + ".tmp", "w") as f:
            f.write("half")
        found = problems(doctor(a, want=False), "configuration")
        equal(len(found), 2, found)
        doctor(a, "--repair", want=True)
        equal(os.stat(account).st_mode & 0o777, 0o600)
        check(not os.path.exists(account + ".tmp"))
        record = os.path.join(drive_dir(a), "drive.json")
        with open(record, "w") as f:
            f.write('{"name": ')
        doctor(a, want=False)
        doctor(a, "--repair", want=True)
        a.mount()
        equal(a.read("f"), b"1")
        # Nobody else's store is opened.
        r = a.varve("doctor", "--repair")
        check("(mounted)" in r.stdout, r.stdout)


TESTS = [
    test_clean_while_working_and_after,
    test_flipped_chunk_is_fetched_anew,
    test_damaged_and_unsent_is_kept_beside,
    test_flip_anywhere,
    test_configuration,
]

if __name__ == "__main__":
    main(TESTS)
