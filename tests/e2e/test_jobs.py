#!/usr/bin/python3
"""Jobs of both kinds, with the docker client: exactly as many completions as asked for although a node loses its power, attempts that are
a bound, new runs, a job on each node, and jobs that run at times."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402

eq = st.eq
SETTINGS = {"dispatcherd": {"flap_max": "0"}}


def setup(s):
    s.load("busybox")


def row(s, name):
    """(mode, replicas) of `docker service ls`."""
    for line in s.docker("service", "ls", "--format", "{{.Name}}\t{{.Mode}}\t{{.Replicas}}").splitlines():
        if line.split("\t")[0] == name:
            return tuple(line.split("\t")[1:])
    return None


def run_of(service):
    return service["JobStatus"]["JobIteration"].get("Index", 0)


def of_run(s, name):
    now = run_of(s.inspect(name))
    return [t for t in s.tasks(name) if t["JobIteration"].get("Index", 0) == now]


def completed(s, name):
    return [t for t in of_run(s, name) if t["Status"]["State"] == "complete"]


def job(s, name, *options, args=("true",), detach=True, mode="replicated-job"):
    return s.docker("service", "create", *(["-d"] if detach else []), "--no-resolve-image", "--name", name, "--mode", mode, *options,
                    "--stop-grace-period", "50ms", "busybox:latest", *args)


def refused(s, status, say, method, path, body):
    try:
        s.api(method, path, body)
    except st.ApiError as e:
        eq(e.status, status, say)
        st.contains(e.message, say)
        return
    raise st.Failure("%s %s should be refused: %s" % (method, path, say))


def test_in_the_foreground(s):
    out = job(s, "fg", "--replicas", "7", "--max-concurrent", "2", detach=False)
    st.contains(out, "job complete")
    eq(len(completed(s, "fg")), 7, "complete")
    eq(sorted(t.get("Slot", 0) for t in completed(s, "fg")), list(range(7)), "slots from 0")
    eq({(t["DesiredState"], t["Status"]["Message"]) for t in completed(s, "fg")}, {("complete", "finished")})
    st.settles(lambda: row(s, "fg"), ("replicated job", "0/2 (7/7 completed)"), "service ls")
    doc = s.inspect("fg")
    eq((doc["Spec"]["Mode"], "UpdateStatus" in doc), ({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 7}}, False))
    eq(doc["JobStatus"]["JobIteration"], {}, "the first run")
    s.remove("fg")


def test_never_more_at_once_than_asked_for(s):
    """Each one looks how many there are; with cgroups and namespaces of their own they can't, so the store says it."""
    job(s, "few", "--replicas", "9", "--max-concurrent", "3", args=("sleep", "0.3"))
    most = [0]

    def done():
        tasks = s.tasks("few")
        most[0] = max(most[0], sum(t["DesiredState"] in ("ready", "complete") and t["Status"]["State"] not in ("complete", "failed") for t in tasks))
        return sum(t["Status"]["State"] == "complete" for t in tasks) == 9
    s.wait(done, "nine are complete")
    eq(most[0] <= 3, True, "%d at once" % most[0])
    s.remove("few")


