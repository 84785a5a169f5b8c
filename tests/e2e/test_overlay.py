#!/usr/bin/python3
"""Overlay networks on three managers and two workers: services on one network reach each other's addresses from every node, on
separate ones they can't; what each node has in its kernel is what the managers say, whatever happens to it."""

import collections
import contextlib
import ipaddress
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

ANSWER = re.compile(r"host=(\S+) client=(\[?[0-9a-fA-F.:]+?\]?):(\d+) server=")


def setup(s):
    s.load("echo")
    s.load("pause")
    for name in ("one", "two"):
        s.docker("network", "create", "-d", "overlay", name)


def network(s, name):
    return s.api.get("/networks/" + name)["Id"]


def inside(s, task):
    """argv in the task's network: with the node's programs, an image of the tests has none."""
    node = s.node_of(task)
    return lambda *argv: node.argv("nsenter", "--net=/run/microswarm/netns/" + task["ID"], "--", *argv)


def by_name(s, task):
    """The same, with the container's own resolv.conf."""
    pid = s.container_pid(task)
    node = s.node_of(task)
    script = 'f=$(mktemp) && cat /proc/%d/root/etc/resolv.conf >$f && mount --bind $f /etc/resolv.conf && rm $f && exec "$@"' % pid
    return lambda *argv: node.argv("nsenter", "-t", str(pid), "-n", "--", "unshare", "-m", "--", "sh", "-c", script, "sh", *argv)


def ask(s, task, addr, seconds=5, way=inside):
    """(replica, client as it saw it) of one request from inside a task; None when nobody answers."""
    try:
        out = st.run(*way(s, task)("curl", "-gsS", "--max-time", str(seconds * st.SLOW), "http://%s:8080/" % addr))
    except st.Failure:
        return None
    m = ANSWER.search(out)
    if not m:
        raise st.Failure("%s: %r" % (addr, out))
    return m.group(1), m.group(2)


def vip(s, service, net):
    nid = network(s, net)
    got = [v["Addr"].split("/")[0] for v in s.inspect(service)["Endpoint"]["VirtualIPs"] if v["NetworkID"] == nid]
    eq(len(got), 1, "VIPs of %s on %s" % (service, net))
    return got[0]


def address(s, task, net):
    nid = network(s, net)
    return next(a["Addresses"][0].split("/")[0] for a in task["NetworksAttachments"] if a["Network"]["ID"] == nid)


def hosts(tasks):
    return {t["Status"]["ContainerStatus"]["ContainerID"][:12] for t in tasks}


def settled(s, nodes=None):
    """Until every node's kernel is as its map says, and all maps name the same tasks; then no difference is left."""
    want = collections.defaultdict(set)
    for t in s.api.get("/tasks"):
        if t["DesiredState"] == "running" and t["Status"]["State"] == "running":
            for a in t.get("NetworksAttachments") or []:
                want[a["Network"]["ID"]].add(t["ID"])

    def same():
        for n in nodes or s.cluster.nodes():
            for net in json.loads(n.probe("meshd", "overlay")):
                if net["differences"] or net.get("error"):
                    return False
                eps = json.loads(n.probe("meshd", "endpoints " + net["network"]))
                if {e["task"] for e in eps if e["state"] == "ready"} != want[net["network"]]:
                    return False
            for sb in json.loads(n.probe("meshd", "vips")):
                if sb["differences"] or not sb["intact"]:
                    return False
        return True
    s.wait(same, "every node has in its kernel what the managers say")


def test_one_network(s):
    s.create("web", "echo:latest", "--network", "one", "--replicas", "5", "--endpoint-mode", "vip")
    s.create("client", "pause:latest", "--network", "one", "--replicas", "5")
    s.keep.update(("web", "client"))
    web, clients = s.wait_running("web", 5), s.wait_running("client", 5)
    settled(s)
    eq(len({t["NodeID"] for t in clients}), 5)
    to = vip(s, "web", "one")
    for c in clients:
        me = address(s, c, "one")
        said = collections.Counter()
        for _ in range(40):
            got = ask(s, c, to)
            if not got:
                raise st.Failure("no answer of the VIP on %s" % s.node_of(c).name)
            said[got[0]] += 1
            eq(got[1], me, "the server sees the client's own address")
        eq(set(said), hosts(web), "replicas reached from " + s.node_of(c).name)
        for t in web:
            got = ask(s, c, address(s, t, "one"))
            eq(got, (t["Status"]["ContainerStatus"]["ContainerID"][:12], me), "a task by its own address")


