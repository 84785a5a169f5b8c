#!/usr/bin/python3
"""Every daemon answers a person with nngcat, and raftd's feed shows each change as it happens."""

import json
import os
import re
import select
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains  # noqa: E402


def setup(s):
    s.load("pause")


def test_common_commands(s):
    for d in s.m1.info["daemons"]:
        contains(s.m1.probe(d, "help"), "status", d)
        contains(s.m1.probe(d, "version"), "0.", d)
        status = json.loads(s.m1.probe(d, "status"))
        if not isinstance(status, dict) or not status:
            raise st.Failure("%s: status is %r" % (d, status))
        for line in s.m1.probe(d, "metrics").splitlines():
            if not re.match(r"^(#.*|[a-zA-Z_:][\w:]*(\{[^}]*\})? [-+0-9.eE]+(nan|inf)?)?$", line.strip("\0")):
                raise st.Failure("%s: not a Prometheus line: %r" % (d, line))


def test_log_level(s):
    for d in s.m1.info["daemons"]:
        s.m1.probe(d, "log debug")
        s.m1.probe(d, "log info")
        contains(s.m1.probe(d, "log shouting").lower(), "e", d)


def test_nonsense(s):
    for d in s.m1.info["daemons"]:
        for text in ("nosuchcommand", "\x01\x02\xff", "status " + "y" * 5000, "get", "get task/", "explain \n"):
            s.m1.probe(d, text)
        contains(s.m1.probe(d, "status"), "{", d)
    s.m1.probe("raftd", "x" * 100000, 1)  # too large: dropped, or refused
    contains(s.m1.probe("raftd", "status"), "{")


def test_raftd_reads(s):
    s.create("p", "pause:latest")
    t = s.wait_running("p")[0]
    contains(s.m1.probe("raftd", "members"), json.loads(s.docker("info", "--format", "{{json .Swarm.NodeID}}")))
    contains(s.m1.probe("raftd", "list task"), t["ID"])
    contains(s.m1.probe("raftd", "get task/" + t["ID"]), t["ServiceID"])
    contains(s.m1.probe("schedulerd", "explain " + t["ID"]), t["NodeID"])
    s.remove("p")


def test_events_feed(s):
    with st.StoreEvents(s.m1) as feed:
        # the subscription is made in the background: change something until the feed speaks
        def heard():
            self_id = s.docker("info", "--format", "{{.Swarm.NodeID}}")
            s.docker("node", "update", "--label-add", "n=%d" % heard.n, self_id)
            heard.n += 1
            return select.select([feed], [], [], 0.2)[0]
        heard.n = 0
        st.wait_until(heard, 20 * st.SLOW, "a line of the feed")
        sid = s.create("fd", "pause:latest")
        text = b""

        def seen():
            nonlocal text
            while select.select([feed], [], [], 0.05)[0]:
                text += os.read(feed.fileno(), 65536)
            return sid.encode() in text
        st.wait_until(seen, 20 * st.SLOW, "the service in the feed")
    s.remove("fd")


def test_peers_that_hang_up(s):
    """Whoever connects and goes away at any point of the handshake leaves the daemon as it was."""
    hello = b"\0SP\0\0000\0\0"
    ways = (lambda c: None, lambda c: c.sendall(hello), lambda c: c.sendall(hello[:3]), lambda c: c.sendall(b"GET / HTTP/1.1\r\n\r\n"),
            lambda c: c.recv(8), lambda c: c.sendall(hello + b"\1" + (400).to_bytes(8, "big") + b"x" * 20),
            lambda c: c.sendall(hello + b"\1" + (1 << 62).to_bytes(8, "big")))
    sockets = [f for f in os.listdir(s.m1.path("run")) if f.endswith((".sock", ".probe", ".wake", ".events")) and f != "docker.sock"]
    for f in sockets:
        for way in ways:
            for _ in range(5):
                c = socket.socket(socket.AF_UNIX)
                c.settimeout(5)
                c.connect(s.m1.path("run", f))
                try:
                    way(c)
                except OSError:
                    pass  # it may hang up first
                c.close()
    for d in s.m1.info["daemons"]:
        contains(s.m1.probe(d, "status"), "{", d)
    s.create("hu", "pause:latest")
    s.wait_running("hu")
    s.remove("hu")


def test_nobody_else_gets_in(s):
    """A user outside of the group can't talk to a daemon."""
    for d in s.m1.info["daemons"]:
        try:
            out = s.m1.sh("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "nngcat", "--req0", "--dial",
                          "ipc:///run/microswarm/%s.probe" % d, "--data", "status", "--ascii", "--recv-timeout", "1", timeout=20)
        except st.Failure:
            continue
        if "{" in out:
            raise st.Failure("%s answers a stranger: %s" % (d, out))


if __name__ == "__main__":
    st.main(setup)
