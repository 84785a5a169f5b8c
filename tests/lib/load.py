"""Clients that write all the time, note what was acknowledged and when, and say later what of it is missing."""

import http.client
import json
import threading
import time

import swarmtest as st

PACE = 0.005  # seconds between an answer and the next write


class Writer(threading.Thread):
    """Creates services without tasks through one node, one after the other, as fast as it is answered."""

    def __init__(self, node, name, patience=10, pace=PACE):
        super().__init__(daemon=True)
        self.node, self.prefix, self.patience, self.pace = node, name, patience, pace
        self.acked = []  # (when it began, when it was acknowledged, name)
        self.errors = []  # (when, text)
        self.over, self.serial = threading.Event(), 0
        self.conn = None

    def once(self):
        name = "%s-%d" % (self.prefix, self.serial)
        self.serial += 1
        body = json.dumps({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "none:latest"}}, "Mode": {"Replicated": {"Replicas": 0}}})
        t0 = time.monotonic()
        try:
            if self.conn is None:
                self.conn = st.UnixHTTP(self.node.sock, self.patience)
            self.conn.request("POST", "/v1.41/services/create", body, {"Content-Type": "application/json"})
            r = self.conn.getresponse()
            text = r.read()
            if r.status == 201:
                self.acked.append((t0, time.monotonic(), name))
                return True
            self.errors.append((time.monotonic(), "%d %s" % (r.status, text.decode(errors="replace").strip())))
        except (OSError, http.client.HTTPException) as e:
            self.errors.append((time.monotonic(), "%s: %s" % (type(e).__name__, e)))
            self.conn.close()
            self.conn = None
        return False

    def run(self):
        while not self.over.is_set():
            self.over.wait(self.pace if self.once() else 0.01)

    def first_after(self, t, seconds=30):
        """When the first write that began after t was acknowledged."""
        def found():
            return next((a for a in list(self.acked) if a[0] >= t), None)
        return st.wait_until(found, seconds * st.SLOW, "a write through %s is acknowledged (last errors: %s)" % (
            self.node.name, [e for _, e in self.errors[-3:]]))[1]

    def longest_gap(self, since, until):
        """The longest time without an acknowledgement between two moments."""
        times = [since] + [a[1] for a in list(self.acked) if since < a[1] < until] + [until]
        return max(b - a for a, b in zip(times, times[1:]))

    def stop(self):
        self.over.set()
        self.join(self.patience + 5)
        if self.conn:
            self.conn.close()
        return self


def missing(writers, api):
    """Names that were acknowledged and are not in the store as this manager shows it."""
    have = {s["Spec"]["Name"] for s in api.get("/services")}
    return [name for w in writers for _, _, name in w.acked if name not in have]


def remove(writers, api):
    """Removes what the writers made, acknowledged or not."""
    prefixes = tuple(w.prefix + "-" for w in writers)
    for s in api.get("/services"):
        if s["Spec"]["Name"].startswith(prefixes):
            api.delete("/services/" + s["ID"])
