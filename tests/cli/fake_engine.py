"""The command line over an engine that computes nothing: for tests that need a process of their own.

    python fake_engine.py BEHAVIOUR ARGUMENT...

runs ``normcheck ARGUMENT...``; BEHAVIOUR is what the engine does: report, big, slow, fail or interrupt.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "render")]

from hand_built import REPORT  # noqa: E402 - found by what the line above adds
from hand_built_model import MODEL  # noqa: E402

from normcheck.cli.main import main  # noqa: E402

HOSTILE = "layer1.\x1b[2J[/red]{0}\n.norm"


def report(*model, say=None, **_options):
    if say:
        say("resnet.pt: 14 layers")
    return MODEL if model else REPORT


def big(*_model, **_options):
    return dataclasses.replace(REPORT, results=REPORT.results * 3000)


def slow(*model, progress=None, **_options):
    for step in range(15):
        time.sleep(0.1)
        if progress:
            progress(step / 15, *([HOSTILE] if model else []))
    return report(*model)


def fail(*_model, **_options):
    raise RuntimeError("two\nlines")


def interrupt(*_model, **_options):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    sys.stderr.write("ready\n")
    sys.stderr.flush()
    time.sleep(60)


def fakes(engine):
    """Return modules that stand in for the engine, by their names: it is called for both commands."""
    modules = {f"normcheck.analysis.{command}": command for command in ("simulate", "analyze")}
    return {name: _module(name, command, engine) for name, command in modules.items()}


def _module(name, command, engine):
    module = types.ModuleType(name)
    setattr(module, command, engine)
    return module


if __name__ == "__main__":
    behaviours = {"report": report, "big": big, "slow": slow, "fail": fail, "interrupt": interrupt}
    sys.modules.update(fakes(behaviours[sys.argv[1]]))
    main(sys.argv[2:])
