#!/usr/bin/python3
"""A service's whole life, through the unmodified docker client. Short: runs under sanitizers as well."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402


def setup(s):
    st.contains(s.load("echo"), "echo:latest")
    s.load("busybox")
    s.load("busybox", "-t", "busybox:v2", "--label", "v=2")


def test_version_and_info(s):
    contains(s.docker("version", "--format", "{{.Server.Version}}"), ".")
    info = json.loads(s.docker("info", "--format", "{{json .Swarm}}"))
    eq(info["LocalNodeState"], "active")
    eq(info["ControlAvailable"], True)
    eq((info["Nodes"], info["Managers"]), (1, 1))


def test_node_ls(s):
    row = json.loads(s.docker("node", "ls", "--format", "json").splitlines()[0]) if "28" in s.docker("--version") else None
    if row:
        eq((row["Hostname"], row["Status"], row["Availability"], row["ManagerStatus"]), ("m1", "Ready", "Active", "Leader"))
    eq(s.docker("node", "inspect", "self", "--format", "{{.Status.State}} {{.Status.Addr}}"), "ready 10.77.0.11")


def test_images(s):
    listed = s.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    for name in ("echo:latest", "busybox:latest", "busybox:v2"):
        if name not in listed:
            raise st.Failure("%s is not in %r" % (name, listed))


def test_create_in_the_foreground(s):
    out = s.docker("service", "create", "--no-resolve-image", "--name", "web", "--replicas", "3", "-p", "8080:8080",
                   "--label", "a=b", "echo:latest")
    contains(out, "converged")
    eq(len(s.running("web")), 3)
    contains(s.http("http://10.77.0.11:8080/hello"), "path=/hello")
    eq(s.docker("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Ports}}"),
       "web replicated 3/3 *:8080->8080/tcp")
    names = sorted(s.docker("service", "ps", "web", "--format", "{{.Name}} {{.CurrentState}}").splitlines())
    eq([n.split()[0] for n in names], ["web.1", "web.2", "web.3"])
    contains(s.docker("service", "inspect", "--pretty", "web"), "web")
    eq(s.docker("service", "inspect", "web", "--format", "{{.Spec.Labels.a}}"), "b")
    # every replica gets its share
    hosts = {s.http("http://10.77.0.11:8080/").split()[0] for _ in range(60)}
    eq(len(hosts), 3, "hosts that answered")
    s.remove("web")


def test_scale(s):
    s.create("sc", "busybox:latest", args=("sleep", "1000"))
    s.wait_running("sc", 1)
    first = s.running("sc")[0]["ID"]
    s.docker("service", "scale", "-d", "sc=4")
    s.wait_running("sc", 4)
    if first not in [t["ID"] for t in s.running("sc")]:
        raise st.Failure("scaling replaced a running task")
    s.docker("service", "scale", "-d", "sc=0")
    s.wait_running("sc", 0)
    s.remove("sc")


def test_logs(s):
    s.create("lg", "busybox:latest", args=("sh", "-c", "echo one; echo two >&2; echo three; exec sleep 1000"))
    s.wait_running("lg")
    st.settles(lambda: sorted(s.logs("lg").split()), ["one", "three", "two"], "the lines of both streams")
    eq(len(s.logs("lg", "--tail", "1").split()), 1)
    contains(s.docker("service", "logs", "lg"), "@m1    | ")
    s.remove("lg")


def test_killed_container_is_replaced(s):
    s.create("k", "busybox:latest", "--restart-delay", "0s", args=("sleep", "1000"))
    task = s.wait_running("k")[0]
    s.kill_container(task)
    new = s.wait(lambda: [t for t in s.running("k") if t["ID"] != task["ID"]] or None, "a replacement")
    eq(new[0]["Slot"], task["Slot"])
    st.settles(lambda: next(t for t in s.tasks("k") if t["ID"] == task["ID"])["Status"]["State"], "failed", "the killed one")
    old = next(t for t in s.tasks("k") if t["ID"] == task["ID"])
    contains(old["Status"]["Err"], "137")
    s.remove("k")


def test_update_replaces(s):
    s.create("up", "busybox:latest", "--replicas", "2", args=("sleep", "1000"))
    s.wait_running("up", 2)
    s.docker("service", "update", "-d", "--no-resolve-image", "--image", "busybox:v2", "up")

    def replaced():
        r = s.running("up")
        return len(r) == 2 and all(t["Spec"]["ContainerSpec"]["Image"] == "busybox:v2" for t in r) or None
    s.wait(replaced, "two tasks of the new image")
    s.remove("up")


def test_exit_states(s):
    s.create("okay", "busybox:latest", "--restart-condition", "on-failure", args=("true",))
    t = s.wait_state("okay", "complete")
    eq(t["Status"]["ContainerStatus"].get("ExitCode", 0), 0)
    s.create("bad", "busybox:latest", "--restart-condition", "none", args=("sh", "-c", "exit 3"))
    t = s.wait_state("bad", "failed")
    eq(t["Status"]["ContainerStatus"]["ExitCode"], 3)
    contains(t["Status"]["Err"], "task: non-zero exit (3)")
    s.create("noimg", "nosuchimage:1", "--restart-condition", "none")
    t = s.wait_state("noimg", "rejected")
    contains(t["Status"]["Err"].lower(), "no such image")
    s.create("nocmd", "busybox:latest", "--restart-condition", "none", args=("/no/such/command",))
    t = s.wait(lambda: next((t for t in s.tasks("nocmd") if t["Status"]["State"] in ("failed", "rejected")), None), "nocmd")
    contains(t["Status"]["Err"], "no such file")
    s.remove("okay", "bad", "noimg", "nocmd")


def test_remove(s):
    s.create("gone", "busybox:latest", args=("sleep", "1000"))
    pid = s.container_pid(s.wait_running("gone")[0])
    s.docker("service", "rm", "gone")
    eq(s.docker("service", "ls", "-q"), "")
    s.wait(lambda: not s.api.get("/tasks") or None, "no task left")
    if s.m1.sh("sh", "-c", "[ -e /proc/%d ] && echo still || echo gone" % pid).strip() != "gone":
        raise st.Failure("the container is still there")


def test_events(s):
    with s.api.events("?filters=%7B%22type%22%3A%5B%22service%22%5D%7D") as stream:
        sid = s.create("ev", "busybox:latest", args=("sleep", "1000"))
        got = b""

        def seen():
            return any(b'"create"' in l and sid.encode() in l for l in got.splitlines()) or None
        stream.settimeout(30 * st.SLOW)
        while not seen():
            got += stream.recv(65536)
    s.remove("ev")


def test_swarmctl(s):
    contains(s.swarmctl("node", "ls"), "m1")
    s.swarmctl("service", "create", "-d", "--no-resolve-image", "--name", "ctl", "--stop-grace-period", "50ms", "busybox:latest", "sleep", "1000")
    s.wait_running("ctl")
    contains(s.swarmctl("service", "ls"), "1/1")
    contains(s.swarmctl("service", "ps", "ctl"), "Running")
    s.swarmctl("service", "rm", "ctl")
    s.wait(lambda: not s.api.get("/tasks") or None, "no task left")


if __name__ == "__main__":
    st.main(setup)
