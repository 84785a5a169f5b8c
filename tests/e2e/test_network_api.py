#!/usr/bin/python3
"""Networks as clients see them: create, list, inspect, remove, prune; addresses of services and tasks; what is refused."""

import ipaddress
import json
import os
import sys
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

try:
    import docker
    from docker.types import EndpointSpec, IPAMConfig, IPAMPool, NetworkAttachmentConfig
except ImportError:
    docker = None


def setup(s):
    s.load("pause")


def network(s, name, query=""):
    return s.api.get("/networks/%s%s" % (name, query))


def subnets(n):
    return [c["Subnet"] for c in n["IPAM"]["Config"] or []]


def attachments(task):
    """{network name: [addresses]}"""
    return {a["Network"]["Spec"]["Name"]: a["Addresses"] for a in task.get("NetworksAttachments") or []}


def attached(s, service, n=1):
    """Live tasks that have their addresses."""
    def look():
        t = [t for t in s.tasks(service) if t["DesiredState"] in ("running", "ready") and t.get("NetworksAttachments")]
        return t if len(t) == n else None
    return s.wait(look, "%s: %d tasks with addresses" % (service, n))


def vips(s, service, n):
    """{network ID: [addresses]} once there are n."""
    def look():
        v = s.inspect(service).get("Endpoint", {}).get("VirtualIPs") or []
        return v if len(v) == n else None
    ret = {}
    for v in s.wait(look, "%s: %d virtual addresses" % (service, n)) if n else look() or []:
        ret.setdefault(v["NetworkID"], []).append(v["Addr"])
    return ret


def remove(s, *names):
    for n in names:
        s.wait(lambda n=n: try_remove(s, n), "network %s is removed" % n)


def try_remove(s, name):
    try:
        s.api.delete("/networks/" + name)
    except st.ApiError as e:
        if "in use by" in str(e):
            return None
        raise
    return True


def test_every_node_has_its_own(s):
    names = {n["Name"]: n for n in s.api.get("/networks")}
    eq(sorted(names), ["bridge", "docker_gwbridge", "host", "ingress", "none"])
    eq([names[n]["Scope"] for n in ("bridge", "host", "none", "docker_gwbridge", "ingress")], ["local"] * 4 + ["swarm"])
    eq(names["ingress"]["Ingress"], True)
    n = s.wait(lambda: (network(s, "ingress") if subnets(network(s, "ingress")) else None), "a subnet of ingress")
    eq(n["IPAM"]["Config"], [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}])
    eq(n["Options"], {"com.docker.network.driver.overlay.vxlanid_list": "4096"})
    eq([p["IP"] for p in n["Peers"]], ["10.77.0.11"])
    eq(s.docker("network", "ls", "--filter", "scope=swarm", "--format", "{{.Name}} {{.Driver}}"), "ingress overlay")
    eq(s.docker("network", "ls", "--filter", "type=builtin", "--format", "{{.Name}}").split(), ["bridge", "host", "none"])
    s.docker_fails("network", "ls", "--filter", "bogus=1", say="invalid filter 'bogus'")
    s.docker_fails("network", "rm", "host", say="host is a pre-defined network and cannot be removed")
    s.docker_fails("network", "create", "-d", "overlay", "bridge", say="operation is not permitted on predefined bridge network")
    s.docker_fails("network", "inspect", "nosuch", say="network nosuch not found")


