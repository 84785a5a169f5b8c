#!/usr/bin/python3
"""Images: loaded from archives, pulled from a registry on the node's loopback with and without credentials."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402
from swarmtest import contains, eq  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import crypt  # pylint: disable=deprecated-module

OPEN, CLOSED = 5000, 5001


class Registry:
    def __init__(self, s, port, user=None):
        home = os.path.join(s.tmp, "registry%d" % port)
        os.makedirs(home)
        lines = ["version: 0.1", "log: {level: error}", "storage: {filesystem: {rootdirectory: %s}}" % home,
                 "http: {addr: 127.0.0.1:%d}" % port]
        if user:
            with open(home + "/htpasswd", "w", encoding="ascii") as f:
                f.write("%s:%s\n" % (user[0], crypt.crypt(user[1], crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))))
            lines.append("auth: {htpasswd: {realm: test, path: %s/htpasswd}}" % home)
        with open(home + "/conf.yml", "w", encoding="ascii") as f:
            f.write("\n".join(lines) + "\n")
        self.log = open(home + "/log", "wb")
        self.p = subprocess.Popen(s.m1.argv("docker-registry", "serve", home + "/conf.yml"), stdout=self.log, stderr=self.log)
        st.wait_until(lambda: subprocess.call(s.m1.argv("curl", "-s", "-o", "/dev/null", "http://127.0.0.1:%d/v2/" % port)) == 0,
                      60, "the registry on port %d" % port)
        self.port, self.user = port, user

    def push(self, s, archive, name):
        creds = ["--dest-creds", ":".join(self.user)] if self.user else []
        s.m1.sh("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", *creds, "docker-archive:" + archive,
                "docker://127.0.0.1:%d/%s" % (self.port, name))

    def close(self):
        self.p.kill()
        self.p.wait()
        self.log.close()


reg = {}


def setup(s):
    if not os.access("/usr/bin/docker-registry", os.X_OK):
        raise st.Skip("no docker-registry")
    reg[OPEN] = Registry(s, OPEN)
    reg[CLOSED] = Registry(s, CLOSED, ("ann", "secret-word"))
    reg[OPEN].push(s, s.archive("busybox"), "box:1")
    reg[OPEN].push(s, s.archive("busybox", "-t", "x:2", "--label", "v=2"), "box:2")
    reg[CLOSED].push(s, s.archive("pause"), "private:1")


def images(s):
    return s.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()


def test_load(s):
    eq(s.docker("load", "-i", s.archive("busybox")), "Loaded image: busybox:latest")
    contains(" ".join(images(s)), "busybox:latest")
    out = s.docker("load", "-i", s.archive("busybox", "--untagged", "--label", "un=tagged"))
    contains(out, "Loaded image ID: sha256:")


def test_load_several_names(s):
    out = s.docker("load", "-i", s.archive("busybox", "-t", "one:1", "-t", "two:2"))
    contains(out, "one:1")
    contains(out, "two:2")


def test_load_large(s):
    archive = s.archive("busybox", "-t", "large:1", "--size", "24")
    s.docker("load", "-i", archive)
    s.create("lg", "large:1", args=("sleep", "1000"))
    t = s.wait_running("lg")[0]
    eq(s.in_container(t, "sh", "-c", "ls /ballast | wc -l").strip(), "24")
    s.remove("lg")


def test_load_corrupt(s):
    good = s.archive("busybox", "-t", "corrupt:1", "--size", "1")
    with open(good, "rb") as f:
        data = bytearray(f.read())
    before = sorted(images(s))
    for what in ("cut", "empty", "text", "layer"):
        bad = os.path.join(s.tmp, what + ".tar")
        with open(bad, "wb") as f:
            if what == "cut":
                f.write(data[:len(data) // 2])
            elif what == "text":
                f.write(b"this is no archive at all\n" * 500)
            elif what == "layer":
                flipped = bytearray(data)
                for i in range(len(data) * 9 // 10, len(data) * 9 // 10 + 64):  # in the layer that no other image has
                    flipped[i] ^= 0xff
                f.write(flipped)
        said = s.docker_fails("load", "-i", bad)
        if "500" in said and "panic" in said:
            raise st.Failure(said)
    eq(sorted(images(s)), before, "images after refused archives")
    contains(s.m1.probe("agentd", "status"), "{")


def test_pull(s):
    out = s.docker("pull", "127.0.0.1:5000/box:1")
    contains(out, "127.0.0.1:5000/box:1")
    contains(" ".join(images(s)), "127.0.0.1:5000/box:1")
    contains(s.docker("pull", "127.0.0.1:5000/box:1"), "up to date")
    s.docker_fails("pull", "127.0.0.1:5000/nosuch:1", say="")
    s.docker_fails("pull", "127.0.0.1:9/closed:1", say="")


def test_service_pulls(s):
    s.create("sp", "127.0.0.1:5000/box:2", args=("sleep", "1000"))
    s.wait_running("sp")
    s.remove("sp")


def test_service_resolves_digest(s):
    """Without --no-resolve-image the client asks for the digest and pins it."""
    s.docker("service", "create", "-d", "--name", "rd", "--stop-grace-period", "50ms", "127.0.0.1:5000/box:1", "sleep", "1000")
    s.wait_running("rd")
    contains(s.inspect("rd")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], "127.0.0.1:5000/box:1@sha256:")
    s.remove("rd")


def test_credentials(s):
    s.create("nocred", "127.0.0.1:5001/private:1", "--restart-condition", "none")
    t = s.wait_state("nocred", "rejected")
    contains(t["Status"]["Err"].lower(), "denied")
    s.remove("nocred")
    conf = os.path.join(s.home, ".docker")
    os.makedirs(conf, exist_ok=True)
    with open(conf + "/config.json", "w", encoding="ascii") as f:
        json.dump({"auths": {"127.0.0.1:5001": {"auth": base64.b64encode(b"ann:secret-word").decode()}}}, f)
    try:
        s.create("cred", "127.0.0.1:5001/private:1", "--with-registry-auth")
        s.wait_running("cred")
    finally:
        os.unlink(conf + "/config.json")
    # the word is nowhere to be read
    for text in (s.docker("service", "inspect", "cred"), *(s.m1.logs(d) for d in s.m1.info["daemons"]),
                 *(s.m1.probe("raftd", "list " + k) for k in ("service", "task", "taskspec"))):
        if "secret-word" in text or base64.b64encode(b"ann:secret-word").decode() in text:
            raise st.Failure("the password shows")
    s.remove("cred")


def test_pull_with_credentials(s):
    auth = base64.urlsafe_b64encode(json.dumps({"username": "ann", "password": "secret-word"}).encode()).decode()
    status, data, _ = s.api.raw("POST", "/images/create?fromImage=127.0.0.1:5001/private&tag=1", headers={"X-Registry-Auth": auth})
    eq(status, 200)
    if b"error" in data:
        raise st.Failure(data.decode())
    auth = base64.urlsafe_b64encode(json.dumps({"username": "ann", "password": "wrong"}).encode()).decode()
    status, data, _ = s.api.raw("POST", "/images/create?fromImage=127.0.0.1:5001/private&tag=2", headers={"X-Registry-Auth": auth})
    if status == 200 and b"error" not in data:
        raise st.Failure("a wrong password was taken: %r" % data)


def test_inspect_tag_remove(s):
    s.docker("load", "-q", "-i", s.archive("pause"))
    doc = json.loads(s.docker("image", "inspect", "pause:latest"))[0]
    contains(str(doc["RepoTags"]), "'pause:latest'")
    eq(doc["Config"]["Entrypoint"], ["/pause"])
    eq((doc["Os"], doc["Architecture"]), ("linux", "amd64"))
    s.docker("image", "rm", "pause:latest")
    if "pause:latest" in images(s):
        raise st.Failure("still there")
    s.docker_fails("image", "rm", "pause:latest", say="no such image")
    s.docker_fails("image", "inspect", "pause:latest", say="no such image")


def test_remove_in_use(s):
    s.docker("load", "-q", "-i", s.archive("busybox", "-t", "used:1", "--label", "used=1"))
    s.create("us", "used:1", args=("sleep", "1000"))
    t = s.wait_running("us")[0]
    s.docker_fails("image", "rm", s.docker("image", "inspect", "--format", "{{.Id}}", "used:1"), say="")
    eq(s.in_container(t, "echo", "alive").strip(), "alive")
    s.remove("us")


def test_client_hangs_up_half_way(s):
    """A load that stops in the middle leaves nothing behind, and the next one works."""
    before = sorted(images(s))
    c = socket.socket(socket.AF_UNIX)
    c.connect(s.m1.sock)
    c.sendall(b"POST /v1.41/images/load?quiet=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n")
    with open(s.archive("busybox", "-t", "half:1", "--size", "2"), "rb") as f:
        data = f.read(1 << 20)
    c.sendall(b"%x\r\n" % len(data) + data + b"\r\n")
    c.close()
    s.docker("load", "-q", "-i", s.archive("busybox"))
    eq(sorted(set(images(s)) | {"busybox:latest"}), sorted(set(before) | {"busybox:latest"}))


def test_pulls_while_agentd_dies(s):
    """Killed again and again in the middle of pulls, it ends with every image whole and nothing of the attempts left."""
    names = ["storm%d" % i for i in range(3)]
    for i, name in enumerate(names):
        reg[OPEN].push(s, s.archive("busybox", "-t", "x:%s" % name, "--size", "8", "--label", "n=%d" % i), name + ":1")
    for name in names:
        s.create(name, "127.0.0.1:%d/%s:1" % (OPEN, name), "--replicas", "2", args=("sleep", "1000"))
    for i in range(8):
        with contextlib.suppress(st.Failure):  # it is just dead, and waits for its next start
            s.m1.kill("agentd", "KILL" if i % 2 else "TERM")
        with contextlib.suppress(st.Failure):
            st.wait_until(lambda: s.m1.sh("sh", "-c", "pgrep -x skopeo || true"), 0.5, "a pull under way")
    s.m1.wait_ready(30 * st.SLOW)
    for name in names:
        for t in s.wait_running(name, 2, 60):
            eq(s.in_container(t, "sh", "-c", "ls /ballast | wc -l").strip(), "8")
    st.wait_until(lambda: not s.m1.sh("sh", "-c", "pgrep -x skopeo || true"), 20 * st.SLOW, "no pull goes on")
    s.remove(*names)


if __name__ == "__main__":
    try:
        st.main(setup)
    finally:
        for r in reg.values():
            r.close()
