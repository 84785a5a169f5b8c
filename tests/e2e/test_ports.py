#!/usr/bin/python3
"""Published ports: ingress, host mode, chosen automatically, refused when taken."""

import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

ADDR = "10.77.0.11"


def setup(s):
    s.load("echo")
    s.load("busybox")


def port_of(s, name):
    return s.wait(lambda: s.inspect(name).get("Endpoint", {}).get("Ports") or None, "ports of " + name)


def test_ingress(s):
    s.create("in", "echo:latest", "-p", "8080:8080", "--replicas", "2")
    s.wait_running("in", 2)
    contains(s.http("http://%s:8080/x" % ADDR), "path=/x")
    contains(s.http("http://%s:8080/x" % ADDR, outside=False), "path=/x", "from the node itself")
    contains(s.http("http://127.0.0.1:8080/x", outside=False), "path=/x", "on the node's loopback")
    s.remove("in")
    try:
        s.http("http://%s:8080/" % ADDR, seconds=1)
    except st.Failure:
        return
    raise st.Failure("the port answers although the service is gone")


def test_client_address_is_kept(s):
    s.create("ca", "echo:latest", "-p", "8081:8080")
    s.wait_running("ca")
    contains(s.http("http://%s:8081/" % ADDR), "client=10.77.0.1:")
    s.remove("ca")


def test_udp(s):
    s.create("ud", "echo:latest", "-p", "5353:8080/udp")
    s.wait_running("ud")
    script = ("import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.settimeout(5)\n"
              "s.sendto(b'hi',('%s',5353))\nd,a=s.recvfrom(2000)\nprint(d.decode(),a)" % ADDR)
    contains(st.run(*s.cluster.outside("/usr/bin/python3", "-c", script)), "host=")
    s.remove("ud")