def test_clients(s):
    for i, client in enumerate(st.DOCKERS):
        name = "cl%d" % i
        ident = s.docker("network", "create", "-d", "overlay", "--subnet", "10.60.%d.0/24" % i, "--gateway", "10.60.%d.9" % i, "--ip-range",
                         "10.60.%d.128/25" % i, "--aux-address", "x=10.60.%d.130" % i, "--label", "a=b", "--attachable", "--internal",
                         "--opt", "com.docker.network.driver.mtu=1400", name, client=client)
        eq(s.docker("network", "ls", "-q", "--no-trunc", "-f", "name=" + name, client=client), ident)
        n = json.loads(s.docker("network", "inspect", ident[:8], client=client))[0]
        eq((n["Name"], n["Id"], n["Scope"], n["Driver"], n["Attachable"], n["Internal"], n["Labels"]),
           (name, ident, "swarm", "overlay", True, True, {"a": "b"}))
        eq(n["IPAM"]["Config"], [{"Subnet": "10.60.%d.0/24" % i, "IPRange": "10.60.%d.128/25" % i, "Gateway": "10.60.%d.9" % i,
                                  "AuxiliaryAddresses": {"x": "10.60.%d.130" % i}}])
        eq(n["Options"]["com.docker.network.driver.mtu"], "1400")
        s.create("on" + name, "pause:latest", "--network", "name=%s,alias=al" % name, client=client)
        t = attached(s, "on" + name)[0]
        contains(attachments(t)[name][0], "10.60.%d." % i)
        eq(s.inspect("on" + name)["Spec"]["TaskTemplate"]["Networks"], [{"Target": ident, "Aliases": ["al"]}])
        contains(s.docker("service", "inspect", "--pretty", "on" + name, client=client), "Networks: " + name)
        s.docker_fails("network", "rm", name, client=client, say="network %s is in use by service" % ident)
        s.remove("on" + name)
        remove(s, name)


def test_swarmctl(s):
    ident = s.swarmctl("network", "create", "--ipv6", "--label", "k=v", "sc")
    eq(s.swarmctl("network", "ls", "-f", "name=sc", "--format", "{{.ID}} {{.Driver}} {{.Labels}}"), ident[:12] + " overlay k=v")
    n = json.loads(s.swarmctl("network", "inspect", "-v", "sc"))[0]
    eq([ipaddress.ip_network(x).version for x in subnets(n)], [4, 6])
    eq(n["Services"], {})
    contains(s.swarmctl("__complete", "network", "rm", ""), "sc")
    s.swarmctl("service", "create", "-d", "--no-resolve-image", "--name", "scs", "--network", "sc", "pause:latest")
    addr = attachments(attached(s, "scs")[0])["sc"]
    eq([ipaddress.ip_interface(a).version for a in addr], [4, 6])
    eq([ipaddress.ip_interface(a).version for a in vips(s, "scs", 2)[ident]], [4, 6])
    s.remove("scs")
    s.wait(lambda: s.swarmctl("network", "prune", "-f") == "Deleted Networks:\nsc", "the network is pruned")
    eq(s.swarmctl("network", "ls", "-q", "-f", "name=sc"), "")


def test_pools_come_in_turn(s):
    a, b = s.docker("network", "create", "-d", "overlay", "ta"), s.docker("network", "create", "-d", "overlay", "tb")
    na, nb = network(s, a), network(s, b)
    x, y = ipaddress.ip_network(subnets(na)[0]), ipaddress.ip_network(subnets(nb)[0])
    eq((x.prefixlen, y.prefixlen, x.overlaps(y), x.subnet_of(ipaddress.ip_network("10.0.0.0/8"))), (24, 24, False, True))
    va, vb = [n["Options"]["com.docker.network.driver.overlay.vxlanid_list"] for n in (na, nb)]
    if va == vb or int(va) < 4097:
        raise st.Failure("VXLAN ids %s and %s" % (va, vb))
    remove(s, "tb")
    s.docker("network", "create", "-d", "overlay", "tb")
    if ipaddress.ip_network(subnets(network(s, "tb"))[0]) == y:
        raise st.Failure("a subnet is given out again at once")
    remove(s, "ta", "tb")


