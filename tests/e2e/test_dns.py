#!/usr/bin/python3
"""Names in containers: 127.0.0.11 on a manager and two workers, asked from inside; a nameserver outside of the swarm, at the address
that the nodes' resolv.conf has, writes down what reaches it."""

import contextlib
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

NAMES = os.path.join(st.TESTS, "lib", "names.py")
HOST_DNS, OWN_DNS, SILENT_DNS = "10.77.0.1", "10.77.0.2", "10.77.0.3"
SEARCH = "--dns-search"


def setup(s):
    s.load("busybox")
    s.load("echo")
    for name, *options in (("one",), ("two",), ("inner", "--internal")):
        s.docker("network", "create", "-d", "overlay", *options, name)
    st.run(*s.cluster.outside("ip", "addr", "add", OWN_DNS + "/24", "dev", "br0"))
    s.asked_log = os.path.join(s.tmp, "asked")
    server = subprocess.Popen(s.cluster.outside("/usr/bin/python3", NAMES, "serve", s.asked_log, HOST_DNS, OWN_DNS))
    was = s.close
    s.close = lambda: (server.kill(), server.wait(), was())
    st.wait_until(lambda: os.path.exists(s.asked_log) and "ready" in asked(s), 20 * st.SLOW, "the nameserver outside")
    s.create("web", "echo:latest", "--network", "one", "--replicas", "3")
    s.create("client", "busybox:latest", "--network", "one", "--constraint", "node.hostname==w1", args=("sleep", "100000"))
    s.keep.update(("web", "client"))
    s.wait_running("web", 3)
    s.wait_running("client")


def asked(s):
    with open(s.asked_log, encoding="utf-8") as f:
        return f.read()


def client(s, service="client"):
    return s.wait_running(service)[0]


def inside(s, task, *argv, **kw):
    """A program of the node in the task's network: an image of the tests has no Python."""
    return s.node_of(task).sh("nsenter", "--net=/run/microswarm/netns/" + task["ID"], "--", *argv, **kw)


def ask_all(s, task, *questions):
    qs = [[q, "A", {}] if isinstance(q, str) else [q[0], q[1], dict(q[2]) if len(q) > 2 else {}] for q in questions]
    return json.loads(inside(s, task, "/usr/bin/python3", NAMES, "ask", json.dumps(qs)))


def ask(s, task, name, kind="A", **options):
    return ask_all(s, task, (name, kind, options))[0]


def says(s, task, name, want, kind="A", seconds=20, **options):
    """Until these are the answers, no more and no less: what has just been created is on its way."""
    def get():
        r = ask(s, task, name, kind, **options)
        return r["code"], r["answers"]
    st.settles(get, ("ok", sorted(want)), "%s %s" % (name, kind), seconds)


def refuses(s, task, name, code="nxdomain", **options):
    st.settles(lambda: (lambda r: (r["code"], r["answers"]))(ask(s, task, name, **options)), (code, []), name)


def vip(s, service, net):
    nid = s.api.get("/networks/" + net)["Id"]
    return next(v["Addr"].split("/")[0] for v in s.inspect(service)["Endpoint"]["VirtualIPs"] if v["NetworkID"] == nid)


def address(task, net):
    return next(a["Addresses"][0].split("/")[0] for a in task["NetworksAttachments"] if a["Network"]["Spec"]["Name"] == net)


def addresses(s, service, net):
    return sorted(address(t, net) for t in s.running(service))


def backwards(addr):
    return ".".join(reversed(addr.split("."))) + ".in-addr.arpa"


def hostname(s, task):
    return s.in_container(task, "hostname").strip()


def test_resolv_conf(s):
    contains(s.in_container(client(s), "cat", "/etc/resolv.conf"), "nameserver 127.0.0.11")


def test_services_and_tasks(s):
    c, web = client(s), s.running("web")
    says(s, c, "web", [vip(s, "web", "one")])
    says(s, c, "tasks.web", addresses(s, "web", "one"))
    for t in web:
        says(s, c, "web.%d.%s" % (t["Slot"], t["ID"]), [address(t, "one")])
    one = ask_all(s, c, "WeB", "web.one", "Tasks.Web.ONE", ("web", "AAAA"), ("web", "TXT"), ("web", "A", {"tcp": True}))
    eq([r["code"] for r in one], ["ok"] * 6)
    eq([r["answers"] for r in one], [[vip(s, "web", "one")], [vip(s, "web", "one")], addresses(s, "web", "one"), [], [],
                                     [vip(s, "web", "one")]])
    if not 0 < one[0]["ttl"] <= 2:
        raise st.Failure("TTL %d" % one[0]["ttl"])


