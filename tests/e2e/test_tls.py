#!/usr/bin/python3
"""Port 2377, from outside: who may ask what, over the wire, with every kind of certificate; and what can't be a peer at all.

m1, m2, m3 are a swarm; w1 is a swarm of its own, so that there is a worker of another one."""

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
import wire  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

# What each kind of peer may ask, and which daemon of a manager must be asking. The rest of all operations is refused.
NOBODY = {("cad", "root"): None, ("cad", "issue"): "gatewayd"}
WORKER = {**NOBODY, **{("dispatcherd", op): "agentd" for op in ("session", "assignments", "status", "payload", "usage")}, ("dispatcherd", "network"): "meshd"}
MANAGER = {**WORKER,
    ("cad", "rotate"): "apid", ("raftd", "member_add"): "raftd", ("raftd", "member_remove"): "raftd", ("raftd", "forward"): "raftd",
    ("raftd", "barrier"): "raftd", ("raftd", "members"): "raftd", ("raftd", "status"): "raftd", ("agentd", "logs"): "apid",
    ("agentd", "info"): "apid", ("agentd", "containers"): "apid", ("agentd", "volumes"): "apid"}
BOGUS = {"NoSuchField": 1}  # what is let through must not do anything
US = "10.77.0.1"
LOGGED = 20  # so many refusals are logged each before it counts as a flood


def operations():
    """Every operation of every daemon, from the generated reference."""
    with open(os.path.join(st.REPO, "docs", "reference", "messages.md"), encoding="utf-8") as f:
        out = re.findall(r"^### (\w+) `([\w.]+)`", f.read(), re.M)
    if len(out) < 20:
        raise st.Failure("only %d operations in the reference" % len(out))
    return out


def m1(s):
    return s.cluster.node("m1")


def setup(s):
    c = s.cluster
    c.init(60 * st.SLOW)
    for name in ("m2", "m3"):
        c.join(name)
    c.wait_nodes(3, 60 * st.SLOW)
    w1 = c.node("w1")
    w1.api.post("/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": w1.addr + ":2377"})
    st.wait_until(lambda: ready(w1), 30 * st.SLOW, "w1's own swarm")
    s.keys = wire.Keys(os.path.join(s.tmp, "keys"))
    tokens = c.tokens()
    s.worker = s.keys.enroll(c, m1(s), "worker", tokens["Worker"])
    s.manager = s.keys.enroll(c, m1(s), "manager", tokens["Manager"])
    s.removed = s.keys.enroll(c, m1(s), "removed", tokens["Worker"])
    s.api.delete("/nodes/%s?force=true" % s.removed)
    s.foreign = s.keys.enroll(c, w1, "foreign", c.tokens(via="w1")["Worker"])
    subject = "/O=%s/OU=swarm-manager/CN=%s" % (s.api.get("/swarm")["ID"], s.manager)
    s.keys.root("impostor")
    s.keys.sign("impostor", "imposed", subject, "swarm-manager")


def ready(n):
    with contextlib.suppress(OSError, st.ApiError):
        return n.api.get("/nodes")[0]["Status"]["State"] == "ready"
    return False


def log_since(s, mark):
    return "".join(n.logs("gatewayd")[mark[n.name]:] for n in s.cluster.nodes())


def marks(s):
    return {n.name: len(n.logs("gatewayd")) for n in s.cluster.nodes()}


