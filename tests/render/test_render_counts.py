"""What became of a run: the same words and numbers in every output, and those of the exit code."""

from __future__ import annotations

import dataclasses
import json
import re

import junitparser
import pytest
from hand_built import EMPTY, REPORT
from hand_built_diff import AGAINST, DIFF, SAME
from hand_built_model import MODEL, NO_NORMS
from large_reports import large_report

from normcheck.cli.exit_codes import exit_code
from normcheck.render import counts, github, junit, markdown, sarif
from normcheck.results import SEVERITIES

READABLE = dataclasses.replace(MODEL, unreadable=())
REPORTS = {"simulate": REPORT, "empty": EMPTY, "analyze": MODEL, "diff": DIFF, "against": AGAINST, "same": SAME}
KNOWN = dataclasses.replace(READABLE.summary, known=1, ignored=4)


@pytest.mark.parametrize("limit", ["error", "warning", "note", "never"])
@pytest.mark.parametrize("report", [*REPORTS.values(), READABLE, NO_NORMS], ids=[*REPORTS, "readable", "no norms"])
def test_a_run_failed_where_its_exit_code_says_so(report, limit):
    report = dataclasses.replace(report, fail_on=limit)
    failed = counts.outcome(report).startswith("failed: ")
    assert failed == (exit_code(report) != 0)
    assert failed or counts.outcome(report) == "passed"


def test_it_is_said_why_a_run_failed():
    assert counts.outcome(MODEL) == "failed: 1 file could not be read"
    assert counts.outcome(EMPTY) == "failed: nothing was analysed"
    assert counts.outcome(READABLE) == "failed: 2 findings at or above error"
    assert counts.outcome(AGAINST) == "failed: 1 new or worse finding at or above error"


def test_counts_tell_what_was_left_out_where_anything_was():
    report = dataclasses.replace(READABLE, summary=KNOWN)
    told = "2 errors, 7 warnings, 23 notes, 14 layers, 80 results, 3 skipped, 1 known already, 4 deselected"
    assert counts.told(report) == told
    assert counts.told(REPORT) == "2 errors, 2 warnings, 2 notes, 0 layers, 5 results, 1 skipped"


def of_github(report):
    line = github.render(report).splitlines()[-1]
    return {severity: int(re.search(rf"(\d+) {severity}", line[line.rindex("(") :])[1]) for severity in SEVERITIES}


def of_markdown(report):
    rows = [line for line in markdown.render(report).splitlines() if line.startswith("| ")]
    titles, _, numbers, *_ = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    found = dict(zip(titles, numbers, strict=True))
    return {severity: int(found[f"{severity}s"]) for severity in SEVERITIES}


def of_junit(report):
    suites = junitparser.JUnitXml.fromstring(junit.render(report).encode())
    found = dict.fromkeys(SEVERITIES, 0)
    for suite in suites:
        for item in suite.properties():
            if item.name.startswith("findings."):
                found[item.name.removeprefix("findings.")] += int(item.value)
    return found


def of_sarif(report):
    levels = [result["level"] for result in json.loads(sarif.render(report))["runs"][0]["results"]]
    return {severity: levels.count(severity) for severity in SEVERITIES}


@pytest.mark.parametrize("output", [of_github, of_markdown, of_junit, of_sarif])
@pytest.mark.parametrize("report", [*REPORTS.values(), large_report(30)], ids=[*REPORTS, "large"])
def test_every_output_has_the_counts_of_the_summary(output, report):
    assert output(report) == dataclasses.asdict(report.summary.findings)
