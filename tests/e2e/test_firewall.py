#!/usr/bin/python3
"""The rules that docs/operations.md gives for firewalls, loaded as they stand there."""

import contextlib
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

LET_IN = "192.0.2.0/24"


def setup(s):
    with open(os.path.join(st.REPO, "docs", "operations.md"), encoding="utf-8") as f:
        s.examples = re.findall(r"```nft\n(.*?)```", f.read(), re.S)
    eq(len(s.examples), 2, "examples in operations.md")
    s.load("echo")
    s.create("web", "echo:latest", "-p", "8080:8080", "-p", "8081:8080", "--replicas", "2")
    s.keep.add("web")
    s.wait_running("web", 2)
    for n in s.cluster.nodes():
        for port in (8080, 8081):
            st.wait_until(lambda n=n, port=port: answers(s.cluster.outside, n.addr, port), 20 * st.SLOW, "port %d of %s" % (port, n.name))


def answers(argv, addr, port=8080):
    with contextlib.suppress(st.Failure):
        return "host=" in st.run(*argv("curl", "-gsS", "--max-time", str(2 * st.SLOW), "http://%s:%d/" % (addr, port)))
    return False


def nft(node, text):
    node.sh("nft", "-f", "-", input=text)


def test_one_port_for_one_network(s):
    m1, w1 = s.cluster.node("m1"), s.cluster.node("w1")
    contains(s.examples[0], LET_IN)
    nft(m1, s.examples[0].replace(LET_IN, w1.addr + "/32"))
    try:
        for _ in range(4):  # both replicas, of this node and of the other
            eq(answers(s.cluster.outside, m1.addr), False, "whom the example keeps out")
            eq(answers(w1.argv, m1.addr), True, "whom it lets in")
        eq(answers(s.cluster.outside, m1.addr, 8081), True, "another port")
        eq(answers(m1.argv, "127.0.0.1"), True, "the node's own localhost")
        eq(answers(s.cluster.outside, w1.addr), True, "another node, without the rule")
        if os.path.exists("/proc/net/if_inet6"):
            eq(answers(m1.argv, "[::1]"), True, "the node's own localhost on IPv6")
    finally:
        m1.sh("nft", "delete", "table", "inet", "site")
    eq(answers(s.cluster.outside, m1.addr), True, "without the example")


def test_forward_drops(s):
    m1 = s.cluster.node("m1")
    closed = re.sub(r"(?m)^.*msgw0.*\n", "", s.examples[1])
    nft(m1, closed)
    eq([answers(s.cluster.outside, m1.addr) for _ in range(2)], [False, False], "a chain that drops by default")
    contains(m1.probe("meshd", "rules"), "strict")
    nft(m1, "delete table inet strict\n" + s.examples[1])
    try:
        for _ in range(4):
            eq(answers(s.cluster.outside, m1.addr), True, "with what the example accepts")
    finally:
        m1.sh("nft", "delete", "table", "inet", "strict")


if __name__ == "__main__":
    st.main(setup, managers=1, workers=1)