def matrix(s, ident, allowed, node=None):
    """Every operation with this certificate; returns how many were refused."""
    node, refused = node or m1(s), 0
    mark, before = marks(s), counted(node)
    with wire.Link(s.cluster, node, ident) as link:
        for svc, op in operations():
            by = allowed.get((svc, op)) or {"cad": "apid", "raftd": "apid", "dispatcherd": "agentd", "agentd": "apid"}.get(svc, "apid")
            to = s.api.get("/info")["Swarm"]["NodeID"] if svc == "agentd" else "leader"
            code, text, _ = link.ask(svc, op, BOGUS, to=to, by=by)
            if (svc, op) in allowed:
                if code == "denied":
                    raise st.Failure("%s.%s: refused, but it may be asked: %s" % (svc, op, text))
            else:
                refused += 1
                eq((svc, op, code), (svc, op, "denied"), text)
    if counted(node) - before < refused:  # the swarm's own nodes may have been refused something, too
        raise st.Failure("%s counted %d refusals of %d" % (node.name, counted(node) - before, refused))
    # Each is a line with the peer's address, but for floods, which are cut to some lines a while and their number.
    log = log_since(s, mark)
    lines = [l for l in log.splitlines() if "refused" in l and "addr=" + US in l]
    if len(lines) < refused and counted(node) <= LOGGED:
        raise st.Failure("%d refusals, and %d lines about %s in the log" % (refused, len(lines), US))
    return refused


def counted(node):
    m = re.search(r"^\w*requests_refused_total (\d+)", node.probe("gatewayd", "metrics"), re.M)
    return int(m.group(1))


def test_no_certificate(s):
    matrix(s, None, NOBODY)
    # through a manager that isn't the leader it is no different
    lead = s.cluster.wait_leader().name
    follower = next(s.cluster.node(m) for m in ("m1", "m2", "m3") if lead != m)
    matrix(s, None, NOBODY, follower)


def test_worker(s):
    matrix(s, s.keys.ident("worker"), WORKER)
    with wire.Link(s.cluster, m1(s), s.keys.ident("worker")) as link:  # it can't speak for others, nor to other nodes
        other = s.api.get("/nodes/m2")["ID"]
        code, _, _ = link.ask("agentd", "info", {}, to=other, by="apid")
        eq(code, "denied")
        code, text, _ = link.ask("raftd", "status", {}, by="raftd", sender={"node": s.manager, "role": "manager", "svc": "raftd"})
        eq(code, "denied", text)


def test_manager(s):
    matrix(s, s.keys.ident("manager"), MANAGER)
    with wire.Link(s.cluster, m1(s), s.keys.ident("manager")) as link:
        for (svc, op), who in MANAGER.items():
            if who and who != "schedulerd":  # the right node, the wrong daemon of it
                to = s.api.get("/info")["Swarm"]["NodeID"] if svc == "agentd" else "leader"
                code, text, _ = link.ask(svc, op, BOGUS, to=to, by="schedulerd")
                eq((svc, op, code), (svc, op, "denied"), text)
        code, text, _ = link.ask("raftd", "member_remove", {"NodeID": s.api.get("/nodes/m2")["ID"]}, by="raftd")
        eq(code, "denied", "a manager removes another: " + text)


def refused_at_the_door(s, ident, what, node=None):
    """No operation at all: the link never comes up, the log names the peer."""
    mark = marks(s)
    try:
        with wire.Link(s.cluster, node or m1(s), ident) as link:
            for svc, op in operations():
                code, text, _ = link.ask(svc, op, BOGUS, by="agentd")
                raise st.Failure("%s: %s.%s was answered: %s %s" % (what, svc, op, code, text))
    except wire.Closed:
        pass
    st.wait_until(lambda: US in log_since(s, mark), 20 * st.SLOW, "%s: a line in gatewayd's log that names %s" % (what, US))


def test_foreign_ca(s):
    refused_at_the_door(s, s.keys.ident("imposed"), "a certificate by another CA with the right names")


def test_worker_of_another_swarm(s):
    refused_at_the_door(s, s.keys.ident("foreign"), "a worker of another swarm")
    with wire.Link(s.cluster, s.cluster.node("w1"), s.keys.ident("foreign")) as link:
        eq(link.ask("cad", "root", {})[0], "ok", "in its own swarm")


def test_removed_node(s):
    refused_at_the_door(s, s.keys.ident("removed"), "a removed node")
    for name in ("m2", "m3"):
        refused_at_the_door(s, s.keys.ident("removed"), "a removed node", s.cluster.node(name))


