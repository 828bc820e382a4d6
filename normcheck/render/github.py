"""The report as annotations of a GitHub Actions job: its workflow commands, then one plain line with the verdict.

GitHub shows at most 10 errors, 10 warnings and 10 notices of a step (and 50 annotations of a job), the first ones, and
says nothing of the others. So findings of one rule and fix in one file are one annotation, the worst come first, and
the last of ten counts what is left.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from normcheck.render.counts import outcome, told
from normcheck.render.groups import (
    Group,
    brief,
    findings_of,
    grouped,
    holds_for,
    omitted,
    posix,
    said,
    unread,
    with_verdicts,
    worst_of,
)
from normcheck.render.layout import inline
from normcheck.render.views import condition
from normcheck.results import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from normcheck.results import Report, Severity

_MOST = 10
"""Annotations of one severity that GitHub shows of a step."""

_COMMANDS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}
_NAMES = 200
"""Characters of layers' names in an annotation, unless the first is longer."""

_SENTENCE = 1000
"""Characters of a sentence in an annotation: of a longer one the middle is left out."""

_OLD_COMMAND = re.compile(r"##(?=\[)")
"""What begins a command of the runner's older syntax anywhere in a line."""


class _Annotation(NamedTuple):
    """One annotation, and how many findings, or things left out, it stands for."""

    severity: Severity
    title: str
    lines: tuple[str, ...]
    file: str | None = None
    stands_for: int = 1


def render(report: Report) -> str:
    """Return the annotations and the verdict."""
    return "".join(pieces(report))


def pieces(report: Report) -> Iterator[str]:
    """Yield the text of `render`, line by line."""
    every = _annotations(report)
    for severity in SEVERITIES:
        for annotation in _first([item for item in every if item.severity == severity]):
            yield _command(annotation)
    yield f"normcheck {report.command} {outcome(report)} ({told(report)})\n"


def _annotations(report: Report) -> list[_Annotation]:
    """Return what there is to say: unreadable files first, what was left out last."""
    titles = {rule.code: f" {rule.title}" for rule in report.rules}
    unreadable = [_Annotation("error", "Unreadable file", (why,), name) for name, why in unread(report)]
    groups = grouped(with_verdicts(report), by_file=True)
    found = [_annotation(group, titles.get(group.rule, "")) for group in groups if group.asked]
    return [*unreadable, *found, *_beside(groups, titles), *_not_analysed(report)]


def _beside(groups: Sequence[Group], titles: Mapping[str, str]) -> Iterator[_Annotation]:
    """Yield one annotation a file for all that is found in the view that nobody asked for."""
    of_file: dict[str | None, list[Group]] = defaultdict(list)
    for group in groups:
        if not group.asked:
            of_file[group.file].append(group)
    for file, here in of_file.items():
        findings = findings_of(here)
        lines = [f"{group.rule}{titles.get(group.rule, '')}{group.on}" for group in here]
        yield _Annotation("note", f"Only {condition(findings)}", tuple(lines), file, len(findings))


def _not_analysed(report: Report) -> list[_Annotation]:
    """Return one annotation for all that was left out; none where nothing was."""
    lines = omitted(report)
    if lines[_MOST:]:
        lines = [*lines[: _MOST - 1], f"and {len(lines) - _MOST + 1} more: the JSON report has all"]
    return [_Annotation("note", "Not analysed", tuple(lines), None, len(report.skipped))] if lines else []


def _annotation(group: Group, title: str) -> _Annotation:
    many = len(group.findings)
    lines = [brief(said(group.findings[0]), _SENTENCE)]
    if many > 1:
        lines.append(f"{worst_of(group)}{holds_for(group, _NAMES)}")
    if group.fix:
        lines.append(f"fix: {brief(group.fix, _SENTENCE)}")
    return _Annotation(group.severity, f"{group.rule}{title}{group.on}", tuple(lines), group.file, many)


def _first(annotations: Sequence[_Annotation]) -> list[_Annotation]:
    """Return as many as GitHub shows; where there are more, the last says how much is left."""
    if len(annotations) <= _MOST:
        return list(annotations)
    shown, rest = annotations[: _MOST - 1], annotations[_MOST - 1 :]
    many = sum(item.stands_for for item in rest)
    counted = f"and {many} more, of {len(rest)} kinds: the JSON report has all"
    return [*shown, _Annotation(rest[0].severity, f"{many} more", (counted,))]


def _command(annotation: _Annotation) -> str:
    """Return a workflow command, on one line whatever a name contains."""
    properties = {"title": annotation.title, "file": posix(annotation.file) if annotation.file else ""}
    told_in = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
    data = "\n".join(map(inline, annotation.lines))
    return f"::{_COMMANDS[annotation.severity]} {told_in}::{_data(data)}\n"


def _data(text: str) -> str:
    """Return text as the message of a command: the runner turns these three back."""
    plain = _OLD_COMMAND.sub(r"\\x23#", text)
    return plain.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Return text as the value of a property of a command."""
    return _data(inline(text)).replace(":", "%3A").replace(",", "%2C")
