#!/usr/bin/env python3
"""hostile.py DIR - archives in DIR/*.tar, each an image that wants out of its folder, or never to be read to its end."""
import gzip, hashlib, io, json, os, sys, tarfile


def member(name, **kw):
    t = tarfile.TarInfo(name)
    t.mode = 0o644
    for k, v in kw.items():
        setattr(t, k, v)
    return t


def layer(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for t in members:
            data = bytes(40 << 20) if t.name == "big" else b"owned\n" if t.isreg() else b""
            t.size = len(data)
            tar.addfile(t, io.BytesIO(data))
    return out.getvalue()


def archive(path, blob, name, special=None, pack=bytes):
    config = json.dumps({"os": "linux", "config": {"Cmd": ["/x"]}, "rootfs": {
        "type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(blob).hexdigest()]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    files = {"manifest.json": manifest, "config.json": config, "layer.tar": pack(blob)}
    with tarfile.open(path, "w") as tar:
        for n, data in files.items():
            if n == special:
                tar.addfile(member(n, type=tarfile.FIFOTYPE))
            else:
                t = member(n)
                t.size = len(data)
                tar.addfile(t, io.BytesIO(data))


def main():
    top = os.path.abspath(sys.argv[1])
    victim = top + "/victim"
    os.makedirs(victim, exist_ok=True)
    with open(victim + "/file", "w") as f:
        f.write("mine\n")
    up = "../" * 12 + victim[1:]
    plain = layer([member("x")])
    for n in ("manifest.json", "config.json", "layer.tar"):
        archive(f"{top}/fifo-{n}.tar", plain, "hostile:fifo", n)
    mark = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/../../etc",
            "SCHILY.xattr.user.kept": "yes"}
    for n, members in {
        "link": [member("l", type=tarfile.SYMTYPE, linkname=victim), member("l/made"), member("l/file")],
        "rel": [member("l", type=tarfile.SYMTYPE, linkname=up), member("l/made"), member("l/file")],
        "up": [member(up + "/made"), member(victim + "/made")],
        "hard": [member("h", type=tarfile.LNKTYPE, linkname=up + "/file"), member("h")],
        "white": [member("l", type=tarfile.SYMTYPE, linkname=victim), member("l/.wh.file"), member("l/.wh..wh..opq"),
                  member(".wh..."), member(".wh..")],
        "mark": [member("d", type=tarfile.DIRTYPE, mode=0o755, pax_headers=mark), member("d/x")],
    }.items():
        archive(f"{top}/evil-{n}.tar", layer(members), "hostile:" + n)
    archive(f"{top}/bomb.tar", layer([member("big")]), "hostile:bomb", pack=gzip.compress)


main()
