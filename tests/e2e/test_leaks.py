#!/usr/bin/python3
"""What a daemon holds doesn't grow with what it has done: memory and descriptors level off."""

import contextlib
import http.client
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import eq  # noqa: E402

CYCLES = 2 if st.SANITIZED else 5


def setup(s):
    s.load("pause")


def fds(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def memory(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        return next(int(l.split()[1]) for l in f if l.startswith("RssAnon:"))


def daemons(s):
    return {d["name"]: s.m1.to_host_pid(d["pid"]) for d in s.m1.daemons()}


def settled(pids, before, what):
    for d, pid in pids.items():
        st.wait_until(lambda p=pid, b=before[d]: fds(p) <= b + 2, 20 * st.SLOW, "%s: descriptors after %s, %d before" % (d, what, before[d]))


def test_garbage_on_the_sockets(s):
    """Nonsense on a daemon's socket or probe costs it no descriptor."""
    pids = daemons(s)
    before = {d: fds(p) for d, p in pids.items()}
    for d in pids:
        for name in (d + ".sock", d + ".probe"):
            path = s.m1.path("run", name)
            if not os.path.exists(path):
                continue
            for i in range(40):
                with socket.socket(socket.AF_UNIX) as u, contextlib.suppress(OSError):
                    u.connect(path)
                    u.sendall(os.urandom(1 + i * 20))
                    if i % 2:
                        u.settimeout(0.02)
                        u.recv(1)
    settled(pids, before, "garbage")
    eq(daemons(s), pids, "processes")
    s.docker("node", "ls")


def cycle(s, i):
    """A bit of everything that clients do."""
    s.api.post("/services/create", {"Name": "leak", "TaskTemplate": {"ContainerSpec": {"Image": "pause:latest", "StopGracePeriod": 50000000}},
                                    "Mode": {"Replicated": {"Replicas": 3}}})
    s.wait_running("leak", 3)
    for _ in range(30):
        for path in ("/services", "/tasks", "/nodes", "/info", "/version", "/services/leak", "/services/nosuch", "/swarm"):
            s.api.raw("GET", path)
    for _ in range(10):
        with s.api.events():
            pass
        c = st.UnixHTTP(s.m1.sock, 0.2)  # it has nothing to say: we hang up
        with contextlib.suppress(OSError, http.client.HTTPException):
            c.request("GET", "/v1.41/services/leak/logs?stdout=1&follow=1")
            c.getresponse().read(1)
        c.close()
    for _ in range(20):
        s.api.raw("POST", "/services/create", body="{\"Name\": \"x", headers={"Content-Type": "application/json"})
        s.api.raw("POST", "/services/create", {"Name": "bad name!", "TaskTemplate": {"ContainerSpec": {"Image": ""}}})
    doc = s.inspect("leak")
    doc["Spec"]["Mode"]["Replicated"]["Replicas"] = 1 + i % 3
    s.api.post("/services/%s/update?version=%d" % (doc["ID"], doc["Version"]["Index"]), doc["Spec"])
    s.wait_running("leak", 1 + i % 3)
    s.remove("leak")


def test_memory_and_descriptors_level_off(s):
    for i in range(2):
        cycle(s, i)  # caches fill, arenas reach their size
    pids = daemons(s)
    first = {d: (memory(p), fds(p)) for d, p in pids.items()}
    for i in range(CYCLES):
        cycle(s, i)
    half = {d: memory(p) for d, p in pids.items()}
    for i in range(CYCLES):
        cycle(s, i)
    eq(daemons(s), pids, "processes")
    settled(pids, {d: n for d, (_, n) in first.items()}, "%d rounds" % (2 * CYCLES))
    for d, p in pids.items():
        now = memory(p)
        # The second half may still grow by what malloc keeps in reserve, not by what a leak of each round would add.
        if now - half[d] > 1024 * st.SLOW and now - first[d][0] > 2048 * st.SLOW:
            raise st.Failure("%s: %d KiB, after %d rounds %d KiB, after %d %d KiB" % (d, first[d][0], CYCLES, half[d], 2 * CYCLES, now))
    print("# KiB after the first rounds and in the end: " + ", ".join("%s %d %d" % (d, first[d][0], memory(p)) for d, p in pids.items()))


# What AddressSanitizer keeps of freed memory grows with every call until its own limit of 256 MiB.
ASAN = ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64"

if __name__ == "__main__":
    st.main(setup, env={"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ASAN})