def test_refused(s):
    s.docker("network", "create", "-d", "overlay", "--subnet", "10.61.0.0/24", "r1")
    for argv, say in (
            (["-d", "overlay", "r1"], "network with name r1 already exists"),
            (["-d", "overlay", "--subnet", "10.61.0.128/25", "r2"], "Pool overlaps with other one on this address space"),
            (["-d", "overlay", "--subnet", "10.61.0.0/16", "r2"], "Pool overlaps with other one on this address space"),
            (["-d", "overlay", "--ingress", "r2"], "is already present"),
            (["-d", "overlay", "--opt", "com.docker.network.driver.mtu=x", "r2"], "MTU"),
            (["-d", "macvlan", "r2"], "not supported"),
            (["-d", "nosuch", "r2"], "plugin \"nosuch\" not found"),
            (["-d", "overlay", "r 2"], "name must be valid as a DNS name component"),
            (["-d", "overlay", "--config-only", "r2"], "not supported")):
        s.docker_fails("network", "create", *argv, say=say)
    for body, say in (
            ({"Name": ""}, "invalid name"),
            ({"Name": "r2", "IPAM": {"Config": [{"Subnet": "bad"}]}}, "invalid CIDR address: bad"),
            ({"Name": "r2", "IPAM": {"Config": [{"Subnet": "10.62.0.0/24", "Gateway": "10.63.0.1"}]}}, "does not contain gateway"),
            ({"Name": "r2", "IPAM": {"Config": [{"Subnet": "10.62.0.0/24", "IPRange": "10.0.0.0/8"}]}}, "does not contain"),
            ({"Name": "r2", "IPAM": {"Config": [{"Subnet": "10.62.0.0/24"}, {"Subnet": "10.62.0.0/25"}]}}, "Pool overlaps"),
            ({"Name": "r2", "IPAM": {"Config": [{"Subnet": "10.62.0.5/24"}]}}, "it should be 10.62.0.0/24"),
            ({"Name": "r2", "IPAM": {"Config": [{"Gateway": "10.62.0.1"}]}}, "invalid subnet"),
            ({"Name": "r2", "IPAM": {"Config": [{"Subnet": "127.0.0.0/16"}]}}, "127.0.0.0/8 is not for networks"),
            ({"Name": "r2", "IPAM": {"Config": [{"Subnet": "0.0.0.0/0"}]}}, "is not for networks"),
            ({"Name": "r2", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fe80::/64"}]}}, "fe80::/10 is not for networks"),
            ({"Name": "r2", "IPAM": {"Config": [{"Subnet": "10.62.0.0/24", "AuxiliaryAddresses": {"a": "10.63.0.1"}}]}},
             "invalid auxiliary address 10.63.0.1"),
            ({"Name": "r2", "IPAM": {"Driver": "nosuch"}}, "ipam driver"),
            ({"Name": "r2", "ConfigFrom": {"Network": "x"}}, "config-only"),
            ({"Name": "r2", "Scope": "local"}, "scope"),
            ({"Name": "r2", "Ingress": True, "Attachable": True}, "ingress network cannot be attachable")):
        try:
            s.api.post("/networks/create", dict({"Driver": "overlay"}, **body))
        except st.ApiError as e:
            contains(str(e), say)
        else:
            raise st.Failure("%s is accepted" % body)
    eq([n["Name"] for n in s.api.get("/networks") if n["Name"] == "r2"], [])
    s.docker_fails("service", "create", "-d", "--network", "nosuch", "pause:latest", say="network nosuch not found")
    s.docker_fails("service", "create", "-d", "--no-resolve-image", "--network", "ingress", "pause:latest",
                   say="Service cannot be explicitly attached to the ingress network \"ingress\"")
    s.docker_fails("service", "create", "-d", "--network", "none", "pause:latest", say="network none not found")
    s.docker_fails("service", "create", "-d", "--network", "docker_gwbridge", "pause:latest", say="not found")
    s.docker_fails("network", "connect", "r1", "nosuch", say="not manually attachable")
    remove(s, "r1")


def test_service_addresses(s):
    a, b = [s.docker("network", "create", "-d", "overlay", n) for n in ("sa", "sb")]
    s.create("sv", "pause:latest", "--network", "sa", "--replicas", "3", "-p", "8099:80")
    tasks = attached(s, "sv", 3)
    ing = network(s, "ingress")["Id"]
    v = vips(s, "sv", 2)
    eq(sorted(v), sorted([a, ing]))
    for t in tasks:
        eq([x["Network"]["Spec"]["Name"] for x in t["NetworksAttachments"]], ["ingress", "sa"])
        eq(t["NetworksAttachments"][1]["Network"]["DriverState"]["Name"], "overlay")
    used = [x for t in tasks for x in attachments(t)["sa"]] + v[a] + [network(s, "sa")["IPAM"]["Config"][0]["Gateway"] + "/24"]
    eq(len(set(used)), 5, "addresses %s" % used)
    nv = network(s, "sa", "?verbose=true")["Services"]["sv"]
    eq(nv["VIP"] + "/24", v[a][0])
    # a network more, and one less: new tasks are on them, the address on the one that stays is kept
    s.docker("service", "update", "-d", "--network-add", "sb", "sv")
    s.wait(lambda: len(s.inspect("sv")["Endpoint"].get("VirtualIPs") or []) == 3 or None, "an address on sb")
    eq(vips(s, "sv", 3)[a], v[a])
    s.wait(lambda: all(sorted(attachments(t)) == ["ingress", "sa", "sb"] for t in attached(s, "sv", 3)) or None, "new tasks on sb", 60)
    s.docker("service", "update", "-d", "--network-rm", "sa", "sv")
    s.wait(lambda: all(sorted(attachments(t)) == ["ingress", "sb"] for t in attached(s, "sv", 3)) or None, "new tasks without sa", 60)
    eq(sorted(vips(s, "sv", 2)), sorted([b, ing]))
    remove(s, "sa")
    s.docker_fails("network", "rm", "ingress", say="", input="y\n")
    s.remove("sv")
    remove(s, "sb")


def test_who_is_on_it(s):
    ident = s.docker("network", "create", "-d", "overlay", "wo")
    s.create("wos", "pause:latest", "--network", "wo", "--replicas", "2")
    tasks = s.wait_running("wos", 2)
    n = s.wait(lambda: (network(s, ident) if len(network(s, ident)["Containers"] or {}) == 2 else None), "two containers")
    for t in tasks:
        c = n["Containers"][t["Status"]["ContainerStatus"]["ContainerID"]]
        eq((c["Name"], c["IPv4Address"], c["IPv6Address"]), ("wos.%d.%s" % (t["Slot"], t["ID"]), attachments(t)["wo"][0], ""))
    eq([p["IP"] for p in n["Peers"]], ["10.77.0.11"])
    v = network(s, ident, "?verbose=true")["Services"]["wos"]
    eq(sorted((t["EndpointIP"], t["Info"]["Host IP"]) for t in v["Tasks"]),
       sorted((attachments(t)["wo"][0].split("/")[0], "10.77.0.11") for t in tasks))
    s.remove("wos")
    eq(network(s, ident)["Containers"], None)
    remove(s, ident)


STACK = """
version: "3.8"
services:
  web: {image: "pause:latest", networks: {front: {aliases: [www]}, default: {}}}
  db: {image: "pause:latest"}
networks:
  front: {driver: overlay, attachable: true, ipam: {config: [{subnet: 10.68.0.0/24}]}, labels: {a: b}}
"""


def test_stack(s):
    path = os.path.join(s.tmp, "stack.yml")
    with open(path, "w", encoding="utf-8") as f:
        f.write(STACK)
    s.docker("stack", "deploy", "--resolve-image", "never", "--detach=true", "-c", path, "st")
    eq(sorted(n["Name"] for n in s.api.get("/networks") if n["Labels"].get("com.docker.stack.namespace") == "st"), ["st_default", "st_front"])
    eq(sorted(attachments(attached(s, "st_web")[0])), ["st_default", "st_front"])
    eq(sorted(attachments(attached(s, "st_db")[0])), ["st_default"])
    aliases = {a for n in s.inspect("st_web")["Spec"]["TaskTemplate"]["Networks"] for a in n["Aliases"]}
    eq(aliases, {"web", "www"})
    eq(subnets(network(s, "st_front")), ["10.68.0.0/24"])
    s.docker("stack", "rm", "st")
    eq([n["Name"] for n in s.api.get("/networks") if n["Name"].startswith("st_")], [], "at once: tasks that stop do not keep them")
    s.wait(lambda: not s.api.get("/tasks") or None, "the tasks are gone")


def test_dnsrr(s):
    s.docker("network", "create", "-d", "overlay", "dr")
    s.create("rr", "pause:latest", "--network", "dr", "--endpoint-mode", "dnsrr")
    contains(attachments(attached(s, "rr")[0])["dr"][0], "/24")
    eq(vips(s, "rr", 0), {})
    s.docker_fails("service", "update", "-d", "--publish-add", "8098:80", "rr",
                   say="EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
    s.docker("service", "update", "-d", "--endpoint-mode", "vip", "rr")
    vips(s, "rr", 1)
    s.remove("rr")
    remove(s, "dr")


def test_host_network(s):
    s.create("hn", "pause:latest", "--network", "host")
    t = s.wait_running("hn")[0]
    eq(os.readlink("/proc/%d/ns/net" % s.m1.to_host_pid(s.container_pid(t))), os.readlink("/proc/%d/ns/net" % s.m1.pid))
    eq(s.inspect("hn")["Spec"]["TaskTemplate"]["Networks"], [{"Target": "host"}])
    contains(s.docker("service", "inspect", "--pretty", "hn"), "Networks: host")
    s.docker("service", "update", "-d", "--network-rm", "host", "hn")
    eq(s.inspect("hn")["Spec"]["TaskTemplate"].get("Networks") or [], [])
    s.remove("hn")


def test_exhausted_and_healed(s):
    """A /29 has six addresses: gateway, the service's own, four tasks."""
    s.docker("network", "create", "-d", "overlay", "--subnet", "10.64.0.0/29", "ex")
    s.create("full", "pause:latest", "--network", "ex", "--replicas", "5")
    attached(s, "full", 4)
    t = s.wait_state("full", "new")
    contains(s.wait(lambda: next((x["Status"].get("Err") for x in s.tasks("full") if x["ID"] == t["ID"]), None), "a reason"),
             "could not find an available IP")
    s.wait(lambda: "could not find an available IP" in network(s, "ex").get("Status", {}).get("Error", "") or None, "the network says so")
    s.create("late", "pause:latest", "--network", "ex")
    e = s.wait(lambda: next((x["Status"].get("Err") for x in s.tasks("late")), None), "a reason of the second service")
    contains(e, "could not find an available IP while allocating VIP")
    s.wait(lambda: s.inspect("late")["Endpoint"].get("Error") == e or None, "the service says so")
    s.docker("service", "scale", "-d", "full=2")
    attached(s, "full", 2)
    attached(s, "late", 1)
    eq(s.inspect("late")["Endpoint"].get("Error"), None)
    s.wait(lambda: "Status" not in network(s, "ex") or None, "the reason is gone")
    s.remove("full", "late")
    remove(s, "ex")


def test_two_subnets(s):
    """The second subnet gives when the first one is full, and both families come from their own."""
    body = {"Name": "two", "Driver": "overlay", "EnableIPv6": True,
            "IPAM": {"Config": [{"Subnet": "10.67.0.0/30"}, {"Subnet": "10.67.1.0/29"}, {"Subnet": "fd67::/64", "Gateway": "fd67::99"}]}}
    ident = s.api.post("/networks/create", body, version="/v1.50")["Id"]
    s.create("tws", "pause:latest", "--network", "two", "--replicas", "3", "--endpoint-mode", "dnsrr")
    got = sorted(x for t in attached(s, "tws", 3) for x in attachments(t)["two"])
    eq([a for a in got if ":" not in a], ["10.67.0.2/30", "10.67.1.2/29", "10.67.1.3/29"])
    eq([a for a in got if ":" in a], ["fd67::%d/64" % i for i in (1, 2, 3)])
    s.remove("tws")
    remove(s, ident)


def test_ingress_network(s):
    s.create("pub", "pause:latest", "-p", "8097:80")
    attached(s, "pub")
    sid, ing = s.inspect("pub")["ID"], network(s, "ingress")["Id"]
    try:
        s.api.delete("/networks/ingress")
    except st.ApiError as e:
        contains(str(e), "ingress network cannot be removed because service %s depends on it" % sid)
    else:
        raise st.Failure("ingress is removed under a service")
    s.remove("pub")
    s.api.delete("/networks/" + ing)
    s.docker_fails("service", "create", "-d", "--no-resolve-image", "-p", "8097:80", "pause:latest",
                   say="service needs ingress network, but no ingress network is present")
    s.docker("network", "create", "-d", "overlay", "--ingress", "--subnet", "10.65.0.0/24", "mesh")
    n = s.wait(lambda: (network(s, "mesh") if subnets(network(s, "mesh")) else None), "a subnet of mesh")
    eq((subnets(n), n["Ingress"]), (["10.65.0.0/24"], True))
    s.create("pub", "pause:latest", "-p", "8097:80")
    contains(attachments(attached(s, "pub")[0])["mesh"][0], "10.65.0.")
    s.remove("pub")
    s.api.delete("/networks/mesh")
    s.docker("network", "create", "-d", "overlay", "--ingress", "ingress")
    s.wait(lambda: subnets(network(s, "ingress")) or None, "a subnet of the new ingress network")


def test_events(s):
    ident = s.docker("network", "create", "-d", "overlay", "evn")
    remove(s, "evn")
    want = ["create", "remove"]

    def told():
        """Of the last minute, until a moment ago: such a request ends by itself."""
        now = s.api.get("/info")["SystemTime"]
        q = {"type": ["network"], "network": [ident], "event": want}
        _, text, _ = s.api.raw("GET", "/events?since=0&until=%s&filters=%s" % (urllib.parse.quote(now), urllib.parse.quote(json.dumps(q))))
        got = [json.loads(x) for x in text.decode().splitlines() if x]
        return got if len(got) == len(want) else None
    got = s.wait(told, "the events of network evn")
    eq([(e["Type"], e["Action"], e["Actor"]["ID"], e["Actor"]["Attributes"]["name"], e["scope"]) for e in got],
       [("network", a, ident, "evn", "swarm") for a in want])


def test_prune_and_dangling(s):
    for n, label in (("p1", "a=1"), ("p2", "a=2"), ("p3", "b=1")):
        s.docker("network", "create", "-d", "overlay", "--label", label, n)
    s.create("keeper", "pause:latest", "--network", "p3")
    attached(s, "keeper")
    eq(s.docker("network", "ls", "--filter", "dangling=true", "--format", "{{.Name}}").split(), ["p1", "p2"])
    eq(s.docker("network", "prune", "-f", "--filter", "label=a=1").split("\n"), ["Deleted Networks:", "p1"])
    eq(s.docker("network", "prune", "-f", "--filter", "until=1h"), "")
    eq(s.docker("network", "prune", "-f").split("\n"), ["Deleted Networks:", "p2"])
    s.remove("keeper")
    remove(s, "p3")


def test_python(s):
    if docker is None:
        raise st.Skip("no python3-docker")
    c = docker.DockerClient(base_url="unix://" + s.m1.sock, version="auto")
    try:
        n = c.networks.create("pyn", driver="overlay", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.66.0.0/24")]), labels={"x": "y"})
        eq([x.name for x in c.networks.list(names=["pyn"])], ["pyn"])
        n.reload()
        eq(n.attrs["IPAM"]["Config"][0]["Subnet"], "10.66.0.0/24")
        c.services.create("pause:latest", name="pys", networks=[NetworkAttachmentConfig("pyn", aliases=["q"])],
                          endpoint_spec=EndpointSpec(mode="vip"))
        contains(attachments(attached(s, "pys")[0])["pyn"][0], "10.66.0.")
        try:
            n.remove()
        except docker.errors.APIError as e:
            contains(str(e), "is in use by service")
        else:
            raise st.Failure("a network in use is removed")
        s.remove("pys")
        s.wait(lambda: try_remove(s, "pyn"), "the network is removed")
    finally:
        c.close()


if __name__ == "__main__":
    st.main(setup)
