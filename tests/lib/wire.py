"""A gatewayd's peer for tests: TLS connections to port 2377 with any certificate, or none, and frames with anything in them.

The format is gatewayd/gw_frame.h's and gw_wire.h's; certificates are made by openssl. Connections start outside of the swarm, at
10.77.0.1 on the nodes' network.
"""

import ctypes
import os
import socket
import ssl
import struct
import time

import swarmtest as st

HELLO, REQUEST, REPLY, RAFT, CONTROL = range(1, 6)
FIRST, LAST = 1, 2
CODES = ("ok", "invalid", "unauthorized", "denied", "not found", "conflict", "precondition", "too big", "internal", "io", "corrupt",
         "unimplemented", "unavailable", "timeout", "nomem", "gone")


# ---- msgpack, as much of it as the wire has ----

def pack(v):
    if v is None:
        return b"\xc0"
    if v is True or v is False:
        return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        return struct.pack(">BQ", 0xcf, v) if v > 127 else struct.pack("B", v) if v >= 0 else struct.pack(">Bq", 0xd3, v)
    if isinstance(v, str):
        b = v.encode()
        return (struct.pack("B", 0xa0 | len(b)) if len(b) < 32 else struct.pack(">BH", 0xda, len(b)) if len(b) < 65536 else struct.pack(">BI", 0xdb, len(b))) + b
    if isinstance(v, bytes):
        return struct.pack(">BI", 0xc6, len(v)) + v
    if isinstance(v, dict):
        return struct.pack(">BH", 0xde, len(v)) + b"".join(pack(k) + pack(x) for k, x in v.items())
    if isinstance(v, (list, tuple)):
        return struct.pack(">BH", 0xdc, len(v)) + b"".join(pack(x) for x in v)
    if isinstance(v, Raw):
        return v.data
    raise TypeError(type(v))


class Raw:
    """Already encoded bytes."""

    def __init__(self, data):
        self.data = data


def unpack(data):
    v, n = _unpack(data, 0)
    if n != len(data):
        raise ValueError("%d bytes after the value" % (len(data) - n))
    return v


def _unpack(d, i):
    t = d[i]
    i += 1
    if t < 0x80:
        return t, i
    if t >= 0xe0:
        return t - 256, i
    if t < 0x90 or t in (0xde, 0xdf):
        n, i = _count(d, i, t, 0x80, 0xde)
        out = {}
        for _ in range(n):
            k, i = _unpack(d, i)
            out[k], i = _unpack(d, i)
        return out, i
    if t < 0xa0 or t in (0xdc, 0xdd):
        n, i = _count(d, i, t, 0x90, 0xdc)
        out = []
        for _ in range(n):
            v, i = _unpack(d, i)
            out.append(v)
        return out, i
    if t < 0xc0:
        return d[i:i + (t & 31)].decode(errors="replace"), i + (t & 31)
    if t in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[t], i
    if t in (0xc4, 0xc5, 0xc6, 0xd9, 0xda, 0xdb):
        width = 1 << (t - (0xc4 if t < 0xd0 else 0xd9))
        n = int.from_bytes(d[i:i + width], "big")
        i += width
        raw = d[i:i + n]
        return (raw if t < 0xd0 else raw.decode(errors="replace")), i + n
    fmt = {0xca: ">f", 0xcb: ">d", 0xcc: ">B", 0xcd: ">H", 0xce: ">I", 0xcf: ">Q", 0xd0: ">b", 0xd1: ">h", 0xd2: ">i", 0xd3: ">q"}[t]
    n = struct.calcsize(fmt)
    return struct.unpack(fmt, d[i:i + n])[0], i + n


def _count(d, i, t, fix, wide):
    if t < wide:
        return t - fix, i
    width = 2 if t == wide else 4
    return int.from_bytes(d[i:i + width], "big"), i + width


# ---- connections ----

def socket_in(netns):
    """A TCP socket that lives in a network namespace given by a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net", "rb") as back, open(netns, "rb") as there:
        if libc.setns(there.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            return socket.socket()
        finally:
            libc.setns(back.fileno(), 0x40000000)


def connect(cluster, node, port=2377, timeout=10):
    s = socket_in(cluster.net)
    s.settimeout(timeout)
    s.connect((node.addr, port))
    return s


def tls(sock, ident=None, version=ssl.TLSVersion.TLSv1_3):
    """ident: (certificate's file, key's file), or None."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    ctx.minimum_version = ctx.maximum_version = version
    if ident:
        ctx.load_cert_chain(*ident)
    return ctx.wrap_socket(sock)


class Closed(st.Failure):
    pass


