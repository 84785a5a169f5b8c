"""Linearizability of histories of registers with read and compare-and-set.

The search is Wing and Gong's (1993) with Lowe's improvements ("Testing for linearizability", 2017): calls are linearized
just in time, a configuration (which calls are done, the register's value) is visited once. Keys are independent, so each
is checked alone (Herlihy and Wing's locality); and a key's history is cut where nothing is under way, which bounds the
search: only the values that the register may have there go on to the next window.

A call whose answer was lost may have happened at any time after it began, or never; a read without an answer says nothing
and is left out. Every value is written by one call only, so that a value names the call that wrote it.
"""

READ, CAS = "read", "cas"


class Call:
    """One call. start and end are times (any unit); end None: no answer. ok: for cas, whether it was accepted."""

    __slots__ = ("kind", "key", "start", "end", "value", "old", "ok", "who")

    def __init__(self, kind, key, start, end, value, old=None, ok=True, who=""):
        self.kind, self.key, self.start, self.end = kind, key, start, end
        self.value, self.old, self.ok, self.who = value, old, ok, who

    def __repr__(self):
        what = "read %s" % (self.value,) if self.kind == READ else "%s -> %s %s" % (
            self.old, self.value, "no answer" if self.end is None else "accepted" if self.ok else "refused")
        return "[%s .. %s] %s %s: %s" % (self.start, "?" if self.end is None else self.end, self.who, self.key, what)


class NotLinearizable(Exception):
    def __init__(self, key, calls, done):
        self.key, self.calls, self.done = key, calls, done
        super().__init__("%s: no order of these calls explains what they returned:\n  %s" % (
            key, "\n  ".join(repr(c) for c in sorted(calls, key=lambda c: c.start))))


def step(call, state):
    """The state after the call, or None when the call can't have returned what it did in this state. Writes return a
    tuple of one, so that any value may be a state."""
    if call.kind == READ:
        return (state,) if state == call.value else None
    if call.end is None:
        return (call.value,) if state == call.old else None  # one that found something else did nothing: as if never made
    if call.ok:
        return (call.value,) if state == call.old else None
    return (state,) if state != call.old else None


class Entry:
    """A call's beginning or end in the doubly linked list of what happened."""

    __slots__ = ("call", "number", "match", "prev", "next")

    def __init__(self, call, number, match=None):
        self.call, self.number, self.match = call, number, match
        self.prev = self.next = None


def linked(calls):
    """Head of the list of beginnings and ends in the order of time; a beginning comes before an end of the same time, which
    allows more orders, never fewer."""
    events = []
    for i, c in enumerate(calls):
        end = Entry(c, i)
        events.append((c.start, 0, i, Entry(c, i, end)))
        if c.end is not None:
            events.append((c.end, 1, i, end))
    events.sort(key=lambda e: e[:3])
    head = last = Entry(None, -1)
    for _, _, _, e in events:
        last.next, e.prev = e, last
        last = e
    return head


def lift(entry):
    """Takes a beginning and its end out of the list."""
    for e in (entry, entry.match):
        if e.prev is not None:
            e.prev.next = e.next
        if e.next is not None:
            e.next.prev = e.prev


def unlift(entry):
    for e in (entry.match, entry):
        if e.prev is not None:
            e.prev.next = e
        if e.next is not None:
            e.next.prev = e


def final_states(calls, states):
    """Every (state, calls without answer that were not used) that some order of the calls ends in, beginning with one of
    `states`; empty when there is no order. An empty answer comes with the longest order that was found."""
    answered = sum(1 << i for i, c in enumerate(calls) if c.end is not None)
    out, best = set(), 0
    for first in states:
        head = linked(calls)
        done, state, stack, seen = 0, first, [], {(0, first)}
        entry = head.next
        if not answered & ~done:
            out.add((state, done))
        while True:
            if entry is not None and entry.match is not None:
                after = step(entry.call, state)
                nxt = done | 1 << entry.number
                if after is not None and (nxt, after[0]) not in seen:
                    seen.add((nxt, after[0]))
                    stack.append((entry, state))
                    done, state = nxt, after[0]
                    lift(entry)
                    best = best if bin(best).count("1") > bin(done).count("1") else done
                    if not answered & ~done:
                        out.add((state, done))
                    entry = head.next
                else:
                    entry = entry.next
            elif stack:  # an end whose call is not linearized, or the end of the list: go back
                entry, state = stack.pop()
                done &= ~(1 << entry.number)
                unlift(entry)
                entry = entry.next
            else:
                break
    return out, best


def windows(calls):
    """The calls in runs that overlap nothing outside of them. Those without an answer overlap everything after, so they
    don't count here; check_key() carries them along."""
    run, until = [], None
    for c in sorted(calls, key=lambda c: c.start):
        if run and until is not None and c.start > until:
            yield run
            run, until = [], None
        run.append(c)
        if c.end is not None:
            until = c.end if until is None else max(until, c.end)
    if run:
        yield run


def check_key(key, calls, initial=None):
    """Raises NotLinearizable; returns the values that the register may have in the end."""
    calls = [c for c in calls if not (c.kind == READ and c.end is None)]
    # Each value is written once, so an unanswered write whose value nobody saw, and on which no other write builds, could only
    # stand at the end: it changes no answer, unless another write was refused because of it.
    used = {c.value for c in calls if c.kind == READ} | {c.old for c in calls if c.kind == CAS}
    refused = {c.old for c in calls if c.kind == CAS and c.end is not None and not c.ok}
    ends = [c for c in calls if c.kind == CAS and c.end is None and c.value not in used and c.old not in refused]
    left_out = set(map(id, ends))
    calls = [c for c in calls if id(c) not in left_out]
    now = {(initial, ())}  # the value, and the unanswered calls that may still happen
    for run in windows(calls):
        after, best, tried = set(), 0, run
        for state, open_ in now:
            both = list(open_) + run
            got, b = final_states(both, [state])
            if bin(b).count("1") >= bin(best).count("1"):
                best, tried = b, both
            for s, done in got:
                after.add((s, tuple(c for i, c in enumerate(both) if c.end is None and not done >> i & 1)))
        if not after:
            raise NotLinearizable(key, tried, best)
        now = after
    out = {s for s, _ in now}
    return out | {c.value for c in ends if c.old in out}


def check(calls, initial=None):
    """Checks every key; returns key -> possible values in the end."""
    keys = {}
    for c in calls:
        keys.setdefault(c.key, []).append(c)
    return {k: check_key(k, v, (initial or {}).get(k)) for k, v in keys.items()}
