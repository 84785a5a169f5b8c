#!/usr/bin/python3
"""Nodes come, change their role and go: three managers and two workers through the docker client, and what is refused."""

import contextlib
import json
import os
import re
import select
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

NOT_IN_SWARM = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
WORKER = ("This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a "
          "manager node or promote the current node to a manager.")
ALREADY = 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'


def node(s, name):
    return s.cluster.node(name)


def token(s, role):
    return s.docker("swarm", "join-token", "-q", role, on="m1")


def rows(s, on="m1"):
    """hostname -> (status, availability, manager status), as `docker node ls` prints them."""
    out = s.docker("node", "ls", "--format", "{{.Hostname}}|{{.Status}}|{{.Availability}}|{{.ManagerStatus}}", on=on)
    return {r[0]: tuple(r[1:]) for r in (line.split("|") for line in out.splitlines())}


def wait_row(s, name, want, on="m1", seconds=30):
    """Waits until node ls shows this; what it is, if it doesn't come about."""
    last = {}

    def same():
        try:
            last["row"] = rows(s, on).get(name)
        except st.Failure as e:
            last["row"] = str(e)
        return last["row"] == want or want is None and last["row"] is None
    try:
        st.wait_until(same, seconds * st.SLOW, "%s: %r" % (name, want))
    except st.Failure as e:
        raise st.Failure("%s; it is %r" % (e, last["row"])) from None


def local_state(s, on, want):
    st.settles(lambda: swarm_info(s, on)["LocalNodeState"], want, "%s is %s" % (on, want))


def swarm_info(s, on):
    return json.loads(s.docker("info", "--format", "{{json .Swarm}}", on=on))


def join(s, name, secret, to="m1", *more):
    n = node(s, name)
    return s.docker("swarm", "join", "--token", secret, "--advertise-addr", n.addr, *more, node(s, to).addr + ":2377", on=n)


def join_fails(s, name, secret, say, to="m1"):
    n = node(s, name)
    text = s.docker_fails("swarm", "join", "--token", secret, "--advertise-addr", n.addr, node(s, to).addr + ":2377", on=n, say=say)
    return text


def id_of(s, name):
    return s.api.get("/nodes/" + name)["ID"]


def test_init(s):
    contains(s.docker_fails("node", "ls", on="m2"), NOT_IN_SWARM)
    contains(s.docker_fails("swarm", "init", "--advertise-addr", "nosuchif", on="m1"), "advertise address must be")
    contains(s.docker_fails("swarm", "init", "--listen-addr", "10.77.0.77", on="m1"), "10.77.0.77")
    eq(swarm_info(s, "m1")["LocalNodeState"], "inactive")
    out = s.docker("swarm", "init", "--advertise-addr", node(s, "m1").addr, on="m1")
    contains(out, "is now a manager")
    m = re.search(r"docker swarm join --token (\S+) (\S+)", out)
    eq(m.group(2), node(s, "m1").addr + ":2377")
    eq(m.group(1), token(s, "worker"))
    contains(s.docker_fails("swarm", "init", "--advertise-addr", node(s, "m1").addr, on="m1"), ALREADY)
    s.cluster.wait_nodes(1, 20 * st.SLOW)
    st.settles(lambda: rows(s), {"m1": ("Ready", "Active", "Leader")}, "the first manager")


def test_bad_tokens(s):
    """Each is refused with its reason, and leaves the node outside and free to join."""
    good = token(s, "worker")
    _, _, digest, secret = good.split("-")
    for bad in ("abc", good[:-1], good[:-10], "SWMTKN-1-" + digest, "SWMTKN-2-%s-%s" % (digest, secret), good + "-x", "SWMTKN-1-%s-%s" % (digest[:-1], secret),
                "SWMTKN-1-%s-%s" % (digest.upper(), secret), "SWMTKN-1-%s-%s!" % (digest, secret[:-1])):
        join_fails(s, "w1", bad, "invalid join token")
    other = "SWMTKN-1-%s-%s" % ("1" + "2" * 49, secret)  # of another swarm: the digest is another root's
    join_fails(s, "w1", other, "remote CA does not match fingerprint")
    guessed = "SWMTKN-1-%s-%s" % (digest, "0" + "z" * 24 if secret[0] != "0" else "1" + "z" * 24)
    join_fails(s, "w1", guessed, "valid join token is necessary")
    s.docker("swarm", "join-token", "--rotate", "worker", on="m1")
    join_fails(s, "w1", good, "valid join token is necessary")
    eq(swarm_info(s, "w1")["LocalNodeState"], "inactive")
    eq(sorted(rows(s)), ["m1"], "no trace of the refused ones")
    text = "".join(node(s, n).logs(d) for n in ("m1", "w1") for d in node(s, n).info["daemons"])
    for part in (secret, guessed.split("-")[3], token(s, "worker").split("-")[3], token(s, "manager").split("-")[3]):
        if part in text:
            raise st.Failure("a token's secret is in a log")


