#!/usr/bin/python3
"""The swarm's root: fresh ones, given ones, an external CA; nodes that are away meanwhile; daemons killed on the way."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

CERT = "/var/lib/microswarm/certificates/swarm-node.crt"
ROOT = "/var/lib/microswarm/certificates/swarm-root-ca.crt"
ALL = ("m1", "m2", "m3", "w1", "w2")

# As CFSSL's /api/v1/cfssl/sign does: the key comes from the request, everything else from what is asked for.
SIGNER = r"""
import http.server, json, os, ssl, subprocess, sys, tempfile, threading
addr, port, root, key, cert, cert_key, log = sys.argv[1:8]
class H(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        q = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with tempfile.TemporaryDirectory() as d:
            open(d + "/csr", "w").write(q["certificate_request"])
            names = q["subject"]["names"][0]
            open(d + "/ext", "w").write("subjectAltName=%s\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
                "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n"
                "subjectKeyIdentifier=hash\n" % ",".join("DNS:" + h for h in q["hosts"]))
            out = subprocess.run(["openssl", "x509", "-req", "-in", d + "/csr", "-CA", root, "-CAkey", key, "-days", "2",
                "-set_serial", "0x" + os.urandom(8).hex(), "-extfile", d + "/ext", "-subj",
                "/O=%s/OU=%s/CN=%s" % (names["O"], names["OU"], q["subject"]["CN"])], capture_output=True, text=True)
        with open(log, "a") as f:
            f.write(q["subject"]["CN"] + " " + out.stderr.replace("\n", " ") + "\n")
        body = json.dumps({"success": out.returncode == 0, "errors": [] if out.returncode == 0 else
            [{"code": 1, "message": out.stderr}], "messages": [], "result": {"certificate": out.stdout}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a):
        pass
s = http.server.ThreadingHTTPServer((addr, int(port)), H)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
c.load_cert_chain(cert, cert_key)
s.socket = c.wrap_socket(s.socket, server_side=True)
print("listening", flush=True)
threading.Thread(target=s.serve_forever, daemon=True).start()
sys.stdin.read()
"""


def setup(s):
    s.load("pause")


def openssl(*argv, **kw):
    return subprocess.run(["openssl", *argv], check=True, capture_output=True, text=True, **kw).stdout


def make_root(s, name, days=7300):
    """A root as an operator would make one: files NAME.crt and NAME.key."""
    base = os.path.join(s.tmp, name)
    openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", base + ".key")
    openssl("req", "-x509", "-new", "-key", base + ".key", "-subj", "/O=Example/CN=" + name, "-days", str(days), "-out", base + ".crt",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return base + ".crt", base + ".key"


def issuer(s, name):
    """Who signed the node's certificate, by the key: subject names of roots are all the same."""
    n = s.cluster.node(name)
    out = n.sh("openssl", "verify", "-x509_strict", "-CAfile", ROOT, "-untrusted", CERT, CERT)
    contains(out, ": OK", name)
    return n.sh("openssl", "x509", "-noout", "-ext", "authorityKeyIdentifier", "-in", CERT).split("\n")[1].strip()


def swarm(s, on="m2"):
    return s.cluster.node(on).api.get("/swarm")


def settled(s, names=ALL, on="m2", seconds=30):
    """Everybody has come over: one root, trusted by all, everybody's certificate by it, and all links up."""
    def all_over():
        c = swarm(s, on)
        if c["RootRotationInProgress"]:
            return False
        root = c["TLSInfo"]["TrustRoot"].strip()
        try:
            return all(s.cluster.node(n).sh("cat", ROOT).strip() == root for n in names) and len({issuer(s, n) for n in names}) == 1
        except st.Failure:  # one of two files is there already
            return False
    s.wait(all_over, "the nodes to come over to the new root", seconds * st.SLOW)
    ready = lambda: all(s.cluster.node(on).api.get("/nodes/" + n)["Status"]["State"] == "ready" for n in names)  # noqa: E731
    s.wait(ready, "the nodes to be ready", seconds * st.SLOW)


def still(s):
    """A service that must not notice anything."""
    s.create("still", "pause:latest", "--replicas", "5")
    s.wait_running("still", 5, 60 * st.SLOW)
    return containers(s, "still")


def containers(s, service):
    return sorted(t["Status"]["ContainerStatus"]["ContainerID"] for t in s.running(service))


def test_a_fresh_root(s):
    """Nothing stops for it; tokens are new, the old ones do not work any more."""
    before, tokens, old = still(s), s.cluster.tokens(), swarm(s)["TLSInfo"]
    out = s.docker("swarm", "ca", "--rotate", on="m2", timeout=60 * st.SLOW)  # not the leader
    contains(out, "BEGIN CERTIFICATE")
    settled(s)
    now = swarm(s)["TLSInfo"]
    eq(now["TrustRoot"].strip(), out[out.index("-----BEGIN"):].strip())
    if now["TrustRoot"] == old["TrustRoot"] or now["CertIssuerPublicKey"] == old["CertIssuerPublicKey"]:
        raise st.Failure("the root has not changed")
    eq(containers(s, "still"), before, "containers")
    fresh = s.cluster.tokens()
    if fresh["Worker"] == tokens["Worker"] or fresh["Manager"] == tokens["Manager"]:
        raise st.Failure("a token survived its root")
    for n in ALL:
        st.settles(lambda n=n: s.cluster.node("m1").api.get("/nodes/" + n)["Description"]["TLSInfo"]["TrustRoot"].strip(), now["TrustRoot"].strip(),
                   "the root that %s reports" % n)


def test_a_given_root(s):
    cert, key = make_root(s, "given")
    late, late_key = make_root(s, "late", days=200)
    contains(s.docker_fails("swarm", "ca", "--rotate", "--ca-cert", late, "--ca-key", late_key, on="m1"), "expires too soon")
    contains(s.docker_fails("swarm", "ca", "--rotate", "--ca-cert", cert, "--ca-key", late_key, on="m1"), "does not belong")
    eq(swarm(s)["RootRotationInProgress"], False)
    s.docker("swarm", "ca", "--rotate", "--quiet", "--ca-cert", cert, "--ca-key", key, on="m1", timeout=60 * st.SLOW)
    settled(s)
    with open(cert, encoding="ascii") as f:
        eq(swarm(s)["TLSInfo"]["TrustRoot"].strip(), f.read().strip())
    text = "".join(s.cluster.node(n).logs("cad") for n in ("m1", "m2", "m3"))
    if "PRIVATE KEY" in text:
        raise st.Failure("a key is in a log")


def test_killed_on_the_way(s):
    """cad, gatewayd and raftd of the leader die while nodes move; it goes on where it was."""
    before = still(s)
    for daemon in ("cad", "gatewayd", "raftd"):
        leader = s.cluster.wait_leader()
        s.docker("swarm", "ca", "--rotate", "--detach", on="m2")
        leader.kill(daemon)
        settled(s)
    eq(containers(s, "still"), before)


def test_away_meanwhile(s):
    """A node that is off is not waited for, and comes back by proof of its old key."""
    w2 = s.cluster.node("w2")
    w2.power_off()
    s.wait(lambda: s.cluster.node("m1").api.get("/nodes/w2")["Status"]["State"] == "down", "w2 down", 60 * st.SLOW)
    rest = ALL[:-1]
    for _ in range(2):  # two roots later it still finds back
        s.docker("swarm", "ca", "--rotate", "--quiet", "--detach", on="m1")
        settled(s, rest)
    w2.start()
    settled(s, seconds=60)
    if "renewing" not in w2.logs("gatewayd"):
        raise st.Failure("w2 did not renew")


def test_an_external_ca(s):
    """Signed elsewhere; the key never comes here, and nothing is signed when nobody answers."""
    cert, key = make_root(s, "external")
    before = still(s)
    m1, log, port = s.cluster.node("m1"), os.path.join(s.tmp, "signed"), 8443
    base = os.path.join(s.tmp, "signer")
    openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", base + ".key")
    openssl("req", "-new", "-key", base + ".key", "-subj", "/CN=signer", "-out", base + ".csr")
    with open(base + ".ext", "w", encoding="ascii") as f:
        f.write("subjectAltName=IP:%s\n" % m1.addr)
    openssl("x509", "-req", "-in", base + ".csr", "-CA", cert, "-CAkey", key, "-days", "2", "-extfile", base + ".ext", "-out", base + ".crt")
    with open(base + ".py", "w", encoding="ascii") as f:
        f.write(SIGNER)
    signer = subprocess.Popen(m1.argv("python3", base + ".py", m1.addr, str(port), cert, key, base + ".crt", base + ".key", log),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        contains(signer.stdout.readline(), "listening")
        url = "protocol=cfssl,url=https://%s:%d/api/v1/cfssl/sign,cacert=%s" % (m1.addr, port, cert)
        s.docker("swarm", "ca", "--rotate", "--quiet", "--ca-cert", cert, "--external-ca", url, on="m1", timeout=60 * st.SLOW)
        settled(s)
        with open(log, encoding="ascii") as f:
            asked = {line.split()[0] for line in f}
        eq(asked, {s.api.get("/nodes/" + n)["ID"] for n in ALL})
    finally:
        signer.stdin.close()  # it ends with that
        signer.wait(20)
    # now there is nobody who signs: a clear refusal, and the swarm goes on
    s.docker("node", "promote", "w1", on="m1")
    s.wait(lambda: "external CA" in "".join(s.cluster.node(n).logs("cad") for n in ("m1", "m2", "m3")), "the refusal", 30 * st.SLOW)
    eq(containers(s, "still"), before)
    s.docker("node", "demote", "w1", on="m1")


if __name__ == "__main__":
    st.main(setup=setup, managers=3, workers=2)
