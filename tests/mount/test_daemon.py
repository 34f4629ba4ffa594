#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The daemon's life as the command line sees it: to the background and back, status, wait, the
control socket, signals, and what a daemon that died leaves."""

import glob
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time

from harness import SLOW, VARVE, Lab, check, equal, main, run, until


def status(device, *path):
    return json.loads(device.varve("status", *path, "--json").stdout)


def alive(pid):
    """Whether the process runs: one that has ended and waits for its parent does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def background(device, *args):
    """Mounts as people do; the harness' own mounts stay in the foreground."""
    device.varve("mount", device.dir, *args, timeout=60)
    return status(device, device.dir)["pid"]


def end(device):
    if os.path.ismount(device.dir):
        device.varve("umount", device.dir, fail=False)


def socket_of(device):
    return glob.glob(os.path.join(device.home, "run", "*.sock"))[0]


def test_to_the_background_and_back():
    with Lab() as lab:
        a = lab.device("a", lab.server())
        folder = os.path.join(lab.dir, "started in")
        os.mkdir(folder)
        subprocess.run([VARVE, "mount", a.dir], env=a.env, cwd=folder, check=True,
                       timeout=60 * SLOW)
        try:
            equal(os.listdir(a.dir), [], "it answers when mount returns")
            pid = status(a, a.dir)["pid"]
            equal(os.readlink(f"/proc/{pid}/cwd"), "/", "the shell's folder is left")
            equal(os.getsid(pid), pid, "a session of its own")
            equal([os.readlink(f"/proc/{pid}/fd/{n}") for n in (0, 1)], ["/dev/null"] * 2,
                  "stdin, stdout")
            log = os.path.join(a.home, "log", "mount-home.log")
            equal(os.readlink(f"/proc/{pid}/fd/2"), log, "stderr")
            a.write("f", "x")
            out = a.varve("umount", a.dir).stdout
            check("nothing waits to be sent" in out, out)
            check(not alive(pid), "umount waits for the daemon's end")
            check(not os.path.ismount(a.dir), "the mount is gone")
            equal(glob.glob(os.path.join(a.home, "run", "*")), [], "no socket is left")
        finally:
            end(a)


def test_first_mount_needs_the_server_and_says_so():
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server)
        server.stop()
        r = a.varve("mount", a.dir, fail=False)
        equal(r.returncode, 1, "exit status")
        check(r.stderr.startswith("varve: mount: ") and "never mounted here" in r.stderr, r.stderr)
        equal(r.stderr.count("\n"), 1, "lines")
        server.start()
        background(a)
        end(a)
        server.stop()
        background(a)
        end(a)


def test_status_and_wait():
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server)
        background(a)
        try:
            a.write("f", "hello")
            a.varve("wait", a.path("f"), "--timeout", str(int(20 * SLOW)))
            s = status(a, a.path("f"))
            equal((s["drive"], s["mountpoint"], s["link"], s["synced"], s["outbox_entries"],
                   s["dirty_files"], s["user"], s["device"], s["server"]),
                  ("home", a.dir, "online", True, 0, 0, "alice", "a", server.url), "status")
            check(s["cursor"] == s["head"] > 0 and s["bytes_sent"] > 0, s)
            equal(status(a), {"synced": True, "mounts": [s | {
                k: status(a)["mounts"][0][k] for k in ("bytes_sent", "bytes_received",
                                                       "last_contact")}]}, "all mounts")
            check("synced" in a.varve("status").stdout, "table")
            equal(os.getxattr(a.path("f"), "user.varve.state"), b"synced", "state")
            equal(len(os.getxattr(a.path("f"), "user.varve.version")), 64, "version")
            server.stop()
            with open(a.path("f"), "w", encoding="utf-8") as f:
                f.write("open, and longer than before")
                f.flush()
                equal(os.getxattr(a.path("f"), "user.varve.state"), b"dirty", "open and written")
                start = time.monotonic()
                r = a.varve("wait", "--timeout", "0.5", fail=False)
                check(0.4 < time.monotonic() - start < 10 * SLOW, "time")
                equal(r.returncode, 1, "timed out")
                check("timed out (offline" in r.stderr, r.stderr)
                equal(os.getxattr(a.path("f"), "user.varve.state"), b"local", "wait has sealed it")
            s = until(lambda: (s := status(a, a.dir))["link"] == "offline" and s, what="offline")
            check(not s["synced"] and s["outbox_entries"] > 0 and s["detail"], s)
            equal(a.varve("wait", a.dir, "--timeout", "0", fail=False).returncode, 1, "at once")
            server.start()
            a.varve("wait", "--timeout", str(int(30 * SLOW)))
            equal(status(a)["synced"], True, "after the server is back")
        finally:
            end(a)


