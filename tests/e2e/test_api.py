#!/usr/bin/python3
"""The HTTP API itself: Docker's words, specs that come back as posted, clients that come and go, and writes that are
neither lost nor doubled while raftd is killed."""

import base64
import copy
import json
import os
import socket
import sys
import threading
from urllib.parse import quote

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

JSON = {"Content-Type": "application/json"}
IMAGE = {"Image": "pause:latest"}


def setup(s):
    s.load("pause")


def spec(name, replicas=0, **task):
    return {"Name": name, "Labels": {}, "TaskTemplate": dict({"ContainerSpec": dict(IMAGE)}, **task),
            "Mode": {"Replicated": {"Replicas": replicas}}}


def create(s, body, headers=None):
    return s.api.post("/services/create", body, headers=headers or JSON)["ID"]


def update(s, name, change, query="", headers=None):
    svc = s.api.get("/services/" + name)
    body = copy.deepcopy(svc["Spec"])
    change(body)
    s.api.post("/services/%s/update?version=%d%s" % (svc["ID"], svc["Version"]["Index"], query), body,
               headers=headers or JSON)
    return s.api.get("/services/" + name)


def says(s, method, path, status, message, body=None):
    got, data, _ = s.api.raw(method, path, body, JSON)
    eq((got, json.loads(data)["message"]), (status, message))


INVALID = "rpc error: code = InvalidArgument desc = "
REFUSED = [
    ({"Limits": {"NanoCPUs": 1000}}, "Resources", 400, INVALID + "invalid cpu value 1e-06: Must be at least 0.001"),
    ({"Limits": {"MemoryBytes": 1000}}, "Resources", 400, INVALID + "invalid memory value 1000: Must be at least 4MiB"),
    ({"Condition": "bogus"}, "RestartPolicy", 400, 'invalid RestartCondition: "bogus"'),
    ({"Delay": -1}, "RestartPolicy", 400, INVALID + "TaskSpec: restart-delay cannot be negative"),
    ({"Constraints": ["node.role=worker"]}, "Placement", 500,
     "rpc error: code = Unknown desc = constraint expected one operator from ==, !="),
    ("bogus", "Runtime", 400, "unsupported runtime"),
    ([{"Target": "nosuch"}], "Networks", 500, "network nosuch not found"),
    ([{"Target": "ingress"}], "Networks", 400,
     INVALID + 'Service cannot be explicitly attached to the ingress network "ingress"'),
]


def test_dockers_words(s):
    for value, key, status, message in REFUSED:
        says(s, "POST", "/services/create", status, message, json.dumps(spec("x", **{key: value})))
    says(s, "POST", "/services/create", 400, "mismatched Runtime and *Spec fields", "{}")
    says(s, "GET", "/services/nosuch", 404, "service nosuch not found")
    says(s, "GET", "/nosuch", 404, "page not found")
    says(s, "POST", "/nodes", 404, "page not found")
    says(s, "DELETE", "/networks/bridge", 403, "bridge is a pre-defined network and cannot be removed")
    eq(s.api.get("/services"), [])


# Words that the unmodified client shows, compared with dockerd 20.10: of what is not there, and of what is not built.
ABSENT = [
    ("GET", "/containers/x/json", "No such container: x"),
    ("GET", "/containers/x/logs?stdout=1", "No such container: x"),
    ("GET", "/containers/x/top", "No such container: x"),
    ("POST", "/containers/x/start", "No such container: x"),
    ("POST", "/containers/x.1.y/stop", "No such container: x.1.y"),
    ("DELETE", "/containers/x", "No such container: x"),
    ("DELETE", "/secrets/x", "secret x not found"),
    ("POST", "/secrets/x/update?version=1", "secret x not found"),
    ("DELETE", "/configs/x", "config x not found"),
    ("GET", "/volumes/x", "get x: no such volume"),
    ("DELETE", "/volumes/x", "get x: no such volume"),
    ("DELETE", "/networks/no-x", "network no-x not found"),
    ("GET", "/images/x/json", "No such image: x:latest"),
    ("GET", "/images/x:v1/json", "No such image: x:v1"),
    ("DELETE", "/images/docker.io/library/x", "No such image: x:latest"),
    ("POST", "/images/x/tag?repo=y", "No such image: x:latest"),
    ("GET", "/images/UPPER/json",
     "no such image: UPPER: invalid reference format: repository name (UPPER) must be lowercase"),
]


