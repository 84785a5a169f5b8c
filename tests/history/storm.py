#!/usr/bin/python3
"""Clients read and write through all managers while daemons and nodes die, freeze, are cut off and come back; then the
recorded history must be linearizable, and the swarm must run exactly the tasks that are declared, and not one more.

`storm.py -m MANAGERS -w WORKERS -s SECONDS`; the seed is printed first, SEED=N repeats the same choices. A history that
fails is kept as JSON lines; `storm.py --check FILE` checks one again.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import linear  # noqa: E402
import swarmtest as st  # noqa: E402

KEYS = 6
CLIENTS = 8
PATIENCE = 6  # seconds until a client gives a call up
MAX_REPLICAS = 3
# A node that goes down so often is held back for minutes with the default settings, which is right, but nothing to wait for.
SETTINGS = {"dispatcherd": {"flap_hold": "1s", "flap_hold_max": "3s"}}


def spec(name, value, replicas):
    return {"Name": name, "Labels": {"v": value},
            "TaskTemplate": {"ContainerSpec": {"Image": "pause:latest", "StopGracePeriod": 50000000}, "RestartPolicy": {"Condition": "any", "Delay": 0}},
            "Mode": {"Replicated": {"Replicas": replicas}}}


class Recorder:
    """The history: each register is a service's label, read and written through the API of any manager."""

    def __init__(self):
        self.calls, self.lock = [], threading.Lock()
        self.refused_otherwise = {}

    def add(self, call):
        with self.lock:
            self.calls.append(call)

    def note(self, text):
        with self.lock:
            self.refused_otherwise[text] = self.refused_otherwise.get(text, 0) + 1

    def read(self, api, key, who):
        """(value, document) or None when there was no answer."""
        t0 = time.monotonic_ns()
        try:
            doc = api.get("/services/" + key)
        except st.ApiError as e:
            self.note("read: %d %s" % (e.status, e.message))
            return None
        except (OSError, http.client.HTTPException) as e:
            self.note("read: " + type(e).__name__)
            return None
        value = doc["Spec"]["Labels"]["v"]
        self.add(linear.Call(linear.READ, key, t0, time.monotonic_ns(), value, who=who))
        return value, doc

    def write(self, api, key, doc, value, replicas, who):
        """Onto the version that was read. True: accepted; False: refused as out of date; None: no answer."""
        old, new = doc["Spec"]["Labels"]["v"], json.loads(json.dumps(doc["Spec"]))
        new["Labels"]["v"] = value
        new["Mode"]["Replicated"]["Replicas"] = replicas
        call = linear.Call(linear.CAS, key, time.monotonic_ns(), None, value, old, who=who)
        try:
            api.post("/services/%s/update?version=%d" % (key, doc["Version"]["Index"]), new)
            call.end, call.ok = time.monotonic_ns(), True
        except st.ApiError as e:
            if "out of sequence" in str(e.message):
                call.end, call.ok = time.monotonic_ns(), False
            else:
                self.note("write: %d %s" % (e.status, e.message))
        except (FileNotFoundError, ConnectionRefusedError) as e:
            self.note("write: " + type(e).__name__)
            return None  # it was never sent
        except (OSError, http.client.HTTPException) as e:
            self.note("write: " + type(e).__name__)
        self.add(call)
        return None if call.end is None else call.ok

    def save(self, path):
        with open(path, "w", encoding="utf-8") as f:
            for c in self.calls:
                f.write(json.dumps([c.kind, c.key, c.start, c.end, c.value, c.old, c.ok, c.who]) + "\n")


def load(path):
    with open(path, encoding="utf-8") as f:
        return [linear.Call(*json.loads(line)) for line in f]


