#!/usr/bin/python3
"""The majority is lost for good: what the manager that is left says, and the swarm that goes on from its state alone."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

NO_LEADER = "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
OPENING = "You are attempting to leave the swarm on a node that is participating as a manager. The only way to restore a swarm that has lost consensus"


def setup(s):
    s.load("pause")


def test_the_majority_is_gone(s):
    s.create("kept", "pause:latest", "--replicas", "2", "--constraint", "node.hostname==m1")
    s.wait_running("kept", 2)
    s.tasks_before = sorted(t["ID"] for t in s.running("kept"))
    s.node_id = s.api.get("/info")["Swarm"]["NodeID"]
    for name in ("m2", "m3"):
        s.cluster.node(name).power_off()
    st.wait_until(lambda: NO_LEADER in s.api.get("/info")["Swarm"]["Error"], 20 * st.SLOW, "m1 says that there is no leader")
    swarm = s.api.get("/info")["Swarm"]
    eq((swarm["ControlAvailable"], swarm["LocalNodeState"], "Nodes" in swarm, "Cluster" in swarm), (True, "active", False, False))
    # The first may wait for an election; from five seconds on nobody is kept waiting for what does not come.
    contains(s.docker_fails("service", "create", "-d", "--no-resolve-image", "none:latest", timeout=60), NO_LEADER)

    def at_once(*argv):
        t0 = time.monotonic()
        contains(s.docker_fails(*argv, timeout=60), NO_LEADER)
        return time.monotonic() - t0
    for argv in (("node", "ls"), ("service", "ls"), ("service", "create", "-d", "--no-resolve-image", "none:latest")):
        st.wait_until(lambda a=argv: at_once(*a) < 2 * st.SLOW * st.crowd(), 40 * st.SLOW, "a prompt answer to docker " + " ".join(argv))
    contains(s.docker_fails("swarm", "leave"), OPENING)


def test_a_new_swarm_from_what_is_left(s):
    contains(s.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", s.m1.addr), "is now a manager")
    eq(s.api.get("/info")["Swarm"]["NodeID"], s.node_id, "the node keeps its name")
    st.settles(lambda: [n["ManagerStatus"].get("Leader") for n in s.api.get("/nodes") if "ManagerStatus" in n], [True], "one manager, which leads")
    st.settles(lambda: sorted(t["ID"] for t in s.running("kept")), s.tasks_before, "the same tasks")
    s.create("more", "pause:latest", "--constraint", "node.hostname==m1")
    s.wait_running("more", 1)
    s.remove("more")
    s.remove("kept")
    for name in ("m2", "m3"):
        s.wait(lambda n=name: s.api.get("/nodes/" + n)["Status"]["State"] == "down" or None, name + " is down", 60 * st.SLOW)
        s.docker("node", "rm", "--force", name)
    eq([n["Description"]["Hostname"] for n in s.api.get("/nodes")], ["m1"])


def test_rebooted_without_the_others(s):
    """A manager that starts and finds no majority is pending, never active: it says so at once, and can begin anew."""
    m2 = s.cluster.node("m2")
    m2.start()
    m2.wait_ready(60 * st.SLOW)
    s.docker("swarm", "leave", "--force", on=m2, timeout=120 * st.SLOW)
    s.cluster.join("m2")
    s.create("late", "none:latest", "--replicas", "0")
    m2.power_off()
    s.m1.power_off()
    s.m1.start()
    s.m1.wait_ready(60 * st.SLOW)
    seen, asked = set(), {"seconds": 0.0}

    def prompt():
        t0 = time.monotonic()
        seen.add(s.api.get("/info")["Swarm"]["LocalNodeState"])
        asked["seconds"] = time.monotonic() - t0
        return time.monotonic() - began > 12 and asked["seconds"] < 1 * st.SLOW * st.crowd()
    began = time.monotonic()
    st.wait_until(prompt, 40 * st.SLOW, "a prompt answer to docker info (the last one took %.1f s)" % asked["seconds"])
    eq(seen, {"pending"})
    contains(s.docker_fails("node", "ls"), "trouble connecting to the cluster")
    contains(s.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", s.m1.addr), "is now a manager")
    eq(s.inspect("late")["Spec"]["Name"], "late")
    s.docker("service", "rm", "late")


if __name__ == "__main__":
    st.main(setup, managers=3)
