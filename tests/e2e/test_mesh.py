#!/usr/bin/python3
"""The routing mesh on three managers and two workers: every node answers for every replica, with the client's own address."""

import collections
import contextlib
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

CLIENT = "10.77.0.1"
ANSWER = re.compile(r"host=(\S+) client=(\[?[0-9a-fA-F.:]+?\]?):(\d+) server=")


def setup(s):
    s.load("echo")


def node(s, name):
    return s.cluster.node(name)


def ask_times(url, argv, times, seconds=5):
    """[(replica, client's address as it saw it)] of so many requests, each on a connection of its own."""
    out = st.run(*argv("curl", "-gsS", "--max-time", str(seconds * st.SLOW), *[url] * times))
    said = [(r, c) for r, c, _ in ANSWER.findall(out)]
    if len(said) != times:
        raise st.Failure("%s: %d answers of %d: %r" % (url, len(said), times, out[-200:]))
    return said


def ask(url, argv, seconds=5):
    return ask_times(url, argv, 1, seconds)[0]


def spread(url, argv, times):
    """How many answers came from each replica, and from which addresses it said they were asked."""
    said = ask_times(url, argv, times)
    return collections.Counter(r for r, _ in said), {c for _, c in said}


def replicas(s, name):
    """Container host names (the first twelve digits of the container's id, as echo says them) of running tasks."""
    return {t["Status"]["ContainerStatus"]["ContainerID"][:12] for t in s.tasks(name, **{"desired-state": "running"})
            if t["Status"]["State"] == "running"}


def wait_behind(s, name, port, want, nodes=None):
    """Until every node draws among all of these replicas and no others: what its meshd has in the kernel."""
    def same():
        for n in nodes or s.cluster.nodes():
            ports = json.loads(n.probe("meshd", "ports"))
            here = [p for p in ports if p["port"] == "tcp/%d" % port]
            if not here or len(set(here[0]["tasks"])) != want:
                return False
        return True
    s.wait(same, "%d tasks of %s behind port %d on every node" % (want, name, port))


def test_every_node_every_replica(s):
    s.create("web", "echo:latest", "-p", "8080:8080", "-p", "8053:8080/udp", "--replicas", "4")
    s.keep.add("web")
    s.wait_running("web", 4)
    wait_behind(s, "web", 8080, 4)
    want = replicas(s, "web")
    eq(len(want), 4)
    on = {t["NodeID"] for t in s.tasks("web")}
    if len(on) == len(s.cluster.nodes()):
        raise st.Failure("no node is without a task: this would not show much")
    for n in s.cluster.nodes():
        got, clients = spread("http://%s:8080/" % n.addr, s.cluster.outside, 60)
        eq(set(got), want, "replicas reached through " + n.name)
        eq(clients, {CLIENT}, "what they see through " + n.name)


def test_from_the_nodes(s):
    """A node's own localhost and its own address: it is the node that asks."""
    want = replicas(s, "web")
    for n in s.cluster.nodes():
        got, clients = spread("http://127.0.0.1:8080/", n.argv, 60)
        eq(set(got), want, "replicas reached from localhost of " + n.name)
        eq(clients, {n.addr}, "what they see of localhost of " + n.name)
        got, clients = spread("http://%s:8080/" % n.addr, n.argv, 10)
        eq(clients, {n.addr}, "what they see of %s itself" % n.name)
    got, clients = spread("http://%s:8080/" % node(s, "w2").addr, node(s, "w1").argv, 10)
    eq(clients, {node(s, "w1").addr}, "what they see of another node")


def six(s, n):
    """An IPv6 address for a node, with which clients outside can reach it."""
    addr = "fd4d::" + n.addr.rsplit(".", 1)[1]
    st.run(*s.cluster.outside("ip", "-6", "addr", "replace", "fd4d::1/64", "dev", "br0", "nodad"))
    n.sh("ip", "-6", "addr", "replace", addr + "/64", "dev", "eth0", "nodad")
    return addr


def test_ipv6(s):
    """By way of each node's proxy: tasks on all nodes answer, and see the node that was asked."""
    want = replicas(s, "web")
    for n in s.cluster.nodes():
        addr = six(s, n)
        for url, argv in (("http://[::1]:8080/", n.argv), ("http://[%s]:8080/" % addr, s.cluster.outside)):
            got, clients = spread(url, argv, 60)
            eq(set(got), want, "replicas reached at %s of %s" % (url, n.name))
            eq(clients, {n.addr}, "what they see at %s of %s" % (url, n.name))


