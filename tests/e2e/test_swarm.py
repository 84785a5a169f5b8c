#!/usr/bin/python3
"""init, leave, init again; join tokens; what an engine outside of a swarm answers. And the node tool itself."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402


def tool(s, *argv, check=True):
    return st.run(os.path.join(st.TESTS, "cluster"), *argv, check=check, env=dict(os.environ, MICROSWARM_CLUSTER=s.cluster.dir))


def test_outside_of_a_swarm(s):
    eq(json.loads(s.docker("info", "--format", "{{json .Swarm}}"))["LocalNodeState"], "inactive")
    for argv in (("node", "ls"), ("service", "ls"), ("service", "create", "--no-resolve-image", "x"), ("swarm", "leave"),
                 ("swarm", "join-token", "worker")):
        contains(s.docker_fails(*argv).lower(), "not")
    status, _, _ = s.api.raw("GET", "/services")
    eq(status, 503)
    token = "SWMTKN-1-" + "1" * 50 + "-" + "2" * 25
    where = {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.77.0.11"}
    for body, status, words in (({}, 400, "at least 1 RemoteAddr is required to join"),
                                ({"RemoteAddrs": ["10.77.0.99"], "JoinToken": "abc"}, 500, "invalid join token"),
                                ({"RemoteAddrs": ["[::1"], "JoinToken": token}, 400, "invalid remote address"),
                                ({"RemoteAddrs": ["x"], "JoinToken": token, "AdvertiseAddr": "0.0.0.0"}, 400, "advertise address must"),
                                ({"RemoteAddrs": ["x"], "JoinToken": token, "DataPathAddr": "lo:1"}, 400, "data path address must"),
                                ({"RemoteAddrs": ["x"], "JoinToken": token, "Availability": "sleepy"}, 400, "invalid Availability")):
        got, data, _ = s.api.raw("POST", "/swarm/join", dict(where, **body))
        eq(got, status, json.dumps(body))
        contains(json.loads(data)["message"], words)
    for path in ("/swarm/unlock", "/swarm/backup"):
        eq(s.api.raw("POST", path, {"UnlockKey": "SWMKEY-1-" + "x" * 43})[0], 503 if "unlock" in path else 400)
    eq(s.api.raw("GET", "/swarm/unlockkey")[0], 503)
    eq(json.loads(s.docker("info", "--format", "{{json .Swarm}}"))["LocalNodeState"], "inactive")


def test_init_by_the_client(s):
    contains(s.docker("swarm", "init", "--advertise-addr", "10.77.0.11"), "is now a manager")
    s.cluster.wait_nodes(1, 20 * st.SLOW)
    token = s.docker("swarm", "join-token", "-q", "worker")
    manager = s.docker("swarm", "join-token", "-q", "manager")
    for t in (token, manager):
        parts = t.split("-")
        eq((parts[0], parts[1], len(parts[2]), len(parts[3])), ("SWMTKN", "1", 50, 25), t)
    eq(token.split("-")[2], manager.split("-")[2], "one digest of the root certificate")
    contains(s.docker("swarm", "join-token", "--rotate", "worker"), "SWMTKN-1-")
    new = s.docker("swarm", "join-token", "-q", "worker")
    if new == token:
        raise st.Failure("the token did not change")
    contains(s.docker("swarm", "ca"), "BEGIN CERTIFICATE")


def test_swarm_update(s):
    s.docker("swarm", "update", "--task-history-limit", "2")
    eq(s.api.get("/swarm")["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 2)
    s.docker("swarm", "update", "--task-history-limit", "5")


def test_node_update(s):
    s.load("pause")
    s.docker("node", "update", "--availability", "drain", "--label-add", "a=b", "m1")
    eq(s.docker("node", "ls", "--format", "{{.Availability}}"), "Drain")
    s.create("dr", "pause:latest")
    t = s.wait(lambda: next((t for t in s.tasks("dr") if t["Status"].get("Err")), None), "a reason why it waits")
    contains(t["Status"]["Err"], "no suitable node")
    s.docker("node", "update", "--availability", "active", "m1")
    s.wait_running("dr")
    contains(s.docker("node", "ps", "m1"), "dr.1")
    s.remove("dr")


def test_leave_and_init_again(s):
    s.create("lv", "pause:latest", "--replicas", "2")
    s.wait_running("lv", 2)
    old = s.docker("info", "--format", "{{.Swarm.NodeID}}")
    s.docker("swarm", "leave", "--force")
    st.settles(lambda: json.loads(s.docker("info", "--format", "{{json .Swarm}}"))["LocalNodeState"], "inactive", "m1 is outside")
    st.wait_until(lambda: s.m1.sh("sh", "-c", "pgrep -xc pause || true").strip() == "0", 20 * st.SLOW, "no container left")
    s.cluster.init(30 * st.SLOW)
    if s.docker("info", "--format", "{{.Swarm.NodeID}}") == old:
        raise st.Failure("the node kept its identity")
    eq(s.docker("service", "ls", "-q"), "")
    s.create("lv", "pause:latest")
    s.wait_running("lv")
    s.remove("lv")


def test_both_clients(s):
    for d in st.DOCKERS:
        contains(s.docker("version", "--format", "{{.Client.Version}} {{.Server.Version}}", client=d), " ")
        s.create("bc", "pause:latest", client=d)
        s.wait_running("bc")
        contains(s.docker("service", "ps", "bc", client=d), "Running")
        contains(s.docker("service", "inspect", "--pretty", "bc", client=d), "pause:latest")
        contains(s.docker("node", "ls", client=d), "m1")
        s.docker("service", "rm", "bc", client=d)
        s.wait(lambda: not s.api.get("/tasks") or None, "no task left")


def test_cluster_tool(s):
    contains(tool(s, "ls"), "10.77.0.11")
    eq(json.loads(tool(s, "ls", "--json"))[0]["name"], "m1")
    eq(tool(s, "sh", "m1", "--", "hostname").strip(), "m1")
    contains(tool(s, "sh", "net", "--", "ip", "-br", "addr"), "10.77.0.1/24")
    for argv in (("up", "-m", "3"), ("sh", "m9"), ("kill", "m1", "nosuchd"), ("kill", "m1", "raftd", "NOSUCHSIG")):
        try:
            tool(s, *argv)
        except st.Failure as e:
            if "Traceback" in str(e):
                raise
            continue
        raise st.Failure("cluster %s should fail" % " ".join(argv))
    tool(s, "stop", "m1")
    contains(tool(s, "ls"), "off")
    tool(s, "boot", "m1")
    contains(tool(s, "ls"), "ready")
    s.wait(lambda: s.api.get("/nodes")[0]["Status"]["State"] == "ready" or None, "the node is ready")


if __name__ == "__main__":
    st.main(init=False)
