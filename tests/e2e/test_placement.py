#!/usr/bin/python3
"""Which node runs a task: constraints, preferences, limits, what a node has; what is moved, and what makes room."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402

eq = st.eq
SETTINGS = {"dispatcherd": {"flap_max": "0"}}
ZONES = {"m1": "a", "w1": "a", "w2": "b"}


def setup(s):
    s.load("pause")
    for node, zone in ZONES.items():
        s.docker("node", "update", "--label-add", "zone=" + zone, node)


def on(s, service):
    return sorted(s.node_of(t).name for t in s.running(service))


def wait_on(s, service, *names):
    s.wait(lambda: on(s, service) == sorted(names) or None, "%s: on %s" % (service, ", ".join(names) or "no node"))


def create(s, name, *options):
    return s.create(name, "pause:latest", *options)


def reasons(s, service):
    """What `service ps` says of the tasks that wait."""
    lines = s.docker("service", "ps", "--no-trunc", "--format", "{{.CurrentState}}|{{.Error}}", service).splitlines()
    return sorted({l.partition("|")[2].strip('"') for l in lines if l.startswith("Pending")})


def wait_reason(s, service, *texts):
    s.wait(lambda: reasons(s, service) == sorted(texts) or None, "%s: %s" % (service, "; ".join(texts)))


def describe(s, name, **settings):
    """Other settings of a node's agentd, which are part of its description: it starts again with them."""
    n = s.cluster.node(name)
    path = n.path("etc", "microswarm", "agentd.conf")
    with open(path, encoding="utf-8") as f:
        old = f.read()
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(l + "\n" for l in old.splitlines() if l.split(" ")[0] not in settings))
        f.writelines("%s = %s\n" % kv for kv in settings.items() if kv[1])
    n.kill("agentd")
    n.wait_ready(60 * st.SLOW)


def description(s, name):
    return next(n["Description"] for n in s.api.get("/nodes") if n["Description"]["Hostname"] == name)


def explain(s, task):
    return json.loads(s.cluster.leader().probe("schedulerd", "explain " + task["ID"]))


def test_constraints(s):
    create(s, "west", "--replicas", "2", "--constraint", "node.labels.zone==b")
    wait_on(s, "west", "w2", "w2")
    create(s, "both", "--replicas", "2", "--constraint", "node.labels.zone!=b", "--constraint", "node.role==worker")
    wait_on(s, "both", "w1", "w1")
    create(s, "here", "--constraint", "node.ip==%s" % s.cluster.node("w1").addr)
    wait_on(s, "here", "w1")
    create(s, "none", "--constraint", "node.labels.zone==nowhere")
    wait_reason(s, "none", "no suitable node (scheduling constraints not satisfied on 3 nodes)")
    create(s, "never", "--constraint", "node.labels.zone==a", "--constraint", "node.labels.zone!=a")
    wait_reason(s, "never", "no suitable node (scheduling constraints not satisfied on 3 nodes)")
    s.docker("node", "update", "--label-add", "zone=nowhere", "m1")  # lets one in
    wait_on(s, "none", "m1")
    s.docker("node", "update", "--label-add", "zone=a", "m1")
    s.remove("west", "both", "here", "none", "never")


def test_preferences(s):
    create(s, "zones", "--replicas", "4", "--placement-pref", "spread=node.labels.zone")
    s.wait_running("zones", 4)
    eq(on(s, "zones"), ["m1", "w1", "w2", "w2"])
    s.remove("zones")


def test_at_most_so_many(s):
    create(s, "max", "--replicas", "5", "--replicas-max-per-node", "1")
    wait_on(s, "max", "m1", "w1", "w2")
    wait_reason(s, "max", "no suitable node (max replicas per node limit exceed)")
    create(s, "port", "--replicas", "4", "--publish", "mode=host,published=8099,target=80")
    wait_on(s, "port", "m1", "w1", "w2")
    wait_reason(s, "port", "no suitable node (host-mode port already in use on 3 nodes)")
    s.remove("max", "port")


