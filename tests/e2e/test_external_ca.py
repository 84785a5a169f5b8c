#!/usr/bin/python3
"""A swarm that begins with an external CA: with its certificate, which is the root then, and without."""

import importlib.util
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

spec = importlib.util.spec_from_file_location("test_ca", os.path.join(HERE, "test_ca.py"))
ca = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ca)
PORT = 8443


def start_signer(s, cert, key, log):
    """As CFSSL, on m1's address."""
    m1, base = s.cluster.node("m1"), os.path.join(s.tmp, "signer")
    ca.openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", base + ".key")
    ca.openssl("req", "-new", "-key", base + ".key", "-subj", "/CN=signer", "-out", base + ".csr")
    for name, text in ((".ext", "subjectAltName=IP:%s\n" % m1.addr), (".py", ca.SIGNER)):
        with open(base + name, "w", encoding="ascii") as f:
            f.write(text)
    ca.openssl("x509", "-req", "-in", base + ".csr", "-CA", cert, "-CAkey", key, "-days", "2", "-extfile", base + ".ext", "-out", base + ".crt")
    signer = subprocess.Popen(m1.argv("python3", base + ".py", m1.addr, str(PORT), cert, key, base + ".crt", base + ".key", log),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    contains(signer.stdout.readline(), "listening")
    return signer


def url(s):
    return "protocol=cfssl,url=https://%s:%d/api/v1/cfssl/sign" % (s.cluster.node("m1").addr, PORT)


def root_of(s, name):
    with open(s.cluster.node(name).path("state", "certificates", "swarm-root-ca.crt"), encoding="ascii") as f:
        return f.read().strip()


def test_with_its_certificate(s):
    cert, key = ca.make_root(s, "external")
    log = os.path.join(s.tmp, "signed")
    signer = start_signer(s, cert, key, log)
    try:
        s.docker("swarm", "init", "--advertise-addr", s.cluster.node("m1").addr, "--external-ca", url(s) + ",cacert=" + cert, on="m1")
        s.cluster.join("w1")
        s.cluster.wait_nodes(2, 30 * st.SLOW)
        with open(cert, encoding="ascii") as f:
            root = f.read().strip()
        for name in ("m1", "w1"):
            eq(root_of(s, name), root, name)
        eq(s.docker("swarm", "ca", on="m1").strip(), root)
        with open(log, encoding="ascii") as f:
            asked = {line.split()[0] for line in f}
        eq(asked, {n["ID"] for n in s.api.get("/nodes")})
        contains(s.cluster.node("m1").logs("cad"), "is an external CA's")
    finally:
        signer.stdin.close()
        signer.wait(20)
    for name in ("w1", "m1"):
        s.docker("swarm", "leave", "--force", on=name)


def test_without(s):
    """As Docker: the root is made here and signs the first certificate; then somebody has to answer at the URL."""
    s.docker("swarm", "init", "--advertise-addr", s.cluster.node("m1").addr, "--external-ca", url(s), on="m1")
    contains(root_of(s, "m1"), "BEGIN CERTIFICATE")
    s.docker_fails("swarm", "join", "--token", s.cluster.tokens()["Worker"], s.cluster.node("m1").addr, on="w1", say="", timeout=60 * st.SLOW)
    contains(s.cluster.node("m1").logs("cad"), "external CA: ")
    s.docker("swarm", "leave", "--force", on="w1")
    cert, key = ca.make_root(s, "later")
    signer = start_signer(s, cert, key, os.path.join(s.tmp, "signed-later"))
    try:
        s.docker("swarm", "ca", "--rotate", "--quiet", "--ca-cert", cert, "--external-ca", url(s) + ",cacert=" + cert, on="m1", timeout=60 * st.SLOW)
        s.cluster.join("w1")
        s.cluster.wait_nodes(2, 30 * st.SLOW)
        with open(cert, encoding="ascii") as f:
            eq(root_of(s, "w1"), f.read().strip())
    finally:
        signer.stdin.close()
        signer.wait(20)


if __name__ == "__main__":
    st.main(init=False, managers=1, workers=1)
