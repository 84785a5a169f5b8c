"""Memory of a group of processes as it would be alone on its host: each page counted once within the group.

PSS of smaps divides a page by everybody who maps it, so it looks smaller when other processes (another cluster, this
test's Python) map the same libraries. Here a page is divided only by those processes of the group that map it, which
needs the page frame numbers of /proc/PID/pagemap (root).
"""

import collections
import os
import re
import struct

PAGE = os.sysconf("SC_PAGE_SIZE")
PRESENT, FRAME = 1 << 63, (1 << 55) - 1
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)")
FILE_PAGE = 1 << 61  # bit 61: page is of a file or shared memory


def frames(pid):
    """(frame, mapping's name, anonymous) of each page in memory that a process maps."""
    with open("/proc/%d/maps" % pid, encoding="utf-8") as maps, open("/proc/%d/pagemap" % pid, "rb", buffering=0) as pm:
        for line in maps:
            m = MAPPING.match(line)
            start, end, name = int(m[1], 16), int(m[2], 16), m[5]
            if name in ("[vsyscall]", "[vvar]", "[vdso]", "[vvar_vclock]"):
                continue
            n = (end - start) // PAGE
            raw = os.pread(pm.fileno(), n * 8, start // PAGE * 8)
            for (entry,) in struct.iter_unpack("<Q", raw):
                if entry & PRESENT and entry & FRAME:
                    yield entry & FRAME, name or "[anonymous]", not entry & FILE_PAGE


def share(pids):
    """MiB of each process, by (mapping, anonymous): {pid: {(name, anonymous): MiB}}; the sum is what the group costs."""
    seen = {p: set(frames(p)) for p in pids}
    users = collections.Counter(f for p in pids for f in {f for f, _, _ in seen[p]})
    out = {}
    for p in pids:
        mine = collections.defaultdict(float)
        counted = set()
        for frame, name, anonymous in seen[p]:
            if frame not in counted:
                counted.add(frame)
                mine[name, anonymous] += PAGE / users[frame] / (1 << 20)
        out[p] = dict(mine)
    return out