def test_what_a_node_lacks(s):
    create(s, "driver", "--mount", "type=volume,source=v,target=/v,volume-driver=rexray")
    wait_reason(s, "driver", "no suitable node (missing plugin on 3 nodes)")
    create(s, "large", "--reserve-cpu", "1000")
    wait_reason(s, "large", "no suitable node (insufficient resources on 3 nodes)")
    s.docker("node", "update", "--availability", "drain", "w2")
    wait_reason(s, "large", "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)")
    account = explain(s, s.tasks("large")[0])
    eq((account["state"], account["verdicts"], account["needs"]["nano_cpus"]), ("pending", {"fits": 0, "resource": 2, "ready": 1}, 1000 * 10**9))
    eq({n["hostname"]: n["verdict"] for n in account["nodes"]}, {"m1": "resource", "w1": "resource", "w2": "ready"})
    s.docker("node", "update", "--availability", "active", "w2")
    s.remove("driver", "large")


def environment(s, task):
    text = s.node_of(task).sh("cat", "/proc/%d/environ" % s.container_pid(task))
    return dict(l.split("=", 1) for l in text.split("\0") if "=" in l)


def test_generic_resources_and_engine_labels(s):
    describe(s, "w1", node_generic_resources="gpu=uuid1 gpu=uuid2 ssd=3", labels="disk=nvme rack=7")
    s.wait(lambda: description(s, "w1")["Engine"].get("Labels") == {"disk": "nvme", "rack": "7"} or None, "the description has the labels")
    eq(description(s, "w1")["Resources"]["GenericResources"], [
        {"NamedResourceSpec": {"Kind": "gpu", "Value": "uuid1"}}, {"NamedResourceSpec": {"Kind": "gpu", "Value": "uuid2"}},
        {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}}])
    create(s, "gpu", "--replicas", "3", "--generic-resource", "gpu=1", "--generic-resource", "ssd=1", "--restart-delay", "50ms")
    wait_on(s, "gpu", "w1", "w1")
    wait_reason(s, "gpu", "no suitable node (insufficient resources on 3 nodes)")
    envs = [environment(s, t) for t in s.running("gpu")]
    eq(sorted(e["DOCKER_RESOURCE_GPU"] for e in envs), ["uuid1", "uuid2"])
    eq([e["DOCKER_RESOURCE_SSD"] for e in envs], ["1", "1"])
    # a schedulerd that starts anew knows who has which
    s.cluster.leader().kill("schedulerd")
    freed = s.running("gpu")[0]
    value = environment(s, freed)["DOCKER_RESOURCE_GPU"]
    s.docker("service", "update", "-d", "--no-resolve-image", "--replicas", "2", "gpu")
    s.wait(lambda: reasons(s, "gpu") == [] or None, "nobody waits")
    others = {t["ID"] for t in s.running("gpu")} - {freed["ID"]}
    s.kill_container(freed)
    s.wait(lambda: [t for t in s.running("gpu") if t["ID"] not in others | {freed["ID"]}] and len(s.running("gpu")) == 2 or None, "another one")
    new = next(t for t in s.running("gpu") if t["ID"] not in others)
    eq(environment(s, new)["DOCKER_RESOURCE_GPU"], value)
    create(s, "label", "--constraint", "engine.labels.disk==nvme")
    wait_on(s, "label", "w1")
    s.remove("gpu", "label")
    describe(s, "w1", node_generic_resources="", labels="")
    s.wait(lambda: not description(s, "w1")["Engine"].get("Labels") or None, "no labels any more")


def test_bad_settings_are_refused(s):
    prog, folder = os.path.join(s.cluster.doc["bin"], "agentd"), os.path.join(s.tmp, "bad")
    os.makedirs(folder)
    for setting, word in (("node_generic_resources=gpu", "gpu"), ("node_generic_resources=gpu=1 gpu=a", "mixed"), ("labels=x", "x")):
        n = s.cluster.node("w2")
        p = n.argv(prog, "-r", folder, "-s", folder, "-c", "/dev/null", "-o", setting)
        said = st.run("sh", "-c", '"$@" 2>&1; test $? -ne 0', "sh", *p)
        st.contains(said, word)


def test_a_label_changes(s):
    create(s, "moves", "--replicas", "2", "--constraint", "node.labels.zone==a", "--restart-delay", "50ms")
    s.wait_running("moves", 2)
    eq(on(s, "moves"), ["m1", "w1"])
    s.docker("node", "update", "--label-add", "zone=b", "w1")
    wait_on(s, "moves", "m1", "m1")
    old = [t for t in s.tasks("moves") if t["DesiredState"] == "shutdown"]
    eq([t["Status"]["Err"] for t in old], ["assigned node no longer meets constraints"])
    s.docker("node", "update", "--label-add", "zone=a", "w1")
    s.remove("moves")


