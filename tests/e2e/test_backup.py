#!/usr/bin/python3
"""A backup is taken while clients write; a swarm that lost every manager's disk comes back from it, its worker by itself."""

import os
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import load  # noqa: E402
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

PASSPHRASE = "correct horse plain"


def setup(s):
    s.load("pause")
    s.keep.add("plainname31")
    s.pass_file = os.path.join(s.tmp, "passphrase")
    s.file = os.path.join(s.tmp, "swarm.backup")
    with open(s.pass_file, "w", encoding="ascii") as f:
        f.write(PASSPHRASE + "\n")


def fails(s, say, *argv):
    try:
        out = s.swarmctl(*argv)
    except st.Failure as e:
        if say.lower() not in str(e).lower():
            raise st.Failure("wrong error: %s\n  wanted: %s" % (e, say)) from None
        return
    raise st.Failure("swarmctl %s should fail, but answered: %s" % (" ".join(argv), out))


def pauses(n):
    return sorted(n.sh("sh", "-c", "pgrep -x pause || true").split())


def test_backup_while_writing(s):
    s.create("plainname31", "pause:latest", "--replicas", "3", "--constraint", "node.role==worker", "--label", "a=b")
    s.wait_running("plainname31", 3)
    s.docker("node", "update", "--label-add", "zone=north", "w1")
    s.was = {"service": s.inspect("plainname31"), "swarm": s.api.get("/swarm"), "nodes": {n["Description"]["Hostname"]: n["ID"] for n in s.api.get("/nodes")},
             "pauses": pauses(s.cluster.node("w1"))}
    writer = load.Writer(s.cluster.node("m1"), "meanwhile")
    writer.start()
    try:
        writer.first_after(0)
        s.before = [a[2] for a in list(writer.acked)]
        t0 = time.monotonic()
        lead = s.cluster.wait_leader().name
        follower = next(m for m in ("m2", "m3") if lead != m)
        with s.at(follower):
            contains(s.swarmctl("swarm", "backup", "--passphrase-file", s.pass_file, s.file), "written")
        writer.first_after(time.monotonic())
        gap = writer.longest_gap(t0, time.monotonic())
        if gap > 2 * st.SLOW * st.crowd():
            raise st.Failure("no write was acknowledged for %.2f s during the backup" % gap)
    finally:
        writer.stop()
    eq(os.stat(s.file).st_mode & 0o777, 0o600)
    with open(s.file, "rb") as f:
        data = f.read()
    for word in ("plainname31", PASSPHRASE, s.was["swarm"]["JoinTokens"]["Manager"].split("-")[3], "BEGIN EC PRIVATE", "BEGIN PRIVATE"):
        if word.encode() in data:
            raise st.Failure("%s is readable in the backup" % word)
    load.remove([writer], s.api)


def test_refusals(s):
    with s.at("w1"):
        fails(s, "not a swarm manager", "swarm", "backup", "--passphrase-file", s.pass_file, s.file + ".w1")
    eq(os.path.exists(s.file + ".w1") or os.path.exists(s.file + ".w1.part"), False, "half a backup is none")
    fails(s, "part of a swarm", "swarm", "restore", "--passphrase-file", s.pass_file, s.file)
    empty = os.path.join(s.tmp, "empty")
    with open(empty, "w", encoding="ascii"):
        pass
    fails(s, "passphrase", "swarm", "backup", "--passphrase-file", empty, s.file + ".x")


def test_every_manager_is_lost(s):
    for m in ("m1", "m2", "m3"):
        s.cluster.node(m).power_off()
        shutil.rmtree(s.cluster.node(m).path("state"))
    eq(pauses(s.cluster.node("w1")), s.was["pauses"], "the worker's containers without any manager")
    m1 = s.cluster.node("m1")
    m1.start()
    m1.wait_ready(60 * st.SLOW)
    st.settles(lambda: m1.api.get("/info")["Swarm"]["LocalNodeState"], "inactive", "m1 has forgotten all")


def test_bad_backups(s):
    """A wrong passphrase, a file cut short, a flipped bit: a clear word, and the node stays outside."""
    with open(s.file, "rb") as f:
        data = f.read()
    wrong = os.path.join(s.tmp, "wrong")
    with open(wrong, "w", encoding="ascii") as f:
        f.write("something else\n")
    fails(s, "passphrase", "swarm", "restore", "--passphrase-file", wrong, "--advertise-addr", s.m1.addr, s.file)
    broken = s.file + ".broken"
    for what in (data[:len(data) // 2], data[:-1], data[:100], b"", b"nonsense" * 100, data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1:]):
        with open(broken, "wb") as f:
            f.write(what)
        try:
            s.swarmctl("swarm", "restore", "--passphrase-file", s.pass_file, "--advertise-addr", s.m1.addr, broken)
        except st.Failure:
            st.settles(lambda: s.api.get("/info")["Swarm"]["LocalNodeState"], "inactive", "m1 stays outside")
            continue
        raise st.Failure("a broken backup of %d bytes was taken" % len(what))


def test_restore(s):
    contains(s.swarmctl("swarm", "restore", "--passphrase-file", s.pass_file, "--advertise-addr", s.m1.addr, s.file), "Swarm restored")
    s.cluster.wait_leader([s.m1])
    now = s.api.get("/swarm")
    eq((now["ID"], now["JoinTokens"], now["TLSInfo"]["TrustRoot"]), (s.was["swarm"]["ID"], s.was["swarm"]["JoinTokens"], s.was["swarm"]["TLSInfo"]["TrustRoot"]))
    got = s.inspect("plainname31")
    eq((got["ID"], got["Spec"]), (s.was["service"]["ID"], s.was["service"]["Spec"]))
    have = {x["Spec"]["Name"] for x in s.api.get("/services")}
    eq([n for n in s.before if n not in have], [], "writes that were acknowledged before the backup began")
    # the worker finds the manager at the address it knows, and nothing of its was touched
    s.wait(lambda: next(n for n in s.api.get("/nodes") if n["ID"] == s.was["nodes"]["w1"])["Status"]["State"] == "ready" or None, "w1 is back", 60)
    s.wait_running("plainname31", 3)
    eq(pauses(s.cluster.node("w1")), s.was["pauses"], "the worker's containers")
    eq(s.api.get("/nodes/" + s.was["nodes"]["w1"])["Spec"]["Labels"], {"zone": "north"})


def test_go_on(s):
    """Managers join anew, and the swarm does what it did."""
    for m in ("m2", "m3"):
        s.cluster.node(m).start()
        s.cluster.node(m).wait_ready(60 * st.SLOW)
        s.cluster.join(m)

    def three():
        return sum((n.get("ManagerStatus") or {}).get("Reachability") == "reachable" for n in s.api.get("/nodes")) == 3
    st.wait_until(three, 60 * st.SLOW, "three managers")
    s.docker("service", "scale", "-d", "plainname31=5")
    s.wait_running("plainname31", 5)
    s.cluster.node("m1").power_off()
    with s.at("m2"):
        s.cluster.wait_leader([s.cluster.node("m2")])
        s.docker("service", "scale", "-d", "plainname31=2", timeout=60 * st.SLOW)
        s.wait_running("plainname31", 2)
    s.cluster.node("m1").start()
    s.cluster.node("m1").wait_ready(60 * st.SLOW)


if __name__ == "__main__":
    st.main(setup, managers=3, workers=1)