def test_wait_ends_with_its_mount_and_its_asker():
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server)
        background(a)
        try:
            server.stop()
            a.write("f", "x")
            gone = subprocess.Popen([VARVE, "wait", a.dir], env=a.env, stderr=subprocess.PIPE)
            waiting = subprocess.Popen([VARVE, "wait", a.dir], env=a.env, stderr=subprocess.PIPE)
            time.sleep(0.3)
            gone.send_signal(signal.SIGINT)
            gone.communicate(timeout=10 * SLOW)
            equal(waiting.poll(), None, "the other still waits")
            a.varve("umount", a.dir, timeout=30)
            words = waiting.communicate(timeout=10 * SLOW)[1].decode()
            equal(waiting.returncode, 1, "exit status")
            check("is being unmounted" in words, words)
        finally:
            end(a)


def test_logout_and_login_stay_the_same_device():
    with Lab() as lab:
        server = lab.server()
        a, b = lab.device("a", server), lab.device("b", server)
        login = ("login", server.url, "--user", "alice", "--password-file", server.password)
        background(a)
        background(b)
        try:
            a.write("before", "1")
            a.varve("wait", "--timeout", str(int(20 * SLOW)))
            check("mounted" in a.varve("logout", fail=False).stderr, "not while it is mounted")
            server.stop()
            a.write("unsent", "2")
            a.varve("umount", a.dir)
            server.start()
            a.varve("logout")
            check("not logged in" in a.varve("mount", a.dir, fail=False).stderr, "logged out")
            a.varve(*login)
            r = a.varve("mount", a.dir, timeout=60)
            equal(r.stderr, "", "it is no other device")
            a.write("after", "3")
            a.varve("wait", "--timeout", str(int(20 * SLOW)))
            equal(status(a)["synced"], True, "what was changed before and after is sent")
            equal(status(a, a.dir)["device"], "a", "its name")
            for name, text in (("before", "1"), ("unsent", "2"), ("after", "3")):
                until(lambda: b.read(name) == text.encode(), what=name)
        finally:
            end(a)
            end(b)


def test_umount_of_a_busy_mount():
    with Lab() as lab:
        a = lab.device("a", lab.server())
        pid = background(a)
        try:
            with open(a.path("f"), "w", encoding="utf-8") as f:
                f.write("written before")
                f.flush()
                r = a.varve("umount", a.dir, fail=False)
                equal(r.returncode, 1, "exit status")
                check("is in use" in r.stderr and "--force" in r.stderr, r.stderr)
                check(alive(pid) and os.path.ismount(a.dir), "all is as it was")
                f.write(" and after")
                f.flush()
                a.varve("umount", a.dir, "--force")
                check(not alive(pid) and not os.path.ismount(a.dir), "gone")
        except OSError:
            pass  # closing a file of a mount that is gone may fail
        finally:
            end(a)
        background(a)
        try:
            equal(a.read("f"), b"written before and after", "after the next mount")
        finally:
            end(a)


def test_umount_says_what_is_unsent():
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server)
        background(a)
        try:
            a.varve("wait", "--timeout", str(int(20 * SLOW)))
            server.stop()
            a.write("f", "x")
            out = a.varve("umount", a.dir).stdout
            check("not sent yet, safe on this device" in out, out)
            background(a)
            server.start()
            a.varve("wait", "--timeout", str(int(30 * SLOW)))
            check("nothing waits" in a.varve("umount", a.dir).stdout, "all is sent")
        finally:
            end(a)


