"""The network as the store has it, and as each node has it in its kernel, its nameservers and its meshd: to be compared.

Both are texts and lists of Docker's and of the kernel's own programs (`ip`, `bridge`), meshd's probes and DNS answers."""

import concurrent.futures
import json
import os
import time

import swarmtest as st

NAMES = os.path.join(st.TESTS, "lib", "names.py")
MOVING = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running")


def plain(cidr):
    return cidr.split("/")[0]


def mac(ip):
    return "02:42:" + ":".join("%02x" % int(b) for b in ip.split("."))


class Truth:
    """What the managers say: one moment's tasks, services and networks. settled: nothing is on its way."""

    def __init__(self, api):
        self.tasks, services, nets, nodes = (api.get(p) for p in ("/tasks", "/services", "/networks", "/nodes"))
        self.names = {n["ID"]: n["Description"]["Hostname"] for n in nodes}
        self.addr = {n["ID"]: n["Status"]["Addr"] for n in nodes}
        self.nets = {n["Id"]: n for n in nets if n["Scope"] == "swarm"}
        self.ingress = next((n["Id"] for n in nets if n.get("Ingress")), None)
        self.services = {x["ID"]: x for x in services}
        self.live = [t for t in self.tasks if t["DesiredState"] == "running" and t["Status"]["State"] == "running"]
        live = {t["ID"] for t in self.live}
        up = {n["ID"] for n in nodes if n["Status"]["State"] == "ready"}
        # Those that are told to stop: they get nothing new from anybody; until they have stopped they can still be reached.
        self.draining = [t for t in self.tasks if t["ID"] not in live and t["Status"]["State"] == "running"
                         and t["DesiredState"] != "running" and t.get("NodeID") in up]
        drain = {t["ID"] for t in self.draining}
        self.unsettled = ["%s %s/%s on %s" % (t["ID"], t["DesiredState"], t["Status"]["State"], self.names.get(t.get("NodeID")))
                          for t in self.tasks if t["ID"] not in live | drain and t["Status"]["State"] in MOVING
                          and (t.get("NodeID") in up or t["DesiredState"] == "running")]
        want = {s["ID"]: s["Spec"]["Mode"]["Replicated"]["Replicas"] for s in services}
        for sid, n in want.items():
            have = sum(t["ServiceID"] == sid for t in self.live)
            if have != n:
                self.unsettled.append("%s: %d of %d" % (self.services[sid]["Spec"]["Name"], have, n))
        self.revisions = sorted((t["ID"], t["DesiredState"], t["Status"]["State"]) for t in self.tasks)

    def on(self, task, net):
        return [plain(a) for x in task.get("NetworksAttachments") or [] if x["Network"]["ID"] == net for a in x["Addresses"]]

    def backends(self, service, net):
        return sorted(a for t in self.live if t["ServiceID"] == service for a in self.on(t, net))

    def of(self, node):
        """Everything that this node should have."""
        nid = next(k for k, v in self.names.items() if v == node)
        here = [t for t in self.live if t["NodeID"] == nid]
        overlays = sorted({x["Network"]["ID"] for t in here for x in t.get("NetworksAttachments") or []} - {self.ingress})
        want = {"vips": {}, "kernel": {}, "ports": {}, "dns": {}}
        for t in here:
            mine = {x["Network"]["ID"] for x in t.get("NetworksAttachments") or []} - {self.ingress}
            if not mine:
                continue
            vips, dns = {}, {}
            for sid, s in self.services.items():
                for v in s["Endpoint"].get("VirtualIPs") or []:
                    if v["NetworkID"] in mine:
                        vips[plain(v["Addr"])] = self.backends(sid, v["NetworkID"])
                        dns[s["Spec"]["Name"]] = [plain(v["Addr"])]
                        dns["tasks." + s["Spec"]["Name"]] = self.backends(sid, v["NetworkID"])
            want["vips"][t["ID"]] = vips
            want["dns"][t["ID"]] = dns
        for net in overlays:
            far = [(a, t) for t in self.live if t["NodeID"] != nid for a in self.on(t, net)]
            want["kernel"][net] = {"neighbours": sorted((a, mac(a)) for a, _ in far),
                                   "forwarding": sorted((mac(a), self.addr[t["NodeID"]]) for a, t in far)}
        for sid, s in self.services.items():
            for p in s["Endpoint"].get("Ports") or []:
                if p.get("PublishMode", "ingress") == "ingress":
                    want["ports"]["%s/%d" % (p["Protocol"], p["PublishedPort"])] = sorted(
                        "%s:%d" % (a, p["TargetPort"]) for a in self.backends(sid, self.ingress))
        return want

    def allowed(self, got):
        """What a node has, without what it may have or not: tasks that are about to stop."""
        nets = {n for t in self.draining for n in (x["Network"]["ID"] for x in t.get("NetworksAttachments") or [])}
        addrs = {n: {a for t in self.draining for a in self.on(t, n)} for n in nets}
        for t in self.draining:
            got["vips"].pop(t["ID"], None)
        for net, k in got["kernel"].items():
            gone = addrs.get(net, set())
            k["neighbours"] = [x for x in k["neighbours"] if x[0] not in gone]
            k["forwarding"] = [x for x in k["forwarding"] if x[0] not in {mac(a) for a in gone}]
        return got