def test_from_every_node(s):
    for n in s.cluster.nodes():
        s.create("on-" + n.name, "busybox:latest", "--network", "one", "--constraint", "node.hostname==" + n.name, args=("sleep", "1000"))
    for n in s.cluster.nodes():
        t = client(s, "on-" + n.name)
        says(s, t, "web", [vip(s, "web", "one")])
        says(s, t, "tasks.web", addresses(s, "web", "one"))
        says(s, t, "tasks.on-" + n.name, [address(t, "one")])


def test_with_resolvers(s):
    """Busybox's and glibc's, which curl uses (in the container's network and with its resolv.conf)."""
    c = client(s)
    says(s, c, "tasks.web", addresses(s, "web", "one"))
    contains(s.in_container(c, "nslookup", "web"), vip(s, "web", "one"))
    conf = s.in_container(c, "cat", "/etc/resolv.conf")
    script = "mount -t tmpfs none /mnt && printf '%%s' '%s' >/mnt/resolv.conf && mount --bind /mnt/resolv.conf /etc/resolv.conf && " \
        "exec curl -sS --max-time %d" % (conf, 20 * st.SLOW)
    hosts = set()
    for name in ["web", "web.one", "tasks.web"] * 4:
        said = inside(s, c, "unshare", "-m", "sh", "-c", "%s http://%s:8080/" % (script, name))
        contains(said, "client=%s:" % address(c, "one"))
        hosts.add(said.split()[0])
    if len(hosts) < 2:
        raise st.Failure("always the same replica: %r" % hosts)


def test_own_name(s):
    c = client(s)
    says(s, c, hostname(s, c), [address(c, "one")])
    s.create("named", "busybox:latest", "--network", "one", "--network", "two", "--hostname", "box", args=("sleep", "1000"))
    t = client(s, "named")
    says(s, t, "box.one", [address(t, "one")])
    says(s, t, "box.two", [address(t, "two")])
    if ask(s, t, "box")["answers"] not in ([address(t, "one")], [address(t, "two")]):  # the first network's
        raise st.Failure("box: %r" % ask(s, t, "box"))
    refuses(s, c, "box")  # nobody else's business


def test_backwards(s):
    c, web = client(s), s.running("web")
    says(s, c, backwards(vip(s, "web", "one")), ["web.one"], "PTR")
    for t in web:
        says(s, c, backwards(address(t, "one")), ["web.%d.%s.one" % (t["Slot"], t["ID"])], "PTR")
    nobody = address(c, "one").rsplit(".", 1)[0] + ".254"
    before = asked(s)
    eq(ask(s, c, backwards(nobody), "PTR")["code"], "nxdomain", "an address that nobody has")
    eq(asked(s), before, "what is asked outside of addresses of ours")


def test_aliases(s):
    s.create("db1", "busybox:latest", "--network", "name=one,alias=db,alias=store", args=("sleep", "1000"))
    s.create("db2", "busybox:latest", "--network", "name=one,alias=DB", "--endpoint-mode", "dnsrr", args=("sleep", "1000"))
    s.wait_running("db1")
    two = s.wait_running("db2")
    c = client(s)
    says(s, c, "store", [vip(s, "db1", "one")])
    says(s, c, "db", [vip(s, "db1", "one"), address(two[0], "one")])
    says(s, c, "db.one", [vip(s, "db1", "one"), address(two[0], "one")])
    says(s, c, "tasks.store", addresses(s, "db1", "one"))


def test_dnsrr(s):
    s.create("rr", "busybox:latest", "--network", "one", "--endpoint-mode", "dnsrr", "--replicas", "4", args=("sleep", "1000"))
    s.wait_running("rr", 4)
    c = client(s)
    says(s, c, "rr", addresses(s, "rr", "one"))
    says(s, c, "tasks.rr", addresses(s, "rr", "one"))


