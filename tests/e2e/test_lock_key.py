#!/usr/bin/python3
"""Autolock and the node's own key: sealed on the disk of managers that lock themselves, whatever is killed and when."""

import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
import wire  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

MANAGERS = ("m1", "m2", "m3")
ROUNDS = 40 if os.environ.get("MICROSWARM_LONG") else 4
SEED = int(os.environ.get("SEED", str(random.randrange(1 << 31))))
KEY = {}


def node(s, name):
    return s.cluster.node(name)


def key_text(s, name):
    with open(node(s, name).path("state", "certificates", "swarm-node.key"), encoding="ascii") as f:
        return f.read()


def is_sealed(s, name):
    text = key_text(s, name)
    return "BEGIN ENCRYPTED PRIVATE KEY" in text and "BEGIN PRIVATE KEY" not in text


def opens(s, name, passphrase):
    """Does this open the file, as an operator would with openssl; and is it the key of the certificate?"""
    folder = node(s, name).path("state", "certificates")
    p = subprocess.run(["openssl", "pkey", "-in", folder + "/swarm-node.key", "-passin", "pass:" + passphrase, "-pubout"],
                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    if p.returncode != 0:
        return False
    eq(p.stdout, st.run("openssl", "x509", "-in", folder + "/swarm-node.crt", "-noout", "-pubkey"), "the key of " + name)
    return True


def gateway(s, name):
    return json.loads(node(s, name).probe("gatewayd", "identity"))


def gateway_is(s, name, **want):
    """Once it runs: what it says of the node's identity."""
    try:
        have = gateway(s, name)
    except st.Failure:
        return False
    return all(have.get(k) == v for k, v in want.items())


def follows(s, name):
    """Both daemons of the manager have sealed their keys with the same unlock key, or with none."""
    try:
        raftd, gw = json.loads(node(s, name).probe("raftd")), gateway(s, name)
    except st.Failure:
        return False
    return raftd.get("unlock_key_epoch", 0) == gw["unlock_key_epoch"] and gw["key_sealed"] == (gw["unlock_key_epoch"] != 0)


def sealed_with(s, name, key):
    st.wait_until(lambda: follows(s, name) and is_sealed(s, name) == bool(key) and (not key or opens(s, name, key)), 30 * st.SLOW,
                  "%s's key is sealed with %s" % (name, "the unlock key" if key else "nothing"))


def state(s, name):
    return s.docker("info", "--format", "{{.Swarm.LocalNodeState}}", on=name)


def whole(s):
    def ok():
        try:
            nodes = node(s, "m1").api.get("/nodes")
        except (OSError, st.ApiError):
            return False
        return len(nodes) == 4 and all(n["Status"]["State"] == "ready" for n in nodes) and sorted(
            (n.get("ManagerStatus") or {}).get("Reachability", "") for n in nodes) == ["", "reachable", "reachable", "reachable"]
    st.wait_until(ok, 60 * st.SLOW, "all nodes are ready")


def test_on_and_off(s):
    for name in MANAGERS:
        eq(is_sealed(s, name), False, name)
    s.docker("swarm", "update", "--autolock=true")
    KEY["now"] = s.docker("swarm", "unlock-key", "-q")
    for name in MANAGERS:
        sealed_with(s, name, KEY["now"])
        eq(opens(s, name, "SWMKEY-1-" + "A" * 43), False)
    eq(is_sealed(s, "w1"), False, "a worker's key")
    s.docker("swarm", "update", "--autolock=false")
    for name in MANAGERS:
        sealed_with(s, name, None)
    s.docker("swarm", "update", "--autolock=true")
    KEY["now"] = s.docker("swarm", "unlock-key", "-q")
    for name in MANAGERS:
        sealed_with(s, name, KEY["now"])


def kill(s, name, daemon):
    """kill -9, as soon as there is something to kill."""
    def killed():
        try:
            node(s, name).kill(daemon)
        except st.Failure:  # the last one's successor has not started yet
            return False
        return True
    st.wait_until(killed, 20 * st.SLOW, "%s of %s" % (daemon, name))


def test_gatewayd_alone_needs_nobody(s):
    """As long as raftd's store is open it opens the node's key: a gatewayd that crashes locks nobody out, for no moment."""
    for i in range(10):
        kill(s, "m1", "gatewayd")

        def back(i=i):
            eq(node(s, "m1").api.get("/info")["Swarm"]["LocalNodeState"], "active", "round %d" % i)
            return gateway_is(s, "m1", state="active")
        st.wait_until(back, 20 * st.SLOW, "gatewayd is active")
    whole(s)
    sealed_with(s, "m1", KEY["now"])


def test_renewal_stays_sealed(s):
    """Keys of new certificates are sealed from the first moment."""
    before = {m: key_text(s, m) for m in MANAGERS}
    s.docker("swarm", "ca", "--rotate", "--quiet", timeout=120 * st.SLOW)
    for name in MANAGERS:
        st.wait_until(lambda n=name: key_text(s, n) != before[n], 30 * st.SLOW, "%s has another key" % name)
        sealed_with(s, name, KEY["now"])
        contains(json.dumps(gateway(s, name)), '"key_sealed": true')
    whole(s)


def reboot(s, name):
    node(s, name).power_off()
    node(s, name).start()
    node(s, name).wait_ready(60 * st.SLOW)


def served(s, name):
    """Does anybody listen on 2377?"""
    try:
        wire.connect(s.cluster, node(s, name), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_locked(s):
    """Without the key a powered off manager serves nothing, and says so."""
    eq(served(s, "m3"), True)
    reboot(s, "m3")
    st.wait_until(lambda: state(s, "m3") == "locked" and gateway_is(s, "m3", state="locked"), 20 * st.SLOW, "m3 is locked")
    eq(gateway(s, "m3")["listening"], False)
    eq(served(s, "m3"), False)
    s.docker_fails("swarm", "unlock", on="m3", input="SWMKEY-1-" + "A" * 43 + "\n", say="invalid key")
    s.docker_fails("swarm", "join", "--token", s.cluster.tokens()["Worker"], node(s, "m1").addr, on="m3", say="already part of a swarm")
    node(s, "m3").kill("gatewayd")
    node(s, "m3").wait_ready(60 * st.SLOW)
    st.wait_until(lambda: gateway_is(s, "m3", state="locked"), 20 * st.SLOW, "m3's gatewayd is locked")
    s.docker("swarm", "unlock", on="m3", input=KEY["now"] + "\n")
    st.settles(lambda: state(s, "m3"), "active", "m3 is open")
    whole(s)


def unlock_with(s, name, keys):
    """The key that opens it: it is the new one or, when it was powered off early, the one before."""
    for key in keys:
        try:
            s.docker("swarm", "unlock", on=name, input=key + "\n")
            return key
        except st.Failure as e:
            contains(str(e), "invalid key")
    raise st.Failure("%s: no key opens it (SEED=%d)" % (name, SEED))


def change(s, keys):
    """The unlock key is rotated, or autolock is switched off and on."""
    if random.randrange(3):
        keys.append(s.docker("swarm", "unlock-key", "--rotate", "-q"))
    else:
        s.docker("swarm", "update", "--autolock=false")
        s.docker("swarm", "update", "--autolock=true")
        keys.append(s.docker("swarm", "unlock-key", "-q"))


def test_power_goes_in_the_middle(s):
    """At a random moment of a rotation the power of a manager goes: whatever opens its store opens its key, too."""
    random.seed(SEED)
    print("SEED=%d" % SEED, flush=True)
    keys = [KEY["now"]]
    for i in range(ROUNDS):
        victim = random.choice([m for m in MANAGERS if s.cluster.wait_leader().name != m and m != "m1"] or ["m2"])
        change(s, keys)
        time.sleep(random.choice((0, random.uniform(0, 0.03))))  # wait: a random moment
        reboot(s, victim)
        st.wait_until(lambda v=victim: state(s, v) in ("locked", "active"), 30 * st.SLOW, victim + " is up")
        if state(s, victim) == "locked":
            unlock_with(s, victim, list(reversed(keys)))
        whole(s)
        for name in MANAGERS:
            sealed_with(s, name, keys[-1])
        eq(opens(s, victim, keys[-2]), False, "round %d: the key before" % i)
        KEY["now"] = keys[-1]


def test_killed_in_the_middle(s):
    """The same with kill -9 of the two daemons that hold keys, once and again."""
    keys = [KEY["now"]]
    for _ in range(ROUNDS):
        change(s, keys)
        for _ in range(3):
            kill(s, "m3", random.choice(("gatewayd", "raftd")))
            time.sleep(random.uniform(0, 0.05))  # wait: a random moment
        node(s, "m3").wait_ready(60 * st.SLOW)
        st.wait_until(lambda: state(s, "m3") in ("locked", "active"), 30 * st.SLOW, "m3 is up")
        if state(s, "m3") == "locked":
            unlock_with(s, "m3", list(reversed(keys)))
        whole(s)
        for name in MANAGERS:
            sealed_with(s, name, keys[-1])
        KEY["now"] = keys[-1]


def test_all_powered_off(s):
    for name in MANAGERS:
        node(s, name).power_off()
    for name in MANAGERS:
        node(s, name).start()
    for name in MANAGERS:
        node(s, name).wait_ready(60 * st.SLOW)
        st.wait_until(lambda n=name: state(s, n) == "locked", 30 * st.SLOW, name + " is locked")
    for name in MANAGERS:
        s.docker("swarm", "unlock", on=name, input=KEY["now"] + "\n")
    whole(s)


def files_with(folder, *needles):
    """Files below that hold one of these byte strings."""
    found = []
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            with open(path, "rb") as f:
                data = f.read()
            found += ["%s in %s" % (n[:24], path) for n in needles if n in data]
    return found


def scalar(s, name):
    """The node's private key itself: 32 bytes."""
    text = st.run("openssl", "pkey", "-in", node(s, name).path("state", "certificates", "swarm-node.key"), "-passin", "pass:" + KEY["now"], "-noout", "-text")
    digits = text.split("priv:")[1].split("pub:")[0]
    return bytes.fromhex("".join(digits.split()).replace(":", ""))[-32:]


def test_keys_stay_inside(s):
    """Not in a log, not in the map that every daemon reads, not on a manager's disk; and no core file would hold them."""
    tokens = [t.rsplit("-", 1)[1].encode() for t in s.cluster.tokens().values()]
    for name in MANAGERS:
        n = node(s, name)
        secrets = [KEY["now"].encode(), KEY["now"][len("SWMKEY-1-"):].encode(), scalar(s, name), b"BEGIN PRIVATE KEY", b"BEGIN EC PRIVATE KEY"] + tokens
        eq(files_with(n.path("state"), *secrets), [], "on the disk")
        eq(files_with(n.path("log"), *secrets), [], "in the logs")
        eq(files_with(n.path("run", "state"), *secrets), [], "in the map of all daemons")
        for d in n.daemons() if not st.SANITIZED else ():  # a sanitizer needs what is taken away with it
            pid = n.to_host_pid(d["pid"])
            eq(os.stat("/proc/%d/environ" % pid).st_uid, 0, "%s can be dumped" % d["name"])
    # the search would find them
    eq(len(files_with(node(s, "m1").path("run", "secret"), KEY["now"].encode(), *tokens)) >= 3, True)
    eq(len(files_with(node(s, "w1").path("state", "certificates"), b"BEGIN PRIVATE KEY")), 1)


def test_demoted(s):
    """A worker's key is not sealed; promoted again, it is."""
    s.docker("node", "demote", "m3")
    st.wait_until(lambda: gateway_is(s, "m3", role="worker") and not is_sealed(s, "m3"), 30 * st.SLOW, "m3 is a worker with a plain key")
    reboot(s, "m3")
    st.wait_until(lambda: state(s, "m3") == "active" and gateway_is(s, "m3", role="worker"), 30 * st.SLOW, "m3 is a worker")
    s.docker("node", "promote", "m3")
    sealed_with(s, "m3", KEY["now"])
    whole(s)


def test_store_is_gone(s):
    """Demoted, and powered off before it had its new certificate: the unlock key alone opens the node's key."""
    node(s, "m3").power_off()
    subprocess.run(["rm", "-rf", node(s, "m3").path("state", "raft")], check=True)
    node(s, "m3").start()
    node(s, "m3").wait_ready(60 * st.SLOW)
    st.wait_until(lambda: state(s, "m3") == "locked", 30 * st.SLOW, "m3 is locked")
    s.docker_fails("swarm", "unlock", on="m3", input="SWMKEY-1-" + "A" * 43 + "\n", say="invalid key")
    s.docker("swarm", "unlock", on="m3", input=KEY["now"] + "\n")
    st.wait_until(lambda: gateway_is(s, "m3", state="active"), 30 * st.SLOW, "m3 is open")


def test_leave_locked(s):
    reboot(s, "m2")
    st.wait_until(lambda: state(s, "m2") == "locked", 30 * st.SLOW, "m2 is locked")
    contains(s.docker_fails("swarm", "leave", on="m2"), "Swarm is encrypted and locked.")
    s.docker("swarm", "leave", "--force", on="m2")
    eq(state(s, "m2"), "inactive")
    eq(sorted(os.listdir(node(s, "m2").path("state", "certificates"))), [])


if __name__ == "__main__":
    st.main(managers=3, workers=1)
