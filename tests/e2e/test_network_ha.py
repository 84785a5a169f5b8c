#!/usr/bin/python3
"""Networks of a swarm of three managers and a worker, with pools of its own: every manager answers the same, nothing is given out
twice while leaders and allocatords die, and a worker says what it can't do."""

import ipaddress
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq, settles  # noqa: E402

MANAGERS = ("m1", "m2", "m3")
ROUNDS = 4


def setup(s):
    s.docker("swarm", "init", "--advertise-addr", "10.77.0.11", "--default-addr-pool", "10.90.0.0/16", "--default-addr-pool", "10.95.0.0/24",
             "--default-addr-pool-mask-length", "26", "--data-path-port", "5789")
    s.cluster.join_all(60 * st.SLOW)
    s.load("pause")


def subnet(s, name):
    def look():
        c = s.api.get("/networks/" + name)["IPAM"]["Config"]
        return ipaddress.ip_network(c[0]["Subnet"]) if c else None
    return s.wait(look, "a subnet of " + name)


def remove(s, *names):
    def gone(n):
        try:
            s.api.delete("/networks/" + n)
        except st.ApiError as e:
            if "in use by" not in str(e):
                raise
            return None
        return True
    for n in names:
        s.wait(lambda n=n: gone(n), "network %s is removed" % n)


def live(s, service):
    """Tasks that are to run and have their addresses."""
    return [t for t in s.tasks(service) if t["DesiredState"] in ("ready", "running") and t.get("NetworksAttachments")
            and t["Status"]["State"] in ("pending", "assigned", "accepted", "preparing", "ready", "starting", "running")]


def addresses(s, services):
    """(network ID, address) of every service and every live task."""
    got = []
    for name in services:
        got += [(v["NetworkID"], v["Addr"]) for v in s.inspect(name)["Endpoint"].get("VirtualIPs") or []]
        for t in live(s, name):
            got += [(a["Network"]["ID"], x) for a in t["NetworksAttachments"] for x in a["Addresses"]]
    return got


def test_pools_of_the_swarm(s):
    info = s.api.get("/info")["Swarm"]["Cluster"]
    eq((info["DefaultAddrPool"], info["SubnetSize"], info["DataPathPort"]), (["10.90.0.0/16", "10.95.0.0/24"], 26, 5789))
    text = s.docker("info")
    contains(text, "Default Address Pool: 10.90.0.0/16  10.95.0.0/24")
    contains(text, "SubnetSize: 26")
    contains(text, "Data Path Port: 5789")
    eq(str(subnet(s, "ingress")), "10.90.0.0/26")
    s.docker("network", "create", "-d", "overlay", "np")
    eq(str(subnet(s, "np")), "10.90.0.64/26")
    remove(s, "np")


def test_every_manager_answers(s):
    ident = s.docker("network", "create", "-d", "overlay", "em", on="m2")
    want = {"bridge", "docker_gwbridge", "host", "none", "ingress", "em"}
    for m in MANAGERS:
        eq(set(s.docker("network", "ls", "--format", "{{.Name}}", on=m).split()), want, m)
        eq(s.docker("network", "inspect", "-f", "{{.Id}}", "em", on=m), ident, m)
    eq(sorted(p["IP"] for p in s.api.get("/networks/ingress")["Peers"]), ["10.77.0.%d" % i for i in (11, 12, 13, 14)])
    s.docker_fails("network", "create", "-d", "overlay", "em", on="m3", say="network with name em already exists")
    s.docker("network", "rm", "em", on="m3")
    for m in MANAGERS:
        s.docker_fails("network", "inspect", "em", on=m, say="network em not found")


def test_worker(s):
    eq(set(s.docker("network", "ls", "--format", "{{.Name}}", "--filter", "scope=local", on="w1").split()),
       {"bridge", "docker_gwbridge", "host", "none"})
    settles(lambda: s.docker("network", "ls", "--format", "{{.Name}}", "--filter", "scope=swarm", on="w1"), "ingress", "its own view")
    ident = s.docker("network", "create", "-d", "overlay", "wn")
    s.create("wns", "pause:latest", "--network", "wn", "--constraint", "node.hostname==w1")
    settles(lambda: set(s.docker("network", "ls", "--format", "{{.Name}}", "--filter", "scope=swarm", on="w1").split()), {"ingress", "wn"},
            "with the network of its task")
    for ref in ("wn", ident, ident[:9]):
        eq(s.docker("network", "inspect", "-f", "{{.Id}} {{(index .IPAM.Config 0).Subnet}}", ref, on="w1"), "%s %s" % (ident, subnet(s, "wn")))
    s.remove("wns")
    remove(s, "wn")
    s.docker_fails("network", "create", "-d", "overlay", "wn", on="w1",
                   say="Cannot create a multi-host network from a worker node. Please create the network from a manager node.")
    s.docker_fails("network", "rm", "nosuch", on="w1", say="")
    s.docker_fails("network", "inspect", "nosuch", on="w1", say="network nosuch not found")


def test_nothing_twice(s):
    """Services grow, shrink and are replaced while allocatord and the whole leader are killed."""
    services = ["tw%d" % i for i in range(3)]
    s.docker("network", "create", "-d", "overlay", "t1")
    s.docker("network", "create", "-d", "overlay", "--ipv6", "t2")
    for i, n in enumerate(services):
        s.create(n, "pause:latest", "--network", "t1", *(["--network", "t2"] if i else []), "--replicas", "4", "--update-parallelism", "0")
    for r in range(ROUNDS):
        lead = s.cluster.wait_leader([s.cluster.node(m) for m in MANAGERS])
        for i, n in enumerate(services):
            s.wait(lambda n=n, i=i: s.docker("service", "scale", "-d", "%s=%d" % (n, 3 + (r + i) % 4), check=False) or True, "scale")
        lead.kill("allocatord")
        if r % 2:
            lead.kill("raftd")
        s.cluster.wait_leader([s.cluster.node(m) for m in MANAGERS])
        s.wait(lambda r=r: s.docker("service", "update", "-d", "--force", services[r % 3], check=False) or True, "update")
    for i, n in enumerate(services):
        want = 3 + (ROUNDS - 1 + i) % 4
        s.wait(lambda n=n, want=want: s.inspect(n)["Spec"]["Mode"]["Replicated"]["Replicas"] == want or s.docker(
            "service", "scale", "-d", "%s=%d" % (n, want), check=False) and None, "%s is scaled" % n, 60)
        s.wait(lambda n=n, want=want: len(live(s, n)) >= want or None, "%s: %d tasks with addresses" % (n, want), 60)
    # Read service by service: one that was given back meanwhile may show twice, once. Two owners show for good.
    def twice():
        got = addresses(s, services)
        return sorted({a for a in got if got.count(a) > 1})
    st.settles(twice, [], "no address has two owners")
    got = addresses(s, services)
    nets = {s.api.get("/networks/" + n)["Id"]: s.api.get("/networks/" + n) for n in ("t1", "t2")}
    for net, addr in got:
        a = ipaddress.ip_interface(addr)
        if not any(a.network == ipaddress.ip_network(c["Subnet"]) and str(a.ip) != c["Gateway"] for c in nets[net]["IPAM"]["Config"]):
            raise st.Failure("%s is not of network %s" % (addr, nets[net]["Name"]))
    s.remove(*services, seconds=60)
    remove(s, "t1", "t2")


if __name__ == "__main__":
    st.main(setup, init=False, managers=3, workers=1)