def test_errors_of_json(s):
    """As Go's encoding/json says them."""
    for body, why in (("{i", "invalid character 'i' looking for beginning of object key string"),
                      ('{"Name" 1}', "invalid character '1' after object key"),
                      ('{"Name":"a" "b"}', "invalid character '\"' after object key:value pair"),
                      ("nul", "unexpected EOF"), ("[1 2]", "invalid character '2' after array element"),
                      ('{"Name":tru}', "invalid character '}' in literal true (expecting 'e')")):
        says(s, "POST", "/services/create", 400, "invalid JSON: " + why, body)
    says(s, "POST", "/services/create", 400, "unexpected content after JSON", "{} {}")


def test_words_of_a_manager(s):
    """What a swarm of one manager refuses, in Docker's words and with its codes."""
    already = 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
    token = s.api.get("/swarm")["JoinTokens"]["Worker"]
    says(s, "POST", "/swarm/init", 503, already, {"ListenAddr": "0.0.0.0:2377"})
    says(s, "POST", "/swarm/join", 503, already, {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["10.77.0.99"], "JoinToken": token})
    says(s, "POST", "/swarm/unlock", 409, "swarm is not locked", {"UnlockKey": "SWMKEY-1-" + "x" * 43})
    says(s, "POST", "/swarm/leave", 503, "You are attempting to leave the swarm on a node that is participating as a manager. "
         "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ")
    eq(s.api.get("/swarm/unlockkey"), {"UnlockKey": ""})
    node = s.api.get("/nodes")[0]
    eq((node["ManagerStatus"]["Leader"], node["ManagerStatus"]["Reachability"]), (True, "reachable"))
    eq(node["Description"]["TLSInfo"], s.api.get("/swarm")["TLSInfo"])
    worker = dict(node["Spec"], Role="worker")
    says(s, "POST", "/nodes/%s/update?version=%d" % (node["ID"], node["Version"]["Index"]), 400,
         "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm", worker)
    says(s, "POST", "/nodes/%s/update?version=%d" % (node["ID"], node["Version"]["Index"] + 9), 500,
         "rpc error: code = Unknown desc = update out of sequence", node["Spec"])
    says(s, "DELETE", "/nodes/%s?force=1" % node["ID"], 400, "rpc error: code = FailedPrecondition desc = node %s is a cluster "
         "manager and is a member of the raft cluster. It must be demoted to worker before removal" % node["ID"])
    eq(s.api.raw("POST", "/swarm/backup")[0], 400)
    eq(s.api.raw("POST", "/swarm/restore")[0], 503)
    swarm = s.api.get("/swarm")
    for hidden in ("RootCA", "TokenEpoch", "UnlockKeyEpoch", "NetworkKeys", "Rev"):
        eq((hidden in swarm, hidden in node), (False, False), hidden)
    bad = copy.deepcopy(swarm["Spec"])
    bad["CAConfig"]["SigningCACert"] = "no certificate"
    status, data, _ = s.api.raw("POST", "/swarm/update?version=%d" % swarm["Version"]["Index"], bad, JSON)
    eq((status, "rpc error: code = " in json.loads(data)["message"]), (400, True), data)
    eq(s.api.get("/swarm")["Version"], swarm["Version"])


def test_details_of_logs(s):
    """What the log driver was told to add comes with each line."""
    s.load("busybox")
    s.create("det", "busybox:latest", "--restart-condition", "none", "--log-driver", "json-file", "--log-opt", "labels=team", "--log-opt", "env=STAGE",
             "--container-label", "team=blue", "--container-label", "other=x", "--env", "STAGE=one two", "--env", "SECRET=x",
             args=("echo", "said"))
    s.wait(lambda: "said" in s.logs("det") or None, "the line")
    line = s.logs("det", "--details")
    contains(line, "STAGE=one+two,")
    contains(line, ",team=blue ")
    if "SECRET" in line or "other" in line:
        raise st.Failure("more than was asked for: " + line)
    s.remove("det")


