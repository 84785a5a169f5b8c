#!/usr/bin/python3
"""Logs of services and tasks over three managers and two workers: merged, followed, cut to size, with nodes that die."""

import json
import os
import re
import select
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

SAY = "for i in $(seq 1 %d); do echo line $i; done; echo wrong >&2; sleep 1000"
LATE = 60
SHARED = "/run/logs-test"  # the same folder in all containers
MOUNT = ("--mount", "type=bind,src=%s,dst=/shared" % SHARED)


def setup(s):
    s.load("busybox")


def everywhere(s, name, lines=5, *options):
    """One task on each node."""
    s.create(name, "busybox:latest", "--replicas", "5", "--replicas-max-per-node", "1", *options, args=("sh", "-c", SAY % lines))
    tasks = s.wait_running(name, 5)
    st.settles(lambda: s.logs(name).count("line %d\n" % lines), 5, "all have said what they have to say")
    return tasks


class Follow:
    """A client that reads on."""

    def __init__(self, s, what, *options):
        self.p = subprocess.Popen([st.DOCKERS[0], "service", "logs", "-f", *options, what], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  env=s.docker_env())
        self.text = ""

    def until(self, check, what, seconds=LATE):
        def got():
            while select.select([self.p.stdout], [], [], 0)[0]:
                piece = os.read(self.p.stdout.fileno(), 65536)
                if not piece:
                    break
                self.text += piece.decode(errors="replace")
            return check(self.text)
        return st.wait_until(got, seconds * st.SLOW, what)

    def close(self):
        self.p.kill()
        self.p.wait()
        self.p.stdout.close()


def test_merged(s):
    tasks = everywhere(s, "all")
    for via in ("m1", "m2", "m3"):
        with s.at(via):
            out = s.docker("service", "logs", "all")
            eq(sorted(re.findall(r"(?m)^all\.(\d)\.\w+@(\w+) +\| line 5$", out)),
               sorted((str(t["Slot"]), s.node_of(t).name) for t in tasks))
            for t in tasks:  # each task's lines in their order
                mine = re.findall(r"(?m)^all\.%d\.\S+ +\| line (\d)$" % t["Slot"], out)
                eq(mine, ["1", "2", "3", "4", "5"])
    p = subprocess.run([st.DOCKERS[0], "service", "logs", "--raw", "all"], capture_output=True, text=True, env=s.docker_env(), check=True)
    eq((p.stdout.count("line"), p.stderr.count("wrong")), (25, 5))
    s.remove("all")


