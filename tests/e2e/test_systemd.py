#!/usr/bin/python3
"""The units: what systemd says about them, and a node under a real systemd as process 1.

The node's root is this host's own, under an overlay with `make install`'s result and an empty /etc/fstab; it starts only
what our targets ask for. systemd gets writable v1 cgroup hierarchies of its own below ours, or a cgroup2 tree.
"""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

NEED_ROOT = ("agentd", "meshd")

INNER = r"""
set -e
R=$1; exec 2>&1
mount --make-rprivate /
mkdir -p $R/t; mount -t tmpfs tmpfs $R/t; mkdir $R/t/up $R/t/work $R/t/root $R/t/dest
cp -a $R/dest/. $R/t/dest/
mount -t overlay overlay -o lowerdir=$R/t/dest:/,upperdir=$R/t/up,workdir=$R/t/work $R/t/root
mkdir -p $R/t/root/var/lib/microswarm; chmod 1770 $R/state; mount --bind $R/state $R/t/root/var/lib/microswarm
mkdir -p $R/t/root/images; mount --bind $R/images $R/t/root/images
cd $R/t/root
: > etc/fstab; echo uninitialized > etc/machine-id; echo sdnode > etc/hostname
mount -t proc proc proc; mount -t sysfs -o ro sysfs sys; mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp; mount -t tmpfs tmpfs var/log
mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom tty; do touch dev/$d; mount --bind /dev/$d dev/$d; done
[ -e /dev/fuse ] && { touch dev/fuse; mount --bind /dev/fuse dev/fuse; }
mkdir dev/pts dev/shm; mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts; ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd; mount -t tmpfs tmpfs dev/shm
if [ "$2" = v1 ]; then
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    for c in $3; do mkdir -p sys/fs/cgroup/$c; o=$c; [ $c = systemd ] && o=none,name=systemd,xattr; mount -t cgroup -o $o cgroup sys/fs/cgroup/$c; done
    args="systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
else
    mount -t cgroup2 cgroup2 sys/fs/cgroup; args=
fi
touch run/console-is-log; mkdir oldroot; pivot_root . oldroot; umount -l /oldroot; rmdir /oldroot
hostname sdnode; ip link set lo up
exec env -i container=microswarm-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd $args --unit=node.target --show-status=0
"""

IDLE = """[Unit]
Description=nothing of ours
Requires=sysinit.target
After=sysinit.target
Wants=systemd-journald.service
AllowIsolate=yes
"""
TARGET = """[Unit]
Description=a node of the tests
Requires=sysinit.target
After=sysinit.target
Wants=microswarm.target systemd-journald.service
AllowIsolate=yes
"""