def test_unreachable_address(s):
    """Nobody there: an answer in bounded time; the attempt can be given up."""
    secret = token(s, "worker")

    def in_vain(name, to):  # an address that nobody has; a manager that is there, and nothing on this port
        contains(s.docker_fails("swarm", "join", "--token", secret, "--advertise-addr", node(s, name).addr, to, on=name, timeout=60),
                 "Timeout was reached before node joined")
        st.settles(lambda: swarm_info(s, name)["LocalNodeState"] in ("pending", "error"), True, "%s still tries, or says why not" % name)
        s.docker("swarm", "leave", "--force", on=name)
        local_state(s, name, "inactive")
    with ThreadPoolExecutor(2) as pool:
        for f in [pool.submit(in_vain, "w1", "10.77.0.99:2377"), pool.submit(in_vain, "w2", node(s, "m1").addr + ":2399")]:
            f.result()
    eq(sorted(rows(s)), ["m1"])


def test_join(s):
    contains(join(s, "w1", token(s, "worker")), "This node joined a swarm as a worker.")
    contains(join(s, "w2", token(s, "worker"), "m1", "--availability", "drain"), "as a worker")
    contains(join(s, "m2", token(s, "manager")), "This node joined a swarm as a manager.")
    contains(join(s, "m3", token(s, "manager"), "m2"), "as a manager")  # through one that isn't the leader
    for name, want in (("w1", ("Ready", "Active", "")), ("w2", ("Ready", "Drain", "")), ("m2", ("Ready", "Active", "Reachable")),
                       ("m3", ("Ready", "Active", "Reachable")), ("m1", ("Ready", "Active", "Leader"))):
        wait_row(s, name, want)
    join_fails(s, "m2", token(s, "manager"), ALREADY)
    join_fails(s, "w1", token(s, "worker"), ALREADY)
    eq(len(rows(s)), 5)
    s.docker("node", "update", "--availability", "active", "w2")
    s.load("pause")
    s.load("busybox")


def test_info(s):
    three = sorted(node(s, m).addr + ":2377" for m in ("m1", "m2", "m3"))

    def shown(name):  # the manager's own view, which follows the leader's
        i = swarm_info(s, name)
        return (i["LocalNodeState"], i["ControlAvailable"], i["NodeAddr"], i.get("Managers"), i.get("Nodes"), sorted(m["Addr"] for m in i["RemoteManagers"]))
    for name in ("m1", "m2", "m3"):
        st.settles(lambda n=name: shown(n), ("active", True, node(s, name).addr, 3, 5, three), "docker info on " + name)
        eq(swarm_info(s, name)["NodeID"], id_of(s, name))
        text = s.docker("info", on=name)
        for part in ("Swarm: active", "Is Manager: true", "Managers: 3", "Nodes: 5", "Raft:", "CA Configuration:", "Node Address: " + node(s, name).addr):
            contains(text, part, name)
    st.settles(lambda: shown("w1"), ("active", False, node(s, "w1").addr, None, None, three), "docker info on w1")
    eq(swarm_info(s, "w1")["NodeID"], id_of(s, "w1"))
    contains(s.docker("info", on="w1"), "Is Manager: false")


def test_the_certificate(s):
    cluster = s.api.get("/swarm")
    for name in ("m1", "m2", "w1"):
        n = node(s, name)
        text = n.sh("openssl", "x509", "-noout", "-text", "-in", "/var/lib/microswarm/certificates/swarm-node.crt")
        role = "swarm-manager" if name[0] == "m" else "swarm-worker"
        for part in ("CN = " + id_of(s, name), "OU = " + role, "O = " + cluster["ID"], "DNS:" + role, "ecdsa-with-SHA256", "NIST CURVE: P-256"):
            contains(text, part, name)
        eq(n.sh("stat", "-c", "%a %U", "/var/lib/microswarm/certificates/swarm-node.key").strip(), "600 microswarm-gatewayd")
        out = n.sh("openssl", "verify", "-CAfile", "/var/lib/microswarm/certificates/swarm-root-ca.crt", "/var/lib/microswarm/certificates/swarm-node.crt")
        contains(out, ": OK")
        st.settles(lambda n=name: s.api.get("/nodes/" + n)["Description"].get("TLSInfo"), cluster["TLSInfo"], "what %s reports of its certificate" % name)


