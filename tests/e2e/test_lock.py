#!/usr/bin/python3
"""Autolock: a manager that restarts waits for its key; and what lies on a manager's disk says nothing to who takes it away."""

import contextlib
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

LOCKED = 'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
KEYS = {}


def node(s, name):
    return s.cluster.node(name)


def state(s, on):
    return s.docker("info", "--format", "{{.Swarm.LocalNodeState}}", on=on)


def unlock(s, name, key):
    """The client's own command: it reads the key from its input."""
    return s.docker("swarm", "unlock", on=name, input=key + "\n")


def unlock_fails(s, name, key, say):
    return s.docker_fails("swarm", "unlock", on=name, input=key + "\n", say=say)


def whole(s, via="m1"):
    def ok():
        nodes = node(s, via).api.get("/nodes")
        return sorted((n.get("ManagerStatus") or {}).get("Reachability", "") for n in nodes) == ["reachable"] * 3 and all(
            n["Status"]["State"] == "ready" for n in nodes)

    def safe():
        try:
            return ok()
        except (OSError, st.ApiError):
            return False
    st.wait_until(safe, 60 * st.SLOW, "three managers reachable and ready")


def locked(s, name):
    st.settles(lambda: (state(s, name), raftd_state(s, name)), ("locked", "locked"), "%s is locked" % name, 40)


def reboot(s, name):
    node(s, name).halt()
    node(s, name).start()
    node(s, name).wait_ready(60 * st.SLOW)


def raftd_state(s, name):
    doc = json.loads(node(s, name).probe("raftd"))
    return doc.get("state") or doc.get("State")


def test_init_autolock(s):
    out = s.docker("swarm", "init", "--autolock", "--advertise-addr", node(s, "m1").addr, on="m1")
    key = next(w for w in out.split() if w.startswith("SWMKEY-1-"))
    KEYS["first"] = key
    eq(s.docker("swarm", "unlock-key", "-q", on="m1"), key)
    s.cluster.wait_nodes(1, 30 * st.SLOW)
    for name in ("m2", "m3"):
        s.cluster.join(name)
    whole(s)
    for name in ("m2", "m3"):
        eq(s.docker("swarm", "unlock-key", "-q", on=name), key, name)
    s.docker_fails("swarm", "unlock", on="m1", input=key + "\n", say="not locked")


def test_locked_after_a_restart(s):
    lead = s.cluster.wait_leader().name
    victim = next(m for m in ("m2", "m3") if lead != m)
    KEYS["victim"] = victim
    s.create("before", "none:latest", "--replicas", "0")
    reboot(s, victim)
    locked(s, victim)
    for argv in (("node", "ls"), ("service", "ls"), ("swarm", "join-token", "worker")):
        contains(s.docker_fails(*argv, on=victim), LOCKED, " ".join(argv))
    contains(s.docker_fails("swarm", "leave", on=victim), "Swarm is encrypted and locked.")
    st.settles(lambda: s.api.get("/nodes/" + victim)["ManagerStatus"].get("Reachability"), "unreachable", victim + " is unreachable")
    unlock_fails(s, victim, "nonsense", "invalid key")
    unlock_fails(s, victim, "SWMKEY-1-" + "A" * 43, "invalid key")
    eq(state(s, victim), "locked")
    unlock(s, victim, KEYS["first"])
    whole(s)
    with s.at(victim):
        eq(s.inspect("before")["Spec"]["Name"], "before")
    s.docker("service", "rm", "before")


def test_rotate(s):
    victim = KEYS["victim"]
    new = s.docker("swarm", "unlock-key", "--rotate", "-q", on="m1")
    if new == KEYS["first"] or not new.startswith("SWMKEY-1-"):
        raise st.Failure("rotated to %s" % new)
    for name in ("m1", "m2", "m3"):
        st.wait_until(lambda n=name: s.docker("swarm", "unlock-key", "-q", on=n) == new, 20 * st.SLOW, "%s has the new key" % name)
    # Each manager wraps its keys anew by itself; a moment of grace, then the old one opens nothing.
    st.wait_until(lambda: KEYS["first"] != new and rewrapped(s, victim), 20 * st.SLOW, "%s wrapped its keys anew" % victim)
    reboot(s, victim)
    locked(s, victim)
    unlock_fails(s, victim, KEYS["first"], "invalid key")
    unlock(s, victim, new)
    whole(s)
    KEYS["second"] = new


