"""What stands under the result table: findings, what was skipped, what was not seen, and the verdict."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from normcheck.render.figures import bits, figure, of
from normcheck.render.layout import Lines, paragraph
from normcheck.render.places import Shown, distinct, plural, where
from normcheck.results import SEVERITIES, Finding, Report, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

_RULE_OF_THREE = 3.0
"""0 events in N independent samples bound the rate by 3/N with 95 % confidence: (1 - 3/N)^N = 0.05."""


def findings(report: Report, width: int) -> Lines:
    """Return the findings, the worst first: one paragraph a rule and remedy, equal messages folded."""
    lines: Lines = []
    for (_, rule, fix), group in groupby(sorted(report.findings, key=_group), key=_group):
        found = list(group)
        lines += paragraph(rule, width=width, head=found[0].severity)
        for text in _messages(found):
            lines += paragraph(text, width=width, indent=2, hanging=2)
        lines += paragraph(f"fix: {fix}", width=width, indent=2, hanging=2) if fix else []
    return lines


def _group(finding: Finding) -> tuple[int, str, str]:
    return SEVERITIES.index(finding.severity), finding.rule, finding.fix


def _messages(found: list[Finding]) -> Iterator[str]:
    """Yield each message once, after everything that it holds for."""
    places: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        message = finding.message + (" [rests on an assumption]" if finding.assumed else "")
        step = "" if finding.step and message.startswith(finding.step) else _at(finding.step)
        places.setdefault((step, message), []).append(where(finding))
    for (step, message), names in places.items():
        yield f"{', '.join(distinct(names))}{step}: {message}"


def skipped(report: Report, width: int) -> Lines:
    """Return what was asked for and not analysed, and why."""
    texts = [f"skipped {item.name}: {item.reason}" for item in report.skipped]
    return [line for text in texts for line in paragraph(text, width=width, hanging=2)]


def unseen(shown: list[Shown], width: int) -> Lines:
    """Return what "no overflow" is worth: the rule of three, for elements and for rows."""
    clean = (item for item in shown if not item.result.overflow.count and item.result.rows.total)
    texts = distinct(map(_bound, clean))
    return [line for text in texts for line in paragraph(text, width=width, hanging=2)]


def _bound(shown: Shown) -> str:
    elements, rows = shown.result.input.elements, shown.result.rows.total
    seen = f"{elements} {plural('element', elements)} of {rows} {plural(shown.noun, rows)}"
    return (
        f"no overflow in {seen}: with 95% confidence it strikes at most "
        f"{figure(_RULE_OF_THREE / max(elements, 1))} of all elements (3/N) "
        f"and {figure(min(_RULE_OF_THREE / rows, 1.0))} of all {shown.noun}s"
    )


def verdict(report: Report, shown: list[Shown], width: int) -> Lines:
    """Return the verdict in a sentence: the worst result, what befell it at which step, and the remedy."""
    if not shown:
        return paragraph("nothing was analysed", width=width)
    worst, place = shown[0], where(shown[0].result)
    found = sorted((finding for finding in report.findings if where(finding) == place), key=_group)
    remedy = next((finding.fix for finding in found if finding.fix), "nothing to change")
    text = f"{place}: {_befell(worst, found)}; {remedy}"
    return paragraph(text, width=width, hanging=2, head=worst.result.verdict)


def _befell(shown: Shown, found: list[Finding]) -> str:
    """Return the worst row of a result, or the worst rules that fired on it, and how much room it has."""
    result = shown.result
    if result.worst_rows:
        row = result.worst_rows[0]
        bad = f"{of(result.rows.bad, result.rows.total)} {plural(shown.noun, result.rows.total)} bad"
        return f"{bad}, the worst {shown.noun} {row.index}: {row.kind}{_at(row.first_bad_step)}"
    worst = [f.rule + _at(f.step) for f in found if f.severity == found[0].severity and result.verdict != "ok"]
    return ", ".join([*dict.fromkeys(worst), _room(result)])


def _room(result: Result) -> str:
    room = result.headroom
    if room.overflow_bits is None:
        return "no step overflows at any scale"
    return " ".join(["headroom", *bits(room.overflow_bits, room.overflow_step)])


def _at(step: str | None) -> str:
    return f" at {step}" if step else ""
