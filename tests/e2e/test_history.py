#!/usr/bin/python3
"""A storm over three managers and two workers, with its history checked for linearizability; and the checker itself."""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "history"))
import linear  # noqa: E402
import storm  # noqa: E402
import swarmtest as st  # noqa: E402

SECONDS = float(os.environ.get("STORM_SECONDS", "60"))


def setup(s):
    s.load("pause")


def test_the_checker(_s):
    p = subprocess.run([os.path.join(HERE, "..", "history", "linear_test.py")], stdout=subprocess.PIPE, text=True, check=False)
    print(p.stdout, end="")
    st.eq(p.returncode, 0)


def test_storm(s):
    try:
        storm.storm(s, SECONDS)
    except linear.NotLinearizable as e:
        raise st.Failure(str(e)[:5000]) from None


if __name__ == "__main__":
    st.main(setup, managers=3, workers=2, settings=storm.SETTINGS)
