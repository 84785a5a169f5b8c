#!/usr/bin/python3
"""The checker itself: histories that must pass, histories that must not, and a comparison with every order tried."""

import itertools
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import linear  # noqa: E402
from linear import CAS, READ, Call  # noqa: E402


def r(start, end, value):
    return Call(READ, "k", start, end, value)


def w(start, end, old, value, ok=True):
    return Call(CAS, "k", start, end, value, old, ok)


def good(*calls):
    return linear.check_key("k", list(calls))


def bad(*calls):
    try:
        linear.check_key("k", list(calls))
    except linear.NotLinearizable:
        return
    raise AssertionError("accepted: %r" % (calls,))


def test_sequential():
    assert good(w(0, 1, None, "a"), r(2, 3, "a"), w(4, 5, "a", "b"), r(6, 7, "b")) == {"b"}


def test_stale_read():
    bad(w(0, 1, None, "a"), w(2, 3, "a", "b"), r(4, 5, "a"))
    bad(w(0, 1, None, "a"), r(2, 3, None))
    # a read that saw the new value while the write was under way, and one after it that did not
    bad(w(0, 10, None, "a"), r(1, 2, "a"), r(3, 4, None))
    good(w(0, 10, None, "a"), r(1, 2, None), r(3, 4, "a"))


def test_lost_write():
    bad(w(0, 1, None, "a"), w(2, 3, None, "b"))
    bad(w(0, 1, None, "a"), w(2, 3, "a", "b"), r(4, 5, "b"), r(6, 7, "a"))


def test_refused_write_that_happened():
    bad(w(0, 1, None, "a", ok=False), r(2, 3, "a"))
    bad(w(0, 1, None, "a", ok=False))  # nobody else wrote: there was nothing to refuse
    good(w(0, 5, None, "b"), w(1, 2, None, "a", ok=False), r(6, 7, "b"))


def test_no_answer():
    assert good(w(0, None, None, "a"), r(1, 2, None), r(5, 6, "a")) == {"a"}
    assert good(w(0, None, None, "a"), r(1, 2, None)) == {None, "a"}
    bad(w(0, None, None, "a"), r(1, 2, "a"), r(3, 4, None))
    bad(r(0, 1, "a"), w(2, None, None, "a"))  # seen before it began
    # it takes effect after a window in which nothing was under way
    assert good(w(0, None, None, "a"), r(1, 2, None), r(3, 4, None), r(5, 6, "a"), w(7, 8, "a", "b"), r(9, 10, "b")) == {"b"}
    # of two that lost their answers only one can have been first
    bad(w(0, None, None, "a"), w(0, None, None, "b"), r(1, 2, "a"), r(3, 4, "b"))


def test_split_brain():
    """Two leaders at once: both accept a write onto the same value."""
    bad(w(0, 5, None, "a"), w(1, 6, None, "b"))
    bad(w(0, 1, None, "x"), w(2, 9, "x", "a"), r(3, 4, "a"), w(2, 9, "x", "b", ok=True), r(10, 11, "a"))


def brute(calls):
    """Every order of the answered calls with every subset of the others."""
    must = [i for i, c in enumerate(calls) if c.end is not None]
    may = [i for i, c in enumerate(calls) if c.end is None and c.kind == CAS]
    for n in range(len(may) + 1):
        for extra in itertools.combinations(may, n):
            for order in itertools.permutations(must + list(extra)):
                pos = {i: p for p, i in enumerate(order)}
                if any(calls[a].end is not None and calls[a].end < calls[b].start and pos[a] > pos[b] for a in order for b in order):
                    continue
                state = None
                for i in order:
                    after = linear.step(calls[i], state)
                    if after is None:
                        break
                    state = after[0]
                else:
                    return True
    return False


def random_history(rnd, n):
    """Calls that really happened on a register, some answers lost, and in half of the histories one falsified."""
    state, t, calls, serial = None, 0, [], 0
    known = [None]
    for _ in range(n):
        t += rnd.randrange(1, 4)
        start, end = t - rnd.randrange(0, 6), t + rnd.randrange(0, 6)
        end = None if rnd.random() < 0.2 else end
        if rnd.random() < 0.5:
            calls.append(r(start, end, state))
        else:
            serial += 1
            old = rnd.choice(known[-2:])
            ok = old == state
            calls.append(w(start, end, old, "v%d" % serial, ok if end is not None else True))
            if ok and (end is not None or rnd.random() < 0.5):
                state = "v%d" % serial
                known.append(state)
    if rnd.random() < 0.5:
        c = rnd.choice(calls)
        if c.kind == READ:
            c.value = rnd.choice(known)
        elif c.end is not None:
            c.ok = not c.ok
    return calls


def test_against_every_order():
    rnd, verdicts = random.Random(8), [0, 0]
    for _ in range(1500):
        calls = random_history(rnd, rnd.randrange(1, 7))
        want = brute(calls)
        try:
            linear.check_key("k", calls)
            got = True
        except linear.NotLinearizable:
            got = False
        assert got == want, (got, want, calls)
        verdicts[want] += 1
    assert min(verdicts) > 100, verdicts


def test_a_long_history_is_checked_quickly():
    """20,000 calls of ten clients on one key, a hundred answers lost; then one stale read in the middle."""
    rnd = random.Random(1)
    state, t, calls = None, 0, []
    for i in range(20000):
        t += 1
        start, end = t - rnd.random() * 5, t + rnd.random() * 5
        if i % 200 == 199:
            end = None
        if rnd.random() < 0.5:
            calls.append(r(start, end, state))
        else:
            calls.append(w(start, end, state, i))
            if end is not None or rnd.random() < 0.5:
                state = i
    t0 = time.monotonic()
    linear.check_key("k", calls)
    took = time.monotonic() - t0
    assert took < 20, took
    reads = [c for c in calls if c.kind == READ and c.end is not None]
    reads[5000].value = reads[4900].value
    bad(*calls)


if __name__ == "__main__":
    failed = 0
    for name, f in list(globals().items()):
        if name.startswith("test_"):
            try:
                f()
                print("ok " + name)
            except AssertionError as e:
                failed += 1
                print("not ok %s: %s" % (name, str(e)[:2000]))
    sys.exit(1 if failed else 0)
