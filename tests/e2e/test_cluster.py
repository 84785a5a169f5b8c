#!/usr/bin/python3
"""The node tool with several nodes, none of them in a swarm: who hears whom after cut, heal, stop and boot, and what of it shows."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

# One end of a connection: "listen" accepts one and says so, "dial" connects; then a line of ours is sent, and a line of
# theirs (or the end of the stream, or an error) is printed.
END = r"""
import socket, sys, select
s = socket.socket()
if sys.argv[1] == "listen":
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", 7000)); s.listen(1); print("listening", flush=True); s = s.accept()[0]
else:
    s.connect((sys.argv[2], 7000))
print("connected", flush=True)
while True:
    for r in select.select([s, sys.stdin], [], [])[0]:
        if r is s:
            try:
                got = s.recv(100)
            except OSError as e:
                got = str(e).encode()
            print("got " + got.decode().strip() if got else "closed", flush=True)
            if not got: sys.exit()
        else:
            line = sys.stdin.readline()
            if not line: sys.exit()
            s.sendall(line.encode())
"""


class End:
    def __init__(self, argv):
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        os.set_blocking(self.p.stdout.fileno(), False)
        self.text = b""

    def line(self, seconds):
        """The next line within this time, or None."""
        while b"\n" not in self.text:
            if not select.select([self.p.stdout], [], [], seconds)[0]:
                return None
            piece = os.read(self.p.stdout.fileno(), 4096)
            if not piece:
                return None
            self.text += piece
        line, _, self.text = self.text.partition(b"\n")
        return line.decode()

    def send(self, text):
        self.p.stdin.write(text.encode() + b"\n")
        self.p.stdin.flush()

    def kill(self):
        """nsenter and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.p.pid, signal.SIGKILL)
        self.p.wait()

    def close(self):
        self.kill()
        self.p.stdin.close()
        self.p.stdout.close()


class Pair:
    """A TCP connection from one node to another."""

    def __init__(self, s, a, b):
        a, b = s.cluster.node(a), s.cluster.node(b)
        self.b = End(b.argv(sys.executable, "-c", END, "listen"))
        eq(self.b.line(60), "listening")
        self.a = End(a.argv(sys.executable, "-c", END, "dial", b.addr))
        eq((self.a.line(60), self.b.line(60)), ("connected", "connected"))

    def __enter__(self):
        return self.a, self.b

    def __exit__(self, *exc):
        self.a.close()
        self.b.close()


def tool(s, *argv, check=True):
    return st.run(os.path.join(st.TESTS, "cluster"), *argv, check=check, env=dict(os.environ, MICROSWARM_CLUSTER=s.cluster.dir))


def talks(s, a, b, seconds=1):
    """Whether a TCP connection is answered (by a refusal: nobody listens there)."""
    code = "import socket,sys\ntry: socket.create_connection((sys.argv[1], 9), %g)\nexcept ConnectionRefusedError: print('yes')\nexcept OSError: print('no')" % seconds
    return s.cluster.node(a).sh(sys.executable, "-c", code, s.cluster.node(b).addr).strip() == "yes"


def hear(s, *pairs):
    """Waits until each of these pairs talks: a bridge learns, and this machine may be busy."""
    for a, b in pairs:
        st.wait_until(lambda a=a, b=b: talks(s, a, b), 20 * st.SLOW, "%s reaches %s" % (a, b))


def test_nodes_are_apart(s):
    eq([(n.name, n.sh("hostname").strip()) for n in s.cluster.nodes()], [(n, n) for n in ("m1", "m2", "w1")])
    for n in s.cluster.nodes():
        contains(n.sh("ip", "-br", "addr"), n.addr + "/24")
        st.settles(lambda n=n: n.api.get("/info")["Swarm"]["LocalNodeState"], "inactive", n.name + " is in no swarm")
    eq([r["role"] for r in json.loads(tool(s, "ls", "--json"))], ["manager", "manager", "worker"])
    m1, m2 = s.cluster.node("m1"), s.cluster.node("m2")
    m1.sh("touch", "/var/lib/microswarm/only-here")
    eq(m2.sh("ls", "/var/lib/microswarm/only-here", check=False), "")
    m1.sh("rm", "/var/lib/microswarm/only-here")
    for a in ("m1", "m2", "w1"):
        for b in ("m1", "m2", "w1"):
            if a != b:
                hear(s, (a, b))