class SystemdNode:
    def __init__(self):
        self.pid = 0
        self.starter = None
        if not os.access("/lib/systemd/systemd", os.X_OK):
            raise st.Skip("no systemd")
        self.dir = tempfile.mkdtemp(prefix="msw-systemd-")
        self.cgroup = "microswarm-sd-%d" % os.getpid()
        for d in ("dest", "state", "images"):
            os.makedirs(os.path.join(self.dir, d))
        os.chmod(self.dir, 0o755)
        build = os.path.dirname(st.bin_dir())
        run_make(build, "install-files", "DESTDIR=" + os.path.join(self.dir, "dest"))
        self.boot()

    def dest(self, *parts):
        return os.path.join(self.dir, "dest", *parts)

    def boot(self):
        units = self.dest("etc/systemd/system")
        os.makedirs(units, exist_ok=True)
        with open(units + "/node.target", "w", encoding="ascii") as f:
            f.write(TARGET)
        with open(units + "/idle.target", "w", encoding="ascii") as f:
            f.write(IDLE)
        if st.SANITIZED:  # LeakSanitizer traces its process, which a unit's filter of system calls forbids
            for u in installed_units():
                os.makedirs(units + "/" + u + ".d")
                with open(units + "/" + u + ".d/sanitizer.conf", "w", encoding="ascii") as f:
                    f.write("[Service]\nEnvironment=ASAN_OPTIONS=detect_leaks=0\n")
        for d in ("schedulerd",):  # a watchdog that a test can wait for
            os.makedirs(units + "/microswarm-%s.service.d" % d, exist_ok=True)
            with open(units + "/microswarm-%s.service.d/test.conf" % d, "w", encoding="ascii") as f:
                f.write("[Service]\nWatchdogSec=1s\n")
        run = st.run
        for image in ("pause", "echo"):
            run(os.path.join(st.TESTS, "mkimage"), image, "-o", os.path.join(self.dir, "images", image + ".tar"))
        mounts = st.cgroup_mounts()
        kind = "v1" if len(mounts) > 1 else "v2"
        groups = st.make_cgroups(self.cgroup)
        with open(os.path.join(self.dir, "log"), "wb") as log:
            self.starter = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net", "--cgroup", "bash", "-c", INNER, "inner",
                 self.dir, kind, " ".join(os.path.basename(m) for m in mounts)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=lambda: st.enter_cgroups(groups))

        def child():
            with open("/proc/%d/task/%d/children" % (self.starter.pid, self.starter.pid), encoding="ascii") as f:
                pids = f.read().split()
            if self.starter.poll() is not None:
                raise st.Failure("systemd did not start: " + self.log())
            if pids:
                with open("/proc/%s/cmdline" % pids[0], "rb") as f:
                    return int(pids[0]) if f.read().startswith(b"/lib/systemd/systemd") else 0
            return 0
        self.pid = st.wait_until(child, 60, "systemd as process 1")
        st.wait_until(lambda: re.search("running|degraded", self.sh("systemctl", "is-system-running", check=False)), 60,
                      "systemd has started what there is to start")

    def log(self):
        with open(os.path.join(self.dir, "log"), encoding="utf-8", errors="replace") as f:
            return f.read()[-3000:]

    def sh(self, *argv, **kw):
        return st.run("nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--", *argv, **kw)

    def docker(self, *argv, **kw):
        return self.sh("docker", "-H", "unix:///run/microswarm/docker.sock", *argv, **kw).strip()

    def show(self, unit, prop):
        return self.sh("systemctl", "show", "-P", prop, unit).strip()

    def daemons(self):
        files = self.sh("sh", "-c", "ls /usr/sbin/microswarm-*").split()
        return [os.path.basename(f)[len("microswarm-"):] for f in files]

    def journal(self, unit=None):
        return self.sh("journalctl", "--no-pager", "-o", "short-monotonic", *(["-u", unit] if unit else []), check=False)

    def wait_active(self, unit, restarts=0, seconds=60):
        def active():
            return self.show(unit, "ActiveState") == "active" and int(self.show(unit, "NRestarts")) >= restarts
        try:
            st.wait_until(active, seconds, "%s active, restarted %d times" % (unit, restarts))
        except st.Failure as e:
            raise st.Failure("%s\n%s" % (e, "\n".join(self.journal(unit).splitlines()[-15:]))) from None

    @staticmethod
    def marks():
        return {}

    @staticmethod
    def said_since(_marks):
        return ()

    def remove_all(self):
        pass

    def findings(self):
        return [l for l in self.journal().splitlines() if re.search(r"status=6/ABRT|status=11/SEGV|CHECK failed|check failed", l)]

    def close(self):
        if self.starter and self.starter.poll() is None:
            if self.pid:
                st.kill_and_wait(self.pid)
            self.starter.kill()
            self.starter.wait()
        st.remove_cgroups(self.cgroup)
        shutil.rmtree(self.dir, ignore_errors=True)


def run_make(build, *argv):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    st.run("make", "-C", st.REPO, "B=" + build, *argv, env=env, timeout=600)


def installed_units():
    return sorted(f for f in os.listdir(os.path.join(st.REPO, "systemd")) if f.endswith(".service"))


def test_security_exposure(_n):
    for unit in installed_units():
        name = unit[len("microswarm-"):-len(".service")]
        if name in NEED_ROOT:
            continue
        p = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager",
                            os.path.join(st.REPO, "systemd", unit)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if p.returncode:
            raise st.Failure("%s: %s" % (unit, p.stdout.splitlines()[-1]))