def test_words_for_what_is_not_there(s):
    for method, path, message in ABSENT:
        says(s, method, path, 404, message, "{}" if method == "POST" else None)
    says(s, "DELETE", "/images/UPPER", 400, "invalid reference format: repository name (UPPER) must be lowercase")
    for method, path in (("POST", "/containers/prune"), ("POST", "/images/prune"), ("POST", "/volumes/prune"),
                         ("GET", "/images/pause/history"), ("GET", "/system/df")):
        got, data, _ = s.api.raw(method, path)
        eq(got, 501, path)
        contains(json.loads(data)["message"], "is not supported by this version")


def test_containers_of_tasks(s):
    body = spec("box", 1)
    body["TaskTemplate"]["ContainerSpec"].update(
        Command=["/pause"], Args=["a b", "c"], Labels={"mine": "1"}, Env=["X=1"],
        Mounts=[{"Type": "volume", "Source": "boxvol", "Target": "/v", "VolumeOptions": {"Labels": {"l": "2"}}}])
    sid = create(s, body)
    s.wait_running("box")
    task = s.running("box")[0]
    name = "box.1." + task["ID"]

    def listed(query=""):
        return [c["Names"][0] for c in s.api.get("/containers/json" + query)]

    def filtered(**f):
        return listed("?filters=" + quote(json.dumps(f)))
    one = s.api.get("/containers/json")[0]
    eq((one["Names"], one["Image"], one["Command"], one["State"]), (["/" + name], "pause:latest", "/pause 'a b' c", "running"))
    eq(one["Labels"], {"mine": "1", "com.docker.swarm.node.id": task["NodeID"], "com.docker.swarm.service.id": sid,
                       "com.docker.swarm.service.name": "box", "com.docker.swarm.task": "",
                       "com.docker.swarm.task.id": task["ID"], "com.docker.swarm.task.name": name})
    for f in ({"name": ["box"]}, {"name": ["/box.1"]}, {"label": ["mine=1"]}, {"label": ["mine"]},
              {"ancestor": ["pause"]}, {"ancestor": ["pause:latest"]}, {"ancestor": [one["ImageID"]]},
              {"status": ["running"]}, {"id": [one["Id"][:5]]}, {"is-task": ["true"]}):
        eq(filtered(**f), ["/" + name], f)
    for f in ({"name": ["nosuch"]}, {"label": ["mine=2"]}, {"ancestor": ["paus"]}, {"status": ["exited"]},
              {"is-task": ["false"]}, {"exited": ["0"]}):
        eq(filtered(**f), [], f)
    says(s, "GET", "/containers/json?filters=" + quote('{"bogus":["x"]}'), 400, "invalid filter 'bogus'")
    for ref in (one["Id"], one["Id"][:8], name):
        c = s.api.get("/containers/%s/json" % ref)
        eq((c["Id"], c["Name"], c["Path"], c["Args"]), (one["Id"], "/" + name, "/pause", ["a b", "c"]), ref)
    eq((c["State"]["Running"], c["State"]["Pid"] > 0, c["Config"]["Env"], c["Config"]["Image"]),
       (True, True, ["X=1"], "pause:latest"))
    eq([(m["Type"], m["Name"], m["Destination"], m["RW"]) for m in c["Mounts"]], [("volume", "boxvol", "/v", True)])
    says(s, "POST", "/containers/%s/stop" % name, 501, "container %s belongs to a service: change the service instead" % name)
    vols = s.api.get("/volumes")
    eq((vols["Warnings"], [(v["Name"], v["Labels"], v["Driver"]) for v in vols["Volumes"]]), (None, [("boxvol", {"l": "2"}, "local")]))
    eq(s.api.get("/volumes/boxvol"), vols["Volumes"][0])
    eq(s.api.get("/volumes?filters=" + quote('{"name":["zz"]}'))["Volumes"], [])
    s.remove("box")
    eq(listed(), [])


def test_image_names_that_were_asked_for(s):
    s.api.post("/images/pause/tag?repo=other&tag=v1", None)

    def tags(ref):
        return [i["RepoTags"] for i in s.api.get("/images/json?filters=" + quote(json.dumps({"reference": [ref]})))]
    eq(tags("other"), [["other:v1"]])
    eq(tags("oth*:v?"), [["other:v1"]])
    eq(tags("pause:latest"), [["pause:latest"]])
    eq(tags("nosuch"), [])
    s.api.delete("/images/other:v1")


