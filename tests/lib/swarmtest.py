"""What tests/cluster, the end-to-end tests, the demo and the benchmarks share: nodes made of namespaces, and clients.

A cluster is a folder. cluster.json in it says what there is; each node has run/ (tmpfs: sockets), state/ (disk), etc/,
log/, ctl (its process 1 listens there) and pid. Between the nodes lies a network namespace of the cluster's own, `net`,
with a bridge: 10.77.0.1, where a client outside of the swarm stands. A cut node hangs on another bridge, so that its
packets vanish and no cable seems to be pulled.
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPO = os.path.dirname(TESTS)

GID = 61800
GID_SECRETS = 61899
UIDS = {"raftd": 61801, "cad": 61802, "orchestratord": 61803, "allocatord": 61804, "schedulerd": 61805,
        "dispatcherd": 61806, "apid": 61807, "gatewayd": 61808}  # agentd and meshd are root
# In the order of starting; they stop the other way round, so raftd can hand over through gatewayd. Every node runs all of them: those for managers idle on a worker, which so becomes a manager
# without starting anything.
DAEMONS = ["gatewayd", "raftd", "cad", "allocatord", "schedulerd", "orchestratord", "dispatcherd", "meshd", "agentd",
           "apid"]
SECRET_READERS = ("raftd", "cad", "dispatcherd")
CGROUP_ROOT = "/sys/fs/cgroup"


class Failure(Exception):
    """Something a user is told in one line."""


def bin_dir():
    return os.environ.get("MICROSWARM_BIN") or os.path.join(REPO, "build", "bin")


def cluster_dir():
    return os.path.abspath(os.environ.get("MICROSWARM_CLUSTER") or "/tmp/microswarm-cluster")


def run(*argv, check=True, timeout=60, **kw):
    """A program's output; failing is a Failure that shows what it said."""
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", timeout=timeout * crowd(),
                       check=False, **kw)
    if check and p.returncode != 0:
        raise Failure("%s: exit code %d: %s" % (" ".join(argv), p.returncode, (p.stderr or p.stdout).strip()))
    return p.stdout


def crowd():
    """How much slower than alone things may be: 1, unless others keep this machine busy several times over."""
    return min(6.0, max(1.0, os.getloadavg()[0] / (3 * (os.cpu_count() or 1))))


def wait_until(check, seconds, what, wake=None):
    """Calls check() until it is true. `wake` is a descriptor or stream that becomes readable when something changed;
    without one, or when it stays silent, check() is asked again after 10 ms, 20 ms ... 100 ms."""
    deadline, pause = time.monotonic() + seconds * (crowd() if seconds >= 5 else 1), 0.01
    while True:
        got = check()
        if got:
            return got
        left = deadline - time.monotonic()
        if left <= 0:
            raise Failure("%s: not so after %g s" % (what, seconds))
        ready = select.select([wake] if wake is not None else [], [], [], min(left, pause))[0]
        if ready and not os.read(wake if isinstance(wake, int) else wake.fileno(), 65536):
            wake = None
        pause = min(pause * 2, 0.1)


# ---- HTTP on a Unix socket ----

class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path, timeout=60):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class ApiError(Failure):
    def __init__(self, status, message):
        super().__init__("HTTP %d: %s" % (status, message))
        self.status = status
        self.message = message


