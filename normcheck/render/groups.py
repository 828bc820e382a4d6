"""Findings put together by what is to be done, the worst first, and the file that each is about."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from normcheck.render.findings import told
from normcheck.render.folding import listed
from normcheck.render.layout import inline
from normcheck.render.places import by_reason, counted, distinct, place, ran, where, whole, worst_first
from normcheck.render.views import unasked
from normcheck.results import SEVERITIES, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from normcheck.results import Change, Report, Severity

_LONG = 300
"""Names and messages longer than that are cut in the middle where an output has a limit of its own."""

VERDICT = "verdict"
"""Stands for a rule where only the verdict on a place is worse than it was."""


class Group(NamedTuple):
    """Findings of one severity, rule and fix, the worst first; `file` where they were told apart by file.

    `asked`: False for those of the view that nobody asked for.
    """

    asked: bool
    severity: Severity
    rule: str
    fix: str
    file: str | None
    findings: tuple[Finding, ...]

    @property
    def on(self) -> str:
        """On how many layers it is, after a colon; nothing without layers."""
        return f": {counted(len(self.layers), 'layer')}" if self.layers else ""

    @property
    def layers(self) -> list[str]:
        """The layers that it is about, each once."""
        return distinct(finding.layer for finding in self.findings if finding.layer is not None)


def grouped(report: Report, *, by_file: bool = False) -> list[Group]:
    """Return the findings in groups: the most severe first, then by the worst result that a group is about.

    Those of the view that nobody asked for come last.
    """
    files, is_unasked = Files(report), unasked(report)
    groups: dict[tuple[bool, Severity, str, str, str | None], list[Finding]] = defaultdict(list)
    for finding in sorted(report.findings, key=rank_of(report)):
        file = files.of(finding.layer) if by_file else None
        groups[not is_unasked(finding), finding.severity, finding.rule, finding.fix, file].append(finding)
    every = [Group(*key, tuple(found)) for key, found in groups.items()]
    return sorted(every, key=lambda group: (not group.asked, SEVERITIES.index(group.severity)))


def findings_of(groups: Iterable[Group]) -> list[Finding]:
    """Return the findings of some groups, one after the other."""
    return [finding for group in groups for finding in group.findings]


def with_verdicts(report: Report) -> Report:
    """Return the report of a diff with a finding more for each place of which only the verdict tells that it got worse.

    Such a place fails a diff as a finding does. Any other report is returned as it is.
    """
    if report.command != "diff" or report.comparison is None:
        return report
    told = [change for change in report.comparison.regressions if change.rule is None and change.severity]
    return replace(report, findings=(*report.findings, *map(_of_verdict, told)))


def _of_verdict(change: Change) -> Finding:
    return Finding(
        rule=VERDICT,
        severity=change.severity or "note",
        layer=change.layer,
        norm=change.norm,
        precision=change.precision,
        implementation=change.implementation,
        params=change.params,
        mode=change.mode,
        step=None,
        message=change.message,
        fix="",
        assumed=False,
    )


def rank_of(report: Report) -> Callable[[Finding], int]:
    """Return what orders findings: the place of their result, or of their layer's worst, among all.

    Results that nobody asked for come after all others.
    """
    order = sorted(worst_first(report.results), key=lambda result: not result.asked)
    ranks: dict[tuple[str | None, ...], int] = {}
    for rank, result in enumerate(order):
        ranks.setdefault(place(result), rank)
        ranks.setdefault((result.layer,), rank)
    return lambda finding: ranks.get(place(finding), ranks.get((finding.layer,), len(order)))


def said(finding: Finding) -> str:
    """Return in a sentence where something is, at which step, what it is, and whether it is sure."""
    step, message = told(finding)
    return f"{where(finding)}{step}: {message}"


def holds_for(group: Group, budget: int) -> str:
    """Return for which layers a group holds, as many as the budget has room for, and what they were run with."""
    kernels = ran(group.findings)
    layers = [brief(name) for name in group.layers]
    if not layers:
        return kernels
    many = f"{counted(len(layers), 'layer')}: " * (len(layers) > 1)
    return f"{many}{listed(layers, budget)}" + (f" ({kernels})" if kernels else "")


def worst_of(group: Group) -> str:
    """Return of what the first finding of a group is the worst; nothing where all say the same."""
    messages = {finding.message for finding in group.findings}
    return f"the worst of {len(group.findings)} findings; " if len(messages) > 1 else ""


def brief(text: str, most: int = _LONG) -> str:
    """Return text on one line, control characters escaped, its middle left out where it is longer than `most`."""
    shown = inline(text)
    if len(shown) <= most:
        return shown
    half = most // 2
    return f"{shown[:half]} … {shown[-half:]} ({len(text)} characters)"


def omitted(report: Report) -> list[str]:
    """Return what was not analysed: a line for each reason, with the names that it is the reason for."""
    reasons = by_reason(report.skipped).items()
    return [f"{listed(list(map(brief, names)), _LONG)}: {brief(reason)}" for reason, names in reasons]


def unread(report: Report) -> list[tuple[str, str]]:
    """Return the files that could not be read, and a line that says why."""
    return [(item.name, brief(whole(item))) for item in report.unreadable]


class Files:
    """Which file of a report a layer, or a tensor that was skipped, is of."""

    def __init__(self, report: Report) -> None:
        self._of = {layer.name: layer.file for layer in report.layers}
        named = report.settings.get("models")
        self.models = distinct([*map(str, named if isinstance(named, list | tuple) else ()), *self._of.values()])

    def of(self, name: str | None) -> str | None:
        """Return the file; None where there is none, or no telling which.

        What is no layer is of the only model, or of the one with whose last parts its name begins: that is how the
        names of several models are told apart.
        """
        if name is None:
            return None
        if name in self._of:
            return self._of[name]
        if len(self.models) == 1:
            return self.models[0]
        head, colon, _ = name.partition(":")
        ends = [model for model in self.models if colon and f"/{posix(model)}".endswith(f"/{head}")]
        return ends[0] if len(ends) == 1 else None


def posix(path: str) -> str:
    """Return a path with forward slashes and no dot before them, by which code hosts know their files."""
    return path.replace("\\", "/").removeprefix("./")