def test_old_pinned_versions(s):
    """What lazydocker and others that pin 1.24 or 1.25 ask for at once."""
    for v in ("1.24", "1.25", "1.41", "1.50"):
        for path, kind in (("/containers/json", list), ("/images/json", list), ("/volumes", dict), ("/networks", list),
                           ("/info", dict), ("/services", list)):
            eq(type(s.api.get(path, version="/v" + v)), kind, v + path)
    for v, message in (("1.51", "client version 1.51 is too new. Maximum supported API version is 1.50"),
                       ("1.23", "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your "
                        "client to a newer version")):
        got, data, _ = s.api.raw("GET", "/info", version="/v" + v)
        eq((got, json.loads(data)["message"]), (400, message))


def test_spec_comes_back_as_posted(s):
    posted = {
        "Name": "full", "Labels": {"com.example.l": "1"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "pause:latest", "Labels": {"cl": "1"}, "Command": ["/pause"], "Args": ["-c", "top"],
                "Hostname": "{{.Service.Name}}-{{.Task.Slot}}", "Env": ["A=1", "B=2"], "Dir": "/tmp", "User": "0:0",
                "Groups": ["0"], "Init": True, "StopSignal": "SIGINT", "TTY": True, "ReadOnly": True,
                "Mounts": [{"Type": "volume", "Source": "vol1", "Target": "/data", "ReadOnly": True,
                            "VolumeOptions": {"NoCopy": True, "Labels": {"x": "y"}}},
                           {"Type": "tmpfs", "Target": "/tt", "TmpfsOptions": {"SizeBytes": 1000000, "Mode": 1016}}],
                "StopGracePeriod": 7000000000,
                "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5000000000, "Retries": 2},
                "Hosts": ["10.1.2.3 foo.bar"], "DNSConfig": {"Nameservers": ["8.8.8.8"], "Options": ["ndots:1"]},
                "Sysctls": {"net.core.somaxconn": "1024"}, "CapabilityAdd": ["CAP_NET_ADMIN"],
                "Ulimits": [{"Name": "nofile", "Hard": 2000, "Soft": 1000}]},
            "Resources": {"Limits": {"NanoCPUs": 500000000, "MemoryBytes": 67108864, "Pids": 50},
                          "Reservations": {"NanoCPUs": 100000000}},
            "RestartPolicy": {"Condition": "on-failure", "Delay": 2000000000, "MaxAttempts": 4, "Window": 30000000000},
            "Placement": {"Constraints": ["node.role==manager", "node.labels.zone!=west"],
                          "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}], "MaxReplicas": 2},
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}}, "ForceUpdate": 0},
        "Mode": {"Replicated": {"Replicas": 0}},
        "UpdateConfig": {"Parallelism": 3, "Delay": 1000000000, "FailureAction": "rollback", "Monitor": 4000000000,
                         "MaxFailureRatio": 0.2, "Order": "start-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 89, "PublishedPort": 8089,
                                                   "PublishMode": "ingress"}]}}
    create(s, posted)
    got = s.api.get("/services/full")["Spec"]

    def without(doc):  # what the engine fills in for every service
        doc = copy.deepcopy(doc)
        doc["TaskTemplate"].pop("Runtime", None)
        doc["TaskTemplate"]["ContainerSpec"].pop("Isolation", None)
        for m in doc["TaskTemplate"]["ContainerSpec"]["Mounts"]:
            m.get("VolumeOptions", {}).pop("DriverConfig", None)
        return doc
    eq(without(got), without(posted))
    defaults = s.api.get("/services/full?insertDefaults=true")["Spec"]
    eq(defaults["RollbackConfig"]["FailureAction"], "pause")
    s.remove("full")


def test_small_letters_and_nulls(s):
    create(s, {"name": "py", "TaskTemplate": {"ContainerSpec": {"image": "pause:latest", "Env": None}},
               "Mode": {"replicated": {"Replicas": 0}}, "Networks": None, "EndpointSpec": None})
    eq(s.api.get("/services/py")["Spec"]["Mode"], {"Replicated": {"Replicas": 0}})
    s.remove("py")