def test_verify(n):
    """systemd-analyze verify, where the programs are installed: no complaint about any of our units."""
    have = n.daemons()
    units = [u for u in installed_units() if u[len("microswarm-"):-len(".service")] in have]
    p = subprocess.run(["nsenter", "-t", str(n.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--", "systemd-analyze", "verify", "--man=no",
                        *("/usr/lib/systemd/system/" + u for u in units), "/usr/lib/systemd/system/microswarm.target",
                        "/usr/lib/systemd/system/microswarm-worker.target"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    complaints = [l for l in p.stdout.splitlines() if "microswarm" in l]
    eq((p.returncode, complaints), (0, []))


def test_all_active(n):
    for d in n.daemons():
        n.wait_active("microswarm-%s.service" % d)
        user = n.show("microswarm-%s.service" % d, "User")
        eq(user, "" if d in NEED_ROOT else "microswarm-" + d)
    eq(n.sh("stat", "-c", "%a %U %G", "/run/microswarm").strip(), "1770 root microswarm")


def test_a_service_runs(n):
    n.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    st.wait_until(lambda: n.docker("node", "ls", "--format", "{{.Status}}") == "Ready", 60, "the node is ready")
    n.docker("load", "-i", "/images/pause.tar")
    n.docker("service", "create", "-d", "--no-resolve-image", "--name", "sd", "--replicas", "2", "pause:latest")
    wait_running(n, 2)


def wait_running(n, count):
    def running():
        out = n.docker("service", "ps", "sd", "--filter", "desired-state=running", "--format", "{{.CurrentState}}", check=False)
        return sum(l.startswith("Running") for l in out.splitlines()) == count
    st.wait_until(running, 60, "%d tasks running" % count)


def test_networks(n):
    """All that meshd does, with the rights that its unit leaves it: an overlay network, a VIP, names, a published port, also on IPv6."""
    n.docker("load", "-i", "/images/echo.tar")
    n.docker("network", "create", "-d", "overlay", "one")
    n.docker("service", "create", "-d", "--no-resolve-image", "--name", "web", "--network", "one", "-p", "8080:8080", "--stop-grace-period", "50ms",
             "echo:latest")
    ident = st.wait_until(lambda: n.docker("service", "ps", "web", "-q", "--no-trunc", "--filter", "desired-state=running"), 60, "a task")
    pin = "/run/microswarm/netns/" + ident.split()[0]
    with open(os.path.join(st.TESTS, "lib", "names.py"), encoding="utf-8") as f:
        names = f.read()  # the folder may not be in the node's root

    def inside(*argv):
        return n.sh("nsenter", "--net=" + pin, "--", *argv)

    def vip():
        with contextlib.suppress(st.Failure):
            got = json.loads(inside("/usr/bin/python3", "-c", names, "ask", '[["web", "A", {}], ["web", "A", {"tcp": true}]]'))
            return got[0]["answers"] == got[1]["answers"] and got[0]["answers"]
    addr = st.wait_until(vip, 60, "the service's name")[0]
    st.wait_until(lambda: "host=" in n.sh("nsenter", "--net=" + pin, "--", "curl", "-sS", "--max-time", "20", "http://%s:8080/" % addr, check=False),
                  60, "an answer at the service's address")  # refused until the task is ready
    urls = ["http://127.0.0.1:8080/"] + (["http://[::1]:8080/"] if os.path.exists("/proc/net/if_inet6") else [])
    for url in urls:
        def answer(url=url):
            with contextlib.suppress(st.Failure):
                return "host=" in n.sh("curl", "-gsS", "--max-time", "5", url)
        st.wait_until(answer, 60, url)
    n.sh("systemctl", "restart", "microswarm-meshd.service")
    for url in urls:
        contains(n.sh("curl", "-gsS", "--max-time", "20", url), "host=")
    st.wait_until(vip, 60, "the service's name after a restart of meshd")
    n.docker("service", "rm", "web")


def pauses(n):
    return sorted(n.sh("sh", "-c", "pgrep -x pause || true").split())


def test_restart_after_kill(n):
    before = pauses(n)
    for d in n.daemons():
        unit = "microswarm-%s.service" % d
        was = int(n.show(unit, "NRestarts"))
        n.sh("systemctl", "kill", "-s", "KILL", "--kill-whom=main", unit)
        n.wait_active(unit, was + 1)
    wait_running(n, 2)
    eq(pauses(n), before, "the containers' processes")


def test_watchdog(n):
    unit = "microswarm-schedulerd.service"
    was = int(n.show(unit, "NRestarts"))
    n.sh("systemctl", "kill", "-s", "STOP", "--kill-whom=main", unit)
    n.wait_active(unit, was + 1)
    contains(n.journal(unit), "Watchdog timeout")


def test_upgrade_of_agentd(n):
    """A restart of agentd, as an upgrade does it, doesn't touch a container."""
    before = pauses(n)
    eq(len(before), 2)
    n.sh("systemctl", "restart", "microswarm-agentd.service")
    wait_running(n, 2)
    eq(pauses(n), before)


def test_ordered_stop(n):
    n.sh("systemctl", "isolate", "idle.target")  # in one transaction, as a shutdown
    for d in n.daemons():
        st.wait_until(lambda d=d: n.show("microswarm-%s.service" % d, "ActiveState") == "inactive", 60, "%s inactive" % d)
    stopped = [m.group(1) for m in re.finditer(r"Stopped microswarm-(\w+)\.service", n.journal())]
    last = {d: i for i, d in enumerate(stopped)}
    for early, late in (("raftd", "gatewayd"), ("apid", "raftd"), ("agentd", "raftd"), ("agentd", "meshd"), ("schedulerd", "raftd"), ("dispatcherd", "raftd")):
        if late in n.daemons() and early in last and late in last and last[early] > last[late]:
            raise st.Failure("%s stopped after %s: %r" % (early, late, stopped))
    if "raftd" in n.daemons() and "raftd" not in last:
        raise st.Failure("no word of raftd's stop in the journal: %r" % stopped)
    n.sh("systemctl", "isolate", "node.target")
    for d in n.daemons():
        n.wait_active("microswarm-%s.service" % d)
    wait_running(n, 2)


def test_power_off(n):
    os.kill(n.pid, signal.SIGRTMIN + 3)
    with st.open_pidfd(n.starter.pid) as fd:
        if not select.select([fd], [], [], 30)[0]:
            raise st.Failure("still there 30 s after SIGRTMIN+3")
    n.starter.wait()
    n.pid = 0
    n.findings = lambda: []


if __name__ == "__main__":
    st.main(make=SystemdNode)
