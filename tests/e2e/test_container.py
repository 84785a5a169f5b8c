#!/usr/bin/python3
"""The container spec, field by field: what was asked for is what the process inside finds."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

# Docker's default capabilities, as a bit mask.
DOCKER_CAPS = 0xa80425fb


def setup(s):
    s.load("busybox")
    s.load("busybox", "-t", "spec:latest", "--entrypoint", "/bin/sh", "--cmd", "-c 'sleep 999'", "--env", "FROM=image",
           "--env", "BOTH=image", "--user", "1000", "--workdir", "/home", "--stop-signal", "SIGUSR1", "--volume", "/data",
           "--file", "/data/seed=planted")


def up(s, name, *options, image="busybox:latest", args=("sleep", "1000")):
    s.create(name, image, *options, args=args)
    t = s.wait_running(name)[0]
    # crun has told its init to go on, and may not have seen yet that it did.
    st.wait_until(lambda: "crun" not in s.m1.sh("readlink", "/proc/%d/exe" % s.container_pid(t), check=False), 20 * st.SLOW, name + " runs its own program")
    return t


def sh(s, task, script):
    return s.in_container(task, "/bin/sh", "-c", script).strip()


def proc(s, task, name):
    return s.m1.sh("cat", "/proc/%d/%s" % (s.container_pid(task), name))


def status(s, task, field):
    return re.search(r"^%s:\s*(.*)$" % field, proc(s, task, "status"), re.M).group(1)


def environ(s, task):
    return dict(e.split("=", 1) for e in proc(s, task, "environ").strip("\0").split("\0"))


def cmdline(s, task):
    return proc(s, task, "cmdline").strip("\0").split("\0")


def test_args_env_dir_hostname(s):
    t = up(s, "a", "--env", "X=1 2", "--env", "PATH=/bin", "--workdir", "/tmp", "--hostname", "h-{{.Task.Slot}}")
    eq(cmdline(s, t), ["sleep", "1000"])
    env = environ(s, t)
    eq((env["X"], env["PATH"]), ("1 2", "/bin"))
    eq(env["HOSTNAME"], "h-1")
    eq(s.m1.sh("readlink", "/proc/%d/cwd" % s.container_pid(t)).strip(), "/tmp")
    eq(sh(s, t, "hostname"), "h-1")
    s.remove("a")


def test_image_defaults(s):
    t = up(s, "i", image="spec:latest", args=())
    eq(cmdline(s, t)[-1:], ["999"], "the image's entrypoint and command")
    eq(environ(s, t)["FROM"], "image")
    eq(status(s, t, "Uid").split()[0], "1000")
    eq(s.m1.sh("readlink", "/proc/%d/cwd" % s.container_pid(t)).strip(), "/home")
    s.remove("i")


def test_image_overridden(s):
    t = up(s, "o", "--entrypoint", "sleep", "--env", "BOTH=service", "--user", "0", image="spec:latest", args=("998",))
    eq(cmdline(s, t), ["sleep", "998"])
    eq(environ(s, t)["BOTH"], "service")
    eq(status(s, t, "Uid").split()[0], "0")
    s.remove("o")


def test_user_and_groups(s):
    t = up(s, "u", "--user", "app", "--group", "extra", "--group", "3000")
    eq((status(s, t, "Uid").split()[0], status(s, t, "Gid").split()[0]), ("1000", "1000"))
    eq(sorted(status(s, t, "Groups").split()), ["1000", "2000", "3000"], "the primary group is among them")
    s.remove("u")
    s.create("nouser", "busybox:latest", "--user", "nobodyknows", "--restart-condition", "none", args=("sleep", "9"))
    t = s.wait(lambda: next((t for t in s.tasks("nouser") if t["Status"]["State"] in ("failed", "rejected")), None), "refusal")
    contains(t["Status"]["Err"], "unable to find user nobodyknows")
    s.remove("nouser")


def test_read_only_and_tmpfs(s):
    t = up(s, "ro", "--read-only", "--mount", "type=tmpfs,dst=/scratch,tmpfs-size=1m,tmpfs-mode=1770")
    eq(sh(s, t, "touch /x 2>/dev/null && echo wrote || echo refused"), "refused")
    eq(sh(s, t, "touch /scratch/x && echo wrote"), "wrote")
    eq(sh(s, t, "stat -c %a /scratch"), "1770")
    eq(sh(s, t, "dd if=/dev/zero of=/scratch/big bs=1M count=3 2>/dev/null && echo fits || echo full"), "full")
    s.remove("ro")


def test_bind_mount(s):
    s.m1.sh("mkdir", "-p", "/run/bind-src")
    s.m1.sh("sh", "-c", "echo from-host > /run/bind-src/f")
    t = up(s, "b", "--mount", "type=bind,src=/run/bind-src,dst=/mnt/b", "--mount",
           "type=bind,src=/run/bind-src,dst=/mnt/ro,readonly")
    eq(sh(s, t, "cat /mnt/b/f"), "from-host")
    sh(s, t, "echo back > /mnt/b/g")
    eq(s.m1.sh("cat", "/run/bind-src/g").strip(), "back")
    eq(sh(s, t, "echo no 2>/dev/null > /mnt/ro/h && echo wrote || echo refused"), "refused")
    s.remove("b")


def test_mount_order_and_tmpfs_mode(s):
    s.m1.sh("mkdir", "-p", "/run/bind-src")
    t = up(s, "mo", "--mount", "type=tmpfs,dst=/b/deep", "--mount", "type=bind,src=/run/bind-src,dst=/b",
           "--mount", "type=tmpfs,dst=/home")
    contains(sh(s, t, "cat /proc/mounts"), " /b/deep tmpfs ")
    eq(sh(s, t, "touch /b/deep/x && stat -c %a /home"), "755", "the mode of the folder below")
    s.remove("mo")


def test_propagation(s):
    s.m1.sh("sh", "-c", "mkdir -p /run/prop && mount -t tmpfs prop /run/prop && mount --make-shared /run/prop && mkdir /run/prop/sub")
    t = up(s, "pr", "--mount", "type=bind,src=/run/prop,dst=/p,bind-propagation=rslave")
    s.m1.sh("sh", "-c", "mount -t tmpfs late /run/prop/sub && touch /run/prop/sub/late")
    eq(sh(s, t, "ls /p/sub"), "late", "a later mount of the host is seen")
    s.remove("pr")
    s.m1.sh("umount", "-R", "/run/prop")
    s.m1.sh("sh", "-c", "mount -t tmpfs own /run/prop && mount --make-private /run/prop")
    s.create("pp", "busybox:latest", "--mount", "type=bind,src=/run/prop,dst=/p,bind-propagation=rshared", "--restart-condition",
             "none", args=("sleep", "9"))
    t = s.wait_state("pp", "failed")
    contains(t["Status"]["Err"], "path /run/prop is mounted on /run/prop but it is not a shared mount")
    eq(t["Status"]["ContainerStatus"]["ExitCode"], 128)
    s.remove("pp")
    s.m1.sh("umount", "/run/prop")


def refused(s, *options, image="busybox:latest", args=("sleep", "9"), state="failed"):
    """Status of a task that never runs."""
    s.create("no", image, *options, "--restart-condition", "none", args=args)
    t = s.wait_state("no", state)
    s.remove("no")
    return t["Status"]


def test_what_cannot_be_executed(s):
    s.load("busybox", "-t", "noexec:latest", "--file", "/bin/noexec=hello")
    for command, code, text in (("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
                                ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
                                ("/bin/noexec", 126, 'exec: "/bin/noexec": permission denied'),
                                ("noexec", 127, 'exec: "noexec": executable file not found in $PATH'),
                                ("/etc", 126, 'exec: "/etc": permission denied')):
        st_ = refused(s, image="noexec:latest", args=(command,))
        contains(st_["Err"], text)
        eq(st_["ContainerStatus"]["ExitCode"], code, command)


def test_rejected(s):
    for options, text in ((("--workdir", "rel/dir"), "the working directory 'rel/dir' is invalid, it needs to be an absolute path"),
                          (("--limit-memory", "4m"), "Minimum memory limit allowed is 6MB"),
                          (("--cap-add", "NOSUCH"), 'invalid CapAdd: unknown capability: "CAP_NOSUCH"'),
                          (("--mount", "type=volume,src=x,dst=/v"), "volume name is too short"),
                          (("--stop-signal", "SIGNOSUCH"), "Invalid signal: SIGNOSUCH"),
                          (("--log-driver", "json-file", "--log-opt", "nosuch=1"),
                           "unknown log opt 'nosuch' for json-file log driver")):
        st_ = refused(s, *options, state="rejected")
        contains(st_["Err"], text)
        eq(st_["ContainerStatus"], {"ContainerID": "", "PID": 0, "ExitCode": 0})
    contains(refused(s, "--log-driver", "json-file", "--log-opt", "max-file=0")["Err"], "max-file cannot be less than 1")
    contains(refused(s, "--user", "0:nogrp")["Err"], "unable to find group nogrp: no matching entries in group file")


def test_bind_source_missing(s):
    s.create("nb", "busybox:latest", "--mount", "type=bind,src=/no/such/folder,dst=/x", "--restart-condition", "none",
             args=("sleep", "9"))
    t = s.wait_state("nb", "rejected")
    contains(t["Status"]["Err"], "bind source path does not exist: /no/such/folder")
    s.remove("nb")


def test_volume(s):
    t = up(s, "v", "--mount", "type=volume,src=vol1,dst=/v", "--restart-delay", "0s")
    sh(s, t, "echo kept > /v/f")
    s.kill_container(t)
    new = s.wait(lambda: next((x for x in s.running("v") if x["ID"] != t["ID"]), None), "a replacement")
    eq(sh(s, new, "cat /v/f"), "kept")
    s.remove("v")
    # a new volume starts with what the image has there
    t = up(s, "v2", "--mount", "type=volume,src=vol2,dst=/data", "--user", "0", image="spec:latest", args=("-c", "exec sleep 1000"))
    eq(sh(s, t, "cat /data/seed"), "planted")
    s.remove("v2")
    # an anonymous one dies with its task
    t = up(s, "v3", "--mount", "type=volume,dst=/v", "--restart-delay", "0s")
    sh(s, t, "echo kept > /v/f")
    s.kill_container(t)
    new = s.wait(lambda: next((x for x in s.running("v3") if x["ID"] != t["ID"]), None), "a replacement")
    eq(sh(s, new, "ls /v"), "")
    s.remove("v3")


def test_full_disk(s):
    state = "/var/lib/microswarm"
    # the image's content does not fit: the next start does not take the half for the whole
    s.m1.sh("sh", "-c", "mkdir -p %s/volumes/small && mount -t tmpfs -o size=64k small %s/volumes/small" % (state, state))
    options = ("--mount", "type=volume,src=small,dst=/bin")
    contains(refused(s, *options)["Err"], "copy image content to volume: ")
    s.m1.sh("mount", "-o", "remount,size=64m", state + "/volumes/small")
    t = up(s, "fv", *options)
    eq(sh(s, t, "cmp /bin/busybox /proc/1/exe && ls /bin | wc -l") != "", True)
    s.remove("fv")
    s.m1.sh("umount", state + "/volumes/small")
    # no room for the task's own folder
    s.m1.sh("mount", "-t", "tmpfs", "-o", "nr_inodes=1", "full", state + "/tasks")
    contains(refused(s)["Err"], "No space left on device")
    eq(s.m1.sh("ls", "-A", state + "/tasks"), "")
    s.m1.sh("umount", state + "/tasks")


def test_limits(s):
    t = up(s, "l", "--limit-memory", "64m", "--limit-cpu", "0.5", "--limit-pids", "20", "--ulimit", "nofile=100:200")
    pid = s.container_pid(t)
    groups = dict((l.split(":")[1], l.split(":")[2])
                  for l in s.m1.sh("cat", "/proc/%d/cgroup" % pid).split())

    def v1(ctrl, name):
        return s.m1.sh("cat", "/sys/fs/cgroup/%s%s/%s" % (ctrl, groups[ctrl], name)).strip()
    if "memory" in groups:
        eq(v1("memory", "memory.limit_in_bytes"), str(64 << 20))
        quota = int(v1("cpu", "cpu.cfs_quota_us")) / int(v1("cpu", "cpu.cfs_period_us"))
        eq(quota, 0.5)
        eq(v1("pids", "pids.max"), "20")
    else:
        base = "/sys/fs/cgroup" + groups[""]
        eq(s.m1.sh("cat", base + "/memory.max").strip(), str(64 << 20))
        eq(s.m1.sh("cat", base + "/pids.max").strip(), "20")
    contains(proc(s, t, "limits"), "Max open files            100                  200")
    s.remove("l")
    t = up(s, "l2", "--ulimit", "stack=-1")
    contains(proc(s, t, "limits"), "Max stack size            unlimited            unlimited")
    s.remove("l2")


def test_out_of_memory(s):
    s.create("oom", "busybox:latest", "--limit-memory", "16m", "--restart-condition", "none",
             args=("sh", "-c", "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"))
    t = s.wait_state("oom", "failed", 60)
    contains(t["Status"]["Err"], "137")
    eq(t["Status"]["ContainerStatus"]["ExitCode"], 137)
    s.remove("oom")
    # the monitor leaves a file "oom" where it stands: in the task's own folder, which is gone
    eq(s.m1.sh("find", "/", "-xdev", "-maxdepth", "2", "-name", "oom", "-newer", s.m1.path("ctl")), "")


def test_capabilities_and_seccomp(s):
    t = up(s, "c")
    eq(hex(int(status(s, t, "CapEff"), 16)), hex(DOCKER_CAPS), "Docker's default capabilities")
    eq(hex(int(status(s, t, "CapBnd"), 16)), hex(DOCKER_CAPS))
    eq(status(s, t, "Seccomp"), "2")
    eq(int(status(s, t, "SigIgn"), 16) >> 31, 0, "no signal from 32 on is ignored")
    s.remove("c")
    t = up(s, "c2", "--cap-add", "NET_ADMIN", "--cap-drop", "CAP_CHOWN")
    caps = int(status(s, t, "CapEff"), 16)
    eq((bool(caps >> 12 & 1), bool(caps & 1)), (True, False), "NET_ADMIN added, CHOWN dropped")
    s.remove("c2")
    t = up(s, "c3", "--user", "1000")
    eq(int(status(s, t, "CapEff"), 16), 0, "no capability for a user that isn't root")
    s.remove("c3")


def test_seccomp_filters(s):
    s.create("sc", "busybox:latest", "--restart-condition", "none", args=("sh", "-c", "unshare -U true; mount -t tmpfs x /mnt; exec sleep 1000"))
    s.wait_running("sc")
    said = s.wait(lambda: (lambda t: t if t.count("not permitted") + t.count("denied") >= 2 else None)(s.logs("sc")), "refusals")
    contains(said, "mount")
    s.remove("sc")


def test_masked_paths(s):
    t = up(s, "m")
    eq(sh(s, t, "wc -c < /proc/kcore 2>/dev/null || echo 0"), "0")
    eq(sh(s, t, "echo x 2>/dev/null > /proc/sys/kernel/hostname && echo wrote || echo refused"), "refused")
    eq(sh(s, t, "ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | grep -c . || true"), "0")
    eq(sh(s, t, "touch /sys/x 2>/dev/null && echo wrote || echo refused"), "refused")
    for dev in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "shm", "fd", "stdin"):
        eq(sh(s, t, "[ -e /dev/%s ] && echo there" % dev), "there", dev)
    eq(sh(s, t, "[ -e /dev/vda ] || [ -e /dev/sda ] || [ -e /dev/mem ] || echo none"), "none")
    s.remove("m")


def test_sysctl(s):
    t = up(s, "y", "--sysctl", "net.ipv4.ip_unprivileged_port_start=99", "--sysctl", "kernel.msgmax=12345")
    eq(sh(s, t, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "99")
    eq(sh(s, t, "cat /proc/sys/kernel/msgmax"), "12345")
    s.remove("y")


def test_dns_and_hosts(s):
    t = up(s, "d", "--dns", "9.9.9.9", "--dns-search", "example.org", "--dns-option", "ndots:3", "--host", "other:1.2.3.4",
           "--hostname", "full.example.org")
    eq(sh(s, t, "cat /etc/resolv.conf"), "search example.org\nnameserver 9.9.9.9\noptions ndots:3")
    contains(sh(s, t, "cat /etc/hosts"), "\tfull.example.org full")
    eq(sh(s, t, "readlink /etc/mtab; ls -a / | grep dockerenv"), "/proc/mounts\n.dockerenv")
    hosts = sh(s, t, "cat /etc/hosts")
    contains(hosts, "other")
    contains(hosts, "1.2.3.4")
    contains(hosts, "localhost")
    contains(hosts, sh(s, t, "hostname"))
    s.remove("d")


def test_init(s):
    t = up(s, "in", "--init")
    if cmdline(s, t)[0] == "sleep":
        raise st.Failure("process 1 is the command itself, not an init")
    s.remove("in")


def test_tty(s):
    t = up(s, "t", "--tty", args=("sh", "-c", "tty; echo size; exec sleep 1000"))
    eq(sh(s, t, "readlink /proc/1/fd/0").startswith("/dev/"), True)
    s.wait(lambda: "/dev/" in s.logs("t") or None, "the terminal's name in the log")
    s.remove("t")


def test_lines_of_logs(s):
    s.create("ln", "busybox:latest", "--restart-condition", "none", args=(
        "sh", "-c", "printf one; sleep 0.1; echo err >&2; printf two; sleep 0.1; echo; head -c 40000 /dev/zero | tr '\\0' x; echo; "
        "printf end"))
    s.wait_state("ln", "complete")
    eq(s.logs("ln"), "onetwo\n" + "x" * 40000 + "\nenderr\n")
    named = s.docker("service", "logs", "--no-task-ids", "ln").splitlines()
    eq(named[0].split("|")[1], " onetwo", "pieces are one line")
    eq(s.logs("ln", "--tail", "1"), "end")
    s.remove("ln")
    # kept as many files as asked for
    big = "i=0; while [ $i -lt 3000 ]; do echo line $i 01234567890123456789012345678901234567890123456789; i=$((i+1)); done"
    s.create("lr", "busybox:latest", "--restart-condition", "none", "--log-driver", "json-file", "--log-opt", "max-size=20k",
             "--log-opt", "max-file=1", args=("sh", "-c", big))
    s.wait_state("lr", "complete")
    lines = s.logs("lr").splitlines()
    contains(lines[-1], "line 2999 ")
    eq(len(lines) < 400, True, "%d lines in one file of 20k" % len(lines))
    s.remove("lr")


def test_stop_signal_and_grace(s):
    script = "trap 'echo got-usr1; exit 0' USR1; echo ready; while true; do sleep 0.05; done"
    t = up(s, "sig", "--stop-signal", "SIGUSR1", "--stop-grace-period", "10s", "--mount", "type=volume,src=sigvol,dst=/v",
           args=("sh", "-c", script.replace("echo got-usr1", "echo got-usr1 > /v/f")))
    s.wait(lambda: "ready" in s.logs("sig") or None, "trap set")
    s.remove("sig")
    t = up(s, "sig2", "--mount", "type=volume,src=sigvol,dst=/v")
    eq(sh(s, t, "cat /v/f"), "got-usr1")
    s.remove("sig2")
    # one that ignores it is killed when the grace period ends
    up(s, "deaf", "--stop-grace-period", "300ms", args=("sh", "-c", "trap '' TERM; echo ready; while true; do sleep 0.05; done"))
    s.wait(lambda: "ready" in s.logs("deaf") or None, "trap set")
    s.remove("deaf", seconds=8)


def test_labels(s):
    t = up(s, "lb", "--container-label", "c=1", "--label", "s=2")
    eq(t["Spec"]["ContainerSpec"]["Labels"], {"c": "1"})
    eq(s.inspect("lb")["Spec"]["Labels"], {"s": "2"})
    s.remove("lb")


def test_templates(s):
    t = up(s, "tp", "--env", "WHO={{.Service.Name}}.{{.Task.Slot}}@{{.Node.Hostname}}")
    eq(environ(s, t)["WHO"], "tp.1@m1")
    s.remove("tp")


def test_healthcheck_is_not_silently_ignored(s):
    t = up(s, "h", "--health-cmd", "true", "--health-interval", "1s")
    eq(t["Status"]["State"], "running")
    s.remove("h")


def test_reservations(s):
    s.create("big", "busybox:latest", "--reserve-memory", "999g", args=("sleep", "1000"))
    t = s.wait(lambda: next((t for t in s.tasks("big") if t["Status"].get("Err")), None), "a reason why it waits")
    eq(t["Status"]["State"], "pending")
    contains(t["Status"]["Err"], "insufficient resources on 1 node")
    s.docker("service", "update", "-d", "--no-resolve-image", "--reserve-memory", "8m", "big")
    s.wait_running("big")
    s.remove("big")


def test_constraint(s):
    s.create("cons", "busybox:latest", "--constraint", "node.labels.zone==a", args=("sleep", "1000"))
    t = s.wait(lambda: next((t for t in s.tasks("cons") if t["Status"].get("Err")), None), "a reason why it waits")
    contains(t["Status"]["Err"], "scheduling constraints not satisfied on 1 node")
    s.docker("node", "update", "--label-add", "zone=a", "m1")
    s.wait_running("cons")
    s.docker("node", "update", "--label-rm", "zone", "m1")
    s.remove("cons")


def test_restart_attempts(s):
    s.create("att", "busybox:latest", "--restart-condition", "any", "--restart-delay", "0s", "--restart-max-attempts", "2",
             args=("false",))

    def settled():
        ts = s.tasks("att")
        return ts if len(ts) == 3 and all(t["Status"]["State"] == "failed" for t in ts) else None
    s.wait(settled, "the first try and two more")
    s.remove("att")


if __name__ == "__main__":
    st.main(setup)
