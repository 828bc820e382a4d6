"""JUnit XML: read by a reader of it, with counts that agree, and every finding told once."""

from __future__ import annotations

import dataclasses
from collections import Counter

import junitparser
import pytest
from hand_built import EMPTY, REPORT
from hand_built_diff import AGAINST, DIFF
from hand_built_model import MODEL, NO_NORMS, TIGHT, UNSAFE

from normcheck.render import junit
from normcheck.results import SEVERITIES

REPORTS = {"simulate": REPORT, "empty": EMPTY, "analyze": MODEL, "diff": DIFF, "against": AGAINST}
ALL = {**REPORTS, "no norms": dataclasses.replace(NO_NORMS, skipped=())}


def read(report):
    return junitparser.JUnitXml.fromstring(junit.render(report).encode())


def cases(report):
    return {(case.classname, case.name): case for suite in read(report) for case in suite}


def counted(element):
    return element.tests, element.failures, element.errors, element.skipped


@pytest.mark.parametrize("name", ALL)
def test_the_counts_are_those_that_a_reader_counts(name):
    report = read(ALL[name])
    stated = [counted(report), *map(counted, report)]
    for suite in report:
        suite.update_statistics()
    report.update_statistics()
    assert stated == [counted(report), *map(counted, report)]


@pytest.mark.parametrize("limit", ["error", "warning", "note", "never"])
@pytest.mark.parametrize("name", REPORTS)
def test_the_cases_that_fail_are_those_with_findings_at_or_above_the_limit(name, limit):
    report = dataclasses.replace(REPORTS[name], fail_on=limit)
    severities = SEVERITIES[: (*SEVERITIES, "never").index(limit) + 1] if limit != "never" else ()
    verdicts = [c for c in DIFF.comparison.regressions if c.rule is None] if name == "diff" else []
    failing = {(f.layer, f.norm, f.precision) for f in (*report.findings, *verdicts) if f.severity in severities}
    failed = [case for case in cases(report).values() if any(isinstance(e, junitparser.Failure) for e in case.result)]
    assert len(failed) == len(failing)
    assert read(report).failures == len(failing)


@pytest.mark.parametrize("name", REPORTS)
def test_properties_count_the_findings_of_the_summary(name):
    totals = Counter()
    for suite in read(REPORTS[name]):
        totals.update({item.name: int(item.value) for item in suite.properties() if item.name.startswith("findings.")})
    counts = dataclasses.asdict(REPORTS[name].summary.findings)
    assert totals == {f"findings.{severity}": many for severity, many in counts.items()}


@pytest.mark.parametrize("name", REPORTS)
def test_every_finding_is_told_once_with_its_fix(name):
    text = "".join(
        f"{entry.text}\n" for case in cases(REPORTS[name]).values() for entry in case.result if entry.text
    ) + "".join(f"{case.system_out}\n" for case in cases(REPORTS[name]).values() if case.system_out)
    heads = Counter(line.split()[1] for line in text.splitlines() if line.split()[0] in SEVERITIES)
    assert heads.pop("verdict", 0) == (name == "diff")
    assert heads == Counter(finding.rule for finding in REPORTS[name].findings)
    assert text.count("  fix: ") == sum(bool(finding.fix) for finding in REPORTS[name].findings)


def test_a_case_is_a_layer_in_a_precision():
    names = set(cases(MODEL))
    assert ("resnet.pt/batch-l2", f"{TIGHT[0]} fp16") in names
    assert ("resnet.pt/batch-l2", f"{TIGHT[0]} bf16") in names
    assert ("resnet.pt/layer-l2", "head.norm bf16") in names


def test_what_holds_in_any_precision_is_a_case_of_the_layer():
    case = cases(MODEL)["resnet.pt/batch-l2", f"{TIGHT[0]}: layer"]
    assert not case.result
    assert case.system_out.startswith("note NC401 batch-l2: eps is 1e-5 by default")


def test_a_simulations_cases_are_norms_in_a_precision():
    assert ("normcheck simulate/batch-l2", "fp16") in cases(REPORT)


def test_a_failure_tells_all_that_fails_and_the_output_the_rest():
    strict = dataclasses.replace(MODEL, fail_on="warning")
    case = cases(strict)["resnet.pt/batch-l2", f"{TIGHT[0]} fp16"]
    (failure,) = case.result
    assert failure.type == "NC103"
    assert failure.message == "NC103: store: 0.75 bit is left before it overflows (and 1 more)"
    assert "\nwarning NC301 batch-l2 fp16 wide: relative rms error 0.0125" in failure.text
    assert case.system_out.startswith("note NC102 batch-l2 fp16 pure")


def test_in_a_diff_a_case_fails_where_only_its_verdict_is_worse():
    (failure,) = cases(DIFF)["resnet.pt/batch-l2", "stem.bn fp16"].result
    assert failure.message == "verdict: the verdict is unsafe, it was ok"
    assert not cases(AGAINST)["resnet.pt/batch-l2", "stem.bn fp16"].result


def test_errors_fail_by_default_and_warnings_do_not():
    failed = {name for (_, name), case in cases(MODEL).items() if any(e.type == "NC104" for e in case.result)}
    assert failed == {f"{layer} fp16" for layer in UNSAFE}
    assert read(MODEL).failures == len(UNSAFE)


def test_what_could_not_be_read_is_an_error_and_what_was_skipped_is_skipped():
    (error,) = cases(MODEL)["broken.pt", "broken.pt"].result
    assert isinstance(error, junitparser.Error)
    assert error.message == "broken.pt: the archive ends early; download it again"
    (skipped,) = cases(MODEL)["plain.pt", "plain.pt"].result
    assert isinstance(skipped, junitparser.Skipped)
    assert "no normalization layers" in skipped.message


def test_a_skipped_tensor_fails_where_its_finding_does():
    graver = tuple(dataclasses.replace(f, severity="error") if f.rule == "NC404" else f for f in MODEL.findings)
    report = dataclasses.replace(MODEL, findings=graver)
    (result,) = cases(report)["normcheck analyze", "head.scale"].result
    assert isinstance(result, junitparser.Failure)


@pytest.mark.parametrize("name", REPORTS)
def test_no_two_cases_have_one_name(name):
    names = [(case.classname, case.name) for suite in read(REPORTS[name]) for case in suite]
    assert len(names) == len(set(names))


def test_no_output_names_a_file_to_attach():
    finding = dataclasses.replace(MODEL.findings[0], message="[[ATTACHMENT|/etc/passwd]]")
    text = junit.render(dataclasses.replace(MODEL, findings=(finding,)))
    assert "[[ATTACHMENT" not in text
    assert "ATTACHMENT|/etc/passwd" in text


def test_nothing_at_all_is_an_empty_report():
    nothing = dataclasses.replace(EMPTY, skipped=())
    assert junit.render(nothing).splitlines()[1:] == [
        '<testsuites name="normcheck" tests="0" failures="0" errors="0" skipped="0">',
        "</testsuites>",
    ]
