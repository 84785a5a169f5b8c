#!/usr/bin/python3
"""Four workers without a manager: the nodes tell each other who is gone, and nothing is sent there any more."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import netstate  # noqa: E402
import swarmtest as st  # noqa: E402

WORKERS = ("w1", "w2", "w3", "w4")


def setup(s):
    s.load("echo")
    s.docker("node", "update", "--availability", "drain", "m1")
    s.docker("network", "create", "-d", "overlay", "one")
    s.create("web", "echo:latest", "--network", "one", "-p", "8080:8080", "--replicas", "8")
    s.keep.add("web")
    s.wait_running("web", 8)
    netstate.wait_same(s, s.cluster.nodes(), "every node has what the store has", 60)


def behind(s, name):
    truth = netstate.Truth(s.api)
    nid = next(k for k, v in truth.names.items() if v == name)
    got = {a for t in truth.live if t["NodeID"] == nid for n in truth.nets for a in truth.on(t, n)}
    if not got:
        raise st.Failure("no task on " + name)
    return got


def test_power_off_without_managers(s):
    dead = behind(s, "w4")
    left = [s.cluster.node(w) for w in WORKERS[:3]]
    s.cluster.cut("m1")
    s.cluster.node("w4").power_off()
    t0 = time.monotonic()
    st.wait_until(lambda: not any(netstate.leads_to(n) & dead for n in left), 20 * st.SLOW, "nothing leads to a dead node")
    print("# power off without a manager: %.1f s until no node sent anything there" % (time.monotonic() - t0), flush=True)
    for n in left:
        if not netstate.leads_to(n):
            raise st.Failure("%s sends nothing to anybody" % n.name)
        for _ in range(20):
            st.contains(s.http("http://%s:8080/" % n.addr, seconds=10 * st.SLOW), "host=")


def test_power_on_again(s):
    """The managers' word counts again, and the node that is back is used again."""
    w4 = s.cluster.node("w4")
    w4.start()
    s.cluster.heal()
    w4.wait_ready(60 * st.SLOW)
    s.wait_running("web", 8, 60)
    netstate.wait_same(s, s.cluster.nodes(), "every node has what the store has", 60)


def test_cut_off_alone(s):
    """Who hears of nobody any more is the one that is cut off: it goes on with all it knows."""
    w1 = s.cluster.node("w1")
    want = netstate.leads_to(w1)
    s.cluster.cut("w1")
    t0 = time.monotonic()
    while time.monotonic() < t0 + 6:
        if netstate.leads_to(w1) != want:
            raise st.Failure("w1 takes others for dead: %r" % (want - netstate.leads_to(w1)))
    s.cluster.heal()
    netstate.wait_same(s, s.cluster.nodes(), "every node has what the store has", 60)


def test_meshd_alone_is_down(s):
    """Only its meshd: containers go on, and once the managers have said so they are sent to again."""
    w3 = s.node_of(s.running("web")[0])
    mine = behind(s, w3.name)
    others = [s.cluster.node(w) for w in WORKERS if w != w3.name]
    w3.hold("meshd", 9)
    t0 = time.monotonic()
    st.wait_until(lambda: not any(netstate.leads_to(n) & mine for n in others), 20 * st.SLOW, "it is taken out")
    out = time.monotonic() - t0
    st.wait_until(lambda: all(mine & netstate.leads_to(n) for n in others), 40 * st.SLOW, "it is taken back")
    print("# meshd alone is down: taken out after %.1f s, back after %.1f s" % (out, time.monotonic() - t0), flush=True)
    w3.release("meshd")
    w3.wait_ready(30 * st.SLOW)
    netstate.wait_same(s, s.cluster.nodes(), "every node has what the store has", 60)


if __name__ == "__main__":
    st.main(setup, managers=1, workers=4)
