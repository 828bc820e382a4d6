from __future__ import annotations

import dataclasses

import pytest
from hand_built import EMPTY, REPORT

from normcheck.cli.exit_codes import FailOn, exit_code
from normcheck.errors import UsageError

FORMATS = ["table", "json", "jsonl"]
CODES = [  # severities found, and the exit code under error, warning, note and never
    ((), (0, 0, 0, 0)),
    (("note",), (0, 0, 1, 0)),
    (("warning",), (0, 1, 1, 0)),
    (("note", "warning"), (0, 1, 1, 0)),
    (("error",), (1, 1, 1, 0)),
    (("note", "error"), (1, 1, 1, 0)),
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("severities", "codes"), CODES)
def test_findings_decide_and_the_format_never_does(engine, normcheck, form, severities, codes):
    engine.find(*severities)
    limits = ["error", "warning", "note", "never"]
    found = [normcheck("simulate", "--format", form, "--fail-on", limit).code for limit in limits]
    assert tuple(found) == codes


def test_errors_are_the_default_limit(engine, normcheck):
    engine.find("warning")
    assert normcheck("simulate").code == 0
    engine.find("error")
    assert normcheck("simulate").code == 1


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("limit", ["error", "never"])
def test_nothing_analysed_is_a_code_of_its_own(engine, normcheck, form, limit):
    engine.report = EMPTY
    outcome = normcheck("simulate", "--format", form, "--fail-on", limit)
    assert outcome.code == 3
    assert outcome.out
    assert outcome.err.splitlines() == [
        "normcheck: nothing was analysed: defines layer norms only, batch-l2 was asked for"
    ]


@pytest.mark.usefixtures("engine")
def test_nothing_analysed_is_not_said_where_something_was(normcheck):
    assert normcheck("simulate").err == ""


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.usefixtures("engine")
def test_an_error_goes_before_findings(normcheck, form, tmp_path):
    outcome = normcheck("simulate", "--format", form, "--json", tmp_path / "no" / "report.json")
    assert outcome.code == 2


@pytest.mark.parametrize("error", [UsageError("no"), RuntimeError("no"), MemoryError(), RecursionError("no")])
def test_errors_are_two(engine, normcheck, error):
    engine.report = error
    assert normcheck("simulate").code == 2


def test_an_interrupt_is_130(engine, normcheck):
    engine.report = KeyboardInterrupt()
    outcome = normcheck("simulate")
    assert outcome == (130, "", "normcheck: interrupted\n")


def test_the_function_knows_every_limit():
    assert {limit: exit_code(REPORT, limit) for limit in FailOn} == {"error": 1, "warning": 1, "note": 1, "never": 0}
    silent = dataclasses.replace(REPORT, findings=())
    assert {exit_code(silent, limit) for limit in FailOn} == {0}
