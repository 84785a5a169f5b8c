#!/usr/bin/python3
"""Health checks: a task is running once it is healthy, has failed when it is not, and a bad check harms nobody."""

import contextlib
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

FAST = ("--health-interval", "100ms", "--restart-delay", "100ms")
ASIDE = "/sys/fs/cgroup/pids/microswarm/%s/aside/cgroup.procs"


def setup(s):
    s.load("busybox")
    s.load("echo")
    s.load("busybox", "-t", "sick:latest", "--cmd", "sleep 1000", "--health",
           json.dumps({"Test": ["CMD-SHELL", "echo out of order; exit 7"], "Interval": 100000000, "Retries": 2}))
    s.load("busybox", "-t", "well:latest", "--cmd", "sleep 1000", "--env", "COLOUR=green", "--user", "1000", "--workdir", "/home", "--health",
           json.dumps({"Test": ["CMD", "/bin/sh", "-c", "echo $COLOUR; id -u; pwd; grep Seccomp: /proc/self/status"], "Interval": 100000000}))


def starting(s, service):
    """Its task whose container is there, while it is not known to be well."""
    return s.wait(lambda: next((t for t in s.tasks(service) if t["Status"]["State"] == "starting" and
                                t["Status"].get("ContainerStatus", {}).get("PID")), None), service + " starts")


def container(s, task):
    return json.loads(s.docker("inspect", task["Status"]["ContainerStatus"]["ContainerID"], on=s.node_of(task)))[0]


def health(s, task):
    return container(s, task)["State"]["Health"]


def failed(s, service):
    return s.wait_state(service, "failed")


@contextlib.contextmanager
def gate(s, service, *options, args=("sleep", "1000")):
    """A service that is well as long as there is /tmp/well in its container."""
    s.create(service, "busybox:latest", "--health-cmd", "cat /tmp/well", "--health-retries", "1000000", *FAST, *options, args=args)
    yield starting(s, service)
    s.remove(service)


def test_running_when_healthy(s):
    with gate(s, "g") as t:
        s.wait(lambda: health(s, t)["FailingStreak"] >= 2 or None, "checks are made")
        h = health(s, t)
        eq((h["Status"], h["Log"][0]["ExitCode"]), ("starting", 1))
        contains(h["Log"][0]["Output"], "No such file")
        eq([x["Status"]["State"] for x in s.tasks("g")], ["starting"])
        contains(s.docker("ps", "--format", "{{.Status}}"), "(health: starting)")
        s.in_container(t, "/bin/sh", "-c", "echo fine > /tmp/well")
        t = s.wait_running("g")[0]
        h = health(s, t)
        eq((h["Status"], h["FailingStreak"], h["Log"][-1]["Output"]), ("healthy", 0, "fine\n"))
        contains(s.docker("ps", "--format", "{{.Status}}"), "(healthy)")
        eq(len(s.docker("ps", "-q", "--filter", "health=healthy").splitlines()), 1)
        eq(s.docker("ps", "-q", "--filter", "health=starting"), "")
        eq(len(h["Log"]) <= 5, True)


def test_image_and_its_surroundings(s):
    """The image's own check, as the container's user, in its folder and environment, behind its system call filter."""
    s.create("well", "well:latest", "--env", "COLOUR=blue")
    t = s.wait_running("well")[0]
    eq(health(s, t)["Log"][-1]["Output"], "blue\n1000\n/home\nSeccomp:\t2\n")
    eq(container(s, t)["Config"]["Healthcheck"]["Test"][0], "CMD")
    s.remove("well")


def test_never_healthy(s):
    s.create("sick", "sick:latest", "--restart-condition", "none")
    t = failed(s, "sick")
    contains(t["Status"]["Err"], "dockerexec: unhealthy container")
    contains(t["Status"]["Err"], "exit code 7: out of order")
    contains(s.docker("service", "ps", "--no-trunc", "sick"), "unhealthy container")
    s.remove("sick")


def test_not_any_more(s):
    s.create("turns", "busybox:latest", "--health-cmd", "cat /tmp/well", "--health-retries", "3", "--health-start-period", "1h",
             "--health-start-interval", "50ms", *FAST, args=("sleep", "1000"))
    t = starting(s, "turns")
    s.in_container(t, "/bin/touch", "/tmp/well")
    t = s.wait_running("turns")[0]
    s.in_container(t, "/bin/rm", "/tmp/well")
    gone = s.wait(lambda: next((x for x in s.tasks("turns") if x["ID"] == t["ID"] and x["Status"]["State"] == "failed"), None), "it has failed")
    contains(gone["Status"]["Err"], "task: non-zero exit (137): dockerexec: unhealthy container")
    s.wait(lambda: len(s.tasks("turns")) > 1 or None, "it is replaced")
    s.remove("turns")


def test_none_overrides_the_image(s):
    s.create("no", "sick:latest", "--no-healthcheck")
    t = s.wait_running("no")[0]
    eq("Health" in container(s, t)["State"], False)
    s.remove("no")