def rewrapped(s, name):
    """raftd says in its status under which epoch of the unlock key its data key lies on the disk; equal everywhere when done."""
    docs = [json.loads(node(s, n).probe("raftd")) for n in ("m1", "m2", "m3", name)]
    epochs = {d.get("unlock_key_epoch", d.get("UnlockKeyEpoch")) for d in docs}
    return len(epochs) == 1


def test_all_managers_locked(s):
    """After a power cut of everything: each needs the key; with two of three unlocked the swarm is back."""
    s.create("kept", "none:latest", "--replicas", "0")
    for name in ("m1", "m2", "m3"):
        node(s, name).power_off()
    for name in ("m1", "m2", "m3"):
        node(s, name).start()
    for name in ("m1", "m2", "m3"):
        node(s, name).wait_ready(60 * st.SLOW)
        locked(s, name)
    unlock(s, "m1", KEYS["second"])
    unlock(s, "m2", KEYS["second"])
    s.cluster.wait_leader([node(s, "m1")])
    st.settles(lambda: s.inspect("kept")["Spec"]["Name"], "kept", "the service of before")
    eq(state(s, "m3"), "locked")
    unlock(s, "m3", KEYS["second"])
    whole(s)
    s.docker("service", "rm", "kept")


def on_disk(n, words):
    """Which of these words some file of the node's state holds, and where."""
    found = []
    for word in words:
        p = subprocess.run(["grep", "-rlaF", "--", word, n.path("state")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        found += ["%s: in %s" % (word, f) for f in p.stdout.split()]
    return found


def test_nothing_readable_on_the_disk(s):
    """With and without autolock, after snapshots too: no service name, environment, label, secret or token in plain."""
    words = ["plainname77", "plainenv88", "plainlabel99", "plaincommand66"]
    s.create("plainname77", "none:latest", "--replicas", "0", "--env", "PASSWORD=plainenv88", "--label", "plainlabel99=x", args=("plaincommand66",))
    with contextlib.suppress(st.Failure):  # secrets are not in this version's API
        s.docker("secret", "create", "plainsecret55", "-", input="plainpayload44")
        words += ["plainsecret55", "plainpayload44"]
    tokens = [s.docker("swarm", "join-token", "-q", r) for r in ("worker", "manager")]
    words += tokens + [t.split("-")[3] for t in tokens] + [KEYS["second"][len("SWMKEY-1-"):]]
    victim = KEYS["victim"]
    for autolock in ("true", "false"):
        s.docker("swarm", "update", "--autolock=" + autolock)
        for i in range(20):
            s.docker("service", "update", "-d", "--label-add", "n=%d" % i, "plainname77")
        whole(s)
        node(s, victim).halt()
        eq(on_disk(node(s, victim), words), [], "autolock=" + autolock)
        # the test would find it: the same words do lie in a file that has them
        probe = node(s, victim).path("state", "probe")
        with open(probe, "w", encoding="ascii") as f:
            f.write("xx" + words[0] + "yy")
        eq(len(on_disk(node(s, victim), words)), 1)
        os.unlink(probe)
        node(s, victim).start()
        node(s, victim).wait_ready(60 * st.SLOW)
        if autolock == "true":
            locked(s, victim)
            unlock(s, victim, s.docker("swarm", "unlock-key", "-q"))
        whole(s)
    s.docker("service", "rm", "plainname77")


def test_autolock_off(s):
    contains(s.docker("swarm", "update", "--autolock=false"), "Swarm updated.")
    contains(s.docker_fails("swarm", "unlock-key"), "no unlock key is set")
    victim = KEYS["victim"]
    st.wait_until(lambda: rewrapped(s, victim), 20 * st.SLOW, "keys wrapped anew")
    reboot(s, victim)
    whole(s)
    st.settles(lambda: state(s, victim), "active", victim + " needs no key")
    out = s.docker("swarm", "update", "--autolock=true")
    contains(out, "SWMKEY-1-")


def test_leave_while_locked(s):
    victim = KEYS["victim"]
    st.wait_until(lambda: rewrapped(s, victim), 20 * st.SLOW, "keys wrapped anew")
    reboot(s, victim)
    locked(s, victim)
    s.docker("swarm", "leave", "--force", on=victim)
    st.settles(lambda: state(s, victim), "inactive", victim + " is outside")


if __name__ == "__main__":
    st.main(init=False, managers=3)
