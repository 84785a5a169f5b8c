#!/usr/bin/python3
"""Bad input gets a clear error with Docker's status code, and leaves the state as it was."""

import json
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402


def setup(s):
    s.load("pause")
    s.keep.add("fixed")
    s.create("fixed", "pause:latest")
    s.wait_running("fixed")


def spec(name="x", **container):
    return {"Name": name, "TaskTemplate": {"ContainerSpec": dict({"Image": "pause:latest"}, **container)},
            "Mode": {"Replicated": {"Replicas": 1}}}


def put(doc, path, value):
    *parents, last = path.split(".")
    for p in parents:
        doc = doc.setdefault(p, {})
    doc[last] = value


def state(s):
    return sorted((x["ID"], x["Version"]["Index"]) for x in s.api.get("/services"))


def refused(s, method, path, body, status, say="", headers=None):
    before = state(s)
    got, data, _ = s.api.raw(method, path, body, headers)
    try:
        message = json.loads(data)["message"]
    except (ValueError, KeyError, TypeError):
        raise st.Failure("%s %s: HTTP %d without an error body: %r" % (method, path, got, data[:300])) from None
    want = status if isinstance(status, tuple) else (status,)
    if got not in want:
        raise st.Failure("%s %s %.200r: HTTP %d %s, wanted %s" % (method, path, body, got, message, status))
    if say.lower() not in message.lower():
        raise st.Failure("%s: says %r, wanted %r" % (path, message, say))
    eq(state(s), before, "services after a refused request")
    return message


def test_malformed_json(s):
    for body in (b"{", b"", b"[]", b"null", b'"x"', b"{]", b'{"Name": }', b'{"Name": "a"} trailing', b"\xff\xfe", b'{"Name": 5}',
                 b"[" * 5000, b'{"a":' * 5000, b'{"Name":"\\ud800"}', b'{"TaskTemplate": []}', b'{"TaskTemplate": {"ContainerSpec": "x"}}'):
        refused(s, "POST", "/services/create", body, 400, headers={"Content-Type": "application/json"})


def test_spec_values(s):
    wrong = []
    for path, value, say in (
            ("Name", "-a", "name must be valid as a DNS name component"),
            ("Name", "a b", "name must be valid"), ("Name", "x" * 64, "name must be"),
            ("TaskTemplate.ContainerSpec.Image", "", "image reference must be provided"),
            ("TaskTemplate.ContainerSpec.Image", "UPPER:1", "is not a valid repository/tag"),
            ("TaskTemplate.RestartPolicy", {"Condition": "sometimes"}, "Condition"),
            ("TaskTemplate.RestartPolicy", {"Delay": -1}, "Delay"),
            ("TaskTemplate.ContainerSpec.Mounts", [{"Type": "floppy", "Target": "/x"}], "MountType"),
            ("TaskTemplate.ContainerSpec.Mounts", [{"Type": "tmpfs"}], "target"),
            ("TaskTemplate.ContainerSpec.Mounts", [{"Type": "tmpfs", "Target": "/a"}, {"Type": "tmpfs", "Target": "/a"}], "/a"),
            ("TaskTemplate.ContainerSpec.StopGracePeriod", -5, "StopGracePeriod"),
            ("TaskTemplate.Resources", {"Limits": {"NanoCPUs": -1}}, "CPU"),
            ("TaskTemplate.Resources", {"Limits": {"MemoryBytes": 1}}, "memory"),
            ("TaskTemplate.Resources", {"Limits": {"MemoryBytes": 1 << 70}}, ""),
            ("Mode", {"Replicated": {"Replicas": -1}}, "Replicas"),
            ("Mode", {"Replicated": {}, "Global": {}}, ""),
            ("EndpointSpec", {"Mode": "carrier-pigeon"}, "Mode"),
            ("EndpointSpec", {"Ports": [{"Protocol": "tcp", "TargetPort": 70000}]}, "TargetPort"),
            ("EndpointSpec", {"Ports": [{"Protocol": "avian", "TargetPort": 80}]}, "Protocol"),
            ("EndpointSpec", {"Ports": [{"TargetPort": 80, "PublishedPort": 99}, {"TargetPort": 81, "PublishedPort": 99}]}, "duplicate"),
            ("UpdateConfig", {"FailureAction": "pray"}, "failure action"),
            ("UpdateConfig", {"Order": "sideways"}, "Order"),
            ("UpdateConfig", {"MaxFailureRatio": 2}, ""),
            ("Labels", {"a": 5}, "Labels"),
            ("TaskTemplate.Placement", {"Constraints": ["nonsense"]}, "constraint")):
        doc = spec()
        put(doc, path, value)
        try:
            refused(s, "POST", "/services/create", doc, 500 if "Constraints" in str(value) else 400, say)  # 500: as Docker
        except st.Failure as e:
            wrong.append("%s = %.80r: %s" % (path, value, e))
    if wrong:
        raise st.Failure("\n  ".join(wrong))


