#!/usr/bin/python3
"""Disks of managers that run full while the others go on: a follower's, the leader's; nothing is lost, and all catch up."""

import http.client
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

SMALL = {}


def node(s, name):
    return s.cluster.node(name)


def names(s, via):
    try:
        return {x["Spec"]["Name"] for x in node(s, via).api.get("/services")}
    except (OSError, st.ApiError, http.client.HTTPException):
        return set()


def write(s, name, via):
    node(s, via).api.post("/services/create", {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "pause:latest"}},
                                               "Labels": {"l": "x" * 4000}, "Mode": {"Replicated": {"Replicas": 0}}})


def status(s, name):
    return json.loads(node(s, name).probe("raftd"))


def whole(s):
    def ok():
        docs = [status(s, n) for n in ("m1", "m2", "m3")]
        return sum(d.get("state") == "leader" for d in docs) == 1 and len({d.get("applied") for d in docs}) == 1

    def safe():
        try:
            return ok()
        except (OSError, ValueError, st.Failure):
            return False
    st.wait_until(safe, 60 * st.SLOW, "three managers that have applied the same")


def small_disk(s, name, size="24m"):
    """The node's state folder on a disk of its own."""
    n = node(s, name)
    n.power_off()
    state, real = n.path("state"), n.path("state-real")
    os.rename(state, real)
    os.mkdir(state)
    st.run("mount", "-t", "tmpfs", "-o", "size=%s,mode=1770,gid=%d" % (size, st.GID), "small", state)
    st.run("cp", "-a", real + "/.", state)
    n.start()
    n.wait_ready(60 * st.SLOW)
    SMALL[name] = (state, real)


def restore_disks(s):
    for name, (state, real) in SMALL.items():
        node(s, name).power_off()
        st.run("rm", "-rf", real)
        st.run("cp", "-a", state, real)
        if os.path.exists(real + "/ballast"):
            os.unlink(real + "/ballast")
        st.run("umount", "-l", state)
        os.rmdir(state)
        os.rename(real, state)
        node(s, name).start()
        node(s, name).wait_ready(60 * st.SLOW)
    SMALL.clear()


def fill_up(s, name):
    fd = os.open(node(s, name).path("state", "ballast"), os.O_WRONLY | os.O_CREAT, 0o600)
    for n in (65536, 4096):
        try:
            while True:
                os.write(fd, b"x" * n)
        except OSError:
            pass
    os.close(fd)


def make_room(s, name):
    os.unlink(node(s, name).path("state", "ballast"))


def try_write(s, name, via):
    try:
        write(s, name, via)
        return True
    except (OSError, st.ApiError, http.client.HTTPException):
        return name in names(s, via)


def starts(s, name):
    return next(d["starts"] for d in node(s, name).daemons() if d["name"] == "raftd")


def another_leads(s, victim):
    """Who leads, when that is not this one; it is made to hand over if an election has just chosen it."""
    for _ in range(5):
        lead = s.cluster.wait_leader().name
        if lead != victim:
            return lead
        node(s, victim).hold("raftd")
        node(s, victim).release("raftd")
        whole(s)
    raise st.Failure("%s leads again and again" % victim)


def test_a_followers_disk(s):
    """The leader and the other one are a majority: every write goes through. With room, the third has them all, too."""
    try:
        whole(s)
        leader = s.cluster.wait_leader().name
        victim = next(m for m in ("m1", "m2", "m3") if m != leader)
        small_disk(s, victim)
        whole(s)
        leader = another_leads(s, victim)
        before, mark = starts(s, victim), len(node(s, victim).logs("raftd"))
        fill_up(s, victim)
        wanted = ["ff%d" % i for i in range(120)]
        for name in wanted:
            write(s, name, leader)
        st.wait_until(lambda: "No space left" in node(s, victim).logs("raftd")[mark:], 30 * st.SLOW, "raftd on %s says that its disk is full" % victim)
        lines = len(re.findall("cannot write", node(s, victim).logs("raftd")[mark:]))
        eq(1 <= lines <= 3, True, "%d lines about it" % lines)
        eq(s.cluster.wait_leader([node(s, m) for m in ("m1", "m2", "m3") if m != victim]).name != victim, True, "another one leads")
        make_room(s, victim)
        st.wait_until(lambda: set(wanted) <= names(s, victim), 30 * st.SLOW, "%s has all of them" % victim)
        whole(s)
        eq(starts(s, victim), before, "starts of raftd on " + victim)
        restore_disks(s)
        whole(s)
        st.settles(lambda: set(wanted) - names(s, victim), set(), "%s has all of them after a restart" % victim)
    finally:
        restore_disks(s)


def test_the_leaders_disk(s):
    """Who can't write can't lead: the others go on without it, and what was acknowledged stays."""
    try:
        whole(s)
        victim = s.cluster.wait_leader().name
        small_disk(s, victim)
        whole(s)
        for _ in range(5):  # leadership went on while it was away: it shall have it again
            now = s.cluster.wait_leader().name
            if now == victim:
                break
            node(s, now).hold("raftd")
            node(s, now).release("raftd")
            whole(s)
        else:
            raise st.Skip("%s does not get to lead" % victim)
        other = next(m for m in ("m1", "m2", "m3") if m != victim)
        fill_up(s, victim)
        done, i = [], 0

        def some():
            nonlocal i
            i += 1
            name = "lf%d" % i
            if try_write(s, name, other):
                done.append(name)
            return len(done) >= 80

        st.wait_until(some, 60 * st.SLOW, "80 writes through %s while the disk of the leader, %s, is full" % (other, victim))
        make_room(s, victim)
        st.wait_until(lambda: set(done) <= names(s, victim), 60 * st.SLOW, "%s has all of them" % victim)
        whole(s)
        restore_disks(s)
        whole(s)
        for m in ("m1", "m2", "m3"):
            st.settles(lambda n=m: set(done) - names(s, n), set(), "%s has all of them after a restart" % m)
        contains(node(s, victim).logs("raftd"), "No space left")
    finally:
        restore_disks(s)


if __name__ == "__main__":
    st.main(managers=3)