def test_updates(s):
    create(s, spec("up", 2))
    s.wait_running("up", 2)
    first = {t["ID"] for t in s.running("up")}
    says(s, "POST", "/services/up/update?version=1", 500, "rpc error: code = Unknown desc = update out of sequence",
         json.dumps(spec("up", 2)))
    says(s, "POST", "/services/up/update?version=%d&rollback=previous" % s.api.get("/services/up")["Version"]["Index"], 400,
         "rpc error: code = FailedPrecondition desc = service %s does not have a previous spec"
         % s.api.get("/services/up")["ID"], json.dumps(spec("up", 2)))
    # Scaling keeps the tasks, as Docker does, and is a step that can be undone.
    svc = update(s, "up", lambda b: b["Mode"]["Replicated"].update(Replicas=3))
    eq(svc["PreviousSpec"]["Mode"]["Replicated"]["Replicas"], 2)
    s.wait_running("up", 3)
    eq(first - {t["ID"] for t in s.running("up")}, set(), "tasks that scaling replaced")
    svc = update(s, "up", lambda b: None, "&rollback=previous")
    eq((svc["Spec"]["Mode"]["Replicated"]["Replicas"], svc["UpdateStatus"]["State"].split("_")[0]), (2, "rollback"))
    # Labels of the service are no reason to replace a task.
    before = {t["ID"] for t in s.running("up")}
    svc = update(s, "up", lambda b: b["Labels"].update(a="b"))
    eq(svc["Spec"]["Labels"], {"a": "b"})
    s.wait_running("up", 2)
    eq({t["ID"] for t in s.running("up")} - before, set(), "tasks that a label replaced")
    s.remove("up")


def test_filters_in_both_encodings(s):
    for n in ("fa", "fb", "gc"):
        create(s, dict(spec(n), Labels={"n": n}))

    def names(f):
        return sorted(x["Spec"]["Name"] for x in s.api.get("/services?filters=" + quote(json.dumps(f))))
    eq(names({"name": ["f"]}), ["fa", "fb"])
    eq(names({"name": {"f": True}}), ["fa", "fb"])
    eq(names({"name": {"fa": True, "g": True}}), ["fa", "gc"])
    eq(names({"label": ["n=gc"]}), ["gc"])
    eq(names({"label": ["n", "n=gc"]}), ["gc"])
    eq(names({"mode": ["global"]}), [])
    says(s, "GET", "/services?filters=" + quote('{"bogus":["x"]}'), 400, "invalid filter 'bogus'")
    s.remove("fa", "fb", "gc")


def test_credentials_stay_secret(s):
    auth = base64.urlsafe_b64encode(b'{"username":"u","password":"hunter2"}').decode()
    create(s, spec("sec"), dict(JSON, **{"X-Registry-Auth": auth}))
    update(s, "sec", lambda b: b["TaskTemplate"].update(ForceUpdate=1), "&registryAuthFrom=spec")
    for path in ("/services/sec", "/services", "/tasks"):
        if "hunter2" in json.dumps(s.api.get(path)) or auth in json.dumps(s.api.get(path)):
            raise st.Failure("credentials are in " + path)
    got, data, _ = s.api.raw("POST", "/services/create", json.dumps(spec("bad")), dict(JSON, **{"X-Registry-Auth": "!!"}))
    eq(got, 400)
    contains(json.loads(data)["message"], "illegal base64 data")
    s.remove("sec")


def test_tokens_rotate(s):
    before = s.api.get("/swarm")
    s.api.post("/swarm/update?version=%d&rotateWorkerToken=true" % before["Version"]["Index"], before["Spec"], headers=JSON)
    after = s.api.get("/swarm")
    if after["JoinTokens"]["Worker"] == before["JoinTokens"]["Worker"]:
        raise st.Failure("the worker token did not change")
    eq(after["JoinTokens"]["Manager"], before["JoinTokens"]["Manager"])
    eq(after["JoinTokens"]["Worker"][:60], before["JoinTokens"]["Worker"][:60], "the root's digest")


