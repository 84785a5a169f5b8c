#!/usr/bin/python3
"""When most nodes go down at once, their tasks are moved little by little, and those of a node that comes back stay; a single one's are moved at once."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402

eq = st.eq
SETTINGS = {"dispatcherd": {"flap_max": "0"}, "orchestratord": {"mass_move_rate": "1"}}
REPLICAS = 30


def wanted(s, name):
    return {t["ID"]: t for t in s.tasks(name) if t["DesiredState"] in ("ready", "running")}


def states(s):
    return {n["Description"]["Hostname"]: n["Status"]["State"] for n in s.api.get("/nodes")}


def test_most_nodes_at_once(s):
    s.create("many", "pause:latest", "--replicas", str(REPLICAS))
    tasks = s.wait_running("many", REPLICAS, 60)
    m1 = next(n["ID"] for n in s.api.get("/nodes") if n["Description"]["Hostname"] == "m1")
    before = {t["ID"] for t in tasks if t["NodeID"] != m1}
    eq(len(before) >= REPLICAS / 2, True, "tasks on the workers")
    s.cluster.cut("w1", "w2", "w3")
    s.wait(lambda: [v for k, v in sorted(states(s).items())] == ["ready"] + ["down"] * 3 or None, "three of four nodes are down")

    def account():
        return json.loads(s.m1.probe("orchestratord", "explain many"))
    s.wait(lambda: len(before - set(wanted(s, "many"))) >= 3 or None, "some are moved")
    left = account().get("waiting_to_be_moved", 0)
    status = json.loads(s.m1.probe("orchestratord"))
    eq((status["nodes_down"], status["moves_per_second_of_held"]), (3, 1))
    eq(status["nodes_held"] >= 2, True, "nodes held: %d" % status["nodes_held"])
    eq(left > 0, True, "tasks that wait: %d" % left)
    why = {t.get("why") for slot in account()["slots"] for t in slot["tasks"]}
    eq("its node went down with many others at once: tasks are moved little by little" in why, True, str(why))
    s.cluster.heal()
    s.cluster.wait_nodes(4, 60 * st.SLOW)
    s.wait(lambda: len(s.running("many")) == REPLICAS or None, "all run", 60)
    stayed = {t["ID"] for t in s.running("many")} & before
    eq(0 < len(stayed) < len(before), True, "tasks that stayed: %d of %d" % (len(stayed), len(before)))
    st.settles(lambda: (json.loads(s.m1.probe("orchestratord"))["nodes_held"], "waiting_to_be_moved" in account()), (0, False), "nothing waits any more")
    eq({t["ID"] for t in s.running("many")} & before, stayed, "and nothing moves any more")
    s.remove("many")


if __name__ == "__main__":
    st.main(lambda s: s.load("pause"), managers=1, workers=3, settings=SETTINGS)
