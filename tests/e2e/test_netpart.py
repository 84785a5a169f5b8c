#!/usr/bin/python3
"""Networks of three managers and two workers through partitions with changes on both sides: after healing every node's service
addresses, names, neighbours, forwarding entries and published ports are compared with the store, entry by entry.

MICROSWARM_LONG=1 cuts for 30 s and wants all of it within 5 s."""

import contextlib
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import netstate  # noqa: E402
import swarmtest as st  # noqa: E402
from swarmtest import eq  # noqa: E402

LONG = bool(os.environ.get("MICROSWARM_LONG"))
CUT = 30 if LONG else 12
HEALED = 5  # seconds until all is as it should be: asked for with MICROSWARM_LONG, when nothing else runs
MANAGERS = ("m1", "m2", "m3")
EVER = ["old", "tasks.old", "fresh", "tasks.fresh", "web", "tasks.web", "db", "tasks.db"]
# A node that goes down as often as here is held back for longer and longer with the default settings.
SETTINGS = {"dispatcherd": {"flap_hold": "1s", "flap_hold_max": "2s"}}


def setup(s):
    s.load("echo")
    s.load("pause")
    s.docker("network", "create", "-d", "overlay", "one")
    for n in s.cluster.nodes():  # somebody who asks on each node
        s.create("on-" + n.name, "pause:latest", "--network", "one", "--constraint", "node.hostname==" + n.name)
        s.keep.add("on-" + n.name)
    s.create("web", "echo:latest", "--network", "one", "-p", "8080:8080", "--replicas", "5")
    s.create("db", "echo:latest", "--network", "name=one,alias=store", "--replicas", "3")
    s.keep.update(("web", "db"))
    s.wait_running("web", 5)
    s.wait_running("db", 3)
    netstate.wait_same(s, s.cluster.nodes(), "every node has what the store has", 60, EVER)


def whole(s):
    """Three managers that reach each other, five nodes that are ready."""
    def ok():
        nodes = s.api.get("/nodes")
        return [n["Status"]["State"] for n in nodes] == ["ready"] * 5 and [
            n["ManagerStatus"]["Reachability"] for n in nodes if n.get("ManagerStatus")] == ["reachable"] * 3 or None
    s.wait(ok, "three managers and five nodes", 60)


def until(t):
    st.wait_until(lambda: time.monotonic() >= t, max(0.1, t - time.monotonic()) + 5, "the cut is long enough")


def healed(s, what):
    s.cluster.heal()
    t0 = time.monotonic()
    took = netstate.wait_same(s, s.cluster.nodes(), "after healing: every node has what the store has", 30, EVER)
    print("# %s: %.1f s after healing all nodes had exactly what the store has (read for %.1f s)" % (
        what, took, time.monotonic() - t0 - took), flush=True)
    if LONG and took > HEALED * st.SLOW * st.crowd():
        raise st.Failure("%s: %.1f s after healing, wanted %d s" % (what, took, HEALED))
    whole(s)


def answers(s, names):
    """Through each of these nodes the published port answers."""
    for n in names:
        def ok(addr=s.cluster.node(n).addr):
            with contextlib.suppress(st.Failure):
                return "host=" in s.http("http://%s:8080/" % addr, seconds=2 * st.SLOW)
        st.wait_until(ok, 20 * st.SLOW, "port 8080 through " + n)


def changes(s, near):
    """On the side of the majority."""
    s.cluster.wait_leader([s.cluster.node(m) for m in MANAGERS if m in near])

    def done(*argv):
        s.wait(lambda: s.docker(*argv, check=False) or None, " ".join(argv[:3]), 60)
    done("service", "scale", "-d", "web=7")
    done("service", "rm", "old")
    s.wait(lambda: s.create("fresh", "echo:latest", "--network", "one", "-p", "8081:8080", "--replicas", "2"), "a new service")
    done("service", "scale", "-d", "db=2")


def cut_and_change(s, cut, what):
    near = [n.name for n in s.cluster.nodes() if n.name not in cut]
    s.create("old", "echo:latest", "--network", "one", "-p", "8082:8080", "--replicas", "3")
    s.wait_running("old", 3)
    netstate.wait_same(s, s.cluster.nodes(), "every node has what the store has", 60, EVER)
    victim = next((t for t in s.running("web") + s.running("db") if s.node_of(t).name in cut), None)
    if not victim:
        raise st.Failure("no task on the side that is cut off")
    front = s.cluster.node(next(n for n in near if n in MANAGERS))
    with s.at(front):
        node, pid = s.node_of(victim), s.container_pid(victim)
        s.cluster.cut(*cut)
        t0 = time.monotonic()
        node.sh("kill", "-KILL", str(pid))
        changes(s, near)
        answers(s, near)
        until(t0 + CUT)
        healed(s, what)
        eq(len(s.running("web")), 7)
        s.remove("fresh")
        s.docker("service", "scale", "-d", "web=5")
        s.docker("service", "scale", "-d", "db=3")
        s.wait_running("web", 5)
        s.wait_running("db", 3)
        netstate.wait_same(s, s.cluster.nodes(), "every node has what the store has", 60, EVER)


def test_workers_cut_off(s):
    cut_and_change(s, ["w1", "w2"], "both workers cut off")


def test_minority_cut_off(s):
    """A manager and a worker, who see each other."""
    cut_and_change(s, ["m3", "w1"], "a manager and a worker cut off")


def test_leader_cut_off(s):
    cut_and_change(s, [s.cluster.wait_leader().name, "w2"], "the leader and a worker cut off")


def test_power_off(s):
    """Nobody is sent to a worker that lost its power."""
    whole(s)
    w2 = s.cluster.node("w2")
    gone = next(x["ID"] for x in s.api.get("/nodes") if x["Description"]["Hostname"] == "w2")
    truth = netstate.Truth(s.api)
    dead = {a for t in truth.live if t["NodeID"] == gone for n in truth.nets for a in truth.on(t, n)}
    if not dead:
        raise st.Failure("no task on w2")
    left = [n for n in s.cluster.nodes() if n.name != "w2"]
    w2.power_off()
    t0 = time.monotonic()
    st.wait_until(lambda: not any(netstate.leads_to(n) & dead for n in left), 15 * st.SLOW, "nothing leads to a dead node")
    print("# power off: %.1f s until no node sent anything there" % (time.monotonic() - t0), flush=True)
    w2.start()
    w2.wait_ready(60 * st.SLOW)
    whole(s)
    netstate.wait_same(s, s.cluster.nodes(), "every node has what the store has", 60, EVER)


if __name__ == "__main__":
    st.main(setup, managers=3, workers=2, settings=SETTINGS)