class Client(threading.Thread):
    def __init__(self, number, storm):
        super().__init__(daemon=True)
        self.number, self.storm, self.rnd, self.serial = number, storm, random.Random(storm.rnd.random()), 0

    def run(self):
        s = self.storm
        while not s.over.is_set():
            name, key = self.rnd.choice(s.managers), self.rnd.choice(s.keys)
            api = st.Api(s.cluster.node(name).sock, timeout=PATIENCE)
            who = "c%d@%s" % (self.number, name)
            got = s.rec.read(api, key, who)
            if got and self.rnd.random() < 0.6:
                if self.rnd.random() < 0.3:  # write through another manager than the one that was asked
                    name = self.rnd.choice(s.managers)
                    api, who = st.Api(s.cluster.node(name).sock, timeout=PATIENCE), "c%d@%s" % (self.number, name)
                replicas = got[1]["Spec"]["Mode"]["Replicated"]["Replicas"]
                if self.rnd.random() < 0.05:
                    replicas = self.rnd.randrange(MAX_REPLICAS + 1)
                self.serial += 1
                s.rec.write(api, key, got[1], "c%d-%d" % (self.number, self.serial), replicas, who)
            s.over.wait(self.rnd.random() * (0.02 if got else 0.2))


class Nemesis:
    """What goes wrong. Of managers, at most a minority is impaired for long; now and then the majority, for a moment."""

    def __init__(self, storm):
        self.s, self.rnd, self.cluster = storm, random.Random(storm.rnd.random()), storm.cluster
        self.undo = []  # (what it is called, nodes, function)
        self.count = {}

    def impaired(self):
        return {n for _, nodes, _ in self.undo for n in nodes}

    def step(self):
        kinds = (self.kill_daemon, self.kill_daemon, self.kill_daemon, self.freeze_daemon, self.kill_node, self.hold_node, self.power_off,
                 self.planned_stop, self.cut, self.cut, self.cut_leader, self.majority)
        kind = self.rnd.choice(kinds)
        if kind():
            self.count[kind.__name__] = self.count.get(kind.__name__, 0) + 1
        self.s.over.wait(self.rnd.random() * 2)
        while self.undo and (self.rnd.random() < 0.7 or len(self.undo) > 3):
            self.undo.pop(self.rnd.randrange(len(self.undo)))[2]()

    def calm(self):
        while self.undo:
            self.undo.pop()[2]()

    def say(self, text):
        self.s.log("%6.2f %s" % (time.monotonic() - self.s.began, text))

    def candidates(self, managers_only=False):
        """Nodes that are whole, and whose loss leaves a majority."""
        hurt = self.impaired()
        spare = (len(self.s.managers) - 1) // 2 - len(hurt & set(self.s.managers))
        pool = [n for n in self.s.managers if n not in hurt] if spare > 0 else []
        return pool + ([] if managers_only else [n for n in self.s.workers if n not in hurt])

    def any_node(self, pool):
        return self.cluster.node(self.rnd.choice(pool)) if pool else None

    def kill_daemon(self):
        n = self.any_node([n for n in self.s.managers + self.s.workers if n not in self.impaired()])
        if not n:
            return False
        d, sig = self.rnd.choice(n.info["daemons"]), self.rnd.choice(("KILL", "KILL", "TERM"))
        self.say("%s %s %s" % (sig, n.name, d))
        with contextlib.suppress(st.Failure):  # it is just dead
            n.kill(d, sig)
        return True

    def freeze_daemon(self):
        n = self.any_node(self.candidates())
        if not n:
            return False
        d = self.rnd.choice(("raftd", "gatewayd", "apid", "dispatcherd", "agentd"))
        self.say("freeze %s %s" % (n.name, d))

        def thaw():
            self.say("thaw %s %s" % (n.name, d))
            with contextlib.suppress(st.Failure):
                n.kill(d, "CONT")
        try:
            n.kill(d, "STOP")
        except st.Failure:
            return False
        self.undo.append(("freeze", {n.name}, thaw))
        return True

    def kill_node(self):
        n = self.any_node(self.candidates())
        if n:
            self.say("kill all of %s" % n.name)
            n.kill_all()
        return bool(n)

    def hold_node(self):
        n = self.any_node(self.candidates())
        if not n:
            return False
        self.say("hold all of %s" % n.name)
        n.hold("all", signal.SIGKILL)

        def release():
            self.say("release %s" % n.name)
            n.release("all")
        self.undo.append(("hold", {n.name}, release))
        return True

    def power_off(self):
        n = self.any_node(self.candidates())
        if not n:
            return False
        self.say("power off %s" % n.name)
        n.power_off()
        self.undo.append(("off", {n.name}, self.booter(n)))
        return True

    def planned_stop(self):
        n = self.any_node(self.candidates())
        if not n:
            return False
        self.say("halt %s" % n.name)
        n.halt()
        self.undo.append(("off", {n.name}, self.booter(n)))
        return True

    def booter(self, n):
        def boot():
            self.say("boot %s" % n.name)
            n.start()
        return boot

    def isolate(self, names, seconds=None):
        if any(u[0] == "cut" for u in self.undo):
            return False  # one partition at a time: heal() undoes all
        self.say("cut %s" % ",".join(names))
        self.cluster.cut(*names)

        def heal():
            self.say("heal")
            self.cluster.heal()
        if seconds is None:
            self.undo.append(("cut", set(names), heal))
        else:
            self.s.over.wait(seconds)
            heal()
        return True

    def cut(self):
        pool = self.candidates()
        if not pool:
            return False
        names = [self.rnd.choice(pool)]
        names += [w for w in self.s.workers if w not in names and w not in self.impaired() and self.rnd.random() < 0.3]
        return self.isolate(names)

    def cut_leader(self):
        lead = self.cluster.leader([self.cluster.node(n) for n in self.s.managers if n not in self.impaired()][:1])
        return bool(lead) and lead.name in self.candidates() and self.isolate([lead.name])

    def majority(self):
        """For a moment there is no majority anywhere, or the leader is in the smaller part."""
        if self.undo or self.rnd.random() < 0.5:
            return False
        names = self.rnd.sample(self.s.managers, len(self.s.managers) // 2 + 1)
        return self.isolate(names[:-1], 1 + self.rnd.random() * 3) if self.rnd.random() < 0.5 else self.everyone_alone()

    def everyone_alone(self):
        self.say("cut every manager from every other")
        for n in self.s.managers[1:]:
            self.cluster.cut(n)
        self.s.over.wait(1 + self.rnd.random() * 3)
        self.say("heal")
        self.cluster.heal()
        return True


class Storm:
    def __init__(self, swarm, seconds, seed, log=None):
        self.swarm, self.cluster, self.seconds, self.seed = swarm, swarm.cluster, seconds, seed
        self.rnd = random.Random(seed)
        self.managers = [n.name for n in self.cluster.nodes() if n.info["role"] == "manager"]
        self.workers = [n.name for n in self.cluster.nodes() if n.info["role"] == "worker"]
        self.log = log or (lambda text: None)
        self.rec, self.over, self.keys = Recorder(), threading.Event(), []
        self.began = time.monotonic()

    def run(self):
        """Returns a line of figures; raises linear.NotLinearizable or st.Failure."""
        for i in range(KEYS):
            self.keys.append(self.swarm.api.post("/services/create", spec("storm%d" % i, "first", i % 3))["ID"])
        nemesis = Nemesis(self)
        clients = [Client(i, self) for i in range(CLIENTS)]
        for c in clients:
            c.start()
        error = None
        try:
            while time.monotonic() - self.began < self.seconds:
                nemesis.step()
        except (st.Failure, OSError) as e:
            error = e
        finally:
            self.over.set()
            for c in clients:
                c.join(PATIENCE + 5)
            self.over.clear()  # waits are waits again
            nemesis.calm()
        if error:
            raise st.Failure("the storm could not go on: %s" % error)
        final = self.last_reads()
        possible = linear.check(self.rec.calls, {k: "first" for k in self.keys})
        for key, value in final.items():
            if value not in possible[key]:
                raise st.Failure("%s: %s at the end, possible: %s" % (key, value, possible[key]))
        tasks = self.exactly()
        reads = sum(c.kind == linear.READ for c in self.rec.calls)
        writes = [c for c in self.rec.calls if c.kind == linear.CAS]
        return "%d managers, %d reads, %d writes (%d accepted, %d refused, %d without an answer), %s, %d tasks" % (
            len(self.managers), reads, len(writes), sum(c.end is not None and c.ok for c in writes),
            sum(c.end is not None and not c.ok for c in writes), sum(c.end is None for c in writes),
            ", ".join("%d %s" % (n, k.replace("_", " ")) for k, n in sorted(nemesis.count.items())), tasks)

    def last_reads(self):
        """Every manager's answer for every register, as a part of the history."""
        out = {}
        for n in self.cluster.nodes():
            n.wait_ready(60 * st.SLOW)
        for name in self.managers:
            api = st.Api(self.cluster.node(name).sock, timeout=PATIENCE)
            for key in self.keys:
                out[key] = st.wait_until(lambda a=api, k=key, n=name: self.rec.read(a, k, "end@" + n), 60 * st.SLOW, "%s answers again" % name)[0]
        return out

    def exactly(self):
        """The declared number of tasks runs, as many containers are on the nodes, and nothing is left to be done."""
        want = {k: self.swarm.api.get("/services/" + k)["Spec"]["Mode"]["Replicated"]["Replicas"] for k in self.keys}
        self.cluster.wait_nodes(len(self.cluster.nodes()), 60 * st.SLOW)
        for k, n in want.items():
            self.swarm.wait_running(k, n, 60)
        total = sum(want.values())

        def containers():
            return sum(int(n.sh("sh", "-c", "pgrep -xc pause || true")) for n in self.cluster.nodes())
        st.wait_until(lambda: containers() == total, 60 * st.SLOW, "%d containers on the nodes" % total)
        for k, n in want.items():
            running = [t for t in self.swarm.api.get("/tasks") if t["ServiceID"] == k and t["DesiredState"] == "running"]
            st.eq(len(running), n, "tasks that are wanted")
        return total


def storm(swarm, seconds, log=None):
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print("# seed %d (SEED=%d makes the same choices)" % (seed, seed), flush=True)
    run = Storm(swarm, seconds, seed, log)
    try:
        print("# " + run.run(), flush=True)
    except BaseException:  # a time limit, too
        path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "microswarm-history-%d.jsonl" % seed)
        run.rec.save(path)
        print("# history kept: %s" % path, flush=True)
        raise
    finally:
        for text, n in sorted(run.rec.refused_otherwise.items(), key=lambda kv: -kv[1])[:8]:
            print("# %d x %s" % (n, text), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", "--managers", type=int, default=3)
    p.add_argument("-w", "--workers", type=int, default=2)
    p.add_argument("-s", "--seconds", type=float, default=300)
    p.add_argument("-q", "--quiet", action="store_true")
    p.add_argument("--check", metavar="FILE")
    a = p.parse_args()
    if a.check:
        calls = load(a.check)
        try:
            linear.check(calls, {c.key: "first" for c in calls})
        except linear.NotLinearizable as e:
            sys.exit(str(e))
        print("linearizable: %d calls" % len(calls))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("time limit"))  # the cluster is taken down
    s = st.Swarm("storm", managers=a.managers, workers=a.workers, settings=SETTINGS)
    try:
        s.load("pause")
        storm(s, a.seconds, None if a.quiet else lambda text: print(text, flush=True))
        bad = s.findings()
        print("\n".join(bad) or "ok")
        sys.exit(1 if bad else 0)
    except (linear.NotLinearizable, st.Failure) as e:
        print("not ok: %s" % e)
        sys.exit(1)
    finally:
        s.close()


if __name__ == "__main__":
    main()
