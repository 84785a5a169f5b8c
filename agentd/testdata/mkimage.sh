#!/bin/sh
# mkimage.sh OUT NAME [CONFIG-JSON-MEMBERS]: a docker-archive of Debian's static busybox, without docker.
set -e
out=$1 name=$2 extra=${3:-'"Cmd":["sleep","1000"]'}
d=$(mktemp -d)
mkdir -p "$d/r/bin" "$d/r/etc" "$d/r/tmp" "$d/r/data" "$d/i"
cp /bin/busybox "$d/r/bin/busybox"
for a in sh sleep cat echo true false id ls env mount grep head dd sed touch kill hostname ps stat wc printf tr yes seq awk pwd date; do ln -s busybox "$d/r/bin/$a"; done
echo 'root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:app:/home:/bin/sh' > "$d/r/etc/passwd"
echo 'root:x:0:
app:x:1000:
extra:x:2000:app' > "$d/r/etc/group"
echo seed > "$d/r/data/seed"
tar -C "$d/r" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$d/i/layer.tar" .
s=$(sha256sum "$d/i/layer.tar" | cut -d' ' -f1)
printf '{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z","config":{"Env":["PATH=/bin","FROM_IMAGE=1"],%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$extra" "$s" > "$d/i/config.json"
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" > "$d/i/manifest.json"
tar -C "$d/i" -cf "$out" manifest.json config.json layer.tar
rm -rf "$d"
