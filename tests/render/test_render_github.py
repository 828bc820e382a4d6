"""Annotations of GitHub Actions: at most ten of a kind, the worst first, all findings counted."""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

import pytest
from hand_built import EMPTY, REPORT
from hand_built_diff import DIFF, SAME
from hand_built_model import MODEL, TIGHT, UNSAFE, finding
from hand_built_rules import with_rules

from normcheck.render import github
from normcheck.results import Skipped

COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::(.*)")
LEVELS = {"error": "error", "warning": "warning", "notice": "note"}


class Annotation(NamedTuple):
    severity: str
    title: str
    file: str | None
    message: str


def unescaped(text):
    """What the runner makes of an escaped value: % last, as it was first."""
    for code, sign in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, sign)
    return text


def annotations(report):
    """The commands as the runner reads them."""
    found = []
    for line in github.render(report).splitlines()[:-1]:
        level, properties, data = COMMAND.fullmatch(line).groups()
        values = dict(item.split("=", 1) for item in properties.split(","))
        file = unescaped(values["file"]) if "file" in values else None
        found.append(Annotation(LEVELS[level], unescaped(values["title"]), file, unescaped(data)))
    return found


def rules(many):
    """A report with so many errors, each of another rule, so that none are one annotation."""
    found = tuple(
        finding(f"NC{place}", "error", UNSAFE[0], f"message {place}", "fix") for place in range(100, 100 + many)
    )
    return dataclasses.replace(MODEL, findings=found, unreadable=(), skipped=())


def test_the_last_line_is_the_verdict_with_the_counts():
    assert github.render(REPORT).splitlines()[-1] == (
        "normcheck simulate failed: 2 findings at or above error "
        "(2 errors, 2 warnings, 2 notes, 0 layers, 5 results, 1 skipped)"
    )
    assert github.render(SAME).splitlines()[-1].startswith("normcheck diff passed (0 errors, 0 warnings, 0 notes, ")
    assert github.render(DIFF).splitlines()[-1].startswith("normcheck diff failed: 8 regressions at or above note (")
    assert github.render(EMPTY).splitlines()[-1].startswith("normcheck simulate failed: nothing was analysed (0 errors")
    assert github.render(MODEL).splitlines()[-1].startswith("normcheck analyze failed: 1 file could not be read (2 err")


def test_findings_of_a_rule_and_fix_are_one_annotation_that_tells_the_layers():
    (found,) = [item for item in annotations(MODEL) if item.title.startswith("NC103")]
    assert found.severity == "warning"
    assert found.title == "NC103: 3 layers"
    assert found.file == "resnet.pt"
    worst, layers, fix = found.message.split("\n")
    assert (
        worst == f"{TIGHT[2]} batch-l2 fp16 wide: store: 0.25 bit is left before it overflows (rests on an assumption)"
    )
    assert layers == f"the worst of 3 findings; 3 layers: {', '.join(TIGHT[::-1])} (batch-l2 fp16 wide)"
    assert fix == "fix: scale the input down"


def test_one_finding_is_told_without_a_count():
    (found,) = [item for item in annotations(MODEL) if item.title.startswith("NC403")]
    assert found.message == "head.norm layer-l2: it might be instance-l2\nfix: say which with --kind"


def test_a_title_says_what_the_rule_is():
    assert annotations(with_rules(DIFF))[0].title == "NC102 Silent collapse: 1 layer"


def test_a_diff_tells_where_only_the_verdict_is_worse():
    (found,) = [item for item in annotations(DIFF) if item.title.startswith("verdict")]
    assert found.message == "stem.bn batch-l2 fp16 wide: the verdict is unsafe, it was ok"


def test_findings_in_other_files_are_other_annotations():
    elsewhere = tuple(dataclasses.replace(f, file="other.pt") if f.name == TIGHT[0] else f for f in MODEL.layers)
    found = annotations(dataclasses.replace(MODEL, layers=elsewhere))
    assert {item.file for item in found if item.title.startswith("NC103")} == {"resnet.pt", "other.pt"}


def test_what_could_not_be_read_is_the_first_error_and_what_was_skipped_the_last_notice():
    found = annotations(MODEL)
    assert found[0] == (
        "error",
        "Unreadable file",
        "broken.pt",
        "broken.pt: the archive ends early; download it again",
    )
    assert found[-1].severity == "note"
    assert found[-1].message == (
        "head.scale, head.shift: int8 is no number\nplain.pt: no normalization layers among its 12 tensors"
    )


def test_annotations_come_the_most_severe_first():
    severities = [item.severity for item in annotations(MODEL)]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert set(severities) == {"error", "warning", "note"}


@pytest.mark.parametrize(("many", "shown"), [(10, 10), (11, 10), (40, 10)])
def test_at_most_ten_of_a_severity_and_the_tenth_counts_the_rest(many, shown):
    found = annotations(rules(many))
    assert len(found) == shown
    if many > shown:
        assert found[-1].severity == "error"
        assert found[-1].title == f"{many - 9} more"
        assert found[-1].message == f"and {many - 9} more, of {many - 9} kinds: the JSON report has all"
    else:
        assert "more" not in found[-1].title


def test_of_many_reasons_the_last_line_counts_the_rest():
    skipped = tuple(Skipped(name="a", reason=f"reason {place}") for place in range(12))
    lines = annotations(dataclasses.replace(MODEL, skipped=skipped))[-1].message.split("\n")
    assert lines[8:] == ["a: reason 8", "and 3 more: the JSON report has all"]


def test_values_are_escaped_as_the_runner_unescapes_them():
    odd = dataclasses.replace(MODEL.layers[0], name="a:b,c%0A", file="x:y,z%2C.pt")
    found = finding("NC1,:%", "error", "a:b,c%0A", "100 %", "")
    report = dataclasses.replace(MODEL, layers=(odd,), findings=(found,), unreadable=(), skipped=())
    line = github.render(report).splitlines()[0]
    assert line == (
        "::error title=NC1%2C%3A%25%3A 1 layer,file=x%3Ay%2Cz%252C.pt::a:b,c%250A batch-l2 fp16 wide: 100 %25"
    )


def test_no_line_holds_a_command_of_the_older_syntax():
    hostile = finding("NC102", "error", "##[error]x", "##[stop-commands]y", "##[group]z")
    text = github.render(dataclasses.replace(MODEL, findings=(hostile,)))
    assert "##[" not in text
    assert "\\x23#[error]x" in text


def test_nothing_found_is_the_verdict_alone():
    clean = dataclasses.replace(MODEL, findings=(), skipped=(), unreadable=(), summary=SAME.summary)
    assert github.render(clean).startswith("normcheck analyze passed (0 errors")