def test_names(s):
    refused(s, "POST", "/services/create", spec("fixed"), 409, "already exists")
    refused(s, "POST", "/services/create", spec("FIXED"), 409, "already exists")


def test_old_version(s):
    doc = s.inspect("fixed")
    new = dict(doc["Spec"], Labels={"a": "1"})
    s.api.post("/services/%s/update?version=%d" % (doc["ID"], doc["Version"]["Index"]), new)
    refused(s, "POST", "/services/%s/update?version=%d" % (doc["ID"], doc["Version"]["Index"]), dict(new, Labels={"a": "2"}),
            (400, 409, 500), "update out of sequence")
    eq(s.inspect("fixed")["Spec"]["Labels"], {"a": "1"})
    for bad in ("", "x", "-1", "99999999999999999999999"):
        refused(s, "POST", "/services/%s/update?version=%s" % (doc["ID"], bad), new, 400, "version")


def test_rename_is_refused(s):
    doc = s.inspect("fixed")
    refused(s, "POST", "/services/%s/update?version=%d" % (doc["ID"], doc["Version"]["Index"]), dict(doc["Spec"], Name="other"),
            (400, 501), "renaming services is not supported")


def test_port_twice(s):
    doc = spec("p1")
    doc["EndpointSpec"] = {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8090}]}
    s.api.post("/services/create", doc)
    refused(s, "POST", "/services/create", dict(doc, Name="p2"), 400, "port '8090' is already in use by service 'p1'")
    s.remove("p1")


def test_missing_things(s):
    for method, path in (("GET", "/services/nosuch"), ("DELETE", "/services/nosuch"), ("GET", "/tasks/nosuch"),
                         ("GET", "/nodes/nosuch"), ("GET", "/services/nosuch/logs?stdout=1"), ("GET", "/tasks/nosuch/logs?stdout=1"),
                         ("GET", "/images/nosuch/json"), ("DELETE", "/images/nosuch"), ("DELETE", "/nodes/nosuch")):
        refused(s, method, path, None, 404, "no")
    refused(s, "POST", "/services/nosuch/update?version=1", spec("nosuch"), 404, "not found")
    refused(s, "GET", "/nonsense", None, 404, "page not found")


def test_queries(s):
    for path in ("/services?filters={", "/services?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D", "/tasks?filters=%5B%5D",
                 "/services/fixed?insertDefaults=maybe"):
        refused(s, "GET", path, None, 400)
    refused(s, "GET", "/nodes?filters=%7B%22role%22%3A%5B%22king%22%5D%7D", None, (400, 500), "role")  # 500 with Docker
    refused(s, "GET", "/tasks?filters=%7B%22desired-state%22%3A%5B%22nirvana%22%5D%7D", None, (400, 500), "desired-state")
    refused(s, "GET", "/services/fixed/logs?follow=0", None, (400, 500), "st")
    refused(s, "GET", "/services/fixed/logs?stdout=1&tail=-5", None, (400, 500), "")


def test_api_versions(s):
    for v in ("/v1.1", "/v99.9"):
        status, data, _ = s.api.raw("GET", "/info", version=v)
        eq(status, 400, v)
        contains(data.decode(), "version")
    status, data, r = s.api.raw("GET", "/_ping", version="")
    eq((status, data.strip()), (200, b"OK"))
    contains(r.getheader("Api-Version"), "1.")


def test_too_large(s):
    doc = spec("big")
    doc["Labels"] = {"x": "y" * (20 << 20)}
    try:
        refused(s, "POST", "/services/create", doc, (400, 413))
    except (BrokenPipeError, ConnectionResetError):
        pass  # it stopped reading: also an answer, as long as it lives
    eq(s.api.get("/services/fixed")["Spec"]["Name"], "fixed")


def raw_http(s, data, read=True):
    c = socket.socket(socket.AF_UNIX)
    c.settimeout(5)  # two of these are left to the idle timeout
    c.connect(s.m1.sock)
    try:
        c.sendall(data)
        if read:
            c.shutdown(socket.SHUT_WR)
            return c.recv(65536)
    except OSError:
        pass
    finally:
        c.close()
    return b""