def test_tail_since_until_timestamps_details(s):
    tasks = everywhere(s, "cut", 9, "--env", "COLOUR=red", "--log-driver", "json-file", "--log-opt", "env=COLOUR")
    eq(s.logs("cut", "--tail", "3").count("line"), 10, "the last three of each, one of which is on the other stream")
    stamped = s.docker("service", "logs", "--raw", "--timestamps", "cut").splitlines()
    times = [l.split()[0] for l in stamped]
    eq(all(re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$", t) for t in times), True)
    eq(s.logs("cut", "--since", max(times)).count("\n") >= 1, True)
    eq(s.logs("cut", "--since", "2099-01-01T00:00:00Z"), "")
    base = "/services/cut/logs?stdout=1&stderr=1"
    eq(s.api.raw("GET", base + "&until=1")[1], b"")
    eq(len(s.api.raw("GET", base)[1]) > 0, True)
    contains(s.docker("service", "logs", "--details", "cut"), "COLOUR=red")
    contains(s.api.raw("GET", base + "&details=1")[1].decode(errors="replace"), "com.docker.swarm.task.id=" + tasks[0]["ID"])
    s.remove("cut")


def test_one_task(s):
    tasks = everywhere(s, "one")
    t = next(t for t in tasks if s.node_of(t).name == "w2")
    out = s.docker("service", "logs", "--raw", t["ID"])
    eq(out.count("line"), 5)
    f = Follow(s, t["ID"], "--raw")
    try:
        f.until(lambda text: "line 5" in text, "its lines")
        s.kill_container(t)
        eq(st.wait_until(lambda: f.p.poll() is not None, LATE * st.SLOW, "the task has ended, and so has the stream"), True)
    finally:
        f.close()
    s.remove("one")


def test_follow(s):
    """Tasks that start while somebody reads are read, too, wherever they are; the end comes with the service's."""
    s.create("f", "busybox:latest", "--restart-delay", "0s", args=("sh", "-c", "echo begins; sleep 1000"))
    first = s.wait_running("f")[0]
    f = Follow(s, "f", "--no-resolve")
    try:
        f.until(lambda text: text.count("begins") == 1, "the first task")
        s.docker("service", "scale", "-d", "f=7")
        s.wait_running("f", 7)
        f.until(lambda text: text.count("begins") == 7, "all seven")
        s.kill_container(first)
        f.until(lambda text: text.count("begins") == 8, "its replacement")
        s.remove("f")
        st.wait_until(lambda: f.p.poll() is not None, LATE * st.SLOW, "the stream ends with the service")
    finally:
        f.close()


def test_follow_until(s):
    s.create("fu", "busybox:latest", args=("sh", "-c", "while :; do echo tick; sleep 0.1; done"))
    s.wait_running("fu")
    t0 = time.time()
    body = s.api.raw("GET", "/services/fu/logs?stdout=1&follow=1&timestamps=1&until=%.9f" % (t0 + 2))[1]
    took = time.time() - t0
    eq(took >= 1.5, True, "it took %.1f s" % took)
    eq(body.count(b"tick") > 3, True)
    s.remove("fu")


def test_not_scheduled(s):
    s.create("p", "busybox:latest", "--constraint", "node.labels.nowhere==1", args=("true",))
    t = s.wait(lambda: next((t for t in s.tasks("p") if t["Status"]["State"] == "pending"), None), "it is pending")
    p = subprocess.run([st.DOCKERS[0], "service", "logs", "p"], capture_output=True, text=True, env=s.docker_env(), check=False)
    contains(p.stdout + p.stderr, "task %s has not been scheduled" % t["ID"])
    s.remove("p")


def test_a_node_that_is_cut_off(s):
    """Its lines are missing and it is named; the others' come at once. Those who follow get them when it is back."""
    tasks = everywhere(s, "c", 5, "--restart-condition", "none")
    gone = next(t for t in tasks if s.node_of(t).name == "w1")
    f = Follow(s, "c", "--raw")
    try:
        f.until(lambda text: text.count("line 5") == 5, "all five")
        s.cluster.cut("w1")
        t0 = time.monotonic()
        p = subprocess.Popen([st.DOCKERS[0], "service", "logs", "--raw", "c"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=s.docker_env())
        lines = [p.stdout.readline() for _ in range(20)]
        first = time.monotonic() - t0
        rest, said = p.communicate(timeout=LATE * st.SLOW)
        took = time.monotonic() - t0
        eq((len([l for l in lines if l.startswith("line")]), rest), (20, ""))
        contains(said, "warning: incomplete log stream")
        contains(said, "node %s is not available" % gone["NodeID"])
        print("# a node that is cut off: the others' lines after %.2f s, the end after %.2f s" % (first, took), flush=True)
        eq(took < 15 * st.SLOW * st.crowd(), True, "it took %.1f s" % took)
        s.wait(lambda: s.api.get("/nodes/w1")["Status"]["State"] == "down" or None, "w1 is down", 90)
        t0 = time.monotonic()
        said = subprocess.run([st.DOCKERS[0], "service", "logs", "--raw", "c"], capture_output=True, text=True, env=s.docker_env(), check=False)
        eq(said.stdout.count("line"), 20)
        contains(said.stderr, "node %s is not available" % gone["NodeID"])
        eq(time.monotonic() - t0 < 5 * st.SLOW * st.crowd(), True, "a node that is known to be down is not asked")
        s.cluster.heal()
        s.wait(lambda: s.api.get("/nodes/w1")["Status"]["State"] == "ready" or None, "w1 is back", 90)
        st.settles(lambda: s.logs("c").count("line 5\n"), 5, "all lines again", 60)
        eq(f.p.poll(), None, "who follows goes on")
    finally:
        s.cluster.heal()
        f.close()
    s.remove("c")


def test_a_node_without_power(s):
    """Following goes on with what replaces its tasks."""
    s.create("d", "busybox:latest", "--replicas", "4", "--constraint", "node.role==worker", args=("sh", "-c", "echo begins; sleep 1000"))
    s.wait_running("d", 4)
    f = Follow(s, "d", "--raw")
    w2 = s.cluster.node("w2")
    try:
        f.until(lambda text: text.count("begins") == 4, "all four")
        w2.power_off()
        s.wait(lambda: len([t for t in s.running("d") if s.node_of(t).name == "w1"]) == 4 or None, "all on w1", 90)
        f.until(lambda text: text.count("begins") == 6, "those that replace them")
        eq(f.p.poll(), None)
    finally:
        f.close()
        w2.start()
        w2.wait_ready(60 * st.SLOW)
        s.cluster.wait_nodes(5, 60 * st.SLOW)
    s.remove("d")


def test_many_tasks(s):
    """More than are asked at the same time: all are read, and those who follow hear of each."""
    for n in s.cluster.nodes():  # one of them has been off
        n.sh("mkdir", "-p", SHARED)
    s.create("many", "busybox:latest", "--replicas", "50", *MOUNT, args=("sh", "-c", "echo begins; until [ -e /shared/go ]; do sleep 1; done; echo goes on; sleep 1000"))
    s.wait_running("many", 50, LATE)
    st.settles(lambda: s.logs("many").count("begins"), 50, "all begin", LATE)
    f = Follow(s, "many", "--raw")
    try:
        f.until(lambda text: text.count("begins") == 50, "what all have said")
        for n in s.cluster.nodes():
            n.sh("touch", SHARED + "/go")
        f.until(lambda text: text.count("goes on") == 50, "all go on")
    except st.Failure as e:
        raise st.Failure("%s: %d begin, %d go on" % (e, f.text.count("begins"), f.text.count("goes on"))) from None
    finally:
        f.close()
    s.remove("many")


def test_many_lines(s):
    """More than fits into one page, from several nodes, into a client that takes its time."""
    s.create("big", "busybox:latest", "--replicas", "3", "--log-driver", "json-file", "--log-opt", "max-size=50m", args=("sh", "-c", "seq 1 200000; echo over; sleep 1000"))
    s.wait_running("big", 3)
    st.settles(lambda: s.logs("big", "--tail", "1").count("over"), 3, "all is written", 60)
    p = subprocess.Popen([st.DOCKERS[0], "service", "logs", "--raw", "big"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=s.docker_env())
    counts, n = {}, 0
    for line in p.stdout:
        counts[line] = counts.get(line, 0) + 1
        n += 1
    p.wait(LATE * st.SLOW)
    eq(n, 3 * 200001)
    eq(set(counts.values()), {3})
    s.remove("big")


def test_errors(s):
    s.create("e", "busybox:latest", args=("sleep", "1000"))
    s.wait_running("e")
    for path, status in (("/services/nosuch/logs?stdout=1", 404), ("/tasks/nosuch/logs?stdout=1", 404), ("/services/e/logs", 400),
                         ("/services/e/logs?stdout=1&tail=-1", 400), ("/services/e/logs?stdout=1&since=soon", 400)):
        got, body, _ = s.api.raw("GET", path)
        eq(got, status, path)
        eq("message" in json.loads(body), True)
    contains(s.docker_fails("service", "logs", "nosuch"), "no such task or service: nosuch")
    s.remove("e")


if __name__ == "__main__":
    st.main(setup, managers=3, workers=2)
