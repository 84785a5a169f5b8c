#!/usr/bin/python3
"""Secrets and configs: what the clients see, what containers find, and where a secret must never be found."""

import base64
import json
import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
import wire  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

# Those that keep secrets: they are in the secret map and in the log of every manager.
KEEPERS = ("raftd", "dispatcherd", "cad")


def setup(s):
    s.load("busybox")


def put(s, kind, name, data, *options):
    """A secret or config by the docker client; its id."""
    path = os.path.join(s.tmp, "payload")
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    out = s.docker(kind, "create", *options, name, path)
    os.unlink(path)
    return out.splitlines()[-1]


def up(s, name, *options, n=1, args=("sleep", "100000")):
    s.create(name, "busybox:latest", "--replicas", str(n), *options, args=args)
    return s.wait_running(name, n)


def sh(s, task, script):
    return s.in_container(task, "/bin/sh", "-c", script).strip()


# ---- looking for a text on a node ----

def files_with(root, needle, skip=()):
    """The files below root that hold the text, whatever file systems are mounted there."""
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if any(x in path for x in skip) or not os.path.isfile(path) or os.path.islink(path):
                continue
            try:
                if needle in sparse(path, needle):
                    found.append(path[len(root):])
            except OSError:
                continue
    return found


def sparse(path, needle):
    """The needle when the file has it, else nothing; holes are left out."""
    with open(path, "rb", buffering=0) as f:
        size, at = os.fstat(f.fileno()).st_size, 0
        while at < size:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                return b""
            end = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            tail = b""
            while at < end:
                os.lseek(f.fileno(), at, os.SEEK_SET)
                piece = f.read(min(1 << 20, end - at))
                if not piece:
                    return b""
                if needle in tail + piece:
                    return needle
                tail = piece[-len(needle):]
                at += len(piece)
    return b""


def in_memory(pid, needle):
    """The mappings of a process that hold the text; those of the maps of the store are files, and looked at as such."""
    found = []
    try:
        with open("/proc/%d/maps" % pid) as f:
            maps = f.readlines()
        mem = open("/proc/%d/mem" % pid, "rb", buffering=0)
    except OSError:
        return []
    with mem:
        for line in maps:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) (r)\S+ \S+ \S+ \d+\s*(.*)", line)
            if not m or m.group(4).endswith(".mdb") or m.group(4) in ("[vvar]", "[vsyscall]"):
                continue
            at, end, tail = int(m.group(1), 16), int(m.group(2), 16), b""
            while at < end:
                try:
                    mem.seek(at)
                    piece = mem.read(min(1 << 20, end - at))
                except (OSError, ValueError, OverflowError):
                    break
                if not piece:
                    break
                if needle in tail + piece:
                    found.append(m.group(4) or "anonymous")
                    break
                tail = piece[-len(needle):]
                at += len(piece)
    return found


def search(node, needle, daemons=None, skip_files=()):
    """Everywhere on a node: disk, run folder, every process of ours."""
    needle = needle.encode()
    found = []
    for d in () if st.SANITIZED else daemons or node.info["daemons"]:  # its shadow is terabytes, and it keeps what was freed
        pid = node.host_pid(d)
        if pid:
            found += ["%s: memory of %s: %s" % (node.name, d, x) for x in in_memory(pid, needle)]
    root = "/proc/%d/root" % node.host_pid("agentd")
    for folder in ("/var/lib/microswarm", "/run/microswarm"):
        found += ["%s: file %s%s" % (node.name, folder, x) for x in files_with(root + folder, needle, skip_files)]
    return found


def marker():
    return "S3CRET-" + os.urandom(12).hex()


# ---- the clients ----