def test_broken_http(s):
    for data in (b"", b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100, b"G" * 100000,
                 b"GET /info HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
                 b"POST /v1.41/services/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                 b"POST /v1.41/services/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
                 b"POST /v1.41/services/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
                 b"GET /v1.41/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"GET /v1.41/services/%00%ff HTTP/1.1\r\nHost: x\r\n\r\n"):
        raw_http(s, data)
    eq(s.api.raw("GET", "/_ping", version="")[0], 200)


def test_client_hangs_up_half_way(s):
    before = state(s)
    body = json.dumps(spec("half")).encode()
    head = b"POST /v1.41/services/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    for cut in (10, len(head), len(head) + len(body) // 2):
        raw_http(s, (head + body)[:cut], read=False)
    for _ in range(20):  # and streams that nobody reads to the end
        raw_http(s, b"GET /v1.41/events HTTP/1.1\r\nHost: x\r\n\r\n", read=False)
        raw_http(s, b"GET /v1.41/services/fixed/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n", read=False)
    eq(s.api.raw("GET", "/_ping", version="")[0], 200)
    eq(state(s), before)


def test_swarm_state(s):
    refused(s, "POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.77.0.11"}, (400, 406, 503),
            "already part of a swarm")
    s.docker_fails("swarm", "leave", say="--force")
    s.docker_fails("node", "rm", "m1", say="")
    eq(len(s.running("fixed")), 1)


def test_message_bus_refuses_strangers(s):
    """A daemon may change only what its role is there for, whoever sends the request."""
    # A user of the group that is no daemon: raftd must not take a transaction from it. Bytes that are no message at all, too.
    for data in ("x", "\x80", "\xdd\x07\xff\xff\xff", "\xdf\xff\xff\xff\xff"):
        for d in s.m1.info["daemons"]:
            s.m1.sh("setpriv", "--reuid", "65534", "--regid", "61800", "--clear-groups", "nngcat", "--req0", "--dial",
                    "ipc:///run/microswarm/%s.sock" % d, "--data", data, "--raw", "--recv-timeout", "1", check=False)
    for d in s.m1.info["daemons"]:
        contains(s.m1.probe(d, "status"), "{")
    eq(len(s.running("fixed")), 1)


def mp(v):
    """msgpack of small maps, texts and numbers; as text for a command line."""
    def b(v):
        if isinstance(v, dict):
            return bytes([0x80 | len(v)]) + b"".join(b(k) + b(x) for k, x in v.items())
        if isinstance(v, str):
            return bytes([0xa0 | len(v)]) + v.encode()
        return bytes([v])
    return os.fsdecode(b(v))


def test_daemons_hear_only_whom_they_serve(s):
    """Every daemon's user is in the group that may open the sockets; what it asks for is another matter."""
    for daemon, op, allowed in (("meshd", "list", ()), ("agentd", "info", ("apid",)), ("agentd", "leave", ("apid",)),
                                ("agentd", "image_list", ("apid",)), ("raftd", "reset", ("apid",))):
        for user, uid in st.UIDS.items():
            if user in allowed and op in ("leave", "reset"):
                continue
            out = s.m1.sh("setpriv", "--reuid", str(uid), "--regid", str(st.GID), "--clear-groups", "nngcat", "--req0",
                          "--dial", "ipc:///run/microswarm/%s.sock" % daemon, "--data",
                          mp({"v": 1, "id": 7, "op": op, "body": {}}), "--raw", "--recv-timeout", "5", check=False)
            refused_it = "only " in out or "may not" in out
            eq(refused_it, user not in allowed, "%s asks %s for %s: %r" % (user, daemon, op, out))
    eq(len(s.running("fixed")), 1)


def test_daemons_do_not_use_the_api(s):
    """Through it anybody is root on every node; the socket's group, that the daemons share, must not be enough for them."""
    def ask(*who):
        return s.m1.sh("setpriv", *who, "curl", "-s", "--unix-socket", "/run/microswarm/docker.sock", "http://d/_ping", check=False)
    for user, uid in st.UIDS.items():
        if user != "apid":
            contains(ask("--reuid", str(uid), "--regid", str(st.GID), "--clear-groups"), "not for daemons", user)
    eq(ask("--reuid", "65534", "--regid", "65534", "--groups", str(st.GID)), "OK", "a person")
    eq(ask("--reuid", "65534", "--regid", "65534", "--clear-groups"), "", "a stranger")


if __name__ == "__main__":
    st.main(setup)
