#!/usr/bin/python3
"""Nodes that come and go: hints of lost links, flapping, tasks of nodes that stay away or are removed, labels that change."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402

eq = st.eq
SETTINGS = {"dispatcherd": {"flap_max": "2", "flap_hold": "8s", "flap_hold_max": "8s", "orphan_after": "3s"}}


def node(s, name):
    return next(n for n in s.cluster.nodes() if n.name == name)


def status(s, name):
    return s.api.get("/nodes/" + s.docker("node", "inspect", "--format", "{{.ID}}", name).strip())["Status"]


def wait_state(s, name, state, seconds=30):
    return st.wait_until(lambda: status(s, name)["State"] == state or None, seconds * st.SLOW, "%s is %s" % (name, state))


def on(s, service):
    """Where the service's tasks run: {task: node name}."""
    def name_of(t):
        try:
            return s.node_of(t).name
        except st.ApiError as e:
            if e.status != 404:
                raise
            return "removed"  # its task is on its way out
    return {t["ID"]: name_of(t) for t in s.running(service)}


def pauses(s, name):
    return int(node(s, name).sh("sh", "-c", "pgrep -xc pause || true"))


def test_a_label_that_changes_moves_what_depended_on_it(s):
    s.docker("node", "update", "--label-add", "zone=east", "w1")
    s.docker("node", "update", "--label-add", "zone=east", "w2")
    s.create("lab", "pause:latest", "--replicas", "2", "--constraint", "node.labels.zone==east", "--restart-delay", "0s")
    s.create("free", "pause:latest", "--replicas", "3")
    s.wait_running("lab", 2)
    s.wait_running("free", 3)
    eq(sorted(on(s, "lab").values()), ["w1", "w2"], "one on each")
    free = on(s, "free")
    s.docker("node", "update", "--label-add", "zone=west", "w1")
    s.wait(lambda: sorted(on(s, "lab").values()) == ["w2", "w2"] or None, "both tasks are where the label still is")
    errs = [t["Status"].get("Err", "") for t in s.tasks("lab") if t["DesiredState"] == "shutdown"]
    eq(errs, ["assigned node no longer meets constraints"])
    eq(on(s, "free"), free, "tasks without a constraint")
    s.docker("node", "update", "--label-rm", "zone", "w2")
    s.wait(lambda: on(s, "lab") == {} or None, "no task where no node fits")
    pending = s.wait(lambda: [t for t in s.tasks("lab") if t["Status"]["State"] == "pending" and t["Status"].get("Err")], "a reason")
    st.contains(pending[0]["Status"]["Err"], "no suitable node (scheduling constraints not satisfied on 3 nodes)")
    s.remove("lab")
    s.remove("free")
    s.docker("node", "update", "--label-rm", "zone", "w1")


def test_tasks_of_a_node_that_stays_away_are_given_up(s):
    """Replaced within seconds; after orphan_after their records end as well; back, the node stops what it still ran."""
    s.create("gone", "pause:latest", "--replicas", "3")
    where = {s.node_of(t).name: t["ID"] for t in s.wait_running("gone", 3)}
    s.cluster.cut("w1")
    wait_state(s, "w1", "down")
    eq(status(s, "w1")["Message"], "heartbeat failure")
    s.wait(lambda: len(on(s, "gone")) == 3 and "w1" not in on(s, "gone").values() or None, "three run elsewhere")
    eq(pauses(s, "w1"), 1, "containers on the node that is cut off")
    s.wait(lambda: [t for t in s.tasks("gone") if t["ID"] == where["w1"] and t["Status"]["State"] == "orphaned"], "given up")
    s.cluster.heal()
    wait_state(s, "w1", "ready")
    st.wait_until(lambda: pauses(s, "w1") == 0 or None, 20 * st.SLOW, "what was superseded is stopped")
    st.settles(lambda: len(on(s, "gone")), 3, "three tasks run")
    s.remove("gone")


def test_a_flapping_node_is_held_back(s):
    """The third time in ten minutes is once too often: it is back, and still not ready for eight seconds."""
    held = 0
    for _ in range(4):
        node(s, "w2").power_off()
        wait_state(s, "w2", "down")
        node(s, "w2").start()
        now = st.wait_until(lambda: (status(s, "w2")["State"] == "ready" or "goes up and down" in status(s, "w2").get("Message", "")) and
                            status(s, "w2") or None, 30 * st.SLOW, "w2 is back")
        if now["State"] == "down":
            held += 1
            s.create("held", "pause:latest", "--replicas", "4")
            eq("w2" in [s.node_of(t).name for t in s.wait_running("held", 4)], False, "tasks on a node that is held back")
            s.remove("held")
            wait_state(s, "w2", "ready")
            break
    eq(held, 1, "held back")
    doc = json.loads(s.docker("node", "inspect", "w2"))[0]
    eq([k for k in doc if k not in ("ID", "Version", "CreatedAt", "UpdatedAt", "Spec", "Description", "Status")], [], "fields of a worker")


def test_a_removed_node_s_tasks_run_elsewhere(s):
    s.create("rm", "pause:latest", "--replicas", "3")
    where = {s.node_of(t).name: t["ID"] for t in s.wait_running("rm", 3)}
    s.docker("node", "rm", "--force", "w1")
    s.wait(lambda: sorted(set(on(s, "rm").values())) == ["m1", "w2"] and len(on(s, "rm")) == 3 or None, "three run elsewhere")
    st.settles(lambda: [(t["Status"]["State"], t["Status"]["Message"]) for t in s.tasks("rm") if t["ID"] == where["w1"]],
               [("orphaned", "Task belonged to a node that has been deleted")], "the removed node's task")
    s.remove("rm")


if __name__ == "__main__":
    st.main(lambda s: s.load("pause"), managers=1, workers=2, settings=SETTINGS)