UDP = """
import socket, sys
for _ in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(%d)
    s.connect((sys.argv[1], 8053))
    s.send(b'hi')
    print(s.recv(2000).decode().strip())
"""


def test_udp(s):
    want = replicas(s, "web")
    for where, argv, client in [(n.addr, s.cluster.outside, CLIENT) for n in s.cluster.nodes()] + [
            ("127.0.0.1", node(s, "m2").argv, node(s, "m2").addr)]:
        out = st.run(*argv("/usr/bin/python3", "-c", UDP % (5 * st.SLOW), where, "40"))
        said = ANSWER.findall(out)
        eq({r for r, _, _ in said}, want, "replicas reached at %s" % where)
        eq({c for _, c, _ in said}, {client}, "what they see at %s" % where)


SAME_PORT = """
import socket, sys
open_ = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for addr in sys.argv[2:]:
        s = socket.socket(socket.AF_INET, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.settimeout(%d)
        s.bind(('10.77.0.1', int(sys.argv[1])))
        s.connect((addr, 8080 if kind == socket.SOCK_STREAM else 8053))
        s.send(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
        if b'host=' not in s.recv(2000):
            raise SystemExit('no answer from %%s' %% addr)
        open_.append(s)
print('all')
"""


def test_one_source_port_to_all_nodes(s):
    """After translation these connections differ in nothing but the node that they entered on."""
    s.docker("service", "scale", "-d", "web=1")
    wait_behind(s, "web", 8080, 1)
    for port in range(40100, 40110):
        out = st.run(*s.cluster.outside("/usr/bin/python3", "-c", SAME_PORT % (5 * st.SLOW), str(port),
                                        *[n.addr for n in s.cluster.nodes()]))
        contains(out, "all")
    s.docker("service", "scale", "-d", "web=4")
    s.wait_running("web", 4)
    wait_behind(s, "web", 8080, 4)


class Load:
    """Clients outside that connect, ask and close, one after another, until told to stop; every failure is remembered."""

    def __init__(self, s, addrs, clients=4, port=8080):
        self.procs = []
        for i in range(clients):
            code = LOAD % {"addrs": addrs, "port": port, "seed": i, "patience": 10 * st.SLOW}
            self.procs.append(subprocess.Popen(s.cluster.outside("/usr/bin/python3", "-c", code), stdin=subprocess.PIPE,
                                               stdout=subprocess.PIPE, text=True))

    def stop(self):
        done, bad = 0, []
        for p in self.procs:
            p.stdin.close()
            said = json.loads(p.stdout.read())
            p.wait()
            done += said["done"]
            bad += said["bad"]
        return done, bad


LOAD = """
import json, os, random, select, socket, sys, time
random.seed(%(seed)d)
done, bad = 0, []
os.set_blocking(0, False)
while not select.select([0], [], [], 0)[0]:
    addr = random.choice(%(addrs)r)
    t0 = time.monotonic()
    try:
        s = socket.create_connection((addr, %(port)d), timeout=%(patience)d)
        s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')
        got = b''
        while True:
            b = s.recv(4096)
            if not b:
                break
            got += b
        s.close()
        if b'host=' not in got:
            bad.append('%%s: %%r' %% (addr, got[:100]))
    except OSError as e:
        bad.append('%%s at %%s after %%.1f s: %%s' %% (addr, time.strftime('%%H:%%M:%%S'), time.monotonic() - t0, e))
    done += 1
print(json.dumps({'done': done, 'bad': bad[:20]}))
"""


def test_scaling_fails_no_request(s):
    """Up and down under a steady load: who goes gets nothing new first, finishes what it has, and only then stops."""
    load = Load(s, [n.addr for n in s.cluster.nodes()])
    try:
        for n in (8, 2, 6, 1, 4):
            s.docker("service", "scale", "-d", "web=%d" % n)
            s.wait_running("web", n)
            wait_behind(s, "web", 8080, n)
            s.wait(lambda n=n: len([t for t in s.tasks("web") if t["Status"]["State"] == "running"]) == n or None,
                   "%d tasks running" % n)
    finally:
        done, bad = load.stop()
    eq(bad, [], "failed of %d requests" % done)
    if done < 100:
        raise st.Failure("only %d requests" % done)