def test_service_overrides_the_image(s):
    s.create("over", "sick:latest", "--health-cmd", "exit 0")
    h = health(s, s.wait_running("over")[0])
    eq(h["Log"][-1]["ExitCode"], 0)
    s.remove("over")


def procs(s, task):
    return s.m1.sh("cat", ASIDE % task["ID"], check=False).split()


def test_one_that_hangs(s):
    """Ended when its time is up, with all that it has started; others are checked meanwhile."""
    s.create("hangs", "busybox:latest", "--health-cmd", "sleep 1000 & echo waiting; sleep 2000", "--health-timeout", "200ms",
             "--health-retries", "2", "--restart-condition", "none", *FAST, args=("sleep", "1000"))
    with gate(s, "fine") as t:
        s.in_container(t, "/bin/touch", "/tmp/well")
        s.wait_running("fine")
        t = failed(s, "hangs")
        contains(t["Status"]["Err"], "Health check exceeded timeout (0.2s): waiting")
        eq(procs(s, t), [])
    s.remove("hangs")


def checks(s):
    return int(re.search(r"^microswarm_agentd_health_checks_total (\d+)$", s.m1.probe("agentd", "metrics"), re.M).group(1))


def test_one_that_forks(s):
    """A check that leaves processes behind, and one that does nothing but fork."""
    s.create("forks", "busybox:latest", "--health-cmd", "for i in 1 2 3 4 5; do sleep 999 & done", *FAST, args=("sleep", "1000"))
    t = s.wait_running("forks")[0]
    before = checks(s)
    s.wait(lambda: checks(s) >= before + 10 or None, "ten checks")
    bomb = "b() { b | b & }; b; sleep 1000"
    s.create("bomb", "busybox:latest", "--health-cmd", bomb, "--health-timeout", "300ms", "--health-retries", "1",
             "--restart-condition", "none", *FAST, args=("sleep", "1000"))
    b = failed(s, "bomb")
    contains(b["Status"]["Err"], "Health check exceeded timeout")
    s.remove("bomb")
    inside = [x for x in s.in_container(t, "/bin/ps", "-o", "args").splitlines() if "999" in x]
    eq(len(inside) <= 15, True, "left behind: %r" % inside)  # those of a check under way, and zombies
    s.remove("forks")


def test_one_that_talks(s):
    """Endless output costs nothing but what is kept of it."""
    s.create("talks", "busybox:latest", "--health-cmd", "yes", "--health-timeout", "500ms", "--health-retries", "1000", *FAST,
             args=("sleep", "1000"))
    t = starting(s, "talks")
    pid = s.m1.host_pid("agentd")

    def ticks():
        with open("/proc/%d/stat" % pid, encoding="ascii") as f:
            return sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13])
    before = ticks()
    s.wait(lambda: health(s, t)["FailingStreak"] >= 3 or None, "three checks")
    out = health(s, t)["Log"][-1]["Output"]
    eq(4000 < len(out) < 4200, True, "kept: %d" % len(out))
    if not st.SANITIZED:
        eq(ticks() - before < 100, True, "agentd worked %d ticks" % (ticks() - before))
    s.remove("talks")


def test_missing_program(s):
    s.api.post("/services/create", {"Name": "missing", "TaskTemplate": {
        "ContainerSpec": {"Image": "busybox:latest", "Args": ["sleep", "1000"], "StopGracePeriod": 50000000,
                          "Healthcheck": {"Test": ["CMD", "/no/such/thing"], "Interval": 100000000, "Retries": 1}},
        "RestartPolicy": {"Condition": "none"}}, "Mode": {"Replicated": {"Replicas": 1}}})
    contains(failed(s, "missing")["Status"]["Err"], "unhealthy container")
    s.remove("missing")


def test_restart_of_agentd(s):
    """What ran runs on, what was starting goes on starting, and both are checked again."""
    with gate(s, "r1") as a, gate(s, "r2") as b:
        s.in_container(a, "/bin/touch", "/tmp/well")
        a = s.wait_running("r1")[0]
        s.m1.kill("agentd")
        s.m1.wait_ready()
        st.settles(lambda: len(health(s, a)["Log"]) > 0, True, "r1 is checked")
        eq(health(s, a)["Status"], "healthy")
        eq([t["Status"]["State"] for t in s.tasks("r1") + s.tasks("r2")], ["running", "starting"])
        s.in_container(b, "/bin/touch", "/tmp/well")
        eq(s.wait_running("r2")[0]["ID"], b["ID"])
        eq(s.running("r1")[0]["ID"], a["ID"])