def ns(node, path, *argv):
    return node.sh("nsenter", "--net=" + path, "--", *argv)


def kernel(node, net):
    """Forwarding and neighbours of one network's VXLAN device, as `ip` and `bridge` print them."""
    path = "/run/microswarm/overlay/" + net
    neigh = json.loads(ns(node, path, "ip", "-j", "-4", "neigh", "show", "dev", "vx0", "nud", "permanent") or "[]")
    fdb = json.loads(ns(node, path, "bridge", "-j", "fdb", "show", "dev", "vx0") or "[]")
    return {"neighbours": sorted((n["dst"], n["lladdr"]) for n in neigh),
            "forwarding": sorted((f["mac"], f["dst"]) for f in fdb if f.get("dst"))}


def names_of(node, questions):
    """{task: {name: addresses}} of {task: names}: what these containers are told. A name that the swarm does not know is not in it: it
    is for the nameserver outside, who is not there."""
    pins = {"/run/microswarm/netns/" + t: [[n, "A", {"seconds": 5 * st.SLOW}] for n in names] for t, names in questions.items()}
    got = json.loads(node.sh("/usr/bin/python3", NAMES, "in", json.dumps(pins)))
    return {t: {n: sorted(r["answers"]) if r["code"] == "ok" else r["code"]
                for n, r in zip(names, got["/run/microswarm/netns/" + t]) if r["code"] not in ("nxdomain", "servfail")}
            for t, names in questions.items()}


def seen(node, want, ever=()):
    """What this node has, in the form of Truth.of(). `ever`: names that are to be asked for, too."""
    vips = json.loads(node.probe("meshd", "vips"))
    got = {"vips": {sb["task"]: {v: sorted(b) for v, b in sb["vips"].items()} for sb in vips}, "kernel": {}, "ports": {}, "dns": {}}
    odd = [sb for sb in vips if sb["differences"] or not sb["intact"]]
    for net in json.loads(node.probe("meshd", "overlay")):
        if not net["tasks"]:
            continue  # kept for some seconds after its last task
        got["kernel"][net["network"]] = kernel(node, net["network"])
        odd += [net] if net["differences"] or net.get("error") else []
    for p in json.loads(node.probe("meshd", "ports")):
        got["ports"][p["port"]] = sorted(set(p["tasks"]))
    if not json.loads(node.probe("meshd", "rules"))["intact"]:
        odd.append("rules")
    got["dns"] = names_of(node, {t: sorted(set(names) | set(ever)) for t, names in want["dns"].items() if t in got["vips"]})
    if odd:
        got["odd"] = odd
    return got


def difference(want, got, path=""):
    """The first few differences, as text."""
    if isinstance(want, dict) and isinstance(got, dict):
        return [d for k in sorted(set(want) | set(got)) for d in difference(want.get(k), got.get(k), "%s/%s" % (path, k[:12]))][:6]
    return [] if want == got else ["%s: wanted %r, is %r" % (path, want, got)]


def compare(api, nodes, ever=()):
    """[] when all these nodes have exactly what the store has, and nothing of it changed while they were read."""
    before = Truth(api)
    if before.unsettled:
        return ["store: " + x for x in before.unsettled[:4]]

    def look(n):
        want = before.of(n.name)
        try:
            return ["%s%s" % (n.name, d) for d in difference(want, before.allowed(seen(n, want, ever)))]
        except (st.Failure, ValueError, OSError) as e:
            return ["%s: %s" % (n.name, e)]
    with concurrent.futures.ThreadPoolExecutor(len(nodes)) as pool:
        found = [d for some in pool.map(look, nodes) for d in some]
    if Truth(api).revisions != before.revisions:
        return ["the store has changed meanwhile"]
    return found


def wait_same(s, nodes, what, seconds=30, ever=()):
    """Until compare() finds nothing; how many seconds it was until then (reading all of it takes a while, too: that is not in it)."""
    t0, last, began = time.monotonic(), [None], [0]

    def same():
        began[0] = time.monotonic() - t0
        try:
            last[0] = compare(s.api, nodes, ever)
        except (OSError, st.ApiError) as e:
            last[0] = ["no answer of the API: %s" % e]
        if os.environ.get("MICROSWARM_TRACE"):
            print("#   %.1f to %.1f s: %s" % (began[0], time.monotonic() - t0, "; ".join(last[0])[:400]), flush=True)
        return last[0] == []
    try:
        st.wait_until(same, seconds * st.SLOW, what)
    except st.Failure as e:
        raise st.Failure("%s; %s" % (e, "; ".join(last[0] or []))) from None
    return began[0]


def leads_to(node):
    """Every address that new connections of this node may be sent to: of services in containers, and of published ports."""
    got = {a for sb in json.loads(node.probe("meshd", "vips")) for b in sb["vips"].values() for a in b}
    return got | {t.rsplit(":", 1)[0] for p in json.loads(node.probe("meshd", "ports")) for t in p["tasks"]}
