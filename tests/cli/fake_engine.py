"""The command line over an engine that computes nothing: for tests that need a process of their own.

    python fake_engine.py BEHAVIOUR ARGUMENT...

runs ``normcheck ARGUMENT...``; BEHAVIOUR is what the engine does: report, slow, fail or interrupt.
"""

from __future__ import annotations

import signal
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "render")]

from hand_built import REPORT  # noqa: E402 - found by what the line above adds

from normcheck.cli.main import main  # noqa: E402


def report(**_options):
    return REPORT


def slow(*, progress=None, **_options):
    for step in range(15):
        time.sleep(0.1)
        if progress:
            progress(step / 15)
    return REPORT


def fail(**_options):
    raise RuntimeError("two\nlines")


def interrupt(**_options):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    sys.stderr.write("ready\n")
    sys.stderr.flush()
    time.sleep(60)


def fake(simulate):
    """Return a module that stands in for the engine."""
    module = types.ModuleType("normcheck.analysis.simulate")
    module.simulate = simulate
    return module


if __name__ == "__main__":
    behaviours = {"report": report, "slow": slow, "fail": fail, "interrupt": interrupt}
    sys.modules["normcheck.analysis.simulate"] = fake(behaviours[sys.argv[1]])
    main(sys.argv[2:])