def test_a_worker_refuses(s):
    for argv in (("node", "ls"), ("service", "ls"), ("service", "create", "-d", "--no-resolve-image", "x"), ("swarm", "join-token", "worker"),
                 ("node", "promote", "w1"), ("secret", "ls"), ("config", "ls"), ("service", "ps", "x"), ("swarm", "ca"), ("node", "inspect", "self")):
        contains(s.docker_fails(*argv, on="w1"), WORKER, " ".join(argv))


def test_a_follower_answers(s):
    """Every call through a manager that isn't the leader does what it does on the leader."""
    lead = s.cluster.wait_leader().name
    for name in [m for m in ("m1", "m2", "m3") if m != lead]:
        svc = "via-" + name
        with s.at(name):
            sid = s.create(svc, "pause:latest", "--replicas", "3", "--label", "a=b")
            eq(s.api.get("/services/" + sid)["Spec"]["Name"], svc, "a write is there when it was acknowledged")
            s.wait_running(svc, 3)
            contains(s.docker("service", "ls"), svc)
            contains(s.docker("service", "inspect", "--pretty", svc), "pause:latest")
            s.docker("service", "scale", "-d", svc + "=2")
            s.wait_running(svc, 2)
            s.docker("service", "update", "-d", "--label-add", "c=d", svc)
            eq(s.inspect(svc)["Spec"]["Labels"], {"a": "b", "c": "d"})
            eq(len(s.docker("service", "ps", "-q", "--filter", "desired-state=running", svc).split()), 2)
            contains(s.docker("node", "ls"), "Leader")
            s.docker("node", "update", "--label-add", "via=" + name, "w1")
            eq(s.docker("node", "inspect", "--format", "{{.Spec.Labels.via}}", "w1"), name)
            contains(s.docker("node", "ps", *rows(s, name)), svc)
            contains(s.docker("swarm", "join-token", "-q", "worker"), "SWMTKN-1-")
            s.docker("swarm", "update", "--task-history-limit", "4")
            eq(s.api.get("/swarm")["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 4)
            contains(s.docker("swarm", "ca"), "BEGIN CERTIFICATE")
            old = s.docker("swarm", "join-token", "-q", "worker")
            new = s.docker("swarm", "join-token", "--rotate", "-q", "worker")
            if new == old:
                raise st.Failure("%s: the token did not change" % name)
            eq(s.docker("swarm", "join-token", "-q", "worker", on=lead), new)
            s.docker_fails("service", "inspect", "nosuch", say="no such service")
            s.docker_fails("service", "create", "-d", "--no-resolve-image", "--name", svc, "pause:latest", say="name conflicts")
            with s.api.events() as ev:
                s.docker("service", "rm", svc)
                st.wait_until(lambda e=ev: b"remove" in e.recv(65536), 20 * st.SLOW, "the event of the removal")
            s.wait(lambda i=sid: not any(t["ServiceID"] == i for t in s.api.get("/tasks")) or None, "no task of " + svc)


def test_logs_of_another_node(s):
    """The log of a task is read from its node, wherever the client asks."""
    s.create("says", "busybox:latest", "--replicas", "5", args=("sh", "-c", "echo this is $(hostname); sleep 1000"))
    eq(len({t["NodeID"] for t in s.wait_running("says", 5)}), 5, "nodes that tasks are on")
    for via in ("m1", "m2", "m3"):
        with s.at(via):
            st.wait_until(lambda: s.logs("says").count("this is") == 5, 15 * st.SLOW, "%s: five lines of the log" % via)
    s.remove("says")


def test_labels_and_constraints(s):
    s.docker("node", "update", "--label-add", "zone=east", "w2")
    s.create("east", "pause:latest", "--replicas", "2", "--constraint", "node.labels.zone==east")
    eq({s.node_of(t).name for t in s.wait_running("east", 2)}, {"w2"})
    s.create("mgr", "pause:latest", "--replicas", "6", "--constraint", "node.role==manager")
    eq(sorted({s.node_of(t).name for t in s.wait_running("mgr", 6)}), ["m1", "m2", "m3"])
    s.create("host", "pause:latest", "--constraint", "node.hostname==w1")
    eq(s.node_of(s.wait_running("host")[0]).name, "w1")
    s.docker("node", "update", "--label-rm", "zone", "w2")
    eq(s.docker("node", "inspect", "--format", "{{json .Spec.Labels}}", "w2"), "{}")
    s.remove("east", "mgr", "host")


def test_availability(s):
    s.create("av", "pause:latest", "--replicas", "10")
    before = {t["ID"]: s.node_of(t).name for t in s.wait_running("av", 10)}
    eq(set(before.values()), {"m1", "m2", "m3", "w1", "w2"}, "spread over all")
    s.docker("node", "update", "--availability", "pause", "w1")
    s.docker("service", "scale", "-d", "av=14")
    now = {t["ID"]: s.node_of(t).name for t in s.wait_running("av", 14)}
    eq([now.get(t) for t in before], list(before.values()), "pause moves nothing")
    eq([t for t, n in now.items() if n == "w1" and t not in before], [], "tasks that were put on a paused node")
    s.docker("node", "update", "--availability", "drain", "w1")
    s.wait(lambda: not any(s.node_of(t).name == "w1" for t in s.running("av")) and len(s.running("av")) == 14 or None, "w1 is drained")
    st.wait_until(lambda: count(s, "w1") == 0, 20 * st.SLOW, "no container on w1")
    then = {t["ID"]: s.node_of(t).name for t in s.running("av")}
    eq([t for t, n in now.items() if n != "w1" and then.get(t) != n], [], "tasks elsewhere that were touched")
    s.docker("node", "update", "--availability", "active", "w1")
    s.remove("av")


def count(s, name):
    return int(node(s, name).sh("sh", "-c", "pgrep -xc pause || true"))


def failing(s, on):
    try:
        return s.docker("node", "ls", on=on)
    except st.Failure as e:
        return str(e)


def test_promote_and_demote(s):
    contains(s.docker("node", "promote", "w1"), "promoted to a manager")
    wait_row(s, "w1", ("Ready", "Active", "Reachable"))
    st.wait_until(lambda: swarm_info(s, "w1")["ControlAvailable"], 20 * st.SLOW, "w1 answers as a manager")
    with s.at("w1"):
        contains(s.docker("node", "ls"), "Leader")
        s.create("pr", "pause:latest", "--replicas", "2")
        s.wait_running("pr", 2)
    text = node(s, "w1").sh("openssl", "x509", "-noout", "-subject", "-in", "/var/lib/microswarm/certificates/swarm-node.crt")
    contains(text, "swarm-manager")
    kept = {t["ID"] for t in s.running("pr")}
    contains(s.docker("node", "demote", "w1"), "demoted")
    wait_row(s, "w1", ("Ready", "Active", ""))
    st.wait_until(lambda: not swarm_info(s, "w1")["ControlAvailable"], 20 * st.SLOW, "w1 answers as a worker")
    st.wait_until(lambda: WORKER in failing(s, "w1"), 20 * st.SLOW, "w1 says that it is a worker")

    def worker_certificate():
        return "swarm-worker" in node(s, "w1").sh("openssl", "x509", "-noout", "-subject", "-in", "/var/lib/microswarm/certificates/swarm-node.crt")
    st.wait_until(worker_certificate, 20 * st.SLOW, "w1 has a worker's certificate")
    st.wait_until(lambda: json.loads(node(s, "w1").probe("raftd")).get("State", json.loads(node(s, "w1").probe("raftd")).get("state")) == "uninitialized",
                  20 * st.SLOW, "w1's raftd has forgotten the store")
    eq({t["ID"] for t in s.running("pr")}, kept, "containers that did not notice")
    s.remove("pr")


def test_demote_the_leader(s):
    lead = s.cluster.wait_leader().name
    other = next(m for m in ("m1", "m2", "m3") if m != lead)
    with s.at(other):
        s.docker("node", "demote", lead)
        wait_row(s, lead, ("Ready", "Active", ""), on=other)
        s.cluster.wait_leader([node(s, other)])
        s.docker("node", "promote", lead)
        wait_row(s, lead, ("Ready", "Active", "Reachable"), on=other)
    s.cluster.wait_nodes(5, 20 * st.SLOW, via=lead)


def test_refusals_of_node_rm(s):
    s.docker_fails("node", "rm", "m2", on="m1", say="is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal")
    s.docker_fails("node", "rm", "w1", on="m1", say="is not down and can't be removed")
    s.docker_fails("node", "rm", "nosuch", say="not found")
    s.docker_fails("node", "demote", "nosuch", say="not found")


class Told:
    """The events that came since it began to listen, at the front manager."""

    def __init__(self, s, kind):
        self.conn = st.UnixHTTP(s.front.sock, 60)
        self.conn.request("GET", "/v1.41/events?filters=" + quote(json.dumps({"type": [kind]})))
        self.text, self.sock = b"", self.conn.sock

    def read(self):
        while select.select([self.sock], [], [], 0)[0]:
            piece = self.sock.recv(65536)
            if not piece:
                break
            self.text += piece
        return self.text

    def wait_open(self):
        """The manager listens to us: its head of the answer is here."""
        st.wait_until(lambda: b"\r\n\r\n" in self.read(), 20 * st.SLOW, "the stream of events")

    def wait(self, name, key, value):
        def seen():
            lines = [json.loads(l) for l in self.read().splitlines() if l.startswith(b"{") and l.endswith(b"}")]
            return any(a.get("name") == name and a.get(key) == value for a in (l["Actor"]["Attributes"] for l in lines))
        try:
            st.wait_until(seen, 30 * st.SLOW, "an event of %s: %s %s" % (name, key, value))
        except st.Failure as e:
            raise st.Failure("%s; there was: %s" % (e, self.text.decode(errors="replace"))) from None


@contextlib.contextmanager
def told(s, kind):
    t = Told(s, kind)
    try:
        t.wait_open()
        yield t
    finally:
        t.conn.close()


def test_manager_status_when_one_is_off(s):
    lead = s.cluster.wait_leader().name
    victim = next(m for m in ("m3", "m2") if lead != m)
    other = next(m for m in ("m1", "m2", "m3") if m != victim)
    with s.at(other):
        with told(s, "node") as events:
            node(s, victim).power_off()
            wait_row(s, victim, ("Down", "Active", "Unreachable"), on=other)
            events.wait(victim, "reachability.new", "unreachable")
            events.wait(victim, "state.new", "down")
        # three managers, one gone: demoting another would leave one of two
        alive = next(m for m in ("m1", "m2", "m3") if m not in (victim, other))
        s.docker_fails("node", "demote", alive, say="loss of quorum", timeout=90)
        st.settles(lambda: rows(s, other)[alive][2] in ("Reachable", "Leader"), True, "%s is still a manager" % alive)
        with told(s, "node") as events:
            node(s, victim).start()
            wait_row(s, victim, ("Ready", "Active", "Reachable"), on=other)
            events.wait(victim, "reachability.new", "reachable")
            events.wait(victim, "state.new", "ready")


def test_worker_leaves_and_is_removed(s):
    contains(s.docker("swarm", "leave", on="w2"), "Node left the swarm.")
    local_state(s, "w2", "inactive")
    wait_row(s, "w2", ("Down", "Active", ""))
    s.docker("node", "rm", "w2")
    wait_row(s, "w2", None)
    eq(node(s, "w2").sh("ls", "/var/lib/microswarm/certificates", check=False).strip(), "", "key and certificate")
    old = s.docker("info", "--format", "{{.Swarm.NodeID}}", on="w1")
    # removed by force while it is up: it is refused from then on, and joins again as another node
    s.docker_fails("node", "rm", "w1", say="is not down")
    s.docker("node", "rm", "--force", "w1")
    wait_row(s, "w1", None)
    st.wait_until(lambda: count(s, "w1") == 0, 30 * st.SLOW, "no container on the removed node")
    s.docker("swarm", "leave", "--force", on="w1")
    for name in ("w1", "w2"):
        contains(join(s, name, token(s, "worker"), "m3"), "as a worker")
        wait_row(s, name, ("Ready", "Active", ""))
    if s.docker("info", "--format", "{{.Swarm.NodeID}}", on="w1") == old:
        raise st.Failure("a removed node came back under its old name")


def test_manager_leaves(s):
    contains(s.docker_fails("swarm", "leave", on="m3"), "You are attempting to leave the swarm on a node that is participating as a manager.")
    s.docker("node", "demote", "m3")
    wait_row(s, "m3", ("Ready", "Active", ""))
    st.wait_until(lambda: s.docker("info", "--format", "{{.Swarm.ControlAvailable}}", on="m3") == "false", 30 * st.SLOW, "m3 has its new certificate")
    s.docker("swarm", "leave", on="m3")
    wait_row(s, "m3", ("Down", "Active", ""))
    s.docker("node", "rm", "m3")
    # two managers now: a warning, and leaving is not advised
    st.settles(lambda: "Removing this node leaves 1 managers out of 2" in s.docker_fails("swarm", "leave", on="m2"), True, "m2 warns of leaving")
    contains(join(s, "m3", token(s, "manager")), "as a manager")
    wait_row(s, "m3", ("Ready", "Active", "Reachable"))


def test_leave_at_once_after_a_demotion(s):
    """Demoted on another manager, it leaves as the worker that it is about to be: no warning about a lost consensus."""
    for i in range(1 if st.SANITIZED else 4):
        s.docker("node", "demote", "m3", on=("m1", "m2")[i % 2])
        contains(s.docker("swarm", "leave", on="m3"), "Node left the swarm.")
        local_state(s, "m3", "inactive")
        wait_row(s, "m3", ("Down", "Active", ""))
        s.docker("node", "rm", "m3")
        contains(join(s, "m3", token(s, "manager")), "as a manager")
        wait_row(s, "m3", ("Ready", "Active", "Reachable"))


def test_warning_for_two_managers(s):
    s.docker("node", "demote", "m3")
    wait_row(s, "m3", ("Ready", "Active", ""))
    st.settles(lambda: any("manager" in w for w in s.api.get("/info").get("Warnings") or []), True, "a warning with two managers")
    s.docker("node", "promote", "m3")
    wait_row(s, "m3", ("Ready", "Active", "Reachable"))


def test_manager_that_cannot_be_reached_back(s):
    """It joins with an address that nobody has: it takes part over the links that it dials itself, or is refused with a
    reason; the others have their majority either way."""
    s.docker("node", "demote", "m3")
    s.docker("swarm", "leave", on="m3")
    wait_row(s, "m3", ("Down", "Active", ""))
    s.docker("node", "rm", "m3")
    n, said = node(s, "m3"), ""
    try:
        s.docker("swarm", "join", "--token", token(s, "manager"), "--advertise-addr", "10.77.0.99", node(s, "m1").addr + ":2377", on="m3")
    except st.Failure as e:
        said = str(e)
    s.docker("service", "create", "-d", "--no-resolve-image", "--replicas", "0", "--name", "majority", "none:latest", on="m1")
    s.docker("service", "rm", "majority", on="m2")
    if said:
        print("# " + said)
        n.api.post("/swarm/leave?force=true")
    else:
        wait_row(s, "m3", ("Ready", "Active", "Reachable"))
        s.docker("node", "demote", "m3")
        wait_row(s, "m3", ("Ready", "Active", ""))
        st.wait_until(lambda: WORKER in failing(s, "m3"), 20 * st.SLOW, "m3 says that it is a worker")
        s.docker("swarm", "leave", on="m3")
    wait_row(s, "m3", ("Down", "Active", ""))
    s.docker("node", "rm", "m3")
    contains(join(s, "m3", token(s, "manager")), "as a manager")
    wait_row(s, "m3", ("Ready", "Active", "Reachable"))


def test_removing_the_last_managers(s):
    """Down to one by demotion; the last one can't be demoted, removed or left without force."""
    for name in ("m3", "m2"):
        s.docker("node", "demote", name, on="m1")
        wait_row(s, name, ("Ready", "Active", ""))
    wait_row(s, "m1", ("Ready", "Active", "Leader"))
    s.docker_fails("node", "demote", "m1", on="m1", say="attempting to demote the last manager of the swarm")
    s.docker_fails("node", "rm", "m1", on="m1", say="is a member of the raft cluster")
    contains(s.docker_fails("swarm", "leave", on="m1"), "Removing the last manager erases all current state of the swarm.")
    s.create("one", "pause:latest", "--replicas", "2")
    s.wait_running("one", 2)
    s.remove("one")
    s.docker("swarm", "leave", "--force", on="m1")
    local_state(s, "m1", "inactive")


if __name__ == "__main__":
    st.main(init=False, managers=3, workers=2)
