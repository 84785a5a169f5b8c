#!/usr/bin/python3
"""Global services follow the nodes: those that join, leave, are drained, paused, lost, or get other labels; and updates go from node to node."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402

eq = st.eq
SETTINGS = {"dispatcherd": {"flap_max": "0"}}


def setup(s):
    s.load("pause")
    s.load("pause", "-t", "pause:v2", "--label", "v=2")


def on(s, service):
    return sorted(s.node_of(t).name for t in s.running(service))


def wait_on(s, service, *names):
    s.wait(lambda: on(s, service) == sorted(names) or None, "%s: on %s" % (service, ", ".join(names) or "no node"))


def glob(s, name, *options, image="pause:latest"):
    return s.create(name, image, "--mode", "global", *options)


def test_in_the_foreground(s):
    out = s.docker("service", "create", "--no-resolve-image", "--name", "fg", "--mode", "global", "--stop-grace-period", "50ms", "pause:latest")
    st.contains(out, "converged")
    eq(on(s, "fg"), ["m1", "w1", "w2"])
    eq(s.docker("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"), "fg global 3/3")
    eq({t.get("Slot") for t in s.tasks("fg")}, {None}, "slots")
    for line in s.docker("service", "ps", "--no-trunc", "--format", "{{.Name}}", "fg").splitlines():
        eq(len(line.split(".")[1]), 25, "named after the node: " + line)
    s.docker_fails("service", "scale", "fg=3", say="fg: scale can only be used with replicated or replicated-job mode")
    s.remove("fg")


def test_drain_and_pause(s):
    glob(s, "dp")
    wait_on(s, "dp", "m1", "w1", "w2")
    before = {s.node_of(t).name: t["ID"] for t in s.running("dp")}
    s.docker("node", "update", "--availability", "drain", "w1")
    wait_on(s, "dp", "m1", "w2")
    s.docker("node", "update", "--availability", "active", "w1")
    wait_on(s, "dp", "m1", "w1", "w2")
    s.docker("node", "update", "--availability", "pause", "w2")
    s.docker("service", "update", "-d", "--image", "pause:v2", "--no-resolve-image", "dp")
    s.wait(lambda: s.inspect("dp").get("UpdateStatus", {}).get("State") == "completed" or None, "the update is complete", 60)
    now = {s.node_of(t).name: t for t in s.running("dp")}
    eq(now["w2"]["ID"], before["w2"], "what runs on the paused node")
    eq([now[n]["Spec"]["ContainerSpec"]["Image"] for n in ("m1", "w1")], ["pause:v2"] * 2)
    s.docker("node", "update", "--availability", "active", "w2")
    s.wait(lambda: [t["Spec"]["ContainerSpec"]["Image"] for t in s.running("dp")] == ["pause:v2"] * 3 or None, "updated there, too")
    s.remove("dp")


def test_labels_and_constraints(s):
    s.docker("node", "update", "--label-add", "disk=ssd", "w1")
    glob(s, "ssd", "--constraint", "node.labels.disk==ssd")
    wait_on(s, "ssd", "w1")
    s.docker("node", "update", "--label-add", "disk=ssd", "w2")
    wait_on(s, "ssd", "w1", "w2")
    s.docker("node", "update", "--label-rm", "disk", "w1")
    wait_on(s, "ssd", "w2")
    # with a constraint that no node meets there is nothing, and nothing that waits
    s.docker("service", "update", "-d", "--constraint-rm", "node.labels.disk==ssd", "--constraint-add", "node.labels.disk==tape", "ssd")
    wait_on(s, "ssd")
    st.settles(lambda: s.docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}"), "ssd 0/0", "service ls")
    s.docker("service", "update", "-d", "--constraint-rm", "node.labels.disk==tape", "ssd")
    wait_on(s, "ssd", "m1", "w1", "w2")
    s.docker("node", "update", "--label-rm", "disk", "w2")
    s.remove("ssd")


def test_a_failed_task_is_replaced_on_its_node(s):
    glob(s, "fail", "--restart-delay", "100ms")
    wait_on(s, "fail", "m1", "w1", "w2")
    t = s.running("fail")[0]
    s.kill_container(t)
    s.wait(lambda: [x for x in s.running("fail") if x["NodeID"] == t["NodeID"] and x["ID"] != t["ID"]], "another one on the same node")
    eq(len(s.running("fail")), 3, "tasks")
    s.remove("fail")


def test_an_update_goes_from_node_to_node(s):
    glob(s, "up", "--update-parallelism", "1", "--update-monitor", "1s")
    wait_on(s, "up", "m1", "w1", "w2")
    out = s.docker("service", "update", "--image", "pause:v2", "--no-resolve-image", "up")
    st.contains(out, "converged")
    eq(sorted((s.node_of(t).name, t["Spec"]["ContainerSpec"]["Image"]) for t in s.running("up")), [(n, "pause:v2") for n in ("m1", "w1", "w2")])
    out = s.docker("service", "rollback", "up")
    st.contains(out, "converged")
    eq({t["Spec"]["ContainerSpec"]["Image"] for t in s.running("up")}, {"pause:latest"})
    s.remove("up")


def test_a_node_is_lost_and_comes_back(s):
    glob(s, "lost")
    wait_on(s, "lost", "m1", "w1", "w2")
    w1 = s.cluster.node("w1")
    w1.power_off()
    try:
        s.wait(lambda: [t for t in s.tasks("lost") if t["DesiredState"] == "shutdown"], "the task there is given up")
        wait_on(s, "lost", "m1", "w2")
        eq(s.docker("service", "ls", "--format", "{{.Name}} {{.Mode}}"), "lost global")
    finally:
        w1.start()
        w1.wait_ready(60 * st.SLOW)
    s.cluster.wait_nodes(3, 60 * st.SLOW)
    wait_on(s, "lost", "m1", "w1", "w2")
    s.remove("lost")


def test_nodes_that_leave_and_join(s):
    glob(s, "follow")
    wait_on(s, "follow", "m1", "w1", "w2")
    w2 = s.cluster.node("w2")
    nid = next(n["ID"] for n in s.api.get("/nodes") if n["Description"]["Hostname"] == "w2")
    s.docker("swarm", "leave", on="w2")
    wait_on(s, "follow", "m1", "w1")
    s.wait(lambda: s.api.get("/nodes/" + nid)["Status"]["State"] == "down" or None, "w2 is down")
    s.docker("node", "rm", nid)
    s.wait(lambda: not [t for t in s.tasks("follow") if t.get("NodeID") == nid] or None, "nothing is left of the removed node's tasks")
    s.cluster.join("w2")
    s.cluster.wait_nodes(3, 60 * st.SLOW)
    wait_on(s, "follow", "m1", "w1", "w2")
    eq(w2.name in on(s, "follow"), True)
    account = json.loads(s.cluster.leader().probe("orchestratord", "explain follow"))
    eq((account["mode"], account["places"], len(account["slots"])), ("global", 3, 3))
    s.remove("follow")


if __name__ == "__main__":
    st.main(setup, managers=1, workers=2, settings=SETTINGS)
