#!/usr/bin/python3
"""DNS for the tests, with nothing but sockets: a client, run in a container's network, and a nameserver outside of the swarm.

  names.py ask '[["web", "A", {}], ["web.one", "PTR", {"tcp": true}]]'      answers as JSON
  names.py in '{"/path/of/a/network/namespace": [...], ...}'                 the same in several networks, {path: answers}
  names.py serve LOG ADDRESS...                                             until killed; a line in LOG for each question

The nameserver knows a.example (192.0.2.<last byte of its own address>), ten.example (so many addresses that they do not fit
into a UDP answer), slow.example (never answered) and broken.example (SERVFAIL); any other name does not exist."""

import ctypes
import json
import random
import select
import socket
import struct
import sys
import time

TYPES = {"A": 1, "PTR": 12, "TXT": 16, "AAAA": 28, "ANY": 255}
RCODES = {0: "ok", 1: "formerr", 2: "servfail", 3: "nxdomain", 4: "notimp", 5: "refused"}


def put_name(name):
    return b"".join(bytes([len(l)]) + l.encode() for l in name.rstrip(".").split(".") if l) + b"\0"


def take_name(m, at):
    """(name, where it ends); pointers are followed backwards only."""
    labels, end, low = [], None, at
    while True:
        n = m[at]
        if n >= 0xc0:
            end = at + 2 if end is None else end
            at = (n & 0x3f) << 8 | m[at + 1]
            if at >= low:
                raise ValueError("a pointer forwards")
            low = at
            continue
        if n == 0:
            return ".".join(labels), at + 1 if end is None else end
        labels.append(m[at + 1:at + 1 + n].decode())
        at += 1 + n


def question(name, kind, number, flags=0x0100):
    return struct.pack(">6H", number, flags, 1, 0, 0, 0) + put_name(name) + struct.pack(">2H", TYPES[kind], 1)


def parse(m):
    number, flags, nq, na, _, _ = struct.unpack(">6H", m[:12])
    at, answers, ttls = 12, [], []
    for _ in range(nq):
        at = take_name(m, at)[1] + 4
    for _ in range(na):
        at = take_name(m, at)[1]
        kind, _, ttl, size = struct.unpack(">2HIH", m[at:at + 10])
        at += 10
        data = m[at:at + size]
        if kind == 1:
            answers.append(socket.inet_ntop(socket.AF_INET, data))
        elif kind == 28:
            answers.append(socket.inet_ntop(socket.AF_INET6, data))
        elif kind == 12:
            answers.append(take_name(m, at)[0])
        else:
            answers.append(data.hex())
        ttls.append(ttl)
        at += size
    return {"id": number, "code": RCODES.get(flags & 15, str(flags & 15)), "cut": bool(flags & 0x200), "answers": sorted(answers),
            "ttl": max(ttls, default=0), "size": len(m)}


def whole(sock, n):
    data = b""
    while len(data) < n:
        piece = sock.recv(n - len(data))
        if not piece:
            raise OSError("closed after %d bytes of %d" % (len(data), n))
        data += piece
    return data


def ask(name, kind="A", server="127.0.0.11", port=53, tcp=False, seconds=5, raw=None):
    q = bytes.fromhex(raw) if raw else question(name, kind, random.randrange(65536))
    t0 = time.monotonic()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
            s.settimeout(seconds)
            s.connect((server, port))
            if tcp:
                s.sendall(struct.pack(">H", len(q)) + q)
                got = whole(s, struct.unpack(">H", whole(s, 2))[0])
            else:
                s.send(q)
                got = s.recv(65535)
    except OSError as e:
        return {"code": "timeout" if isinstance(e, socket.timeout) else str(e), "answers": [], "cut": False, "ttl": 0, "size": 0}
    r = parse(got)
    if r.pop("id") != struct.unpack(">H", q[:2])[0]:
        r["code"] = "another question's answer"
    r["ms"] = round((time.monotonic() - t0) * 1000, 1)
    return r


def enter(path):
    """Sockets made from now on are of this network."""
    with open(path, "rb") as f:
        if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), "setns " + path)


def ask_in(path, questions):
    enter(path)
    return [ask(n, k, **o) for n, k, o in questions]


def flood(seconds, server="127.0.0.11", port=53):
    """As many questions as will go, without waiting for answers; how many there were."""
    n, end = 0, time.monotonic() + seconds
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
    for s in socks:
        s.connect((server, port))
    while time.monotonic() < end:
        for s in socks:
            for _ in range(32):
                try:
                    s.send(question("flood%d.example" % (n % 1000) if n % 2 else "web", "A", n & 0xffff))
                except OSError:
                    pass
                n += 1
    return n


def reply(m, local, tcp):
    name, end = take_name(m, 12)
    kind = struct.unpack(">H", m[end:end + 2])[0]
    last = int(local.rsplit(".", 1)[1])
    addrs, code, flags = [], 3, 0x8580
    low = name.lower()
    if low == "slow.example":
        return name, kind, None
    if low == "broken.example":
        code = 2
    elif low in ("a.example", "ten.example") or low.endswith(".corp.example"):
        code = 0
        if kind == 1:
            addrs = ["192.0.2.%d" % last] if low != "ten.example" else ["198.51.100.%d" % i for i in range(1, 101)]
    body = b"".join(b"\xc0\x0c" + struct.pack(">2HIH", 1, 1, 60, 4) + socket.inet_aton(a) for a in addrs)
    if not tcp and len(body) > 400:
        body, addrs, flags = b"", [], flags | 0x200
    head = m[:2] + struct.pack(">5H", flags | code, 1, len(addrs), 0, 0)
    return name, kind, head + m[12:end + 4] + body


def serve(log, addrs):
    socks = {}
    for a in addrs:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            s = socket.socket(socket.AF_INET, kind)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((a, 53))
            if kind == socket.SOCK_STREAM:
                s.listen(16)
            socks[s] = (a, kind == socket.SOCK_STREAM)
    out = open(log, "a", buffering=1, encoding="utf-8")
    out.write("ready\n")
    while True:
        for s in select.select(list(socks), [], [])[0]:
            local, tcp = socks[s]
            try:
                if tcp:
                    c, peer = s.accept()
                    c.settimeout(5)
                    m = whole(c, struct.unpack(">H", whole(c, 2))[0])
                else:
                    m, peer = s.recvfrom(65535)
                name, kind, text = reply(m, local, tcp)
                out.write("%s %s %d %s %s\n" % (local, name, kind, "tcp" if tcp else "udp", peer[0]))
                if tcp:
                    if text:
                        c.sendall(struct.pack(">H", len(text)) + text)
                    c.close()
                elif text:
                    s.sendto(text, peer)
            except (OSError, ValueError, IndexError, struct.error) as e:
                out.write("error %s\n" % e)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        print(json.dumps([ask(n, k, **o) for n, k, o in json.loads(sys.argv[2])]))
    elif sys.argv[1] == "in":
        print(json.dumps({p: ask_in(p, q) for p, q in json.loads(sys.argv[2]).items()}))
    elif sys.argv[1] == "flood":
        print(flood(float(sys.argv[2])))
    else:
        serve(sys.argv[2], sys.argv[3:])
