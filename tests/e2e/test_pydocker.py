#!/usr/bin/python3
"""Debian's python3-docker, as its users call it."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

try:
    import docker
    from docker.types import EndpointSpec, Mount, Resources, RestartPolicy, ServiceMode
except ImportError:
    docker = None


def client(s):
    if docker is None:
        raise st.Skip("no python3-docker")
    return docker.DockerClient(base_url="unix://" + s.m1.sock, version="auto")


def setup(s):
    client(s).ping()


def test_ping_version_info(s):
    c = client(s)
    eq(c.ping(), True)
    contains(c.version()["ApiVersion"], "1.")
    eq(c.info()["Swarm"]["LocalNodeState"], "active")


def test_images(s):
    c = client(s)
    with open(s.archive("echo"), "rb") as f:
        loaded = c.images.load(f)
    eq(loaded[0].tags, ["echo:latest"])
    with open(s.archive("busybox"), "rb") as f:
        c.images.load(f)
    eq(c.images.get("busybox:latest").attrs["Os"], "linux")
    contains(str([i.tags for i in c.images.list()]), "busybox:latest")


def test_service_life(s):
    c = client(s)
    sv = c.services.create("echo:latest", name="py", mode=ServiceMode("replicated", replicas=2), labels={"a": "b"},
                           endpoint_spec=EndpointSpec(ports={8070: 8080}), env=["X=y"],
                           resources=Resources(mem_limit=64 << 20), restart_policy=RestartPolicy("any", delay=0),
                           mounts=[Mount("/t", None, type="tmpfs")])
    s.wait_running("py", 2)
    contains(s.http("http://10.77.0.11:8070/env"), "X=y")
    eq(sv.name, "py")
    eq([x.name for x in c.services.list(filters={"name": "py"})], ["py"])
    eq({t["Status"]["State"] for t in sv.tasks(filters={"desired-state": "running"})}, {"running"})
    sv.reload()
    sv.scale(3)
    s.wait_running("py", 3)
    sv.reload()
    sv.update(labels={"a": "c"}, fetch_current_spec=True)
    sv.reload()
    eq(sv.attrs["Spec"]["Labels"], {"a": "c"})
    sv.force_update()
    sv.remove()
    s.wait(lambda: not s.api.get("/tasks") or None, "no task left")
    try:
        c.services.get("py")
    except docker.errors.NotFound:
        return
    raise st.Failure("the service is still there")


def test_logs(s):
    c = client(s)
    sv = c.services.create("busybox:latest", ["sh", "-c", "echo hello-from-py; exec sleep 1000"], name="pl", stop_grace_period=10 ** 8)
    s.wait_running("pl")
    s.wait(lambda: b"hello-from-py" in b"".join(sv.logs(stdout=True)) or None, "the log line")
    sv.remove()


def test_containers_of_tasks(s):
    c = client(s)
    c.services.create("busybox:latest", ["sh", "-c", "echo from-the-container; exec sleep 1000"], name="pc",
                      stop_grace_period=10 ** 8, container_labels={"k": "v"})
    s.wait_running("pc")
    eq([x.labels["k"] for x in c.containers.list(filters={"label": "com.docker.swarm.service.name=pc"})], ["v"])
    x = c.containers.list(filters={"name": "pc"})[0]
    eq((x.status, x.attrs["Path"], x.image.tags), ("running", "sh", ["busybox:latest"]))
    s.wait(lambda: b"from-the-container" in x.logs() or None, "the log line")
    eq(c.volumes.list(), [])
    try:
        x.stop()
    except docker.errors.APIError as e:
        contains(e.explanation, "belongs to a service")
    else:
        raise st.Failure("a container of a service was stopped")
    s.remove("pc")


def test_nodes(s):
    c = client(s)
    n = c.nodes.list()[0]
    eq(n.attrs["Description"]["Hostname"], "m1")
    spec = dict(n.attrs["Spec"], Labels={"from": "py"})
    n.update(spec)
    eq(c.nodes.get(n.id).attrs["Spec"]["Labels"], {"from": "py"})
    n.reload()
    n.update(dict(n.attrs["Spec"], Labels={}))


def test_events(s):
    c = client(s)
    stream = c.events(decode=True, filters={"type": "service"})
    sid = c.services.create("busybox:latest", ["sleep", "1000"], name="pe", stop_grace_period=10 ** 8).id
    ev = next(e for e in stream if e["Actor"]["ID"] == sid)
    eq((ev["Type"], ev["Action"], ev["scope"]), ("service", "create", "swarm"))
    stream.close()
    s.remove("pe")


def test_errors(s):
    c = client(s)
    for call, kind in ((lambda: c.services.get("nosuch"), docker.errors.NotFound),
                       (lambda: c.services.create("busybox:latest", name="-bad"), docker.errors.APIError),
                       (lambda: c.images.get("nosuch"), docker.errors.ImageNotFound)):
        try:
            call()
        except kind:
            continue
        raise st.Failure("no %s" % kind.__name__)


def test_swarm_attrs(s):
    c = client(s)
    contains(c.swarm.attrs["JoinTokens"]["Worker"], "SWMTKN-1-")
    c.swarm.update(task_history_retention_limit=3)
    c.swarm.reload()
    eq(c.swarm.attrs["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 3)
    c.swarm.update(task_history_retention_limit=5)


if __name__ == "__main__":
    st.main(setup)
