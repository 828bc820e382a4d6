"""What stands under a model's table: the view not asked for, findings, advice, what was left out, and the verdict."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

from normcheck.render.figures import figure
from normcheck.render.findings import befell, fix_of, found_on, remedy, rule_of_three, told
from normcheck.render.folding import listed
from normcheck.render.groups import rank_of
from normcheck.render.layout import Lines, exact, paragraph
from normcheck.render.places import Shown, by_reason, counted, distinct, ran, verdicts, where, whole, worst_first
from normcheck.render.views import condition
from normcheck.render.views import unasked as is_unasked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from normcheck.render.folding import Names
    from normcheck.results import Finding, Report, Result

_FEW = 3
"""So many different messages are told one by one."""


# ------------------------------------------------------------------------------------- the view not asked for


def unasked(report: Report, names: Names, width: int) -> Lines:
    """Return how the layers fare where the runtime computes norms in the precision itself: a line each precision."""
    views: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in report.results:
        if not result.asked:
            views[result.implementation, result.precision].append(result)
    lines: Lines = []
    for results in views.values():
        text = f"{condition(results)}: {_fare(results, names)}"
        worst = worst_first(results)[0]
        if worst.verdict != "ok":
            found = [finding for finding in found_on(worst, report.findings) if finding.implementation]
            text += f"; worst {where(worst)}: {befell(Shown(worst), found)}"
        lines += paragraph(text, width=width, hanging=2)
    tried = [item.evidence for item in report.advice if not item.asked]
    lines += [line for text in tried if lines for line in paragraph(text, width=width, hanging=2)]
    shows = " or ".join(f"--implementation {name}" for name in distinct(view[0] for view in views))
    notes = sum(map(is_unasked(report), report.findings))
    besides = f", with {counted(notes, 'note')}" if notes else ""
    return lines + (paragraph(f"{shows} shows each layer{besides}", width=width, hanging=2) if lines else [])


def _fare(results: Iterable[Result], names: Names) -> str:
    """Return how many layers have which verdict, each its worst: ``12 of 53 layers unsafe, 3 degraded``."""
    counts = verdicts(results)
    (first, many), *others = counts.items()
    return ", ".join([f"{names.count(many)} {first}", *(f"{more} {verdict}" for verdict, more in others)])


def _told_findings(report: Report) -> list[Finding]:
    """Return the findings but those of the view not asked for, and those on what was skipped: they are told there."""
    is_elsewhere = is_unasked(report)
    skipped_names = {item.name for item in report.skipped}
    return [f for f in report.findings if not is_elsewhere(f) and (f.norm or f.layer not in skipped_names)]


# ------------------------------------------------------------------------------------------ findings and advice


def findings(report: Report, names: Names, width: int) -> Lines:
    """Return the findings, the worst first: one paragraph a rule and fix, layers told in at most two lines or so."""
    rank = rank_of(report)
    lines: Lines = []
    for (_, rule, fix), group in groupby(sorted(_told_findings(report), key=remedy), key=remedy):
        found = list(group)
        lines += paragraph(rule, width=width, head=found[0].severity)
        for text in _told(found, min(found, key=rank), names, 2 * width - 40):
            lines += paragraph(text, width=width, indent=2, hanging=2)
        lines += paragraph(f"fix: {fix}", width=width, indent=2, hanging=2) if fix else []
    return lines


def _told(found: Sequence[Finding], worst: Finding, names: Names, budget: int) -> list[str]:
    """Return each message after everything that it holds for; of many messages that of the worst layer alone."""
    alike: dict[tuple[str, str], list[Finding]] = {told(worst): []}
    for finding in found:
        alike.setdefault(told(finding), []).append(finding)
    if len(alike) <= _FEW:
        return [f"{_where(some, names, budget)}{step}: {message}" for (step, message), some in alike.items()]
    step, message = told(worst)
    return [_where(found, names, budget), f"worst {where(worst)}{step}: {message}"]


def _where(found: Sequence[Finding], names: Names, budget: int) -> str:
    """Return the layers of some findings, as many as the budget has room for, and what they were computed with."""
    if len(found) == 1:
        return where(found[0])
    layers = distinct(finding.layer for finding in found if finding.layer)
    kernels = f" ({ran(found)})" if ran(found) else ""
    if len(layers) <= 1:
        return f"{listed(layers, budget) if layers else 'the model'}{kernels}"
    every = len(layers) == names.total
    return f"{names.count(len(layers))}{kernels}" + ("" if every else f": {listed(layers, budget)}")


def advice(report: Report, width: int) -> list[Lines]:
    """Return what to change, each with the text to paste: its lines are exact, whatever the width.

    What only the view not asked for calls for is told there, in a line.
    """
    asked = [item for item in report.advice if item.asked]
    return [part for item in asked for part in _advised(item.title, item.layers, item.snippet, item.evidence, width)]


def _advised(title: str, layers: Sequence[str], snippet: str, evidence: str, width: int) -> list[Lines]:
    head = paragraph(title, width=width, hanging=2, head="advice")
    if layers:
        text = f"{counted(len(layers), 'layer')}: {listed(layers, 2 * width - 40)}"
        head += paragraph(text, width=width, indent=2, hanging=2)
    if evidence:
        head += paragraph(evidence, width=width, indent=2, hanging=2)
    return [head, exact(snippet)]


# ---------------------------------------------------------------------------------------------- what was left out


def skipped(report: Report, width: int) -> Lines:
    """Return what was not analysed, those of one reason together."""
    reasons = by_reason(report.skipped).items()
    texts = [f"skipped {listed(names, 2 * width - 40)}: {reason}" for reason, names in reasons]
    return [line for text in texts for line in paragraph(text, width=width, hanging=2)]


def unreadable(report: Report, width: int) -> Lines:
    """Return the files that could not be read, and why."""
    lines: Lines = []
    for item in report.unreadable:
        lines += paragraph(whole(item), width=width, hanging=2, head="unreadable")
    return lines


def unseen(asked: Sequence[Result], width: int) -> Lines:
    """Return what "no overflow" is worth: the rule of three, for the layer of which the fewest elements were run."""
    clean = [result.input.elements for result in asked if not result.overflow.count and result.input.elements]
    if not clean:
        return []
    low, high = min(clean), max(clean)
    seen = f"{low}" if low == high else f"{low} to {high}"
    text = (
        f"where no overflow was seen, {seen} elements a layer were run: with 95% confidence it strikes at most "
        f"{figure(rule_of_three(low))} of a layer's elements (3/N)"
    )
    return paragraph(text, width=width, hanging=2)


def verdict(report: Report, names: Names, width: int) -> Lines:
    """Return the verdict in a sentence: how many layers, the worst of them, what befell it, and the remedy."""
    asked = [result for result in report.results if result.asked]
    if not asked:
        why = "" if report.layers else ": no normalization layers were found"
        return paragraph(f"nothing was analysed{why}", width=width)
    (head, many), *others = verdicts(asked).items()
    worst = worst_first(asked)[0]
    found = found_on(worst, report.findings)
    serious = [finding for finding in found if finding.severity != "note"]
    advised = next((item.title for item in report.advice if item.asked and head != "ok"), fix_of(serious, report))
    counts = ", ".join([f"in {names.count(many)}", *(f"{other} in {more}" for other, more in others)])
    text = f"{counts}; worst {where(worst)}: {befell(Shown(worst), found)}; {advised}"
    return paragraph(text, width=width, hanging=2, head=head)