def test_signals():
    with Lab() as lab:
        a = lab.device("a", lab.server())
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                pid = background(a)
                os.kill(pid, signal.SIGHUP)
                a.write("f", number.name)
                os.kill(pid, number)
                until(lambda: not alive(pid), what="end of the daemon")
                check(not os.path.ismount(a.dir), "the mount is gone")
                background(a)
                equal(a.read("f"), number.name.encode(), "after the next mount")
                end(a)
        finally:
            end(a)


def test_second_signal_ends_at_once_and_loses_nothing():
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server)
        pid = background(a)
        try:
            for i in range(200):
                a.write(f"f{i}", f"{i}")
            with open(a.path("big"), "wb") as f:
                f.write(b"v" * (64 << 20))
                f.flush()
                os.kill(pid, signal.SIGINT)
                for _ in range(20):
                    time.sleep(0.005)
                    if alive(pid):
                        os.kill(pid, signal.SIGINT)
                until(lambda: not alive(pid), 10, "end of the daemon")
        except OSError:
            pass
        finally:
            end(a)
        check(not os.path.ismount(a.dir), "no dead mount is left")
        background(a)
        try:
            equal(os.path.getsize(a.path("big")), 64 << 20, "size")
            equal(sorted(os.listdir(a.dir)), sorted([f"f{i}" for i in range(200)] + ["big"]), "all")
            equal(a.read("f199"), b"199", "bytes")
        finally:
            end(a)


def test_dead_daemon_is_told():
    with Lab() as lab:
        a = lab.device("a", lab.server())
        elsewhere = os.path.join(lab.dir, "else where")
        os.mkdir(elsewhere)
        pid = background(a)
        try:
            a.write("f", "kept")
            os.kill(pid, signal.SIGKILL)
            until(lambda: not alive(pid), what="death")
            equal(status(a)["mounts"][0]["link"], "dead", "link")
            equal(status(a)["synced"], False, "synced")
            for command in ("status", "wait"):
                r = a.varve(command, a.dir, fail=False)
                equal(r.returncode, 1, command)
                check("has died" in r.stderr and f"varve mount {a.dir}" in r.stderr, r.stderr)
            out = a.varve("umount", a.dir).stdout
            check("had died" in out, out)
            check(not os.path.ismount(a.dir), "gone")
            equal(a.varve("umount", a.dir, fail=False).returncode, 1, "a second time")

            pid = background(a)
            os.kill(pid, signal.SIGKILL)
            until(lambda: not alive(pid), what="death")
            a.varve("mount", elsewhere)
            check(not os.path.ismount(a.dir), "the next mount cleans up where the last one was")
            with open(os.path.join(elsewhere, "f"), encoding="utf-8") as f:
                equal(f.read(), "kept", "bytes")
            equal(status(a, elsewhere)["mountpoint"], elsewhere, "a blank in the path")
        finally:
            a.varve("umount", elsewhere, fail=False)
            end(a)


def test_many_mount_at_once():
    """One gets the drive, the others are told; nobody leaves a half mount."""
    with Lab() as lab:
        a = lab.device("a", lab.server())
        results = []
        threads = [threading.Thread(target=lambda: results.append(
            a.varve("mount", a.dir, fail=False))) for _ in range(5)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        try:
            equal(sorted(r.returncode for r in results), [0, 1, 1, 1, 1], "exit status")
            for r in results:
                check(r.returncode == 0 or "mounted" in r.stderr, r.stderr)
            with open("/proc/self/mounts", encoding="utf-8") as f:
                equal(sum(a.dir in line for line in f), 1, "mounts")
            a.write("f", "x")
        finally:
            end(a)


def test_control_socket_is_private_and_robust():
    with Lab() as lab:
        a = lab.device("a", lab.server())
        background(a)
        try:
            path = socket_of(a)
            equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "socket")
            equal(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode), 0o700, "folder")
            for text in (b"\n", b"{}\n", b"x" * 200000, b"\0" * 10, b'{"v":1,"op":"stop"',
                         b'{"v":1,"op":"frobnicate"}\n', b'{"v":1,"op":"wait","timeout_ms":-1}\n',
                         b'{"v":1,"op":"wait","timeout_ms":"x","node":"y"}\n'):
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(path)
                    try:
                        s.sendall(text)
                    except OSError:
                        pass
            equal(status(a, a.dir)["drive"], "home", "it still answers")
            if os.geteuid() == 0:
                os.chmod(path, 0o666)
                for folder in (lab.dir, a.home, os.path.dirname(path)):
                    os.chmod(folder, 0o755)
                code = f"""if True:
                    import os, socket
                    os.setuid(65534)
                    s = socket.socket(socket.AF_UNIX)
                    s.connect({path!r})
                    s.sendall(b'{{"v":1,"op":"status"}}\\n')
                    print(s.recv(100))"""
                r = run("python3", "-c", code, fail=False)
                check("drive" not in r.stdout, "another user is sent away", r.stdout, r.stderr)
        finally:
            end(a)