def test_several_networks(s):
    s.create("both", "busybox:latest", "--network", "one", "--network", "two", args=("sleep", "1000"))
    s.create("other", "busybox:latest", "--network", "two", args=("sleep", "1000"))
    s.create("both2", "echo:latest", "--network", "two", "--network", "one")
    both, other = client(s, "both"), client(s, "other")
    client(s, "both2")
    c = client(s)
    # who is on one network hears of that one's addresses
    says(s, c, "both2", [vip(s, "both2", "one")])
    says(s, other, "both2", [vip(s, "both2", "two")])
    refuses(s, other, "web")
    refuses(s, c, "other")
    says(s, other, "both2.two", [vip(s, "both2", "two")])
    refuses(s, other, "both2.one")
    # on both: one network's answer, and either by its name
    says(s, both, "web", [vip(s, "web", "one")])
    says(s, both, "other", [vip(s, "other", "two")])
    says(s, both, "both2.one", [vip(s, "both2", "one")])
    says(s, both, "both2.two", [vip(s, "both2", "two")])
    got = ask(s, both, "both2")["answers"]
    if got not in ([vip(s, "both2", "one")], [vip(s, "both2", "two")]):
        raise st.Failure("both2 from both networks: %r" % got)


def test_outside(s):
    """What the swarm does not know is for the host's nameserver, asked from the host."""
    c = client(s)
    says(s, c, "a.example", ["192.0.2.1"])
    says(s, c, "a.example", ["192.0.2.1"], tcp=True)
    contains(asked(s), "%s a.example 1 udp %s" % (HOST_DNS, s.node_of(c).addr))
    refuses(s, c, "nobody.example")
    eq(ask(s, c, "broken.example")["code"], "servfail")
    cut = ask(s, c, "ten.example")
    eq((cut["code"], cut["cut"]), ("ok", True))
    says(s, c, "ten.example", ["198.51.100.%d" % i for i in range(1, 101)], tcp=True)
    eq(ask(s, c, "slow.example", seconds=15 * st.SLOW)["code"], "servfail", "a question that nobody answers")
    contains(s.in_container(c, "nslookup", "a.example"), "192.0.2.1")


def test_own_nameserver(s):
    """--dns: asked from inside of the container; one that is silent does not hold up the next."""
    s.create("own", "busybox:latest", "--network", "one", "--dns", SILENT_DNS, "--dns", OWN_DNS, SEARCH, "corp.example", "--dns-option",
             "ndots:2", "--constraint", "node.hostname==w2", args=("sleep", "1000"))
    t = client(s, "own")
    conf = s.in_container(t, "cat", "/etc/resolv.conf")
    eq(sorted(conf.split("\n")), ["", "nameserver 127.0.0.11", "options ndots:2", "search corp.example"])
    says(s, t, "web", [vip(s, "web", "one")])
    says(s, t, "a.example", ["192.0.2.2"], seconds=30)
    if "%s a.example" % HOST_DNS in "".join(l for l in asked(s).splitlines(True) if l.rstrip().endswith(s.cluster.node("w2").addr) and
                                            l.startswith(HOST_DNS)):
        raise st.Failure("the host's nameserver was asked as well")
    contains(s.in_container(t, "nslookup", "box.corp.example"), "192.0.2.2")


def test_internal(s):
    """On internal networks alone nothing is asked outside; with another network beside, it is."""
    s.create("in1", "busybox:latest", "--network", "inner", args=("sleep", "1000"))
    s.create("in2", "busybox:latest", "--network", "inner", "--network", "two", args=("sleep", "1000"))
    in1, in2 = client(s, "in1"), client(s, "in2")
    says(s, in1, "in2", [vip(s, "in2", "inner")])
    refuses(s, in1, "secret.example")
    refuses(s, in1, "secret.example", tcp=True)
    refuses(s, in1, "4.3.2.1.in-addr.arpa", kind="PTR")
    text = asked(s)
    if "secret.example" in text or "4.3.2.1.in-addr" in text:
        raise st.Failure("asked outside: " + text)
    says(s, in2, "a.example", ["192.0.2.1"])


def test_scaling_is_seen(s):
    c = client(s)
    for n in (6, 2, 3):
        s.docker("service", "scale", "-d", "web=%d" % n)
        s.wait_running("web", n)
        # what is cached for the TTL is what this nameserver said: it says it at once
        says(s, c, "tasks.web", addresses(s, "web", "one"), seconds=5)
        eq(ask(s, c, "web")["answers"], [vip(s, "web", "one")])


