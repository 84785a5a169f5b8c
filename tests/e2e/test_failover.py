#!/usr/bin/python3
"""What losing a node or a daemon costs: time without writes, no acknowledged write, no container that had nothing to do with it.

The leader is killed, powered off, cut off or stopped in order while clients write through the other managers; a worker loses
its power; single daemons are killed on the leader and elsewhere. MICROSWARM_LONG=1 runs as many rounds as the project promises."""

import contextlib
import os
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import load  # noqa: E402
import swarmtest as st  # noqa: E402
from swarmtest import eq  # noqa: E402

LONG = bool(os.environ.get("MICROSWARM_LONG"))
MANAGERS = ("m1", "m2", "m3")
# A node that goes down as often as here is held back for longer and longer with the default settings.
SETTINGS = {"dispatcherd": {"flap_hold": "1s", "flap_hold_max": "3s"}}


def setup(s):
    s.load("pause")


def lead(s):
    return st.wait_until(lambda: s.cluster.leader([s.cluster.node(m) for m in MANAGERS]), 30 * st.SLOW, "a leader")


def whole(s):
    """Three managers that reach each other and five nodes ready, in the eyes of each manager."""
    for m in MANAGERS:
        api = s.cluster.node(m).api

        def ok(a=api):
            try:
                nodes = a.get("/nodes")
            except (OSError, st.ApiError):
                return False
            reach = [n["ManagerStatus"].get("Reachability") for n in nodes if n.get("ManagerStatus")]
            return reach == ["reachable"] * 3 and [n["Status"]["State"] for n in nodes] == ["ready"] * 5
        st.wait_until(ok, 60 * st.SLOW, "%s sees three managers and five nodes" % m)


def others(s, name):
    return [s.cluster.node(m) for m in MANAGERS if m != name]


def report(what, took, target):
    median = statistics.median(took)
    print("# %s: median %.3f s of %d (%s), wanted %.2g s" % (what, median, len(took), " ".join("%.3f" % t for t in sorted(took)), target), flush=True)
    if median > target * st.SLOW * st.crowd():
        raise st.Failure("%s: median %.3f s, wanted %.2g s" % (what, median, target))


def all_there(s, writers):
    for m in MANAGERS:
        gone = load.missing(writers, s.cluster.node(m).api)
        if gone:
            raise st.Failure("%s: %d of %d acknowledged writes are lost: %s" % (m, len(gone), sum(len(w.acked) for w in writers), gone[:5]))
    api = lead(s).api
    load.remove(writers, api)


@contextlib.contextmanager
def writing(s, nodes, tag):
    writers = [load.Writer(n, "%s-%s" % (tag, n.name)) for n in nodes]
    for w in writers:
        w.start()
    try:
        for w in writers:
            w.first_after(0)
        yield writers
    finally:
        for w in writers:
            w.stop()


def lose_leader(s, tag, lose, back):
    """Returns (how long no write through another manager was accepted, how long until the lost one follows again)."""
    whole(s)
    was = lead(s)
    with writing(s, others(s, was.name), tag) as writers:
        t0 = time.monotonic()
        lose(was)
        took = outage(writers, t0)
        mid = time.monotonic()
        back(was)
        t1 = time.monotonic()
        follows(s, was, writers)
        followed = time.monotonic() - t1
        for w in writers:
            w.first_after(mid)
    all_there(s, writers)
    return took, followed


def outage(writers, t0):
    """The longest time that one of them was without an acknowledgement, from t0 until all are served again."""
    lost = time.monotonic()
    ends = [w.first_after(lost) for w in writers]
    return max(w.longest_gap(t0, end) for w, end in zip(writers, ends))


def follows(s, node, writers):
    """Until a barrier through the node shows a write that was acknowledged elsewhere a moment ago."""
    t = time.monotonic()
    writers[0].first_after(t)
    name = writers[0].acked[-1][2]

    def there():
        try:
            return st.Api(node.sock, timeout=5).get("/services/" + name)
        except (OSError, st.ApiError):
            return None
    st.wait_until(there, 60 * st.SLOW, "%s has what was written elsewhere" % node.name)


def rounds(n, long):
    return range(1 if st.SANITIZED else long if LONG else n)


def test_leader_killed(s):
    """kill -9 of all its daemons at once: their connections are closed, and that is a hint."""
    took = [lose_leader(s, "k%d" % i, lambda n: n.hold("all", 9), lambda n: n.release("all"))[0] for i in rounds(10, 20)]
    report("leader killed", took, 0.3)


