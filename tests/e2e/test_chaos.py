#!/usr/bin/python3
"""Daemons die at the worst moments; the declared state comes about anyway, and containers don't notice."""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import eq  # noqa: E402

ROUNDS = 3 if st.SANITIZED else 10


def setup(s):
    s.load("busybox")
    s.load("pause")


def pids(s, service):
    return {t["ID"]: s.container_pid(t) for t in s.running(service)}


def test_each_daemon_killed_at_rest(s):
    """No container is touched by the death of any daemon, agentd and meshd included."""
    s.create("rest", "pause:latest", "--replicas", "2")
    s.wait_running("rest", 2)
    before = pids(s, "rest")
    for d in s.m1.info["daemons"]:
        s.m1.kill(d)
        s.m1.wait_ready(30 * st.SLOW)
    s.wait_running("rest", 2)
    eq(pids(s, "rest"), before, "tasks and their processes")
    # and the swarm still works
    s.docker("service", "scale", "-d", "rest=3")
    s.wait_running("rest", 3)
    s.remove("rest")


def test_exit_while_agentd_is_down(s):
    """An exit that nobody watched is reported with its code."""
    s.create("unseen", "busybox:latest", "--restart-condition", "none", "--detach", "--mount", "type=tmpfs,dst=/flag",
             args=("sh", "-c", "while [ ! -e /flag/go ]; do sleep 0.02; done; exit 7"))
    t = s.wait_running("unseen")[0]
    s.m1.hold("agentd", 9)
    s.in_container(t, "touch", "/flag/go")
    pid = s.container_pid(t)
    st.wait_until(lambda: not s.m1.sh("sh", "-c", "[ -e /proc/%d ] && echo x || true" % pid), 20 * st.SLOW, "the container's end")
    s.m1.release("agentd")
    t = s.wait_state("unseen", "failed")
    eq(t["Status"]["ContainerStatus"]["ExitCode"], 7)
    s.remove("unseen")


def test_random_kills_while_scaling(s):
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print("# seed %d (SEED=%d replays the order)" % (seed, seed))
    rnd = random.Random(seed)
    s.create("keep", "pause:latest", "--replicas", "3")
    s.create("vary", "pause:latest", "--replicas", "2")
    s.wait_running("keep", 3)
    s.wait_running("vary", 2)
    kept = pids(s, "keep")
    want = 2
    for i in range(ROUNDS):
        want = rnd.randrange(0, 7)
        order = list(s.m1.info["daemons"])
        rnd.shuffle(order)
        at = rnd.randrange(len(order))
        for j, d in enumerate(order):
            s.m1.kill(d)
            if j == at:
                scale(s, "vary", want)
        s.m1.wait_ready(60 * st.SLOW)
        s.wait_running("vary", want, 60)
        s.wait_running("keep", 3, 60)
        eq(pids(s, "keep"), kept, "round %d: tasks that had no reason to change" % i)
    # nothing is left over: as many containers on the node as tasks are declared
    s.wait(lambda: count_containers(s) == want + 3 or None, "%d containers on the node" % (want + 3))
    s.remove("keep", "vary")
    s.wait(lambda: count_containers(s) == 0 or None, "no container on the node")
    s.wait(lambda: not task_cgroups(s) or None, "no control group of a task")


def task_cgroups(s):
    # find complains of folders that go while it looks: no failure here
    return s.m1.sh("find", "/sys/fs/cgroup", "-type", "d", "-path", "*/microswarm/*", "-name", "?" * 25, check=False).split()


def test_control_groups_of_a_killed_runtime(s):
    """crun killed between making a container's groups and writing that down leaves them behind; agentd finds them."""
    s.create("cg", "pause:latest")
    s.wait_running("cg")
    mine = task_cgroups(s)
    s.m1.hold("agentd", 9)
    s.m1.sh("mkdir", *[os.path.join(os.path.dirname(d), "z" * 25) for d in mine])
    s.m1.release("agentd")
    s.wait(lambda: sorted(task_cgroups(s)) == sorted(mine) or None, "the groups of no task are gone")
    s.remove("cg")
    s.wait(lambda: not task_cgroups(s) or None, "no group is left")


def scale(s, service, n):
    """docker service scale, tried again while the API is on its way up: its answer may be lost, its effect may not."""
    def once():
        doc = s.inspect(service)
        spec = doc["Spec"]
        if spec["Mode"]["Replicated"]["Replicas"] == n:
            return True
        spec["Mode"]["Replicated"]["Replicas"] = n
        try:
            s.api.post("/services/%s/update?version=%d" % (doc["ID"], doc["Version"]["Index"]), spec)
        except st.ApiError as e:
            if e.status not in (409, 500, 503, 504):
                raise
            return None
        return True
    s.wait(once, "scaling %s to %d" % (service, n), 60)


def count_containers(s):
    return int(s.m1.sh("sh", "-c", "pgrep -xc pause || true"))


if __name__ == "__main__":
    st.main(setup)