def test_a_service_goes(s):
    s.create("gone", "busybox:latest", "--network", "one", args=("sleep", "1000"))
    s.wait_running("gone")
    c = client(s)
    says(s, c, "gone", [vip(s, "gone", "one")])
    s.remove("gone")
    refuses(s, c, "gone")
    refuses(s, c, "tasks.gone")


def test_own_port_53(s):
    """A container may have a nameserver of its own on all addresses: what it asks 127.0.0.11 still comes to us."""
    c = client(s)
    hog = subprocess.Popen(s.node_of(c).argv(
        "nsenter", "--net=/run/microswarm/netns/" + c["ID"], "--", "/usr/bin/python3", "-c",
        "import socket, sys\nu = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nu.bind(('0.0.0.0', 53))\n"
        "t = socket.socket()\nt.bind(('0.0.0.0', 53))\nt.listen()\nprint('bound', flush=True)\nsys.stdin.read()\n"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        eq(hog.stdout.readline(), "bound\n")
        says(s, c, "web", [vip(s, "web", "one")])
        says(s, c, "web", [vip(s, "web", "one")], tcp=True)
    finally:
        hog.communicate("")


def test_flood(s):
    """One container asks without end; its neighbour's names go on working."""
    c = client(s)
    s.create("neighbour", "busybox:latest", "--network", "one", "--constraint", "node.hostname==w1", args=("sleep", "1000"))
    n = client(s, "neighbour")
    says(s, n, "web", [vip(s, "web", "one")])
    node = s.node_of(c)
    flood = subprocess.Popen(node.argv("nsenter", "--net=/run/microswarm/netns/" + c["ID"], "--", "/usr/bin/python3", NAMES,
                                       "flood", "6"), stdout=subprocess.PIPE, text=True)
    lost = late = 0
    while flood.poll() is None:
        for r in ask_all(s, n, *[("web", "A", {"seconds": 3 * st.SLOW * st.crowd()})] * 10):
            lost += r["code"] != "ok"
            late += r.get("ms", 0) > 1000 * st.SLOW * st.crowd()
    sent = int(flood.stdout.read())
    flood.stdout.close()
    print("# flood: %d questions in 6 s; of the neighbour's, %d unanswered, %d late" % (sent, lost, late), flush=True)
    eq((lost, late), (0, 0), "the neighbour's questions unanswered, late")
    says(s, c, "web", [vip(s, "web", "one")])


def test_garbage(s):
    c = client(s)
    for raw in ("00", "0001", "000101000001000000000000", "0001010000010000000000000377656200",
                "00010100000100000000000003776562c00c00010001", "000101000001000000000000c00c00010001", "ffff" * 100):
        ask(s, c, "", raw=raw, seconds=0.2)
        ask(s, c, "", raw=raw, seconds=0.2, tcp=True)
    says(s, c, "web", [vip(s, "web", "one")])


def test_meshd_dies(s):
    c = client(s)
    node = s.node_of(c)
    node.kill("meshd")
    node.wait_ready(30 * st.SLOW)
    says(s, c, "web", [vip(s, "web", "one")])
    says(s, c, "tasks.web", addresses(s, "web", "one"), tcp=True)
    says(s, c, hostname(s, c), [address(c, "one")])
    says(s, c, "a.example", ["192.0.2.1"])


def test_nameserver_of_the_host_changes(s):
    c = client(s)
    with open(s.node_of(c).path("etc", "resolv.conf"), "w", encoding="utf-8") as f:
        f.write("nameserver %s\n" % OWN_DNS)
    says(s, c, "a.example", ["192.0.2.2"])


def test_no_network_no_nameserver(s):
    """A task on no overlay has the host's resolv.conf."""
    s.create("plain", "busybox:latest", args=("sleep", "1000"))
    t = client(s, "plain")
    if "127.0.0.11" in s.in_container(t, "cat", "/etc/resolv.conf"):
        raise st.Failure("a nameserver that is not there")


def test_end(s):
    s.keep.clear()
    s.remove_all()
    for name in ("one", "two", "inner"):
        with contextlib.suppress(st.ApiError):
            s.api.delete("/networks/" + name)

    def none():
        return all("microswarm_meshd_dns_sandboxes 0" in n.probe("meshd", "metrics") for n in s.cluster.nodes()) or None
    s.wait(none, "no nameserver is left")


if __name__ == "__main__":
    st.main(setup, managers=1, workers=2, settings={"meshd": {"reconcile": "2s"}})