def test_names(s):
    """By name, from every node: the service (its VIP, so any replica), its tasks, and what it goes by on the network."""
    s.create("named", "echo:latest", "--network", "name=one,alias=other-name", "--replicas", "2")
    named = s.wait_running("named", 2)
    settled(s)
    for c in s.running("client"):
        for name in ("web", "tasks.web"):
            got = {(ask(s, c, name, way=by_name) or ("nobody",))[0] for _ in range(15)}
            if not got <= hosts(s.running("web")) or len(got) < 2:
                raise st.Failure("%s on %s: %s" % (name, s.node_of(c).name, got))
        for name in ("named", "other-name", "Named", "named.one"):
            got = ask(s, c, name, way=by_name)
            if not got or got[0] not in hosts(named):
                raise st.Failure("%s on %s: %s" % (name, s.node_of(c).name, got))
    out = st.run(*by_name(s, s.running("client")[0])("curl", "-sS", "http://no-such-name:8080/"), check=False)
    eq(out, "", "a name that nobody has")


def test_from_a_replica(s):
    """A replica that asks for its own service gets all of them, itself too."""
    web = s.running("web")
    to = vip(s, "web", "one")
    eq({ask(s, web[0], to)[0] for _ in range(40)}, hosts(web))


def test_separate_networks(s):
    s.create("stranger", "pause:latest", "--network", "two", "--replicas", "5")
    strangers = s.wait_running("stranger", 5)
    settled(s)
    web = s.running("web")
    to = vip(s, "web", "one")
    for t in strangers[:3]:
        eq(ask(s, t, to, 1), None, "a VIP of another network")
        eq(ask(s, t, address(s, web[0], "one"), 1), None, "a task of another network")
        eq(ask(s, t, "web", 1, way=by_name), None, "a name of another network")


def test_two_networks_at_once(s):
    s.create("both", "pause:latest", "--network", "two", "--network", "one", "--replicas", "2")
    s.create("web2", "echo:latest", "--network", "two", "--replicas", "2")
    both = s.wait_running("both", 2)
    s.wait_running("web2", 2)
    settled(s)
    for t in both:
        for name, net in (("web", "one"), ("web2", "two")):
            got = ask(s, t, vip(s, name, net))
            eq(got and got[1], address(s, t, net), "asked on " + net)


def test_scaling_loses_nobody(s):
    """Requests go on while backends come and go."""
    client = s.running("client")[0]
    to = vip(s, "web", "one")
    for n in (9, 3, 6, 5):
        s.docker("service", "scale", "-d", "web=%d" % n)
        for _ in range(20):
            if not ask(s, client, to):
                raise st.Failure("a request failed while web was scaled to %d" % n)
        s.wait_running("web", n)
    settled(s)
    eq({ask(s, client, to)[0] for _ in range(60)}, hosts(s.running("web")))


def test_no_backend(s):
    client = s.running("client")[0]
    to = vip(s, "web", "one")
    s.docker("service", "scale", "-d", "web=0")
    s.wait_running("web", 0)
    settled(s)
    p = st.run(*inside(s, client)("sh", "-c", "curl -sS --max-time %d http://%s:8080/ 2>&1; echo code=$?" % (20 * st.SLOW, to)))
    contains(p, "code=7")  # refused, at once
    s.docker("service", "scale", "-d", "web=5")
    s.wait_running("web", 5)
    settled(s)
    eq({ask(s, client, to)[0] for _ in range(40)}, hosts(s.running("web")))


def test_mtu(s):
    """What VXLAN leaves of 1500, or what the network's option says: outside of the container and inside."""
    s.docker("network", "create", "-d", "overlay", "--opt", "com.docker.network.driver.mtu=1300", "narrow")
    s.create("thin", "pause:latest", "--network", "narrow", "--network", "one")
    t = s.wait_running("thin", 1)[0]
    links = {l["ifname"]: l["mtu"] for l in json.loads(st.run(*inside(s, t)("ip", "-j", "link")))}
    order = [a["Network"]["Spec"]["Name"] for a in t["NetworksAttachments"]]
    eq(sorted(links[e] for e in links if e in ("eth1", "eth2")), [1300, 1450], "of %s" % order)


def test_dnsrr_has_no_vip(s):
    s.create("rr", "echo:latest", "--network", "one", "--endpoint-mode", "dnsrr")
    rr = s.wait_running("rr", 1)[0]
    settled(s)
    eq(s.inspect("rr")["Endpoint"].get("VirtualIPs") or [], [])
    eq(ask(s, s.running("client")[0], address(s, rr, "one"))[0], list(hosts([rr]))[0])


@contextlib.contextmanager
def serving(s, tasks, port):
    """An HTTP server on all addresses, IPv6 too, in the network of each of these tasks."""
    with contextlib.ExitStack() as stack:
        for t in tasks:
            p = subprocess.Popen(inside(s, t)("/usr/bin/python3", "-c", SERVER % (port, t["ID"])), stdout=subprocess.PIPE)
            stack.callback(p.wait)
            stack.callback(p.kill)
            eq(p.stdout.readline(), b"there\n")
        yield