def test_20_of_them_although_a_node_loses_its_power(s):
    p = subprocess.Popen([st.DOCKERS[0], "service", "create", "--no-resolve-image", "--name", "twenty", "--mode", "replicated-job", "--replicas",
                          "20", "--max-concurrent", "4", "--stop-grace-period", "50ms", "busybox:latest", "sleep", "2"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=s.docker_env())
    try:
        seen = set()

        def in_the_middle():
            """Tasks that have begun on w1 since the last look: they have nearly all of their time before them."""
            tasks = s.tasks("twenty")
            there = {t["ID"] for t in tasks if t["Status"]["State"] == "running" and s.node_of(t).name == "w1"}
            fresh = there - seen
            seen.update(there)
            return fresh if fresh and sum(t["Status"]["State"] == "complete" for t in tasks) >= 5 else None
        lost = s.wait(in_the_middle, "some are complete, and one begins on w1", 60)
        s.cluster.node("w1").power_off()
        out = p.communicate(timeout=120 * st.SLOW * st.crowd())[0]
        st.contains(out, "job complete")
        eq(p.returncode, 0, "docker service create")
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()
        w1 = s.cluster.node("w1")
        if not w1.pid:
            w1.start()
            w1.wait_ready(60 * st.SLOW)
    eq(sorted(t.get("Slot", 0) for t in completed(s, "twenty")), list(range(20)), "each slot is complete once")
    eq([t for t in completed(s, "twenty") if t["ID"] in lost], [], "what was lost with the node")
    s.cluster.wait_nodes(3, 60 * st.SLOW)
    st.settles(lambda: row(s, "twenty"), ("replicated job", "0/4 (20/20 completed)"), "service ls")
    # the node is back, and says what it knows: nothing changes
    st.settles(lambda: sorted({t["Status"]["State"] in ("complete", "failed", "shutdown", "orphaned", "rejected") for t in s.tasks("twenty")}), [True],
               "nothing of it runs")
    eq(len(completed(s, "twenty")), 20, "complete")
    s.remove("twenty")


def test_a_drained_node_is_left(s):
    """With Docker its jobs' tasks go on for ever."""
    job(s, "leave", "--replicas", "3", "--max-concurrent", "3", args=("sleep", "1000"))

    def where():
        return sorted(s.node_of(t).name for t in s.tasks("leave") if t["Status"]["State"] == "running" and t["DesiredState"] == "complete")
    s.wait(lambda: where() == ["m1", "w1", "w2"] or None, "one on each node")
    s.docker("node", "update", "--availability", "drain", "w2")
    try:
        s.wait(lambda: len(where()) == 3 and "w2" not in where() or None, "all on the other nodes")
    finally:
        s.docker("node", "update", "--availability", "active", "w2")
    s.remove("leave")


def test_attempts_are_a_bound(s):
    """The client in the foreground ends with the reason."""
    said = s.docker_fails("service", "create", "--no-resolve-image", "--name", "fails", "--mode", "replicated-job", "--replicas", "2",
                          "--restart-max-attempts", "2", "--restart-delay", "50ms", "busybox:latest", "sh", "-c", "exit 3",
                          say="service update paused: job paused: 0 of 2 tasks are complete, 2 will not be tried again: task ")
    st.contains(said, "it failed, and its restart attempts are used up")
    tasks = s.tasks("fails")
    eq(sorted((t.get("Slot", 0), t["Status"]["State"], t["Status"]["Err"]) for t in tasks),
       [(slot, "failed", "task: non-zero exit (3)") for slot in (0, 1) for _ in range(3)], "once, and two attempts more, for each slot")
    account = json.loads(s.cluster.leader().probe("orchestratord", "explain fails"))
    eq((account["mode"], account["job"]["complete"], account["job"]["given_up"], account["job"]["rest"]), ("replicated-job", 0, 2, True))
    # an update is a new run, and ends the pause
    s.docker("service", "update", "-d", "--args", "true", "fails")
    s.wait(lambda: len(completed(s, "fails")) == 2 or None, "the new run is complete")
    st.settles(lambda: "UpdateStatus" in s.inspect("fails"), False, "nothing is said of the last run")
    s.remove("fails")


def test_condition_none(s):
    job(s, "once", "--restart-condition", "none", args=("false",))
    s.wait(lambda: "its restart condition is none" in s.inspect("once").get("UpdateStatus", {}).get("Message", "") or None, "it is given up")
    eq([t["Status"]["State"] for t in s.tasks("once")], ["failed"])
    s.remove("once")


def test_an_update_runs_it_again(s):
    job(s, "again", "--replicas", "3", "--max-concurrent", "3")
    s.wait(lambda: len(completed(s, "again")) == 3 or None, "the first run is complete")
    first = s.inspect("again")
    out = s.docker("service", "update", "--force", "again")
    st.contains(out, "job complete")
    doc = s.inspect("again")
    eq((run_of(first), run_of(doc)), (0, 1), "runs")
    eq(doc["JobStatus"]["LastExecution"] > first["JobStatus"]["LastExecution"], True, "when it ran last")
    eq(len(completed(s, "again")), 3, "complete in the second run")
    st.contains(s.docker("service", "scale", "again=5"), "job complete")
    eq((run_of(s.inspect("again")), len(completed(s, "again"))), (2, 5))
    eq(row(s, "again"), ("replicated job", "0/3 (5/5 completed)"))
    # a run that still goes is ended by the next
    s.docker("service", "update", "-d", "--args", "sleep 1000", "again")
    s.wait(lambda: len([t for t in of_run(s, "again") if t["Status"]["State"] == "running"]) == 3 or None, "three run")
    st.contains(s.docker("service", "update", "--args", "true", "again"), "job complete")
    st.settles(lambda: [t["ID"] for t in s.tasks("again") if t["Status"]["State"] == "running"], [], "what the old run left")
    s.remove("again")


def test_on_each_node(s):
    out = job(s, "each", detach=False, mode="global-job")
    st.contains(out, "job complete")
    eq(sorted(s.node_of(t).name for t in completed(s, "each")), ["m1", "w1", "w2"])
    eq(row(s, "each")[0], "global job")
    doc = next(x for x in s.api.get("/services?status=true") if x["Spec"]["Name"] == "each")
    eq(doc["ServiceStatus"], {"RunningTasks": 0, "DesiredTasks": 0, "CompletedTasks": 3})
    s.docker_fails("service", "scale", "each=2", say="each: scale can only be used with replicated or replicated-job mode")
    s.remove("each")
    # a node that is paused has its turn when it is not any more
    s.docker("node", "update", "--availability", "pause", "w2")
    job(s, "later", mode="global-job")
    s.wait(lambda: sorted(s.node_of(t).name for t in completed(s, "later")) == ["m1", "w1"] or None, "complete where it may run")
    s.docker("node", "update", "--availability", "active", "w2")
    s.wait(lambda: sorted(s.node_of(t).name for t in completed(s, "later")) == ["m1", "w1", "w2"] or None, "complete on all three")
    s.remove("later")


def test_at_times(s):
    """Each minute, on the minute, not when they are created; killing orchestratord doesn't make them run twice. A run that is still going when
    the next is due has that one skipped, or ends."""
    every = "microswarm.schedule=* * * * *"
    job(s, "tick", "--label", every, "--replicas", "2")
    job(s, "long", "--label", every, args=("sleep", "1000"))
    job(s, "over", "--label", every, "--label", "microswarm.schedule.overlap=replace", args=("sleep", "1000"))
    eq([("LastExecution" in s.inspect(n)["JobStatus"], s.tasks(n)) for n in ("tick", "long", "over")], [(False, [])] * 3, "they wait for their time")
    account = json.loads(s.cluster.leader().probe("orchestratord", "explain tick"))
    st.contains(account["schedule"]["next"], ":00Z")
    first = s.wait(lambda: len(completed(s, "tick")) == 2 and s.inspect("tick") or None, "the first run", 90)
    s.cluster.leader().kill("orchestratord", 9)
    began = first["JobStatus"]["LastExecution"]
    eq((run_of(first), began[17:19] < "30"), (1, True), "the first run began " + began)
    s.wait(lambda: [t for t in of_run(s, "long") if t["Status"]["State"] == "running"], "one that takes its time")
    old = s.wait(lambda: [t["ID"] for t in of_run(s, "over") if t["Status"]["State"] == "running"], "another one")
    second = s.wait(lambda: run_of(s.inspect("tick")) > 1 and len(completed(s, "tick")) == 2 and s.inspect("tick") or None, "the second run", 90)
    eq(run_of(second), 2, "runs are counted one by one")
    s.wait(lambda: s.inspect("long")["JobStatus"].get("Skipped") or None, "the next is skipped")
    eq((run_of(s.inspect("long")), s.inspect("long")["JobStatus"]["Skipped"]), (1, 1), "the run that goes on, and the one that was skipped")
    s.wait(lambda: [t for t in of_run(s, "over") if t["Status"]["State"] == "running" and t["ID"] not in old], "the next run takes its place")
    st.settles(lambda: [t["ID"] for t in s.tasks("over") if t["ID"] in old and t["Status"]["State"] == "running"], [], "what runs of the old one")
    s.remove("tick", "long", "over")


def test_schedules_that_are_refused(s):
    def body(mode="GlobalJob", **labels):
        return {"Name": "bad", "Labels": {"microswarm.schedule" + ("." + k if k != "at" else ""): v for k, v in labels.items()},
                "Mode": {mode: {}}, "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}}}
    for spec, say in ((body(at="0 0 30 2 *"), 'Labels["microswarm.schedule"]: there is no such day in any year'),
                      (body(at="61 * * * *"), 'Labels["microswarm.schedule"]: "61" is no minute'),
                      (body(at="CRON_TZ=Asia/Tokyo @daily"), 'time zone "Asia/Tokyo": only UTC is supported'),
                      (body(at="@hourly", overlap="wait"), 'Labels["microswarm.schedule.overlap"]: must be skip or replace'),
                      (body("Replicated", at="@hourly"), 'Labels["microswarm.schedule"]: only jobs have a schedule')):
        refused(s, 400, say, "POST", "/services/create", spec)
    refused(s, 400, "Jobs may not have an update config", "POST", "/services/create", dict(body(), UpdateConfig={"Parallelism": 1}))
    s.docker_fails("service", "create", "-d", "--mode", "replicated-job", "--update-delay", "1s", "busybox:latest",
                   say="update and rollback configuration is not supported for jobs")


def test_the_mode_stays(s):
    job(s, "stays")
    doc = s.inspect("stays")
    refused(s, 501, "service mode change is not allowed", "POST", "/services/%s/update?version=%d" % (doc["ID"], doc["Version"]["Index"]),
            dict(doc["Spec"], Mode={"Global": {}}))
    s.remove("stays")


def test_swarmctl_does_the_same(s):
    for mode, options, want in (("replicated-job", ["--replicas", "3", "--max-concurrent", "2"], "0/2 (3/3 completed)"), ("global-job", [], "0/0 (3/3 completed)")):
        out = s.swarmctl("service", "create", "--no-resolve-image", "--name", "ctl-" + mode, "--mode", mode, *options, "busybox:latest", "true")
        st.contains(out, "job complete")
        eq(row(s, "ctl-" + mode), (mode.replace("-", " "), want))
    ps = ("service", "ps", "--format", "{{.ID}} {{.Name}} {{.Image}} {{.Node}} {{.DesiredState}} {{.Error}}")
    for what in (("service", "ls"), (*ps, "ctl-replicated-job"), (*ps, "ctl-global-job")):
        eq(s.swarmctl(*what), s.docker(*what), " ".join(what))
    st.contains(s.swarmctl("service", "update", "--force", "ctl-global-job"), "job complete")
    st.contains(s.swarmctl("service", "scale", "ctl-replicated-job=4"), "job complete")
    eq(len(completed(s, "ctl-replicated-job")), 4, "complete")
    s.remove("ctl-replicated-job", "ctl-global-job")


if __name__ == "__main__":
    st.main(setup, managers=1, workers=2, settings=SETTINGS)