def test_host_mode(s):
    s.create("hm", "echo:latest", "--publish", "mode=host,published=8082,target=8080")
    t = s.wait_running("hm")[0]
    contains(s.http("http://%s:8082/" % ADDR), "host=")
    eq(t["Status"]["PortStatus"]["Ports"], [{"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 8082, "PublishMode": "host"}])
    # a second task with the same host port finds no node
    s.docker("service", "scale", "-d", "hm=2")
    t = s.wait(lambda: next((t for t in s.tasks("hm") if t["Status"].get("Err")), None), "a reason why it waits")
    contains(t["Status"]["Err"], "host-mode port already in use on 1 node")
    s.remove("hm")


def test_host_mode_chosen(s):
    s.create("hc", "echo:latest", "--publish", "mode=host,target=8080")
    t = s.wait_running("hc")[0]
    port = t["Status"]["PortStatus"]["Ports"][0]["PublishedPort"]
    contains(s.http("http://%s:%d/" % (ADDR, port)), "host=")
    s.remove("hc")


def test_automatic_ports(s):
    s.create("au1", "echo:latest", "--publish", "8080")
    s.create("au2", "echo:latest", "--publish", "8080")
    s.wait_running("au1")
    s.wait_running("au2")
    a, b = port_of(s, "au1")[0]["PublishedPort"], port_of(s, "au2")[0]["PublishedPort"]
    if a == b or not 30000 <= a <= 32767 or not 30000 <= b <= 32767:
        raise st.Failure("ports %d and %d" % (a, b))
    contains(s.http("http://%s:%d/" % (ADDR, a)), "host=")
    # an update keeps what was chosen
    s.docker("service", "update", "-d", "--no-resolve-image", "--label-add", "x=y", "au1")
    eq(port_of(s, "au1")[0]["PublishedPort"], a)
    s.remove("au1", "au2")


def test_taken(s):
    s.create("tk", "echo:latest", "-p", "8083:8080")
    s.wait_running("tk")
    s.docker_fails("service", "create", "-d", "--no-resolve-image", "--name", "tk2", "-p", "8083:8080", "echo:latest",
                   say="port '8083' is already in use by service 'tk'")
    eq(s.docker("service", "ls", "--format", "{{.Name}}"), "tk")
    s.remove("tk")
    # free again
    s.create("tk2", "echo:latest", "-p", "8083:8080")
    s.wait_running("tk2")
    s.remove("tk2")


def test_change_of_ports(s):
    s.create("ch", "echo:latest", "-p", "8084:8080")
    s.wait_running("ch")
    s.docker("service", "update", "-d", "--no-resolve-image", "--publish-rm", "8080", "--publish-add", "8085:8080", "ch")
    s.wait(lambda: port_of(s, "ch")[0]["PublishedPort"] == 8085 or None, "the new port")

    def answers():
        try:
            return "host=" in s.http("http://%s:8085/" % ADDR, seconds=1)
        except st.Failure:
            return None
    s.wait(answers, "an answer on the new port")
    s.remove("ch")


def test_outbound(s):
    """A container reaches what lies outside of its node, with the node's address."""
    listener = ("import socket\nl=socket.socket()\nl.setsockopt(1,2,1)\nl.bind(('10.77.0.1',9999))\nl.listen(1)\nprint('up',flush=True)\n"
                "c,a=l.accept()\nprint(a[0],flush=True)\nc.sendall(b'hello\\n')\n")
    import subprocess
    p = subprocess.Popen(s.cluster.outside("/usr/bin/python3", "-c", listener), stdout=subprocess.PIPE, text=True)
    try:
        p.stdout.readline()
        s.create("ob", "busybox:latest", args=("sh", "-c", "nc 10.77.0.1 9999; exec sleep 1000"))
        s.wait(lambda: "hello" in s.logs("ob") or None, "what the listener said")
        eq(p.stdout.readline().strip(), ADDR)
    finally:
        p.kill()
        p.wait()
    s.remove("ob")


def test_our_table_only(s):
    """One nftables table of our own: the host's rules stay as they are."""
    s.m1.sh("nft", "add table inet users; add chain inet users mine { type filter hook input priority 0; }; "
            "add rule inet users mine tcp dport 1 counter")
    before = s.m1.sh("nft", "list table inet users")
    s.create("nt", "echo:latest", "-p", "8086:8080")
    s.wait_running("nt")
    s.remove("nt")
    s.m1.kill("meshd")
    s.m1.wait_ready(30 * st.SLOW)
    eq(s.m1.sh("nft", "list table inet users"), before)
    s.m1.sh("nft", "delete table inet users")


def test_one_port_for_many_at_once(s):
    """Of services that want the same port at the same moment one gets it; the others hear who has it."""
    def spec(name, port):
        return {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "echo:latest"}},
                "Mode": {"Replicated": {"Replicas": 0}},
                "EndpointSpec": {"Ports": [{"TargetPort": 8080, "PublishedPort": port}] if port else []}}

    def at_once(calls):
        out = [None] * len(calls)

        def run(i):
            out[i] = s.api.raw(*calls[i])[:2]
        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return out
    for rnd in range(10):
        port = 8300 + rnd
        got = at_once([("POST", "/services/create", spec("many%d-%d" % (rnd, i), port)) for i in range(6)])
        eq(sorted(g[0] for g in got), [201] + [400] * 5)
        for status, data in got:
            if status == 400:
                contains(data.decode(), "port '%d' is already in use by service 'many%d-" % (port, rnd))
                contains(data.decode(), "as an ingress port")
    s.remove(*[x["Spec"]["Name"] for x in s.api.get("/services")])
    # the same for updates, and a port is free again at once when its service goes
    for i in range(4):
        s.api.post("/services/create", spec("upd%d" % i, 0))
    ver = {x["Spec"]["Name"]: x["Version"]["Index"] for x in s.api.get("/services")}
    got = at_once([("POST", "/services/upd%d/update?version=%d" % (i, ver["upd%d" % i]), spec("upd%d" % i, 8300))
                   for i in range(4)])
    eq(sorted(g[0] for g in got), [200, 400, 400, 400])
    s.remove(*["upd%d" % i for i in range(4)])
    for _ in range(10):
        s.api.post("/services/create", spec("again", 8300))
        s.api.delete("/services/again")
    s.create("again", "echo:latest", "-p", "8300:8080")
    s.wait_running("again")
    contains(s.http("http://%s:8300/" % ADDR), "host=")
    s.remove("again")


if __name__ == "__main__":
    st.main(setup)
