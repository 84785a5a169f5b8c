#!/usr/bin/python3
"""Stacks: the docker client deploys a stack file, changes it, and removes it; everything that it declares is there, and nothing is left."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import swarmtest as st  # noqa: E402

eq = st.eq

FILE = """
version: "3.9"
services:
  web:
    image: busybox:latest
    command: ["sh", "-c", "cat /run/secrets/pw /etc/site.conf; echo $$WHO; exec sleep 1000"]
    environment: ["WHO={{.Service.Name}}.{{.Task.Slot}}"]
    networks: [back]
    ports: ["8081:80"]
    secrets: [pw]
    configs: [{source: site, target: /etc/site.conf}]
    healthcheck: {test: ["CMD-SHELL", "true"], interval: 1s}
    stop_grace_period: 100ms
    deploy:
      replicas: %(replicas)d
      update_config: {parallelism: 1, order: start-first, failure_action: rollback, monitor: 500ms}
      restart_policy: {delay: 100ms}
  %(other)s:
    image: busybox:latest
    command: ["sleep", "1000"]
    stop_grace_period: 100ms
    deploy: {mode: global}
networks: {back: {}}
secrets: {pw: {file: ./pw}}
configs: {site: {file: ./site}}
"""


def setup(s):
    s.load("busybox")


def deploy(s, *options, **what):
    folder = os.path.join(s.tmp, "stack")
    os.makedirs(folder, exist_ok=True)
    for name, text in (("pw", "hunter2\n"), ("site", "listen 80\n"), ("stack.yml", FILE % dict({"replicas": 2, "other": "agent"}, **what))):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
    return s.docker("stack", "deploy", "--resolve-image", "never", *options, "-c", os.path.join(folder, "stack.yml"), "shop")


def look(s):
    eq(s.docker("stack", "ls", "--format", "{{.Name}} {{.Services}}"), "shop 2")
    eq(sorted(s.docker("stack", "services", "shop", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Ports}}").splitlines()),
       ["shop_agent global 2/2 ", "shop_web replicated 2/2 *:8081->80/tcp"])
    eq(len(s.docker("stack", "ps", "-q", "shop").splitlines()), 4)
    s.wait(lambda: s.logs("shop_web").count("hunter2") == 2 or None, "each has said its secret")
    for text in ("listen 80", "shop_web.1", "shop_web.2"):
        st.contains(s.logs("shop_web"), text)


def test_deployed_changed_and_removed(s):
    st.contains(deploy(s, "--detach=false"), "converged")
    look(s)
    before = {t["ID"] for t in s.running("shop_agent")}
    deploy(s, "--detach=false", replicas=3)
    eq(len(s.running("shop_web")), 3)
    eq({t["ID"] for t in s.running("shop_agent")}, before, "what did not change")
    deploy(s, "--prune", other="scout")
    s.wait_running("shop_scout", 2)
    eq(sorted(s.docker("stack", "services", "shop", "--format", "{{.Name}}").splitlines()), ["shop_scout", "shop_web"])
    s.docker("stack", "rm", "shop")
    for kind in ("stack", "service", "secret", "config"):
        eq(s.docker(kind, "ls", "--format", "{{.Name}}"), "", kind)
    s.wait(lambda: s.docker("network", "ls", "-q", "--filter", "label=com.docker.stack.namespace=shop") == "" or None, "no network is left")


def test_what_is_not_there(s):
    s.docker_fails("stack", "deploy", "-c", "/no/such/file", "x", say="no such file")
    s.docker_fails("stack", "ps", "nosuch", say="nothing found in stack: nosuch")


if __name__ == "__main__":
    st.main(setup, managers=1, workers=1)
