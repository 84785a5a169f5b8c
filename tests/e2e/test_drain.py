#!/usr/bin/python3
"""Tasks that stop: nobody sends them anything new, what is open may end, and what nobody connects to stops at once."""

import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

SERVE = ("nc", "-ll", "-p", "9000", "-e", "cat")  # sends back what it gets, on any number of connections
LABEL = "microswarm.drain-period"

# Says a word a tenth of a second and wants it back, until its input ends: then prints how often, and what went wrong.
TALK = """
import os, select, socket, sys
s = socket.create_connection((%(addr)r, 9000), timeout=20)
n, bad = 0, ''
while not select.select([0], [], [], 0.1)[0]:
    try:
        s.sendall(b'word')
        got = s.recv(4)
    except OSError as e:
        bad = str(e)
        break
    if not got:
        bad = 'closed'
        break
    n += 1
    if n == 1:
        print('talking', flush=True)
print(n, bad, flush=True)
"""


class Talk:
    """A connection through a node's published port, from outside of the swarm."""

    def __init__(self, s, node):
        self.p = subprocess.Popen(s.cluster.outside(sys.executable, "-c", TALK % {"addr": node.addr}), stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        eq(self.p.stdout.readline(), "talking\n")

    def ended(self):
        return self.p.poll() is not None

    def stop(self):
        """(words, what went wrong)"""
        self.p.stdin.close()
        n, _, bad = self.p.stdout.readline().strip().partition(" ")
        self.p.wait(20)
        return int(n), bad


def setup(s):
    s.load("busybox")
    s.load("pause")
    s.docker("network", "create", "-d", "overlay", "front")


def drains(s):
    """(so many tasks waited for all nodes, so many for too long)"""
    text = s.m1.probe("dispatcherd", "metrics")
    return tuple(int(re.search(r"^microswarm_dispatcherd_%s_total (\d+)$" % what, text, re.M).group(1))
                 for what in ("drains", "drains_late"))


def heard(s):
    """Until every node has what the managers say."""
    def all_have():
        v = json.loads(s.m1.probe("dispatcherd", "networks"))
        return all(n["polling"] and n["has_revision"] for n in v["nodes"]) and not v["to_answer"] or None
    s.wait(all_have, "every node has heard of the networks")


def serve(s, name, *options, where="w1"):
    s.create(name, "busybox:latest", "-p", "9000:9000", "--constraint", "node.hostname==" + where, *options, args=SERVE)
    task = s.wait_running(name, 1)[0]
    heard(s)
    return task


def state(s, task):
    """Observed state of a task, None when it is gone."""
    return next((t["Status"]["State"] for t in s.api.get("/tasks") if t["ID"] == task["ID"]), None)


def delete(s, name):
    s.api.delete("/services/" + s.inspect(name)["ID"])


def gone(s, task, seconds=30):
    s.wait(lambda: state(s, task) is None or None, "the task is gone", seconds)


def test_what_is_open_may_end(s):
    task = serve(s, "serve", "--label", LABEL + "=10m")
    before = drains(s)
    talks = [Talk(s, s.m1), Talk(s, s.cluster.node("w1"))]
    delete(s, "serve")
    s.wait(lambda: drains(s)[0] > before[0] or None, "it drains")
    refused = s.cluster.outside("curl", "-sS", "--max-time", "1", "http://%s:9000/" % s.m1.addr)
    s.wait(lambda: subprocess.run(refused, capture_output=True).returncode in (7, 28, 56) or None, "nothing new gets there")
    eq(state(s, task), "running")
    eq([t.ended() for t in talks], [False, False])
    said = [t.stop() for t in talks]
    eq([bad for _, bad in said], ["", ""])
    gone(s, task)
    eq(drains(s)[1], before[1], "nodes that did not confirm")


def test_no_longer_than_its_period(s):
    for period in ("1s", "0"):
        task = serve(s, "serve", "--label", "%s=%s" % (LABEL, period))
        talk = Talk(s, s.m1)
        delete(s, "serve")
        gone(s, task)
        s.wait(lambda t=talk: t.ended() or None, "the connection is cut")
        n, bad = talk.stop()
        if not bad:
            raise st.Failure("after %d words the connection was not cut" % n)


def test_period_of_a_running_service(s):
    """The label may change while tasks run: they are not replaced, and stop by the new one."""
    task = serve(s, "serve", "--label", LABEL + "=10m")
    talk = Talk(s, s.m1)
    s.docker("service", "update", "-d", "--no-resolve-image", "--label-add", LABEL + "=1s", "serve")
    eq(state(s, task), "running")
    delete(s, "serve")
    gone(s, task)
    s.wait(lambda: talk.ended() or None, "the connection is cut")
    eq(bool(talk.stop()[1]), True)


def test_bad_periods(s):
    for period in ("soon", "-1s", "5", "25h"):
        s.docker_fails("service", "create", "-d", "--no-resolve-image", "--label", "%s=%s" % (LABEL, period), "busybox:latest",
                       say='Labels["%s"]' % LABEL)


def test_nobody_connects_to_it(s):
    """Without networks and published ports, and on a network where nobody is connected: nothing to wait for."""
    before = drains(s)
    s.create("alone", "pause:latest")
    s.wait_running("alone", 1)
    s.remove("alone")
    eq(drains(s), before)
    s.create("idle", "pause:latest", "--network", "front", "--label", LABEL + "=10m")
    task = s.wait_running("idle", 1)[0]
    heard(s)
    delete(s, "idle")
    gone(s, task)
    eq(drains(s), (before[0] + 1, before[1]))


def test_a_node_does_not_answer(s):
    """Its meshd hangs: what stops waits for a while, and not for ever."""
    task = serve(s, "serve", where="m1")
    before = drains(s)
    w1 = s.cluster.node("w1")
    w1.kill("meshd", "STOP")
    try:
        delete(s, "serve")
        gone(s, task)
        eq(drains(s), (before[0] + 1, before[1] + 1))
        contains(s.m1.logs("dispatcherd"), "although not every node has confirmed")
    finally:
        w1.kill("meshd", "CONT")
    heard(s)


def test_keys_are_made_once(s):
    made = re.search(r"^microswarm_cad_network_keys_made_total (\d+)$", s.m1.probe("cad", "metrics"), re.M)
    eq(made and made.group(1), "1")


if __name__ == "__main__":
    st.main(setup, managers=1, workers=1)