def test_secrets_of_the_docker_client(s):
    sid = put(s, "secret", "pw", "hunter2", "--label", "team=a")
    row = s.docker("secret", "ls", "--format", "{{.ID}} {{.Name}} {{.Driver}}|{{.Labels}}")
    eq(row, "%s pw |team=a" % sid)
    doc = json.loads(s.docker("secret", "inspect", "pw"))[0]
    eq((doc["ID"], doc["Spec"]), (sid, {"Name": "pw", "Labels": {"team": "a"}}))
    contains(s.docker("secret", "inspect", "--pretty", "pw"), "team=a")
    for key, value, want in (("name", "p", True), ("name", "q", False), ("label", "team=a", True), ("label", "team=b", False),
                             ("id", sid[:5], True)):
        eq(s.docker("secret", "ls", "-q", "--filter", "%s=%s" % (key, value)) == sid, want, "%s=%s" % (key, value))
    s.docker_fails("secret", "create", "pw", "/etc/hostname", say="rpc error: code = AlreadyExists desc = secret pw already exists")
    s.docker_fails("secret", "create", "a b", "/etc/hostname",
                   say="invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]")
    s.docker_fails("secret", "inspect", "nosuch", say="secret nosuch not found")
    s.docker_fails("secret", "create", "-d", "vault", "byvault", say="plugin \"vault\" not found")
    s.docker("secret", "rm", "pw")
    s.docker_fails("secret", "rm", "pw", say="secret pw not found")


def test_configs_are_given_back_as_they_are(s):
    blob = bytes(range(256)) * 100
    cid = put(s, "config", "blob", blob, "--label", "k=v", "--template-driver", "golang")
    doc = s.api.get("/configs/blob")
    eq((doc["ID"], base64.b64decode(doc["Spec"]["Data"]), doc["Spec"]["Templating"]["Name"]), (cid, blob, "golang"))
    s.docker_fails("config", "create", "blob", "/etc/hostname", say="config blob already exists")
    s.docker("config", "rm", "blob")
    s.docker_fails("config", "inspect", "blob", say="config blob not found")


def refused(s, path, body):
    try:
        s.api.post(path, body)
    except st.ApiError as e:
        return e.status, str(e)
    raise st.Failure("%s was taken: %s" % (path, str(body)[:200]))


def test_sizes_and_nonsense(s):
    for kind, limit in (("secret", 512000), ("config", 1024000)):
        text = "%s data must be larger than 0 and less than %d bytes" % (kind, limit)
        for data in (b"x" * limit, b""):
            got = refused(s, "/%ss/create" % kind, {"Name": "big", "Data": base64.b64encode(data).decode()})
            eq(got[0], 400)
            contains(got[1], text)
        s.api.post("/%ss/create" % kind, {"Name": "big", "Data": base64.b64encode(b"x" * (limit - 1)).decode()})
        s.api.delete("/%ss/big" % kind)
        for body, say in (({"Name": "x", "Data": "%%%"}, "illegal base64"), ({"Data": "eA=="}, "name must be provided"),
                          ({"Name": "y" * 65, "Data": "eA=="}, "invalid name"), ({"Name": "x", "Data": 5}, "Data"),
                          ({"Name": "x", "Data": "eA==", "Templating": {"Name": "jinja"}}, "Templating.Name: must be golang")):
            got = refused(s, "/%ss/create" % kind, body)
            eq(got[0], 400, str(body)[:60])
            contains(got[1], say)
    eq(s.api.get("/secrets"), [])
    eq(s.api.get("/configs"), [])


def test_only_labels_can_be_updated(s):
    for kind in ("secret", "config"):
        body = {"Name": "u", "Labels": {"a": "1"}, "Data": base64.b64encode(b"same").decode()}
        oid = s.api.post("/%ss/create" % kind, body)["ID"]

        def update(new, version=None, ref=None):
            v = version if version is not None else s.api.get("/%ss/%s" % (kind, oid))["Version"]["Index"]
            return s.api.post("/%ss/%s/update?version=%s" % (kind, ref or oid, v), new)
        for new, ref in ((dict(body, Labels={"b": "2"}), None), ({"Name": "u", "Labels": {"b": "3"}}, "u"),
                         ({"Name": "u", "Labels": {}}, oid[:6])):
            update(new, ref=ref)
            eq(s.api.get("/%ss/u" % kind)["Spec"]["Labels"], new["Labels"], kind)
        for new in (dict(body, Data=base64.b64encode(b"other").decode()), dict(body, Name="v")):
            try:
                update(new)
                raise st.Failure("%s: taken: %s" % (kind, new))
            except st.ApiError as e:
                eq(e.status, 400)
                contains(str(e), "only updates to Labels are allowed")
        for version, status, say in (("x", 400, "invalid %s version" % kind), (1, 500, "update out of sequence")):
            try:
                update(body, version=version)
                raise st.Failure("%s: taken with version %s" % (kind, version))
            except st.ApiError as e:
                eq(e.status, status)
                contains(str(e), say)
        s.api.delete("/%ss/u" % kind)