def test_leader_powered_off(s):
    """Nothing is closed: only silence says that it is gone."""
    def boot(n):
        n.start()
        n.wait_ready(60 * st.SLOW)
    took = [lose_leader(s, "p%d" % i, lambda n: n.power_off(), boot)[0] for i in rounds(5, 20)]
    report("leader powered off", took, 2.0)


def test_leader_cut_off(s):
    """The minority never acknowledges; healed, the old leader follows at once."""
    took, follow = [], []
    for i in rounds(10, 100):
        whole(s)
        was = lead(s)
        alone = load.Writer(was, "alone%d" % i, patience=20)
        with writing(s, others(s, was.name), "c%d" % i) as writers:
            alone.start()
            alone.first_after(0)
            t = time.monotonic()
            s.cluster.cut(was.name)
            t0 = time.monotonic()
            took.append(outage(writers, t))
            # What began after the cut can't have been acknowledged; what was under way may have been answered just before.
            late = [a for a in list(alone.acked) if a[0] > t0]
            if late:
                raise st.Failure("%s acknowledged %d writes while it was cut off" % (was.name, len(late)))
            s.cluster.heal()
            t1 = time.monotonic()
            follows(s, was, writers)
            follow.append(time.monotonic() - t1)
            alone.stop()
        all_there(s, writers + [alone])
    report("leader cut off", took, 2.0)
    report("old leader follows", follow, 1.0)


def test_leader_stopped_in_order(s):
    """SIGTERM to its process 1: leadership is handed over first. The longest time without an answer, seen by either of the others."""
    took = []
    for i in rounds(5, 20):
        whole(s)
        was = lead(s)
        with writing(s, others(s, was.name), "h%d" % i) as writers:
            t0 = time.monotonic()
            was.halt()
            took.append(outage(writers, t0))
            was.start()
            was.wait_ready(60 * st.SLOW)
        follows_now(s, was)
        all_there(s, writers)
    report("leader stopped in order", took, 0.1)


def follows_now(s, node):
    st.wait_until(lambda: ok_get(node), 60 * st.SLOW, "%s answers" % node.name)


def ok_get(node):
    with contextlib.suppress(OSError, st.ApiError):
        st.Api(node.sock, timeout=5).get("/services")
        return True
    return False


def test_majority_lost_and_back(s):
    """Without a majority nothing is acknowledged, the error says so, containers run on; with it back, writes go on."""
    whole(s)
    s.create("stay", "pause:latest", "--replicas", "4")
    pids = places(s, s.wait_running("stay", 4))
    was = lead(s)
    gone = others(s, was.name)
    for n in gone:
        n.hold("all", 9)
    with s.at(was):
        text = s.docker_fails("service", "create", "-d", "--no-resolve-image", "--name", "nobody", "pause:latest", timeout=60)
        st.contains(text, "Make sure more than half of the managers are online")
        s.docker("info")
    eq({n.name: pauses(n) for n in s.cluster.nodes()}, pids_by_node(s, pids), "containers")
    for n in gone:
        n.release("all")
    whole(s)
    eq(places(s, s.wait_running("stay", 4)), pids, "tasks and their processes")
    s.remove("stay")


def pauses(node):
    return sorted(int(p) for p in node.sh("sh", "-c", "pgrep -x pause || true").split())


def places(s, tasks):
    return {t["ID"]: (s.node_of(t).name, s.container_pid(t)) for t in tasks}


def pids_by_node(s, where):
    return {n.name: sorted(p for name, p in where.values() if name == n.name) for n in s.cluster.nodes()}


def test_worker_powered_off(s):
    """Its tasks run elsewhere within five seconds; the others don't notice; when it is back nothing moves again."""
    took = []
    for i in rounds(3, 10):
        whole(s)
        s.create("off%d" % i, "pause:latest", "--replicas", "10")
        before = places(s, s.wait_running("off%d" % i, 10))
        w1 = s.cluster.node("w1")
        lost = {t for t, (n, _) in before.items() if n == "w1"}
        eq(len(lost) > 0, True, "tasks on w1")
        t0 = time.monotonic()
        w1.power_off()

        def replaced(name="off%d" % i, gone=lost):
            now = {t["ID"] for t in s.running(name)}
            return len(now) == 10 and not now & gone
        s.wait(replaced, "ten tasks without those of w1", 30)
        took.append(time.monotonic() - t0)
        after = places(s, s.running("off%d" % i))
        eq({t: w for t, w in after.items() if t in before}, {t: w for t, w in before.items() if t not in lost}, "tasks elsewhere")
        eq([n for n, _ in after.values() if n == "w1"], [])
        w1.start()
        w1.wait_ready(60 * st.SLOW)
        whole(s)
        eq(places(s, s.running("off%d" % i)), after, "after its return")
        st.wait_until(lambda: pauses(w1) == [], 20 * st.SLOW, "no old container on w1")
        s.remove("off%d" % i)
    report("tasks of a worker that lost its power run elsewhere", took, 5.0)