def test_update_fails_no_request(s):
    load = Load(s, [n.addr for n in s.cluster.nodes()])
    try:
        s.docker("service", "update", "-d", "--no-resolve-image", "--update-order", "start-first", "--env-add", "x=y", "web")
        s.wait(lambda: (s.inspect("web").get("UpdateStatus") or {}).get("State") == "completed" or None, "the update")
    finally:
        done, bad = load.stop()
    eq(bad, [], "failed of %d requests" % done)


def test_meshd_killed(s):
    """Its death and its start disturb no packet, and what is there afterwards is what was there before."""
    w = node(s, "w1")
    before = json.loads(w.probe("meshd", "ports"))
    load = Load(s, [w.addr, six(s, w)], clients=2)
    try:
        for _ in range(3):
            w.kill("meshd")
            w.wait_ready(30 * st.SLOW)
            s.wait(lambda: json.loads(w.probe("meshd", "networks"))["linked"] or None, "its view is up to date")
    finally:
        done, bad = load.stop()
    eq(bad, [], "failed of %d requests" % done)
    after = json.loads(w.probe("meshd", "ports"))
    eq(sorted(after[0]["tasks"]), sorted(before[0]["tasks"]))
    eq(json.loads(w.probe("meshd", "rules"))["rebuilds"], 0)


def test_meshd_starts_without_managers(s):
    """With what it was told last, it goes on: to tasks elsewhere, too."""
    w = node(s, "w1")
    want = replicas(s, "web")
    w.hold("gatewayd")
    try:
        w.kill("meshd")

        def knows():
            with contextlib.suppress(st.Failure, OSError, ValueError, subprocess.CalledProcessError):
                return len(set(json.loads(w.probe("meshd", "ports"))[0]["tasks"])) == len(want) or None
        s.wait(knows, "its ports, from what it knew")
        got, clients = spread("http://%s:8080/" % w.addr, s.cluster.outside, 60)
        eq(set(got), want)
        eq(clients, {CLIENT})
        eq(json.loads(w.probe("meshd", "networks"))["linked"], False)
    finally:
        w.release("gatewayd")
    w.wait_ready(30 * st.SLOW)
    s.wait(lambda: json.loads(w.probe("meshd", "networks"))["linked"] or None, "its view is up to date")
    s.cluster.wait_nodes(len(s.cluster.nodes()), 60 * st.SLOW)


def test_repairs(s):
    """What an administrator takes away comes back."""
    w = node(s, "w1")
    for damage in ("nft flush ruleset", "nft delete table ip microswarm", "ip link del msgw0"):
        w.sh(*damage.split())
        if "link" in damage:
            w.probe("meshd", "repair")

        def answers():
            with contextlib.suppress(st.Failure):
                return ask("http://%s:8080/" % w.addr, s.cluster.outside, 1)
        s.wait(answers, "an answer after: " + damage)


def test_a_node_goes_and_comes(s):
    """Nobody is sent to a node that is off; and when it comes back it answers again."""
    s.docker("service", "scale", "-d", "web=10")
    s.wait_running("web", 10)
    wait_behind(s, "web", 8080, 10)
    node(s, "w2").power_off()
    left = [n for n in s.cluster.nodes() if n.name != "w2"]
    gone = next(x["ID"] for x in s.api.get("/nodes") if x["Description"]["Hostname"] == "w2")
    s.wait(lambda: not any(t.get("NodeID") == gone for t in s.tasks("web", **{"desired-state": "running"})) or None,
           "its tasks are given to others")
    s.wait_running("web", 10)
    wait_behind(s, "web", 8080, 10, left)
    for n in left:
        got, _ = spread("http://%s:8080/" % n.addr, s.cluster.outside, 20)
        if not set(got) <= replicas(s, "web"):
            raise st.Failure("%s: answers of %s" % (n.name, set(got) - replicas(s, "web")))
    node(s, "w2").start()
    node(s, "w2").wait_ready(60 * st.SLOW)
    wait_behind(s, "web", 8080, 10)
    got, clients = spread("http://%s:8080/" % node(s, "w2").addr, s.cluster.outside, 20)
    eq(clients, {CLIENT})


def test_gone(s):
    s.keep.discard("web")
    s.remove("web")

    def nobody():
        return all(not json.loads(n.probe("meshd", "ports")) for n in s.cluster.nodes()) or None
    s.wait(nobody, "no port is left on any node")
    for n in s.cluster.nodes():
        try:
            ask("http://%s:8080/" % n.addr, s.cluster.outside, 1)
        except st.Failure:
            continue
        raise st.Failure("%s still answers" % n.name)


if __name__ == "__main__":
    st.main(setup, managers=3, workers=2)
