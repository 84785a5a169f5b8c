#!/usr/bin/python3
"""Clocks that jump, and clocks that are wrong, by libfaketime (the wall clock alone; timers run on the monotonic one)."""

import glob
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import eq  # noqa: E402

LIB = (glob.glob("/usr/lib/*/faketime/libfaketime.so.1") or [""])[0]
SKEWS = {"w1": "+1h", "w2": "+1d", "w3": "-1h", "w4": "-1d"}


def setup(s):
    # A preloaded library must come after a sanitizer's own.
    if not LIB or st.SANITIZED:
        raise st.Skip("no libfaketime" if not LIB else "not under sanitizers")
    shifted = s.m1.sh("env", "LD_PRELOAD=" + LIB, "FAKETIME=+10d", "date", "+%s")
    if abs(int(shifted) - int(s.m1.sh("date", "+%s")) - 864000) > 5:
        raise st.Skip("libfaketime has no effect here")
    s.cluster.init(30 * st.SLOW)
    s.load("pause")


def set_clock(node, skew):
    path = node.path("etc", "microswarm", "faketime")
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(skew + "\n")
    os.rename(path + ".new", path)


def pauses(n):
    return sorted(n.sh("sh", "-c", "pgrep -x pause || true").split())


def test_the_clock_jumps(s):
    """Days to and fro: no container is touched, and the swarm does what it is told, each time."""
    s.create("jump", "pause:latest", "--replicas", "2")
    s.wait_running("jump", 2)
    kept = pauses(s.m1)
    for i, skew in enumerate(("+1h", "+2d", "-3d", "+0")):
        set_clock(s.m1, skew)
        s.create("after%d" % i, "pause:latest", "--restart-delay", "100ms")
        t = s.wait_running("after%d" % i)[0]
        s.kill_container(t)
        s.wait(lambda n="after%d" % i, old=t["ID"]: [x for x in s.running(n) if x["ID"] != old] or None, "%s: a restart after its delay" % skew)
        eq(s.api.get("/nodes")[0]["Status"]["State"], "ready", skew)
        s.remove("after%d" % i)
        eq(pauses(s.m1), kept, "containers after the clock went to " + skew)
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
            print("# %s: %s" % (skew, e))
            text = str(e).lower()
            if not any(w in text for w in ("valid", "expired", "clock", "time")):
                raise st.Failure("%s: refused without a word about the clock: %s" % (skew, e)) from None
            n.api.post("/swarm/leave?force=true")
            continue
        s.wait(lambda n=name: any(x["Description"].get("Hostname") == n and x["Status"]["State"] == "ready" for x in s.api.get("/nodes")) or None,
               "%s with its clock at %s is ready" % (name, skew))
        s.create("on-" + name, "pause:latest", "--constraint", "node.hostname==" + name)
        s.wait_running("on-" + name)
        s.remove("on-" + name)
        print("# %s: works" % skew)
    eq(s.api.get("/nodes/m1")["Status"]["State"], "ready")


if __name__ == "__main__":
    st.main(setup, init=False, workers=4, env={
        "LD_PRELOAD": LIB, "FAKETIME_TIMESTAMP_FILE": "/etc/microswarm/faketime", "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1"} if LIB and not st.SANITIZED else {})
