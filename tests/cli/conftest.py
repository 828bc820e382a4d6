from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "render")]

import fake_engine  # noqa: E402 - found by what the line above adds
from hand_built import REPORT  # noqa: E402

from normcheck.cli.main import run  # noqa: E402


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


class Engine:
    """A stand-in for the engine: returns `report`, or raises it if it is an exception; keeps what it was given.

    Of `analyze` it keeps the models as `model`, and says `said` where it is given something to say it with.
    """

    def __init__(self):
        self.report, self.calls, self.said = REPORT, [], []

    def __call__(self, *model, **options):
        self.calls.append({**dict(zip(["model"], model, strict=False)), **options})
        for line in self.said if options.get("say") else ():
            options["say"](line)
        if isinstance(self.report, BaseException):
            raise self.report
        return self.report

    def find(self, *severities):
        """Let the report hold one finding of each of these severities."""
        findings = tuple(dataclasses.replace(REPORT.findings[0], severity=severity) for severity in severities)
        self.report = dataclasses.replace(REPORT, findings=findings)


@pytest.fixture
def engine(monkeypatch):
    """Put a stand-in in the engine's place."""
    engine = Engine()
    for name, module in fake_engine.fakes(engine).items():
        monkeypatch.setitem(sys.modules, name, module)
    return engine


@pytest.fixture
def normcheck(capsys, monkeypatch):
    """Return a function that runs a command line in this process."""
    for name in list(os.environ):
        if name in ("COLUMNS", "NO_COLOR") or (name.startswith("NORMCHECK_") and "_TEST_" not in name):
            monkeypatch.delenv(name)

    def command(*arguments):
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return command


@pytest.fixture
def process():
    """Return a function that starts a command line over a fake engine in a process of its own."""
    started = []

    def start(behaviour, *arguments, **options):
        command = [sys.executable, str(HERE / "fake_engine.py"), behaviour, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        started.append(subprocess.Popen(command, cwd=HERE.parents[1], **pipes))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.communicate()