def test_pydocker(s):
    try:
        import docker
        from docker.types import ConfigReference, SecretReference
    except ImportError:
        raise st.Skip("no python3-docker") from None
    c = docker.DockerClient(base_url="unix://" + s.m1.sock, version="auto")
    secret = c.secrets.create(name="pysec", data="ünïcode".encode(), labels={"x": "y"})
    config = c.configs.create(name="pyconf", data=b"port=80\n")
    eq([x.name for x in c.secrets.list(filters={"name": "pysec"})], ["pysec"])
    eq(c.configs.get(config.id).attrs["Spec"]["Data"], base64.b64encode(b"port=80\n").decode())
    svc = c.services.create("busybox:latest", ["sleep", "100000"], name="py", secrets=[SecretReference(secret.id, "pysec")],
                            configs=[ConfigReference(config.id, "pyconf", filename="/etc/py.conf", mode=0o640)])
    t = s.wait_running("py")[0]
    eq(sh(s, t, "cat /run/secrets/pysec; stat -c %a /etc/py.conf; cat /etc/py.conf"), "ünïcode640\nport=80")
    try:
        secret.remove()
        raise st.Failure("removed while in use")
    except docker.errors.APIError as e:
        contains(str(e), "is in use by the following service: py")
    svc.remove()
    secret.remove()
    config.remove()
    c.close()


# ---- in containers ----

def test_files_owners_and_modes(s):
    put(s, "secret", "a", "alpha")
    put(s, "secret", "b", "beta\n")
    put(s, "config", "c", b"\x00\x01bin")
    t = up(s, "files", "--secret", "a", "--secret", "source=b,target=sub/b,uid=1000,gid=1001,mode=0400",
           "--secret", "source=b,target=/etc/abs,mode=0777", "--secret", "source=a,target=../up",
           "--config", "source=c,target=/conf/c,mode=0755", "--config", "c")[0]
    eq(sh(s, t, "cd /run/secrets && cat a sub/b ../up /etc/abs"), "alphabeta\nalphabeta")
    for path, want in (("/run/secrets/a", "0 0 444"), ("/run/secrets/sub/b", "1000 1001 400"), ("/etc/abs", "0 0 777"),
                       ("/run/up", "0 0 444"), ("/conf/c", "0 0 755"), ("/c", "0 0 444")):
        eq(sh(s, t, "stat -c '%%u %%g %%a' %s" % path), want, path)
        contains(sh(s, t, "grep ' %s ' /proc/mounts" % path), "tmpfs")
    eq(sh(s, t, "od -An -tx1 /c").split(), ["00", "01", "62", "69", "6e"])
    contains(sh(s, t, "echo x 2>&1 > /run/secrets/a || echo x > /c || true; (echo y > /conf/c) 2>&1 || true"), "Read-only file system")
    s.remove("files")
    for kind, name in (("secret", "a"), ("secret", "b"), ("config", "c")):
        s.docker(kind, "rm", name)


def test_in_use_and_what_is_missing(s):
    sid = put(s, "secret", "used", "x")
    cid = put(s, "config", "cused", "x")
    up(s, "u2", "--secret", "used", "--config", "cused")
    s.docker_fails("secret", "rm", "used", say="rpc error: code = InvalidArgument desc = secret 'used' is in use by the following service: u2")
    up(s, "u1", "--secret", "used")
    s.docker_fails("secret", "rm", "used", say="secret 'used' is in use by the following services: u1, u2")
    s.docker_fails("config", "rm", "cused", say="config 'cused' is in use by the following service: u2")
    spec = s.inspect("u1")["Spec"]
    ref = spec["TaskTemplate"]["ContainerSpec"]["Secrets"][0]
    spec["Name"] = "u3"
    for refs, say in (([dict(ref, SecretID="nosuch", SecretName="gone")], "secret not found: gone"),
                      ([dict(ref, SecretID="n1", SecretName="g1"), dict(ref, SecretID="n2", SecretName="g2", File=dict(ref["File"], Name="z"))],
                       "secrets not found: g1, g2"),
                      ([ref, dict(ref, SecretName="other")], "secret references 'used' and 'other' have a conflicting target: 'used'"),
                      ([dict(ref, File=dict(ref["File"], Name=""))], "malformed secret reference, no target provided")):
        spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = refs
        got = refused(s, "/services/create", spec)
        eq(got[0], 400)
        contains(got[1], say)
    s.remove("u1", "u2")
    s.api.delete("/secrets/" + sid)
    s.api.delete("/configs/" + cid)


