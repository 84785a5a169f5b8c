#!/usr/bin/python3
"""A swarm that was off until all its certificates had expired: the managers elect a leader all the same, and it renews them."""

import json
import os
import shutil
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
import wire  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

DAY = 86400
MANAGERS = ("m1", "m2", "m3")
NOW = {"skew": 0}


def write(node, seconds):
    """In place: the daemons have the file mapped."""
    path = node.path("etc", "microswarm", "skew")
    with open(path, "r+b" if os.path.exists(path) else "wb") as f:
        f.write(struct.pack("q", int(seconds * 10**9)))


def setup(s):
    for n in s.cluster.nodes():
        n.halt()
        write(n, 0)
        n.start()
    for n in s.cluster.nodes():
        n.wait_ready(60 * st.SLOW)
    s.cluster.init(60 * st.SLOW)
    s.cluster.join_all(60 * st.SLOW)
    whole(s)


def node(s, name):
    return s.cluster.node(name)


def identity(s, name):
    try:
        return json.loads(node(s, name).probe("gatewayd", "identity"))
    except st.Failure:
        return {}


def valid(s, name):
    i = identity(s, name)
    return i.get("not_after", 0) > time.time() + NOW["skew"] and i.get("state") == "active"


def whole(s, via="m1"):
    def ok():
        try:
            nodes = node(s, via).api.get("/nodes")
        except (OSError, st.ApiError):
            return False
        return len(nodes) == 4 and all(n["Status"]["State"] == "ready" for n in nodes) and sorted(
            (n.get("ManagerStatus") or {}).get("Reachability", "") for n in nodes) == ["", "reachable", "reachable", "reachable"]
    st.wait_until(ok, 40 * st.SLOW, "all nodes are ready")


def off_for(s, seconds, boot=None):
    """Everything without power for so long; then these come back, or all."""
    for n in s.cluster.nodes():
        n.power_off()
    NOW["skew"] += seconds
    for n in s.cluster.nodes():
        write(n, NOW["skew"])
    for n in s.cluster.nodes():
        if boot is None or n.name in boot:
            n.start()
    for n in s.cluster.nodes():
        if boot is None or n.name in boot:
            n.wait_ready(60 * st.SLOW)


def in_log(s, names, text):
    return [n for n in names if text in node(s, n).logs("gatewayd")]


def saved(s, name, what):
    """A copy of the node's certificate and key, as a thief would have it."""
    folder = os.path.join(s.cluster.dir, "saved-" + what)
    os.makedirs(folder, exist_ok=True)
    for f in ("swarm-node.crt", "swarm-node.key"):
        shutil.copy(node(s, name).path("state", "certificates", f), folder)
    return os.path.join(folder, "swarm-node.crt"), os.path.join(folder, "swarm-node.key")


def refused(s, via, ident, say):
    try:
        with wire.Link(s.cluster, node(s, via), ident) as l:
            l.ask("cad", "root", {})
    except wire.Closed as e:
        contains(str(e), say)
        return
    raise st.Failure("an expired certificate was let in: %s" % ident[0])


def test_all_expired(s):
    s.create("kept", "none:latest", "--replicas", "0")
    off_for(s, 200 * DAY)
    for name in MANAGERS + ("w1",):
        st.wait_until(lambda n=name: valid(s, n), 40 * st.SLOW, "%s has a new certificate" % name)
    whole(s)
    for name in MANAGERS:
        with s.at(name):
            eq(s.inspect("kept")["Spec"]["Name"], "kept")
    s.create("after", "none:latest", "--replicas", "0")
    s.docker("service", "rm", "kept", "after")
    if not in_log(s, MANAGERS, "the certificate has expired and no manager leads"):
        raise st.Failure("nobody said that it goes on with an expired certificate")
    if not in_log(s, MANAGERS, "an expired certificate is taken, for Raft alone"):
        raise st.Failure("nobody said that it takes an expired certificate")