def test_cut_and_heal(s):
    """The cut ones see each other; nothing is closed on either side; what was sent meanwhile arrives after heal."""
    with Pair(s, "m1", "m2") as (a, b):
        tool(s, "cut", "m2,w1")
        a.send("meanwhile")
        eq([talks(s, *p) for p in (("m1", "m2"), ("w1", "m1"))], [False, False])
        hear(s, ("m2", "w1"), ("w1", "m2"))
        eq((a.line(0), b.line(0)), (None, None), "what the two ends noticed")
        tool(s, "heal")
        eq(b.line(60), "got meanwhile")
        b.send("back")
        eq(a.line(60), "got back")
    hear(s, ("m1", "m2"), ("w1", "m1"), ("m2", "w1"))
    tool(s, "cut", "m1")
    tool(s, "cut", "m2")
    eq([talks(s, *p) for p in (("m1", "m2"), ("w1", "m1"), ("m2", "w1"))], [False] * 3, "three islands")
    tool(s, "heal")
    tool(s, "heal")
    hear(s, ("m1", "m2"), ("w1", "m1"), ("m2", "w1"))


def test_power_off_is_silent(s):
    """No FIN and no RST leave a node that is powered off; a process that is killed closes its connections at once."""
    with Pair(s, "m1", "m2") as (a, b):
        tool(s, "stop", "m2")
        eq(b.p.wait(60) is not None, True)
        eq(a.line(0.3), None, "what the other end noticed")
        contains(tool(s, "ls"), "off")
        eq(talks(s, "m1", "m2"), False)
        tool(s, "boot", "m2")
        hear(s, ("m1", "m2"))
    with Pair(s, "m1", "m2") as (a, b):
        b.kill()
        eq(a.line(30), "closed")
    tool(s, "cut", "w1")
    tool(s, "stop", "w1")
    tool(s, "boot", "w1")
    eq(talks(s, "m1", "w1"), False, "it booted into its island")
    tool(s, "heal")
    hear(s, ("m1", "w1"))


def test_kill_all(s):
    m2 = s.cluster.node("m2")
    before = {d["name"]: d["pid"] for d in m2.daemons()}
    contains(tool(s, "kill", "m2", "all"), "%d daemons" % len(before))
    m2.wait_ready(30 * st.SLOW)
    after = {d["name"]: d["pid"] for d in m2.daemons()}
    eq([d for d in after if after[d] == before[d]], [], "daemons that live on")
    tool(s, "hold", "m2", "all", "KILL")
    eq({d["state"] for d in m2.daemons()}, {"held"})
    eq({d["pid"] for d in m2.daemons()}, {0})
    tool(s, "release", "m2", "all")
    m2.wait_ready(30 * st.SLOW)
    eq({d["state"] for d in s.cluster.node("m1").daemons()}, {"ready"}, "the other node's")


def test_refusals(s):
    for argv in (("cut", "m9"), ("cut",), ("up", "-m", "2"), ("boot", "m1"), ("kill", "m1", "all", "NOSUCHSIG"), ("up", "-m", "0")):
        try:
            tool(s, *argv)
        except st.Failure as e:
            if "Traceback" in str(e):
                raise
            continue
        raise st.Failure("cluster %s should fail" % " ".join(argv))
    tool(s, "cut", "m1,m2")
    try:
        tool(s, "cut", "m1")
    except st.Failure as e:
        contains(str(e), "heal first")
    tool(s, "heal")


if __name__ == "__main__":
    st.main(init=False, managers=2, workers=1)
