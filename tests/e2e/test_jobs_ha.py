#!/usr/bin/python3
"""Jobs while managers die: a job ends with exactly as many completions as asked for though the leader loses its power in the middle, and a
schedule's time at which the leader is killed is served once."""

import datetime
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402

eq = st.eq
MANAGERS = ("m1", "m2", "m3")
SETTINGS = {"dispatcherd": {"flap_max": "0"}}


def others(s, name):
    return [s.cluster.node(m) for m in MANAGERS if m != name]


def all_back(s):
    st.wait_until(lambda: s.cluster.leader(), 60 * st.SLOW, "a leader")
    s.cluster.wait_nodes(3, 60 * st.SLOW, via=s.cluster.leader().name)


def complete(s, name):
    run = s.inspect(name)["JobStatus"]["JobIteration"].get("Index", 0)
    return [t for t in s.tasks(name) if t["JobIteration"].get("Index", 0) == run and t["Status"]["State"] == "complete"]


def test_the_leader_loses_its_power_in_the_middle(s):
    all_back(s)
    was = s.cluster.wait_leader()
    with s.at(others(s, was.name)[0]):
        s.docker("service", "create", "-d", "--no-resolve-image", "--name", "twenty", "--mode", "replicated-job", "--replicas", "20", "--max-concurrent",
                 "4", "--stop-grace-period", "50ms", "busybox:latest", "sleep", "1")
        s.wait(lambda: len(complete(s, "twenty")) >= 5 or None, "five are complete", 60)
        was.power_off()
        try:
            s.wait(lambda: len(complete(s, "twenty")) >= 20 or None, "twenty are complete", 120)
        finally:
            was.start()
            was.wait_ready(60 * st.SLOW)
        all_back(s)
        st.settles(lambda: [t["ID"] for t in s.tasks("twenty") if t["Status"]["State"] in ("running", "starting")], [], "what still runs of it")
        eq(sorted(t.get("Slot", 0) for t in complete(s, "twenty")), list(range(20)), "each slot is complete once")
        s.remove("twenty")


def test_a_time_is_served_once(s):
    """All daemons of the leader are killed a moment before the minute; whoever leads next finds what is due."""
    all_back(s)
    was = s.cluster.wait_leader()
    front = others(s, was.name)[0]
    with s.at(front):
        s.docker("service", "create", "-d", "--no-resolve-image", "--name", "tick", "--mode", "replicated-job", "--replicas", "1",
                 "--label", "microswarm.schedule=* * * * *", "busybox:latest", "true")
        due = json.loads(was.probe("orchestratord", "explain tick"))["schedule"]["next"]
        at = datetime.datetime.fromisoformat(due.replace("Z", "+00:00")).timestamp()

        def now():
            return datetime.datetime.now(datetime.timezone.utc).timestamp()
        s.wait(lambda: now() > at - 0.1 or None, "a moment before %s" % due, 90)
        was.hold("all", 9)
        try:
            s.wait(lambda: len(complete(s, "tick")) == 1 or None, "it has run", 40)
            status = s.inspect("tick")["JobStatus"]
            began = datetime.datetime.fromisoformat(status["LastExecution"][:19] + "+00:00").timestamp()
            eq((status["JobIteration"], began - at < 40 * st.SLOW * st.crowd()), ({"Index": 1}, True), "run, and when: " + status["LastExecution"])
        finally:
            was.release("all")
        eq(len(s.tasks("tick")), 1 if now() < at + 58 else len(s.tasks("tick")), "tasks")
        s.wait(lambda: s.inspect("tick")["JobStatus"]["JobIteration"]["Index"] >= 2 and len(complete(s, "tick")) == 1 or None, "the next minute", 90)
        late = int((now() - at) // 60)
        eq(s.inspect("tick")["JobStatus"]["JobIteration"]["Index"] <= late + 1, True, "one run a minute")
        s.remove("tick")


if __name__ == "__main__":
    st.main(lambda s: s.load("busybox"), managers=3, settings=SETTINGS)