def test_long_home_path():
    with Lab() as lab:
        server = lab.server()
        a = lab.device("a", server, login=False)
        a.home = os.path.join(lab.dir, "x" * 120, "y" * 120)
        a.env["VARVE_HOME"] = a.home
        a.varve("login", server.url, "--user", "alice", "--password-file", server.password)
        background(a)
        try:
            a.write("f", "x")
            a.varve("wait", a.dir, "--timeout", str(int(20 * SLOW)))
            equal(status(a)["synced"], True, "synced")
        finally:
            end(a)


ORDINARY_USER = """set -e
mknod "$1/fuse" c 10 229
chmod 666 "$1/fuse"
mount --bind "$1/fuse" /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --clear-groups bash -ec '
trap "fusermount3 -uz $1/mnt 2>/dev/null || :" EXIT
"$1/varve" login "$2" --user alice --password-file "$1/password"
"$1/varve" mount "$1/mnt"
echo hello >"$1/mnt/f"
test "$(stat -c %u "$1/mnt/f")" = 65534
"$1/varve" wait "$1/mnt" --timeout "$3"
"$1/varve" status "$1/mnt" --json | grep "\\"synced\\": true"
exec 5>"$1/mnt/f"
if "$1/varve" umount "$1/mnt"; then exit 3; fi
exec 5>&-
"$1/varve" umount "$1/mnt" | grep "nothing waits"
if mountpoint -q "$1/mnt"; then exit 4; fi
' sh "$@"
"""


def test_ordinary_user():
    """With fusermount3's help: root becomes another user, in a mount namespace with a /dev/fuse
    that is open to all, as most systems have it. (Run by others, every test here is just that.)"""
    if os.geteuid() != 0:
        return
    with Lab() as lab:
        server = lab.server()
        os.chmod(lab.dir, 0o755)
        home = os.path.join(lab.dir, "user")
        os.makedirs(os.path.join(home, "mnt"))
        shutil.copy(server.password, os.path.join(home, "password"))
        shutil.copy(VARVE, os.path.join(home, "varve"))
        for path in (home, *(os.path.join(home, name) for name in ("mnt", "password"))):
            os.chown(path, 65534, 65534)
        env = dict(os.environ, VARVE_HOME=os.path.join(home, "v"))
        r = run("unshare", "-m", "bash", "-c", ORDINARY_USER, "sh", home, server.url,
                str(int(20 * SLOW)), env=env)
        check("nothing waits" in r.stdout and "is in use" in r.stderr, r.stdout, r.stderr)


def test_damaged_home_is_told():
    with Lab() as lab:
        a = lab.device("a", lab.server())
        background(a)
        a.write("f", "x")
        end(a)
        record = glob.glob(os.path.join(a.home, "drives", "*", "drive.json"))[0]
        with open(record, "w", encoding="utf-8") as f:
            f.write("{")
        r = a.varve("mount", a.dir, fail=False)
        equal(r.returncode, 1, "exit status")
        check("drive.json is damaged" in r.stderr, r.stderr)
        check(not os.path.ismount(a.dir), "not mounted")


if __name__ == "__main__":
    main([v for k, v in list(globals().items()) if k.startswith("test_")])
