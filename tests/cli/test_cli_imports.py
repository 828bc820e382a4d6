"""What commands load: the engine is imported when it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numba", "scipy.stats")
REPORT = """
import sys
from normcheck.cli.main import run
code = run({arguments!r})
print(*sorted({{'numpy', 'msgspec', *{heavy!r}}} & set(sys.modules)), sep=',', file=sys.stderr)
sys.exit(code)
"""


def loaded(*arguments):
    """Return which heavy modules a command loads."""
    code = REPORT.format(arguments=list(arguments), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    return set(filter(None, done.stderr.strip().split(",")))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["simulate", "--help"], ["analyze", "--help"], ["norms", "--help"]]
)
def test_help_loads_neither_engine_nor_numpy(arguments):
    assert loaded(*arguments) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["formats"],
        ["formats", "fp16", "--format", "json"],
        ["norms"],
        ["norms", "rms"],
        ["implementations"],
        ["implementations", "pure"],
        ["rules"],
        ["rules", "NC301"],
        ["orders"],
        ["distributions"],
        ["distributions", "outlier"],
        ["schema"],
        ["cases"],
        ["cases", "--signature", "UFLOW", "--format", "json"],
    ],
)
def test_lists_load_no_engine(arguments):
    assert loaded(*arguments).isdisjoint(HEAVY)


def test_what_is_loaded_is_seen():
    assert "msgspec" in loaded("schema")
