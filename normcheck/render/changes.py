"""How a report differs from an older one, as text: the page of ``normcheck diff``, and what --baseline adds to one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from normcheck.render.figures import ABSENT, count, figure
from normcheck.render.folding import listed
from normcheck.render.layout import Lines, inline, paragraph
from normcheck.render.places import counted, distinct, ran, where
from normcheck.results import SEVERITIES, FigureChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from normcheck.results import Change, Comparison, Report

_FEW = 3
"""So many places of one change are told one by one."""

_WORDS = {
    "rows.bad": "rows bad",
    "deviation.relative_rms": "deviation",
    "headroom.overflow_bits": "headroom",
    "safe_scale.high": "largest safe scale",
}
"""Figures by the titles that they have in the table of results."""

Kind = Literal["new", "worse", "better", "gone"]
_FOR_THE_WORSE: tuple[Kind, ...] = ("new", "worse")
_FOR_THE_BETTER: tuple[Kind, ...] = ("gone", "better")

Told = set[tuple[str, FigureChange]]
"""Figures that were told already, with their places: of several changes at a place the first one tells them."""


def page(report: Report, width: int) -> list[Lines]:
    """Return the page of ``normcheck diff``: what got worse, the worst first, what got better, and the verdict."""
    comparison = report.comparison
    if comparison is None:
        return []
    told: Told = set()
    return [
        paragraph(_premise(report, comparison), width=width, hanging=2, head="diff"),
        _regressions(report, comparison.regressions, width, told),
        _improvements(comparison.improvements, width, told),
        *_beside(comparison, width),
        _verdict(comparison, width),
    ]


def section(report: Report, width: int) -> list[Lines]:
    """Return what the page of a run against a baseline says of it: what is not told with the findings."""
    comparison = report.comparison
    if comparison is None:
        return []
    told: Told = set()
    moved = [change for change in comparison.regressions if change.kind == "worse" or change.rule is None]
    return [
        paragraph(_against(report, comparison), width=width, hanging=2, head="against"),
        _improvements(moved, width, told),
        _improvements(comparison.improvements, width, told),
        *_beside(comparison, width),
    ]


def _premise(report: Report, comparison: Comparison) -> list[str]:
    """Return what was compared: the files, their sizes, and in what they were not made the same way."""
    layers, results = report.summary.layers, report.summary.results
    return [
        f"{inline(comparison.old)} -> {inline(comparison.new or 'this run')}",
        *([counted(layers, "layer")] if layers else []),
        counted(results, "result"),
        *_settings(comparison),
    ]


def _settings(comparison: Comparison) -> list[str]:
    told = (f"{change.name} {inline(change.old)} -> {inline(change.new)}" for change in comparison.settings)
    differ = ", ".join(told)
    return [f"settings differ: {differ}"] if differ else []


def _against(report: Report, comparison: Comparison) -> list[str]:
    fresh, better = len(report.findings), len(comparison.improvements)
    return [
        f"{inline(comparison.old)}: {counted(fresh, 'finding')} new or worse",
        *([f"{better} gone or better"] if better else []),
        *_settings(comparison),
    ]


# ------------------------------------------------------------------------------------------------ the changes


def _regressions(report: Report, changes: Sequence[Change], width: int, told: Told) -> Lines:
    """Return what is new or worse, the worst first: one paragraph a rule, with its fix."""
    fixes = {(f.rule, where(f), f.message): f.fix for f in report.findings}
    lines: Lines = []
    for group in _groups(changes):
        first = group[0]
        head = paragraph(_named(first), width=width, head=first.severity or "")
        lines += head + _told(group, width, told, messages=True)
        fix = fixes.get((first.rule or "", where(first), first.message), "")
        lines += paragraph(f"fix: {fix}", width=width, indent=2, hanging=2) if fix else []
    return lines


def _improvements(changes: Sequence[Change], width: int, told: Told) -> Lines:
    """Return what is gone or better, in short: one paragraph a rule, the figures that moved in place of messages."""
    lines: Lines = []
    for group in _groups(changes):
        first = group[0]
        text = " ".join(filter(None, (first.severity if first.rule else None, first.rule or "verdict")))
        lines += paragraph(text, width=width, head=first.kind) + _told(group, width, told, messages=False)
    return lines


def _groups(changes: Iterable[Change]) -> list[list[Change]]:
    """Return the changes of one kind, rule and severity together, in the order of the first of each."""
    groups: dict[tuple[str | None, ...], list[Change]] = {}
    for change in changes:
        groups.setdefault((change.severity, change.rule, change.kind), []).append(change)
    return list(groups.values())


def _told(group: Sequence[Change], width: int, told: Told, *, messages: bool) -> Lines:
    """Return each change after its place; of many all places, and the worst of them."""
    some, lines = group, []
    if len(group) > _FEW:
        some, lines = group[:1], paragraph(_places(group, 2 * width - 40), width=width, indent=2, hanging=2)
    for change in some:
        place = where(change)
        fresh = [item for item in change.figures if (place, item) not in told]
        told.update((place, item) for item in fresh)
        figures = ", ".join(map(before_and_after, fresh))
        begin = f"worst {place}" if len(group) > _FEW else place
        if (messages and change.rule) or not figures:
            lines += paragraph(f"{begin}: {change.message}", width=width, indent=2, hanging=2)
            lines += paragraph(figures, width=width, indent=4, hanging=2) if figures else []
        else:
            lines += paragraph(f"{begin}: {figures}", width=width, indent=2, hanging=2)
    return lines


def _places(group: Sequence[Change], budget: int) -> str:
    """Return the layers of some changes, as many as the budget has room for, and what they were computed with."""
    layers = distinct(change.layer for change in group if change.layer)
    kernels = ran(group)
    if not layers:
        return kernels
    return f"{counted(len(layers), 'layer')}{f' ({kernels})' if kernels else ''}: {listed(layers, budget)}"


def before_and_after(change: FigureChange) -> str:
    """Return a figure before and after: ``headroom 4.99 bits -> 1.2 bits``."""
    old, new = (_value(value, change) for value in (change.old, change.new))
    return f"{_WORDS.get(change.name, change.name)} {old} -> {new}"


def _value(value: float | str | None, change: FigureChange) -> str:
    if value is None:
        return "none" if change.name == "safe_scale.high" else ABSENT
    if isinstance(value, str):
        return value
    shown = count(int(value)) if float(value).is_integer() else figure(value)
    return f"{shown} bits" if change.unit == "bits" else shown


# ---------------------------------------------------------------------------------------- beside the changes


def _beside(comparison: Comparison, width: int) -> list[Lines]:
    """Return what only one of the reports analysed, and what changed in the view that nobody asked for."""
    texts = [
        _only(comparison.old, comparison.only_old, width),
        _only(comparison.new or "this run", comparison.only_new, width),
        _unasked(comparison.unasked),
    ]
    return [[line for text in texts if text for line in paragraph(text, width=width, hanging=2)]]


def _only(name: str, places: Sequence[str], width: int) -> str:
    if not places:
        return ""
    return f"only in {inline(name)}: {counted(len(places), 'place')}: {listed(places, 2 * width - 40)}"


def _unasked(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    kinds = Counter(change.kind for change in changes)
    told = ", ".join(f"{kinds[kind]} {kind}" for kind in (*_FOR_THE_WORSE, *_FOR_THE_BETTER) if kinds[kind])
    views = ", ".join(distinct(change.implementation for change in changes if change.implementation))
    worst = next((change for change in changes if change.kind in _FOR_THE_WORSE), None)
    example = f", the worst {where(worst)}: {_named(worst)}" if worst else ""
    return f"beside that, in the view that nobody asked for ({views}): {told}{example}"


def _verdict(comparison: Comparison, width: int) -> Lines:
    """Return in a sentence whether anything got worse, how much, and what is worst."""
    changes, better = comparison.regressions, len(comparison.improvements)
    rest = f"{better} gone or better, {comparison.unchanged} unchanged"
    if not changes:
        return paragraph(f"nothing got worse: {rest}", width=width, hanging=2, head="ok")
    counts = Counter(change.severity for change in changes)
    told = ", ".join(counted(counts[severity], severity) for severity in SEVERITIES if counts[severity])
    worst = changes[0]
    text = f"{told} new or worse, {rest}; the worst {where(worst)}: {_named(worst)}"
    return paragraph(text, width=width, hanging=2, head="worse")


def _named(change: Change) -> str:
    return f"{change.rule or 'verdict'} {change.kind}"