def test_role_changed_by_hand(s):
    """One byte more or less in the certificate, and the signature does not fit."""
    crt, key = s.keys.ident("worker")
    der = s.keys.path("edited.der")
    s.keys.openssl("x509", "-in", crt, "-outform", "DER", "-out", der)
    with open(der, "rb") as f:
        data = f.read()
    eq(data.count(b"swarm-worker") > 0, True)
    with open(der, "wb") as f:
        f.write(data.replace(b"swarm-worker", b"swarm-manage"))  # as long as before: the structure stays whole
    edited = s.keys.path("edited.crt")
    s.keys.openssl("x509", "-inform", "DER", "-in", der, "-out", edited)
    refused_at_the_door(s, (edited, key), "an edited certificate")


def test_links_of_a_removed_node_are_dropped(s):
    """A node that is removed while its link is up loses it, and may not come back."""
    node = s.keys.enroll(s.cluster, m1(s), "leaving", s.cluster.tokens()["Worker"])
    with wire.Link(s.cluster, m1(s), s.keys.ident("leaving")) as link:
        eq(link.ask("cad", "root", {})[0], "ok")
        s.api.delete("/nodes/%s?force=true" % node)
        link.closes(20 * st.SLOW)
    refused_at_the_door(s, s.keys.ident("leaving"), "a node that was just removed")


def s_client(s, *options):
    p = subprocess.run(s.cluster.outside("openssl", "s_client", "-connect", m1(s).addr + ":2377", *options), input="", stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=20, errors="replace", check=False)
    return p.returncode, p.stdout


def test_s_client(s):
    for old in ("-tls1_2", "-tls1_1"):
        code, text = s_client(s, old)
        eq(code != 0, True, text[-500:])
        eq(re.search(r"New, TLSv1\.[0-3], Cipher is (?!\(NONE\))", text), None, text[-500:])
    _, text = s_client(s, "-tls1_3")
    contains(text, "New, TLSv1.3, Cipher is TLS_")
    contains(text, "OU = swarm-manager")
    out = subprocess.run(s.cluster.outside("curl", "-sk", "--max-time", "5", "https://%s:2377/" % m1(s).addr), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         check=False)
    eq(out.stdout, b"")
    with wire.connect(s.cluster, m1(s)) as raw, contextlib.suppress(OSError):
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.settimeout(8)
        got = raw.recv(100)  # an alert, or nothing
        eq(got[:1] in (b"", b"\x15"), True, repr(got))


def gatewayd(s, name="m1"):
    return s.cluster.node(name).host_pid("gatewayd")


