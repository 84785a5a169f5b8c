#!/usr/bin/python3
"""Clocks that jump, and clocks that are wrong: the wall clock of a node's daemons by tests/skew.c; timers run on the monotonic one."""

import contextlib
import json
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import eq  # noqa: E402

HOUR = 3600
SKEWS = {"w1": HOUR, "w2": 24 * HOUR, "w3": -HOUR, "w4": -24 * HOUR}


def setup(s):
    for n in s.cluster.nodes():
        n.halt()
        write(n, 0)
        n.start()
    for n in s.cluster.nodes():
        n.wait_ready(30)
    s.cluster.init(30)
    s.load("pause")


def write(node, seconds):
    """In place: the daemons have the file mapped."""
    path = node.path("etc", "microswarm", "skew")
    with open(path, "r+b" if os.path.exists(path) else "wb") as f:
        f.write(struct.pack("q", seconds * 10**9))


def set_clock(node, seconds):
    write(node, seconds)
    said = int(node.sh("date", "+%s", env=dict(os.environ, LD_PRELOAD=node.cluster.tool("skew.so"))))
    right = int(node.sh("date", "+%s"))
    if abs(said - right - seconds) > 5:
        raise st.Failure("%s: the clock is wrong by %d s, not %d" % (node.name, said - right, seconds))


def pauses(n):
    return sorted(n.sh("sh", "-c", "pgrep -x pause || true").split())


def test_the_clock_jumps(s):
    """Days to and fro: no container is touched, and the swarm does what it is told, each time."""
    s.create("jump", "pause:latest", "--replicas", "2")
    s.wait_running("jump", 2)
    kept = pauses(s.m1)
    for i, skew in enumerate((HOUR, 48 * HOUR, -72 * HOUR, 0)):
        set_clock(s.m1, skew)
        s.create("after%d" % i, "pause:latest", "--restart-delay", "100ms")
        t = s.wait_running("after%d" % i)[0]
        s.kill_container(t)
        s.wait(lambda n="after%d" % i, old=t["ID"]: [x for x in s.running(n) if x["ID"] != old] or None, "%+d s: a restart after its delay" % skew)
        eq(s.api.get("/nodes")[0]["Status"]["State"], "ready", "%+d s" % skew)
        s.remove("after%d" % i)
        eq(pauses(s.m1), kept, "containers after the clock went to %+d s" % skew)
    for d in s.m1.info["daemons"]:
        json.loads(s.m1.probe(d))
    s.remove("jump")


def test_join_with_a_wrong_clock(s):
    """A node whose clock is off by an hour or a day joins and works, or is told why not; the others don't notice."""
    tokens = s.cluster.tokens()
    for name, skew in SKEWS.items():
        n = s.cluster.node(name)
        set_clock(n, skew)
        try:
            s.cluster.join(name, token=tokens["Worker"])
        except st.Failure as e:
            print("# %+d s: %s" % (skew, e))
            text = (str(e) + n.api.get("/info")["Swarm"].get("Error", "")).lower()
            print("# docker info: %s" % n.api.get("/info")["Swarm"].get("Error"))
            if not any(w in text for w in ("not yet valid", "expired", "clock")):
                raise st.Failure("%+d s: refused without a word about the clock: %s" % (skew, e)) from None
            with contextlib.suppress(st.ApiError):  # it is outside already when the reason is for good
                n.api.post("/swarm/leave?force=true")
            continue
        s.wait(lambda n=name: any(x["Description"].get("Hostname") == n and x["Status"]["State"] == "ready" for x in s.api.get("/nodes")) or None,
               "%s with its clock at %+d s is ready" % (name, skew))
        s.create("on-" + name, "pause:latest", "--constraint", "node.hostname==" + name)
        s.wait_running("on-" + name)
        s.remove("on-" + name)
        print("# %+d s: works" % skew)
    eq(s.api.get("/nodes/m1")["Status"]["State"], "ready")


if __name__ == "__main__":
    preload = os.path.join(os.path.dirname(os.path.abspath(st.bin_dir())), "tests", "skew.so")
    env = {"LD_PRELOAD": preload}
    if st.SANITIZED:  # its library must be the first; it comes into crun and others, whose leaks are not ours
        asan = st.run("sh", "-c", "ldd %s | sed -n 's/.*libasan[^/]* => \\([^ ]*\\).*/\\1/p'" % os.path.join(st.bin_dir(), "raftd")).strip()
        env = {"LD_PRELOAD": asan + ":" + preload, "ASAN_OPTIONS": "detect_leaks=0"}
    st.main(setup, init=False, workers=4, env=env)