def open_stream(s, path):
    c = socket.socket(socket.AF_UNIX)
    c.settimeout(30 * st.SLOW)
    c.connect(s.m1.sock)
    c.sendall(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += c.recv(4096)
    contains(head.decode(errors="replace"), "200 OK")
    return c


def fds(s):
    return len(os.listdir("/proc/%d/fd" % s.m1.host_pid("apid")))


def test_clients_that_hang_up_are_forgotten(s):
    create(s, spec("quiet", 1))
    s.wait_running("quiet")
    streams = [open_stream(s, p) for p in ["/events", "/services/quiet/logs?stdout=1&follow=1"] * 20]
    held = fds(s)
    for c in streams:
        c.close()
    s.wait(lambda: fds(s) <= held - len(streams), "descriptors of clients that hung up are closed")
    s.remove("quiet")


def test_more_clients_than_are_served_at_once(s):
    """connections_max is 1024; the rest wait in the socket's queue and are served when others go."""
    clients = []
    for _ in range(1500):
        c = socket.socket(socket.AF_UNIX)
        c.settimeout(30 * st.SLOW)
        c.connect(s.m1.sock)
        clients.append(c)
    for c in clients[:1000]:
        c.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    for c in clients[:1000]:
        contains(c.recv(4096).decode(), "200 OK")
    late = clients.pop()
    late.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    for c in clients:
        c.close()
    contains(late.recv(4096).decode(), "200 OK")
    late.close()


def test_http_as_it_should_not_be(s):
    def talk(data):
        c = socket.socket(socket.AF_UNIX)
        c.settimeout(30 * st.SLOW)
        c.connect(s.m1.sock)
        c.sendall(data)
        c.shutdown(socket.SHUT_WR)
        out = b""
        try:
            while len(out) < 100000:
                piece = c.recv(4096)
                if not piece:
                    break
                out += piece
        except ConnectionResetError:
            pass
        c.close()
        return out.decode(errors="replace")
    head = "POST /v1.41/services/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    for bad, words in (("GET /v1.41/services/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400 Bad Request"),
                       ("PATCH /v1.41/services HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "page not found"),
                       (head + "Content-Length: -1\r\n\r\n{}", "400 Bad Request"),
                       (head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{\r\n", "400 Bad Request"),
                       (head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", "mismatched Runtime"),
                       (head + "Content-Length: 100000\r\n\r\n" + "[" * 100000, "nested more than 32 deep"),
                       ("\x16\x03\x01garbage\r\n\r\n", ""), ("GET\r\n\r\n", ""), (head + "Content-Length: 50\r\n\r\n{}", "")):
        contains(talk(bad.encode("latin-1")), words, bad[:60])
    eq(talk(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n" * 3).count("200 OK"), 3, "requests sent together")
    eq(s.api.get("/services"), [])


def test_a_client_that_does_not_read_holds_nobody_up(s):
    slow = open_stream(s, "/events")
    for i in range(400):
        create(s, spec("slow%d" % i))
        s.api.delete("/services/slow%d" % i)
    contains(s.api.raw("GET", "/_ping")[1].decode(), "OK")
    slow.close()


def test_writes_while_raftd_is_killed(s):
    """Every create is answered, with success, and makes exactly one service."""
    results, stop = {}, threading.Event()

    def writer(k):
        for i in range(80):
            name = "w%d-%d" % (k, i)
            got, data, _ = s.api.raw("POST", "/services/create", json.dumps(spec(name)), JSON)
            results[name] = (got, data)

    def killer():
        seen = 0
        while not stop.is_set():  # each time in the middle of writes: some got through since the last
            st.wait_until(lambda: stop.is_set() or len(results) >= seen + 12, 60, "writes go on")
            seen = len(results)
            s.m1.kill("raftd")
            s.m1.wait_ready()
    threads = [threading.Thread(target=writer, args=(k,)) for k in range(4)]
    kill = threading.Thread(target=killer)
    kill.start()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    stop.set()
    kill.join()
    s.m1.wait_ready()
    bad = {n: r for n, r in results.items() if r[0] != 201}
    eq(bad, {}, "creates that failed")
    names = sorted(x["Spec"]["Name"] for x in s.api.get("/services"))
    eq(names, sorted(results))
    for n in names:
        s.api.delete("/services/" + n)


if __name__ == "__main__":
    st.main(setup)