def test_a_majority_is_enough(s):
    """Two of three come back first; the third, and a worker, renew when there is a leader."""
    off_for(s, 300 * DAY, ("m2", "m3"))
    for name in ("m2", "m3"):
        st.wait_until(lambda n=name: valid(s, n), 40 * st.SLOW, "%s has a new certificate" % name)
    for name in ("m1", "w1"):
        node(s, name).start()
        node(s, name).wait_ready(60 * st.SLOW)
        st.wait_until(lambda n=name: valid(s, n), 40 * st.SLOW, "%s has a new certificate" % name)
    whole(s)


def test_what_it_opens(s):
    """While there is no leader, an expired certificate of a known manager is for Raft alone; any other opens nothing."""
    first = saved(s, "m3", "first")
    worker = saved(s, "w1", "worker")
    s.docker("node", "demote", "m3")
    st.wait_until(lambda: identity(s, "m3").get("role") == "worker", 30 * st.SLOW, "m3 is a worker")
    s.docker("node", "promote", "m3")
    whole(s)
    st.wait_until(lambda: identity(s, "m3").get("role") == "manager", 30 * st.SLOW, "m3 is a manager")
    last = saved(s, "m3", "last")
    off_for(s, 200 * DAY, ("m1",))
    eq(identity(s, "m1").get("listening"), False)
    st.wait_until(lambda: identity(s, "m1").get("listening"), 60 * st.SLOW, "m1 goes on with its expired certificate")
    with wire.Link(s.cluster, node(s, "m1"), last) as l:
        for svc, op in (("raftd", "barrier"), ("raftd", "status"), ("cad", "root"), ("cad", "issue")):
            code, text, _ = l.ask(svc, op, {}, by="raftd")
            eq(code, "unavailable", "%s.%s" % (svc, op))
            contains(text, "for Raft alone")
    refused(s, "m1", first, "has expired")  # an older key of the same node
    refused(s, "m1", worker, "has expired")
    for name in ("m2", "m3", "w1"):
        node(s, name).start()
        node(s, name).wait_ready(60 * st.SLOW)
    whole(s)
    # with a leader nobody takes it any more
    try:
        wire.Link(s.cluster, node(s, "m1"), last).close()
    except wire.Closed as e:
        contains(str(e).lower(), "expired")
    else:
        raise st.Failure("an expired certificate was let in although there is a leader")


def test_one_left(s):
    """Two managers are lost for good, the certificate of the third has expired: --force-new-cluster."""
    whole(s)
    s.create("kept", "none:latest", "--replicas", "0")
    off_for(s, 200 * DAY, ("m1", "w1"))
    st.wait_until(lambda: identity(s, "m1").get("state") == "active", 30 * st.SLOW, "m1 is up")
    s.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", node(s, "m1").addr, on="m1", timeout=120 * st.SLOW)
    for name in ("m1", "w1"):
        st.wait_until(lambda n=name: valid(s, n), 40 * st.SLOW, "%s has a new certificate" % name)
    eq(s.inspect("kept")["Spec"]["Name"], "kept")

    def back():
        return {n["Description"].get("Hostname"): n["Status"]["State"] for n in s.api.get("/nodes")}.get("w1") == "ready"
    st.wait_until(back, 60 * st.SLOW, "w1 is ready")


if __name__ == "__main__":
    preload = os.path.join(os.path.dirname(os.path.abspath(st.bin_dir())), "tests", "skew.so")
    env = {"LD_PRELOAD": preload}
    if st.SANITIZED:  # its library must be the first; it comes into crun and others, whose leaks are not ours
        asan = st.run("sh", "-c", "ldd %s | sed -n 's/.*libasan[^/]* => \\([^ ]*\\).*/\\1/p'" % os.path.join(st.bin_dir(), "raftd")).strip()
        env = {"LD_PRELOAD": asan + ":" + preload, "ASAN_OPTIONS": "detect_leaks=0"}
    st.main(setup, init=False, managers=3, workers=1, env=env)