def steady(s, service, n, before, seconds):
    """Nothing about these tasks changes for so long, beginning now."""
    end = time.monotonic() + seconds

    def moved():
        now = places(s, s.running(service))
        if now != before:
            return now
        return "calm" if time.monotonic() > end else None
    got = s.wait(moved, "watching %d tasks" % n, seconds + 20)
    if got != "calm":
        raise st.Failure("%s moved: %r, was %r" % (service, got, before))


def test_restart_of_gatewayd_and_agentd_moves_nothing(s):
    whole(s)
    s.create("still", "pause:latest", "--replicas", "10")
    before = places(s, s.wait_running("still", 10))
    for daemon in ("gatewayd", "agentd"):
        for n in s.cluster.nodes():
            n.kill(daemon, "KILL" if n.name in ("m1", "w1") else "TERM")
        for n in s.cluster.nodes():
            n.wait_ready(30 * st.SLOW)
        steady(s, "still", 10, before, 8)  # longer than a dead node's tasks are waited for
        whole(s)
    s.remove("still")


def test_one_daemon_killed_under_load(s):
    """gatewayd, cad, dispatcherd, raftd: alone, on the leader and on a follower; no acknowledged write lost, no container restarted."""
    whole(s)
    s.create("calm", "pause:latest", "--replicas", "5")
    before = places(s, s.wait_running("calm", 5))
    with writing(s, [s.cluster.node(m) for m in MANAGERS], "one") as writers:
        for daemon in ("gatewayd", "cad", "dispatcherd", "raftd", "apid", "orchestratord", "allocatord", "schedulerd"):
            for where in ("leader", "follower"):
                was = lead(s)
                n = was if where == "leader" else others(s, was.name)[0]
                t0 = time.monotonic()
                n.kill(daemon)
                took = max(w.first_after(t0) for w in writers) - t0
                n.wait_ready(30 * st.SLOW)
                print("# %s of the %s killed: writes through every manager after %.3f s" % (daemon, where, took), flush=True)
    eq(places(s, s.running("calm")), before, "tasks and their processes")
    whole(s)
    eq(places(s, s.running("calm")), before, "tasks and their processes, later")
    all_there(s, writers)
    s.remove("calm")


def test_worker_without_managers(s):
    """Cut off from all managers its containers run on, one that ends meanwhile is reported on its return."""
    whole(s)
    s.create("iso", "pause:latest", "--replicas", "2", "--constraint", "node.hostname==w2", "--restart-condition", "none")
    tasks = s.wait_running("iso", 2)
    w2, pids = s.cluster.node("w2"), sorted(s.container_pid(t) for t in tasks)
    s.cluster.cut("w2")
    s.wait(lambda: s.api.get("/nodes/w2")["Status"]["State"] == "down" or None, "w2 is down", 60)
    eq(pauses(w2), pids, "containers on the node that was cut off")
    w2.sh("kill", "-9", str(pids[0]))
    s.cluster.heal()
    s.wait(lambda: s.api.get("/nodes/w2")["Status"]["State"] == "ready" or None, "w2 is back", 60)
    s.remove("iso")
    st.wait_until(lambda: pauses(w2) == [], 30 * st.SLOW, "no container left on w2")


def test_a_burst_while_the_leader_dies(s):
    """Fifty clients at once through all managers; each answer that said yes was true."""
    whole(s)
    was = lead(s)
    writers = [load.Writer(s.cluster.node(MANAGERS[i % 3]), "b%d" % i, pace=0.02) for i in range(12 if st.SANITIZED else 50)]
    for w in writers:
        w.start()
    try:
        for w in writers:
            w.first_after(0)
        threading.Event().wait(0.5)
        was.kill_all()
        t0 = time.monotonic()
        for w in writers:
            w.first_after(t0, 60)
    finally:
        for w in writers:
            w.over.set()
        for w in writers:
            w.stop()
    whole(s)
    all_there(s, writers)


if __name__ == "__main__":
    st.main(setup, managers=3, workers=2, settings=SETTINGS)