class Link:
    """A link that has said hello. recv() gives whole messages; what the other side has to say before it hangs up is in `bye`."""

    def __init__(self, cluster, node, ident=None, timeout=10, hello=True):
        self.timeout, self.stream, self.bye, self.acc, self.parts = timeout, 0, "", b"", {}
        self.sock = None
        try:
            self.sock = tls(connect(cluster, node, timeout=timeout), ident)
            if hello:
                self.send(HELLO, 0, pack({"Version": 1, "Software": "test"}))
                kind, _, _ = self.recv()
                if kind != HELLO:
                    raise Closed("the first message is of type %d" % kind)
        except Closed:
            raise
        except OSError as e:
            raise Closed("%s: %s" % (type(e).__name__, e)) from None

    def close(self):
        if self.sock:
            self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def frame(self, kind, flags, stream, total, payload, length=None, pad=0):
        self.sock.sendall(struct.pack(">IBBHII", len(payload) if length is None else length, kind, flags, pad, stream, total) + payload)

    def send(self, kind, stream, body):
        for at in range(0, max(len(body), 1), 65536):
            piece = body[at:at + 65536]
            flags = (FIRST if at == 0 else 0) | (LAST if at + 65536 >= len(body) else 0)
            self.frame(kind, flags, stream, len(body) if at == 0 else 0, piece)

    def read(self, n):
        while len(self.acc) < n:
            try:
                piece = self.sock.recv(65536)
            except socket.timeout:
                raise
            except OSError as e:
                raise Closed("%s %s" % (self.bye, e)) from None
            if not piece:
                raise Closed("closed: %s" % (self.bye or "without a word"))
            self.acc += piece
        out, self.acc = self.acc[:n], self.acc[n:]
        return out

    def recv(self, seconds=None):
        """(type, stream, message)"""
        end = time.monotonic() + (seconds or self.timeout)
        while True:
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            length, kind, flags, _, stream, _total = struct.unpack(">IBBHII", self.read(16))
            body = self.read(length)
            if flags & FIRST:
                self.parts[kind, stream] = b""
            self.parts[kind, stream] += body
            if not flags & LAST:
                continue
            msg = self.parts.pop((kind, stream))
            if kind == CONTROL:
                doc = unpack(msg)
                if doc.get("Kind") == "bye":
                    self.bye = doc.get("Text", "")
                    continue
            return kind, stream, msg

    def ask(self, svc, op, body, to="leader", by=None, seconds=None, sender=None):
        """(code, text, body) of the reply; raises Closed when the link ends instead. Control messages in between are skipped."""
        self.stream += 1
        doc = {"To": to, "Svc": svc, "Op": op, "Ttl": 8000, "Body": Raw(pack(body) if not isinstance(body, bytes) else body)}
        if by:
            doc["By"] = by
        if sender:
            doc["From"] = sender
        try:
            self.send(REQUEST, self.stream, pack(doc))
        except OSError as e:
            with_bye = self.drain()
            raise Closed("%s %s" % (with_bye, e)) from None
        while True:
            kind, stream, msg = self.recv(seconds)
            if kind == REPLY and stream == self.stream:
                r = unpack(msg)
                return CODES[r.get("Code", 0)], r.get("Msg", ""), r.get("Body")

    def drain(self):
        try:
            while True:
                self.recv(1)
        except (OSError, st.Failure):
            return self.bye

    def closes(self, seconds):
        """Waits until the other side hangs up; how long that took."""
        t0 = time.monotonic()
        try:
            while True:
                self.recv(max(0.01, seconds - (time.monotonic() - t0)))
        except socket.timeout:
            raise st.Failure("the connection is still open after %g s" % seconds) from None
        except Closed:
            return time.monotonic() - t0


# ---- certificates ----

class Keys:
    """A folder with keys and certificates."""

    def __init__(self, folder):
        self.dir = folder
        os.makedirs(folder, exist_ok=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def openssl(self, *argv, **kw):
        return st.run("openssl", *argv, cwd=self.dir, **kw)

    def key(self, name):
        self.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name + ".key")

    def csr(self, name, subject="/CN=x"):
        self.key(name)
        return self.openssl("req", "-new", "-sha256", "-key", name + ".key", "-subj", subject)

    def root(self, name, subject="/CN=swarm-ca", days=3650):
        self.key(name)
        self.openssl("req", "-x509", "-new", "-sha256", "-key", name + ".key", "-subj", subject, "-days", str(days), "-out", name + ".crt",
                     "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def sign(self, root, name, subject, role, start=None, end=None):
        """A node's certificate, by our root; start and end as openssl's ca command takes them (YYMMDDHHMMSSZ)."""
        with open(self.path(name + ".csr"), "w", encoding="ascii") as f:
            f.write(self.csr(name, subject))
        with open(self.path("ca.conf"), "w", encoding="ascii") as f:
            f.write("[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\npolicy=p\ndefault_md=sha256\nunique_subject=no\n"
                    "[p]\ncommonName=supplied\norganizationalUnitName=supplied\norganizationName=supplied\n"
                    "[e]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
                    "extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:%s\n" % role)
        for f in ("index", "index.attr"):
            with open(self.path(f), "w", encoding="ascii"):
                pass
        self.openssl("ca", "-batch", "-config", "ca.conf", "-extensions", "e", "-rand_serial", "-cert", root + ".crt", "-keyfile", root + ".key",
                     "-in", name + ".csr", "-out", name + ".crt", "-preserveDN", "-notext",
                     *(("-startdate", start, "-enddate", end) if start else ("-days", "90")))
        return self.ident(name)

    def ident(self, name):
        return self.path(name + ".crt"), self.path(name + ".key")

    def enroll(self, cluster, node, name, token):
        """A certificate by the joining operations themselves, without any node behind it; returns its node id."""
        with Link(cluster, node) as link:
            code, text, body = link.ask("cad", "issue", {"CSR": self.csr(name), "Token": token}, by="gatewayd")
        st.eq((code, text), ("ok", ""))
        with open(self.path(name + ".crt"), "w", encoding="ascii") as f:
            f.write(body["Chain"])
        return body["NodeID"]