def rss(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        return next(int(l.split()[1]) for l in f if l.startswith("RssAnon:")) / 1024


def fds(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


@contextlib.contextmanager
def unharmed(s, mib=40):
    """Meanwhile and afterwards: the same process, no descriptor more, hardly more memory, and the swarm answers."""
    pid = gatewayd(s)
    before, had = fds(pid), rss(pid)
    yield pid
    eq(gatewayd(s), pid, "gatewayd's process")
    st.wait_until(lambda: fds(pid) <= before + 2, 90 * st.SLOW, "gatewayd's descriptors: %d before" % before)
    grown = rss(pid) - had
    if grown > mib * st.SLOW:
        raise st.Failure("gatewayd grew by %.1f MiB" % grown)
    st.settles(lambda: [n["ManagerStatus"]["Reachability"] for n in s.api.get("/nodes") if n["Description"].get("Hostname") in ("m1", "m2", "m3")],
               ["reachable"] * 3, "the managers reach each other")


def test_garbage(s):
    """Without TLS, inside TLS before hello, after hello: each ends the connection and nothing else."""
    rnd = __import__("random").Random(5)
    with unharmed(s):
        for i in range(40):
            with contextlib.suppress(OSError, wire.Closed), wire.connect(s.cluster, m1(s)) as raw:
                raw.sendall(rnd.randbytes(rnd.randrange(1, 3000)))
        for i in range(60):
            with contextlib.suppress(OSError, wire.Closed, socket.timeout):
                ident = s.keys.ident(("worker", "manager")[i % 2]) if i % 3 else None
                with wire.Link(s.cluster, m1(s), ident, hello=i % 4 > 0) as link:
                    link.sock.sendall(rnd.randbytes(rnd.randrange(1, 3000)))
                    if i % 10 == 0:
                        link.closes(20 * st.SLOW)
        frames = ((wire.REQUEST, 3, 7, 1 << 31, b"x", None), (wire.REQUEST, 3, 7, 4, b"xxxx", 0xffffffff), (wire.REQUEST, 1, 7, 0x7fffffff, b"x" * 65536, None),
                  (wire.REQUEST, 2, 99, 0, b"never begun", None), (77, 3, 0, 4, b"xxxx", None), (wire.REQUEST, 0xff, 1, 4, b"xxxx", None),
                  (wire.REPLY, 3, 12345, 4, b"xxxx", None), (wire.HELLO, 3, 0, 4, b"xxxx", None), (wire.REQUEST, 3, 1, 5, b"\xdd\x07\xff\xff\xff", None),
                  (wire.REQUEST, 3, 1, 1, b"\xc1", None), (wire.RAFT, 3, 0, 4, b"xxxx", None), (wire.CONTROL, 3, 0, 4, b"xxxx", None),
                  (wire.REQUEST, 3, 1, 0, b"", None))
        for f in frames:
            for ident in (None, s.keys.ident("worker")):
                with contextlib.suppress(OSError, wire.Closed), wire.Link(s.cluster, m1(s), ident) as link:
                    link.frame(*f[:5], length=f[5])
                    with contextlib.suppress(socket.timeout, ssl.SSLError):
                        link.ask("cad", "root", {}, seconds=2)
        # after all that a peer in good faith is served
        with wire.Link(s.cluster, m1(s)) as link:
            eq(link.ask("cad", "root", {})[0], "ok")


def test_bodies_without_end(s):
    """Many messages begun and none finished: what they may hold is bounded."""
    with unharmed(s, 120):
        for ident in (None, s.keys.ident("worker"), s.keys.ident("manager")):
            with contextlib.suppress(OSError, wire.Closed), wire.Link(s.cluster, m1(s), ident) as link:
                for stream in range(1, 2000):
                    link.frame(wire.REQUEST, wire.FIRST, stream, 60 << 20, b"x" * 65536)
        with wire.Link(s.cluster, m1(s)) as link:
            eq(link.ask("cad", "root", {})[0], "ok")


def test_half_open(s):
    """Hundreds of connections that never say anything, at each stage; meanwhile a node in good faith is served."""
    with unharmed(s):
        held = []
        try:
            for i in range(300):
                raw = wire.connect(s.cluster, m1(s))
                held.append(raw)
                if i % 3 == 1:
                    with contextlib.suppress(OSError):
                        raw.sendall(b"\x16\x03\x01\x02\x00")  # the beginning of a ClientHello
            with wire.Link(s.cluster, m1(s)) as link:
                eq(link.ask("cad", "root", {})[0], "ok")
            s.keys.enroll(s.cluster, m1(s), "between", s.cluster.tokens()["Worker"])
            with wire.Link(s.cluster, m1(s), hello=False) as silent:
                took = silent.closes(30 * st.SLOW)
            if took < 0.5:
                raise st.Failure("closed after %.2f s: too hasty" % took)
        finally:
            for h in held:
                h.close()


def test_slow_writer(s):
    """A hello byte by byte is given up; a request byte by byte does not hold up others."""
    with unharmed(s):
        with wire.Link(s.cluster, m1(s), hello=False) as slow:
            t0 = time.monotonic()
            body = wire.pack({"Version": 1, "Software": "x" * 60})
            gone = False
            for b in wire.struct.pack(">IBBHII", len(body), wire.HELLO, 3, 0, 0, len(body)) + body:
                try:
                    slow.sock.sendall(bytes([b]))
                    slow.closes(0.2)
                    gone = True
                    break
                except st.Failure:
                    pass
                except OSError:
                    gone = True
                    break
            eq(gone, True, "given up after %.1f s" % (time.monotonic() - t0))
        with wire.Link(s.cluster, m1(s), s.keys.ident("worker")) as slow, wire.Link(s.cluster, m1(s), s.keys.ident("manager")) as quick:
            msg = wire.pack({"To": "leader", "Svc": "cad", "Op": "root", "Ttl": 8000, "Body": {}})
            data = wire.struct.pack(">IBBHII", len(msg), wire.REQUEST, 3, 0, 1, len(msg)) + msg
            for i, b in enumerate(data):
                slow.sock.sendall(bytes([b]))
                if i % 10 == 0:
                    eq(quick.ask("cad", "root", {})[0], "ok")
            kind, stream, reply = slow.recv(20 * st.SLOW)
            while kind == wire.CONTROL:
                kind, stream, reply = slow.recv(20 * st.SLOW)
            eq((kind, stream, wire.unpack(reply).get("Code", 0)), (wire.REPLY, 1, 0))


def test_slow_reader(s):
    """Somebody asks and asks and never reads: the answers that wait for it are bounded, others are served."""
    with unharmed(s, 120) as pid:
        had = rss(pid)
        with wire.Link(s.cluster, m1(s), s.keys.ident("worker"), timeout=3) as slow, wire.Link(s.cluster, m1(s), s.keys.ident("manager")) as quick:
            msg = wire.pack({"To": "leader", "Svc": "cad", "Op": "root", "Ttl": 8000, "Body": {}})
            stopped = False
            for stream in range(1, 100000):
                try:
                    slow.frame(wire.REQUEST, 3, stream, len(msg), msg)
                except OSError:  # our own socket is full, or we were thrown out: either way it ended
                    stopped = True
                    break
                if stream % 5000 == 0:
                    eq(quick.ask("cad", "root", {})[0], "ok")
                    if rss(pid) - had > 120 * st.SLOW:
                        raise st.Failure("%.0f MiB of answers wait for somebody who does not read" % (rss(pid) - had))
            eq(quick.ask("cad", "root", {})[0], "ok")
            print("# %s" % ("stopped after %d requests" % stream if stopped else "all %d requests were taken" % stream))


def test_ten_thousand_requests(s):
    """A daemon hangs while ten thousand nodes ask it through one manager: all wait within bounds, others are served, and all are answered."""
    count = 10000
    frozen = m1(s).host_pid("dispatcherd")
    with unharmed(s, 120) as pid, wire.Link(s.cluster, m1(s), s.keys.ident("manager"), timeout=30) as many:
        had = rss(pid)
        os.kill(frozen, signal.SIGSTOP)
        try:
            msg = wire.pack({"To": "leader", "Svc": "dispatcherd", "Op": "session", "By": "agentd", "Ttl": 120000, "Body": {}})
            for stream in range(1, count + 1):
                many.frame(wire.REQUEST, 3, stream, len(msg), msg)

            def all_there():
                return json.loads(m1(s).probe("gatewayd"))["requests"]["outstanding"] >= count
            st.wait_until(all_there, 60 * st.SLOW, "%d requests are on their way" % count)
            with wire.Link(s.cluster, m1(s), s.keys.ident("worker")) as other:
                eq(other.ask("cad", "root", {})[0], "ok")
            print("# %.1f KiB a request" % ((rss(pid) - had) * 1024 / count))
        finally:
            os.kill(frozen, signal.SIGCONT)
        answers = set()
        while len(answers) < count:
            kind, stream, reply = many.recv(60 * st.SLOW)
            if kind == wire.REPLY:
                contains(wire.unpack(reply).get("Msg", ""), "session")
                answers.add(stream)


def test_many_at_once(s):
    """Joining operations from many sides at once: all answered or refused in words, none lost."""
    results = []

    def one(i):
        try:
            with wire.Link(s.cluster, m1(s), timeout=20) as link:
                results.append(link.ask("cad", "root", {}, seconds=20)[0])
        except (wire.Closed, OSError) as e:
            results.append("closed: %s" % e)
    with unharmed(s):
        def batch(start):
            for i in range(start, start + 5):
                one(i)
        threads = [threading.Thread(target=batch, args=(i * 5,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    eq(len(results), 40)
    eq(results.count("ok") >= 30, True, repr(results[:5]))


def test_expired_certificate(s):
    """The swarm's CA is replaced by one whose key we have; a certificate by it that has expired opens nothing but its renewal."""
    s.keys.root("own", "/CN=own")
    # Detached: the nodes that we have made up will never renew.
    s.docker("swarm", "ca", "--rotate", "-d", "--ca-cert", s.keys.path("own.crt"), "--ca-key", s.keys.path("own.key"))
    for name in ("m1", "m2", "m3"):
        st.wait_until(lambda n=s.cluster.node(name): "own" in n.sh("openssl", "x509", "-noout", "-issuer", "-in", "/var/lib/microswarm/certificates/swarm-node.crt"),
                      30 * st.SLOW, "%s has a certificate by the new root" % name)
    cluster = s.api.get("/swarm")["ID"]
    node = s.keys.enroll(s.cluster, m1(s), "late", s.cluster.tokens()["Worker"])
    subject = "/O=%s/OU=swarm-worker/CN=%s" % (cluster, node)
    with open(s.keys.ident("late")[0], encoding="ascii") as f:  # the way from the old root to the new one
        between = "".join(re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", f.read(), re.S)[1:])

    def signed(name, *when):
        crt, key = s.keys.sign("own", name, subject, "swarm-worker", *when)
        with open(crt, "a", encoding="ascii") as f:
            f.write(between)
        return crt, key
    good = signed("good")
    with wire.Link(s.cluster, m1(s), good) as link:
        eq(link.ask("cad", "root", {})[0], "ok", "one that is in time")
    late = signed("expired", "200101000000Z", "210101000000Z")
    refused_at_the_door(s, late, "an expired certificate")
    early = signed("early", "400101000000Z", "410101000000Z")
    refused_at_the_door(s, early, "a certificate from the future")
    # proof of the old key, without a certificate shown: the same node gets a new one
    csr = s.keys.csr("renewed")
    with open(s.keys.path("proof.in"), "w", encoding="ascii") as f:
        f.write(csr)

    def proof_by(name):
        s.keys.openssl("dgst", "-sha256", "-sign", name + ".key", "-out", "proof", "proof.in")
        with open(s.keys.path("proof"), "rb") as f:
            proof = f.read()
        with open(s.keys.ident(name)[0], encoding="ascii") as f:
            return proof, f.read().replace(between, "")
    with wire.Link(s.cluster, m1(s)) as link:
        proof, old = proof_by("expired")  # signed by the right root, but it isn't the one that this node was given
        code, text, _ = link.ask("cad", "issue", {"CSR": csr, "OldCert": old, "Proof": proof}, by="gatewayd")
        eq(code, "denied", text)
        proof, old = proof_by("late")
        code, text, body = link.ask("cad", "issue", {"CSR": csr, "OldCert": old, "Proof": proof}, by="gatewayd")
        eq((code, text), ("ok", ""))
        eq((body["NodeID"], body["Role"]), (node, "worker"))
        code, text, _ = link.ask("cad", "issue", {"CSR": csr, "OldCert": old, "Proof": proof[:-1] + bytes([proof[-1] ^ 1])}, by="gatewayd")
        eq(code in ("denied", "unauthorized", "invalid"), True, "%s %s" % (code, text))


if __name__ == "__main__":
    st.main(setup, init=False, managers=3, workers=1)
