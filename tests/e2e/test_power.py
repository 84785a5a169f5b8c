#!/usr/bin/python3
"""Power cuts and damaged disks."""

import http.client
import os
import re
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402


def setup(s):
    s.load("pause")


def containers(s, n):
    s.wait(lambda: s.m1.sh("sh", "-c", "pgrep -xc pause || true").strip() == str(n) or None, "%d containers on the node" % n, 60)


def boot(s):
    s.m1.start()
    s.m1.wait_ready(60 * st.SLOW)


def test_power_off_and_on(s):
    s.create("pw", "pause:latest", "--replicas", "3", "--label", "k=v")
    s.wait_running("pw", 3)
    before = s.inspect("pw")
    node = s.docker("info", "--format", "{{.Swarm.NodeID}}")
    s.m1.power_off()
    boot(s)
    containers(s, 3)  # what the store says of the tasks is older than the power cut until agentd has reported
    s.wait_running("pw", 3, 60)
    after = s.inspect("pw")
    eq((after["ID"], after["Spec"]), (before["ID"], before["Spec"]))
    eq(s.docker("info", "--format", "{{.Swarm.NodeID}}"), node)
    s.remove("pw")


def test_every_acknowledged_write_is_there(s):
    """Power cuts right after an answer; several, so that snapshots and log meet them at different places."""
    names = []
    for i in range(5):
        for j in range(7):
            names.append("ack-%d-%d" % (i, j))
            s.api.post("/services/create", {"Name": names[-1], "TaskTemplate": {"ContainerSpec": {"Image": "pause:latest"}},
                                            "Mode": {"Replicated": {"Replicas": 0}}})
        s.m1.power_off()
        boot(s)
        s.wait(lambda: s.api.get("/services") or None, "the API")
        eq(sorted(x["Spec"]["Name"] for x in s.api.get("/services")), sorted(names), "services after power cut %d" % (i + 1))
    s.remove_all()


def test_shutdown_in_order(s):
    s.create("hl", "pause:latest")
    s.wait_running("hl")
    s.m1.halt()
    boot(s)
    containers(s, 1)
    s.wait_running("hl", 1, 60)
    s.remove("hl")


def test_shutdown_among_requests(s):
    """Clients that ask on and on do not keep apid from stopping in order: an abort would be found in the log."""
    done = threading.Event()

    def ask(i):
        while not done.is_set():
            try:
                s.api.post("/services/create", {"Name": "sh%d" % i, "TaskTemplate": {"ContainerSpec": {"Image": "pause:latest"}},
                                                "Mode": {"Replicated": {"Replicas": 0}}})
                s.api.delete("/services/sh%d" % i)
            except (OSError, st.Failure, http.client.HTTPException):
                pass

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    try:
        for _ in range(15):
            s.m1.hold("apid")
            s.m1.release("apid")
            s.m1.wait_ready(30 * st.SLOW)
            s.wait(lambda: s.api.get("/info"), "the API")
    finally:
        done.set()
        for t in threads:
            t.join()
    s.remove_all()
    if "signal 6" in s.m1.logs("init"):
        raise st.Failure("a daemon was aborted")


def test_restart_delay_survives(s):
    """A restart that is due later happens although the power was cut meanwhile."""
    s.create("dl", "pause:latest", "--restart-delay", "2s")
    t = s.wait_running("dl")[0]
    s.kill_container(t)
    s.wait(lambda: next((x for x in s.tasks("dl") if x["ID"] != t["ID"]), None), "the replacement waits")
    s.m1.power_off()
    boot(s)
    containers(s, 1)
    s.wait_running("dl", 1, 60)
    s.remove("dl")