SERVER = """
import http.server, socket
class S(http.server.HTTPServer):
    address_family = socket.AF_INET6
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("%%s " %% self.client_address[0]).encode() + TASK
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a):
        pass
PORT, TASK = %d, b"%s"
s = S(("::", PORT), H)
print("there", flush=True)
s.serve_forever()
"""


def test_ipv6(s):
    s.docker("network", "create", "-d", "overlay", "--ipv6", "six")
    s.create("web6", "pause:latest", "--network", "six", "--replicas", "2")
    s.create("client6", "pause:latest", "--network", "six", "--replicas", "3")
    web, clients = s.wait_running("web6", 2), s.wait_running("client6", 3)
    settled(s)
    six = network(s, "six")
    to = [v["Addr"].split("/")[0] for v in s.inspect("web6")["Endpoint"]["VirtualIPs"] if v["NetworkID"] == six and ":" in v["Addr"]]
    eq(len(to), 1, "VIPs of IPv6")
    with serving(s, web, 8081):
        for c in clients:
            mine = [a.split("/")[0] for n in c["NetworksAttachments"] for a in n["Addresses"] if ":" in a]
            said = collections.Counter()
            for _ in range(20):
                client, task = st.run(*inside(s, c)("curl", "-gsS", "--max-time", str(10 * st.SLOW), "http://[%s]:8081/" % to[0])).split()
                said[task] += 1
                if ipaddress.ip_address(client) not in [ipaddress.ip_address(m) for m in mine]:
                    raise st.Failure("the server sees %s, not %s" % (client, mine))
            eq(set(said), {t["ID"] for t in web}, "replicas reached from " + s.node_of(c).name)


def test_meshd_dies(s):
    """Nobody notices: requests go on while it is gone, and what is there afterwards is adopted, not made anew."""
    client = s.running("client")[0]
    node = s.node_of(client)
    to = vip(s, "web", "one")
    settled(s)
    node.hold("meshd", 9)
    for _ in range(10):
        if not ask(s, client, to):
            raise st.Failure("no answer while meshd of %s was gone" % node.name)
    node.release("meshd")
    node.wait_ready()
    settled(s)
    metrics = node.probe("meshd", "metrics")
    contains(metrics, "microswarm_meshd_overlay_repairs_total 0")
    contains(metrics, "microswarm_meshd_vip_transactions_total 0")
    eq({ask(s, client, to)[0] for _ in range(40)}, hosts(s.running("web")))


def test_taken_apart_by_hand(s):
    client = s.running("client")[0]
    node = s.node_of(client)
    to = vip(s, "web", "one")
    net = network(s, "one")
    node.sh("nsenter", "--net=/run/microswarm/overlay/" + net, "--", "ip", "link", "del", "vx0")
    st.run(*inside(s, client)("nft", "flush", "ruleset"))
    node.kill("meshd")
    node.wait_ready()
    settled(s)
    eq({ask(s, client, to)[0] for _ in range(40)}, hosts(s.running("web")))


def test_node_power_off(s):
    """Its replicas are given to others, and nobody is sent to it."""
    w2 = s.cluster.node("w2")
    client = next(t for t in s.running("client") if s.node_of(t).name != "w2")
    to = vip(s, "web", "one")
    gone = next(x["ID"] for x in s.api.get("/nodes") if x["Description"]["Hostname"] == "w2")
    w2.power_off()
    s.wait(lambda: len([t for t in s.running("web") if t["NodeID"] != gone]) == 5 or None, "web runs elsewhere", 60)

    def all_answer():
        return {(ask(s, client, to, 1) or ("",))[0] for _ in range(20)} <= hosts(
            [t for t in s.running("web") if t["NodeID"] != gone]) or None
    s.wait(all_answer, "all requests are answered", 60)
    w2.start()
    w2.wait_ready(60 * st.SLOW)
    s.create("late", "pause:latest", "--network", "one", "--constraint", "node.hostname==w2")
    late = s.wait_running("late", 1, 60)[0]
    settled(s)
    eq({ask(s, late, to)[0] for _ in range(40)}, hosts(s.running("web")))


def test_gone(s):
    s.keep.clear()
    s.remove_all()

    def nothing():
        return all(json.loads(n.probe("meshd", "overlay")) == [] and json.loads(n.probe("meshd", "vips")) == []
                   for n in s.cluster.nodes()) or None
    s.wait(nothing, "no node has a network any more")
    for n in s.cluster.nodes():
        eq(n.sh("ls", "/run/microswarm/overlay").split(), [])
    for name in ("one", "two", "six", "narrow"):
        with contextlib.suppress(st.ApiError):
            s.api.delete("/networks/" + name)


if __name__ == "__main__":
    st.main(setup, managers=3, workers=2)
