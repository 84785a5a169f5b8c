#!/usr/bin/python3
"""Services that scale themselves, by what their containers use or say; and those that lie about it."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

P = "microswarm.autoscale."
SHARED = "/run/scale-test"  # the same folder in all containers
MOUNT = ("--mount", "type=bind,src=%s,dst=/shared" % SHARED)
WORK = ("/bin/sh", "-c", "while :; do if [ -e /shared/idle ]; then sleep 1; fi; done")
SERVE = ("httpd", "-f", "-p", "9100", "-h", "/shared")
LATE = 90


def setup(s):
    s.load("busybox")
    for n in s.cluster.nodes():
        n.sh("mkdir", "-p", SHARED)


def say(s, name, text):
    """Into a file that all containers see, in one step."""
    for n in s.cluster.nodes():
        n.sh("sh", "-c", "cat > %s/new && mv %s/new %s/%s" % (SHARED, SHARED, SHARED, name), input=text)


def unsay(s, name):
    for n in s.cluster.nodes():
        n.sh("rm", "-f", "%s/%s" % (SHARED, name))


def labels(**kw):
    return [x for k, v in kw.items() for x in ("--label", "%s%s=%s" % (P, k, v))]


def scale(s, name):
    return s.inspect(name).get("Autoscale", {})


def rounds(s):
    return int(re.search(r"^microswarm_agentd_usage_rounds_total (\d+)$", s.m1.probe("agentd", "metrics"), re.M).group(1))


def two_rounds(s):
    """Until all has been measured again, and told."""
    before = rounds(s)
    s.wait(lambda: rounds(s) >= before + 2 or None, "two rounds", 40)


def test_by_cpu(s):
    unsay(s, "idle")
    s.create("cpu", "busybox:latest", "--limit-cpu", "0.1", *labels(min=1, max=3, cpu=10, cooldown="1s"), *MOUNT, args=WORK)
    s.wait_running("cpu", 3, LATE)
    a = scale(s, "cpu")
    eq(a["Replicas"], 3)
    contains(a["Reason"], "cpu: ")
    contains(s.docker("service", "ls", "--filter", "name=cpu", "--format", "{{.Replicas}}"), "3/3")
    eq(s.inspect("cpu")["Spec"]["Mode"]["Replicated"]["Replicas"], 1, "what was declared")
    say(s, "idle", "")
    s.wait_running("cpu", 1, LATE)
    s.wait(lambda: scale(s, "cpu")["Replicas"] == 1 or None, "one is wanted")
    s.remove("cpu")


def web(s, name, *options, **kw):
    s.create(name, "busybox:latest", *labels(**dict({"min": 1, "max": 4, "metric": "http://:9100/metrics queue_length", "target": 10,
                                                      "cooldown": "1s"}, **kw)), *MOUNT, *options, args=SERVE)


def test_by_metric(s):
    say(s, "metrics", "# TYPE queue_length gauge\nqueue_length{q=\"a\"} 20\nqueue_length{q=\"b\"} 20\n")
    web(s, "m")
    s.wait_running("m", 4, LATE)
    contains(scale(s, "m")["Reason"], "metric: 40 a task, target 10")
    say(s, "metrics", "queue_length 0\n")
    s.wait_running("m", 1, LATE)
    s.remove("m")


def test_daemons_that_die(s):
    """All that was decided is stored, and what is measured is measured again."""
    say(s, "metrics", "queue_length 100\n")
    web(s, "k")
    s.wait_running("k", 4, LATE)
    ids = {t["ID"] for t in s.running("k")}
    say(s, "metrics", "queue_length 10\n")
    for d in ("orchestratord", "dispatcherd", "agentd"):
        s.m1.kill(d)
    s.m1.wait_ready()
    two_rounds(s)
    eq({t["ID"] for t in s.running("k")}, ids)
    say(s, "metrics", "queue_length 0\n")
    s.wait_running("k", 1, LATE)
    s.remove("k")


def test_metrics_that_lie(s):
    say(s, "metrics", "queue_length 10\n")
    web(s, "lies", "--replicas", "2")
    s.wait_running("lies", 2)
    for text, why in (("queue_length NaN\n", "not a number"), ("queue_length +Inf\n", "not a number"), ("queue_length -1e9\n", "not a number"),
                      ("other 5\n", "not among the metrics"), ("queue_length many\n", "not among the metrics"), ("\0\1\2", "not among"),
                      ("queue_length 1\n" * 100000, "larger than 1 MiB"), (None, "HTTP status 404")):
        if text is None:
            unsay(s, "metrics")
        else:
            say(s, "metrics", text)
        s.wait(lambda w=why: w in scale(s, "lies").get("Reason", "") or None, "it is said: " + why, 40)
        contains(scale(s, "lies")["Reason"], "no decision")
        eq(len(s.running("lies")), 2)
    say(s, "metrics", "queue_length 10\n")
    s.wait(lambda: scale(s, "lies").get("Reason", "") == "" or None, "it can be read again", 40)
    say(s, "metrics", "queue_length 1e300\n")  # as much as there may be, and no more
    s.wait_running("lies", 4, LATE)
    two_rounds(s)
    eq(len(s.running("lies")), 4)
    s.remove("lies")


def test_one_that_hangs(s):
    """A container that accepts and says nothing holds up nobody."""
    say(s, "metrics", "queue_length 40\n")
    s.create("deaf", "busybox:latest", *labels(max=4, metric="http://:9100/metrics queue_length", target=10), args=("nc", "-ll", "-p", "9100", "-e", "sleep", "1000"))
    s.wait_running("deaf")
    web(s, "well")
    s.wait_running("well", 4, LATE)
    s.wait(lambda: "no answer within 1 s" in scale(s, "deaf").get("Reason", "") or None, "it is said", 40)
    eq(len(s.running("deaf")), 1)
    s.remove("deaf", "well")


def test_labels_of_a_running_service(s):
    """They come and go without a task being replaced."""
    say(s, "metrics", "queue_length 40\n")
    s.create("later", "busybox:latest", *MOUNT, args=SERVE)
    first = s.wait_running("later", 1)[0]["ID"]
    add = [x if x != "--label" else "--label-add" for x in labels(max=3, metric="http://:9100/metrics queue_length", target=10, cooldown="1s")]
    s.docker("service", "update", "-d", "--no-resolve-image", *add, "later")
    s.wait_running("later", 3, LATE)
    eq(first in [t["ID"] for t in s.running("later")], True)
    names = [a.split("=")[0] for a in add if a != "--label-add"]
    s.docker("service", "update", "-d", "--no-resolve-image", *[x for n in names for x in ("--label-rm", n)], "later")
    s.wait_running("later", 1, 40)
    s.wait(lambda: not scale(s, "later") or None, "there is no decision any more")
    s.remove("later")


def test_minimum(s):
    """Fewer than the minimum were declared."""
    s.create("least", "busybox:latest", *labels(min=2, max=3, cpu=50), args=("sleep", "1000"))
    s.wait_running("least", 2)
    contains(s.docker("service", "ls", "--filter", "name=least", "--format", "{{.Replicas}}"), "2/2")
    s.remove("least")


def test_bad_labels(s):
    for bad, where in (({"cpu": 50}, "max"), ({"max": 0, "cpu": 50}, "max"), ({"max": 5}, "cpu"), ({"max": 5, "cpu": "lots"}, "cpu"),
                       ({"max": 5, "memory": 50}, "memory"), ({"max": 2, "min": 3, "cpu": 50}, "max"), ({"max": 5, "cpu": 50, "cooldown": "-1s"}, "cooldown"),
                       ({"max": 5, "metric": "http://elsewhere:80/ x", "target": 1}, "metric"), ({"max": 5, "metric": "http://:80/m x"}, "target"),
                       ({"max": 5, "metric": "http://:80/m x", "target": "nan"}, "target"), ({"max": 5, "cpu": 50, "colour": "red"}, "*")):
        spec = {"Name": "bad", "Labels": {P + k: str(v) for k, v in bad.items()},
                "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}}, "Mode": {"Replicated": {"Replicas": 1}}}
        try:
            s.api.post("/services/create", spec)
        except st.ApiError as e:
            eq(e.status, 400)
            contains(e.message, 'Labels["%s%s"]' % (P, where))
        else:
            raise st.Failure("taken: %r" % bad)
    s.docker_fails("service", "create", "-d", "--no-resolve-image", "--mode", "global", *labels(max=5, cpu=50), "busybox:latest",
                   say="only replicated services")


if __name__ == "__main__":
    st.main(setup, settings={d: {"usage_period": "500ms"} for d in ("agentd", "dispatcherd")})