def altered(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        b = f.read(1)
        f.seek(at)
        f.write(bytes([b[0] ^ 0xff]))


def raft_files(s):
    out = []
    for base, _, files in os.walk(s.m1.path("state", "raft")):
        out += [os.path.join(base, f) for f in files if not f.startswith("lock")]
    return sorted(out)


def api_says(s, status, text):
    try:
        s.api.get("/services")
    except st.ApiError as e:
        return e.status == status and text in str(e)
    except OSError:
        pass  # apid is on its way up
    return None


def test_altered_disk_is_refused(s):
    """raftd says what is wrong with its disk and does not start on it; with the bytes restored it does."""
    s.create("al", "pause:latest", "--replicas", "0")
    s.m1.power_off()
    copy = s.m1.path("state-copy")
    st.run("cp", "-a", s.m1.path("state"), copy)
    files = [f for f in raft_files(s) if os.path.getsize(f)]
    if not files:
        raise st.Failure("no file in %s" % s.m1.path("state", "raft"))
    key = [f for f in files if "key" in os.path.basename(f)]
    data = [f for f in files if f not in key]
    said = []
    cases = [("every data page", [(f, at) for f in data for at in range(4096 + 100, os.path.getsize(f), 512)])]
    cases += [("the key", [(key[0], os.path.getsize(key[0]) // 2)])] if key else []
    for what, flips in cases:
        for f, at in flips:
            altered(f, at)
        mark = len(s.m1.logs("raftd"))
        s.m1.start()
        st.wait_until(lambda: next(d["starts"] for d in s.m1.daemons() if d["name"] == "raftd") >= 2, 30 * st.SLOW, "raftd refuses (%s)" % what)
        said.append(s.m1.logs("raftd")[mark:])
        s.wait(lambda: api_says(s, 503, "trouble connecting to the cluster"), "the API says that the manager is in trouble")
        s.expected |= {("raftd", code) for code in range(1, 126)} - {("raftd", 6), ("raftd", 11)}
        s.m1.power_off()
        st.run("rm", "-rf", s.m1.path("state"))
        st.run("cp", "-a", copy, s.m1.path("state"))
    boot(s)
    s.wait(lambda: s.inspect("al"), "the service is still there")
    for text in said:
        if "raftd" not in text or not any(w in text.lower() for w in ("corrupt", "key", "seal", "record", "damaged", "decrypt")):
            raise st.Failure("raftd does not say what is wrong: %r" % text[-500:])
    s.remove("al")


def with_snapshot(s):
    """A store with a snapshot on the disk; the path of the file."""
    s.docker("swarm", "update", "--snapshot-interval", "10")
    s.create("snapped", "pause:latest", "--replicas", "0")
    for i in range(25):
        s.docker("service", "update", "-d", "--label-add", "n=%d" % i, "snapped")
    return s.wait(lambda: next((f for f in raft_files(s) if re.search(r"/snap-\d+$", f)), None), "a snapshot")


def test_damaged_snapshot_is_refused(s):
    """A bit of it, its end, the whole of it: raftd says which file and does not start; with the file as it was it does."""
    with_snapshot(s)
    s.m1.power_off()
    copy = s.m1.path("state-copy-2")
    st.run("cp", "-a", s.m1.path("state"), copy)
    snap = next(f for f in raft_files(s) if re.search(r"/snap-\d+$", f))
    size = os.path.getsize(snap)
    cases = [
        ("a bit", lambda: altered(snap, size // 2), "altered"),
        ("its first byte", lambda: altered(snap, 0), "altered"),
        ("cut", lambda: os.truncate(snap, size - 1), "cut short"),
        ("empty", lambda: os.truncate(snap, 0), "missing"),
        ("gone", lambda: os.unlink(snap), "missing"),
    ]
    for what, damage, word in cases:
        damage()
        mark = len(s.m1.logs("raftd"))
        s.m1.start()
        st.wait_until(lambda: next(d["starts"] for d in s.m1.daemons() if d["name"] == "raftd") >= 2, 30 * st.SLOW, "raftd refuses (%s)" % what)
        said = s.m1.logs("raftd")[mark:]
        contains(said, os.path.basename(snap), what)
        contains(said, word, what)
        s.wait(lambda: api_says(s, 503, "trouble connecting to the cluster"), "the API says that the manager is in trouble")
        s.expected |= {("raftd", code) for code in range(1, 126)} - {("raftd", 6), ("raftd", 11)}
        s.m1.power_off()
        st.run("rm", "-rf", s.m1.path("state"))
        st.run("cp", "-a", copy, s.m1.path("state"))
    boot(s)
    s.wait(lambda: s.inspect("snapped"), "the service is still there")
    eq(s.inspect("snapped")["Spec"]["Labels"]["n"], "24")
    s.remove("snapped")


def small_disk(s, size):
    """The state folder on a disk of its own; returns what puts it back."""
    s.m1.power_off()
    state, real = s.m1.path("state"), s.m1.path("state-real")
    os.rename(state, real)
    os.mkdir(state)
    st.run("mount", "-t", "tmpfs", "-o", "size=%s,mode=1770,gid=%d" % (size, st.GID), "small", state)
    st.run("cp", "-a", real + "/.", state)
    boot(s)

    def back():
        s.m1.power_off()
        st.run("umount", "-l", state)
        os.rmdir(state)
        os.rename(real, state)
        boot(s)

    return back


def fill_up(state):
    fd = os.open(state + "/ballast", os.O_WRONLY | os.O_CREAT, 0o600)
    for n in (65536, 4096):
        try:
            while True:
                os.write(fd, b"x" * n)
        except OSError:
            pass
    os.close(fd)


def cpu_seconds(s):
    """What all daemons of the node have used."""
    total = 0
    for d in s.m1.daemons():
        pid = s.m1.host_pid(d["name"])
        if pid:
            with open("/proc/%d/stat" % pid, encoding="ascii") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def alive(s, service):
    """A running task whose container is there, too: what the store says may be older than the container's end."""

    def check():
        for t in s.running(service):
            pid = s.container_pid(t)
            if pid and s.m1.sh("sh", "-c", "kill -0 %s 2>/dev/null && echo yes || true" % pid).strip() == "yes":
                return t
        return None

    return s.wait(check, "a task of %s whose container runs" % service, 60)


def test_full_disk(s):
    """No room for the log: writes fail and say why, reads go on, nobody spins, nothing is lost, and with room it goes on."""
    s.create("before", "pause:latest", "--replicas", "1")
    s.wait_running("before", 1, 60)
    state = s.m1.path("state")
    back = small_disk(s, "24m")
    try:
        s.wait(lambda: s.inspect("before"), "the service")
        for round_ in range(2):
            task = alive(s, "before")
            fill_up(state)
            done, failed = [], None
            for i in range(5000):
                name = "fd%d-%d" % (round_, i)
                try:
                    s.api.post("/services/create", {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "pause:latest"}},
                                                    "Labels": {"l": "x" * 4000}, "Mode": {"Replicated": {"Replicas": 0}}})
                    done.append(name)
                except st.ApiError as e:
                    failed = e
                    break
            if failed is None:
                raise st.Failure("5000 services fit on the full disk")
            contains(str(failed).lower(), "no space left")
            # It stays so: many tries, and none is kept. Reading goes on.
            for i in range(50):
                try:
                    s.api.post("/services/create", {"Name": "no%d" % i, "TaskTemplate": {"ContainerSpec": {"Image": "pause:latest"}},
                                                    "Labels": {"l": "x" * 4000}, "Mode": {"Replicated": {"Replicas": 0}}})
                    raise st.Failure("a write went through on the full disk")
                except st.ApiError as e:
                    contains(str(e).lower(), "no space left")
            eq(sorted(x["Spec"]["Name"] for x in s.api.get("/services") if x["Spec"]["Name"].startswith("fd%d-" % round_)), sorted(done))
            # A container that ends is something to write down, which does not work: that must not keep anybody busy.
            s.kill_container(task)
            cpu, seconds = cpu_seconds(s), 4
            threading.Event().wait(seconds)  # an interval to measure over, not a condition
            used = (cpu_seconds(s) - cpu) / seconds
            if used > 0.2:
                raise st.Failure("all daemons together use %.0f %% of a core while the disk is full" % (100 * used))
            os.unlink(state + "/ballast")
            s.wait(lambda n=round_: s.api.post("/services/create", {
                "Name": "room%d" % n, "TaskTemplate": {"ContainerSpec": {"Image": "pause:latest"}}, "Mode": {"Replicated": {"Replicas": 0}}}),
                "a write when there is room again", 30)
            names = {x["Spec"]["Name"] for x in s.api.get("/services")}
            eq([n for n in done + ["before", "room%d" % round_] if n not in names], [], "acknowledged, but gone")
            eq([n for n in names if n.startswith("no")], [], "refused, but there")
            if round_ == 0:
                for n in done:
                    s.api.delete("/services/" + n)
        eq(next(d["starts"] for d in s.m1.daemons() if d["name"] == "raftd"), 1, "raftd went on all the time")
        s.m1.power_off()
        boot(s)
        names = {x["Spec"]["Name"] for x in s.wait(lambda: s.api.get("/services") or None, "the API")}
        eq([n for n in done + ["before", "room0", "room1"] if n not in names], [], "gone after the restart")
    finally:
        back()
    s.remove_all()


if __name__ == "__main__":
    st.main(setup)