def spread_of(s, service):
    return sorted(on(s, service).count(n) for n in ZONES)


def test_rebalance_after_a_node_came(s):
    s.docker("node", "update", "--availability", "drain", "w2")
    create(s, "level", "--replicas", "6", "--label", "microswarm.rebalance=1")
    create(s, "stays", "--replicas", "6")
    s.wait_running("level", 6)
    s.wait_running("stays", 6)
    stays = {t["ID"] for t in s.running("stays")}
    s.docker("node", "update", "--availability", "active", "w2")
    s.wait(lambda: spread_of(s, "level") == [2, 2, 2] or None, "two on each node")
    eq({t["ID"] for t in s.running("stays")}, stays, "tasks without the label")
    eq(spread_of(s, "stays"), [0, 3, 3])
    # the label may come later, and a budget may be a percentage
    s.docker("service", "update", "-d", "--no-resolve-image", "--label-add", "microswarm.rebalance=50%", "stays")
    s.wait(lambda: spread_of(s, "stays") == [2, 2, 2] or None, "two on each node")
    s.remove("level", "stays")


def test_rebalance_after_a_node_joined(s):
    nid = next(n["ID"] for n in s.api.get("/nodes") if n["Description"]["Hostname"] == "w2")
    s.docker("swarm", "leave", on="w2")
    s.wait(lambda: s.api.get("/nodes/" + nid)["Status"]["State"] == "down" or None, "w2 is down")
    s.docker("node", "rm", nid)
    create(s, "joined", "--replicas", "4", "--label", "microswarm.rebalance=2")
    s.wait_running("joined", 4)
    eq(on(s, "joined"), ["m1", "m1", "w1", "w1"])
    s.cluster.join("w2")
    s.cluster.wait_nodes(3, 60 * st.SLOW)
    s.wait(lambda: spread_of(s, "joined") == [1, 1, 2] or None, "the new node has one")
    s.docker("node", "update", "--label-add", "zone=b", "w2")
    s.remove("joined")


def test_what_matters_more_has_room(s):
    memory = min(n["Description"]["Resources"]["MemoryBytes"] for n in s.api.get("/nodes"))
    most = str(memory * 6 // 10)
    create(s, "low", "--replicas", "3", "--reserve-memory", most)
    s.wait_running("low", 3)
    create(s, "same", "--reserve-memory", most)
    wait_reason(s, "same", "no suitable node (insufficient resources on 3 nodes)")
    create(s, "high", "--reserve-memory", most, "--label", "microswarm.priority=10", "--constraint", "node.hostname==w1")
    wait_on(s, "high", "w1")
    wait_on(s, "low", "m1", "w2")
    wait_reason(s, "low", "no suitable node (insufficient resources on 3 nodes)")
    eq(on(s, "same"), [])
    account = explain(s, s.running("high")[0])
    eq((account["priority"], account["evicted"]), (10, False))
    # those that are less important than nothing said make room first
    s.docker("service", "update", "-d", "--no-resolve-image", "--label-add", "microswarm.priority=-1", "low")
    s.wait(lambda: len(s.running("same")) == 1 and len(s.running("low")) == 1 or None, "the one without a label has its place")
    s.remove("high")
    s.wait_running("low", 2)
    s.remove("low", "same")


def test_bad_labels(s):
    for label, text in (("microswarm.priority=high", "must be a whole number from -1000000 to 1000000"),
                        ("microswarm.rebalance=0", "must be how many tasks may be moved at a time: 1 to 10000, or 1% to 100%")):
        s.docker_fails("service", "create", "--name", "bad", "--no-resolve-image", "--label", label, "pause:latest", say=text)
        s.docker_fails("service", "create", "--name", "bad", "--no-resolve-image", "--label", label, "pause:latest",
                       say='Labels["%s"]' % label.partition("=")[0])
    create(s, "good")
    s.docker_fails("service", "update", "-d", "--no-resolve-image", "--label-add", "microswarm.priority=1.5", "good", say="microswarm.priority")
    s.remove("good")


if __name__ == "__main__":
    st.main(setup, managers=1, workers=2, settings=SETTINGS)