class Api:
    """A bare client of the Engine API, for what the real clients don't let through."""

    def __init__(self, sock, version="/v1.41", timeout=60):
        self.sock, self.version, self.timeout = sock, version, timeout

    def raw(self, method, path, body=None, headers=None, version=None):
        c = UnixHTTP(self.sock, self.timeout)
        h = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)) and not hasattr(body, "read"):
            body = json.dumps(body)
        if body is not None:
            h.setdefault("Content-Type", "application/json")
        try:
            c.request(method, (self.version if version is None else version) + path, body, h)
            r = c.getresponse()
            data = r.read()
        finally:
            c.close()
        return r.status, data, r

    def __call__(self, method, path, body=None, **kw):
        status, data, _ = self.raw(method, path, body, **kw)
        try:
            doc = json.loads(data) if data.strip() else None
        except ValueError:
            doc = data.decode(errors="replace")
        if status >= 400:
            raise ApiError(status, doc.get("message", doc) if isinstance(doc, dict) else doc)
        return doc

    def get(self, path, **kw):
        return self("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self("POST", path, body, **kw)

    def delete(self, path, **kw):
        return self("DELETE", path, **kw)

    @contextlib.contextmanager
    def events(self, query=""):
        """The live event stream: an object with fileno() that becomes readable with each event."""
        c = UnixHTTP(self.sock, self.timeout)
        c.request("GET", self.version + "/events" + query)
        try:
            yield c.sock
        finally:
            c.close()


# ---- nodes ----

class Node:
    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.dir = os.path.join(cluster.dir, name)
        self.info = cluster.doc["nodes"][name]
        self.addr = self.info["addr"]

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    @property
    def sock(self):
        return self.path("run", "docker.sock")

    @property
    def api(self):
        return Api(self.sock)

    @property
    def pid(self):
        """The host's pid of the node's process 1; 0 when the node is off."""
        try:
            with open(self.path("pid"), encoding="ascii") as f:
                pid = int(f.read())
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                return pid if b"node_init" in f.read() else 0
        except (OSError, ValueError):
            return 0

    # -- talking to process 1 --
    def ctl(self, line, seconds=30):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(seconds * crowd())
        try:
            here = os.open(self.dir, os.O_PATH)  # the path may be too long for a socket address
            try:
                s.connect("/proc/self/fd/%d/ctl" % here)
            finally:
                os.close(here)
            s.sendall(line.encode() + b"\n")
            out = b""
            while True:
                piece = s.recv(65536)
                if not piece:
                    break
                out += piece
        except socket.timeout:
            raise Failure("%s: \"%s\": no answer within %g s; %s" % (self.name, line, seconds, self.not_ready())) from None
        except OSError as e:
            raise Failure("%s is off (%s)" % (self.name, e.strerror)) from None
        finally:
            s.close()
        text = out.decode()
        if text.startswith("error "):
            raise Failure("%s: %s" % (self.name, text[6:].strip()))
        return text

    def daemons(self):
        rows = []
        for line in self.ctl("ls").splitlines():
            name, pid, state, starts, status = line.split()
            rows.append({"name": name, "pid": int(pid), "state": state, "starts": int(starts), "status": int(status)})
        return rows

    def not_ready(self):
        with contextlib.suppress(Failure, OSError):
            bad = [d["name"] for d in self.daemons() if d["state"] not in ("ready", "held")]
            return "not ready: %s (see %s)" % (", ".join(bad), self.path("log"))
        return "see " + self.path("log")

    def wait_ready(self, seconds=30):
        self.ctl("ready", seconds)

    def kill(self, daemon, sig="KILL"):
        return int(self.ctl("kill %s %d" % (daemon, signal_number(sig))).split()[1])

    def kill_all(self, sig=signal.SIGKILL):
        """Every daemon at once; the network stays, so their connections are closed. They are started again."""
        return int(self.ctl("kill all %d" % int(sig)).split()[1])

    def hold(self, daemon, sig=signal.SIGTERM):
        """Ends a daemon (or "all", at once) and keeps it down until release()."""
        self.ctl("hold %s %d" % (daemon, int(sig)))

    def release(self, daemon):
        self.ctl("release " + daemon)

    def host_pid(self, daemon):
        inner = next(d["pid"] for d in self.daemons() if d["name"] == daemon)
        return self.to_host_pid(inner)

    def to_host_pid(self, inner):
        """The host's number of a process that the node (not a container) knows as `inner`."""
        def ids(pid):
            with open("/proc/%s/status" % pid, encoding="ascii", errors="replace") as f:
                return [int(x) for x in next(l for l in f if l.startswith("NSpid:")).split()[1:]]
        level = len(ids(self.pid)) - 1
        for p in os.listdir("/proc"):
            if p.isdigit():
                with contextlib.suppress(OSError, StopIteration, IndexError):
                    if ids(p)[level] == inner:
                        with open("/proc/%s/cgroup" % p, encoding="ascii") as f:
                            if self.cgroup in f.read():
                                return int(p)
        raise Failure("%s: no process %d" % (self.name, inner))

    def probe(self, daemon, text="status", seconds=5):
        return nng_probe(self.path("run", daemon + ".probe"), text, seconds)

    def logs(self, daemon):
        with contextlib.suppress(OSError), open(self.path("log", daemon + ".log"), encoding="utf-8", errors="replace") as f:
            return f.read()
        return ""

    def argv(self, *argv):
        pid = self.pid
        if not pid:
            raise Failure("%s is off" % self.name)
        # Not `ip netns exec`: that remounts /sys, and the cgroups under it are gone.
        return ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-C", "--", *argv]

    def sh(self, *argv, **kw):
        return run(*self.argv(*argv), **kw)

    # -- life --
    def start(self):
        if self.pid:
            raise Failure("%s is on already" % self.name)
        for sub in ("run", "state", "etc/microswarm", "log"):
            os.makedirs(self.path(sub), exist_ok=True)
        os.chmod(self.dir, 0o755)
        if not os.path.ismount(self.path("run")):
            run("mount", "-t", "tmpfs", "-o", "mode=1770,gid=%d" % GID, "microswarm-" + self.name, self.path("run"))
        os.chown(self.path("state"), 0, GID)
        os.chmod(self.path("state"), 0o1770)
        self.write_etc()
        self.write_conf()
        groups = make_cgroups(self.cgroup)
        out = subprocess.run([self.cluster.tool("node_init"), self.dir], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             preexec_fn=lambda: enter_cgroups(groups), timeout=30, check=False)
        if out.returncode != 0:
            raise Failure("%s: %s%s" % (self.name, out.stderr, self.logs("init")[-2000:]))
        with open(self.path("pid"), "w", encoding="ascii") as f:
            f.write(out.stdout)
        self.cluster.plug(self)
        self.ctl("go")

    @property
    def cgroup(self):
        return "microswarm-%s/%s" % (self.cluster.doc["id"], self.name)

    def write_etc(self):
        def put(name, text):
            with open(self.path("etc", name), "w", encoding="utf-8") as f:
                f.write(text)

        def host(name):
            with contextlib.suppress(OSError), open("/etc/" + name, encoding="utf-8", errors="replace") as f:
                return f.read()
            return ""

        def without(text):  # a host may have microswarm installed, with numbers of its own
            return "".join(l for l in text.splitlines(True) if not l.startswith("microswarm"))

        put("hostname", self.name + "\n")
        put("hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n" +
            "".join("%s %s\n" % (n["addr"], name) for name, n in self.cluster.doc["nodes"].items()))
        put("passwd", without(host("passwd")) + "".join(
            "microswarm-%s:x:%d:%d::/nonexistent:/usr/sbin/nologin\n" % (d, uid, GID) for d, uid in UIDS.items()))
        put("group", without(host("group")) + "microswarm:x:%d:\nmicroswarm-secrets:x:%d:%s\n" %
            (GID, GID_SECRETS, ",".join("microswarm-" + d for d in SECRET_READERS)))
        put("resolv.conf", "nameserver 10.77.0.1\n")  # nobody there: a name that isn't known fails at once
        for d in self.info["daemons"]:
            conf = self.path("etc", "microswarm", d + ".conf")
            with open(conf, "w", encoding="utf-8") as f:
                f.write("# made by tests/cluster\n")
                for name, value in self.cluster.doc["settings"].get(d, {}).items():
                    f.write("%s = %s\n" % (name, value))

    def write_conf(self):
        lines = ["hostname " + self.name, "run " + self.path("run"), "state " + self.path("state"),
                 "etc " + self.path("etc")]
        lines += ["env %s=%s" % kv for kv in self.cluster.doc["env"].items()]
        for d in self.info["daemons"]:
            lines.append("daemon %s %d %d %s %s %s -r /run/microswarm -s /var/lib/microswarm -c /etc/microswarm/%s.conf" % (
                d, UIDS.get(d, 0), GID, GID_SECRETS if d in SECRET_READERS else "-", self.path("log", d + ".log"),
                os.path.join(self.cluster.doc["bin"], d), d))
        with open(self.path("node.conf"), "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")

    def power_off(self):
        """No warning to anybody: first the cable, so that no FIN or RST leaves the node, then every process; the tmpfs is
        gone, what was on the disk stays."""
        pid = self.pid
        if pid:
            run(*self.cluster.outside("ip", "link", "set", self.name, "nomaster"), check=False)
            kill_and_wait(pid)
        self.clean()

    def halt(self, seconds=60):
        """The orderly way: SIGTERM to process 1, which stops the daemons in reverse order."""
        pid = self.pid
        if pid:
            with open_pidfd(pid) as fd:
                os.kill(pid, signal.SIGTERM)
                if not select.select([fd], [], [], seconds)[0]:
                    raise Failure("%s: still there %g s after SIGTERM" % (self.name, seconds))
        self.clean()

    def clean(self):
        with contextlib.suppress(OSError):
            os.unlink(self.path("pid"))
        while os.path.ismount(self.path("run")):
            run("umount", "-l", self.path("run"))
        remove_cgroups(self.cgroup)
        self.cluster.unplug(self)


class Cluster:
    """One folder with nodes. Cluster.make() starts one, Cluster() finds the one that is there."""

    def __init__(self, path=None):
        self.dir = os.path.abspath(path or cluster_dir())
        try:
            with open(os.path.join(self.dir, "cluster.json"), encoding="utf-8") as f:
                self.doc = json.load(f)
        except FileNotFoundError:
            raise Failure("no cluster in %s: start one with `tests/cluster up`" % self.dir) from None

    @classmethod
    def make(cls, path=None, managers=1, workers=0, init=True, settings=None, env=None, binaries=None, seconds=60,
             without=()):
        if managers < 1 or workers < 0 or managers + workers > 200:
            raise Failure("a cluster has at least one manager, and at most 200 nodes")
        path = os.path.abspath(path or cluster_dir())
        binaries = os.path.abspath(binaries or bin_dir())
        have = [d for d in DAEMONS if os.access(os.path.join(binaries, d), os.X_OK) and d not in without]
        if not have:
            raise Failure("no daemon in %s: run make first (or set MICROSWARM_BIN)" % binaries)
        if os.geteuid() != 0:
            raise Failure("must be run as root: a node is made of namespaces, cgroups and mounts")
        os.makedirs(path, exist_ok=True)
        if os.path.exists(os.path.join(path, "cluster.json")):
            raise Failure("there is a cluster in %s already: `tests/cluster down` first" % path)
        doc = {"id": hashlib.sha256(path.encode()).hexdigest()[:8], "bin": binaries, "env": env or {},
               "settings": settings or {}, "nodes": {}}
        names = ["m%d" % i for i in range(1, managers + 1)] + ["w%d" % i for i in range(1, workers + 1)]
        for i, name in enumerate(names, 11):
            doc["nodes"][name] = {"role": "manager" if name[0] == "m" else "worker", "addr": "10.77.0.%d" % i, "daemons": have}
        with open(os.path.join(path, "cluster.json"), "w", encoding="utf-8") as f:
            json.dump(doc, f, indent=1)
        c = cls(path)
        try:
            c.make_net()
            for n in c.nodes():
                n.start()
            for n in c.nodes():
                n.wait_ready(seconds)
            if init:
                c.init(seconds)
                c.join_all(seconds)
        except BaseException as e:
            if not os.environ.get("MICROSWARM_KEEP"):
                c.keep_logs(e)
                c.down()
            raise
        return c

    def keep_logs(self, why):
        """What the daemons said is wanted most when they did not come up."""
        if isinstance(why, KeyboardInterrupt):
            return
        for n in self.nodes():
            for d in ["init"] + n.info["daemons"]:
                text = n.logs(d).strip()
                if text:
                    sys.stderr.write("--- %s %s\n%s\n" % (n.name, d, "\n".join(text.splitlines()[-12:])))

    def node(self, name):
        if name not in self.doc["nodes"]:
            raise Failure("no node %s here: %s" % (name, ", ".join(self.doc["nodes"])))
        return Node(self, name)

    def nodes(self):
        return [Node(self, n) for n in self.doc["nodes"]]

    def tool(self, name):
        """A test helper that was built with the daemons."""
        path = os.path.join(os.path.dirname(self.doc["bin"]), "tests", name)
        if not os.access(path, os.X_OK):
            raise Failure("%s is missing: run `make test-tools`" % path)
        return path

    # -- the network between the nodes --
    @property
    def net(self):
        return os.path.join(self.dir, "net")

    def outside(self, *argv):
        """The command line that runs a program as a client outside of the swarm: 10.77.0.1 on the nodes' network."""
        return ["nsenter", "--net=" + self.net, "--", *argv]

    def make_net(self):
        with open(self.net, "w", encoding="ascii"):
            pass
        run("unshare", "--net=" + self.net, "ip", "-batch", "-", input="link set lo up\nlink add br0 type bridge\n"
            "addr add 10.77.0.1/24 dev br0\nlink set br0 up\n")

    def plug(self, node):
        last = int(node.addr.rsplit(".", 1)[1])
        run(*self.outside("ip", "-batch", "-"), input="link add %s type veth peer name eth0 netns %d\n"
            "link set %s master %s up\n" % (node.name, node.pid, node.name, self.bridge_of(node.name)))
        run("nsenter", "-t", str(node.pid), "-n", "ip", "-batch", "-", input="link set eth0 address 02:4d:53:00:00:%02x\n"
            "addr add %s/24 dev eth0\nlink set eth0 up\nroute add default via 10.77.0.1\n" % (last, node.addr))

    def unplug(self, node):
        run(*self.outside("ip", "link", "del", node.name), check=False)  # gone with its other end, some time later

    # Partitions: an island is a bridge of its own, named after the first of its nodes. Which nodes are cut is kept in a
    # file, so that one that boots while it is cut stays cut.
    def islands(self):
        with contextlib.suppress(OSError, ValueError), open(os.path.join(self.dir, "islands.json"), encoding="utf-8") as f:
            return json.load(f)
        return {}

    def bridge_of(self, name):
        return self.islands().get(name, "br0")

    def set_islands(self, islands):
        tmp = os.path.join(self.dir, "islands.new")
        with open(tmp, "w", encoding="utf-8") as f:
            json.dump(islands, f)
        os.rename(tmp, os.path.join(self.dir, "islands.json"))

    def cut(self, *names):
        """These nodes see each other, and nobody else sees them; packets vanish, nothing is closed. A node that was cut
        with others before leaves them."""
        nodes = [self.node(n) for n in names]
        islands = self.islands()
        bridge = "cut-" + names[0]
        for other in [n for n, b in islands.items() if b == bridge and n not in names]:
            raise Failure("%s is cut off together with %s: heal first" % (names[0], other))
        islands.update({n: bridge for n in names})
        self.set_islands(islands)
        run(*self.outside("ip", "link", "add", bridge, "up", "type", "bridge"), check=False)  # there already when cut twice
        run(*self.outside("ip", "-batch", "-"), input="".join("link set %s master %s\n" % (n.name, bridge) for n in nodes if n.pid))

    def heal(self):
        islands = self.islands()
        self.set_islands({})
        on = [n for n in islands if self.node(n).pid]
        run(*self.outside("ip", "-batch", "-"), input="".join("link set %s master br0\n" % n for n in on))
        for line in run(*self.outside("ip", "-br", "link", "show", "type", "bridge")).splitlines():
            if line.startswith("cut-"):
                run(*self.outside("ip", "link", "del", line.split()[0]))

    # -- life --
    def init(self, seconds=30, **more):
        """swarm init on m1, then wait until the node is ready."""
        m1 = self.node("m1")
        wait_until(lambda: os.path.exists(m1.sock), seconds, "m1: docker.sock")
        m1.api.post("/swarm/init", dict({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": m1.addr + ":2377"}, **more))
        self.wait_nodes(1, seconds)

    def tokens(self, via="m1"):
        return self.node(via).api.get("/swarm")["JoinTokens"]

    def join(self, name, role=None, via="m1", token=None, availability="active"):
        """What `docker swarm join` posts."""
        n = self.node(name)
        role = role or n.info["role"]
        n.api.post("/swarm/join", {
            "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": n.addr + ":2377", "Availability": availability,
            "RemoteAddrs": [self.node(via).addr + ":2377"], "JoinToken": token or self.tokens(via)[role.capitalize()]})

    def join_all(self, seconds=60):
        """All nodes but m1, in the role that the cluster was made with; returns when all are ready and all managers vote."""
        others = [n for n in self.nodes() if n.name != "m1"]
        if not others:
            return
        tokens = self.tokens()
        for n in others:
            try:
                self.join(n.name, token=tokens[n.info["role"].capitalize()])
            except Failure as e:
                raise Failure("%s: join: %s" % (n.name, e)) from None
        self.wait_nodes(len(others) + 1, seconds)
        managers = sum(n.info["role"] == "manager" for n in self.nodes())

        def voters():
            nodes = self.node("m1").api.get("/nodes")
            return sum(x.get("ManagerStatus", {}).get("Reachability") == "reachable" for x in nodes) >= managers
        wait_until(voters, seconds, "%d managers reachable" % managers)

    def leader(self, among=None):
        """The node that is the leader in the view of one of these; None when none of them knows one."""
        for n in among or self.nodes():
            with contextlib.suppress(OSError, Failure, ValueError):
                nodes = Api(n.sock, timeout=5).get("/nodes")
                lead = next((x for x in nodes if x.get("ManagerStatus", {}).get("Leader")), None)
                if lead:
                    return self.node(lead["Description"]["Hostname"])
        return None

    def wait_leader(self, among=None, seconds=30):
        """leader(), when there is one: an election may be under way."""
        return wait_until(lambda: self.leader(among), seconds * SLOW, "a leader")

    def wait_nodes(self, count, seconds=30, via="m1"):
        api = self.node(via).api

        def ready():
            try:
                nodes = api.get("/nodes")
            except (OSError, ApiError):
                return False
            return sum(n["Status"]["State"] == "ready" for n in nodes) >= count

        with contextlib.ExitStack() as stack:
            wake = None
            with contextlib.suppress(OSError):
                wake = stack.enter_context(api.events())
            wait_until(ready, seconds, "%d nodes ready" % count, wake)

    def down(self):
        for n in self.nodes():
            n.power_off()
        if os.path.exists(self.net):
            run("umount", self.net, check=False)
        remove_cgroups("microswarm-" + self.doc["id"])
        for n in self.nodes():
            unmount_below(n.dir)
        shutil.rmtree(self.dir, ignore_errors=True)
        if os.path.exists(os.path.join(self.dir, "cluster.json")):
            raise Failure("could not remove %s" % self.dir)


def unmount_below(path):
    """Mounts that leaked out of a node would make rm descend into them."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        points = [l.split()[4] for l in f]
    for p in sorted((p for p in points if p == path or p.startswith(path + "/")), reverse=True):
        run("umount", "-l", p, check=False)


def kill_and_wait(pid, seconds=30):
    """Ends a process 1 and with it everything in its namespace; returns when all of it is gone."""
    with contextlib.suppress(ProcessLookupError), open_pidfd(pid) as fd:
        signal.pidfd_send_signal(fd.fileno(), signal.SIGKILL)
        if not select.select([fd], [], [], seconds)[0]:
            raise Failure("process %d does not go away" % pid)


@contextlib.contextmanager
def open_pidfd(pid):
    fd = os.fdopen(os.pidfd_open(pid), "rb", buffering=0)
    try:
        yield fd
    finally:
        fd.close()


# ---- cgroups: a group of our own in each hierarchy ----

def cgroup_mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        rows = [l.split(" - ") for l in f]
    mounts = [(left.split()[4], right.split()[0]) for left, right in rows if right.startswith("cgroup")]
    if any(kind == "cgroup" for _, kind in mounts):
        return [path for path, kind in mounts if kind == "cgroup"]
    return [path for path, _ in mounts[:1]]


def make_cgroups(name):
    made = []
    for top in cgroup_mounts():
        path = top
        for part in name.split("/"):
            path = os.path.join(path, part)
            os.makedirs(path, exist_ok=True)
            for f in ("cpuset.cpus", "cpuset.mems"):  # a new v1 cpuset lets nobody in before these are set
                with contextlib.suppress(OSError):
                    with open(os.path.join(os.path.dirname(path), f), encoding="ascii") as src:
                        value = src.read()
                    with open(os.path.join(path, f), "w", encoding="ascii") as dst:
                        dst.write(value)
        made.append(path)
    return made


def enter_cgroups(paths):
    for p in paths:
        with open(os.path.join(p, "cgroup.procs"), "w", encoding="ascii") as f:
            f.write("0")


def remove_cgroups(name):
    for top in cgroup_mounts():
        for path, _, _ in os.walk(os.path.join(top, name), topdown=False):
            def gone(p=path):
                try:
                    os.rmdir(p)
                except FileNotFoundError:
                    pass
                except OSError:
                    return False
                return True
            with contextlib.suppress(Failure):  # its last member may still be on its way out
                wait_until(gone, 2, path)


# ---- probes ----

def nng_probe(path, text, seconds=5):
    """One line to a daemon's probe, by the program an operator uses."""
    return run("nngcat", "--req0", "--dial", "ipc://" + path, "--data", text, "--raw",
               "--recv-timeout", str(round(seconds * SLOW * crowd())), "--recv-maxsz", "0", timeout=(seconds + 5) * SLOW)


def signal_number(sig):
    """9, "9", "KILL", "sigkill"."""
    sig = str(int(sig)) if isinstance(sig, int) else str(sig).upper().removeprefix("SIG")
    number = int(sig) if sig.isdigit() else int(getattr(signal, "SIG" + sig, 0))
    if not number and sig != "0":
        raise Failure("no such signal: " + sig)
    return number


def signal_name(status):
    if status < 0:
        return "-"
    return "signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else "exit %d" % os.WEXITSTATUS(status)


# ---- end-to-end tests ----

class Skip(Exception):
    """Raised by a test that can't run here."""


SANITIZED = bool(os.environ.get("MICROSWARM_SANITIZED"))
SLOW = 4 if SANITIZED else 1  # deadlines grow under sanitizers
DOCKERS = [d for d in ("/usr/local/bin/docker", "/usr/bin/docker") if os.access(d, os.X_OK)]


class Swarm:
    """A swarm for one test file, with the clients people use. They talk to the node `front`, m1 until a test says otherwise."""

    def __init__(self, name, **kw):
        import tempfile
        self.tmp = tempfile.mkdtemp(prefix="msw-%s-" % name)
        os.chmod(self.tmp, 0o755)
        self.home = os.path.join(self.tmp, "home")  # docker's own configuration must not leak in
        os.makedirs(self.home)
        env = {k: os.environ[k] for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "LD_LIBRARY_PATH") if k in os.environ}
        env.update(kw.pop("env", {}))
        try:
            self.cluster = Cluster.make(os.path.join(self.tmp, "c"), env=env, seconds=60 * SLOW, **kw)
        except BaseException:
            if not os.environ.get("MICROSWARM_KEEP"):
                shutil.rmtree(self.tmp, ignore_errors=True)
            raise
        self.m1 = self.front = self.cluster.node("m1")
        self.images = {}
        self.keep = set()  # names of services that outlive a test
        self.expected = set()  # (daemon, how it ended) that a test brings about itself

    # -- clients --
    @property
    def api(self):
        return self.front.api

    @contextlib.contextmanager
    def at(self, node):
        """Clients talk to this node (or its name) meanwhile."""
        was, self.front = self.front, self.cluster.node(node) if isinstance(node, str) else node
        try:
            yield self.front
        finally:
            self.front = was

    def docker_env(self, node=None):
        return dict(os.environ, HOME=self.home, DOCKER_HOST="unix://" + (node or self.front).sock)

    def docker(self, *argv, check=True, timeout=None, client=None, on=None, **kw):
        """The unmodified docker client's output; failing raises with what it said. `on`: another node than the front one."""
        client = client or (DOCKERS[0] if DOCKERS else None)
        if not client:
            raise Skip("no docker client")
        node = self.cluster.node(on) if isinstance(on, str) else on
        return run(client, *argv, check=check, timeout=timeout or 60 * SLOW, env=self.docker_env(node), **kw).strip()

    def docker_fails(self, *argv, say="", **kw):
        """The error text of a docker command that must fail; it must contain `say`."""
        try:
            out = self.docker(*argv, **kw)
        except Failure as e:
            if say and say.lower() not in str(e).lower():
                raise Failure("wrong error: %s\n  wanted: %s" % (e, say)) from None
            return str(e)
        raise Failure("docker %s: should fail, but answered: %s" % (" ".join(argv), out))

    def swarmctl(self, *argv, check=True, timeout=None, **kw):
        prog = os.path.join(self.cluster.doc["bin"], "swarmctl")
        if not os.access(prog, os.X_OK):
            raise Skip("swarmctl is not built")
        return run(prog, "-H", "unix://" + self.front.sock, *argv, check=check, timeout=timeout or 60 * SLOW, env=self.docker_env(),
                   **kw).strip()

    # -- images --
    def archive(self, kind, *options):
        """The path of a docker-archive, made once per file."""
        key = (kind,) + options
        if key not in self.images:
            path = os.path.join(self.tmp, "image%d.tar" % len(self.images))
            run(os.path.join(TESTS, "mkimage"), kind, "-o", path, *options,
                env=dict(os.environ, MICROSWARM_TOOLS=os.path.join(os.path.dirname(self.cluster.doc["bin"]), "tests")))
            self.images[key] = path
        return self.images[key]

    def load(self, kind, *options):
        """Into every node that is on; what the first one's client said."""
        said = [self.docker("load", "-q", "-i", self.archive(kind, *options), on=n) for n in self.cluster.nodes() if n.pid]
        return said[0]

    # -- services --
    def create(self, name, image, *options, args=(), client=None):
        """docker service create -d; returns the service's id. Short of patience with a process 1 that ignores SIGTERM."""
        if "--stop-grace-period" not in options:
            options += ("--stop-grace-period", "50ms")
        return self.docker("service", "create", "-d", "--no-resolve-image", "--name", name, *options, image, *args,
                           client=client).splitlines()[-1]

    def tasks(self, service, **filters):
        f = {"service": [service]}
        f.update({k: [v] for k, v in filters.items()})
        import urllib.parse
        return self.api.get("/tasks?filters=" + urllib.parse.quote(json.dumps(f)))

    def running(self, service):
        return [t for t in self.tasks(service) if t["Status"]["State"] == "running" and t["DesiredState"] == "running"]

    def wait(self, check, what, seconds=30):
        """wait_until() that looks again as soon as the store has changed."""
        with StoreEvents(self.front) as wake:
            last = [""]

            def safe():
                try:
                    last[0] = ""
                    return check()
                except (OSError, http.client.HTTPException) as e:
                    last[0] = "; %s: %s" % (type(e).__name__, e)  # apid may be on its way up
                except ApiError as e:
                    if e.status in (400, 409):
                        raise
                    last[0] = "; %s" % e  # or what it asks for on its way, or gone again
                except Failure as e:
                    last[0] = "; %s" % e
                return None
            try:
                return wait_until(safe, seconds * SLOW, what, wake)
            except Failure as e:
                raise Failure("%s%s%s" % (e, last[0], self.account())) from None

    def account(self):
        """The state of every task, for a failure's text."""
        with contextlib.suppress(Exception):
            rows = ["  %s slot %s %s/%s %s %s" % (t["ID"][:10], t.get("Slot"), t["DesiredState"], t["Status"]["State"],
                                                  t["Status"].get("Message", ""), t["Status"].get("Err", ""))
                    for t in self.api.get("/tasks")]
            return "\n" + "\n".join(rows[-30:])
        return ""

    def wait_running(self, service, n=1, seconds=30):
        def enough():
            r = self.running(service)
            return r if len(r) == n else None
        return self.wait(enough, "%s: %d tasks running" % (service, n), seconds) if n else self.wait(
            lambda: not self.running(service) or None, "%s: no task running" % service, seconds)

    def wait_state(self, service, state, seconds=30):
        """A task of the service that is in this state."""
        return self.wait(lambda: next((t for t in self.tasks(service) if t["Status"]["State"] == state), None),
                         "%s: a task %s" % (service, state), seconds)

    def inspect(self, service):
        return self.api.get("/services/" + service)

    def remove(self, *services, seconds=30):
        """Removes services and waits until none of their tasks is left."""
        for s in services:
            sid = self.inspect(s)["ID"]
            self.api.delete("/services/" + s)
            self.wait(lambda s=sid: not any(t["ServiceID"] == s for t in self.api.get("/tasks")) or None,
                      "%s: its tasks are gone" % s, seconds)

    def remove_all(self):
        kept = []
        for s in self.api.get("/services"):
            if s["Spec"]["Name"] in self.keep:
                kept.append(s["ID"])
            else:
                with contextlib.suppress(ApiError):
                    self.api.delete("/services/" + s["ID"])
        self.wait(lambda: all(t["ServiceID"] in kept for t in self.api.get("/tasks")) or None, "all tasks are gone", 40)

    def container_pid(self, task):
        """The container's first process, as a pid of the node."""
        return task["Status"]["ContainerStatus"]["PID"]

    def node_of(self, task):
        """The node that a task is on: hostnames are the cluster's names."""
        host = self.api.get("/nodes/" + task["NodeID"])["Description"]["Hostname"]
        return self.cluster.node(host)

    def in_container(self, task, *argv, check=True):
        """Runs a program of the container in all its namespaces, without any help by the swarm."""
        return self.node_of(task).sh("nsenter", "-t", str(self.container_pid(task)), "-a", "--", *argv, check=check)

    def kill_container(self, task, sig="KILL"):
        self.node_of(task).sh("kill", "-" + sig, str(self.container_pid(task)))

    def logs(self, service, *options):
        """Standard output and error, as the client tells them apart, one after the other."""
        p = subprocess.run([DOCKERS[0], "service", "logs", "--raw", *options, service], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True, errors="replace", timeout=60 * SLOW, env=self.docker_env(), check=False)
        if p.returncode:
            raise Failure("docker service logs: " + p.stderr)
        return p.stdout + p.stderr

    def http(self, url, outside=True, seconds=5):
        """A request from outside of the swarm (or from the node itself)."""
        argv = ["curl", "-sS", "--max-time", str(seconds), url]
        return run(*(self.cluster.outside(*argv) if outside else self.m1.argv(*argv)))

    # -- the end --
    def findings(self):
        """What must not be in any log: a sanitizer's report, a broken invariant, a daemon that crashed by itself."""
        bad = []
        for n in self.cluster.nodes():
            bad += ["%s %s" % (n.name, line) for line in self.findings_of(n)]
        return bad

    def findings_of(self, node):
        bad = []
        for d in node.info["daemons"]:
            text = node.logs(d)
            for m in re.finditer(r".*(ERROR: \w+Sanitizer|runtime error:|check failed|CHECK failed|Assertion).*", text):
                bad.append("%s: %s" % (d, text[m.start():m.start() + 3000]))
                break
        ends = {}
        for line in node.logs("init").splitlines():
            m = re.match(r"node_init: (\w+) ended: (signal|exit code) (\d+)", line)
            if m and m.group(2, 3) == ("exit code", "1") and "starting over" in node.logs(m.group(1)):
                continue  # nng was deaf: common/daemon/rpc_client.c
            if SANITIZED and m and m.group(2, 3) == ("exit code", "1") and "another instance is running" in node.logs(m.group(1)):
                continue  # the leak checker's helper process shares the files of one that is killed meanwhile, and its lock
            if m and m.group(2, 3) not in (("signal", "9"), ("signal", "15"), ("exit code", "0")) and (m.group(1), int(m.group(3))) not in self.expected:
                ends[line] = ends.get(line, 0) + 1
        for line, n in ends.items():
            said = [l for l in node.logs(line.split()[1]).splitlines() if re.match(r"<[0-3]>", l)]
            bad.append("%s%s%s" % (line, " (%d times)" % n if n > 1 else "", "; it said: " + said[-1] if said else ""))
        return bad

    def marks(self):
        """Where every log ends now, for what is said after it."""
        return {(n.name, d): len(n.logs(d)) for n in self.cluster.nodes() for d in n.info["daemons"]}

    def said_since(self, marks, lines=15):
        for (n, d), at in marks.items():
            text = self.cluster.node(n).logs(d)[at:].strip()
            if text:
                yield "%s %s" % (n, d), text.splitlines()[-lines:]

    def close(self):
        if os.environ.get("MICROSWARM_KEEP"):
            print("kept: MICROSWARM_CLUSTER=%s" % self.cluster.dir)
            return
        self.cluster.down()
        shutil.rmtree(self.tmp, ignore_errors=True)


class StoreEvents:
    """raftd's live feed of changes, as a stream that becomes readable with each of them."""

    def __init__(self, node):
        self.path = node.path("run", "raftd.events")

    def __enter__(self):
        self.p = subprocess.Popen(["stdbuf", "-o0", "nngcat", "--sub0", "--dial", "ipc://" + self.path, "--subscribe", "", "--raw"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return self.p.stdout

    def __exit__(self, *exc):
        self.p.kill()
        self.p.wait()
        self.p.stdout.close()


def eq(got, want, what=""):
    if got != want:
        raise Failure("%s%r, wanted %r" % (what + ": " if what else "", got, want))


def contains(text, part, what=""):
    if part not in text:
        raise Failure("%s%r is not in %r" % (what + ": " if what else "", part, text))


def settles(get, want, what, seconds=20):
    """Waits until get() is `want`: for what is on its way. Says what it is, when that does not come about."""
    last = [None]

    def same():
        try:
            last[0] = get()
        except (OSError, http.client.HTTPException, Failure) as e:
            last[0] = "%s: %s" % (type(e).__name__, e)
        return last[0] == want
    try:
        wait_until(same, seconds * SLOW, what)
    except Failure as e:
        raise Failure("%s; it is %r, wanted %r" % (e, last[0], want)) from None


def main(setup=None, make=None, **kw):
    """Runs the calling file's test_* functions in order, each with the file's swarm; words on the command line choose.
    make() gives something else than a Swarm: it needs marks(), said_since(), remove_all(), findings() and close()."""
    import __main__ as mod
    import traceback
    name = re.sub(r"^test_|\.py$", "", os.path.basename(sys.argv[0]))
    tests = [(k, f) for k, f in vars(mod).items() if k.startswith("test_") and callable(f)]
    if len(sys.argv) > 1:
        tests = [(k, f) for k, f in tests if any(w in k for w in sys.argv[1:])]
    if os.geteuid() != 0:
        print("skip %s: must be run as root" % name)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("time limit"))
    failed, swarm = 0, None
    try:
        try:
            swarm = make() if make else Swarm(name, **kw)
            if setup:
                setup(swarm)
        except Skip as e:
            print("skip %s: %s" % (name, e))
            return
        except Exception as e:  # pylint: disable=broad-except
            print("not ok %s: the swarm did not start: %s" % (name, e))
            failed = 1
            if not isinstance(e, Failure):
                traceback.print_exc(file=sys.stdout)
            tests = []
        for k, f in tests:
            t0 = time.monotonic()
            marks = swarm.marks()
            try:
                f(swarm)
                print("ok %s (%.2f s)" % (k, time.monotonic() - t0), flush=True)
            except Skip as e:
                print("skip %s: %s" % (k, e), flush=True)
            except Exception as e:  # pylint: disable=broad-except
                failed += 1
                print("not ok %s: %s" % (k, e))
                if not isinstance(e, Failure):
                    traceback.print_exc(file=sys.stdout)
                else:
                    tb = traceback.extract_tb(e.__traceback__)
                    print("  " + " < ".join("%s:%d" % (os.path.basename(x.filename), x.lineno) for x in reversed(tb)))
                for who, lines in swarm.said_since(marks):
                    print("  --- %s\n    %s" % (who, "\n    ".join(lines)))
                sys.stdout.flush()
            with contextlib.suppress(Exception):
                swarm.remove_all()
        if swarm:
            for finding in swarm.findings():
                failed += 1
                print("not ok %s: in the logs: %s" % (name, finding))
    finally:
        if swarm:
            swarm.close()
    sys.exit(1 if failed else 0)
