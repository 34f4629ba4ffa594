#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""git on the mount: clone, commit, merge, gc, fsck, worktrees, and what it believes of stat()."""

import os
import random
import threading

from harness import Lab, check, equal, main, until
from programs import program, remount, settle, variants

GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "HOME": "/nonexistent",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    # The devices are mounted at two places.
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "init.defaultBranch",
    "GIT_CONFIG_VALUE_1": "main",
}


def git(repo, *argv, **kw):
    return program("git", "-C", repo, *argv, env=GIT, **kw)


def source(top, files=300):
    """Something like a source tree: many small files, some large, an executable, a symlink."""
    rng = random.Random(1)
    words = [rng.randbytes(4).hex() for _ in range(500)]
    for n in range(files):
        folder = os.path.join(top, f"d{n % 7}", f"e{n % 3}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"f{n}.c"), "w") as f:
            for _ in range(rng.randrange(5, 200)):
                f.write(" ".join(rng.choices(words, k=8)) + "\n")
    with open(os.path.join(top, "image"), "wb") as f:
        f.write(rng.randbytes(3 << 20))
    with open(os.path.join(top, "script"), "w") as f:
        f.write("#!/bin/sh\necho ran\n")
    os.chmod(os.path.join(top, "script"), 0o755)
    os.symlink("script", os.path.join(top, "link"))


def edit(repo, name, line):
    with open(os.path.join(repo, name), "a") as f:
        f.write(line + "\n")


def commit_all(repo, message):
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", message)


def branches(repo):
    git(repo, "checkout", "-q", "-b", "side")
    edit(repo, "d0/e0/f0.c", "on the side")
    os.rename(os.path.join(repo, "d1/e1/f1.c"), os.path.join(repo, "moved.c"))
    commit_all(repo, "side")
    git(repo, "checkout", "-q", "main")
    edit(repo, "d2/e2/f2.c", "on main")
    commit_all(repo, "main")
    git(repo, "merge", "-q", "-m", "merged", "side")
    check(os.path.exists(os.path.join(repo, "moved.c")), "the merge moved it")
    git(repo, "checkout", "-q", "-b", "clash", "HEAD~1")
    edit(repo, "d0/e0/f0.c", "another end")
    commit_all(repo, "clash")
    equal(git(repo, "merge", "main", fail=False).returncode, 1, "a merge that conflicts")
    git(repo, "merge", "--abort")
    git(repo, "rebase", "-q", "-X", "theirs", "main")
    git(repo, "checkout", "-q", "main")
    for n in range(20):
        edit(repo, "log", f"line {n}")
        commit_all(repo, f"commit {n}")


def stash_and_worktree(repo):
    edit(repo, "log", "not yet")
    git(repo, "stash", "-q")
    equal(git(repo, "status", "--porcelain"), "", "after the stash")
    git(repo, "stash", "pop", "-q")
    equal(git(repo, "status", "--porcelain"), " M log\n", "after the pop")
    git(repo, "checkout", "-q", "log")
    tree = repo + ".tree"
    git(repo, "worktree", "add", "-q", tree, "side")
    edit(tree, "in-the-tree", "1")
    commit_all(tree, "in the worktree")
    git(repo, "bisect", "start", "main", "main~20")
    git(repo, "bisect", "run", "sh", "-c", "! grep -q 'line 7$' log")
    check("line 7" in git(repo, "show", "refs/bisect/bad"), "bisect found it")
    git(repo, "bisect", "reset")


def sound(repo):
    out = git(repo, "fsck", "--full", "--strict", "--no-dangling")
    check("error" not in out and "missing" not in out, out)
    equal(git(repo, "status", "--porcelain"), "", "status of", repo)


def work(a):
    first = a.path("first")
    os.mkdir(first)
    source(first)
    git(first, "init", "-q")
    commit_all(first, "one")
    git(first, "tag", "-a", "-m", "tag", "v1")
    git(a.dir, "clone", "-q", "file://" + first, "repo")
    git(a.dir, "clone", "-q", first, "linked")  # hard links objects
    repo = a.path("repo")
    branches(repo)
    git(repo, "push", "-q", "origin", "side", "clash")
    git(first, "fetch", "-q", repo, "main")
    stash_and_worktree(repo)
    git(repo, "gc", "-q", "--aggressive", "--prune=now")
    git(repo, "repack", "-adq", "--write-bitmap-index")
    git(repo, "commit-graph", "write", "--reachable")
    for name in ("first", "repo", "repo.tree", "linked"):
        sound(a.path(name))


def proof(device):
    """On the other device a worktree's paths lead elsewhere; all else holds."""
    for name in ("first", "repo", "linked"):
        sound(device.path(name))
    equal(len(git(device.path("repo"), "log", "--format=%H", "main").split()), 24, "commits")


def stats(top):
    """What git's index holds of each file."""
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            st = os.lstat(os.path.join(folder, name))
            found[os.path.relpath(os.path.join(folder, name), top)] = (
                st.st_ino, st.st_mtime_ns, st.st_ctime_ns, st.st_mode, st.st_uid, st.st_gid,
                st.st_size)
    return found


def test_index_stays_true():
    """After a remount and on the other device no file looks touched, so none is read again."""
    with Lab() as lab:
        _, a, b = lab.pair()
        repo = a.path("repo")
        os.mkdir(repo)
        source(repo, 100)
        git(repo, "init", "-q")
        commit_all(repo, "one")
        settle(a, b)
        # diff-files compares what stat() says with the index and reads nothing.
        git(repo, "update-index", "--refresh")
        settle(a, b)
        before = stats(repo)
        equal(git(repo, "diff-files", "--name-only"), "", "at once")
        equal(stats(b.path("repo")), before, "on the other device")
        equal(git(b.path("repo"), "diff-files", "--name-only"), "", "on the other device")
        remount(a)
        equal(stats(repo), before, "after a remount")
        equal(git(repo, "diff-files", "--name-only"), "", "after a remount")
        a.kill()
        a.mount()
        equal(stats(repo), before, "after a kill")
        equal(git(repo, "diff-files", "--name-only"), "", "after a kill")
        # The control: one touched file is seen.
        os.utime(os.path.join(repo, "image"), (1, 1))
        equal(git(repo, "diff-files", "--name-only"), "image\n", "a touched file")


def test_taking_turns():
    """Both devices commit and collect garbage in one repository, one after the other."""
    with Lab() as lab:
        _, a, b = lab.pair()
        os.mkdir(a.path("repo"))
        source(a.path("repo"), 40)
        git(a.path("repo"), "init", "-q")
        commit_all(a.path("repo"), "one")
        for n in range(4):
            here, there = (a, b) if n % 2 else (b, a)
            settle(there, here)
            repo = here.path("repo")
            equal(git(repo, "status", "--porcelain"), "", "arrived on", here.name)
            edit(repo, "log", f"turn {n}")
            git(repo, "mv", f"d{n}/e{n % 3}/f{n}.c", f"moved{n}.c")
            commit_all(repo, f"turn {n}")
            git(repo, "gc", "-q", "--prune=now")
        settle(a, b)
        for device in (a, b):
            sound(device.path("repo"))
            equal(git(device.path("repo"), "rev-list", "--count", "HEAD"), "5\n", "commits")


def test_index_lock_race():
    """Many writers at once: each either gets index.lock or is told so, and nothing is lost."""
    with Lab() as lab:
        _, a, b = lab.pair()
        repo = a.path("repo")
        os.mkdir(repo)
        git(repo, "init", "-q")
        git(repo, "commit", "-q", "--allow-empty", "-m", "zero")
        made, refused = [], []

        def one(who):
            for n in range(12):
                name = f"w{who}-{n}"
                edit(repo, name, name)
                while True:
                    r = git(repo, "add", name, fail=False)
                    if r.returncode == 0:
                        made.append(name)
                        break
                    if "index.lock" not in r.stderr:
                        raise AssertionError(r.stderr)
                    refused.append(name)

        threads = [threading.Thread(target=one, args=(w,)) for w in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        equal(len(made), 48, "added")
        equal(sorted(git(repo, "ls-files").split()), sorted(made), "the index holds all")
        git(repo, "commit", "-q", "-m", "all")
        settle(a, b)
        sound(a.path("repo"))
        sound(b.path("repo"))


def commit_until_it_fails(repo, name, done):
    """Appends to a tracked file and commits that, again and again."""
    try:
        for n in range(1000):
            edit(repo, name, str(n))
            r = git(repo, "commit", "-q", "-m", f"{name}-{n}", name, fail=False)
            if r.returncode != 0:
                return
            done.append(f"{name}-{n}")
    except OSError:
        pass


def remove_locks(repo):
    """What git tells people to do after a crash."""
    for folder, _, names in os.walk(os.path.join(repo, ".git")):
        for name in names:
            if name.endswith(".lock"):
                os.unlink(os.path.join(folder, name))


def test_daemon_killed():
    """kill -9 of the daemon under git: what it committed is there, and the repository is sound."""
    with Lab() as lab:
        _, a, b = lab.pair()
        repo = a.path("repo")
        os.mkdir(repo)
        source(repo, 50)
        git(repo, "init", "-q")
        commit_all(repo, "one")
        for round_no in range(4):
            name, done = f"r{round_no}", []
            edit(repo, name, "begin")
            commit_all(repo, "begin")
            t = threading.Thread(target=commit_until_it_fails, args=(repo, name, done))
            t.start()
            until(lambda: len(done) >= 3 + round_no, 30, "commits before the kill")
            a.kill()
            t.join()
            a.mount()
            remove_locks(repo)
            git(repo, "fsck", "--full", "--strict", "--no-dangling")
            subjects = git(repo, "log", "--format=%s").split("\n")
            for one in done:
                check(one in subjects, one, "was committed and is gone")
            git(repo, "reset", "-q", "--hard")
        settle(a, b)
        sound(a.path("repo"))
        sound(b.path("repo"))


if __name__ == "__main__":
    main(variants("git", work, proof) + [test_index_stays_true, test_taking_turns,
                                         test_index_lock_race, test_daemon_killed])