def test_a_secret_is_removed_while_a_service_asks_for_it(s):
    """Either the service is refused, or the removal is: a service never refers to nothing."""
    for i in range(12):
        sid = put(s, "secret", "race", "x")
        ref = [{"SecretID": sid, "SecretName": "race", "File": {"Name": "race", "UID": "0", "GID": "0", "Mode": 292}}]
        body = {"Name": "race", "Mode": {"Replicated": {"Replicas": 0}},
                "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Secrets": ref}}}
        outcome, go = {}, threading.Barrier(2)

        def attempt(what, call, outcome=outcome, go=go):
            go.wait()
            try:
                call(st.Api(s.m1.sock))
                outcome[what] = "done"
            except st.ApiError as e:
                outcome[what] = str(e)
        threads = [threading.Thread(target=attempt, args=("create", lambda a, body=body: a.post("/services/create", body))),
                   threading.Thread(target=attempt, args=("remove", lambda a, sid=sid: a.delete("/secrets/" + sid)))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        eq(sorted(v == "done" for v in outcome.values()), [False, True], "round %d: %s" % (i, outcome))
        if outcome["create"] == "done":
            contains(outcome["remove"], "in use")
            s.remove("race")
            s.docker("secret", "rm", "race")
        else:
            contains(outcome["create"], "secret not found: race")


def test_templates(s):
    put(s, "secret", "db", "geheim")
    put(s, "config", "plain", "as {{.It}} is")
    put(s, "config", "tmpl", "{{.Service.Name}} {{.Task.Slot}} {{.Node.Hostname}} {{index .Service.Labels \"tier\"}} {{env \"MODE\"}} "
        "{{secret \"dbpw\"}}{{if eq .Task.Slot \"1\"}} first{{end}}", "--template-driver", "golang")
    put(s, "secret", "stmpl", "url=db://{{secret \"dbpw\"}}@{{config \"/plain\"}}", "--template-driver", "golang")
    t = up(s, "tm", "--label", "tier=gold", "--env", "MODE=m-{{.Task.Slot}}", "--hostname", "{{.Service.Name}}-{{.Task.Slot}}",
           "--mount", "type=volume,source=v-{{.Service.Name}}-{{.Task.Slot}},target=/data/{{.Task.Slot}}",
           "--secret", "source=db,target=dbpw", "--secret", "stmpl", "--config", "source=plain,target=/plain",
           "--config", "source=tmpl,target=/templated_config")[0]
    host = s.node_of(t).name
    eq(sh(s, t, "cat /templated_config"), "tm 1 %s gold m-1 geheim first" % host)
    eq(sh(s, t, "cat /run/secrets/stmpl"), "url=db://geheim@as {{.It}} is")
    eq(sh(s, t, "cat /plain"), "as {{.It}} is")
    eq(sh(s, t, "hostname; grep -c ' /data/1 ' /proc/mounts"), "tm-1\n1")
    s.remove("tm")
    # What cannot be expanded: on the API where it can be known, on the task where it cannot.
    why = "template: expansion:1:2: executing \"expansion\" at <.Foo>: can't evaluate field Foo in type *template.Context"
    for option, value, what in (("--hostname", "{{.Foo}}", "hostname failed: "), ("--env", "X={{.Foo}}", "env failed: expanding env \"X={{.Foo}}\": "),
                                ("--mount", "type=volume,source={{.Foo}},target=/x", "mounts failed: expanding mount source \"{{.Foo}}\": ")):
        s.docker_fails("service", "create", "-d", "--no-resolve-image", option, value, "busybox:latest", say="rpc error: code = InvalidArgument desc = expanding " + what + why)
    put(s, "secret", "bad", "top-secret {{secret \"nope\"}}", "--template-driver", "golang")
    put(s, "secret", "worse", "zz {{top-secret", "--template-driver", "golang")
    put(s, "config", "badc", "{{.Foo}}", "--template-driver", "golang")
    for kind, name, say in (("secret", "bad", "failed to expand templated secret bad: template: expansion:1:13: error calling secret: secret target nope not found"),
                            ("secret", "worse", "failed to expand templated secret worse: template: expansion:1: it cannot be parsed"),
                            ("config", "badc", "failed to expand templated config badc: template: expansion:1:2: executing \"expansion\" at <.Foo>: can't "
                             "evaluate field Foo in type *template.PayloadContext")):
        s.create("tmbad", "busybox:latest", "--restart-condition", "none", "--" + kind, name, args=("sleep", "100000"))
        t = s.wait_state("tmbad", "rejected")
        eq(t["Status"]["Err"], say)
        eq("top-secret" in json.dumps(t), False, "a secret in a task's status")
        s.remove("tmbad")
    for kind, names in (("secret", ("db", "stmpl", "bad", "worse")), ("config", ("plain", "tmpl", "badc"))):
        s.docker(kind, "rm", *names)


def test_an_update_brings_another_secret(s):
    put(s, "secret", "one", "1")
    put(s, "secret", "two", "2")
    up(s, "upd", "--secret", "source=one,target=key")
    s.docker("service", "update", "-d", "--secret-rm", "one", "--secret-add", "source=two,target=key", "upd")

    def second():
        r = s.running("upd")
        return len(r) == 1 and r[0] if r and [x["SecretName"] for x in r[0]["Spec"]["ContainerSpec"]["Secrets"]] == ["two"] else None
    eq(sh(s, s.wait(second, "the task with the second secret"), "cat /run/secrets/key"), "2")
    s.docker("secret", "rm", "one")
    s.docker_fails("service", "rollback", "-d", "upd", say="secret not found: one")
    s.remove("upd")
    s.docker("secret", "rm", "two")


def test_events(s):
    since = str(time.time())
    oid = put(s, "secret", "ev", "x")
    v = s.api.get("/secrets/ev")["Version"]["Index"]
    s.api.post("/secrets/ev/update?version=%d" % v, {"Name": "ev", "Labels": {"n": "1"}})
    s.wait(lambda: len(told(s, since)) == 2 or None, "the events of its creation and update")
    s.api.delete("/secrets/ev")
    st.settles(lambda: told(s, since), ["%s secret %s ev" % (a, oid) for a in ("create", "update", "remove")], "events")


def told(s, since):
    return s.docker("events", "--since", since, "--until", str(time.time()), "--filter", "type=secret", "--format",
                    "{{.Action}} {{.Type}} {{.Actor.ID}} {{.Actor.Attributes.name}}").splitlines()


# ---- swarmctl ----

def test_swarmctl_s_commands(s):
    sid = s.swarmctl("secret", "create", "--label", "a=b", "sw", "-", input="from stdin")
    eq(s.api.get("/secrets/" + sid)["Spec"], {"Name": "sw", "Labels": {"a": "b"}})
    contains(s.swarmctl("secret", "ls"), "DRIVER")
    eq(s.swarmctl("secret", "ls", "--format", "{{.Name}} {{.Labels}}", "--filter", "label=a"), "sw a=b")
    eq(s.swarmctl("secret", "ls", "-q", "--filter", "name=nosuch"), "")
    eq(json.loads(s.swarmctl("secret", "inspect", "sw"))[0]["ID"], sid)
    path = os.path.join(s.tmp, "cf")
    with open(path, "w") as f:
        f.write("port=80\n")
    s.swarmctl("config", "create", "--template-driver", "golang", "swc", path)
    # What docker prints for people, letter for letter.
    for kind, name in (("secret", "sw"), ("config", "swc")):
        eq(s.swarmctl(kind, "inspect", "--pretty", name), s.docker(kind, "inspect", "--pretty", name), kind)
    eq(fails(s, "secret", "create", "sw", "-", input="x"), "rpc error: code = AlreadyExists desc = secret sw already exists")
    eq(s.swarmctl("config", "rm", "swc"), "swc")
    t = s.swarmctl("service", "create", "-d", "--no-resolve-image", "--name", "sws", "--stop-grace-period", "50ms",
                   "--secret", "source=sw,target=x,uid=7,gid=8,mode=0400", "busybox:latest", "sleep", "100000")
    eq(bool(t), True)
    eq(sh(s, s.wait_running("sws")[0], "cat /run/secrets/x; stat -c '%u %g %a' /run/secrets/x"), "from stdin7 8 400")
    s.swarmctl("service", "update", "-d", "--no-resolve-image", "--secret-rm", "sw", "sws")
    eq(s.inspect("sws")["Spec"]["TaskTemplate"]["ContainerSpec"].get("Secrets") or [], [])
    s.remove("sws")
    eq(s.swarmctl("secret", "rm", "sw"), "sw")


def fails(s, *argv, **kw):
    try:
        out = s.swarmctl(*argv, **kw)
    except st.Failure as e:
        return re.sub(r"(?s)^.*?Error response from daemon: ", "", str(e)).strip()
    raise st.Failure("swarmctl %s: should fail, but answered: %s" % (" ".join(argv), out))


def contents(s, service, path="/run/secrets/key"):
    return sorted(sh(s, t, "cat " + path) for t in s.running(service))


QUICK = ("--update-monitor", "100ms", "--update-delay", "0s", "--update-parallelism", "2")


def test_rotate(s):
    put(s, "secret", "tok", "old", "--label", "team=a")
    put(s, "secret", "tok.vx", "another")
    up(s, "r1", *QUICK, "--secret", "source=tok,target=key", n=2)
    up(s, "r2", *QUICK, "--secret", "source=tok,target=key", "--secret", "source=tok,target=twice")
    up(s, "r3", "--secret", "source=tok.vx,target=key")
    out = s.swarmctl("secret", "rotate", "tok", "-", input="new")
    for line in ("created tok.v2", "service r1", "service r2", "removed tok"):
        contains(out, line)
    eq((contents(s, "r1"), contents(s, "r2"), contents(s, "r3")), (["new", "new"], ["new"], ["another"]))
    eq(contents(s, "r2", "/run/secrets/twice"), ["new"])
    eq(s.docker("secret", "ls", "--format", "{{.Name}}").split(), ["tok.v2", "tok.vx"])
    eq(s.api.get("/secrets/tok.v2")["Spec"]["Labels"], {"team": "a", "microswarm.version-of": "tok"})
    # The name goes on to mean it: for another rotation, for a new service, and to take it away.
    nid = s.swarmctl("secret", "rotate", "-q", "tok", "-", input="newer")
    eq(s.api.get("/secrets/tok.v3")["ID"], nid)
    eq((contents(s, "r1"), contents(s, "r2")), (["newer", "newer"], ["newer"]))
    s.swarmctl("service", "create", "-d", "--no-resolve-image", "--name", "r4", "--stop-grace-period", "50ms", "--secret", "tok",
               "busybox:latest", "sleep", "100000")
    s.wait_running("r4")
    eq(contents(s, "r4", "/run/secrets/tok"), ["newer"])
    s.swarmctl("service", "update", "-d", "--no-resolve-image", "--secret-rm", "tok", "r4")
    eq(s.inspect("r4")["Spec"]["TaskTemplate"]["ContainerSpec"].get("Secrets") or [], [])
    contains(fails(s, "secret", "rotate", "nosuch", "-", input="x"), "secret not found: nosuch")
    s.remove("r1", "r2", "r3", "r4")
    s.docker("secret", "rm", "tok.v3", "tok.vx")


def test_rotate_a_config_and_stop_at_one_that_does_not_take_it(s):
    put(s, "config", "conf", "good")
    check = "grep -q good /run/conf && exec sleep 100000"
    up(s, "c1", *QUICK, "--update-failure-action", "pause", "--restart-condition", "none", "--config", "source=conf,target=/run/conf",
       args=("sh", "-c", check))
    said = fails(s, "config", "rotate", "conf", "-", input="bad")
    contains(said, "nothing was removed: conf and conf.v2 are both there")
    contains(said, "config rm conf.v2")
    eq(s.docker("config", "ls", "--format", "{{.Name}}").split(), ["conf", "conf.v2"])
    # What it says can be done works: back ...
    s.swarmctl("service", "rollback", "-d", "c1")
    s.wait(lambda: contents(s, "c1", "/run/conf") == ["good"] or None, "c1 has its old config")
    s.swarmctl("config", "rm", "conf.v2")
    # ... and on, with content that it likes.
    s.swarmctl("config", "rotate", "conf", "-", input="as good as new")
    eq(contents(s, "c1", "/run/conf"), ["as good as new"])
    eq(s.docker("config", "ls", "--format", "{{.Name}}").split(), ["conf.v2"])
    s.remove("c1")
    s.docker("config", "rm", "conf.v2")


# ---- where a secret is, and where it is not ----

def others(s, needle, but=()):
    """Findings on nodes that have nothing to do with the secret; of managers, what only keepers may hold is left out."""
    found = []
    for n in s.cluster.nodes():
        if n.name in but:
            continue
        if n.name.startswith("m"):
            rest = [d for d in n.info["daemons"] if d not in KEEPERS and d not in ("apid", "gatewayd")]
            found += search(n, needle, rest, ("/run/microswarm/secret/",))
        else:
            found += search(n, needle)
    return found


def test_a_secret_is_on_no_other_node_and_on_no_disk(s):
    needle, w1 = marker(), s.cluster.node("w1")
    canary = os.path.join("/proc/%d/root/run/microswarm" % w1.host_pid("agentd"), "canary")
    with open(canary, "w") as f:
        f.write(needle)
    eq(search(w1, needle), ["w1: file /run/microswarm/canary"], "what the search itself finds")
    os.unlink(canary)
    put(s, "secret", "where", "password=" + needle)
    put(s, "secret", "wheret", "{{secret \"where\"}} {{printf \"%s\" (secret \"where\")}}", "--template-driver", "golang")
    eq(others(s, needle), [], "before anything uses it")
    tasks = up(s, "where", "--constraint", "node.hostname==w1", "--secret", "where", "--secret", "wheret", n=2,
               args=("sh", "-c", "KEPT=$(cat /run/secrets/where); while true; do sleep 1000; done"))
    for t in tasks:
        eq(s.node_of(t).name, "w1")
        contains(sh(s, t, "cat /run/secrets/where"), needle)
        eq(sh(s, t, "cat /run/secrets/wheret").count(needle), 2)
    eq(others(s, needle, ("w1",)), [], "while w1 runs it")
    here = search(w1, needle)
    eq([x for x in here if not x.startswith("w1: file /run/microswarm/files/")], [], "on the node that runs it, besides its tmpfs")
    eq(len(here), 4, "files: " + str(here))
    st.wait_until(lambda: in_memory(w1.to_host_pid(s.container_pid(tasks[0])), needle.encode()), 20 * st.SLOW,
                  "the search finds it in the memory of a program that has read it")
    for t in tasks:  # the folders are tmpfs, and nobody but root gets there
        contains(w1.sh("grep", "/run/microswarm/files/" + t["ID"] + " ", "/proc/mounts"), "tmpfs")
    s.remove("where")
    st.settles(lambda: search(w1, needle), [], "on w1, after its tasks have ended")
    eq(others(s, needle), [], "at the end")
    st.settles(lambda: files_dirs(w1), [], "folders on w1")
    s.docker("secret", "rm", "where", "wheret")


def files_dirs(node):
    path = "/proc/%d/root/run/microswarm/files" % node.host_pid("agentd")
    return os.listdir(path) if os.path.isdir(path) else []


def right_files(s, tasks, needle):
    """Every task has its file, and no node has others' folders."""
    for t in tasks:
        eq(sh(s, t, "cat /run/secrets/k"), needle)
    for n in ("w1", "w2"):
        node = s.cluster.node(n)
        want = sorted(t["ID"] for t in tasks if s.node_of(t).name == n)
        st.settles(lambda node=node: sorted(files_dirs(node)), want, "folders on " + n)


def test_daemons_are_killed_while_tasks_are_prepared(s):
    needle = marker()
    put(s, "secret", "k", needle)
    for round_, victims in enumerate((("agentd",), ("dispatcherd",), ("agentd", "dispatcherd", "gatewayd"))):
        s.create("kill", "busybox:latest", "--replicas", "8", "--constraint", "node.role==worker", "--secret", "k", args=("sleep", "100000"))
        for i in range(6):
            for v in victims:
                node = s.m1 if v == "dispatcherd" else s.cluster.node("w%d" % (1 + i % 2))
                node.kill(v)
                node.wait_ready(30 * st.SLOW)
        right_files(s, s.wait_running("kill", 8, 90), needle)
        for n in ("w1", "w2"):  # while they run: their files stay
            s.cluster.node(n).kill("agentd")
            s.cluster.node(n).wait_ready()
        right_files(s, s.wait_running("kill", 8, 90), needle)
        s.remove("kill", seconds=90)
        for n in ("w1", "w2"):
            st.settles(lambda n=n: files_dirs(s.cluster.node(n)), [], "folders on %s after round %d" % (n, round_))
    s.docker("secret", "rm", "k")


def test_a_reboot_leaves_nothing(s):
    needle, w2 = marker(), s.cluster.node("w2")
    put(s, "secret", "boot", needle)
    up(s, "boot", "--constraint", "node.hostname==w2", "--secret", "boot")
    eq(len(files_dirs(w2)), 1)
    w2.power_off()
    eq(files_with(w2.path(), needle.encode()), [], "on the disk of a node without power")
    s.docker("service", "scale", "-d", "boot=0")
    w2.start()
    w2.wait_ready(60 * st.SLOW)
    st.settles(lambda: search(w2, needle), [], "on w2, which has started again")
    eq(files_dirs(w2), [])
    s.remove("boot", seconds=60)
    s.docker("secret", "rm", "boot")


def test_a_node_gets_only_what_its_tasks_use(s):
    """A node with a certificate of its own and nobody behind it, which asks for what it likes."""
    keys = wire.Keys(os.path.join(s.tmp, "keys"))
    nid = keys.enroll(s.cluster, s.m1, "thief", s.cluster.tokens()["Worker"])
    needle = marker()
    mine, other = put(s, "secret", "mine", needle), put(s, "secret", "other", "x")
    conf = put(s, "config", "conf", "x")
    t = up(s, "loyal", "--constraint", "node.hostname==w1", "--secret", "mine", "--config", "conf")[0]
    with wire.Link(s.cluster, s.m1, keys.ident("thief")) as link:
        code, text, body = link.ask("dispatcherd", "session", {"Hostname": "thief", "Description": {"Hostname": "thief", "Platform": {}, "Resources": {}}},
                                    by="agentd")
        eq((code, text), ("ok", ""))
        session = body["SessionID"]

        def ask(task, oid, kind="secret", sid=session):
            return link.ask("dispatcherd", "payload", {"SessionID": sid, "TaskID": task, "Kind": kind, "ID": oid, "Key": os.urandom(32)}, by="agentd")
        for what, want in ((ask(t["ID"], mine), "denied"), (ask(t["ID"], conf, "config"), "denied"), (ask("nosuch", mine), "denied"),
                           (ask(t["ID"], mine, sid="made-up"), "gone"), (ask(t["ID"], mine, kind="node"), "invalid")):
            eq((what[0], what[2] or {}), (want, {}), what[1])
        # Its own task: that one's secret, nothing else, and only as long as it is to run.
        s.docker("service", "create", "-d", "--no-resolve-image", "--name", "hers", "--constraint", "node.id==" + nid, "--secret", "mine",
                 "busybox:latest", "sleep", "1")
        own = s.wait(lambda: next((x for x in s.tasks("hers") if x.get("NodeID") == nid), None), "a task for her")["ID"]
        code, text, body = ask(own, mine)
        eq((code, text, body["Name"], len(body["Box"])), ("ok", "", "mine", len(needle) + 48))
        eq(needle.encode() in body["Box"], False, "in the clear on its way")
        eq([x[0] for x in (ask(own, other), ask(own, conf, "config"), ask(own, mine, "config"))], ["denied"] * 3)
        s.docker("service", "scale", "-d", "hers=0")
        st.settles(lambda: ask(own, mine)[0], "denied", "a task that is to be shut down")
        refused = int(re.search(r"payloads_refused_total (\d+)", s.m1.probe("dispatcherd", "metrics")).group(1))
        eq(refused >= 7, True, "refusals counted: %d" % refused)
    with wire.Link(s.cluster, s.m1) as link:  # nobody at all
        try:
            eq(link.ask("dispatcherd", "payload", {"SessionID": session, "TaskID": t["ID"], "Kind": "secret", "ID": mine, "Key": os.urandom(32)},
                        by="agentd")[0], "denied")
        except wire.Closed:
            pass
    contains(s.m1.logs("dispatcherd"), "refused secret " + mine)
    eq(needle in s.m1.logs("dispatcherd"), False)
    s.docker("node", "rm", "--force", nid)
    s.remove("loyal", "hers")
    s.docker("secret", "rm", "mine", "other")
    s.docker("config", "rm", "conf")


if __name__ == "__main__":
    st.main(setup, managers=1, workers=2)