def test_events(s):
    p = subprocess.Popen([st.DOCKERS[0], "events", "--filter", "type=container", "--filter", "event=health_status", "--format", "{{json .}}"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=s.docker_env())
    try:
        st.wait_until(lambda: "events" in s.m1.probe("agentd", "metrics") and listeners(s), 20 * st.SLOW, "docker events listens")
        with gate(s, "e") as t:
            s.in_container(t, "/bin/touch", "/tmp/well")
            e = json.loads(p.stdout.readline())
            eq((e["Type"], e["Action"]), ("container", "health_status: healthy"))
            eq(e["Actor"]["ID"], t["Status"]["ContainerStatus"]["ContainerID"])
            eq(e["Actor"]["Attributes"]["com.docker.swarm.service.name"], "e")
    finally:
        p.kill()
        p.wait()


def listeners(s):
    m = re.search(r"^microswarm_agentd_events_waiting (\d+)$", s.m1.probe("agentd", "metrics"), re.M)
    return int(m.group(1)) > 0


def test_mesh_waits(s):
    """Nobody is sent to a task that is not well."""
    s.create("web", "echo:latest", "--replicas", "2", "-p", "8080:8080", "--health-cmd", "none", *FAST)  # has no shell: never well
    starting(s, "web")
    curl = s.cluster.outside("curl", "-sS", "-o", "/dev/null", "--max-time", "1", "http://%s:8080/" % s.m1.addr)
    s.wait(lambda: len([t for t in s.tasks("web") if t["Status"]["State"] == "failed"]) >= 2 or None, "both have failed")
    eq(subprocess.run(curl, capture_output=True, check=False).returncode in (7, 28, 56), True)
    s.docker("service", "update", "-d", "--no-resolve-image", "--no-healthcheck", "web")
    s.wait_running("web", 2)
    s.wait(lambda: subprocess.run(curl, capture_output=True, check=False).returncode == 0 or None, "now somebody answers")
    s.remove("web")


def test_update_waits(s):
    """An update goes on to the next task when the new one is well."""
    s.create("up", "busybox:latest", "--replicas", "2", "--update-monitor", "100ms", *FAST, args=("sleep", "1000"))
    s.wait_running("up", 2)
    s.docker("service", "update", "-d", "--no-resolve-image", "--health-cmd", "cat /tmp/well", "--health-retries", "100000", "--health-interval",
             "100ms", "up")
    first = starting(s, "up")
    s.wait(lambda: health(s, first)["FailingStreak"] > 2 or None, "it is checked")
    eq(len(s.running("up")), 1, "the other one runs on")
    s.in_container(first, "/bin/touch", "/tmp/well")
    s.wait(lambda: any(t["ID"] == first["ID"] for t in s.running("up")) or None, "the first one runs")
    second = starting(s, "up")
    s.in_container(second, "/bin/touch", "/tmp/well")
    s.wait_running("up", 2)
    s.wait(lambda: s.inspect("up").get("UpdateStatus", {}).get("State") == "completed" or None, "the update is complete")
    s.remove("up")


def test_update_to_a_sick_image(s):
    """New tasks that never get well are failures of the update: it is taken back, and what was well runs."""
    s.create("back", "well:latest", "--replicas", "2", "--update-failure-action", "rollback", "--update-monitor", "2s", "--rollback-monitor", "100ms",
             "--restart-delay", "100ms")
    s.wait_running("back", 2)
    s.docker("service", "update", "-d", "--no-resolve-image", "--image", "sick:latest", "back")
    s.wait(lambda: s.inspect("back").get("UpdateStatus", {}).get("State") == "rollback_completed" or None, "it is taken back", 60)
    tasks = s.wait_running("back", 2)
    eq({t["Spec"]["ContainerSpec"]["Image"] for t in tasks}, {"well:latest"})
    contains(next(t for t in s.tasks("back") if t["Status"]["State"] == "failed")["Status"]["Err"], "unhealthy container")
    s.remove("back")


def test_exits_at_once(s):
    """Restarted as asked a few times, then ever later, and service ps says so; other services are not disturbed."""
    s.create("exits", "busybox:latest", "--restart-delay", "0s", args=("sh", "-c", "echo cannot; exit 3"))
    waits = s.wait(lambda: next((t for t in s.tasks("exits") if "times in a row" in t["Status"].get("Err", "")), None), "it is held back", 60)
    eq((waits["DesiredState"], waits["Status"]["State"] in ("new", "pending", "assigned", "accepted", "preparing", "ready")), ("ready", True))
    contains(failed(s, "exits")["Status"]["Err"], "task: non-zero exit (3)")
    s.wait(lambda: "the next one starts at" in s.docker("service", "ps", "--no-trunc", "exits") or None, "service ps says so", 60)
    s.create("calm", "busybox:latest", args=("sleep", "1000"))
    s.wait_running("calm")
    s.remove("exits", "calm")


def test_bad_values(s):
    for option, value, say in (("--health-interval", "1us", "Interval in HealthConfig cannot be less than 1ms"),
                               ("--health-retries", "-1", "cannot be negative")):
        s.docker_fails("service", "create", "-d", "--no-resolve-image", "--health-cmd", "true", option, value, "busybox:latest", say=say)


if __name__ == "__main__":
    st.main(setup)
