"""Lint and types as tests, and the script that runs everything on a fresh machine."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = str(ROOT / "pyproject.toml")
RUN = ROOT / ".ci" / "run"
INSTALL, TEST = "python -m pip install -e '.[test]'", "python -m pytest"


def outcome(*arguments, cwd=ROOT, **environment):
    """Run a program; return its exit code and all it said."""
    done = subprocess.run(
        arguments,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout


def ruff(*paths):
    command = [sys.executable, "-m", "ruff", "check", "--config", CONFIGURATION]
    return outcome(*command, *map(str, paths))


def mypy(*paths, cache):
    command = [sys.executable, "-m", "mypy", "--config-file", CONFIGURATION, "--cache-dir", str(cache)]
    return outcome(*command, *map(str, paths))


# --------------------------------------------------------------------------------------------- lint and types


def test_ruff_has_nothing_to_say():
    code, said = ruff("normcheck", "tests", "data")
    assert code == 0, said


def test_mypy_has_nothing_to_say():
    code, said = mypy(cache=ROOT / ".mypy_cache")
    assert code == 0, said
    assert "Success" in said


def test_ruff_and_mypy_are_as_strict_as_configured(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def double(x):\n    return 2 * x\n")
    code, said = ruff(bad)
    assert code == 1
    assert {"ANN001", "ANN201", "D100", "D103"} <= set(said.split())
    code, said = mypy(bad, cache=tmp_path / "cache")
    assert code == 1
    assert "[no-untyped-def]" in said


# ------------------------------------------------------------------------------------------- the script of CI


FAKE = """#!/bin/bash
echo "$0 $*" >> "$CALLS"
case "$*" in
    *"{failing}"*) echo 'it failed'; exit 7 ;;
    "--version") echo 'Python 3.11.0' ;;
    "-m venv"*) mkdir -p "${{@: -1}}/bin"; cp "$0" "${{@: -1}}/bin/python" ;;
esac
exit 0
"""
NOTHING = "no argument has this text"


def run_with(tmp_path, failing=NOTHING, fake=FAKE):
    """Run `.ci/run` on a pretended python that fails where its arguments hold `failing`.

    Returns:
        The exit code, what was said, and the calls of python, the environment's own ones without their path.
    """
    python = tmp_path / "python3"
    python.write_text(fake.format(failing=failing))
    python.chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    code, said = outcome("bash", str(RUN), CALLS=str(calls), PYTHON=str(python), TMPDIR=str(tmp_path))
    inside = [line.partition("/venv/bin/")[2] for line in calls.read_text().splitlines()]
    return code, said, [call for call in inside if call]


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")


@needs_bash
def test_ci_installs_torch_first_and_then_runs_the_test_command(tmp_path):
    code, said, calls = run_with(tmp_path)
    assert code == 0, said
    steps = ["-m pip install torch==2.13.0", "-m pip install -e .[test]", "-m pytest --cov"]
    assert calls == [f"python {step}" for step in steps]
    assert said.rstrip().endswith("== tests, lint and types")  # nothing is said after pytest


@needs_bash
@pytest.mark.parametrize(("failing", "steps"), [("-m venv", 0), ("torch==", 1), ("-e .[test]", 2), ("-m pytest", 3)])
def test_ci_fails_when_a_step_fails_and_goes_no_further(tmp_path, failing, steps):
    code, said, calls = run_with(tmp_path, failing)
    assert code == 7, said
    assert len(calls) == steps


@needs_bash
def test_ci_leaves_nothing_behind(tmp_path):
    run_with(tmp_path, "-m pytest")
    assert {path.name for path in tmp_path.iterdir()} == {"python3", "calls"}


@needs_bash
def test_ci_does_without_ensurepip(tmp_path):
    fake = FAKE.replace('    "-m venv"', '    "-m venv --clear /"*) exit 1 ;;\n    "-m venv"')
    code, said, calls = run_with(tmp_path, fake=fake)
    assert code == 0, said
    assert calls[0] == "python install pip"  # by the interpreter's own pip, into the environment
    assert len(calls) == 4


@needs_bash
def test_ci_says_that_it_needs_a_newer_python(tmp_path):
    code, said, calls = run_with(tmp_path, "import sys")
    assert code == 1
    assert "no python 3.11 or newer" in said
    assert calls == []


def test_ci_is_executable():
    assert RUN.stat().st_mode & stat.S_IXUSR


def test_readme_gives_the_commands_that_ci_runs():
    readme, script = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", RUN))
    assert f"{INSTALL} && {TEST}\n" in readme
    assert f"\n{INSTALL}\n" in script
    assert f"\n{TEST} " in script
